//! How a command fails: one type, one exit code each, one text for people.

use std::{io, process::ExitCode};

use twinax_core::{decide::Refusal, engine::Failure, name::ContainerName};

use crate::{
    container::{StartError, exec::ExecError},
    front::{lab::LabError, report::Report},
    lab::LabConflict,
    linux::netns::NetnsError,
    place::PlaceError,
    store::StoreError,
    world::LinuxError,
};

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(super) enum Failed {
    /// Refused by decision: nothing was changed.
    Refused(Box<Refusal>),
    /// Refused for another reason, told in full; nothing was changed.
    Told(Report),
    Lab(Box<LabError>),
    /// The lab file cannot be read at all; told in full.
    Unreadable(Report),
    Conflict(LabConflict),
    /// The kernel or the store failed.
    World(Box<Failure<LinuxError>>),
    Linux(Box<LinuxError>),
    Place(Box<PlaceError>),
    Start(StartError),
    Exec(ExecError),
    Output(io::Error),
    /// Differences were found, and told already.
    Differs,
}

impl Failed {
    pub(super) fn output(cause: io::Error) -> Self {
        Self::Output(cause)
    }

    pub(super) fn no_container(name: &ContainerName) -> Self {
        Self::Refused(Box::new(Refusal::NoSuchContainer(name.clone())))
    }

    pub(super) fn told(what: impl Into<String>) -> Self {
        Self::Told(Report::new(what))
    }

    pub(super) fn hint(self, hint: &str) -> Self {
        match self {
            Self::Told(report) => Self::Told(report.hint(hint)),
            other => other,
        }
    }

    /// 1: refused and nothing changed; 2: usage; 3: kernel or store failed and the former state
    /// was restored. A container's own codes are Docker's.
    pub(super) fn code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused(_) | Self::Told(_) | Self::Conflict(_) | Self::Differs => 1,
            Self::Lab(_) | Self::Unreadable(_) => 2,
            Self::World(failure) => match **failure {
                Failure::Refused(_) => 1,
                _ => 3,
            },
            Self::Place(error) if matches!(**error, PlaceError::Inside) => 1,
            Self::Linux(_) | Self::Place(_) | Self::Output(_) => 3,
            Self::Start(error) => error.code(),
            Self::Exec(error) => error.code(),
        })
    }

    pub(super) fn report(&self) -> Report {
        match self {
            Self::Refused(refusal) => refused(refusal),
            Self::Told(report) | Self::Unreadable(report) => report.clone(),
            Self::Lab(error) => Report::new(error.to_string()),
            Self::Conflict(error) => Report::of(error)
                .hint("remove it, give it another name in the file, or take the other lab down"),
            Self::World(failure) => world(failure),
            Self::Linux(error) => linux(error),
            Self::Place(error) => Report::of(&**error),
            Self::Start(error) => Report::of(error),
            Self::Exec(error) => exec(error),
            Self::Output(error) => Report::new(format!("cannot write output: {error}")),
            Self::Differs => {
                Report::new("the kernel is not what was promised").hint("twinax repair makes it so")
            }
        }
    }
}

fn refused(refusal: &Refusal) -> Report {
    let report = Report::of(refusal);
    match refusal.hint() {
        Some(hint) => report.hint(hint),
        None => report,
    }
}

fn exec(error: &ExecError) -> Report {
    let report = Report::of(error);
    match error {
        ExecError::Enter { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => report
            .hint("that takes CAP_SYS_ADMIN over it: run it as root, or as the user who made it"),
        _ => report,
    }
}

fn linux(error: &LinuxError) -> Report {
    let report = Report::of(error);
    match error {
        LinuxError::Store(StoreError::Corrupt { .. }) => report.hint(
            "put back what it held; or move it away and reboot, which ends and forgets what runs",
        ),
        _ => report,
    }
}

fn world(failure: &Failure<LinuxError>) -> Report {
    match failure {
        Failure::Refused(refusal) => refused(refusal),
        Failure::Restored(error) => linux(error),
        Failure::Stuck { first, then } => {
            let mut report = Report::of(first);
            report.why.push(format!("and going back failed too: {}", world(then).what));
            report.hint("the next command tries again; twinax repair does nothing else")
        }
        Failure::Unfinished(error) => {
            Report::of(error).hint("it was done; the next command clears up after it")
        }
        Failure::Unreached(unreached) => Report::of(&**unreached)
            .hint("nothing was touched; this is a fault of Twinax, please report it"),
    }
}

impl From<Failure<LinuxError>> for Failed {
    fn from(failure: Failure<LinuxError>) -> Self {
        Self::World(Box::new(failure))
    }
}

impl From<LinuxError> for Failed {
    fn from(error: LinuxError) -> Self {
        Self::Linux(Box::new(error))
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Self::Linux(Box::new(error.into()))
    }
}

impl From<NetnsError> for Failed {
    fn from(error: NetnsError) -> Self {
        Self::Told(Report::of(&error))
    }
}

impl From<PlaceError> for Failed {
    fn from(error: PlaceError) -> Self {
        Self::Place(Box::new(error))
    }
}

impl From<LabError> for Failed {
    fn from(error: LabError) -> Self {
        Self::Lab(Box::new(error))
    }
}

impl From<LabConflict> for Failed {
    fn from(error: LabConflict) -> Self {
        Self::Conflict(error)
    }
}

impl From<StartError> for Failed {
    fn from(error: StartError) -> Self {
        Self::Start(error)
    }
}

impl From<ExecError> for Failed {
    fn from(error: ExecError) -> Self {
        Self::Exec(error)
    }
}
