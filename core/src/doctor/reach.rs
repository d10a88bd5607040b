//! Containers that part of their own network, or their own host, does not reach: by a prefix, a
//! bridge's port, a rule or a route.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Found, Severity, Subject, Told, exam::Exam, firewall::address, forwarding::is_link_local,
    place, some, spelled, within,
};
use crate::{
    interior::{Interior, PolicyRule},
    map::shown,
    model::LinkId,
};

/// More than one host, and not what every link has.
fn is_subnet(net: IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len() && !is_link_local(net.addr())
}

fn is_bridge(exam: &Exam<'_>, id: &LinkId) -> bool {
    exam.facts(id).is_some_and(|facts| facts.kind == "bridge")
}

/// A container takes more, or less, for its own network than its bridge does.
pub(super) fn prefix(exam: &Exam<'_>, found: &mut Found) {
    for (bridge, facts) in exam.sight.links.iter().filter(|(_, facts)| facts.kind == "bridge") {
        let nets: Vec<IpNet> = facts.addrs.iter().copied().filter(|it| is_subnet(*it)).collect();
        let Some(segment) = exam.segment(bridge).filter(|it| !it.vlans) else { continue };
        for id in segment.stations.iter().filter(|id| id.netns != bridge.netns) {
            let Some(station) = exam.facts(id).filter(|_| !is_bridge(exam, id)) else { continue };
            let has = |net: IpNet| station.addrs.iter().any(|it| it.trunc() == net.trunc());
            for net in station.addrs.iter().copied().filter(|it| is_subnet(*it)) {
                let of_both = |it: &&IpNet| it.contains(&net.addr()) || net.contains(&it.addr());
                let near: Vec<&IpNet> = nets.iter().filter(of_both).collect();
                let Some(own) = near.first().filter(|_| !near.iter().any(|it| has(**it))) else {
                    continue;
                };
                let narrow = net.prefix_len() > own.prefix_len();
                // Wider may be right where the network goes on elsewhere.
                if answers_for_others(exam, bridge)
                    || (narrow && is_near(exam, id, **own))
                    || (!narrow && segment.open)
                {
                    continue;
                }
                tell_prefix(exam, bridge, **own, (id, net), found);
            }
        }
    }
}

/// Whether a bridge answers for what is beyond it, so that all looks near.
fn answers_for_others(exam: &Exam<'_>, bridge: &LinkId) -> bool {
    let on = |switch: &str| exam.switch(&bridge.netns, switch) == Some("1");
    exam.link_switch(bridge, "ipv4", "proxy_arp") == Some("1") || on("ipv4/conf/all/proxy_arp")
}

/// Whether a route says that all of a subnet is right behind a link.
fn is_near(exam: &Exam<'_>, id: &LinkId, net: IpNet) -> bool {
    let mut routes = exam.sight.topology.routes.iter().filter(|route| route.link == *id);
    routes.any(|it| it.via.is_none() && it.dst.prefix_len() > 0 && it.dst.contains(&net.trunc()))
}

fn tell_prefix(
    exam: &Exam<'_>,
    bridge: &LinkId,
    own: IpNet,
    (id, net): (&LinkId, IpNet),
    found: &mut Found,
) {
    let ipv6 = net.addr().is_ipv6();
    let way_out =
        exam.ways.iter().any(|way| way.from.netns == id.netns && way.via.is_ipv6() == ipv6);
    let (severity, why) = match (net.prefix_len() > own.prefix_len(), way_out) {
        (true, false) => (
            Severity::Problem,
            format!(
                "The container takes only {} for its network: to the others in {} it has no route, \
                 and what they send it is not answered.",
                net.trunc(),
                own.trunc()
            ),
        ),
        (true, true) => (
            Severity::Warning,
            format!(
                "The container takes only {} for its network: what it sends to others in {} makes \
                 a detour by its gateway, where a firewall that does not forward from the network \
                 to itself, or sees only half of a connection, drops it.",
                net.trunc(),
                own.trunc()
            ),
        ),
        (false, _) => (
            Severity::Warning,
            format!(
                "The container looks for all of {} on its own network, where nobody answers for \
                 what is not in {}: it never asks its gateway for them.",
                net.trunc(),
                own.trunc()
            ),
        ),
    };
    let (enter, dev) = (within(exam.sight, &id.netns), spelled(id.name.as_str()));
    let (addr, len) = (net.addr(), own.prefix_len());
    let told = Told {
        what: format!("{} has {net}, and {} has {own}", place(exam.sight, id), bridge.name),
        why,
        todo: vec![
            format!("{enter}ip address add {addr}/{len} dev {dev}"),
            format!("{enter}ip address del {net} dev {dev}"),
            "# routes by a gateway go with the old address: look at them, and add them again"
                .to_owned(),
        ],
    };
    found.add(severity, Subject::link(exam.sight, id).and(exam.sight, bridge), told);
}

/// A container's cable is plugged in, and the bridge passes nothing, or nothing to some.
pub(super) fn port_blocked(exam: &Exam<'_>, found: &mut Found) {
    for (bridge, ports) in &exam.ports {
        let up = |id: &LinkId| exam.link(id).is_some_and(|link| link.up);
        let Some(facts) = exam.facts(bridge).filter(|_| up(bridge)) else { continue };
        // The protocol blocks what would be a loop, and waits before it passes anything.
        let spanning = facts.details.iter().any(|detail| detail == "spanning tree");
        let (mut apart, mut free) = (Vec::new(), 0);
        for port in ports {
            let Some(facts) = exam.facts(port) else { continue };
            let Some(far) = facts.leads_to.as_ref().filter(|far| far.netns != port.netns) else {
                continue;
            };
            if !(up(port) && up(far)) {
                continue;
            }
            if let Some(state) = blocked(&facts.details).filter(|_| !spanning) {
                tell_blocked(exam, bridge, (port, far), state, found);
            }
            match facts.details.iter().any(|detail| detail == "isolated") {
                true => apart.push((*port, far)),
                false => free += 1,
            }
        }
        if apart.len() > 1 {
            tell_isolated(exam, bridge, &apart, free, found);
        }
    }
}

/// A port's state, if it is one in which nothing passes.
fn blocked(details: &[String]) -> Option<&str> {
    details.iter().find_map(|detail| {
        let (_, state) = detail.strip_prefix("port ")?.split_once(' ')?;
        ["disabled", "listening", "learning", "blocking"].contains(&state).then_some(state)
    })
}

fn tell_blocked(
    exam: &Exam<'_>,
    bridge: &LinkId,
    (port, far): (&LinkId, &LinkId),
    state: &str,
    found: &mut Found,
) {
    let told = Told {
        what: format!(
            "the port {} of {} is {state}, and so {} is cut off",
            port.name,
            bridge.name,
            place(exam.sight, far)
        ),
        why: "A bridge passes frames on only between ports that are forwarding. The bridge does \
              not speak the spanning tree protocol, so that nothing will change this state but \
              whoever set it."
            .to_owned(),
        todo: vec![format!(
            "{}bridge link set dev {} state 3",
            within(exam.sight, &port.netns),
            spelled(port.name.as_str())
        )],
    };
    let subject = Subject::link(exam.sight, port).and(exam.sight, far);
    found.add(Severity::Problem, subject.with([(*bridge).clone()]), told);
}

fn tell_isolated(
    exam: &Exam<'_>,
    bridge: &LinkId,
    apart: &[(&LinkId, &LinkId)],
    free: usize,
    found: &mut Found,
) {
    const COMMANDS: usize = 4;
    // All alike is how the network was made; some among others is easily forgotten.
    let severity = if free == 0 { Severity::Note } else { Severity::Warning };
    let names: Vec<String> =
        apart.iter().take(COMMANDS).map(|(_, far)| place(exam.sight, far)).collect();
    let more = if apart.len() > names.len() { ", …" } else { "" };
    let mut todo = vec!["# if they are meant to reach each other:".to_owned()];
    todo.extend(apart.iter().take(COMMANDS).map(|(port, _)| {
        let enter = within(exam.sight, &port.netns);
        format!("{enter}bridge link set dev {} isolated off", spelled(port.name.as_str()))
    }));
    let told = Told {
        what: format!(
            "{} of {} are isolated: {}{more} do not reach each other",
            some(apart.len(), "port"),
            bridge.name,
            names.join(", ")
        ),
        why: "A bridge passes nothing from one isolated port to another; to all other ports, and \
              to its own addresses, they speak as always."
            .to_owned(),
        todo,
    };
    let links = apart.iter().flat_map(|(port, far)| [(*port).clone(), (*far).clone()]);
    found.add(severity, Subject::link(exam.sight, bridge).with(links), told);
}

const UNREAD: &str = "its rules and routes could not be read";

/// What is known of a packet on its way through a router; `None` for an address outside.
struct Probe<'a> {
    router: &'a LinkId,
    ipv6: bool,
    src: Option<IpAddr>,
    dst: Option<IpAddr>,
    /// It comes in by the router's link.
    out: bool,
}

/// What throws packets away: how people call it, and the command that takes it away.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Sink {
    what: String,
    removal: String,
}

/// A rule or a route throws away what comes from containers or goes to them.
pub(super) fn blackholed(exam: &Exam<'_>, found: &mut Found) {
    let mut pairs: BTreeSet<(&LinkId, &LinkId)> = BTreeSet::new();
    for (bridge, facts) in exam.sight.links.iter().filter(|(_, it)| it.kind == "bridge") {
        let near = |id: &&&LinkId| {
            let addrs = exam.facts(id).map(|it| it.addrs.as_slice()).unwrap_or_default();
            addrs.iter().any(|addr| facts.addrs.iter().any(|net| net.contains(&addr.addr())))
        };
        let others = exam.stations(bridge).iter().filter(|id| id.netns != bridge.netns);
        pairs.extend(others.filter(near).map(|id| (bridge, *id)));
    }
    let ways: BTreeSet<(&LinkId, &LinkId, bool)> = exam
        .ways
        .iter()
        .filter_map(|way| Some((way.router?, way.from, way.via.is_ipv6())))
        .collect();
    pairs.extend(ways.iter().map(|(router, from, _)| (*router, *from)));
    let mut sunk: BTreeMap<(&LinkId, Sink, bool), Vec<&LinkId>> = BTreeMap::new();
    for (router, client) in pairs {
        let interior = exam.interior(&router.netns);
        let unread = |line: &String| line.contains("routes") || line.contains("the inside of");
        let Some(interior) = interior.filter(|it| !it.unseen.iter().any(unread)) else {
            found.not_checked(&router.netns, UNREAD);
            continue;
        };
        for ipv6 in [false, true] {
            let Some(addr) = address(exam, client, ipv6) else { continue };
            let has_way = ways.contains(&(router, client, ipv6));
            let to = Probe { router, ipv6, src: None, dst: Some(addr), out: false };
            let from = Probe { router, ipv6, src: Some(addr), dst: None, out: true };
            for probe in [Some(to), has_way.then_some(from)].into_iter().flatten() {
                if let Some(sink) = sink(exam, interior, &probe) {
                    sunk.entry((router, sink, probe.out)).or_default().push(client);
                }
            }
        }
    }
    for ((router, sink, out), clients) in sunk {
        tell_sunk(exam, router, (sink, out), &clients, found);
    }
}

fn tell_sunk(
    exam: &Exam<'_>,
    router: &LinkId,
    (sink, out): (Sink, bool),
    clients: &[&LinkId],
    found: &mut Found,
) {
    let way = if out { "comes from" } else { "goes to" };
    let told = Told {
        what: format!(
            "{} throws away what {way} {} of {}",
            sink.what,
            some(clients.len(), "container"),
            router.name
        ),
        why: "The kernel asks its rules one after the other, and in a table takes the route with \
              the longest prefix. Here it ends at one that leads nowhere, before it comes to the \
              network's own."
            .to_owned(),
        todo: vec![sink.removal],
    };
    let clients = clients.iter().map(|id| (*id).clone());
    found.add(Severity::Problem, Subject::link(exam.sight, router).with(clients), told);
}

/// Walks through the rules, and returns what ends the packet's way for certain.
fn sink(exam: &Exam<'_>, interior: &Interior, probe: &Probe<'_>) -> Option<Sink> {
    let mut rules = interior.rules.iter().filter(|rule| rule.ipv6 == probe.ipv6).peekable();
    if rules.peek().is_none() {
        return table(exam, interior, probe, 254).err().flatten();
    }
    let tool = tool(exam, probe);
    for rule in rules {
        let holds = holds(rule, probe);
        if holds == Some(false) || rule.action == "nop" {
            continue;
        }
        if is_sink(&rule.action) {
            if holds.is_none() {
                continue;
            }
            return Some(Sink {
                what: format!("the rule \"{} {}\"", shown(&rule.when), rule.action),
                removal: format!("{tool} rule del priority {}", rule.priority),
            });
        }
        let number = match rule.action.strip_prefix("lookup ")? {
            "local" => 255,
            "main" => 254,
            "default" => 253,
            number => number.parse().ok()?,
        };
        // Whoever may be led elsewhere is not lost for certain.
        holds?;
        if let Err(end) = table(exam, interior, probe, number) {
            return end;
        }
    }
    None
}

fn is_sink(kind: &str) -> bool {
    matches!(kind, "blackhole" | "unreachable" | "prohibit")
}

fn tool(exam: &Exam<'_>, probe: &Probe<'_>) -> String {
    let family = if probe.ipv6 { " -6" } else { "" };
    format!("{}ip{family}", within(exam.sight, &probe.router.netns))
}

/// Asks one table. `Ok`: it has no route, and the next is asked. Else the way ends here: at what
/// leads nowhere, or well.
fn table(
    exam: &Exam<'_>,
    interior: &Interior,
    probe: &Probe<'_>,
    number: u32,
) -> Result<(), Option<Sink>> {
    // To the outside lead default routes, also in halves.
    let covers = |net: IpNet| match probe.dst {
        Some(addr) => net.contains(&addr),
        None => net.prefix_len() <= 1 && net.addr().is_ipv6() == probe.ipv6,
    };
    let routes = interior.routes.iter().filter(|it| it.table == number && covers(it.dst));
    let rank = |len: u8, metric: u32| (u8::MAX - len, metric);
    let best = routes.clone().map(|it| rank(it.dst.prefix_len(), it.metric)).min();
    let mut best =
        routes.filter(|it| Some(rank(it.dst.prefix_len(), it.metric)) == best).peekable();
    let Some(first) = best.peek().copied() else { return Ok(()) };
    // A host that has no way out itself is another matter, and where two are alike the first wins.
    if first.dst.prefix_len() == 0 || !best.all(|it| is_sink(&it.kind)) {
        return if first.kind == "throw" { Ok(()) } else { Err(None) };
    }
    let (kind, dst, metric) = (&first.kind, first.dst, first.metric);
    let mut removal = format!("{} route del {kind} {dst} table {number}", tool(exam, probe));
    if metric > 0 {
        removal += &format!(" metric {metric}");
    }
    Err(Some(Sink { what: format!("the route \"{kind} {dst}\" of table {number}"), removal }))
}

/// Whether a rule concerns a packet; `None` where that is not known.
fn holds(rule: &PolicyRule, probe: &Probe<'_>) -> Option<bool> {
    let mut words = rule.when.split(' ').filter(|word| !word.is_empty());
    let mut sure = true;
    while let Some(key) = words.next() {
        let value = match key {
            "not" => return None,
            _ => words.next()?,
        };
        let one = match key {
            "from" => lies_in(probe.src, value),
            "to" => lies_in(probe.dst, value),
            "iif" if probe.out => Some(value == probe.router.name.as_str()),
            "iif" if value == "lo" || value == probe.router.name.as_str() => Some(false),
            _ => None,
        };
        match one {
            Some(false) => return Some(false),
            Some(true) => {}
            None => sure = false,
        }
    }
    sure.then_some(true)
}

/// Whether an address, or one outside, is in what a rule names.
fn lies_in(addr: Option<IpAddr>, named: &str) -> Option<bool> {
    if named == "all" {
        return Some(true);
    }
    let net = named.parse::<IpNet>().or_else(|_| named.parse::<IpAddr>().map(IpNet::from)).ok()?;
    match addr {
        Some(addr) => Some(net.contains(&addr)),
        None if net.prefix_len() == 0 => Some(true),
        // Nobody outside has a container's address; of half the internet who knows.
        None => (net.prefix_len() > 1).then_some(false),
    }
}
