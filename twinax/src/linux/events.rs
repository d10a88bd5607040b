//! Tells that something happened to the host's container networks; not what: whoever wants to know
//! looks.
//!
//! # Theory of operation
//!
//! One rtnetlink socket in the observatory hears of links, addresses and routes in every namespace
//! that has a number there (`NETLINK_LISTEN_ALL_NSID`), and of numbers that end with their
//! namespace. Neighbours are left out: they change all the time, and are not in the map. A socket
//! that overflows says so, which is as good as an event.
//!
//! The kernel tells nobody of a new namespace. A cable that leads there is told of, a name in
//! `/run/netns` or in Docker's folder is seen by inotify, and for all others [`Events::tick`] reads
//! once a second the kernel's list of namespaces and the numbers of processes. (The process
//! connector would tell of each process that starts, and on a busy host that is more work than
//! reading a list.)

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{fs::inotify, io::Errno};
use twinax_core::sight::Inode;

use super::{
    netlink::{Socket, messages},
    spaces::{Census, Roll},
    wires::Observatory,
};

/// Groups of linux/rtnetlink.h: links, addresses and routes of both families, and numbers.
const GROUPS: [i32; 6] = [1, 5, 7, 9, 11, 28];
const RTM_NEWNSID: u16 = 88;

/// Folders in which runtimes put a name for each namespace, with those that these appear in.
const FOLDERS: [&str; 4] = ["/run", "/run/netns", "/run/docker", "/run/docker/netns"];
/// Of what appears in `/run` only these are of concern.
const NAMES: [&str; 5] = ["netns", "docker", "containerd", "containers", "twinax"];

/// Sources of events.
#[derive(Debug)]
pub struct Events {
    netlink: Option<Socket>,
    inotify: Option<OwnedFd>,
    census: Option<Census>,
    roll: Option<Roll>,
}

impl Events {
    /// Listens from now on, through an observatory if there may be one; otherwise only the
    /// caller's own namespace tells of its links. `claimed` is as of [`Roll::open`].
    pub fn open(
        readers: usize,
        claimed: fn(&str) -> Option<String>,
    ) -> (Self, Option<Observatory>) {
        let (observatory, netlink) = match Observatory::with_events(readers, &GROUPS) {
            Ok((observatory, socket)) => (Some(observatory), Some(socket)),
            Err(_) => (None, own_events().ok()),
        };
        let apart: Option<Inode> = observatory.as_ref().map(Observatory::inode);
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let events = Self {
            netlink,
            inotify: inotify::init(flags).ok(),
            census: Census::open(apart).ok(),
            roll: Roll::open(claimed),
        };
        events.watch_folders();
        (events, observatory)
    }

    /// What can be read when there may be an event.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let netlink = self.netlink.iter().map(|socket| socket.as_fd());
        netlink.chain(self.inotify.iter().map(|fd| fd.as_fd()))
    }

    /// Reads all that is there to be read; returns whether any of it is an event.
    pub fn drain(&mut self) -> bool {
        let told = self.netlink.as_mut().is_some_and(drain_netlink);
        let named = self.inotify.as_ref().is_some_and(drain_inotify);
        if named {
            self.watch_folders();
        }
        told || named
    }

    /// Reads what nobody tells of; returns whether it changed since the last time. To be called
    /// once a second.
    pub fn tick(&mut self) -> bool {
        let listed = self.census.as_mut().is_some_and(Census::changed);
        let rolled = self.roll.as_mut().is_some_and(Roll::changed);
        listed || rolled
    }

    /// Those that are there by now; one that is watched already stays so.
    fn watch_folders(&self) {
        let Some(inotify) = &self.inotify else { return };
        let flags = inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::ONLYDIR;
        for folder in FOLDERS {
            let _ = inotify::add_watch(inotify, folder, flags);
        }
    }
}

/// Where there may be no observatory.
fn own_events() -> Result<Socket, Errno> {
    let socket = Socket::open(None)?;
    socket.listen(&GROUPS)?;
    Ok(socket)
}

/// Reads no more than a buffer may hold: a storm shall not keep us here.
fn drain_netlink(socket: &mut Socket) -> bool {
    const AT_ONCE: usize = 4096;
    let mut told = false;
    for _ in 0..AT_ONCE {
        match socket.receive() {
            Ok(None) => break,
            // Numbers are given by us, or because we look.
            Ok(Some(bytes)) => told |= messages(bytes).any(|message| message.kind != RTM_NEWNSID),
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS | Errno::MSGSIZE) => told = true,
            Err(_) => break,
        }
    }
    told
}

fn drain_inotify(fd: &OwnedFd) -> bool {
    const AT_ONCE: usize = 4096;
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(fd, &mut buffer);
    let mut named = false;
    for _ in 0..AT_ONCE {
        let Ok(event) = reader.next() else { break };
        let name = event.file_name().and_then(|name| name.to_str().ok()).unwrap_or_default();
        // Watches are numbered from 1 on, and `/run` is the first.
        named |= event.wd() != 1 || NAMES.contains(&name);
    }
    named
}
