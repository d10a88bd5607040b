//! The only place where choices are made: which address, which name, whether a port is free.
//!
//! A request is decided in three steps, each of them pure:
//!
//! 1. [`keys`] names the stored rows it needs; [`more_keys`] looks at what was loaded and, in the
//!    rare case that more is needed, names a wider set.
//! 2. [`questions`] says what must be known of the world, which the shell answers in [`Facts`].
//! 3. [`decide`] returns the state after the request, or why it is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    model::Sysctl,
    name::{ContainerName, IfName, Proto},
    state::{Change, Host, Led, Published, Request, Sandbox, State},
};

mod attach;
mod container;
mod keys;
mod network;
mod publish;
mod questions;
mod refusal;

pub use keys::{keys, more_keys};
pub use network::network_difference;
pub use questions::questions;
pub use refusal::Refusal;

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
    /// Whether these containers' namespaces (and processes, if Twinax runs them) still exist.
    pub sandboxes: BTreeSet<ContainerName>,
    /// What others have made in these namespaces, none of which is one of a container that
    /// Twinax runs.
    pub rooms: BTreeMap<ContainerName, Sandbox>,
}

/// What is in a namespace that others made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Names of all its links.
    pub links: BTreeSet<IfName>,
    pub led: Led,
}

/// Asks which ports of the host nobody listens on. What Twinax itself listens on for published
/// ports does not count.
///
/// With `last` > 0 every port of `first..=last` is asked about, and `want` is their number;
/// promises to containers are none of the probe's business. With `last` = 0 ([`Probe::automatic`])
/// `want` ports are looked for in `net.ipv4.ip_local_port_range`, in the order of
/// [`Probe::candidates`], and ports that were promised to any container on any address are passed
/// over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    pub proto: Proto,
    /// `None`: on every address, of both families.
    pub host: Option<IpAddr>,
    pub first: u16,
    pub last: u16,
    pub want: u16,
}

impl Probe {
    /// Whether any port will do.
    pub fn automatic(&self) -> bool {
        self.last == 0
    }

    /// Returns the ports to look at, in order; `ephemeral` is where automatic ones are.
    pub fn candidates(&self, ephemeral: (u16, u16)) -> impl Iterator<Item = u16> + use<> {
        let (low, high) = if self.automatic() { ephemeral } else { (self.first, self.last) };
        let from = if (low..=high).contains(&self.first) { self.first } else { low };
        (from..=high).chain(low..from)
    }
}

/// What a [`Probe`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeAnswer {
    pub free: Vec<u16>,
    /// Ports tried and found taken, with what holds them, as "nginx (pid 812)".
    pub busy: BTreeMap<u16, String>,
    /// The host does not have the address asked for, so none of its ports.
    pub absent: bool,
}

/// The answers to [`Questions`], and what is neither state nor kernel: chance and time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Bytes; 0 where there is no default route.
    pub uplink_mtu: u32,
    pub subnets: Vec<IpNet>,
    pub ports: BTreeMap<Probe, ProbeAnswer>,
    pub sysctls: BTreeMap<Sysctl, String>,
    /// Of the links asked about, those that are gone.
    pub gone_links: BTreeSet<IfName>,
    /// Of the sandboxes asked about, those that are gone.
    pub gone_sandboxes: BTreeSet<ContainerName>,
    pub rooms: BTreeMap<ContainerName, Room>,
    /// `net.ipv4.ip_local_port_range`.
    pub ephemeral: (u16, u16),
    pub random: u64,
    /// Seconds since 1970.
    pub now: u64,
}

/// What was done, in the order of the request's changes, for the front end to print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// What each `Publish` comes to, ports that were published before included.
    pub published: Vec<(ContainerName, Published)>,
    /// Containers found dead on the way and detached.
    pub reaped: Vec<ContainerName>,
}

/// Returns the state after `request`, all of it done in order. Asking twice for the same thing
/// changes nothing; whatever is refused changed nothing.
pub fn decide(state: &State, request: &Request, facts: &Facts) -> Result<(State, Reply), Refusal> {
    let mut decision = Decision {
        state: state.clone(),
        facts,
        reply: Reply::default(),
        probes: questions::Probes::of(request, &state.host),
        cut: BTreeSet::new(),
        idle: BTreeSet::new(),
    };
    decision.take_in_defined();
    decision.lay_ghosts();
    decision.reap();
    for change in request {
        decision.refuse_the_dead(change)?;
        decision.change(change)?;
    }
    decision.forget_idle();
    decision.give_up_switches();
    Ok((decision.state, decision.reply))
}

/// A request half done.
struct Decision<'a> {
    state: State,
    facts: &'a Facts,
    reply: Reply,
    /// The probes that the questions held.
    probes: questions::Probes,
    /// Host ends of the cables cut by this very request.
    cut: BTreeSet<IfName>,
    /// Foreign containers that this request detached from something.
    idle: BTreeSet<ContainerName>,
}

impl Decision<'_> {
    fn change(&mut self, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::CreateNetwork { name, spec } => self.create_network(name, spec),
            Change::RemoveNetwork { name } => self.remove_network(name),
            Change::PutContainer { name, container } => self.put_container(name, container),
            Change::RemoveContainer { name } => self.remove_container(name),
            Change::End { name } => {
                self.end(name);
                Ok(())
            }
            Change::Exited { name, code } => {
                self.exited(name, *code);
                Ok(())
            }
            Change::Attach { container, spec } => self.attach(container, spec),
            Change::Detach { container, network } => self.detach(container, network),
            Change::Publish { container, ports } => self.publish(container, ports),
            Change::Unpublish { container, ports } => self.unpublish(container, ports),
        }
    }
}

/// Numbers below this are left to the links of others, which the kernel numbers from 1.
const FIRST_NUMBER: u32 = 1000;

impl Host {
    /// A number for a link of ours, which is its kernel index too; never used twice.
    fn next_number(&mut self) -> u32 {
        self.serial = self.serial.max(FIRST_NUMBER) + 1;
        self.serial
    }
}
