//! Commands about networks, and about the whole.

use std::{collections::BTreeSet, process::ExitCode};

use twinax_core::{
    engine,
    name::{ContainerName, NetworkName},
    state::{AttachSpec, Change, NetworkSpec, PublishSpec, Request, State},
};

use super::{
    Done,
    failed::Failed,
    record, session,
    session::{Session, Whole},
    shown::{show, style, tell, tell_names},
};
use crate::front::{json, print};

pub(super) fn create(name: NetworkName, spec: NetworkSpec) -> Done {
    let mut session = session()?;
    session.carry(&vec![Change::CreateNetwork { name: name.clone(), spec }])?;
    tell(format!("{name}\n"))?;
    session.done()
}

pub(super) fn remove(names: Vec<NetworkName>) -> Done {
    take_away(session()?, names)
}

fn take_away(mut session: Session, names: Vec<NetworkName>) -> Done {
    // One request, so that either all go or none.
    let names: BTreeSet<NetworkName> = names.into_iter().collect();
    let names: Vec<NetworkName> = names.into_iter().collect();
    let remove = |name: &NetworkName| Change::RemoveNetwork { name: name.clone() };
    session.carry(&names.iter().map(remove).collect())?;
    tell_names(&names)?;
    session.done()
}

pub(super) fn prune() -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    let used: Vec<&NetworkName> = endpoints(&state).collect();
    let unused = state.networks.all().keys().filter(|name| !used.contains(name));
    let unused: Vec<_> = unused.cloned().collect();
    match session.is_live() {
        _ if unused.is_empty() => session.done(),
        // It is in an ordinary user's namespaces already: they are not entered twice.
        true => take_away(session, unused),
        false => remove(unused),
    }
}

fn endpoints(state: &State) -> impl Iterator<Item = &NetworkName> {
    let containers = state.containers.all().values();
    containers.flat_map(|container| &container.endpoints).map(|endpoint| &endpoint.network)
}

pub(super) fn list(quiet: bool, json: bool) -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    match (json, quiet) {
        (true, _) => show(json::networks(&state, None))?,
        (_, true) => tell(print::network_names(&state))?,
        _ => tell(print::networks(&state, style()))?,
    }
    session.done()
}

pub(super) fn inspect(names: &[NetworkName], json: bool) -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    for name in names {
        if !state.networks.all().contains_key(name) {
            let refusal = twinax_core::decide::Refusal::NoSuchNetwork(name.clone());
            return Err(Failed::Refused(Box::new(refusal)));
        }
    }
    if json {
        show(json::networks(&state, Some(names)))?;
        return session.done();
    }
    let texts: Vec<_> = names.iter().filter_map(|n| print::network(&state, n, style())).collect();
    tell(texts.join("\n"))?;
    session.done()
}

pub(super) fn connect(
    container: ContainerName,
    spec: AttachSpec,
    publish: Vec<PublishSpec>,
) -> Done {
    let mut session = session()?;
    let mut request = Request::new();
    if let Some(foreign) = record::foreign(&mut session.world, &container)? {
        request.push(Change::PutContainer { name: container.clone(), container: foreign });
    }
    request.push(Change::Attach { container: container.clone(), spec });
    if !publish.is_empty() {
        request.push(Change::Publish { container, ports: publish });
    }
    session.carry(&request)?;
    session.done()
}

pub(super) fn disconnect(network: NetworkName, container: ContainerName) -> Done {
    let mut session = session()?;
    session.carry(&vec![Change::Detach { container, network }])?;
    session.done()
}

pub(super) fn check(json: bool) -> Done {
    let Some((session, done)) = differences(engine::check)? else {
        tell("nothing runs: there is nothing to check\n")?;
        return Ok(ExitCode::SUCCESS);
    };
    let mut told: Vec<String> = done.plan.0.iter().map(ToString::to_string).collect();
    told.extend(done.reply.reaped.iter().map(|name| format!("{name} is gone: forget it")));
    match json {
        true => show(json::check(&told))?,
        false => tell(print::check(&told))?,
    }
    session.leave()?;
    match told.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failed::Differs),
    }
}

pub(super) fn repair(json: bool) -> Done {
    let Some((mut session, done)) = differences(engine::repair)? else {
        tell("nothing runs: there is nothing to repair\n")?;
        return Ok(ExitCode::SUCCESS);
    };
    // What an unfinished request had promised to end is known only now.
    session.bury()?;
    session.end_ghosts()?;
    match json {
        true => show(json::repair(&done.plan.0))?,
        false => tell(print::repair(&done.plan.0))?,
    }
    session.done()
}

/// Looks at everything, every rule included.
fn differences(look: Whole) -> Result<Option<(Session, engine::Done)>, Failed> {
    let mut session = Session::reading()?;
    if !session.is_live() {
        return Ok(None);
    }
    session.world.thorough = true;
    let done = session.whole(look)?;
    Ok(Some((session, done)))
}
