//! Does what a parsed command asks: requests to the engine, processes, and what is printed.

mod container;
mod doctor;
mod capture;
mod failed;
mod lab;
mod network;
mod record;
mod session;
mod inspect;
mod target_file;
mod snapshot;
mod map;
mod shown;
mod screen;
mod watch;
mod top;

use std::{ffi::OsString, io::Write, path::Path, process::ExitCode};

use twinax_core::state::Change;

use self::{failed::Failed, session::Session};
use crate::{
    container::OnExit,
    front::cli::{self, Command},
    place::{self, Need},
};

type Done = Result<ExitCode, Failed>;

/// Becomes another of Twinax's processes if the arguments (without the program's name) say so.
pub fn role(args: &[OsString]) -> Option<ExitCode> {
    crate::forwarder::dispatch(args).or_else(|| crate::container::dispatch(args, &Ended))
}

/// Carries out `command` and says how that went, to people and by the exit code.
pub fn act(command: Command) -> ExitCode {
    let outcome = dispatch(command);
    outcome.unwrap_or_else(|failed| {
        // Where nobody can be told the code says it.
        let _ = writeln!(std::io::stderr(), "{}", failed.report());
        failed.code()
    })
}

fn dispatch(command: Command) -> Done {
    match command {
        Command::Demo { args } => Ok(crate::demo::main(&args)),
        Command::Completions { shell } => print(&cli::completions(shell)),
        Command::Man { directory } => manual(directory.as_deref()),
        Command::NetworkCreate { name, spec } => network::create(name, spec),
        Command::NetworkList { quiet, json } => network::list(quiet, json),
        Command::NetworkInspect { names, json } => network::inspect(&names, json),
        Command::NetworkRemove { names } => network::remove(names),
        Command::NetworkPrune => network::prune(),
        Command::NetworkConnect { container, spec, publish } => {
            network::connect(container, spec, publish)
        }
        Command::NetworkDisconnect { network, container } => {
            network::disconnect(network, container)
        }
        Command::Run(run) => container::run(*run),
        Command::Exec(exec) => container::exec(exec),
        Command::List { all, quiet, json } => container::list(all, quiet, json),
        Command::Logs(logs) => container::logs(&logs),
        Command::Stop { names, wait_s } => container::stop(&names, wait_s),
        Command::Remove { names, force } => container::remove(&names, force),
        Command::Port { name, json } => container::port(&name, json),
        Command::Publish { name, ports } => container::publish(name, ports),
        Command::Unpublish { name, ports } => container::unpublish(name, ports),
        Command::Up { file } => lab::up(&file),
        Command::Down { file } => lab::down(&file),
        Command::Plan { file, json } => lab::plan(&file, json),
        Command::Check { json } => network::check(json),
        Command::Repair { json } => network::repair(json),
        Command::Map(asked) if asked.watch => watch::watch(&asked),
        Command::Map(asked) => map::map(&asked),
        Command::Inspect { handle, rules, json } => inspect::inspect(&handle, rules, json),
        Command::Top(wanted) => top::top(wanted),
        Command::Peer { handle, json } => map::peer(&handle, json),
        Command::Doctor(asked) => doctor::doctor(&asked),
        Command::Capture(asked) => capture::capture(&asked),
        Command::Snapshot { file } => snapshot::snapshot(&file),
        Command::Diff { old, new, json } => snapshot::diff(&old, new.as_deref(), json),
    }
}

fn print(bytes: &[u8]) -> Done {
    shown::tell(bytes)?;
    Ok(ExitCode::SUCCESS)
}

fn manual(directory: Option<&Path>) -> Done {
    let pages = cli::manual().map_err(Failed::output)?;
    let Some(directory) = directory else {
        return print(&pages[0].1);
    };
    std::fs::create_dir_all(directory).map_err(Failed::output)?;
    for (name, page) in pages {
        std::fs::write(directory.join(name), page).map_err(Failed::output)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What a supervisor does when its container has ended: detach it, and say so in its record.
struct Ended;

impl OnExit for Ended {
    fn exited(&self, container: &str, dir: &Path, code: Option<i32>) {
        let Ok(name) = container.parse() else { return };
        let done = place::of_container(dir).map_err(Failed::from).and_then(|place| {
            let mut session = Session::of(place);
            session.carry(&vec![Change::Exited { name, code }])?;
            session.leave()
        });
        // Nobody listens any more: the next command finds the container dead and goes on.
        let _ = done;
    }
}

/// Enters where Twinax acts, starting what it needs.
fn session() -> Result<Session, Failed> {
    Ok(Session::of(place::enter(Need::Start)?))
}
