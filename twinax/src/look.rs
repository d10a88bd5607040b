//! One look at the whole host: namespaces, whose they are, and what is in them. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
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
        interior,
        spaces::{self, Found},
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
}

/// Looks at everything that the calling process may see.
pub fn look(depth: Depth) -> Sight {
    look_inside(depth, interior::Wanted::default(), |_| BTreeSet::new())
}

/// As [`look`], and then reads what is inside those namespaces that `choose` names.
pub fn look_inside(
    depth: Depth,
    inside: interior::Wanted,
    choose: impl FnOnce(&Sight) -> BTreeSet<Netns>,
) -> Sight {
    let (processes, unseen) = spaces::processes();
    let (found, (workloads, unknown)) = thread::scope(|scope| {
        let workloads = scope.spawn(|| runtimes::workloads(&processes, Path::new("/")));
        let found = spaces::find(&processes);
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
        ..wires::Wanted::default()
    };
    wires::read(&opened, &wanted, &mut sight);
    let chosen = choose(&sight);
    let chosen: Vec<_> = opened.into_iter().filter(|(netns, _)| chosen.contains(netns)).collect();
    if !chosen.is_empty() {
        interior::read(&chosen, inside, &mut sight);
    }
    sight
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
