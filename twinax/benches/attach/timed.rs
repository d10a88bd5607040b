//! A world that notes how long each thing takes that the engine asks of it. Does nothing itself.

use std::time::{Duration, Instant};

use twinax::linux::apply::is_link_op;
use twinax_core::{
    decide::{Facts, Questions},
    diff::Plan,
    engine::{Journal, Pending, Sandboxes, World},
    model::{Op, Scope, Topology},
    name::ContainerName,
    state::{Keys, Row, State},
};

/// What the engine asks of the world, in its order; the rest of a request is thinking.
pub const ASKED: [&str; 11] = [
    "pending",
    "load",
    "survey",
    "observe",
    "begin",
    "write",
    "apply: firewall",
    "apply: links",
    "apply: forwarder",
    "apply: rest",
    "finish",
];
const APPLY: usize = 6;
const FINISH: usize = 10;

/// Time spent, by [`ASKED`].
pub type Spent = [Duration; ASKED.len()];

pub struct Timed<'a, W> {
    world: &'a mut W,
    spent: Spent,
}

impl<'a, W> Timed<'a, W> {
    pub fn new(world: &'a mut W) -> Self {
        Self { world, spent: Spent::default() }
    }

    pub fn spent(&self) -> Spent {
        self.spent
    }

    fn note<T>(&mut self, asked: usize, action: impl FnOnce(&mut W) -> T) -> T {
        let started = Instant::now();
        let outcome = action(self.world);
        self.spent[asked] += started.elapsed();
        outcome
    }
}

impl<W: World> World for Timed<'_, W> {
    type Error = W::Error;

    fn pending(&mut self) -> Result<Pending, W::Error> {
        self.note(0, W::pending)
    }

    fn load(&mut self, keys: &Keys) -> Result<State, W::Error> {
        self.note(1, |world| world.load(keys))
    }

    fn survey(&mut self, questions: &Questions, state: &State) -> Result<Facts, W::Error> {
        self.note(2, |world| world.survey(questions, state))
    }

    fn observe(&mut self, scope: &Scope, at: &Sandboxes) -> Result<Topology, W::Error> {
        self.note(3, |world| world.observe(scope, at))
    }

    fn begin(&mut self, journal: &Journal) -> Result<(), W::Error> {
        self.note(4, |world| world.begin(journal))
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), W::Error> {
        self.note(5, |world| world.write(rows))
    }

    /// In the parts that Linux takes together, so that each has its own time. So each is waited
    /// for, too: in a removal the forwarder otherwise works while the rest is done.
    fn apply(&mut self, plan: &Plan, at: &Sandboxes) -> Result<(), W::Error> {
        let mut rest = plan.0.as_slice();
        while let Some(first) = rest.first() {
            let kind = kind(first);
            let same = rest.iter().take_while(|op| self::kind(op) == kind).count();
            let (stage, after) = rest.split_at(same);
            let stage = Plan(stage.to_vec());
            self.note(APPLY + kind, |world| world.apply(&stage, at))?;
            rest = after;
        }
        Ok(())
    }

    fn buried(&mut self, name: &ContainerName) -> Result<(), W::Error> {
        self.world.buried(name)
    }

    fn finish(&mut self) -> Result<(), W::Error> {
        self.note(FINISH, W::finish)
    }
}

/// Which part of [`ASKED`]'s applying an operation belongs to.
fn kind(op: &Op) -> usize {
    match op {
        Op::AddElement { .. } | Op::DelElement { .. } | Op::PutTables | Op::DelTables => 0,
        Op::AddForward { .. } | Op::DelForward { .. } => 2,
        op if is_link_op(op) => 1,
        _ => 3,
    }
}
