//! The typed graph shared by what we want and what we see, and what each operation does to it.
//!
//! A [`Topology`] holds only what can be compared: `observed == desired`, restricted to the same
//! [`Scope`], *means* done. Run-time facts (indices, counters) are not in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
    sync::Arc,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    name::{BadName, ContainerName, HostName, IfName, Mac, NetworkName, Proto},
    ruleset::{ElementId, Group, Value},
};

/// The protocol number (`rtm_protocol`, `NDA_PROTOCOL`, `IFA_PROTO`) that marks entries as ours:
/// `t` in ASCII, which linux/rtnetlink.h and iproute2's `rt_protos` leave free.
pub const PROTOCOL: u8 = b't';

/// Returns the name of the host end of cable `number`. Its kernel index is `number` too, so that
/// the two numbers a person sees in `ip link` are one.
pub fn host_end(number: u32) -> IfName {
    format!("txv{number}").parse().expect("a prefix and at most 10 digits fit in a name")
}

/// Returns the number in the name of a host end.
pub fn number_of(host_end: &IfName) -> Option<u32> {
    host_end.as_str().strip_prefix("txv")?.parse().ok()
}

/// Everything there is, or should be, within some scope.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Topology {
    /// Namespaces of containers that Twinax runs; they go with their last process.
    pub netns: BTreeSet<ContainerName>,
    pub links: BTreeMap<LinkId, Link>,
    pub addrs: BTreeSet<Addr>,
    pub routes: BTreeSet<Route>,
    pub neighbours: BTreeSet<Neighbour>,
    pub fdb: BTreeSet<FdbEntry>,
    pub sysctls: BTreeMap<Sysctl, Turned>,
    /// Whether the fixed tables and chains stand as this version writes them.
    pub tables: bool,
    pub elements: BTreeMap<ElementId, Element>,
    pub views: BTreeSet<HostsView>,
    pub hosts: BTreeSet<HostsLine>,
    pub files: BTreeMap<FileId, String>,
    pub mounts: BTreeMap<ContainerName, HostsSource>,
    pub forwards: BTreeSet<Forward>,
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

impl Netns {
    /// The container whose namespace it is; `None` for the host's.
    pub fn container(&self) -> Option<&ContainerName> {
        match self {
            Self::Container(name) => Some(name),
            Self::Host => None,
        }
    }
}

impl LinkId {
    /// Names a link of the host.
    pub fn host(name: IfName) -> Self {
        Self { netns: Netns::Host, name }
    }
}

/// What is set of a link, whatever its kind.
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

impl Link {
    /// The container that the host end of a cable leads into; `None` for other links.
    pub fn leads_into(&self) -> Option<&ContainerName> {
        match &self.kind {
            LinkKind::VethHost { peer, .. } => peer.netns.container(),
            _ => None,
        }
    }
}

/// What a link is, and what it is tied to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    Bridge,
    /// The host end of a cable. `port` is its bridge, if it has one.
    VethHost {
        peer: LinkId,
        port: Option<Port>,
    },
    /// The container's end.
    VethContainer {
        peer: LinkId,
    },
    /// What Twinax neither makes nor changes, in the kernel's word: `macvlan`, `vxlan`, …; `veth`
    /// where the far end is not seen, `loopback`, and `device` for hardware.
    Other(String),
}

/// A veth's seat on a bridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub bridge: IfName,
    /// `IFLA_BRPORT_MODE`: a frame may leave by the port it came in on.
    pub hairpin: bool,
}

/// An address of a link, with the length of its prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Addr {
    pub link: LinkId,
    pub net: IpNet,
}

/// A route of a link's namespace, out by that link.
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
#[serde(transparent)]
pub struct Sysctl(pub String);

/// A switch that we turned: to what, and what it said before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turned {
    pub ours: String,
    pub former: String,
}

/// What a set or map holds under a key, and which intent it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Element {
    pub value: Value,
    /// One text for all that a container or network has.
    pub comment: Arc<str>,
}

/// Which hosts file: the set of named networks its reader is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostsView(pub BTreeSet<NetworkName>);

/// One line of a shared hosts file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostsLine {
    pub view: HostsView,
    pub addr: IpAddr,
    pub names: Vec<HostName>,
}

/// What a container reads as `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostsSource {
    /// The file shared by all containers on the same named networks.
    View(HostsView),
    /// Its own, when it is on no named network.
    Own,
}

/// A file written whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileId {
    /// `/etc/hosts` of a container on no named network.
    Hosts(ContainerName),
    /// `/etc/resolv.conf` of a container.
    Resolv(ContainerName),
}

/// A published port on the host's own loopback, which no NAT can serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Forward {
    pub proto: Proto,
    pub listen: SocketAddr,
    pub target: SocketAddr,
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
    DelForward {
        forward: Forward,
    },
    StopProcess {
        process: Process,
    },
    DelElement {
        id: ElementId,
        element: Element,
    },
    DelHostsLine {
        line: HostsLine,
    },
    DelHostsView {
        view: HostsView,
    },
    DelFile {
        file: FileId,
    },
    DelNeighbour {
        neighbour: Neighbour,
    },
    DelFdb {
        entry: FdbEntry,
    },
    DelRoute {
        route: Route,
    },
    DelAddr {
        addr: Addr,
    },
    /// The last process is gone, or about to go: the kernel takes the namespace and both ends of
    /// its cables. Nothing is left to do but to let go.
    DropNetns {
        container: ContainerName,
    },
    /// Deletes a link; a cable goes with both ends.
    DelLink {
        link: LinkId,
    },
    DelTables,
    RestoreSysctl {
        sysctl: Sysctl,
        value: String,
    },
    // Build, inside out.
    SetSysctl {
        sysctl: Sysctl,
        turned: Turned,
    },
    PutTables,
    AddBridge {
        id: LinkId,
        link: Link,
    },
    /// Both ends in one message: the host end up and on its bridge, the far one born in place.
    AddVeth {
        id: LinkId,
        index: u32,
        link: Link,
        peer: LinkId,
        inner: Link,
    },
    SetPort {
        link: LinkId,
        port: Port,
    },
    SetMtu {
        link: LinkId,
        mtu: u32,
    },
    SetMac {
        link: LinkId,
        mac: Mac,
    },
    SetGroup {
        link: LinkId,
        group: Group,
    },
    SetAlias {
        link: LinkId,
        alias: String,
    },
    SetUp {
        link: LinkId,
    },
    AddAddr {
        addr: Addr,
    },
    AddRoute {
        route: Route,
    },
    AddNeighbour {
        neighbour: Neighbour,
    },
    AddFdb {
        entry: FdbEntry,
    },
    PutFile {
        file: FileId,
        text: String,
    },
    AddHostsView {
        view: HostsView,
    },
    AddHostsLine {
        line: HostsLine,
    },
    MountHosts {
        container: ContainerName,
        source: HostsSource,
    },
    AddElement {
        id: ElementId,
        element: Element,
    },
    StartProcess {
        process: Process,
    },
    AddForward {
        forward: Forward,
    },
}

/// What a [`Topology`] speaks about: within it, absence means absence; outside, nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub netns: BTreeSet<ContainerName>,
    /// Each link brings its addresses, routes and neighbours, and its forwarding entries.
    pub links: BTreeSet<LinkId>,
    /// Of these, the ones of which only the link itself counts, not what is configured on it.
    pub leaned: BTreeSet<LinkId>,
    /// Addresses that are expected on the links. They narrow nothing: they tell ours from others'
    /// where the kernel keeps no mark on an address (before 5.18).
    pub addrs: BTreeSet<Addr>,
    /// Neighbours and forwarding entries to look for one by one, so that a bridge of a thousand
    /// ports is not read whole.
    pub neighbours: BTreeSet<Neighbour>,
    pub fdb: BTreeSet<FdbEntry>,
    pub sysctls: BTreeMap<Sysctl, Turned>,
    pub tables: bool,
    pub elements: BTreeSet<ElementId>,
    pub views: BTreeSet<HostsView>,
    pub hosts: BTreeSet<HostsLine>,
    pub files: BTreeSet<FileId>,
    pub mounts: BTreeSet<ContainerName>,
    pub forwards: BTreeSet<Forward>,
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

impl Topology {
    /// What this topology speaks about.
    pub fn scope(&self) -> Scope {
        Scope {
            netns: self.netns.clone(),
            links: self.links.keys().cloned().collect(),
            leaned: BTreeSet::new(),
            addrs: self.addrs.clone(),
            neighbours: self.neighbours.clone(),
            fdb: self.fdb.clone(),
            sysctls: self.sysctls.clone(),
            tables: self.tables,
            elements: self.elements.keys().cloned().collect(),
            views: self.views.clone(),
            hosts: self.hosts.clone(),
            files: self.files.keys().cloned().collect(),
            mounts: self.mounts.keys().cloned().collect(),
            forwards: self.forwards.clone(),
            processes: self.processes.clone(),
        }
    }

    /// Returns the part of this topology that `scope` speaks about.
    pub fn within(&self, scope: &Scope) -> Self {
        let at = |link: &LinkId| scope.links.contains(link);
        let mut part = self.clone();
        part.netns.retain(|x| scope.netns.contains(x));
        part.links.retain(|x, _| at(x));
        let whole = |link: &LinkId| at(link) && !scope.leaned.contains(link);
        part.addrs.retain(|x| whole(&x.link));
        part.routes.retain(|x| whole(&x.link));
        part.neighbours.retain(|x| scope.neighbours.contains(x));
        part.fdb.retain(|x| scope.fdb.contains(x));
        part.sysctls.retain(|x, turned| scope.sysctls.get(x) == Some(turned));
        part.tables &= scope.tables;
        part.elements.retain(|x, _| scope.elements.contains(x));
        part.views.retain(|x| scope.views.contains(x));
        part.hosts.retain(|x| scope.hosts.contains(x));
        part.files.retain(|x, _| scope.files.contains(x));
        part.mounts.retain(|x, _| scope.mounts.contains(x));
        part.forwards.retain(|x| scope.forwards.contains(x));
        part.processes.retain(|x| scope.processes.contains(x));
        part
    }

    /// Does to the model what the kernel does, cascades included.
    pub fn apply(&mut self, op: &Op) -> Result<(), Impossible> {
        match op {
            Op::DelForward { forward } => removed(self.forwards.remove(forward)),
            Op::StopProcess { process } => {
                self.forwards.clear(); // The forwarder's sockets go with it.
                removed(self.processes.remove(process))
            }
            Op::DelElement { id, .. } => removed(self.elements.remove(id).is_some()),
            Op::DelHostsLine { line } => removed(self.hosts.remove(line)),
            Op::DelHostsView { view } => {
                self.hosts.retain(|line| line.view != *view);
                removed(self.views.remove(view))
            }
            Op::DelFile { file } => removed(self.files.remove(file).is_some()),
            Op::DelNeighbour { neighbour } => removed(self.neighbours.remove(neighbour)),
            Op::DelFdb { entry } => removed(self.fdb.remove(entry)),
            Op::DelRoute { route } => removed(self.routes.remove(route)),
            Op::DelAddr { addr } => {
                self.routes.retain(|r| r.link != addr.link || r.src != Some(addr.net.addr()));
                removed(self.addrs.remove(addr))
            }
            Op::DropNetns { container } => self.drop_netns(container),
            Op::DelLink { link } => self.del_link(link),
            Op::DelTables => {
                self.elements.clear();
                removed(std::mem::take(&mut self.tables))
            }
            Op::RestoreSysctl { sysctl, .. } => removed(self.sysctls.remove(sysctl).is_some()),
            _ => self.build(op),
        }
    }

    fn build(&mut self, op: &Op) -> Result<(), Impossible> {
        match op {
            Op::SetSysctl { sysctl, turned } => {
                self.sysctls.insert(sysctl.clone(), turned.clone());
                Ok(())
            }
            Op::PutTables => {
                self.elements.clear();
                self.tables = true;
                Ok(())
            }
            Op::AddBridge { id, link } => {
                added(self.links.insert(id.clone(), link.clone()).is_none())
            }
            Op::AddVeth { id, link, peer, inner, .. } => {
                added(self.links.insert(id.clone(), link.clone()).is_none())?;
                added(self.links.insert(peer.clone(), inner.clone()).is_none())
            }
            Op::SetPort { .. }
            | Op::SetMtu { .. }
            | Op::SetMac { .. }
            | Op::SetGroup { .. }
            | Op::SetAlias { .. }
            | Op::SetUp { .. } => self.set_link(op),
            Op::AddAddr { addr } => {
                self.link(&addr.link)?;
                added(self.addrs.insert(addr.clone()))
            }
            Op::AddRoute { route } => match self.link(&route.link)?.up {
                true => added(self.routes.insert(route.clone())),
                false => Err(Impossible::LinkDown(route.link.clone())),
            },
            Op::AddNeighbour { neighbour } => {
                self.link(&neighbour.link)?;
                added(self.neighbours.insert(neighbour.clone()))
            }
            Op::AddFdb { entry } => {
                self.link(&entry.port)?;
                added(self.fdb.insert(entry.clone()))
            }
            _ => self.build_outside(op),
        }
    }

    /// What is neither link nor route.
    fn build_outside(&mut self, op: &Op) -> Result<(), Impossible> {
        match op {
            Op::PutFile { file, text } => {
                self.files.insert(file.clone(), text.clone());
                Ok(())
            }
            Op::AddHostsView { view } => added(self.views.insert(view.clone())),
            Op::AddHostsLine { line } => match self.views.contains(&line.view) {
                true => added(self.hosts.insert(line.clone())),
                false => Err(Impossible::Missing),
            },
            Op::MountHosts { container, source } => {
                self.mounts.insert(container.clone(), source.clone());
                Ok(())
            }
            Op::AddElement { id, element } => match self.tables {
                true => added(self.elements.insert(id.clone(), element.clone()).is_none()),
                false => Err(Impossible::Missing),
            },
            Op::StartProcess { process } => added(self.processes.insert(process.clone())),
            Op::AddForward { forward } => match self.processes.contains(&Process::Forwarder) {
                true => added(self.forwards.insert(forward.clone())),
                false => Err(Impossible::Missing),
            },
            _ => unreachable!("{op} is undone, not built"),
        }
    }

    fn set_link(&mut self, op: &Op) -> Result<(), Impossible> {
        match op {
            Op::SetPort { link, port } => match &mut self.link_mut(link)?.kind {
                LinkKind::VethHost { port: seat, .. } => *seat = Some(port.clone()),
                _ => return Err(Impossible::NoLink(link.clone())),
            },
            Op::SetMtu { link, mtu } => self.link_mut(link)?.mtu = *mtu,
            Op::SetMac { link, mac } => {
                self.link_mut(link)?.mac = *mac;
                // The kernel forgets all neighbours of a link whose own address changes.
                self.neighbours.retain(|neighbour| neighbour.link != *link);
            }
            Op::SetGroup { link, group } => self.link_mut(link)?.group = Some(*group),
            Op::SetAlias { link, alias } => self.link_mut(link)?.alias.clone_from(alias),
            Op::SetUp { link } => self.link_mut(link)?.up = true,
            _ => unreachable!("{op} does not set a link"),
        }
        Ok(())
    }

    fn drop_netns(&mut self, container: &ContainerName) -> Result<(), Impossible> {
        let inside = |netns: Option<&ContainerName>| netns == Some(container);
        let ends = self.links.iter();
        let ends =
            ends.filter(|(id, link)| inside(id.netns.container()) || inside(link.leads_into()));
        let ends: Vec<_> = ends.map(|(id, _)| id.clone()).collect();
        for end in ends {
            // One end may have gone with the other.
            if self.links.contains_key(&end) {
                self.del_link(&end)?;
            }
        }
        self.mounts.remove(container);
        removed(self.netns.remove(container))
    }

    fn del_link(&mut self, id: &LinkId) -> Result<(), Impossible> {
        let Some(link) = self.links.remove(id) else {
            return Err(Impossible::Missing);
        };
        let mut gone = vec![id.clone()];
        match link.kind {
            LinkKind::Bridge => {
                let ports = self.links.values_mut().filter_map(|link| match &mut link.kind {
                    LinkKind::VethHost { port, .. } => Some(port),
                    _ => None,
                });
                for port in ports {
                    port.take_if(|port| port.bridge == id.name);
                }
                let links = &self.links;
                self.fdb.retain(|entry| match links.get(&entry.port).map(|link| &link.kind) {
                    Some(LinkKind::VethHost { port, .. }) => port.is_some(),
                    _ => true,
                });
            }
            LinkKind::VethHost { peer, .. } | LinkKind::VethContainer { peer } => {
                self.links.remove(&peer);
                gone.push(peer);
            }
            LinkKind::Other(_) => {}
        }
        self.addrs.retain(|addr| !gone.contains(&addr.link));
        self.routes.retain(|route| !gone.contains(&route.link));
        self.neighbours.retain(|neighbour| !gone.contains(&neighbour.link));
        self.fdb.retain(|entry| !gone.contains(&entry.port));
        Ok(())
    }

    fn link(&self, id: &LinkId) -> Result<&Link, Impossible> {
        self.links.get(id).ok_or_else(|| Impossible::NoLink(id.clone()))
    }

    fn link_mut(&mut self, id: &LinkId) -> Result<&mut Link, Impossible> {
        self.links.get_mut(id).ok_or_else(|| Impossible::NoLink(id.clone()))
    }
}

fn added(new: bool) -> Result<(), Impossible> {
    if new { Ok(()) } else { Err(Impossible::Exists) }
}

fn removed(was: bool) -> Result<(), Impossible> {
    if was { Ok(()) } else { Err(Impossible::Missing) }
}

impl Scope {
    /// Speaks about everything that either speaks about. Where both name a switch, `other` says
    /// what value is ours.
    pub fn union(mut self, other: Self) -> Self {
        self.netns.extend(other.netns);
        // What either wants whole is whole.
        self.leaned.retain(|id| !other.links.contains(id) || other.leaned.contains(id));
        self.leaned.extend(other.leaned.into_iter().filter(|id| !self.links.contains(id)));
        self.links.extend(other.links);
        self.addrs.extend(other.addrs);
        self.neighbours.extend(other.neighbours);
        self.fdb.extend(other.fdb);
        self.sysctls.extend(other.sysctls);
        self.tables |= other.tables;
        self.elements.extend(other.elements);
        self.views.extend(other.views);
        self.hosts.extend(other.hosts);
        self.files.extend(other.files);
        self.mounts.extend(other.mounts);
        self.forwards.extend(other.forwards);
        self.processes.extend(other.processes);
        self
    }
}

impl fmt::Display for HostsView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().map(NetworkName::as_str).collect();
        f.write_str(&names.join(","))
    }
}

impl From<HostsView> for String {
    fn from(view: HostsView) -> Self {
        view.to_string()
    }
}

impl TryFrom<String> for HostsView {
    type Error = BadName;
    fn try_from(text: String) -> Result<Self, BadName> {
        text.split(',')
            .filter(|name| !name.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

impl fmt::Display for HostsLine {
    /// The line as it stands in the file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.addr)?;
        self.names
            .iter()
            .enumerate()
            .try_for_each(|(n, name)| write!(f, "{}{name}", if n == 0 { '\t' } else { ' ' }))
    }
}

impl FromStr for Forward {
    type Err = BadName;

    /// Reads what `Display` writes: `tcp 127.0.0.1:8080 10.1.0.2:80`.
    fn from_str(line: &str) -> Result<Self, BadName> {
        let read = || {
            let mut words = line.split_whitespace();
            let proto = words.next()?.parse().ok()?;
            let (listen, target) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            words.next().is_none().then_some(Self { proto, listen, target })
        };
        let why = "it is a protocol and two socket addresses";
        read().ok_or_else(|| BadName { kind: "forward", name: line.to_owned(), why })
    }
}

impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.proto, self.listen, self.target)
    }
}

impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hosts(container) => write!(f, "{container}:/etc/hosts"),
            Self::Resolv(container) => write!(f, "{container}:/etc/resolv.conf"),
        }
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Forwarder => f.write_str("loopback forwarder"),
        }
    }
}

impl fmt::Display for HostsSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::View(view) => write!(f, "names of {view}"),
            Self::Own => f.write_str("its own names"),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.dst.prefix_len() {
            0 if self.dst.addr().is_ipv4() => write!(f, "default")?,
            0 => write!(f, "default (IPv6)")?,
            _ => write!(f, "{}", self.dst)?,
        }
        if let Some(via) = self.via {
            write!(f, " via {via}")?;
        }
        write!(f, " dev {}", self.link)?;
        self.src.map_or(Ok(()), |src| write!(f, " src {src}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DelForward { forward: x } => {
                write!(f, "stop forwarding {} {}", x.proto, x.listen)
            }
            Self::StopProcess { process } => write!(f, "stop the {process}"),
            Self::DelElement { id, element } => write!(f, "delete {id} for {}", element.comment),
            Self::DelHostsLine { line } => write!(f, "unname {} in {}", line.addr, line.view),
            Self::DelHostsView { view } => write!(f, "delete hosts file of {view}"),
            Self::DelFile { file } => write!(f, "delete {file}"),
            Self::DelNeighbour { neighbour: x } => {
                write!(f, "del neighbour {} dev {}", x.addr, x.link)
            }
            Self::DelFdb { entry } => write!(f, "del fdb {} dev {}", entry.mac, entry.port),
            Self::DelRoute { route } => write!(f, "del route {route}"),
            Self::DelAddr { addr } => write!(f, "del addr {} from {}", addr.net, addr.link),
            Self::DropNetns { container } => write!(f, "let go of the namespace of {container}"),
            Self::DelLink { link } => write!(f, "del link {link}"),
            Self::DelTables => f.write_str("delete tables twinax"),
            Self::RestoreSysctl { sysctl, value } => write!(f, "restore {} = {value}", sysctl.0),
            Self::SetSysctl { sysctl, turned } => {
                write!(f, "set {} = {} (was {})", sysctl.0, turned.ours, turned.former)
            }
            Self::PutTables => f.write_str("write tables twinax"),
            _ => self.fmt_build(f),
        }
    }
}

impl Op {
    fn fmt_build(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddBridge { id, link } => write!(f, "add bridge {id} mtu {}", link.mtu),
            Self::AddVeth { id, link, peer, .. } => {
                write!(f, "add veth {id} peer {peer} mtu {}", link.mtu)?;
                match &link.kind {
                    LinkKind::VethHost { port: Some(port), .. } => write!(f, " on {port}"),
                    _ => Ok(()),
                }
            }
            Self::SetPort { link, port } => write!(f, "set {link} on {port}"),
            Self::SetMtu { link, mtu } => write!(f, "set {link} mtu {mtu}"),
            Self::SetMac { link, mac } => write!(f, "set {link} mac {mac}"),
            Self::SetGroup { link, group } => write!(f, "set {link} group {:#x}", group.0),
            Self::SetAlias { link, alias } => write!(f, "set {link} alias {alias:?}"),
            Self::SetUp { link } => write!(f, "set {link} up"),
            Self::AddAddr { addr } => write!(f, "add addr {} to {}", addr.net, addr.link),
            Self::AddRoute { route } => write!(f, "add route {route}"),
            Self::AddNeighbour { neighbour: x } => {
                write!(f, "add neighbour {} is {} dev {}", x.addr, x.mac, x.link)
            }
            Self::AddFdb { entry } => write!(f, "add fdb {} dev {}", entry.mac, entry.port),
            Self::PutFile { file, .. } => write!(f, "write {file}"),
            Self::AddHostsView { view } => write!(f, "write hosts file of {view}"),
            Self::AddHostsLine { line } => {
                let names: Vec<_> = line.names.iter().map(HostName::as_str).collect();
                write!(f, "name {} {} in {}", line.addr, names.join(" "), line.view)
            }
            Self::MountHosts { container, source } => write!(f, "show {container} {source}"),
            Self::AddElement { id, element } => {
                write!(f, "add {} for {}", id.with(&element.value), element.comment)
            }
            Self::StartProcess { process } => write!(f, "start the {process}"),
            Self::AddForward { forward: x } => {
                write!(f, "forward {} {} -> {}", x.proto, x.listen, x.target)
            }
            _ => unreachable!("the undoing half is written above"),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.bridge)?;
        if self.hairpin {
            f.write_str(" hairpin")?;
        }
        Ok(())
    }
}
