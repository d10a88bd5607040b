//! The firewall: fixed chains, written once, and the sets and maps that hold all that varies.

use std::{
    fmt,
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

impl fmt::Display for ElementId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?}", self.set, self.key)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
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
