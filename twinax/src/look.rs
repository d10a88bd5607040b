//! One look at the whole host: namespaces, whose they are, and what is in them. Changes nothing.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{AsFd, BorrowedFd},
    os::unix::fs::MetadataExt,
    path::Path,
    thread,
};

use twinax_core::{
    model::Netns,
    sight::{Holder, Inode, Process, Sight, Workload},
};

use crate::{
    linux::{
        spaces::{self, Found, Seen},
        wires,
    },
    runtimes,
};

/// What to look at beside namespaces and their links.
#[derive(Clone, Copy, Debug, Default)]
pub struct Depth {
    /// Sockets that wait for others, and who has them open.
    pub listeners: bool,
    /// Neighbours and forwarding entries.
    pub neighbours: bool,
    /// All that holds a namespace, also where a process does.
    pub every_holder: bool,
}

/// Looks at everything that the calling process may see.
pub fn look(depth: Depth) -> Sight {
    let (processes, unseen) = spaces::processes();
    let (found, (workloads, unknown)) = thread::scope(|scope| {
        let workloads = scope.spawn(|| runtimes::workloads(&processes, Path::new("/")));
        let found = match depth.every_holder {
            true => spaces::find(&processes),
            false => spaces::find_lean(&processes),
        };
        (found, workloads.join().unwrap_or_default())
    });
    let mut sight = Sight { unseen, ..Sight::default() };
    sight.unseen.extend(found.unseen.iter().cloned());
    sight.unseen.extend(unknown);
    for seen in found.spaces.values() {
        sight.spaces.insert(seen.netns.clone(), seen.space.clone());
    }
    settle(&mut sight, &found, &processes, workloads);
    let opened = found.spaces.values();
    let opened = opened.filter_map(|seen| Some((seen.netns.clone(), seen.fd.as_ref()?.as_fd())));
    let opened: Vec<(Netns, BorrowedFd<'_>)> = opened.collect();
    let wanted = wires::Wanted {
        listeners: depth.listeners,
        neighbours: depth.neighbours,
        holders: depth.every_holder.then_some(&found.sockets),
        ..wires::Wanted::default()
    };
    wires::read(&opened, &wanted, &mut sight);
    sight
}

/// Looks at the one cable of the caller's namespace that `handle` means, as `ip link` shows it
/// (`veth926be0c`, `veth926be0c@if6`), at its ends and at whose they are: what [`look`] would show of
/// them. `None` if it is no such handle or that does not suffice, for whatever reason.
pub fn look_along(handle: &str) -> Option<Sight> {
    let (name, peer) = match handle.split_once('@') {
        Some((name, at)) => (name, Some(at.strip_prefix("if")?.parse::<u32>().ok()?)),
        None => (handle, None),
    };
    let home = File::open("/proc/thread-self/ns/net").ok()?;
    let mut lead = wires::follow(name, home.as_fd()).ok()??;
    if peer.is_some_and(|peer| lead.peer() != Some(peer)) {
        return None;
    }
    let (homes, found) = thread::scope(|scope| {
        let homes = scope.spawn(spaces::homes);
        let found = spaces::listed().and_then(|listed| {
            let fds: Vec<BorrowedFd<'_>> = listed.iter().map(|listed| listed.fd.as_fd()).collect();
            let place = lead.place(&fds).ok()??;
            Some((place, listed))
        });
        (homes.join().unwrap_or_default(), found)
    });
    let (place, mut listed) = found?;
    let (own, far) = (listed.first()?.inode, listed.get(place)?.inode);
    listed.retain(|listed| [own, far].contains(&listed.inode));
    let some = spaces::processes_in(far, &homes);
    let processes = runtimes::concerned(None, &some, far)
        .or_else(|| runtimes::concerned(Some(&spaces::processes().0), &some, far))?;
    let (found, workloads) = thread::scope(|scope| {
        let workloads = scope.spawn(|| runtimes::workloads(&processes, Path::new("/")));
        let found = spaces::describe(&processes, listed);
        (found, workloads.join().unwrap_or_default().0)
    });
    let found = found?;
    let mut sight = Sight::default();
    for seen in found.spaces.values() {
        sight.spaces.insert(seen.netns.clone(), seen.space.clone());
    }
    settle(&mut sight, &found, &processes, workloads);
    let at = |inode| {
        let seen: &Seen = found.spaces.get(&inode)?;
        Some((&seen.netns, seen.fd.as_ref()?.as_fd()))
    };
    let proven = wires::read_lead(lead, at(own)?, at(far)?, &mut sight);
    proven.is_ok_and(|proven| proven).then_some(sight)
}

/// Puts each container into the namespace that it lives in.
fn settle(sight: &mut Sight, found: &Found, processes: &[Process], workloads: Vec<Workload>) {
    let inode_of: BTreeMap<u32, Inode> =
        processes.iter().filter_map(|process| Some((process.pid, process.netns?))).collect();
    for workload in workloads {
        let by_process = workload.pid.and_then(|pid| inode_of.get(&pid).copied());
        let inode = by_process.or_else(|| by_path(found, workload.netns_path.as_deref()?));
        let Some(seen) = inode.and_then(|inode| found.spaces.get(&inode)) else { continue };
        if let Some(space) = sight.spaces.get_mut(&seen.netns) {
            space.workloads.push(workload);
        }
    }
}

/// The namespace that is mounted on a path; the path itself may be in another mount namespace.
fn by_path(found: &Found, path: &str) -> Option<Inode> {
    let mounted = |holder: &Holder| matches!(holder, Holder::Mount { path: at, .. } if at == path);
    let known = found.spaces.iter().find(|(_, seen)| seen.space.holders.iter().any(mounted));
    let known = known.map(|(inode, _)| *inode);
    known.or_else(|| std::fs::metadata(path).map(|meta| meta.ino()).ok())
}
