//! A blocking netlink socket that sends many messages at once and says which one failed.
//!
//! Knows nothing of what the messages mean. A socket keeps the network namespace in which it
//! was opened, whatever its thread does later.

use std::{
    fmt,
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::io::Errno;

use super::netlink::{self, Outgoing, Socket};

/// One send carries at most this much: well under the stock `net.core.wmem_default` (212,992).
const SEND_BYTES: usize = 96 * 1024;

/// ... and at most this many messages, so that the answers, were each an error, fit the
/// receive buffer (each takes 768 to 1,280 bytes of the stock 212,992, as it repeats the request).
const SEND_MESSAGES: usize = 128;

/// How many questions are under way at once: an answer about a link may take 4 kB of the
/// receive buffer.
const ASK_MESSAGES: usize = 16;

/// How often a dump that the kernel calls inconsistent is tried again.
const DUMP_TRIES: u32 = 16;

/// The kernel's refusal of one message, or the failure of the socket itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchError {
    /// Which of the messages, from 0.
    pub index: usize,
    pub errno: Errno,
    /// What the kernel (extended acknowledgement) or this module adds; may be empty.
    pub text: String,
}

impl fmt::Display for BatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno)?;
        match self.text.is_empty() {
            true => Ok(()),
            false => write!(f, ": {}", self.text),
        }
    }
}

impl std::error::Error for BatchError {}

impl BatchError {
    /// A refusal without words.
    pub fn refused(errno: Errno) -> Self {
        Self::local(0, errno, "")
    }

    fn local(index: usize, errno: Errno, text: &str) -> Self {
        Self { index, errno, text: text.to_owned() }
    }
}

/// Requests to the kernel, written one after another.
#[derive(Debug, Default)]
pub struct Batch {
    out: Outgoing,
    requests: Vec<Request>,
}

#[derive(Debug)]
struct Request {
    /// Where it begins.
    start: usize,
    /// Refusals that count as done, such as `ENODEV` of a deletion.
    forgiven: &'static [Errno],
    /// What follows is sent only once this one was accepted.
    gate: bool,
}

impl Batch {
    /// Begins a request of that type (`RTM_*`), with these `NLM_F_*` beside `NLM_F_REQUEST`.
    pub fn request(&mut self, kind: u16, flags: u16) -> &mut Outgoing {
        let start = self.out.bytes().len();
        self.requests.push(Request { start, forgiven: &[], gate: false });
        self.out.message(kind, flags, 0);
        &mut self.out
    }

    /// As [`Self::request`]; nothing of what comes after it is sent if it is refused.
    pub fn gate(&mut self, kind: u16, flags: u16) -> &mut Outgoing {
        self.request(kind, flags);
        if let Some(last) = self.requests.last_mut() {
            last.gate = true;
        }
        &mut self.out
    }

    /// Counts these refusals of the last request as done.
    pub fn forgive(&mut self, forgiven: &'static [Errno]) {
        if let Some(last) = self.requests.last_mut() {
            last.forgiven = forgiven;
        }
    }

    /// How many requests there are.
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// Forgets the requests, and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.out.clear();
        self.requests.clear();
    }

    /// Where the request of that number begins, or all end.
    fn start(&self, n: usize) -> usize {
        self.requests.get(n).map_or_else(|| self.out.bytes().len(), |request| request.start)
    }

    /// Numbers the requests of a range, and returns their bytes.
    fn numbered(&mut self, range: Range<usize>, first: u32) -> &[u8] {
        for (request, seq) in self.requests[range.clone()].iter().zip(first..) {
            self.out.set_seq(request.start, seq);
        }
        &self.out.bytes()[self.start(range.start)..self.start(range.end)]
    }

    /// Returns how far one send may go that begins with the request `start`.
    fn send_end(&self, start: usize) -> usize {
        let limit = self.len().min(start + SEND_MESSAGES);
        let fits = |end: &usize| self.start(*end + 1) - self.start(start) <= SEND_BYTES;
        let goes_on = |end: &usize| !self.requests[*end - 1].gate && fits(end);
        (start + 1..limit).find(|end| !goes_on(end)).unwrap_or(limit)
    }
}

/// A netlink socket of any protocol that waits for its answers, with messages as bytes.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: Socket,
    seq: u32,
}

impl Channel {
    /// Opens a socket in the network namespace of the calling thread.
    pub(crate) fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self, Errno> {
        Ok(Self { socket: Socket::open(protocol)?, seq: 0 })
    }

    /// Returns `count` sequence numbers, the first of them; never 0.
    pub(crate) fn take_seq(&mut self, count: u32) -> u32 {
        if self.seq.checked_add(count).is_none() {
            self.seq = 0;
        }
        let first = self.seq + 1;
        self.seq += count;
        first
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        self.socket.send(bytes)
    }

    /// Waits for one datagram and calls `each` with the messages in it, in order, until one
    /// returns a value.
    pub(crate) fn receive<T>(
        &mut self,
        each: impl FnMut(netlink::Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        Ok(netlink::messages(self.socket.wait()?).find_map(each))
    }

    /// Sends one question as a dump request and hands every message of the answer to `each`;
    /// starts over, which `each` is told by `None`, when the kernel says that what it walked
    /// changed underneath.
    pub(crate) fn dump(
        &mut self,
        question: &mut Outgoing,
        each: &mut dyn FnMut(Option<netlink::Message<'_>>),
    ) -> Result<(), BatchError> {
        question.flag(0, libc::NLM_F_DUMP as u16);
        for _ in 0..DUMP_TRIES {
            let seq = self.take_seq(1);
            each(None);
            let io = |errno| BatchError::local(0, errno, "dump");
            question.set_seq(0, seq);
            self.send(question.bytes()).map_err(io)?;
            let mut interrupted = false;
            let end = loop {
                let end = self.receive(|message| {
                    if message.seq != seq {
                        return None;
                    }
                    interrupted |= message.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                    if message.is_done() || message.is_verdict() {
                        return Some(message.refusal());
                    }
                    each(Some(message));
                    None
                });
                if let Some(end) = end.map_err(io)? {
                    break end;
                }
            };
            match end {
                Some((errno, text)) => return Err(BatchError { index: 0, errno, text }),
                None if !interrupted => return Ok(()),
                None => {}
            }
        }
        Err(BatchError::local(0, Errno::INTR, "what is listed kept changing"))
    }
}

/// A socket for links, addresses, routes and neighbours (`NETLINK_ROUTE`).
#[derive(Debug)]
pub struct RouteSocket {
    channel: Channel,
    /// What is asked, in the same memory each time.
    questions: Batch,
    /// Whether the kernel was told to look at all of a dump's filters.
    strict: bool,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread, and for ever of that one.
    pub fn open() -> Result<Self, Errno> {
        let channel = Channel::open(None)?;
        Ok(Self { channel, questions: Batch::default(), strict: false })
    }

    /// As [`netlink::Socket::index_of`].
    pub(super) fn index_of(&self, link: &str) -> Result<u32, Errno> {
        self.channel.socket.index_of(link)
    }

    /// As [`netlink::Socket::name_at`].
    pub(crate) fn name_at(&self, index: u32) -> Result<String, Errno> {
        self.channel.socket.name_at(index)
    }

    /// As [`netlink::Socket::settle_carrier`].
    pub(super) fn settle_carrier(&self, link: &str) -> Result<(), Errno> {
        self.channel.socket.settle_carrier(link)
    }

    /// Sends all requests, in as few sends as the buffers allow, and waits for the last.
    ///
    /// The kernel goes on after a request it refuses: what follows is done as far as it can be,
    /// up to the next [gate](Batch::gate) or the end of the send. The error is that of the
    /// first refusal; nothing is undone.
    pub fn send(&mut self, batch: &mut Batch) -> Result<(), BatchError> {
        let mut start = 0;
        while start < batch.len() {
            start = self.send_some(batch, start)?;
        }
        Ok(())
    }

    /// Sends requests from `start`, and returns how far it got.
    fn send_some(&mut self, batch: &mut Batch, start: usize) -> Result<usize, BatchError> {
        let end = batch.send_end(start);
        let count = (end - start) as u32;
        let first = self.channel.take_seq(count);
        // Only the last one is acknowledged when it succeeds; refusals come for any.
        batch.out.flag(batch.start(end - 1), libc::NLM_F_ACK as u16);
        let io = |errno| BatchError::local(start, errno, "netlink socket");
        self.channel.send(batch.numbered(start..end, first)).map_err(io)?;

        let mut failure: Option<BatchError> = None;
        loop {
            let done = self.channel.receive(|message| {
                let nth = message.seq.wrapping_sub(first);
                if !message.is_verdict() || nth >= count {
                    return None;
                }
                let index = start + nth as usize;
                if let Some((errno, text)) = message.refusal()
                    && failure.is_none()
                    && !batch.requests[index].forgiven.contains(&errno)
                {
                    failure = Some(BatchError { index, errno, text });
                }
                (index + 1 == end).then_some(())
            });
            if done.map_err(io)?.is_some() {
                break;
            }
        }
        failure.map_or(Ok(end), Err)
    }

    /// Asks several questions at once, each with one answer or one refusal.
    pub(super) fn ask<T>(
        &mut self,
        write: impl FnOnce(&mut Batch),
        read: Read<T>,
    ) -> Result<Vec<Result<T, Errno>>, BatchError> {
        self.questions.clear();
        write(&mut self.questions);
        let mut answers = Vec::with_capacity(self.questions.len());
        let mut garbled = None;
        for start in (0..self.questions.len()).step_by(ASK_MESSAGES) {
            self.ask_some(start, &mut |answer| {
                let answer = answer.and_then(|message| {
                    read(&message).ok_or_else(|| {
                        garbled = garbled.or(Some(answers.len()));
                        Errno::BADMSG
                    })
                });
                answers.push(answer);
            })?;
        }
        match garbled {
            Some(index) => Err(BatchError::local(index, Errno::BADMSG, "cannot be read")),
            None => Ok(answers),
        }
    }

    fn ask_some(
        &mut self,
        start: usize,
        each: &mut dyn FnMut(Result<netlink::Message<'_>, Errno>),
    ) -> Result<(), BatchError> {
        let end = self.questions.len().min(start + ASK_MESSAGES);
        let count = (end - start) as u32;
        let first = self.channel.take_seq(count);
        let io = |errno| BatchError::local(start, errno, "netlink socket");
        self.channel.send(self.questions.numbered(start..end, first)).map_err(io)?;
        let mut missing = count;
        while missing > 0 {
            let received = self.channel.receive(|message| {
                if message.seq.wrapping_sub(first) >= count {
                    return None::<()>;
                }
                missing = missing.saturating_sub(1);
                each(match message.refusal() {
                    Some((errno, _)) => Err(errno),
                    None if message.is_verdict() => Err(Errno::NOMSG),
                    None => Ok(message),
                });
                None
            });
            received.map_err(io)?;
        }
        Ok(())
    }

    /// Asks one question; `None` where the kernel says that there is no such thing.
    pub(super) fn get<T>(
        &mut self,
        write: impl FnOnce(&mut Batch),
        read: Read<T>,
    ) -> Result<Option<T>, BatchError> {
        match self.ask(write, read)?.pop().unwrap_or(Err(Errno::NOMSG)) {
            Ok(answer) => Ok(Some(answer)),
            Err(
                Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::NETUNREACH | Errno::HOSTUNREACH,
            ) => Ok(None),
            Err(errno) => Err(BatchError::refused(errno)),
        }
    }

    /// Lists everything that matches the question and that `read` makes something of. Where the
    /// link is gone (`ENODEV`) or the routing table was never used (`ENOENT`) that is nothing.
    pub(super) fn dump<T>(
        &mut self,
        write: impl FnOnce(&mut Batch),
        read: Read<T>,
    ) -> Result<Vec<T>, BatchError> {
        if !self.strict {
            // Without it the kernel ignores most filters of a dump.
            let strict = self.channel.socket.switch_on(libc::NETLINK_GET_STRICT_CHK);
            strict.map_err(BatchError::refused)?;
            self.strict = true;
        }
        self.questions.clear();
        write(&mut self.questions);
        let mut found = Vec::new();
        let done = self.channel.dump(&mut self.questions.out, &mut |message| match message {
            None => found.clear(),
            Some(message) => found.extend(read(&message)),
        });
        match done {
            Err(error) if matches!(error.errno, Errno::NODEV | Errno::NOENT) => Ok(Vec::new()),
            done => done.map(|()| found),
        }
    }
}

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.socket.as_fd()
    }
}

/// How an answer is read; `None` where it cannot be.
pub(super) type Read<T> = fn(&netlink::Message<'_>) -> Option<T>;

#[cfg(test)]
impl Batch {
    pub(super) fn messages(&self) -> Vec<netlink::Message<'_>> {
        netlink::messages(self.out.bytes()).collect()
    }

    pub(super) fn forgiven(&self) -> Vec<&'static [Errno]> {
        self.requests.iter().map(|request| request.forgiven).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_send_ends_at_a_gate_and_where_it_is_full() {
        let mut batch = Batch::default();
        batch.request(19, 0).body(&[0; 16]);
        batch.gate(16, 0).body(&[0; 16]);
        for _ in 2..300 {
            batch.request(19, 0).body(&[0; 16]);
        }
        let mut ends = Vec::new();
        while ends.last() != Some(&300) {
            ends.push(batch.send_end(ends.last().copied().unwrap_or(0)));
        }
        assert_eq!(ends, [2, 130, 258, 300]);
        batch.clear();
        for _ in 0..4 {
            batch.request(19, 0).body(&[0; SEND_BYTES / 2 - 16]);
        }
        assert_eq!([0, 1, 2, 3].map(|start| batch.send_end(start)), [2, 3, 4, 4]);
        let bytes = batch.numbered(2..4, 7);
        assert_eq!(netlink::messages(bytes).map(|one| one.seq).collect::<Vec<_>>(), [7, 8]);
    }
}
