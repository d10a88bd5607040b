//! Follows rules to the ports that they lead elsewhere.
//!
//! From each chain that translates addresses as packets come in or leave, jumps are followed with
//! what their rules ask for on the way, as a port may stand in one rule and the address behind it
//! three chains on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use super::{
    Action, Engine, Family, Hook, LedPort, Match, What, decoded,
    decoded::Yield,
    translate::{Loaded, MapUse, Understood, address, parts, verdict},
    value::{Field, port},
};
use crate::name::Proto;

/// No chain of jumps is followed further than the kernel does (`NFT_JUMP_STACK_SIZE`).
const DEPTH: usize = 16;
/// Rules and elements that are looked at, of one table.
const STEPS: usize = 200_000;

/// Returns the ports that a table leads elsewhere. `rules` are its rules by chain.
pub(super) fn ports(
    table: &decoded::Table,
    rules: &BTreeMap<&str, Vec<Understood>>,
) -> BTreeSet<LedPort> {
    let sets = table.sets.iter().map(|set| (set.name.as_str(), set)).collect();
    let mut walk = Walk { table, rules, sets, found: BTreeSet::new(), left: STEPS };
    for chain in &table.chains {
        let hook = chain.base.as_ref().filter(|base| base.kind == "nat").map(|base| base.hook);
        if matches!(hook, Some(Hook::Prerouting | Hook::Output)) {
            walk.chain(&chain.name, &Way::default(), DEPTH);
        }
    }
    walk.found
}

/// What is known of the packets that get somewhere; empty where anything may come.
#[derive(Clone, Debug, Default)]
struct Way {
    protos: Vec<u8>,
    hosts: Vec<IpAddr>,
    ports: Vec<(u16, u16)>,
}

struct Walk<'a> {
    table: &'a decoded::Table,
    rules: &'a BTreeMap<&'a str, Vec<Understood>>,
    sets: BTreeMap<&'a str, &'a decoded::Set>,
    found: BTreeSet<LedPort>,
    left: usize,
}

impl Walk<'_> {
    fn chain(&mut self, name: &str, way: &Way, depth: usize) {
        let Some(rules) = self.rules.get(name) else { return };
        for (n, one) in rules.iter().enumerate() {
            if self.left == 0 || depth == 0 {
                return;
            }
            self.left -= 1;
            let Some(way) = way.narrowed(&one.rule.matches) else { continue };
            let place = || match self.table.engine {
                Engine::Nft => {
                    let (family, table) = (self.table.family, &self.table.name);
                    format!("{family} {table} {name} #{}", one.rule.handle)
                }
                Engine::Legacy => {
                    let six = if self.table.family == Family::Ip6 { "6" } else { "" };
                    format!("ip{six}tables-legacy {} {name} #{}", self.table.name, n + 1)
                }
            };
            match &one.rule.action {
                Action::Dnat { addr: Some((to, _)), ports } => {
                    self.lead(&way, *to, ports.map(|(first, _)| first), &place());
                }
                Action::Jump(chain) | Action::Goto(chain) => self.chain(chain, &way, depth - 1),
                Action::ByMap { .. } => {
                    if let Some(used) = &one.map {
                        self.map(used, &way, depth);
                    }
                }
                _ => {}
            }
        }
    }

    fn lead(&mut self, way: &Way, to: IpAddr, to_port: Option<u16>, by: &str) {
        let hosts: Vec<Option<IpAddr>> = match way.hosts.is_empty() {
            true => vec![None],
            false => way.hosts.iter().copied().map(Some).collect(),
        };
        for proto in &way.protos {
            let Some(proto) = proto_of(*proto) else { continue };
            for host_ports in &way.ports {
                for host in &hosts {
                    let (host, host_ports, by) = (*host, *host_ports, by.to_owned());
                    self.found.insert(LedPort { proto, host, host_ports, to, to_port, by });
                }
            }
        }
    }

    fn map(&mut self, used: &MapUse, way: &Way, depth: usize) {
        let Some(set) = self.sets.get(used.map.as_str()).copied() else { return };
        let Some(elements) = &set.elements else { return };
        let by = match set.anonymous {
            true => format!("{} {} inline map", self.table.family, self.table.name),
            false => format!("{} {} {}", self.table.family, self.table.name, set.name),
        };
        for element in elements.iter().filter(|element| !element.end) {
            if self.left == 0 {
                return;
            }
            self.left -= 1;
            let Some(way) = way.with_key(&used.key, element) else { continue };
            match &element.yields {
                Yield::Verdict { code, chain } => {
                    if let Action::Jump(chain) | Action::Goto(chain) =
                        verdict(*code, chain.as_deref())
                    {
                        self.chain(&chain, &way, depth.saturating_sub(1));
                    }
                }
                Yield::Value(value) => {
                    // The width of the address is that of the packet's IP.
                    let at = used.addr.and_then(|at| value.get(at..));
                    let rest = used.port.zip(used.addr).map(|(port, addr)| port.abs_diff(addr));
                    let to =
                        at.and_then(|at| address(&at[..rest.unwrap_or(at.len()).min(at.len())]));
                    let to_port = used.port.and_then(|at| port(value.get(at..)?));
                    if let Some(to) = to {
                        self.lead(&way, to, to_port, &by);
                    }
                }
                Yield::Nothing => {}
            }
        }
    }
}

fn proto_of(number: u8) -> Option<Proto> {
    [Proto::Tcp, Proto::Udp, Proto::Sctp].into_iter().find(|proto| proto.number() == number)
}

impl Way {
    /// What is left of the packets after a rule's matches; `None`: nothing.
    fn narrowed(&self, matches: &[Match]) -> Option<Self> {
        let mut way = self.clone();
        for one in matches.iter().filter(|one| !one.not) {
            let some = match &one.what {
                What::AnyOf(some) => some.as_slice(),
                what => std::slice::from_ref(what),
            };
            let (mut protos, mut hosts, mut ports) = (Vec::new(), Vec::new(), Vec::new());
            for what in some {
                match what {
                    What::Protocol(proto) => protos.push(*proto),
                    What::Destination(net) if net.prefix_len() == net.max_prefix_len() => {
                        hosts.push(net.addr());
                    }
                    What::DestinationPort(first, last) => ports.push((*first, *last)),
                    _ => {}
                }
            }
            meet(&mut way.protos, protos)?;
            meet(&mut way.hosts, hosts)?;
            // The narrower one, where a chain asks for the port once more.
            if !ports.is_empty() {
                way.ports = ports;
            }
        }
        Some(way)
    }

    fn with_key(&self, key: &[Loaded], element: &decoded::Element) -> Option<Self> {
        let mut way = self.clone();
        let low = parts(key, &element.key)?;
        let last = element.last.as_deref().and_then(|last| parts(key, last));
        for (n, (loaded, bytes)) in key.iter().zip(&low).enumerate() {
            match loaded.field {
                Field::Protocol => meet(&mut way.protos, vec![*bytes.first()?])?,
                Field::Destination(_) => meet(&mut way.hosts, vec![address(bytes)?])?,
                Field::DestinationPort(_) => {
                    let first = port(bytes)?;
                    let last = last.as_ref().and_then(|last| port(last.get(n)?));
                    way.ports = vec![(first, last.unwrap_or(first))];
                }
                _ => {}
            }
        }
        Some(way)
    }
}

/// Keeps of what may come only what is asked for as well; `None` if nothing is left.
fn meet<T: PartialEq>(known: &mut Vec<T>, asked: Vec<T>) -> Option<()> {
    match (known.is_empty(), asked.is_empty()) {
        (_, true) => {}
        (true, false) => *known = asked,
        (false, false) => {
            known.retain(|one| asked.contains(one));
            if known.is_empty() {
                return None;
            }
        }
    }
    Some(())
}
