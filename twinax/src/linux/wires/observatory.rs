//! A network namespace that only we are in, where all others have numbers.

use std::{
    collections::BTreeMap,
    fs::File,
    os::fd::{BorrowedFd, OwnedFd},
    os::unix::fs::MetadataExt,
    thread,
};

use rustix::io::Errno;
use twinax_core::sight::{Counters, Inode};

use super::{Room, asker::Asker, counting};
use crate::linux::{netlink::Socket, netns::unshare_network};

/// It lasts as long as this does, and with it the numbers; holds no other namespace.
#[derive(Debug)]
pub struct Observatory {
    askers: Vec<Asker>,
    /// By this others find it, who look for what holds namespaces.
    _file: OwnedFd,
    inode: Inode,
    /// What it calls each namespace that was read, as of the last reading.
    numbers: BTreeMap<Inode, i32>,
    /// Nothing was numbered yet.
    fresh: bool,
}

impl Observatory {
    /// Makes one, with a socket for each of those who will read at once.
    ///
    /// # Errors
    ///
    /// The kernel's: `EPERM` without CAP_SYS_ADMIN.
    pub fn open(readers: usize) -> Result<Self, Errno> {
        Self::build(readers, || Ok(())).map(|(observatory, ())| observatory)
    }

    /// As [`Self::open`], with a socket that is told what happens in every numbered namespace, of
    /// these groups of rtnetlink(7).
    pub fn with_events(readers: usize, groups: &[i32]) -> Result<(Self, Socket), Errno> {
        Self::build(readers, || {
            let socket = Socket::open(None)?;
            socket.switch_on(libc::NETLINK_LISTEN_ALL_NSID)?;
            socket.listen(groups)?;
            Ok(socket)
        })
    }

    fn build<T: Send>(
        readers: usize,
        also: impl FnOnce() -> Result<T, Errno> + Send,
    ) -> Result<(Self, T), Errno> {
        let build = || {
            unshare_network()?;
            let file = File::open("/proc/thread-self/ns/net");
            let file = file.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
            let inode = file.metadata().map(|file| file.ino());
            let inode = inode.map_err(|_| Errno::IO)?;
            let askers = (0..readers).map(|_| Asker::open()).collect::<Result<Vec<_>, _>>()?;
            let (file, numbers) = (file.into(), BTreeMap::new());
            Ok((Self { askers, _file: file, inode, numbers, fresh: true }, also()?))
        };
        thread::scope(|scope| scope.spawn(build).join().unwrap_or(Err(Errno::IO)))
    }

    /// Its own number among the inodes, by which it is left out where others are shown.
    pub fn inode(&self) -> Inode {
        self.inode
    }

    /// Returns what it calls each room, once all have numbers that can have one.
    pub(super) fn number(&mut self, rooms: &[Room<'_>]) -> Result<Vec<Option<i32>>, Errno> {
        let fds: Vec<BorrowedFd<'_>> = rooms.iter().map(|room| room.fd).collect();
        let asker = self.askers.first_mut().ok_or(Errno::IO)?;
        let numbers = match std::mem::take(&mut self.fresh) {
            true => {
                let numbered = asker.number(&fds)?.into_iter().enumerate();
                numbered.map(|(at, numbered)| numbered.then_some(at as i32)).collect()
            }
            false => {
                let mut numbers = asker.numbers(&fds)?;
                let new = |numbers: &[Option<i32>]| -> Vec<usize> {
                    (0..fds.len()).filter(|at| numbers[*at].is_none()).collect()
                };
                let places = new(&numbers);
                let some: Vec<BorrowedFd<'_>> = places.iter().map(|at| fds[*at]).collect();
                asker.number_any(&some)?;
                for (at, number) in places.into_iter().zip(asker.numbers(&some)?) {
                    numbers[at] = number;
                }
                numbers
            }
        };
        let named = rooms.iter().zip(&numbers);
        self.numbers = named.filter_map(|(room, number)| Some((room.inode, (*number)?))).collect();
        Ok(numbers)
    }

    pub(super) fn lend(&mut self) -> Vec<Asker> {
        std::mem::take(&mut self.askers)
    }

    pub(super) fn take_back(&mut self, askers: Vec<Asker>) {
        if self.askers.is_empty() {
            self.askers = askers;
        }
    }

    /// Reads what went over the links of a namespace that was read before; by their indices.
    ///
    /// # Errors
    ///
    /// `ENOENT` if it has no number here; the kernel's, if it is gone.
    pub fn counters(&mut self, inode: Inode) -> Result<Vec<(u32, Counters)>, Errno> {
        let number = *self.numbers.get(&inode).ok_or(Errno::NOENT)?;
        let asker = self.askers.first_mut().ok_or(Errno::IO)?;
        counting::of_number(asker, number)
    }
}
