//! Links that carry nothing, too little, or lead nowhere.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, Severity, Subject, Told, exam::Exam, place, some, spelled, within, word};
use crate::{
    map::{is_loopback, shown},
    model::{LinkId, Netns},
    sight::{Holder, LinkFacts, Runtime, Space},
};

/// `BR_MAX_PORTS` is 1 << 10, and number 0 is nobody's (net/bridge/br_private.h).
const PORTS_MAX: usize = 1023;
const BLIND: &str = "links of some namespaces could not be read";

fn mtu(exam: &Exam<'_>, id: &LinkId) -> Option<u32> {
    exam.link(id).map(|link| link.mtu).filter(|mtu| *mtu > 0)
}

fn set_mtu(exam: &Exam<'_>, id: &LinkId, mtu: u32) -> String {
    let enter = within(exam.sight, &id.netns);
    format!("{enter}ip link set dev {} mtu {mtu}", spelled(id.name.as_str()))
}

/// Between links that hear each other nobody says that a packet is too large.
pub(super) fn mtu_step(exam: &Exam<'_>, found: &mut Found) {
    const WHY: &str = "Within one network there is no router to say that a packet is too large: it \
                       is dropped in silence. Small packets pass, so that connections are made and \
                       then hang, with large answers, TLS handshakes or copies of files.";
    for (id, facts) in exam.sight.links.iter().filter(|(_, facts)| facts.kind == "veth") {
        let Some(far) = facts.leads_to.as_ref().filter(|far| id < *far) else { continue };
        let (Some(here), Some(there)) = (mtu(exam, id), mtu(exam, far)) else { continue };
        if here == there {
            continue;
        }
        // What the rest of the network has is right; without one, what is sure to pass.
        let rest = [id, far]
            .into_iter()
            .find_map(|end| exam.facts(end)?.master.as_ref().and_then(|bridge| mtu(exam, bridge)));
        let aim =
            rest.filter(|rest| [here, there].contains(rest)).unwrap_or_else(|| here.min(there));
        let odd = if here == aim { far } else { id };
        let told = Told {
            what: format!(
                "the ends of a cable differ: {} has mtu {here}, {} has {there}",
                place(exam.sight, id),
                place(exam.sight, far)
            ),
            why: WHY.to_owned(),
            todo: vec![set_mtu(exam, odd, aim)],
        };
        let subject = Subject::link(exam.sight, id).and(exam.sight, far);
        found.add(Severity::Problem, subject, told);
    }
    for (bridge, ports) in &exam.ports {
        let mut sizes: Vec<(u32, &LinkId)> =
            ports.iter().filter_map(|id| Some((mtu(exam, id)?, *id))).collect();
        // What the bridge's own address sends is too large for a smaller port as well.
        let own = exam.facts(bridge).is_some_and(|facts| !facts.addrs.is_empty());
        sizes.extend(mtu(exam, bridge).filter(|_| own).map(|mtu| (mtu, *bridge)));
        let (Some((least, small)), Some((most, large))) =
            (sizes.iter().min().copied(), sizes.iter().max().copied())
        else {
            continue;
        };
        if least == most {
            continue;
        }
        let lower = sizes.iter().filter(|(mtu, _)| *mtu > least).map(|(_, id)| *id).take(4);
        // A bridge that is smaller than all its ports answers that something is too large.
        let severity = match small == *bridge {
            true => Severity::Warning,
            false => Severity::Problem,
        };
        let told = Told {
            what: format!(
                "on {}, {} has mtu {least} and {} has {most}",
                bridge.name, small.name, large.name
            ),
            why: WHY.to_owned(),
            todo: lower.map(|id| set_mtu(exam, id, least)).collect(),
        };
        let concerned = ports.iter().filter_map(|id| exam.facts(id)?.leads_to.clone());
        let subject = Subject::link(exam.sight, bridge).and(exam.sight, small);
        found.add(severity, subject.and(exam.sight, large).with(concerned), told);
    }
}

/// What a VXLAN adds: 8 bytes of its own, 8 of UDP, 14 of Ethernet, and an IP header (RFC 7348).
fn vxlan_header(facts: &LinkFacts) -> u32 {
    let is_v6 = |detail: &String| {
        let ends = detail.split_once("remote ").or_else(|| detail.split_once("local "));
        ends.is_some_and(|(_, addr)| addr.contains(':'))
    };
    if facts.details.iter().any(is_v6) { 70 } else { 50 }
}

/// A tunnel's packet is larger than what is in it.
pub(super) fn mtu_tunnel(exam: &Exam<'_>, found: &mut Found) {
    for (id, facts) in exam.sight.links.iter().filter(|(_, facts)| facts.kind == "vxlan") {
        let Some(under) = facts.leads_to.as_ref() else { continue };
        let (Some(own), Some(carrier)) = (mtu(exam, id), mtu(exam, under)) else { continue };
        let header = vxlan_header(facts);
        if own + header <= carrier {
            continue;
        }
        let told = Told {
            what: format!(
                "{} has mtu {own}, and {header} bytes of header more do not fit {} ({carrier})",
                id.name, under.name
            ),
            why: "A full packet in the tunnel is larger than a packet of the link below. It is \
                  cut in pieces, which many networks drop, or dropped at once; who sent it is not \
                  told. Small packets pass."
                .to_owned(),
            todo: vec![
                set_mtu(exam, id, carrier.saturating_sub(header)),
                "# and the same, or less, on all containers of the network".to_owned(),
            ],
        };
        let mut subject = Subject::link(exam.sight, id).and(exam.sight, under);
        subject.links.extend(facts.master.clone());
        found.add(Severity::Problem, subject, told);
    }
}

/// Larger than the uplink takes: then all depends on messages that many firewalls drop.
pub(super) fn mtu_uplink(exam: &Exam<'_>, found: &mut Found) {
    for ((router, ipv6), ways) in exam.networks() {
        let uplink = exam.uplink(router, ipv6);
        let Some((uplink, out)) = uplink.and_then(|id| Some((id, mtu(exam, id)?))) else {
            continue;
        };
        let large: Vec<(u32, &LinkId)> = ways
            .iter()
            .filter(|way| !has_route_mtu(exam, &way.from.netns, out))
            .filter_map(|way| Some((mtu(exam, way.from)?, way.from)))
            .filter(|(mtu, _)| *mtu > out)
            .collect();
        let Some((most, _)) = large.iter().max().copied() else { continue };
        if clamps(exam, &router.netns) {
            continue;
        }
        let told = Told {
            what: format!(
                "{} of {} may send packets of {most} bytes, and {} takes {out}",
                some(large.len(), "link"),
                router.name,
                uplink.name
            ),
            why: "Every large packet is dropped here, and the sender told (ICMP \"fragmentation \
                  needed\", path MTU discovery). For what comes from outside it is others who \
                  must tell, and much of the internet drops such messages: connections are made \
                  and then hang."
                .to_owned(),
            todo: vec![
                format!("# make the network anew with an MTU of {out} (--mtu {out}), or:"),
                format!(
                    "{}iptables -t mangle -A FORWARD -o {} -p tcp --tcp-flags SYN,RST SYN -j TCPMSS \
                     --clamp-mss-to-pmtu",
                    within(exam.sight, &router.netns),
                    spelled(uplink.name.as_str())
                ),
            ],
        };
        let clients = large.iter().map(|(_, id)| (*id).clone());
        let subject = Subject::link(exam.sight, router).and(exam.sight, uplink);
        found.add(Severity::Warning, subject.with(clients), told);
    }
}

/// Whether a namespace's default routes say themselves how much may be sent.
fn has_route_mtu(exam: &Exam<'_>, netns: &Netns, limit: u32) -> bool {
    exam.interior(netns).is_some_and(|interior| {
        let mut defaults = interior.routes.iter().filter(|it| it.dst.prefix_len() == 0);
        defaults.any(|it| it.mtu.is_some_and(|mtu| mtu <= limit))
    })
}

/// Whether some rule changes the largest segment that TCP announces.
fn clamps(exam: &Exam<'_>, netns: &Netns) -> bool {
    use crate::firewall::{Action, What};
    let says = |text: &str| {
        let text = text.to_lowercase();
        text.contains("maxseg") || text.contains("tcpmss") || text.contains("mss")
    };
    let tables = exam.interior(netns).map(|it| it.firewall.as_slice()).unwrap_or_default();
    let mut rules = tables.iter().flat_map(|it| &it.chains).flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        let other =
            |it: &crate::firewall::Match| matches!(&it.what, What::Other(text) if says(text));
        matches!(&rule.action, Action::Other(text) if says(text))
            || rule.also.iter().any(|text| says(text))
            || rule.matches.iter().any(other)
    })
}

/// Somebody lives behind a cable that carries nothing.
pub(super) fn port_down(exam: &Exam<'_>, found: &mut Found) {
    for (id, facts) in exam.sight.links.iter().filter(|(_, facts)| facts.kind == "veth") {
        let Some(far) = &facts.leads_to else { continue };
        let addressed = facts.addrs.iter().any(|net| !super::forwarding::is_link_local(net.addr()));
        let theirs = id.netns != Netns::Host && id.netns != far.netns;
        // Not by what its state is called: the kernel takes its time to say that.
        if !theirs || !addressed || !exam.has_process(&id.netns) {
            continue;
        }
        let down = |id: &LinkId| exam.link(id).is_some_and(|link| !link.up);
        let ends: Vec<&LinkId> = [far, id].into_iter().filter(|id| down(id)).collect();
        let Some(first) = ends.first() else { continue };
        let told = Told {
            what: format!(
                "{} is down, and so the cable of {} carries nothing",
                place(exam.sight, first),
                exam.sight.label(&id.netns)
            ),
            why: "A cable works when both of its ends are up. The container keeps its addresses \
                  and routes, and nothing comes or goes."
                .to_owned(),
            todo: ends
                .iter()
                .map(|end| {
                    let enter = within(exam.sight, &end.netns);
                    format!("{enter}ip link set dev {} up", spelled(end.name.as_str()))
                })
                .collect(),
        };
        found.add(Severity::Problem, Subject::link(exam.sight, id).and(exam.sight, far), told);
    }
    for (bridge, ports) in &exam.ports {
        let far = |id: &&LinkId| exam.facts(id)?.leads_to.clone();
        let lives: Vec<LinkId> = ports
            .iter()
            .filter_map(far)
            .filter(|far| far.netns != bridge.netns && exam.has_process(&far.netns))
            .collect();
        if lives.is_empty() || exam.link(bridge).is_none_or(|link| link.up) {
            continue;
        }
        let told = Told {
            what: format!(
                "{} is down, and {} live on it",
                bridge.name,
                some(lives.len(), "container")
            ),
            why: "A bridge that is down passes no frame on, and its own addresses do not answer."
                .to_owned(),
            todo: vec![format!(
                "{}ip link set dev {} up",
                within(exam.sight, &bridge.netns),
                spelled(bridge.name.as_str())
            )],
        };
        found.add(Severity::Problem, Subject::link(exam.sight, bridge).with(lives), told);
    }
}

/// The kernel gives out port numbers to the last, and then no more.
pub(super) fn bridge_ports(exam: &Exam<'_>, found: &mut Found) {
    for (bridge, ports) in &exam.ports {
        let severity = match ports.len() {
            0..920 => continue,
            920..1013 => Severity::Warning,
            _ => Severity::Problem,
        };
        let told = Told {
            what: format!("{} has {} of at most {PORTS_MAX} ports", bridge.name, ports.len()),
            why: "The next container after the last port cannot be attached (\"exchange full\"): \
                  it does not start, or starts without a network."
                .to_owned(),
            todo: vec![
                "# put containers on further networks; a routed network has no such limit"
                    .to_owned(),
                "twinax network create --driver routed NAME".to_owned(),
            ],
        };
        found.add(severity, Subject::link(exam.sight, bridge), told);
    }
}

/// One end of a cable whose other end is nowhere.
pub(super) fn orphan_veth(exam: &Exam<'_>, found: &mut Found) {
    let is_lost = |facts: &LinkFacts| facts.kind == "veth" && facts.leads_to.is_none();
    for (id, _) in exam.sight.links.iter().filter(|(_, facts)| is_lost(facts)) {
        if exam.blind {
            found.not_checked(&id.netns, BLIND);
            continue;
        }
        let told = Told {
            what: format!("the other end of {} was not found in any namespace", id.name),
            why: "Its other end is in a namespace that nobody names, kept by something that does \
                  not show, or it is about to go. Left behind by a container that ended badly, it \
                  holds its place on the bridge."
                .to_owned(),
            todo: vec![
                format!(
                    "{}ip link delete dev {}",
                    within(exam.sight, &id.netns),
                    spelled(id.name.as_str())
                ),
                "# once it is clear that no container misses it".to_owned(),
            ],
        };
        found.add(Severity::Warning, Subject::link(exam.sight, id), told);
    }
}

/// A name in /run/netns or /run/docker/netns with nothing behind it.
pub(super) fn orphan_namespace(exam: &Exam<'_>, found: &mut Found) {
    let read: BTreeSet<&Netns> = exam.sight.links.keys().map(|id| &id.netns).collect();
    let full: BTreeSet<&Netns> = {
        let links = exam.sight.links.keys().filter(|id| !is_loopback(id));
        links.map(|id| &id.netns).collect()
    };
    for (netns, space) in spaces_apart(exam) {
        let mounts: Vec<&str> = space.holders.iter().filter_map(mount).collect();
        let kept = mounts.len() == space.holders.len() && !mounts.is_empty();
        let known = space.workloads.iter().any(|it| it.runtime != Runtime::IpNetns);
        if !kept || known || full.contains(netns) || !read.contains(netns) {
            continue;
        }
        let told = Told {
            what: format!("{} is mounted, with no process and no link in it", shown(mounts[0])),
            why:
                "Nobody lives in it and nothing leads there: left behind by something that ended, \
                  or made ahead of time. It costs a little memory."
                    .to_owned(),
            todo: mounts
                .iter()
                .take(3)
                .map(|path| match path.strip_prefix("/run/netns/") {
                    Some(name) => format!("ip netns delete {}", word(name)),
                    None => format!("umount {} && rm {}", word(path), word(path)),
                })
                .collect(),
        };
        found.add(Severity::Note, Subject::space(exam.sight, netns), told);
    }
}

fn mount(holder: &Holder) -> Option<&str> {
    match holder {
        Holder::Mount { path, .. } => Some(path),
        _ => None,
    }
}

fn spaces_apart<'a>(exam: &Exam<'a>) -> impl Iterator<Item = (&'a Netns, &'a Space)> {
    exam.sight.spaces.iter().filter(|(netns, _)| **netns != Netns::Host)
}

/// Links in a namespace that neither `ip netns` nor a list of processes shows.
pub(super) fn hidden_namespace(exam: &Exam<'_>, found: &mut Found) {
    let mut links: BTreeMap<&Netns, Vec<&LinkId>> = BTreeMap::new();
    for id in exam.sight.links.keys().filter(|id| !is_loopback(id)) {
        links.entry(&id.netns).or_default().push(id);
    }
    // Where processes or mounts are not all seen, who holds a namespace may be among them.
    let all_seen = !exam
        .sight
        .unseen
        .iter()
        .any(|line| ["process", "mount"].iter().any(|word| line.contains(word)));
    let mut by_holder: BTreeMap<String, Vec<&Netns>> = BTreeMap::new();
    for (netns, space) in spaces_apart(exam).filter(|(netns, _)| links.contains_key(netns)) {
        let plain = |holder: &Holder| {
            matches!(holder, Holder::Process { .. } | Holder::Mount { .. } | Holder::Thread { .. })
        };
        let known = |holder: &Holder| !matches!(holder, Holder::Unseen | Holder::Outside);
        if space.holders.iter().any(plain) {
            continue;
        }
        if !all_seen && !space.holders.iter().any(known) {
            found.not_checked(netns, "not all processes and mounts are seen");
            continue;
        }
        by_holder.entry(keeper(space)).or_default().push(netns);
    }
    for (held, spaces) in by_holder {
        let of: Vec<&LinkId> =
            spaces.iter().filter_map(|netns| links.get(netns)).flatten().copied().collect();
        let names: Vec<&str> = of.iter().map(|id| id.name.as_str()).take(4).collect();
        let told = Told {
            what: format!(
                "{} with {} ({}{}), kept by {held}",
                some(spaces.len(), "namespace"),
                some(of.len(), "link"),
                names.join(", "),
                if of.len() > names.len() { ", …" } else { "" }
            ),
            why: "No process lives in it and no name leads to it, so that other tools do not show \
                  it. Its addresses and cables are in use all the same, until whoever holds it \
                  lets go."
                .to_owned(),
            todo: vec!["# end or restart what holds it, if it is not meant to".to_owned()],
        };
        let mut subject = Subject::space(exam.sight, spaces[0]);
        subject.of.extend(spaces.iter().skip(1).take(3).map(|netns| exam.sight.label(netns)));
        subject.spaces.extend(spaces.iter().copied().cloned());
        found.add(Severity::Note, subject.with(of.into_iter().cloned()), told);
    }
}

/// Who keeps a namespace, without saying by which descriptor.
fn keeper(space: &Space) -> String {
    match space.holders.iter().min() {
        Some(
            Holder::Descriptor { pid, comm, .. }
            | Holder::Socket { pid, comm, .. }
            | Holder::Tun { pid, comm, .. },
        ) => format!("descriptors of process {pid} ({})", shown(comm)),
        _ => "something that does not show, as a descriptor on its way".to_owned(),
    }
}
