//! What `map` and `peer` print: the host as it was seen.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::Serialize;
use twinax_core::{
    changes,
    interior::Attached,
    model::{LinkId, Netns},
    name::{Mac, Proto},
    peer::Cable,
    sight::{self, LinkFacts},
    snapshot::Taken,
};

use super::ports::{Published, ports};

/// `map --json`.
#[derive(Serialize)]
pub struct Sight<'a> {
    namespaces: Vec<Namespace<'a>>,
    /// Containers in namespaces that may not be seen.
    unplaced: &'a [sight::Workload],
    published: Vec<Published<'a>>,
    unseen: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Namespace<'a> {
    handle: String,
    inode: u64,
    cookie: Option<u64>,
    containers: &'a [sight::Workload],
    holders: &'a [sight::Holder],
    links: Vec<Link<'a>>,
    routes: Vec<Route<'a>>,
    listeners: Vec<Listener<'a>>,
}

#[derive(Serialize)]
struct Link<'a> {
    name: &'a str,
    index: u32,
    kind: &'a str,
    mac: Option<Mac>,
    mtu: Option<u32>,
    state: &'a str,
    alias: &'a str,
    master: Option<&'a str>,
    addresses: &'a [IpNet],
    leads_to: Option<End>,
    counters: sight::Counters,
    details: &'a [String],
}

/// An end of a cable, or what a link lies on.
#[derive(Serialize)]
struct End {
    namespace: String,
    interface: String,
    proven: bool,
}

#[derive(Serialize)]
struct Route<'a> {
    to: IpNet,
    via: Option<IpAddr>,
    interface: &'a str,
}

#[derive(Serialize)]
struct Listener<'a> {
    protocol: Proto,
    address: SocketAddr,
    /// It takes IPv4 too.
    dual: bool,
    processes: Vec<Opener<'a>>,
}

#[derive(Serialize)]
struct Opener<'a> {
    pid: u32,
    comm: &'a str,
}

/// Returns the whole host.
pub fn sight(seen: &sight::Sight) -> Sight<'_> {
    Sight {
        namespaces: namespaces(seen, |_| true),
        published: ports(seen, |_| true),
        unplaced: &seen.unplaced,
        unseen: &seen.unseen,
    }
}

/// Returns one namespace of it.
pub(super) fn namespace<'a>(seen: &'a sight::Sight, netns: &Netns) -> Option<Namespace<'a>> {
    namespaces(seen, |one| one == netns).pop()
}

fn namespaces(seen: &sight::Sight, wanted: impl Fn(&Netns) -> bool) -> Vec<Namespace<'_>> {
    let mut links: BTreeMap<&Netns, Vec<Link<'_>>> = BTreeMap::new();
    for (id, facts) in seen.links.iter().filter(|(id, _)| wanted(&id.netns)) {
        links.entry(&id.netns).or_default().push(link(seen, id, facts));
    }
    let mut routes: BTreeMap<&Netns, Vec<Route<'_>>> = BTreeMap::new();
    for route in seen.topology.routes.iter().filter(|route| wanted(&route.link.netns)) {
        let interface = route.link.name.as_str();
        let route = (&route.link.netns, Route { to: route.dst, via: route.via, interface });
        routes.entry(route.0).or_default().push(route.1);
    }
    let mut listeners: BTreeMap<&Netns, Vec<Listener<'_>>> = BTreeMap::new();
    for listener in seen.listeners.iter().filter(|listener| wanted(&listener.netns)) {
        let processes = listener.processes.iter();
        let processes = processes.map(|(pid, comm)| Opener { pid: *pid, comm }).collect();
        let (protocol, address, dual) = (listener.proto, listener.at, listener.dual);
        let told = Listener { protocol, address, dual, processes };
        listeners.entry(&listener.netns).or_default().push(told);
    }
    let spaces = seen.spaces.iter().filter(|(netns, _)| wanted(netns));
    let namespaces = spaces.map(|(netns, space)| Namespace {
        handle: netns.to_string(),
        inode: space.inode,
        cookie: space.cookie,
        containers: &space.workloads,
        holders: &space.holders,
        links: links.remove(netns).unwrap_or_default(),
        routes: routes.remove(netns).unwrap_or_default(),
        listeners: listeners.remove(netns).unwrap_or_default(),
    });
    namespaces.collect()
}

fn link<'a>(seen: &'a sight::Sight, id: &'a LinkId, facts: &'a LinkFacts) -> Link<'a> {
    let known = seen.topology.links.get(id);
    let leads_to = facts.leads_to.as_ref();
    Link {
        name: id.name.as_str(),
        index: facts.index,
        kind: &facts.kind,
        mac: known.map(|link| link.mac),
        mtu: known.map(|link| link.mtu),
        state: &facts.operstate,
        alias: known.map(|link| link.alias.as_str()).unwrap_or_default(),
        master: facts.master.as_ref().map(|master| master.name.as_str()),
        addresses: &facts.addrs,
        leads_to: leads_to.map(|far| end(far, facts.proven)),
        counters: facts.counters,
        details: &facts.details,
    }
}

fn end(id: &LinkId, proven: bool) -> End {
    End { namespace: id.netns.to_string(), interface: id.name.to_string(), proven }
}

/// A snapshot file: [`Sight`], and when it was.
#[derive(Serialize)]
pub struct Snapshot<'a> {
    snapshot: Taken,
    #[serde(flatten)]
    sight: Sight<'a>,
}

/// Returns the whole host as a snapshot.
pub fn snapshot(seen: &sight::Sight, taken: Taken) -> Snapshot<'_> {
    Snapshot { snapshot: taken, sight: sight(seen) }
}

/// `diff --json`.
#[derive(Serialize)]
pub struct Diff<'a> {
    old: &'a Taken,
    new: &'a Taken,
    same_boot: bool,
    changes: Vec<Change<'a>>,
}

/// What is other than before, as `diff --json` and `map --watch --json` have it.
#[derive(Serialize)]
pub struct Change<'a> {
    change: &'static str,
    kind: &'static str,
    namespace: Option<&'a str>,
    interface: Option<&'a str>,
    containers: &'a [String],
    what: &'a str,
    before: Option<&'a str>,
    after: Option<&'a str>,
    text: String,
}

/// Returns what is other than before.
pub fn change(change: &changes::Change) -> Change<'_> {
    Change {
        change: change.way().as_str(),
        kind: change.kind.as_str(),
        namespace: change.namespace.as_deref(),
        interface: change.interface.as_deref(),
        containers: &change.containers,
        what: &change.what,
        before: change.before.as_deref(),
        after: change.after.as_deref(),
        text: change.to_string(),
    }
}

/// Returns what changed between two snapshots.
pub fn diff<'a>(old: &'a Taken, new: &'a Taken, changes: &'a [changes::Change]) -> Diff<'a> {
    let same_boot = old.boot == new.boot;
    Diff { old, new, same_boot, changes: changes.iter().map(change).collect() }
}

/// `peer --json`.
#[derive(Serialize)]
pub struct Peers<'a> {
    cables: Vec<Pair<'a>>,
    without_cable: Vec<Told<'a>>,
}

#[derive(Serialize)]
struct Pair<'a> {
    near: Told<'a>,
    /// `null`: it was not found.
    far: Option<Told<'a>>,
}

#[derive(Serialize)]
pub(super) struct Told<'a> {
    namespace: String,
    containers: &'a [sight::Workload],
    /// `null` where it was not asked.
    attached: Option<&'a Attached>,
    #[serde(flatten)]
    link: Option<Link<'a>>,
}

/// Returns the cables that a handle may mean, and those links that have none.
pub fn peers<'a>(seen: &'a sight::Sight, cables: &[Cable<'a>], others: &[&'a LinkId]) -> Peers<'a> {
    let pair = |cable: &Cable<'a>| Pair {
        near: told(seen, cable.near),
        far: cable.far.map(|far| told(seen, far)),
    };
    Peers {
        cables: cables.iter().map(pair).collect(),
        without_cable: others.iter().map(|id| told(seen, id)).collect(),
    }
}

/// Returns an end of a cable, or another link.
pub(super) fn told<'a>(seen: &'a sight::Sight, id: &'a LinkId) -> Told<'a> {
    Told {
        namespace: id.netns.to_string(),
        containers: seen.spaces.get(&id.netns).map(|s| s.workloads.as_slice()).unwrap_or_default(),
        attached: seen.attached.get(id),
        link: seen.links.get(id).map(|facts| link(seen, id, facts)),
    }
}
