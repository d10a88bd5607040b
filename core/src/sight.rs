//! What is seen on a host: the topology of everybody's namespaces, and the facts that are shown
//! beside it but never compared.
//!
//! The graph is the engine's own [`Topology`]. A namespace that is not Twinax's is named there as
//! every command takes it: `pid:1234`, `netns:/run/netns/x`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    interior::{Attached, Interior},
    model::{LinkId, Netns, Route, Topology},
    name::{Mac, Proto},
};

/// A network namespace's number among the inodes of nsfs, as in `net:[4026531840]`: unique while
/// the namespace lives.
pub type Inode = u64;

/// Everything seen at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sight {
    /// Links, addresses, routes and neighbours of every namespace that could be read.
    #[serde(skip)]
    pub topology: Topology,
    pub spaces: BTreeMap<Netns, Space>,
    #[serde(skip)]
    pub links: BTreeMap<LinkId, LinkFacts>,
    #[serde(skip)]
    pub listeners: Vec<Listener>,
    /// The inside of those namespaces that were asked for.
    #[serde(skip)]
    pub interiors: BTreeMap<Netns, Interior>,
    /// What hangs on those links that were asked for.
    #[serde(skip)]
    pub attached: BTreeMap<LinkId, Attached>,
    /// Containers that are known of, in namespaces that may not be seen.
    #[serde(default)]
    pub unplaced: Vec<Workload>,
    /// What could not be seen, and for lack of what; a line each, for people.
    pub unseen: Vec<String>,
}

/// A network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    pub inode: Inode,
    /// `SO_NETNS_COOKIE`: unique until the next boot; `None` where it could not be entered.
    pub cookie: Option<u64>,
    /// What keeps it alive, of all that could be seen.
    pub holders: Vec<Holder>,
    /// The containers that live in it; several may (pods, `container:NAME`).
    pub workloads: Vec<Workload>,
}

/// What keeps a namespace alive.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Holder {
    /// A process whose first thread is in it.
    Process { pid: u32, comm: String },
    /// A thread that has moved there by itself.
    Thread { pid: u32, tid: u32, comm: String },
    /// A descriptor of the namespace itself.
    Descriptor { pid: u32, fd: u32, comm: String },
    /// A socket that was opened there.
    Socket { pid: u32, fd: u32, comm: String },
    /// A tun or tap device's descriptor.
    Tun { pid: u32, fd: u32, comm: String },
    /// A file it is mounted on, in the mount namespace of process `seen_by`, or of nobody (0).
    /// Of those that have it by the same path only one is named.
    Mount { path: String, seen_by: u32 },
    /// Nobody who could be seen: such as a descriptor that is on its way in a message.
    Unseen,
    /// The same where not all processes of the machine are to be seen, as they are not from a pid
    /// namespace other than the first: it may be held by a process outside.
    Outside,
}

/// A process, as one pass over `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    pub pid: u32,
    /// Field 22 of `/proc/PID/stat`: tells it from another that got its number.
    pub start: u64,
    pub comm: String,
    /// How many it has, the first included.
    #[serde(default)]
    pub threads: u32,
    /// Who made it, or took it over when that one ended; 0 where nobody is known.
    #[serde(default)]
    pub parent: u32,
    /// `None` where it may not be looked at.
    pub netns: Option<Inode>,
    pub mntns: Option<Inode>,
    /// The longest of its paths in the hierarchies, as `/docker/4b46…`: where there are several,
    /// the unified one may stop at the runtime's service.
    pub cgroup: String,
}

/// Who made a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    Twinax,
    Docker,
    Podman,
    /// containerd without Kubernetes: `ctr`, nerdctl.
    Containerd,
    /// A pod, or a container in one, by containerd's CRI plugin.
    Cri,
    CriO,
    Lxc,
    Nspawn,
    /// A name in `/run/netns`.
    IpNetns,
    /// A process in a namespace that no runtime is known of.
    Process,
}

impl Runtime {
    /// Every one there is.
    pub const ALL: [Self; 10] = [
        Self::Twinax,
        Self::Docker,
        Self::Podman,
        Self::Containerd,
        Self::Cri,
        Self::CriO,
        Self::Lxc,
        Self::Nspawn,
        Self::IpNetns,
        Self::Process,
    ];

    /// Its name as people and options have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Twinax => "twinax",
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Cri => "cri",
            Self::CriO => "cri-o",
            Self::Lxc => "lxc",
            Self::Nspawn => "nspawn",
            Self::IpNetns => "ip-netns",
            Self::Process => "process",
        }
    }
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, comm } => write!(f, "process {pid} ({comm})"),
            Self::Thread { pid, tid, comm } => write!(f, "thread {tid} of process {pid} ({comm})"),
            Self::Descriptor { pid, fd, comm } => {
                write!(f, "descriptor {fd} of process {pid} ({comm})")
            }
            Self::Socket { pid, fd, comm } => write!(f, "socket {fd} of process {pid} ({comm})"),
            Self::Tun { pid, fd, comm } => write!(f, "tun {fd} of process {pid} ({comm})"),
            Self::Mount { path, .. } => write!(f, "mount {path}"),
            Self::Unseen => f.write_str("what cannot be seen, as a descriptor on its way"),
            Self::Outside => f.write_str(
                "what cannot be seen from this pid namespace, or a descriptor on its way",
            ),
        }
    }
}

/// A container as its runtime's own files tell of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    pub runtime: Runtime,
    /// The runtime's id, whole; the name again where it has none.
    pub id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// `namespace/name` of a Kubernetes pod, the name of a Podman one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Its first process; `None` for a name without one.
    pub pid: Option<u32>,
    /// Where its namespace is, as the runtime's files have it, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns_path: Option<String>,
    /// The names of the runtime's networks that it is on.
    #[serde(default)]
    pub networks: Vec<String>,
    /// What it asked to have published.
    #[serde(default)]
    pub published: Vec<PublishedPort>,
    /// `compose project`, `nerdctl namespace`, …: worth showing, in the runtime's words.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A port that leads to a container, as its runtime has it on record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PublishedPort {
    pub proto: Proto,
    pub host: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// What is shown of a link beside what the topology has of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFacts {
    pub index: u32,
    /// The kernel's word: `veth`, `bridge`, `macvlan`, …; empty for physical devices and `lo`.
    pub kind: String,
    /// `IF_OPER_*` in words: `up`, `down`, `lowerlayerdown`, `unknown`, …
    pub operstate: String,
    pub carrier: bool,
    /// The far end of a cable, or what a link lies on (macvlan, vlan, …), if that is seen.
    pub leads_to: Option<LinkId>,
    /// Both ends name each other.
    pub proven: bool,
    /// The bridge, bond or VRF that it is a member of.
    pub master: Option<LinkId>,
    pub counters: Counters,
    /// Details of its kind, in the field's words: `vlan id 5`, `vxlan id 42 remote 192.0.2.9`.
    pub details: Vec<String>,
    pub alt_names: BTreeSet<String>,
    /// Every address, ours or not, with its prefix.
    pub addrs: Vec<IpNet>,
    /// Who is known behind it, if that was asked for.
    pub neighbours: Vec<SeenNeighbour>,
    /// Routes out by it that stand in another table than the main one, with the table's number.
    pub other_tables: Vec<(u32, Route)>,
}

/// An entry of the neighbour table (`addr` and often `mac`), or of a bridge's forwarding database
/// (`mac` alone).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenNeighbour {
    pub addr: Option<IpAddr>,
    pub mac: Option<Mac>,
    /// `NUD_*` in words: `permanent`, `reachable`, `stale`, `failed`, …; of a forwarding entry
    /// `static`, `learned` or `own`.
    pub state: String,
}

/// What went over a link since it was made (`IFLA_STATS64`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub rx_packets: u64,
    pub rx_bytes: u64,
    pub rx_dropped: u64,
    pub tx_packets: u64,
    pub tx_bytes: u64,
    pub tx_dropped: u64,
}

/// A socket that waits for others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    pub netns: Netns,
    pub proto: Proto,
    pub at: SocketAddr,
    /// An IPv6 socket that takes IPv4 too.
    pub dual: bool,
    /// Who has it open; empty where that could not be seen.
    pub processes: Vec<(u32, String)>,
}

pub(crate) fn is_loopback(id: &LinkId) -> bool {
    id.name.as_str() == "lo"
}
