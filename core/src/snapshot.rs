//! A host at one moment, as a snapshot file has it: the document of `map --json`, and when and in
//! which boot it was taken. What is not compared (counters, details) is not read.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    map::shown,
    name::Proto,
    sight::{Holder, Runtime, Workload},
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
