//! Networks: their subnets, numbers and bridge names, and the host switches they need.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    gateway::Family,
    model::{Sysctl, Turned},
    name::{IfName, NetworkName},
    pool::{self, Leases},
    state::{Driver, Network, NetworkSpec, Subnet, SubnetSpec},
};

use super::{Decision, Refusal};

/// The MTU where the host has no default route: Ethernet's.
const ETHERNET_MTU: u32 = 1500;
/// RFC 791, 3.2: every IPv4 host forwards packets of this size unbroken.
const MIN_MTU4: u32 = 68;
/// RFC 8200, 5: every IPv6 link carries packets of this size.
const MIN_MTU6: u32 = 1280;
const MAX_MTU: u32 = 65_535;

/// The switch that makes the host forward packets of `family`.
pub(super) fn forwarding(family: Family) -> Sysctl {
    Sysctl(match family {
        Family::V4 => "ipv4/ip_forward".to_owned(),
        Family::V6 => "ipv6/conf/all/forwarding".to_owned(),
    })
}

/// Whether a network made by `spec` has addresses of `family`.
pub(super) fn wants(spec: &NetworkSpec, family: Family) -> bool {
    match family {
        Family::V4 => !spec.no_ipv4,
        Family::V6 => spec.ipv6 || spec.subnets.iter().any(|s| matches!(s.net, IpNet::V6(_))),
    }
}

impl Decision<'_> {
    pub(super) fn create_network(
        &mut self,
        name: &NetworkName,
        spec: &NetworkSpec,
    ) -> Result<(), Refusal> {
        if let Some(network) = self.state.networks.get(name) {
            return match network_difference(network, spec) {
                None => Ok(()),
                Some(what) => Err(Refusal::NetworkDiffers { name: name.clone(), what }),
            };
        }
        check_options(name, spec)?;
        let used = self.state.networks.all().values().map(|network| network.number).collect();
        let number =
            pool::free_number(&used).ok_or_else(|| Refusal::TooManyNetworks(name.clone()))?;
        let bridge = self.bridge(name, spec, number)?;
        let subnets = self.subnets(name, spec, number)?;
        let network = Network {
            driver: spec.driver,
            number,
            bridge,
            mtu: self.mtu(name, spec)?,
            subnets,
            internal: spec.internal,
            icc: !spec.no_icc,
            mode4: spec.mode4,
            mode6: spec.mode6,
            labels: spec.labels.clone(),
        };
        self.take_in(name, &network);
        self.state.networks.insert(name.clone(), network);
        Ok(())
    }

    /// Takes in the networks that were defined before this boot: nothing is promised on them yet.
    pub(super) fn take_in_defined(&mut self) {
        let defined: Vec<_> = self
            .state
            .networks
            .loaded()
            .iter()
            .filter(|(name, _)| self.state.leases.get(name).is_none())
            .map(|(name, network)| (name.clone(), network.clone()))
            .collect();
        for (name, network) in defined {
            self.take_in(&name, &network);
        }
    }

    /// Counts a network as there, with no address given out but its own.
    fn take_in(&mut self, name: &NetworkName, network: &Network) {
        let mut leases = Leases::new(network.subnets.iter().map(|subnet| subnet.range));
        for subnet in &network.subnets {
            leases.claim(subnet.gateway);
            subnet.reserved.values().for_each(|addr| {
                leases.claim(*addr);
            });
        }
        for family in Family::BOTH.into_iter().filter(|family| network.leads_out(*family)) {
            self.need(forwarding(family));
        }
        self.state.leases.insert(name.clone(), leases);
        self.state.host.networks += 1;
    }

    pub(super) fn remove_network(&mut self, name: &NetworkName) -> Result<(), Refusal> {
        let network = self.state.networks.get(name);
        let network = network.ok_or_else(|| Refusal::NoSuchNetwork(name.clone()))?.clone();
        let here = self.state.containers.loaded().iter().filter(|(_, container)| {
            container.endpoints.iter().any(|endpoint| endpoint.network == *name)
        });
        let containers: Vec<_> = here.map(|(name, _)| name.clone()).collect();
        if !containers.is_empty() || super::keys::strangers(&self.state, name) > 0 {
            return Err(Refusal::NetworkInUse { network: name.clone(), containers });
        }
        for family in Family::BOTH.into_iter().filter(|family| network.leads_out(*family)) {
            self.spare(&forwarding(family));
        }
        // A network of the same name starts anew: the old cables are on no bridge of it.
        for addrs in self.state.host.ghosts.values_mut() {
            addrs.retain(|(of, _)| of != name);
        }
        self.state.host.ghosts.retain(|_, addrs| !addrs.is_empty());
        self.state.networks.remove(name);
        self.state.host.networks = self.state.host.networks.saturating_sub(1);
        self.state.leases.remove(name);
        Ok(())
    }

    fn bridge(
        &self,
        name: &NetworkName,
        spec: &NetworkSpec,
        number: u32,
    ) -> Result<IfName, Refusal> {
        let used: BTreeSet<IfName> =
            self.state.networks.all().values().map(|network| network.bridge.clone()).collect();
        let bad = |bridge: &IfName, why: &str| Refusal::BadOption {
            network: name.clone(),
            what: format!("bridge {bridge}"),
            why: why.to_owned(),
        };
        match &spec.bridge {
            Some(bridge) if spec.driver == Driver::Routed => {
                Err(bad(bridge, "the routed driver uses none"))
            }
            Some(bridge) if !bridge.as_str().starts_with("tx-") || bridge.as_str() == "tx-" => {
                Err(bad(bridge, "the names of Twinax's bridges start with tx-, as in tx-web"))
            }
            Some(bridge) if used.contains(bridge) => Err(bad(bridge, "another network has it")),
            Some(bridge) => Ok(bridge.clone()),
            None => pool::bridge_name(name.as_str(), number, &used)
                .ok_or_else(|| Refusal::TooManyNetworks(name.clone())),
        }
    }

    fn mtu(&self, name: &NetworkName, spec: &NetworkSpec) -> Result<u32, Refusal> {
        let least = if wants(spec, Family::V6) { MIN_MTU6 } else { MIN_MTU4 };
        match spec.mtu {
            Some(mtu) if !(least..=MAX_MTU).contains(&mtu) => Err(Refusal::BadOption {
                network: name.clone(),
                what: format!("an MTU of {mtu}"),
                why: format!("it goes from {least} to {MAX_MTU} bytes"),
            }),
            Some(mtu) => Ok(mtu),
            None if self.facts.uplink_mtu == 0 => Ok(ETHERNET_MTU),
            None => Ok(self.facts.uplink_mtu.clamp(least, MAX_MTU)),
        }
    }

    /// The subnets asked for, and one of each family that was left open.
    fn subnets(
        &mut self,
        name: &NetworkName,
        spec: &NetworkSpec,
        number: u32,
    ) -> Result<Vec<Subnet>, Refusal> {
        let mut subnets: Vec<Subnet> = Vec::new();
        for asked in &spec.subnets {
            let bad =
                |why: String| Refusal::BadSubnet { network: name.clone(), net: asked.net, why };
            let subnet = check_subnet(asked).map_err(bad)?;
            if let Some(other) = subnets.iter().find(|s| pool::overlap(s.net, subnet.net)) {
                return Err(bad(format!("it overlaps {}", other.net)));
            }
            self.refuse_overlap(name, subnet.net)?;
            subnets.push(subnet);
        }
        let lacks = |family, subnets: &[Subnet]| {
            wants(spec, family) && !subnets.iter().any(|s| Family::of(s.gateway) == family)
        };
        if !lacks(Family::V4, &subnets) && !lacks(Family::V6, &subnets) {
            return Ok(subnets);
        }
        let ours = self.state.networks.all().values().flat_map(|network| &network.subnets);
        let mut taken: Vec<IpNet> = ours.chain(&subnets).map(|subnet| subnet.net).collect();
        taken.extend(self.facts.subnets.iter().filter(|net| !is_default_route(**net)));
        let exhausted = |family| Refusal::PoolsExhausted { network: name.clone(), family };
        if lacks(Family::V4, &subnets) {
            let net = pool::free_subnet4(&taken).ok_or_else(|| exhausted(Family::V4))?;
            subnets.push(plain_subnet(net.into()));
        }
        if lacks(Family::V6, &subnets) {
            let site = *self.state.host.site.get_or_insert_with(|| {
                let [.., a, b, c, d, e] = self.facts.random.to_be_bytes();
                [a, b, c, d, e]
            });
            let first = u16::try_from(number).unwrap_or(0);
            let net = pool::free_subnet6(site, first, &taken);
            subnets.push(plain_subnet(net.ok_or_else(|| exhausted(Family::V6))?.into()));
        }
        Ok(subnets)
    }

    fn refuse_overlap(&self, name: &NetworkName, net: IpNet) -> Result<(), Refusal> {
        for (by, network) in self.state.networks.all() {
            if let Some(other) = network.subnets.iter().find(|s| pool::overlap(s.net, net)) {
                let (network, by, other) = (name.clone(), by.clone(), other.net);
                return Err(Refusal::SubnetTaken { network, net, other, by });
            }
        }
        let mut on_host = self.facts.subnets.iter().filter(|other| !is_default_route(**other));
        match on_host.find(|other| pool::overlap(**other, net)) {
            Some(other) => Err(Refusal::SubnetOnHost { network: name.clone(), net, other: *other }),
            None => Ok(()),
        }
    }

    /// One more network needs `sysctl` to be 1: turns it if it is not.
    fn need(&mut self, sysctl: Sysctl) {
        let host = &mut self.state.host;
        if let Some(former) = self.facts.sysctls.get(&sysctl).filter(|value| value.trim() != "1") {
            let turned = Turned { ours: "1".to_owned(), former: former.trim().to_owned() };
            host.sysctls.entry(sysctl.clone()).or_insert(turned);
        }
        *host.needed.entry(sysctl).or_default() += 1;
    }

    /// One network less needs `sysctl`.
    fn spare(&mut self, sysctl: &Sysctl) {
        if let Some(count) = self.state.host.needed.get_mut(sysctl) {
            *count = count.saturating_sub(1);
        }
    }

    /// Gives up the switches that no network needs any more; at the end of the request, as it
    /// may have made another network by then.
    pub(super) fn give_up_switches(&mut self) {
        let host = &mut self.state.host;
        host.needed.retain(|_, count| *count > 0);
        host.sysctls.retain(|sysctl, _| host.needed.contains_key(sysctl));
    }
}

/// What makes an existing network other than `spec` asks for. What `spec` leaves open is met by
/// whatever was chosen.
pub fn network_difference(network: &Network, spec: &NetworkSpec) -> Option<&'static str> {
    let count = |family| network.subnets.iter().filter(|s| Family::of(s.gateway) == family).count();
    let asked = |family| spec.subnets.iter().filter(|s| Family::of(s.net.addr()) == family).count();
    let same_family = |family| {
        wants(spec, family) == network.has(family)
            && (asked(family) == 0 || asked(family) == count(family))
    };
    let differences = [
        (network.driver != spec.driver, "driver"),
        (!same_family(Family::V4), "choice of IPv4"),
        (!same_family(Family::V6), "choice of IPv6"),
        (
            spec.subnets.iter().any(|asked| !network.subnets.iter().any(|s| meets(s, asked))),
            "subnet",
        ),
        (network.internal != spec.internal, "choice of internal"),
        (network.icc == spec.no_icc, "choice of communication between containers"),
        (network.mode4 != spec.mode4, "IPv4 gateway mode"),
        (network.mode6 != spec.mode6, "IPv6 gateway mode"),
        (spec.mtu.is_some_and(|mtu| mtu != network.mtu), "MTU"),
        (spec.bridge.as_ref().is_some_and(|bridge| *bridge != network.bridge), "bridge"),
        (network.labels != spec.labels, "set of labels"),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
}

fn meets(subnet: &Subnet, asked: &SubnetSpec) -> bool {
    subnet.net == asked.net
        && asked.gateway.is_none_or(|gateway| gateway == subnet.gateway)
        && asked.range.unwrap_or(asked.net) == subnet.range
        && asked.reserved == subnet.reserved
}

fn check_options(name: &NetworkName, spec: &NetworkSpec) -> Result<(), Refusal> {
    let bad = |what: &str, why: &str| {
        let (what, why) = (what.to_owned(), why.to_owned());
        Err(Refusal::BadOption { network: name.clone(), what, why })
    };
    if spec.no_ipv4 && !wants(spec, Family::V6) {
        return bad("no IPv4", "without IPv6 either, its containers would have no address");
    }
    if spec.no_ipv4 && spec.subnets.iter().any(|s| matches!(s.net, IpNet::V4(_))) {
        return bad("an IPv4 subnet", "it was asked to have no IPv4");
    }
    Ok(())
}

/// A subnet that is given out whole, with its first address for the gateway.
fn plain_subnet(net: IpNet) -> Subnet {
    let gateway = pool::nth(net, 1).expect("a block of a pool holds a gateway");
    Subnet { net, gateway, range: net, reserved: BTreeMap::new() }
}

/// An OpenVPN client covers everything by two halves: they do not stand for subnets either.
fn is_default_route(net: IpNet) -> bool {
    net.prefix_len() <= 1
}

fn check_subnet(asked: &SubnetSpec) -> Result<Subnet, String> {
    let net = asked.net;
    check_net(net)?;
    let range = asked.range.unwrap_or(net);
    if range.trunc() != range {
        return Err(format!("its range {range} is not the address of a range: {}", range.trunc()));
    }
    if !net.contains(&range) {
        return Err(format!("its range {range} is not within"));
    }
    let mut seen = BTreeMap::new();
    let gateway = asked.gateway.map_or_else(|| pool::nth(net, 1), Some);
    let gateway = gateway.ok_or("it has no room for a gateway")?;
    let named = std::iter::once(("gateway", gateway));
    let reserved = asked.reserved.iter().map(|(label, addr)| (label.as_str(), *addr));
    for (label, addr) in named.chain(reserved) {
        check_addr(net, addr).map_err(|why| format!("its {label} address {addr} {why}"))?;
        if let Some(other) = seen.insert(addr, label) {
            return Err(format!("its {label} address {addr} is its {other} address too"));
        }
    }
    Ok(Subnet { net, gateway, range, reserved: asked.reserved.clone() })
}

fn check_net(net: IpNet) -> Result<(), String> {
    if net.trunc() != net {
        return Err(format!("that is an address in it; the subnet is {}", net.trunc()));
    }
    let (least, most) = match net {
        IpNet::V4(_) => (8, 30),
        IpNet::V6(_) => (16, 126),
    };
    if !(least..=most).contains(&net.prefix_len()) {
        return Err(format!("its prefix length goes from {least} to {most}"));
    }
    let local: [Ipv4Net; 3] = [
        Ipv4Net::new_assert(std::net::Ipv4Addr::new(0, 0, 0, 0), 8),
        Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8),
        Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 3),
    ];
    let unfit = match net.addr() {
        IpAddr::V4(_) => local.iter().any(|other| pool::overlap((*other).into(), net)),
        IpAddr::V6(addr) => {
            addr.is_multicast() || addr.is_unicast_link_local() || addr.segments()[0] == 0
        }
    };
    match unfit {
        true => Err("it is loopback, link-local, multicast or reserved".to_owned()),
        false => Ok(()),
    }
}

/// Whether a host on `net` can have `addr`, or why not.
pub(super) fn check_addr(net: IpNet, addr: IpAddr) -> Result<(), &'static str> {
    if !net.contains(&addr) {
        return Err("is not within");
    }
    if pool::is_network_address(net, addr) {
        return Err("is the address of the subnet itself");
    }
    if pool::is_broadcast(net, addr) {
        return Err("is the broadcast address");
    }
    Ok(())
}
