//! A world that notes how long each thing takes that the engine asks of it. Does nothing itself.

use std::time::{Duration, Instant};

use twinax_core::{
    decide::{Facts, Questions},
    diff::Plan,
    engine::{Journal, Pending, Sandboxes, World},
    model::{Scope, Topology},
    name::ContainerName,
    state::{Host, Keys, Row, State},
};

/// What the engine asks of the world, in its order; the rest of a request is thinking.
pub const ASKED: [&str; 9] =
    ["pending", "host", "load", "survey", "observe", "begin", "write", "apply", "finish"];

/// Time spent, by [`ASKED`].
pub type Spent = [Duration; ASKED.len()];

pub struct Timed<W> {
    world: W,
    spent: Spent,
}

impl<W> Timed<W> {
    pub fn new(world: W) -> Self {
        Self { world, spent: Spent::default() }
    }

    /// Returns what was spent since the last time.
    pub fn take(&mut self) -> Spent {
        std::mem::take(&mut self.spent)
    }

    fn note<T>(&mut self, asked: usize, action: impl FnOnce(&mut W) -> T) -> T {
        let started = Instant::now();
        let outcome = action(&mut self.world);
        self.spent[asked] += started.elapsed();
        outcome
    }
}

impl<W: World> World for Timed<W> {
    type Error = W::Error;

    fn pending(&mut self) -> Result<Pending, W::Error> {
        self.note(0, W::pending)
    }

    fn host(&mut self) -> Result<Host, W::Error> {
        self.note(1, W::host)
    }

    fn load(&mut self, keys: &Keys) -> Result<State, W::Error> {
        self.note(2, |world| world.load(keys))
    }

    fn survey(&mut self, questions: &Questions, state: &State) -> Result<Facts, W::Error> {
        self.note(3, |world| world.survey(questions, state))
    }

    fn observe(&mut self, scope: &Scope, at: &Sandboxes) -> Result<Topology, W::Error> {
        self.note(4, |world| world.observe(scope, at))
    }

    fn begin(&mut self, journal: &Journal) -> Result<(), W::Error> {
        self.note(5, |world| world.begin(journal))
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), W::Error> {
        self.note(6, |world| world.write(rows))
    }

    fn apply(&mut self, plan: &Plan, at: &Sandboxes) -> Result<(), W::Error> {
        self.note(7, |world| world.apply(plan, at))
    }

    fn buried(&mut self, name: &ContainerName) -> Result<(), W::Error> {
        self.world.buried(name)
    }

    fn finish(&mut self) -> Result<(), W::Error> {
        self.note(8, W::finish)
    }
}
