//! The holder: an ordinary user's namespaces, found, shared, kept, and refused with a reason.

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{process::Signal, thread::CapabilitySets};
use twinax::{
    container::Task,
    holder::{Need, Standing, enter, find, privileged, release, user_run_dir},
};

use crate::{
    container::nothing_left,
    harness::Outcome::{self, Passed},
    sandbox::Sandbox,
    tests,
};

tests![
    root_needs_none,
    commands_started_at_once_share_one,
    a_killed_one_is_replaced_in_the_same_namespaces,
    a_forbidden_one_names_the_switch,
];

/// `--trial-holder need [survivor]` enters as a user without privileges would, says where it is,
/// and stays until its standard input ends.
pub fn role(args: &[OsString]) -> Option<ExitCode> {
    if args.first()? != "--trial-holder" {
        return None;
    }
    let nothing = rustix::thread::CapabilitySet::empty();
    let sets = CapabilitySets { effective: nothing, permitted: nothing, inheritable: nothing };
    rustix::thread::set_capabilities(None, sets).unwrap();
    assert!(!privileged());
    let run_dir = user_run_dir(None).unwrap();
    let need = if args[1] == "start" { Need::Start } else { Need::IfRunning };
    let survivors = || {
        let pid = args.get(2).and_then(|pid| pid.to_str()?.parse().ok());
        pid.and_then(Task::of).into_iter().collect()
    };
    match enter(&run_dir, need, &survivors) {
        Ok(Some(Standing::Held(task))) => {
            let net = fs::read_link("/proc/self/ns/net").unwrap();
            let cwd = std::env::current_dir().unwrap();
            println!("{} {} {} {}", task.pid, net.display(), cwd.display(), privileged());
        }
        Ok(other) => println!("{other:?}"),
        Err(error) => println!("{error}"),
    }
    drop(std::io::read_to_string(std::io::stdin()));
    Some(ExitCode::SUCCESS)
}

struct Visitor {
    child: Child,
    said: String,
}

fn send(words: &[&str]) -> Child {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--trial-holder").args(words).current_dir("/run/tmp");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
}

fn hear(mut child: Child) -> Visitor {
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    Visitor { child, said: said.trim_end().to_owned() }
}

fn visit(words: &[&str]) -> Visitor {
    hear(send(words))
}

impl Visitor {
    fn leave(mut self) -> String {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
        self.said
    }
}

fn run_dir() -> &'static Path {
    Path::new("/tmp/twinax-0")
}

fn root_needs_none(_: &mut Sandbox) -> Outcome {
    let standing = enter(Path::new("/no/such"), Need::Start, &Vec::new).unwrap();
    assert_eq!(standing, Some(Standing::Privileged));
    Passed
}

fn commands_started_at_once_share_one(_: &mut Sandbox) -> Outcome {
    assert_eq!(visit(&["if-running"]).leave(), "None");
    let children: Vec<Child> = (0..8).map(|_| send(&["start"])).collect();
    let said: Vec<String> = children.into_iter().map(|child| hear(child).leave()).collect();
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    assert!(said[0].ends_with(" /run/tmp true"), "{}", said[0]);
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!said[0].contains(own.to_str().unwrap()));
    assert_eq!(visit(&["if-running"]).leave(), said[0]);
    release(run_dir()).unwrap();
    assert_eq!(find(run_dir()), None);
    nothing_left();
    release(run_dir()).unwrap();
    Passed
}

fn a_killed_one_is_replaced_in_the_same_namespaces(_: &mut Sandbox) -> Outcome {
    let survivor = visit(&["start"]);
    let first = find(run_dir()).unwrap();
    first.signal(Signal::KILL).unwrap();
    first.wait_gone(std::time::Duration::from_secs(5)).unwrap();
    assert_eq!(visit(&["if-running"]).leave(), "None");
    let next = visit(&["if-running", &survivor.child.id().to_string()]).leave();
    let second = find(run_dir()).unwrap();
    assert_ne!(first, second);
    let place = |said: &str| said.split_once(' ').unwrap().1.to_owned();
    assert_eq!(place(&next), place(&survivor.leave()));
    // The record leads there now, without the survivor.
    assert_eq!(visit(&["start"]).leave(), next);
    release(run_dir()).unwrap();
    nothing_left();
    Passed
}

fn a_forbidden_one_names_the_switch(_: &mut Sandbox) -> Outcome {
    fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
    let said = visit(&["start"]).leave();
    assert!(said.contains("user.max_user_namespaces is 0"), "{said}");
    assert!(said.contains("sysctl -w user.max_user_namespaces="), "{said}");
    fs::write("/proc/sys/user/max_user_namespaces", "100").unwrap();
    fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
    let said = visit(&["start"]).leave();
    assert!(said.contains("user.max_net_namespaces is 0"), "{said}");
    nothing_left();
    assert_eq!(find(run_dir()), None);
    Passed
}
