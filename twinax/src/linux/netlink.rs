//! Netlink as bytes: messages and attributes written and read, and a socket to the kernel.
//!
//! The kernel works on a request within the call that sends it (nfnetlink and rtnetlink both), so
//! that what it has to say is there when `send` returns. The layout is that of netlink(7) and
//! include/uapi/linux/netlink.h: host byte order, everything aligned to 4 bytes.
//!
//! May not: know what any message means.
#![allow(unsafe_code, reason = "rustix has no netlink options, and no ioctl of ethtool")]

use std::{
    net::IpAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    buffer::spare_capacity,
    io::Errno,
    net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt},
};

/// The largest attribute: its length is 16 bits wide.
pub const ATTRIBUTE_MAX: usize = u16::MAX as usize;

const HEADER: usize = 16;
const NESTED: u16 = libc::NLA_F_NESTED as u16;

fn aligned(len: usize) -> usize {
    len.next_multiple_of(4)
}

/// Messages under construction, one after another, as one send takes them.
#[derive(Debug, Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    /// Where the message under construction begins.
    start: usize,
}

/// An attribute that others are being put into; closed with `Outgoing::close`.
#[derive(Debug)]
#[must_use = "an open attribute has no length yet"]
pub struct Open(usize);

impl Outgoing {
    /// Returns all that was put, for one send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Forgets all that was put.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// Begins a message; the one before is finished by that.
    pub fn message(&mut self, kind: u16, flags: u16, seq: u32) {
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&(HEADER as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&seq.to_ne_bytes());
        self.bytes.extend_from_slice(&0u32.to_ne_bytes());
    }

    /// Asks the kernel to confirm the message under construction.
    pub fn ask_for_ack(&mut self) {
        self.flag(self.start, libc::NLM_F_ACK as u16);
    }

    /// Gives flags to the message that begins at `start`.
    pub fn flag(&mut self, start: usize, flags: u16) {
        for (byte, more) in self.bytes[start + 6..start + 8].iter_mut().zip(flags.to_ne_bytes()) {
            *byte |= more;
        }
    }

    /// Gives a number to the message that begins at `start`.
    pub fn set_seq(&mut self, start: usize, seq: u32) {
        self.bytes[start + 8..start + 12].copy_from_slice(&seq.to_ne_bytes());
    }

    /// Returns the length in bytes of the message under construction.
    pub fn message_len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Puts the fixed part of a message, before its attributes.
    pub fn body(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.settle();
    }

    /// Puts an attribute.
    pub fn attr(&mut self, kind: u16, data: &[u8]) {
        let len = u16::try_from(data.len() + 4).expect("attributes are kept below 64 KiB");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(data);
        self.settle();
    }

    /// Puts a number in network byte order, as nfnetlink has them.
    pub fn be32(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_be_bytes());
    }

    /// Puts a number in host byte order, as rtnetlink has them.
    pub fn number(&mut self, kind: u16, number: u32) {
        self.attr(kind, &number.to_ne_bytes());
    }

    /// Puts the bytes of an IP address.
    pub fn ip(&mut self, kind: u16, addr: IpAddr) {
        match addr {
            IpAddr::V4(addr) => self.attr(kind, &addr.octets()),
            IpAddr::V6(addr) => self.attr(kind, &addr.octets()),
        }
    }

    /// Puts a text with the NUL that ends it.
    pub fn text(&mut self, kind: u16, text: &str) {
        let len = u16::try_from(text.len() + 5).expect("names are short");
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.settle();
    }

    /// Opens an attribute that holds others.
    pub fn open(&mut self, kind: u16) -> Open {
        self.open_plain(kind | NESTED)
    }

    /// As [`Self::open`], without the flag that rtnetlink is older than.
    pub fn open_plain(&mut self, kind: u16) -> Open {
        let at = self.bytes.len();
        self.attr(kind, &[]);
        Open(at)
    }

    /// Ends an attribute: what was put since is in it.
    pub fn close(&mut self, open: Open) {
        let len = self.bytes.len() - open.0;
        let len = u16::try_from(len).expect("attributes are kept below 64 KiB");
        self.bytes[open.0..open.0 + 2].copy_from_slice(&len.to_ne_bytes());
    }

    fn settle(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let len = u32::try_from(self.message_len()).expect("messages are kept below 4 GiB");
        self.bytes[self.start..self.start + 4].copy_from_slice(&len.to_ne_bytes());
    }
}

/// A message as received.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    pub kind: u16,
    pub flags: u16,
    pub seq: u32,
    /// What follows the header.
    pub body: &'a [u8],
}

/// What the kernel says of a request that asked for an answer, or that it refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub seq: u32,
    /// `None`: done.
    pub errno: Option<Errno>,
    /// The kernel's own words, often none.
    pub text: String,
    /// Where in the request is the attribute that it dislikes, counted from the request's header.
    pub offset: Option<u32>,
}

/// Returns the messages in what one `receive` brought; a malformed rest is left out.
pub fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<HEADER>()?;
        let len = u32_at(header, 0)? as usize;
        let whole = bytes.get(..len)?;
        let message = Message {
            kind: u16_at(header, 4)?,
            flags: u16_at(header, 6)?,
            seq: u32_at(header, 8)?,
            body: whole.get(HEADER..)?,
        };
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some(message)
    })
}

/// Returns the attributes in `bytes`, kind (without flags) and content; a malformed rest is left
/// out.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & libc::NLA_TYPE_MASK as u16;
        let data = bytes.get(4..len)?;
        bytes = bytes.get(aligned(len)..).unwrap_or_default();
        Some((kind, data))
    })
}

/// Returns the content of the first attribute of that kind.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, data)| data)
}

/// Returns a text attribute's content without its NUL.
pub fn text(data: &[u8]) -> Option<&str> {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    std::str::from_utf8(&data[..end]).ok()
}

/// Returns a number that is in network byte order.
pub fn be32(data: &[u8]) -> Option<u32> {
    data.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Returns the number that the bytes begin with, in host byte order.
pub fn number(data: &[u8]) -> Option<u32> {
    u32_at(data, 0)
}

/// Returns an IP address; its family is its length.
pub fn ip(data: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(data).ok().map(IpAddr::from);
    four.or_else(|| <[u8; 16]>::try_from(data).ok().map(IpAddr::from))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

impl Message<'_> {
    /// Reads `NLMSG_ERROR`, which also says that all went well.
    pub fn verdict(&self) -> Option<Verdict> {
        if !self.is_verdict() {
            return None;
        }
        let code = u32_at(self.body, 0)? as i32;
        let mut verdict = Verdict {
            seq: self.seq,
            errno: (code != 0).then(|| Errno::from_raw_os_error(code.saturating_neg())),
            text: String::new(),
            offset: None,
        };
        // The request is sent back: its header only where the socket asked for that.
        let quoted = match self.flags & libc::NLM_F_CAPPED as u16 {
            0 => aligned(u32_at(self.body, 4).unwrap_or_default() as usize),
            _ => HEADER,
        };
        let rest = self.body.get(4..).and_then(|rest| rest.get(quoted..)).unwrap_or_default();
        if self.flags & libc::NLM_F_ACK_TLVS as u16 != 0 {
            for (kind, data) in attributes(rest) {
                match i32::from(kind) {
                    1 => verdict.text = text(data).unwrap_or_default().to_owned(),
                    2 => verdict.offset = u32_at(data, 0),
                    _ => {}
                }
            }
        }
        Some(verdict)
    }

    /// The error in `NLMSG_ERROR` or at the end of a dump, with the kernel's own words for it;
    /// `None` where there is none.
    pub fn refusal(&self) -> Option<(Errno, String)> {
        if self.is_done() {
            let code = u32_at(self.body, 0).filter(|code| *code != 0)? as i32;
            return Some((Errno::from_raw_os_error(code.saturating_neg()), String::new()));
        }
        let verdict = self.verdict()?;
        Some((verdict.errno?, verdict.text))
    }

    /// Whether it is `NLMSG_ERROR`, which also says that all went well.
    pub fn is_verdict(&self) -> bool {
        i32::from(self.kind) == libc::NLMSG_ERROR
    }

    /// Whether a dump ends here.
    pub fn is_done(&self) -> bool {
        i32::from(self.kind) == libc::NLMSG_DONE
    }
}

/// A socket to the kernel of the network namespace that it was opened in, wherever its thread goes.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
    send_limit: usize,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread; `None` is `NETLINK_ROUTE`,
    /// which is protocol 0.
    pub fn open(protocol: Option<Protocol>) -> Result<Self, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        // No dump brings more than 32 KiB at a time (netlink_dump()).
        let socket = Self { fd, buffer: Vec::with_capacity(1 << 15), send_limit: 0 };
        socket.switch_on(libc::NETLINK_EXT_ACK)?;
        Ok(socket)
    }

    /// Sets an option of netlink(7).
    pub fn switch_on(&self, option: i32) -> Result<(), Errno> {
        self.set(option, 1)
    }

    /// Has everything delivered that the kernel tells to these groups of listeners.
    pub fn listen(&self, groups: &[i32]) -> Result<(), Errno> {
        // Without an address it would have the kernel's own, which is told nothing.
        net::bind(&self.fd, &net::netlink::SocketAddrNetlink::new(0, 0))?;
        groups.iter().try_for_each(|group| self.set(libc::NETLINK_ADD_MEMBERSHIP, *group))
    }

    fn set(&self, option: i32, value: i32) -> Result<(), Errno> {
        // SAFETY: the option's value is an int that outlives the call, and its size is told.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                std::ptr::from_ref(&value).cast(),
                size_of::<i32>() as u32,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }

    /// Returns a link's index. Only for links that exist: of a name that it does not know the
    /// kernel believes that a module might (`dev_load`), and starts modprobe.
    pub fn index_of(&self, link: &str) -> Result<u32, Errno> {
        net::netdevice::name_to_index(&self.fd, link)
    }

    /// Returns the name of the link with that index.
    pub fn name_at(&self, index: u32) -> Result<String, Errno> {
        net::netdevice::index_to_name(&self.fd, index)
    }

    /// Makes the kernel carry out at once what it has put off since the carrier of a link changed
    /// (`linkwatch_sync_dev`), as every question for the carrier does since Linux 6.8. This one
    /// (`ETHTOOL_GLINK`, linux/ethtool.h) has the shortest answer. Only for links that exist, too.
    pub fn settle_carrier(&self, link: &str) -> Result<(), Errno> {
        const SIOCETHTOOL: libc::Ioctl = 0x8946;
        const ETHTOOL_GLINK: u32 = 0xa;
        let mut name = [0; libc::IFNAMSIZ];
        if link.len() >= name.len() {
            return Err(Errno::NODEV);
        }
        for (to, from) in name.iter_mut().zip(link.bytes()) {
            *to = from.cast_signed();
        }
        // `struct ethtool_value`.
        let mut value = [ETHTOOL_GLINK, 0];
        let data = libc::__c_anonymous_ifr_ifru { ifru_data: value.as_mut_ptr().cast() };
        let mut request = libc::ifreq { ifr_name: name, ifr_ifru: data };
        // SAFETY: the request and the value that it points to outlive the call; the kernel writes
        // within both.
        let result = unsafe { libc::ioctl(self.fd.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
        match result {
            0.. => Ok(()),
            _ => Err(last_errno()),
        }
    }

    /// Makes both buffers as large as a long transaction may want, or as the user may have them:
    /// an ordinary user's are bounded by the sysctls `net.core.wmem_max` and `rmem_max`.
    pub fn enlarge_buffers(&mut self) -> Result<(), Errno> {
        const WISH: usize = 1 << 20;
        if sockopt::set_socket_send_buffer_size_force(&self.fd, WISH).is_err() {
            sockopt::set_socket_send_buffer_size(&self.fd, WISH)?;
        }
        if sockopt::set_socket_recv_buffer_size_force(&self.fd, WISH).is_err() {
            sockopt::set_socket_recv_buffer_size(&self.fd, WISH)?;
        }
        self.learn_send_limit()
    }

    /// Bounds the send buffer as the sysctl `net.core.wmem_max` would; the kernel takes it twice.
    pub fn limit_send_buffer(&mut self, bytes: usize) -> Result<(), Errno> {
        sockopt::set_socket_send_buffer_size(&self.fd, bytes)?;
        self.learn_send_limit()
    }

    /// `netlink_sendmsg()` refuses what is longer than the buffer less 32 bytes.
    fn learn_send_limit(&mut self) -> Result<(), Errno> {
        self.send_limit = sockopt::socket_send_buffer_size(&self.fd)?.saturating_sub(32);
        Ok(())
    }

    /// Leaves it to the kernel to close the socket, which is of no use any more.
    pub(super) fn part(&mut self) -> Result<(), Errno> {
        super::parting::part_with(&mut self.fd)
    }

    /// The longest that one send may be, in bytes; learnt by [`Self::enlarge_buffers`].
    pub fn send_limit(&self) -> usize {
        self.send_limit
    }

    /// Sends one or more whole messages.
    pub fn send(&self, bytes: &[u8]) -> Result<(), Errno> {
        super::tape::record(bytes);
        rustix::io::retry_on_intr(|| net::send(&self.fd, bytes, SendFlags::empty())).map(drop)
    }

    /// Returns the next datagram, or nothing when there is none.
    ///
    /// # Errors
    ///
    /// `ENOBUFS` when the kernel had more to say than the buffer holds; the rest can be read on.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, Errno> {
        match self.read(RecvFlags::DONTWAIT) {
            Ok(len) => Ok(Some(&self.buffer[..len])),
            Err(Errno::AGAIN) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for a datagram.
    ///
    /// # Errors
    ///
    /// As of [`Self::receive`].
    pub fn wait(&mut self) -> Result<&[u8], Errno> {
        self.read(RecvFlags::empty()).map(|len| &self.buffer[..len])
    }

    fn read(&mut self, flags: RecvFlags) -> Result<usize, Errno> {
        let (fd, buffer) = (&self.fd, &mut self.buffer);
        // With MSG_TRUNC the length is the datagram's, which may exceed the buffer.
        let flags = flags | RecvFlags::TRUNC;
        buffer.clear();
        let (_, len) = rustix::io::retry_on_intr(|| net::recv(fd, spare_capacity(buffer), flags))?;
        if len > self.buffer.len() {
            return Err(Errno::MSGSIZE);
        }
        Ok(len)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The error of the last call of the C library.
pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut out = Outgoing::default();
        out.message(7, 0, 1);
        out.body(&[1, 2, 3, 4]);
        let nest = out.open(5);
        out.text(6, "abc");
        out.be32(7, 0x0102_0304);
        out.close(nest);
        out.message(8, 0, 2);
        out.attr(1, &[9]);
        out.ask_for_ack();
        let all: Vec<_> = messages(out.bytes()).collect();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].kind, all[0].seq, all[0].flags), (7, 1, 1));
        let nest = attribute(&all[0].body[4..], 5).expect("was put");
        assert_eq!(attribute(nest, 6).and_then(text), Some("abc"));
        assert_eq!(attribute(nest, 7).and_then(be32), Some(0x0102_0304));
        assert_eq!((all[1].kind, all[1].seq, all[1].flags), (8, 2, 5));
        assert_eq!(attribute(all[1].body, 1), Some(&[9][..]));
    }

    #[test]
    fn rubbish_ends_the_reading() {
        for len in 0..64 {
            let bytes = vec![0xff; len];
            assert_eq!(messages(&bytes).count(), 0);
            assert_eq!(attributes(&bytes).count(), 0);
            assert_eq!(attributes(&vec![0; len]).count(), 0);
            assert_eq!(messages(&vec![0; len]).count(), 0);
        }
    }

    fn error(seq: u32, code: i32, text: &str) -> Vec<u8> {
        let flags = libc::NLM_F_CAPPED as u16
            | if text.is_empty() { 0 } else { libc::NLM_F_ACK_TLVS as u16 };
        let mut payload = code.to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        if !text.is_empty() {
            payload.extend((text.len() as u16 + 5).to_ne_bytes());
            payload.extend(1u16.to_ne_bytes());
            payload.extend(text.as_bytes());
            payload.push(0);
        }
        let mut bytes = ((HEADER + payload.len()) as u32).to_ne_bytes().to_vec();
        bytes.extend((libc::NLMSG_ERROR as u16).to_ne_bytes());
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
        let all: Vec<_> = messages(&bytes).collect();
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].seq, 7);
        assert_eq!(all[0].refusal(), Some((Errno::EXIST, "Device exists".to_owned())));
        assert_eq!(all[1].refusal(), None);
    }

    #[test]
    fn a_refusal_that_repeats_the_request_has_its_words_behind_it() {
        let mut request = Outgoing::default();
        request.message(19, 0, 7);
        request.body(&[0; 16]);
        let mut out = Outgoing::default();
        out.message(libc::NLMSG_ERROR as u16, libc::NLM_F_ACK_TLVS as u16, 7);
        out.body(&(-17i32).to_ne_bytes());
        out.body(request.bytes());
        out.text(1, "Device exists");
        let read = messages(out.bytes()).next().and_then(|message| message.refusal());
        assert_eq!(read, Some((Errno::EXIST, "Device exists".to_owned())));
    }

    #[test]
    fn cut_or_hostile_bytes_are_the_end_not_a_panic() {
        let bytes = error(7, -1, "text");
        for n in 0..bytes.len() - 3 {
            assert_eq!(messages(&bytes[..n]).count(), 0);
        }
        for length in [0u32, 1, 15, 16, 17, u32::MAX] {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&length.to_ne_bytes());
            messages(&bytes).for_each(|message| drop(message.refusal()));
        }
    }
}
