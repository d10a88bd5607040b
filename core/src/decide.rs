//! The only place where choices are made: which address, which name, whether a port is free.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    model::Sysctl,
    name::{BadName, ContainerName, IfName, NetworkName, Proto},
    state::{Host, Keys, Published, Request, State},
};

/// What `decide` must know of the world beyond the stored state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// The MTU of the default route's device.
    pub uplink_mtu: bool,
    /// Every subnet and route on the host that is not ours.
    pub subnets: bool,
    /// Whether host ports can be bound.
    pub ports: BTreeSet<Probe>,
    /// The present value of switches.
    pub sysctls: BTreeSet<Sysctl>,
    /// Whether host links (of cables cut earlier) still exist.
    pub links: BTreeSet<IfName>,
    /// Whether these containers' namespaces still exist.
    pub sandboxes: BTreeSet<ContainerName>,
}

/// Asks for `want` ports out of `first..=last` that nobody listens on and nobody was promised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub proto: Proto,
    /// `None`: on every address, of both families.
    pub host: Option<IpAddr>,
    pub first: u16,
    pub last: u16,
    pub want: u16,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeAnswer {
    pub free: Vec<u16>,
    /// Ports tried and found taken, with what holds them, as "nginx (pid 812)".
    pub busy: BTreeMap<u16, String>,
}

/// The answers to [`Questions`], and what is neither state nor kernel: chance and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub uplink_mtu: u32,
    pub subnets: Vec<IpNet>,
    pub ports: BTreeMap<Probe, ProbeAnswer>,
    pub sysctls: BTreeMap<Sysctl, String>,
    /// Of the links asked about, those that are gone.
    pub gone_links: BTreeSet<IfName>,
    /// Of the sandboxes asked about, those that are gone.
    pub gone_sandboxes: BTreeSet<ContainerName>,
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral: (u16, u16),
    pub random: u64,
    /// Seconds since 1970.
    pub now: u64,
}

/// What was done, in the order of the request's changes, for the front end to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub published: Vec<(ContainerName, Published)>,
    /// Containers found dead on the way and detached.
    pub reaped: Vec<ContainerName>,
}

/// Why a request is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no network named {0}")]
    NoSuchNetwork(NetworkName),
    #[error(transparent)]
    BadName(#[from] BadName),
}

/// Which rows `request` needs.
pub fn keys(_request: &Request, _host: &Host) -> Keys {
    Keys::default()
}

/// Which rows are needed beyond those, as the loaded ones show.
pub fn more_keys(_state: &State, _request: &Request) -> Option<Keys> {
    None
}

/// What `decide` will ask about.
pub fn questions(_state: &State, _request: &Request) -> Questions {
    Questions::default()
}

/// Returns the state after `request`. Asking twice for the same thing changes nothing.
pub fn decide(
    state: &State,
    _request: &Request,
    _facts: &Facts,
) -> Result<(State, Reply), Refusal> {
    Ok((state.clone(), Reply::default()))
}
