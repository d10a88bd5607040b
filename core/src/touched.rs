//! What a change touches: the part of the kernel worth looking at before it.
//!
//! Attaching a container changes nothing of its network, nor of the container's other cables. To
//! look at them all the same would cost more than the attachment itself; that they are as
//! promised is for `check` to find out.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::{FileId, Forward, HostsLine, LinkId, LinkKind, Neighbour, Scope, Topology},
    name::ContainerName,
    ruleset::ElementId,
};

/// Two topologies without what they have in common, but for what the rest stands on.
pub(crate) struct Touched {
    pub(crate) had: Topology,
    pub(crate) desired: Topology,
    /// Links that do not change, and are leaned on by something that does.
    pub(crate) leaned: BTreeSet<LinkId>,
    /// Containers whose namespaces are let go: as they were promised, unseen.
    going: BTreeSet<ContainerName>,
    /// What is deleted, there or not.
    struck: Struck,
}

/// What a change takes away by its name alone, so that it need not be looked at.
#[derive(Default)]
struct Struck {
    elements: BTreeSet<ElementId>,
    files: BTreeSet<FileId>,
    hosts: BTreeSet<HostsLine>,
    forwards: BTreeSet<Forward>,
}

impl Struck {
    fn between(had: &Topology, desired: &Topology) -> Self {
        let elements = had.elements.keys().filter(|id| !desired.elements.contains_key(id));
        let files = had.files.keys().filter(|file| !desired.files.contains_key(file));
        Self {
            elements: elements.cloned().collect(),
            files: files.cloned().collect(),
            hosts: had.hosts.difference(&desired.hosts).cloned().collect(),
            forwards: had.forwards.difference(&desired.forwards).cloned().collect(),
        }
    }
}

impl Touched {
    /// Everything, to be looked at as if nothing were known.
    pub(crate) fn whole(had: Topology, desired: Topology) -> Self {
        let (leaned, going) = (BTreeSet::new(), BTreeSet::new());
        Self { had, desired, leaned, going, struck: Struck::default() }
    }

    pub(crate) fn between((mut had, mut desired): (Topology, Topology)) -> Self {
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
        let going = had.netns.difference(&desired.netns).cloned().collect();
        let struck = Struck::between(&had, &desired);
        Self { had, desired, leaned, going, struck }
    }

    /// What to look at before the change.
    ///
    /// Not the cables of containers that are let go, which go with their namespaces; nor what leads
    /// to them, nor what is deleted by its name: to take away what is not there does no harm.
    pub(crate) fn scope(&self) -> Scope {
        let mut scope = Scope { leaned: self.leaned.clone(), ..self.had.scope() };
        // What is not promised yet is new, with names never used before: no need to look for it.
        // But a container's namespace is there before its first promise.
        scope.netns.extend(self.desired.netns.iter().cloned());
        scope.netns.retain(|name| !self.going.contains(name));
        scope.links.retain(|id| !self.goes(id));
        scope.leaned.retain(|id| !self.goes(id));
        let stays = |neighbour: &Neighbour| !self.is_let_go(neighbour);
        scope.neighbours.retain(stays);
        scope.fdb.retain(|entry| !self.goes(&entry.port));
        scope.mounts.retain(|name| !self.going.contains(name));
        scope.elements.retain(|id| !self.struck.elements.contains(id));
        scope.files.retain(|file| !self.struck.files.contains(file));
        scope.hosts.retain(|line| !self.struck.hosts.contains(line));
        scope.forwards.retain(|forward| !self.struck.forwards.contains(forward));
        scope
    }

    /// Adds to what was seen in [`Self::scope`] what was not looked at, as promised.
    pub(crate) fn trust(&self, seen: &mut Topology) {
        let had = &self.had;
        let struck = &self.struck;
        if seen.tables {
            let elements = struck.elements.iter().filter_map(|id| had.elements.get_key_value(id));
            seen.elements.extend(elements.map(|(id, element)| (id.clone(), element.clone())));
        }
        let files = struck.files.iter().filter_map(|file| had.files.get_key_value(file));
        seen.files.extend(files.map(|(file, text)| (file.clone(), text.clone())));
        let lines = struck.hosts.iter().filter(|line| seen.views.contains(&line.view));
        seen.hosts.extend(lines.cloned());
        if !seen.processes.is_empty() {
            seen.forwards.extend(struck.forwards.iter().cloned());
        }
        let mounts = had.mounts.iter().filter(|(name, _)| self.going.contains(*name));
        seen.mounts.extend(mounts.map(|(name, source)| (name.clone(), source.clone())));
        seen.netns.extend(self.going.iter().cloned());
        let links = had.links.iter().filter(|(id, _)| self.goes(id));
        seen.links.extend(links.map(|(id, link)| (id.clone(), link.clone())));
        seen.addrs.extend(had.addrs.iter().filter(|addr| self.goes(&addr.link)).cloned());
        seen.routes.extend(had.routes.iter().filter(|route| self.goes(&route.link)).cloned());
        seen.fdb.extend(had.fdb.iter().filter(|entry| self.goes(&entry.port)).cloned());
        let let_go = had.neighbours.iter().filter(|neighbour| self.is_let_go(neighbour));
        seen.neighbours.extend(let_go.cloned());
    }

    /// Whether a link is an end of a cable that goes with its container's namespace.
    fn goes(&self, id: &LinkId) -> bool {
        let end = id.netns.container().or_else(|| self.had.links.get(id)?.leads_into());
        end.is_some_and(|name| self.going.contains(name))
    }

    /// Whether a neighbour is one of, or is behind, a cable that goes.
    fn is_let_go(&self, neighbour: &Neighbour) -> bool {
        self.goes(&neighbour.link)
            || self.had.fdb.iter().any(|entry| entry.mac == neighbour.mac && self.goes(&entry.port))
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
            Some(LinkKind::Bridge | LinkKind::Other(_)) | None => {}
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
