//! Finds every network namespace of the host and what keeps it alive, and changes nothing.
//!
//! # Theory of operation
//!
//! Namespaces have no list that everybody may read. They are found by what holds them, cheapest
//! first: processes, threads, descriptors (`/proc/PID`), mounts in every mount namespace, tun
//! devices. Whoever may (CAP_BPF and CAP_PERFMON) also reads the kernel's own list, which has all.
//! Sockets are asked one by one, and so only if some namespace may be left: if there is no list, or
//! if it has one that nobody was found to hold. What the list has and nobody holds is on its way in
//! a message, or held inside the kernel.
//!
//! Everything read may be gone or mean another thing by now: what is opened is checked to be the
//! namespace that was meant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    sync::OnceLock,
    time::{Duration, Instant},
};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, Mode, OFlags, StatxFlags, makedev},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
    thread::{CapabilitySet, LinkNameSpaceType, move_into_link_name_space},
};
use twinax_core::{
    model::Netns,
    name::ContainerName,
    sight::{Holder, Inode, Process, Space},
};

use super::netns::own_cookie;

mod ask;
mod btf;
mod processes;
mod holders;
mod mounts;
mod kernel;
mod sockets;
mod near;
mod census;
mod roll;

pub use census::Census;
use holders::{Held, Known, held};
use mounts::{Mount, Mounts, mounts};
pub use near::{Listed, describe, homes, listed, processes_in};
pub use processes::processes;
use processes::{count, open_proc};
pub use roll::Roll;
use sockets::{Answers, ask_sockets, ask_tuns};

/// From so many on, work is worth a thread.
const WORTH_A_THREAD: usize = 128;
const THREADS_MAX: usize = 4;

/// All network namespaces that can be seen.
#[derive(Debug, Default)]
pub struct Found {
    pub spaces: BTreeMap<Inode, Seen>,
    /// What cannot be seen, and for lack of what; a line each.
    pub unseen: Vec<String>,
    /// Who has which socket open, by the socket's inode: the pid and name of each process.
    pub sockets: HashMap<u32, Vec<(u32, String)>>,
    /// What each step took.
    pub costs: Vec<(&'static str, Duration)>,
}

/// A network namespace.
#[derive(Debug)]
pub struct Seen {
    /// As every command takes it; see [`name`].
    pub netns: Netns,
    /// Without its workloads.
    pub space: Space,
    /// Stands for the namespace and keeps it; `None` where it cannot be opened.
    pub fd: Option<OwnedFd>,
}

/// What was gathered of one.
#[derive(Default)]
struct Sighting {
    holders: BTreeSet<Holder>,
    cookie: Option<u64>,
    fd: Option<OwnedFd>,
    /// What the kernel's list has of it.
    listed: Option<kernel::Entry>,
}

/// Finds the network namespaces that `processes` and what they have lead to, and all others that
/// can be seen. What the calling process itself has open or in messages is no holder.
///
/// Raises the limit of open files of the calling process (`RLIMIT_NOFILE`) as far as is needed and
/// allowed, as a descriptor is kept of each.
pub fn find(processes: &[Process]) -> Found {
    find_as(processes, true, None)
}

/// As [`find`], but of a namespace that has a process other holders may be left out: where the
/// kernel's list says that there is no other, nobody's descriptors are looked at.
pub fn find_lean(processes: &[Process]) -> Found {
    find_as(processes, false, None)
}

/// As [`find`], as if the namespace of inode `apart` were not there: one that the calling process
/// keeps for its own use.
pub fn find_beside(processes: &[Process], apart: Inode) -> Found {
    find_as(processes, true, Some(apart))
}

fn find_as(processes: &[Process], every_holder: bool, apart: Option<Inode>) -> Found {
    let mut search = Search::new();
    let proc = match open_proc() {
        Ok(proc) => proc,
        Err(errno) => {
            search.found.unseen.push(format!("no network namespace: /proc: {errno}"));
            return search.found;
        }
    };
    let own = rustix::fs::stat(OWN).ok().map(|stat| stat.st_ino);
    search.processes(processes, own);
    let mut mounts = mounts(&proc, processes);
    search.mounts(&mut mounts);
    search.done("mounts");
    let listed = (!every_holder).then(|| own.is_some_and(|own| search.kernel(own)));
    let mut held_by = Held::default();
    if listed != Some(true) || !search.all_have_processes(own) {
        held_by = search.held(&proc, processes, &mounts);
    }
    search.done("threads and descriptors");
    let complete = listed.unwrap_or_else(|| own.is_some_and(|own| search.kernel(own)));
    apart.map(|apart| search.sightings.remove(&apart));
    search.done("the kernel's list");
    search.sockets(processes, &held_by, complete);
    search.done("sockets");
    search.open(&proc, &mounts);
    search.done("opening");
    search.cookies(own);
    search.done("cookies");
    search.name(own, &proc, &mounts.mounts);
    search.done("names");
    search.found
}

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

struct Search {
    sightings: BTreeMap<Inode, Sighting>,
    found: Found,
    last: Instant,
}

impl Search {
    fn new() -> Self {
        let (sightings, found) = (BTreeMap::new(), Found::default());
        Self { sightings, found, last: Instant::now() }
    }

    fn done(&mut self, step: &'static str) {
        let now = Instant::now();
        self.found.costs.push((step, now - self.last));
        self.last = now;
    }

    fn add(&mut self, holders: Vec<(Inode, Holder)>) {
        for (inode, holder) in holders {
            self.sightings.entry(inode).or_default().holders.insert(holder);
        }
    }

    fn processes(&mut self, processes: &[Process], own: Option<Inode>) {
        // Even where we are not shown ourselves, we are somewhere.
        self.sightings.extend(own.map(|own| (own, Sighting::default())));
        for process in processes {
            let Some(inode) = process.netns else { continue };
            let holder = Holder::Process { pid: process.pid, comm: process.comm.clone() };
            self.sightings.entry(inode).or_default().holders.insert(holder);
        }
    }

    /// Whether each namespace that is known of has a process, or is the caller's own.
    fn all_have_processes(&self, own: Option<Inode>) -> bool {
        let is_process = |holder: &Holder| matches!(holder, Holder::Process { .. });
        let mut sightings = self.sightings.iter();
        sightings.all(|(inode, it)| Some(*inode) == own || it.holders.iter().any(is_process))
    }

    /// Walks threads and descriptors.
    fn held(&mut self, proc: &OwnedFd, processes: &[Process], mounts: &Mounts) -> Held {
        let mounted = mounts.mounts.iter().map(|mount| mount.path.clone()).collect();
        let known = Known { proc, processes, mounted: &mounted };
        let places: Vec<usize> = (0..processes.len()).collect();
        let mut found = Held::default();
        many(&places, |places| held(&known, places)).into_iter().for_each(|part| found.join(part));
        self.add(std::mem::take(&mut found.holders));
        self.found.unseen.extend(found.unseen());
        self.found.sockets = found.open(processes);
        found
    }

    fn mounts(&mut self, mounts: &mut Mounts) {
        self.found.unseen.append(&mut mounts.unseen);
        // A copy of a mount namespace has all that was mounted in the first: one of them will do.
        let mut named = BTreeSet::new();
        mounts.mounts.sort_by_key(|mount| (!mount.ours, mount.seen_by == 0, mount.seen_by));
        mounts.mounts.retain(|mount| named.insert((mount.inode, mount.path.clone())));
        for mount in &mounts.mounts {
            let path = String::from_utf8_lossy(&mount.path).into_owned();
            let holder = Holder::Mount { path, seen_by: mount.seen_by };
            self.sightings.entry(mount.inode).or_default().holders.insert(holder);
        }
    }

    /// Adds what only the kernel's list has; returns whether it could be read.
    fn kernel(&mut self, own: Inode) -> bool {
        let listed = match own_cookie() {
            Ok(cookie) => kernel::list(own, cookie),
            Err(_) => Err("Linux 5.14"),
        };
        let listed = match listed {
            Ok(listed) => listed,
            Err(needs) => {
                let what = "namespaces held only by descriptors in flight cannot be seen";
                self.found.unseen.push(format!("{what}: needs {needs}"));
                return false;
            }
        };
        for (inode, entry) in listed {
            let sighting = self.sightings.entry(inode).or_default();
            sighting.cookie = Some(entry.cookie);
            sighting.listed = Some(entry);
        }
        true
    }

    /// Asks tun devices, of which there are few, and sockets if that may find one more.
    fn sockets(&mut self, processes: &[Process], held: &Held, complete: bool) {
        let mut answers = Answers::default();
        let parts = many(&held.tuns, |tuns| ask_tuns(processes, tuns));
        parts.into_iter().for_each(|part| answers.join(part));
        self.add(std::mem::take(&mut answers.holders));
        let all_held = self.sightings.values().all(|sighting| !sighting.holders.is_empty());
        if !(complete && all_held) {
            let parts = many(&held.sockets, |sockets| ask_sockets(processes, sockets));
            parts.into_iter().for_each(|part| answers.join(part));
            self.add(std::mem::take(&mut answers.holders));
        }
        self.found.unseen.extend(answers.unseen());
        for (inode, fd) in answers.opened {
            self.sightings.entry(inode).or_default().fd.get_or_insert(fd);
        }
    }

    /// Opens each namespace; forgets those that have gone meanwhile.
    fn open(&mut self, proc: &OwnedFd, mounts: &Mounts) {
        allow_descriptors(self.sightings.len() as u64);
        let mut by_inode: BTreeMap<Inode, Vec<&Mount>> = BTreeMap::new();
        for mount in &mounts.mounts {
            by_inode.entry(mount.inode).or_default().push(mount);
        }
        let mut closed = 0;
        self.sightings.retain(|&inode, sighting| {
            let mut gone = true;
            if sighting.fd.is_none() {
                sighting.fd = sighting.open(inode, proc, &mut gone);
            }
            if sighting.fd.is_none() {
                let paths = by_inode.get(&inode).into_iter().flatten();
                let open = |mount: &&&Mount| {
                    mount.open(proc).or_else(|| mount.open_inside(&mounts.deserted))
                };
                sighting.fd = paths.clone().find_map(|mount| open(&mount));
                gone &= paths.count() == 0;
            }
            closed += usize::from(sighting.fd.is_none() && !gone);
            sighting.fd.is_some() || !gone
        });
        if closed > 0 {
            let what = count(closed, "network namespace", "network namespaces");
            self.found.unseen.push(refused(&what, CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"));
        }
    }

    /// Learns the cookies that are not known yet, from Linux 6.18 by a question; before, by a visit.
    fn cookies(&mut self, own: Option<Inode>) {
        let own_cookie = own_cookie().ok();
        let mut visits = Vec::new();
        // Both are the same number since there is the question.
        let trusted = rustix::fs::open(OWN, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .is_ok_and(|fd| ask::namespace_id(fd.as_fd()).ok() == own_cookie);
        for (&inode, sighting) in &mut self.sightings {
            if Some(inode) == own {
                sighting.cookie = own_cookie;
            }
            let (None, Some(fd)) = (sighting.cookie, &sighting.fd) else { continue };
            match ask::namespace_id(fd.as_fd()) {
                Ok(id) if trusted => sighting.cookie = Some(id),
                _ => visits.push((fd.as_fd(), &mut sighting.cookie)),
            }
        }
        let refused_entry = visit(visits);
        if refused_entry > 0 {
            let what = count(refused_entry, "network namespace", "network namespaces");
            let what = format!("the inside of {what}");
            self.found.unseen.push(refused(&what, CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"));
        }
    }

    /// Gives each its name, and hands it out.
    fn name(&mut self, own: Option<Inode>, proc: &OwnedFd, mounts: &[Mount]) {
        let mut ours: BTreeMap<Inode, Vec<&Mount>> = BTreeMap::new();
        for mount in mounts.iter().filter(|mount| mount.ours) {
            ours.entry(mount.inode).or_default().push(mount);
        }
        for (inode, mut sighting) in std::mem::take(&mut self.sightings) {
            let mut paths = ours.remove(&inode).unwrap_or_default();
            paths.sort_by_key(|mount| (standing(&mount.path), &mount.path));
            let path = paths.into_iter().find(|mount| mount.leads_there(proc));
            let netns = match Some(inode) == own {
                true => Netns::Host,
                false => Netns::Container(name(inode, path, &sighting.holders)),
            };
            if sighting.holders.is_empty() && Some(inode) != own {
                sighting.holders.insert(nobody_seen());
            }
            let holders = sighting.holders.into_iter().collect();
            let space = Space { inode, cookie: sighting.cookie, holders, workloads: Vec::new() };
            self.found.spaces.insert(inode, Seen { netns, space, fd: sighting.fd });
        }
    }
}

impl Sighting {
    /// Opens it as the kernel's list has it, or by way of a process. `gone` stays true if there is
    /// nothing to open any more.
    fn open(&self, inode: Inode, proc: &OwnedFd, gone: &mut bool) -> Option<OwnedFd> {
        if let Some(entry) = self.listed {
            let low = u32::try_from(inode).ok();
            let opened = entry.id.zip(low).map(|(id, low)| ask::open_namespace(id, low));
            match opened {
                Some(Ok(fd)) if is_it(&fd, inode) => return Some(fd),
                // It is being taken down.
                Some(Err(Errno::STALE)) => {}
                _ => *gone = false,
            }
        }
        for holder in &self.holders {
            let path = match *holder {
                Holder::Process { pid, .. } => format!("{pid}/ns/net"),
                Holder::Thread { pid, tid, .. } => format!("{pid}/task/{tid}/ns/net"),
                Holder::Descriptor { pid, fd, .. } => format!("{pid}/fd/{fd}"),
                _ => continue,
            };
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            match rustix::fs::openat(proc, path, flags, Mode::empty()) {
                Ok(file) => match reopened(&file, inode) {
                    Some(fd) => return Some(fd),
                    None => continue,
                },
                Err(Errno::NOENT | Errno::SRCH) => {}
                Err(_) => *gone = false,
            }
        }
        None
    }
}

/// Opens for good what was opened for nothing but its name, if it is the namespace of `inode`. (To
/// open any file at once could wait for ever, or have effects.)
fn reopened(file: &OwnedFd, inode: Inode) -> Option<OwnedFd> {
    if !is_it(file, inode) {
        return None;
    }
    let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    ask::is_of_network(fd.as_fd()).then_some(fd)
}

/// Whether an open file is this namespace; asks no file system that could have to ask a server.
fn is_it(file: &OwnedFd, inode: Inode) -> bool {
    on_nsfs(file, "") == Some(inode)
}

/// The inode of a file, if it is a namespace: by name in a folder, or itself.
fn on_nsfs(at: &OwnedFd, name: &str) -> Option<Inode> {
    static NSFS: OnceLock<Option<u64>> = OnceLock::new();
    let nsfs = NSFS.get_or_init(|| rustix::fs::stat(OWN).ok().map(|stat| stat.st_dev));
    let flags = AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let stat = rustix::fs::statx(at, name, flags, StatxFlags::INO).ok()?;
    let device = makedev(stat.stx_dev_major, stat.stx_dev_minor);
    (Some(device) == *nsfs).then_some(stat.stx_ino)
}

/// Enters each namespace to read its cookie, on a thread that ends in the last of them; returns how
/// many could not be entered.
fn visit(visits: Vec<(BorrowedFd<'_>, &mut Option<u64>)>) -> usize {
    if visits.is_empty() {
        return 0;
    }
    let tour = || {
        let mut refused = 0;
        for (fd, cookie) in visits {
            match move_into_link_name_space(fd, Some(LinkNameSpaceType::Network)) {
                Ok(()) => *cookie = own_cookie().ok(),
                Err(_) => refused += 1,
            }
        }
        refused
    };
    std::thread::scope(|scope| scope.spawn(tour).join()).unwrap_or_default()
}

/// What every command takes for a namespace that is not the caller's own: the best name that it is
/// mounted by where we are, else its first process, else how a holder leads to it. Of the rest
/// (sockets, tun devices, messages) no path does: `netns:/nsfs/INODE` is a name and nothing else.
fn name(inode: Inode, path: Option<&Mount>, holders: &BTreeSet<Holder>) -> ContainerName {
    let mounted = path.and_then(|mount| printable(&mount.path)).map(|path| format!("netns:{path}"));
    let led = || {
        holders.iter().find_map(|holder| match holder {
            Holder::Process { pid, .. } => Some(format!("pid:{pid}")),
            Holder::Thread { pid, tid, .. } => Some(format!("netns:/proc/{pid}/task/{tid}/ns/net")),
            Holder::Descriptor { pid, fd, .. } => Some(format!("netns:/proc/{pid}/fd/{fd}")),
            Holder::Mount { path, seen_by: 1.. } if path.contains('\u{fffd}') => None,
            Holder::Mount { path, seen_by: seen_by @ 1.. } => {
                let path = printable(path.as_bytes())?;
                Some(format!("netns:/proc/{seen_by}/root{path}"))
            }
            _ => None,
        })
    };
    let text = mounted.or_else(led).filter(|text| text.len() < 4096);
    let parsed = text.and_then(|text| text.parse().ok());
    parsed.unwrap_or_else(|| {
        format!("netns:/nsfs/{inode}").parse().expect("a path of a few letters is a name")
    })
}

/// What is said to hold a namespace that nobody was found to hold.
pub fn nobody_seen() -> Holder {
    /// `PROC_PID_INIT_INO` (include/linux/proc_ns.h): the machine's own pid namespace.
    const FIRST: u64 = 0xeffffffc;
    match rustix::fs::stat("/proc/self/ns/pid") {
        Ok(stat) if stat.st_ino == FIRST => Holder::Unseen,
        _ => Holder::Outside,
    }
}

/// A path that can be printed and typed.
fn printable(path: &[u8]) -> Option<&str> {
    let path = std::str::from_utf8(path).ok()?;
    (!path.contains(char::is_control)).then_some(path)
}

/// Which of several names is the one that people use.
fn standing(path: &[u8]) -> u8 {
    match path {
        _ if path.starts_with(b"/run/netns/") => 0,
        _ if path.starts_with(b"/var/run/netns/") => 1,
        _ => 2,
    }
}

/// `WHAT cannot be seen: needs CAPABILITY`, unless that is held already.
fn refused(what: &str, needed: CapabilitySet, name: &str) -> String {
    let held = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed));
    match held {
        true => format!("{what} cannot be seen: the kernel refuses in spite of {name}"),
        false => format!("{what} cannot be seen: needs {name}"),
    }
}

/// Makes room for so many descriptors more, if that is allowed.
fn allow_descriptors(number: u64) {
    /// For what else a process has open.
    const OTHERS: u64 = 512;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(number + OTHERS, |maximum| maximum.min(number + OTHERS));
    if current.is_some_and(|current| current < wanted) {
        // Where it is not, some stay closed, which shows.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    }
}

/// Does `work` on parts of `items`, several at a time if there are many; answers in order.
fn many<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    static THREADS: OnceLock<usize> = OnceLock::new();
    let most = *THREADS.get_or_init(|| {
        std::thread::available_parallelism().map_or(1, |threads| threads.get().min(THREADS_MAX))
    });
    let threads = most.min(items.len() / WORTH_A_THREAD).max(1);
    let mut parts = items.chunks(items.len().div_ceil(threads).max(1));
    let Some(first) = parts.next() else {
        return Vec::new();
    };
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = parts.map(|part| scope.spawn(move || work(part))).collect();
        let mut answers = vec![work(first)];
        // Of a part that panicked nothing is known; the panic has been printed.
        answers.extend(others.into_iter().filter_map(|other| other.join().ok()));
        answers
    })
}
