//! What must be known of the world before a request can be decided.

use std::{collections::BTreeMap, net::IpAddr};

use crate::{
    gateway::Family,
    name::{ContainerName, Proto},
    state::{
        Change, DEFAULT_NETWORK, GatewayMode, Host, NetworkSpec, PublishSpec, Request, Sandbox,
        State, Way,
    },
};

use super::{
    Probe, Questions, container::ghosts_at_hand, keys::needs_default, network::forwarding,
    network::wants,
};

/// Returns what `decide` will ask about.
pub fn questions(state: &State, request: &Request) -> Questions {
    let mut questions =
        Questions { links: ghosts_at_hand(state).cloned().collect(), ..Questions::default() };
    if request.is_empty() {
        let names = state.containers.loaded().keys();
        names.for_each(|name| ask_after(state, name, &mut questions));
    }
    let defined = state.networks.loaded().iter();
    for (_, network) in defined.filter(|(name, _)| state.leases.get(name).is_none()) {
        let out = Family::BOTH.into_iter().filter(|family| network.leads_out(*family));
        questions.sysctls.extend(out.map(forwarding));
    }
    if needs_default(state, request) {
        ask_for_network(state, &NetworkSpec::default(), &mut questions);
    }
    let probes = Probes::of(request, &state.host);
    for change in request {
        match change {
            Change::CreateNetwork { name, spec } => {
                let again = request.iter().any(
                    |change| matches!(change, Change::RemoveNetwork { name: removed } if removed == name),
                );
                if again || state.networks.get(name).is_none() {
                    ask_for_network(state, spec, &mut questions);
                }
            }
            Change::RemoveNetwork { .. }
            | Change::RemoveContainer { .. }
            | Change::End { .. }
            | Change::Exited { .. } => {}
            Change::PutContainer { name, container } => {
                ask_after(state, name, &mut questions);
                if let Way::Of(other) = &container.sandbox.way {
                    ask_after(state, other, &mut questions);
                }
            }
            Change::Attach { container, .. } => {
                ask_after(state, container, &mut questions);
                questions.rooms.extend(foreign(state, request, container));
            }
            Change::Detach { container, .. } | Change::Unpublish { container, .. } => {
                ask_after(state, container, &mut questions)
            }
            Change::Publish { container, ports } => {
                ask_after(state, container, &mut questions);
                questions.ports.extend(ports.iter().map(|spec| probes.probe(spec)));
            }
        }
    }
    // They go anyway, and whoever saw one exit knows how.
    for change in request {
        if let Change::RemoveContainer { name } | Change::Exited { name, .. } = change {
            questions.sandboxes.remove(name);
        }
    }
    questions
}

fn ask_after(state: &State, name: &ContainerName, questions: &mut Questions) {
    if state.containers.get(name).is_some_and(|container| !container.exited()) {
        questions.sandboxes.insert(name.clone());
    }
}

/// Where another runtime's container is, known already or from this very request on.
fn foreign(
    state: &State,
    request: &Request,
    name: &ContainerName,
) -> Option<(ContainerName, Sandbox)> {
    let put = request.iter().find_map(|change| match change {
        Change::PutContainer { name: put, container } if put == name => Some(container),
        _ => None,
    });
    let container = state.containers.get(name).or(put)?;
    container.run.is_none().then(|| (name.clone(), container.sandbox.clone()))
}

fn ask_for_network(state: &State, spec: &NetworkSpec, questions: &mut Questions) {
    questions.subnets = true;
    questions.uplink_mtu |= spec.mtu.is_none();
    let modes = [(Family::V4, spec.mode4), (Family::V6, spec.mode6)];
    for (family, mode) in modes {
        let leads_out = !spec.internal && wants(spec, family) && mode != GatewayMode::Isolated;
        let sysctl = forwarding(family);
        // Once it is ours, the value we set is not the one to restore.
        let settled = state.host.sysctls.contains_key(&sysctl);
        if leads_out && !settled {
            questions.sysctls.insert(sysctl);
        }
    }
}

/// Which probe each published port is looked up by: the same when asked and when answered.
pub(super) struct Probes {
    /// Where the search for automatic ports starts.
    from: u16,
    /// How many automatic ports the request wants, per protocol. Each address is asked for that
    /// many, so that ports already given to another address can be passed over.
    automatic: BTreeMap<Proto, u16>,
}

impl Probes {
    pub(super) fn of(request: &Request, host: &Host) -> Self {
        let mut automatic: BTreeMap<Proto, u16> = BTreeMap::new();
        for change in request {
            let Change::Publish { ports, .. } = change else { continue };
            for spec in ports.iter().filter(|spec| spec.host_ports.is_none()) {
                let (first, last) = spec.container_ports;
                let width = last.saturating_sub(first).saturating_add(1);
                let want = automatic.entry(spec.proto).or_default();
                *want = want.saturating_add(width);
            }
        }
        Self { from: host.next_port, automatic }
    }

    pub(super) fn probe(&self, spec: &PublishSpec) -> Probe {
        let (proto, host) = (spec.proto, spec.host.map(unmapped));
        match spec.host_ports {
            Some((first, last)) => {
                let want = last.saturating_sub(first).saturating_add(1);
                Probe { proto, host, first, last, want }
            }
            None => {
                let want = self.automatic.get(&proto).copied().unwrap_or(0);
                Probe { proto, host, first: self.from, last: 0, want }
            }
        }
    }
}

/// `::ffff:192.0.2.1` is the IPv4 address in it (RFC 4291, 2.5.5.2).
pub(super) fn unmapped(addr: IpAddr) -> IpAddr {
    addr.to_canonical()
}

/// Whether `name` is that of the default network.
pub(super) fn is_default(name: &crate::name::NetworkName) -> bool {
    name.as_str() == DEFAULT_NETWORK
}
