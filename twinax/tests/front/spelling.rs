//! Values that are spelled the same everywhere.

use std::net::IpAddr;

use proptest::prelude::*;
use twinax::front::spelling::{Addressing, nearest, publish, publish_text};
use twinax_core::{name::Proto, state::PublishSpec};

#[test]
fn a_published_port_is_read_as_docker_reads_it() {
    let cases = [
        ("80", "80"),
        ("80/tcp", "80"),
        ("8080:80", "8080:80"),
        ("0:80", "80"),
        ("8080:80/udp", "8080:80/udp"),
        ("53:53/sctp", "53:53/sctp"),
        ("127.0.0.1:8080:80", "127.0.0.1:8080:80"),
        ("127.0.0.1::80", "127.0.0.1::80"),
        ("[::1]:8080:80", "[::1]:8080:80"),
        ("[::1]::80/udp", "[::1]::80/udp"),
        ("8000-8010:80-90", "8000-8010:80-90"),
        ("8000-8010:80", "8000-8010:80"),
        ("80-90", "80-90"),
        ("80-80:90-90", "80:90"),
    ];
    for (text, canonical) in cases {
        let spec = publish(text).unwrap_or_else(|why| panic!("{text}: {why}"));
        assert_eq!(publish_text(&spec), canonical, "{text}");
    }
}

#[test]
fn a_port_that_cannot_be_read_is_told_why() {
    let cases = [
        ("", "the container port \"\" is not a number"),
        ("http", "the container port \"http\" is not a number"),
        ("+80", "the container port \"+80\" is not a number"),
        ("8080:0", "the container port \"0\" is not a number"),
        ("70000:80", "the host port \"70000\" is not a number"),
        (":80", "a port is missing before ':'"),
        ("80/icmp", "no protocol \"icmp\""),
        ("80/", "no protocol \"\""),
        ("90-80", "run backwards"),
        ("8000-8003:80-81", "4 host ports cannot lead to 2 container ports"),
        ("8000:80-81", "1 host ports cannot lead to 2 container ports"),
        ("::1:80:80", "stands in brackets"),
        ("[::1]80", "\"]:\" is missing"),
        ("[::1]:80", "followed by two ports, [::1]:8080:80"),
        ("[127.0.0.1]:80:80", "is not an IPv6 address"),
        ("127.0.0.1:80", "followed by two ports, 127.0.0.1:8080:80"),
        ("localhost:80:80", "\"localhost\" is not an address"),
        ("a:b:c:d", "stands in brackets"),
    ];
    for (text, why) in cases {
        let told = publish(text).expect_err(text).to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
}

fn ports() -> impl Strategy<Value = (Option<(u16, u16)>, (u16, u16))> {
    let one = (1..=u16::MAX).prop_map(|port| (port, port));
    let any = (1..=u16::MAX, 0..100u16).prop_map(|(a, n)| (a, a.saturating_add(n)));
    let equal = (1..60000u16, 1..60000u16, 0..100u16);
    prop_oneof![
        (one.clone(), any.clone()).prop_map(|(inner, outer)| (Some(outer), inner)),
        equal.prop_map(|(a, b, n)| (Some((a, a + n)), (b, b + n))),
        any.prop_map(|inner| (None, inner)),
    ]
}

proptest! {
    #[test]
    fn writing_then_reading_a_port_changes_nothing(
        (host_ports, container_ports) in ports(),
        host in any::<Option<IpAddr>>(),
        proto in prop_oneof![Just(Proto::Tcp), Just(Proto::Udp), Just(Proto::Sctp)],
    ) {
        let spec = PublishSpec { proto, host, host_ports, container_ports };
        prop_assert_eq!(publish(&publish_text(&spec)), Ok(spec));
    }

    #[test]
    fn reading_any_text_as_a_port_never_panics(text in "[0-9a-f:\\[\\]./-]{0,24}") {
        if let Ok(spec) = publish(&text) {
            prop_assert_eq!(publish(&publish_text(&spec)), Ok(spec));
        }
    }
}

#[test]
fn the_nearest_key_is_one_that_may_have_been_meant() {
    let keys = ["ip", "ip6", "mac", "aliases", "ifname", "priority", "subnet", "network"];
    let cases = [
        ("subnets", Some("subnet")),
        ("sunbet", Some("subnet")),
        ("alias", Some("aliases")),
        ("prio", Some("priority")),
        ("networks", Some("network")),
        ("ipv6", Some("ip6")),
        ("zebra", None),
        ("x", None),
        ("", None),
    ];
    for (word, near) in cases {
        assert_eq!(nearest(word, &keys), near, "{word}");
    }
}

#[test]
fn each_part_of_the_addressing_finds_its_subnet() {
    let addressing = Addressing {
        subnets: vec!["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        gateways: vec!["fd00:1::1".parse().unwrap(), "10.1.0.254".parse().unwrap()],
        ranges: vec!["10.1.0.128/25".parse().unwrap()],
        reserved: vec![("printer".to_owned(), "10.1.0.9".parse().unwrap())],
    };
    let [v4, v6] = &addressing.resolve().unwrap()[..] else { panic!("two subnets") };
    assert_eq!(v4.gateway, Some("10.1.0.254".parse().unwrap()));
    assert_eq!(v4.range, Some("10.1.0.128/25".parse().unwrap()));
    assert_eq!(v4.reserved["printer"], "10.1.0.9".parse::<IpAddr>().unwrap());
    assert_eq!(v6.gateway, Some("fd00:1::1".parse().unwrap()));
}
