//! Reads the links, addresses, routes, neighbours and waiting sockets of many namespaces, and finds
//! both ends of every cable. Changes nothing of anybody's.
//!
//! # Theory of operation
//!
//! A link's far end is an index and a number: what the namespace of the socket that is asked
//! through calls the far end's namespace (`IFLA_LINK`, `IFLA_LINK_NETNSID`). Indices collide, and
//! every namespace has numbers of its own, which the kernel gives out when somebody asks. So a
//! namespace is made that only we are in, the observatory; there, and nowhere else, every namespace
//! that was given gets a number (`RTM_NEWNSID`), its place in the list if it is the first. Links and addresses of
//! all of them are then listed through sockets of the observatory (`IFLA_TARGET_NETNSID`), and
//! the far end of each link is a (place, index): no guess is left. What the kernel numbers by
//! itself while it tells is a namespace that nobody gave us; its links are read by that number.
//!
//! The host comes first, as number 0: the kernel looks for a number from the lowest on, and all
//! containers lead to the host.
//!
//! Routes, neighbours and sockets are told only within a namespace. The threads that read enter one
//! after the other, and end.
//!
//! Where no observatory can be had, or a namespace may not be listed from there, it is entered for
//! its links too, or listed where we are, and asked what it calls the others.

mod asker;
mod details;
mod link;
mod reach;
mod pair;
mod sockets;
mod one;
mod observatory;
mod counting;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt,
    },
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use ipnet::IpNet;
use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use twinax_core::{model::Netns, sight::Sight};

use self::{
    asker::Asker,
    link::{Far, RawLink},
    reach::{RawNeighbour, RawRoute},
    sockets::RawListener,
};
pub use self::{
    counting::Counting,
    observatory::Observatory,
    one::{Lead, follow, read_lead},
    sockets::{Holders, holders},
};

/// What to read beside links with their counters, addresses and routes.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Neighbours, and forwarding entries where there is a bridge.
    pub neighbours: bool,
    pub listeners: bool,
    /// Who has which socket open; looked up if `None`.
    pub holders: Option<&'a Holders>,
    /// How many threads read, at least one.
    pub readers: usize,
    /// Whether the observatory is used; without, everything is read from within.
    pub observatory: bool,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { neighbours: false, listeners: false, holders: None, readers: 2, observatory: true }
    }
}

/// Reads the namespaces into `sight`. What cannot be read is told there, in `unseen`. A namespace
/// given twice goes by the first name.
pub fn read(spaces: &[(Netns, BorrowedFd<'_>)], wanted: &Wanted<'_>, sight: &mut Sight) {
    let mut own = wanted.observatory.then(|| Observatory::open(wanted.readers.max(1)).ok());
    read_by(own.as_mut().and_then(Option::as_mut), spaces, wanted, sight);
}

/// As [`read`], from an observatory that is kept: what was numbered there stays so.
pub fn read_from(
    observatory: &mut Observatory,
    spaces: &[(Netns, BorrowedFd<'_>)],
    wanted: &Wanted<'_>,
    sight: &mut Sight,
) {
    read_by(Some(observatory), spaces, wanted, sight);
}

fn read_by(
    mut observatory: Option<&mut Observatory>,
    spaces: &[(Netns, BorrowedFd<'_>)],
    wanted: &Wanted<'_>,
    sight: &mut Sight,
) {
    let rooms = rooms(spaces, sight);
    let numbers = observatory.as_mut().and_then(|observatory| observatory.number(&rooms).ok());
    let askers = observatory.as_mut().filter(|_| numbers.is_some());
    let askers = askers.map(|observatory| observatory.lend()).unwrap_or_default();
    let numbers = numbers.unwrap_or_else(|| vec![None; rooms.len()]);
    let places = numbers.iter().enumerate().filter_map(|(at, number)| Some(((*number)?, at)));
    let places: HashMap<i32, usize> = places.collect();
    let all: Vec<usize> = (0..rooms.len()).collect();
    let survey = Survey { rooms: &rooms, numbers: &numbers, places: &places, wanted: *wanted };
    let (mut reads, held) = thread::scope(|scope| {
        let look_up = wanted.listeners && wanted.holders.is_none();
        let held = look_up.then(|| scope.spawn(holders));
        let reads = survey.run(&all, askers);
        (reads, held.and_then(|thread| thread.join().ok()).unwrap_or_default())
    });
    pair::see(&survey, &mut reads, sight);
    pair::hear(&rooms, &reads, wanted.holders.unwrap_or(&held), sight);
    if let Some(observatory) = observatory {
        observatory.take_back(reads.askers);
    }
}

/// A namespace to be read.
#[derive(Debug)]
struct Room<'a> {
    netns: &'a Netns,
    fd: BorrowedFd<'a>,
    inode: u64,
}

/// Puts the namespace where we are first, and leaves out what is there already.
fn rooms<'a>(spaces: &'a [(Netns, BorrowedFd<'_>)], sight: &mut Sight) -> Vec<Room<'a>> {
    let mut rooms: Vec<Room<'a>> = Vec::with_capacity(spaces.len());
    let mut known = HashMap::with_capacity(spaces.len());
    for (netns, fd) in spaces {
        let inode = match rustix::fs::fstat(fd) {
            Ok(stat) => stat.st_ino,
            Err(errno) => {
                sight.unseen.push(format!("{netns}: {errno}"));
                continue;
            }
        };
        match known.entry(inode) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert(());
                rooms.push(Room { netns, fd: *fd, inode });
            }
            std::collections::hash_map::Entry::Occupied(_) => {}
        }
    }
    let home = here();
    rooms.sort_by_key(|room| (Some(room.inode) != home, room.netns != &Netns::Host));
    rooms
}

/// The namespace of the calling thread, by its inode.
fn here() -> Option<u64> {
    fs::metadata("/proc/thread-self/ns/net").ok().map(|file| file.ino())
}

/// What was read of one namespace.
#[derive(Default)]
struct RoomRead {
    links: Vec<RawLink>,
    addrs: Vec<(u32, IpNet)>,
    routes: Vec<RawRoute>,
    neighbours: Vec<RawNeighbour>,
    listeners: Vec<RawListener>,
    /// Whether its far ends go by the observatory's numbers.
    by_number: bool,
    unseen: Vec<String>,
}

/// All that were read, by their place, and the sockets of the observatory.
struct Reads {
    rooms: Vec<RoomRead>,
    askers: Vec<Asker>,
}

/// What the readers have in common.
struct Survey<'a> {
    rooms: &'a [Room<'a>],
    /// What the observatory calls each room.
    numbers: &'a [Option<i32>],
    /// The same the other way round.
    places: &'a HashMap<i32, usize>,
    wanted: Wanted<'a>,
}

impl Survey<'_> {
    /// Reads the rooms at these places, on threads that end with it.
    fn run(&self, places: &[usize], askers: Vec<Asker>) -> Reads {
        let next = AtomicUsize::new(0);
        let mut rooms: Vec<RoomRead> = Vec::new();
        rooms.resize_with(self.rooms.len(), RoomRead::default);
        let done = Mutex::new((rooms, Vec::new()));
        let diag = self.wanted.listeners && sockets::diag_is_there();
        let mut askers: Vec<Option<Asker>> = askers.into_iter().map(Some).collect();
        askers.resize_with(self.wanted.readers.max(1), || None);
        thread::scope(|scope| {
            for asker in askers {
                scope.spawn(|| {
                    let mut reader = Reader { survey: self, asker, at: here(), diag };
                    let mut own = Vec::new();
                    while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                        own.push((*place, reader.read(*place)));
                    }
                    let mut done = done.lock().unwrap_or_else(|broken| broken.into_inner());
                    own.into_iter().for_each(|(place, read)| done.0[place] = read);
                    done.1.extend(reader.asker);
                });
            }
        });
        let (rooms, askers) = done.into_inner().unwrap_or_else(|broken| broken.into_inner());
        Reads { rooms, askers }
    }
}

/// One thread that reads.
struct Reader<'a> {
    survey: &'a Survey<'a>,
    /// Of the observatory, if there is one.
    asker: Option<Asker>,
    /// Where the thread is, if known.
    at: Option<u64>,
    diag: bool,
}

impl Reader<'_> {
    fn read(&mut self, place: usize) -> RoomRead {
        let mut read = RoomRead::default();
        if let Err(errno) = self.read_from_outside(place, &mut read) {
            let refused = matches!(errno, Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP);
            if !refused {
                read.note(self.survey.rooms[place].netns, "links", errno);
                return read;
            }
        }
        if let Err(errno) = self.read_within(place, &mut read) {
            let what = if read.by_number { "routes" } else { "links" };
            read.note(self.survey.rooms[place].netns, what, errno);
        }
        read
    }

    /// Links and addresses, from the observatory.
    fn read_from_outside(&mut self, place: usize, read: &mut RoomRead) -> Result<(), Errno> {
        let number = self.survey.numbers[place].ok_or(Errno::PERM)?;
        let asker = self.asker.as_mut().ok_or(Errno::PERM)?;
        let links = link::list(asker, Some(number))?;
        read.addrs = reach::addrs(asker, Some(number))?;
        read.links = self.survey.located(links);
        read.by_number = true;
        Ok(())
    }

    /// The rest, and links and addresses if they are not known yet, from within.
    fn read_within(&mut self, place: usize, read: &mut RoomRead) -> Result<(), Errno> {
        let room = &self.survey.rooms[place];
        if self.at != Some(room.inode) {
            move_into_link_name_space(room.fd, Some(LinkNameSpaceType::Network))?;
            self.at = Some(room.inode);
        }
        let mut asker = Asker::open()?;
        if !read.by_number {
            let links = link::list(&mut asker, None)?;
            read.links = self.survey.translated(links, &mut asker)?;
            read.addrs = reach::addrs(&mut asker, None)?;
        }
        if read.links.is_empty() && read.by_number {
            return Ok(());
        }
        read.routes = reach::routes(&mut asker)?;
        if self.survey.wanted.neighbours {
            read.neighbours = reach::neighbours(&mut asker)?;
            if read.links.iter().any(|link| link.kind == "bridge") {
                read.neighbours.extend(reach::forwarding(&mut asker)?);
            }
        }
        if self.survey.wanted.listeners {
            read.listeners = sockets::listeners(self.diag)?;
        }
        Ok(())
    }
}

impl RoomRead {
    fn note(&mut self, netns: &Netns, what: &str, errno: Errno) {
        self.unseen.push(format!("{what} of {netns}: {errno}"));
    }
}

impl Survey<'_> {
    /// Replaces the observatory's numbers by places, where they are.
    fn located(&self, mut links: Vec<RawLink>) -> Vec<RawLink> {
        for link in &mut links {
            if let Far::Number(number) = link.far
                && let Some(place) = self.places.get(&number)
            {
                link.far = Far::Room(*place);
            }
        }
        links
    }

    /// Replaces a namespace's own numbers by places, as far as they are of rooms. Asks for the
    /// first room first: mostly it is the only one.
    fn translated(
        &self,
        mut links: Vec<RawLink>,
        asker: &mut Asker,
    ) -> Result<Vec<RawLink>, Errno> {
        let mut places: BTreeMap<i32, Option<usize>> = BTreeMap::new();
        let numbers = links.iter().filter_map(|link| match link.far {
            Far::Number(number) if number >= 0 => Some((number, None)),
            _ => None,
        });
        places.extend(numbers);
        let fds: Vec<_> = self.rooms.iter().map(|room| room.fd.as_fd()).collect();
        let (first, rest) = fds.split_at(1.min(fds.len()));
        for (start, some) in [(0, first), (1, rest)] {
            if places.values().all(Option::is_some) {
                break;
            }
            for (at, number) in asker.numbers(some)?.into_iter().enumerate() {
                if let Some(place) = number.and_then(|number| places.get_mut(&number)) {
                    *place = Some(start + at);
                }
            }
        }
        for link in &mut links {
            if let Far::Number(number) = link.far {
                let place = places.get(&number).copied().flatten();
                link.far = place.map_or(Far::Number(-1), Far::Room);
            }
        }
        Ok(links)
    }
}
