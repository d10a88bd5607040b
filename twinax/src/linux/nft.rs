//! nftables over netlink: our two tables and the elements in them, written, asked for and checked.
//!
//! A transaction happens whole or not at all. One that is longer than the socket's send buffer is
//! cut into several, in an order in which every state between lets less through than the last one
//! will, never more: see `Phase`.
//!
//! May not: touch any table but ours.

mod decode;
mod encode;
mod expr;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
};

use rustix::{io::Errno, net::netlink};
use twinax_core::ruleset::{ChainDef, ElementId, SetName, TableDef, TableName, Value, tables};

use self::encode::{CREATE, EXCL};
pub(super) use self::{decode::udata, encode::UDATA_COMMENT};
use super::netlink::{Message, Outgoing, Socket, Verdict, attribute, be32, messages, text};

/// One change.
#[derive(Clone, Copy, Debug)]
pub enum NftOp<'a> {
    /// Writes both tables anew; whatever they held is gone.
    PutTables,
    /// Removes both tables; no error where they are not there.
    DelTables,
    /// Adds an element that is not there yet (else `EEXIST`); its comment is for people, and cut
    /// at 127 bytes.
    Add { id: &'a ElementId, value: &'a Value, comment: &'a str },
    /// Removes an element, if it is there.
    Del { id: &'a ElementId },
}

impl fmt::Display for NftOp<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutTables => f.write_str("write tables inet twinax and bridge twinax"),
            Self::DelTables => f.write_str("delete tables inet twinax and bridge twinax"),
            Self::Add { id, value, .. } => write!(f, "add element {}", id.with(value)),
            Self::Del { id } => write!(f, "delete element {id}"),
        }
    }
}

/// Why the firewall was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    #[error(
        "cannot open a socket to nftables: the kernel needs CONFIG_NF_TABLES, and we CAP_NET_ADMIN"
    )]
    Open(#[source] io::Error),
    /// Refused by the kernel, which undid the transaction. `op` is the index of the operation,
    /// where the kernel says which one; earlier parts of a transaction that had to be cut, those
    /// before `op`'s, stand.
    #[error("{what}{}{text}", if text.is_empty() { "" } else { ": " })]
    Refused {
        op: Option<usize>,
        what: String,
        text: String,
        #[source]
        cause: Errno,
    },
    #[error("{what}: the message could not be sent")]
    Send {
        what: String,
        #[source]
        cause: Errno,
    },
    #[error("{what}: the kernel's answer could not be read")]
    Receive {
        what: String,
        #[source]
        cause: Errno,
    },
    #[error("{what}: the kernel gave no answer that we understand")]
    NoAnswer { what: String },
    #[error("{what}: it does not fit the types of set {set}")]
    Unfit { op: usize, what: String, set: SetName },
    #[error("{what}: the tables change faster than they can be read; try again")]
    Restless { what: String },
}

impl NftError {
    /// Returns the kernel's error number, where it was the kernel that refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { cause, .. } | Self::Send { cause, .. } => Some(*cause),
            Self::Receive { cause, .. } => Some(*cause),
            _ => None,
        }
    }
}

/// What a set holds that could not be read as an element of ours is counted, not shown.
#[derive(Debug, Default)]
pub struct Dump {
    pub elements: Vec<(ElementId, Value, String)>,
    pub foreign: usize,
}

/// A socket to the nftables of one network namespace. Worth keeping: when one is closed that has
/// deleted anything, the kernel waits for its grace period, some 15 ms, and lets nobody write to
/// the tables meanwhile.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
    out: Outgoing,
    seq: u32,
    has_deleted: bool,
}

impl Drop for NftSocket {
    fn drop(&mut self) {
        if self.has_deleted {
            // Where that is refused it is closed as everything is, and waited for.
            let _ = self.socket.part();
        }
    }
}

/// What a message, or an element within one, was made of.
struct Mark {
    seq: u32,
    offset: u32,
    op: usize,
}

/// When its turn comes in a transaction that has to be cut. What closes is added first and deleted
/// last; then what opens; address translation, without which nothing comes in, is the outermost.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Tables,
    DelNat,
    DelOpening,
    /// Both directions, by element, so that one that changes is not gone in between.
    Closing,
    AddOpening,
    AddNat,
}

fn phase(op: &NftOp<'_>) -> Phase {
    use SetName::{
        Any4, Any6, Dnat4, Dnat6, From4, From6, Host4, Host6, Icc, Nat4, Nat6, Open4, Open6, Ours,
        PortAlone, PortGateway, PortMac, PortSource4, PortSource6, Routed, RoutedSource4,
        RoutedSource6, Same, To4, To6,
    };
    let (id, adds) = match op {
        NftOp::PutTables | NftOp::DelTables => return Phase::Tables,
        NftOp::Add { id, .. } => (id, true),
        NftOp::Del { id } => (id, false),
    };
    let (add, del) = match id.set {
        Ours | Same | From4 | From6 | To4 | To6 | Host4 | Host6 | Routed | PortAlone => {
            (Phase::Closing, Phase::Closing)
        }
        Icc | Open4 | Open6 | RoutedSource4 | RoutedSource6 | PortMac | PortGateway
        | PortSource4 | PortSource6 => (Phase::AddOpening, Phase::DelOpening),
        Nat4 | Nat6 | Dnat4 | Dnat6 | Any4 | Any6 => (Phase::AddNat, Phase::DelNat),
    };
    if adds { add } else { del }
}

fn id_of<'a>(op: &NftOp<'a>) -> Option<&'a ElementId> {
    match *op {
        NftOp::Add { id, .. } | NftOp::Del { id } => Some(id),
        NftOp::PutTables | NftOp::DelTables => None,
    }
}

/// Messages about elements are begun anew here, well below the 64 KiB that the list may have.
const MESSAGE_FULL: usize = 60_000;
/// Headers, names and padding around an element, at most, where it is in a message of its own.
const ELEMENT_SPACE: usize = 320;
/// Both tables are a third of this.
const TABLES_SPACE: usize = 48 * 1024;
const ENDS_SPACE: usize = 64;

fn space(op: &NftOp<'_>) -> usize {
    match op {
        NftOp::PutTables | NftOp::DelTables => TABLES_SPACE,
        NftOp::Add { comment, .. } => ELEMENT_SPACE + comment.len().min(encode::COMMENT_MAX),
        NftOp::Del { .. } => ELEMENT_SPACE,
    }
}

impl NftSocket {
    /// Opens a socket to the network namespace that the calling thread is in.
    pub fn open() -> Result<Self, NftError> {
        let opened = Socket::open(Some(netlink::NETFILTER)).and_then(|mut socket| {
            // A refusal does not repeat the request, which may be long.
            socket.switch_on(libc::NETLINK_CAP_ACK)?;
            socket.enlarge_buffers()?;
            Ok(socket)
        });
        let socket = opened.map_err(|errno| NftError::Open(errno.into()))?;
        Ok(Self { socket, out: Outgoing::default(), seq: 0, has_deleted: false })
    }

    /// Bounds the send buffer, in bytes, as the sysctl `net.core.wmem_max` bounds an ordinary
    /// user's: for trying what happens there.
    pub fn limit_send_buffer(&mut self, bytes: usize) -> Result<(), NftError> {
        self.socket.limit_send_buffer(bytes).map_err(|errno| NftError::Open(errno.into()))
    }

    /// Makes the changes, in the order given and at once; or, where they are too long for one
    /// send, in several transactions and in the order of `Phase`.
    pub fn transact(&mut self, ops: &[NftOp<'_>]) -> Result<(), NftError> {
        for (op, one) in ops.iter().enumerate() {
            let fits = match one {
                NftOp::Add { id, value, .. } => id.fits(value),
                NftOp::Del { id } => id.key_fits(),
                NftOp::PutTables | NftOp::DelTables => true,
            };
            if let (false, Some(id)) = (fits, id_of(one)) {
                return Err(NftError::Unfit { op, what: one.to_string(), set: id.set });
            }
        }
        self.has_deleted |= ops.iter().any(|op| !matches!(op, NftOp::Add { .. }));
        let room = self.socket.send_limit().saturating_sub(ENDS_SPACE);
        let mut order: Vec<usize> = (0..ops.len()).collect();
        if ops.iter().map(space).sum::<usize>() <= room {
            return self.transact_at_once(ops, &order);
        }
        order.sort_by(|a, b| {
            let key = |at: usize| {
                let phase = phase(&ops[at]);
                (phase, if phase == Phase::Tables { None } else { id_of(&ops[at]) })
            };
            key(*a).cmp(&key(*b))
        });
        let mut rest = &order[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cut(ops, rest, room));
            self.transact_at_once(ops, now)?;
            rest = later;
        }
        Ok(())
    }

    fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.wrapping_add(1);
        self.seq
    }

    fn transact_at_once(&mut self, ops: &[NftOp<'_>], order: &[usize]) -> Result<(), NftError> {
        match self.try_at_once(ops, order) {
            Err(refused) if refused.errno() == Some(Errno::NOENT) => {
                let left = self.without_missing(ops, order)?;
                if left.len() == order.len() {
                    return Err(refused);
                }
                self.try_at_once(ops, &left)
            }
            outcome => outcome,
        }
    }

    /// Leaves out the deletions of what is not there. (`NFT_MSG_DESTROYSETELEM` would not mind,
    /// but is there only from Linux 6.3 on.)
    fn without_missing(
        &mut self,
        ops: &[NftOp<'_>],
        order: &[usize],
    ) -> Result<Vec<usize>, NftError> {
        let deleted = |at: &usize| match ops[*at] {
            NftOp::Del { id } => Some(id),
            _ => None,
        };
        let doomed: Vec<&ElementId> = order.iter().filter_map(deleted).collect();
        let found = self.get_many(&doomed)?;
        let there = doomed.into_iter().zip(&found).filter(|(_, found)| found.is_some());
        let there: BTreeSet<&ElementId> = there.map(|(id, _)| id).collect();
        let stays = |at: &&usize| deleted(at).is_none_or(|id| there.contains(id));
        Ok(order.iter().filter(stays).copied().collect())
    }

    fn try_at_once(&mut self, ops: &[NftOp<'_>], order: &[usize]) -> Result<(), NftError> {
        if order.is_empty() {
            return Ok(());
        }
        self.out.clear();
        let begin = self.next_seq();
        encode::put_batch(&mut self.out, true, begin);
        let marks = self.put_ops(ops, order);
        let last = self.seq;
        self.out.ask_for_ack();
        let end = self.next_seq();
        encode::put_batch(&mut self.out, false, end);
        let what = |op: Option<usize>| match (op, order) {
            (Some(op), _) => ops[op].to_string(),
            (None, [op]) => ops[*op].to_string(),
            (None, _) => format!("a firewall transaction of {} changes", order.len()),
        };
        self.send(|| what(None))?;
        match self.first_refusal(begin, last) {
            Ok(None) => Ok(()),
            Ok(Some(verdict)) => {
                let op = op_of(&marks, &verdict);
                let cause = verdict.errno.unwrap_or(Errno::IO);
                Err(NftError::Refused { op, what: what(op), text: verdict.text, cause })
            }
            Err(Some(cause)) => Err(NftError::Receive { what: what(None), cause }),
            Err(None) => Err(NftError::NoAnswer { what: what(None) }),
        }
    }

    fn send(&self, what: impl Fn() -> String) -> Result<(), NftError> {
        let sent = self.socket.send(self.out.bytes());
        sent.map_err(|cause| NftError::Send { what: what(), cause })
    }

    /// Puts the operations' messages; the last one put is still under construction.
    fn put_ops(&mut self, ops: &[NftOp<'_>], order: &[usize]) -> Vec<Mark> {
        let Self { out, seq, .. } = self;
        let mut next = || {
            *seq = seq.wrapping_add(1);
            *seq
        };
        let mut marks = Vec::with_capacity(order.len());
        let mut list: Option<(u8, SetName, u32, super::netlink::Open)> = None;
        for &op in order {
            let (kind, flags, id, value) = match ops[op] {
                NftOp::Add { id, value, comment } => {
                    (encode::NEWSETELEM, CREATE | EXCL, id, Some((value, comment)))
                }
                NftOp::Del { id } => (encode::DELSETELEM, 0, id, None),
                tables_op => {
                    list.take().into_iter().for_each(|(.., open)| out.close(open));
                    put_tables_op(out, &tables_op, || {
                        let seq = next();
                        marks.push(Mark { seq, offset: 0, op });
                        seq
                    });
                    continue;
                }
            };
            let goes_on = |(list_kind, set, ..): &(u8, SetName, u32, _)| {
                (*list_kind, *set) == (kind, id.set) && out.message_len() < MESSAGE_FULL
            };
            let (.., seq, open) = match list.take_if(|list| goes_on(list)) {
                Some(list) => list,
                None => {
                    list.take().into_iter().for_each(|(.., open)| out.close(open));
                    let seq = next();
                    encode::put_message(out, kind, id.set.table(), flags, seq);
                    encode::put_set_name(out, id.set);
                    (kind, id.set, seq, out.open(3))
                }
            };
            marks.push(Mark { seq, offset: out.message_len() as u32, op });
            encode::put_element(out, id, value);
            list = Some((kind, id.set, seq, open));
        }
        list.into_iter().for_each(|(.., open)| out.close(open));
        marks
    }

    /// Reads answers up to that to message `last`; returns the first that is a refusal. An error
    /// is the errno of reading, or none where the answers end too early.
    fn first_refusal(&mut self, begin: u32, last: u32) -> Result<Option<Verdict>, Option<Errno>> {
        let mut refusal: Option<Verdict> = None;
        let mut lost = None;
        let mut done = false;
        while !done {
            match self.socket.receive() {
                Ok(None) => break,
                // So many refusals that not all found room; the first ones did.
                Err(Errno::NOBUFS) => lost = Some(Errno::NOBUFS),
                Err(error) => return Err(Some(error)),
                Ok(Some(bytes)) => {
                    for verdict in messages(bytes).filter_map(|one| one.verdict()) {
                        // Left over from before, when a reader gave up early.
                        if verdict.seq.wrapping_sub(begin) > last.wrapping_sub(begin) {
                            continue;
                        }
                        done |= verdict.seq == last && verdict.errno.is_none();
                        if verdict.errno.is_some() && refusal.is_none() {
                            refusal = Some(verdict);
                        }
                    }
                }
            }
        }
        match (refusal, done, lost) {
            (Some(refusal), ..) => Ok(Some(refusal)),
            (None, true, _) => Ok(None),
            (None, false, lost) => Err(lost),
        }
    }
}

fn put_tables_op(out: &mut Outgoing, op: &NftOp<'_>, mut seq: impl FnMut() -> u32) {
    for table in tables() {
        match op {
            NftOp::PutTables => encode::put_table(out, table, &mut seq),
            _ => encode::put_no_table(out, table.name, &mut seq),
        }
    }
}

/// Returns how many of the operations go into the next transaction: as many as there is room for,
/// but not one of two about the same element without the other.
fn cut(ops: &[NftOp<'_>], order: &[usize], room: usize) -> usize {
    let mut used = 0;
    let fit = order.iter().take_while(|op| {
        used += space(&ops[**op]);
        used <= room
    });
    let fit = fit.count().max(1);
    let torn = |at: usize| {
        at < order.len()
            && id_of(&ops[order[at - 1]]).is_some_and(|id| id_of(&ops[order[at]]) == Some(id))
    };
    (1..=fit).rev().find(|at| !torn(*at)).unwrap_or(fit)
}

/// Finds the operation that a refusal is about, if it can be known. Where the kernel dislikes what
/// comes before a message's elements (their table or set is not there), it is the first of them.
fn op_of(marks: &[Mark], verdict: &Verdict) -> Option<usize> {
    let mut of_message = marks.iter().filter(|mark| mark.seq == verdict.seq);
    let first = of_message.clone().next()?;
    match verdict.offset {
        Some(offset) => {
            Some(of_message.rfind(|mark| mark.offset <= offset).map_or(first.op, |mark| mark.op))
        }
        None => of_message.nth(1).is_none().then_some(first.op),
    }
}

/// Questions sent at once: their answers have to find room in the receive buffer.
const QUESTIONS: usize = 64;

impl NftSocket {
    /// Returns the element's value, or nothing if it is not there (nor, maybe, its table).
    pub fn get(&mut self, id: &ElementId) -> Result<Option<Value>, NftError> {
        Ok(self.get_many(&[id])?.pop().flatten().map(|(value, _)| value))
    }

    /// Returns the values and comments of many elements, in their order.
    pub fn get_many(
        &mut self,
        ids: &[&ElementId],
    ) -> Result<Vec<Option<(Value, String)>>, NftError> {
        let mut values = Vec::with_capacity(ids.len());
        for ids in ids.chunks(QUESTIONS) {
            let what = |at: usize| format!("look up element {}", ids[at]);
            if let Some(op) = ids.iter().position(|id| !id.key_fits()) {
                return Err(NftError::Unfit { op, what: what(op), set: ids[op].set });
            }
            let answers = self.ask(ids.len(), what, |out, at, seq| {
                let set = ids[at].set;
                encode::put_message(out, encode::GETSETELEM, set.table(), 0, seq);
                encode::put_set_name(out, set);
                let list = out.open(3);
                encode::put_element(out, ids[at], None);
                out.close(list);
            })?;
            for (at, answer) in answers.iter().enumerate() {
                let Some(body) = answer else {
                    values.push(None);
                    continue;
                };
                let found = decode::elements(ids[at].set, body).next().flatten();
                let Some((_, value, comment)) = found else {
                    return Err(NftError::NoAnswer { what: what(at) });
                };
                values.push(Some((value, comment)));
            }
        }
        Ok(values)
    }

    /// Asks `count` questions in one send, and returns the body of each answer, or nothing where
    /// what was asked for is not there.
    fn ask(
        &mut self,
        count: usize,
        what: impl Fn(usize) -> String,
        put: impl Fn(&mut Outgoing, usize, u32),
    ) -> Result<Vec<Option<Vec<u8>>>, NftError> {
        self.out.clear();
        let first = self.seq.wrapping_add(1);
        for at in 0..count {
            let seq = self.next_seq();
            put(&mut self.out, at, seq);
        }
        self.send(|| what(0))?;
        let mut answers: Vec<Option<Option<Vec<u8>>>> = vec![None; count];
        let mut missing = count;
        while missing > 0 {
            let received = self.socket.receive();
            let received = received.map_err(|cause| NftError::Receive { what: what(0), cause })?;
            for message in messages(received.ok_or_else(|| NftError::NoAnswer { what: what(0) })?) {
                let at = message.seq.wrapping_sub(first) as usize;
                if at >= count {
                    continue;
                }
                let answer = match message.verdict() {
                    None => Some(message.body.to_vec()),
                    Some(Verdict { errno: Some(Errno::NOENT), .. }) => None,
                    Some(Verdict { errno: Some(cause), text, .. }) => {
                        return Err(NftError::Refused {
                            op: Some(at),
                            what: what(at),
                            text,
                            cause,
                        });
                    }
                    Some(Verdict { errno: None, .. }) => continue,
                };
                missing -= usize::from(answers[at].is_none());
                answers[at] = Some(answer);
            }
        }
        Ok(answers.into_iter().map(Option::flatten).collect())
    }

    /// Returns all elements of a set, with their comments; none if the table is not there.
    pub fn dump(&mut self, set: SetName) -> Result<Dump, NftError> {
        let what = || format!("list elements of {} {set}", set.table().family());
        let put = |out: &mut Outgoing, seq| {
            let flags = libc::NLM_F_DUMP as u16;
            encode::put_message(out, encode::GETSETELEM, set.table(), flags, seq);
            encode::put_set_name(out, set);
        };
        self.dump_all(what, put, Dump::default, |dump, message| {
            for element in decode::elements(set, message.body) {
                match element {
                    Some(element) => dump.elements.push(element),
                    None => dump.foreign += 1,
                }
            }
        })
    }

    /// Asks for a dump and folds its messages; again from the start when it was disturbed.
    fn dump_all<T>(
        &mut self,
        what: impl Fn() -> String,
        put: impl Fn(&mut Outgoing, u32),
        start: impl Fn() -> T,
        mut fold: impl FnMut(&mut T, &Message<'_>),
    ) -> Result<T, NftError> {
        const ATTEMPTS: usize = 16;
        for _ in 0..ATTEMPTS {
            self.out.clear();
            let seq = self.next_seq();
            put(&mut self.out, seq);
            self.send(&what)?;
            let mut all = start();
            let mut disturbed = false;
            let mut done = false;
            while !done {
                let received = self.socket.receive();
                let received =
                    received.map_err(|cause| NftError::Receive { what: what(), cause })?;
                let Some(bytes) = received else {
                    return Err(NftError::NoAnswer { what: what() });
                };
                for message in messages(bytes).filter(|message| message.seq == seq) {
                    disturbed |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                    match message.verdict() {
                        None if message.is_done() => done = true,
                        None => fold(&mut all, &message),
                        Some(Verdict { errno: Some(Errno::NOENT), .. }) => return Ok(start()),
                        Some(Verdict { errno: Some(cause), text, .. }) => {
                            return Err(NftError::Refused { op: None, what: what(), text, cause });
                        }
                        Some(_) => {}
                    }
                }
            }
            if !disturbed {
                return Ok(all);
            }
        }
        Err(NftError::Restless { what: what() })
    }

    /// Returns whether both tables stand as this version writes them, by what they bear; that none
    /// of their rules was taken out since is for `table_faults` to see.
    pub fn tables_stand(&mut self) -> Result<bool, NftError> {
        Ok(self.stale_tables()?.is_empty())
    }

    fn stale_tables(&mut self) -> Result<Vec<String>, NftError> {
        let all = tables();
        let what = |at: usize| format!("look up table {}", all[at].name);
        let answers = self.ask(all.len(), what, |out, at, seq| {
            encode::put_message(out, encode::GETTABLE, all[at].name, 0, seq);
            out.text(1, TableName::NAME);
        })?;
        let bodies = answers.iter().map(Option::as_deref);
        let faults = all
            .iter()
            .zip(COMMENTS)
            .zip(bodies)
            .filter_map(|((table, comment), body)| table_fault(table.name, comment, body));
        Ok(faults.collect())
    }

    /// Compares tables, chains and rules (not elements) with what this version writes; returns a
    /// line on each difference.
    pub fn table_faults(&mut self) -> Result<Vec<String>, NftError> {
        let mut faults = self.stale_tables()?;
        if !faults.is_empty() {
            return Ok(faults);
        }
        for table in tables() {
            let chain_at = |at: usize| &table.chains[at];
            let what = |at: usize| format!("look up chain {} {}", table.name, chain_at(at).name);
            let answers = self.ask(table.chains.len(), what, |out, at, seq| {
                encode::put_message(out, encode::GETCHAIN, table.name, 0, seq);
                out.text(1, TableName::NAME);
                out.text(3, chain_at(at).name);
            })?;
            let rules = self.rule_digests(table)?;
            for (chain, answer) in table.chains.iter().zip(&answers) {
                let name = format!("chain {} {}", table.name, chain.name);
                let fault = chain_fault(chain, answer.as_deref())
                    .or_else(|| rules_fault(chain, rules.get(chain.name)));
                faults.extend(fault.map(|fault| format!("{name} {fault}")));
            }
        }
        Ok(faults)
    }

    /// Returns, for each chain of the table, the digests that its rules bear, in order.
    fn rule_digests(&mut self, table: &TableDef) -> Result<Digests, NftError> {
        let what = || format!("list rules of {}", table.name);
        let put = |out: &mut Outgoing, seq| {
            let flags = libc::NLM_F_DUMP as u16;
            encode::put_message(out, encode::GETRULE, table.name, flags, seq);
            out.text(1, TableName::NAME);
        };
        self.dump_all(what, put, Digests::new, |all, message| {
            let body = message.body.get(4..).unwrap_or_default();
            let chain = attribute(body, 2).and_then(text).unwrap_or_default();
            let digest = attribute(body, 7)
                .and_then(|data| decode::udata(data, encode::UDATA_DIGEST))
                .unwrap_or_default();
            all.entry(chain.to_owned()).or_default().push(digest.to_vec());
        })
    }
}

type Digests = BTreeMap<String, Vec<Vec<u8>>>;

/// What our tables bear, in the order of `tables`. Written down, and held to [`TableDef::comment`]
/// by a test, as spelling out every rule would be a tenth of what a command has to think.
const COMMENTS: [&str; 2] = ["twinax 1 351b2449e8dfc2f4", "twinax 1 f37d7771e7522f49"];

fn table_fault(name: TableName, wanted: &str, answer: Option<&[u8]>) -> Option<String> {
    let Some(body) = answer.and_then(|body| body.get(4..)) else {
        return Some(format!("table {name} is not there"));
    };
    let comment = attribute(body, 6)
        .and_then(|data| decode::udata(data, encode::UDATA_COMMENT))
        .and_then(text);
    if comment != Some(wanted) {
        return Some(format!("table {name} was written by another version, or not by twinax"));
    }
    let dormant = attribute(body, 2).and_then(be32).is_none_or(|flags| flags & 1 != 0);
    dormant.then(|| format!("table {name} is dormant"))
}

fn chain_fault(chain: &ChainDef, answer: Option<&[u8]>) -> Option<String> {
    let Some(body) = answer.and_then(|body| body.get(4..)) else {
        return Some("is not there".to_owned());
    };
    let hook = attribute(body, 4);
    let number =
        |nest: Option<&[u8]>, kind| nest.and_then(|data| attribute(data, kind).and_then(be32));
    let found = hook.map(|_| {
        let kind = attribute(body, 7).and_then(text);
        (kind, number(hook, 1), number(hook, 2), number(Some(body), 5))
    });
    let wanted = chain.base.map(|base| {
        let kind = Some(base.kind.as_str());
        let (hook, accept) = (encode::hook_number(base.hook), expr::verdict::ACCEPT as u32);
        (kind, Some(hook), Some(base.priority as u32), Some(accept))
    });
    (found != wanted).then(|| "has another hook, priority or policy".to_owned())
}

fn rules_fault(chain: &ChainDef, found: Option<&Vec<Vec<u8>>>) -> Option<String> {
    let found = found.map_or(&[][..], Vec::as_slice);
    let wanted = chain.rules.iter().map(encode::digest);
    if found.iter().map(Vec::as_slice).eq(wanted.clone().map(|one| one.to_vec())) {
        return None;
    }
    let gone: Vec<String> = chain
        .rules
        .iter()
        .filter(|rule| !found.iter().any(|one| *one == encode::digest(rule)))
        .map(|rule| format!("`{rule}`"))
        .collect();
    let foreign = found.iter().filter(|one| !wanted.clone().any(|want| want == one[..])).count();
    Some(match (gone.len(), foreign) {
        (0, 0) => "has its rules in another order or number".to_owned(),
        (0, foreign) => format!("has {foreign} rules that are not ours"),
        (all, 0) if all == chain.rules.len() => "has none of its rules".to_owned(),
        (_, 0) => format!("lacks {}", gone.join(", ")),
        (_, foreign) => {
            format!("lacks {} and has {foreign} rules that are not ours", gone.join(", "))
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use twinax_core::{
        name::Proto,
        ruleset::{Chain, Datum, GROUP_BASE, Group, KeyType},
    };

    use super::*;

    /// An element for each set, with each kind of value.
    fn one_of_each() -> Vec<(ElementId, Value)> {
        let datum = |kind: &KeyType| match kind {
            KeyType::Group => Datum::Group(Group(GROUP_BASE + 7)),
            KeyType::IfName => Datum::IfName("txv0123456789ab".parse().unwrap()),
            KeyType::V4 => Datum::V4(Ipv4Addr::new(10, 1, 0, 2)),
            KeyType::V6 => Datum::V6(Ipv6Addr::new(0xfd00, 1, 2, 3, 4, 5, 6, 7)),
            KeyType::Mac => Datum::Mac("02:74:0a:01:00:02".parse().unwrap()),
            KeyType::Proto => Datum::Proto(Proto::Udp),
            KeyType::Port => Datum::Port(8080),
        };
        let element = |set: SetName| {
            let value = match set.data() {
                twinax_core::ruleset::DataType::None => Value::None,
                twinax_core::ruleset::DataType::Verdict => Value::Goto(Chain::HostGateway),
                twinax_core::ruleset::DataType::Concat(types) => {
                    Value::Concat(types.iter().map(datum).collect())
                }
            };
            (ElementId { set, key: set.key().iter().map(datum).collect() }, value)
        };
        SetName::ALL.into_iter().map(element).collect()
    }

    #[test]
    fn an_element_reads_back_as_it_was_written() {
        for (id, value) in one_of_each() {
            assert!(id.fits(&value), "{id}");
            let mut out = Outgoing::default();
            encode::put_message(&mut out, encode::NEWSETELEM, id.set.table(), 0, 1);
            encode::put_set_name(&mut out, id.set);
            let list = out.open(3);
            encode::put_element(&mut out, &id, Some((&value, "net/c1")));
            encode::put_element(&mut out, &id, Some((&value, "")));
            out.close(list);
            let message = messages(out.bytes()).next().expect("was put");
            let read: Vec<_> = decode::elements(id.set, message.body).collect();
            let with = |comment: &str| Some((id.clone(), value.clone(), comment.to_owned()));
            assert_eq!(read, [with("net/c1"), with("")]);
        }
    }

    #[test]
    fn what_tables_should_bear_is_what_they_are_given() {
        assert_eq!(COMMENTS.map(str::to_owned), tables().map(TableDef::comment));
    }

    #[test]
    fn a_long_comment_is_cut_between_characters() {
        let (id, value) = one_of_each().swap_remove(0);
        let mut out = Outgoing::default();
        encode::put_message(&mut out, encode::NEWSETELEM, id.set.table(), 0, 1);
        let list = out.open(3);
        encode::put_element(&mut out, &id, Some((&value, &"é".repeat(300))));
        out.close(list);
        let message = messages(out.bytes()).next().expect("was put");
        let read = decode::elements(id.set, message.body).next().flatten().expect("it reads");
        assert_eq!(read.2, "é".repeat(63));
    }

    #[test]
    fn a_foreign_element_is_told_not_believed() {
        let mut out = Outgoing::default();
        encode::put_message(&mut out, encode::NEWSETELEM, TableName::Inet, 0, 1);
        let list = out.open(3);
        for bytes in [&[][..], &[1, 0, 0], &[99, 0, 0, 0, 0, 80, 0, 0]] {
            let element = out.open(1);
            let key = out.open(1);
            out.attr(1, bytes);
            out.close(key);
            out.close(element);
        }
        out.close(list);
        let message = messages(out.bytes()).next().expect("was put");
        let read: Vec<_> = decode::elements(SetName::Any4, message.body).collect();
        assert_eq!(read, [None, None, None]);
    }

    #[test]
    fn an_operation_takes_no_more_space_than_it_was_given() {
        let elements = one_of_each();
        let long = "x".repeat(500);
        for (id, value) in &elements {
            let op = NftOp::Add { id, value, comment: &long };
            let mut out = Outgoing::default();
            encode::put_message(&mut out, encode::NEWSETELEM, id.set.table(), 0, 1);
            encode::put_set_name(&mut out, id.set);
            let list = out.open(3);
            encode::put_element(&mut out, id, Some((value, &long)));
            out.close(list);
            assert!(out.bytes().len() <= space(&op), "{op}: {}", out.bytes().len());
        }
        let mut out = Outgoing::default();
        put_tables_op(&mut out, &NftOp::PutTables, || 1);
        assert!(out.bytes().len() <= TABLES_SPACE, "{}", out.bytes().len());
    }

    #[test]
    fn a_cut_transaction_closes_first_and_opens_last() {
        let elements = one_of_each();
        let find = |set| elements.iter().find(|(id, _)| id.set == set).unwrap();
        let add = |set| {
            let (id, value) = find(set);
            NftOp::Add { id, value, comment: "" }
        };
        let del = |set| NftOp::Del { id: &find(set).0 };
        let order = [
            NftOp::PutTables,
            del(SetName::Any4),
            del(SetName::Open4),
            del(SetName::To4),
            add(SetName::To4),
            add(SetName::PortMac),
            add(SetName::Dnat6),
        ];
        assert!(order.map(|op| phase(&op)).is_sorted());
        let all: Vec<_> = (0..order.len()).collect();
        // An element that changes is not gone between two transactions.
        let room = |ops: &[usize]| ops.iter().map(|op| space(&order[*op])).sum::<usize>();
        assert_eq!(cut(&order, &all, room(&all)), 7);
        assert_eq!(cut(&order, &all, room(&all[..4])), 3);
        assert_eq!(cut(&order, &all[3..], room(&all[3..4])), 1);
        assert_eq!(cut(&order, &all, 0), 1);
    }

    #[test]
    fn a_refusal_names_its_operation() {
        let marks: Vec<_> = [(5, 40, 0), (5, 80, 1), (5, 120, 2), (6, 40, 3)]
            .map(|(seq, offset, op)| Mark { seq, offset, op })
            .into();
        let refusal =
            |seq, offset| op_of(&marks, &Verdict { seq, errno: None, text: String::new(), offset });
        assert_eq!(refusal(5, Some(84)), Some(1));
        assert_eq!(refusal(5, Some(120)), Some(2));
        assert_eq!(refusal(5, Some(20)), Some(0));
        assert_eq!(refusal(5, None), None);
        assert_eq!(refusal(6, None), Some(3));
        assert_eq!(refusal(4, Some(40)), None);
    }
}
