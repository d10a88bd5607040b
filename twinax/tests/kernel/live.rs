//! What changes is shown as it changes, and nothing is done while nothing does.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    net::UdpSocket,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Child, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcgetattr, tcsetwinsize},
};
use twinax::{
    live::{Live, Update},
    look::Depth,
};
use twinax_core::{model::Netns, rate::Rates, sight::Sight};

use crate::{
    harness::{self, Outcome},
    sandbox::{self, Sandbox},
    tests, wire,
};

tests![
    nothing_is_looked_at_while_nothing_changes,
    a_storm_is_looked_at_now_and_then,
    each_change_is_a_line,
    lines_are_json_if_asked,
    traffic_is_measured,
    the_terminal_is_given_back,
    the_shell_has_the_terminal_for_a_while,
    a_reader_that_goes_ends_it,
    a_reader_that_stopped_neither_keeps_it_nor_fills_it,
];

/// Far longer than it takes, so that a busy machine is no failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes all updates for a while.
fn updates(live: &Live, time: Duration, mut each: impl FnMut(Update)) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        while let Some(update) = live.next().unwrap() {
            each(update);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits for what a sight is to have.
fn until(live: &Live, what: &str, mut is_it: impl FnMut(&Sight) -> bool) -> Duration {
    let start = Instant::now();
    let mut found = false;
    while !found {
        assert!(start.elapsed() < PATIENCE, "{what} is not seen");
        updates(live, Duration::from_millis(5), |update| {
            found |= matches!(update, Update::Sight(sight) if is_it(&sight));
        });
    }
    start.elapsed()
}

fn fs_text(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// With `TWINAX_TRIALS=20` it watches as many seconds, and prints what that costs.
fn nothing_is_looked_at_while_nothing_changes(sandbox: &mut Sandbox) -> Outcome {
    let containers: Vec<sandbox::Netns> = (0..100).map(|_| sandbox.namespace()).collect();
    for (n, netns) in containers.iter().enumerate() {
        let name = format!("v{n}");
        wire::add_veth(&name, "eth0", netns.as_fd().as_raw_fd()).unwrap();
        wire::set_up(&name).unwrap();
        netns.run(|| wire::set_up("eth0").unwrap());
    }
    let live = Live::start(Depth::default(), true).unwrap();
    until(&live, "the first look", |sight| sight.links.len() > 200);
    // What came with the namespaces, as duplicate address detection, is over some time later.
    let mut last = (live.looks(), Instant::now());
    while last.1.elapsed() < Duration::from_millis(2500) {
        assert!(last.0 < 30, "{} looks, and no end", last.0);
        updates(&live, Duration::from_millis(50), drop);
        if live.looks() != last.0 {
            last = (live.looks(), Instant::now());
        }
    }
    let (looks, seconds) = (live.looks(), harness::trials(3) as u64);
    let before = process_cpu_us();
    updates(&live, Duration::from_secs(seconds), drop);
    let cost = process_cpu_us() - before;
    println!("{cost} us of {seconds} s, {looks} looks before");
    assert_eq!(live.looks(), looks, "it looked, and nothing had changed");
    assert!(cost < seconds * 100_000, "a tenth of a CPU for nothing: {cost} us in {seconds} s");
    let start = Instant::now();
    wire::add_addr("v0", [10, 1, 1, 1].into(), 24).unwrap();
    let has = |sight: &Sight| sight.links.values().any(|it| !it.addrs.is_empty());
    let seen = until(&live, "an address", |sight| has(sight) && start.elapsed() < PATIENCE);
    println!("an address is seen after {seen:?}");
    Outcome::Passed
}

/// Of all threads.
fn process_cpu_us() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |path: std::path::PathBuf| {
        let text = fs_text(&path.join("schedstat").display().to_string());
        text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).unwrap_or_default()
    };
    tasks.flatten().map(|task| of(task.path())).sum::<u64>() / 1000
}

fn a_storm_is_looked_at_now_and_then(sandbox: &mut Sandbox) -> Outcome {
    let _beside = sandbox.outside("v0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let live = Live::start(Depth::default(), false).unwrap();
    until(&live, "the cable", |sight| sight.links.len() > 2);
    let (before, start) = (live.looks(), Instant::now());
    let mut changes = 0;
    while start.elapsed() < Duration::from_secs(2) {
        wire::add_addr("v0", [192, 0, 2, 77].into(), 24).unwrap();
        wire::del_addr("v0", [192, 0, 2, 77].into(), 24).unwrap();
        changes += 2;
        updates(&live, Duration::from_micros(1), drop);
    }
    let (looks, seconds) = (live.looks() - before, start.elapsed().as_secs() + 1);
    assert!(changes > 50, "{changes} changes are no storm");
    assert!(looks >= 1 && looks <= 5 * seconds + 1, "{looks} looks in {seconds} s");
    wire::add_addr("v0", [192, 0, 2, 99].into(), 24).unwrap();
    let last = "192.0.2.99/24".parse().unwrap();
    until(&live, "the last address", |s| s.links.values().any(|it| it.addrs.contains(&last)));
    Outcome::Passed
}

/// A watch whose lines come one by one.
struct Watched {
    child: Child,
    lines: Receiver<String>,
}

impl Watched {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        let mut command = sandbox.command(&[&["map", "--watch"], args].concat());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// Waits for a line that has all of these.
    #[track_caller]
    fn expect(&self, parts: &[&str]) -> String {
        let (end, mut heard) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line has {parts:?}: {heard:#?}");
            };
            if parts.iter().all(|part| line.contains(part)) {
                return line;
            }
            heard.push(line);
        }
    }

    fn end(mut self) {
        signal(&self.child, Signal::INT);
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn each_change_is_a_line(sandbox: &mut Sandbox) -> Outcome {
    let watched = Watched::start(sandbox, &["-a"]);
    watched.expect(&[" = ", "1 namespace, 0 bridges, 0 cables"]);
    // A process in a namespace of its own, which no event tells of.
    let netns = sandbox.namespace();
    sandbox.serve(&netns, &["http", "--port", "80"]);
    watched.expect(&[" + namespace ", "process"]);
    // A cable into it, then what happens inside, of which the observatory hears.
    wire::add_veth("up0", "eth0", netns.as_fd().as_raw_fd()).unwrap();
    watched.expect(&[" + cable up0 ⇄ ", "/eth0"]);
    netns.run(|| {
        wire::add_addr("eth0", [10, 9, 9, 9].into(), 24).unwrap();
        wire::set_up("eth0").unwrap();
    });
    watched.expect(&[" + address of eth0 in ", ": 10.9.9.9/24"]);
    wire::set_up("up0").unwrap();
    netns.run(|| {
        wire::add_route("eth0", [10, 8, 0, 0].into(), 16, Some([10, 9, 9, 1].into())).unwrap();
    });
    watched.expect(&[" + route of ", ": 10.8.0.0/16 via 10.9.9.1 by eth0"]);
    wire::del_link("up0").unwrap();
    watched.expect(&[" - cable up0 ⇄ ", "/eth0", "10.9.9.9/24"]);
    watched.end();
    Outcome::Passed
}

fn lines_are_json_if_asked(sandbox: &mut Sandbox) -> Outcome {
    let beside = sandbox.namespace();
    let watched = Watched::start(sandbox, &["--json"]);
    let start = watched.expect(&["\"change\":\"start\""]);
    assert!(start.starts_with("{\"version\":1,\"time_ns\":"), "{start}");
    wire::add_veth("up0", "eth0", beside.as_fd().as_raw_fd()).unwrap();
    let line = watched.expect(&["\"change\":\"added\"", "\"kind\":\"cable\""]);
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(told["interface"], "up0", "{line}");
    assert!(told["text"].as_str().is_some_and(|t| t.starts_with("+ cable up0 ⇄ ")), "{line}");
    watched.end();
    Outcome::Passed
}

fn traffic_is_measured(sandbox: &mut Sandbox) -> Outcome {
    let beside = sandbox.outside("up0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let live = Live::start(Depth::default(), true).unwrap();
    let socket = UdpSocket::bind("192.0.2.1:0").unwrap();
    let (start, mut rates) = (Instant::now(), Rates::new());
    let _catcher = beside.run(|| UdpSocket::bind("192.0.2.2:9").unwrap());
    loop {
        assert!(start.elapsed() < PATIENCE, "no rate is told: {rates:?}");
        socket.send_to(&[0; 1000], "192.0.2.2:9").unwrap();
        updates(&live, Duration::from_millis(20), |update| {
            if let Update::Traffic(_, measured) = update {
                rates = measured;
            }
        });
        let up0 = rates.iter().find(|(id, _)| id.netns == Netns::Host && id.name.as_str() == "up0");
        // 50 packets a second, or fewer on a busy machine.
        if up0.is_some_and(|(_, rate)| (5_000..100_000).contains(&rate.tx_bytes)) {
            return Outcome::Passed;
        }
    }
}

/// A terminal of our own: what is typed, and what is shown, with a program at the other end.
struct Terminal {
    ours: OwnedFd,
    theirs: OwnedFd,
    child: Child,
    seen: Vec<u8>,
    /// How it was before the program began.
    before: String,
}

impl Terminal {
    fn start(sandbox: &Sandbox, args: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let path = ptsname(&ours, Vec::new()).unwrap();
        let path = path.to_str().unwrap().to_owned();
        let theirs = File::options().read(true).write(true).open(path).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&theirs, size).unwrap();
        let before = mode(&theirs);
        let mut command = sandbox.command(args);
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
        // What is stopped is a job of its own, and not the tests.
        let child = command.process_group(0).spawn().unwrap();
        rustix::io::ioctl_fionbio(&ours, true).unwrap();
        Self { ours, theirs: theirs.into(), child, seen: Vec::new(), before }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen).into_owned()
    }

    /// Reads what is shown until that has come; forgets what came before.
    #[track_caller]
    fn expect(&mut self, part: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let mut bytes = [0; 4096];
            let mut ours = File::from(self.ours.try_clone().unwrap());
            if let Ok(length) = ours.read(&mut bytes) {
                self.seen.extend_from_slice(&bytes[..length]);
            }
            if let Some(at) = self.text().find(part) {
                self.seen.drain(..at + part.len());
                return;
            }
            assert!(Instant::now() < end, "{part:?} is not shown: {:?}", self.text());
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn press(&self, keys: &str) {
        File::from(self.ours.try_clone().unwrap()).write_all(keys.as_bytes()).unwrap();
    }
}

fn mode(terminal: impl AsFd) -> String {
    let mode = tcgetattr(&terminal).unwrap();
    format!("{:?} {:?}", mode.local_modes, mode.input_modes)
}

fn the_terminal_is_given_back(sandbox: &mut Sandbox) -> Outcome {
    const ENTERED: &str = "\x1b[?1049h";
    const LEFT: &str = "\x1b[?1049l";
    let _beside = sandbox.outside("up0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    type End = fn(&Terminal);
    let ends: [(&[&str], End); 5] = [
        (&["map", "--watch"], |terminal| terminal.press("q")),
        (&["map", "--watch"], |terminal| signal(&terminal.child, Signal::TERM)),
        (&["top"], |terminal| terminal.press("q")),
        (&["top"], |terminal| terminal.press("\x03")),
        (&["top"], |terminal| signal(&terminal.child, Signal::HUP)),
    ];
    for (args, end) in ends {
        let mut terminal = Terminal::start(sandbox, args);
        terminal.expect(ENTERED);
        terminal.expect("up0");
        assert_ne!(
            mode(&terminal.theirs),
            terminal.before,
            "{args:?}: keys are read as they are pressed"
        );
        end(&terminal);
        terminal.expect(LEFT);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0), "{args:?}");
        assert_eq!(mode(&terminal.theirs), terminal.before, "{args:?}");
    }
    let refused = sandbox.twinax(&["top"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("map --watch"), "{}", refused.stderr);
    Outcome::Passed
}

fn the_shell_has_the_terminal_for_a_while(sandbox: &mut Sandbox) -> Outcome {
    const ENTERED: &str = "\x1b[?1049h";
    const LEFT: &str = "\x1b[?1049l";
    let _beside = sandbox.outside("up0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    for args in [["top"].as_slice(), &["map", "--watch"]] {
        let mut terminal = Terminal::start(sandbox, args);
        terminal.expect(ENTERED);
        terminal.expect("up0");
        let raw = mode(&terminal.theirs);
        terminal.press("\x1a");
        terminal.expect(LEFT);
        is_stopped(&terminal);
        assert_eq!(mode(&terminal.theirs), terminal.before, "{args:?}");
        signal(&terminal.child, Signal::CONT);
        terminal.expect(ENTERED);
        terminal.expect("up0");
        assert_eq!(mode(&terminal.theirs), raw, "{args:?}");
        // Stopped by what nobody can catch: what a shell did meanwhile is put right.
        signal(&terminal.child, Signal::STOP);
        is_stopped(&terminal);
        signal(&terminal.child, Signal::CONT);
        terminal.expect(ENTERED);
        terminal.expect("up0");
        terminal.press("q");
        terminal.expect(LEFT);
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0), "{args:?}");
        assert_eq!(mode(&terminal.theirs), terminal.before, "{args:?}");
    }
    Outcome::Passed
}

fn is_stopped(terminal: &Terminal) {
    let end = Instant::now() + PATIENCE;
    while !fs_text(&format!("/proc/{}/status", terminal.child.id())).contains("State:\tT") {
        assert!(Instant::now() < end, "it does not stop");
        thread::sleep(Duration::from_millis(5));
    }
}

fn a_reader_that_goes_ends_it(sandbox: &mut Sandbox) -> Outcome {
    let mut command = sandbox.command(&["map", "--watch"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains(" = "));
    drop(lines);
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it goes on, and nobody reads");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    Outcome::Passed
}

/// What nobody takes is not looked at again and again, and a signal ends the waiting.
fn a_reader_that_stopped_neither_keeps_it_nor_fills_it(sandbox: &mut Sandbox) -> Outcome {
    let mut command = sandbox.command(&["map", "--watch", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let live = Live::start(Depth::default(), false).unwrap();
    // Far more lines than a pipe takes.
    for round in 0..16 {
        for n in 0..60 {
            let name = format!("br{round}x{n}");
            wire::add_bridge(&name).unwrap();
        }
        thread::sleep(Duration::from_millis(300));
    }
    let looks = live.looks();
    assert!(looks < 10, "{looks} looks, and nobody takes what they see");
    let waits = fs_text(&format!("/proc/{}/task/{}/wchan", child.id(), child.id()));
    println!("it waits in {waits}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let end = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it waits for its reader for ever");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    Outcome::Passed
}
