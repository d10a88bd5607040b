//! A world made of values, that can fail at any operation.

use std::collections::BTreeSet;

use crate::{
    decide::{Facts, ProbeAnswer, Questions},
    diff::Plan,
    engine::{Journal, Pending, Sandboxes, World},
    model::{Impossible, Op, Scope, Topology},
    name::{ContainerName, IfName},
    state::{Container, Keys, PortKey, Row, State, Table},
};

/// How a world fails, once, when its fuel is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The operation is refused; the next ones work.
    Refuse,
    /// The machine stops: nothing works until [`FakeWorld::restart`].
    Crash,
}

/// Why a fake world did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FakeError {
    #[error("{op}")]
    Op {
        op: Box<Op>,
        #[source]
        cause: Impossible,
    },
    #[error("injected failure")]
    Injected,
    #[error("the machine has stopped")]
    Stopped,
}

/// Everything there is: the store, the kernel, and who is alive.
#[derive(Clone, Debug, Default)]
pub struct FakeWorld {
    pub saved: State,
    pub kernel: Topology,
    pub journal: Option<Journal>,
    /// Containers whose namespaces are gone.
    pub dead: BTreeSet<ContainerName>,
    /// Cables that go with a dead namespace only later.
    pub lingering: BTreeSet<IfName>,
    /// What the world answers, apart from what is asked by name.
    pub facts: Facts,
    /// Steps still allowed before one fails, and how it fails; `None` never fails.
    pub fuel: Option<(usize, Mode)>,
    pub stopped: bool,
    /// The next command is the first after a reboot.
    pub fresh: bool,
    /// How many steps were taken.
    pub steps: usize,
}

impl FakeWorld {
    /// The machine is on again; the store and the kernel are as they were left.
    pub fn restart(&mut self) {
        self.stopped = false;
        self.fuel = None;
    }

    /// The machine was off: only what was defined is left.
    pub fn reboot(&mut self) {
        let networks = self.saved.networks.clone();
        self.saved = State { networks, ..State::default() };
        self.kernel = Topology::default();
        self.journal = None;
        self.fresh = true;
        self.restart();
    }

    fn step(&mut self) -> Result<(), FakeError> {
        if self.stopped {
            return Err(FakeError::Stopped);
        }
        self.steps += 1;
        match &mut self.fuel {
            Some((0, mode)) => {
                self.stopped = *mode == Mode::Crash;
                self.fuel = None;
                Err(FakeError::Injected)
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn alive(&self) -> Result<(), FakeError> {
        if self.stopped { Err(FakeError::Stopped) } else { Ok(()) }
    }
}

impl World for FakeWorld {
    type Error = FakeError;

    fn pending(&mut self) -> Result<Pending, FakeError> {
        self.alive()?;
        let fresh = std::mem::take(&mut self.fresh);
        Ok(Pending { journal: self.journal.clone(), fresh, ..Pending::default() })
    }

    fn load(&mut self, keys: &Keys) -> Result<State, FakeError> {
        self.alive()?;
        Ok(part(&self.saved, keys))
    }

    fn survey(&mut self, questions: &Questions, _state: &State) -> Result<Facts, FakeError> {
        self.alive()?;
        let mut facts = self.facts.clone();
        for probe in &questions.ports {
            let free = probe.candidates(self.facts.ephemeral).filter(|port| {
                let key = PortKey { proto: probe.proto, port: *port };
                !probe.automatic() || !self.saved.ports.loaded().contains_key(&key)
            });
            let free = free.take(probe.want.into()).collect();
            facts.ports.insert(probe.clone(), ProbeAnswer { free, ..ProbeAnswer::default() });
        }
        for sysctl in &questions.sysctls {
            let ours = self.kernel.sysctls.get(sysctl).map(|turned| turned.ours.clone());
            facts.sysctls.insert(sysctl.clone(), ours.unwrap_or_else(|| "0".to_owned()));
        }
        facts.gone_links = questions.links.difference(&self.lingering).cloned().collect();
        facts.gone_sandboxes = questions.sandboxes.intersection(&self.dead).cloned().collect();
        Ok(facts)
    }

    fn observe(&mut self, scope: &Scope, _at: &Sandboxes) -> Result<Topology, FakeError> {
        self.alive()?;
        Ok(self.kernel.within(scope))
    }

    fn begin(&mut self, journal: &Journal) -> Result<(), FakeError> {
        self.step()?;
        self.journal = Some(journal.clone());
        Ok(())
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), FakeError> {
        for row in rows {
            self.step()?;
            self.saved.put(row.clone());
        }
        Ok(())
    }

    fn apply(&mut self, plan: &Plan, _at: &Sandboxes) -> Result<(), FakeError> {
        for op in &plan.0 {
            self.step()?;
            let outcome = match self.kernel.apply(op) {
                Err(Impossible::Missing) if needs_no_undoing(op) => Ok(()),
                outcome => outcome,
            };
            outcome.map_err(|cause| FakeError::Op { op: Box::new(op.clone()), cause })?;
        }
        Ok(())
    }

    fn buried(&mut self, _name: &ContainerName) -> Result<(), FakeError> {
        self.alive()
    }

    fn finish(&mut self) -> Result<(), FakeError> {
        self.step()?;
        self.journal = None;
        Ok(())
    }
}

/// What the kernel takes for done if it is gone already.
fn needs_no_undoing(op: &Op) -> bool {
    matches!(
        op,
        Op::DelForward { .. }
            | Op::DelElement { .. }
            | Op::DelHostsLine { .. }
            | Op::DelFile { .. }
            | Op::DelNeighbour { .. }
            | Op::DelFdb { .. }
            | Op::DelRoute { .. }
            | Op::DropNetns { .. }
    )
}

/// Returns the rows that `keys` name, with the networks and ports that containers bring.
fn part(state: &State, keys: &Keys) -> State {
    if keys.all {
        return state.clone();
    }
    let rows = keys.containers.iter().filter_map(|name| state.containers.get(name));
    let loaded: Vec<&Container> = rows.collect();
    let endpoints = loaded.iter().flat_map(|container| &container.endpoints);
    let mut networks = keys.networks.clone();
    networks.extend(endpoints.map(|endpoint| endpoint.network.clone()));
    let published = loaded.iter().flat_map(|container| &container.published);
    let mut ports = keys.ports.clone();
    ports.extend(published.map(|p| PortKey { proto: p.proto, port: p.host_port }));
    State {
        host: state.host.clone(),
        networks: if keys.all_networks {
            state.networks.clone()
        } else {
            state.networks.only_of(&networks)
        },
        leases: if keys.all_networks {
            state.leases.clone()
        } else {
            state.leases.only_of(&networks)
        },
        containers: state.containers.only_of(&keys.containers),
        ports: state.ports.only_of(&ports),
    }
}

impl<K: Ord + Clone + std::fmt::Debug, V: Clone> Table<K, V> {
    fn only_of(&self, keys: &BTreeSet<K>) -> Self {
        let mut table = Self::only(keys.clone());
        for key in keys {
            if let Some(row) = self.get(key) {
                table.insert(key.clone(), row.clone());
            }
        }
        table
    }
}
