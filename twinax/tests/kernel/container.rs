//! Containers' processes: how they start, what they see, how they end, what is left.

use std::{
    ffi::OsString,
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use twinax::container::{
    Go, Net, OnExit, Running, Spec, StartError, Task, dispatch,
    exec::{Exec, Target, exec},
    logs::{Filter, show},
    mounts::remount_hosts,
    start,
};

use crate::{
    harness::Outcome::{self, Passed},
    sandbox::Sandbox,
    tests,
};

tests![
    exit_codes_arrive,
    a_command_that_cannot_run_leaves_nothing,
    the_command_is_alone,
    signals_reach_the_command,
    stop_ends_daemons_too,
    init_reaps_what_others_leave,
    an_abandoned_container_leaves_nothing,
    a_client_killed_before_go_leaves_a_note_only,
    a_killed_supervisor_leaves_a_note_only,
    every_byte_of_a_burst_is_kept,
    a_followed_log_ends_with_the_container,
    attached_output_reaches_both,
    exec_joins_the_container,
    hosts_are_replaced_while_it_runs,
    a_network_is_shared,
];

/// Where a container's [`OnExit`] writes what it was told.
const TOLD: &str = "told";

struct Tell;

impl OnExit for Tell {
    fn exited(&self, container: &str, dir: &Path, code: Option<i32>) {
        fs::write(dir.join(TOLD), format!("{container} {code:?}")).unwrap();
    }
}

/// The other programs this one can be. To be called before anything else.
pub fn role(args: &[OsString]) -> Option<ExitCode> {
    match args.first()?.to_str()? {
        "--trial-exec" => {
            let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
            let task = Task::of(words[1].parse().unwrap()).unwrap();
            let request = Exec {
                target: Target::Container(task),
                command: words[2..].iter().map(OsString::from).collect(),
                env: vec![("TRIAL".into(), "yes".into())],
                cwd: Some("/etc".into()),
                detach: false,
            };
            let code = exec(&request).unwrap_or_else(|error| i32::from(error.code()));
            Some(ExitCode::from(u8::try_from(code).unwrap()))
        }
        "--trial-client" => {
            let here = Place(PathBuf::from(&args[1]));
            let waiting = start(&here.spec("c1", "sleep 1000")).unwrap();
            println!("{} {}", waiting.born().supervisor.pid, waiting.born().init.pid);
            std::thread::sleep(Duration::from_secs(100));
            Some(ExitCode::SUCCESS)
        }
        _ => dispatch(args, &Tell),
    }
}

/// A directory with what a container needs.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = PathBuf::from("/run/tmp").join(name);
        fs::create_dir_all(path.join("notes")).unwrap();
        fs::create_dir_all(path.join("c1")).unwrap();
        Self(path)
    }

    fn spec(&self, name: &str, script: &str) -> Spec {
        fs::create_dir_all(self.0.join(name)).unwrap();
        Spec {
            name: name.to_owned(),
            command: ["/bin/sh", "-c", script].map(OsString::from).to_vec(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            dir: self.0.join(name),
            notes: self.0.join("notes"),
            net: Net::New,
            attached: false,
        }
    }

    fn run(&self, script: &str) -> Running {
        start(&self.spec("c1", script)).unwrap().go(&Go::default()).unwrap()
    }

    fn note(&self) -> bool {
        self.0.join("notes/c1").exists()
    }

    fn told(&self) -> String {
        fs::read_to_string(self.0.join("c1").join(TOLD)).unwrap_or_default()
    }

    fn log(&self) -> (String, String, Option<i32>) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = show(&self.0.join("c1"), &Filter::default(), None, &mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), code)
    }

    /// Runs to its end and returns what was told and what was printed.
    fn finish(&self, running: &Running) -> String {
        gone(&running.born().supervisor);
        self.log().0
    }
}

#[track_caller]
fn gone(task: &Task) {
    assert!(task.wait_gone(Duration::from_secs(20)).unwrap(), "still there");
}

#[track_caller]
fn eventually(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The processes of this test's pid namespace except those that were there at first: the
/// harness's init and the test. Zombies of ours do not count.
fn strangers() -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid != 1 && pid != std::process::id() && Task::of(pid).is_some() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            found.push(format!("{pid} {}", name.trim()));
        }
    }
    found
}

#[track_caller]
pub fn nothing_left() {
    let until = Instant::now() + Duration::from_secs(20);
    while !strangers().is_empty() {
        assert!(Instant::now() < until, "left: {:?}", strangers());
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn exit_codes_arrive(_: &mut Sandbox) -> Outcome {
    let cases = [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 143), ("kill -KILL $$", 137)];
    for (script, code) in cases {
        let here = Place::new("codes");
        let running = here.run(script);
        gone(&running.born().supervisor);
        assert_eq!(here.told(), format!("c1 Some({code})"), "{script}");
        assert_eq!(here.log().2, Some(code), "{script}");
    }
    nothing_left();
    Passed
}

fn a_command_that_cannot_run_leaves_nothing(_: &mut Sandbox) -> Outcome {
    let here = Place::new("cannot");
    let cases = [("no-such-program", 127), ("/no/such", 127), ("/etc/passwd", 126), ("/", 126)];
    for (program, code) in cases {
        let spec = Spec { command: vec![program.into()], ..here.spec("c1", "") };
        let error = start(&spec).unwrap().go(&Go::default()).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(program), "{error}");
        nothing_left();
    }
    let spec = Spec { cwd: "/no/such".into(), ..here.spec("c1", "true") };
    let error = start(&spec).unwrap().go(&Go::default()).unwrap_err();
    assert!(error.to_string().contains("/no/such"), "{error}");
    let spec = Spec { dir: "/proc/no/such".into(), ..here.spec("c1", "true") };
    assert!(matches!(start(&spec), Err(StartError::Step { .. })));
    let stale = Task { pid: std::process::id(), start: 1 };
    let spec = Spec { net: Net::Of(stale), ..here.spec("c1", "true") };
    assert!(start(&spec).unwrap_err().to_string().contains("has ended"));
    nothing_left();
    assert!(!here.note() && here.told().is_empty());
    Passed
}

fn the_command_is_alone(_: &mut Sandbox) -> Outcome {
    let here = Place::new("alone");
    fs::write(here.0.join("resolv"), "nameserver 192.0.2.53\n").unwrap();
    fs::write(here.0.join("hosts"), "192.0.2.1 elsewhere\n").unwrap();
    let go = Go {
        hosts: Some(here.0.join("hosts")),
        resolv: Path::new("/etc/resolv.conf").exists().then(|| here.0.join("resolv")),
        hostname: Some("box".to_owned()),
    };
    let script = "echo $$; cat /proc/1/comm /proc/sys/kernel/hostname /etc/hosts /etc/resolv.conf
        echo $HOSTNAME; ls /sys/class/net /proc/self/fd; for f in net mnt uts ipc pid; do
        readlink /proc/self/ns/$f; done";
    let waiting = start(&here.spec("c1", script)).unwrap();
    let init = waiting.born().init;
    let comm = fs::read_to_string(format!("/proc/{}/comm", init.pid)).unwrap();
    assert_eq!(comm, "twinax-init\n");
    let running = waiting.go(&go).unwrap();
    assert_eq!(running.warnings, Vec::<String>::new());
    let out = here.finish(&running);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..4], ["2", "twinax-init", "box", "192.0.2.1 elsewhere"], "{out}");
    assert!(go.resolv.is_none() || lines[4] == "nameserver 192.0.2.53", "{out}");
    assert!(out.contains("\nbox\n/proc/self/fd:\n0\n1\n2\n3\n\n/sys/class/net:\nlo\n"), "{out}");
    for kind in ["net", "mnt", "uts", "ipc", "pid"] {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert!(out.contains(&format!("{kind}:[")), "{out}");
        assert!(!out.contains(ours.to_str().unwrap()), "{kind} is shared");
    }
    nothing_left();
    Passed
}

fn signals_reach_the_command(_: &mut Sandbox) -> Outcome {
    let here = Place::new("signals");
    let script = "trap 'echo hup' HUP; trap 'echo usr1' USR1; trap 'exit 9' TERM; echo ready
        while :; do sleep 0.02; done";
    let running = here.run(script);
    let init = running.born().init;
    eventually("ready", || here.log().0.contains("ready"));
    init.signal(Signal::HUP).unwrap();
    eventually("hup", || here.log().0.contains("hup"));
    init.signal(Signal::USR1).unwrap();
    eventually("usr1", || here.log().0.contains("usr1"));
    assert!(end(&init, Signal::TERM));
    gone(&running.born().supervisor);
    assert_eq!(here.told(), "c1 Some(9)");
    assert!(!end(&init, Signal::KILL));
    nothing_left();
    Passed
}

/// Ends a container's processes; `false` if it had ended before.
fn end(init: &Task, signal: Signal) -> bool {
    let there = init.signal(signal).unwrap();
    assert!(init.wait_gone(Duration::from_secs(20)).unwrap(), "{init:?} hangs");
    there
}

fn stop_ends_daemons_too(_: &mut Sandbox) -> Outcome {
    let here = Place::new("daemons");
    // Deaf to TERM, and so is its orphan of another session.
    let script = "trap '' TERM HUP; (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo ready
        while :; do sleep 1000; done";
    let running = here.run(script);
    eventually("ready", || here.log().0.contains("ready"));
    let init = running.born().init;
    assert!(init.signal(Signal::TERM).unwrap());
    assert!(!init.wait_gone(Duration::from_millis(100)).unwrap());
    assert!(end(&init, Signal::KILL));
    gone(&running.born().supervisor);
    assert_eq!(here.told(), "c1 Some(137)");
    nothing_left();
    Passed
}

fn init_reaps_what_others_leave(_: &mut Sandbox) -> Outcome {
    let here = Place::new("reaps");
    let script = "for i in 1 2 3 4 5 6 7 8 9; do (sleep 0.05 & ) ; done; sleep 0.5
        grep -h '^State' /proc/[0-9]*/status | grep -c Z; echo done";
    let running = here.run(script);
    assert_eq!(here.finish(&running), "0\ndone\n");
    Passed
}

fn an_abandoned_container_leaves_nothing(_: &mut Sandbox) -> Outcome {
    let here = Place::new("abandon");
    start(&here.spec("c1", "echo hello")).unwrap().abandon();
    assert_eq!(strangers(), Vec::<String>::new());
    assert!(!here.note() && here.told().is_empty());
    Passed
}

fn a_client_killed_before_go_leaves_a_note_only(_: &mut Sandbox) -> Outcome {
    let here = Place::new("client");
    let mut client = Command::new("/proc/self/exe")
        .arg("--trial-client")
        .arg(&here.0)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = [0; 4];
    client.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    client.kill().unwrap();
    client.wait().unwrap();
    nothing_left();
    assert!(here.note() && here.told().is_empty());
    Passed
}

fn a_killed_supervisor_leaves_a_note_only(_: &mut Sandbox) -> Outcome {
    let here = Place::new("killed");
    let running = here.run("setsid sleep 1000 & sleep 1000");
    assert!(!here.note());
    running.born().supervisor.signal(Signal::KILL).unwrap();
    gone(&running.born().init);
    nothing_left();
    assert!(here.note() && here.told().is_empty());
    // Killing init instead is an ordinary end.
    let here = Place::new("killed-init");
    let running = here.run("sleep 1000 & sleep 1000");
    running.born().init.signal(Signal::KILL).unwrap();
    gone(&running.born().supervisor);
    assert_eq!((here.note(), here.told()), (false, "c1 Some(137)".to_owned()));
    Passed
}

fn every_byte_of_a_burst_is_kept(_: &mut Sandbox) -> Outcome {
    let here = Place::new("burst");
    let mut line = String::new();
    for number in 0..100_000 {
        line.push_str(&format!("{number:049}\n"));
    }
    fs::write(here.0.join("input"), &line).unwrap();
    let input = here.0.join("input");
    let script = format!("cat {0} & cat {0} >&2; wait", input.display());
    let running = here.run(&script);
    gone(&running.born().supervisor);
    let (out, err, code) = here.log();
    assert!(out == line && err == line, "{} and {} bytes", out.len(), err.len());
    assert_eq!(code, Some(0));
    Passed
}

fn a_followed_log_ends_with_the_container(_: &mut Sandbox) -> Outcome {
    let here = Place::new("follow");
    let running = here.run("for i in 1 2 3; do echo $i; sleep 0.05; done; exit 4");
    let (mut out, supervisor) = (Vec::new(), running.born().supervisor);
    let dir = here.0.join("c1");
    let code = show(&dir, &Filter::default(), Some(&supervisor), &mut out, &mut std::io::sink());
    assert_eq!(code.unwrap(), Some(4));
    assert_eq!(out, b"1\n2\n3\n");
    // Without its last words, as of a killed one.
    let running = here.run("echo a; sleep 1000");
    eventually("a", || here.log().0 == "a\n");
    let killed = running.born().supervisor;
    let killer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        killed.signal(Signal::KILL).unwrap();
    });
    let code = show(&dir, &Filter::default(), Some(&killed), &mut out, &mut std::io::sink());
    assert_eq!(code.unwrap(), None);
    killer.join().unwrap();
    nothing_left();
    Passed
}

fn attached_output_reaches_both(_: &mut Sandbox) -> Outcome {
    let here = Place::new("attached");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (stdin, mut input) = std::io::pipe().unwrap();
    let saved = [
        rustix::io::dup(rustix::stdio::stdin()).unwrap(),
        rustix::io::dup(rustix::stdio::stdout()).unwrap(),
    ];
    rustix::stdio::dup2_stdin(&stdin).unwrap();
    rustix::stdio::dup2_stdout(&writer).unwrap();
    let spec = Spec { attached: true, ..here.spec("c1", "cat; echo bye; exit 3") };
    let running = start(&spec).unwrap().go(&Go::default()).unwrap();
    rustix::stdio::dup2_stdin(&saved[0]).unwrap();
    rustix::stdio::dup2_stdout(&saved[1]).unwrap();
    drop((stdin, writer));
    // More than the pipes hold, read late: nothing may be lost, and nobody may hang.
    let text = "0123456789abcdef".repeat(20_000);
    let sent = text.clone();
    let sender = std::thread::spawn(move || input.write_all(sent.as_bytes()));
    std::thread::sleep(Duration::from_millis(200));
    let mut got = String::new();
    reader.read_to_string(&mut got).unwrap();
    sender.join().unwrap().unwrap();
    assert_eq!(running.wait().unwrap(), 3);
    assert_eq!(got.len(), text.len() + 4);
    assert!(got == here.log().0 && got.ends_with("fbye\n"));
    Passed
}

fn exec_joins_the_container(_: &mut Sandbox) -> Outcome {
    let here = Place::new("exec");
    let running = here.run("sleep 1000");
    let run = |words: &[&str]| {
        Command::new("/proc/self/exe")
            .arg("--trial-exec")
            .arg(running.born().init.pid.to_string())
            .args(words)
            .output()
            .unwrap()
    };
    let script = "echo $TRIAL; pwd; cat /proc/1/comm; ls /sys/class/net; exit 5";
    let output = run(&["/bin/sh", "-c", script]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "yes\n/etc\ntwinax-init\nlo\n");
    assert_eq!(output.status.code(), Some(5));
    assert_eq!(run(&["no-such-program"]).status.code(), Some(127));
    assert_eq!(run(&["/etc/passwd"]).status.code(), Some(126));
    assert_eq!(run(&["/bin/sh", "-c", "kill -TERM $$"]).status.code(), Some(143));
    end(&running.born().init, Signal::KILL);
    nothing_left();
    Passed
}

fn hosts_are_replaced_while_it_runs(_: &mut Sandbox) -> Outcome {
    let here = Place::new("hosts");
    for name in ["one", "two", "three"] {
        fs::write(here.0.join(name), format!("{name}\n")).unwrap();
    }
    let go = Go { hosts: Some(here.0.join("one")), ..Go::default() };
    let spec = here.spec("c1", "while :; do cat /etc/hosts; sleep 0.02; done");
    let running = start(&spec).unwrap().go(&go).unwrap();
    let init = running.born().init;
    eventually("one", || here.log().0.contains("one"));
    for name in ["two", "three"] {
        remount_hosts(&init, &here.0.join(name)).unwrap();
        eventually(name, || here.log().0.contains(name));
    }
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", init.pid)).unwrap();
    assert_eq!(mounts.matches(" /etc/hosts ").count(), 1, "{mounts}");
    assert!(here.log().0.lines().all(|line| ["one", "two", "three"].contains(&line)));
    end(&init, Signal::KILL);
    gone(&running.born().supervisor);
    assert!(remount_hosts(&init, &here.0.join("one")).is_err());
    Passed
}

fn a_network_is_shared(_: &mut Sandbox) -> Outcome {
    let here = Place::new("shared");
    let running = here.run("sleep 1000");
    let born = running.born().clone();
    let path = format!("/proc/{}/ns/net", born.init.pid);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    for (net, same) in
        [(Net::Of(born.init), true), (Net::Path(path.into()), true), (Net::Host, false)]
    {
        let spec = Spec { net, ..here.spec("c2", "readlink /proc/self/ns/net") };
        let waiting = start(&spec).unwrap();
        assert_eq!(waiting.born().cookie == born.cookie, same);
        let seen = fs::read_link(format!("/proc/{}/ns/net", waiting.born().init.pid)).unwrap();
        assert_eq!(seen == own, !same);
        let second = waiting.go(&Go::default()).unwrap();
        gone(&second.born().supervisor);
    }
    end(&born.init, Signal::KILL);
    nothing_left();
    Passed
}
