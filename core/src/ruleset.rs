//! The firewall: fixed chains, written once, and the sets and maps that hold all that varies.
//!
//! Chains and rules are data (`tables`), and their `Display` is text that `nft -f` takes; the shell
//! encodes the same data for the kernel. Nothing in a rule names a network or a container: policy
//! goes by the group of a link, everything else by the elements of the sets.
//!
//! May not: know how any of this reaches the kernel.

use std::{
    fmt::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

use crate::name::{IfName, Mac, Proto};

/// The link group (`IFLA_GROUP`, nft `iifgroup`) of a network: its bridge, or its routed veths.
///
/// Groups of ours are `GROUP_BASE + n`, so that a group also says that a link is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Group(pub u32);

/// `tx` in ASCII, in the upper half.
pub const GROUP_BASE: u32 = 0x7478_0000;

/// Every set and map of the two tables. Each knows its table, key and data (see `SetName::key`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetName {
    /// `inet`: groups that are ours, one a network.
    Ours,
    /// `inet`: (group . group), one a network: traffic that stays within it.
    Same,
    /// `inet`: (group . group) of the networks whose containers may talk to each other.
    Icc,
    /// `inet`: group → chain, by the interface an IPv4 packet came in on (forwarded).
    From4,
    From6,
    /// `inet`: group → chain, by the interface an IPv4 packet is about to leave by (forwarded).
    To4,
    To6,
    /// `inet`: group → chain, for packets to the host itself.
    Host4,
    Host6,
    /// `inet`: groups whose traffic to the outside is masqueraded.
    Nat4,
    Nat6,
    /// `inet`: (host address . protocol . port) → (container address . port).
    Dnat4,
    Dnat6,
    /// `inet`: (protocol . port) → (container address . port), on every address of the host.
    Any4,
    Any6,
    /// `inet`: (container address . protocol . port) that are published.
    Open4,
    Open6,
    /// `inet`: groups of routed networks, whose veths carry the source check below.
    Routed,
    /// `inet`: (interface . source address) that a routed container may send from.
    RoutedSource4,
    RoutedSource6,
    /// `bridge`: (interface . source MAC) that a bridged container may send from.
    PortMac,
    /// `bridge`: (interface . source address) that a bridged container may send from.
    PortSource4,
    PortSource6,
    /// `bridge`: interfaces of the bridged containers that may talk to their gateway only.
    PortAlone,
    /// `bridge`: (interface . MAC of its gateway), one for each of these.
    PortGateway,
}

/// One part of a key or a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Datum {
    Group(Group),
    IfName(IfName),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    Mac(Mac),
    Proto(Proto),
    Port(u16),
}

impl From<IpAddr> for Datum {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::V4(addr),
            IpAddr::V6(addr) => Self::V6(addr),
        }
    }
}

impl fmt::Display for Datum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(Group(group)) => write!(f, "{group:#x}"),
            Self::IfName(name) => write!(f, "{name}"),
            Self::V4(addr) => write!(f, "{addr}"),
            Self::V6(addr) => write!(f, "{addr}"),
            Self::Mac(mac) => write!(f, "{mac}"),
            Self::Proto(proto) => write!(f, "{proto}"),
            Self::Port(port) => write!(f, "{port}"),
        }
    }
}

/// Which element: its set and its key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ElementId {
    pub set: SetName,
    pub key: Vec<Datum>,
}

/// What an element of a map leads to; an element of a plain set has `Value::None`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    None,
    /// Verdict `goto chain`.
    Goto(Chain),
    /// A concatenation, as `ip . port`.
    Concat(Vec<Datum>),
}

/// The chains that verdict maps lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Chain {
    /// Into a network behind NAT: replies, and what came in by a published port.
    ToNat,
    /// Into a routed network: replies, ICMP echo, and open ports.
    ToRouted,
    /// Into an internal or isolated network: nothing.
    ToClosed,
    /// Out of an internal or isolated network: nothing.
    FromClosed,
    /// From an internal network to the host: to the gateway's address only.
    HostGateway,
    /// From an isolated network to the host: nothing.
    HostClosed,
}

mod fixed;

pub use fixed::tables;

/// Raised when the same text comes to be encoded otherwise, so that old tables are replaced.
pub const TABLES_VERSION: u32 = 1;

/// Our two tables; both are called `twinax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TableName {
    Inet,
    Bridge,
}

impl TableName {
    /// Both, in the order they are written.
    pub const ALL: [Self; 2] = [Self::Inet, Self::Bridge];
    /// The name of both, within its family.
    pub const NAME: &'static str = "twinax";

    /// Returns the family's name, as `nft` has it.
    pub fn family(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.family(), Self::NAME)
    }
}

/// The type of one part of a key or a value; its `Display` is nft's name of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyType {
    Group,
    IfName,
    V4,
    V6,
    Mac,
    Proto,
    Port,
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Group => "devgroup",
            Self::IfName => "ifname",
            Self::V4 => "ipv4_addr",
            Self::V6 => "ipv6_addr",
            Self::Mac => "ether_addr",
            Self::Proto => "inet_proto",
            Self::Port => "inet_service",
        })
    }
}

impl Datum {
    /// Returns the type of the set's field that takes it.
    pub fn key_type(&self) -> KeyType {
        match self {
            Self::Group(_) => KeyType::Group,
            Self::IfName(_) => KeyType::IfName,
            Self::V4(_) => KeyType::V4,
            Self::V6(_) => KeyType::V6,
            Self::Mac(_) => KeyType::Mac,
            Self::Proto(_) => KeyType::Proto,
            Self::Port(_) => KeyType::Port,
        }
    }
}

/// What the elements of a set lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataType {
    /// Nothing: a plain set.
    None,
    Verdict,
    Concat(&'static [KeyType]),
}

impl SetName {
    /// All sets and maps.
    pub const ALL: [Self; 25] = [
        Self::Ours,
        Self::Same,
        Self::Icc,
        Self::From4,
        Self::From6,
        Self::To4,
        Self::To6,
        Self::Host4,
        Self::Host6,
        Self::Nat4,
        Self::Nat6,
        Self::Dnat4,
        Self::Dnat6,
        Self::Any4,
        Self::Any6,
        Self::Open4,
        Self::Open6,
        Self::Routed,
        Self::RoutedSource4,
        Self::RoutedSource6,
        Self::PortMac,
        Self::PortSource4,
        Self::PortSource6,
        Self::PortAlone,
        Self::PortGateway,
    ];

    /// Returns its name in the kernel, an identifier of nft's grammar.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Same => "same",
            Self::Icc => "icc",
            Self::From4 => "from4",
            Self::From6 => "from6",
            Self::To4 => "to4",
            Self::To6 => "to6",
            Self::Host4 => "host4",
            Self::Host6 => "host6",
            Self::Nat4 => "nat4",
            Self::Nat6 => "nat6",
            Self::Dnat4 => "dnat4",
            Self::Dnat6 => "dnat6",
            Self::Any4 => "any4",
            Self::Any6 => "any6",
            Self::Open4 => "open4",
            Self::Open6 => "open6",
            Self::Routed => "routed",
            Self::RoutedSource4 => "routed-source4",
            Self::RoutedSource6 => "routed-source6",
            Self::PortMac => "port-mac",
            Self::PortSource4 => "port-source4",
            Self::PortSource6 => "port-source6",
            Self::PortAlone => "port-alone",
            Self::PortGateway => "port-gateway",
        }
    }

    /// Returns the table that it is in.
    pub fn table(self) -> TableName {
        match self {
            Self::PortMac | Self::PortSource4 | Self::PortSource6 => TableName::Bridge,
            Self::PortAlone | Self::PortGateway => TableName::Bridge,
            _ => TableName::Inet,
        }
    }

    /// Returns the types of the parts of its key, in order.
    pub fn key(self) -> &'static [KeyType] {
        use KeyType::{Group, IfName, Mac, Port, Proto, V4, V6};
        match self {
            Self::Same | Self::Icc => &[Group, Group],
            Self::Ours | Self::Nat4 | Self::Nat6 | Self::Routed => &[Group],
            Self::From4 | Self::To4 | Self::Host4 => &[Group],
            Self::From6 | Self::To6 | Self::Host6 => &[Group],
            Self::Dnat4 | Self::Open4 => &[V4, Proto, Port],
            Self::Dnat6 | Self::Open6 => &[V6, Proto, Port],
            Self::Any4 | Self::Any6 => &[Proto, Port],
            Self::RoutedSource4 | Self::PortSource4 => &[IfName, V4],
            Self::RoutedSource6 | Self::PortSource6 => &[IfName, V6],
            Self::PortMac | Self::PortGateway => &[IfName, Mac],
            Self::PortAlone => &[IfName],
        }
    }

    /// Returns what its elements map to.
    pub fn data(self) -> DataType {
        match self {
            Self::From4 | Self::To4 | Self::Host4 => DataType::Verdict,
            Self::From6 | Self::To6 | Self::Host6 => DataType::Verdict,
            Self::Dnat4 | Self::Any4 => DataType::Concat(&[KeyType::V4, KeyType::Port]),
            Self::Dnat6 | Self::Any6 => DataType::Concat(&[KeyType::V6, KeyType::Port]),
            _ => DataType::None,
        }
    }
}

impl fmt::Display for SetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Chain {
    /// All chains that elements lead to.
    pub const ALL: [Self; 6] = [
        Self::ToNat,
        Self::ToRouted,
        Self::ToClosed,
        Self::FromClosed,
        Self::HostGateway,
        Self::HostClosed,
    ];

    /// Returns the chain's name in the kernel.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ToNat => "to-nat",
            Self::ToRouted => "to-routed",
            Self::ToClosed => "to-closed",
            Self::FromClosed => "from-closed",
            Self::HostGateway => "host-gateway",
            Self::HostClosed => "host-closed",
        }
    }
}

impl ElementId {
    /// Returns whether key and value have the types that the set was made with.
    pub fn fits(&self, value: &Value) -> bool {
        let right = match (self.set.data(), value) {
            (DataType::None, Value::None) | (DataType::Verdict, Value::Goto(_)) => true,
            (DataType::Concat(types), Value::Concat(data)) => are(types, data),
            _ => false,
        };
        right && self.key_fits()
    }

    /// Returns whether the key has the types that the set was made with.
    pub fn key_fits(&self) -> bool {
        are(self.set.key(), &self.key)
    }

    /// Shows the element with its value: `inet any4 { tcp . 8080 : 10.1.0.2 . 80 }`.
    pub fn with<'a>(&'a self, value: &'a Value) -> impl fmt::Display + 'a {
        std::fmt::from_fn(move |f| {
            write!(f, "{} {} {{ {}", self.set.table().family(), self.set, Joined(&self.key))?;
            match value {
                Value::None => f.write_str(" }"),
                value => write!(f, " : {value} }}"),
            }
        })
    }
}

fn are(types: &[KeyType], data: &[Datum]) -> bool {
    types.iter().copied().eq(data.iter().map(Datum::key_type))
}

impl fmt::Display for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(&Value::None).fmt(f)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Goto(chain) => write!(f, "goto {}", chain.as_str()),
            Self::Concat(data) => Joined(data).fmt(f),
        }
    }
}

/// A concatenation: its parts with nft's dots between.
struct Joined<'a, T>(&'a [T]);

impl<T: fmt::Display> fmt::Display for Joined<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { " . " })?;
            part.fmt(f)?;
        }
        Ok(())
    }
}

/// An address family, as `meta nfproto` and NAT name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

/// What of a packet a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Index of the interface it came in by; 0 where there is none, or none is told.
    Iif,
    IifName,
    IifGroup,
    OifGroup,
    Nfproto,
    L4Proto,
    /// The ethertype, after the VLAN tag that the kernel has taken off.
    Protocol,
    ThDport,
    IpSaddr,
    IpDaddr,
    Ip6Saddr,
    Ip6Daddr,
    EtherSaddr,
    EtherDaddr,
    ArpSaddrIp,
    IcmpType,
    Icmp6Type,
    CtState,
    CtStatus,
    /// The kind of its source address as the routing table knows it.
    FibSaddrType,
    FibDaddrType,
    /// As before, where only addresses of the interface it came in by are local.
    FibDaddrIifType,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Iif => "iif",
            Self::IifName => "iifname",
            Self::IifGroup => "iifgroup",
            Self::OifGroup => "oifgroup",
            Self::Nfproto => "meta nfproto",
            Self::L4Proto => "meta l4proto",
            Self::Protocol => "meta protocol",
            Self::ThDport => "th dport",
            Self::IpSaddr => "ip saddr",
            Self::IpDaddr => "ip daddr",
            Self::Ip6Saddr => "ip6 saddr",
            Self::Ip6Daddr => "ip6 daddr",
            Self::EtherSaddr => "ether saddr",
            Self::EtherDaddr => "ether daddr",
            Self::ArpSaddrIp => "arp saddr ip",
            Self::IcmpType => "icmp type",
            Self::Icmp6Type => "icmpv6 type",
            Self::CtState => "ct state",
            Self::CtStatus => "ct status",
            Self::FibSaddrType => "fib saddr type",
            Self::FibDaddrType => "fib daddr type",
            Self::FibDaddrIifType => "fib daddr . iif type",
        })
    }
}

/// A protocol over IP that rules name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum L4 {
    Icmp,
    Icmp6,
}

/// A protocol over Ethernet that rules name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtherType {
    Ip,
    Arp,
    Ip6,
    /// 802.1Q.
    Vlan,
    /// 802.1ad.
    ServiceVlan,
}

impl EtherType {
    /// IEEE's number.
    pub fn number(self) -> u16 {
        match self {
            Self::Ip => 0x0800,
            Self::Arp => 0x0806,
            Self::Ip6 => 0x86dd,
            Self::Vlan => 0x8100,
            Self::ServiceVlan => 0x88a8,
        }
    }
}

/// An ICMPv6 type that rules name (RFC 2710, RFC 3810, RFC 4443, RFC 4861).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Icmp6 {
    EchoRequest,
    ListenerReport,
    ListenerDone,
    ListenerReport2,
    RouterAdvert,
    NeighborSolicit,
    NeighborAdvert,
    Redirect,
}

impl Icmp6 {
    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Self::EchoRequest => 128,
            Self::ListenerReport => 131,
            Self::ListenerDone => 132,
            Self::ListenerReport2 => 143,
            Self::RouterAdvert => 134,
            Self::NeighborSolicit => 135,
            Self::NeighborAdvert => 136,
            Self::Redirect => 137,
        }
    }
}

/// What a field is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal {
    Family(Family),
    L4(L4),
    EtherType(EtherType),
    /// ICMP echo request (RFC 792), the only ICMP type that a rule names.
    EchoRequest,
    Icmp6(Icmp6),
    V4(Ipv4Addr),
    V6(Ipv6Addr),
    /// An address and the number of bits that count.
    Net4(Ipv4Addr, u8),
    Net6(Ipv6Addr, u8),
    /// The Ethernet address of everybody.
    Broadcast,
    /// Connection tracking: a packet of a connection that was let through, or an error about it.
    Established,
    /// Connection tracking: the destination was translated.
    DestinationNat,
    /// Routing: an address of this host.
    Local,
    /// No interface.
    NoInterface,
    /// Every interface whose name starts so.
    NamePrefix(&'static str),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Family(Family::V4) => "ipv4",
            Self::Family(Family::V6) => "ipv6",
            Self::L4(L4::Icmp) => "icmp",
            Self::L4(L4::Icmp6) => "ipv6-icmp",
            Self::EtherType(EtherType::Ip) => "ip",
            Self::EtherType(EtherType::Arp) => "arp",
            Self::EtherType(EtherType::Ip6) => "ip6",
            Self::EtherType(EtherType::Vlan) => "8021q",
            Self::EtherType(EtherType::ServiceVlan) => "8021ad",
            Self::EchoRequest | Self::Icmp6(Icmp6::EchoRequest) => "echo-request",
            Self::Icmp6(Icmp6::ListenerReport) => "mld-listener-report",
            Self::Icmp6(Icmp6::ListenerDone) => "mld-listener-done",
            Self::Icmp6(Icmp6::ListenerReport2) => "mld2-listener-report",
            Self::Icmp6(Icmp6::RouterAdvert) => "nd-router-advert",
            Self::Icmp6(Icmp6::NeighborSolicit) => "nd-neighbor-solicit",
            Self::Icmp6(Icmp6::NeighborAdvert) => "nd-neighbor-advert",
            Self::Icmp6(Icmp6::Redirect) => "nd-redirect",
            Self::Established => "established,related",
            Self::DestinationNat => "dnat",
            Self::Broadcast => "ff:ff:ff:ff:ff:ff",
            Self::Local => "local",
            Self::NoInterface => "0",
            Self::V4(addr) => return addr.fmt(f),
            Self::V6(addr) => return addr.fmt(f),
            Self::Net4(addr, bits) => return write!(f, "{addr}/{bits}"),
            Self::Net6(addr, bits) => return write!(f, "{addr}/{bits}"),
            Self::NamePrefix(prefix) => return write!(f, "\"{prefix}*\""),
        })
    }
}

/// One condition of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Match {
    Is(Field, Literal),
    IsNot(Field, Literal),
    /// The concatenation of the fields is an element of the set.
    In(&'static [Field], SetName),
    NotIn(&'static [Field], SetName),
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(field, literal) => write!(f, "{field} {literal}"),
            Self::IsNot(field, literal) => write!(f, "{field} != {literal}"),
            Self::In(fields, set) => write!(f, "{} @{set}", Joined(fields)),
            Self::NotIn(fields, set) => write!(f, "{} != @{set}", Joined(fields)),
        }
    }
}

/// What a rule does with a packet that meets all its conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
    /// Takes the verdict that the map has for the fields; goes on to the next rule if it has none.
    Vmap(&'static [Field], SetName),
    /// Translates the destination to what the map has for the fields; goes on if it has none.
    Dnat(Family, &'static [Field], SetName),
    /// Translates the source to an address of the interface it leaves by.
    Masquerade,
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Vmap(fields, map) => write!(f, "{} vmap @{map}", Joined(fields)),
            Self::Dnat(family, fields, map) => {
                let family = match family {
                    Family::V4 => "ip",
                    Family::V6 => "ip6",
                };
                write!(f, "dnat {family} to {} map @{map}", Joined(fields))
            }
        }
    }
}

/// One rule: where all `matches` hold, `statement` is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    pub matches: &'static [Match],
    pub statement: Statement,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.matches.iter().try_for_each(|one| write!(f, "{one} "))?;
        self.statement.fmt(f)
    }
}

/// Where the kernel calls a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

/// What kind of base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainType {
    Filter,
    Nat,
}

impl ChainType {
    /// Returns the name that the kernel knows it by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// A chain that the kernel calls. Its policy is to accept: what none of its rules concerns is not
/// ours to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseChain {
    pub kind: ChainType,
    pub hook: Hook,
    /// Lower runs earlier.
    pub priority: i32,
}

impl fmt::Display for BaseChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = match self.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let (kind, priority) = (self.kind.as_str(), self.priority);
        write!(f, "type {kind} hook {hook} priority {priority}; policy accept;")
    }
}

/// A chain: with `base`, called by the kernel; without, only by other chains and maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainDef {
    pub name: &'static str,
    pub base: Option<BaseChain>,
    pub rules: &'static [Rule],
}

/// A table; its sets are those `SetName`s that say they are in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDef {
    pub name: TableName,
    pub chains: &'static [ChainDef],
}

impl TableDef {
    /// Returns the sets and maps of the table.
    pub fn sets(&self) -> impl Iterator<Item = SetName> {
        SetName::ALL.into_iter().filter(|set| set.table() == self.name)
    }

    fn write_body(&self, f: &mut impl fmt::Write) -> fmt::Result {
        for set in self.sets() {
            let key = Joined(set.key());
            match set.data() {
                DataType::None => writeln!(f, "\n\tset {set} {{\n\t\ttype {key}")?,
                DataType::Verdict => writeln!(f, "\n\tmap {set} {{\n\t\ttype {key} : verdict")?,
                DataType::Concat(data) => {
                    writeln!(f, "\n\tmap {set} {{\n\t\ttype {key} : {}", Joined(data))?;
                }
            }
            writeln!(f, "\t}}")?;
        }
        for chain in self.chains {
            writeln!(f, "\n\tchain {} {{", chain.name)?;
            chain.base.iter().try_for_each(|base| writeln!(f, "\t\t{base}"))?;
            chain.rules.iter().try_for_each(|rule| writeln!(f, "\t\t{rule}"))?;
            writeln!(f, "\t}}")?;
        }
        Ok(())
    }

    /// Returns what the table bears as its comment, `twinax <version> <digest>`: it is another
    /// one whenever a set, a chain or a rule of the table is another one.
    pub fn comment(&self) -> String {
        let mut text = String::new();
        self.write_body(&mut text).expect("writing to a string does not fail");
        format!("twinax {TABLES_VERSION} {:016x}", fnv1a(text.as_bytes()))
    }
}

impl fmt::Display for TableDef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "table {} {{", self.name)?;
        writeln!(f, "\tcomment \"{}\"", self.comment())?;
        self.write_body(f)?;
        f.write_char('}')?;
        f.write_char('\n')
    }
}

/// FNV-1a, 64 bits: enough to tell our own versions apart, no defence against a forger (who has
/// the right to change the tables, and needs none).
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let fold = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, fold)
}

impl SetName {
    /// Whether the set says what may pass between networks, so that it stands before them and
    /// goes after them. The others open something, so that they go first and come last.
    pub fn is_policy(self) -> bool {
        use SetName::*;
        matches!(
            self,
            Ours | Same | From4 | From6 | To4 | To6 | Host4 | Host6 | Nat4 | Nat6 | Routed
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_element_reads_as_nft_writes_it() {
        let id = ElementId {
            set: SetName::Any4,
            key: vec![Datum::Proto(Proto::Tcp), Datum::Port(8080)],
        };
        let value = Value::Concat(vec![Datum::V4(Ipv4Addr::new(10, 1, 0, 2)), Datum::Port(80)]);
        assert_eq!(id.to_string(), "inet any4 { tcp . 8080 }");
        assert_eq!(id.with(&value).to_string(), "inet any4 { tcp . 8080 : 10.1.0.2 . 80 }");
        assert!(id.fits(&value));
        assert!(!id.fits(&Value::None));
        assert!(!id.fits(&Value::Goto(Chain::ToNat)));
        let id = ElementId { set: SetName::To4, key: vec![Datum::Group(Group(GROUP_BASE + 1))] };
        let line = id.with(&Value::Goto(Chain::ToNat)).to_string();
        assert_eq!(line, "inet to4 { 0x74780001 : goto to-nat }");
    }

    #[test]
    fn set_names_are_distinct_and_all_listed() {
        let names: BTreeSet<_> = SetName::ALL.iter().map(|set| set.as_str()).collect();
        assert_eq!(names.len(), SetName::ALL.len());
        assert_eq!(SetName::ALL.len(), SetName::PortGateway as usize + 1);
        assert_eq!(Chain::ALL.len(), Chain::HostClosed as usize + 1);
    }

    /// The set that a rule uses, with the fields it looks up there.
    fn lookups(rule: &Rule) -> Vec<(&'static [Field], SetName)> {
        let matches = rule.matches.iter().filter_map(|one| match *one {
            Match::In(fields, set) | Match::NotIn(fields, set) => Some((fields, set)),
            _ => None,
        });
        let statement = match rule.statement {
            Statement::Vmap(fields, map) | Statement::Dnat(_, fields, map) => Some((fields, map)),
            _ => None,
        };
        matches.chain(statement).collect()
    }

    fn type_of(field: Field) -> KeyType {
        match field {
            Field::IifName => KeyType::IfName,
            Field::IifGroup | Field::OifGroup => KeyType::Group,
            Field::L4Proto => KeyType::Proto,
            Field::ThDport => KeyType::Port,
            Field::IpSaddr | Field::IpDaddr | Field::ArpSaddrIp => KeyType::V4,
            Field::Ip6Saddr | Field::Ip6Daddr => KeyType::V6,
            Field::EtherSaddr | Field::EtherDaddr => KeyType::Mac,
            other => panic!("{other} is the key of no set"),
        }
    }

    #[test]
    fn every_set_is_used_in_its_own_table_with_its_own_key() {
        let mut used = BTreeSet::new();
        for table in tables() {
            for rule in table.chains.iter().flat_map(|chain| chain.rules) {
                for (fields, set) in lookups(rule) {
                    let types: Vec<_> = fields.iter().copied().map(type_of).collect();
                    assert_eq!(types, set.key(), "{rule}");
                    assert_eq!(set.table(), table.name, "{rule}");
                    used.insert(set);
                }
            }
        }
        assert_eq!(used, BTreeSet::from(SetName::ALL));
    }

    #[test]
    fn a_chain_that_a_map_leads_to_ends_with_drop() {
        for chain in Chain::ALL {
            let [inet, _] = tables();
            let found = inet.chains.iter().find(|one| one.name == chain.as_str());
            let last = found.and_then(|one| one.rules.last()).expect("each has rules");
            assert_eq!(*last, Rule { matches: &[], statement: Statement::Drop }, "{chain:?}");
        }
    }

    #[test]
    fn a_chain_is_written_before_those_that_jump_to_it() {
        for table in tables() {
            let mut known = BTreeSet::new();
            for chain in table.chains {
                assert!(known.insert(chain.name), "{} twice", chain.name);
                for rule in chain.rules {
                    if let Statement::Jump(to) = rule.statement {
                        assert!(known.contains(to), "{rule}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_document_shows_the_tables_as_they_are() {
        let document = include_str!("../../docs/firewall.md");
        for table in tables() {
            assert!(document.contains(&format!("```nft\n{table}```\n")), "write it anew: {table}");
        }
    }
}
