//! Once attaching has returned, the first packet arrives: one datagram a trial, never sent twice.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::Duration,
};

use crate::{
    harness::{self, Outcome},
    product::answer,
    resident::{Resident, handle, named},
    sandbox::{Reach, Sandbox, Talk},
    tests,
};

tests![
    to_the_gateway_of_a_new_network,
    between_two_just_attached,
    from_the_host,
    from_outside,
    in_the_same_breath,
];

/// Trials of each kind and family, unless `TWINAX_TRIALS` says otherwise (2000, on release).
const TRIALS: usize = 30;

fn trials(mut trial: impl FnMut(bool) -> Reach) -> Outcome {
    let count = harness::trials(TRIALS);
    for v6 in [false, true] {
        let mut lost = Vec::new();
        for n in 0..count {
            match trial(v6) {
                Reach::Reached(_) => {}
                reach => lost.push((n, reach)),
            }
        }
        let family = if v6 { "IPv6" } else { "IPv4" };
        assert!(lost.is_empty(), "{family}: {} of {count} lost: {lost:?}", lost.len());
    }
    Outcome::Passed
}

fn to_the_gateway_of_a_new_network(sandbox: &mut Sandbox) -> Outcome {
    let c = sandbox.start("c", "--network none");
    answer(sandbox.host(), "[::]:7000".parse().unwrap());
    trials(|v6| {
        sandbox.done("network create --ipv6 --subnet 10.1.0.0/24 --subnet fd00:1::/64 web");
        sandbox.done("network connect web c");
        let gateway = if v6 { "[fd00:1::1]:7000" } else { "10.1.0.1:7000" };
        let reach = c.netns.ask(Talk::Udp, gateway.parse().unwrap());
        sandbox.done("network disconnect web c");
        sandbox.done("network rm web");
        reach
    })
}

fn between_two_just_attached(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --ipv6 web");
    let (a, b) = (sandbox.start("a", "--network none"), sandbox.start("b", "--network none"));
    answer(&b.netns, "[::]:80".parse().unwrap());
    trials(|v6| {
        sandbox.done("network connect web b");
        sandbox.done("network connect web a");
        let target = sandbox.inside("b").of(v6).unwrap();
        let reach = a.netns.ask(Talk::Udp, (target, 80).into());
        sandbox.done("network disconnect web a");
        sandbox.done("network disconnect web b");
        reach
    })
}

fn from_the_host(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 web");
    let c = sandbox.start("c", "--network none");
    answer(&c.netns, "[::]:80".parse().unwrap());
    trials(|v6| {
        sandbox.done("network connect --ip 10.1.0.9 --ip6 fd00:1::9 web c");
        let target = if v6 { "[fd00:1::9]:80" } else { "10.1.0.9:80" };
        let reach = sandbox.host().ask(Talk::Udp, target.parse().unwrap());
        sandbox.done("network disconnect web c");
        reach
    })
}

fn from_outside(sandbox: &mut Sandbox) -> Outcome {
    let (ours, theirs) = (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]);
    let outside = sandbox.outside("uplink", &ours, &theirs);
    sandbox.done("network create --ipv6 web");
    let c = sandbox.start("c", "--network none");
    answer(&c.netns, "[::]:80".parse().unwrap());
    trials(|v6| {
        sandbox.done("network connect -p 8080:80/udp web c");
        let target = if v6 { "[2001:db8::1]:8080" } else { "192.0.2.1:8080" };
        let reach = outside.ask(Talk::Udp, target.parse().unwrap());
        sandbox.done("unpublish c 80/udp");
        sandbox.done("network disconnect web c");
        reach
    })
}

/// Sent by the very thread that attached, which no process's end and no other's start separates from
/// the packet. The kernel's worker, which acts on a carrier some time later, has had no turn: it would
/// run on the same CPU, where this thread goes first (as root; others lose less when something is
/// amiss).
fn in_the_same_breath(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --subnet 10.1.0.0/24 --subnet fd00:1::/64 web");
    let host = UdpSocket::bind("[::]:7000").unwrap();
    host.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut resident = Resident::alone();
    let _ = rustix::process::setpriority_process(None, -20);
    let lost = trials_in_one_breath(sandbox, &mut resident, &host);
    assert!(lost.is_empty(), "{} lost: {lost:?}", lost.len());
    Outcome::Passed
}

fn trials_in_one_breath(
    sandbox: &Sandbox,
    resident: &mut Resident,
    host: &UdpSocket,
) -> Vec<(usize, &'static str, &'static str)> {
    let mut buffer = [0; 8];
    let mut lost = Vec::new();
    for n in 0..harness::trials(TRIALS) * 3 {
        let name = format!("n{n}");
        let netns = named(sandbox, &name);
        let inside = netns.run(|| UdpSocket::bind("[::]:7000")).unwrap();
        inside.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let request = resident.joining(&name, "web");
        let (to_host, v6) = (n % 2 == 0, n % 4 < 2);
        // Told beforehand: nothing but the packet comes after.
        let gateway = if v6 { "[fd00:1::1]:7000" } else { "[::ffff:10.1.0.1]:7000" };
        let gateway: SocketAddr = gateway.parse().unwrap();
        let state = resident.run(&request).unwrap();
        let (reached, way) = match to_host {
            true => {
                let sent = inside.send_to(b"first", gateway);
                (sent.is_ok() && host.recv(&mut buffer).is_ok(), "to the gateway")
            }
            false => {
                let addrs = &state.containers.get(&handle(&name)).unwrap().endpoints[0].addrs;
                let addr = addrs.iter().find(|addr| addr.is_ipv6() == v6).unwrap();
                let addr = match addr {
                    IpAddr::V4(addr) => addr.to_ipv6_mapped(),
                    IpAddr::V6(addr) => *addr,
                };
                let sent = host.send_to(b"first", (addr, 7000));
                (sent.is_ok() && inside.recv(&mut buffer).is_ok(), "from the host")
            }
        };
        if !reached {
            lost.push((n, way, if v6 { "IPv6" } else { "IPv4" }));
        }
        // The kernel, which takes the last one away meanwhile, holds its worker up.
        let path = format!("/run/netns/{name}");
        rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
        std::fs::remove_file(&path).unwrap();
        drop((inside, netns));
        resident.remove(&name);
    }
    lost
}
