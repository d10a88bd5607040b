//! Ports of the host that lead to containers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use std::collections::BTreeSet;

use crate::{
    gateway::{Family, gateway_endpoint},
    name::{ContainerName, NetworkName},
    state::{Container, GatewayMode, Network, PortClaim, PortKey, PublishSpec, Published, Table},
};

use super::{Decision, ProbeAnswer, Refusal, questions::unmapped, refusal::join};

impl Decision<'_> {
    pub(super) fn publish(
        &mut self,
        name: &ContainerName,
        ports: &[PublishSpec],
    ) -> Result<(), Refusal> {
        let mut met = BTreeSet::new();
        for spec in ports {
            let container = self.own_sandbox(name, "publish ports")?;
            let count = check(spec)?;
            let host = spec.host.map(unmapped);
            if !carried(container, &self.state.networks, host) {
                let why = obstacle(container, &self.state.networks, host);
                return Err(Refusal::CannotCarry { container: name.clone(), why });
            }
            let probe = self.probes.probe(spec);
            let answer = self.facts.ports.get(&probe).cloned().unwrap_or_default();
            // Both ends of the range were checked, so the sums stay below 65,536.
            for n in 0..count {
                // One port meets one wish: `8080:80` and `80` are two ports.
                let published = match self.published_already(name, (spec, n), &met, ports) {
                    Some(published) => published,
                    None => self.publish_one(name, spec, &answer, n)?,
                };
                met.insert(published.clone());
                self.reply.published.push((name.clone(), published));
            }
        }
        Ok(())
    }

    /// What meets the wish for one container port already, and no other wish of the request.
    fn published_already(
        &self,
        name: &ContainerName,
        (spec, n): (&PublishSpec, u16),
        met: &BTreeSet<Published>,
        wishes: &[PublishSpec],
    ) -> Option<Published> {
        let container_port = spec.container_ports.0 + n;
        // A wish for any port leaves those that another wish names to it.
        let named = |p: &Published| {
            spec.host_ports.is_none()
                && wishes.iter().any(|wish| wish.host_ports.is_some() && meant(wish, p))
        };
        let host = spec.host.map(unmapped);
        let fits = |host_port: u16| match spec.host_ports {
            None => true,
            Some((first, _)) if one_to_one(spec) => host_port == first + n,
            Some((first, last)) => (first..=last).contains(&host_port),
        };
        let mut published = self.state.containers.get(name)?.published.iter();
        published
            .find(|p| {
                p.proto == spec.proto
                    && p.host == host
                    && p.container_port == container_port
                    && fits(p.host_port)
                    && !met.contains(p)
                    && !named(p)
            })
            .cloned()
    }

    fn publish_one(
        &mut self,
        name: &ContainerName,
        spec: &PublishSpec,
        answer: &ProbeAnswer,
        n: u16,
    ) -> Result<Published, Refusal> {
        let host = spec.host.map(unmapped);
        if let Some(host) = host.filter(|_| answer.absent) {
            return Err(Refusal::NoHostAddress(host));
        }
        let host_port = match spec.host_ports {
            Some((first, _)) if one_to_one(spec) => self.exact(spec, answer, first + n)?,
            Some((first, last)) => {
                let free = (first..=last).find(|port| self.exact(spec, answer, *port).is_ok());
                let ports = spec.host_ports;
                free.ok_or(Refusal::NoPortLeft { proto: spec.proto, ports })?
            }
            None => self.automatic(spec, answer)?,
        };
        let key = PortKey { proto: spec.proto, port: host_port };
        let claim = PortClaim { host, container: name.clone() };
        match self.state.ports.get_mut(&key) {
            Some(claims) => claims.push(claim),
            None => {
                self.state.ports.insert(key, vec![claim]);
            }
        }
        let container_port = spec.container_ports.0 + n;
        let published = Published { proto: spec.proto, host, host_port, container_port };
        self.state.host.forwards += u32::from(on_loopback(&published));
        let container = self.state.containers.get_mut(name).expect("it was looked up before");
        container.published.push(published.clone());
        Ok(published)
    }

    /// The port asked for, if nobody has it.
    fn exact(&self, spec: &PublishSpec, answer: &ProbeAnswer, port: u16) -> Result<u16, Refusal> {
        let host = spec.host.map(unmapped);
        let taken = |by| Refusal::PortTaken { proto: spec.proto, host, port, by };
        let claims = self.state.ports.get(&PortKey { proto: spec.proto, port });
        if let Some(claim) = claims.into_iter().flatten().find(|claim| clash(claim.host, host)) {
            return Err(taken(format!("container {}", claim.container)));
        }
        if let Some(by) = answer.busy.get(&port) {
            return Err(taken(by.clone()));
        }
        Ok(port)
    }

    /// A port that nobody has. Its row was not loaded: the answer says that nobody was promised it.
    fn automatic(&mut self, spec: &PublishSpec, answer: &ProbeAnswer) -> Result<u16, Refusal> {
        for port in &answer.free {
            self.state.ports.learn(PortKey { proto: spec.proto, port: *port });
            if self.exact(spec, answer, *port).is_ok() {
                self.state.host.next_port = port.checked_add(1).unwrap_or(1);
                return Ok(*port);
            }
        }
        Err(Refusal::NoPortLeft { proto: spec.proto, ports: None })
    }

    pub(super) fn unpublish(
        &mut self,
        name: &ContainerName,
        ports: &[PublishSpec],
    ) -> Result<(), Refusal> {
        for spec in ports {
            // What was found dead by this request lost its ports with it.
            if self.reply.reaped.contains(name) {
                return Ok(());
            }
            let container = self.state.containers.get_mut(name);
            let container = container.ok_or_else(|| Refusal::NoSuchContainer(name.clone()))?;
            let all = std::mem::take(&mut container.published);
            let (gone, kept): (Vec<_>, Vec<_>) = all.into_iter().partition(|p| meant(spec, p));
            container.published = kept;
            if gone.is_empty() {
                let shown: Vec<_> = container.published.iter().map(show).collect();
                let published = if shown.is_empty() { "nothing".to_owned() } else { join(&shown) };
                let (container, asked) = (name.clone(), asked(spec));
                return Err(Refusal::NotPublished { container, asked, published });
            }
            for published in &gone {
                self.disclaim(name, published);
            }
        }
        Ok(())
    }

    /// Takes back the promise of a host port.
    pub(super) fn disclaim(&mut self, name: &ContainerName, published: &Published) {
        let key = PortKey { proto: published.proto, port: published.host_port };
        if let Some(claims) = self.state.ports.get_mut(&key) {
            claims.retain(|claim| claim.container != *name || claim.host != published.host);
            if claims.is_empty() {
                self.state.ports.remove(&key);
            }
        }
        let host = &mut self.state.host;
        host.forwards = host.forwards.saturating_sub(u32::from(on_loopback(published)));
    }
}

/// Whether some endpoint can carry what is published on `host`.
///
/// An address of one family needs an endpoint of that family; every address, and the host's own
/// loopback, which a forwarder serves, are content with either.
pub(super) fn carried(
    container: &Container,
    networks: &Table<NetworkName, Network>,
    host: Option<IpAddr>,
) -> bool {
    families(host).iter().any(|family| gateway_endpoint(container, networks, *family).is_some())
}

fn families(host: Option<IpAddr>) -> &'static [Family] {
    match host {
        Some(addr) if addr.is_loopback() => &Family::BOTH,
        Some(IpAddr::V4(_)) => &[Family::V4],
        Some(IpAddr::V6(_)) => &[Family::V6],
        None => &Family::BOTH,
    }
}

/// Says why no endpoint can carry what is published on `host`.
fn obstacle(
    container: &Container,
    networks: &Table<NetworkName, Network>,
    host: Option<IpAddr>,
) -> String {
    let reasons: Vec<String> = container
        .endpoints
        .iter()
        .filter_map(|endpoint| {
            let name = &endpoint.network;
            let network = networks.get(name)?;
            Some(match families(host) {
                _ if network.internal => format!("network {name} is internal"),
                [family] if !network.has(*family) => format!("network {name} has no {family}"),
                families => {
                    let isolated = |f: &&Family| network.mode(**f) == GatewayMode::Isolated;
                    let isolated: Vec<_> = families.iter().filter(isolated).collect();
                    format!("the gateway of network {name} is isolated in {}", join(&isolated))
                }
            })
        })
        .collect();
    match reasons.is_empty() {
        true => "it is on no network".to_owned(),
        false => join(&reasons),
    }
}

/// Whether a port published on `a` cannot be published on `b` too.
fn clash(a: Option<IpAddr>, b: Option<IpAddr>) -> bool {
    match (a, b) {
        (None, _) | (_, None) => true,
        (Some(a), Some(b)) => {
            a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
        }
    }
}

/// Whether the host reaches the port on its own 127.0.0.1 or ::1.
fn on_loopback(published: &Published) -> bool {
    published.covers(Ipv4Addr::LOCALHOST.into()) || published.covers(Ipv6Addr::LOCALHOST.into())
}

/// Returns the number of container ports, if `spec` makes sense.
fn check(spec: &PublishSpec) -> Result<u16, Refusal> {
    let width = |(first, last): (u16, u16)| match first != 0 && first <= last {
        true => Ok(u32::from(last - first) + 1),
        false => Err(Refusal::BadPorts(first, last)),
    };
    let container = width(spec.container_ports)?;
    if let Some(ports) = spec.host_ports {
        let host = width(ports)?;
        if host != container && container != 1 {
            return Err(Refusal::PortsMismatch { host, container });
        }
    }
    let broadcast = |addr: IpAddr| matches!(addr, IpAddr::V4(addr) if addr.is_broadcast());
    if let Some(addr) = spec.host.filter(|addr| addr.is_multicast() || broadcast(*addr)) {
        return Err(Refusal::BadHostAddress(addr));
    }
    u16::try_from(container).map_err(|_| Refusal::BadPorts(0, u16::MAX))
}

fn one_to_one(spec: &PublishSpec) -> bool {
    let (first, last) = spec.container_ports;
    spec.host_ports.is_some_and(|(a, b)| b.abs_diff(a) == last.abs_diff(first))
}

/// Whether `spec` asks to unpublish `published`: every part that it names agrees.
fn meant(spec: &PublishSpec, published: &Published) -> bool {
    let within = |(first, last): (u16, u16), port| (first..=last).contains(&port);
    spec.proto == published.proto
        && spec.host.is_none_or(|host| Some(unmapped(host)) == published.host)
        && spec.host_ports.is_none_or(|ports| within(ports, published.host_port))
        && (spec.container_ports == (0, 0)
            || within(spec.container_ports, published.container_port))
}

/// `127.0.0.1:8080->80/tcp`, as `docker ps` shows it.
pub(super) fn show(published: &Published) -> String {
    let Published { proto, host, host_port, container_port } = published;
    match host {
        None => format!("{host_port}->{container_port}/{proto}"),
        Some(addr) => format!("{}->{container_port}/{proto}", SocketAddr::new(*addr, *host_port)),
    }
}

fn asked(spec: &PublishSpec) -> String {
    let range = |(first, last): (u16, u16)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    };
    let host = match spec.host {
        Some(IpAddr::V6(addr)) => format!("[{addr}]:"),
        Some(addr) => format!("{addr}:"),
        None => String::new(),
    };
    let host_ports = spec.host_ports.map(|ports| format!("{}:", range(ports))).unwrap_or_default();
    format!("{host}{host_ports}{}/{}", range(spec.container_ports), spec.proto)
}
