//! From a lab file and what there is, to the steps that bring one to the other.
//!
//! Pure: the steps are carried out elsewhere. A lab that is up takes no step.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use twinax_core::{
    decide::network_difference,
    name::{ContainerName, NetworkName},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Endpoint, NetworkSpec, PublishSpec,
        Published, Request, State, Status,
    },
};

use crate::front::{
    cli::Mode,
    lab::{LabContainer, LabFile},
};

/// The label of networks that a lab made.
pub const LABEL: &str = "twinax.lab";

/// One thing that `up` or `down` does, whole or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Stop {
        name: ContainerName,
        why: Why,
    },
    RemoveNetwork {
        name: NetworkName,
    },
    CreateNetwork {
        name: NetworkName,
        spec: NetworkSpec,
    },
    Start(Box<LabContainer>),
    /// Plugs a running container out, and takes ports from it.
    Leave {
        name: ContainerName,
        request: Request,
    },
    /// Plugs a running container in, and publishes its ports.
    Join {
        name: ContainerName,
        request: Request,
    },
}

/// Why a container is stopped and removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The file names it no more, or the lab goes down.
    Unwanted,
    /// What it runs has changed.
    Changed,
    /// It is not running.
    Ended,
    /// A network that it is on is made anew.
    Network,
}

/// Something of the same name that is not this lab's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabConflict {
    #[error("there is a container {name} already, which lab {lab} did not make")]
    Container { name: ContainerName, lab: String },
    #[error("lab {lab} is up already, from {file}")]
    File { lab: String, file: String },
    #[error("there is a network {name} already, which lab {lab} did not make")]
    Network { name: NetworkName, lab: String },
}

/// Returns the steps from `state` to the lab running as `file` has it.
///
/// # Errors
/// [`LabConflict`] where a name is taken by something that is not the lab's.
pub fn up(file: &LabFile, state: &State) -> Result<Vec<Step>, LabConflict> {
    let specs = labelled(file);
    conflicts(file, &specs, state)?;
    let changed: Vec<_> = specs
        .iter()
        .filter(|(name, spec)| {
            let have = state.networks.all().get(name);
            have.is_some_and(|have| network_difference(have, spec).is_some())
        })
        .map(|(name, _)| name.clone())
        .collect();
    let mut steps = Vec::new();
    let mut stays = BTreeMap::new();
    for (name, container) in mine(&file.name, state) {
        match stop_why(file, name, container, &changed) {
            Some(why) => steps.push(Step::Stop { name: name.clone(), why }),
            None => {
                stays.insert(name.clone(), container);
            }
        }
    }
    // What goes leaves before what it stood on, and what others are to have is given up first.
    let mut changes: BTreeMap<&ContainerName, Request> = BTreeMap::new();
    for wanted in &file.containers {
        if let Some(container) = stays.get(&wanted.name) {
            let (leave, join) = change(wanted, container);
            if !leave.is_empty() {
                steps.push(Step::Leave { name: wanted.name.clone(), request: leave });
            }
            changes.insert(&wanted.name, join);
        }
    }
    let gone = my_networks(&file.name, state).filter(|name| !specs.contains_key(name));
    steps.extend(gone.chain(changed.iter().cloned()).map(|name| Step::RemoveNetwork { name }));
    for (name, spec) in specs {
        if !state.networks.all().contains_key(&name) || changed.contains(&name) {
            steps.push(Step::CreateNetwork { name, spec });
        }
    }
    for wanted in &file.containers {
        match changes.remove(&wanted.name) {
            None => steps.push(Step::Start(Box::new(wanted.clone()))),
            Some(join) if join.is_empty() => {}
            Some(join) => steps.push(Step::Join { name: wanted.name.clone(), request: join }),
        }
    }
    Ok(steps)
}

/// Returns the steps that take a lab away, last started first.
pub fn down(file: &LabFile, state: &State) -> Vec<Step> {
    let mut names: Vec<_> = mine(&file.name, state).map(|(name, _)| name.clone()).collect();
    let order = |name: &ContainerName| file.containers.iter().position(|c| c.name == *name);
    names.sort_by_key(|name| std::cmp::Reverse(order(name)));
    let stops = names.into_iter().map(|name| Step::Stop { name, why: Why::Unwanted });
    let networks = my_networks(&file.name, state).map(|name| Step::RemoveNetwork { name });
    stops.chain(networks).collect()
}

/// Returns the files that other containers of a lab of this name come from.
pub fn other_files<'a>(lab: &'a str, path: &'a str, state: &'a State) -> BTreeSet<&'a str> {
    let labs = mine(lab, state).filter_map(|(_, container)| container.run.as_ref()?.lab.as_ref());
    let files = labs.map(|lab| lab.file.as_str());
    files.filter(|file| !file.is_empty() && *file != path).collect()
}

/// The file's networks, labelled as the lab's; the default one is nobody's.
fn labelled(file: &LabFile) -> BTreeMap<NetworkName, NetworkSpec> {
    let mut specs = file.networks.clone();
    for spec in specs.values_mut() {
        spec.labels.insert(LABEL.to_owned(), file.name.clone());
    }
    specs
}

fn conflicts(
    file: &LabFile,
    specs: &BTreeMap<NetworkName, NetworkSpec>,
    state: &State,
) -> Result<(), LabConflict> {
    let lab = || file.name.clone();
    for container in &file.containers {
        if let Some(have) = state.containers.all().get(&container.name)
            && lab_of(have) != Some(&file.name)
        {
            return Err(LabConflict::Container { name: container.name.clone(), lab: lab() });
        }
    }
    for name in specs.keys().filter(|name| name.as_str() != DEFAULT_NETWORK) {
        if let Some(have) = state.networks.all().get(name)
            && have.labels.get(LABEL) != Some(&file.name)
        {
            return Err(LabConflict::Network { name: name.clone(), lab: lab() });
        }
    }
    Ok(())
}

fn lab_of(container: &Container) -> Option<&String> {
    Some(&container.run.as_ref()?.lab.as_ref()?.name)
}

fn mine<'a>(
    lab: &'a str,
    state: &'a State,
) -> impl Iterator<Item = (&'a ContainerName, &'a Container)> {
    let containers = state.containers.all().iter();
    containers.filter(move |(_, container)| lab_of(container).is_some_and(|name| name == lab))
}

fn my_networks<'a>(lab: &'a str, state: &'a State) -> impl Iterator<Item = NetworkName> + 'a {
    let networks = state.networks.all().iter();
    networks
        .filter(move |(_, network)| network.labels.get(LABEL).is_some_and(|l| l == lab))
        .map(|(name, _)| name.clone())
}

fn stop_why(
    file: &LabFile,
    name: &ContainerName,
    container: &Container,
    changed: &[NetworkName],
) -> Option<Why> {
    let Some(wanted) = file.containers.iter().find(|wanted| wanted.name == *name) else {
        return Some(Why::Unwanted);
    };
    let run = container.run.as_ref()?;
    if !matches!(run.status, Status::Running { .. }) {
        return Some(Why::Ended);
    }
    if run.lab.as_ref().is_none_or(|lab| lab.digest != wanted.digest) {
        return Some(Why::Changed);
    }
    let on = |endpoint: &Endpoint| changed.contains(&endpoint.network);
    container.endpoints.iter().any(on).then_some(Why::Network)
}

/// What turns the networks and ports of a running container into the wanted ones: what it gives
/// up, and what it takes. Where it leaves a network, all its ports go and come back, as the
/// network may be the one that carries them.
fn change(wanted: &LabContainer, have: &Container) -> (Request, Request) {
    let specs: &[AttachSpec] = match &wanted.mode {
        Mode::Networks(specs) => specs,
        _ => &[],
    };
    let name = &wanted.name;
    let fits = |endpoint: &&Endpoint| specs.iter().any(|spec| is(spec, endpoint));
    let (stay, go): (Vec<&Endpoint>, Vec<_>) = have.endpoints.iter().partition(fits);
    let keeps = |p: &&Published| go.is_empty() && wanted.publish.iter().any(|s| covers(s, p));
    let (kept, given_up): (Vec<&Published>, Vec<_>) = have.published.iter().partition(keeps);
    let mut leave = Request::new();
    if !given_up.is_empty() {
        let ports = given_up.into_iter().map(exactly).collect();
        leave.push(Change::Unpublish { container: name.clone(), ports });
    }
    for endpoint in go {
        let network = endpoint.network.clone();
        leave.push(Change::Detach { container: name.clone(), network });
    }
    let mut join = Request::new();
    for spec in specs.iter().filter(|spec| !stay.iter().any(|endpoint| is(spec, endpoint))) {
        join.push(Change::Attach { container: name.clone(), spec: spec.clone() });
    }
    let missing: Vec<_> =
        wanted.publish.iter().filter(|spec| !is_published(spec, &kept)).cloned().collect();
    if !missing.is_empty() {
        join.push(Change::Publish { container: name.clone(), ports: missing });
    }
    (leave, join)
}

/// Whether an endpoint is what `spec` asks for.
fn is(spec: &AttachSpec, endpoint: &Endpoint) -> bool {
    spec.network == endpoint.network
        && spec.ip.is_none_or(|ip| endpoint.addrs.contains(&ip.into()))
        && spec.ip6.is_none_or(|ip| endpoint.addrs.contains(&ip.into()))
        && spec.mac.is_none_or(|mac| endpoint.mac == mac)
        && spec.ifname.as_ref().is_none_or(|ifname| endpoint.ifname == *ifname)
        && spec.aliases == endpoint.aliases
        && spec.gateway_priority == endpoint.gateway_priority
}

/// Whether a published port is one of those that `spec` asks for.
fn covers(spec: &PublishSpec, published: &Published) -> bool {
    let (first, last) = spec.container_ports;
    let inside = (first..=last).contains(&published.container_port);
    let host = match spec.host_ports {
        None => true,
        Some((low, high)) if high - low == last - first => {
            inside && published.host_port == low + (published.container_port - first)
        }
        Some((low, high)) => (low..=high).contains(&published.host_port),
    };
    spec.proto == published.proto && spec.host == published.host && inside && host
}

fn is_published(spec: &PublishSpec, kept: &[&Published]) -> bool {
    let (first, last) = spec.container_ports;
    (first..=last).all(|port| kept.iter().any(|p| p.container_port == port && covers(spec, p)))
}

fn exactly(published: &Published) -> PublishSpec {
    PublishSpec {
        proto: published.proto,
        host: published.host,
        host_ports: Some((published.host_port, published.host_port)),
        container_ports: (published.container_port, published.container_port),
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stop { name, why } => write!(f, "stop {name} ({why})"),
            Self::RemoveNetwork { name } => write!(f, "remove network {name}"),
            Self::CreateNetwork { name, .. } => write!(f, "create network {name}"),
            Self::Start(container) => write!(f, "start {}", container.name),
            Self::Leave { name, .. } => write!(f, "unplug {name} from what it leaves"),
            Self::Join { name, .. } => write!(f, "plug {name} in anew"),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unwanted => "no longer wanted",
            Self::Changed => "what it runs has changed",
            Self::Ended => "it has ended",
            Self::Network => "a network of its is made anew",
        })
    }
}
