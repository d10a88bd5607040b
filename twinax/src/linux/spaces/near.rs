//! One namespace among all: who it is, without a look for what holds the others.

use std::{collections::BTreeSet, fmt::Write as _, os::fd::OwnedFd};

use twinax_core::sight::{Inode, Process};

use super::{
    super::netns::own_cookie,
    Found, OWN, Search, Sighting, allow_descriptors, ask, is_it, kernel, mounts,
    processes::{Pass, linked, numbers, open_proc},
};

/// A namespace of the kernel's list, opened.
#[derive(Debug)]
pub struct Listed {
    pub inode: Inode,
    pub cookie: u64,
    pub fd: OwnedFd,
}

/// Returns all network namespaces of the machine, the caller's own first; `None` where the kernel's
/// list may not be read, or what is on it not opened.
pub fn listed() -> Option<Vec<Listed>> {
    let own = rustix::fs::stat(OWN).ok()?.st_ino;
    let list = kernel::list(own, own_cookie().ok()?).ok()?;
    allow_descriptors(list.len() as u64);
    let mut listed = Vec::with_capacity(list.len());
    for (inode, entry) in list {
        match ask::open_namespace(entry.id?, u32::try_from(inode).ok()?) {
            Ok(fd) if is_it(&fd, inode) => {
                listed.push(Listed { inode, cookie: entry.cookie, fd });
            }
            // It is being taken down.
            Err(rustix::io::Errno::STALE) => {}
            _ => return None,
        }
    }
    listed.sort_by_key(|listed| listed.inode != own);
    listed.first().is_some_and(|first| first.inode == own).then_some(listed)
}

/// Returns the namespace that each process's first thread is in, as far as it may be seen.
pub fn homes() -> Vec<(u32, Inode)> {
    let Ok(proc) = open_proc() else { return Vec::new() };
    let pids = numbers(&proc).unwrap_or_default();
    let mut path = String::new();
    let home = |pid: u32| {
        path.clear();
        write!(path, "{pid}/ns/net").ok()?;
        Some((pid, linked(&proc, &path, "net").ok()?))
    };
    pids.into_iter().filter_map(home).collect()
}

/// Returns the processes of `homes` that are in a namespace, and those that made them.
pub fn processes_in(netns: Inode, homes: &[(u32, Inode)]) -> Vec<Process> {
    let Ok(proc) = open_proc() else { return Vec::new() };
    let inside = homes.iter().filter(|(_, home)| *home == netns);
    let inside: Vec<u32> = inside.map(|(pid, _)| *pid).collect();
    let mut found = Pass::over(&proc, &inside).processes;
    let mut makers: Vec<u32> = found.iter().map(|process| process.parent).collect();
    makers.retain(|maker| *maker != 0 && !inside.contains(maker));
    makers.sort_unstable();
    makers.dedup();
    found.extend(Pass::over(&proc, &makers).processes);
    found.sort_unstable_by_key(|process| process.pid);
    found
}

/// Tells the caller's own namespace, which is the first, and others, as [`super::find`] would, but for
/// holders that do not name them; `None` if of one of them neither a process is among `processes`
/// nor a name where we are.
pub fn describe(processes: &[Process], listed: Vec<Listed>) -> Option<Found> {
    let proc = open_proc().ok()?;
    let own = listed.first()?.inode;
    let mut search = Search::new();
    for Listed { inode, cookie, fd } in listed {
        let sighting = Sighting { cookie: Some(cookie), fd: Some(fd), ..Sighting::default() };
        search.sightings.insert(inode, sighting);
    }
    let wanted: BTreeSet<Inode> = search.sightings.keys().copied().collect();
    let is_in = |process: &&Process| process.netns.is_some_and(|inode| wanted.contains(&inode));
    let inside: Vec<Process> = processes.iter().filter(is_in).cloned().collect();
    search.processes(&inside, None);
    let mut mounts = mounts::ours(&proc);
    mounts.mounts.retain(|mount| wanted.contains(&mount.inode));
    search.mounts(&mut mounts);
    let held =
        |(inode, sighting): (&Inode, &Sighting)| *inode == own || !sighting.holders.is_empty();
    if !search.sightings.iter().all(held) {
        return None;
    }
    search.name(Some(own), &proc, &mounts.mounts);
    Some(search.found)
}
