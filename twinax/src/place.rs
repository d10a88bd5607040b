//! Where Twinax acts: which network namespace is its host, and where the state of that is kept.
//!
//! Root acts where it stands. An ordinary user's host is the namespace of a holder, entered
//! before anything else. State belongs to a network namespace, not to a directory: it carries
//! the namespace's cookie and the boot.

use std::{
    env, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    container::INIT_NAME,
    holder::{self, HolderError, Standing},
    linux::{
        netns,
        process::{self, Task, supervisor_of},
    },
    store::{Store, StoreError},
};

pub use crate::holder::Need;

/// Why no place to act was found.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Holder(#[from] HolderError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "this is inside a container that Twinax runs, whose processes have other numbers: run twinax outside of it"
    )]
    Inside,
    #[error("cannot tell which network namespace this is")]
    Cookie(#[source] io::Error),
}

/// A store, and whether the kernel behind it can be reached.
#[derive(Debug)]
pub struct Place {
    pub store: Store,
    /// The namespace is there, so what is stored can be held against it.
    pub live: bool,
    /// An ordinary user's run directory, with the holder in it.
    pub user: Option<PathBuf>,
}

/// Enters the place where Twinax acts. To be called first, before any thread.
///
/// # Errors
/// See [`PlaceError`].
pub fn enter(need: Need) -> Result<Place, PlaceError> {
    // What is on record of a process is its number: one of in here means another out there.
    if process::line("/proc/1/comm").is_ok_and(|name| name.as_bytes() == INIT_NAME.to_bytes()) {
        return Err(PlaceError::Inside);
    }
    if holder::privileged() {
        return root();
    }
    let user = holder::user_run_dir(env::var_os("XDG_RUNTIME_DIR").as_deref())?;
    let (run, data) = (user.join("state"), user_data());
    let survivors = || supervisors(&run);
    let standing = holder::enter(&user, need, &survivors)?;
    match standing {
        Some(Standing::Held(_) | Standing::Privileged) => {
            let epoch = epoch(cookie()?)?;
            Ok(Place { store: Store::open(run, data, &epoch)?, live: true, user: Some(user) })
        }
        None => Ok(Place { store: Store::peek(run, data), live: false, user: Some(user) }),
    }
}

/// Enters the place that a container's directory belongs to, from within.
///
/// # Errors
/// See [`PlaceError`].
pub fn of_container(dir: &Path) -> Result<Place, PlaceError> {
    let run = dir.parent().and_then(Path::parent).unwrap_or(dir).to_owned();
    let user = run.parent().filter(|dir| dir.join("holder.lock").exists()).map(Path::to_owned);
    Ok(Place { store: Store::reopen(run)?, live: true, user })
}

impl Place {
    /// Ends an ordinary user's holder if it has no container left to hold.
    ///
    /// # Errors
    /// See [`PlaceError`].
    pub fn leave(&self) -> Result<(), PlaceError> {
        let Some(user) = &self.user else { return Ok(()) };
        if !self.live || in_use(&self.store)? {
            return Ok(());
        }
        let _ = crate::forwarder::stop(self.store.run_dir()); // It goes with its namespace.
        Ok(holder::release(user)?)
    }
}

/// Whether a container runs, or a namespace of somebody else's is plugged in. Stops at the first.
fn in_use(store: &Store) -> Result<bool, StoreError> {
    for record in store.records()? {
        let (_, container) = record?;
        if container.run.is_none_or(|run| run.init().is_some()) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn root() -> Result<Place, PlaceError> {
    let cookie = cookie()?;
    let base = env::var_os("TWINAX_RUN_DIR").map_or_else(|| "/run/twinax".into(), PathBuf::from);
    let run = base.join(cookie.to_string());
    let data = match (env::var_os("TWINAX_DATA_DIR"), is_first_process_here()) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, true) => "/var/lib/twinax".into(),
        (None, false) => run.join("definitions"),
    };
    Ok(Place { store: Store::open(run, data, &epoch(cookie)?)?, live: true, user: None })
}

/// Whether this is the network of the machine (or container) itself, whose networks outlive a
/// reboot, rather than one made in passing.
fn is_first_process_here() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let first = inode("/proc/1/ns/net");
    first.is_some() && first == inode("/proc/self/ns/net")
}

fn user_data() -> PathBuf {
    let home = || Some(PathBuf::from(env::var_os("HOME")?).join(".local/share"));
    let data = env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let fallback = || PathBuf::from(format!("/tmp/twinax-{}", rustix::process::geteuid().as_raw()));
    data.or_else(home).unwrap_or_else(fallback).join("twinax")
}

fn cookie() -> Result<u64, PlaceError> {
    netns::own_cookie().map_err(|e| PlaceError::Cookie(e.into()))
}

fn epoch(cookie: u64) -> Result<String, PlaceError> {
    let boot = process::boot_id().map_err(PlaceError::Cookie)?;
    Ok(format!("{} {cookie}\n", boot.trim()))
}

/// Processes that live in the namespaces of a holder that was killed.
fn supervisors(run: &Path) -> Vec<Task> {
    let store = Store::peek(run.to_owned(), PathBuf::new());
    let readable = store.records().into_iter().flatten().flatten();
    readable.filter_map(|(_, container)| supervisor_of(&container)).collect()
}
