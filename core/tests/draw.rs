//! Drawings show all there is, lie on no one, and are safe whatever things are called.

#[path = "draw/sample.rs"]
mod sample;

use expect_test::expect;
use sample::{Host, link, workload};
use twinax_core::{
    draw::{
        Hang, Node, Scene, Tie, dot,
        html::html,
        layout::{Density, Layout, Rect, fitted, fitted_name, text_width},
        mermaid,
        svg::svg,
    },
    firewall::LedPort,
    interior::Interior,
    map::Wanted,
    model::Netns,
    name::Proto,
    sight::{Holder, Runtime, Sight},
};

fn scene(host: &Host) -> Scene {
    Scene::of(&host.0, &Wanted::default())
}

fn outputs(sight: &Sight) -> [(&'static str, String); 4] {
    let scene = Scene::of(sight, &Wanted::default());
    [
        ("svg", svg(&scene)),
        ("html", html(&scene, sight)),
        ("dot", dot::dot(&scene)),
        ("mermaid", mermaid::mermaid(&scene)),
    ]
}

fn samples() -> Vec<Host> {
    vec![
        Host::new(),
        Host::docker(1, 1),
        Host::docker(3, 2).with_oddities(),
        Host::docker(30, 4).with_oddities(),
        Host::docker(30, 14),
        Host::docker(300, 9).with_oddities(),
        Host::crossed(30, 5),
        Host::crossed(90, 7).with_oddities(),
    ]
}

#[test]
fn nothing_lies_on_a_card() {
    for host in samples() {
        let scene = scene(&host);
        let layout = Layout::of(&scene);
        let boxes: Vec<&Rect> = layout.cards.iter().chain(&layout.devices).collect();
        for (n, a) in boxes.iter().enumerate() {
            assert!(boxes[..n].iter().all(|b| !a.overlaps(b)), "{a:?} lies on another");
            assert!(a.right() <= layout.host.right() && a.bottom() <= layout.host.bottom());
        }
        for (n, lane) in layout.lanes.iter().enumerate() {
            assert!(layout.lanes[..n].iter().all(|other| !lane.panel.overlaps(&other.panel)));
            assert!(layout.devices.iter().all(|device| !lane.panel.overlaps(device)));
        }
        for (card, rect) in scene.cards.iter().zip(&layout.cards) {
            let lane = &layout.lanes[card.lane];
            let is_inside = rect.x >= lane.panel.x
                && rect.right() <= lane.panel.right()
                && rect.y >= lane.bar.bottom()
                && rect.bottom() <= lane.panel.bottom();
            assert!(is_inside, "{} stands outside its lane", card.label);
        }
        for (wire, place) in scene.wires.iter().zip(&layout.wires) {
            assert!(place.points.len() >= 2, "{wire:?} has no way");
            for step in place.points.windows(2) {
                let [(x1, y1), (x2, y2)] = [step[0], step[1]];
                assert!(x1 == x2 || y1 == y2, "{wire:?} is askew");
                let (x, y) = (x1.min(x2), y1.min(y2));
                // A line has no area: it is on a box if it is within, not if it ends at its edge.
                let line = Rect { x, y, w: (x1 - x2).abs(), h: (y1 - y2).abs() };
                let crossed = boxes.iter().find(|b| b.overlaps(&line));
                assert!(crossed.is_none(), "{wire:?} crosses {crossed:?}");
                assert!(x1.max(x2) <= layout.host.right() && y1.max(y2) <= layout.host.bottom());
            }
        }
    }
}

/// Wires of one direction that lie on each other cannot be told apart.
#[test]
fn no_two_wires_run_in_one_line() {
    for host in samples() {
        let scene = scene(&host);
        let layout = Layout::of(&scene);
        let mut steps = Vec::new();
        for (n, place) in layout.wires.iter().enumerate() {
            for step in place.points.windows(2).filter(|step| step[0] != step[1]) {
                let is_level = step[0].1 == step[1].1;
                let turned = |(x, y): (i32, i32)| if is_level { (y, x) } else { (x, y) };
                let [(at, from), (_, to)] = [turned(step[0]), turned(step[1])];
                steps.push((is_level, at, from.min(to), from.max(to), n));
            }
        }
        steps.sort_unstable();
        for pair in steps.windows(2) {
            let [(a_level, a_at, _, a_to, a), (b_level, b_at, b_from, _, b)] = [pair[0], pair[1]];
            let touch = a_level == b_level && a_at == b_at && b_from < a_to;
            assert!(!touch || a == b, "{:?} runs along {:?}", scene.wires[a], scene.wires[b]);
        }
    }
}

#[test]
fn many_cards_are_small() {
    assert_eq!(Layout::of(&scene(&Host::docker(30, 3))).density, Density::Roomy);
    let layout = Layout::of(&scene(&Host::docker(300, 9)));
    assert_eq!(layout.density, Density::Compact);
    assert!(layout.width < 4000 && layout.height < 4000, "{} x {}", layout.width, layout.height);
}

#[test]
fn all_there_is_is_in_each_output() {
    for host in [Host::docker(30, 4).with_oddities(), Host::crossed(30, 5), Host::docker(300, 9)] {
        let names = host.0.spaces.values().flat_map(|space| &space.workloads).map(|w| &w.name);
        let names: Vec<&String> = names.collect();
        let cables = host.0.links.iter().filter(|(_, facts)| facts.kind == "veth");
        let ends: Vec<&str> = cables.map(|(id, _)| id.name.as_str()).collect();
        for (format, text) in outputs(&host.0) {
            for name in &names {
                assert!(text.contains(name.as_str()), "{name} is not in the {format}");
            }
            for end in &ends {
                assert!(text.contains(end), "{end} is not in the {format}");
            }
        }
        let scene = scene(&host);
        let cables = host.0.links.values().filter(|f| f.kind == "veth" && f.leads_to.is_some());
        let wires = scene.wires.iter().filter(|wire| wire.tie == Tie::Cable);
        assert_eq!(wires.count() * 2, cables.count());
    }
}

#[test]
fn the_same_host_is_drawn_the_same() {
    for host in samples() {
        assert_eq!(outputs(&host.0), outputs(&host.0.clone()));
    }
}

#[test]
fn what_the_tree_leaves_out_is_not_drawn() {
    let mut host = Host::docker(4, 2).with_oddities();
    let nobodys = host.space("pid:9000", vec![workload(Runtime::Process, "sleep", "")]);
    let drawn = |wanted: &Wanted| -> Vec<Netns> {
        Scene::of(&host.0, wanted).cards.into_iter().map(|card| card.netns).collect()
    };
    assert!(!drawn(&Wanted::default()).contains(&nobodys));
    assert!(drawn(&Wanted { all: true, ..Wanted::default() }).contains(&nobodys));
    let only = Wanted { only: vec!["gateway".to_owned()], ..Wanted::default() };
    let scene = Scene::of(&host.0, &only);
    assert_eq!(scene.cards.len(), 1);
    assert_eq!(scene.lanes.len(), 2, "both bridges that it is on");
    assert!(scene.devices.is_empty() && scene.wires.len() == 2);
    let podman = Wanted { runtime: Some(Runtime::Podman), ..Wanted::default() };
    let scene = Scene::of(&host.0, &podman);
    assert_eq!(scene.devices.len(), 1, "what the macvlan lies on");
    assert!(matches!(scene.lanes[0].hang, Hang::Parent(_)));
}

#[test]
fn a_node_that_holds_others_is_a_lane() {
    let scene = scene(&Host::crossed(3, 2));
    let inside = scene.lanes.iter().position(|lane| matches!(lane.hang, Hang::Inside(_)));
    let inside = inside.expect("a lane of the node's");
    assert_eq!(scene.lanes[inside].name, "inside kind-node");
    assert_eq!(scene.cards.iter().filter(|card| card.lane == inside).count(), 7);
    let ties = scene.wires.iter().filter(|wire| wire.ends[0].node == Node::Lane(inside));
    assert_eq!(ties.count(), 1);
}

#[test]
fn what_lies_on_a_link_is_tied_to_it() {
    let scene = scene(&Host::docker(3, 2).with_oddities());
    let name = |node| match node {
        Node::Lane(n) => format!("lane {}", scene.lanes[n].name),
        Node::Card(n) => scene.cards[n].label.clone(),
        Node::Device(n) => scene.devices[n].name.clone(),
    };
    let wires: Vec<String> = scene
        .wires
        .iter()
        .filter(|wire| !wire.is_home(&scene) || wire.tie != Tie::Cable)
        .map(|wire| {
            format!("{} {} {}", name(wire.ends[0].node), wire.label(), name(wire.ends[1].node))
        })
        .collect();
    expect![[r#"
        lane host to-host lane docker0
        lane on enp1s0 lies on enp1s0
        gateway vethaaa0002 lane br-10003f1d77a9
        dhcp macvlan lane on enp1s0
        left to-left right
        enp1s0.5 vlan enp1s0
        vxlan42 port lane docker0"#]]
    .assert_eq(&wires.join("\n"));
}

#[test]
fn containers_in_the_hosts_namespace_are_cards() {
    let mut host = Host::docker(1, 1);
    let space = host.0.spaces.get_mut(&Netns::Host).expect("the host is there");
    space.workloads = vec![
        workload(Runtime::Docker, "exporter", "prom/node-exporter"),
        workload(Runtime::Process, "sshd", ""),
    ];
    let scene = scene(&host);
    let shared = scene.lanes.iter().position(|lane| lane.hang == Hang::Shared).expect("a lane");
    let cards: Vec<&str> = scene
        .cards
        .iter()
        .filter(|card| card.lane == shared)
        .map(|card| card.label.as_str())
        .collect();
    assert_eq!(cards, ["exporter"]);
}

#[test]
fn what_nobody_holds_stands_out() {
    let mut host = Host::docker(1, 1).with_oddities();
    let space = host.space("netns:/run/netns/fd", vec![]);
    host.link(&link(&space, "tun0"), "tun", &[]);
    let by_fd = Holder::Descriptor { pid: 1, fd: 2, comm: "x".to_owned() };
    host.0.spaces.get_mut(&space).expect("just added").holders = vec![by_fd];
    let scene = scene(&host);
    let of = |label: &str| scene.cards.iter().find(|card| card.label == label).expect("a card");
    assert!(of("netns:/run/netns/lost").forlorn);
    assert!(!of("netns:/run/netns/fd").forlorn);
    assert_eq!(of("netns:/run/netns/fd").held, "held by descriptor 2 of process 1 (x)");
}

const HOSTILE: &str =
    "<script>alert('x')</script>\"]]>\\\u{1b}[31m\n\r\t--&amp;`#quot;\u{202e}{}|%\u{0}";

/// A host on which everything that others can name is called badly.
fn hostile() -> Host {
    let mut host = Host::docker(2, 1);
    let mut bad = workload(Runtime::Docker, HOSTILE, HOSTILE);
    (bad.id, bad.networks) = (HOSTILE.to_owned(), vec![HOSTILE.to_owned()]);
    bad.labels = [(HOSTILE.to_owned(), HOSTILE.to_owned())].into();
    let mut second = bad.clone();
    second.pod = Some(HOSTILE.to_owned());
    let both = host.space("netns:/run/</script><b>\"\u{1b}'", vec![bad.clone(), bad]);
    host.cable(&link(&both, "<b>\"&'\u{1b}\\"), "<script>'\"&", Some("docker0"), &[]);
    let pod = host.space("pid:8000", vec![second]);
    host.cable(&link(&pod, "eth0"), "`#quot;\"|", None, &[]);
    host.link(&link(&Netns::Host, "<!--\"]]>"), HOSTILE, &[]);
    let device = link(&Netns::Host, "<!--\"]]>");
    host.facts(&device).details = vec![HOSTILE.to_owned()];
    host.lies_on(&link(&pod, "x"), HOSTILE, &device, &[]);
    let held = Holder::Mount { path: HOSTILE.to_owned(), seen_by: 1 };
    host.0.spaces.get_mut(&both).expect("just added").holders = vec![held];
    host.0.unseen = vec![HOSTILE.to_owned()];
    host
}

#[test]
fn no_name_acts_on_a_terminal() {
    for (format, text) in outputs(&hostile().0) {
        let acts = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(acts), "{format}");
    }
}

#[test]
fn no_name_breaks_out_of_the_picture() {
    let text = svg(&scene(&hostile()));
    for word in ["<script", "<b>", "<!--", "]]>"] {
        assert!(!text.contains(word), "{word}");
    }
    well_formed(&text);
    for host in samples() {
        well_formed(&svg(&scene(&host)));
    }
}

#[test]
fn no_name_breaks_out_of_the_page() {
    let host = hostile();
    let text = html(&scene(&host), &host.0);
    assert_eq!(text.matches("<script").count(), 2, "the data and the script");
    assert_eq!(text.matches("</script").count(), 2);
    assert!(!text.contains("<!--") && !text.contains("<b>"));
    let picture = text.find("<svg").zip(text.find("</svg>")).expect("it has a picture");
    well_formed(&text[picture.0..picture.1 + "</svg>".len()]);
    let data = text.split("id=\"data\">").nth(1).and_then(|rest| rest.split("</script>").next());
    let data: serde_json::Value =
        serde_json::from_str(data.expect("it has data")).expect("which is JSON");
    let titles = data["things"].as_array().expect("things").iter().map(|thing| &thing["title"]);
    assert!(titles.into_iter().any(|t| t.as_str().is_some_and(|t| t.starts_with("<script>alert"))));
}

#[test]
fn the_page_needs_nothing_else() {
    let host = Host::docker(3, 1);
    let text = html(&scene(&host), &host.0);
    assert!(text.contains("default-src 'none'; script-src 'sha256-"));
    let outside = ["src=", "href=", "@import", "url(", " style=\"", " onclick", "unsafe", "https:"];
    for word in outside {
        assert!(!text.contains(word), "{word}");
    }
    assert_eq!(text.matches("http://").count(), 1, "the name of SVG's own elements");
}

#[test]
fn names_stay_within_their_quotes_in_dot() {
    let text = dot::dot(&scene(&hostile()));
    let mut is_quoted = false;
    let mut chars = text.chars();
    let mut bare = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' if is_quoted => drop(chars.next()),
            '"' => is_quoted = !is_quoted,
            '\n' => assert!(!is_quoted, "a string goes over the end of its line"),
            c if !is_quoted => bare.push(c),
            _ => {}
        }
    }
    assert!(!is_quoted && !bare.contains("script") && !bare.contains("alert"), "{bare}");
}

#[test]
fn names_stay_within_their_quotes_in_mermaid() {
    for line in mermaid::mermaid(&scene(&hostile())).lines() {
        let parts: Vec<&str> = line.split('"').collect();
        assert!(matches!(parts.len(), 1 | 3), "{line}");
        let Some(quoted) = parts.get(1) else { continue };
        let quoted = quoted.replace("<br/>", "");
        assert!(!quoted.contains(['<', '>', '`', '\\', '|', '&', '{', '[']), "{line}");
    }
}

/// Panics unless every element is closed and every `<` and `&` means what XML makes of it.
fn well_formed(text: &str) {
    let mut open = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        assert!(entities_are_known(&rest[..at]));
        let end = rest[at..].find('>').expect("tags end") + at;
        let tag = &rest[at + 1..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        assert!(entities_are_known(tag));
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            open.push(tag.split_whitespace().next().expect("tags have names"));
        }
        rest = &rest[end + 1..];
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?} {rest}");
}

fn entities_are_known(text: &str) -> bool {
    let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
    text.split('&').skip(1).all(|rest| known.iter().any(|entity| rest.starts_with(entity)))
}

#[test]
fn texts_are_cut_where_they_would_not_fit() {
    assert_eq!(fitted("web", 100, 12.0, false), "web");
    let cut = fitted(&"名".repeat(40), 100, 12.0, false);
    assert!(cut.ends_with('…') && text_width(&cut, 12.0, false) <= 100.0, "{cut}");
    assert_eq!(fitted("web", 0, 12.0, false), "");
    let path = fitted_name("netns:/proc/12410/root/run/netns/n00001", 120, 12.0);
    assert!(path.starts_with('…') && path.ends_with("/netns/n00001"), "{path}");
}

fn small() -> Host {
    let mut host = Host::docker(2, 1);
    host.link(&link(&Netns::Host, "vethdead001"), "veth", &[]);
    let lan = host.space("pid:6002", vec![workload(Runtime::Podman, "dhcp", "dnsmasq")]);
    let uplink = link(&Netns::Host, "enp1s0");
    host.lies_on(&link(&lan, "eth0"), "macvlan", &uplink, &["192.0.2.60/24"]);
    host
}

/// From all sides, as the tree has them: what is on nobody's record, and what leads nowhere.
#[test]
fn ports_are_drawn_as_the_tree_tells_them() {
    let mut sight = Host::docker(2, 1).0;
    let (card, addr) = {
        let scene = Scene::of(&sight, &Wanted::default());
        let card = scene.cards.iter().find(|card| !card.published.is_empty()).expect("one");
        (card.clone(), card.ports[0].addrs[0])
    };
    assert_eq!(card.published, ["*:8000/tcp → 80"]);
    let led = LedPort {
        proto: Proto::Tcp,
        host: None,
        host_ports: (9000, 9000),
        to: addr,
        to_port: Some(90),
        by: "ip nat mine #4".to_owned(),
    };
    let inside = Interior { led: vec![led], ..Interior::default() };
    sight.interiors.insert(Netns::Host, inside);
    let scene = Scene::of(&sight, &Wanted::default());
    let found = scene.cards.iter().find(|one| one.netns == card.netns).expect("one");
    assert_eq!(found.published, ["*:8000/tcp → 80 (no rule leads there)", "*:9000/tcp → 90"]);
    for (form, text) in outputs(&sight) {
        assert!(text.contains("9000/tcp"), "{form}");
    }
}

#[test]
fn containers_that_may_not_be_seen_are_drawn() {
    let mut sight = Host::docker(2, 1).0;
    sight.unplaced = vec![workload(Runtime::Podman, "kept-apart", "nginx")];
    let scene = Scene::of(&sight, &Wanted::default());
    let lane = scene.lanes.iter().position(|lane| lane.hang == Hang::Unseen).expect("a lane");
    let cards: Vec<_> = scene.cards.iter().filter(|card| card.lane == lane).collect();
    assert_eq!(cards.len(), 1);
    assert_eq!(cards[0].label, "kept-apart");
    for (form, text) in outputs(&sight) {
        assert!(text.contains("kept-apart"), "{form}");
    }
    let other = Wanted { runtime: Some(Runtime::Docker), ..Wanted::default() };
    assert!(Scene::of(&sight, &other).lanes.iter().all(|lane| lane.hang != Hang::Unseen));
}

#[test]
fn a_small_host_in_dot() {
    expect![[r#"
        graph twinax {
          graph [rankdir=LR, compound=true, fontname="Helvetica", pad=0.4, ranksep=1.2]
          node [shape=box, style="rounded,filled", fillcolor=white, fontname="Helvetica", fontsize=11]
          edge [fontname="Helvetica", fontsize=9, color=gray35]
          subgraph cluster_host {
            label="host net:[4026531840]\n3 containers · 4 namespaces · 1 bridge · 2 cables · 1 orphan"
            style=rounded
            d0 [label="enp1s0 (device)\n192.0.2.17/24\ngw 192.0.2.1", fillcolor=gray95]
            d1 [label="vethdead001 (veth)\nits other end was not found", color=orange, fillcolor=cornsilk, style="rounded,filled,dashed"]
            subgraph cluster_l0 {
              label="docker0"
              style="rounded,filled"
              fillcolor=gray97
              l0 [label="docker0\nnetwork net0\n172.17.0.1/16", shape=component, fillcolor=lightblue]
              c0 [label="api-1\ndocker ghcr.io/acme/api:v4.2.1\neth0 172.17.0.3"]
              c1 [label="web-1\ndocker nginx:1.27\neth0 172.17.0.2\npublished *:8000/tcp → 80"]
            }
            subgraph cluster_l1 {
              label="on enp1s0"
              style="rounded,filled"
              fillcolor=gray97
              l1 [label="on enp1s0", shape=component, fillcolor=lightblue]
              c2 [label="dhcp\npodman dnsmasq\neth0 192.0.2.60"]
            }
          }
          l1 -- d0 [tooltip="on enp1s0 — lies on — enp1s0", label="lies on", style=dashed]
          c0 -- l0 [tooltip="eth0 (api-1) ⇄ veth09a50b4 (docker0)", taillabel="eth0", headlabel="veth09a50b4"]
          c1 -- l0 [tooltip="eth0 (web-1) ⇄ veth09a31c5 (docker0)", taillabel="eth0", headlabel="veth09a31c5"]
          c2 -- l1 [tooltip="eth0 (dhcp) — macvlan — enp1s0 (on enp1s0)", label="macvlan", style=dashed]
        }
    "#]].assert_eq(&dot::dot(&scene(&small())));
}

#[test]
fn a_small_host_in_mermaid() {
    expect![[r#"
        flowchart LR
          subgraph host["host net:#91;4026531840#93;"]
            d0["enp1s0 (device)<br/>192.0.2.17/24<br/>gw 192.0.2.1"]
            d1["vethdead001 (veth)<br/>its other end was not found"]:::warn
            subgraph g0["docker0"]
              l0[["docker0<br/>network net0<br/>172.17.0.1/16"]]:::lane
              c0("api-1<br/>docker ghcr.io/acme/api:v4.2.1<br/>eth0 172.17.0.3")
              c1("web-1<br/>docker nginx:1.27<br/>eth0 172.17.0.2<br/>published #42;:8000/tcp → 80")
            end
            subgraph g1["on enp1s0"]
              l1[["on enp1s0"]]:::lane
              c2("dhcp<br/>podman dnsmasq<br/>eth0 192.0.2.60")
            end
          end
          l1 -.-|"lies on"| d0
          c0 ---|"eth0 ⇄ veth09a50b4"| l0
          c1 ---|"eth0 ⇄ veth09a31c5"| l0
          c2 -.-|"macvlan"| l1
          classDef lane fill:#dbe7fb,stroke:#2f66d0,color:#1b2433
          classDef warn fill:#fff3dc,stroke:#c47a15,color:#1b2433,stroke-dasharray:5 4
    "#]]
    .assert_eq(&mermaid::mermaid(&scene(&small())));
}
