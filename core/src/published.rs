//! Published ports from all sides: what runtimes have on record, where the firewall's rules lead,
//! and who listens at the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    firewall::LedPort,
    model::Netns,
    name::Proto,
    sight::{Listener, Sight, Workload},
};

/// A port of a host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published<'a> {
    /// Whose port it is: the host, or a container with an engine in it.
    pub host: &'a Netns,
    /// Where it leads; `None`: to an address that nobody there is seen to have.
    pub netns: Option<&'a Netns>,
    /// The container that has it on record, or the first that lives there.
    pub workload: Option<&'a Workload>,
    pub proto: Proto,
    /// On which address of the host; `None`: on all of them.
    pub at: Option<IpAddr>,
    /// First and last.
    pub ports: (u16, u16),
    /// Of the container, if a rule says so.
    pub to: Option<IpAddr>,
    pub to_port: u16,
    /// The runtime has it on record.
    pub recorded: bool,
    /// Where the firewall leads it: its rules or maps.
    pub rules: Vec<&'a str>,
    /// The process on the host that takes connections for it, as docker-proxy does.
    pub relay: Option<&'a Listener>,
    pub listens: Listens<'a>,
}

/// Whether somebody waits at the container's end of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens<'a> {
    /// Sockets were not looked at, or not in there.
    Unknown,
    Nobody,
    /// Only where no packet from outside gets: on its own loopback.
    Loopback(&'a Listener),
    Yes(&'a Listener),
}

impl Published<'_> {
    /// Whether rules were read where they would be, and none leads there, nor does a process.
    pub fn is_lost(&self, sight: &Sight) -> bool {
        let read =
            sight.interiors.get(self.host).is_some_and(|interior| interior.unseen.is_empty());
        read && self.rules.is_empty() && self.relay.is_none()
    }
}

/// Returns every published port that is known, those of the host first.
pub fn published(sight: &Sight) -> Vec<Published<'_>> {
    let look = Look::of(sight);
    let mut found: Vec<Published<'_>> = Vec::new();
    for (netns, space) in &sight.spaces {
        for workload in &space.workloads {
            found.extend(workload.published.iter().map(|port| Published {
                host: look.host_of(netns),
                netns: Some(netns),
                workload: Some(workload),
                proto: port.proto,
                at: port.host.filter(|addr| !addr.is_unspecified()),
                ports: (port.host_port, port.host_port),
                to: None,
                to_port: port.container_port,
                recorded: true,
                rules: Vec::new(),
                relay: None,
                listens: Listens::Unknown,
            }));
        }
    }
    merge_twins(&mut found);
    for (host, interior) in &sight.interiors {
        // To itself, as an engine leads its containers' questions for names.
        for led in interior.led.iter().filter(|led| !led.to.is_loopback()) {
            look.lead(&mut found, host, led);
        }
    }
    for one in &mut found {
        one.relay = look.relay(one);
        one.listens = look.listens(one);
        one.rules.sort_unstable();
        one.rules.dedup();
    }
    found.sort_by_key(|one| (one.host, one.ports, one.proto, one.at, one.to));
    found
}

/// A runtime that has a port on record for both IP versions means one port.
fn merge_twins(found: &mut Vec<Published<'_>>) {
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert((one.netns, one.proto, one.at, one.ports, one.to_port)));
}

/// What is looked up again and again.
struct Look<'a> {
    sight: &'a Sight,
    /// Who has an address, by the namespace that the far end of its cable is in.
    owners: BTreeMap<(&'a Netns, IpAddr), &'a Netns>,
    hosts: BTreeMap<&'a Netns, &'a Netns>,
    listeners: BTreeMap<(&'a Netns, Proto, u16), Vec<&'a Listener>>,
    /// Namespaces in which somebody was seen to listen, or somebody could have been.
    heard: bool,
}

impl<'a> Look<'a> {
    fn of(sight: &'a Sight) -> Self {
        let mut owners = BTreeMap::new();
        let mut hosts = BTreeMap::new();
        for (id, facts) in &sight.links {
            let Some(far) = facts.leads_to.as_ref().filter(|far| far.netns != id.netns) else {
                continue;
            };
            let Some((far, _)) = sight.spaces.get_key_value(&far.netns) else { continue };
            owners.extend(facts.addrs.iter().map(|net| ((far, net.addr()), &id.netns)));
            if id.netns != Netns::Host {
                // The host itself, where there are several.
                let host = hosts.entry(&id.netns).or_insert(far);
                *host = far.min(*host);
            }
        }
        let mut listeners: BTreeMap<_, Vec<&Listener>> = BTreeMap::new();
        for one in &sight.listeners {
            listeners.entry((&one.netns, one.proto, one.at.port())).or_default().push(one);
        }
        Self { sight, owners, hosts, listeners, heard: !sight.listeners.is_empty() }
    }

    fn host_of(&self, netns: &Netns) -> &'a Netns {
        self.hosts.get(netns).copied().unwrap_or(&Netns::Host)
    }

    /// Adds a rule to the port that it serves; to a new one where nobody has it on record.
    fn lead(&self, found: &mut Vec<Published<'a>>, host: &'a Netns, led: &'a LedPort) {
        let netns = self.owners.get(&(host, led.to)).copied();
        let at = led.host.filter(|addr| !addr.is_unspecified());
        let (first, last) = led.host_ports;
        let serves = |one: &Published<'_>| {
            // A rule for all addresses serves each of its IP version, and rules for some of them
            // what is on record for all.
            let fits = match (one.at, at) {
                (Some(asked), None) => asked.is_ipv4() == led.to.is_ipv4(),
                (None, _) => one.recorded || at.is_none(),
                (asked, led) => asked == led,
            };
            let port = led.to_port.unwrap_or(one.ports.0);
            let same = one.host == host && one.netns == netns && one.proto == led.proto;
            same && fits && (first..=last).contains(&one.ports.0) && one.to_port == port
        };
        let mut served = false;
        for one in found.iter_mut().filter(|one| serves(one)) {
            one.rules.push(&led.by);
            one.to = one.to.or(Some(led.to));
            served = true;
        }
        if !served {
            let workload = netns.and_then(|netns| self.sight.spaces.get(netns)?.workloads.first());
            found.push(Published {
                host,
                netns,
                workload,
                proto: led.proto,
                at,
                ports: led.host_ports,
                to: Some(led.to),
                to_port: led.to_port.unwrap_or(first),
                recorded: false,
                rules: vec![&led.by],
                relay: None,
                listens: Listens::Unknown,
            });
        }
    }

    fn relay(&self, one: &Published<'_>) -> Option<&'a Listener> {
        if one.netns == Some(one.host) {
            return None;
        }
        let at = self.listeners.get(&(one.host, one.proto, one.ports.0))?;
        at.iter().copied().find(|listener| {
            let ip = listener.at.ip();
            ip.is_unspecified() || one.at.is_none_or(|at| at == ip)
        })
    }

    fn listens(&self, one: &Published<'_>) -> Listens<'a> {
        let Some(netns) = one.netns else { return Listens::Unknown };
        let Some(at) = self.listeners.get(&(netns, one.proto, one.to_port)) else {
            return if self.heard { Listens::Nobody } else { Listens::Unknown };
        };
        let reached = |listener: &&&Listener| {
            let ip = listener.at.ip();
            let own = one.to.is_none_or(|to| to == ip);
            !ip.is_loopback() && (ip.is_unspecified() || own)
        };
        match (at.iter().find(reached), at.first()) {
            (Some(listener), _) => Listens::Yes(listener),
            (None, Some(listener)) if listener.at.ip().is_loopback() => Listens::Loopback(listener),
            _ => Listens::Nobody,
        }
    }
}
