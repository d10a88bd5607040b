//! What a firewall does to a packet, as far as its rules are understood.

use std::net::IpAddr;

use super::exam::Exam;
use crate::{
    firewall::{Action, Chain, Engine, Family, Hook, MapDoes, Match, Table, What},
    interior::Interior,
    model::LinkId,
    ruleset::GROUP_BASE,
};

/// How deep chains may call each other; the kernel's own limit is 16.
const DEPTH_MAX: usize = 20;
/// How many rules are looked at for one packet: a ruleset of somebody's bounds nothing.
const RULES_MAX: usize = 200_000;
const TCP: u8 = 6;

/// The first packet of a connection that is forwarded, or of its answer.
pub(super) struct Packet<'a> {
    pub(super) from: &'a LinkId,
    pub(super) to: &'a LinkId,
    /// `None`: of somebody outside.
    pub(super) src: Option<IpAddr>,
    pub(super) dst: Option<IpAddr>,
    pub(super) ipv6: bool,
    pub(super) protocol: u8,
    pub(super) port: Option<u16>,
    /// It was led here by a published port.
    pub(super) led: bool,
    /// It answers: the connection is known by now.
    pub(super) answers: bool,
}

impl<'a> Packet<'a> {
    /// A connection from an address to anywhere.
    pub(super) fn new(from: &'a LinkId, to: &'a LinkId, src: Option<IpAddr>, ipv6: bool) -> Self {
        Self {
            from,
            to,
            src,
            dst: None,
            ipv6,
            protocol: TCP,
            port: None,
            led: false,
            answers: false,
        }
    }

    /// What somebody outside answers.
    pub(super) fn reply(from: &'a LinkId, to: &'a LinkId, ipv6: bool) -> Self {
        Self { answers: true, ..Self::new(from, to, None, ipv6) }
    }
}

/// Where a packet ended.
pub(super) struct Dropped<'a> {
    pub(super) table: &'a Table,
    pub(super) chain: &'a Chain,
    /// By the chain's policy; else by a rule without any condition.
    pub(super) by_policy: bool,
}

/// Whether something holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Maybe,
}

impl From<bool> for Holds {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// How a walk through a chain ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Accepted,
    /// By a rule that has no condition but those of the chain, or that everything falls to.
    Dropped {
        bare: bool,
    },
    /// At the chain's end, or by `return`.
    Left,
    /// By something that is not understood.
    Unknown,
}

/// Returns the first chain at the hook that drops the packet for certain, by its policy or a rule
/// that concerns everybody: what a rule drops by name is meant.
pub(super) fn dropped<'a>(
    exam: &Exam<'_>,
    interior: &'a Interior,
    hook: Hook,
    packet: &Packet<'_>,
) -> Option<Dropped<'a>> {
    first_drop(exam, base_chains(interior, hook, "filter", packet.ipv6), packet)
}

/// The same of frames that a bridge passes on, in the chains for those.
pub(super) fn dropped_frame<'a>(
    exam: &Exam<'_>,
    interior: &'a Interior,
    packet: &Packet<'_>,
) -> Option<Dropped<'a>> {
    let tables = interior.firewall.iter();
    let tables = tables.filter(|table| !table.dormant && table.family == Family::Bridge);
    let chains = tables.flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    let at = |chain: &Chain| {
        let base = chain.base.as_ref();
        base.is_some_and(|base| base.hook == Hook::Forward && base.kind == "filter")
    };
    first_drop(exam, chains.filter(|(_, chain)| at(chain)).collect(), packet)
}

fn first_drop<'a>(
    exam: &Exam<'_>,
    chains: Vec<(&'a Table, &'a Chain)>,
    packet: &Packet<'_>,
) -> Option<Dropped<'a>> {
    for (table, chain) in chains {
        let mut walk = Walk { exam, table, packet, maybe: false, left: RULES_MAX };
        let by_policy = match walk.chain(chain, 0) {
            End::Left if chain.base.as_ref().is_some_and(|base| base.drops) => true,
            End::Dropped { bare: true } => false,
            _ => continue,
        };
        if !walk.maybe {
            return Some(Dropped { table, chain, by_policy });
        }
    }
    None
}

/// Whether a packet's source is translated: for certain, not at all, or perhaps (`None`).
pub(super) fn translated(
    exam: &Exam<'_>,
    interior: &Interior,
    packet: &Packet<'_>,
) -> Option<bool> {
    let mut perhaps = false;
    for (table, chain) in base_chains(interior, Hook::Postrouting, "nat", packet.ipv6) {
        let mut walk = Walk { exam, table, packet, maybe: false, left: RULES_MAX };
        match walk.source(chain, 0) {
            Holds::Yes => return Some(true),
            Holds::Maybe => perhaps = true,
            Holds::No => {}
        }
    }
    if perhaps { None } else { Some(false) }
}

/// Whether some rule translates somebody's source.
pub(super) fn translates_any(interior: &Interior, ipv6: bool) -> bool {
    let tables = interior.firewall.iter().filter(|table| concerns(table.family, ipv6));
    let mut rules = tables.flat_map(|table| &table.chains).flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        matches!(
            rule.action,
            Action::Masquerade | Action::Snat { .. } | Action::ByMap { does: MapDoes::Snat, .. }
        )
    })
}

/// The chains at a hook that a packet of that family meets.
pub(super) fn base_chains<'a>(
    interior: &'a Interior,
    hook: Hook,
    kind: &str,
    ipv6: bool,
) -> Vec<(&'a Table, &'a Chain)> {
    let tables = interior.firewall.iter();
    let tables = tables.filter(|table| !table.dormant && concerns(table.family, ipv6));
    let chains = tables.flat_map(|table| table.chains.iter().map(move |chain| (table, chain)));
    let at = |chain: &Chain| {
        chain.base.as_ref().is_some_and(|base| base.hook == hook && base.kind == kind)
    };
    chains.filter(|(_, chain)| at(chain)).collect()
}

fn concerns(family: Family, ipv6: bool) -> bool {
    match family {
        Family::Inet => true,
        Family::Ip => !ipv6,
        Family::Ip6 => ipv6,
        Family::Arp | Family::Bridge | Family::Netdev => false,
    }
}

/// The command by which a table is changed.
pub(super) fn tool(table: &Table) -> Option<&'static str> {
    let is_iptables = is_of_iptables(table);
    match (table.engine, table.family) {
        (Engine::Legacy, Family::Ip6) => Some("ip6tables-legacy"),
        (Engine::Legacy, _) => Some("iptables-legacy"),
        (Engine::Nft, Family::Ip) if is_iptables => Some("iptables"),
        (Engine::Nft, Family::Ip6) if is_iptables => Some("ip6tables"),
        (Engine::Nft, _) => None,
    }
}

/// Whether a table looks like one that `iptables-nft` keeps.
pub(super) fn is_of_iptables(table: &Table) -> bool {
    const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];
    const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];
    table.engine == Engine::Nft
        && matches!(table.family, Family::Ip | Family::Ip6)
        && TABLES.contains(&table.name.as_str())
        && table.chains.iter().any(|chain| CHAINS.contains(&chain.name.as_str()))
}

struct Walk<'a, 'b> {
    exam: &'b Exam<'b>,
    table: &'a Table,
    packet: &'b Packet<'b>,
    /// A rule that may hold would have accepted the packet, or done what nobody knows.
    maybe: bool,
    left: usize,
}

impl<'a> Walk<'a, '_> {
    fn chain(&mut self, chain: &'a Chain, depth: usize) -> End {
        for rule in &chain.rules {
            if self.left == 0 || depth > DEPTH_MAX {
                return End::Unknown;
            }
            self.left -= 1;
            let holds = self.all(&rule.matches);
            if holds == Holds::No {
                continue;
            }
            let end = match &rule.action {
                Action::Continue => continue,
                Action::Accept => End::Accepted,
                Action::Drop | Action::Reject => End::Dropped { bare: rule.matches.is_empty() },
                Action::Return => End::Left,
                Action::Jump(to) | Action::Goto(to) => match self.called(to, depth) {
                    End::Left if matches!(rule.action, Action::Jump(_)) => continue,
                    // Said of those whom a rule picked out, it does not concern everybody.
                    End::Dropped { bare } => End::Dropped { bare: bare && rule.matches.is_empty() },
                    end => end,
                },
                _ => End::Unknown,
            };
            match (holds, end) {
                (Holds::Yes, End::Unknown) => return End::Unknown,
                (Holds::Yes, end) => return end,
                // What it would drop may go on; what it would accept, or leave to the policy of
                // another chain, may be safe.
                (_, End::Dropped { .. }) => {}
                (_, _) => self.maybe = true,
            }
        }
        End::Left
    }

    fn called(&mut self, name: &str, depth: usize) -> End {
        match self.table.chains.iter().find(|chain| chain.name == name) {
            Some(chain) => self.chain(chain, depth + 1),
            None => End::Unknown,
        }
    }

    /// Whether a chain for address translation changes the source.
    fn source(&mut self, chain: &'a Chain, depth: usize) -> Holds {
        let mut perhaps = false;
        for rule in &chain.rules {
            if self.left == 0 || depth > DEPTH_MAX {
                return Holds::Maybe;
            }
            self.left -= 1;
            let holds = self.all(&rule.matches);
            if holds == Holds::No {
                continue;
            }
            let does = match &rule.action {
                Action::Continue => continue,
                Action::Masquerade | Action::Snat { .. } => Holds::Yes,
                Action::Accept | Action::Drop | Action::Reject | Action::Return => Holds::No,
                Action::Jump(to) | Action::Goto(to) => {
                    let found = self.table.chains.iter().find(|chain| chain.name == *to);
                    match found.map_or(Holds::Maybe, |chain| self.source(chain, depth + 1)) {
                        Holds::No if matches!(rule.action, Action::Jump(_)) => continue,
                        does => does,
                    }
                }
                _ => Holds::Maybe,
            };
            match (holds, does) {
                (Holds::Yes, Holds::Yes) if !perhaps => return Holds::Yes,
                (Holds::Yes, Holds::No) if !perhaps => return Holds::No,
                // Where it may end here without, what comes later is no longer certain.
                (_, _) => perhaps |= does != Holds::No || holds == Holds::Maybe,
            }
        }
        if perhaps { Holds::Maybe } else { Holds::No }
    }

    fn all(&self, matches: &[Match]) -> Holds {
        let mut all = Holds::Yes;
        for one in matches {
            let holds = match (self.holds(&one.what), one.not) {
                (Holds::Yes, true) => Holds::No,
                (Holds::No, true) => Holds::Yes,
                (holds, _) => holds,
            };
            match holds {
                Holds::No => return Holds::No,
                Holds::Maybe => all = Holds::Maybe,
                Holds::Yes => {}
            }
        }
        all
    }

    fn holds(&self, what: &What) -> Holds {
        let packet = self.packet;
        let group = |id: &LinkId, group: u32| match self.exam.link(id).and_then(|it| it.group) {
            Some(own) => (own.0 == group).into(),
            None => Holds::Maybe,
        };
        let within = |addr: Option<IpAddr>, net: &ipnet::IpNet| match addr {
            Some(addr) => net.contains(&addr).into(),
            None if net.prefix_len() == 0 => (net.addr().is_ipv6() == packet.ipv6).into(),
            None if self.is_here(net) => Holds::No,
            None => Holds::Maybe,
        };
        match what {
            What::InInterface(name) => is_named(packet.from, name).into(),
            What::OutInterface(name) => is_named(packet.to, name).into(),
            What::InGroup(number) => group(packet.from, *number),
            What::OutGroup(number) => group(packet.to, *number),
            What::Source(net) => within(packet.src, net),
            What::Destination(net) => within(packet.dst, net),
            What::IpVersion(version) => ((*version == 6) == packet.ipv6).into(),
            What::Protocol(protocol) => (*protocol == packet.protocol).into(),
            What::SourcePort(first, last) => whole(*first, *last),
            What::DestinationPort(first, last) => match packet.port {
                Some(port) => (*first..=*last).contains(&port).into(),
                None => whole(*first, *last),
            },
            What::ToLocal => Holds::No,
            What::CtState(states) => {
                let own = if packet.answers { "established" } else { "new" };
                states.iter().any(|state| state == own).into()
            }
            What::CtStatus(status) => match status.as_slice() {
                [one] if one == "dnat" => packet.led.into(),
                [one] if one == "snat" && !packet.answers => Holds::No,
                _ => Holds::Maybe,
            },
            What::AnyOf(some) => {
                let all: Vec<Holds> = some.iter().map(|one| self.holds(one)).collect();
                match () {
                    () if all.contains(&Holds::Yes) => Holds::Yes,
                    () if all.contains(&Holds::Maybe) => Holds::Maybe,
                    () => Holds::No,
                }
            }
            What::InSet { key, .. } if self.is_strange(key) => Holds::No,
            What::Mark { .. } | What::InSet { .. } | What::Other(_) => Holds::Maybe,
        }
    }
}

impl Walk<'_, '_> {
    /// Whether a set of ours is asked for a link that is not: in them there are groups of ours only.
    fn is_strange(&self, key: &str) -> bool {
        let others = |id: &LinkId| {
            self.exam.link(id).and_then(|link| link.group).is_some_and(|it| it.0 < GROUP_BASE)
        };
        let mut parts = key.split(" . ");
        self.table.family == Family::Inet
            && self.table.name == "twinax"
            && parts.any(|part| match part {
                "iifgroup" => others(self.packet.from),
                "oifgroup" => others(self.packet.to),
                _ => false,
            })
    }

    /// Whether addresses are of a network that is reached by another link than the uplink: who
    /// comes from outside, or goes there, has none of them.
    fn is_here(&self, net: &ipnet::IpNet) -> bool {
        let (from, to) = (self.packet.from, self.packet.to);
        let uplink = if self.packet.src.is_none() { from } else { to };
        let mut links = self.exam.sight.links.iter();
        links.any(|(id, facts)| {
            id.netns == from.netns
                && id != uplink
                && from != to
                && facts.addrs.iter().any(|own| own.contains(net))
        })
    }
}

fn whole(first: u16, last: u16) -> Holds {
    if first <= 1 && last == u16::MAX { Holds::Yes } else { Holds::Maybe }
}

/// Whether an interface is called so; a trailing `*` stands for any rest.
fn is_named(id: &LinkId, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => id.name.as_str().starts_with(prefix),
        None => id.name.as_str() == pattern,
    }
}
