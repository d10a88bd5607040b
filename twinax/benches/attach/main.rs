//! What one more container costs: the floor, the engine, the command, and others, in one sitting.
//!
//! `cargo bench` prints the table; docs/benchmark.md says what each row is. Nothing here judges
//! by the clock: a cell that misses its aim is printed as missed.
#![allow(unreachable_pub, reason = "`pub` says what the parts may use; nothing is outside")]

mod engine;
mod figures;
mod floor;
mod ladder;
mod peers;
mod reference;
mod sandbox;
mod table;
mod timed;
mod verify;

use std::{
    env, io,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use peers::{Cni, Docker, Netavark, Peer};
use sandbox::Role;
use table::{Figures, missing_line, sample_line};

const USAGE: &str = "usage: cargo bench --bench attach -- [--sizes 1,100,1000] [--pairs 100] \
    [--only a,b,c,d,e,f] [--peers-full] [--docker] [--markdown] \
    [--verify] [--as-reference N]";

/// Peers with their own state, 500 of it, take minutes to prepare.
const PEERS_FULL: u32 = 500;
const PEER_SAMPLES: usize = 20;
const START_SAMPLES: usize = 100;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    sizes: Vec<u32>,
    /// How many of each of the quick rows.
    pairs: usize,
    only: Option<String>,
    peers_full: bool,
    docker: bool,
    markdown: bool,
    without_engine: bool,
    /// Compare the bytes of floor and engine, and nothing else.
    verify: bool,
    /// Attach so many as the reference does, and nothing else.
    as_reference: Option<u32>,
}

impl Options {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            sizes: vec![1, 100, 1000],
            pairs: 100,
            only: None,
            peers_full: false,
            docker: false,
            markdown: false,
            without_engine: false,
            verify: false,
            as_reference: None,
        };
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                vec![flag.to_owned(), value.to_owned()]
            }
            _ => vec![arg],
        });
        let number = |text: &str| text.parse().map_err(|_| format!("not a number: {text}"));
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--bench" => {}
                "--sizes" => {
                    options.sizes = value()?.split(',').map(number).collect::<Result<_, _>>()?;
                }
                "--pairs" => options.pairs = number(&value()?)?.max(1) as usize,
                "--only" => options.only = Some(value()?),
                "--peers-full" => options.peers_full = true,
                "--docker" => options.docker = true,
                "--markdown" => options.markdown = true,
                "--without-engine" => options.without_engine = true,
                "--verify" => options.verify = true,
                "--as-reference" => options.as_reference = Some(number(&value()?)?),
                _ => return Err(format!("unknown option {arg}")),
            }
        }
        match options.sizes.iter().find(|size| **size == 0 || **size > 1000) {
            // A bridge has 1,023 ports, and some are needed for the samples.
            Some(size) => Err(format!("{size} attached is not from 1 to 1000")),
            None => Ok(options),
        }
    }

    /// Whether a row is wanted, by its letter.
    pub fn wants(&self, row: char) -> bool {
        self.only.as_ref().is_none_or(|only| only.split(',').any(|one| one.starts_with(row)))
    }
}

fn main() -> ExitCode {
    // The engine starts its forwarder as the program that it runs in.
    let args: Vec<_> = env::args_os().skip(1).collect();
    if let Some(code) = twinax::act::role(&args) {
        return code;
    }
    if matches!(Role::own(), Role::Weigh) {
        return sandbox::weigh_here();
    }
    if args.is_empty() {
        // `cargo test --all-targets` runs benchmarks too, but does not ask for figures.
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("error: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match Role::own() {
        Role::Door => sandbox::door(),
        Role::Inside(part) => match sandbox::furnish().and_then(|()| inside(&options, &part)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {part}: {error}");
                ExitCode::FAILURE
            }
        },
        _ => run(&options),
    }
}

/// Runs the parts one after another and prints what they found.
fn run(options: &Options) -> ExitCode {
    let started = Instant::now();
    let mut figures = Figures::default();
    let mut failed = false;
    for part in parts(options) {
        eprintln!("{:>4} s  {part}", started.elapsed().as_secs());
        if let Err(error) = sandbox::run(&part, |line| figures.take(line)) {
            eprintln!("error: {error}");
            failed = true;
        }
    }
    if options.wants('g') && options.as_reference.is_none() && !options.verify {
        docker(options, &mut figures);
    }
    println!("{}\n", sandbox::machine());
    figures.aims();
    figures.print(options.markdown);
    ExitCode::from(u8::from(failed))
}

fn parts(options: &Options) -> Vec<String> {
    if let Some(count) = options.as_reference {
        return vec![format!("reference {count}")];
    }
    if options.verify {
        return vec!["verify 0".to_owned()];
    }
    let mut parts = Vec::new();
    if options.wants('c') {
        parts.push("start 0".to_owned());
    }
    if "abcd".chars().any(|row| options.wants(row)) {
        let mut sizes = options.sizes.clone();
        if options.peers_full && !sizes.contains(&PEERS_FULL) {
            sizes.push(PEERS_FULL);
            sizes.sort();
        }
        parts.extend(sizes.iter().map(|size| format!("ladder {size}")));
    }
    let sizes = if options.peers_full { &[0, PEERS_FULL][..] } else { &[0] };
    for (row, peer) in [('e', "netavark"), ('f', "cni")] {
        if options.wants(row) {
            parts.extend(sizes.iter().map(|size| format!("{peer} {size}")));
        }
    }
    parts
}

/// Measures one part, within its sandbox.
fn inside(options: &Options, part: &str) -> io::Result<()> {
    let (what, size) = part.split_once(' ').unwrap_or((part, "0"));
    let size = size.parse().unwrap_or(0);
    match what {
        "start" => start(),
        "ladder" => ladder::run(options, size),
        "netavark" => peer("e", size, Netavark::new()),
        "cni" => peer("f", size, Cni::new()),
        "verify" => verify::run(),
        "reference" => reference::run(size),
        _ => Err(io::Error::other("there is no such part")),
    }
}

/// How long a process takes that does nothing, ours and the smallest there is.
fn start() -> io::Result<()> {
    for (row, program, args) in
        [("v", sandbox::TWINAX, &["--version"][..]), ("t", "/bin/true", &[])]
    {
        let mut took = Vec::new();
        for _ in 0..START_SAMPLES {
            let started = Instant::now();
            peers::run(Command::new(program).args(args), b"")?;
            took.push(started.elapsed());
        }
        println!("{}", sample_line(row, 0, &took));
    }
    Ok(())
}

/// Measures a peer with `size` containers that it attached itself.
fn peer(row: &str, size: u32, peer: Result<impl Peer, String>) -> io::Result<()> {
    let mut peer = match peer {
        Ok(peer) => peer,
        Err(why) => {
            println!("{}", missing_line(row, size, &why));
            return Ok(());
        }
    };
    let mut namespaces = 0;
    let mut took: Vec<Duration> = Vec::new();
    floor::Floor::open()?.loopback_up()?;
    let outcome: io::Result<()> = (0..size).try_for_each(|number| {
        let netns = ladder::new_netns(&mut namespaces)?;
        peer.attach(number, &netns).map(drop)
    });
    let outcome = outcome.and_then(|()| {
        (size..size + PEER_SAMPLES as u32).try_for_each(|number| {
            let netns = ladder::new_netns(&mut namespaces)?;
            took.push(peer.attach(number, &netns)?);
            peer.detach(number, &netns)?;
            floor::drop_netns(&netns)
        })
    });
    match outcome {
        Ok(()) => println!("{}", sample_line(row, size, &took)),
        Err(error) if sandbox::outer_is_root() => return Err(error),
        Err(error) => {
            println!("{}", missing_line(row, size, &format!("needs root: {error}")));
        }
    }
    Ok(())
}

fn docker(options: &Options, figures: &mut Figures) {
    let samples = match options.docker {
        false => Err("acts on the real dockerd: ask for it with --docker".to_owned()),
        true => Docker::new()
            .and_then(|docker| docker.samples(PEER_SAMPLES).map_err(|error| error.to_string())),
    };
    figures.take(&match samples {
        Ok(took) => sample_line("g", 0, &took),
        Err(why) => missing_line("g", 0, &why),
    });
}
