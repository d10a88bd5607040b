//! A blocking netlink socket that sends many messages at once and says which one failed.
//!
//! Knows nothing of what the messages mean. A socket keeps the network namespace in which it
//! was opened, whatever its thread does later.

use std::fmt;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP,
    NLMSG_OVERRUN, NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;

use super::netlink::{self, Socket};

/// One send carries at most this much: well under the stock `net.core.wmem_default` (212,992).
const SEND_BYTES: usize = 96 * 1024;

/// ... and at most this many messages, so that the answers, were each an error, fit the
/// receive buffer (each takes about 768 bytes of the stock 212,992).
const SEND_MESSAGES: usize = 128;

/// How many questions are under way at once: an answer about a link may take 4 kB of the
/// receive buffer.
const ASK_MESSAGES: usize = 16;

/// Bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

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

/// A change to ask of the kernel.
#[derive(Clone, Debug)]
pub struct Message {
    pub body: RouteNetlinkMessage,
    /// `NLM_F_*` beside `NLM_F_REQUEST`, which is always set.
    pub flags: u16,
    /// Refusals that count as done, such as `ENODEV` of a deletion.
    pub forgiven: &'static [Errno],
    /// What follows is sent only once this one was accepted.
    pub gate: bool,
}

impl Message {
    /// A change with these flags, nothing forgiven.
    pub fn new(body: RouteNetlinkMessage, flags: u16) -> Self {
        Self { body, flags, forgiven: &[], gate: false }
    }

    /// Counts these refusals as done.
    pub fn forgiving(mut self, forgiven: &'static [Errno]) -> Self {
        self.forgiven = forgiven;
        self
    }

    /// Sends nothing more of the batch if this one is refused.
    pub fn first(mut self) -> Self {
        self.gate = true;
        self
    }
}

/// Appends a message with its header (`struct nlmsghdr`). The crate's own way would have a copy of
/// each body.
fn encode(body: &RouteNetlinkMessage, flags: u16, seq: u32, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    let length = HEADER + body.buffer_len();
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&body.message_type().to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&seq.to_ne_bytes());
    bytes.resize(start + length.next_multiple_of(4), 0);
    body.serialize(&mut bytes[start + HEADER..start + length]);
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

    /// Sends one dump request and hands every message of the answer to `each`; starts over,
    /// after `reset`, when the kernel says that what it walked changed underneath.
    pub(crate) fn dump(
        &mut self,
        mut encode: impl FnMut(u32) -> Vec<u8>,
        mut each: impl FnMut(Option<netlink::Message<'_>>),
    ) -> Result<(), BatchError> {
        for _ in 0..DUMP_TRIES {
            let seq = self.take_seq(1);
            each(None);
            let io = |errno| BatchError::local(0, errno, "dump");
            self.send(&encode(seq)).map_err(io)?;
            let mut interrupted = false;
            let end = loop {
                let end = self.receive(|message| {
                    if message.seq != seq {
                        return None;
                    }
                    interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
                    match message.kind {
                        NLMSG_DONE | NLMSG_ERROR => Some(message.refusal()),
                        NLMSG_NOOP | NLMSG_OVERRUN => None,
                        _ => {
                            each(Some(message));
                            None
                        }
                    }
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
    /// What is sent, in the same memory each time.
    out: Vec<u8>,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread, and for ever of that one.
    pub fn open() -> Result<Self, Errno> {
        let channel = Channel::open(None)?;
        // Without it the kernel ignores most filters of a dump.
        channel.socket.switch_on(libc::NETLINK_GET_STRICT_CHK)?;
        Ok(Self { channel, out: Vec::new() })
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

    /// Sends all messages, in as few sends as the buffers allow, and waits for the last.
    ///
    /// The kernel goes on after a message it refuses: what follows is done as far as it can be,
    /// up to the next [gate](Message::gate) or the end of the send. The error is that of the
    /// first refusal; messages are not undone.
    pub fn batch(&mut self, messages: &[Message]) -> Result<(), BatchError> {
        let mut start = 0;
        while start < messages.len() {
            start = self.send_some(messages, start)?;
        }
        Ok(())
    }

    /// Sends messages from `start`, and returns how far it got.
    fn send_some(&mut self, messages: &[Message], start: usize) -> Result<usize, BatchError> {
        let limit = messages.len().min(start + SEND_MESSAGES);
        let first = self.channel.take_seq((limit - start) as u32);
        let bytes = &mut self.out;
        bytes.clear();
        let mut last = 0;
        let mut end = start;
        while end < limit {
            let at = bytes.len();
            let message = &messages[end];
            encode(&message.body, message.flags, first + (end - start) as u32, bytes);
            if end > start && bytes.len() > SEND_BYTES {
                bytes.truncate(at);
                break;
            }
            last = at;
            end += 1;
            if messages[end - 1].gate {
                break;
            }
        }
        // Only the last one is acknowledged when it succeeds; refusals come for any.
        let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | NLM_F_ACK;
        bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        let io = |errno| BatchError::local(start, errno, "netlink socket");
        self.channel.send(bytes).map_err(io)?;

        let last_seq = first + (end - start) as u32 - 1;
        let mut failure: Option<BatchError> = None;
        loop {
            let done = self.channel.receive(|message| {
                if message.kind != NLMSG_ERROR || !(first..=last_seq).contains(&message.seq) {
                    return None;
                }
                let index = start + (message.seq - first) as usize;
                if let Some((errno, text)) = message.refusal()
                    && failure.is_none()
                    && !messages[index].forgiven.contains(&errno)
                {
                    failure = Some(BatchError { index, errno, text });
                }
                (message.seq == last_seq).then_some(())
            });
            if done.map_err(io)?.is_some() {
                break;
            }
        }
        failure.map_or(Ok(end), Err)
    }

    /// Asks several questions at once, each with one answer or one refusal.
    pub fn ask(
        &mut self,
        questions: &[RouteNetlinkMessage],
    ) -> Result<Vec<Result<RouteNetlinkMessage, Errno>>, BatchError> {
        self.ask_for(questions, |message| decode(message.whole))
    }

    /// As [`Self::ask`], with a reader of one's own.
    pub(super) fn ask_for<T>(
        &mut self,
        questions: &[RouteNetlinkMessage],
        read: Read<T>,
    ) -> Result<Vec<Result<T, Errno>>, BatchError> {
        let mut answers = Vec::with_capacity(questions.len());
        for (n, some) in questions.chunks(ASK_MESSAGES).enumerate() {
            self.ask_some(some, read, &mut answers).map_err(|mut error| {
                error.index += n * ASK_MESSAGES;
                error
            })?;
        }
        Ok(answers)
    }

    fn ask_some<T>(
        &mut self,
        questions: &[RouteNetlinkMessage],
        read: Read<T>,
        answers: &mut Vec<Result<T, Errno>>,
    ) -> Result<(), BatchError> {
        let first = self.channel.take_seq(questions.len() as u32);
        self.out.clear();
        for (n, question) in questions.iter().enumerate() {
            encode(question, 0, first + n as u32, &mut self.out);
        }
        let io = |errno| BatchError::local(0, errno, "netlink socket");
        self.channel.send(&self.out).map_err(io)?;
        let goal = answers.len() + questions.len();
        while answers.len() < goal {
            let index = answers.len() + questions.len() - goal;
            let mut garbled = None;
            self.channel
                .receive(|message| {
                    if message.seq.wrapping_sub(first) >= questions.len() as u32 {
                        return None::<()>;
                    }
                    match (message.kind, message.refusal()) {
                        (NLMSG_ERROR, Some((errno, _))) => answers.push(Err(errno)),
                        (NLMSG_ERROR, None) => answers.push(Err(Errno::NOMSG)),
                        _ => match read(&message) {
                            Ok(answer) => answers.push(Ok(answer)),
                            Err(text) => {
                                garbled = garbled.take().or(Some(text));
                                answers.push(Err(Errno::BADMSG));
                            }
                        },
                    }
                    None
                })
                .map_err(io)?;
            if let Some(text) = garbled {
                return Err(BatchError { index, errno: Errno::BADMSG, text });
            }
        }
        Ok(())
    }

    /// Asks one question; `None` where the kernel answers that there is no such thing.
    pub fn get(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, BatchError> {
        only(self.ask(std::slice::from_ref(&question))?)
    }

    /// Lists everything that matches `question`. Where the link is gone (`ENODEV`) or the routing
    /// table was never used (`ENOENT`) that is nothing.
    pub fn dump(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, BatchError> {
        self.dump_for(question, |message| decode(message.whole))
    }

    /// As [`Self::dump`], with a reader of one's own.
    pub(super) fn dump_for<T>(
        &mut self,
        question: &RouteNetlinkMessage,
        read: Read<T>,
    ) -> Result<Vec<T>, BatchError> {
        let mut found = Vec::new();
        let mut garbled = None;
        let done = self.channel.dump(
            |seq| {
                let mut bytes = Vec::new();
                encode(question, NLM_F_DUMP, seq, &mut bytes);
                bytes
            },
            |message| match message {
                None => found.clear(),
                Some(message) => match read(&message) {
                    Ok(decoded) => found.push(decoded),
                    Err(text) => garbled = Some(text),
                },
            },
        );
        match (done, garbled) {
            (Err(error), _) if matches!(error.errno, Errno::NODEV | Errno::NOENT) => Ok(Vec::new()),
            (Err(error), _) => Err(error),
            (Ok(()), Some(text)) => Err(BatchError { index: 0, errno: Errno::BADMSG, text }),
            (Ok(()), None) => Ok(found),
        }
    }
}

/// How an answer is read; a text says what is wrong with it.
pub(super) type Read<T> = fn(&netlink::Message<'_>) -> Result<T, String>;

/// The one answer; `None` where the kernel says that there is no such thing.
pub(super) fn only<T>(mut answers: Vec<Result<T, Errno>>) -> Result<Option<T>, BatchError> {
    match answers.pop().unwrap_or(Err(Errno::NOMSG)) {
        Ok(answer) => Ok(Some(answer)),
        Err(Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::NETUNREACH | Errno::HOSTUNREACH) => {
            Ok(None)
        }
        Err(errno) => Err(BatchError { index: 0, errno, text: String::new() }),
    }
}

fn decode(whole: &[u8]) -> Result<RouteNetlinkMessage, String> {
    match NetlinkMessage::deserialize(whole).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(body)) => Ok(body),
        Ok(_) => Err("an answer of an unexpected kind".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::NetlinkHeader;

    use super::*;
    use crate::linux::link;

    #[test]
    fn messages_are_those_of_the_crate_without_a_copy_of_them() {
        let mut bytes = Vec::new();
        let mut expected = Vec::new();
        let questions = [link::get_by_name("txv1"), link::get_by_index(7), link::mtu(3, 1400).body];
        for (seq, body) in (5..).zip(&questions) {
            encode(body, NLM_F_DUMP, seq, &mut bytes);
            let mut header = NetlinkHeader::default();
            (header.flags, header.sequence_number) = (NLM_F_REQUEST | NLM_F_DUMP, seq);
            let payload = NetlinkPayload::InnerMessage(body.clone());
            let mut message = NetlinkMessage::new(header, payload);
            message.finalize();
            let start = expected.len();
            expected.resize(start + message.buffer_len().next_multiple_of(4), 0);
            message.serialize(&mut expected[start..]);
        }
        assert_eq!(bytes, expected);
    }
}
