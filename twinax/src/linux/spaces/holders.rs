//! Threads and descriptors: what processes have of other namespaces than their own.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Write as _,
};

use rustix::{fd::OwnedFd, io::Errno};
use twinax_core::sight::{Holder, Inode, Process};

use super::{
    on_nsfs,
    processes::{count, inode_in, link, linked, numbers, open_dir},
};

/// Of one process no more descriptors are looked at, lest one stop all.
const DESCRIPTORS_MAX: usize = 65_536;

/// What was come across.
#[derive(Default)]
pub(super) struct Held {
    pub(super) holders: Vec<(Inode, Holder)>,
    pub(super) sockets: Vec<Socket>,
    /// Descriptors whose name is that of a tun device's: `(process, number)`.
    pub(super) tuns: Vec<(usize, u32)>,
    refused: usize,
    passed_over: usize,
}

/// A descriptor of a socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    /// The process, by its place in the list.
    pub(super) process: usize,
    pub(super) fd: u32,
    /// Of sockfs: the socket, whoever has a descriptor of it.
    pub(super) inode: Inode,
}

/// What the walk is told.
pub(super) struct Known<'a> {
    pub(super) proc: &'a OwnedFd,
    pub(super) processes: &'a [Process],
    /// Where namespaces are mounted, wherever: an open file of that name may be one.
    pub(super) mounted: &'a BTreeSet<Vec<u8>>,
}

impl Held {
    pub(super) fn join(&mut self, other: Self) {
        self.holders.extend(other.holders);
        self.sockets.extend(other.sockets);
        self.tuns.extend(other.tuns);
        self.refused += other.refused;
        self.passed_over += other.passed_over;
    }

    /// Who has which socket open.
    pub(super) fn open(&self, processes: &[Process]) -> HashMap<u32, Vec<(u32, String)>> {
        let mut open: HashMap<_, Vec<_>> = HashMap::with_capacity(self.sockets.len());
        for socket in &self.sockets {
            // As all who tell of sockets have it.
            let Ok(inode) = u32::try_from(socket.inode) else { continue };
            let Process { pid, ref comm, .. } = processes[socket.process];
            let list = open.entry(inode).or_default();
            if list.last().is_none_or(|(last, _)| *last != pid) {
                list.push((pid, comm.clone()));
            }
        }
        open
    }

    /// What was not looked at, a line each.
    pub(super) fn unseen(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.refused > 0 {
            let whose = count(self.refused, "process", "processes");
            lines.push(format!("descriptors of {whose} cannot be listed: the kernel refuses"));
        }
        if self.passed_over > 0 {
            let what = count(self.passed_over, "descriptor", "descriptors");
            let limit = format!("only the first {DESCRIPTORS_MAX} of a process are");
            lines.push(format!("{what} not looked at: {limit}"));
        }
        lines
    }
}

/// Looks at the processes of these places in the list.
pub(super) fn held(known: &Known<'_>, places: &[usize]) -> Held {
    let mut held = Held::default();
    let (mut path, own) = (String::new(), std::process::id());
    for &place in places {
        let process = &known.processes[place];
        // Whoever may not see where a process is may not see what it has either.
        if process.netns.is_none() && process.threads < 2 {
            continue;
        }
        let mut table = format!("{}/fd", process.pid);
        if process.threads > 1 {
            let alive = threads(known, process, &mut held);
            // The table of a first thread that has ended is empty, whatever others have.
            if let (None, Some(tid)) = (process.netns, alive) {
                table = format!("{}/task/{tid}/fd", process.pid);
            }
        }
        // Our own are there because we look.
        if process.pid != own {
            descriptors(known, place, &table, &mut path, &mut held);
        }
    }
    held
}

/// Finds threads that are elsewhere than their process; returns one that lives.
fn threads(known: &Known<'_>, process: &Process, held: &mut Held) -> Option<u32> {
    let Process { pid, netns, ref comm, .. } = *process;
    let tasks = open_dir(known.proc, &format!("{pid}/task")).ok()?;
    let mut alive = None;
    for tid in numbers(&tasks).unwrap_or_default() {
        let Ok(inode) = linked(&tasks, &format!("{tid}/ns/net"), "net") else { continue };
        alive = Some(tid);
        if Some(inode) != netns {
            held.holders.push((inode, Holder::Thread { pid, tid, comm: comm.clone() }));
        }
    }
    alive
}

/// Sorts the descriptors of a process by what they are.
fn descriptors(known: &Known<'_>, place: usize, table: &str, path: &mut String, held: &mut Held) {
    let process = &known.processes[place];
    let dir = match open_dir(known.proc, table) {
        Ok(dir) => dir,
        Err(Errno::ACCESS | Errno::PERM) => {
            // Of whom not even the namespace is seen, that has been said.
            held.refused += usize::from(process.netns.is_some());
            return;
        }
        Err(_) => return,
    };
    let fds = numbers(&dir).unwrap_or_default();
    held.passed_over += fds.len().saturating_sub(DESCRIPTORS_MAX);
    let mut buffer = [0; 4096];
    for &fd in fds.iter().take(DESCRIPTORS_MAX) {
        path.clear();
        if write!(path, "{fd}").is_err() {
            return;
        }
        let text = match link(&dir, path, &mut buffer) {
            Ok(text) => text,
            // One is refused as all are.
            Err(Errno::ACCESS | Errno::PERM) => {
                held.refused += usize::from(process.netns.is_some());
                return;
            }
            Err(_) => continue,
        };
        if let Some(inode) = inode_in(text, "socket") {
            held.sockets.push(Socket { process: place, fd, inode });
        } else if let Some(inode) = inode_in(text, "net") {
            let comm = process.comm.clone();
            held.holders.push((inode, Holder::Descriptor { pid: process.pid, fd, comm }));
        } else if text.ends_with(b"tun") {
            held.tuns.push((place, fd));
        } else if (text == b"/" || known.mounted.contains(text))
            && let Some(inode) = on_nsfs(&dir, path)
        {
            // One opened by the name it is mounted on is shown by that, and as `/` once it is
            // mounted there no longer. That it is a network namespace shows when it is opened.
            let comm = process.comm.clone();
            held.holders.push((inode, Holder::Descriptor { pid: process.pid, fd, comm }));
        }
    }
}
