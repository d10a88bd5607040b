//! What rules mean, from the kernel's steps to words and to the ports they lead elsewhere.

use twinax_core::firewall::{
    Action, Base, Engine, Family, Hook, LedPort, Match, Rule, Table, What,
    decoded::{self, Element, Set, Step, VERDICT, Yield},
    understand,
};

fn text(name: &str, len: usize) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(len, 0);
    bytes
}

fn equal(value: &[u8]) -> Step {
    Step::Compare { from: 0, op: 0, value: value.to_vec() }
}

fn payload(base: u32, offset: u32, len: u32) -> Step {
    Step::Payload { base, offset, len, into: 0 }
}

fn meta(key: u32) -> Step {
    Step::Meta { key, into: 0 }
}

fn jump(chain: &str) -> Step {
    Step::Verdict { code: -3, chain: Some(chain.to_owned()) }
}

fn tcp() -> [Step; 2] {
    [meta(16), equal(&[6])]
}

fn dport(port: u16) -> [Step; 2] {
    [payload(2, 2, 2), equal(&port.to_be_bytes())]
}

fn dnat(addr: [u8; 4], port: u16) -> [Step; 3] {
    [
        Step::Immediate { into: 0, value: addr.to_vec() },
        Step::Immediate { into: 4, value: port.to_be_bytes().to_vec() },
        Step::Nat { source: false, addr: Some((0, 0)), ports: Some((4, 4)) },
    ]
}

fn table(chains: Vec<(&str, Vec<Vec<Step>>)>, sets: Vec<Set>) -> decoded::Table {
    let base =
        Base { kind: "nat".to_owned(), hook: Hook::Prerouting, priority: -100, drops: false };
    let chain = |(n, (name, rules)): (usize, (&str, Vec<Vec<Step>>))| decoded::Chain {
        name: name.to_owned(),
        base: (n == 0).then(|| base.clone()),
        rules: (1..)
            .zip(rules)
            .map(|(handle, steps)| decoded::Rule { handle, steps, comment: None })
            .collect(),
    };
    decoded::Table {
        engine: Engine::Nft,
        family: Family::Ip,
        name: "t".to_owned(),
        owner: None,
        dormant: false,
        chains: chains.into_iter().enumerate().map(chain).collect(),
        sets,
    }
}

fn read(table: decoded::Table) -> (Table, Vec<LedPort>) {
    let (mut tables, led) = understand(&[table]);
    (tables.pop().expect("one went in"), led)
}

fn one(steps: Vec<Step>, sets: Vec<Set>) -> Rule {
    let (mut table, _) = read(table(vec![("c", vec![steps])], sets));
    table.chains.remove(0).rules.remove(0)
}

fn words(steps: Vec<Step>) -> String {
    one(steps, vec![]).to_string()
}

#[test]
fn steps_become_words() {
    let mask = |mask: &[u8]| Step::Bitwise {
        from: 0,
        into: 0,
        mask: mask.to_vec(),
        xor: vec![0; mask.len()],
    };
    let unequal = |value: &[u8]| Step::Compare { from: 0, op: 1, value: value.to_vec() };
    for (steps, expected) in [
        (vec![meta(6), equal(&text("eth0", 16))], "iifname \"eth0\""),
        // What iptables writes: as long as the name, with its NUL or for a wildcard without.
        (vec![meta(6), equal(b"eth0\0")], "iifname \"eth0\""),
        (vec![meta(7), unequal(b"veth")], "oifname != \"veth*\""),
        (vec![payload(1, 12, 4), equal(&[10, 0, 0, 1])], "ip saddr 10.0.0.1"),
        (vec![payload(1, 16, 1), equal(&[10])], "ip daddr 10.0.0.0/8"),
        (
            vec![payload(1, 16, 4), mask(&[255, 240, 0, 0]), equal(&[172, 16, 0, 0])],
            "ip daddr 172.16.0.0/12",
        ),
        // A mask that is no prefix is nothing that an address with a length could say.
        (
            vec![payload(1, 16, 4), mask(&[255, 0, 255, 0]), equal(&[10, 0, 1, 0])],
            "ip daddr & 0xff00ff00 == 0x0a000100",
        ),
        (
            vec![Step::Ct { key: 0, into: 0 }, mask(&6u32.to_ne_bytes()), unequal(&[0; 4])],
            "ct state established,related",
        ),
        (
            vec![Step::Ct { key: 0, into: 0 }, mask(&8u32.to_ne_bytes()), equal(&[0; 4])],
            "ct state != new",
        ),
        (
            vec![Step::Ct { key: 2, into: 0 }, mask(&32u32.to_ne_bytes()), unequal(&[0; 4])],
            "ct status dnat",
        ),
        (
            vec![Step::Fib { result: 3, flags: 2, into: 0 }, equal(&2u32.to_ne_bytes())],
            "fib daddr type local",
        ),
        (
            vec![meta(3), mask(&255u32.to_ne_bytes()), equal(&16u32.to_ne_bytes())],
            "meta mark 0x10/0xff",
        ),
        (vec![meta(21), equal(&5u32.to_ne_bytes())], "iifgroup 5"),
        (vec![Step::Other { name: "osf".to_owned(), into: None }, Step::Reject], "osf reject"),
        (vec![Step::Other { name: "last".to_owned(), into: None }], "last"),
    ] {
        assert_eq!(words(steps), expected);
    }
    let ports = [&tcp()[..], &dport(80), &[Step::Verdict { code: 1, chain: None }]].concat();
    assert_eq!(words(ports), "tcp dport 80 accept");
    let from = |op, port: u16| Step::Compare { from: 0, op, value: port.to_be_bytes().to_vec() };
    assert_eq!(words(vec![payload(2, 2, 2), from(5, 10), from(3, 20)]), "th dport 10-20");
    // The second speaks of something else that lies in the same place.
    let apart = vec![payload(2, 0, 2), from(5, 10), payload(2, 2, 2), from(3, 20)];
    assert_eq!(words(apart), "th sport >= 10 th dport <= 20");
}

#[test]
fn what_is_not_understood_is_marked() {
    let rule = one(vec![Step::Other { name: "osf".to_owned(), into: None }], vec![]);
    assert_eq!(rule.matches, [Match { not: false, what: What::Other("osf".to_owned()) }]);
    let xt =
        |name: &str, target| Step::Xt { target, name: name.to_owned(), revision: 0, info: vec![] };
    let rule = one(vec![xt("statistic", false), xt("ULOG", true)], vec![]);
    assert_eq!(rule.matches[0].what, What::Other("xt statistic".to_owned()));
    assert_eq!(rule.action, Action::Other("xt ULOG".to_owned()));
    // One that is known, and too short to be read.
    for name in ["tcp", "udp", "multiport", "conntrack", "state", "mark", "set", "addrtype"] {
        let rule = one(vec![xt(name, false)], vec![]);
        assert_eq!(rule.matches[0].what, What::Other(format!("xt {name}")));
    }
    assert_eq!(one(vec![xt("DNAT", true)], vec![]).action, Action::Other("xt DNAT".to_owned()));
    // A word that nobody put anything into.
    assert_eq!(words(vec![equal(&[1])]), "? 0x01");
}

#[test]
fn inline_sets_become_part_of_the_rule() {
    let element = |key: &[u8], end| Element { key: key.to_vec(), end, ..Element::default() };
    let set = |intervals, elements| Set {
        name: "__set0".to_owned(),
        anonymous: true,
        intervals,
        key_len: 2,
        elements: Some(elements),
        ..Set::default()
    };
    let look = |not| Step::Lookup { set: "__set0".to_owned(), from: 0, into: None, not };
    let steps = |not| [&tcp()[..], &[payload(2, 2, 2), look(not)]].concat();
    let port = u16::to_be_bytes;
    let plain = set(false, vec![element(&port(443), false), element(&port(80), false)]);
    assert_eq!(one(steps(false), vec![plain.clone()]).to_string(), "tcp dport { 80, 443 }");
    assert_eq!(one(steps(true), vec![plain]).to_string(), "tcp dport != { 80, 443 }");
    // Intervals are told by where they begin and where the next thing does.
    let spans = [(0, true), (80, false), (81, true), (8000, false), (8011, true), (65000, false)];
    let spans = spans.iter().map(|(at, end)| element(&port(*at), *end)).collect();
    let rule = one(steps(false), vec![set(true, spans)]);
    assert_eq!(rule.to_string(), "tcp dport { 80, 8000-8010, 65000-65535 }");
    let single = set(false, vec![element(&port(80), false)]);
    assert_eq!(one(steps(false), vec![single]).matches[1].what, What::DestinationPort(80, 80));
    // Elements that were too many to be read are not taken for none.
    let unread = Set { elements: None, ..set(false, vec![]) };
    assert_eq!(one(steps(false), vec![unread]).to_string(), "meta l4proto tcp tcp dport @__set0");
}

#[test]
fn a_port_is_followed_through_chains() {
    let guard = |port| [&tcp()[..], &dport(port), &[jump("svc")]].concat();
    let chains = vec![
        (
            "pre",
            vec![
                guard(30080),
                guard(30443),
                vec![payload(1, 16, 4), equal(&[10, 96, 0, 1]), jump("svc")],
            ],
        ),
        ("svc", vec![vec![Step::Other { name: "numgen".to_owned(), into: Some(0) }, jump("sep")]]),
        ("sep", vec![[&tcp()[..], &dnat([10, 1, 0, 2], 80)].concat()]),
        ("unused", vec![[&tcp()[..], &dport(1), &dnat([10, 1, 0, 9], 9)].concat()]),
    ];
    let (_, led) = read(table(chains, vec![]));
    let told: Vec<String> = led
        .iter()
        .map(|one| format!("{}->{}:{:?} {}", one.host_ports.0, one.to, one.to_port, one.by))
        .collect();
    assert_eq!(
        told,
        ["30080->10.1.0.2:Some(80) ip t sep #1", "30443->10.1.0.2:Some(80) ip t sep #1"]
    );
}

#[test]
fn what_contradicts_itself_leads_nowhere() {
    let udp = [meta(16), equal(&[17])];
    let chains = vec![
        ("pre", vec![[&udp[..], &dport(53), &[jump("sep")]].concat()]),
        ("sep", vec![[&tcp()[..], &dnat([10, 1, 0, 2], 53)].concat()]),
    ];
    assert_eq!(read(table(chains, vec![])).1, []);
}

/// The kernel allows no circle, but what is read may be of two moments.
#[test]
fn a_circle_of_chains_comes_to_an_end() {
    let round = || vec![vec![jump("a")], vec![jump("b")]];
    let (table, led) = read(table(vec![("a", round()), ("b", round())], vec![]));
    assert_eq!((table.chains.len(), led.len()), (2, 0));
}

#[test]
fn maps_lead_ports_too() {
    let element = |proto: u8, port: u16, addr: [u8; 4], to: u16| {
        let key = [&[proto, 0, 0, 0][..], &port.to_be_bytes(), &[0, 0]].concat();
        let value = [&addr[..], &to.to_be_bytes(), &[0, 0]].concat();
        Element { key, yields: Yield::Value(value), ..Element::default() }
    };
    let set = Set {
        name: "any4".to_owned(),
        map: true,
        key_len: 8,
        elements: Some(vec![
            element(6, 8080, [10, 1, 0, 2], 80),
            element(17, 53, [10, 1, 0, 3], 5353),
        ]),
        ..Set::default()
    };
    let steps = vec![
        meta(16),
        Step::Payload { base: 2, offset: 2, len: 2, into: 1 },
        Step::Lookup { set: "any4".to_owned(), from: 0, into: Some(0), not: false },
        Step::Nat { source: false, addr: Some((0, 0)), ports: Some((1, 1)) },
    ];
    let (seen, led) = read(table(vec![("pre", vec![steps])], vec![set]));
    assert_eq!(seen.chains[0].rules[0].to_string(), "dnat to meta l4proto . th dport map @any4");
    let told: Vec<String> = led
        .iter()
        .map(|one| {
            format!("{} {}->{}:{:?} {}", one.proto, one.host_ports.0, one.to, one.to_port, one.by)
        })
        .collect();
    assert_eq!(
        told,
        ["tcp 8080->10.1.0.2:Some(80) ip t any4", "udp 53->10.1.0.3:Some(5353) ip t any4"]
    );
    // A map of verdicts is followed like a jump.
    let goto = Element {
        key: 22u16.to_be_bytes().to_vec(),
        yields: Yield::Verdict { code: -4, chain: Some("sep".to_owned()) },
        ..Element::default()
    };
    let verdicts = Set {
        name: "v".to_owned(),
        map: true,
        verdicts: true,
        key_len: 2,
        elements: Some(vec![goto]),
        ..Set::default()
    };
    let look = Step::Lookup { set: "v".to_owned(), from: 0, into: Some(VERDICT), not: false };
    let chains = vec![
        ("pre", vec![[&tcp()[..], &[payload(2, 2, 2), look]].concat()]),
        ("sep", vec![dnat([10, 1, 0, 4], 2222).to_vec()]),
    ];
    let (_, led) = read(table(chains, vec![verdicts]));
    assert_eq!((led[0].host_ports, led[0].to_port, led.len()), ((22, 22), Some(2222), 1));
}

#[test]
fn a_table_that_sleeps_leads_nothing() {
    let chains =
        || vec![("pre", vec![[&tcp()[..], &dport(80), &dnat([10, 1, 0, 2], 80)].concat()])];
    assert_eq!(read(table(chains(), vec![])).1.len(), 1);
    let asleep = decoded::Table { dormant: true, ..table(chains(), vec![]) };
    assert_eq!(read(asleep).1, []);
}
