//! What a live view decides: rates, when to look, what changed, what a key does.

use std::collections::BTreeMap;

use twinax_core::{
    changes::{Change, changes},
    map::{Branch, Subject, Wanted},
    model::{LinkId, Netns, Route},
    name::Proto,
    pace::{self, Pace},
    rate::{Meter, Rate, humanised},
    sight::{Counters, Holder, LinkFacts, PublishedPort, Runtime, Sight, Space, Workload},
    snapshot::{Snapshot, Taken},
    top::{Fold, Key, Outcome, Top},
    watch::{self, Moment},
};

fn netns(name: &str) -> Netns {
    match name {
        "host" => Netns::Host,
        name => Netns::Container(name.parse().expect("well written")),
    }
}

fn link(at: &str) -> LinkId {
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
        ..LinkFacts::default()
    }
}

fn cable(sight: &mut Sight, a: (&str, u32), b: (&str, u32, &str), bridge: Option<&str>) {
    let (near, far) = (link(a.0), link(b.0));
    let end = |index, addrs: &[&str], far: &LinkId| LinkFacts {
        leads_to: Some(far.clone()),
        proven: true,
        ..facts(index, "veth", addrs)
    };
    let near_facts = LinkFacts { master: bridge.map(link), ..end(a.1, &[], &far) };
    sight.links.insert(near.clone(), near_facts);
    sight.links.insert(far, end(b.1, &[b.2], &near));
}

fn container(sight: &mut Sight, pid: u32, name: &str, runtime: Runtime) {
    let workload = Workload {
        runtime,
        id: format!("{pid:064x}"),
        name: name.to_owned(),
        image: None,
        pod: None,
        pid: Some(pid),
        netns_path: None,
        networks: vec!["app".to_owned()],
        published: Vec::new(),
        labels: BTreeMap::new(),
    };
    let holders = vec![Holder::Process { pid, comm: "x".to_owned() }];
    let inode = 4_000_000_000 + u64::from(pid);
    let space = Space { inode, cookie: Some(pid.into()), holders, workloads: vec![workload] };
    sight.spaces.insert(netns(&format!("pid:{pid}")), space);
}

/// A bridge with two containers; two names of `ip netns` with a cable between them.
fn host() -> Sight {
    let mut sight = Sight::default();
    let space = Space { inode: 4_000_000_000, cookie: Some(1), ..Space::default() };
    sight.spaces.insert(Netns::Host, space);
    sight.links.insert(link("host/lo"), facts(1, "", &["127.0.0.1/8"]));
    sight.links.insert(link("host/br0"), facts(2, "bridge", &["10.1.0.1/24"]));
    container(&mut sight, 11, "web1", Runtime::Docker);
    container(&mut sight, 12, "web2", Runtime::Docker);
    container(&mut sight, 21, "blue", Runtime::IpNetns);
    container(&mut sight, 22, "red", Runtime::IpNetns);
    let on = Some("host/br0");
    cable(&mut sight, ("host/v1", 3), ("pid:11/eth0", 2, "10.1.0.2/24"), on);
    cable(&mut sight, ("host/v2", 4), ("pid:12/eth0", 2, "10.1.0.3/24"), on);
    cable(&mut sight, ("pid:21/x", 2), ("pid:22/y", 2, "10.7.0.2/24"), None);
    sight
}

fn counters(rx: u64, tx: u64) -> Counters {
    Counters { rx_bytes: rx, tx_bytes: tx, ..Counters::default() }
}

#[test]
fn rates_are_bytes_over_time() {
    let rate = |after, us| Rate::between(&counters(1000, 0), &after, us);
    let some = |rx_bytes, tx_bytes| Some(Rate { rx_bytes, tx_bytes });
    assert_eq!(rate(counters(3000, 500), 2_000_000), some(1000, 250));
    assert_eq!(rate(counters(1000, 0), 1), some(0, 0));
    assert_eq!(rate(counters(1001, 0), 1), some(1_000_000, 0));
    // Begun anew, no time, and more than fits.
    assert_eq!(rate(counters(999, 500), 2_000_000), None);
    assert_eq!(rate(counters(1000, 0), 0), None);
    assert_eq!(rate(counters(u64::MAX, 0), 1), some(u64::MAX, 0));
}

#[test]
fn rates_are_four_characters_wide() {
    let texts = [0, 999, 1000, 1999, 9999, 10_000, 999_999, 1_000_000, 34_500_000, u64::MAX];
    let texts = texts.map(humanised);
    let expected = ["0", "999", "1.0k", "1.9k", "9.9k", "10k", "999k", "1.0M", "34M", "18E"];
    assert_eq!(texts, expected);
    let rate = Rate { rx_bytes: 12, tx_bytes: 3_400 };
    assert_eq!(rate.to_string(), "↓  12 ↑3.4k B/s");
    assert_eq!(rate.turned().to_string(), "↓3.4k ↑  12 B/s");
}

#[test]
fn a_meter_takes_two_readings() {
    let (a, b) = (link("host/v1"), link("host/v2"));
    let mut meter = Meter::default();
    assert!(meter.read(5, [(a.clone(), counters(0, 0))].into()).is_empty());
    let both = [(a.clone(), counters(10, 20)), (b.clone(), counters(7, 7))];
    let rates = meter.read(1_000_005, both.into());
    assert_eq!(rates, [(a, Rate { rx_bytes: 10, tx_bytes: 20 })].into());
    assert_eq!(meter.read(2_000_005, [(b, counters(7, 8))].into()).len(), 1);
    assert!(meter.read(3_000_005, BTreeMap::new()).is_empty());
}

/// Plays a watch: what happens at these times, and looks that take so long. Returns when it looked.
fn looks(events: &[u64], cost: u64, until: u64) -> Vec<u64> {
    let (mut pace, mut began) = (Pace::default(), Vec::new());
    let mut events = events.iter().peekable();
    loop {
        let due = pace.due_us();
        if let Some(at) = events.next_if(|at| **at < due) {
            pace.stir(*at);
        } else if due > until {
            return began;
        } else {
            // What happens during the look is seen by the next one.
            pace.begin(due);
            began.push(due);
            while let Some(at) = events.next_if(|at| **at < due + cost) {
                pace.stir(*at);
            }
            pace.end(due + cost);
        }
    }
}

#[test]
fn a_look_follows_an_event_soon_and_silence_seldom() {
    const COST: u64 = 20_000;
    let looks = looks(&[10_000_000, 10_001_000], COST, 69_000_000);
    let after = 1_000_000 + COST;
    let first = 10_000_000 + pace::TOGETHER_US;
    let idle = first + after + COST + pace::IDLE_US;
    assert_eq!(looks, [0, after, first, first + after, idle]);
}

#[test]
fn a_storm_takes_a_quarter_of_a_cpu() {
    let storm: Vec<u64> = (0..100_000).map(|n| n * 100).collect();
    let quick = looks(&storm, 1_000, 10_000_000).len();
    assert!((40..=51).contains(&quick), "{quick} looks of a millisecond in ten seconds");
    let slow = looks(&storm, 500_000, 10_000_000).len();
    assert_eq!(slow, 6, "looks of half a second in ten seconds");
}

fn told(before: &Sight, after: &Sight, wanted: &Wanted) -> Vec<String> {
    let (before, after) = (Moment::of(before, wanted), Moment::of(after, wanted));
    watch::told(&before, &after).iter().map(ToString::to_string).collect()
}

#[test]
fn changes_are_told_in_words() {
    let (before, mut after) = (host(), host());
    let all = Wanted::default();
    assert_eq!(told(&before, &after, &all), Vec::<String>::new());
    container(&mut after, 13, "web3", Runtime::Docker);
    cable(&mut after, ("host/v3", 5), ("pid:13/eth0", 2, "10.1.0.4/24"), Some("host/br0"));
    let new = [
        "+ container web3: docker, id 000000000000",
        "+ cable v3 ⇄ web3/eth0: on br0, 10.1.0.4/24",
    ];
    assert_eq!(told(&before, &after, &all), new);
    let gone = new.map(|line| line.replacen('+', "-", 1));
    assert_eq!(told(&after, &before, &all), gone);
    // A filter, for somebody else and for it.
    let only = |name: &str| Wanted { only: vec![name.to_owned()], ..Wanted::default() };
    assert_eq!(told(&before, &after, &only("web1")), Vec::<String>::new());
    assert_eq!(told(&before, &after, &only("web3")), new);
}

#[test]
fn what_stays_is_told_by_what_is_other() {
    let (before, mut after) = (host(), host());
    let far = after.links.get_mut(&link("pid:11/eth0")).expect("it is there");
    far.operstate = "down".to_owned();
    far.addrs = vec!["10.1.0.9/24".parse().expect("well written")];
    let near = after.links.remove(&link("host/v2")).expect("it is there");
    after.links.insert(link("host/cable2"), LinkFacts { master: None, ..near });
    let far = after.links.get_mut(&link("pid:12/eth0")).expect("it is there");
    far.leads_to = Some(link("host/cable2"));
    let dst = "0.0.0.0/0".parse().expect("well written");
    let via = "10.1.0.1".parse().ok();
    after.topology.routes.insert(Route { link: link("pid:12/eth0"), dst, via, src: None });
    let space = after.spaces.get_mut(&netns("pid:11")).expect("it is there");
    let (host_port, container_port) = (8080, 80);
    space.workloads[0].published =
        vec![PublishedPort { proto: Proto::Tcp, host: None, host_port, container_port }];
    let expected = [
        "~ name of cable2 on the host: v2 → cable2",
        "~ state of eth0 in web1: up → down",
        "- bridge or other master of cable2 on the host: br0",
        "+ address of eth0 in web1: 10.1.0.9/24",
        "- address of eth0 in web1: 10.1.0.2/24",
        "+ gateway of web2: 10.1.0.1 by eth0",
        "+ published port of web1: *:8080/tcp → 80",
    ];
    assert_eq!(told(&before, &after, &Wanted::default()), expected);
}

/// A namespace goes by another name when the process it was named after ends.
#[test]
fn another_name_is_no_change() {
    let (before, mut after) = (host(), host());
    let space = after.spaces.remove(&netns("pid:11")).expect("it is there");
    after.spaces.insert(netns("pid:99"), space);
    let far = after.links.remove(&link("pid:11/eth0")).expect("it is there");
    after.links.insert(link("pid:99/eth0"), far);
    let near = after.links.get_mut(&link("host/v1")).expect("it is there");
    near.leads_to = Some(link("pid:99/eth0"));
    assert_eq!(told(&before, &after, &Wanted::default()), Vec::<String>::new());
}

/// What happens all the time is told by a snapshot, and not by a watch.
#[test]
fn what_happens_all_the_time_goes_unsaid() {
    let (mut before, mut after) = (host(), host());
    before.links.insert(link("pid:11/lo"), facts(1, "", &[]));
    after.links.insert(link("pid:11/lo"), facts(1, "", &["127.0.0.1/8"]));
    let space = after.spaces.get_mut(&netns("pid:11")).expect("it is there");
    space.holders.push(Holder::Process { pid: 77, comm: "sleep".to_owned() });
    assert_eq!(told(&before, &after, &Wanted::default()), Vec::<String>::new());
    let of = |sight| Snapshot::of(sight, Taken::default());
    assert_eq!(changes(&of(&before), &of(&after)).len(), 2);
}

/// Those on the host's own network, and those whose namespace may not be seen.
#[test]
fn containers_without_a_namespace_of_their_own_are_told() {
    let (before, mut after) = (host(), host());
    container(&mut after, 13, "agent", Runtime::Docker);
    container(&mut after, 14, "far", Runtime::Podman);
    let mut take = |pid: &str| after.spaces.remove(&netns(pid)).expect("there").workloads;
    let (agent, far) = (take("pid:13"), take("pid:14"));
    after.spaces.get_mut(&Netns::Host).expect("there").workloads = agent;
    after.unplaced = far;
    let line = |name: &str, made: &str| format!("+ container {name}: {made}, id 000000000000");
    let (agent, far) = (line("agent", "docker"), line("far", "podman"));
    assert_eq!(told(&before, &after, &Wanted::default()), [agent.clone(), far.clone()]);
    let only = |name: &str| Wanted { only: vec![name.to_owned()], ..Wanted::default() };
    assert_eq!(told(&before, &after, &only("agent")), [agent]);
    assert_eq!(told(&before, &after, &only("far")), [far]);
    assert_eq!(told(&before, &after, &only("web1")), Vec::<String>::new());
}

#[test]
fn a_change_says_where_it_is() {
    let (before, mut after) = (host(), host());
    container(&mut after, 13, "web3", Runtime::Docker);
    cable(&mut after, ("host/v3", 5), ("pid:13/eth0", 2, "10.1.0.4/24"), Some("host/br0"));
    after.links.get_mut(&link("host/br0")).expect("there").operstate = "down".to_owned();
    let wanted = Wanted::default();
    let told = watch::told(&Moment::of(&before, &wanted), &Moment::of(&after, &wanted));
    let place = |change: &Change| {
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (at, names) = (text(&change.namespace), change.containers.join("+"));
        format!("{} {at} {} {names}", change.kind.as_str(), text(&change.interface))
    };
    let places: Vec<String> = told.iter().map(place).collect();
    assert_eq!(places, ["container pid:13 - web3", "cable pid:13 v3 web3", "state host br0 "]);
}

/// A look at so many containers, and what is new since the one before; with `--release` and
/// `--nocapture` it tells how long that takes.
#[test]
#[expect(clippy::disallowed_methods, reason = "it tells how long the core takes")]
fn a_thousand_containers_are_compared_at_once() {
    let mut before = host();
    for n in 0..1000_u32 {
        container(&mut before, 1000 + n, &format!("c{n}"), Runtime::Docker);
        let (near, far) = (format!("host/c{n}"), format!("pid:{}/eth0", 1000 + n));
        let addr = format!("10.9.{}.{}/16", n / 250, n % 250 + 1);
        cable(&mut before, (&near, 100 + n), (&far, 2, &addr), Some("host/br0"));
        let dst = "0.0.0.0/0".parse().expect("well written");
        let via = "10.1.0.1".parse().ok();
        before.topology.routes.insert(Route { link: link(&far), dst, via, src: None });
    }
    let mut after = before.clone();
    container(&mut after, 5000, "new", Runtime::Docker);
    cable(&mut after, ("host/new", 9000), ("pid:5000/eth0", 2, "10.8.0.1/16"), Some("host/br0"));
    let wanted = Wanted::default();
    let start = std::time::Instant::now();
    let before = Moment::of(&before, &wanted);
    let made = start.elapsed();
    let after = Moment::of(&after, &wanted);
    let start = std::time::Instant::now();
    assert_eq!(watch::told(&before, &after).len(), 2);
    let compared = start.elapsed();
    println!("{made:?} to make a moment, {compared:?} to compare two");
    // Far more than it takes, and far less than if each were held against each.
    assert!(made + compared < std::time::Duration::from_secs(2), "{made:?}, {compared:?}");
}

#[test]
fn hostile_names_are_harmless() {
    let (before, mut after) = (host(), host());
    container(&mut after, 13, "a\x1b[2Jb\n+ root", Runtime::Docker);
    let told = told(&before, &after, &Wanted { all: true, ..Wanted::default() });
    assert_eq!(told.len(), 1);
    assert!(!told[0].contains(['\x1b', '\n']), "{told:?}");
}

fn top() -> Top {
    let mut top = Top::new(Wanted::default());
    top.see(host());
    top.fit(5, 0);
    top
}

fn press(top: &mut Top, keys: &[Key]) {
    for key in keys {
        assert_eq!(top.press(*key), Outcome::Stay, "{key:?}");
    }
}

fn types(top: &mut Top, text: &str) {
    let keys: Vec<Key> = text.chars().map(Key::Char).collect();
    press(top, &keys);
}

fn first_cells(branch: &Branch) -> Vec<String> {
    let own = branch.cells.first().map(|cell| cell.text.clone());
    own.into_iter().chain(branch.children.iter().flat_map(first_cells)).collect()
}

fn rows(top: &Top) -> Vec<String> {
    let rows = first_cells(top.tree());
    assert_eq!(rows.len(), top.lines().len(), "a line for each row");
    rows
}

const ALL: [&str; 9] = [
    "host",
    "▾ bridge br0",
    "v1 ⇄ eth0",
    "v2 ⇄ eth0",
    "▾ other namespaces",
    "▾ blue",
    "x",
    "▾ red",
    "y",
];

#[test]
fn keys_move_and_stop_at_the_ends() {
    let mut top = top();
    assert_eq!(rows(&top), ALL);
    press(&mut top, &[Key::Up, Key::Down, Key::Char('j')]);
    assert_eq!((top.selected(), top.first()), (2, 0));
    press(&mut top, &[Key::End, Key::Down]);
    assert_eq!((top.selected(), top.first()), (8, 4));
    press(&mut top, &[Key::PageUp]);
    assert_eq!((top.selected(), top.first()), (4, 4));
    press(&mut top, &[Key::Char('k')]);
    assert_eq!((top.selected(), top.first()), (3, 3));
    press(&mut top, &[Key::Home]);
    assert_eq!((top.selected(), top.first()), (0, 0));
    press(&mut top, &[Key::WheelTree(3)]);
    assert_eq!((top.selected(), top.first()), (3, 3));
    press(&mut top, &[Key::Click(1)]);
    assert_eq!(top.selected(), 4);
    press(&mut top, &[Key::Click(100)]);
    assert_eq!(top.selected(), 4);
}

#[test]
fn rows_fold() {
    let mut top = top();
    press(&mut top, &[Key::Down, Key::Left]);
    assert_eq!(top.lines()[1].fold, Fold::Folded);
    assert_eq!(rows(&top)[..3], ["host", "▸ bridge br0", "▾ other namespaces"]);
    top.see(host());
    assert_eq!(rows(&top).len(), 7, "it stays folded");
    press(&mut top, &[Key::Right]);
    assert_eq!(rows(&top), ALL);
    // From a row with nothing below it to the one it hangs on.
    press(&mut top, &[Key::Down, Key::Left]);
    assert_eq!(top.selected(), 1);
    press(&mut top, &[Key::Char(' '), Key::Char(' ')]);
    assert_eq!(rows(&top), ALL);
}

#[test]
fn the_filter_leaves_what_has_the_text_and_the_way_there() {
    let mut top = top();
    press(&mut top, &[Key::Char('/')]);
    types(&mut top, "WEB2");
    assert!(top.is_typing());
    assert_eq!(rows(&top), ["host", "▾ bridge br0", "v2 ⇄ eth0"]);
    press(&mut top, &[Key::Enter, Key::End]);
    assert_eq!((top.is_typing(), top.filter(), top.selected()), (false, "WEB2", 2));
    press(&mut top, &[Key::Escape]);
    assert_eq!((rows(&top), top.selected()), (ALL.map(str::to_owned).to_vec(), 3));
    press(&mut top, &[Key::Char('/'), Key::Char('q'), Key::Backspace]);
    types(&mut top, "bridge");
    assert_eq!(rows(&top).len(), 4, "and what hangs on it");
    press(&mut top, &[Key::Escape]);
    assert_eq!((top.filter(), rows(&top).len()), ("", 9));
    press(&mut top, &[Key::Char('/')]);
    types(&mut top, "no such thing");
    assert_eq!(rows(&top), ["host"]);
}

#[test]
fn zoom_shows_a_part_while_it_is_there() {
    let mut top = top();
    press(&mut top, &[Key::Down, Key::Enter]);
    assert_eq!(rows(&top), ["bridge br0", "v1 ⇄ eth0", "v2 ⇄ eth0"]);
    assert!(top.is_zoomed());
    press(&mut top, &[Key::Backspace]);
    assert_eq!((rows(&top).len(), top.selected()), (9, 1));
    press(&mut top, &[Key::Enter]);
    let mut without = host();
    without.links.retain(|id, _| id.name.as_str() != "br0");
    top.see(without);
    assert!(!top.is_zoomed());
    assert!(rows(&top).len() > 5);
}

#[test]
fn p_goes_to_the_other_end() {
    let mut top = top();
    // Another row is about it.
    press(&mut top, &[Key::End, Key::Char('p')]);
    assert_eq!(top.lines()[top.selected()].about, Subject::Link(link("pid:21/x")));
    press(&mut top, &[Key::Char('p')]);
    assert_eq!(top.selected(), 8);
    // Even a folded one.
    press(&mut top, &[Key::Home, Key::Char('/')]);
    types(&mut top, "vx");
    press(&mut top, &[Key::Escape, Key::End, Key::Left, Key::Up, Key::Up, Key::Left]);
    assert_eq!(top.lines()[top.selected()].fold, Fold::Folded);
    press(&mut top, &[Key::End, Key::Char('p')]);
    assert_eq!(top.lines()[top.selected()].about, Subject::Link(link("pid:21/x")));
    // One row is about both ends: the details turn.
    press(&mut top, &[Key::Home, Key::Down, Key::Down]);
    let near = top.details();
    press(&mut top, &[Key::Char('p')]);
    assert_eq!(top.focus(), Some(Subject::Link(link("pid:11/eth0"))));
    assert!(top.details().len() > near.len());
    press(&mut top, &[Key::Char('p')]);
    assert_eq!(top.details(), near);
    // No cable.
    press(&mut top, &[Key::Home, Key::Char('p')]);
    assert!(top.note().is_some_and(|note| note.contains("no cable")));
}

#[test]
fn the_selection_stays_with_what_it_is_about() {
    let mut top = top();
    press(&mut top, &[Key::Down, Key::Down, Key::Down]);
    let mut after = host();
    container(&mut after, 10, "web0", Runtime::Docker);
    cable(&mut after, ("host/v0", 9), ("pid:10/eth0", 2, "10.1.0.9/24"), Some("host/br0"));
    top.see(after);
    assert_eq!(rows(&top)[top.selected()], "v2 ⇄ eth0");
    let mut without = host();
    without.links.retain(|id, _| id.name.as_str() != "v2" && id.netns != netns("pid:12"));
    without.spaces.remove(&netns("pid:12"));
    top.see(without);
    assert!(top.selected() < top.lines().len());
}

#[test]
fn rates_are_those_of_the_container() {
    let mut top = top();
    let rate = Rate { rx_bytes: 1000, tx_bytes: 2000 };
    let counters = [(link("host/v1"), counters(5, 77))];
    top.measure(&counters.into(), [(link("host/v1"), rate)].into());
    press(&mut top, &[Key::Down, Key::Down]);
    let texts = |rows: &[Branch]| -> String {
        rows.iter().flat_map(|row| &row.cells).map(|cell| format!("{} ", cell.text)).collect()
    };
    let row = &top.tree().children[0].children[0];
    assert!(texts(std::slice::from_ref(row)).contains("↓2.0k ↑1.0k B/s"), "{row:?}");
    assert!(texts(&top.details()).contains("now ↓2.0k ↑1.0k B/s"));
    assert!(texts(&top.details()).contains("77 bytes"), "{:?}", top.details());
    press(&mut top, &[Key::Char('p')]);
    assert!(texts(&top.details()).contains("now ↓2.0k ↑1.0k B/s"));
}

#[test]
fn any_key_leaves_the_help_and_two_quit() {
    let mut top = top();
    press(&mut top, &[Key::Char('?')]);
    assert!(top.shows_help());
    press(&mut top, &[Key::Char('q')]);
    assert!(!top.shows_help());
    assert_eq!(top.press(Key::Char('q')), Outcome::Quit);
    press(&mut top, &[Key::Char('/')]);
    assert_eq!(top.press(Key::Interrupt), Outcome::Quit);
}
