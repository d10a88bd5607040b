//! One command's hold on the engine: the lock, the requests, and what is left when it ends.

use std::{
    cell::Cell,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use twinax_core::{
    diff::Plan,
    engine::{self, Failure, Sandboxes, World},
    model::{LinkId, Op},
    name::ContainerName,
    state::{Change, Container, Keys, Request, Sandbox, State, Way},
};

use rustix::process::Signal;

use super::failed::Failed;
use crate::{
    container::Task,
    forwarder,
    linux::{
        netns::{NetnsError, NetnsHandle},
        process::{init_of, supervisor_of},
    },
    place::{self, Need, Place},
    world::{Linux, LinuxError},
};

/// What the engine does to everything: [`engine::check`], [`engine::repair`].
pub(super) type Whole = fn(&mut Linux) -> Result<engine::Done, engine::Failure<LinuxError>>;

/// How long to wait for the kernel to take cables away; for one namespace it needs some 30 ms.
const GHOSTS_GO: Duration = Duration::from_millis(200);

/// How long the processes of a killed container, and then its supervisor, may take to end.
pub(super) const TEARDOWN: Duration = Duration::from_secs(30);

/// Leaves when dropped, so that a command that is refused leaves nothing behind either.
pub(super) struct Session {
    pub(super) world: Linux,
    place: Place,
    left: Cell<bool>,
}

impl Drop for Session {
    fn drop(&mut self) {
        // What went wrong before is what is told.
        let _ = self.leave();
    }
}

impl Session {
    pub(super) fn of(place: Place) -> Self {
        Self { world: Linux::new(place.store.clone()), place, left: Cell::new(false) }
    }

    /// For commands that only read: an ordinary user's holder is not started for them. What
    /// died unseen is buried first, so that what is read is true.
    pub(super) fn reading() -> Result<Self, Failed> {
        let mut session = Self::of(place::enter(Need::IfRunning)?);
        if session.place.live {
            session.bury()?;
            session.revive()?;
        }
        Ok(session)
    }

    /// Starts the loopback's forwarder if it should run and was killed; what it serves is still
    /// written down. Requests that change something see to it themselves.
    fn revive(&mut self) -> Result<(), Failed> {
        let store = &self.place.store;
        if store.host()?.forwards > 0 && !forwarder::running(store.run_dir()) {
            let _lock = store.lock()?;
            // Not what was asked: if it cannot be, `check` tells.
            let _ = forwarder::start(store.run_dir());
        }
        Ok(())
    }

    /// Whether this is an ordinary user's place rather than the machine's own network.
    pub(super) fn rootless(&self) -> bool {
        self.place.user.is_some()
    }

    pub(super) fn is_live(&self) -> bool {
        self.place.live
    }

    /// Carries out `request`, alone.
    ///
    /// The kernel takes a moment for the cables of containers ended just now. If they may be in
    /// the way they are waited for, and deleted where somebody holds their namespace.
    pub(super) fn carry(&mut self, request: &Request) -> Result<engine::Done, Failed> {
        let until = Instant::now() + GHOSTS_GO;
        loop {
            let last = Instant::now() > until;
            let lock = self.place.store.lock()?;
            if last {
                self.delete_ghosts()?;
            }
            match engine::run(&mut self.world, request) {
                Err(Failure::Refused(refusal))
                    if refusal.may_pass()
                        && !last
                        && !self.place.store.host()?.ghosts.is_empty() => {}
                outcome => return Ok(outcome?),
            }
            drop(lock);
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Deletes the cables that were cut and are still there, as somebody holds the namespace.
    pub(super) fn end_ghosts(&mut self) -> Result<(), Failed> {
        if !self.place.store.host()?.ghosts.is_empty() {
            thread::sleep(GHOSTS_GO);
            let _lock = self.place.store.lock()?;
            self.delete_ghosts()?;
        }
        Ok(())
    }

    /// Deletes the links of cables that were cut.
    fn delete_ghosts(&mut self) -> Result<(), Failed> {
        let links = self.place.store.host()?.ghosts.into_keys().map(LinkId::host);
        let plan = Plan(links.map(|link| Op::DelLink { link }).collect());
        Ok(self.world.apply(&plan, &Sandboxes::new())?)
    }

    pub(super) fn plan(&mut self, request: &Request) -> Result<engine::Done, Failed> {
        let _lock = self.place.store.lock()?;
        Ok(engine::plan(&mut self.world, request)?)
    }

    /// Does what `look` does, alone.
    pub(super) fn whole(&mut self, look: Whole) -> Result<engine::Done, Failed> {
        let _lock = self.place.store.lock()?;
        Ok(look(&mut self.world)?)
    }

    /// Everything that is stored.
    pub(super) fn state(&mut self) -> Result<State, Failed> {
        Ok(self.place.store.load(&Keys { all: true, ..Keys::default() })?)
    }

    /// One container's row, with its networks.
    pub(super) fn look_up(&mut self, name: &ContainerName) -> Result<Container, Failed> {
        let keys = Keys { containers: [name.clone()].into(), ..Keys::default() };
        let mut state = self.world.load(&keys)?;
        state.containers.remove(name).ok_or_else(|| Failed::no_container(name))
    }

    /// Ends the containers that a command was about to end when it died, records the end of those
    /// whose processes are gone without a word, and forgets namespaces of others that are gone.
    pub(super) fn bury(&mut self) -> Result<(), Failed> {
        // What a killed command left may be about the very containers that are looked at below.
        {
            let _lock = self.place.store.lock()?;
            engine::recover(&mut self.world)?;
        }
        for container in self.state()?.containers.all().values() {
            let Some(init) = init_of(container).filter(|_| container.ending()) else { continue };
            // If it cannot be ended, what is shown is still true.
            if init.signal(Signal::KILL).is_ok() && init.wait_gone(TEARDOWN).is_ok() {
                let _ = supervisor_of(container).map(|task| task.wait_gone(TEARDOWN));
            }
        }
        let state = self.state()?;
        let dead = state.containers.all().iter().filter_map(|(name, container)| {
            let name = name.clone();
            match &container.run {
                Some(_) => is_dead(container).then_some(Change::Exited { name, code: None }),
                None => {
                    has_vanished(&container.sandbox).then_some(Change::RemoveContainer { name })
                }
            }
        });
        let dead: Request = dead.collect();
        if !dead.is_empty() {
            self.carry(&dead)?;
        }
        Ok(())
    }

    /// To be called when the command is done: an ordinary user's holder goes with the last
    /// container. Does so once.
    pub(super) fn leave(&self) -> Result<(), Failed> {
        match self.left.replace(true) {
            true => Ok(()),
            false => Ok(self.place.leave()?),
        }
    }

    /// Makes the supervisor of a container just started the one who leaves.
    pub(super) fn hand_over(&self) {
        self.left.set(true);
    }

    /// Ends a command that has done its work.
    pub(super) fn done(&self) -> super::Done {
        self.leave()?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Not recorded as ended, and neither its first process nor its supervisor is left.
fn is_dead(container: &Container) -> bool {
    let gone = |task: Option<Task>| task.is_some_and(|task| !task.alive());
    gone(init_of(container)) && gone(supervisor_of(container))
}

/// Whether somebody else's namespace is no longer where it was found.
fn has_vanished(sandbox: &Sandbox) -> bool {
    match &sandbox.way {
        Way::Pid { pid, start } => !Task { pid: *pid, start: *start }.alive(),
        Way::Path(_) => {
            matches!(
                NetnsHandle::of(sandbox),
                Err(NetnsError::Gone { .. } | NetnsError::NotOne { .. })
            )
        }
        Way::Host | Way::Of(_) => false,
    }
}
