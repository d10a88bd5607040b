//! Everybody's firewall, as it is read from the kernel: tables, chains, rules, and what a rule
//! asks for and does. Ours is made elsewhere (`ruleset`); this is for showing and judging.
//!
//! What a rule matches is kept as far as it is understood. What is not is kept as text and marked:
//! a reader must take such a rule for one that may or may not match.

pub mod decoded;
mod led;
pub mod translate;
mod value;
pub mod words;
mod xt;

use std::{collections::BTreeMap, fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::name::Proto;

/// Which packets a table is about (`NFPROTO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    Ip,
    Ip6,
    Inet,
    Arp,
    Bridge,
    Netdev,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        })
    }
}

/// Which of the kernel's two firewalls a table is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// nftables, `iptables-nft` included.
    #[default]
    Nft,
    /// `iptables-legacy`, which stands beside it at the same hooks.
    Legacy,
}

/// A table of somebody's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    pub engine: Engine,
    pub family: Family,
    pub name: String,
    /// The process whose socket owns it (`NFT_TABLE_F_OWNER`), by its port number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<u32>,
    /// Its chains are asleep (`NFT_TABLE_F_DORMANT`).
    #[serde(default)]
    pub dormant: bool,
    pub chains: Vec<Chain>,
    /// Names of its sets and maps, with the number of their elements where that was counted.
    #[serde(default)]
    pub sets: Vec<Set>,
}

/// A set or map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Set {
    pub name: String,
    pub map: bool,
    pub elements: Option<usize>,
}

/// A chain; one with a `base` sees packets by itself, the others are jumped to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    pub name: String,
    pub base: Option<Base>,
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// `filter`, `nat` or `route`.
    pub kind: String,
    pub hook: Hook,
    /// Lower comes first.
    pub priority: i32,
    /// What becomes of packets that no rule decides.
    pub drops: bool,
}

/// A place on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    Ingress,
    Egress,
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

/// A rule: all of `matches` together lead to `action`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// The kernel's number of it in its table; 0 in `iptables-legacy`, which has none.
    pub handle: u64,
    pub matches: Vec<Match>,
    pub action: Action,
    /// What it does beside, in words: `log`, `mark set 0x1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Packets and bytes it has counted, if it counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counted: Option<(u64, u64)>,
}

/// One thing that must hold for a rule to apply; `not` turns it round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not: bool,
    pub what: What,
}

/// What a match looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// `iifname`, `-i`; a trailing `*` stands for any rest.
    InInterface(String),
    /// `oifname`, `-o`.
    OutInterface(String),
    /// `iifgroup`.
    InGroup(u32),
    /// `oifgroup`.
    OutGroup(u32),
    Source(IpNet),
    Destination(IpNet),
    /// `nfproto ipv4`/`ipv6`, or the family of an Ethernet frame: 4 or 6.
    IpVersion(u8),
    /// IANA's protocol number (`meta l4proto`, `-p`).
    Protocol(u8),
    /// Source ports, both ends included.
    SourcePort(u16, u16),
    /// Destination ports, both ends included.
    DestinationPort(u16, u16),
    /// Destination is one of the host's own addresses (`fib daddr type local`, `addrtype`).
    ToLocal,
    /// Connection tracking's states in their usual words, any of them.
    CtState(Vec<String>),
    /// What was translated before: `dnat`, `snat`.
    CtStatus(Vec<String>),
    /// The packet's mark and-ed with a mask.
    Mark {
        value: u32,
        mask: u32,
    },
    /// Looked up in a set or map; the key in words, such as `ip daddr . tcp dport`.
    InSet {
        key: String,
        set: String,
    },
    /// At least one of these: an inline set, as in `tcp dport { 80, 443 }`. With [`Match::not`]:
    /// none of them.
    AnyOf(Vec<Self>),
    /// Understood by nobody here; in words as good as there are.
    Other(String),
}

/// What a rule does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Nothing that decides: counting, marking, logging.
    #[default]
    Continue,
    Accept,
    Drop,
    Reject,
    Return,
    Jump(String),
    Goto(String),
    Masquerade,
    /// To addresses and ports, each a range of one or more; `None`: as it was.
    Dnat {
        addr: Option<(IpAddr, IpAddr)>,
        ports: Option<(u16, u16)>,
    },
    Snat {
        addr: Option<(IpAddr, IpAddr)>,
        ports: Option<(u16, u16)>,
    },
    Redirect {
        ports: Option<(u16, u16)>,
    },
    /// A verdict or address looked up in this map, by the key in words.
    ByMap {
        key: String,
        map: String,
        does: MapDoes,
    },
    /// To a process (`queue`).
    Queue,
    Other(String),
}

/// What comes out of the map of [`Action::ByMap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapDoes {
    Verdict,
    Dnat,
    Snat,
    Other,
}

/// A port that the firewall leads elsewhere, found in a rule or in an element of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LedPort {
    pub proto: Proto,
    /// On which address of the host; `None`: on all of them.
    pub host: Option<IpAddr>,
    /// First and last.
    pub host_ports: (u16, u16),
    pub to: IpAddr,
    /// Of the first; `None`: the same as at the host.
    pub to_port: Option<u16>,
    /// Where that stands, for people: `ip nat DOCKER #12`, `inet twinax dnat4`.
    pub by: String,
}

/// Makes sense of tables, and finds the ports that they lead elsewhere. Anonymous sets are told
/// with the rules that they are part of, the others by their names.
pub fn understand(tables: &[decoded::Table]) -> (Vec<Table>, Vec<LedPort>) {
    let mut understood = Vec::with_capacity(tables.len());
    let mut led = Vec::new();
    for table in tables {
        let sets = table.sets.iter().map(|set| (set.name.as_str(), set)).collect();
        let of = |chain: &decoded::Chain| {
            let rules = chain.rules.iter();
            rules.map(|rule| translate::rule(table.family, &sets, rule)).collect()
        };
        let rules: BTreeMap<&str, Vec<translate::Understood>> =
            table.chains.iter().map(|chain| (chain.name.as_str(), of(chain))).collect();
        if !table.dormant {
            led.extend(led::ports(table, &rules));
        }
        let chains = table.chains.iter().map(|chain| Chain {
            name: chain.name.clone(),
            base: chain.base.clone(),
            rules: rules
                .get(chain.name.as_str())
                .into_iter()
                .flatten()
                .map(|one| one.rule.clone())
                .collect(),
        });
        let named = table.sets.iter().filter(|set| !set.anonymous).map(|set| Set {
            name: set.name.clone(),
            map: set.map,
            elements: set.elements.as_ref().map(|all| all.iter().filter(|one| !one.end).count()),
        });
        understood.push(Table {
            engine: table.engine,
            family: table.family,
            name: table.name.clone(),
            owner: table.owner,
            dormant: table.dormant,
            chains: chains.collect(),
            sets: named.collect(),
        });
    }
    (understood, led)
}
