//! Carries out the operations on links, addresses, routes and neighbours.
//!
//! Makes no choices and observes nothing but the kernel indices of links that exist already.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use twinax_core::{
    model::{Addr, Link, LinkId, LinkKind, Netns, Op, Port, number_of},
    name::{ContainerName, IfName},
};

use super::{
    addr,
    link::{self, Cable},
    neighbour,
    netns::{NetnsError, NetnsHandle},
    route,
    socket::{Batch, BatchError, RouteSocket},
    sysctl,
};

/// How long to wait for an IPv6 address to come into use; it takes microseconds.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);

/// Why an operation or an observation failed.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("{0}")]
    Kernel(#[from] BatchError),
    #[error("there is no link {0}")]
    NoLink(LinkId),
    #[error("the network namespace of {0} is gone or was not opened")]
    NoNetns(ContainerName),
    #[error("the name {0} is taken by a link that is not ours")]
    Taken(LinkId),
    #[error("the name or the number of {0}, or the name {1}, is taken by a link that is not ours")]
    EndTaken(LinkId, LinkId),
    #[error("this operation is not about links, addresses, routes or neighbours")]
    NotOurs,
    #[error(transparent)]
    Netns(#[from] NetnsError),
}

/// Which operation failed.
#[derive(Debug, thiserror::Error)]
#[error("operation {index}")]
pub struct ApplyError {
    /// From 0, within the slice given.
    pub index: usize,
    #[source]
    pub cause: LinkError,
}

/// The sockets that a request works through, and the indices it has looked up.
#[derive(Debug)]
pub struct Links {
    host: RouteSocket,
    rooms: BTreeMap<ContainerName, Room>,
    index: BTreeMap<LinkId, u32>,
    /// Far ends that were made just now: they exist, and their indices are the kernel's choice.
    born: BTreeSet<LinkId>,
    /// Whether this kernel has IPv6.
    ipv6: bool,
    /// What is sent, in the same memory each time.
    batch: Batch,
}

/// A container's namespace with a socket that lives in it.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) netns: NetnsHandle,
    pub(super) socket: RouteSocket,
    /// How the host's namespace numbers this one, once asked.
    pub(super) nsid: Option<i32>,
}

impl Links {
    /// Opens the socket of the calling thread's namespace, which is the host's.
    pub fn open() -> Result<Self, Errno> {
        let host = RouteSocket::open()?;
        let ipv6 = sysctl::has_ipv6();
        let (rooms, index, born) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Ok(Self { host, rooms, index, born, ipv6, batch: Batch::default() })
    }

    /// Makes a container's namespace one that links can be in. Without it the container counts
    /// as gone: nothing is observed there, and deletions there count as done.
    pub fn enter(&mut self, name: ContainerName, netns: NetnsHandle) -> Result<(), NetnsError> {
        let socket = netns.route_socket()?;
        self.settle_in(name, netns, socket);
        Ok(())
    }

    /// As [`Self::enter`], with a socket that was opened there.
    pub fn settle_in(&mut self, name: ContainerName, netns: NetnsHandle, socket: RouteSocket) {
        self.index.retain(|link, _| link.netns != Netns::Container(name.clone()));
        self.rooms.insert(name, Room { netns, socket, nsid: None });
    }

    /// Forgets a container's namespace, which may end then.
    pub fn leave(&mut self, name: &ContainerName) {
        self.rooms.remove(name);
        self.index.retain(|link, _| link.netns != Netns::Container(name.clone()));
    }

    /// Forgets every namespace that was entered, and every index.
    pub fn forget_all(&mut self) {
        self.rooms.clear();
        self.index.clear();
    }

    /// Whether a container's namespace was entered, and so is there.
    pub fn is_entered(&self, name: &ContainerName) -> bool {
        self.rooms.contains_key(name)
    }

    /// Returns the socket of the host's namespace.
    pub fn host(&mut self) -> &mut RouteSocket {
        &mut self.host
    }

    /// Returns the socket that lives in a namespace, if that was entered.
    pub(super) fn socket(&mut self, netns: &Netns) -> Option<&mut RouteSocket> {
        match netns {
            Netns::Host => Some(&mut self.host),
            Netns::Container(name) => self.rooms.get_mut(name).map(|room| &mut room.socket),
        }
    }

    pub(super) fn rooms(&mut self) -> &mut BTreeMap<ContainerName, Room> {
        &mut self.rooms
    }

    pub(super) fn remember(&mut self, link: LinkId, index: u32) {
        self.index.insert(link, index);
    }

    pub(super) fn forget(&mut self, link: &LinkId) {
        self.index.remove(link);
        self.born.remove(link);
    }

    /// Returns a link's kernel index, looked up by name the first time; `None` if it is gone.
    pub fn index(&mut self, link: &LinkId) -> Result<Option<u32>, LinkError> {
        if let Some(index) = self.index.get(link) {
            return Ok(Some(*index));
        }
        let Some(socket) = self.socket(&link.netns) else {
            return Ok(None);
        };
        let answer = link::by_name(socket, link.name.as_str())?;
        let index = answer.map(|facts| facts.index);
        if let Some(index) = index {
            self.remember(link.clone(), index);
        }
        Ok(index)
    }

    fn need(&mut self, link: &LinkId) -> Result<u32, LinkError> {
        if let Netns::Container(name) = &link.netns
            && !self.rooms.contains_key(name)
        {
            return Err(LinkError::NoNetns(name.clone()));
        }
        // Without a description of it.
        if self.born.remove(link)
            && let Some(socket) = self.socket(&link.netns)
            && let Ok(index) = socket.index_of(link.name.as_str())
        {
            self.remember(link.clone(), index);
        }
        self.index(link)?.ok_or_else(|| LinkError::NoLink(link.clone()))
    }

    /// Carries out `ops`: those on the host in one send, then those in each container in one.
    /// On return, links that were set up carry packets: the first one is not lost.
    ///
    /// The order among the operations on one namespace is kept; those on the host come first,
    /// as a cable's far end is born with its host end. After a refusal the rest of the same
    /// send may still have been done, so whoever gets an error observes before going on.
    pub fn apply(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        self.born.clear();
        let mut start = 0;
        while start < ops.len() {
            let end = stage_end(ops, start);
            let end = self.allow_ipv6(ops, start, end);
            let done = self.apply_stage(&ops[start..end]);
            if let Err(mut error) = done {
                // What was remembered of links to come may be wrong.
                self.index.clear();
                error.index += start;
                return Err(error);
            }
            start = end;
        }
        Ok(())
    }

    /// Turns IPv6 on where a link is to have such an address and somebody turned it off for new
    /// links of the namespace, as Docker does for its containers. Returns where the stage must
    /// end: before the first address on a link that is yet to come.
    fn allow_ipv6(&self, ops: &[Op], start: usize, end: usize) -> usize {
        for (n, op) in ops.iter().enumerate().take(end).skip(start) {
            let Op::AddAddr { addr } = op else { continue };
            if !addr.net.addr().is_ipv6() {
                continue;
            }
            let name = addr.link.name.as_str();
            let ready = match &addr.link.netns {
                Netns::Host => sysctl::allow_ipv6(name),
                Netns::Container(container) => self
                    .rooms
                    .get(container)
                    .and_then(|room| room.netns.within(|| sysctl::allow_ipv6(name)).ok())
                    .unwrap_or(true),
            };
            if !ready && n > start {
                return n;
            }
        }
        end
    }

    fn apply_stage(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        let mut parts: BTreeMap<Netns, Vec<usize>> = BTreeMap::new();
        for (n, op) in ops.iter().enumerate() {
            let fail = |cause| ApplyError { index: n, cause };
            let netns = place(op).ok_or(LinkError::NotOurs).map_err(fail)?;
            parts.entry(netns.clone()).or_default().push(n);
            if let Op::AddVeth { peer, inner, .. } = op
                && inner.up
            {
                parts.entry(peer.netns.clone()).or_default().push(n);
            }
        }
        // `Netns::Host` is the least.
        let mut batch = std::mem::take(&mut self.batch);
        for (netns, part) in &parts {
            let mut owner = Vec::new();
            let mut awake = false;
            batch.clear();
            for &n in part {
                let fail = |cause| ApplyError { index: n, cause };
                if !awake && raises(&ops[n], netns) && *netns != Netns::Host {
                    awake = true;
                    link::up(&mut batch, link::LOOPBACK);
                }
                self.encode(&mut batch, &ops[n], netns).map_err(fail)?;
                owner.resize(batch.len(), n);
            }
            let Some(socket) = self.socket(netns) else {
                continue; // Nothing but deletions, which are done.
            };
            if let Err(error) = socket.send(&mut batch) {
                let index = owner[error.index];
                return Err(ApplyError { index, cause: explain(&ops[index], error) });
            }
        }
        self.batch = batch;
        self.settle(ops)?;
        for (n, op) in ops.iter().enumerate() {
            if let Op::AddAddr { addr } = op
                && addr.net.addr().is_ipv6()
            {
                let done = self.settle_addr(addr);
                done.map_err(|cause| ApplyError { index: n, cause })?;
            }
        }
        Ok(())
    }

    /// Waits until packets to a new IPv6 address are taken: even without duplicate address
    /// detection a kernel thread enters it into the local routing table a little later
    /// (`addrconf_dad_start`). On a link that is down nothing is waited for.
    fn settle_addr(&mut self, addr: &Addr) -> Result<(), LinkError> {
        let Some(index) = self.index(&addr.link)? else {
            return Ok(());
        };
        let Some(socket) = self.socket(&addr.link.netns) else {
            return Ok(());
        };
        let deadline = Instant::now() + ADDRESS_PATIENCE;
        loop {
            let found = socket.get(|batch| route::find(batch, addr.net.addr()), route::facts)?;
            if found.is_some_and(|facts| facts.kind == libc::RTN_LOCAL) {
                return Ok(());
            }
            // It also waits for the lock that the kernel thread holds while it works.
            let up = link::by_index(socket, index)?.is_some_and(|facts| facts.up);
            if !up || Instant::now() > deadline {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    /// Waits until what was set up forwards packets: whoever asks for the carrier of a link makes
    /// the kernel carry out what it has put off since there is one (`linkwatch_sync_dev`), that
    /// is, it starts the queue of the link and opens the port on the bridge. Inside out, as a
    /// carrier at one place gives one to the next: container's end, host's end, bridge.
    fn settle(&mut self, ops: &[Op]) -> Result<(), ApplyError> {
        let raised: BTreeSet<&LinkId> = ops.iter().filter_map(raised_by).collect();
        let mut bridges = BTreeSet::new();
        let mut cables = BTreeMap::new();
        for (n, op) in ops.iter().enumerate() {
            if let Op::AddVeth { id, link, peer, inner, .. } = op
                && (inner.up || raised.contains(peer))
            {
                cables.insert(peer, (n, id, link));
            }
        }
        for (peer, &(n, ..)) in &cables {
            self.settle_carrier(n, peer)?;
        }
        for &(n, id, host) in cables.values() {
            self.settle_carrier(n, id)?;
            if let LinkKind::VethHost { port: Some(port), .. } = &host.kind
                && bridges.insert(port.bridge.clone())
            {
                self.settle_carrier(n, &bridge_of(port))?;
            }
        }
        self.settle_others(ops, |link| cables.contains_key(link))
    }

    /// For a link that was made in this stage, or that one of these hangs on.
    fn settle_carrier(&mut self, op: usize, link: &LinkId) -> Result<(), ApplyError> {
        let Some(socket) = self.socket(&link.netns) else {
            return Ok(());
        };
        match socket.settle_carrier(link.name.as_str()) {
            Ok(()) | Err(Errno::NODEV) => Ok(()),
            // RTM_GETLINK does it as well, with an answer that is long to write.
            Err(_) => match link::by_name(socket, link.name.as_str()) {
                Ok(_) => Ok(()),
                Err(error) => Err(ApplyError { index: op, cause: error.into() }),
            },
        }
    }

    /// As [`Self::settle`], for links whose surroundings are not known but by asking.
    fn settle_others(
        &mut self,
        ops: &[Op],
        is_settled: impl Fn(&LinkId) -> bool,
    ) -> Result<(), ApplyError> {
        let mut raised: BTreeMap<&Netns, BTreeMap<u32, usize>> = BTreeMap::new();
        for (n, op) in ops.iter().enumerate() {
            let Some(link) = raised_by(op).filter(|link| !is_settled(link)) else { continue };
            let index = self.need(link).map_err(|cause| ApplyError { index: n, cause })?;
            raised.entry(&link.netns).or_default().insert(index, n);
        }
        let mut next: BTreeMap<u32, usize> = BTreeMap::new();
        for (netns, links) in raised {
            match netns {
                Netns::Host => next.extend(links),
                Netns::Container(_) => {
                    let far = self.settle_some(netns, &links, |facts| facts.peer)?;
                    next.extend(far);
                }
            }
        }
        if next.is_empty() {
            return Ok(());
        }
        let bridges = self.settle_some(&Netns::Host, &next, |facts| facts.master)?;
        let bridges = bridges.into_iter().filter(|(index, _)| !next.contains_key(index)).collect();
        self.settle_some(&Netns::Host, &bridges, |_| None)?;
        Ok(())
    }

    fn settle_some(
        &mut self,
        netns: &Netns,
        links: &BTreeMap<u32, usize>,
        beyond: impl Fn(&link::LinkFacts) -> Option<u32>,
    ) -> Result<BTreeMap<u32, usize>, ApplyError> {
        let Some(socket) = self.socket(netns) else {
            return Ok(BTreeMap::new());
        };
        let owners: Vec<usize> = links.values().copied().collect();
        let ask = |batch: &mut Batch| {
            links.keys().for_each(|index| link::ask_by_index(batch, *index));
        };
        let answers = socket.ask(ask, link::read).map_err(|error| ApplyError {
            index: owners.get(error.index).copied().unwrap_or(0),
            cause: error.into(),
        })?;
        let mut found = BTreeMap::new();
        for (answer, owner) in answers.iter().zip(owners) {
            let facts = answer.as_ref().ok();
            found.extend(facts.and_then(&beyond).map(|index| (index, owner)));
        }
        Ok(found)
    }

    /// Turns the part of an operation that happens in `netns` into messages.
    fn encode(&mut self, batch: &mut Batch, op: &Op, netns: &Netns) -> Result<(), LinkError> {
        match op {
            Op::AddBridge { id, link } => {
                self.forget(id);
                link::add_bridge(batch, &id.name, link);
            }
            Op::AddVeth { peer, .. } if peer.netns == *netns => {
                let index = self.need(peer)?;
                link::no_autoconf(batch, index);
                link::up(batch, index);
            }
            Op::AddVeth { id, index, link, peer, inner } => {
                self.add_veth(batch, (id, *index, link), (peer, inner))?;
            }
            Op::SetPort { link, port } => {
                let index = self.need(link)?;
                let bridge = self.need(&bridge_of(port))?;
                link::set_port(batch, index, bridge, port);
            }
            Op::SetMtu { link, mtu } => link::mtu(batch, self.need(link)?, *mtu),
            Op::SetMac { link, mac } => link::mac(batch, self.need(link)?, *mac),
            Op::SetGroup { link, group } => link::group(batch, self.need(link)?, group.0),
            Op::SetAlias { link, alias } => link::alias(batch, self.need(link)?, alias),
            Op::SetUp { link } => {
                let index = self.need(link)?;
                link::no_autoconf(batch, index);
                link::up(batch, index);
            }
            Op::AddAddr { addr } => addr::add(batch, self.need(&addr.link)?, addr.net),
            Op::AddRoute { route } => route::add(batch, self.need(&route.link)?, route),
            Op::AddNeighbour { neighbour: entry } => {
                neighbour::add(batch, self.need(&entry.link)?, entry.addr, entry.mac);
            }
            Op::AddFdb { entry } => {
                neighbour::add_fdb(batch, self.need(&entry.port)?, entry.mac);
            }
            _ => self.encode_undo(batch, op)?,
        }
        Ok(())
    }

    /// What is gone needs no undoing.
    fn encode_undo(&mut self, batch: &mut Batch, op: &Op) -> Result<(), LinkError> {
        let link = match op {
            Op::DelNeighbour { neighbour } => &neighbour.link,
            Op::DelFdb { entry } => &entry.port,
            Op::DelRoute { route } => &route.link,
            Op::DelAddr { addr } => &addr.link,
            Op::DelLink { link } => link,
            _ => return Err(LinkError::NotOurs),
        };
        let Some(index) = self.index_to_undo(op, link)? else {
            return Ok(());
        };
        match op {
            Op::DelNeighbour { neighbour: entry } => neighbour::delete(batch, index, entry.addr),
            Op::DelFdb { entry } => neighbour::delete_fdb(batch, index, entry.mac),
            Op::DelRoute { route } => route::delete(batch, index, route),
            Op::DelAddr { addr } => addr::delete(batch, index, addr.net),
            _ => {
                self.forget(link);
                link::delete(batch, index);
                batch.forgive(&[Errno::NODEV]);
            }
        }
        Ok(())
    }

    /// The number in a host end's name is its index, so that of one that was let go need not be
    /// looked up. A link that is to be deleted is asked for by its name all the same.
    fn index_to_undo(&mut self, op: &Op, link: &LinkId) -> Result<Option<u32>, LinkError> {
        let told = number_of(&link.name).filter(|_| link.netns == Netns::Host);
        match told {
            Some(_) if !matches!(op, Op::DelLink { .. }) && !self.index.contains_key(link) => {
                Ok(told)
            }
            _ => self.index(link),
        }
    }

    fn add_veth(
        &mut self,
        batch: &mut Batch,
        (id, index, host): (&LinkId, u32, &Link),
        (peer, inner): (&LinkId, &Link),
    ) -> Result<(), LinkError> {
        let port = match &host.kind {
            LinkKind::VethHost { port: Some(port), .. } => {
                Some((self.need(&bridge_of(port))?, port))
            }
            _ => None,
        };
        let netns = match &peer.netns {
            Netns::Host => None,
            Netns::Container(name) => {
                let room = self.rooms.get(name).ok_or_else(|| LinkError::NoNetns(name.clone()))?;
                room.netns.fd()
            }
        };
        let netns = netns.ok_or(LinkError::NotOurs)?.as_raw_fd();
        self.remember(id.clone(), index);
        // One of that name may have been there before.
        self.forget(peer);
        self.born.insert(peer.clone());
        let (name, inner_name): (&IfName, &IfName) = (&id.name, &peer.name);
        let ipv6 = self.ipv6;
        let cable = Cable { name, index, host, port, inner_name, inner, netns, ipv6 };
        link::add_veth(batch, &cable);
        Ok(())
    }
}

/// Whether [`Links::apply`] is the one to carry out `op`.
pub fn is_link_op(op: &Op) -> bool {
    place(op).is_some()
}

/// Returns where an operation happens; a cable is made from the host.
fn place(op: &Op) -> Option<&Netns> {
    let link = match op {
        Op::AddBridge { id, .. } | Op::AddVeth { id, .. } => id,
        Op::SetPort { link, .. }
        | Op::SetMtu { link, .. }
        | Op::SetMac { link, .. }
        | Op::SetGroup { link, .. }
        | Op::SetAlias { link, .. }
        | Op::SetUp { link }
        | Op::DelLink { link } => link,
        Op::AddAddr { addr } | Op::DelAddr { addr } => &addr.link,
        Op::AddRoute { route } | Op::DelRoute { route } => &route.link,
        Op::AddNeighbour { neighbour } | Op::DelNeighbour { neighbour } => &neighbour.link,
        Op::AddFdb { entry } | Op::DelFdb { entry } => &entry.port,
        _ => return None,
    };
    Some(&link.netns)
}

fn raised_by(op: &Op) -> Option<&LinkId> {
    match op {
        Op::SetUp { link } => Some(link),
        _ => None,
    }
}

/// Whether `op` sets a link up in `netns`.
fn raises(op: &Op, netns: &Netns) -> bool {
    match op {
        Op::SetUp { .. } => true,
        Op::AddVeth { peer, inner, .. } => inner.up && peer.netns == *netns,
        _ => false,
    }
}

/// A stage is what can be sent without an answer in between. It ends after a bridge, as what
/// follows needs the index that the kernel gave it; and before a cable to a namespace in which
/// a link was deleted, as the new end may take its name.
fn stage_end(ops: &[Op], start: usize) -> usize {
    let mut emptied = BTreeSet::new();
    let mut bridges = false;
    for (n, op) in ops.iter().enumerate().skip(start) {
        match op {
            Op::AddBridge { .. } => bridges = true,
            _ if bridges => return n,
            Op::DelLink { link } if link.netns != Netns::Host => {
                emptied.insert(&link.netns);
            }
            Op::AddVeth { peer, .. } if emptied.contains(&peer.netns) => return n,
            _ => {}
        }
    }
    ops.len()
}

fn bridge_of(port: &Port) -> LinkId {
    LinkId::host(port.bridge.clone())
}

fn explain(op: &Op, error: BatchError) -> LinkError {
    match op {
        Op::AddBridge { id, .. } if error.errno == Errno::EXIST => LinkError::Taken(id.clone()),
        Op::AddVeth { id, peer, .. } if error.errno == Errno::EXIST => {
            LinkError::EndTaken(id.clone(), peer.clone())
        }
        _ => LinkError::Kernel(error),
    }
}
