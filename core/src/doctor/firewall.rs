//! Firewalls that swallow what they know nothing of, or leave out what is needed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    BY_HAND, Found, Severity, Subject, Told,
    exam::Exam,
    is_told_to_nft,
    packet::{self, Dropped, Packet},
    quoted, spelled, turn, within, word,
};
use crate::{
    firewall::{Engine, Hook, LedPort, Table},
    interior::Interior,
    model::{LinkId, Netns},
    name::Proto,
};

const UNREAD: &str = "its firewall could not be read";
/// Of a network, so many containers are tried: rules that tell them apart are rare.
const SAMPLES: usize = 16;
/// Of published ports, so many are tried.
const LED_MAX: usize = 1000;
/// Of published ports, so many are named.
const PORTS_TOLD: usize = 10;
/// Of many links alike, the commands for so many are told.
const COMMANDS: usize = 4;

/// The inside of a namespace, if its firewall was read.
fn walls<'a>(exam: &Exam<'a>, netns: &Netns, found: &mut Found) -> Option<&'a Interior> {
    let interior = exam.interior(netns);
    let read = |interior: &&Interior| !interior.unseen.iter().any(|line| is_about_firewall(line));
    let read = interior.filter(read);
    if read.is_none() {
        found.not_checked(netns, UNREAD);
    }
    read
}

/// Whether a line of what was not seen is about the firewall.
fn is_about_firewall(line: &str) -> bool {
    ["firewall", "nftables", "iptables", "the inside of"].iter().any(|word| line.contains(word))
}

/// The first address of a link, of one family, that others may send to.
pub(super) fn address(exam: &Exam<'_>, id: &LinkId, ipv6: bool) -> Option<IpAddr> {
    let addrs = &exam.facts(id)?.addrs;
    let mut addrs = addrs.iter().map(ipnet::IpNet::addr).filter(|addr| addr.is_ipv6() == ipv6);
    addrs.find(|addr| !super::forwarding::is_link_local(*addr))
}

/// Of which network a chain drops what.
struct Swallowed<'a> {
    by: Dropped<'a>,
    /// Several where each container has a link of its own.
    routers: BTreeSet<&'a LinkId>,
    clients: BTreeSet<&'a LinkId>,
    /// What they send out is dropped, not only what comes to published ports.
    out: bool,
    /// What they send out passes, and what is answered is dropped.
    back: bool,
    ports: BTreeSet<String>,
}

/// A packet from each network out, its answer, and one in to each published port, must not meet a chain that
/// drops it for no reason but that it does not know it.
pub(super) fn dropped(exam: &Exam<'_>, found: &mut Found) {
    let mut all = All::new();
    for ((router, ipv6), ways) in exam.networks() {
        let Some(uplink) = exam.uplink(router, ipv6) else { continue };
        let Some(interior) = walls(exam, &router.netns, found) else { continue };
        for way in ways.iter().take(SAMPLES) {
            let from = address(exam, way.from, ipv6);
            let out = Packet::new(router, uplink, from, ipv6);
            let back = Packet { dst: from, ..Packet::reply(uplink, router, ipv6) };
            let walk = |packet| packet::dropped(exam, interior, Hook::Forward, packet);
            let Some((by, is_back)) =
                walk(&out).map(|by| (by, false)).or_else(|| Some((walk(&back)?, true)))
            else {
                continue;
            };
            let swallowed = note(exam, &mut all, (router, ipv6), by);
            swallowed.clients.insert(way.from);
            swallowed.out |= !is_back;
            swallowed.back |= is_back;
        }
        let mut at: BTreeMap<IpAddr, &LinkId> = BTreeMap::new();
        for way in &ways {
            let addrs = exam.facts(way.from).map(|it| it.addrs.as_slice()).unwrap_or_default();
            at.extend(addrs.iter().map(|net| (net.addr(), way.from)));
        }
        for led in interior.led.iter().take(LED_MAX) {
            let Some(to) = at.get(&led.to).filter(|_| led.to.is_ipv6() == ipv6) else { continue };
            let into = Packet {
                dst: Some(led.to),
                protocol: number(led.proto),
                port: Some(led.to_port.unwrap_or(led.host_ports.0)),
                led: true,
                ..Packet::new(uplink, router, None, ipv6)
            };
            if let Some(by) = packet::dropped(exam, interior, Hook::Forward, &into) {
                let swallowed = note(exam, &mut all, (router, ipv6), by);
                swallowed.clients.insert(to);
                swallowed.ports.insert(format!("{}/{}", led.host_ports.0, led.proto));
            }
        }
    }
    for swallowed in all.values() {
        tell_swallowed(exam, swallowed, found);
    }
}

/// By namespace, IP version, table and chain; and by bridge, where the network has one.
type All<'a> = BTreeMap<(&'a Netns, bool, &'a str, &'a str, Option<&'a LinkId>), Swallowed<'a>>;

fn note<'a, 'b>(
    exam: &Exam<'a>,
    all: &'b mut All<'a>,
    (router, ipv6): (&'a LinkId, bool),
    by: Dropped<'a>,
) -> &'b mut Swallowed<'a> {
    let bridge = exam.facts(router).is_some_and(|facts| facts.kind == "bridge").then_some(router);
    let key = (&router.netns, ipv6, by.table.name.as_str(), by.chain.name.as_str(), bridge);
    let empty = Swallowed {
        by,
        routers: BTreeSet::new(),
        clients: BTreeSet::new(),
        out: false,
        back: false,
        ports: BTreeSet::new(),
    };
    let swallowed = all.entry(key).or_insert(empty);
    swallowed.routers.insert(router);
    swallowed
}

fn number(proto: Proto) -> u8 {
    match proto {
        Proto::Tcp => 6,
        Proto::Udp => 17,
        Proto::Sctp => 132,
    }
}

fn tell_swallowed(exam: &Exam<'_>, it: &Swallowed<'_>, found: &mut Found) {
    let names: Vec<&str> = it.routers.iter().map(|id| id.name.as_str()).take(COMMANDS).collect();
    let more = it.routers.len() - names.len();
    let mut todo = Vec::new();
    for router in it.routers.iter().take(COMMANDS) {
        todo.extend(admit(exam, it, router));
    }
    let mut networks = names.join(", ");
    if more > 0 {
        todo.push(format!("# and the same for {more} more"));
        networks += &format!(" and {more} more");
    }
    let ports: Vec<&str> = it.ports.iter().map(String::as_str).take(PORTS_TOLD).collect();
    let mut list = ports.join(", ");
    if it.ports.len() > ports.len() {
        list += ", …";
    }
    let sent = match it.out {
        true => format!("what comes from {networks}"),
        false => format!("answers to what comes from {networks}"),
    };
    let what = match (it.out || it.back, ports.is_empty()) {
        (true, true) => sent,
        (true, false) => format!("{sent}, and what goes there to published ports ({list})"),
        (false, _) => format!("what goes to published ports of {networks} ({list})"),
    };
    let told = Told {
        what: format!("{} drops {what}", chain_words(&it.by)),
        why: format!(
            "{} No rule in it accepts these packets: {}. A drop in any chain is final, whatever \
             others accept.",
            match it.by.by_policy {
                true => "The chain's policy is to drop.",
                false => "The chain ends with a rule that drops everything.",
            },
            match it.out || !it.back {
                true => "whoever wrote it knows nothing of the network",
                false =>
                    "connections get out, and the rule for those that stand \
                          (established) is missing or does not concern the network",
            },
        ),
        todo,
    };
    let of = it.routers.iter().take(COMMANDS).map(|id| super::place(exam.sight, id)).collect();
    let links = it.routers.iter().chain(&it.clients).map(|id| (*id).clone());
    found.add(Severity::Problem, Subject { of, ..Subject::default() }.with(links), told);
}

/// A chain as people find it again.
fn chain_words(by: &Dropped<'_>) -> String {
    let engine = if by.table.engine == Engine::Legacy { "iptables-legacy " } else { "" };
    let shown = crate::map::shown;
    let (table, chain) = (shown(&by.table.name), shown(&by.chain.name));
    let how = if by.by_policy { " (policy drop)" } else { "" };
    format!("chain {chain} of {engine}table {} {table}{how}", by.table.family)
}

/// The commands that let a network through such a chain.
fn admit(exam: &Exam<'_>, it: &Swallowed<'_>, router: &LinkId) -> Vec<String> {
    let enter = within(exam.sight, &router.netns);
    let link = spelled(router.name.as_str());
    let (table, chain) = (it.by.table, it.by.chain);
    let mut todo = Vec::new();
    let Some(tool) = packet::tool(table) else {
        if !is_told_to_nft(router.name.as_str(), [&table.name, &chain.name]) {
            return vec![BY_HAND.to_owned()];
        }
        let (family, table, chain) = (table.family, word(&table.name), word(&chain.name));
        let rule = format!("{enter}nft insert rule {family} {table} {chain}");
        let link = quoted(router.name.as_str());
        if it.out {
            todo.push(format!("{rule} iifname {link} accept"));
        }
        if it.out || it.back {
            todo.push(format!("{rule} oifname {link} ct state established,related accept"));
        }
        if !it.ports.is_empty() {
            todo.push(format!("{rule} oifname {link} ct status dnat accept"));
        }
        return todo;
    };
    // Docker keeps this one for others, and never flushes it.
    let docker = table.chains.iter().any(|chain| chain.name == "DOCKER-USER");
    let chain = if docker { "DOCKER-USER".to_owned() } else { word(&chain.name) };
    let rule = format!("{enter}{tool} -I {chain}");
    if it.out {
        todo.push(format!("{rule} -i {link} -j ACCEPT"));
    }
    let states = match (it.out || it.back, it.ports.is_empty()) {
        (true, true) => "RELATED,ESTABLISHED",
        (true, false) => "RELATED,ESTABLISHED,DNAT",
        (false, _) => "DNAT",
    };
    todo.push(format!("{rule} -o {link} -m conntrack --ctstate {states} -j ACCEPT"));
    todo
}

/// With br_netfilter, frames between ports of a bridge pass the chains for forwarded packets.
pub(super) fn bridged(exam: &Exam<'_>, found: &mut Found) {
    let bridges = exam.ports.iter().filter(|(_, ports)| ports.len() > 1);
    for (bridge, _) in bridges {
        let netns = &bridge.netns;
        let Some(interior) = exam.interior(netns).filter(|it| !it.switches.is_empty()) else {
            found.not_checked(netns, super::forwarding::UNREAD);
            continue;
        };
        for (ipv6, switch) in
            [(false, "bridge/bridge-nf-call-iptables"), (true, "bridge/bridge-nf-call-ip6tables")]
        {
            // Without the module there is no such switch, and no such trouble.
            if exam.switch(netns, switch) != Some("1") || walls(exam, netns, found).is_none() {
                continue;
            }
            let addrs: Vec<IpAddr> = exam
                .stations(bridge)
                .iter()
                .copied()
                .filter(|id| id.netns != *netns)
                .filter_map(|id| address(exam, id, ipv6))
                .take(2)
                .collect();
            if addrs.len() < 2 && (ipv6 || exam.segment(bridge).is_none_or(|it| !it.open)) {
                continue;
            }
            let across = Packet {
                dst: addrs.get(1).copied(),
                ..Packet::new(bridge, bridge, addrs.first().copied(), ipv6)
            };
            if let Some(by) = packet::dropped(exam, interior, Hook::Forward, &across) {
                tell_bridged(exam, bridge, (switch, &by), found);
            }
        }
    }
}

fn tell_bridged(
    exam: &Exam<'_>,
    bridge: &LinkId,
    (switch, by): (&str, &Dropped<'_>),
    found: &mut Found,
) {
    let netns = &bridge.netns;
    let enter = within(exam.sight, netns);
    let link = spelled(bridge.name.as_str());
    let accept = match packet::tool(by.table) {
        Some(tool) => {
            let docker = by.table.chains.iter().any(|chain| chain.name == "DOCKER-USER");
            let chain = if docker { "DOCKER-USER".to_owned() } else { word(&by.chain.name) };
            format!("{enter}{tool} -I {chain} -i {link} -o {link} -j ACCEPT")
        }
        None if !is_told_to_nft(bridge.name.as_str(), [&by.table.name, &by.chain.name]) => {
            BY_HAND.to_owned()
        }
        None => format!(
            "{enter}nft insert rule {} {} {} iifname {name} oifname {name} accept",
            by.table.family,
            word(&by.table.name),
            word(&by.chain.name),
            name = quoted(bridge.name.as_str())
        ),
    };
    let told = Told {
        what: format!("{} drops frames between ports of {}", chain_words(by), bridge.name),
        why: format!(
            "net/{switch} is 1 (br_netfilter is loaded, as Docker and Kubernetes do): what stays \
             on a bridge goes through the IP firewall as if it were forwarded, and no rule there \
             accepts this bridge. Ports of it do not reach each other, though nothing routes."
        ),
        todo: vec![
            accept,
            format!("# or, if nobody needs it: {}", turn(exam.sight, netns, switch, "0")),
        ],
    };
    let ports = exam.stations(bridge).iter().copied().cloned();
    found.add(Severity::Problem, Subject::link(exam.sight, bridge).with(ports), told);
}

/// A firewall of the bridge itself that accepts nothing of any container to any other.
pub(super) fn frames(exam: &Exam<'_>, found: &mut Found) {
    for (bridge, ports) in &exam.ports {
        let far = |port: &&LinkId| exam.facts(port)?.leads_to.as_ref();
        let ends: Vec<(&LinkId, IpAddr)> = ports
            .iter()
            .filter_map(|port| Some((*port, address(exam, far(port)?, false)?)))
            .take(SAMPLES)
            .collect();
        if ends.len() < 2 {
            continue;
        }
        let Some(interior) = walls(exam, &bridge.netns, found) else { continue };
        let mut all = None;
        let mut pairs = ends.iter().flat_map(|a| ends.iter().map(move |b| (a, b)));
        // Where some pass it is meant that others do not.
        let none_passes = pairs.all(|((from, src), (to, dst))| {
            let frame = Packet { dst: Some(*dst), ..Packet::new(from, to, Some(*src), false) };
            let by = packet::dropped_frame(exam, interior, &frame);
            let is_dropped = from == to || by.is_some();
            if by.is_some() {
                all = by;
            }
            is_dropped
        });
        let Some(by) = all.filter(|_| none_passes) else { continue };
        let told = Told {
            what: format!("{} drops frames between ports of {}", chain_words(&by), bridge.name),
            why: "What a bridge passes on goes through tables of family bridge, and no rule in \
                  this chain accepts anything from one container to another: they reach the \
                  bridge's own address, and not each other."
                .to_owned(),
            todo: admit_frames(exam, ports, &by),
        };
        let clients = ports.iter().filter_map(far).cloned();
        found.add(Severity::Problem, Subject::link(exam.sight, bridge).with(clients), told);
    }
}

/// The commands that let frames of a bridge's ports through; not by the bridge's name, for which
/// many kernels lack a module (`nft_meta_bridge`).
fn admit_frames(exam: &Exam<'_>, ports: &[&LinkId], by: &Dropped<'_>) -> Vec<String> {
    let (table, chain) = (&by.table.name, &by.chain.name);
    let accept = |port: &&LinkId| match is_told_to_nft(port.name.as_str(), [table, chain]) {
        false => BY_HAND.to_owned(),
        true => format!(
            "{}nft insert rule bridge {} {} iifname {} accept",
            within(exam.sight, &port.netns),
            word(table),
            word(chain),
            quoted(port.name.as_str())
        ),
    };
    let mut todo: Vec<String> = ports.iter().take(COMMANDS).map(accept).collect();
    if ports.len() > COMMANDS {
        todo.push(format!("# and the same for {} more", ports.len() - COMMANDS));
    }
    todo
}

/// Private addresses must be translated somewhere before they are out of sight.
pub(super) fn masquerade(exam: &Exam<'_>, found: &mut Found) {
    for ((router, ipv6), ways) in exam.networks() {
        let Some(uplink) = exam.uplink(router, ipv6) else {
            continue;
        };
        let Some(interior) = walls(exam, &router.netns, found) else { continue };
        let naked = ways.iter().take(SAMPLES).find_map(|way| {
            let addr = address(exam, way.from, ipv6).filter(|addr| is_private(*addr))?;
            let out = Packet::new(router, uplink, Some(addr), ipv6);
            let bare = packet::translated(exam, interior, &out) == Some(false);
            (bare && !is_known_beyond(exam, uplink, addr)).then_some(addr)
        });
        let Some(addr) = naked else { continue };
        let others = packet::translates_any(interior, ipv6);
        // Where others are translated, not to do so may be meant: a routed network.
        let severity = if others { Severity::Note } else { Severity::Problem };
        let subnet = exam.facts(router).and_then(|facts| {
            facts.addrs.iter().find(|net| net.contains(&addr)).map(ipnet::IpNet::trunc)
        });
        let subnet = subnet.unwrap_or_else(|| addr.into());
        let links = ways.iter().map(|way| way.from.clone());
        let told = Told {
            what: format!("nothing translates the source {addr} on its way out by {}", uplink.name),
            why: "Nobody outside has a route to a private address: questions go out, and answers \
                  do not come back. The rule for masquerading is missing, as after a flush of \
                  the nat table, or the network is routed on purpose and a router outside knows \
                  the way back."
                .to_owned(),
            todo: vec![
                "# restart or repair what made the network, which writes its rules anew; or"
                    .to_owned(),
                format!(
                    "{}{} -t nat -A POSTROUTING -s {subnet} ! -o {} -j MASQUERADE",
                    within(exam.sight, &router.netns),
                    if ipv6 { "ip6tables" } else { "iptables" },
                    spelled(router.name.as_str())
                ),
            ],
        };
        found.add(severity, Subject::link(exam.sight, router).with(links), told);
    }
}

/// Addresses for private use (RFC 1918, RFC 6598, RFC 4193).
fn is_private(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => {
            let [a, b, ..] = addr.octets();
            addr.is_private() || (a == 100 && b & 0xc0 == 64)
        }
        IpAddr::V6(addr) => addr.octets()[0] & 0xfe == 0xfc,
    }
}

/// Whether somebody who hears the uplink and is seen has a route back to an address, or would
/// translate it himself.
fn is_known_beyond(exam: &Exam<'_>, uplink: &LinkId, addr: IpAddr) -> bool {
    let beyond = exam.stations(uplink).iter().copied().filter(|id| id.netns != uplink.netns);
    let beyond: BTreeSet<&Netns> = beyond.map(|id| &id.netns).collect();
    let mut routes = exam.sight.topology.routes.iter();
    routes.any(|it| {
        beyond.contains(&it.link.netns) && it.dst.prefix_len() > 0 && it.dst.contains(&addr)
    })
}

/// Rules by iptables-legacy and rules in nftables both hold, and each tool shows one.
pub(super) fn legacy(exam: &Exam<'_>, found: &mut Found) {
    for (netns, interior) in exam.interiors() {
        let has_rules = |table: &&Table| {
            let drops =
                |it: &crate::firewall::Chain| it.base.as_ref().is_some_and(|base| base.drops);
            table.chains.iter().any(|chain| !chain.rules.is_empty() || drops(chain))
        };
        let tables = || interior.firewall.iter().filter(has_rules);
        let old: Vec<&Table> = tables().filter(|it| it.engine == Engine::Legacy).collect();
        let new: Vec<&Table> = tables().filter(|it| it.engine == Engine::Nft).collect();
        if old.is_empty() || new.is_empty() {
            if old.is_empty() && interior.unseen.iter().any(|line| line.contains("legacy")) {
                found.not_checked(netns, "tables of iptables-legacy could not be read");
            }
            continue;
        }
        // Where iptables means nftables its lists do not show what holds as well.
        let both = new.iter().any(|table| packet::is_of_iptables(table));
        let names = |tables: &[&Table]| {
            let names = tables.iter().map(|it| format!("{} {}", it.family, it.name));
            crate::map::shown(&names.collect::<Vec<_>>().join(", "))
        };
        let enter = within(exam.sight, netns);
        let told = Told {
            what: format!(
                "iptables-legacy has rules ({}), and nftables too ({})",
                names(&old),
                names(&new)
            ),
            why: "Both stand at the same hooks and both decide: a packet must pass either. What \
                  one tool shows, or flushes, is half of it; a rule that seems to be missing, or \
                  a drop that nobody finds, is in the other."
                .to_owned(),
            todo: vec![
                format!("{enter}iptables-legacy-save   # what is there"),
                format!("{enter}nft list ruleset"),
                "# have all programs use one: update-alternatives --config iptables, then start \
                 them again and flush the other"
                    .to_owned(),
            ],
        };
        let severity = if both { Severity::Warning } else { Severity::Note };
        found.add(severity, Subject::space(exam.sight, netns), told);
    }
}

/// The ports that a namespace's firewall leads on, if it was read.
pub(super) fn led<'a>(exam: &Exam<'a>, netns: &Netns, found: &mut Found) -> Option<&'a [LedPort]> {
    walls(exam, netns, found).map(|interior| interior.led.as_slice())
}
