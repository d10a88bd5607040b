//! The host as it changes: looks again when something happened, and reads what goes over links.
//! Changes nothing.
//!
//! A thread of its own does that, so that whoever shows it can listen to people meanwhile. When to
//! look is decided by [`Pace`]; nothing is kept open of anybody's namespace between two looks.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd, poll},
    fs::Timespec,
};
use twinax_core::{
    model::{LinkId, Netns},
    pace::Pace,
    rate::{Meter, Rate, Rates},
    sight::{Counters, Inode, Sight},
};

use crate::{
    linux::{
        events::Events,
        wires::{Counting, Observatory},
    },
    look::{Depth, look_from},
    runtimes,
};

const READERS: usize = 2;
/// Updates that wait for whoever shows them. With these nobody looks any more: a reader who has
/// stopped shall not fill the memory.
const UPDATES_MAX: usize = 4;
/// How often it is looked for what has no event.
const TICK_US: u64 = 1_000_000;
/// How often counters are read, at most; more seldom where reading and showing them takes longer
/// than the 400th part of that.
const COUNT_US: u64 = 2_000_000;
const COUNT_TIMES: u64 = 400;
/// What showing a link's rate is taken to cost.
const SHOW_US: u64 = 5;
/// Namespaces without a cable to the host whose counters are read; of more only these.
const APART_MAX: usize = 64;

/// What is new.
#[derive(Debug)]
pub enum Update {
    Sight(Box<Sight>),
    /// What has gone over links, and what goes a second.
    Traffic(BTreeMap<LinkId, Counters>, Rates),
}

/// A host that is watched.
#[derive(Debug)]
pub struct Live {
    updates: Receiver<Update>,
    wake: Arc<OwnedFd>,
    looks: Arc<AtomicU64>,
}

impl Live {
    /// Begins to watch; the first update is all that there is. With `rates`, what goes over links
    /// is measured.
    ///
    /// # Errors
    ///
    /// No descriptor or no thread can be had.
    pub fn start(depth: Depth, rates: bool) -> io::Result<Self> {
        let (sender, updates) = sync_channel(UPDATES_MAX);
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let looks = Arc::new(AtomicU64::new(0));
        let teller = Teller { sender, wake: Arc::clone(&wake), looks: Arc::clone(&looks) };
        thread::Builder::new().name("watch".to_owned()).spawn(move || {
            Watch::open(depth, rates, teller).run();
        })?;
        Ok(Self { updates, wake, looks })
    }

    /// The next update, without waiting; `Err` if there will be none.
    pub fn next(&self) -> Result<Option<Update>, Ended> {
        let _ = rustix::io::read(&*self.wake, &mut [0; 8]);
        match self.updates.try_recv() {
            Ok(update) => Ok(Some(update)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Ended),
        }
    }

    /// How often the host was looked at.
    pub fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

/// Can be read when there is an update.
impl AsFd for Live {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Nobody watches any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended;

struct Teller {
    sender: SyncSender<Update>,
    wake: Arc<OwnedFd>,
    looks: Arc<AtomicU64>,
}

impl Teller {
    /// Returns whether anybody listens.
    fn tell(&self, update: Update) -> bool {
        let heard = self.sender.send(update).is_ok();
        // It is full only when it was told already.
        let _ = rustix::io::write(&*self.wake, &1u64.to_ne_bytes());
        heard
    }
}

/// The thread that watches.
struct Watch {
    depth: Depth,
    teller: Teller,
    events: Events,
    observatory: Option<Observatory>,
    counting: Option<Counting>,
    start: Instant,
    pace: Pace,
    tick_us: u64,
    count_us: u64,
    meter: Meter,
    last: Rates,
    /// The links of each namespace, by index.
    links: BTreeMap<Inode, (Netns, BTreeMap<u32, LinkId>)>,
}

impl Watch {
    fn open(depth: Depth, rates: bool, teller: Teller) -> Self {
        let (events, observatory) = Events::open(READERS, runtimes::claimed);
        Self {
            depth,
            teller,
            events,
            observatory,
            counting: rates.then(Counting::open).and_then(Result::ok),
            start: Instant::now(),
            pace: Pace::default(),
            tick_us: TICK_US,
            count_us: 0,
            meter: Meter::default(),
            last: Rates::new(),
            links: BTreeMap::new(),
        }
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn run(&mut self) {
        loop {
            let now = self.now_us();
            if now >= self.tick_us {
                if self.events.tick() {
                    self.pace.stir(now);
                }
                self.tick_us = now + TICK_US;
            }
            if now >= self.pace.due_us() && !self.look() {
                return;
            }
            if self.counting.is_some() && now >= self.count_us && !self.count() {
                return;
            }
            self.wait();
        }
    }

    /// Until something happens or is to be done. Events that would change nothing are left where
    /// they are: a storm costs no more than a look now and then.
    fn wait(&mut self) {
        let mut until = self.pace.due_us().min(self.tick_us);
        if self.counting.is_some() {
            until = until.min(self.count_us);
        }
        let left = Duration::from_micros(until.saturating_sub(self.now_us()));
        let time = Timespec::try_from(left).ok();
        let listens = !self.pace.is_stirred();
        let mut sources: Vec<PollFd<'_>> = match listens {
            true => self
                .events
                .sources()
                .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
                .collect(),
            false => Vec::new(),
        };
        let ready = poll(&mut sources, time.as_ref()).unwrap_or_default();
        drop(sources);
        if ready > 0 && self.events.drain() {
            self.pace.stir(self.now_us());
        }
    }

    fn look(&mut self) -> bool {
        // What happens from here on is seen by the next look, if not by this one.
        self.events.drain();
        self.pace.begin(self.now_us());
        self.teller.looks.fetch_add(1, Ordering::Relaxed);
        let sight = look_from(self.observatory.as_mut(), self.depth);
        self.pace.end(self.now_us());
        if self.counting.is_some() {
            self.links = by_index(&sight);
        }
        self.teller.tell(Update::Sight(Box::new(sight)))
    }

    /// Reads the counters; tells of them if anything moves, or has stopped.
    fn count(&mut self) -> bool {
        let began = self.now_us();
        let counters = self.counters();
        let (links, now) = (counters.len() as u64, self.now_us());
        let rates = self.meter.read(now, counters.clone());
        let cost = (now - began).saturating_add(links * SHOW_US);
        self.count_us = now + COUNT_US.max(cost.saturating_mul(COUNT_TIMES));
        if rates == self.last && rates.values().all(Rate::is_idle) {
            return true;
        }
        self.last.clone_from(&rates);
        self.teller.tell(Update::Traffic(counters, rates))
    }

    fn counters(&mut self) -> BTreeMap<LinkId, Counters> {
        let mut counters = BTreeMap::new();
        let mut apart = 0;
        for (inode, (netns, links)) in &self.links {
            let read = match netns {
                Netns::Host => self.counting.as_mut().and_then(|own| own.read().ok()),
                _ if apart == APART_MAX => None,
                _ => {
                    apart += 1;
                    self.observatory.as_mut().and_then(|o| o.counters(*inode).ok())
                }
            };
            let known = |(index, counters)| Some((links.get(&index)?.clone(), counters));
            counters.extend(read.into_iter().flatten().filter_map(known));
        }
        counters
    }
}

/// The links whose rates are shown: those of the host, and of namespaces with a link that leads
/// nowhere on the host.
fn by_index(sight: &Sight) -> BTreeMap<Inode, (Netns, BTreeMap<u32, LinkId>)> {
    let mut links: BTreeMap<Inode, (Netns, BTreeMap<u32, LinkId>)> = BTreeMap::new();
    for (id, facts) in &sight.links {
        let at_host = id.netns == Netns::Host;
        let reached = facts.leads_to.as_ref().is_some_and(|far| far.netns == Netns::Host);
        if id.name.as_str() == "lo" || (reached && !at_host) {
            continue;
        }
        let Some(space) = sight.spaces.get(&id.netns) else { continue };
        let entry = links.entry(space.inode);
        let (_, links) = entry.or_insert_with(|| (id.netns.clone(), BTreeMap::new()));
        links.insert(facts.index, id.clone());
    }
    links
}
