//! The one loop: load, survey, decide, observe, diff, journal, save, apply. On failure, the same
//! loop back to what was.
//!
//! A crash at any point is repaired by the next command, whatever it is about: the journal is
//! written first and removed last, and [`recover`] carries what it says to the end.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    decide::{self, Facts, Questions, Refusal, Reply, decide, questions},
    diff::{Plan, Unreached, diff},
    lower::{lower, lower_both},
    model::{Scope, Topology},
    name::ContainerName,
    state::{Change, Keys, Request, Row, Sandbox, State},
    touched::Touched,
};

/// How the namespaces of the containers at hand are found.
pub type Sandboxes = BTreeMap<ContainerName, Sandbox>;

/// What was begun: enough to carry it to its end, or back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    pub keys: Keys,
    pub before: Vec<Row>,
    pub after: Vec<Row>,
}

/// What was left undone before this command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    pub journal: Option<Journal>,
    /// Containers whose supervisor died before it could say that they ended.
    pub dead: Vec<ContainerName>,
    /// Nothing is known of this kernel yet, though networks may be defined: the first command
    /// after a reboot.
    pub fresh: bool,
}

/// All that the engine asks of the world. Two implementations: Linux, and [`crate::fake`].
pub trait World {
    /// Why the world did not do, or tell, something.
    type Error;
    /// Returns what an earlier command left to be brought to its end.
    fn pending(&mut self) -> Result<Pending, Self::Error>;
    /// Loads what `keys` name, and all that must be there with it (see [`Keys`]).
    fn load(&mut self, keys: &Keys) -> Result<State, Self::Error>;
    /// Answers what `decide` has to know of the world.
    fn survey(&mut self, questions: &Questions, state: &State) -> Result<Facts, Self::Error>;
    /// Looks at what `scope` names, in the host and in the sandboxes `at`.
    fn observe(&mut self, scope: &Scope, at: &Sandboxes) -> Result<Topology, Self::Error>;
    /// Writes down what is about to be done, before anything is.
    fn begin(&mut self, journal: &Journal) -> Result<(), Self::Error>;
    /// Stores rows, each whole.
    fn write(&mut self, rows: &[Row]) -> Result<(), Self::Error>;
    /// Carries out a plan; what went before a failure stands.
    fn apply(&mut self, plan: &Plan, at: &Sandboxes) -> Result<(), Self::Error>;
    /// Forgets that a container died unseen: its end is on record.
    fn buried(&mut self, name: &ContainerName) -> Result<(), Self::Error>;
    /// Removes the journal: from here on the request has happened.
    fn finish(&mut self) -> Result<(), Self::Error>;
}

/// Why a request did not happen.
#[derive(Debug)]
pub enum Failure<E> {
    /// Nothing was touched.
    Refused(Refusal),
    /// The world failed, and what was before has been restored.
    Restored(E),
    /// The world failed, and failed again on the way back: the next command goes on with it.
    Stuck { first: E, then: Box<Self> },
    /// It happened, but the journal could not be removed: the next command does.
    Unfinished(E),
    /// A plan that would not arrive; nothing was touched.
    Unreached(Box<Unreached>),
}

impl<E> From<Unreached> for Failure<E> {
    fn from(unreached: Unreached) -> Self {
        Self::Unreached(Box::new(unreached))
    }
}

/// A request that happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    pub state: State,
    pub reply: Reply,
    pub plan: Plan,
}

/// Carries out `request`: all of it, or none.
///
/// # Errors
/// See [`Failure`]; only [`Failure::Stuck`] leaves anything to do.
pub fn run<W: World>(world: &mut W, request: &Request) -> Result<Done, Failure<W::Error>> {
    recover(world)?;
    again(|| {
        let Decided { before, after, reply, keys } = consider(world, request)?;
        let plan = carry(world, keys, &before, &after)?;
        Ok(Done { state: after, reply, plan })
    })
}

/// A container may die between the look at it and the plan, which then cannot arrive. Nothing was
/// touched, and another look sees that it is gone; dying takes a moment, so not always the next.
fn again<T, E>(mut attempt: impl FnMut() -> Result<T, Failure<E>>) -> Result<T, Failure<E>> {
    const LOOKS: usize = 8;
    for _ in 1..LOOKS {
        match attempt() {
            Err(Failure::Unreached(_)) => {}
            outcome => return outcome,
        }
    }
    attempt()
}

/// What `request` would do, without doing it. An unfinished request is finished first.
///
/// # Errors
/// As [`run`].
pub fn plan<W: World>(world: &mut W, request: &Request) -> Result<Done, Failure<W::Error>> {
    recover(world)?;
    again(|| foresee(world, request))
}

fn foresee<W: World>(world: &mut W, request: &Request) -> Result<Done, Failure<W::Error>> {
    let Decided { before, after, reply, .. } = consider(world, request)?;
    let desired = lower(&after);
    // What is there is looked at where it is, even if another of the same name is to come.
    let at = sandboxes(&after, &before);
    let scope = lower(&before).scope().union(desired.scope());
    let mut observed = world.observe(&scope, &at).map_err(Failure::Restored)?;
    // A container to come would be there, waiting, before its first promise.
    observed.netns.extend(desired.netns.difference(&lower(&before).netns).cloned());
    let plan = diff(observed, &desired)?;
    Ok(Done { state: after, reply, plan })
}

/// Makes the kernel what was promised, all of it: after a flushed firewall, a deleted bridge,
/// a container that died unseen.
///
/// # Errors
/// As [`run`].
pub fn repair<W: World>(world: &mut W) -> Result<Done, Failure<W::Error>> {
    run(world, &Request::new())
}

/// How the kernel differs from what was promised: what [`repair`] would do.
///
/// # Errors
/// As [`run`].
pub fn check<W: World>(world: &mut W) -> Result<Done, Failure<W::Error>> {
    plan(world, &Request::new())
}

/// Brings to an end what an earlier command left undone. Costs one look when there is nothing.
///
/// # Errors
/// As [`run`].
pub fn recover<W: World>(world: &mut W) -> Result<(), Failure<W::Error>> {
    let pending = world.pending().map_err(Failure::Restored)?;
    if let Some(journal) = pending.journal {
        again(|| resume(world, &journal))?;
    }
    if pending.fresh {
        again(|| carry_out(world, &Request::new()))?;
    }
    for name in pending.dead {
        again(|| carry_out(world, &vec![Change::Exited { name: name.clone(), code: None }]))?;
        world.buried(&name).map_err(Failure::Unfinished)?;
    }
    Ok(())
}

fn carry_out<W: World>(world: &mut W, request: &Request) -> Result<(), Failure<W::Error>> {
    let Decided { before, after, keys, .. } = consider(world, request)?;
    carry(world, keys, &before, &after).map(drop)
}

struct Decided {
    before: State,
    after: State,
    reply: Reply,
    keys: Keys,
}

fn consider<W: World>(world: &mut W, request: &Request) -> Result<Decided, Failure<W::Error>> {
    let mut keys = decide::keys(request);
    let mut before = world.load(&keys).map_err(Failure::Restored)?;
    if let Some(more) = decide::more_keys(&before, request) {
        keys = more;
        before = world.load(&keys).map_err(Failure::Restored)?;
    }
    let questions = questions(&before, request);
    let facts = world.survey(&questions, &before).map_err(Failure::Restored)?;
    let (after, reply) = decide(&before, request, &facts).map_err(Failure::Refused)?;
    Ok(Decided { before, after, reply, keys })
}

/// Takes the kernel and the store from `before` to `after`, or leaves both at `before`.
fn carry<W: World>(
    world: &mut W,
    keys: Keys,
    before: &State,
    after: &State,
) -> Result<Plan, Failure<W::Error>> {
    let at = sandboxes(before, after);
    let touched = match keys.all {
        true => Touched::whole(lower(before), lower(after)),
        false => Touched::between(lower_both(before, after)),
    };
    let journal = Journal {
        keys: keys.clone().with_rows_of(before).with_rows_of(after),
        before: before.changes_since(after),
        after: after.changes_since(before),
    };
    if !keys.all && touched.had == touched.desired && !journal.after.is_empty() {
        // A matter of records: the kernel need not even be looked at.
        return carry_on(world, &journal, (before, after), (Plan::default(), &at));
    }
    let scope = touched.scope();
    let mut observed = world.observe(&scope, &at).map_err(Failure::Restored)?;
    if !keys.all && lacks_shared(&observed, &touched) {
        // What others stand on too is gone, so more than this request's own is.
        let all = Keys { all: true, ..Keys::default() };
        let state = world.load(&all).map_err(Failure::Restored)?;
        let living = living(world, &state)?;
        carry(world, all, &state, &living)?;
        observed = world.observe(&scope, &at).map_err(Failure::Restored)?;
    }
    touched.trust(&mut observed);
    let plan = diff(observed, &touched.desired)?;
    if plan.0.is_empty() && journal.after.is_empty() {
        return Ok(plan);
    }
    carry_on(world, &journal, (before, after), (plan, &at))
}

/// Carries out what is planned, with a journal about it.
fn carry_on<W: World>(
    world: &mut W,
    journal: &Journal,
    (before, after): (&State, &State),
    (plan, at): (Plan, &Sandboxes),
) -> Result<Plan, Failure<W::Error>> {
    world.begin(journal).map_err(Failure::Restored)?;
    if let Err(first) = world.write(&journal.after).and_then(|()| world.apply(&plan, at)) {
        return Err(undo(world, journal, (before, after), first));
    }
    world.finish().map_err(Failure::Unfinished)?;
    Ok(plan)
}

/// Carries to its end what a journal says was begun; back, if that cannot be.
fn resume<W: World>(world: &mut W, journal: &Journal) -> Result<(), Failure<W::Error>> {
    let mut before = world.load(&journal.keys).map_err(Failure::Restored)?;
    let mut after = before.clone();
    journal.before.iter().for_each(|row| before.put(row.clone()));
    journal.after.iter().for_each(|row| after.put(row.clone()));
    match arrive(world, &journal.after, (&before, &after)) {
        Ok(()) => Ok(()),
        Err(Failure::Restored(first)) => match arrive(world, &journal.before, (&after, &before)) {
            Ok(()) => Ok(()),
            Err(then) => Err(Failure::Stuck { first, then: Box::new(then) }),
        },
        Err(other) => Err(other),
    }
}

/// Goes back to `before`, and says how that went.
fn undo<W: World>(
    world: &mut W,
    journal: &Journal,
    (before, after): (&State, &State),
    first: W::Error,
) -> Failure<W::Error> {
    match arrive(world, &journal.before, (after, before)) {
        Ok(()) => Failure::Restored(first),
        Err(then) => Failure::Stuck { first, then: Box::new(then) },
    }
}

/// Writes `rows` and makes the kernel what `to` promises, wherever between `from` and `to` it is.
fn arrive<W: World>(
    world: &mut W,
    rows: &[Row],
    (from, to): (&State, &State),
) -> Result<(), Failure<W::Error>> {
    world.write(rows).map_err(Failure::Restored)?;
    let living = living(world, to)?;
    let desired = lower(&living);
    let scope = lower(from).scope().union(lower(to).scope()).union(desired.scope());
    let at = sandboxes(from, to);
    let observed = world.observe(&scope, &at).map_err(Failure::Restored)?;
    let plan = diff(observed, &desired)?;
    world.write(&living.changes_since(to)).map_err(Failure::Restored)?;
    world.apply(&plan, &at).map_err(Failure::Restored)?;
    world.finish().map_err(Failure::Unfinished)
}

/// Returns `state` without the containers whose namespaces are gone.
fn living<W: World>(world: &mut W, state: &State) -> Result<State, Failure<W::Error>> {
    let nothing = Request::new();
    let facts = world.survey(&questions(state, &nothing), state).map_err(Failure::Restored)?;
    let (living, _) = decide(state, &nothing, &facts).map_err(Failure::Refused)?;
    Ok(living)
}

/// Whether something that more than one request stands on is not as promised.
fn lacks_shared(observed: &Topology, touched: &Touched) -> bool {
    let had = &touched.had;
    observed.tables != had.tables
        || observed.processes != had.processes
        || observed.views != had.views
        || observed.sysctls != had.sysctls
        || touched.leaned.iter().any(|id| observed.links.get(id) != had.links.get(id))
}

/// Where containers are; what `last` says counts.
fn sandboxes(first: &State, last: &State) -> Sandboxes {
    let both = first.containers.loaded().iter().chain(last.containers.loaded());
    both.map(|(name, container)| (name.clone(), container.sandbox.clone())).collect()
}
