//! Containers come and go: records, burials, and the hosts files they read.

use crate::{
    model::{HostsView, host_end},
    name::{ContainerName, IfName},
    state::{Change, Container, DEFAULT_NETWORK, Endpoint, State, Status, Way},
};

use super::{Decision, Refusal};

/// How many cables cut earlier one request looks after.
const GHOSTS_A_REQUEST: usize = 32;

/// Returns the cables cut earlier that this request looks after: those on networks at hand.
pub(super) fn ghosts_at_hand(state: &State) -> impl Iterator<Item = &IfName> {
    let at_hand = state.host.ghosts.iter().filter(|(_, addrs)| {
        addrs
            .iter()
            .all(|(network, _)| state.networks.knows(network) && state.leases.knows(network))
    });
    let limit = if state.containers.complete() { usize::MAX } else { GHOSTS_A_REQUEST };
    at_hand.map(|(link, _)| link).take(limit)
}

impl Decision<'_> {
    /// Gives the addresses of cables back whose links are gone by now.
    pub(super) fn lay_ghosts(&mut self) {
        let at_hand: Vec<IfName> = ghosts_at_hand(&self.state).cloned().collect();
        for link in at_hand.iter().filter(|link| self.facts.gone_links.contains(*link)) {
            for (network, addr) in self.state.host.ghosts.remove(link).into_iter().flatten() {
                if let Some(leases) = self.state.leases.get_mut(&network) {
                    leases.release(addr);
                }
            }
        }
    }

    /// Buries the containers found dead.
    pub(super) fn reap(&mut self) {
        for name in &self.facts.gone_sandboxes {
            if !self.state.containers.knows(name) {
                continue;
            }
            match self.state.containers.get(name) {
                Some(container) if container.exited() => continue,
                Some(container) if container.run.is_some() => self.exited(name, None),
                Some(_) => self.forget(name),
                None => continue,
            }
            self.reply.reaped.push(name.clone());
        }
    }

    /// Nothing can be given to a container that was just found dead; taking away goes on.
    pub(super) fn refuse_the_dead(&self, change: &Change) -> Result<(), Refusal> {
        let (Change::Attach { container: name, .. } | Change::Publish { container: name, .. }) =
            change
        else {
            return Ok(());
        };
        let lives = || self.state.containers.get(name).is_some_and(|c| !c.is_over());
        match self.reply.reaped.contains(name) && !lives() {
            true => Err(Refusal::ContainerGone(name.clone())),
            false => Ok(()),
        }
    }

    pub(super) fn put_container(
        &mut self,
        name: &ContainerName,
        container: &Container,
    ) -> Result<(), Refusal> {
        if let Some(present) = self.state.containers.get(name).filter(|c| !c.exited()) {
            let foreign = present.run.is_none() && container.run.is_none();
            let same = present.sandbox == container.sandbox
                && (foreign || present.id == container.id)
                && !present.ending();
            return match same {
                true => Ok(()),
                false => Err(Refusal::ContainerExists(name.clone())),
            };
        }
        if let Way::Of(other) = &container.sandbox.way {
            self.living(other)?;
        }
        let mut container = container.clone();
        container.endpoints.clear();
        container.published.clear();
        container.view = None;
        self.state.containers.insert(name.clone(), container);
        Ok(())
    }

    pub(super) fn remove_container(&mut self, name: &ContainerName) -> Result<(), Refusal> {
        match self.state.containers.get(name) {
            Some(_) => self.forget(name),
            // It was found dead by this request, and nothing of it is left.
            None if self.reply.reaped.contains(name) => {}
            None => return Err(Refusal::NoSuchContainer(name.clone())),
        }
        Ok(())
    }

    /// Takes everything from a container whose process is about to be ended; the record says so.
    pub(super) fn end(&mut self, name: &ContainerName) {
        let container = self.state.containers.get_mut(name);
        let Some(run) = container.and_then(|container| container.run.as_mut()) else { return };
        if let Status::Running { init, supervisor } = run.status {
            run.status = Status::Ending { init, supervisor };
            self.strip(name);
        }
    }

    /// Takes everything from a container whose process has ended, and the record too if asked
    /// for when it was run.
    pub(super) fn exited(&mut self, name: &ContainerName, code: Option<i32>) {
        let at = self.facts.now;
        let Some(container) = self.state.containers.get_mut(name) else { return };
        let Some(run) = &mut container.run else { return };
        if matches!(run.status, Status::Exited { .. }) {
            return;
        }
        run.status = Status::Exited { code, at };
        container.sandbox.cookie = None;
        if run.remove {
            self.forget(name);
        } else {
            self.strip(name);
        }
    }

    fn forget(&mut self, name: &ContainerName) {
        self.strip(name);
        self.state.containers.remove(name);
    }

    /// Takes every endpoint and port from a container.
    fn strip(&mut self, name: &ContainerName) {
        let Some(container) = self.state.containers.get_mut(name) else { return };
        let published = std::mem::take(&mut container.published);
        let endpoints = std::mem::take(&mut container.endpoints);
        for published in &published {
            self.disclaim(name, published);
        }
        for endpoint in endpoints {
            self.cut(endpoint);
        }
        self.look(name);
    }

    /// Cuts a cable. Someone may hold its far end's namespace open, so the addresses stay leased
    /// until the link is seen to be gone.
    pub(super) fn cut(&mut self, endpoint: Endpoint) {
        let link = host_end(endpoint.number);
        let addrs = endpoint.addrs.iter().map(|addr| (endpoint.network.clone(), *addr));
        self.state.host.ghosts.insert(link.clone(), addrs.collect());
        self.cut.insert(link);
    }

    /// Brings a container's hosts file, and the count of those who read it, up to date.
    pub(super) fn look(&mut self, name: &ContainerName) {
        let Some(container) = self.state.containers.get_mut(name) else { return };
        let view = view(container);
        if container.view == view {
            return;
        }
        let former = std::mem::replace(&mut container.view, view.clone());
        let views = &mut self.state.host.views;
        if let Some(view) = former
            && let Some(count) = views.get_mut(&view)
        {
            *count -= 1;
            if *count == 0 {
                views.remove(&view);
            }
        }
        if let Some(view) = view {
            *views.entry(view).or_default() += 1;
        }
    }

    /// Forgets the foreign containers that this request left without a network.
    pub(super) fn forget_idle(&mut self) {
        for name in std::mem::take(&mut self.idle) {
            let idle = |c: &Container| c.run.is_none() && c.endpoints.is_empty();
            if self.state.containers.get(&name).is_some_and(idle) {
                self.forget(&name);
            }
        }
    }

    /// The container of this name, if it has not exited and is not about to.
    pub(super) fn living(&self, name: &ContainerName) -> Result<&Container, Refusal> {
        let container = self.state.containers.get(name);
        let container = container.ok_or_else(|| Refusal::NoSuchContainer(name.clone()))?;
        if container.ending() {
            return Err(Refusal::ContainerEnding(name.clone()));
        }
        match container.exited() {
            true => Err(Refusal::ContainerExited(name.clone())),
            false => Ok(container),
        }
    }

    /// The container of this name, if it has a network namespace of its own to do `what` with.
    pub(super) fn own_sandbox(
        &self,
        name: &ContainerName,
        what: &'static str,
    ) -> Result<&Container, Refusal> {
        let container = self.living(name)?;
        let of = match &container.sandbox.way {
            Way::Pid { .. } | Way::Path(_) => return Ok(container),
            Way::Host => "the host".to_owned(),
            Way::Of(other) => format!("container {other}"),
        };
        Err(Refusal::NoSandbox { container: name.clone(), what, of })
    }
}

/// The hosts file of a container: one for all that are on the same named networks.
fn view(container: &Container) -> Option<HostsView> {
    let named = container.endpoints.iter().map(|endpoint| &endpoint.network);
    let named = named.filter(|name| name.as_str() != DEFAULT_NETWORK).cloned();
    let view = HostsView(named.collect());
    (container.run.is_some() && !container.is_over() && !view.0.is_empty()).then_some(view)
}
