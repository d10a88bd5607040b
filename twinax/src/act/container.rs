//! Commands about containers and what they run.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use twinax_core::{
    engine::World as _,
    handle::{choices, spaces},
    map::shown,
    name::ContainerName,
    state::{Change, Container, Keys, PublishSpec, Request, Way},
};

use super::{
    Done,
    failed::Failed,
    inspect::several,
    record::{self, Birth, Wanted, now},
    session,
    session::{Session, TEARDOWN},
    shown::{show, style, tell, tell_names},
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
    look::{Depth, look_and_hold},
    place::{self, Need},
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
    let started = start(&mut session, &wanted)?;
    session.hand_over();
    for warning in &started.warnings {
        let _ = writeln!(io::stderr(), "twinax: warning: {warning}");
    }
    if run.detach {
        tell(format!("{name}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let code =
        started.wait().map_err(|cause| Failed::told(format!("cannot wait for {name}: {cause}")))?;
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
    // Without a holder an ordinary user has no container of Twinax's: others may be meant.
    let mut session = Session::of(place::enter(Need::IfRunning)?);
    let target = match ours(&mut session, &exec.name)? {
        Some(target) => target,
        None => anybodys(&exec.name)?,
    };
    let pair = |(key, value): (String, String)| (key.into(), value.into());
    let exec = Exec {
        target,
        command: command(&exec.command),
        env: exec.env.into_iter().map(pair).collect(),
        cwd: exec.workdir.map(PathBuf::from),
        detach: exec.detach,
    };
    // While this process is where the session began: what it runs goes elsewhere, and what it
    // ran in stays as long as it does.
    session.done()?;
    let code = process::exec::exec(&exec)?;
    Ok(ExitCode::from(code.clamp(0, 255) as u8))
}

/// What `name` means among Twinax's own containers and the forms that every command takes.
fn ours(session: &mut Session, name: &str) -> Result<Option<Target>, Failed> {
    let Ok(name) = name.parse::<ContainerName>() else { return Ok(None) };
    if let Some((kind, rest)) = name.as_str().split_once(':') {
        if session.is_live() {
            record::foreign(&mut session.world, &name)?;
        }
        return Ok(Some(match kind {
            "pid" => {
                let task = rest.parse().ok().and_then(Task::of);
                let gone = || Failed::told(format!("there is no process {rest}"));
                Target::NetOf(task.ok_or_else(gone)?)
            }
            _ => Target::NetPath(rest.into()),
        }));
    }
    let keys = Keys { containers: [name.clone()].into(), ..Keys::default() };
    let state = session.world.load(&keys)?;
    let Some(container) = state.containers.get(&name) else { return Ok(None) };
    let init = init_of(container).filter(|init| !container.ending() && init.alive());
    Ok(Some(Target::Container(init.ok_or_else(|| {
        Failed::told(format!("container {name} does not run"))
            .hint("twinax ps -a shows how it ended")
    })?)))
}

/// The network namespace of whatever else is called so on this host.
fn anybodys(name: &str) -> Result<Target, Failed> {
    let (sight, mut opened) = look_and_hold(Depth::default());
    let what = shown(name);
    let spaces = spaces(&sight, name);
    let mut all = spaces.keys();
    match (all.next(), all.next()) {
        (None, _) => Err(Failed::told(format!("there is no container {what}"))
            .hint("twinax ps -a lists Twinax's own, twinax map those of every runtime")),
        (Some(netns), None) => {
            let cannot =
                || Failed::told(format!("the network namespace of {what} cannot be opened"));
            let fd = opened.remove(netns).ok_or_else(|| {
                cannot().hint("that takes CAP_SYS_PTRACE over its process: run it as root")
            })?;
            Ok(Target::Net { fd, what: format!("the network namespace of {what}") })
        }
        _ => Err(several(&what, spaces.len(), &choices(&sight, "exec", spaces.values()))),
    }
}

pub(super) fn list(all: bool, quiet: bool, json: bool) -> Done {
    let mut session = Session::reading()?;
    let state = session.state()?;
    match (json, quiet) {
        (true, _) => show(json::containers(&state, all))?,
        (_, true) => tell(print::container_names(&state, all))?,
        _ => tell(print::containers(&state, all, now(), style()))?,
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
            let shown = logs::show(&dir, &filter, follow.as_ref(), &mut out, &mut err);
            shown.and_then(|_| out.flush())
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
    let rows = look_up(&mut session, names)?;
    end(&mut session, &rows, Duration::from_secs(wait_s.into()))?;
    tell_names(names)?;
    session.done()
}

fn look_up(
    session: &mut Session,
    names: &[ContainerName],
) -> Result<BTreeMap<ContainerName, Container>, Failed> {
    names.iter().map(|name| Ok((name.clone(), session.look_up(name)?))).collect()
}

/// Ends the processes of containers, all of them, and sees that their end is on record.
///
/// Within `grace` they may end by themselves, and keep their network for that; all at once, so
/// that graces do not add up. Those that are to be killed lose it first: once they are dead the
/// kernel takes their namespaces away, and keeps everybody waiting who has links to change.
pub(super) fn end(
    session: &mut Session,
    rows: &BTreeMap<ContainerName, Container>,
    grace: Duration,
) -> Result<(), Failed> {
    if !grace.is_zero() {
        ask_to_end(rows, grace)?;
    }
    let lives = |row: &Container| init_of(row).is_some_and(|init| init.alive());
    let left: Vec<_> = rows.iter().filter(|(_, row)| lives(row)).collect();
    let promise: Request =
        left.iter().map(|(name, _)| Change::End { name: (*name).clone() }).collect();
    if !promise.is_empty() {
        session.carry(&promise)?;
    }
    for (name, init) in left.iter().filter_map(|(name, row)| Some((name, init_of(row)?))) {
        init.signal(Signal::KILL).map_err(|cause| cannot_stop(name, cause))?;
    }
    record_ends(session, rows)
}

/// Asks containers to end, and waits until they have or `grace` is over.
fn ask_to_end(rows: &BTreeMap<ContainerName, Container>, grace: Duration) -> Result<(), Failed> {
    let until = Instant::now() + grace;
    let running = rows.iter().filter(|(_, row)| !row.ending());
    let inits: Vec<_> = running.filter_map(|(name, row)| Some((name, init_of(row)?))).collect();
    for (name, init) in &inits {
        init.signal(Signal::TERM).map_err(|cause| cannot_stop(name, cause))?;
    }
    for (name, init) in &inits {
        let left = until.saturating_duration_since(Instant::now());
        init.wait_gone(left).map_err(|cause| cannot_stop(name, cause))?;
    }
    Ok(())
}

/// Waits until killed containers are gone. Their supervisors record the end; should one have died,
/// that is left to us.
fn record_ends(
    session: &mut Session,
    rows: &BTreeMap<ContainerName, Container>,
) -> Result<(), Failed> {
    for (name, row) in rows {
        for task in init_of(row).into_iter().chain(supervisor_of(row)) {
            let gone = task.wait_gone(TEARDOWN).map_err(|cause| cannot_stop(name, cause))?;
            if !gone {
                let cause = io::Error::new(io::ErrorKind::TimedOut, "it hangs in the kernel");
                return Err(cannot_stop(name, cause));
            }
        }
    }
    let keys = Keys { containers: rows.keys().cloned().collect(), ..Keys::default() };
    let now = session.world.store().load(&keys)?;
    let unrecorded = rows.iter().filter(|(name, row)| {
        let init = now.containers.get(name).and_then(init_of);
        init.is_some() && init == init_of(row)
    });
    let request: Request =
        unrecorded.map(|(name, _)| Change::Exited { name: name.clone(), code: None }).collect();
    if !request.is_empty() {
        session.carry(&request)?;
    }
    Ok(())
}

fn cannot_stop(name: &ContainerName, cause: io::Error) -> Failed {
    Failed::told(format!("cannot stop {name}: {cause}"))
}

pub(super) fn remove(names: &[ContainerName], force: bool) -> Done {
    let mut session = session()?;
    let rows = look_up(&mut session, names)?;
    let runs = |row: &Container| !row.ending() && init_of(row).is_some_and(|init| init.alive());
    if let Some(name) = names.iter().find(|name| !force && runs(&rows[*name])) {
        return Err(Failed::told(format!("container {name} runs"))
            .hint("stop it first (twinax stop), or end it with twinax rm -f"));
    }
    end(&mut session, &rows, Duration::ZERO)?;
    forget(&mut session, &rows)?;
    tell_names(names)?;
    session.done()
}

/// Removes the records of containers that have ended, but for those that went by themselves.
pub(super) fn forget(
    session: &mut Session,
    rows: &BTreeMap<ContainerName, Container>,
) -> Result<(), Failed> {
    let keys = Keys { containers: rows.keys().cloned().collect(), ..Keys::default() };
    let left = session.world.store().load(&keys)?;
    let same = |name: &ContainerName, row: &Container| {
        left.containers.get(name).is_some_and(|now| now.id == row.id)
    };
    let left = rows.iter().filter(|(name, row)| same(name, row));
    let request: Request =
        left.map(|(name, _)| Change::RemoveContainer { name: name.clone() }).collect();
    if !request.is_empty() {
        session.carry(&request)?;
    }
    Ok(())
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
        tell(print::ports(&container))?;
    }
    session.done()
}

pub(super) fn publish(name: ContainerName, ports: Vec<PublishSpec>) -> Done {
    let mut session = session()?;
    let done = session.carry(&vec![Change::Publish { container: name, ports }])?;
    for (_, published) in &done.reply.published {
        tell(format!("{}\n", print::published(published)))?;
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
