//! Addresses and subnets are never given out twice.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use proptest::prelude::*;
use twinax_core::{
    name::IfName,
    pool::{Bitmap, Leases, POOLS, bridge_name, free_subnet4, free_subnet6, overlap},
};

fn net(text: &str) -> IpNet {
    text.parse().expect("a subnet")
}

fn addr(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

#[test]
fn a_small_subnet_is_given_out_whole_but_for_its_ends() {
    let net = net("10.1.0.0/29");
    let mut leases = Leases::new([net]);
    assert!(leases.claim(addr("10.1.0.1")));
    let given: Vec<_> = std::iter::from_fn(|| leases.take(net, net)).collect();
    let expected: Vec<_> = (2..=6).map(|n| IpAddr::from(Ipv4Addr::new(10, 1, 0, n))).collect();
    assert_eq!(given, expected);
}

#[test]
fn an_address_given_back_is_given_out_last() {
    let net = net("10.1.0.0/29");
    let mut leases = Leases::new([net]);
    assert_eq!(leases.take(net, net), Some(addr("10.1.0.1")));
    assert!(leases.release(addr("10.1.0.1")));
    let given: Vec<_> = std::iter::from_fn(|| leases.take(net, net)).collect();
    assert_eq!(given.last(), Some(&addr("10.1.0.1")));
}

#[test]
fn a_range_inside_its_subnet_loses_no_end() {
    let (range, net) = (net("10.1.0.8/30"), net("10.1.0.0/24"));
    let mut leases = Leases::new([range]);
    assert_eq!(std::iter::from_fn(|| leases.take(range, net)).count(), 4);
    let range = self::net("10.1.0.252/30");
    let mut leases = Leases::new([range]);
    assert_eq!(std::iter::from_fn(|| leases.take(range, net)).count(), 3);
}

#[test]
fn a_64_gives_its_first_addresses_and_keeps_far_ones() {
    let net = net("fd00::/64");
    let mut leases = Leases::new([net]);
    let far = addr("fd00::1:2:3:4");
    assert!(leases.claim(far) && !leases.claim(far) && leases.holds(far));
    assert_eq!(leases.take(net, net), Some(addr("fd00::1")));
    assert_eq!(leases.count(), 2);
    let rest = std::iter::from_fn(|| leases.take(net, net)).count();
    assert_eq!(rest, 65_534, "the window without the subnet's own address and ::1");
    assert!(leases.release(far) && !leases.release(far));
}

#[test]
fn pools_skip_what_is_taken() {
    let free = |taken: &[&str]| {
        let taken: Vec<_> = taken.iter().map(|text| net(text)).collect();
        free_subnet4(&taken).map(|net| net.to_string())
    };
    assert_eq!(free(&[]).as_deref(), Some("10.224.0.0/22"));
    assert_eq!(free(&["10.224.0.7/32"]).as_deref(), Some("10.224.4.0/22"));
    assert_eq!(free(&["10.224.0.0/13", "10.232.3.0/24"]).as_deref(), Some("10.232.4.0/22"));
    assert_eq!(free(&["10.0.0.0/8"]).as_deref(), Some("172.16.0.0/22"));
    assert_eq!(free(&["10.0.0.0/8", "172.16.0.0/12"]).as_deref(), Some("192.168.0.0/22"));
    assert_eq!(free(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"]), None);
    let mut taken = Vec::new();
    while let Some(net) = free_subnet4(&taken) {
        taken.push(net.into());
    }
    assert_eq!(taken.len(), 2048 + 1024 + 64);
    let in_pools = |net: &IpNet| POOLS.iter().any(|(pool, _)| IpNet::from(*pool).contains(net));
    assert!(taken.iter().all(in_pools));
}

#[test]
fn unique_local_subnets_carry_the_site_and_a_number() {
    let site = [1, 2, 3, 4, 5];
    let first = free_subnet6(site, 7, &[]).map(|net| net.to_string());
    assert_eq!(first.as_deref(), Some("fd01:203:405:7::/64"));
    let next = free_subnet6(site, 7, &[net("fd01:203:405:7::/64")]).map(|net| net.to_string());
    assert_eq!(next.as_deref(), Some("fd01:203:405:8::/64"));
    assert_eq!(free_subnet6(site, 7, &[net("fd00::/8")]), None);
}

#[test]
fn bridge_names_fit_the_kernel() {
    let none = BTreeSet::new();
    let web: IfName = "tx-web".parse().expect("a name");
    assert_eq!(bridge_name("web", 1, &none), Some(web.clone()));
    let taken = BTreeSet::from([web]);
    assert_eq!(bridge_name("web", 2, &taken).expect("another").as_str(), "tx-web-2");
    let long = bridge_name("a-very-long-network-name", 65_535, &none);
    assert_eq!(long.expect("a short one").as_str(), "tx-a-very-65535");
}

#[test]
fn leases_are_stored_as_hexadecimal_digits() {
    let net = net("10.1.0.0/24");
    let mut leases = Leases::new([net]);
    (0..70).for_each(|_| assert!(leases.take(net, net).is_some()));
    let text = serde_json::to_string(&leases).expect("leases can be written");
    let expected =
        r#"{"subnets":{"10.1.0.0/24":{"taken":"fffffffffffffffe000000000000007f","next":71}}}"#;
    assert_eq!(text, expected);
    assert_eq!(serde_json::from_str::<Leases>(&text).expect("and read"), leases);
}

#[test]
fn damaged_leases_are_refused() {
    let long = "f".repeat(16 * 1025);
    for taken in ["f", "zzzzzzzzzzzzzzzz", "+fffffffffffffff", "äääääääa", &long] {
        let text = format!(r#"{{"taken":"{taken}","next":0}}"#);
        serde_json::from_str::<Bitmap>(&text).expect_err(taken);
    }
}

/// What is done to leases, by offset from the subnet's first address.
#[derive(Clone, Debug)]
enum Step {
    Take,
    Claim(u32),
    Release(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Take),
        1 => (0u32..300).prop_map(Step::Claim),
        2 => (0u32..300).prop_map(Step::Release),
    ];
    prop::collection::vec(step, 0..400)
}

proptest! {
    /// Leases are a set, whatever is done to them; and what is taken is new and usable.
    #[test]
    fn leases_are_a_set(steps in steps(), prefix_len in 24u8..=29) {
        let net = IpNet::new(addr("10.1.0.0"), prefix_len).expect("a prefix length");
        let at = |offset: u32| IpAddr::from(Ipv4Addr::from(0x0a01_0000 + offset));
        let mut leases = Leases::new([net]);
        let mut model: BTreeSet<IpAddr> = BTreeSet::new();
        for step in steps {
            match step {
                Step::Take => match leases.take(net, net) {
                    Some(addr) => {
                        prop_assert!(net.contains(&addr));
                        prop_assert!(addr != net.network() && addr != net.broadcast());
                        prop_assert!(model.insert(addr), "{addr} is given out twice");
                    }
                    None => {
                        let mut hosts = net.hosts();
                        prop_assert!(hosts.all(|addr| model.contains(&addr)));
                    }
                },
                Step::Claim(n) => prop_assert_eq!(leases.claim(at(n)), model.insert(at(n))),
                Step::Release(n) => prop_assert_eq!(leases.release(at(n)), model.remove(&at(n))),
            }
            prop_assert_eq!(leases.count(), model.len());
        }
        prop_assert!(model.iter().all(|addr| leases.holds(*addr)));
        let text = serde_json::to_string(&leases).expect("leases can be written");
        prop_assert_eq!(serde_json::from_str::<Leases>(&text).expect("and read"), leases);
    }

    #[test]
    fn subnets_chosen_overlap_nothing(taken in prop::collection::vec((any::<u32>(), 8u8..=32), 0..40)) {
        let within = |n: u32| Ipv4Addr::from(0x0ae0_0000 | (n & 0x001f_ffff));
        let taken: Vec<IpNet> = taken
            .into_iter()
            .filter_map(|(n, len)| IpNet::new(within(n).into(), len.max(13)).ok())
            .collect();
        if let Some(net) = free_subnet4(&taken) {
            prop_assert!(!taken.iter().any(|other| overlap(other.trunc(), net.into())));
        }
    }
}
