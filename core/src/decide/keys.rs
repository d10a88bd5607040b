//! Which rows a request needs: as few as can be, so that the thousandth attach costs what the
//! first did.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    model::HostsView,
    name::{ContainerName, NetworkName},
    state::{Change, Container, DEFAULT_NETWORK, Keys, PortKey, PublishSpec, Request, State, Way},
};

/// Returns the rows that `request` names; an empty one needs all, to bury what died.
///
/// The store adds what a container brings: its networks and its published ports.
pub fn keys(request: &Request) -> Keys {
    let mut keys = Keys { all: request.is_empty(), ..Keys::default() };
    for change in request {
        match change {
            // A new subnet, number and bridge name must differ from every other.
            Change::CreateNetwork { .. } => keys.all_networks = true,
            Change::RemoveNetwork { name } => {
                keys.networks.insert(name.clone());
            }
            Change::PutContainer { name, container } => {
                keys.containers.insert(name.clone());
                if let Way::Of(other) = &container.sandbox.way {
                    keys.containers.insert(other.clone());
                }
            }
            Change::RemoveContainer { name }
            | Change::End { name }
            | Change::Exited { name, .. } => {
                keys.containers.insert(name.clone());
            }
            Change::Attach { container, spec } => {
                keys.containers.insert(container.clone());
                keys.networks.insert(spec.network.clone());
            }
            Change::Detach { container, network } => {
                keys.containers.insert(container.clone());
                keys.networks.insert(network.clone());
            }
            Change::Publish { container, ports } => {
                keys.containers.insert(container.clone());
                keys.ports.extend(ports.iter().flat_map(explicit));
            }
            Change::Unpublish { container, .. } => {
                keys.containers.insert(container.clone());
            }
        }
    }
    keys
}

fn explicit(spec: &PublishSpec) -> impl Iterator<Item = PortKey> {
    let proto = spec.proto;
    let ports = spec.host_ports.map(|(first, last)| first..=last).into_iter().flatten();
    ports.map(move |port| PortKey { proto, port })
}

/// Returns the keys to load instead, if what [`keys`] brought is not enough; after those, nothing
/// more is needed.
///
/// That is so when the default network must be created, when a hosts file comes into use whose
/// lines speak of containers that are not loaded, and when a network is removed that somebody
/// else is on.
pub fn more_keys(state: &State, request: &Request) -> Option<Keys> {
    let mut keys = keys(request);
    let default = !state.networks.complete() && needs_default(state, request);
    keys.all_networks |= default;
    let views = new_views(state, request).into_iter().flat_map(|HostsView(networks)| networks);
    let removed = request.iter().filter_map(|change| match change {
        Change::RemoveNetwork { name } => Some(name.clone()),
        _ => None,
    });
    let networks: BTreeSet<NetworkName> = views.chain(removed).collect();
    let stranger =
        !state.containers.complete() && networks.iter().any(|name| strangers(state, name) > 0);
    keys.all |= stranger;
    (default || stranger).then_some(keys)
}

/// Whether `request` makes the default network by attaching to it.
pub(super) fn needs_default(state: &State, request: &Request) -> bool {
    let mut removed = false;
    request.iter().any(|change| match change {
        Change::RemoveNetwork { name } if name.as_str() == DEFAULT_NETWORK => {
            removed = true;
            false
        }
        Change::Attach { spec, .. } if spec.network.as_str() == DEFAULT_NETWORK => {
            removed || state.networks.get(&spec.network).is_none()
        }
        _ => false,
    })
}

/// How many addresses of a network are held by containers that are not loaded.
pub(super) fn strangers(state: &State, name: &NetworkName) -> usize {
    if !state.networks.knows(name) {
        return 0;
    }
    let (Some(network), Some(leases)) = (state.networks.get(name), state.leases.get(name)) else {
        return 0;
    };
    let kept: usize = network.subnets.iter().map(|subnet| 1 + subnet.reserved.len()).sum();
    let ghosts = state.host.ghosts.values().flatten().filter(|(of, _)| of == name).count();
    let endpoints = state.containers.loaded().values().flat_map(|c| &c.endpoints);
    let here: usize = endpoints.filter(|e| e.network == *name).map(|e| e.addrs.len()).sum();
    leases.count().saturating_sub(kept + ghosts + here)
}

/// The hosts files that come into use by `request`.
fn new_views(state: &State, request: &Request) -> Vec<HostsView> {
    let mut futures: BTreeMap<&ContainerName, Future> = BTreeMap::new();
    for change in request {
        let name = match change {
            Change::CreateNetwork { .. } | Change::RemoveNetwork { .. } => continue,
            Change::PutContainer { name, .. }
            | Change::RemoveContainer { name }
            | Change::End { name }
            | Change::Exited { name, .. } => name,
            Change::Attach { container, .. }
            | Change::Detach { container, .. }
            | Change::Publish { container, .. }
            | Change::Unpublish { container, .. } => container,
        };
        let future = futures.entry(name).or_insert_with(|| Future::of(state.containers.get(name)));
        match change {
            Change::PutContainer { container, .. } if !future.lives => {
                *future = Future::of(Some(container));
            }
            Change::RemoveContainer { .. } | Change::End { .. } | Change::Exited { .. } => {
                *future = Future::of(None);
            }
            Change::Attach { spec, .. } if spec.network.as_str() != DEFAULT_NETWORK => {
                future.networks.insert(spec.network.clone());
            }
            Change::Detach { network, .. } => {
                future.networks.remove(network);
            }
            _ => {}
        }
    }
    let views: BTreeSet<HostsView> = futures.into_values().filter_map(Future::view).collect();
    views.into_iter().filter(|view| !state.host.views.contains_key(view)).collect()
}

/// Where a container will be after the changes read so far.
struct Future {
    /// There is such a container, and its end is neither past nor promised.
    lives: bool,
    /// Twinax runs it, so it reads a hosts file.
    run: bool,
    networks: BTreeSet<NetworkName>,
}

impl Future {
    fn of(container: Option<&Container>) -> Self {
        let Some(container) = container.filter(|container| !container.is_over()) else {
            return Self { lives: false, run: false, networks: BTreeSet::new() };
        };
        let networks = container.endpoints.iter().map(|e| e.network.clone());
        Self {
            lives: true,
            run: container.run.is_some(),
            networks: networks.filter(|name| name.as_str() != DEFAULT_NETWORK).collect(),
        }
    }

    fn view(self) -> Option<HostsView> {
        (self.run && !self.networks.is_empty()).then_some(HostsView(self.networks))
    }
}
