//! Which namespace another's socket or tun device belongs to.
//!
//! There is no way to ask but by a copy of the descriptor, which is closed at once. Nothing is read
//! from it and nothing set. Its owner could notice one thing: what it closes in these microseconds
//! closes a moment later. A socket that waits on closing for what it has not sent yet (`SO_LINGER`)
//! would make us wait in its owner's place, so such a copy is closed by a thread of its own.

use std::{collections::HashMap, os::fd::AsFd};

use rustix::{
    fd::OwnedFd,
    fs::{AtFlags, StatxFlags},
    io::Errno,
    net::sockopt,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
    thread::CapabilitySet,
};
use twinax_core::sight::{Holder, Inode, Process};

use super::{
    ask::{self, SIOCGSKNS, TUNGETDEVNETNS},
    holders::Socket,
    processes::count,
    refused,
};

/// What the questions brought.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) holders: Vec<(Inode, Holder)>,
    /// Namespaces as the answers came, each once.
    pub(super) opened: HashMap<Inode, OwnedFd>,
    /// Processes whose descriptors may not be copied; sockets that are not told about.
    closed: usize,
    silent: usize,
}

impl Answers {
    pub(super) fn join(&mut self, other: Self) {
        self.holders.extend(other.holders);
        self.opened.extend(other.opened);
        self.closed += other.closed;
        self.silent += other.silent;
    }

    pub(super) fn unseen(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.closed > 0 {
            let whose = count(self.closed, "process", "processes");
            let what = format!("the namespaces of sockets of {whose}");
            lines.push(refused(&what, CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"));
        }
        if self.silent > 0 {
            let what = format!("the namespaces of {}", count(self.silent, "socket", "sockets"));
            lines.push(refused(&what, CapabilitySet::NET_ADMIN, "CAP_NET_ADMIN"));
        }
        lines
    }
}

/// Asks about the sockets, of one process after the other; those of the namespace that their
/// process is in hold nothing that it does not.
pub(super) fn ask_sockets(processes: &[Process], sockets: &[Socket]) -> Answers {
    let mut answers = Answers::default();
    let mut homes: HashMap<Inode, Inode> = HashMap::new();
    for group in sockets.chunk_by(|a, b| a.process == b.process) {
        let process = &processes[group[0].process];
        let mut copier = None;
        for socket in group {
            let home = homes.get(&socket.inode).copied().or_else(|| {
                let copier = copier.get_or_insert_with(|| Copier::of(process.pid));
                let inode = answers.socket(copier, socket.fd)?;
                homes.insert(socket.inode, inode);
                Some(inode)
            });
            if let Some(home) = home.filter(|home| Some(*home) != process.netns) {
                let (pid, comm) = (process.pid, process.comm.clone());
                answers.holders.push((home, Holder::Socket { pid, fd: socket.fd, comm }));
            }
        }
        answers.closed += usize::from(matches!(copier, Some(Copier::Refused)));
    }
    answers
}

/// Asks about descriptors that may be of tun devices.
pub(super) fn ask_tuns(processes: &[Process], tuns: &[(usize, u32)]) -> Answers {
    let mut answers = Answers::default();
    for &(place, fd) in tuns {
        let Process { pid, ref comm, .. } = processes[place];
        let mut copier = Copier::of(pid);
        let Some(copy) = copier.copy(fd).filter(is_tun) else {
            answers.closed += usize::from(matches!(copier, Copier::Refused));
            continue;
        };
        // The device may have been moved from where it was made, which is held all the same.
        let mut homes: Vec<Inode> = [SIOCGSKNS, TUNGETDEVNETNS]
            .into_iter()
            .filter_map(|question| answers.ask(&copy, question))
            .collect();
        homes.dedup();
        let holder = Holder::Tun { pid, fd, comm: comm.clone() };
        answers.holders.extend(homes.into_iter().map(|home| (home, holder.clone())));
    }
    answers
}

impl Answers {
    fn socket(&mut self, copier: &mut Copier, fd: u32) -> Option<Inode> {
        let copy = copier.copy(fd)?;
        // The number may mean another file by now, and the question another thing to that.
        sockopt::socket_type(&copy).ok()?;
        let home = self.ask(&copy, SIOCGSKNS);
        if sockopt::socket_linger(&copy).is_ok_and(|linger| linger.is_some()) {
            std::thread::spawn(move || drop(copy));
        }
        home
    }

    fn ask(&mut self, copy: &OwnedFd, question: libc::Ioctl) -> Option<Inode> {
        match ask::namespace_of(copy.as_fd(), question) {
            Ok(namespace) => {
                let inode = rustix::fs::fstat(&namespace).ok()?.st_ino;
                self.opened.entry(inode).or_insert(namespace);
                Some(inode)
            }
            Err(Errno::PERM) => {
                self.silent += 1;
                None
            }
            // A tun descriptor without a device.
            Err(_) => None,
        }
    }
}

/// The character device 10:200, by whatever name.
fn is_tun(copy: &OwnedFd) -> bool {
    let flags = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let stat = rustix::fs::statx(copy, "", flags, StatxFlags::TYPE);
    stat.is_ok_and(|stat| (stat.stx_rdev_major, stat.stx_rdev_minor) == (10, 200))
}

/// Copies descriptors of one process.
enum Copier {
    Of(OwnedFd),
    Gone,
    Refused,
}

impl Copier {
    fn of(pid: u32) -> Self {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) {
            Some(Ok(fd)) => Self::Of(fd),
            Some(Err(Errno::PERM | Errno::ACCESS)) => Self::Refused,
            _ => Self::Gone,
        }
    }

    fn copy(&mut self, fd: u32) -> Option<OwnedFd> {
        let Self::Of(process) = self else {
            return None;
        };
        match pidfd_getfd(process, i32::try_from(fd).ok()?, PidfdGetfdFlags::empty()) {
            Ok(copy) => Some(copy),
            Err(Errno::PERM | Errno::ACCESS) => {
                *self = Self::Refused;
                None
            }
            Err(_) => None,
        }
    }
}
