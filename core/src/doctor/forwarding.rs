//! Switches of the kernel that stop packets on their way: forwarding, reverse paths, IPv6.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Found, Severity, Subject, Told,
    exam::{Exam, Way},
    some, spelled, turn, within,
};
use crate::{
    interior::Interior,
    map::is_loopback,
    model::{LinkId, Netns},
};

pub(super) const UNREAD: &str = "its switches could not be read";
const MAIN: u32 = 254;

/// What stands still in a namespace: by which switches, and whose.
#[derive(Default)]
struct Still<'a> {
    switches: BTreeSet<String>,
    ways: Vec<Way<'a>>,
}

/// Containers send what is not for their own network to us, and we do not pass it on.
pub(super) fn off(exam: &Exam<'_>, found: &mut Found) {
    let mut still: BTreeMap<(&Netns, bool), Still<'_>> = BTreeMap::new();
    for ((router, ipv6), ways) in exam.networks() {
        // IPv4 asks the interface that a packet comes in by, IPv6 only the switch for all.
        let (own, all) = match ipv6 {
            true => (None, "ipv6/conf/all/forwarding"),
            false => (exam.link_switch(router, "ipv4", "forwarding"), "ipv4/ip_forward"),
        };
        let general = exam.switch(&router.netns, all);
        let Some(value) = own.or(general) else {
            found.not_checked(&router.netns, UNREAD);
            continue;
        };
        if value == "0" {
            let switch = match general {
                Some("0") | None => all.to_owned(),
                Some(_) => format!("ipv4/conf/{}/forwarding", router.name),
            };
            let still = still.entry((&router.netns, ipv6)).or_default();
            still.switches.insert(switch);
            still.ways.extend(ways);
        }
    }
    for ((netns, ipv6), Still { switches, ways }) in still {
        let family = if ipv6 { "IPv6" } else { "IPv4" };
        let links = ways.iter().flat_map(|way| way.router.into_iter().chain([way.from])).cloned();
        let clients: BTreeSet<&Netns> = ways.iter().map(|way| &way.from.netns).collect();
        let list: Vec<String> = switches.iter().map(|it| format!("net/{it}")).collect();
        let told = Told {
            what: format!(
                "{family} forwarding is off ({} = 0), and what leaves the networks of {} comes here",
                list.join(", "),
                some(clients.len(), "namespace")
            ),
            why: "A kernel that does not forward drops every packet that is not for itself, \
                  without a word to anybody: containers reach each other and this namespace, but \
                  nothing beyond, and their published ports are not reached from outside."
                .to_owned(),
            todo: switches.iter().map(|it| turn(exam.sight, netns, it, "1")).collect(),
        };
        let subject = Subject::space(exam.sight, netns).with(links);
        found.add(Severity::Problem, subject, told);
    }
}

/// Several ways out, and packets are taken only from where the answer would go.
pub(super) fn strict(exam: &Exam<'_>, found: &mut Found) {
    for (netns, interior) in exam.interiors() {
        let (main, aside) = ways_out(interior);
        let (Some(all), true) =
            (exam.switch(netns, "ipv4/conf/all/rp_filter"), main.len() + aside.len() > 1)
        else {
            if main.len() + aside.len() > 1 {
                found.not_checked(netns, UNREAD);
            }
            continue;
        };
        let by_mark = interior.rules.iter().any(|rule| !rule.ipv6 && rule.when.contains("fwmark"));
        let marked = exam.switch(netns, "ipv4/conf/all/src_valid_mark") == Some("1");
        // With a table for each source address the answer goes by the link the question came by.
        let asymmetric = main.len() > 1 || (by_mark && !marked && !aside.is_empty());
        if !asymmetric {
            continue;
        }
        for name in main.iter().chain(&aside).collect::<BTreeSet<_>>() {
            let own = exam.switch(netns, &format!("ipv4/conf/{name}/rp_filter")).unwrap_or("0");
            let Ok(link) = name.parse().map(|name| LinkId { netns: netns.clone(), name }) else {
                continue;
            };
            // The kernel takes the larger of the two.
            if [all, own].into_iter().max() != Some("1") {
                continue;
            }
            let others: Vec<&str> = main.iter().chain(&aside).copied().collect();
            let told = Told {
                what: format!(
                    "rp_filter is strict (1) on {}, while default routes leave by {}",
                    link.name,
                    others.join(", ")
                ),
                why: "A packet that came in by a link other than the one that the answer would \
                      leave by is dropped: with several ways out that happens to good packets, \
                      such as connections to published ports that come in by the second uplink."
                    .to_owned(),
                todo: vec![
                    turn(exam.sight, netns, &format!("ipv4/conf/{}/rp_filter", link.name), "2"),
                    "# 2 is loose: the source must be reachable, by whichever link".to_owned(),
                ],
            };
            found.add(Severity::Warning, Subject::link(exam.sight, &link), told);
        }
    }
}

/// The links that default routes of IPv4 leave by: in the main table, and only in others.
fn ways_out(interior: &Interior) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let mut main = BTreeSet::new();
    let mut aside = BTreeSet::new();
    for route in interior.routes.iter().filter(|it| it.kind == "unicast") {
        if route.dst.prefix_len() == 0 && route.dst.addr().is_ipv4() {
            let list = if route.table == MAIN { &mut main } else { &mut aside };
            list.extend(route.hops.iter().filter_map(|hop| hop.out.as_deref()));
        }
    }
    aside.retain(|name| !main.contains(name));
    (main, aside)
}

/// The kernel does not listen to routers where it forwards itself, unless `accept_ra` is 2.
pub(super) fn deaf(exam: &Exam<'_>, found: &mut Found) {
    let routers: BTreeSet<&LinkId> = exam.networks().keys().map(|(router, _)| *router).collect();
    for (id, facts) in &exam.sight.links {
        let closed = exam.segment(id).is_none_or(|segment| !segment.open);
        let ours = routers.contains(id) || (facts.kind == "bridge" && closed);
        if is_loopback(id) || ours || !facts.addrs.iter().any(|net| is_global(net.addr())) {
            continue;
        }
        let Some(interior) = exam.interior(&id.netns) else {
            found.not_checked(&id.netns, UNREAD);
            continue;
        };
        let switch = |name| exam.link_switch(id, "ipv6", name);
        let (Some(forwarding), Some(accepts)) = (switch("forwarding"), switch("accept_ra")) else {
            found.not_checked(&id.netns, UNREAD);
            continue;
        };
        let defaults = || {
            let routes = interior.routes.iter().filter(|it| it.kind == "unicast");
            routes.filter(|it| it.dst.prefix_len() == 0 && it.dst.addr().is_ipv6())
        };
        let by = |name: &str| {
            defaults().any(|it| it.hops.iter().any(|hop| hop.out.as_deref() == Some(name)))
        };
        let learnt = defaults().any(|it| it.protocol == "ra");
        let lost = defaults().next().is_none() || (learnt && by(id.name.as_str()));
        if forwarding != "1" || accepts != "1" || !lost {
            continue;
        }
        let told = Told {
            what: format!(
                "{} forwards IPv6, its accept_ra is 1, and {}",
                id.name,
                if learnt {
                    "its default route is a router's, to expire"
                } else {
                    "there is no IPv6 default route"
                }
            ),
            why: "Where forwarding is on the kernel takes itself for a router and no longer \
                  believes router advertisements, unless accept_ra is 2. Default routes that came \
                  by them are removed, or expire: a while after forwarding was switched on for \
                  containers the host loses its own IPv6."
                .to_owned(),
            todo: vec![turn(
                exam.sight,
                &id.netns,
                &format!("ipv6/conf/{}/accept_ra", id.name),
                "2",
            )],
        };
        found.add(Severity::Warning, Subject::link(exam.sight, id), told);
    }
}

/// An address that the whole internet may know (RFC 4291, section 2.4).
fn is_global(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.octets()[0] & 0xe0 == 0x20)
}

/// The network's router has IPv6, the container's end of the cable may not.
pub(super) fn disabled(exam: &Exam<'_>, found: &mut Found) {
    for way in &exam.ways {
        let Some(router) = way.router.filter(|_| way.via.is_ipv4()) else { continue };
        let subnet = exam.facts(router).and_then(|facts| {
            let nets = facts.addrs.iter().filter(|net| net.addr().is_ipv6());
            nets.copied().find(|net| !is_link_local(net.addr()))
        });
        let Some(subnet) = subnet else { continue };
        match exam.link_switch(way.from, "ipv6", "disable_ipv6") {
            None => found.not_checked(&way.from.netns, UNREAD),
            Some("0") => {}
            Some(_) => {
                let link = &way.from.name;
                let enter = within(exam.sight, &way.from.netns);
                let told = Told {
                    what: format!(
                        "IPv6 is switched off on {link}, and its network has {}",
                        subnet.trunc()
                    ),
                    why: "The link has no IPv6 address, not even a link-local one. Names that \
                          resolve to IPv6 first are tried in vain, and nobody on the network \
                          reaches the container by IPv6."
                        .to_owned(),
                    todo: vec![
                        turn(
                            exam.sight,
                            &way.from.netns,
                            &format!("ipv6/conf/{link}/disable_ipv6"),
                            "0",
                        ),
                        format!(
                            "{enter}ip address add ADDRESS/{} dev {}",
                            subnet.prefix_len(),
                            spelled(link.as_str())
                        ),
                        "# or detach the container from the network, and attach it again"
                            .to_owned(),
                    ],
                };
                let subject = Subject::link(exam.sight, way.from).with([router.clone()]);
                found.add(Severity::Warning, subject, told);
            }
        }
    }
}

pub(super) fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}
