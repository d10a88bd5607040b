//! `up`, `down` and `plan`: takes the steps of a lab file, one after the other.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use twinax_core::{
    name::ContainerName,
    state::{Change, Lab, Request, State, Way},
};

use super::{
    Done, container,
    failed::Failed,
    record::{self, Birth, Wanted},
    session,
    session::Session,
    shown::{show, style, tell},
};
use crate::{
    container::Task,
    front::{
        json,
        lab::{LabContainer, LabFile, Ready, parse},
        print::{self, Style},
        progress::Progress,
        report::Report,
    },
    lab::{self, LabConflict, Step},
    linux::{netns::NetnsHandle, process::init_of},
};

/// How long a container may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(10);

pub(super) fn up(path: &Path) -> Done {
    let file = read(path)?;
    let mut session = session()?;
    let outcome = climb(&mut session, &file);
    session.leave()?;
    outcome
}

fn climb(session: &mut Session, file: &LabFile) -> Done {
    let state = session.state()?;
    refuse_another(file, &state)?;
    let steps = lab::up(file, &state)?;
    if steps.is_empty() {
        tell(format!("{} is up: nothing to do\n", file.name))?;
    }
    take(session, file, &steps)?;
    let names: Vec<ContainerName> = file.containers.iter().map(|c| c.name.clone()).collect();
    let state = session.state()?;
    tell(print::reach(&state, &names, style()))?;
    let mut rows = names.iter().filter_map(|name| state.containers.get(name));
    if session.rootless() && rows.any(|row| !row.published.is_empty()) {
        tell(
            "\nAs an ordinary user these ports are published inside your own network namespace:\n\
             reach them from within, as in\n  \
             twinax run --rm --network host -- twinax demo fetch http://127.0.0.1:PORT/\n\
             Publishing to the machine itself, and the way out of it, need root for now.\n",
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn down(path: &Path) -> Done {
    let file = read(path)?;
    let mut session = session()?;
    let state = session.state()?;
    refuse_another(&file, &state)?;
    let steps = lab::down(&file, &state);
    if steps.is_empty() {
        tell(format!("{} is down: nothing to do\n", file.name))?;
    }
    take(&mut session, &file, &steps)?;
    session.done()
}

pub(super) fn plan(path: &Path, as_json: bool) -> Done {
    let file = read(path)?;
    let mut session = session()?;
    let steps = lab::up(&file, &session.state()?)?;
    let request: Request = steps.iter().flat_map(|step| requests(&file, step)).collect();
    let mut told: Vec<String> = steps.iter().map(|step| format!("# {step}")).collect();
    if !request.is_empty() {
        let done = session.plan(&request)?;
        told.extend(done.plan.0.iter().map(ToString::to_string));
    }
    match as_json {
        true => show(json::plan(&told))?,
        false => tell(print::plan(&told))?,
    }
    session.done()
}

/// Refuses a lab that is up from another file: one would end the other's containers. A file that
/// is there no more was moved or renamed, and its lab goes on from here.
fn refuse_another(file: &LabFile, state: &State) -> Result<(), Failed> {
    let others = lab::other_files(&file.name, &file.path, state);
    match others.into_iter().find(|other| Path::new(other).exists()) {
        None => Ok(()),
        Some(other) => {
            Err(LabConflict::File { lab: file.name.clone(), file: other.to_owned() }.into())
        }
    }
}

fn read(path: &Path) -> Result<LabFile, Failed> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|cause| Failed::Unreadable(Report::new(format!("cannot read {name}: {cause}"))))?;
    let mut file = parse(&text, &name)?;
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    file.path = whole.display().to_string();
    Ok(file)
}

fn take(session: &mut Session, file: &LabFile, steps: &[Step]) -> Result<(), Failed> {
    let no_colour = std::env::var_os("NO_COLOR").is_some();
    let style = Style::of(io::stderr(), no_colour);
    let mut progress = Progress::new(io::stderr(), style, steps.len());
    for step in steps {
        let _ = progress.step(&step.to_string());
        take_one(session, file, step)?;
    }
    let _ = progress.clear();
    Ok(())
}

fn take_one(session: &mut Session, file: &LabFile, step: &Step) -> Result<(), Failed> {
    match step {
        Step::Stop { name, .. } => {
            let Ok(row) = session.look_up(name) else { return Ok(()) };
            let rows = [(name.clone(), row)].into();
            container::end(session, &rows, GRACE)?;
            container::forget(session, &rows)
        }
        Step::Start(wanted) => start(session, file, wanted),
        Step::RemoveNetwork { .. }
        | Step::CreateNetwork { .. }
        | Step::Leave { .. }
        | Step::Join { .. } => session.carry(&requests(file, step)).map(drop),
    }
}

fn start(session: &mut Session, file: &LabFile, wanted: &LabContainer) -> Result<(), Failed> {
    // Also what was up before: it may have failed to become ready then.
    let depends = file.containers.iter().filter(|other| wanted.depends.contains(&other.name));
    for other in depends {
        if let Some(ready) = &other.ready {
            await_ready(session, &other.name, *ready)?;
        }
    }
    let started = container::start(session, &asked(file, wanted))?;
    drop(started); // It goes on without us.
    match &wanted.ready {
        Some(ready) => await_ready(session, &wanted.name, *ready),
        None => Ok(()),
    }
}

/// A container as it is started: by a step of `file`, in the background.
fn asked(file: &LabFile, wanted: &LabContainer) -> Wanted {
    let env = wanted.env.iter().map(|(key, value)| (key.clone(), value.clone()));
    Wanted {
        name: wanted.name.clone(),
        command: wanted.run.clone(),
        env: env.collect(),
        workdir: wanted.workdir.clone(),
        mode: wanted.mode.clone(),
        publish: wanted.publish.clone(),
        hostname: wanted.hostname.clone(),
        dns: wanted.dns.clone(),
        remove: false,
        attached: false,
        lab: Some(Lab {
            name: file.name.clone(),
            digest: wanted.digest.clone(),
            file: file.path.clone(),
        }),
    }
}

/// Waits until a port of the container accepts, from within its own namespace.
fn await_ready(session: &mut Session, name: &ContainerName, ready: Ready) -> Result<(), Failed> {
    let deadline = Instant::now() + Duration::from_secs(ready.timeout_s.into());
    let target = SocketAddr::from((Ipv4Addr::LOCALHOST, ready.tcp));
    let container = session.look_up(name)?;
    let init = init_of(&container);
    let alive = || init.as_ref().is_some_and(Task::alive);
    let Some(Task { pid, start }) = init else {
        return Err(Failed::told(format!("{name} ended before it was ready")));
    };
    let netns = NetnsHandle::open(&Way::Pid { pid, start })?;
    loop {
        let connect = || TcpStream::connect_timeout(&target, Duration::from_millis(200)).is_ok();
        if netns.within(connect)? {
            return Ok(());
        }
        let hint = format!("twinax logs {name} shows what it said");
        if !alive() {
            return Err(Failed::told(format!("{name} ended before it was ready")).hint(&hint));
        }
        if Instant::now() > deadline {
            let what = format!(
                "{name} did not accept on TCP port {} within {} s",
                ready.tcp, ready.timeout_s
            );
            return Err(Failed::told(what).hint(&hint));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What a step asks of the engine; a container to start is asked for as if it ran already.
fn requests(file: &LabFile, step: &Step) -> Request {
    match step {
        Step::Stop { name, .. } => vec![Change::RemoveContainer { name: name.clone() }],
        Step::RemoveNetwork { name } => vec![Change::RemoveNetwork { name: name.clone() }],
        Step::CreateNetwork { name, spec } => {
            vec![Change::CreateNetwork { name: name.clone(), spec: spec.clone() }]
        }
        Step::Leave { request, .. } | Step::Join { request, .. } => request.clone(),
        Step::Start(wanted) => record::request(&asked(file, wanted), Birth::imagined()),
    }
}
