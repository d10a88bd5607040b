//! How values are spelled on the command line and in lab files: one reading of each, shared.
//!
//! Pure. Says what is wrong with a text; where the text stood is for the caller to say.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
};

use ipnet::IpNet;
use twinax_core::{
    name::{ContainerName, HostName, Proto},
    state::{AttachSpec, Driver, GatewayMode, NetworkSpec, PublishSpec, SubnetSpec},
};

/// What is wrong with a text, and what is expected in its place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misspelt(pub String);

fn misspelt<T>(why: impl Into<String>) -> Result<T, Misspelt> {
    Err(Misspelt(why.into()))
}

/// What a published port looks like; shown by every error about one.
pub const PUBLISH_FORM: &str = "[HOST-ADDRESS:][HOST-PORT[-LAST]:]PORT[-LAST][/tcp|/udp|/sctp]";

/// Reads `8080:80`, `80`, `127.0.0.1::80/udp`, `[::1]:8080:80`, `8000-8010:80-90`.
///
/// A host port that is left out, or 0, is chosen when the port is published.
pub fn publish(text: &str) -> Result<PublishSpec, Misspelt> {
    let (ports, proto) = match text.rsplit_once('/') {
        None => (text, Proto::Tcp),
        Some((ports, proto)) => match proto.parse() {
            Ok(proto) => (ports, proto),
            Err(_) => return misspelt(format!("there is no protocol {proto:?}: tcp, udp or sctp")),
        },
    };
    let (host, host_ports, container_ports) = split_publish(ports)?;
    let container_ports = port_range("container", container_ports)?;
    let host_ports = match host_ports {
        None | Some("0") => None,
        Some(text) => Some(port_range("host", text)?),
    };
    let width = |(first, last): (u16, u16)| u32::from(last) - u32::from(first) + 1;
    if let Some(host_ports) = host_ports {
        let (outer, inner) = (width(host_ports), width(container_ports));
        if outer != inner && inner != 1 {
            return misspelt(format!(
                "{outer} host ports cannot lead to {inner} container ports: ranges are of one \
                 length, or the container's is a single port"
            ));
        }
    }
    Ok(PublishSpec { proto, host, host_ports, container_ports })
}

type Split<'a> = (Option<IpAddr>, Option<&'a str>, &'a str);

fn split_publish(text: &str) -> Result<Split<'_>, Misspelt> {
    if let Some(rest) = text.strip_prefix('[') {
        let Some((host, ports)) = rest.split_once("]:") else {
            return misspelt(format!(
                "\"]:\" is missing after the address; expected {PUBLISH_FORM}"
            ));
        };
        let Ok(host) = host.parse::<Ipv6Addr>() else {
            return misspelt(format!("{host:?} is not an IPv6 address"));
        };
        let Some((outer, inner)) = ports.split_once(':') else {
            return misspelt(format!(
                "an address is followed by two ports, [{host}]:8080:{ports}, or by \
                 [{host}]::{ports} where the host port is to be chosen"
            ));
        };
        return Ok((Some(host.into()), Some(outer).filter(|o| !o.is_empty()), inner));
    }
    let mut parts = text.rsplitn(3, ':');
    let inner = parts.next().unwrap_or_default();
    let Some(outer) = parts.next() else {
        return Ok((None, None, inner));
    };
    match parts.next() {
        None if outer.is_empty() => {
            misspelt(format!("a port is missing before ':'; expected {PUBLISH_FORM}"))
        }
        None if outer.parse::<IpAddr>().is_ok() => misspelt(format!(
            "an address is followed by two ports, {outer}:8080:{inner}, or by {outer}::{inner} \
             where the host port is to be chosen"
        )),
        None => Ok((None, Some(outer), inner)),
        Some(host) if host.contains(':') => {
            misspelt(format!("an IPv6 address stands in brackets; expected {PUBLISH_FORM}"))
        }
        Some(host) => match host.parse::<IpAddr>() {
            Ok(host) => Ok((Some(host), Some(outer).filter(|o| !o.is_empty()), inner)),
            Err(_) => {
                misspelt(format!("{host:?} is not an address of the host; expected {PUBLISH_FORM}"))
            }
        },
    }
}

fn port_range(whose: &str, text: &str) -> Result<(u16, u16), Misspelt> {
    let port = |text: &str| match port_number(text) {
        Some(port) => Ok(port),
        None => misspelt(format!(
            "the {whose} port {text:?} is not a number from 1 to 65535; expected {PUBLISH_FORM}"
        )),
    };
    let Some((first, last)) = text.split_once('-') else {
        return port(text).map(|port| (port, port));
    };
    let (first, last) = (port(first)?, port(last)?);
    match first <= last {
        true => Ok((first, last)),
        false => misspelt(format!("the {whose} ports {first}-{last} run backwards")),
    }
}

/// Digits only: no sign, which Rust's own reading lets pass.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|&port: &u16| digits && port != 0)
}

/// Writes what [`publish`] reads; reading it again gives an equal value.
pub fn publish_text(spec: &PublishSpec) -> String {
    let range = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let host = match spec.host {
        None => String::new(),
        Some(IpAddr::V4(host)) => format!("{host}:"),
        Some(IpAddr::V6(host)) => format!("[{host}]:"),
    };
    let outer = match spec.host_ports {
        None if spec.host.is_none() => String::new(),
        None => ":".to_owned(),
        Some(ports) => format!("{}:", range(ports)),
    };
    let proto = match spec.proto {
        Proto::Tcp => String::new(),
        other => format!("/{other}"),
    };
    format!("{host}{outer}{}{proto}", range(spec.container_ports))
}

/// The keys of `--network NET,key=value…`, and of a lab's network table.
pub const ATTACH_KEYS: [&str; 6] = ["ip", "ip6", "mac", "alias", "ifname", "priority"];

/// Reads `NET[,ip=…][,ip6=…][,mac=…][,alias=…]…[,ifname=…][,priority=…]`; `name=NET` as Docker
/// writes it is taken too, and its longer names of two keys.
pub fn attach(text: &str) -> Result<AttachSpec, Misspelt> {
    let mut parts = text.split(',');
    let first = parts.next().unwrap_or_default();
    let mut spec = AttachSpec::new(word(first.strip_prefix("name=").unwrap_or(first))?);
    let mut seen = Vec::new();
    for part in parts {
        let Some((key, value)) = part.split_once('=') else {
            return misspelt(format!("{part:?} is not key=value, as ip=10.1.0.5"));
        };
        if key != "alias" && seen.contains(&key) {
            return misspelt(format!("{key} is given twice"));
        }
        seen.push(key);
        set_attach(&mut spec, key, value)?;
    }
    Ok(spec)
}

fn set_attach(spec: &mut AttachSpec, key: &str, value: &str) -> Result<(), Misspelt> {
    match key {
        "ip" => spec.ip = Some(number(value, "an IPv4 address, as 10.1.0.5")?),
        "ip6" => spec.ip6 = Some(number(value, "an IPv6 address, as fd00::5")?),
        "mac" | "mac-address" => spec.mac = Some(word(value)?),
        "alias" => spec.aliases.push(word::<HostName>(value)?),
        "ifname" => spec.ifname = Some(word(value)?),
        "priority" | "gw-priority" => {
            spec.gateway_priority = number(value, "a whole number; the highest wins")?;
        }
        _ => {
            let near = nearest(key, &ATTACH_KEYS);
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let keys = ATTACH_KEYS.join(", ");
            return misspelt(format!("{key:?} is none of {keys}{near}"));
        }
    }
    Ok(())
}

/// Reads a value whose own error says all.
pub fn word<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Misspelt> {
    text.parse().map_err(|error: T::Err| Misspelt(error.to_string()))
}

/// Reads what somebody calls a container of any runtime, where only the handles that commands give
/// namespaces have a form.
pub fn any_container(text: &str) -> Result<String, Misspelt> {
    if text.is_empty() || text.starts_with("pid:") || text.starts_with("netns:") {
        word::<ContainerName>(text)?;
    }
    Ok(text.to_owned())
}

/// Reads a value whose own error says too little; `expected` completes it.
pub fn number<T: std::str::FromStr>(text: &str, expected: &str) -> Result<T, Misspelt> {
    text.parse().or_else(|_| misspelt(format!("{text:?} is not {expected}")))
}

/// Reads a subnet, whose address must be its first.
pub fn subnet(text: &str) -> Result<IpNet, Misspelt> {
    let net: IpNet = number(text, "a subnet, as 10.1.0.0/24 or fd00:1::/64")?;
    match net == net.trunc() {
        true => Ok(net),
        false => misspelt(format!("{net} is an address within a subnet; write {}", net.trunc())),
    }
}

/// Reads the driver of a network; `none`, `host` and `container:NAME` are modes of a container.
pub fn driver(text: &str) -> Result<Driver, Misspelt> {
    match text {
        "bridge" => Ok(Driver::Bridge),
        "routed" => Ok(Driver::Routed),
        "none" | "host" => misspelt(format!(
            "{text} is there without being created: it is given to a container as its network"
        )),
        _ => misspelt(format!("{text:?} is not a driver: bridge or routed")),
    }
}

/// Reads `nat`, `routed` or `isolated`.
pub fn gateway_mode(text: &str) -> Result<GatewayMode, Misspelt> {
    match text {
        "nat" => Ok(GatewayMode::Nat),
        "routed" => Ok(GatewayMode::Routed),
        "isolated" => Ok(GatewayMode::Isolated),
        _ => misspelt(format!("{text:?} is not a gateway mode: nat, routed or isolated")),
    }
}

/// Reads an MTU in bytes of IP packet; 68 is the least an IPv4 link may have (RFC 791).
pub fn mtu(text: &str) -> Result<u32, Misspelt> {
    let mtu = number(text, "a number of bytes from 68 to 65535")?;
    match mtu {
        68..=65535 => Ok(mtu),
        _ => misspelt(format!("{mtu} is not a number of bytes from 68 to 65535")),
    }
}

/// Reads `key=value`, both free; used for labels and environment variables.
pub fn pair(text: &str) -> Result<(String, String), Misspelt> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => misspelt(format!("{text:?} is not KEY=VALUE")),
    }
}

/// Reads a label; those that begin with `twinax.` are not the user's to give.
pub fn label(text: &str) -> Result<(String, String), Misspelt> {
    let (key, value) = match text.contains('=') {
        true => pair(text)?,
        false => (text.to_owned(), String::new()),
    };
    match key.starts_with("twinax.") {
        true => misspelt("labels that begin with \"twinax.\" are Twinax's own"),
        false => Ok((key, value)),
    }
}

/// The parts of a network's addressing as they are given: side by side, in any order.
#[derive(Clone, Debug, Default)]
pub struct Addressing {
    pub subnets: Vec<IpNet>,
    pub gateways: Vec<IpAddr>,
    pub ranges: Vec<IpNet>,
    pub reserved: Vec<(String, IpAddr)>,
}

/// Which part of an [`Addressing`] has no place, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Misplaced {
    pub part: Part,
    pub index: usize,
    pub why: String,
}

/// What of an [`Addressing`] is misplaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Subnet,
    Gateway,
    Range,
    Reserved,
}

impl Addressing {
    /// Gives each gateway, range and reserved address to the subnet it lies in.
    pub fn resolve(&self) -> Result<Vec<SubnetSpec>, Misplaced> {
        let mut specs: Vec<SubnetSpec> = Vec::new();
        for (index, &net) in self.subnets.iter().enumerate() {
            if let Some(other) = specs.iter().find(|s| overlap(s.net, net)) {
                let why = format!("{net} overlaps {}, of the same network", other.net);
                return Err(Misplaced { part: Part::Subnet, index, why });
            }
            specs.push(SubnetSpec { net, gateway: None, range: None, reserved: BTreeMap::new() });
        }
        for (index, &gateway) in self.gateways.iter().enumerate() {
            let place = Place { part: Part::Gateway, index, within: gateway.into() };
            let spec = place.find(&mut specs)?;
            if let Some(other) = spec.gateway.replace(gateway) {
                return Err(place.misplaced(format!("{} has gateway {other} already", spec.net)));
            }
        }
        for (index, &range) in self.ranges.iter().enumerate() {
            let place = Place { part: Part::Range, index, within: range };
            let spec = place.find(&mut specs)?;
            if let Some(other) = spec.range.replace(range) {
                return Err(place.misplaced(format!("{} has range {other} already", spec.net)));
            }
        }
        for (index, (name, addr)) in self.reserved.iter().enumerate() {
            let place = Place { part: Part::Reserved, index, within: (*addr).into() };
            let spec = place.find(&mut specs)?;
            if spec.reserved.insert(name.clone(), *addr).is_some() {
                return Err(place.misplaced(format!("{name} is reserved twice in {}", spec.net)));
            }
        }
        Ok(specs)
    }
}

/// Whether two subnets have an address in common.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b) || b.contains(&a)
}

struct Place {
    part: Part,
    index: usize,
    within: IpNet,
}

impl Place {
    fn misplaced(&self, why: String) -> Misplaced {
        Misplaced { part: self.part, index: self.index, why }
    }

    fn find<'a>(&self, specs: &'a mut [SubnetSpec]) -> Result<&'a mut SubnetSpec, Misplaced> {
        let host = self.within.prefix_len() == self.within.max_prefix_len();
        let what = match host {
            true => self.within.addr().to_string(),
            false => self.within.to_string(),
        };
        let why = match specs.is_empty() {
            true => format!("{what} needs the subnet it lies in to be given too"),
            false => {
                let nets: Vec<_> = specs.iter().map(|s| s.net.to_string()).collect();
                format!("{what} lies in none of the network's subnets ({})", nets.join(", "))
            }
        };
        let found = specs.iter_mut().find(|s| s.net.contains(&self.within));
        found.ok_or_else(|| self.misplaced(why))
    }
}

/// Completes what follows from the subnets, and says what contradicts itself.
pub fn settle(mut spec: NetworkSpec) -> Result<NetworkSpec, Misspelt> {
    spec.ipv6 |= spec.subnets.iter().any(|s| matches!(s.net, IpNet::V6(_)));
    if spec.no_ipv4 && !spec.ipv6 {
        return misspelt("a network without IPv4 needs IPv6");
    }
    if let Some(v4) = spec.subnets.iter().find(|s| spec.no_ipv4 && matches!(s.net, IpNet::V4(_))) {
        return misspelt(format!("the network is to have no IPv4, but also subnet {}", v4.net));
    }
    Ok(spec)
}

/// Returns the known word nearest to `word`, if one is near enough to be meant.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let far = (word.chars().count() / 3).max(1) + 1;
    let near = known.iter().map(|k| (distance(word, k), *k)).min()?;
    let within =
        known.iter().find(|k| word.len() > 2 && (k.starts_with(word) || word.starts_with(*k)));
    match near {
        (steps, known) if steps <= far && steps < known.len().max(2) => Some(known),
        _ => within.copied(),
    }
}

/// Optimal string alignment: insertions, deletions, replacements and swaps of neighbours.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
