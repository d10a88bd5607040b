//! Commands about networks, and about the whole.

use std::{collections::BTreeSet, env, io, process::ExitCode};

use twinax_core::{
    engine,
    name::{ContainerName, NetworkName},
    state::{
        AttachSpec, Change, Container, DEFAULT_NETWORK, Led, NetworkSpec, PublishSpec, Request,
        Sandbox, State, Way,
    },
};

use super::{Done, failed::Failed, session, session::Session};
use crate::{
    front::{
        json,
        print::{self, Style},
    },
    linux::{
        netns::{self, NetnsHandle},
        process::Task,
    },
};

pub(super) fn create(name: NetworkName, spec: NetworkSpec) -> Done {
    let mut session = session()?;
    session.carry(&vec![Change::CreateNetwork { name: name.clone(), spec }])?;
    println!("{name}");
    session.done()
}

pub(super) fn remove(names: Vec<NetworkName>) -> Done {
    let mut session = session()?;
    // One request, so that either all go or none.
    let names: BTreeSet<NetworkName> = names.into_iter().collect();
    let remove = |name: &NetworkName| Change::RemoveNetwork { name: name.clone() };
    session.carry(&names.iter().map(remove).collect())?;
    names.iter().for_each(|name| println!("{name}"));
    session.done()
}

pub(super) fn prune() -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    let used: Vec<&NetworkName> = endpoints(&state).collect();
    let unused = state.networks.all().keys().filter(|name| !used.contains(name));
    let unused: Vec<_> = unused.filter(|name| name.as_str() != DEFAULT_NETWORK).cloned().collect();
    if unused.is_empty() {
        return session.done();
    }
    remove(unused)
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
        (_, true) => print!("{}", print::network_names(&state)),
        _ => print!("{}", print::networks(&state, style())),
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
    print!("{}", texts.join("\n"));
    session.done()
}

pub(super) fn connect(
    container: ContainerName,
    spec: AttachSpec,
    publish: Vec<PublishSpec>,
) -> Done {
    let mut session = session()?;
    let mut request = Request::new();
    if let Some(foreign) = foreign(&container)? {
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

/// Returns the record of somebody else's namespace, if that is what `name` means.
pub(super) fn foreign(name: &ContainerName) -> Result<Option<Container>, Failed> {
    let way = match name.as_str().split_once(':') {
        Some(("pid", pid)) => {
            let pid = pid.parse().expect("checked when the name was parsed");
            let Some(task) = Task::of(pid) else {
                return Err(Failed::told(format!("there is no process {pid}")));
            };
            Way::Pid { pid: task.pid, start: task.start }
        }
        Some(("netns", path)) => Way::Path(path.to_owned()),
        _ => return Ok(None),
    };
    let cookie = NetnsHandle::open(&way)?.cookie()?;
    if netns::own_cookie().is_ok_and(|own| own == cookie) {
        let what = format!("{name} is the host's own network namespace, which no cable leads into");
        return Err(Failed::told(what).hint("name a process or file of another namespace"));
    }
    Ok(Some(Container {
        id: super::container::new_id(),
        sandbox: Sandbox { way, cookie: Some(cookie) },
        hostname: None,
        endpoints: Vec::new(),
        published: Vec::new(),
        view: None,
        dns: Vec::new(),
        run: None,
        led: Led::default(),
    }))
}

pub(super) fn check(json: bool) -> Done {
    let Some((session, done)) = differences(engine::check)? else {
        println!("nothing runs: there is nothing to check");
        return Ok(ExitCode::SUCCESS);
    };
    let mut told: Vec<String> = done.plan.0.iter().map(ToString::to_string).collect();
    told.extend(done.reply.reaped.iter().map(|name| format!("{name} is gone: forget it")));
    match json {
        true => show(json::check(&told))?,
        false => print!("{}", print::check(&told)),
    }
    session.leave()?;
    match told.is_empty() {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Failed::Differs),
    }
}

pub(super) fn repair(json: bool) -> Done {
    let Some((mut session, done)) = differences(engine::repair)? else {
        println!("nothing runs: there is nothing to repair");
        return Ok(ExitCode::SUCCESS);
    };
    // What an unfinished request had promised to end is known only now.
    session.bury()?;
    match json {
        true => show(json::repair(&done.plan.0))?,
        false => print!("{}", print::repair(&done.plan.0)),
    }
    session.done()
}

type Whole = fn(
    &mut crate::linux::world::Linux,
) -> Result<engine::Done, engine::Failure<crate::linux::world::LinuxError>>;

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

impl Session {
    fn whole(&mut self, look: Whole) -> Result<engine::Done, Failed> {
        let _lock = self.world.store().lock()?;
        Ok(look(&mut self.world)?)
    }
}

/// How tables are printed to standard output.
pub(super) fn style() -> Style {
    Style::of(io::stdout(), env::var_os("NO_COLOR").is_some())
}

pub(super) fn show<T: serde::Serialize>(body: T) -> Result<(), Failed> {
    let text = json::text(body).map_err(|cause| Failed::Output(cause.into()))?;
    print!("{text}");
    Ok(())
}
