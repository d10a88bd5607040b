//! What a change touches: the part of the kernel worth looking at before it.
//!
//! Attaching a container changes nothing of its network, nor of the container's other cables. To
//! look at them all the same would cost more than the attachment itself; that they are as
//! promised is for `check` to find out.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{LinkId, LinkKind, Scope, Topology};

/// Two topologies without what they have in common, but for what the rest stands on.
pub(crate) struct Touched {
    pub(crate) had: Topology,
    pub(crate) desired: Topology,
    /// Links that do not change, and are leaned on by something that does.
    pub(crate) leaned: BTreeSet<LinkId>,
}

impl Touched {
    pub(crate) fn between(mut had: Topology, mut desired: Topology) -> Self {
        let links = touched_links(&had, &desired);
        drop_common(&mut had.neighbours, &mut desired.neighbours);
        drop_common(&mut had.fdb, &mut desired.fdb);
        drop_common(&mut had.hosts, &mut desired.hosts);
        drop_common(&mut had.forwards, &mut desired.forwards);
        drop_common_rows(&mut had.elements, &mut desired.elements);
        drop_common_rows(&mut had.files, &mut desired.files);
        drop_common_rows(&mut had.mounts, &mut desired.mounts);
        let mut leaned = leaned(&had, &links);
        leaned.append(&mut self::leaned(&desired, &links));
        leaned.retain(|link| !links.contains(link) && had.links.contains_key(link));
        for topology in [&mut had, &mut desired] {
            topology.links.retain(|id, _| links.contains(id) || leaned.contains(id));
            topology.addrs.retain(|addr| links.contains(&addr.link));
            topology.routes.retain(|route| links.contains(&route.link));
        }
        let entered = |topology: &Topology| {
            let inside = topology.links.keys().filter_map(|id| id.netns.container().cloned());
            inside.collect::<BTreeSet<_>>()
        };
        let mut busy = entered(&had);
        busy.append(&mut entered(&desired));
        let common: BTreeSet<_> = had.netns.intersection(&desired.netns).cloned().collect();
        for topology in [&mut had, &mut desired] {
            topology.netns.retain(|name| !common.contains(name) || busy.contains(name));
        }
        Self { had, desired, leaned }
    }

    /// What to look at before the change.
    ///
    /// Namespaces that are let go take with them what is in there, whatever that is.
    pub(crate) fn scope(&self) -> Scope {
        let mut scope = Scope { leaned: self.leaned.clone(), ..self.had.scope() };
        let stays = |id: &LinkId| {
            id.netns.container().is_none_or(|name| {
                !self.had.netns.contains(name) || self.desired.netns.contains(name)
            })
        };
        scope.links.retain(stays);
        scope.leaned.retain(stays);
        scope.neighbours.retain(|neighbour| stays(&neighbour.link));
        scope
    }
}

/// Links that change themselves, or what is configured on them.
fn touched_links(had: &Topology, desired: &Topology) -> BTreeSet<LinkId> {
    let either = had.links.keys().chain(desired.links.keys());
    let mut touched: BTreeSet<LinkId> =
        either.filter(|id| had.links.get(*id) != desired.links.get(*id)).cloned().collect();
    let addrs = had.addrs.symmetric_difference(&desired.addrs);
    touched.extend(addrs.map(|addr| addr.link.clone()));
    let routes = had.routes.symmetric_difference(&desired.routes);
    touched.extend(routes.map(|route| route.link.clone()));
    touched
}

/// What the touched links, and the neighbours and forwarding entries that are left, refer to.
fn leaned(topology: &Topology, touched: &BTreeSet<LinkId>) -> BTreeSet<LinkId> {
    let mut leaned = BTreeSet::new();
    for id in touched {
        match topology.links.get(id).map(|link| &link.kind) {
            Some(LinkKind::VethHost { peer, port }) => {
                leaned.insert(peer.clone());
                leaned.extend(port.iter().map(|port| LinkId::host(port.bridge.clone())));
            }
            Some(LinkKind::VethContainer { peer }) => {
                leaned.insert(peer.clone());
            }
            Some(LinkKind::Bridge) | None => {}
        }
    }
    leaned.extend(topology.neighbours.iter().map(|neighbour| neighbour.link.clone()));
    leaned.extend(topology.fdb.iter().map(|entry| entry.port.clone()));
    leaned
}

fn drop_common<T: Ord + Clone>(a: &mut BTreeSet<T>, b: &mut BTreeSet<T>) {
    let common: BTreeSet<T> = a.intersection(b).cloned().collect();
    a.retain(|item| !common.contains(item));
    b.retain(|item| !common.contains(item));
}

fn drop_common_rows<K: Ord + Clone, V: PartialEq>(a: &mut BTreeMap<K, V>, b: &mut BTreeMap<K, V>) {
    let common: BTreeSet<K> =
        a.iter().filter(|(key, row)| b.get(key) == Some(row)).map(|(key, _)| key.clone()).collect();
    a.retain(|key, _| !common.contains(key));
    b.retain(|key, _| !common.contains(key));
}
