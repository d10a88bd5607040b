//! A blocking netlink socket that sends many messages at once and says which one failed.
//!
//! Knows nothing of what the messages mean. A socket keeps the network namespace in which it
//! was opened, whatever its thread does later.
#![allow(unsafe_code, reason = "rustix has no netlink options and no SO_NETNS_COOKIE")]

use std::{
    fmt, mem,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN, NetlinkHeader, NetlinkMessage,
    NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
};

/// `struct nlmsghdr` (linux/netlink.h): length u32, type u16, flags u16, seq u32, pid u32.
pub(crate) const HEADER_BYTES: usize = 16;

/// One send carries at most this much: well under the stock `net.core.wmem_default` (212,992).
const SEND_BYTES: usize = 96 * 1024;

/// ... and at most this many messages, so that the answers, were each an error, fit the
/// receive buffer (each takes about 768 bytes of the stock 212,992).
const SEND_MESSAGES: usize = 128;

/// How many questions are under way at once: an answer about a link may take 4 kB of the
/// receive buffer.
const ASK_MESSAGES: usize = 16;

/// The kernel cuts a dump into pieces of at most 32 kB (`netlink_dump`).
const RECEIVE_BYTES: usize = 64 * 1024;

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

    fn encode(&self, seq: u32) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | self.flags;
        header.sequence_number = seq;
        let payload = NetlinkPayload::InnerMessage(self.body.clone());
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len().next_multiple_of(4)];
        message.serialize(&mut bytes);
        bytes
    }
}

/// One received message, its header taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) seq: u32,
    pub(crate) payload: &'a [u8],
    /// Header and payload.
    pub(crate) whole: &'a [u8],
}

/// A netlink socket of any protocol, with messages as bytes.
#[derive(Debug)]
pub(crate) struct Channel {
    fd: OwnedFd,
    seq: u32,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens a socket in the network namespace of the calling thread; `None` is `NETLINK_ROUTE`,
    /// which is protocol 0.
    pub(crate) fn open(protocol: Option<rustix::net::Protocol>) -> Result<Self, Errno> {
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            protocol,
        )?;
        switch_on(fd.as_fd(), libc::NETLINK_CAP_ACK)?;
        switch_on(fd.as_fd(), libc::NETLINK_EXT_ACK)?;
        Ok(Self { fd, seq: 0, buffer: vec![0; RECEIVE_BYTES] })
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
        super::tape::record(bytes);
        rustix::io::retry_on_intr(|| {
            rustix::net::send(&self.fd, bytes, SendFlags::empty()).map(drop)
        })
    }

    /// Waits for one datagram and calls `each` with the messages in it, in order, until one
    /// returns a value.
    pub(crate) fn receive<T>(
        &mut self,
        mut each: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        let (fd, buffer) = (&self.fd, &mut self.buffer);
        let (_, length) = rustix::io::retry_on_intr(|| {
            rustix::net::recv(fd, buffer.as_mut_slice(), RecvFlags::TRUNC)
        })?;
        // With MSG_TRUNC the length is the datagram's, which may exceed the buffer.
        let mut rest = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
        while let Some((message, next)) = take_message(rest) {
            if let Some(value) = each(message) {
                return Ok(Some(value));
            }
            rest = next;
        }
        Ok(None)
    }

    /// Sends one dump request and hands every message of the answer to `each`; starts over,
    /// after `reset`, when the kernel says that what it walked changed underneath.
    pub(crate) fn dump(
        &mut self,
        mut encode: impl FnMut(u32) -> Vec<u8>,
        mut each: impl FnMut(Option<Received<'_>>),
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
                        NLMSG_DONE | NLMSG_ERROR => Some(refusal(message)),
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

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A socket for links, addresses, routes and neighbours (`NETLINK_ROUTE`).
#[derive(Debug)]
pub struct RouteSocket {
    channel: Channel,
}

impl RouteSocket {
    /// Opens a socket in the network namespace of the calling thread, and for ever of that one.
    pub fn open() -> Result<Self, Errno> {
        let channel = Channel::open(None)?;
        // Without it the kernel ignores most filters of a dump.
        switch_on(channel.as_fd(), libc::NETLINK_GET_STRICT_CHK)?;
        Ok(Self { channel })
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
        let mut bytes: Vec<u8> = Vec::with_capacity(4096);
        let mut last = 0;
        let mut end = start;
        while end < limit {
            let encoded = messages[end].encode(first + (end - start) as u32);
            if end > start && bytes.len() + encoded.len() > SEND_BYTES {
                break;
            }
            last = bytes.len();
            bytes.extend(encoded);
            end += 1;
            if messages[end - 1].gate {
                break;
            }
        }
        // Only the last one is acknowledged when it succeeds; refusals come for any.
        let flags = u16::from_ne_bytes([bytes[last + 6], bytes[last + 7]]) | NLM_F_ACK;
        bytes[last + 6..last + 8].copy_from_slice(&flags.to_ne_bytes());
        let io = |errno| BatchError::local(start, errno, "netlink socket");
        self.channel.send(&bytes).map_err(io)?;

        let last_seq = first + (end - start) as u32 - 1;
        let mut failure: Option<BatchError> = None;
        loop {
            let done = self.channel.receive(|message| {
                if message.kind != NLMSG_ERROR || !(first..=last_seq).contains(&message.seq) {
                    return None;
                }
                let index = start + (message.seq - first) as usize;
                if let Some((errno, text)) = refusal(message)
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
        let mut answers = Vec::with_capacity(questions.len());
        for (n, some) in questions.chunks(ASK_MESSAGES).enumerate() {
            self.ask_some(some, &mut answers).map_err(|mut error| {
                error.index += n * ASK_MESSAGES;
                error
            })?;
        }
        Ok(answers)
    }

    fn ask_some(
        &mut self,
        questions: &[RouteNetlinkMessage],
        answers: &mut Vec<Result<RouteNetlinkMessage, Errno>>,
    ) -> Result<(), BatchError> {
        let first = self.channel.take_seq(questions.len() as u32);
        let mut bytes = Vec::new();
        for (n, question) in questions.iter().enumerate() {
            bytes.extend(Message::new(question.clone(), 0).encode(first + n as u32));
        }
        let io = |errno| BatchError::local(0, errno, "netlink socket");
        self.channel.send(&bytes).map_err(io)?;
        let goal = answers.len() + questions.len();
        while answers.len() < goal {
            let index = answers.len() + questions.len() - goal;
            let mut garbled = None;
            self.channel
                .receive(|message| {
                    if message.seq.wrapping_sub(first) >= questions.len() as u32 {
                        return None::<()>;
                    }
                    match (message.kind, refusal(message)) {
                        (NLMSG_ERROR, Some((errno, _))) => answers.push(Err(errno)),
                        (NLMSG_ERROR, None) => answers.push(Err(Errno::NOMSG)),
                        _ => match decode(message.whole) {
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
        let answer = self.ask(std::slice::from_ref(&question))?.pop();
        match answer.unwrap_or(Err(Errno::NOMSG)) {
            Ok(answer) => Ok(Some(answer)),
            Err(
                Errno::NODEV | Errno::NOENT | Errno::SRCH | Errno::NETUNREACH | Errno::HOSTUNREACH,
            ) => Ok(None),
            Err(errno) => Err(BatchError { index: 0, errno, text: String::new() }),
        }
    }

    /// Lists everything that matches `question`. Where the link is gone (`ENODEV`) or the routing
    /// table was never used (`ENOENT`) that is nothing.
    pub fn dump(
        &mut self,
        question: &RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, BatchError> {
        let question = Message::new(question.clone(), NLM_F_DUMP);
        let mut found = Vec::new();
        let mut garbled = None;
        let done = self.channel.dump(
            |seq| question.encode(seq),
            |message| match message {
                None => found.clear(),
                Some(message) => match decode(message.whole) {
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

impl AsFd for RouteSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

fn decode(whole: &[u8]) -> Result<RouteNetlinkMessage, String> {
    match NetlinkMessage::deserialize(whole).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(body)) => Ok(body),
        Ok(_) => Err("an answer of an unexpected kind".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Splits the first message off `bytes`; `None` at the end, or where the rest is no message.
fn take_message(bytes: &[u8]) -> Option<(Received<'_>, &[u8])> {
    let header = bytes.first_chunk::<HEADER_BYTES>()?;
    let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let whole = bytes.get(..length)?;
    let message = Received {
        kind: u16::from_ne_bytes([header[4], header[5]]),
        flags: u16::from_ne_bytes([header[6], header[7]]),
        seq: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
        payload: whole.get(HEADER_BYTES..)?,
        whole,
    };
    Some((message, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// Reads `NLMSG_ERROR` or `NLMSG_DONE`: the error and the kernel's own words for it
/// (`NLMSGERR_ATTR_MSG`), or `None` for an acknowledgement.
pub(crate) fn refusal(message: Received<'_>) -> Option<(Errno, String)> {
    let code = message.payload.first_chunk::<4>().map_or(0, |code| i32::from_ne_bytes(*code));
    if code == 0 || !matches!(message.kind, NLMSG_ERROR | NLMSG_DONE) {
        return None;
    }
    let mut attributes = &message.payload[4..];
    if message.kind == NLMSG_ERROR {
        // The refused message is quoted, whole unless the socket asked for its header only.
        let quoted = attributes.first_chunk::<4>().map_or(0, |n| u32::from_ne_bytes(*n) as usize);
        let quoted = match message.flags & NLM_F_CAPPED {
            0 => quoted.next_multiple_of(4),
            _ => HEADER_BYTES,
        };
        attributes = attributes.get(quoted..).unwrap_or_default();
    }
    let mut text = String::new();
    if message.flags & NLM_F_ACK_TLVS != 0 {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        for attribute in NlasIterator::new(attributes).map_while(Result::ok) {
            if attribute.kind() == NLMSGERR_ATTR_MSG {
                let bytes = attribute.value();
                text = String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
            }
        }
    }
    Some((Errno::from_raw_os_error(code.saturating_neg()), text))
}

fn switch_on(fd: BorrowedFd<'_>, option: libc::c_int) -> Result<(), Errno> {
    let one: libc::c_int = 1;
    // SAFETY: the value is a live c_int and its size is told.
    let done = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const one).cast(),
            mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => Err(last_errno()),
    }
}

/// Returns the cookie of the network namespace that a socket lives in (`SO_NETNS_COOKIE`,
/// asm-generic/socket.h, since Linux 5.14): unique until the next boot.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie: u64 = 0;
    let mut length = mem::size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `cookie`, which are live.
    let done = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(last_errno()),
    }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(seq: u32, code: i32, text: &str) -> Vec<u8> {
        let flags = NLM_F_CAPPED | if text.is_empty() { 0 } else { NLM_F_ACK_TLVS };
        let mut payload = code.to_ne_bytes().to_vec();
        payload.extend([0; HEADER_BYTES]);
        if !text.is_empty() {
            payload.extend((text.len() as u16 + 5).to_ne_bytes());
            payload.extend(1u16.to_ne_bytes());
            payload.extend(text.as_bytes());
            payload.push(0);
        }
        let mut bytes = ((HEADER_BYTES + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend(NLMSG_ERROR.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(seq.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_refusal_carries_the_kernels_words() {
        let mut bytes = error(7, -17, "Device exists");
        bytes.extend(error(8, 0, ""));
        let (first, rest) = take_message(&bytes).unwrap();
        assert_eq!(first.seq, 7);
        assert_eq!(refusal(first), Some((Errno::EXIST, "Device exists".to_owned())));
        let (second, rest) = take_message(rest).unwrap();
        assert_eq!(refusal(second), None);
        assert!(take_message(rest).is_none());
    }

    #[test]
    fn cut_or_hostile_bytes_are_the_end_not_a_panic() {
        let bytes = error(7, -1, "text");
        for n in 0..bytes.len() - 3 {
            assert!(take_message(&bytes[..n]).is_none());
        }
        for length in [0u32, 1, 15, 16, 17, u32::MAX] {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            let _ = take_message(&bytes).map(|(message, _)| refusal(message));
        }
    }
}
