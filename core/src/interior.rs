//! What one namespace has inside beside its links: policy rules, all routes, the resolver, the
//! firewall, switches, connection tracking. Read only where it is asked for, as it is much.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::{
    firewall::{LedPort, Table},
    name::Mac,
};

/// The inside of a namespace. What could not be read is empty, and said in `unseen`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interior {
    /// `ip rule`, both families, in the kernel's order.
    pub rules: Vec<PolicyRule>,
    /// `ip route` of every table, both families, those that lead nowhere included; without the
    /// kernel's own local and broadcast routes.
    pub routes: Vec<SeenRoute>,
    /// What a process in there has as `/etc/resolv.conf`, if a process is in there.
    pub resolver: Option<Resolver>,
    pub firewall: Vec<Table>,
    /// Ports that its firewall leads elsewhere.
    pub led: Vec<LedPort>,
    /// Switches under `/proc/sys/net` that decide about containers' traffic, by their names there
    /// (`ipv4/ip_forward`, `ipv4/conf/eth0/rp_filter`), without the line's end.
    pub switches: BTreeMap<String, String>,
    pub conntrack: Option<Conntrack>,
    pub unseen: Vec<String>,
}

/// A rule that says which routing table is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRule {
    pub ipv6: bool,
    pub priority: u32,
    /// As `ip rule` has it, without priority and action: `from 10.0.0.0/8 iif eth0 fwmark 0x1/0xff`.
    pub when: String,
    /// `lookup main`, `lookup 100`, `blackhole`, `unreachable`, `prohibit`.
    pub action: String,
}

/// A route of whatever kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeenRoute {
    pub table: u32,
    pub dst: IpNet,
    /// `unicast`, `blackhole`, `unreachable`, `prohibit`, `throw`, `nat`, …
    pub kind: String,
    /// One next hop, or several of a multipath route.
    pub hops: Vec<Hop>,
    /// The preferred source address.
    pub src: Option<IpAddr>,
    pub metric: u32,
    /// Who made it, in iproute2's words: `kernel`, `boot`, `static`, `dhcp`, `ra`, a number.
    pub protocol: String,
    pub mtu: Option<u32>,
}

/// Where a route goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hop {
    /// The interface's name.
    pub out: Option<String>,
    pub via: Option<IpAddr>,
}

/// How names are resolved in there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolver {
    /// The process whose file it is: processes of one namespace may have several.
    pub pid: u32,
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

/// Connection tracking's fill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conntrack {
    pub entries: u64,
    /// Of the whole machine, or this namespace's own.
    pub limit: u64,
    /// UDP flows, as far as they were listed; bounded.
    pub udp: Vec<Flow>,
}

/// A tracked connection: as its first packet was, and as replies come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// IANA's protocol number.
    pub protocol: u8,
    pub from: (IpAddr, u16),
    pub to: (IpAddr, u16),
    pub reply_from: (IpAddr, u16),
    pub reply_to: (IpAddr, u16),
    /// Seconds it has left.
    pub timeout: u32,
}

/// What hangs on a link's wire beside the link itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// `noqueue`, `fq_codel`, `tbf rate 1Mbit`, `netem delay 10ms`, …, those of children included.
    pub qdiscs: Vec<String>,
    /// BPF programs: where (`tc ingress`, `tcx egress`, `xdp`), the program's id, its name if told.
    pub programs: Vec<(String, u32, String)>,
    /// A bridge port's own settings, in words: `hairpin on`, `isolated on`, `learning off`.
    pub port: Vec<String>,
    /// The hardware address that a bridge has for it, or the entries it has learnt.
    pub macs: Vec<Mac>,
}
