//! Commands about containers and what they run.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
    time::Duration,
};

use twinax_core::{
    name::ContainerName,
    state::{Change, Container, Keys, PublishSpec, Way},
};

use super::{
    Done,
    failed::Failed,
    record::{self, Birth, Wanted, now},
    session,
    session::Session,
    shown::{show, style},
};
use crate::{
    container::{
        self as process, Go, Net, Running, Spec, Task,
        exec::{Exec, Target},
        logs::{self, Filter, Stamp},
    },
    front::{
        cli::{self, Mode, Since},
        json, print,
    },
    linux::process::{init_of, supervisor_of},
};

pub(super) fn run(run: cli::Run) -> Done {
    let mut session = session()?;
    let name = match run.name {
        Some(name) => name,
        None => free_name(&mut session)?,
    };
    let wanted = Wanted {
        name: name.clone(),
        command: run.command,
        env: run.env,
        workdir: run.workdir,
        mode: run.mode,
        publish: run.publish,
        hostname: run.hostname,
        dns: run.dns,
        remove: run.remove,
        attached: !run.detach,
        lab: None,
    };
    let started = match start(&mut session, &wanted) {
        Ok(started) => started,
        Err(failed) => {
            session.leave()?;
            return Err(failed);
        }
    };
    for warning in &started.warnings {
        eprintln!("twinax: warning: {warning}");
    }
    if run.detach {
        println!("{name}");
        return Ok(ExitCode::SUCCESS);
    }
    let code = started.wait().map_err(Failed::Output)?;
    Ok(ExitCode::from(code.clamp(0, 255) as u8))
}

/// Starts a container: its processes wait while its network is wired and its record stored, and
/// end without a trace if either fails.
pub(super) fn start(session: &mut Session, wanted: &Wanted) -> Result<Running, Failed> {
    let name = &wanted.name;
    if name.as_str().contains(':') {
        return Err(Failed::told(format!("{name} names a namespace, so it cannot be run"))
            .hint("use a plain name, or twinax exec to run something in that namespace"));
    }
    let spec = spec(session, wanted)?;
    let waiting = process::start(&spec)?;
    let request = record::request(wanted, Birth::of(waiting.born()));
    if let Err(failed) = session.carry(&request) {
        waiting.abandon();
        return Err(failed);
    }
    let resolv = spec.dir.join("resolv.conf");
    let hostname = wanted.hostname.as_ref().map(ToString::to_string);
    let go = Go {
        hosts: hosts_of_other(session, &wanted.mode)?,
        resolv: (!wanted.dns.is_empty()).then_some(resolv),
        hostname: (wanted.mode != Mode::Host)
            .then(|| hostname.unwrap_or_else(|| name.to_string().chars().take(64).collect())),
    };
    waiting.go(&go).map_err(|error| {
        let undone = session.carry(&vec![Change::RemoveContainer { name: name.clone() }]);
        undone.map_or_else(|failed| failed, |_| Failed::Start(error))
    })
}

/// The hosts file to show at the start: that of the container whose network is shared. One of
/// its own was shown already, by an operation of the request.
fn hosts_of_other(session: &Session, mode: &Mode) -> Result<Option<PathBuf>, Failed> {
    let Mode::Of(other) = mode else { return Ok(None) };
    let store = session.world.store();
    let keys = Keys { containers: [other.clone()].into(), ..Keys::default() };
    let state = store.load(&keys)?;
    let container = state.containers.get(other).filter(|found| found.sandbox.is_own());
    Ok(container.map(|container| match &container.view {
        Some(view) => store.view_path(&view.to_string()),
        None => store.container_dir(other).join("hosts"),
    }))
}

fn spec(session: &mut Session, wanted: &Wanted) -> Result<Spec, Failed> {
    let name = &wanted.name;
    let mut keys = Keys { containers: [name.clone()].into(), ..Keys::default() };
    if let Mode::Of(other) = &wanted.mode {
        keys.containers.insert(other.clone());
    }
    let state = session.world.store().load(&keys)?;
    if state.containers.get(name).is_some() {
        let refusal = twinax_core::decide::Refusal::ContainerExists(name.clone());
        return Err(Failed::Refused(Box::new(refusal)));
    }
    let net = match &wanted.mode {
        Mode::Networks(_) | Mode::None => Net::New,
        Mode::Host => Net::Host,
        Mode::Of(other) => {
            let found = state.containers.get(other).ok_or_else(|| Failed::no_container(other))?;
            net_of(found).ok_or_else(|| Failed::told(format!("container {other} has ended")))?
        }
    };
    let store = session.world.store();
    let dir = store.container_dir(name);
    let mut all: BTreeMap<OsString, OsString> = env::vars_os().collect();
    all.extend(wanted.env.iter().map(|(key, value)| (key.into(), value.into())));
    Ok(Spec {
        name: name.to_string(),
        command: command(&wanted.command),
        env: all.into_iter().collect(),
        cwd: wanted.workdir.clone().map_or_else(|| "/".into(), PathBuf::from),
        dir,
        notes: store.notes_dir(),
        net,
        attached: wanted.attached,
    })
}

/// The command to execute: `twinax` means this very program, wherever it is.
fn command(words: &[String]) -> Vec<OsString> {
    let own = words.first().is_some_and(|word| word == "twinax").then(env::current_exe);
    let own = own.and_then(Result::ok).map(PathBuf::into_os_string);
    let first = own.or_else(|| words.first().map(OsString::from));
    first.into_iter().chain(words.iter().skip(1).map(OsString::from)).collect()
}

fn net_of(container: &Container) -> Option<Net> {
    match &container.sandbox.way {
        Way::Pid { pid, start } => Some(Net::Of(Task { pid: *pid, start: *start })),
        Way::Path(path) => Some(Net::Path(path.into())),
        Way::Host => Some(Net::Host),
        Way::Of(_) => init_of(container).map(Net::Of),
    }
}

pub(super) fn exec(exec: cli::Exec) -> Done {
    let mut session = session()?;
    let target = match record::foreign(&exec.name)? {
        Some(foreign) => match foreign.sandbox.way {
            Way::Pid { pid, start } => Target::NetOf(Task { pid, start }),
            Way::Path(path) => Target::NetPath(path.into()),
            Way::Host | Way::Of(_) => unreachable!("a foreign namespace is a process's or a file"),
        },
        None => {
            let container = session.look_up(&exec.name)?;
            let init = init_of(&container).filter(Task::alive);
            Target::Container(init.ok_or_else(|| {
                Failed::told(format!("container {} does not run", exec.name))
                    .hint("twinax ps -a shows how it ended")
            })?)
        }
    };
    let pair = |(key, value): (String, String)| (key.into(), value.into());
    let exec = Exec {
        target,
        command: command(&exec.command),
        env: exec.env.into_iter().map(pair).collect(),
        cwd: exec.workdir.map(PathBuf::from),
        detach: exec.detach,
    };
    let code = process::exec::exec(&exec)?;
    Ok(ExitCode::from(code.clamp(0, 255) as u8))
}

pub(super) fn list(all: bool, quiet: bool, json: bool) -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    match (json, quiet) {
        (true, _) => show(json::containers(&state, all))?,
        (_, true) => print!("{}", print::container_names(&state, all)),
        _ => print!("{}", print::containers(&state, all, now(), style())),
    }
    session.done()
}

pub(super) fn logs(asked: &cli::Logs) -> Done {
    let mut session = Session::reading()?;
    let container = session.look_up(&asked.name)?;
    let since = asked.since.map(|since| match since {
        Since::AgoSeconds(ago) => Duration::from_secs(now().saturating_sub(ago)),
        Since::At(at) => Duration::from_secs(at),
    });
    let stamp = match (asked.json, asked.timestamps) {
        (true, _) => Stamp::Nanoseconds,
        (_, true) => Stamp::Rfc3339,
        _ => Stamp::None,
    };
    let filter = Filter { since, until: None, tail: asked.tail.map(|lines| lines as u64), stamp };
    let dir = session.world.store().container_dir(&asked.name);
    let follow = supervisor_of(&container).filter(|_| asked.follow);
    let shown = match asked.json {
        true => {
            let mut out = json::LogWriter::new("stdout", io::stdout());
            let mut err = json::LogWriter::new("stderr", io::stdout());
            let shown = logs::show(&dir, &filter, follow.as_ref(), &mut out, &mut err);
            shown.and_then(|_| out.finish().and_then(|()| err.finish()))
        }
        false => {
            let (mut out, mut err) = (io::stdout().lock(), io::stderr().lock());
            logs::show(&dir, &filter, follow.as_ref(), &mut out, &mut err).map(drop)
        }
    };
    match shown {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Failed::told(format!("container {} has no log", asked.name)))
        }
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(Failed::Output(e)),
        _ => session.done(),
    }
}

pub(super) fn stop(names: &[ContainerName], wait_s: u32) -> Done {
    let mut session = session()?;
    let rows = names.iter().map(|name| session.look_up(name)).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<_> = names.iter().zip(&rows).collect();
    stop_processes(&rows, Duration::from_secs(wait_s.into()))?;
    for (name, container) in rows {
        end(&mut session, name, container, Duration::ZERO)?;
        println!("{name}");
    }
    session.done()
}

/// Ends the processes of several containers at once, so that their graces do not add up.
fn stop_processes(rows: &[(&ContainerName, &Container)], grace: Duration) -> Result<(), Failed> {
    thread::scope(|scope| {
        let running = rows.iter().filter_map(|(name, container)| Some((name, init_of(container)?)));
        let stops = running.map(|(name, init)| {
            (name, scope.spawn(move || process::process::stop(&init, grace).map(drop)))
        });
        // All are under way before the first is waited for.
        for (name, stop) in stops.collect::<Vec<_>>() {
            let stopped = stop.join().unwrap_or_else(|_| Err(io::Error::other("it panicked")));
            stopped.map_err(|cause| Failed::told(format!("cannot stop {name}: {cause}")))?;
        }
        Ok(())
    })
}

/// Ends a container's processes, all of them, and sees that its end is on record.
pub(super) fn end(
    session: &mut Session,
    name: &ContainerName,
    container: &Container,
    grace: Duration,
) -> Result<(), Failed> {
    let (Some(init), Some(supervisor)) = (init_of(container), supervisor_of(container)) else {
        return Ok(());
    };
    let failed = |cause: io::Error| Failed::told(format!("cannot stop {name}: {cause}"));
    process::process::stop(&init, grace).map_err(failed)?;
    // The supervisor records the end; should it have died, that is left to us.
    supervisor.wait_gone(Duration::from_secs(10)).map_err(failed)?;
    match session.look_up(name) {
        Ok(container) if init_of(&container) == Some(init) => {
            session.carry(&vec![Change::Exited { name: name.clone(), code: None }]).map(drop)
        }
        _ => Ok(()),
    }
}

pub(super) fn remove(names: Vec<ContainerName>, force: bool) -> Done {
    let mut session = session()?;
    let rows = names.iter().map(|name| session.look_up(name)).collect::<Result<Vec<_>, _>>()?;
    let rows: Vec<_> = names.iter().zip(&rows).collect();
    let runs = |container: &Container| init_of(container).is_some_and(|init| init.alive());
    if let Some((name, _)) = rows.iter().find(|(_, container)| runs(container) && !force) {
        return Err(Failed::told(format!("container {name} runs"))
            .hint("stop it first (twinax stop), or end it with twinax rm -f"));
    }
    stop_processes(&rows, Duration::ZERO)?;
    for (name, container) in rows {
        end(&mut session, name, container, Duration::ZERO)?;
        if session.look_up(name).is_ok() {
            session.carry(&vec![Change::RemoveContainer { name: name.clone() }])?;
        }
        println!("{name}");
    }
    session.done()
}

pub(super) fn port(name: &ContainerName, json: bool) -> Done {
    let mut session = Session::reading()?;
    let container = session.look_up(name)?;
    if json {
        let state = session.state()?;
        if let Some(ports) = json::ports(&state, name) {
            show(ports)?;
        }
    } else {
        print!("{}", print::ports(&container));
    }
    session.done()
}

pub(super) fn publish(name: ContainerName, ports: Vec<PublishSpec>) -> Done {
    let mut session = session()?;
    let done = session.carry(&vec![Change::Publish { container: name, ports }])?;
    for (_, published) in &done.reply.published {
        println!("{}", print::published(published));
    }
    session.done()
}

pub(super) fn unpublish(name: ContainerName, ports: Vec<PublishSpec>) -> Done {
    let mut session = session()?;
    session.carry(&vec![Change::Unpublish { container: name, ports }])?;
    session.done()
}

/// A name that nobody has, for a container that was given none.
fn free_name(session: &mut Session) -> Result<ContainerName, Failed> {
    loop {
        let id = record::new_id();
        let name: ContainerName = format!("c{}", &id[..6]).parse().expect("a good name");
        let keys = Keys { containers: [name.clone()].into(), ..Keys::default() };
        if session.world.store().load(&keys)?.containers.get(&name).is_none() {
            return Ok(name);
        }
    }
}

/// Writes what was printed so far, before something that may take long.
pub(super) fn flush() {
    let _ = io::stdout().flush();
}
