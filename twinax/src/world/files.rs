//! Hosts files and resolver files.
//!
//! A file that a container has mounted is changed in place: replacing it by renaming would leave
//! the container with the old one.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use twinax_core::{
    engine::Sandboxes,
    lower::HOSTS_HEADER,
    model::{FileId, HostsLine, HostsSource, HostsView, Op, Scope, Topology},
    name::ContainerName,
};

use super::{LinuxError, init_of};
use crate::{
    container::{Task, mounts},
    store::Store,
};

/// Looks at what `scope` asks about.
pub(super) fn observe(
    store: &Store,
    scope: &Scope,
    at: &Sandboxes,
    seen: &mut Topology,
) -> Result<(), LinuxError> {
    seen.views = scope.views.iter().filter(|v| view_path(store, v).exists()).cloned().collect();
    let mut wanted: BTreeMap<&HostsView, Vec<&HostsLine>> = BTreeMap::new();
    for line in &scope.hosts {
        wanted.entry(&line.view).or_default().push(line);
    }
    for (view, lines) in wanted {
        let text = read(&view_path(store, view))?.unwrap_or_default();
        let there: BTreeSet<&str> = text.lines().collect();
        let found = lines.into_iter().filter(|line| there.contains(line.to_string().as_str()));
        seen.hosts.extend(found.cloned());
    }
    for file in &scope.files {
        if let Some(text) = read(&path_of(store, file))? {
            seen.files.insert(file.clone(), text);
        }
    }
    for name in &scope.mounts {
        if let Some(source) = mounted(store, scope, at, name) {
            seen.mounts.insert(name.clone(), source);
        }
    }
    Ok(())
}

/// Which of the possible files a container has over its `/etc/hosts`.
fn mounted(
    store: &Store,
    scope: &Scope,
    at: &Sandboxes,
    name: &ContainerName,
) -> Option<HostsSource> {
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let init = init_of(at, name).filter(Task::alive)?;
    let held = identity(&PathBuf::from(format!("/proc/{}/root/etc/hosts", init.pid)));
    let is = |path: PathBuf| held.is_some() && identity(&path) == held;
    if is(own_hosts(store, name)) {
        return Some(HostsSource::Own);
    }
    let view = scope.views.iter().find(|view| is(view_path(store, view)))?;
    Some(HostsSource::View(view.clone()))
}

/// Carries out an operation on a whole file, or on what a container sees of one.
pub(super) fn apply(store: &Store, op: &Op, at: &Sandboxes) -> Result<(), LinuxError> {
    match op {
        Op::PutFile { file, text } => overwrite(&path_of(store, file), text),
        Op::DelFile { file } => remove(&path_of(store, file)),
        Op::AddHostsView { view } => overwrite(&view_path(store, view), HOSTS_HEADER),
        Op::DelHostsView { view } => remove(&view_path(store, view)),
        Op::MountHosts { container, source } => {
            let path = match source {
                HostsSource::View(view) => view_path(store, view),
                HostsSource::Own => own_hosts(store, container),
            };
            let Some(init) = init_of(at, container) else { return Ok(()) };
            Ok(mounts::remount_hosts(&init, &path)?)
        }
        other => unreachable!("{other} is not about a file"),
    }
}

/// Adds and deletes lines of hosts files, each file in one write.
pub(super) fn apply_lines(store: &Store, ops: &[Op]) -> Result<(), LinuxError> {
    let mut views: BTreeMap<&HostsView, Vec<(bool, &HostsLine)>> = BTreeMap::new();
    for op in ops {
        match op {
            Op::AddHostsLine { line } => views.entry(&line.view).or_default().push((true, line)),
            Op::DelHostsLine { line } => views.entry(&line.view).or_default().push((false, line)),
            other => unreachable!("{other} is not about a line"),
        }
    }
    for (view, changes) in views {
        let changes = changes.into_iter().map(|(add, line)| (add, line.to_string()));
        change_lines(&view_path(store, view), &changes.collect::<Vec<_>>())?;
    }
    Ok(())
}

/// Adds lines to a file (`true`) and deletes some (`false`); what is only added to is not read.
fn change_lines(path: &Path, changes: &[(bool, String)]) -> Result<(), LinuxError> {
    let added = changes.iter().filter(|(add, _)| *add);
    let added: String = added.flat_map(|(_, line)| [line.as_str(), "\n"]).collect();
    let gone: BTreeSet<&str> =
        changes.iter().filter(|(add, _)| !add).map(|(_, line)| line.as_str()).collect();
    if gone.is_empty() {
        let file = fs::File::options().create(true).append(true).open(path);
        return file
            .and_then(|mut file| file.write_all(added.as_bytes()))
            .map_err(|cause| LinuxError::File { what: "write", path: path.into(), cause });
    }
    let text = read(path)?.unwrap_or_default();
    let kept = text.lines().filter(|line| !gone.contains(line));
    let kept: String = kept.flat_map(|line| [line, "\n"]).collect();
    overwrite(path, &(kept + &added))
}

fn view_path(store: &Store, view: &HostsView) -> PathBuf {
    store.view_path(&view.to_string())
}

fn own_hosts(store: &Store, name: &ContainerName) -> PathBuf {
    store.container_dir(name).join("hosts")
}

fn path_of(store: &Store, file: &FileId) -> PathBuf {
    match file {
        FileId::Hosts(name) => own_hosts(store, name),
        FileId::Resolv(name) => store.container_dir(name).join("resolv.conf"),
    }
}

fn read(path: &Path) -> Result<Option<String>, LinuxError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(LinuxError::File { what: "read", path: path.into(), cause }),
    }
}

/// Writes over a file without making it another one. What is longer is cut last, so that a
/// reader in between finds too much rather than nothing.
fn overwrite(path: &Path, text: &str) -> Result<(), LinuxError> {
    let write = || -> io::Result<()> {
        let file = fs::File::options().create(true).truncate(false).write(true).open(path)?;
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    };
    write().map_err(|cause| LinuxError::File { what: "write", path: path.into(), cause })
}

fn remove(path: &Path) -> Result<(), LinuxError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(LinuxError::File { what: "remove", path: path.into(), cause: e })
        }
        _ => Ok(()),
    }
}
