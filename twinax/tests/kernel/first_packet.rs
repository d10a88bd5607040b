//! Once attaching has returned, the first packet arrives: one datagram a trial, never sent twice.

use crate::{
    harness::{self, Outcome},
    product::answer,
    sandbox::{Reach, Sandbox, Talk},
    tests,
};

tests![to_the_gateway_of_a_new_network, between_two_just_attached, from_the_host, from_outside];

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
