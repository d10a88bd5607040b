//! Reads back what the operations of [`super::apply`] write, by point queries.
//!
//! Never lists the host's links: the kernel's cost for that grows with the square of their
//! number. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::{AsRawFd, RawFd},
};

use rustix::io::Errno;
use twinax_core::{
    model::{
        Addr, FdbEntry, Link, LinkId, LinkKind, Neighbour, Netns, Port, Route, Scope, Topology,
    },
    name::{ContainerName, IfName},
    ruleset::Group,
};

use super::{
    addr::{self, INET, INET6},
    apply::{LinkError, Links},
    link::{self, LinkFacts},
    neighbour,
    netlink::{Message, attribute, number},
    route,
    socket::Batch,
};

// linux/net_namespace.h
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// What is there of what was asked about.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Links, addresses, routes, neighbours and forwarding entries; nothing else is filled in.
    pub topology: Topology,
    /// Names asked about that something else than a bridge or one end of a cable from the host
    /// holds. Such a link is not in the topology, and making one of that name fails.
    pub taken: BTreeSet<LinkId>,
    /// What others have put on our links, one line each, for people.
    pub foreign: Vec<String>,
}

impl Links {
    /// Observes the links of `scope` with their addresses and routes, and its neighbours and
    /// forwarding entries. An address counts as ours if it carries our mark or is in `ours`
    /// (kernels before 5.18 keep no marks).
    pub fn observe(&mut self, scope: &Scope, ours: &BTreeSet<Addr>) -> Result<Observed, LinkError> {
        let mut seen = Observed::default();
        let facts = self.find(&scope.links, &mut seen)?;
        self.tell_kinds(&facts, &mut seen)?;
        let index: BTreeMap<LinkId, u32> = seen
            .topology
            .links
            .keys()
            .filter_map(|id| facts.get(id).map(|facts| (id.clone(), facts.index)))
            .collect();
        for (id, index) in &index {
            self.remember(id.clone(), *index);
            if scope.leaned.contains(id) {
                continue;
            }
            self.observe_addrs(id, *index, ours, &mut seen)?;
            self.observe_routes(id, *index, &mut seen)?;
        }
        self.observe_neighbours(&scope.neighbours, &index, &mut seen)?;
        self.observe_fdb(&scope.fdb, &index, &mut seen)?;
        Ok(seen)
    }

    /// Asks for all links by name, those of one namespace in one go.
    fn find(
        &mut self,
        links: &BTreeSet<LinkId>,
        seen: &mut Observed,
    ) -> Result<BTreeMap<LinkId, LinkFacts>, LinkError> {
        let mut by_netns: BTreeMap<&Netns, Vec<&LinkId>> = BTreeMap::new();
        for id in links {
            self.forget(id);
            by_netns.entry(&id.netns).or_default().push(id);
        }
        let mut found = BTreeMap::new();
        for (netns, ids) in by_netns {
            let Some(socket) = self.socket(netns) else {
                continue;
            };
            let ask = |batch: &mut Batch| {
                ids.iter().for_each(|id| link::ask_by_name(batch, id.name.as_str()));
            };
            let answers = socket.ask(ask, link::read)?;
            for (id, answer) in ids.into_iter().zip(answers) {
                let Some(facts) = present(answer)? else {
                    continue;
                };
                let one_of_ours = match netns {
                    Netns::Host => matches!(facts.kind.as_str(), "bridge" | "veth"),
                    Netns::Container(_) => facts.kind == "veth",
                };
                // The kernel also finds links by their alternative names.
                if one_of_ours && facts.name == id.name.as_str() && facts.mac.is_some() {
                    found.insert(id.clone(), facts);
                } else {
                    seen.taken.insert(id.clone());
                }
            }
        }
        Ok(found)
    }

    fn tell_kinds(
        &mut self,
        facts: &BTreeMap<LinkId, LinkFacts>,
        seen: &mut Observed,
    ) -> Result<(), LinkError> {
        let by_place: BTreeMap<(&Netns, u32), &LinkId> =
            facts.iter().map(|(id, facts)| ((&id.netns, facts.index), id)).collect();
        let mut host_end_of: BTreeMap<LinkId, LinkId> = BTreeMap::new();
        // `Netns::Host` is the least: host ends come before what may be their far ends.
        for (id, found) in facts {
            let kind = match (&id.netns, found.kind.as_str()) {
                (Netns::Host, "bridge") => Some(LinkKind::Bridge),
                (Netns::Host, _) => {
                    let peer = self.far_end(found, &by_place)?;
                    host_end_of.insert(peer.clone(), id.clone());
                    let port = self.port(found, &by_place)?;
                    if port.is_some() && !found.port.as_set {
                        seen.foreign.push(format!("changed bridge port options of {id}"));
                    }
                    Some(LinkKind::VethHost { peer, port })
                }
                (Netns::Container(name), _) => match host_end_of.get(id) {
                    Some(peer) => Some(LinkKind::VethContainer { peer: peer.clone() }),
                    None => self
                        .host_end(found, name)?
                        .map(|name| LinkKind::VethContainer { peer: LinkId::host(name) }),
                },
            };
            match (kind, found.mac) {
                (Some(kind), Some(mac)) => {
                    let host = id.netns == Netns::Host;
                    let alias = if host { found.alias.clone() } else { String::new() };
                    let group = host.then_some(Group(found.group));
                    let (up, mtu) = (found.up, found.mtu);
                    let link = Link { kind, up, mac, mtu, group, alias };
                    seen.topology.links.insert(id.clone(), link);
                }
                _ => {
                    seen.taken.insert(id.clone());
                }
            }
        }
        Ok(())
    }

    /// Returns what a host end leads to. The kernel's word for it (`IFLA_LINK`,
    /// `IFLA_LINK_NETNSID`) is an index and the number of a namespace: no mark to be forged.
    fn far_end(
        &mut self,
        facts: &LinkFacts,
        by_place: &BTreeMap<(&Netns, u32), &LinkId>,
    ) -> Result<LinkId, LinkError> {
        let index = facts.peer.unwrap_or(0);
        let Some(nsid) = facts.peer_netns else {
            let name = self.name_at(&Netns::Host, index)?;
            return Ok(name.map_or_else(unknown_link, LinkId::host));
        };
        let Some(container) = self.room_of(nsid)? else {
            return Ok(unknown_link());
        };
        let netns = Netns::Container(container);
        if let Some(id) = by_place.get(&(&netns, index)) {
            return Ok((*id).clone());
        }
        // Somebody has renamed it.
        match self.name_at(&netns, index)? {
            Some(name) => Ok(LinkId { netns, name }),
            None => Ok(unknown_link()),
        }
    }

    /// Returns the host's end of what looks like a cable, if that end confirms it.
    fn host_end(
        &mut self,
        facts: &LinkFacts,
        container: &ContainerName,
    ) -> Result<Option<IfName>, LinkError> {
        let Some(peer) = facts.peer else {
            return Ok(None);
        };
        let Some(found) = link::by_index(self.host(), peer)? else {
            return Ok(None);
        };
        let (true, Some(nsid)) = (found.peer == Some(facts.index), found.peer_netns) else {
            return Ok(None);
        };
        match self.room_of(nsid)? {
            Some(room) if room == *container => Ok(found.name.parse().ok()),
            _ => Ok(None),
        }
    }

    fn port(
        &mut self,
        facts: &LinkFacts,
        by_place: &BTreeMap<(&Netns, u32), &LinkId>,
    ) -> Result<Option<Port>, LinkError> {
        let Some(master) = facts.master else {
            return Ok(None);
        };
        let bridge = match by_place.get(&(&Netns::Host, master)) {
            Some(id) => Some(id.name.clone()),
            None => self.name_at(&Netns::Host, master)?,
        };
        let hairpin = facts.port.hairpin;
        Ok(bridge.map(|bridge| Port { bridge, hairpin }))
    }

    fn name_at(&mut self, netns: &Netns, index: u32) -> Result<Option<IfName>, LinkError> {
        let Some(socket) = self.socket(netns) else {
            return Ok(None);
        };
        let found = link::by_index(socket, index)?;
        Ok(found.and_then(|facts| facts.name.parse().ok()))
    }

    /// Returns the container whose namespace the host's namespace numbers so.
    fn room_of(&mut self, nsid: i32) -> Result<Option<ContainerName>, LinkError> {
        let mut asked = Vec::new();
        for (name, room) in self.rooms() {
            match (room.nsid, room.netns.fd()) {
                (Some(id), _) if id == nsid => return Ok(Some(name.clone())),
                (None, Some(fd)) => asked.push((name.clone(), fd.as_raw_fd())),
                _ => {}
            }
        }
        let mut found = None;
        let answers = self.host().ask(
            |batch| asked.iter().for_each(|(_, fd)| ask_nsid(batch, *fd)),
            |message| Some(read_nsid(message)),
        )?;
        for ((name, _), answer) in asked.into_iter().zip(answers) {
            let id = answer.ok().flatten();
            if id == Some(nsid) {
                found = Some(name.clone());
            }
            if let Some(room) = self.rooms().get_mut(&name) {
                room.nsid = id;
            }
        }
        Ok(found)
    }

    fn observe_addrs(
        &mut self,
        id: &LinkId,
        index: u32,
        ours: &BTreeSet<Addr>,
        seen: &mut Observed,
    ) -> Result<(), LinkError> {
        let Some(socket) = self.socket(&id.netns) else {
            return Ok(());
        };
        for facts in socket.dump(|batch| addr::list(batch, Some(index)), addr::facts)? {
            let addr = Addr { link: id.clone(), net: facts.net };
            if facts.index != index {
                continue; // A kernel that does not filter.
            }
            if facts.ours || ours.contains(&addr) {
                seen.topology.addrs.insert(addr);
            } else if !addr::is_link_local(facts.net.addr()) {
                seen.foreign.push(format!("address {} on {id}", facts.net));
            }
        }
        Ok(())
    }

    fn observe_routes(
        &mut self,
        id: &LinkId,
        index: u32,
        seen: &mut Observed,
    ) -> Result<(), LinkError> {
        let Some(socket) = self.socket(&id.netns) else {
            return Ok(());
        };
        for family in [INET, INET6] {
            let list = |batch: &mut Batch| route::list_ours(batch, family, index);
            for facts in socket.dump(list, route::facts)? {
                if facts.ours && facts.index == Some(index) {
                    let (dst, via, src) = (facts.dst, facts.via, facts.src);
                    seen.topology.routes.insert(Route { link: id.clone(), dst, via, src });
                }
            }
        }
        Ok(())
    }

    fn observe_neighbours(
        &mut self,
        wanted: &BTreeSet<Neighbour>,
        index: &BTreeMap<LinkId, u32>,
        seen: &mut Observed,
    ) -> Result<(), LinkError> {
        // In the order of `LinkId`, so all of a namespace come together.
        let wanted: Vec<_> =
            wanted.iter().filter_map(|entry| Some((entry, *index.get(&entry.link)?))).collect();
        for some in wanted.chunk_by(|(a, _), (b, _)| a.link.netns == b.link.netns) {
            let Some(socket) = self.socket(&some[0].0.link.netns) else {
                continue;
            };
            let ask = |batch: &mut Batch| {
                some.iter().for_each(|(entry, index)| neighbour::get(batch, *index, entry.addr));
            };
            for ((entry, _), answer) in some.iter().zip(socket.ask(ask, neighbour::facts)?) {
                let facts = present(answer)?;
                if let Some(mac) = facts.filter(|facts| facts.ours).and_then(|facts| facts.mac) {
                    let (link, addr) = (entry.link.clone(), entry.addr);
                    seen.topology.neighbours.insert(Neighbour { link, addr, mac });
                }
            }
        }
        Ok(())
    }

    fn observe_fdb(
        &mut self,
        wanted: &BTreeSet<FdbEntry>,
        index: &BTreeMap<LinkId, u32>,
        seen: &mut Observed,
    ) -> Result<(), LinkError> {
        let on_bridge = |id: &LinkId| match seen.topology.links.get(id).map(|link| &link.kind) {
            Some(LinkKind::VethHost { port, .. }) => port.is_some(),
            _ => false,
        };
        let wanted: Vec<_> = wanted
            .iter()
            .filter(|entry| on_bridge(&entry.port))
            .filter_map(|entry| Some((entry, *index.get(&entry.port)?)))
            .collect();
        let ask = |batch: &mut Batch| {
            wanted.iter().for_each(|(entry, index)| neighbour::get_fdb(batch, *index, entry.mac));
        };
        for ((entry, index), answer) in wanted.iter().zip(self.host().ask(ask, neighbour::facts)?) {
            let facts = present(answer)?;
            if facts.is_some_and(|facts| facts.ours && facts.index == *index) {
                seen.topology.fdb.insert((*entry).clone());
            }
        }
        Ok(())
    }
}

/// Asks how the socket's namespace numbers another (`struct rtgenmsg`: one byte, padded).
pub(super) fn ask_nsid(batch: &mut Batch, netns: RawFd) {
    let out = batch.request(libc::RTM_GETNSID, 0);
    out.body(&[0; 4]);
    out.number(NETNSA_FD, netns.cast_unsigned());
}

/// `None`: it has no number yet (`NETNSA_NSID_NOT_ASSIGNED` is -1), as no link leads there.
fn read_nsid(message: &Message<'_>) -> Option<i32> {
    let id = attribute(message.body.get(4..)?, NETNSA_NSID).and_then(number)?;
    i32::try_from(id).ok()
}

/// Tells what is not there from what could not be asked.
fn present<T>(answer: Result<T, Errno>) -> Result<Option<T>, LinkError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::NODEV | Errno::NOENT | Errno::NXIO | Errno::INVAL) => Ok(None),
        Err(errno) => Err(super::socket::BatchError::refused(errno).into()),
    }
}

/// Stands for the far end of a cable in a namespace that was not entered. No container has
/// this name: a path would have to lead through a file.
fn unknown_link() -> LinkId {
    let container = "netns:/dev/null/unknown".parse();
    let name = "unknown".parse();
    match (container, name) {
        (Ok(container), Ok(name)) => LinkId { netns: Netns::Container(container), name },
        _ => unreachable!("both names are valid"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_unknown_has_a_valid_name() {
        assert_eq!(super::unknown_link().to_string(), "netns:/dev/null/unknown/unknown");
    }
}
