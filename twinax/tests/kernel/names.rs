//! Names that containers know each other by: hosts files kept current while they run.

use std::fs;

use crate::{
    harness::Outcome,
    product::{Inside, soon},
    sandbox::Sandbox,
    tests,
};

tests![
    names_and_aliases_are_known_on_a_network,
    names_come_and_go_with_connect_and_disconnect,
    names_go_when_their_container_ends,
    the_default_network_has_no_names,
    a_container_calls_itself_what_was_asked,
    name_servers_as_asked,
];

/// The hosts file as the container reads it.
fn hosts(inside: &Inside) -> String {
    fs::read_to_string(format!("/proc/{}/root/etc/hosts", inside.pid)).unwrap()
}

/// The addresses that a container knows a name by.
fn lookup(inside: &Inside, name: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in hosts(inside).lines().filter(|line| !line.trim_start().starts_with('#')) {
        let mut words = line.split_whitespace();
        if let Some(addr) = words.next()
            && words.any(|word| word == name)
        {
            found.push(addr.to_owned());
        }
    }
    found.sort();
    found
}

fn addrs(inside: &Inside) -> Vec<String> {
    let mut addrs: Vec<String> = inside.addrs.iter().map(ToString::to_string).collect();
    addrs.sort();
    addrs
}

fn names_and_aliases_are_known_on_a_network(sandbox: &mut Sandbox) -> Outcome {
    let host = fs::read_to_string("/etc/hosts").unwrap_or_default();
    sandbox.done("network create --ipv6 web");
    sandbox.done("network create back");
    let one = sandbox.start("one", "--network web,alias=db,alias=store");
    let two = sandbox.start("two", "--network web");
    let other = sandbox.start("other", "--network back");
    for name in ["one", "db", "store"] {
        assert_eq!(lookup(&two, name), addrs(&one), "{name}:\n{}", hosts(&two));
        // A container that was there first learns of the later ones, and knows itself.
        assert_eq!(lookup(&one, name), addrs(&one));
        assert!(lookup(&other, name).is_empty(), "{}", hosts(&other));
    }
    assert_eq!(lookup(&one, "two"), addrs(&two));
    assert!(lookup(&one, "localhost").contains(&"127.0.0.1".to_owned()), "{}", hosts(&one));
    // By the resolver of the system too, which is what programs use.
    let twinax = env!("CARGO_BIN_EXE_twinax");
    let answer = sandbox.done(&format!("exec two -- {twinax} demo send --tcp db:7 hello"));
    assert!(answer.ends_with(" hello\n"), "{answer}");
    assert_eq!(fs::read_to_string("/etc/hosts").unwrap_or_default(), host, "the host's own");
    Outcome::Passed
}

fn names_come_and_go_with_connect_and_disconnect(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    sandbox.done("network create back");
    let one = sandbox.start("one", "--network web");
    sandbox.start("two", "--network back");
    assert!(lookup(&one, "two").is_empty());
    sandbox.done("network connect --alias db web two");
    let there = sandbox.row("two")["networks"][1]["addresses"][0].as_str().unwrap().to_owned();
    let two = sandbox.inside("two");
    for name in ["two", "db"] {
        assert_eq!(lookup(&one, name), [there.as_str()], "{}", hosts(&one));
    }
    assert_eq!(lookup(&two, "one"), addrs(&one), "{}", hosts(&two));
    sandbox.done("network disconnect web two");
    for name in ["two", "db"] {
        assert!(lookup(&one, name).is_empty(), "{}", hosts(&one));
    }
    assert!(lookup(&two, "one").is_empty(), "{}", hosts(&two));
    assert_eq!(lookup(&two, "two").len(), 1, "{}", hosts(&two));
    sandbox.whole();
    Outcome::Passed
}

fn names_go_when_their_container_ends(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let stays = sandbox.start("stays", "--network web");
    for (name, verb) in [("one", "stop -t 0"), ("two", "rm -f")] {
        sandbox.start(name, "--network web");
        assert_eq!(lookup(&stays, name).len(), 1);
        sandbox.done(&format!("{verb} {name}"));
        assert!(lookup(&stays, name).is_empty(), "{verb}: {}", hosts(&stays));
    }
    // One that ends by itself.
    sandbox.done("run -d --name brief --network web -- /bin/sh -c :");
    soon("the name of what ended is gone", || lookup(&stays, "brief").is_empty());
    Outcome::Passed
}

fn the_default_network_has_no_names(sandbox: &mut Sandbox) -> Outcome {
    let one = sandbox.start("one", "");
    let two = sandbox.start("two", "");
    assert!(lookup(&two, "one").is_empty(), "{}", hosts(&two));
    assert!(lookup(&one, "two").is_empty(), "{}", hosts(&one));
    assert_eq!(lookup(&one, "one"), addrs(&one), "a container knows itself: {}", hosts(&one));
    let error = sandbox.refused("run -d --network default,alias=db -- /bin/sh -c :");
    assert!(error.contains("db"), "{error}");
    Outcome::Passed
}

fn a_container_calls_itself_what_was_asked(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let ours = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for (name, options, expected) in
        [("one", "", "one"), ("two", "--hostname db.example", "db.example")]
    {
        let inside = sandbox.start(name, &format!("--network web {options}"));
        let told =
            sandbox.done(&format!("exec {name} -- /bin/sh -c cat</proc/sys/kernel/hostname"));
        assert_eq!(told.trim(), expected);
        assert_eq!(lookup(&inside, expected), addrs(&inside), "{}", hosts(&inside));
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), ours);
    Outcome::Passed
}

fn name_servers_as_asked(sandbox: &mut Sandbox) -> Outcome {
    let host = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let inside = sandbox.start("one", "--dns 192.0.2.53 --dns 2001:db8::53");
    let text = fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", inside.pid)).unwrap();
    let servers: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("nameserver ")).map(str::trim).collect();
    assert_eq!(servers, ["192.0.2.53", "2001:db8::53"], "{text}");
    assert_eq!(fs::read_to_string("/etc/resolv.conf").unwrap_or_default(), host);
    Outcome::Passed
}
