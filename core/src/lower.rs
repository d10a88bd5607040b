//! Turns promises into kernel objects. No choices are left: same state, same topology.
//!
//! Of a partial state it lowers the rows that are loaded, so the outcome speaks about exactly
//! what those rows own. What the loaded rows share with others (tables, switches, the forwarder,
//! hosts files) follows from the host's record, which is always loaded.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use ipnet::IpNet;

use crate::{
    gateway::{Family, gateway_endpoint},
    model::{
        Addr, Element, FdbEntry, FileId, Forward, HostsLine, HostsSource, Link, LinkId, LinkKind,
        Neighbour, Netns, Port, Process, Route, Topology, host_end,
    },
    name::{ContainerName, HostName, Mac, NetworkName, Proto},
    ruleset::{Chain, Datum, ElementId, SetName, Value},
    state::{
        Container, DEFAULT_NETWORK, Driver, Endpoint, GatewayMode, Network, Published, State,
        Status,
    },
};

/// Returns what the kernel should hold for the rows of `state` that are loaded.
pub fn lower(state: &State) -> Topology {
    let mut topology = Topology::default();
    lower_host(&mut topology, state);
    for (name, network) in state.networks.loaded() {
        lower_network(&mut topology, name, network);
    }
    for (name, container) in state.containers.loaded() {
        Lowering::of(&mut topology, state, name, container).run();
    }
    topology
}

/// Lowers two states as [`lower`] does, but for what rows that are in both lead to. Bridges stay,
/// without what is configured on them, for cables to lean on.
pub(crate) fn lower_both(before: &State, after: &State) -> (Topology, Topology) {
    (lower_beside(before, after), lower_beside(after, before))
}

fn lower_beside(state: &State, other: &State) -> Topology {
    let mut topology = Topology::default();
    lower_host(&mut topology, state);
    let mut surroundings = state.host.views == other.host.views;
    for (name, network) in state.networks.loaded() {
        if other.networks.loaded().get(name) != Some(network) {
            lower_network(&mut topology, name, network);
            surroundings = false;
        } else if network.driver == Driver::Bridge {
            let (id, link) = bridge(name, network);
            topology.links.insert(id, link);
        }
    }
    surroundings &= state.networks.loaded().len() == other.networks.loaded().len();
    for (name, container) in state.containers.loaded() {
        if !surroundings || other.containers.loaded().get(name) != Some(container) {
            Lowering::of(&mut topology, state, name, container).run();
        }
    }
    topology
}

fn lower_host(topology: &mut Topology, state: &State) {
    topology.tables = state.host.networks > 0;
    topology.sysctls.clone_from(&state.host.sysctls);
    if state.host.forwards > 0 {
        topology.processes.insert(Process::Forwarder);
    }
    topology.views.extend(state.host.views.keys().cloned());
}

fn lower_network(topology: &mut Topology, name: &NetworkName, network: &Network) {
    if network.driver == Driver::Bridge {
        lower_bridge(topology, name, network);
    }
    let group = Datum::Group(network.group());
    let comment: Arc<str> = format!("network {name}").into();
    let mut put = |set, key, value| {
        let comment = Arc::clone(&comment);
        topology.elements.insert(ElementId { set, key }, Element { value, comment });
    };
    put(SetName::Ours, vec![group.clone()], Value::None);
    put(SetName::Same, vec![group.clone(), group.clone()], Value::None);
    if network.icc {
        put(SetName::Icc, vec![group.clone(), group.clone()], Value::None);
    }
    if network.driver == Driver::Routed {
        put(SetName::Routed, vec![group.clone()], Value::None);
    }
    for family in Family::BOTH {
        let [to, from, host, nat] = match family {
            Family::V4 => [SetName::To4, SetName::From4, SetName::Host4, SetName::Nat4],
            Family::V6 => [SetName::To6, SetName::From6, SetName::Host6, SetName::Nat6],
        };
        let policy = policy(network, family);
        put(to, vec![group.clone()], Value::Goto(policy.to));
        if let Some(chain) = policy.from {
            put(from, vec![group.clone()], Value::Goto(chain));
        }
        if let Some(chain) = policy.host {
            put(host, vec![group.clone()], Value::Goto(chain));
        }
        if policy.nat {
            put(nat, vec![group.clone()], Value::None);
        }
    }
}

/// What may pass between a network and the rest, in one address family.
struct Policy {
    to: Chain,
    from: Option<Chain>,
    host: Option<Chain>,
    nat: bool,
}

fn policy(network: &Network, family: Family) -> Policy {
    let closed = |host| Policy {
        to: Chain::ToClosed,
        from: Some(Chain::FromClosed),
        host: Some(host),
        nat: false,
    };
    if !network.has(family) || network.mode(family) == GatewayMode::Isolated {
        return closed(Chain::HostClosed);
    }
    if network.internal {
        return closed(Chain::HostGateway);
    }
    match network.mode(family) {
        GatewayMode::Routed => Policy { to: Chain::ToRouted, from: None, host: None, nat: false },
        _ => Policy { to: Chain::ToNat, from: None, host: None, nat: true },
    }
}

fn lower_bridge(topology: &mut Topology, name: &NetworkName, network: &Network) {
    let (id, link) = bridge(name, network);
    for subnet in &network.subnets {
        if network.mode(Family::of(subnet.gateway)) != GatewayMode::Isolated {
            let net = with_prefix(subnet.gateway, subnet.net.prefix_len());
            topology.addrs.insert(Addr { link: id.clone(), net });
        }
    }
    topology.links.insert(id, link);
}

fn bridge(name: &NetworkName, network: &Network) -> (LinkId, Link) {
    let link = Link {
        kind: LinkKind::Bridge,
        up: true,
        mac: gateway_mac(network),
        mtu: network.mtu,
        group: Some(network.group()),
        alias: format!("twinax network {name}"),
    };
    (LinkId::host(network.bridge.clone()), link)
}

/// The MAC of a network's bridge: as stable as its first gateway address, and told by it.
fn gateway_mac(network: &Network) -> Mac {
    let gateway = network.subnets.first().map(|subnet| subnet.gateway);
    Mac::of(gateway.expect("a network has a subnet: checked when created"))
}

/// One container being lowered.
struct Lowering<'a> {
    topology: &'a mut Topology,
    state: &'a State,
    name: &'a ContainerName,
    container: &'a Container,
    comment: Arc<str>,
}

impl<'a> Lowering<'a> {
    fn of(
        topology: &'a mut Topology,
        state: &'a State,
        name: &'a ContainerName,
        container: &'a Container,
    ) -> Self {
        // The kernel keeps 127 bytes of a comment, and a path may be longer.
        let comment = format!("container {:.90}", name.as_str());
        Self { topology, state, name, container, comment: comment.into() }
    }

    fn run(&mut self) {
        for endpoint in &self.container.endpoints {
            self.endpoint(endpoint);
        }
        for family in Family::BOTH {
            for published in &self.container.published {
                self.publish(published, family);
            }
        }
        self.loopback_forwards();
        if let Some(run) = &self.container.run
            && matches!(run.status, Status::Running { .. })
        {
            self.files();
            if self.container.sandbox.is_own() {
                self.topology.netns.insert(self.name.clone());
            }
        }
    }

    fn network(&self, endpoint: &Endpoint) -> &'a Network {
        let network = self.state.networks.get(&endpoint.network);
        network.expect("a network with endpoints exists: it is not removed before them")
    }

    fn endpoint(&mut self, endpoint: &Endpoint) {
        let network = self.network(endpoint);
        let outer = LinkId::host(host_end(endpoint.number));
        let inner =
            LinkId { netns: Netns::Container(self.name.clone()), name: endpoint.ifname.clone() };
        self.cable(endpoint, network, (&outer, &inner));
        match network.driver {
            Driver::Bridge => self.bridged(endpoint, network, (&outer, &inner)),
            Driver::Routed => self.routed(endpoint, network, (&outer, &inner)),
        }
        self.names(endpoint);
    }

    fn cable(
        &mut self,
        endpoint: &Endpoint,
        network: &Network,
        (outer, inner): (&LinkId, &LinkId),
    ) {
        let port = (network.driver == Driver::Bridge).then(|| Port {
            bridge: network.bridge.clone(),
            hairpin: self.carries_published(endpoint),
        });
        let end =
            |kind, mac, group, alias| Link { kind, up: true, mac, mtu: network.mtu, group, alias };
        let mut alias = format!("twinax {}/{} {}", endpoint.network, self.name, endpoint.ifname);
        // The kernel keeps 255 bytes of an alias, and a path may be longer.
        if let Some((end, _)) = alias.char_indices().nth(200) {
            alias.truncate(end);
        }
        let kind = LinkKind::VethHost { peer: inner.clone(), port };
        let host = end(kind, host_end_mac(endpoint), Some(network.group()), alias);
        let kind = LinkKind::VethContainer { peer: outer.clone() };
        self.topology.links.insert(outer.clone(), host);
        self.topology.links.insert(inner.clone(), end(kind, endpoint.mac, None, String::new()));
    }

    fn carries_published(&self, endpoint: &Endpoint) -> bool {
        !self.container.published.is_empty()
            && Family::BOTH.into_iter().any(|family| self.is_gateway(endpoint, family))
    }

    fn is_gateway(&self, endpoint: &Endpoint, family: Family) -> bool {
        self.gateway(family).is_some_and(|gateway| gateway.number == endpoint.number)
    }

    fn gateway(&self, family: Family) -> Option<&Endpoint> {
        gateway_endpoint(self.container, &self.state.networks, family)
    }

    fn bridged(
        &mut self,
        endpoint: &Endpoint,
        network: &Network,
        (outer, inner): (&LinkId, &LinkId),
    ) {
        let bridge = LinkId::host(network.bridge.clone());
        self.topology.fdb.insert(FdbEntry { port: outer.clone(), mac: endpoint.mac });
        self.element(SetName::PortMac, outer, Datum::Mac(endpoint.mac));
        if !network.icc {
            // Not the kernel's isolated ports: with bridge netfilter on, a published port of a
            // neighbour is reached across the bridge, which they would not let pass.
            let key = vec![Datum::IfName(outer.name.clone())];
            self.put(ElementId { set: SetName::PortAlone, key }, Value::None);
            self.element(SetName::PortGateway, outer, Datum::Mac(gateway_mac(network)));
        }
        for addr in &endpoint.addrs {
            let subnet = network.subnet_of(*addr).expect("an address lies in its network");
            let net = with_prefix(*addr, subnet.net.prefix_len());
            self.topology.addrs.insert(Addr { link: inner.clone(), net });
            self.neighbour(&bridge, *addr, endpoint.mac);
            let set = match addr {
                IpAddr::V4(_) => SetName::PortSource4,
                IpAddr::V6(_) => SetName::PortSource6,
            };
            self.element(set, outer, (*addr).into());
            let family = Family::of(*addr);
            if network.mode(family) == GatewayMode::Isolated {
                continue;
            }
            self.neighbour(inner, subnet.gateway, gateway_mac(network));
            if self.leads(endpoint, *addr) {
                self.route(inner, default_route(family), Some(subnet.gateway));
            }
        }
    }

    /// A cable with host routes and no bridge. Neighbours are known on both sides, so nothing
    /// is ever asked for on the wire.
    fn routed(
        &mut self,
        endpoint: &Endpoint,
        network: &Network,
        (outer, inner): (&LinkId, &LinkId),
    ) {
        for addr in &endpoint.addrs {
            let family = Family::of(*addr);
            let subnet = network.subnet_of(*addr).expect("an address lies in its network");
            let gateway = subnet.gateway;
            self.topology.addrs.insert(Addr { link: inner.clone(), net: alone(*addr) });
            self.topology.addrs.insert(Addr { link: outer.clone(), net: alone(gateway) });
            self.route(outer, alone(*addr), None);
            self.neighbour(outer, *addr, endpoint.mac);
            self.neighbour(inner, gateway, host_end_mac(endpoint));
            self.route(inner, alone(gateway), None);
            self.route(inner, subnet.net.trunc(), Some(gateway));
            if self.leads(endpoint, *addr) {
                self.route(inner, default_route(family), Some(gateway));
            }
            let set = match family {
                Family::V4 => SetName::RoutedSource4,
                Family::V6 => SetName::RoutedSource6,
            };
            self.element(set, outer, (*addr).into());
        }
    }

    /// Whether the container's default route goes by this address's gateway.
    fn leads(&self, endpoint: &Endpoint, addr: IpAddr) -> bool {
        let family = Family::of(addr);
        let by_others = match family {
            Family::V4 => self.container.led.v4,
            Family::V6 => self.container.led.v6,
        };
        !by_others && self.is_gateway(endpoint, family) && self.first_of_family(endpoint, addr)
    }

    fn first_of_family(&self, endpoint: &Endpoint, addr: IpAddr) -> bool {
        endpoint.addrs.iter().find(|other| other.is_ipv4() == addr.is_ipv4()) == Some(&addr)
    }

    fn neighbour(&mut self, link: &LinkId, addr: IpAddr, mac: Mac) {
        self.topology.neighbours.insert(Neighbour { link: link.clone(), addr, mac });
    }

    fn route(&mut self, link: &LinkId, dst: IpNet, via: Option<IpAddr>) {
        self.topology.routes.insert(Route { link: link.clone(), dst, via, src: None });
    }

    /// An element keyed by a host end, for the source checks.
    fn element(&mut self, set: SetName, outer: &LinkId, datum: Datum) {
        let key = vec![Datum::IfName(outer.name.clone()), datum];
        self.put(ElementId { set, key }, Value::None);
    }

    fn put(&mut self, id: ElementId, value: Value) {
        let comment = Arc::clone(&self.comment);
        self.topology.elements.insert(id, Element { value, comment });
    }

    fn publish(&mut self, published: &Published, family: Family) {
        if published.host.is_some_and(|host| Family::of(host) != family) {
            return;
        }
        let Some(target) = self.target(family) else {
            return; // The other family carries it: `decide` saw to it that one does.
        };
        let [exact, any, open] = match family {
            Family::V4 => [SetName::Dnat4, SetName::Any4, SetName::Open4],
            Family::V6 => [SetName::Dnat6, SetName::Any6, SetName::Open6],
        };
        let port = |port| [Datum::Proto(published.proto), Datum::Port(port)];
        let mut key = port(published.host_port).to_vec();
        let set = match published.host.filter(|host| !host.is_unspecified()) {
            Some(host) if host.is_loopback() => return, // Served by the forwarder alone.
            Some(host) => {
                key.insert(0, host.into());
                exact
            }
            None => any,
        };
        let to = Value::Concat(vec![target.into(), Datum::Port(published.container_port)]);
        self.put(ElementId { set, key }, to);
        let mut key = port(published.container_port).to_vec();
        key.insert(0, target.into());
        self.put(ElementId { set: open, key }, Value::None);
    }

    /// The address that published ports of one family lead to.
    fn target(&self, family: Family) -> Option<IpAddr> {
        let endpoint = self.gateway(family)?;
        endpoint.addrs.iter().copied().find(|addr| Family::of(*addr) == family)
    }

    fn loopback_forwards(&mut self) {
        let [v4, v6] = Family::BOTH.map(|family| self.target(family));
        // SCTP cannot be relayed by a program as TCP and UDP are: one association has many streams.
        let relayed = self.container.published.iter().filter(|p| p.proto != Proto::Sctp);
        for published in relayed {
            let port = published.host_port;
            let mut listen = |on: IpAddr, target: Option<IpAddr>| {
                if let Some(target) = target
                    && published.covers(on)
                {
                    self.topology.forwards.insert(Forward {
                        proto: published.proto,
                        listen: SocketAddr::new(published.loopback(on), port),
                        target: SocketAddr::new(target, published.container_port),
                    });
                }
            };
            listen(Ipv4Addr::LOCALHOST.into(), v4.or(v6));
            listen(Ipv6Addr::LOCALHOST.into(), v6.or(v4));
        }
    }

    /// The endpoint's lines in every hosts file whose readers are on its network.
    fn names(&mut self, endpoint: &Endpoint) {
        let names = host_names(self.name, self.container, endpoint);
        if endpoint.network.as_str() == DEFAULT_NETWORK || names.is_empty() {
            return;
        }
        for view in self.state.host.views.keys().filter(|view| view.0.contains(&endpoint.network)) {
            for addr in &endpoint.addrs {
                let line = HostsLine { view: view.clone(), addr: *addr, names: names.clone() };
                self.topology.hosts.insert(line);
            }
        }
    }

    fn files(&mut self) {
        // In somebody else's namespace, that one's names hold.
        if self.container.sandbox.is_own() {
            let source = match &self.container.view {
                Some(view) => HostsSource::View(view.clone()),
                None => {
                    let file = FileId::Hosts(self.name.clone());
                    self.topology.files.insert(file, self.own_hosts());
                    HostsSource::Own
                }
            };
            self.topology.mounts.insert(self.name.clone(), source);
        }
        if !self.container.dns.is_empty() {
            let text: String =
                self.container.dns.iter().map(|server| format!("nameserver {server}\n")).collect();
            self.topology.files.insert(FileId::Resolv(self.name.clone()), text);
        }
    }

    fn own_hosts(&self) -> String {
        let mut text = HOSTS_HEADER.to_owned();
        for endpoint in &self.container.endpoints {
            let names = host_names(self.name, self.container, endpoint);
            let names: Vec<_> = names.iter().map(HostName::as_str).collect();
            for addr in endpoint.addrs.iter().filter(|_| !names.is_empty()) {
                text += &format!("{addr}\t{}\n", names.join(" "));
            }
        }
        text
    }
}

/// How every hosts file begins.
pub const HOSTS_HEADER: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

/// Its name, its hostname and its aliases, as far as they can be looked up.
fn host_names(name: &ContainerName, container: &Container, endpoint: &Endpoint) -> Vec<HostName> {
    let mut names: Vec<HostName> = name.as_str().parse().into_iter().collect();
    for other in container.hostname.iter().chain(&endpoint.aliases) {
        if !names.contains(other) {
            names.push(other.clone());
        }
    }
    names
}

/// A host end's MAC: locally administered, and unique as its number is.
fn host_end_mac(endpoint: &Endpoint) -> Mac {
    let [a, b, c, d] = endpoint.number.to_be_bytes();
    Mac([0x0a, 0x74, a, b, c, d])
}

fn default_route(family: Family) -> IpNet {
    match family {
        Family::V4 => with_prefix(Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => with_prefix(Ipv6Addr::UNSPECIFIED.into(), 0),
    }
}

fn alone(addr: IpAddr) -> IpNet {
    IpNet::from(addr)
}

fn with_prefix(addr: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(addr, prefix).expect("a prefix taken from a subnet of the same family")
}
