//! What the forwarder is to serve, written down: a symbolic link a port, so that each change is
//! one call and whole, and costs the same however many others there are.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{
    FORWARDS,
    forwards::{Port, parse_entry},
};

fn path_of(run_dir: &Path, port: Port) -> PathBuf {
    run_dir.join(FORWARDS).join(port.entry())
}

/// Writes down where a port leads, whatever was there.
pub(super) fn put(run_dir: &Path, port: Port, target: SocketAddr) -> io::Result<()> {
    let (path, target) = (path_of(run_dir, port), target.to_string());
    match symlink(&target, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(run_dir)?;
            symlink(&target, &path)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::remove_file(&path)?;
            symlink(&target, &path)
        }
        outcome => outcome,
    }
}

fn make(run_dir: &Path) -> io::Result<()> {
    match fs::create_dir(run_dir.join(FORWARDS)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Strikes a port out, if it is there.
pub(super) fn strike(run_dir: &Path, port: Port) -> io::Result<()> {
    unless_missing((), fs::remove_file(path_of(run_dir, port)))
}

/// Whether it says that a port leads there.
pub(super) fn says(run_dir: &Path, port: Port, target: SocketAddr) -> io::Result<bool> {
    let found = fs::read_link(path_of(run_dir, port)).map(Some);
    let found = unless_missing(None, found)?;
    Ok(found.is_some_and(|found| found.as_os_str() == target.to_string().as_str()))
}

/// Strikes everything out.
pub(super) fn clear(run_dir: &Path) -> io::Result<()> {
    unless_missing((), fs::remove_dir_all(run_dir.join(FORWARDS)))
}

/// Everything, and the names of entries that say nothing sensible.
pub(super) fn read(run_dir: &Path) -> io::Result<(BTreeMap<Port, SocketAddr>, Vec<String>)> {
    let (mut forwards, mut wrong) = (BTreeMap::new(), Vec::new());
    let Some(entries) = unless_missing(None, fs::read_dir(run_dir.join(FORWARDS)).map(Some))?
    else {
        return Ok((forwards, wrong));
    };
    for entry in entries {
        let entry = entry?;
        let (name, target) = (entry.file_name(), fs::read_link(entry.path()).unwrap_or_default());
        let read = || parse_entry(name.to_str()?, target.to_str()?);
        match read() {
            Some((port, target)) => drop(forwards.insert(port, target)),
            None => wrong.push(format!("{FORWARDS}/{} ({target:?})", name.display())),
        }
    }
    Ok((forwards, wrong))
}

fn unless_missing<T>(missing: T, outcome: io::Result<T>) -> io::Result<T> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(missing),
        outcome => outcome,
    }
}
