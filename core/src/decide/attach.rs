//! A container's places on networks: address, MAC, interface name.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    gateway::Family,
    name::{ContainerName, IfName, Mac, NetworkName},
    pool,
    state::{AttachSpec, Container, Driver, Endpoint, Network, NetworkSpec, Subnet},
};

use super::{Decision, Refusal, Room, network::check_addr, questions::is_default, refusal::join};

/// `BR_MAX_PORTS` (net/bridge/br_private.h) less port 0, which no link gets.
const BRIDGE_PORTS: usize = 1023;

impl Decision<'_> {
    pub(super) fn attach(
        &mut self,
        name: &ContainerName,
        spec: &AttachSpec,
    ) -> Result<(), Refusal> {
        let container = self.own_sandbox(name, "be attached")?;
        let present = container.endpoints.iter().find(|e| e.network == spec.network);
        if let Some(endpoint) = present {
            return match difference(endpoint, spec) {
                None => Ok(()),
                Some(what) => Err(Refusal::AttachedDifferently {
                    container: name.clone(),
                    network: spec.network.clone(),
                    what,
                }),
            };
        }
        let room = self.facts.rooms.get(name);
        let led = room.map(|room| room.led).filter(|_| container.endpoints.is_empty());
        let ifname = free_ifname(name, container, room, spec)?;
        if is_default(&spec.network) {
            if let Some(alias) = spec.aliases.first() {
                let (network, alias) = (spec.network.clone(), alias.clone());
                return Err(Refusal::NoNames { network, alias });
            }
            if self.state.networks.get(&spec.network).is_none() {
                self.create_network(&spec.network, &NetworkSpec::default())?;
            }
        }
        let network = self.state.networks.get(&spec.network);
        let network =
            network.ok_or_else(|| Refusal::NoNetworkToJoin(spec.network.clone()))?.clone();
        self.refuse_full(&spec.network, &network)?;
        let addrs = self.lease(name, spec, &network)?;
        let own = Mac::of(*addrs.first().expect("a network has subnets, each of which gave one"));
        let mac = spec.mac.unwrap_or(own);
        if mac != own {
            self.check_mac(spec, &network, mac)?;
        }
        let mut aliases = spec.aliases.clone();
        let mut seen = BTreeSet::new();
        aliases.retain(|alias| seen.insert(alias.clone()));
        let endpoint = Endpoint {
            network: spec.network.clone(),
            number: self.state.host.next_number(),
            ifname,
            mac,
            addrs,
            aliases,
            gateway_priority: spec.gateway_priority,
        };
        let container = self.state.containers.get_mut(name).expect("it was looked up above");
        container.endpoints.push(endpoint);
        container.led = led.unwrap_or(container.led);
        self.look(name);
        Ok(())
    }

    pub(super) fn detach(
        &mut self,
        name: &ContainerName,
        network: &NetworkName,
    ) -> Result<(), Refusal> {
        // What was found dead by this request was detached with it.
        if self.reply.reaped.contains(name) {
            return Ok(());
        }
        let not_attached =
            || Refusal::NotAttached { container: name.clone(), network: network.clone() };
        let container = self.state.containers.get_mut(name);
        let container = container.ok_or_else(|| Refusal::NoSuchContainer(name.clone()))?;
        let place = container.endpoints.iter().position(|e| e.network == *network);
        let endpoint = container.endpoints.remove(place.ok_or_else(not_attached)?);
        // What is published moves to the next endpoint that leads out; a promise that no other
        // endpoint can keep holds the container where it is.
        let stranded: Vec<_> = {
            let networks = &self.state.networks;
            let container = &*container;
            let carried = |host| super::publish::carried(container, networks, host);
            container
                .published
                .iter()
                .filter(|p| !carried(p.host))
                .map(super::publish::show)
                .collect()
        };
        if !stranded.is_empty() {
            return Err(Refusal::CarriesPorts {
                container: name.clone(),
                network: network.clone(),
                published: join(&stranded),
            });
        }
        if container.run.is_none() {
            self.idle.insert(name.clone());
        }
        self.cut(endpoint);
        self.look(name);
        Ok(())
    }

    fn refuse_full(&self, name: &NetworkName, network: &Network) -> Result<(), Refusal> {
        if network.driver != Driver::Bridge {
            return Ok(());
        }
        let kept: usize = network.subnets.iter().map(|s| 1 + s.reserved.len()).sum();
        let families = Family::BOTH.into_iter().filter(|family| network.has(*family)).count();
        let taken = self.state.leases.get(name).map_or(0, |leases| leases.count());
        // Each endpoint has one address of each family. Ghosts count: their cables may still be
        // seated.
        match taken.saturating_sub(kept) / families.max(1) >= BRIDGE_PORTS {
            true => Err(Refusal::BridgeFull(name.clone())),
            false => Ok(()),
        }
    }

    /// One address of each family that the network has.
    fn lease(
        &mut self,
        name: &ContainerName,
        spec: &AttachSpec,
        network: &Network,
    ) -> Result<Vec<IpAddr>, Refusal> {
        let fixed = [(Family::V4, spec.ip.map(IpAddr::V4)), (Family::V6, spec.ip6.map(IpAddr::V6))];
        let mut addrs = Vec::new();
        for (family, fixed) in fixed {
            match fixed {
                Some(addr) if !network.has(family) => {
                    let (container, network) = (name.clone(), spec.network.clone());
                    return Err(Refusal::NoFamily { container, network, family, addr });
                }
                Some(addr) => addrs.push(self.lease_fixed(&spec.network, network, addr)?),
                None if network.has(family) => {
                    addrs.push(self.lease_free(&spec.network, network, family)?);
                }
                None => {}
            }
        }
        Ok(addrs)
    }

    fn lease_free(
        &mut self,
        name: &NetworkName,
        network: &Network,
        family: Family,
    ) -> Result<IpAddr, Refusal> {
        let mut subnets = network.subnets.iter().filter(|s| Family::of(s.gateway) == family);
        let leases = self.state.leases.get_mut(name);
        let addr = leases.and_then(|leases| subnets.find_map(|s| leases.take(s.range, s.net)));
        addr.ok_or_else(|| Refusal::NoAddressLeft {
            network: name.clone(),
            family,
            subnets: ranges(network, family),
        })
    }

    fn lease_fixed(
        &mut self,
        name: &NetworkName,
        network: &Network,
        addr: IpAddr,
    ) -> Result<IpAddr, Refusal> {
        let Some(subnet) = network.subnets.iter().find(|subnet| subnet.net.contains(&addr)) else {
            let subnets = ranges(network, Family::of(addr));
            return Err(Refusal::AddressOutside { network: name.clone(), addr, subnets });
        };
        let taken = |what| Refusal::AddressTaken { network: name.clone(), addr, what };
        check_addr(subnet.net, addr)
            .map_err(|why| taken(why.strip_prefix("is ").unwrap_or(why).to_owned()))?;
        let free = self.state.leases.get_mut(name).is_some_and(|leases| leases.claim(addr));
        if free || self.inherit(name, addr) {
            return Ok(addr);
        }
        let here = |addrs: &Vec<(NetworkName, IpAddr)>| addrs.contains(&(name.clone(), addr));
        Err(match self.state.host.ghosts.iter().find(|(_, addrs)| here(addrs)) {
            Some((link, _)) => {
                Refusal::AddressHeld { network: name.clone(), addr, link: link.clone() }
            }
            None => taken(self.holder(name, subnet, addr)),
        })
    }

    /// Takes the address over from a cable that this very request cuts: the plan cuts before it
    /// lays.
    fn inherit(&mut self, network: &NetworkName, addr: IpAddr) -> bool {
        let ghosts = &mut self.state.host.ghosts;
        for link in &self.cut {
            let Some(addrs) = ghosts.get_mut(link) else { continue };
            if let Some(n) = addrs.iter().position(|(of, held)| of == network && *held == addr) {
                addrs.remove(n);
                if addrs.is_empty() {
                    ghosts.remove(link);
                }
                return true;
            }
        }
        false
    }

    /// Says who has an address that is taken.
    fn holder(&self, network: &NetworkName, subnet: &Subnet, addr: IpAddr) -> String {
        if subnet.gateway == addr {
            return "the gateway's".to_owned();
        }
        if let Some((label, _)) = subnet.reserved.iter().find(|(_, kept)| **kept == addr) {
            return format!("reserved for {label}");
        }
        let has = |e: &Endpoint| e.network == *network && e.addrs.contains(&addr);
        let mut loaded = self.state.containers.loaded().iter();
        match loaded.find(|(_, c)| c.endpoints.iter().any(has)) {
            Some((holder, _)) => format!("the address of container {holder}"),
            None => "another container's".to_owned(),
        }
    }

    /// Refuses a MAC that the gateway has, a container at hand, or whoever gets the address that
    /// it is made from.
    fn check_mac(&self, spec: &AttachSpec, network: &Network, mac: Mac) -> Result<(), Refusal> {
        let taken = |what| Err(Refusal::MacTaken { network: spec.network.clone(), mac, what });
        if network.subnets.iter().any(|subnet| Mac::of(subnet.gateway) == mac) {
            return taken("the gateway's".to_owned());
        }
        let has = |e: &Endpoint| e.network == spec.network && e.mac == mac;
        let mut loaded = self.state.containers.loaded().iter();
        if let Some((holder, _)) = loaded.find(|(_, c)| c.endpoints.iter().any(has)) {
            return taken(format!("that of container {holder}"));
        }
        let Mac([_, _, octets @ ..]) = mac;
        let addr = IpAddr::from(octets);
        if Mac::of(addr) == mac && network.subnets.iter().any(|s| s.net.contains(&addr)) {
            return taken(format!("kept for whoever has {addr}"));
        }
        Ok(())
    }
}

/// What makes an endpoint other than `spec` asks for; what `spec` leaves open is met by anything.
fn difference(endpoint: &Endpoint, spec: &AttachSpec) -> Option<&'static str> {
    let has = |addr: Option<IpAddr>| addr.is_none_or(|addr| endpoint.addrs.contains(&addr));
    let lacks_alias = spec.aliases.iter().any(|alias| !endpoint.aliases.contains(alias));
    let other_priority =
        spec.gateway_priority != 0 && spec.gateway_priority != endpoint.gateway_priority;
    let differences = [
        (!has(spec.ip.map(IpAddr::V4)), "IPv4 address"),
        (!has(spec.ip6.map(IpAddr::V6)), "IPv6 address"),
        (spec.mac.is_some_and(|mac| mac != endpoint.mac), "MAC"),
        (spec.ifname.as_ref().is_some_and(|ifname| *ifname != endpoint.ifname), "interface name"),
        (lacks_alias, "set of aliases"),
        (other_priority, "gateway priority"),
    ];
    differences.into_iter().find(|(differs, _)| *differs).map(|(_, what)| what)
}

fn free_ifname(
    name: &ContainerName,
    container: &Container,
    room: Option<&Room>,
    spec: &AttachSpec,
) -> Result<IfName, Refusal> {
    let mut used: BTreeSet<&IfName> = container.endpoints.iter().map(|e| &e.ifname).collect();
    used.extend(room.into_iter().flat_map(|room| &room.links));
    let taken =
        |ifname: &IfName| Refusal::IfNameTaken { container: name.clone(), ifname: ifname.clone() };
    match &spec.ifname {
        // `all` and `default` are directories under /proc/sys/net/ipv4/conf beside the links'.
        Some(ifname) if ["lo", "all", "default"].contains(&ifname.as_str()) => Err(taken(ifname)),
        Some(ifname) if used.contains(ifname) => Err(taken(ifname)),
        Some(ifname) => Ok(ifname.clone()),
        None => pool::free_ifname(&used).ok_or_else(|| Refusal::BridgeFull(spec.network.clone())),
    }
}

fn ranges(network: &Network, family: Family) -> String {
    let subnets = network.subnets.iter().filter(|s| Family::of(s.gateway) == family);
    match subnets.map(|s| s.range).collect::<Vec<_>>() {
        ranges if ranges.is_empty() => format!("no {family}"),
        ranges => join(&ranges),
    }
}
