//! Namespaces that others made, plugged in and out while they are in use: `pid:N`, `netns:/path`.

use std::{
    fs,
    process::{Child, Stdio},
};

use twinax::{
    linux::process::Task,
    place::{self, Need},
    world::Linux,
};
use twinax_core::{
    engine,
    name::ContainerName,
    state::{AttachSpec, Change, Container, DEFAULT_NETWORK, Way},
};

use crate::{
    harness::Outcome,
    product::{Inside, answer, left, links, soon, traces},
    sandbox::{Netns, Reach, Sandbox, Talk},
    tests,
};

tests![
    a_process_is_plugged_in_and_out,
    a_named_namespace_is_plugged_in_and_out,
    what_has_vanished_is_forgotten,
    what_is_no_namespace_is_refused,
    an_engine_that_goes_on_holds_none_open,
];

/// A namespace of somebody else's with a process in it that answers on tcp port 7.
fn stranger(sandbox: &Sandbox) -> (Netns, Child) {
    let netns = sandbox.namespace();
    let mut command = sandbox.command(&["demo", "echo", "--tcp", "--port", "7"]);
    command.stdout(Stdio::piped());
    let mut child = netns.run(|| command.spawn()).unwrap();
    let line = crate::product::first_line(child.stdout.take().unwrap());
    assert!(line.contains("serving"), "{line}");
    (netns, child)
}

/// Plugs `name` in, talks over everything it gets, and unplugs it.
fn plug_in_and_out(sandbox: &Sandbox, name: &str, netns: &Netns) {
    sandbox.warm();
    let outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    sandbox.done("network create --ipv6 web");
    let one = sandbox.start("one", "--network web");
    answer(netns, "[::]:80".parse().unwrap());
    let before = traces();
    let inside_before = netns.run(inner);
    for _ in 0..2 {
        sandbox.done(&format!("network connect --alias guest web {name}"));
        let row = sandbox.row(name);
        assert_eq!(row["status"], "attached");
        let addrs: Vec<_> = row["networks"][0]["addresses"].as_array().unwrap().to_vec();
        for addr in &addrs {
            let addr: std::net::IpAddr = addr.as_str().unwrap().parse().unwrap();
            let own = one.of(addr.is_ipv6()).unwrap();
            assert_eq!(one.netns.ask(Talk::Tcp, (addr, 7).into()), Reach::Reached(own));
            assert!(matches!(netns.ask(Talk::Tcp, (own, 7).into()), Reach::Reached(_)));
        }
        let hosts = fs::read_to_string(format!("/proc/{}/root/etc/hosts", one.pid)).unwrap();
        assert!(hosts.contains("guest"), "{hosts}");
        sandbox.done(&format!("publish {name} 8080:80"));
        let reach = outside.ask(Talk::Tcp, "192.0.2.1:8080".parse().unwrap());
        assert_eq!(reach, Reach::Reached("192.0.2.2".parse().unwrap()));
        let twinax = env!("CARGO_BIN_EXE_twinax");
        let line = format!("exec {name} -- {twinax} demo send --tcp {}:7 hi", one.v4());
        let told = sandbox.done(&line);
        assert!(told.starts_with(addrs[0].as_str().unwrap()), "{told}");
        sandbox.whole();
        sandbox.done(&format!("unpublish {name} 80"));
        sandbox.done(&format!("network disconnect web {name}"));
        assert_eq!(netns.run(inner), inside_before);
        left(&before, "unplugging");
    }
}

/// What can be left inside.
fn inner() -> String {
    let read = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap();
    format!("{:?}{}{}{}", links(), read("route"), read("if_inet6"), read("arp"))
}

fn a_process_is_plugged_in_and_out(sandbox: &mut Sandbox) -> Outcome {
    let (netns, mut child) = stranger(sandbox);
    plug_in_and_out(sandbox, &format!("pid:{}", child.id()), &netns);
    assert!(child.try_wait().unwrap().is_none(), "it is none of ours to end");
    child.kill().unwrap();
    child.wait().unwrap();
    Outcome::Passed
}

fn a_named_namespace_is_plugged_in_and_out(sandbox: &mut Sandbox) -> Outcome {
    let (netns, mut child) = stranger(sandbox);
    fs::create_dir("/run/netns").unwrap();
    fs::write("/run/netns/blue", "").unwrap();
    netns.run(|| rustix::mount::mount_bind("/proc/thread-self/ns/net", "/run/netns/blue")).unwrap();
    plug_in_and_out(sandbox, "netns:/run/netns/blue", &netns);
    child.kill().unwrap();
    child.wait().unwrap();
    Outcome::Passed
}

fn what_has_vanished_is_forgotten(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let Inside { addrs, .. } = sandbox.start("one", "--network web");
    let before = traces();
    let (netns, mut child) = stranger(sandbox);
    let name = format!("pid:{}", child.id());
    sandbox.done(&format!("network connect web {name}"));
    let had = sandbox.row(&name)["networks"][0]["addresses"][0].clone();
    child.kill().unwrap();
    child.wait().unwrap();
    drop(netns);
    // Whatever looks forgets it.
    sandbox.done("ps");
    left(&before, "its end");
    sandbox.whole();
    let rows = sandbox.json("ps --all");
    assert_eq!(rows["containers"].as_array().unwrap().len(), 1, "{rows}");
    // Its address is free again, and no other's.
    let asked = format!("--network web,ip={}", had.as_str().unwrap());
    let two = sandbox.start("two", &asked);
    assert_ne!(two.addrs, addrs);
    Outcome::Passed
}

fn what_is_no_namespace_is_refused(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    fs::write("/run/plain", "").unwrap();
    let before = traces();
    for name in ["pid:4194000", "netns:/run/plain", "netns:/run/nosuch"] {
        let output = sandbox.try_line(&format!("network connect web {name}"));
        assert!(matches!(output.code, Some(1)), "{name}: {output:?}");
        let part = name.split_once(':').unwrap().1;
        assert!(output.stderr.contains(part), "{name}: {}", output.stderr);
        assert_eq!(traces(), before, "{name}");
    }
    // The host's own namespace is nobody's container.
    let ours = format!("network connect web pid:{}", std::process::id());
    sandbox.refused(&ours);
    assert_eq!(traces(), before);
    Outcome::Passed
}

/// Whoever keeps an engine for the next request keeps no namespace alive by that.
fn an_engine_that_goes_on_holds_none_open(sandbox: &mut Sandbox) -> Outcome {
    let (netns, mut child) = stranger(sandbox);
    let place = place::enter(Need::Start).unwrap();
    let mut world = Linux::new(place.store);
    let task = Task::of(child.id()).unwrap();
    let sandbox = world.meet(Way::Pid { pid: task.pid, start: task.start }).unwrap();
    let name: ContainerName = format!("pid:{}", child.id()).parse().unwrap();
    let container = Container::bare("0123456789ab".to_owned(), sandbox);
    let spec = AttachSpec::new(DEFAULT_NETWORK.parse().unwrap());
    let request = vec![
        Change::PutContainer { name: name.clone(), container },
        Change::Attach { container: name, spec },
    ];
    engine::run(&mut world, &request).unwrap();
    let cables = || links().iter().filter(|link| link.starts_with("txv")).count();
    assert_eq!(cables(), 1);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(netns);
    soon("the namespace ends, and its cable", || cables() == 0);
    drop(world);
    Outcome::Passed
}
