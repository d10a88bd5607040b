//! The real world behind the engine: the store on disk, the kernel, and the processes.
//!
//! Makes no choices. Sockets are opened when first needed and kept, since closing one to
//! nftables after a deletion waits for the kernel's grace period.

mod files;
mod scribe;
mod survey;

use std::{io, os::fd::AsFd, path::PathBuf};

use rustix::io::Errno;
use scribe::{Job, Scribe};
use twinax_core::{
    decide::{Facts, Questions},
    diff::Plan,
    engine::{Journal, Pending, Sandboxes, World},
    model::{Element, Forward, Op, Process, Scope, Topology},
    name::{ContainerName, Proto},
    ruleset::{Datum, ElementId, SetName, Value},
    state::{Keys, Row, Sandbox, State, Way},
};

use crate::{
    container::{Task, mounts::RemountFailed},
    forwarder::{self, Asked, ForwarderError, Line, Opened},
    linux::{
        apply::{ApplyError, LinkError, Links, is_link_op},
        conntrack::Conntrack,
        listeners::ListenersError,
        netns::{self, NetnsError, NetnsHandle},
        nft::{NftError, NftOp, NftSocket},
        socket::{BatchError, RouteSocket},
        sysctl::{self, SysctlError},
    },
    store::{Memory, Store, StoreError},
};

/// Why the kernel or the store did not do something.
#[derive(Debug, thiserror::Error)]
pub enum LinuxError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{op}")]
    Link {
        op: Box<Op>,
        #[source]
        cause: LinkError,
    },
    #[error("cannot look at the links of the host")]
    Look(#[from] LinkError),
    #[error("cannot ask the kernel about the host")]
    Ask(#[from] BatchError),
    #[error("cannot open a socket to the kernel's routing")]
    Open(#[from] Errno),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    #[error(transparent)]
    Netns(#[from] NetnsError),
    #[error(transparent)]
    Listeners(#[from] ListenersError),
    #[error(transparent)]
    Forwarder(#[from] ForwarderError),
    #[error("cannot {what} {}", path.display())]
    File {
        what: &'static str,
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error(transparent)]
    Mount(#[from] RemountFailed),
    #[error("the thread that writes rows has ended")]
    Scribe,
}

/// What only a process has that serves many requests.
#[derive(Debug, Default)]
struct Desk {
    memory: Memory,
    scribe: Option<Scribe>,
    /// Rows to be written while the plan is applied, or before anything else is done.
    unwritten: Vec<Row>,
}

/// The network namespace of the calling thread, and what is stored about it.
#[derive(Debug)]
pub struct Linux {
    store: Store,
    /// Of a process that serves many requests.
    desk: Option<Desk>,
    line: Line,
    links: Option<Links>,
    nft: Option<NftSocket>,
    /// The namespace that [`Self::meet`] found, until the engine enters it.
    met: Option<(Sandbox, NetnsHandle, RouteSocket)>,
    /// Compare every rule of our tables, not only what they bear: for `check` and `repair`.
    pub thorough: bool,
    /// What others have put on our links, found by the last look at them.
    pub foreign: Vec<String>,
}

impl Linux {
    /// Opens nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            desk: None,
            line: Line::default(),
            links: None,
            nft: None,
            met: None,
            thorough: false,
            foreign: Vec::new(),
        }
    }

    /// As [`Self::new`], for a process that serves many requests, one after another: it remembers
    /// the rows, which are read again only when somebody else has written any, and has a second
    /// thread that writes them.
    pub fn resident(store: Store) -> Self {
        let scribe = Scribe::start(&store);
        let desk = Desk { scribe, ..Desk::default() };
        Self { desk: Some(desk), ..Self::new(store) }
    }

    /// Sees to it that rows are written.
    fn settle_rows(&mut self) -> Result<(), LinuxError> {
        let Some(desk) = &mut self.desk else { return Ok(()) };
        let rows = std::mem::take(&mut desk.unwritten);
        self.store.write(&rows).inspect_err(|_| desk.memory.forget())?;
        Ok(())
    }

    /// Has the scribe write the rows that wait, and open the ports of `plan`, if links are to be made,
    /// which takes longest. Where only the forwarder is waited for, rows are written meanwhile.
    fn begin_aside(&mut self, plan: &Plan) -> Result<(), LinuxError> {
        let has = |what: fn(&Op) -> bool| plan.0.iter().any(what);
        if let Some(Desk { scribe: Some(scribe), unwritten, .. }) = &mut self.desk
            && has(|op| matches!(op, Op::AddVeth { .. }))
        {
            let rows = std::mem::take(unwritten);
            match scribe.begin(Job { rows, ports: ports_to_open(plan) }) {
                Ok(()) => return Ok(()),
                Err(job) => *unwritten = job.rows,
            }
        }
        if has(|op| matches!(op, Op::DelForward { .. })) {
            return Ok(());
        }
        self.settle_rows()
    }

    /// Waits for the scribe; what it opened is returned.
    fn end_aside(&mut self) -> Result<Opened, LinuxError> {
        match &mut self.desk {
            Some(Desk { scribe: Some(scribe), memory, .. }) => {
                scribe.end().inspect_err(|_| memory.forget())
            }
            _ => Ok(Opened::default()),
        }
    }

    /// Returns the store that it loads from and writes to.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn links(&mut self) -> Result<&mut Links, LinuxError> {
        if self.links.is_none() {
            self.links = Some(Links::open()?);
        }
        Ok(self.links.as_mut().expect("it was just opened"))
    }

    fn nft(&mut self) -> Result<&mut NftSocket, LinuxError> {
        if self.nft.is_none() {
            self.nft = Some(NftSocket::open()?);
        }
        Ok(self.nft.as_mut().expect("it was just opened"))
    }

    /// Returns what a namespace of somebody else's is found and known by. It stays open for the
    /// request that is about it, which would have to find and enter it again.
    pub fn meet(&mut self, way: Way) -> Result<Sandbox, NetnsError> {
        let (cookie, netns, socket) = NetnsHandle::meet(&way)?;
        let sandbox = Sandbox { way, cookie: Some(cookie) };
        self.met = Some((sandbox.clone(), netns, socket));
        Ok(sandbox)
    }

    /// Returns what identifies the host's namespace until the next boot.
    ///
    /// # Errors
    /// Where no socket can be opened.
    pub fn host_cookie(&mut self) -> Result<u64, LinuxError> {
        Ok(netns::cookie_at(self.links()?.host().as_fd())?)
    }

    /// Opens the namespaces that `names` are in; one that is gone counts as empty.
    fn enter<'a>(
        &mut self,
        names: impl Iterator<Item = &'a ContainerName>,
        at: &Sandboxes,
    ) -> Result<(), LinuxError> {
        for name in names {
            let Some(sandbox) = at.get(name) else { continue };
            match self.open(sandbox) {
                Ok((netns, socket)) => self.links()?.settle_in(name.clone(), netns, socket),
                Err(NetnsError::Gone { .. }) => self.links()?.leave(name),
                Err(other) => return Err(other.into()),
            }
        }
        Ok(())
    }

    /// Opens a namespace with a socket in it, or takes what [`Self::meet`] has opened.
    fn open(&mut self, sandbox: &Sandbox) -> Result<(NetnsHandle, RouteSocket), NetnsError> {
        match self.met.take_if(|(met, ..)| met == sandbox) {
            Some((_, netns, socket)) => Ok((netns, socket)),
            None => NetnsHandle::with_socket(sandbox),
        }
    }

    fn observe_links(
        &mut self,
        scope: &Scope,
        at: &Sandboxes,
        seen: &mut Topology,
    ) -> Result<(), LinuxError> {
        let mut names = scope.netns.clone();
        names.extend(scope.links.iter().filter_map(|id| id.netns.container().cloned()));
        self.enter(names.iter(), at)?;
        if scope.links.is_empty() && names.is_empty() {
            return Ok(());
        }
        let links = self.links()?;
        let observed = links.observe(scope, &scope.addrs)?;
        seen.netns = scope.netns.iter().filter(|name| links.is_entered(name)).cloned().collect();
        seen.links = observed.topology.links;
        seen.addrs = observed.topology.addrs;
        seen.routes = observed.topology.routes;
        seen.neighbours = observed.topology.neighbours;
        seen.fdb = observed.topology.fdb;
        self.foreign = observed.foreign;
        Ok(())
    }

    fn observe_firewall(&mut self, scope: &Scope, seen: &mut Topology) -> Result<(), LinuxError> {
        let thorough = self.thorough;
        if scope.tables {
            let nft = self.nft()?;
            seen.tables =
                if thorough { nft.table_faults()?.is_empty() } else { nft.tables_stand()? };
        }
        if !seen.tables {
            return Ok(()); // No elements without the sets that hold them.
        }
        let ids: Vec<&ElementId> = scope.elements.iter().collect();
        for (id, element) in ids.iter().zip(self.nft()?.get_many(&ids)?) {
            if let Some((value, comment)) = element {
                let element = Element { value, comment: comment.into() };
                seen.elements.insert((*id).clone(), element);
            }
        }
        Ok(())
    }

    fn apply_firewall(&mut self, ops: &[Op]) -> Result<(), LinuxError> {
        let change = |op| match op {
            &Op::PutTables => NftOp::PutTables,
            Op::DelTables => NftOp::DelTables,
            Op::AddElement { id, element } => {
                NftOp::Add { id, value: &element.value, comment: &element.comment }
            }
            Op::DelElement { id, .. } => NftOp::Del { id },
            other => unreachable!("{other} is not about the firewall"),
        };
        let changes: Vec<NftOp<'_>> = ops.iter().map(change).collect();
        self.nft()?.transact(&changes)?;
        ops.iter().try_for_each(drop_stale_flows)
    }

    fn apply_links(&mut self, ops: &[Op], at: &Sandboxes) -> Result<(), LinuxError> {
        let inside = |op: &Op| match op {
            Op::AddVeth { peer, .. } => peer.netns.container().cloned(),
            _ => None,
        };
        let missing: Vec<_> = ops.iter().filter_map(inside).collect();
        let links = self.links()?;
        let missing: Vec<_> = missing.into_iter().filter(|name| !links.is_entered(name)).collect();
        self.enter(missing.iter(), at)?;
        self.links()?.apply(ops).map_err(|ApplyError { index, cause }| LinuxError::Link {
            op: Box::new(ops[index].clone()),
            cause,
        })
    }

    /// Leaves in `asked` what is not waited for yet.
    fn apply_stages(
        &mut self,
        plan: &Plan,
        at: &Sandboxes,
        asked: &mut Option<Asked>,
    ) -> Result<(), LinuxError> {
        let mut rest = plan.0.as_slice();
        while let Some(first) = rest.first() {
            let kind = Kind::of(first);
            let same = rest.iter().take_while(|op| Kind::of(op) == kind).count();
            let (stage, after) = rest.split_at(same);
            match kind {
                Kind::Link => self.apply_links(stage, at)?,
                Kind::Firewall => self.apply_firewall(stage)?,
                Kind::Forward => self.apply_forwards(stage, asked)?,
                Kind::Hosts => files::apply_lines(&self.store, stage)?,
                Kind::Other => stage.iter().try_for_each(|op| self.apply_one(op, at))?,
            }
            rest = after;
        }
        Ok(())
    }

    fn apply_forwards(&mut self, ops: &[Op], asked: &mut Option<Asked>) -> Result<(), LinuxError> {
        let (run_dir, line) = (self.store.run_dir(), &mut self.line);
        let (mut added, mut gone) = (Vec::new(), Vec::new());
        for op in ops {
            match op {
                Op::AddForward { forward } => added.push(forward),
                Op::DelForward { forward } => gone.push(forward),
                other => unreachable!("{other} is not about a forward"),
            }
        }
        if !gone.is_empty() {
            let earlier = asked.replace(forwarder::remove(run_dir, line, &gone)?);
            earlier.map_or(Ok(()), Asked::answer)?;
        }
        if added.is_empty() {
            return Ok(());
        }
        asked.take().map_or(Ok(()), Asked::answer)?;
        let opened = self.end_aside()?;
        let (run_dir, line) = (self.store.run_dir(), &mut self.line);
        match opened.is_about(&added) {
            true => Ok(forwarder::hand_over(run_dir, line, opened)?),
            false => Ok(forwarder::add(run_dir, line, &added)?),
        }
    }

    fn apply_one(&mut self, op: &Op, at: &Sandboxes) -> Result<(), LinuxError> {
        match op {
            Op::SetSysctl { sysctl, turned } => Ok(sysctl::write(sysctl, &turned.ours)?),
            Op::RestoreSysctl { sysctl, value } => Ok(sysctl::write(sysctl, value)?),
            Op::DropNetns { container } => {
                self.links()?.leave(container);
                Ok(())
            }
            Op::StartProcess { process: Process::Forwarder } => {
                // It serves what is written down, which may be more than this request is about.
                Ok(forwarder::start(self.store.run_dir())?)
            }
            Op::StopProcess { process: Process::Forwarder } => {
                // The list first: a forwarder that still runs is stopped by the next command.
                forwarder::clear(self.store.run_dir())?;
                Ok(forwarder::stop(self.store.run_dir())?)
            }
            other => files::apply(&self.store, other, at),
        }
    }
}

impl World for Linux {
    type Error = LinuxError;

    fn pending(&mut self) -> Result<Pending, LinuxError> {
        let pending = match &mut self.desk {
            Some(desk) => {
                // Of a request that failed: its journal has them, and may have been carried on since.
                if !std::mem::take(&mut desk.unwritten).is_empty() {
                    desk.memory.forget();
                }
                self.store.pending_by(&mut desk.memory)?
            }
            None => self.store.pending()?,
        };
        if pending.journal.is_some() {
            // What was left undone may be written down and not told. If it does not run, or cannot
            // have a port, whoever carries on will find out.
            let _ = forwarder::reload(self.store.run_dir());
        }
        Ok(pending)
    }

    fn load(&mut self, keys: &Keys) -> Result<State, LinuxError> {
        self.settle_rows()?;
        Ok(match &mut self.desk {
            Some(desk) => self.store.load_by(&mut desk.memory, keys)?,
            None => self.store.load(keys)?,
        })
    }

    fn survey(&mut self, questions: &Questions, state: &State) -> Result<Facts, LinuxError> {
        survey::answer(self, questions, state)
    }

    fn observe(&mut self, scope: &Scope, at: &Sandboxes) -> Result<Topology, LinuxError> {
        let mut seen = Topology::default();
        self.observe_links(scope, at, &mut seen)?;
        self.observe_firewall(scope, &mut seen)?;
        for (sysctl, turned) in &scope.sysctls {
            if sysctl::read(sysctl)? == turned.ours {
                seen.sysctls.insert(sysctl.clone(), turned.clone());
            }
        }
        files::observe(&self.store, scope, at, &mut seen)?;
        let running = !scope.processes.is_empty()
            && forwarder::running_by(self.store.run_dir(), &mut self.line);
        if running {
            seen.processes.insert(Process::Forwarder);
        }
        if running {
            for forward in &scope.forwards {
                if forwarder::is_listed(self.store.run_dir(), forward)? {
                    seen.forwards.insert(forward.clone());
                }
            }
        }
        Ok(seen)
    }

    fn begin(&mut self, journal: &Journal) -> Result<(), LinuxError> {
        match &mut self.desk {
            Some(desk) => self.store.begin_by(&mut desk.memory, journal)?,
            None => self.store.begin(journal)?,
        }
        Ok(())
    }

    fn write(&mut self, rows: &[Row]) -> Result<(), LinuxError> {
        self.settle_rows()?;
        match &mut self.desk {
            Some(desk) => {
                desk.memory.put(rows);
                desk.unwritten = rows.to_vec();
            }
            None => self.store.write(rows)?,
        }
        Ok(())
    }

    fn apply(&mut self, plan: &Plan, at: &Sandboxes) -> Result<(), LinuxError> {
        self.begin_aside(plan)?;
        self.line.take_missed(); // What was so before has had its answer.
        let mut asked = None;
        let done = self.apply_stages(plan, at, &mut asked);
        // Also where something has failed: whoever goes back writes the same rows.
        let aside = self.end_aside().map(drop);
        let rows = self.settle_rows();
        let done = done.and(aside).and(rows);
        // The forwarder has worked meanwhile. A port is free when the command that removes it
        // ends, also if something else fails.
        let answered = match asked.map_or(Ok(()), Asked::answer) {
            // It was killed meanwhile: the ports are free, and others' are to be served again.
            Err(ForwarderError::Silent(_)) => forwarder::succeed(self.store.run_dir()),
            Ok(()) if self.line.take_missed() => forwarder::succeed(self.store.run_dir()),
            answered => answered,
        };
        done.and_then(|()| Ok(answered?))
    }

    fn buried(&mut self, name: &ContainerName) -> Result<(), LinuxError> {
        Ok(self.store.forget_note(name)?)
    }

    fn finish(&mut self) -> Result<(), LinuxError> {
        // Whoever goes on to the next request must not hold namespaces of this one open.
        self.met = None;
        if let Some(links) = &mut self.links {
            links.forget_all();
        }
        self.settle_rows()?;
        match &mut self.desk {
            Some(desk) => self.store.finish_by(&mut desk.memory)?,
            None => self.store.finish()?,
        }
        Ok(())
    }
}

/// Operations that go to the kernel together.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Link,
    Firewall,
    Forward,
    Hosts,
    Other,
}

impl Kind {
    fn of(op: &Op) -> Self {
        match op {
            Op::AddElement { .. } | Op::DelElement { .. } | Op::PutTables | Op::DelTables => {
                Self::Firewall
            }
            Op::AddForward { .. } | Op::DelForward { .. } => Self::Forward,
            Op::AddHostsLine { .. } | Op::DelHostsLine { .. } => Self::Hosts,
            op if is_link_op(op) => Self::Link,
            _ => Self::Other,
        }
    }
}

/// The ports of a plan that can be opened before its turn comes: those that nothing else of the
/// forwarder's must go before.
fn ports_to_open(plan: &Plan) -> Vec<Forward> {
    let is_in_the_way = |op: &Op| {
        matches!(op, Op::DelForward { .. } | Op::StartProcess { .. } | Op::StopProcess { .. })
    };
    let added = plan.0.iter().filter_map(|op| match op {
        Op::AddForward { forward } => Some(forward.clone()),
        _ => None,
    });
    let added: Vec<Forward> = added.collect();
    match added.len() <= forwarder::OPEN_MOST && !plan.0.iter().any(is_in_the_way) {
        true => added,
        false => Vec::new(),
    }
}

/// A UDP flow keeps its translation for as long as it talks: one to a port that now leads
/// elsewhere, or nowhere, is made to ask again.
fn drop_stale_flows(op: &Op) -> Result<(), LinuxError> {
    let (Op::AddElement { id, element } | Op::DelElement { id, element }) = op else {
        return Ok(());
    };
    let (host, rest) = match (id.set, id.key.as_slice()) {
        (SetName::Any4 | SetName::Any6, rest) => (None, rest),
        (SetName::Dnat4 | SetName::Dnat6, [Datum::V4(host), rest @ ..]) => {
            (Some((*host).into()), rest)
        }
        (SetName::Dnat4 | SetName::Dnat6, [Datum::V6(host), rest @ ..]) => {
            (Some((*host).into()), rest)
        }
        _ => return Ok(()),
    };
    let (Value::Concat(to), [Datum::Proto(Proto::Udp), Datum::Port(port)]) = (&element.value, rest)
    else {
        return Ok(());
    };
    let target = match to.as_slice() {
        [Datum::V4(addr), Datum::Port(port)] => ((*addr).into(), *port),
        [Datum::V6(addr), Datum::Port(port)] => ((*addr).into(), *port),
        _ => return Ok(()),
    };
    Conntrack::open()?.drop_udp(host, *port, target)?;
    Ok(())
}

/// A container's first process, which keeps its namespaces.
fn init_of(at: &Sandboxes, name: &ContainerName) -> Option<Task> {
    match at.get(name)?.way {
        Way::Pid { pid, start } => Some(Task { pid, start }),
        _ => None,
    }
}
