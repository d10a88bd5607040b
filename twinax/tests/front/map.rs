//! What `map` and `peer` print of a small host.

use std::time::Duration;

use expect_test::{Expect, expect};
use twinax::front::{json, print::Style, tree, words};
use twinax_core::{
    map::{self, Unmatched, Wanted, shown},
    model::{LinkId, Netns, Route},
    name::{IfName, Proto, acts},
    peer,
    sight::{
        Counters, Holder, LinkFacts, Listener, PublishedPort, Runtime, Sight, Space, Workload,
    },
    snapshot::{FORMAT, Snapshot, Taken},
    watch::{self, Moment},
};

const PLAIN: Style = Style { width: None, colour: false };

pub(crate) fn netns(name: &str) -> Netns {
    match name {
        "host" => Netns::Host,
        name => Netns::Container(name.parse().expect("well written")),
    }
}

pub(crate) fn link(at: &str) -> LinkId {
    let (place, name) = at.rsplit_once('/').expect("well written");
    LinkId { netns: netns(place), name: name.parse().expect("well written") }
}

fn facts(index: u32, kind: &str, addrs: &[&str]) -> LinkFacts {
    LinkFacts {
        index,
        kind: kind.to_owned(),
        operstate: "up".to_owned(),
        carrier: true,
        addrs: addrs.iter().map(|net| net.parse().expect("well written")).collect(),
        counters: Counters { rx_packets: 12, rx_bytes: 928, ..Counters::default() },
        ..LinkFacts::default()
    }
}

/// Both ends of a cable, on a bridge of the host.
pub(crate) fn cable(
    sight: &mut Sight,
    host: (&str, u32),
    bridge: Option<&str>,
    inside: (&str, u32, &str),
) {
    let (outer, inner) = (link(host.0), link(inside.0));
    let master = bridge.map(link);
    let end = |index, addrs: &[&str], far: &LinkId, master| LinkFacts {
        leads_to: Some(far.clone()),
        proven: true,
        master,
        ..facts(index, "veth", addrs)
    };
    sight.links.insert(outer.clone(), end(host.1, &[], &inner, master));
    sight.links.insert(inner.clone(), end(inside.1, &[inside.2], &outer, None));
    let dst = "0.0.0.0/0".parse().expect("well written");
    let via = Some("172.17.0.1".parse().expect("well written"));
    sight.topology.routes.insert(Route { link: inner, dst, via, src: None });
}

pub(crate) fn container(runtime: Runtime, name: &str, pid: u32) -> Workload {
    Workload {
        runtime,
        id: format!("{pid:064x}"),
        name: name.to_owned(),
        image: Some("nginx:1.27".to_owned()),
        pod: None,
        pid: Some(pid),
        netns_path: None,
        networks: vec!["bridge".to_owned()],
        published: Vec::new(),
        labels: Default::default(),
    }
}

pub(crate) fn space(inode: u64, workloads: Vec<Workload>) -> Space {
    let pid = workloads.first().and_then(|workload| workload.pid);
    let process = pid.map(|pid| Holder::Process { pid, comm: "nginx".to_owned() });
    Space { inode, cookie: Some(inode % 100), holders: process.into_iter().collect(), workloads }
}

/// Two containers whose ends bear the same number, a pod, and a namespace nobody is in.
pub(crate) fn host() -> Sight {
    let mut sight = Sight::default();
    sight.spaces.insert(Netns::Host, space(4026531833, vec![]));
    sight.links.insert(link("host/lo"), facts(1, "", &["127.0.0.1/8"]));
    sight.links.insert(link("host/eth0"), facts(2, "", &["192.0.2.2/24"]));
    sight.links.insert(link("host/docker0"), facts(3, "bridge", &["172.17.0.1/16"]));
    for (n, name) in [(1u32, "con1"), (2, "con2")] {
        let handle = format!("pid:{}", 1000 + n);
        let mut workload = container(Runtime::Docker, name, 1000 + n);
        if n == 1 {
            let port = PublishedPort {
                proto: Proto::Tcp,
                host: None,
                host_port: 8080,
                container_port: 80,
            };
            workload.published.push(port);
            sight.listeners.push(Listener {
                netns: netns(&handle),
                proto: Proto::Tcp,
                at: "0.0.0.0:80".parse().expect("well written"),
                dual: false,
                processes: vec![(1001, "nginx".to_owned())],
            });
        }
        sight.spaces.insert(netns(&handle), space(4026532000 + u64::from(n), vec![workload]));
        let (outer, inner) = (format!("host/veth{n}"), format!("{handle}/eth0"));
        let addr = format!("172.17.0.{}/16", n + 1);
        cable(&mut sight, (&outer, 6 + n), Some("host/docker0"), (&inner, 2, &addr));
    }
    let pod = |name: &str, pid| Workload {
        pod: Some("shop/cart-0".to_owned()),
        ..container(Runtime::Cri, name, pid)
    };
    let workloads = vec![pod("pause", 3000), pod("cart", 3001)];
    sight.spaces.insert(netns("pid:3000"), space(4026532010, workloads));
    cable(&mut sight, ("host/cali7", 20), None, ("pid:3000/eth0", 3, "10.4.0.7/32"));
    let holders = vec![Holder::Descriptor { pid: 812, fd: 7, comm: "agent".to_owned() }];
    let hidden = Space { holders, ..space(4026532099, vec![]) };
    sight.spaces.insert(netns("netns:/proc/812/fd/7"), hidden);
    sight.links.insert(link("netns:/proc/812/fd/7/lo"), facts(1, "", &[]));
    sight.links.insert(link("host/veth9"), facts(30, "veth", &[]));
    sight
}

fn check(wanted: &Wanted, expected: Expect) {
    let (root, counts) = map::tree(&host(), wanted);
    expected.assert_eq(&(tree::text(&root, PLAIN) + &tree::counts(&counts)));
}

#[test]
fn everything_hangs_where_it_is_plugged_in() {
    check(
        &Wanted::default(),
        expect![[r#"
            host  net:[4026531833]
            ├─ bridge docker0  172.17.0.1/16  ● up
            │  ├─ veth1 ⇄ eth0  con1  172.17.0.2/16  gw 172.17.0.1  ● up  docker nginx:1.27
            │  └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
            ├─ cali7 ⇄ eth0  pod shop/cart-0  10.4.0.7/32  gw 172.17.0.1  ● up  cri nginx:1.27
            ├─ device eth0  192.0.2.2/24  ● up
            ├─ veth9  orphan: its other end was not found  ● up
            ├─ published *:8080/tcp  → con1:80  listener ✓ nginx(1001)
            └─ other namespaces
               └─ netns:/proc/812/fd/7  net:[4026532099]  held by descriptor 7 of process 812 (agent)  lo only
            4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan
        "#]],
    );
}

#[test]
fn only_what_was_asked_for() {
    let only = |handle: &str| Wanted { only: vec![handle.to_owned()], ..Wanted::default() };
    check(
        &only("con2"),
        expect![[r#"
        host  net:[4026531833]
        └─ bridge docker0  172.17.0.1/16  ● up
           └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &only("172.17.0.3"),
        expect![[r#"
        host  net:[4026531833]
        └─ bridge docker0  172.17.0.1/16  ● up
           └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &Wanted { runtime: Some(Runtime::Cri), ..Wanted::default() },
        expect![[r#"
        host  net:[4026531833]
        └─ cali7 ⇄ eth0  pod shop/cart-0  10.4.0.7/32  gw 172.17.0.1  ● up  cri nginx:1.27
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
    "#]],
    );
    check(
        &Wanted { network: Some("docker0".to_owned()), ..Wanted::default() },
        expect![[r#"
            host  net:[4026531833]
            ├─ bridge docker0  172.17.0.1/16  ● up
            │  ├─ veth1 ⇄ eth0  con1  172.17.0.2/16  gw 172.17.0.1  ● up  docker nginx:1.27
            │  └─ veth2 ⇄ eth0  con2  172.17.0.3/16  gw 172.17.0.1  ● up  docker nginx:1.27
            └─ published *:8080/tcp  → con1:80  listener ✓ nginx(1001)
            4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan, 1 not shown (-a)
        "#]],
    );
    check(
        &Wanted { all: true, only: vec!["netns:/proc/812/fd/7".to_owned()], ..Wanted::default() },
        expect![[r#"
        host  net:[4026531833]
        └─ other namespaces
           └─ netns:/proc/812/fd/7  net:[4026532099]  held by descriptor 7 of process 812 (agent)  lo only
        4 containers, 5 namespaces, 1 bridge, 3 cables, 1 orphan
    "#]],
    );
}

/// A filter takes what `inspect` takes.
#[test]
fn an_interface_of_the_hosts_is_asked_for_as_its_container() {
    let tree = |handle: &str| {
        let wanted = Wanted { only: vec![handle.to_owned()], ..Wanted::default() };
        let (root, counts) = map::tree(&host(), &wanted);
        (tree::text(&root, PLAIN) + &tree::counts(&counts), wanted.unmatched(&host()))
    };
    assert_eq!(tree("veth2"), tree("con2"));
    assert_eq!(tree("container:con2"), tree("con2"));
    assert_eq!(tree("veth2").1, None);
    // No map could be of a bridge: that is `--network`.
    assert_eq!(tree("docker0").1, Some(Unmatched::Only("docker0".to_owned())));
}

/// A moment that is compared is what its file is read as.
#[test]
fn a_moment_is_its_own_file() {
    let mut sight = host();
    let mut kept = sight.spaces[&netns("pid:1001")].workloads[0].clone();
    kept.id = "kept".to_owned();
    sight.unplaced.push(kept);
    sight.unseen.push("the rest".to_owned());
    let taken =
        || Taken { format: FORMAT.to_owned(), taken: 1_700_000_000, boot: "one".to_owned() };
    let text = json::text(json::snapshot(&sight, taken())).expect("written");
    let read: Snapshot = serde_json::from_str(&text).expect("read");
    let made = Snapshot::of(&sight, taken());
    assert!(made.namespaces.iter().any(|space| !space.listeners.is_empty()));
    assert!(made.namespaces.iter().any(|space| !space.routes.is_empty()));
    assert_eq!(made, read);
}

/// `diff --json` and `map --watch --json` say the same of a change.
#[test]
fn a_change_has_one_shape() {
    let (before, mut after) = (host(), host());
    after.links.get_mut(&link("host/docker0")).expect("there").operstate = "down".to_owned();
    let moment = |sight| Moment::of(sight, &Wanted::default());
    let told = watch::told(&moment(&before), &moment(&after));
    let at = Taken::default();
    let file = json::text(json::diff(&at, &at, &told)).expect("written");
    let file: serde_json::Value = serde_json::from_str(&file).expect("JSON");
    let line = words::change_json(&told[0], Duration::from_nanos(7)).expect("written");
    let mut line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let head = line.as_object_mut().expect("an object");
    assert_eq!((head.remove("version"), head.remove("time_ns")), (Some(1.into()), Some(7.into())));
    assert_eq!(file["changes"], serde_json::json!([line]));
    let expected = serde_json::json!({
        "change": "changed", "kind": "state", "namespace": "host", "interface": "docker0",
        "containers": [], "what": "docker0", "before": "up", "after": "down",
        "text": "~ state of docker0 on the host: up → down",
    });
    assert_eq!(line, expected);
}

#[test]
fn any_handle_finds_the_cable() {
    let sight = host();
    let id = format!("{:064x}", 1002);
    for handle in ["veth2", "veth2@if2", "con2", &id, "172.17.0.3", "1002", "8@host", "2@con2"] {
        let found = peer::find(&sight, handle);
        let told =
            found.iter().map(|cable| (cable.near.to_string(), cable.far.map(ToString::to_string)));
        let told: Vec<_> = told.collect();
        assert_eq!(told, [("veth2".to_owned(), Some("pid:1002/eth0".to_owned()))], "{handle}");
    }
    // What a container calls so too, with a far end of that number, is not what `ip link` shows.
    let mut confused = sight.clone();
    let own = LinkId { netns: Netns::Host, name: "veth2".parse().expect("a name") };
    let theirs = LinkId { netns: netns("pid:1001"), ..own.clone() };
    let facts = confused.links[&own].clone();
    confused.links.insert(theirs, facts);
    assert_eq!(peer::find(&confused, "veth2@if2").len(), 1);
    assert_eq!(peer::find(&confused, "veth2").len(), 1);
    // Every container's end is number 2 and called eth0: the number after @if tells nothing.
    assert_eq!(peer::find(&sight, "eth0").len(), 3);
    assert_eq!(peer::find(&sight, "shop/cart-0").len(), 1);
    assert_eq!(peer::find(&sight, "veth9")[0].far, None);
    assert_eq!(peer::find(&sight, "veth2@if5"), []);
    assert_eq!(peer::find(&sight, "nobody"), []);
}

#[test]
fn both_ends_are_told() {
    let sight = host();
    let about = |handle: &str| {
        let cables = peer::find(&sight, handle);
        tree::rows(&peer::about(&sight, &cables[0], handle), PLAIN)
    };
    expect![[r#"
          veth1        host         ifindex 7  on docker0  up
            ⇅          each end names the other: 7 in host ⇄ 2 in con1
        ▸ eth0         con1         ifindex 2  172.17.0.2/16  default via 172.17.0.1  up
            container  con1  id 000000000000  image nginx:1.27  docker  pid 1001
            namespace  net:[4026532001], cookie 1
          traffic      in 12 packets 928 bytes, out 0 packets 0 bytes, dropped 0
    "#]]
    .assert_eq(&about("con1"));
    expect![[r#"
        ▸ veth9    host         ifindex 30  up
                   its other end was not found: in a namespace that is hidden, or gone
          traffic  in 12 packets 928 bytes, out 0 packets 0 bytes, dropped 0
    "#]]
    .assert_eq(&about("veth9"));
}

/// What a terminal obeys: clears, titles, C1's CSI, DEL; what breaks lines, turns them round, or is
/// not seen.
const HOSTILE: &str =
    "a\x1b[2J\x1b]0;t\x07\n\u{9b}31m\x7f\u{2028}\u{202e}\u{2066}\u{200b}\u{e0041}\\\"b";

#[test]
fn what_acts_is_spelled_in_one_way() {
    assert_eq!(shown("a\x1b[2Jb\u{202e}c\nd"), "a\\x1b[2Jb\\xe2\\x80\\xaec\\x0ad");
    assert_eq!(IfName::spelled(b"a\x1b[2J").as_str(), shown("a\x1b[2J"));
    assert_eq!(shown(&shown(HOSTILE)), shown(HOSTILE));
    assert_eq!(shown("grün 日本 ✓ \\n"), "grün 日本 ✓ \\n");
}

/// A host on which all that others can name is named to do harm.
fn hostile() -> Sight {
    let bad = || HOSTILE.to_owned();
    let mut sight = host();
    for space in sight.spaces.values_mut() {
        for workload in &mut space.workloads {
            (workload.name, workload.id, workload.image) = (bad(), bad(), Some(bad()));
            workload.networks = vec![bad()];
            workload.labels = [(bad(), bad())].into();
        }
        space.holders = vec![Holder::Mount { path: bad(), seen_by: 1 }];
    }
    let pod = sight.spaces.get_mut(&netns("pid:3000")).expect("it is there");
    pod.workloads[0].pod = Some(bad());
    let guest = Workload { name: bad(), ..container(Runtime::Docker, "onhost", 77) };
    sight.spaces.get_mut(&Netns::Host).expect("it is there").workloads.push(guest);
    for facts in sight.links.values_mut() {
        facts.details = vec![bad()];
        facts.alt_names = [bad()].into();
    }
    for id in ["host/eth0", "host/veth9"] {
        sight.links.get_mut(&link(id)).expect("it is there").operstate = bad();
    }
    let odd = LinkId { netns: Netns::Host, name: IfName::spelled(HOSTILE.as_bytes()) };
    sight.links.insert(odd, facts(99, HOSTILE, &[]));
    sight.listeners[0].processes[0].1 = bad();
    sight.unseen = vec![bad()];
    sight
}

#[test]
fn names_of_others_cannot_act_on_a_terminal() {
    let (sight, calm) = (hostile(), host());
    let wanted = Wanted { all: true, ..Wanted::default() };
    let (root, counts) = map::tree(&sight, &wanted);
    let mut texts = vec![
        tree::text(&root, PLAIN),
        tree::text(&root, Style { width: Some(40), colour: false }),
        tree::counts(&counts) + &tree::unseen(&sight.unseen),
    ];
    let cables: Vec<_> =
        calm.links.keys().flat_map(|id| peer::find(&sight, &id.to_string())).collect();
    assert!(cables.len() >= 4, "{cables:?}");
    for cable in &cables {
        texts.push(tree::rows(&peer::about(&sight, cable, ""), PLAIN));
        texts.push(tree::rows(&[peer::line(&sight, cable)], PLAIN));
    }
    for handle in [HOSTILE, "nobody"] {
        let wanted = Wanted { network: Some(handle.to_owned()), ..Wanted::default() };
        texts.extend(wanted.unmatched(&calm).map(|unmatched| unmatched.to_string()));
    }
    for text in &texts {
        assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
    }
    // Nor does a name make a row of its own: there are those of the calm host, and what was added.
    let (calm_root, _) = map::tree(&calm, &wanted);
    let rows = |text: &str| text.lines().count();
    assert_eq!(rows(&texts[0]), rows(&tree::text(&calm_root, PLAIN)) + 3, "{}", texts[0]);
}

#[test]
fn names_of_others_are_whole_in_json() {
    let sight = hostile();
    let text = json::text(json::sight(&sight)).expect("it can be written");
    assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
    let told: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    let spaces = told["namespaces"].as_array().expect("a list");
    let names = spaces.iter().flat_map(|space| space["containers"].as_array().expect("a list"));
    let names: Vec<_> = names.map(|container| &container["name"]).collect();
    assert_eq!(names, vec![HOSTILE; 5]);
    assert_eq!(told["unseen"][0], HOSTILE);
    let cables = peer::find(&sight, "veth1");
    let text = json::text(json::peers(&sight, &cables, &[])).expect("it can be written");
    assert!(!text.contains(|c| acts(c) && c != '\n'), "{text:?}");
    let told: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(told["cables"][0]["far"]["containers"][0]["image"], HOSTILE);
}

#[test]
fn containers_on_the_hosts_network_are_in_the_tree() {
    let mut sight = host();
    let guests =
        [container(Runtime::Docker, "exporter", 900), container(Runtime::Podman, "dns", 901)];
    let here = sight.spaces.get_mut(&Netns::Host).expect("it is there");
    here.workloads.extend(guests);
    let tree = |only: &[&str], runtime| {
        let only = only.iter().map(|&handle| handle.to_owned()).collect();
        let wanted = Wanted { only, runtime, ..Wanted::default() };
        assert_eq!(wanted.unmatched(&sight), None);
        tree::text(&map::tree(&sight, &wanted).0, PLAIN)
    };
    let whole = tree(&[], None);
    assert!(
        whole.contains(
            "├─ on the host's own network\n\
         │  ├─ exporter  docker nginx:1.27  pid 900\n\
         │  └─ dns       podman nginx:1.27  pid 901\n"
        ),
        "{whole}"
    );
    let one = "host  net:[4026531833]\n\
               └─ on the host's own network\n   \
                  └─ dns  podman nginx:1.27  pid 901\n";
    assert_eq!(tree(&["dns"], None), one);
    assert_eq!(tree(&["901"], None), one);
    assert_eq!(tree(&[], Some(Runtime::Podman)), one);
    assert!(!tree(&["con1"], None).contains("on the host's own network"));
}

#[test]
fn containers_in_namespaces_that_may_not_be_seen_are_told() {
    let mut sight = host();
    sight.unplaced = vec![container(Runtime::Docker, "kept", 5000)];
    let tree = |wanted: &Wanted| {
        assert_eq!(wanted.unmatched(&sight), None);
        let (root, counts) = map::tree(&sight, wanted);
        tree::text(&root, PLAIN) + &tree::counts(&counts)
    };
    let branch = "└─ in namespaces that may not be seen\n   └─ kept  docker nginx:1.27  pid 5000\n5 containers";
    let whole = tree(&Wanted::default());
    assert!(whole.contains(branch), "{whole}");
    let only = Wanted { only: vec!["5000".to_owned()], ..Wanted::default() };
    assert!(tree(&only).contains(branch));
    let other = Wanted { runtime: Some(Runtime::Cri), ..Wanted::default() };
    assert!(!tree(&other).contains("kept"));
    let told: serde_json::Value =
        serde_json::from_str(&json::text(json::sight(&sight)).expect("written")).expect("JSON");
    assert_eq!(told["unplaced"][0]["name"], "kept");
}

#[test]
fn who_shares_a_pods_network_is_called_by_the_pod() {
    let mut sight = host();
    let pod = |name: &str| Workload {
        pod: Some("shop".to_owned()),
        ..container(Runtime::Podman, name, 4000)
    };
    let port = PublishedPort { proto: Proto::Tcp, host: None, host_port: 90, container_port: 9 };
    let mut infra = Workload { published: vec![port], ..pod("infra") };
    infra.labels.insert("role".to_owned(), "sandbox".to_owned());
    let mut label = |workloads: Vec<Workload>| {
        sight.spaces.insert(netns("pid:4000"), space(4026532020, workloads));
        sight.label(&netns("pid:4000"))
    };
    assert_eq!(label(vec![pod("web")]), "web");
    assert_eq!(label(vec![pod("web"), pod("db")]), "pod shop");
    assert_eq!(label(vec![infra]), "pod shop");
    let text = tree::text(&map::tree(&sight, &Wanted::default()).0, PLAIN);
    assert!(text.contains("published *:90/tcp    → pod shop:9  "), "{text}");
}

#[test]
fn what_matches_nothing_is_said() {
    let sight = host();
    let said = |wanted: Wanted| wanted.unmatched(&sight).map(|unmatched| unmatched.to_string());
    let only = |handles: &[&str]| handles.iter().map(|&handle| handle.to_owned()).collect();
    let network = |name: &str| Some(name.to_owned());
    for (wanted, expected) in [
        (Wanted::default(), None),
        (Wanted { only: only(&["con1", "shop/cart-0"]), ..Wanted::default() }, None),
        (Wanted { network: network("docker0"), ..Wanted::default() }, None),
        (
            Wanted { only: only(&["con1", "con\x1b"]), ..Wanted::default() },
            Some("no container or namespace on this host is called con\\x1b"),
        ),
        (
            Wanted { network: network("docker7"), ..Wanted::default() },
            Some("nothing on this host is on a network or bridge called docker7"),
        ),
        (
            Wanted { runtime: Some(Runtime::Lxc), ..Wanted::default() },
            Some("no container on this host is lxc's"),
        ),
        (
            Wanted { runtime: Some(Runtime::Cri), only: only(&["con1"]), ..Wanted::default() },
            Some("nothing on this host is all that was asked for"),
        ),
    ] {
        assert_eq!(said(wanted.clone()).as_deref(), expected, "{wanted:?}");
    }
}

#[test]
fn last_lines_are_cut_as_the_tree_is() {
    let style = Style { width: Some(20), colour: false };
    let lines = tree::unseen(&["the names of all that is there".to_owned(), "x".to_owned()]);
    assert_eq!(tree::clipped(&lines, style), "not seen: the names…\nnot seen: x\n");
    assert_eq!(tree::clipped(&lines, PLAIN), lines);
    assert_eq!(tree::clipped("", style), "");
}
