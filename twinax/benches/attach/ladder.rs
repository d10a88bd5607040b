//! The rows that share a host: floor, engine, command and script, with so many attached before.
//!
//! Samples are taken in rounds, one of each row, the floor and the engine in turns first. What a
//! sample attached is taken away, and waited for, before the next: every one meets the same host.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use twinax::linux::nft::{NftOp, NftSocket};
use twinax_core::{name::ContainerName, ruleset::GROUP_BASE};

use crate::{
    Options,
    engine::{self, Engine, Facts},
    floor::{self, Cable, Floor, STEPS},
    peers::{self, Script},
    sandbox,
    table::{missing_line, note_line, sample_line},
    timed::ASKED,
};

/// The network as the floor makes it where no engine has.
const BRIDGE: &str = "tx-bench";
const GATEWAY: [u8; 4] = [172, 16, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0x74, 172, 16, 0, 1];
/// Numbers of the floor's cables begin here, those of the engine at 1.
const FLOOR_NUMBERS: u32 = 1_000_000;
const FLOOR_PORTS: u32 = 40_000;
const ENGINE_PORTS: u32 = 20_000;
/// A command takes so much longer than an attach that fewer tell as much.
const SCRIPT_SAMPLES: usize = 20;

/// Measures rows `a` to `d` with `size` containers attached, and reports.
pub fn run(options: &Options, size: u32) -> io::Result<()> {
    let mut host = Host::new(options)?;
    host.prefill(size)?;
    let mut rows = Rows::default();
    for round in 0..options.pairs {
        host.round(options, round, &mut rows)?;
    }
    if options.wants('b') && host.engine.is_ok() {
        host.profile(options.pairs.min(SCRIPT_SAMPLES), &mut rows)?;
        let removed = host.removals(options.pairs.min(SCRIPT_SAMPLES), &mut rows);
        removed.unwrap_or_else(|error| rows.lacks("b-", error.to_string()));
    }
    if options.wants('c') && host.engine.is_ok() {
        host.weigh(size)?;
    }
    rows.report(size, &host);
    Ok(())
}

/// Takes away what a row has attached, when its namespace has gone.
type Undo = Box<dyn FnOnce(&mut Host) -> io::Result<()>>;

/// Where the time of one attach went.
type Profile = Vec<(&'static str, Duration)>;

#[derive(Default)]
struct Rows {
    took: Vec<(&'static str, Vec<Duration>)>,
    steps: Vec<Profile>,
    asked: Vec<Profile>,
    ended: Vec<Profile>,
    missing: Vec<(&'static str, String)>,
}

impl Rows {
    fn add(&mut self, row: &'static str, took: Duration) {
        match self.took.iter_mut().find(|(name, _)| *name == row) {
            Some((_, all)) => all.push(took),
            None => self.took.push((row, vec![took])),
        }
    }

    fn lacks(&mut self, row: &'static str, why: String) {
        if !self.missing.iter().any(|(name, _)| *name == row) {
            self.missing.push((row, why));
        }
    }

    fn report(&self, size: u32, host: &Host) {
        for (row, took) in &self.took {
            println!("{}", sample_line(row, size, took));
        }
        for (row, why) in &self.missing {
            println!("{}", missing_line(row, size, why));
        }
        if let Some(first) = host.first {
            println!("{}", sample_line("b1", 0, &[first]));
        }
        let profiles =
            [("floor", &self.steps), ("engine", &self.asked), ("engine's removal", &self.ended)];
        for (what, steps) in profiles {
            let names = steps.first().into_iter().flatten().map(|(name, _)| *name);
            let medians = names.enumerate().map(|(step, name)| {
                let mut took: Vec<_> = steps.iter().map(|steps| steps[step].1).collect();
                took.sort();
                format!("{name} {}", took[took.len() / 2].as_micros())
            });
            let medians = medians.collect::<Vec<_>>().join(", ");
            if !medians.is_empty() {
                let line = format!("{what} with {size} attached, by steps, in µs: {medians}");
                println!("{}", note_line(&line));
            }
        }
    }
}

/// The host's side of a sandbox, and all that attaches to it.
struct Host {
    floor: Floor,
    engine: Result<Engine, String>,
    script: Result<Script, String>,
    bridge: u32,
    facts: Facts,
    /// How many cables were made beside the engine's.
    made: u32,
    /// Namespaces are never given the name of another.
    namespaces: u32,
    first: Option<Duration>,
}

impl Host {
    fn new(options: &Options) -> io::Result<Self> {
        let mut floor = Floor::open()?;
        floor.loopback_up()?;
        let mut engine = match options.without_engine {
            true => Err("left out".to_owned()),
            false => Engine::open(),
        };
        let mut first = None;
        let mut namespaces = 0;
        let facts = match &mut engine {
            // The first attach makes the network too.
            Ok(engine) => {
                let netns = new_netns(&mut namespaces)?;
                let started = Instant::now();
                let chosen = engine.attach(engine::at(&netns), ENGINE_PORTS as u16);
                first = Some(started.elapsed());
                chosen.map_err(io::Error::other)?.facts()
            }
            Err(_) => {
                let mut nft = NftSocket::open().map_err(io::Error::other)?;
                nft.transact(&[NftOp::PutTables]).map_err(io::Error::other)?;
                floor.bridge(BRIDGE, GATEWAY_MAC, (GATEWAY, 22))?;
                Facts { bridge: BRIDGE.to_owned(), group: GROUP_BASE + 1, mtu: 1500 }
            }
        };
        let bridge = floor.index_of(&facts.bridge)?;
        let script = Script::new(&facts.bridge);
        Ok(Self { floor, engine, script, bridge, facts, made: 0, namespaces, first })
    }

    /// What the next cable made here is to be.
    fn cable(&mut self) -> Cable {
        self.made += 1;
        let made = self.made;
        let number = FLOOR_NUMBERS + made;
        let [a, b, c, d] = number.to_be_bytes();
        let addr = [10, 78, (made >> 8) as u8, made as u8];
        let [w, x, y, z] = addr;
        Cable {
            container: format!("c{made:011}"),
            number,
            alias: format!("twinax default/c{made:011} eth0"),
            bridge: self.bridge,
            bridge_name: self.facts.bridge.clone(),
            group: self.facts.group,
            mtu: self.facts.mtu,
            mac: [2, 0x74, w, x, y, z],
            host_mac: [0x0a, 0x74, a, b, c, d],
            addr,
            prefix: 16,
            gateway: [10, 78, 255, 254],
            gateway_mac: [2, 0x74, 10, 78, 255, 254],
            host_port: (FLOOR_PORTS + made % 20_000) as u16,
            port: 80,
        }
    }

    /// Attaches so many that stay.
    fn prefill(&mut self, size: u32) -> io::Result<()> {
        let there = u32::from(self.engine.is_ok());
        for number in there..size {
            let netns = new_netns(&mut self.namespaces)?;
            match &mut self.engine {
                Ok(engine) => {
                    let port = (ENGINE_PORTS + number) as u16;
                    engine.attach(engine::at(&netns), port).map_err(io::Error::other)?;
                }
                Err(_) => {
                    let cable = self.cable();
                    self.floor.attach(&cable, &netns)?;
                }
            }
        }
        Ok(())
    }

    fn round(&mut self, options: &Options, round: usize, rows: &mut Rows) -> io::Result<()> {
        let mut turn = vec!['a', 'b'];
        if round % 2 == 1 {
            turn.reverse();
        }
        turn.push('c');
        if round < SCRIPT_SAMPLES {
            turn.push('d');
        }
        for row in turn.into_iter().filter(|row| options.wants(*row)) {
            let before = links();
            let netns = new_netns(&mut self.namespaces)?;
            let undo = match row {
                'a' => self.floor_sample(&netns, rows)?,
                'b' => self.engine_sample(&netns, rows)?,
                'c' => self.command_sample(&netns, rows)?,
                _ => self.script_sample(&netns, rows)?,
            };
            floor::drop_netns(&netns)?;
            if let Some(undo) = undo {
                undo(self)?;
            }
            self.settle(before);
        }
        Ok(())
    }

    fn floor_sample(&mut self, netns: &Path, rows: &mut Rows) -> io::Result<Option<Undo>> {
        let cable = self.cable();
        let started = Instant::now();
        let steps = self.floor.attach(&cable, netns)?;
        rows.add("a", started.elapsed());
        rows.steps.push(STEPS.into_iter().zip(steps).collect());
        let started = Instant::now();
        self.floor.detach(&cable)?;
        rows.add("a-", started.elapsed());
        Ok(None)
    }

    fn engine_sample(&mut self, netns: &Path, rows: &mut Rows) -> io::Result<Option<Undo>> {
        let engine = match &mut self.engine {
            Ok(engine) => engine,
            Err(why) => {
                rows.lacks("b", why.clone());
                return Ok(None);
            }
        };
        let port = (ENGINE_PORTS + 2000) as u16;
        let way = engine::at(netns);
        let started = Instant::now();
        let chosen = engine.attach(way, port).map_err(io::Error::other)?;
        rows.add("b", started.elapsed());
        let started = Instant::now();
        engine.detach(chosen.name, port).map_err(io::Error::other)?;
        rows.add("b=", started.elapsed());
        Ok(None)
    }

    fn command_sample(&mut self, netns: &Path, rows: &mut Rows) -> io::Result<Option<Undo>> {
        if let Err(why) = &self.engine {
            rows.lacks("c", why.clone());
            return Ok(None);
        }
        let container = format!("netns:{}", netns.display());
        let publish = format!("{}:80", ENGINE_PORTS + 2001);
        let mut command = Command::new(sandbox::TWINAX);
        command.args(["network", "connect", "-p", &publish, "default", &container]);
        let started = Instant::now();
        peers::run(&mut command, b"")?;
        rows.add("c", started.elapsed());
        let name = engine::name_of(&engine::at(netns)).map_err(io::Error::other)?;
        Ok(Some(Box::new(move |host| match &mut host.engine {
            Ok(engine) => engine.remove(name).map_err(io::Error::other),
            Err(_) => Ok(()),
        })))
    }

    /// Reports the memory that one more attach by command takes.
    fn weigh(&mut self, size: u32) -> io::Result<()> {
        let netns = new_netns(&mut self.namespaces)?;
        let container = format!("netns:{}", netns.display());
        let publish = format!("{}:80", ENGINE_PORTS + 2003);
        let args = ["network", "connect", "-p", &publish, "default", &container];
        let bytes = sandbox::weigh(sandbox::TWINAX, &args)?;
        println!("{}", sample_line("m", size, &[Duration::from_nanos(bytes / 1024)]));
        Ok(())
    }

    fn script_sample(&mut self, netns: &Path, rows: &mut Rows) -> io::Result<Option<Undo>> {
        let cable = self.cable();
        let name = netns.file_name().unwrap_or_default().to_string_lossy();
        match &self.script {
            Ok(script) => {
                rows.add("d", script.attach(&cable, &name)?);
                // While the cable is there: it goes with the namespace.
                self.floor.detach(&cable)?;
            }
            Err(why) => rows.lacks("d", why.clone()),
        }
        Ok(None)
    }

    /// Attaches more with a clock at everything that the engine asks for.
    fn profile(&mut self, count: usize, rows: &mut Rows) -> io::Result<()> {
        for _ in 0..count {
            let Ok(engine) = &mut self.engine else { return Ok(()) };
            let before = links();
            let netns = new_netns(&mut self.namespaces)?;
            let port = (ENGINE_PORTS + 2000) as u16;
            let started = Instant::now();
            let profile = engine.profile(engine::at(&netns), port).map_err(io::Error::other)?;
            let took = started.elapsed();
            let (chosen, spent) = profile;
            let asked: Duration = spent.iter().sum();
            let mut profile: Profile = ASKED.into_iter().zip(spent).collect();
            profile.push(("thinking", took.saturating_sub(asked)));
            rows.asked.push(profile);
            floor::drop_netns(&netns)?;
            engine.remove(chosen.name).map_err(io::Error::other)?;
            self.settle(before);
        }
        Ok(())
    }

    /// Takes away containers that Twinax runs, whose namespace goes with them: in this process,
    /// up to where their end no longer matters to anybody else, and by command.
    fn removals(&mut self, count: usize, rows: &mut Rows) -> io::Result<()> {
        for number in 0..count {
            let before = links();
            let name = sleeper(&format!("ended{number}"))?;
            let Ok(engine) = &mut self.engine else { return Ok(()) };
            let processes = engine.processes(&name).map_err(io::Error::other)?;
            if number % 2 == 0 {
                let started = Instant::now();
                engine.end(name.clone()).map_err(io::Error::other)?;
                rows.add("b-", started.elapsed());
            } else {
                let started = Instant::now();
                let spent = engine.profile_end(name.clone()).map_err(io::Error::other)?;
                let took = started.elapsed();
                let asked: Duration = spent.iter().sum();
                let mut profile: Profile = ASKED.into_iter().zip(spent).collect();
                profile.push(("thinking", took.saturating_sub(asked)));
                rows.ended.push(profile);
            }
            // The supervisor first, which would be at the store when we are.
            for pid in processes {
                engine::end(pid).map_err(io::Error::other)?;
            }
            engine.remove(name).map_err(io::Error::other)?;
            self.settle(before);

            let before = links();
            let name = sleeper(&format!("removed{number}"))?;
            let started = Instant::now();
            peers::run(Command::new(sandbox::TWINAX).args(["rm", "-f", name.as_str()]), b"")?;
            rows.add("c-", started.elapsed());
            self.settle(before);
        }
        Ok(())
    }

    /// Waits until the kernel has taken away what was let go, and is quiet again.
    fn settle(&self, before: Option<usize>) {
        let patience = Instant::now() + Duration::from_secs(2);
        match before {
            Some(before) => {
                while links().is_some_and(|now| now > before) && Instant::now() < patience {
                    thread::sleep(Duration::from_millis(2));
                }
            }
            None => thread::sleep(Duration::from_millis(60)),
        }
        // The rest of a namespace goes after its links, and holds the same lock.
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs a container that waits to be taken away.
fn sleeper(name: &str) -> io::Result<ContainerName> {
    let publish = format!("{}:80", ENGINE_PORTS + 2002);
    let args = ["run", "-d", "--name", name, "-p", &publish, "--", "/bin/sleep", "600"];
    peers::run(Command::new(sandbox::TWINAX).args(args), b"")?;
    name.parse().map_err(io::Error::other)
}

/// How many links the host has; `None` where the kernel does not show them. (A port leaves its
/// bridge at once, its link only when the kernel comes to it.)
fn links() -> Option<usize> {
    fs::read_dir("/sys/class/net").ok().map(Iterator::count)
}

/// Makes a namespace under a name that no other had.
pub fn new_netns(made: &mut u32) -> io::Result<PathBuf> {
    *made += 1;
    let path = PathBuf::from(format!("/run/netns/n{made:05}"));
    floor::make_netns(&path)?;
    Ok(path)
}
