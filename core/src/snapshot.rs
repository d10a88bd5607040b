//! A host at one moment, as two moments are compared: made of a [`Sight`], or read from a snapshot
//! file, which is the document of `map --json` with when and in which boot it was taken. What is
//! not compared (counters, details) is in neither.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    map::shown,
    model::{LinkId, Netns},
    name::Proto,
    sight::{Holder, LinkFacts, Runtime, Sight, Space, Workload},
};

/// What a snapshot file says it is.
pub const FORMAT: &str = "twinax snapshot";

/// When a snapshot was taken, and of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// [`FORMAT`].
    pub format: String,
    /// Seconds since 1970.
    pub taken: u64,
    /// Cookies, numbers of processes and of links mean nothing in another boot.
    pub boot: String,
}

/// A snapshot.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Snapshot {
    pub snapshot: Taken,
    pub namespaces: Vec<Namespace>,
    /// Containers in namespaces that could not be seen.
    #[serde(default)]
    pub unplaced: Vec<Workload>,
    /// What could not be seen, a line each.
    #[serde(default)]
    pub unseen: Vec<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Namespace {
    pub handle: String,
    pub inode: u64,
    pub cookie: Option<u64>,
    #[serde(default)]
    pub containers: Vec<Workload>,
    #[serde(default)]
    pub holders: Vec<Holder>,
    #[serde(default)]
    pub links: Vec<Link>,
    #[serde(default)]
    pub routes: Vec<Route>,
    #[serde(default)]
    pub listeners: Vec<Listener>,
}

/// A link in a namespace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct Link {
    pub name: String,
    pub index: u32,
    #[serde(default)]
    pub kind: String,
    pub mac: Option<String>,
    pub mtu: Option<u32>,
    #[serde(default)]
    pub state: String,
    #[serde(default)]
    pub alias: String,
    pub master: Option<String>,
    #[serde(default)]
    pub addresses: Vec<IpNet>,
    pub leads_to: Option<End>,
}

/// The other end of a cable, or what a link lies on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct End {
    pub namespace: String,
    pub interface: String,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Route {
    pub to: IpNet,
    pub via: Option<IpAddr>,
    pub interface: String,
}

/// A socket that waits for others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Listener {
    pub protocol: Proto,
    pub address: SocketAddr,
    #[serde(default)]
    pub processes: Vec<Opener>,
}

/// A process that has it open.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Opener {
    pub pid: u32,
    pub comm: String,
}

impl Snapshot {
    /// Returns what a file of this sight would be read as.
    pub fn of(sight: &Sight, taken: Taken) -> Self {
        let mut links: BTreeMap<&Netns, Vec<Link>> = BTreeMap::new();
        for (id, facts) in &sight.links {
            links.entry(&id.netns).or_default().push(Link::of(sight, id, facts));
        }
        let mut routes: BTreeMap<&Netns, Vec<Route>> = BTreeMap::new();
        for route in &sight.topology.routes {
            let interface = route.link.name.to_string();
            let told = Route { to: route.dst, via: route.via, interface };
            routes.entry(&route.link.netns).or_default().push(told);
        }
        let mut listeners: BTreeMap<&Netns, Vec<Listener>> = BTreeMap::new();
        for one in &sight.listeners {
            let opener = |(pid, comm): &(u32, String)| Opener { pid: *pid, comm: comm.clone() };
            let processes = one.processes.iter().map(opener).collect();
            let told = Listener { protocol: one.proto, address: one.at, processes };
            listeners.entry(&one.netns).or_default().push(told);
        }
        let namespace = |(netns, space): (&Netns, &Space)| Namespace {
            handle: netns.to_string(),
            inode: space.inode,
            cookie: space.cookie,
            containers: space.workloads.clone(),
            holders: space.holders.clone(),
            links: links.remove(netns).unwrap_or_default(),
            routes: routes.remove(netns).unwrap_or_default(),
            listeners: listeners.remove(netns).unwrap_or_default(),
        };
        Self {
            snapshot: taken,
            namespaces: sight.spaces.iter().map(namespace).collect(),
            unplaced: sight.unplaced.clone(),
            unseen: sight.unseen.clone(),
        }
    }
}

impl Link {
    fn of(sight: &Sight, id: &LinkId, facts: &LinkFacts) -> Self {
        let known = sight.topology.links.get(id);
        let end = |far: &LinkId| End {
            namespace: far.netns.to_string(),
            interface: far.name.to_string(),
        };
        Self {
            name: id.name.to_string(),
            index: facts.index,
            kind: facts.kind.clone(),
            mac: known.map(|link| link.mac.to_string()),
            mtu: known.map(|link| link.mtu),
            state: facts.operstate.clone(),
            alias: known.map(|link| link.alias.clone()).unwrap_or_default(),
            master: facts.master.as_ref().map(|master| master.name.to_string()),
            addresses: facts.addrs.clone(),
            leads_to: facts.leads_to.as_ref().map(end),
        }
    }
}

impl Namespace {
    pub(crate) fn is_host(&self) -> bool {
        self.handle == "host"
    }

    /// What people call it.
    pub(crate) fn label(&self) -> String {
        if self.is_host() {
            return "host".to_owned();
        }
        if let Some(pod) = self.containers.iter().find_map(|c| c.pod.as_deref()) {
            return format!("pod {}", shown(pod));
        }
        let names = self.containers.iter().filter(|c| c.runtime != Runtime::Process);
        let names: Vec<String> = names.map(|c| shown(&c.name)).collect();
        match names.is_empty() {
            true => shown(&self.handle),
            false => names.join(" + "),
        }
    }

    /// Those that a runtime made; processes that nobody made a container of come and go.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Workload> {
        self.containers.iter().filter(|c| c.runtime != Runtime::Process)
    }
}
