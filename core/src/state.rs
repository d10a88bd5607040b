//! What users asked for and what we promised them: this is what is stored.
//!
//! A [`State`] may be partial. Each [`Table`] knows which rows it speaks about, and panics in
//! debug builds when asked for another: so a request that needs a row it did not load is found
//! by the first test that runs it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    model::{HostsView, Sysctl, Turned},
    name::{ContainerName, HostName, IfName, Mac, NetworkName, Proto},
    pool::Leases,
    ruleset::Group,
};

/// The network a container joins when it names none, as `docker0` is Docker's.
pub const DEFAULT_NETWORK: &str = "default";

/// All promises, or those within some [`Keys`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub host: Host,
    pub networks: Table<NetworkName, Network>,
    /// Which addresses of a network are given out; apart from `networks`, as it changes often.
    pub leases: Table<NetworkName, Leases>,
    pub containers: Table<ContainerName, Container>,
    /// Who has which port of the host.
    pub ports: Table<PortKey, Vec<PortClaim>>,
}

/// Which rows a request needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Everything there is.
    pub all: bool,
    /// Every network's definition and leases, but not every container.
    pub all_networks: bool,
    pub networks: BTreeSet<NetworkName>,
    /// A container brings the networks it is attached to, and the ports it publishes.
    pub containers: BTreeSet<ContainerName>,
    pub ports: BTreeSet<PortKey>,
}

impl Keys {
    /// Names every row that is loaded in `state`: a container whose row is already gone no longer
    /// brings its networks.
    pub fn with_rows_of(mut self, state: &State) -> Self {
        if !self.all {
            self.networks.extend(state.networks.loaded().keys().cloned());
            self.containers.extend(state.containers.loaded().keys().cloned());
            self.ports.extend(state.ports.loaded().keys().copied());
        }
        self
    }
}

/// Rows of one kind, and which of them are spoken about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table<K: Ord, V> {
    rows: BTreeMap<K, V>,
    known: Known<K>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Known<K: Ord> {
    All,
    Only(BTreeSet<K>),
}

impl<K: Ord, V> Default for Table<K, V> {
    /// An empty table that speaks about every row.
    fn default() -> Self {
        Self { rows: BTreeMap::new(), known: Known::All }
    }
}

impl<K: Ord + Clone + std::fmt::Debug, V> Table<K, V> {
    /// A table that speaks only about `keys`.
    pub fn only(keys: BTreeSet<K>) -> Self {
        Self { rows: BTreeMap::new(), known: Known::Only(keys) }
    }

    fn check(&self, key: &K) {
        if let Known::Only(keys) = &self.known {
            debug_assert!(keys.contains(key), "{key:?} was not loaded");
        }
    }

    /// Returns a row. Panics in debug builds if the table does not speak about `key`.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.check(key);
        self.rows.get(key)
    }

    /// As [`Self::get`], to be changed.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.check(key);
        self.rows.get_mut(key)
    }

    /// Puts a row and returns the one before. Panics as [`Self::get`] does.
    pub fn insert(&mut self, key: K, row: V) -> Option<V> {
        self.check(&key);
        self.rows.insert(key, row)
    }

    /// Takes a row away. Panics as [`Self::get`] does.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        self.check(key);
        self.rows.remove(key)
    }

    /// Every row there is; only a table that speaks about all rows may be asked.
    pub fn all(&self) -> &BTreeMap<K, V> {
        debug_assert!(matches!(self.known, Known::All), "not every row was loaded");
        &self.rows
    }

    /// The rows that are here, which need not be all.
    pub fn loaded(&self) -> &BTreeMap<K, V> {
        &self.rows
    }

    /// Speaks about `key` too, from here on.
    pub fn learn(&mut self, key: K) {
        if let Known::Only(keys) = &mut self.known {
            keys.insert(key);
        }
    }

    /// Whether it speaks about every row.
    pub fn complete(&self) -> bool {
        matches!(self.known, Known::All)
    }

    /// Whether it speaks about the row of `key`.
    pub fn knows(&self, key: &K) -> bool {
        match &self.known {
            Known::All => true,
            Known::Only(keys) => keys.contains(key),
        }
    }
}

/// The record of the network namespace that Twinax runs in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// The last number given to a cable; numbers are never used twice.
    pub serial: u32,
    /// How many networks there are: our tables stand while there is one.
    pub networks: u32,
    /// Where the search for a free host port goes on.
    pub next_port: u16,
    /// The 40 random bits of our unique local addresses (RFC 4193); chosen once.
    pub site: Option<[u8; 5]>,
    /// Switches that we turned, with the value we set and the one we found.
    pub sysctls: BTreeMap<Sysctl, Turned>,
    /// How many networks need each switch, turned by us or found so.
    #[serde(default)]
    pub needed: BTreeMap<Sysctl, u32>,
    /// Which hosts files are in use, and by how many containers.
    pub views: BTreeMap<HostsView, u32>,
    /// How many ports are published on the host's loopback: the forwarder runs while there are.
    pub forwards: u32,
    /// Addresses of cables that were cut while their far end may still live: not given out
    /// again until the link is gone.
    pub ghosts: BTreeMap<IfName, Vec<(NetworkName, IpAddr)>>,
}

/// A network, as it was asked for and what was chosen for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    pub driver: Driver,
    /// 1..=65535, the smallest that was free; [`Group`] derives from it.
    pub number: u32,
    pub bridge: IfName,
    pub subnets: Vec<Subnet>,
    /// No way out and no way in, but between its own containers and their gateway.
    pub internal: bool,
    /// Whether containers of the network may talk to each other.
    pub icc: bool,
    pub mode4: GatewayMode,
    pub mode6: GatewayMode,
    pub mtu: u32,
    pub labels: BTreeMap<String, String>,
}

impl Network {
    /// Returns the group of the network's links on the host.
    pub fn group(&self) -> Group {
        Group(crate::ruleset::GROUP_BASE + self.number)
    }
}

/// How containers are tied to a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Driver {
    #[default]
    Bridge,
    /// A veth with a host route and no bridge.
    Routed,
}

/// What a network's gateway does, per address family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GatewayMode {
    /// Containers go out under the host's address; published ports lead in.
    #[default]
    Nat,
    /// Containers go out under their own; published ports are open on their addresses.
    Routed,
    /// The host has no address on the network.
    Isolated,
}

/// A subnet of a network, and what may be given out of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    pub net: IpNet,
    pub gateway: IpAddr,
    /// Addresses are given out of here only; `net` itself unless asked otherwise.
    pub range: IpNet,
    /// Never given out, by label.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// A container, or a namespace of somebody else's, with all that was promised to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Container {
    /// 12 hexadecimal digits, as Docker's short ids; also names its directory.
    pub id: String,
    pub sandbox: Sandbox,
    pub hostname: Option<HostName>,
    /// By the order of attaching.
    pub endpoints: Vec<Endpoint>,
    pub published: Vec<Published>,
    /// Which hosts file it reads, if Twinax runs it and it is on a named network.
    pub view: Option<HostsView>,
    pub dns: Vec<IpAddr>,
    /// What is run, if Twinax runs it.
    pub run: Option<Run>,
    /// Whose default routes these are: found when the namespace was first attached.
    #[serde(default)]
    pub led: Led,
}

/// In which families another than Twinax gives a namespace its default route, so that Twinax
/// leaves that alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Led {
    pub v4: bool,
    pub v6: bool,
}

/// How the namespace of a container is found, and how it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    pub way: Way,
    /// `SO_NETNS_COOKIE`: unique until the next boot. `None` once the namespace is gone.
    pub cookie: Option<u64>,
}

/// How a network namespace is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// A process in it, with its start time (field 22 of `/proc/PID/stat`) so that a number
    /// used again is not taken for it.
    Pid { pid: u32, start: u64 },
    /// A file that the namespace is mounted on.
    Path(String),
    /// The host's own namespace: `--network host`.
    Host,
    /// Another container's: `--network container:NAME`.
    Of(ContainerName),
}

/// A process that Twinax runs in the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub command: Vec<String>,
    /// Remove the container when it exits.
    pub remove: bool,
    pub status: Status,
    /// Seconds since 1970.
    pub created: u64,
    /// Which lab made it, and a digest of what the lab asked for.
    pub lab: Option<Lab>,
}

/// Which lab made a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lab {
    pub name: String,
    pub digest: String,
    /// The lab file's path, so that another file of the same name is told apart.
    #[serde(default)]
    pub file: String,
}

/// Whether a container's processes are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// `init` and `supervisor` are processes of the host, with their start times.
    Running { init: (u32, u64), supervisor: (u32, u64) },
    /// As `Running`, but promised to be ended: it has neither endpoints nor ports any more, and
    /// whoever finds it so may end it.
    Ending { init: (u32, u64), supervisor: (u32, u64) },
    /// An exit code; 128 + n where signal n ended it; `None` where nobody saw it end.
    Exited { code: Option<i32>, at: u64 },
}

/// A container's place on a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub network: NetworkName,
    /// Number, and so name (`txvN`) and index, of the host end; never used twice.
    pub number: u32,
    /// Name inside the container.
    pub ifname: IfName,
    pub mac: Mac,
    pub addrs: Vec<IpAddr>,
    pub aliases: Vec<HostName>,
    /// The highest gives the container its default route; then the order of attaching.
    pub gateway_priority: i32,
}

/// A published port: one, not a range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    pub proto: Proto,
    /// `None`: every address of the host, of both families.
    pub host: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortKey {
    pub proto: Proto,
    pub port: u16,
}

/// Who has a port of the host, and on which address; `None` is every one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortClaim {
    pub host: Option<IpAddr>,
    pub container: ContainerName,
}

/// What is asked, in order; all of it happens or none.
pub type Request = Vec<Change>;

/// One thing asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    clippy::large_enum_variant,
    reason = "a request holds few changes, and a container is put by value"
)]
pub enum Change {
    CreateNetwork {
        name: NetworkName,
        spec: NetworkSpec,
    },
    RemoveNetwork {
        name: NetworkName,
    },
    /// Makes a container known; it has no endpoint yet.
    PutContainer {
        name: ContainerName,
        container: Container,
    },
    /// Detaches it everywhere and forgets it.
    RemoveContainer {
        name: ContainerName,
    },
    /// Its process is about to be ended by the one who asks: detaches it everywhere while its
    /// namespace still lives, which spares everybody the wait for the kernel that takes it away.
    /// Nothing happens where it has ended, or is not known any more.
    End {
        name: ContainerName,
    },
    /// Its process has ended: detaches it everywhere and keeps the record.
    Exited {
        name: ContainerName,
        code: Option<i32>,
    },
    Attach {
        container: ContainerName,
        spec: AttachSpec,
    },
    Detach {
        container: ContainerName,
        network: NetworkName,
    },
    Publish {
        container: ContainerName,
        ports: Vec<PublishSpec>,
    },
    Unpublish {
        container: ContainerName,
        ports: Vec<PublishSpec>,
    },
}

/// What a network is asked to be; what is left open is chosen by `decide`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct NetworkSpec {
    pub driver: Driver,
    /// No IPv4 at all.
    pub no_ipv4: bool,
    pub ipv6: bool,
    pub subnets: Vec<SubnetSpec>,
    pub internal: bool,
    pub no_icc: bool,
    pub mode4: GatewayMode,
    pub mode6: GatewayMode,
    pub mtu: Option<u32>,
    pub bridge: Option<IfName>,
    pub labels: BTreeMap<String, String>,
}

/// A subnet as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SubnetSpec {
    pub net: IpNet,
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    #[serde(default)]
    pub range: Option<IpNet>,
    #[serde(default)]
    pub reserved: BTreeMap<String, IpAddr>,
}

/// What an endpoint shall be like, as asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachSpec {
    pub network: NetworkName,
    pub ip: Option<Ipv4Addr>,
    pub ip6: Option<Ipv6Addr>,
    pub mac: Option<Mac>,
    pub aliases: Vec<HostName>,
    pub ifname: Option<IfName>,
    pub gateway_priority: i32,
}

impl AttachSpec {
    /// Asks for an endpoint in `network` and leaves all else to be chosen.
    pub fn new(network: NetworkName) -> Self {
        Self {
            network,
            ip: None,
            ip6: None,
            mac: None,
            aliases: Vec::new(),
            ifname: None,
            gateway_priority: 0,
        }
    }
}

/// `[host:][first[-last]:]first[-last][/proto]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishSpec {
    pub proto: Proto,
    pub host: Option<IpAddr>,
    /// `None`: any free port. A range wider than the container's means: the first free ones.
    pub host_ports: Option<(u16, u16)>,
    pub container_ports: (u16, u16),
}

impl Network {
    /// Returns the subnet that `addr` lies in.
    pub fn subnet_of(&self, addr: IpAddr) -> Option<&Subnet> {
        self.subnets.iter().find(|subnet| subnet.net.contains(&addr))
    }
}

impl Container {
    /// A container of which nothing is known but where it is, and to which nothing is promised yet.
    pub fn bare(id: String, sandbox: Sandbox) -> Self {
        Self {
            id,
            sandbox,
            hostname: None,
            endpoints: Vec::new(),
            published: Vec::new(),
            view: None,
            dns: Vec::new(),
            run: None,
            led: Led::default(),
        }
    }

    /// Whether Twinax ran it and it has ended.
    pub fn exited(&self) -> bool {
        self.run.as_ref().is_some_and(|run| matches!(run.status, Status::Exited { .. }))
    }

    /// Whether Twinax ran it and it is about to be ended.
    pub fn ending(&self) -> bool {
        self.run.as_ref().is_some_and(|run| matches!(run.status, Status::Ending { .. }))
    }

    /// Whether it can be given nothing more, as its end is promised or past.
    pub fn is_over(&self) -> bool {
        self.exited() || self.ending()
    }
}

impl Run {
    /// Its first process, with its start time, until it has ended.
    pub fn init(&self) -> Option<(u32, u64)> {
        match self.status {
            Status::Running { init, .. } | Status::Ending { init, .. } => Some(init),
            Status::Exited { .. } => None,
        }
    }

    /// The process that keeps its log and records its end, with its start time, until then.
    pub fn supervisor(&self) -> Option<(u32, u64)> {
        match self.status {
            Status::Running { supervisor, .. } | Status::Ending { supervisor, .. } => {
                Some(supervisor)
            }
            Status::Exited { .. } => None,
        }
    }
}

impl Sandbox {
    /// Whether the namespace is the container's alone, so that it goes with its process.
    pub fn is_own(&self) -> bool {
        matches!(self.way, Way::Pid { .. })
    }
}

impl Published {
    /// Whether it is reachable on the loopback address `on` (127.0.0.1 or ::1).
    pub fn covers(&self, on: IpAddr) -> bool {
        self.host.is_none_or(|host| {
            host.is_ipv4() == on.is_ipv4() && (host.is_unspecified() || host.is_loopback())
        })
    }

    /// The loopback address it listens on: the one asked for, as 127.0.0.2, or else `on`.
    pub fn loopback(&self, on: IpAddr) -> IpAddr {
        self.host.filter(IpAddr::is_loopback).unwrap_or(on)
    }
}

/// One stored row, as a journal keeps it: what it becomes, or that it goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "rows are moved, not kept in numbers")]
pub enum Row {
    Host(Host),
    Network(NetworkName, Option<Network>),
    Leases(NetworkName, Option<Leases>),
    Container(ContainerName, Option<Container>),
    Port(PortKey, Option<Vec<PortClaim>>),
}

impl State {
    /// Returns the rows that turn `before` into `self`, in the order they are to be written.
    pub fn changes_since(&self, before: &Self) -> Vec<Row> {
        let mut rows = Vec::new();
        if self.host != before.host {
            rows.push(Row::Host(self.host.clone()));
        }
        self.networks.changes_since(&before.networks, |k, v| rows.push(Row::Network(k, v)));
        self.leases.changes_since(&before.leases, |k, v| rows.push(Row::Leases(k, v)));
        self.containers.changes_since(&before.containers, |k, v| rows.push(Row::Container(k, v)));
        self.ports.changes_since(&before.ports, |k, v| rows.push(Row::Port(k, v)));
        rows
    }

    /// Puts `row` in its place.
    pub fn put(&mut self, row: Row) {
        match row {
            Row::Host(host) => self.host = host,
            Row::Network(key, value) => self.networks.put(key, value),
            Row::Leases(key, value) => self.leases.put(key, value),
            Row::Container(key, value) => self.containers.put(key, value),
            Row::Port(key, value) => self.ports.put(key, value),
        }
    }
}

impl<K: Ord + Clone + std::fmt::Debug, V: Clone + PartialEq> Table<K, V> {
    fn changes_since(&self, before: &Self, mut changed: impl FnMut(K, Option<V>)) {
        for (key, row) in &self.rows {
            if before.rows.get(key) != Some(row) {
                changed(key.clone(), Some(row.clone()));
            }
        }
        for key in before.rows.keys().filter(|key| !self.rows.contains_key(key)) {
            changed(key.clone(), None);
        }
    }

    fn put(&mut self, key: K, row: Option<V>) {
        self.learn(key.clone());
        match row {
            Some(row) => self.insert(key, row),
            None => self.remove(&key),
        };
    }
}
