//! The real binary killed at random moments: the next command makes everything whole again.

use std::{
    collections::BTreeSet,
    fs,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{self, Outcome},
    product::{difference, links, processes, soon, traces},
    sandbox::{Reach, Sandbox, Talk},
    tests,
};

tests![
    killed_while_running_and_removing,
    killed_while_connecting,
    killed_while_publishing,
    killed_while_a_lab_goes_up_and_down,
    a_supervisor_killed,
    an_end_promised_is_kept,
    the_forwarder_killed,
    the_forwarder_killed_while_ports_change,
];

/// How many commands each of the tests kills; `TWINAX_TRIALS` says otherwise.
const KILLS: usize = 15;
const LAB: &str = "
[network.lab1]
ipv6 = true
[network.lab2]
internal = true
[container.l1]
networks = [\"lab1\", \"lab2\"]
ports = [\"9001:80\", \"9001:80/udp\"]
run = [\"twinax\", \"demo\", \"kv\", \"--port\", \"80\"]
[container.l2]
networks = [\"lab2\"]
depends = [\"l1\"]
run = [\"twinax\", \"demo\", \"kv\", \"--port\", \"80\"]
";

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

fn killed_while_running_and_removing(sandbox: &mut Sandbox) -> Outcome {
    let before = undisturbed(sandbox);
    let twinax = env!("CARGO_BIN_EXE_twinax");
    let run = |name: &str| {
        format!(
            "run -d --name {name} --network web,alias=x --network edge -p 127.0.0.1::80 -p 80/udp \
             --dns 192.0.2.53 -- {twinax} demo kv --port 80"
        )
    };
    let lines = [run("c1"), run("c2"), "rm -f c1".to_owned(), "stop -t 0 c2".to_owned()];
    torment(sandbox, (11, &before), &lines, &["c1", "c2"])
}

fn killed_while_connecting(sandbox: &mut Sandbox) -> Outcome {
    let before = undisturbed(sandbox);
    sandbox.done("network create --ipv6 web");
    for name in ["c1", "c2"] {
        sandbox.start(name, "--network none");
    }
    let mut lines = Vec::new();
    for name in ["c1", "c2"] {
        for network in ["web", "edge"] {
            lines.push(format!("network connect {network} {name}"));
            lines.push(format!("network disconnect {network} {name}"));
        }
    }
    lines.push("network create --ipv6 --internal third".to_owned());
    lines.push("network rm third".to_owned());
    torment(sandbox, (22, &before), &lines, &["c1", "c2", "third"])
}

fn killed_while_publishing(sandbox: &mut Sandbox) -> Outcome {
    let before = undisturbed(sandbox);
    sandbox.done("network create --ipv6 web");
    sandbox.start("c1", "--network web");
    let mut lines = Vec::new();
    for port in ["8080:80", "8081:81/udp", "127.0.0.1:8082:82", "8083-8086:83-86"] {
        lines.push(format!("publish c1 {port}"));
        lines.push(format!("unpublish c1 {port}"));
    }
    torment(sandbox, (33, &before), &lines, &["c1"])
}

fn killed_while_a_lab_goes_up_and_down(sandbox: &mut Sandbox) -> Outcome {
    let before = undisturbed(sandbox);
    let lines = ["up /run/tmp/lab.toml".to_owned(), "down /run/tmp/lab.toml".to_owned()];
    torment(sandbox, (44, &before), &lines, &["l1", "l2", "lab1", "lab2"])
}

/// Kills commands at random moments, demands consistency after each, and at the end that the
/// removal of all that is `named` leaves nothing.
fn torment(
    sandbox: &Sandbox,
    (seed, before): (u64, &str),
    lines: &[String],
    named: &[&str],
) -> Outcome {
    let given = std::env::var("TWINAX_SEED").ok().and_then(|seed| seed.parse().ok());
    let kills = harness::trials(KILLS);
    let seed = given.unwrap_or(seed);
    println!("TWINAX_SEED={seed}");
    let mut chance = Chance(seed);
    for network in ["web", "edge"] {
        let driver = if network == "edge" { "routed" } else { "bridge" };
        sandbox.done(&format!("network create --ipv6 --driver {driver} {network}"));
    }
    // How long the commands take here, unhurried; most moments should lie within.
    let started = Instant::now();
    drop(sandbox.try_line(&lines[0]));
    let mut span = started.elapsed().max(Duration::from_millis(4));
    for n in 0..kills {
        let line = &lines[chance.below(lines.len() as u64) as usize];
        let after = span.mul_f64(chance.below(1000) as f64 / 1000.0);
        println!("kill {n}: {line}, after {after:?}");
        let started = Instant::now();
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = sandbox.command(&words);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(after);
        if child.try_wait().unwrap().is_some() {
            span = (span + started.elapsed()) / 2;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        sandbox.done("repair");
        sandbox.whole();
        consistent(sandbox);
    }
    forget(sandbox, named, before);
    Outcome::Passed
}

/// What Twinax says there is, is there, and nothing else.
#[track_caller]
fn consistent(sandbox: &Sandbox) {
    let rows = sandbox.json("ps --all");
    let mut ends = BTreeSet::new();
    let mut addrs = BTreeSet::new();
    for row in rows["containers"].as_array().unwrap() {
        for end in row["networks"].as_array().unwrap() {
            ends.insert(end["host_interface"].as_str().unwrap().to_owned());
            for addr in end["addresses"].as_array().unwrap() {
                assert!(addrs.insert(addr.to_string()), "{addr} twice: {rows}");
            }
        }
        if let Some(pid) = row["pid"].as_u64() {
            assert!(fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} is gone: {rows}");
        }
    }
    let cables = || -> BTreeSet<String> {
        links().into_iter().filter(|link| link.starts_with("txv")).collect()
    };
    // The kernel takes a cable away a moment after its namespace.
    let deadline = Instant::now() + Duration::from_secs(2);
    while cables() != ends {
        assert!(Instant::now() < deadline, "cables {:?} for {ends:?}", cables());
        thread::sleep(Duration::from_millis(5));
    }
}

fn forget(sandbox: &Sandbox, named: &[&str], before: &str) {
    for name in named {
        drop(sandbox.try_line(&format!("rm -f {name}")));
    }
    for name in named.iter().chain(&["web", "edge"]) {
        drop(sandbox.try_line(&format!("network rm {name}")));
    }
    let rows = (sandbox.json("ps --all"), sandbox.json("network ls"));
    assert_eq!(rows.0["containers"], serde_json::json!([]));
    soon("no process is left", || processes().is_empty());
    // The kernel takes a cable away a moment after its namespace.
    soon("no cable is left", || !links().iter().any(|link| link.starts_with("txv")));
    let left = traces();
    let ours = |line: &&str| {
        ["link tx", "table ", "element ", "mount "].iter().any(|start| line.starts_with(start))
            && (line.contains("tx") || line.contains("twinax"))
    };
    let left: Vec<&str> = left.lines().filter(ours).collect();
    assert!(left.iter().all(|line| line.contains("target")), "{left:#?}");
    // A round that nobody disturbed has left the same files.
    let now = files();
    assert!(now == before, "{}", difference(before, &now));
}

/// The files that stay once everything was done and undone.
fn undisturbed(sandbox: &Sandbox) -> String {
    sandbox.warm();
    fs::write("/run/tmp/lab.toml", LAB).unwrap();
    files()
}

fn files() -> String {
    let traces = traces();
    let files = traces.lines().filter(|line| line.starts_with("file "));
    files.map(|line| format!("{line}\n")).collect()
}

fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    rest.split(' ').nth(1).unwrap().parse().unwrap()
}

fn kill(pid: u32) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
}

fn a_supervisor_killed(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --ipv6 web");
    let stays = sandbox.start("stays", "--network web");
    let c = sandbox.start("c", "--network web -p 8080:80");
    let supervisor = parent(c.pid);
    assert_ne!(supervisor, 1, "a container has a supervisor");
    let pid = c.pid;
    drop(c);
    kill(supervisor);
    // Whatever became of it, the next commands know, and can clear it away.
    sandbox.done("ps");
    sandbox.done("repair");
    sandbox.whole();
    let row = sandbox.row("c");
    let alive = fs::exists(format!("/proc/{pid}")).unwrap();
    assert_eq!(row["status"] == "running", alive, "{row}");
    sandbox.done("rm -f c");
    soon("its processes are gone", || !fs::exists(format!("/proc/{pid}")).unwrap());
    consistent(sandbox);
    // Others are not concerned.
    let again = sandbox.start("again", "--network web -p 8080:80");
    assert_eq!(again.netns.ask(Talk::Tcp, (stays.v4(), 7).into()), Reach::Reached(again.v4()));
    Outcome::Passed
}

/// As if `rm -f` had died between its promise and the kill.
fn an_end_promised_is_kept(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    for line in ["ps", "repair", "stop c", "rm c", "rm -f c"] {
        let pid = sandbox.start("c", "--network none").pid;
        let record = fs::read_dir("/run/twinax")
            .unwrap()
            .map(|dir| dir.unwrap().path().join("containers/c/record.json"))
            .find(|path| path.exists())
            .unwrap();
        let text = fs::read_to_string(&record).unwrap();
        assert!(text.contains("\"running\""), "{text}");
        fs::write(&record, text.replace("\"running\"", "\"ending\"")).unwrap();
        for refused in ["exec c -- /bin/sh -c :", "network connect web c", "publish c 80"] {
            sandbox.refused(refused);
        }
        sandbox.done(line);
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{line} leaves it");
        if !line.starts_with("rm") {
            assert_eq!(sandbox.row("c")["status"], "exited", "{line}");
            sandbox.done("rm c");
        }
        sandbox.whole();
    }
    Outcome::Passed
}

fn the_forwarder_killed(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let c = sandbox.start("c", "--network web -p 8080:7");
    let target = "127.0.0.1:8080".parse().unwrap();
    assert!(matches!(sandbox.host().ask(Talk::Tcp, target), Reach::Reached(_)));
    let listening = listener(8080).expect("somebody listens on the host's loopback");
    assert_ne!(listening, c.pid);
    kill(listening);
    soon("nobody listens", || sandbox.host().ask(Talk::Tcp, target) == Reach::Refused);
    sandbox.done("ps");
    soon("the forwarder is back", || {
        matches!(sandbox.host().ask(Talk::Tcp, target), Reach::Reached(_))
    });
    sandbox.whole();
    Outcome::Passed
}

/// The process that listens on a tcp port of this host's 127.0.0.1.
fn listener(port: u16) -> Option<u32> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").unwrap();
    let here = format!("0100007F:{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // State 0A is LISTEN (include/net/tcp_states.h).
    let row = rows.into_iter().find(|row| row[1] == here && row[3] == "0A")?;
    let socket = format!("socket:[{}]", row[9]);
    let own = |pid: &u32| {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
        open.flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == socket.as_str()))
    };
    let pids = fs::read_dir("/proc").unwrap().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(own)
}

/// Commands that meet a forwarder just as it dies do what they are asked, and others' ports are
/// served on.
fn the_forwarder_killed_while_ports_change(sandbox: &mut Sandbox) -> Outcome {
    sandbox.start("one", "-p 8081:7");
    sandbox.start("two", "-p 8083:7");
    for _ in 0..harness::trials(KILLS) {
        sandbox.done("publish one 8084:7");
        let forwarder = processes().into_iter().find(|line| line.contains("--forwarder"));
        let forwarder = forwarder.expect("ports are published");
        let pid = forwarder.rsplit_once('(').unwrap().1.trim_end_matches(')').parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        sandbox.done("unpublish one 8084:7");
        for port in [8081, 8083] {
            let reach = sandbox.host().ask(Talk::Tcp, ([127, 0, 0, 1], port).into());
            assert!(matches!(reach, Reach::Reached(_)), "{port}: {reach:?}");
        }
        sandbox.whole();
    }
    Outcome::Passed
}
