//! One look at the whole host: namespaces, whose they are, and what is in them. Changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    thread,
};

use rustix::io::Errno;
use twinax_core::{
    model::Netns,
    sight::{Holder, Inode, Process, Sight, Workload},
};

use crate::{
    linux::{
        interior,
        spaces::{self, Found, Seen},
        wires::{self, Observatory},
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
    /// The rules of those who lead ports: of the host, and of engines in containers.
    pub firewalls: bool,
}

impl Depth {
    /// What a map shows.
    pub const MAP: Self =
        Self { listeners: true, neighbours: false, every_holder: true, firewalls: true };
}

/// Descriptors of the namespaces that could be opened: each stays while it is held.
pub type Opened = BTreeMap<Netns, OwnedFd>;

/// Looks at everything that the calling process may see.
pub fn look(depth: Depth) -> Sight {
    look_from(None, depth)
}

/// As [`look`], from an observatory that is kept, and is not seen itself.
pub fn look_from(observatory: Option<&mut Observatory>, depth: Depth) -> Sight {
    let inside = interior::Wanted { firewall: depth.firewalls, ..interior::Wanted::default() };
    let choose = |sight: &Sight| match depth.firewalls {
        true => engines(sight),
        false => BTreeSet::new(),
    };
    let mut sight = look_with(depth, observatory, inside, choose).0;
    let unseen = sight.interiors.values().flat_map(|inside| inside.unseen.iter().cloned());
    sight.unseen.extend(unseen.collect::<Vec<_>>());
    sight
}

/// Where published ports are led from: the host, and engines in containers.
fn engines(sight: &Sight) -> BTreeSet<Netns> {
    let bridges = sight.links.iter().filter(|(_, facts)| facts.kind == "bridge");
    bridges.map(|(id, _)| id.netns.clone()).chain([Netns::Host]).collect()
}

/// As [`look`], and then reads what is inside those namespaces that `choose` names.
pub fn look_inside(
    depth: Depth,
    inside: interior::Wanted,
    choose: impl FnOnce(&Sight) -> BTreeSet<Netns>,
) -> Sight {
    look_with(depth, None, inside, choose).0
}

/// As [`look`], and keeps the namespaces open, for whoever is going to enter one: what was seen
/// there and what is entered is then the same, whatever has become of its process.
pub fn look_and_hold(depth: Depth) -> (Sight, Opened) {
    look_with(depth, None, interior::Wanted::default(), |_| BTreeSet::new())
}

fn look_with(
    depth: Depth,
    observatory: Option<&mut Observatory>,
    inside: interior::Wanted,
    choose: impl FnOnce(&Sight) -> BTreeSet<Netns>,
) -> (Sight, Opened) {
    let apart = observatory.as_ref().map(|observatory| observatory.inode());
    let (processes, unseen) = spaces::processes();
    let (found, (workloads, unknown)) = thread::scope(|scope| {
        let workloads = scope.spawn(|| runtimes::workloads(&processes, Path::new("/")));
        let found = match apart {
            Some(apart) => spaces::find_beside(&processes, apart),
            None if depth.every_holder => spaces::find(&processes),
            None => spaces::find_lean(&processes),
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
    match observatory {
        Some(observatory) => wires::read_from(observatory, &opened, &wanted, &mut sight),
        None => wires::read(&opened, &wanted, &mut sight),
    }
    let chosen = choose(&sight);
    let chosen: Vec<_> = opened.into_iter().filter(|(netns, _)| chosen.contains(netns)).collect();
    if !chosen.is_empty() {
        interior::read(&chosen, inside, &mut sight);
    }
    let held = found.spaces.into_values().filter_map(|seen| Some((seen.netns, seen.fd?)));
    (sight, held.collect())
}

/// Looks at the one cable of the caller's namespace that `handle` means, as `ip link` shows it
/// (`veth926be0c`, `veth926be0c@if6`), at its ends, at whose they are and at what is inside there: what
/// [`look_inside`] would show of them. `None` if it is no such handle or that does not suffice, for whatever reason.
pub fn look_along(handle: &str, inside: interior::Wanted) -> Option<Sight> {
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
    let ends = [at(own)?, at(far)?];
    if !wires::read_lead(lead, ends[0], ends[1], &mut sight).ok()? {
        return None;
    }
    interior::read(&ends.map(|(netns, fd)| (netns.clone(), fd)), inside, &mut sight);
    Some(sight)
}

/// Puts each container into the namespace that it lives in.
fn settle(sight: &mut Sight, found: &Found, processes: &[Process], workloads: Vec<Workload>) {
    let inode_of: BTreeMap<u32, Inode> =
        processes.iter().filter_map(|process| Some((process.pid, process.netns?))).collect();
    for workload in workloads {
        let by_process = workload.pid.and_then(|pid| inode_of.get(&pid).copied());
        let inode = by_process.or_else(|| by_path(found, workload.netns_path.as_deref()?));
        let Some(seen) = inode.and_then(|inode| found.spaces.get(&inode)) else {
            // Of one that has ended meanwhile nothing is told.
            if workload.pid.is_some_and(is_kept_from_us) {
                sight.unplaced.push(workload);
            }
            continue;
        };
        if let Some(space) = sight.spaces.get_mut(&seen.netns) {
            space.workloads.push(workload);
        }
    }
}

/// Whether a process is there whose namespace may not be looked at.
fn is_kept_from_us(pid: u32) -> bool {
    let namespace = rustix::fs::readlink(format!("/proc/{pid}/ns/net"), Vec::new());
    matches!(namespace, Err(Errno::ACCESS | Errno::PERM))
}

/// The namespace that is mounted on a path. The path is not looked up: it may come from a container,
/// and lead to a file system that nobody serves.
fn by_path(found: &Found, path: &str) -> Option<Inode> {
    let usual = path.strip_prefix("/var/run/").map(|rest| format!("/run/{rest}"));
    let path = usual.as_deref().unwrap_or(path);
    let mounted = |holder: &Holder| matches!(holder, Holder::Mount { path: at, .. } if at == path);
    let known = found.spaces.iter().find(|(_, seen)| seen.space.holders.iter().any(mounted));
    known.map(|(inode, _)| *inode)
}
