//! Reads what namespaces have inside beside their links: policy rules, routes of every table, the
//! resolver, everybody's firewall, switches, connection tracking, and what hangs on links' wires.
//! Changes nothing, and loads no module.
//!
//! All of this is told only within a namespace: a thread enters one after the other, and ends.

mod ask;
mod attached;
mod expression;
mod judged;
mod legacy;
mod nft;
mod paths;
mod resolver;
mod switches;

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::BorrowedFd, unix::fs::MetadataExt},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::{
    io::Errno,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use twinax_core::{
    firewall::understand,
    interior::{Attached, Conntrack, Interior},
    model::{LinkId, Netns},
    name::IfName,
    sight::{Holder, Sight},
};

use super::{conntrack, module, socket::RouteSocket};

/// Threads that read at the same time.
const READERS: usize = 2;
/// UDP flows that are listed of each IP version.
const FLOWS: usize = 16_384;

/// What to read of each namespace.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    /// Policy rules and routes of all tables.
    pub paths: bool,
    pub resolver: bool,
    pub firewall: bool,
    /// Switches, and how full connection tracking is.
    pub switches: Option<Switches>,
    /// UDP flows.
    pub flows: bool,
    /// What hangs on the links' wires.
    pub attached: bool,
}

impl Wanted {
    /// Everything.
    pub const ALL: Self = Self {
        paths: true,
        resolver: true,
        firewall: true,
        switches: Some(Switches::All),
        flows: true,
        attached: true,
    };
}

/// Which switches are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switches {
    All,
    /// Those alone that checks ask for: much faster where there are many namespaces.
    Judged,
}

/// Reads the namespaces into `sight`, which must have their links and holders already. What cannot
/// be read is told in each interior's `unseen`.
pub fn read(spaces: &[(Netns, BorrowedFd<'_>)], wanted: Wanted, sight: &mut Sight) {
    let mut asked: BTreeMap<&Netns, Asked<'_>> = BTreeMap::new();
    for (netns, fd) in spaces {
        let (links, pid) = (BTreeMap::new(), pid_in(sight, netns));
        asked.insert(netns, Asked { netns, fd: *fd, links, has_bridge: false, pid });
    }
    for (id, facts) in &sight.links {
        if let Some(asked) = asked.get_mut(&id.netns) {
            asked.links.insert(facts.index, id.name.clone());
            asked.has_bridge |= facts.kind == "bridge";
        }
    }
    let asked: Vec<Asked<'_>> = asked.into_values().collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(asked.len())));
    thread::scope(|scope| {
        for _ in 0..READERS.min(asked.len()) {
            scope.spawn(|| {
                while let Some(one) = asked.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let read = (one.netns, one.read(wanted));
                    done.lock().unwrap_or_else(|broken| broken.into_inner()).push(read);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|broken| broken.into_inner());
    for (netns, (interior, attached)) in done {
        for (name, mut attached) in attached {
            let id = LinkId { netns: netns.clone(), name };
            let behind = sight.links.get(&id).map(|facts| facts.neighbours.as_slice());
            let behind = behind.unwrap_or_default().iter().filter(|one| one.addr.is_none());
            attached.macs =
                behind.filter(|one| one.state != "own").filter_map(|one| one.mac).collect();
            sight.attached.insert(id, attached);
        }
        sight.interiors.insert(netns.clone(), interior);
    }
}

/// A process whose files are the namespace's: the first of a container there, or the oldest.
fn pid_in(sight: &Sight, netns: &Netns) -> Option<u32> {
    let space = sight.spaces.get(netns)?;
    let workload = space.workloads.iter().find_map(|workload| workload.pid);
    let held = space.holders.iter().filter_map(|holder| match holder {
        Holder::Process { pid, .. } => Some(*pid),
        _ => None,
    });
    workload.or_else(|| held.min())
}

/// A namespace to be read.
struct Asked<'a> {
    netns: &'a Netns,
    fd: BorrowedFd<'a>,
    /// Its links by the kernel's numbers.
    links: BTreeMap<u32, IfName>,
    has_bridge: bool,
    pid: Option<u32>,
}

impl Asked<'_> {
    fn read(&self, wanted: Wanted) -> (Interior, Vec<(IfName, Attached)>) {
        let mut interior = Interior::default();
        let mut attached = Vec::new();
        if let Err(errno) = self.enter() {
            interior.unseen.push(format!("the inside of {}: {errno}", self.netns));
            return (interior, attached);
        }
        let note = |what: &str, result: Result<(), Errno>| {
            result.err().map(|errno| format!("{what} of {}: {errno}", self.netns))
        };
        let mut unseen = Vec::new();
        if wanted.paths {
            unseen.extend(note("rules and routes", self.paths(&mut interior)));
        }
        if wanted.firewall {
            unseen.extend(note("nftables", self.nft(&mut interior)));
            unseen.extend(note("iptables-legacy", legacy_into(&mut interior)));
        }
        if let Some(switches) = wanted.switches {
            interior.switches = match switches {
                Switches::All => switches::read(self.links.values()),
                Switches::Judged => judged::read(&self.links, self.place()),
            };
            interior.conntrack = judged::conntrack(&interior.switches);
        }
        if wanted.flows
            && let Some(conntrack) = &mut interior.conntrack
        {
            unseen.extend(note("connection tracking", flows(conntrack)));
        }
        if wanted.attached {
            match attached::read(&self.links, self.fd) {
                Ok(found) => attached = found,
                Err(errno) => unseen.extend(note("what hangs on links", Err(errno))),
            }
        }
        if wanted.resolver {
            interior.resolver = self.pid.and_then(resolver::read);
        }
        interior.unseen.extend(unseen);
        (interior, attached)
    }

    fn place(&self) -> judged::Place {
        judged::Place { is_host: *self.netns == Netns::Host, has_bridge: self.has_bridge }
    }

    /// Moves the calling thread there. Whoever is there already needs no privilege for it.
    fn enter(&self) -> Result<(), Errno> {
        let here = fs::metadata("/proc/thread-self/ns/net").map(|file| file.ino());
        let there = rustix::fs::fstat(self.fd).map(|file| file.st_ino);
        match (here, there) {
            (Ok(here), Ok(there)) if here == there => Ok(()),
            _ => move_into_link_name_space(self.fd, Some(LinkNameSpaceType::Network)),
        }
    }

    fn paths(&self, interior: &mut Interior) -> Result<(), Errno> {
        let mut socket = RouteSocket::open()?;
        interior.rules = paths::rules(&mut socket)?;
        interior.routes = paths::routes(&mut socket, &self.links)?;
        Ok(())
    }

    fn nft(&self, interior: &mut Interior) -> Result<(), Errno> {
        if !module::are_there(&["nfnetlink", "nf_tables"]) {
            return Ok(());
        }
        let read = nft::read()?;
        let (tables, led) = understand(&read.tables);
        interior.firewall.extend(tables);
        interior.led.extend(led);
        if read.cut {
            interior
                .unseen
                .push(format!("part of the firewall of {}: it is too large", self.netns));
        }
        Ok(())
    }
}

fn legacy_into(interior: &mut Interior) -> Result<(), Errno> {
    let (tables, led) = understand(&legacy::read()?);
    interior.firewall.extend(tables);
    interior.led.extend(led);
    Ok(())
}

fn flows(into: &mut Conntrack) -> Result<(), Errno> {
    if into.entries == 0 || !module::are_there(&["nfnetlink", "nf_conntrack_netlink"]) {
        return Ok(());
    }
    let mut table = conntrack::Conntrack::open()?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        into.udp.extend(table.udp(family as u8, FLOWS).map_err(|error| error.errno)?);
    }
    Ok(())
}
