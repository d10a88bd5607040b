//! The product as tests see it: what a command says, what runs, and what is left in the kernel.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use twinax::linux::nft::{NftOp, NftSocket};
use twinax_core::ruleset::{Datum, ElementId, Group, SetName, Value};

use crate::{
    harness::Outcome,
    sandbox::{Netns, Output, PATIENCE, Sandbox},
    tables, tests, wire,
};

/// A running container.
pub struct Inside {
    pub name: String,
    pub pid: u32,
    pub netns: Netns,
    /// By the order of attaching, IPv4 before IPv6 on each network.
    pub addrs: Vec<IpAddr>,
}

impl Inside {
    pub fn v4(&self) -> IpAddr {
        *self.addrs.iter().find(|addr| addr.is_ipv4()).expect("an IPv4 address")
    }

    pub fn v6(&self) -> IpAddr {
        *self.addrs.iter().find(|addr| addr.is_ipv6()).expect("an IPv6 address")
    }

    pub fn of(&self, v6: bool) -> Option<IpAddr> {
        self.addrs.iter().copied().find(|addr| addr.is_ipv6() == v6)
    }
}

impl Sandbox {
    /// Runs a command line that must succeed; words are separated by blanks.
    #[track_caller]
    pub fn done(&self, line: &str) -> String {
        let output = self.try_line(line);
        assert_eq!(output.code, Some(0), "twinax {line}\n{}{}", output.stdout, output.stderr);
        output.stdout
    }

    pub fn try_line(&self, line: &str) -> Output {
        self.twinax(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command line that must be refused, and returns the error.
    #[track_caller]
    pub fn refused(&self, line: &str) -> String {
        let output = self.try_line(line);
        assert_eq!(output.code, Some(1), "twinax {line}\n{}{}", output.stdout, output.stderr);
        assert!(output.stderr.starts_with("twinax: error: "), "twinax {line}\n{}", output.stderr);
        output.stderr
    }

    #[track_caller]
    pub fn json(&self, line: &str) -> Json {
        let text = self.done(&format!("{line} --json"));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line}: {error}: {text}"))
    }

    /// Runs a container in the background that answers on TCP port 7 until it is stopped.
    #[track_caller]
    pub fn start(&self, name: &str, options: &str) -> Inside {
        let twinax = env!("CARGO_BIN_EXE_twinax");
        self.done(&format!("run -d --name {name} {options} -- {twinax} demo echo --tcp --port 7"));
        let inside = self.inside(name);
        // Local port 7, state LISTEN (include/net/tcp_states.h).
        let listens = |line: &str| line.contains(":0007 ") && line.contains(" 0A ");
        soon("the container listens", || {
            ["tcp", "tcp6"].iter().any(|table| {
                let table = fs::read_to_string(format!("/proc/{}/net/{table}", inside.pid));
                table.unwrap_or_default().lines().any(listens)
            })
        });
        inside
    }

    /// The same on another port, where the namespace is shared; returns its process.
    #[track_caller]
    pub fn start_with(&self, name: &str, options: &str, port: u16) -> u32 {
        let twinax = env!("CARGO_BIN_EXE_twinax");
        self.done(&format!(
            "run -d --name {name} {options} -- {twinax} demo echo --tcp --port {port}"
        ));
        self.row(name)["pid"].as_u64().unwrap() as u32
    }

    /// Does everything once, so that what is kept for good is there: later, nothing more may stay.
    pub fn warm(&self) {
        let before = (processes(), links());
        self.done("network create --ipv6 warm");
        self.start("warm", "--network warm,alias=x -p 9999:80");
        self.done("rm -f warm");
        self.done("network rm warm");
        // The kernel takes a cable away a moment after the namespace that it led into.
        soon("the forwarder and the cable are gone", || (processes(), links()) == before);
    }

    /// Looks up a container that runs.
    #[track_caller]
    pub fn inside(&self, name: &str) -> Inside {
        let row = self.row(name);
        let pid = row["pid"].as_u64().unwrap_or_else(|| panic!("{name} has no pid: {row}")) as u32;
        let addrs = row["networks"].as_array().unwrap().iter();
        let addrs = addrs.flat_map(|end| end["addresses"].as_array().unwrap());
        Inside {
            name: name.to_owned(),
            pid,
            netns: Netns::of_process(pid).unwrap(),
            addrs: addrs.map(|addr| addr.as_str().unwrap().parse().unwrap()).collect(),
        }
    }

    /// What `ps --all --json` says of a container.
    #[track_caller]
    pub fn row(&self, name: &str) -> Json {
        let all = self.json("ps --all");
        let rows = all["containers"].as_array().unwrap();
        let row = rows.iter().find(|row| row["name"] == name);
        row.unwrap_or_else(|| panic!("no container {name}: {all}")).clone()
    }

    /// What `network inspect --json` says of a network.
    #[track_caller]
    pub fn network(&self, name: &str) -> Json {
        self.json(&format!("network inspect {name}"))["networks"][0].clone()
    }

    /// The gateway addresses of a network.
    #[track_caller]
    pub fn gateways(&self, name: &str) -> Vec<IpAddr> {
        let network = self.network(name);
        let subnets = network["subnets"].as_array().unwrap().iter();
        subnets.map(|subnet| subnet["gateway"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// Fails unless `check` finds the kernel as promised.
    #[track_caller]
    pub fn whole(&self) {
        let output = self.try_line("check");
        assert_eq!(output.code, Some(0), "check:\n{}{}", output.stdout, output.stderr);
    }
}

/// Starts servers, tcp and udp, that tell each client its address, for as long as the test runs.
/// They hold the namespace open.
pub fn answer(netns: &Netns, at: SocketAddr) {
    let (listener, socket) = netns.run(|| (TcpListener::bind(at), UdpSocket::bind(at)));
    let (listener, socket) = (listener.expect("a free address"), socket.expect("a free address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            thread::spawn(move || {
                let client = stream.peer_addr().map(|client| format!("{client}\n"));
                drop(stream.set_read_timeout(Some(PATIENCE)));
                // Closing with the question unread would reset the connection under the answer.
                drop(stream.read(&mut [0; 2]));
                drop(client.and_then(|client| stream.write_all(client.as_bytes())));
            });
        }
    });
    thread::spawn(move || {
        let mut question = [0; 2048];
        while let Ok((_, client)) = socket.recv_from(&mut question) {
            drop(socket.send_to(format!("{client}\n").as_bytes(), client));
        }
    });
}

/// Waits until `holds` says yes.
#[track_caller]
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The names of the links of the calling thread's namespace.
pub fn links() -> BTreeSet<String> {
    let text = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names = text.lines().skip(2).filter_map(|line| line.split(':').next());
    names.map(|name| name.trim().to_owned()).collect()
}

/// All that Twinax can leave behind on this host, as text to compare: links, addresses, routes,
/// neighbours, elements of its tables, switches, mounts, files and processes.
///
/// Of files only the names are told, and what keeps counting is left out.
pub fn traces() -> String {
    let mut text = String::new();
    let net = Path::new("/proc/thread-self/net");
    for name in links() {
        _ = writeln!(text, "link {name}");
    }
    columns(&mut text, "addr6", &net.join("if_inet6"), &[5, 0, 2]);
    columns(&mut text, "route4", &net.join("route"), &[0, 1, 7, 2]);
    columns(&mut text, "route6", &net.join("ipv6_route"), &[9, 0, 1, 4]);
    columns(&mut text, "neighbour", &net.join("arp"), &[5, 0, 3]);
    let trie = fs::read_to_string(net.join("fib_trie")).unwrap();
    let mut last = "";
    let mut locals = BTreeSet::new();
    for line in trie.lines() {
        if line.contains("/32 host LOCAL") {
            locals.insert(last.trim().trim_start_matches("|-- ").to_owned());
        }
        last = line;
    }
    for local in locals {
        _ = writeln!(text, "addr4 {local}");
    }
    text.push_str(&tables::elements().unwrap());
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/route_localnet"] {
        let value = fs::read_to_string(Path::new("/proc/sys/net").join(switch)).unwrap();
        _ = writeln!(text, "sysctl {switch} {}", value.trim());
    }
    columns(&mut text, "mount", Path::new("/proc/self/mountinfo"), &[4, 3]);
    for place in ["/run", "/tmp", "/var/lib"] {
        files(&mut text, Path::new(place));
    }
    for command in processes() {
        _ = writeln!(text, "process {command}");
    }
    text
}

/// The command lines of everything that runs here except the test and its pid 1.
pub fn processes() -> Vec<String> {
    let mut commands = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let pid: Option<u32> = entry.file_name().to_str().and_then(|name| name.parse().ok());
        let Some(pid) = pid.filter(|pid| *pid != 1 && *pid != std::process::id()) else { continue };
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // A zombie is the reaper's affair: pid 1 of the sandbox is not a fast one.
        if !stat.contains(") Z ") && !line.is_empty() {
            commands.push(format!("{} ({pid})", line.trim()));
        }
    }
    commands
}

fn columns(text: &mut String, kind: &str, path: &Path, wanted: &[usize]) {
    let mut lines: Vec<String> = Vec::new();
    for line in fs::read_to_string(path).unwrap_or_default().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let chosen: Vec<&str> = wanted.iter().filter_map(|n| words.get(*n).copied()).collect();
        // Built by the tests, and slow to settle (duplicate address detection).
        if !chosen.contains(&"uplink") {
            lines.push(format!("{kind} {}\n", chosen.join(" ")));
        }
    }
    lines.sort();
    text.extend(lines);
}

fn files(text: &mut String, dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        _ = writeln!(text, "file {}", path.display());
        if path.is_dir() && !path.is_symlink() {
            files(text, &path);
        }
    }
}

/// The lines by which two texts differ, for a message.
pub fn difference(before: &str, after: &str) -> String {
    let (a, b): (BTreeSet<_>, BTreeSet<_>) = (before.lines().collect(), after.lines().collect());
    let gone = a.difference(&b).map(|line| format!("- {line}\n"));
    gone.chain(b.difference(&a).map(|line| format!("+ {line}\n"))).collect()
}

/// Fails unless all is as `before` within a moment: some processes end a little after the command.
#[track_caller]
pub fn left(before: &str, after: &str) {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let now = traces();
        if now == before {
            return;
        }
        let late = Instant::now() > deadline;
        assert!(!late, "after {after}:\n{}", difference(before, &now));
        thread::sleep(Duration::from_millis(10));
    }
}

/// Reads one line of a running program.
pub fn first_line(source: impl Read) -> String {
    let mut line = String::new();
    drop(BufReader::new(source).read_line(&mut line));
    line
}

tests![traces_show_each_thing_left_behind];

/// What the tests that say "nothing is left" rest on.
fn traces_show_each_thing_left_behind(_: &mut Sandbox) -> Outcome {
    let addr = "10.1.0.1".parse().unwrap();
    let mut before = traces();
    let mut shows = |what: &str, did: &dyn Fn()| {
        did();
        let now = traces();
        assert!(difference(&before, &now).contains(what), "{what}:\n{}", difference(&before, &now));
        before = now;
    };
    shows("+ link x1", &|| wire::add_bridge("x1").unwrap());
    shows("+ addr4 10.1.0.1", &|| wire::add_addr("x1", addr, 24).unwrap());
    shows("- addr4 10.1.0.1", &|| wire::del_addr("x1", addr, 24).unwrap());
    shows("+ addr6 x1 fd00", &|| wire::add_addr("x1", "fd00::1".parse().unwrap(), 64).unwrap());
    shows("+ route6 x1 fd00", &|| wire::set_up("x1").unwrap());
    shows("+ file /run/x", &|| fs::write("/run/x", "").unwrap());
    shows("+ mount /run/x", &|| rustix::mount::mount_bind("/proc/self/ns/net", "/run/x").unwrap());
    shows("+ sysctl ipv4/ip_forward 1", &|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap()
    });
    shows("+ process /bin/sh", &|| {
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", "read x"]).stdin(Stdio::piped()).spawn().unwrap();
        // Ends with the sandbox.
        Box::leak(Box::new(shell));
        // The kernel lets the parent go on just before the arguments are in place.
        soon("the shell runs", || processes().iter().any(|line| line.starts_with("/bin/sh")));
    });
    shows("+ element inet ours", &|| {
        let id = ElementId { set: SetName::Ours, key: vec![Datum::Group(Group(7))] };
        let add = NftOp::Add { id: &id, value: &Value::None, comment: "" };
        NftSocket::open().unwrap().transact(&[NftOp::PutTables, add]).unwrap();
    });
    tables::flush_chain("forward").unwrap();
    shows("- table bridge twinax", &|| tables::delete_tables().unwrap());
    shows("- link x1", &|| wire::del_link("x1").unwrap());
    Outcome::Passed
}
