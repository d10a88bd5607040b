//! The typed graph shared by what we want and what we see, and what each operation does to it.
//!
//! A [`Topology`] holds only what can be compared: `observed == desired`, restricted to the same
//! [`Scope`], *means* done. Run-time facts (indices, counters) are not in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    name::{ContainerName, HostName, IfName, Mac, NetworkName},
    ruleset::{ElementId, Group, Value},
};

/// Everything there is, or should be, within some scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    pub links: BTreeMap<LinkId, Link>,
    pub addrs: BTreeSet<Addr>,
    pub routes: BTreeSet<Route>,
    pub neighbours: BTreeSet<Neighbour>,
    pub fdb: BTreeSet<FdbEntry>,
    pub sysctls: BTreeMap<Sysctl, String>,
    /// Whether the fixed tables and chains stand as this version writes them.
    pub tables: bool,
    pub elements: BTreeMap<ElementId, Value>,
    pub hosts: BTreeSet<HostsLine>,
    pub files: BTreeMap<FileId, String>,
    pub hosts_mounts: BTreeMap<ContainerName, HostsView>,
    pub processes: BTreeSet<Process>,
}

/// A network namespace: where Twinax runs, or a container's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Netns {
    Host,
    Container(ContainerName),
}

/// A link is named by where it lives and what it is called; never by its kernel index.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LinkId {
    pub netns: Netns,
    pub name: IfName,
}

impl LinkId {
    pub fn host(name: IfName) -> Self {
        Self { netns: Netns::Host, name }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub kind: LinkKind,
    /// Administratively up (`IFF_UP`).
    pub up: bool,
    pub mac: Mac,
    /// Bytes of an IP packet.
    pub mtu: u32,
    /// Only host ends carry our group; inside a container it is not ours to say.
    pub group: Option<Group>,
    /// Says to people what the link is for; also the alias in `ip link`. Not compared inside
    /// containers, where it is empty.
    pub alias: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    Bridge,
    /// The host end of a cable. `port` is its bridge, if it has one.
    VethHost { peer: LinkId, port: Option<Port> },
    /// The container's end.
    VethContainer { peer: LinkId },
}

/// A veth's seat on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub bridge: IfName,
    /// `IFLA_BRPORT_ISOLATED`: may talk to the bridge but to no other isolated port.
    pub isolated: bool,
    /// `IFLA_BRPORT_MODE`: a frame may leave by the port it came in on.
    pub hairpin: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Addr {
    pub link: LinkId,
    pub net: IpNet,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Route {
    /// The device; routes of ours always name one.
    pub link: LinkId,
    pub dst: IpNet,
    /// `None`: the destination is on the link (scope link).
    pub via: Option<IpAddr>,
    /// The preferred source address.
    pub src: Option<IpAddr>,
}

/// A permanent neighbour entry: no address resolution needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Neighbour {
    pub link: LinkId,
    pub addr: IpAddr,
    pub mac: Mac,
}

/// A static forwarding entry: which port of a bridge leads to a MAC.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FdbEntry {
    pub port: LinkId,
    pub mac: Mac,
}

/// A switch under `/proc/sys/net` of the host namespace, as `ipv4/ip_forward`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Sysctl(pub String);

/// Which hosts file: the set of named networks its reader is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostsView(pub BTreeSet<NetworkName>);

/// One line of a hosts file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostsLine {
    pub view: HostsView,
    pub addr: IpAddr,
    pub names: Vec<HostName>,
}

/// A file written whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileId {
    /// `/etc/hosts` of a container on no named network.
    Hosts(ContainerName),
    /// `/etc/resolv.conf` of a container.
    Resolv(ContainerName),
    /// What the loopback forwarder serves, one line a port.
    Forwards,
}

/// A process that the network needs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// Serves published ports on the host's own loopback.
    Forwarder,
}

/// One kernel change. Carries everything it needs: applying it asks no question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Op {
    // Undo, outside in.
    DelElement { id: ElementId },
    StopProcess { process: Process },
    DelHostsLine { line: HostsLine },
    DelFile { file: FileId },
    UnmountHosts { container: ContainerName },
    DelNeighbour { neighbour: Neighbour },
    DelFdb { entry: FdbEntry },
    DelRoute { route: Route },
    DelAddr { addr: Addr },
    /// Down and off its bridge: nothing passes from here on, whoever still holds the far end.
    Unplug { link: LinkId },
    /// Deletes a link; a cable goes with both ends.
    DelLink { link: LinkId },
    RestoreSysctl { sysctl: Sysctl, value: String },
    DelTables,
    // Build, inside out.
    SetSysctl { sysctl: Sysctl, value: String },
    PutTables,
    AddBridge { id: LinkId, index: u32, link: Link },
    /// Both ends in one message: the host end up and on its bridge, the far one born in place.
    AddVeth { id: LinkId, index: u32, link: Link, peer: LinkId, inner: Link },
    SetPort { link: LinkId, port: Port },
    SetMtu { link: LinkId, mtu: u32 },
    SetMac { link: LinkId, mac: Mac },
    SetGroup { link: LinkId, group: Group },
    SetAlias { link: LinkId, alias: String },
    SetUp { link: LinkId },
    AddAddr { addr: Addr },
    AddRoute { route: Route },
    AddNeighbour { neighbour: Neighbour },
    AddFdb { entry: FdbEntry },
    AddElement { id: ElementId, value: Value, comment: String },
    AddHostsLine { line: HostsLine },
    PutFile { file: FileId, text: String },
    MountHosts { container: ContainerName, view: HostsView },
    StartProcess { process: Process },
}

/// What a [`Topology`] speaks about: within it, absence means absence; outside, nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// Each link brings its addresses, routes, neighbours and forwarding entries.
    pub links: BTreeSet<LinkId>,
    /// Values that count as ours, by switch.
    pub sysctls: BTreeMap<Sysctl, String>,
    pub elements: BTreeSet<ElementId>,
    pub hosts: BTreeSet<HostsLine>,
    pub files: BTreeSet<FileId>,
    pub hosts_mounts: BTreeSet<ContainerName>,
    pub processes: BTreeSet<Process>,
}

/// Why the model of the kernel does not take an operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    #[error("it exists already")]
    Exists,
    #[error("it does not exist")]
    Missing,
    #[error("link {0} does not exist")]
    NoLink(LinkId),
    #[error("link {0} is down")]
    LinkDown(LinkId),
}

impl fmt::Display for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "{name}"),
        }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.netns {
            Netns::Host => write!(f, "{}", self.name),
            Netns::Container(name) => write!(f, "{name}/{}", self.name),
        }
    }
}
