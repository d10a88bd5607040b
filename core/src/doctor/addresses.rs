//! Addresses that are in two places, or lead nowhere.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use super::{
    Found, Severity, Subject, Told,
    exam::{Exam, Segment},
    forwarding::is_link_local,
    packet::{self, Packet},
    place, some, spelled, within,
};
use crate::{
    map::is_loopback,
    model::{LinkId, Netns},
    name::Mac,
};

/// One address in several namespaces that hear each other.
pub(super) fn duplicate_address(exam: &Exam<'_>, found: &mut Found) {
    for segment in segments(exam) {
        let mut at: BTreeMap<IpAddr, Vec<&LinkId>> = BTreeMap::new();
        for id in live(exam, segment).filter(|id| !exam.is_port(id)) {
            let Some(facts) = exam.facts(id) else { continue };
            let addrs = facts.addrs.iter().map(IpNet::addr);
            let addrs: BTreeSet<IpAddr> = addrs.filter(|it| !is_link_local(*it)).collect();
            addrs.into_iter().for_each(|addr| at.entry(addr).or_default().push(id));
        }
        for (addr, links) in at.iter().filter(|(_, links)| are_apart(links)) {
            let enter = within(exam.sight, &links[1].netns);
            let told = Told {
                what: format!("{addr} is on {}", places(exam, links)),
                why: "Whoever asks for the address gets the answer of one or the other, and keeps \
                      it for a while: connections go to the wrong one, or break half way, and it \
                      changes from minute to minute."
                    .to_owned(),
                todo: vec![
                    "# give one of them another address; to take it from the second now:"
                        .to_owned(),
                    format!("{enter}ip address del {addr} dev {}", spelled(links[1].name.as_str())),
                ],
            };
            found.add(Severity::Problem, subject(exam, links), told);
        }
    }
}

/// One hardware address in several namespaces that hear each other, or on a container and on the
/// bridge's side of its own cable.
pub(super) fn duplicate_mac(exam: &Exam<'_>, found: &mut Found) {
    for segment in segments(exam) {
        let mut at: BTreeMap<Mac, Vec<&LinkId>> = BTreeMap::new();
        for id in live(exam, segment) {
            // These have their parent's on purpose.
            let shares = exam.facts(id).is_some_and(|facts| {
                matches!(facts.kind.as_str(), "ipvlan" | "ipvtap")
                    || facts.details.iter().any(|detail| detail == "mode passthru")
            });
            let mac = exam.link(id).map(|link| link.mac).filter(|mac| mac.0 != [0; 6]);
            if let (Some(mac), false) = (mac, shares) {
                at.entry(mac).or_default().push(id);
            }
        }
        for (mac, links) in at {
            // A bridge has the address of one of its ports, and they are in one namespace.
            let stations: Vec<&LinkId> =
                links.iter().copied().filter(|id| !exam.is_port(id)).collect();
            let links = match are_apart(&stations) {
                true => stations,
                false => links,
            };
            if !are_apart(&links) {
                continue;
            }
            let second = links.iter().rev().find(|id| id.netns != Netns::Host).unwrap_or(&links[1]);
            let enter = within(exam.sight, &second.netns);
            let told = Told {
                what: format!("{mac} is on {}", places(exam, &links)),
                why: "A bridge learns behind which port an address is, and sends there. With two \
                      of a kind it changes its mind with each frame; one that it has itself it \
                      keeps. Frames for one go to the other."
                    .to_owned(),
                todo: vec![
                    "# give one of them another; 02 at the front is for addresses made up"
                        .to_owned(),
                    format!(
                        "{enter}ip link set dev {} address 02:XX:XX:XX:XX:XX",
                        spelled(second.name.as_str())
                    ),
                ],
            };
            found.add(Severity::Problem, subject(exam, &links), told);
        }
    }
}

/// Segments on which all frames are heard by all.
fn segments<'a, 'b>(exam: &'b Exam<'a>) -> impl Iterator<Item = &'b Segment<'a>> {
    exam.segments.iter().filter(|segment| !segment.vlans)
}

fn live<'a, 'b>(
    exam: &'b Exam<'a>,
    segment: &'b Segment<'a>,
) -> impl Iterator<Item = &'a LinkId> + use<'a, 'b> {
    segment.links.iter().copied().filter(|id| exam.link(id).is_some_and(|link| link.up))
}

fn are_apart(links: &[&LinkId]) -> bool {
    links.iter().any(|id| id.netns != links[0].netns)
}

fn places(exam: &Exam<'_>, links: &[&LinkId]) -> String {
    let places: Vec<String> = links.iter().map(|id| place(exam.sight, id)).collect();
    places.join(" and on ")
}

fn subject(exam: &Exam<'_>, links: &[&LinkId]) -> Subject {
    let first = Subject::link(exam.sight, links[0]);
    links[1..].iter().fold(first, |subject, id| subject.and(exam.sight, id))
}

/// Where all that hear a container are seen, its gateway must be one of them.
pub(super) fn gateway(exam: &Exam<'_>, found: &mut Found) {
    fixed_elsewhere(exam, found);
    for way in exam.ways.iter().filter(|way| way.router.is_none()) {
        let (from, via) = (way.from, way.via);
        let closed = exam.segment(from).is_some_and(|segment| !segment.open);
        let stations = exam.stations(from);
        if from.netns == Netns::Host
            || !closed
            || stations.len() < 2
            || is_answered(exam, from, via)
        {
            continue;
        }
        if exam.blind {
            found.not_checked(&from.netns, "links of some namespaces could not be read");
            continue;
        }
        let others = stations.iter().filter(|id| id.netns != from.netns);
        let addrs = others.filter_map(|id| exam.facts(id)).flat_map(|facts| &facts.addrs);
        let near: Vec<String> = addrs
            .filter(|net| net.contains(&via) && !is_link_local(net.addr()))
            .map(|net| net.addr().to_string())
            .take(3)
            .collect();
        let enter = within(exam.sight, &from.netns);
        let new = near.first().map_or_else(|| "GATEWAY".to_owned(), Clone::clone);
        let told = Told {
            what: format!("the default route leads to {via}, and nobody on the network has it"),
            why: format!(
                "The container asks who has its gateway's address, and nobody answers: it reaches \
                 its own network, and nothing beyond. {}",
                match near.is_empty() {
                    true => "Nobody there has an address of that subnet.".to_owned(),
                    false => format!("In the same subnet there are {}.", near.join(", ")),
                }
            ),
            todo: vec![format!(
                "{enter}ip route replace default via {new} dev {}",
                spelled(from.name.as_str())
            )],
        };
        found.add(Severity::Problem, Subject::link(exam.sight, from), told);
    }
}

/// An entry for the gateway that was put by hand stays, whatever the gateway's hardware address is.
fn fixed_elsewhere(exam: &Exam<'_>, found: &mut Found) {
    for way in &exam.ways {
        let (from, via) = (way.from, way.via);
        let (Some(router), Some(facts)) = (way.router, exam.facts(from)) else { continue };
        let Some(segment) = exam.segment(from).filter(|it| !it.open) else { continue };
        let mut kept = facts.neighbours.iter().filter(|it| it.state == "permanent");
        let Some(mac) = kept.find(|it| it.addr == Some(via)).and_then(|it| it.mac) else {
            continue;
        };
        let has = |id: &&LinkId| {
            let forwarded = exam.facts(id).into_iter().flat_map(|facts| &facts.neighbours);
            let mut forwarded = forwarded.filter(|it| it.addr.is_none());
            exam.link(id).is_some_and(|link| link.mac == mac)
                || forwarded.any(|it| it.mac == Some(mac))
        };
        let Some(right) = exam.link(router).map(|link| link.mac) else { continue };
        if segment.links.iter().any(has) {
            continue;
        }
        let told = Told {
            what: format!(
                "its gateway {via} is put down as {mac}, which nobody on the network has"
            ),
            why: format!(
                "The entry in the table of neighbours is permanent: nobody is asked, and what goes \
                 to the gateway goes to an address that no link has. {} has {right}.",
                place(exam.sight, router)
            ),
            todo: vec![format!(
                "{}ip neigh replace {via} lladdr {right} nud permanent dev {}",
                within(exam.sight, &from.netns),
                spelled(from.name.as_str())
            )],
        };
        let subject = Subject::link(exam.sight, from).with([router.clone()]);
        found.add(Severity::Problem, subject, told);
    }
}

/// Whether somebody answers for an address without having it: a proxy, an entry that was put.
fn is_answered(exam: &Exam<'_>, from: &LinkId, via: IpAddr) -> bool {
    let kept = exam.facts(from).is_some_and(|facts| {
        let mut known = facts.neighbours.iter();
        known.any(|it| it.addr == Some(via) && it.mac.is_some() && it.state != "failed")
    });
    let (family, name) = if via.is_ipv6() { ("ipv6", "proxy_ndp") } else { ("ipv4", "proxy_arp") };
    let proxies = |id: &&LinkId| {
        let all = exam.switch(&id.netns, &format!("{family}/conf/all/{name}"));
        // What cannot be read may be on.
        let own = exam.link_switch(id, family, name);
        id.netns != from.netns && (own != Some("0") || all != Some("0"))
    };
    kept || is_link_local(via) && via.is_ipv6() || exam.stations(from).iter().any(proxies)
}

/// The others of the network have a way out, or its addresses are translated: it has one to offer.
pub(super) fn no_default_route(exam: &Exam<'_>, found: &mut Found) {
    let have: BTreeSet<(&Netns, bool)> =
        exam.ways.iter().map(|way| (&way.from.netns, way.via.is_ipv6())).collect();
    let routes = exam.sight.topology.routes.iter().filter(|it| it.dst.prefix_len() == 0);
    // Out by a link, with no gateway, is a way out too.
    let direct: BTreeSet<&Netns> = routes.map(|it| &it.link.netns).collect();
    for id in exam.sight.links.keys().filter(|id| id.netns != Netns::Host && !is_loopback(id)) {
        if have.contains(&(&id.netns, false)) || direct.contains(&id.netns) || exam.is_port(id) {
            continue;
        }
        let facts = &exam.sight.links[id];
        let Some(own) = facts.addrs.iter().find(|net| net.addr().is_ipv4()) else { continue };
        // What could not be entered, as it is just going, has routes that nobody saw.
        if exam.interior(&id.netns).is_none() || has_other_default(exam, &id.netns) {
            continue;
        }
        let Some((router, via, why)) = offered(exam, id, *own) else { continue };
        let enter = within(exam.sight, &id.netns);
        let told = Told {
            what: format!("no default route, and {why}"),
            why: "What is not for the container's own network has no way to go: connections to \
                  the outside fail at once (\"network is unreachable\"), and answers to clients \
                  of a published port do not leave."
                .to_owned(),
            todo: vec![format!(
                "{enter}ip route add default via {via} dev {}",
                spelled(id.name.as_str())
            )],
        };
        let subject = Subject::link(exam.sight, id).with([router.clone()]);
        found.add(Severity::Warning, subject, told);
    }
}

/// Whether another table than the main one has a default route.
fn has_other_default(exam: &Exam<'_>, netns: &Netns) -> bool {
    let links = exam.sight.links.iter().filter(|(id, _)| id.netns == *netns);
    let mut tables = links.flat_map(|(_, facts)| &facts.other_tables);
    tables.any(|(_, route)| route.dst.prefix_len() == 0)
}

/// A link that offers a way out to the others of the network, its address, and how that is known.
fn offered<'a>(exam: &Exam<'a>, id: &LinkId, own: IpNet) -> Option<(&'a LinkId, IpAddr, String)> {
    for router in exam.stations(id).iter().copied().filter(|it| it.netns != id.netns) {
        let addrs = exam.facts(router).map(|facts| facts.addrs.as_slice()).unwrap_or_default();
        let Some(via) = addrs.iter().map(IpNet::addr).find(|addr| own.contains(addr)) else {
            continue;
        };
        let siblings = exam.ways.iter().filter(|way| way.router == Some(router) && way.via == via);
        let siblings = siblings.count();
        if siblings > 0 {
            let why = format!("{} of its network leave by {via}", some(siblings, "other"));
            return Some((router, via, why));
        }
        let uplink = exam.uplink(router, false);
        let (Some(uplink), Some(interior)) = (uplink, exam.interior(&router.netns)) else {
            continue;
        };
        let out = Packet::new(router, uplink, Some(own.addr()), false);
        if packet::translated(exam, interior, &out) == Some(true) {
            let why = format!("the addresses of its network are translated at {via}");
            return Some((router, via, why));
        }
    }
    None
}

/// A route of the same namespace leads elsewhere with addresses of a container network.
pub(super) fn overlap(exam: &Exam<'_>, found: &mut Found) {
    let routers: BTreeSet<&LinkId> = exam.networks().keys().map(|(router, _)| *router).collect();
    let is_network =
        |id: &LinkId| routers.contains(id) || exam.facts(id).is_some_and(|it| it.kind == "bridge");
    let mut told: BTreeSet<(&LinkId, &LinkId)> = BTreeSet::new();
    for (id, facts) in exam.sight.links.iter().filter(|(id, _)| is_network(id)) {
        for net in facts.addrs.iter().map(IpNet::trunc).filter(|net| is_subnet(*net)) {
            for route in exam.sight.topology.routes.iter().filter(|it| it.link.netns == id.netns) {
                let whole = if route.dst.addr().is_ipv4() { 1 } else { 3 };
                let (other, dst) = (&route.link, route.dst);
                let skip = other == id || dst.prefix_len() <= whole || !is_subnet(dst);
                let (within, around) = (net.contains(&dst), dst.contains(&net));
                if skip || !(within || around) || told.contains(&(other, id)) {
                    continue;
                }
                told.insert((id, other));
                tell_overlap(exam, (id, net), (other, dst), found);
            }
        }
    }
}

/// More than one host, and not what every link has.
fn is_subnet(net: IpNet) -> bool {
    net.prefix_len() < net.max_prefix_len() && !is_link_local(net.addr())
}

fn tell_overlap(
    exam: &Exam<'_>,
    (id, net): (&LinkId, IpNet),
    (other, dst): (&LinkId, IpNet),
    found: &mut Found,
) {
    // The longest prefix wins: what is wider only loses what the network takes out of it.
    let lost = net.contains(&dst);
    let (severity, why) = match lost {
        true => (
            Severity::Problem,
            format!(
                "The kernel takes the route with the longest prefix, or of two alike the first: \
                 packets for containers in {dst} go out by {}, or those for the others go to the \
                 containers' network.",
                other.name
            ),
        ),
        false => (
            Severity::Warning,
            format!(
                "Hosts beyond {} with addresses in {net} are reached neither from here nor from \
                 containers: their packets go to the containers' network.",
                other.name
            ),
        ),
    };
    let told = Told {
        what: format!("{net} of {} overlaps {dst}, which leads out by {}", id.name, other.name),
        why,
        todo: vec![
            format!(
                "{}ip route get ADDRESS   # which way it goes now",
                within(exam.sight, &id.netns)
            ),
            "# make the network anew with a subnet of which nobody has a part (--subnet)"
                .to_owned(),
        ],
    };
    let subject = Subject::link(exam.sight, id).and(exam.sight, other);
    let clients = exam.stations(id).iter().copied().cloned();
    found.add(severity, subject.with(clients), told);
}

/// All namespaces share one table, of one size.
pub(super) fn neighbours(exam: &Exam<'_>, found: &mut Found) {
    for (ipv6, family) in [(false, "ipv4"), (true, "ipv6")] {
        let counts = |it: &&crate::sight::SeenNeighbour| {
            it.addr.is_some_and(|addr| addr.is_ipv6() == ipv6)
                && !matches!(it.state.as_str(), "permanent" | "noarp")
        };
        let all = exam.sight.links.values().flat_map(|facts| &facts.neighbours);
        let entries = all.filter(counts).count();
        let largest = exam.segments.iter().map(|it| hosts(exam, it, ipv6)).max().unwrap_or(0);
        if entries == 0 && largest == 0 {
            continue;
        }
        let switch = format!("{family}/neigh/default/gc_thresh3");
        let limit = exam.switch(&Netns::Host, &switch).and_then(|value| value.parse().ok());
        let Some(limit) = limit else {
            found.not_checked(&Netns::Host, "the limit (gc_thresh3) is not shown here");
            continue;
        };
        let used: usize = entries;
        let (severity, what) = if used * 100 >= limit * 95 {
            (Severity::Problem, format!("{used} {family} neighbours, of {limit} at most"))
        } else if used * 100 >= limit * 80 {
            (Severity::Warning, format!("{used} {family} neighbours, of {limit} at most"))
        } else if largest > limit {
            let what = format!("{largest} on one network, and {limit} {family} neighbours at most");
            (Severity::Warning, what)
        } else {
            continue;
        };
        let told = Told {
            what: format!("{what} (gc_thresh3)"),
            why: "The kernel has one table of neighbours for all namespaces together. Where it is \
                  full new ones are refused: the first packets to a container are lost now and \
                  then, and the log says \"neighbour table overflow\"."
                .to_owned(),
            todo: ["3", "2"]
                .iter()
                .map(|n| {
                    let value = if *n == "3" { limit * 4 } else { limit * 2 };
                    format!("sysctl -w net/{family}/neigh/default/gc_thresh{n}={value}")
                })
                .collect(),
        };
        found.add(severity, Subject::space(exam.sight, &Netns::Host), told);
    }
}

/// How many addresses to be looked up there are on a segment.
fn hosts(exam: &Exam<'_>, segment: &Segment<'_>, ipv6: bool) -> usize {
    let has = |id: &&&LinkId| {
        exam.facts(id).is_some_and(|it| it.addrs.iter().any(|net| net.addr().is_ipv6() == ipv6))
    };
    segment.links.iter().filter(has).count().saturating_sub(1)
}
