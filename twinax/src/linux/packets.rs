//! Reads the packets that pass an interface, by a packet socket with a ring that the kernel writes
//! into (packet(7), `TPACKET_V3`).
//!
//! A ring has its size from the caller, where a socket's buffer is limited for who is not root of
//! the machine. What does not fit is counted by the kernel and told. The filter is in place before
//! the socket is bound, so that nothing else ever comes through.
#![allow(unsafe_code, reason = "rustix has no packet sockets' options, addresses or rings")]

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicU32, Ordering},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use twinax_core::{
    filter::{Filter, Instruction, compile},
    pcapng::{Direction, LinkType},
};

use super::netlink::last_errno;

// linux/if_packet.h
const PACKET_RX_RING: libc::c_int = 5;
const PACKET_STATISTICS: libc::c_int = 6;
const PACKET_VERSION: libc::c_int = 10;
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
const TPACKET_V3: libc::c_int = 2;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const PACKET_OUTGOING: u8 = 4;
/// Bytes of `struct tpacket3_hdr`; a `struct sockaddr_ll` follows.
const HEADER: usize = 48;
/// Every protocol (linux/if_ether.h).
const ETH_P_ALL: u16 = 3;
const ARPHRD_LOOPBACK: u16 = 772;

/// Bytes of a block of the ring: more than any packet but those of BIG TCP.
const BLOCK: usize = 128 << 10;
/// Blocks that all rings of a capture have together, and the least and the most of one.
const BLOCKS: usize = 512;
const BLOCKS_LEAST: usize = 2;
const BLOCKS_MOST: usize = 64;
/// After so many milliseconds a block is given out that is not full.
pub const LATENCY_MS: u32 = 20;

/// A packet in the ring.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    pub direction: Direction,
    /// What it had on the wire, a VLAN tag left out.
    pub length: u32,
    /// Protocol and tag that the kernel took out of the packet.
    pub vlan: Option<(u16, u16)>,
    pub bytes: &'a [u8],
}

impl Seen<'_> {
    /// The packet as it was on the wire: with its tag.
    pub fn whole(&self) -> Vec<u8> {
        match (self.vlan, self.bytes.split_at_checked(12)) {
            (Some((protocol, tag)), Some((ends, rest))) => {
                [ends, &protocol.to_be_bytes(), &tag.to_be_bytes(), rest].concat()
            }
            _ => self.bytes.to_vec(),
        }
    }
}

/// What is to be read, and how much room is given to it.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub filter: Option<&'a Filter>,
    /// Bytes of each packet that are kept.
    pub keep: u32,
    /// How many interfaces share the memory.
    pub interfaces: usize,
}

/// An interface that is listened at. It keeps its network namespace.
#[derive(Debug)]
pub struct Tapped {
    socket: OwnedFd,
    index: u32,
    ring: Ring,
    pub link_type: LinkType,
    accepted: u64,
    dropped: u64,
    next: usize,
    /// Its interface went down. Should it go away after that, nothing more is told.
    pub is_down: bool,
}

/// The kernel's memory that the packets are in.
#[derive(Debug)]
struct Ring {
    at: *mut libc::c_void,
    blocks: usize,
}

// SAFETY: nothing but the ring's owner knows where it is, and the memory belongs to no thread.
unsafe impl Send for Ring {}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: this very mapping was made by `tap`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.at, self.blocks * BLOCK) };
    }
}

/// Makes ready to listen at the interface with this number, in the network namespace of the calling
/// thread: [`Tapped::begin`] begins. The kernel takes its time for that, 15 ms and more for one.
///
/// # Errors
/// The kernel's: `EPERM` without CAP_NET_RAW, `ENODEV` where there is no such interface any more,
/// `EOPNOTSUPP` where its packets have a form that is not known.
pub fn tap(index: u32, wanted: &Wanted<'_>) -> Result<Tapped, Errno> {
    // Protocol 0 takes nothing in: that begins with `bind`.
    let kind = (AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC);
    let socket = socket_with(kind.0, kind.1, kind.2 | SocketFlags::NONBLOCK, None)?;
    option(&socket, libc::SOL_PACKET, PACKET_VERSION, &TPACKET_V3)?;
    // Bound to no protocol yet, it tells which kind of device it is.
    bind(&socket, index, 0)?;
    let (_, hardware) = bound(&socket)?;
    let link_type = LinkType::of(hardware).ok_or(Errno::OPNOTSUPP)?;
    if hardware == ARPHRD_LOOPBACK {
        // There each packet passes twice. A kernel before 4.20 shows both.
        let _ = option(&socket, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &1);
    }
    attach(&socket, &compile(wanted.filter, link_type, wanted.keep))?;
    let ring = ring(&socket, wanted.interfaces)?;
    Ok(Tapped { socket, index, ring, link_type, accepted: 0, dropped: 0, next: 0, is_down: false })
}

fn option<T>(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> Result<(), Errno> {
    let length = size_of_val(value) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of a live value.
    let done = unsafe {
        libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const *value).cast(), length)
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Reads an option's value: up to three numbers.
fn told(socket: &OwnedFd, level: libc::c_int, name: libc::c_int) -> Result<[u32; 3], Errno> {
    let mut value = [0; 3];
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a live array of numbers.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if done == 0 { Ok(value) } else { Err(last_errno()) }
}

fn bind(socket: &OwnedFd, index: u32, protocol: u16) -> Result<(), Errno> {
    // SAFETY: every field of sockaddr_ll may be zero.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_protocol = protocol.to_be();
    to.sll_ifindex = index as i32;
    let length = size_of_val(&to) as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of a live value.
    let done = unsafe { libc::bind(socket.as_raw_fd(), (&raw const to).cast(), length) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The interface's number, -1 where it is gone, and its hardware type.
fn bound(socket: &OwnedFd) -> Result<(i32, u16), Errno> {
    // SAFETY: every field of sockaddr_ll may be zero.
    let mut at: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    let mut length = size_of_val(&at) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into a live value.
    let done =
        unsafe { libc::getsockname(socket.as_raw_fd(), (&raw mut at).cast(), &raw mut length) };
    if done == 0 { Ok((at.sll_ifindex, at.sll_hatype)) } else { Err(last_errno()) }
}

fn attach(socket: &OwnedFd, program: &[Instruction]) -> Result<(), Errno> {
    let filter = |i: &Instruction| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    let mut program: Vec<libc::sock_filter> = program.iter().map(filter).collect();
    let len = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let whole = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // The kernel reads `program` by way of `whole`, while both are alive.
    option(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &whole)
}

fn ring(socket: &OwnedFd, interfaces: usize) -> Result<Ring, Errno> {
    let blocks = (BLOCKS / interfaces.max(1)).clamp(BLOCKS_LEAST, BLOCKS_MOST);
    // struct tpacket_req3: size and number of blocks, of frames, the time, private bytes, features.
    // The frames' size only has to fit; a block takes as many as there is room for.
    let frame = 2048;
    let request = [BLOCK, blocks, frame, blocks * (BLOCK / frame), LATENCY_MS as usize, 0, 0]
        .map(|n| n as u32);
    option(socket, libc::SOL_PACKET, PACKET_RX_RING, &request)?;
    let flags = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of the socket's memory, wherever the kernel puts it.
    let at = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            blocks * BLOCK,
            flags,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if at == libc::MAP_FAILED { Err(last_errno()) } else { Ok(Ring { at, blocks }) }
}

impl Tapped {
    /// Takes in what passes from now on. At once, and in whatever namespace the caller is.
    ///
    /// # Errors
    /// The kernel's: `ENODEV` where the interface is gone.
    pub fn begin(&self) -> Result<(), Errno> {
        bind(&self.socket, self.index, ETH_P_ALL)
    }

    /// Gives every packet that is there to `each`, in the order of their coming.
    ///
    /// # Errors
    /// Those of `each`, with which it stops.
    pub fn read(&mut self, mut each: impl FnMut(&Seen<'_>) -> io::Result<()>) -> io::Result<()> {
        loop {
            // SAFETY: `next` is one of the ring's blocks.
            let start = unsafe { self.ring.at.cast::<u8>().add(self.next * BLOCK) };
            // SAFETY: block_status is the third word of a block (struct tpacket_block_desc); the
            // kernel changes it behind our back, which atomics are for. Blocks begin with pages.
            let status = unsafe { &*start.add(8).cast::<AtomicU32>() };
            if status.load(Ordering::Acquire) & TP_STATUS_USER == 0 {
                return Ok(());
            }
            // SAFETY: the block is ours until the status says otherwise, so that nobody writes to
            // what follows it.
            let block = unsafe { std::slice::from_raw_parts(start.add(12), BLOCK - 12) };
            self.is_down = false;
            let done = packets(block, &mut each);
            status.store(0, Ordering::Release);
            self.next = (self.next + 1) % self.ring.blocks;
            done?;
        }
    }

    /// How many packets passed the filter, and how many of these there was no room for.
    pub fn counted(&mut self) -> (u64, u64) {
        // struct tpacket_stats_v3: packets, drops, and how often the ring was full. Each question
        // begins anew.
        if let Ok([packets, drops, _]) = told(&self.socket, libc::SOL_PACKET, PACKET_STATISTICS) {
            self.accepted += u64::from(packets);
            self.dropped += u64::from(drops);
        }
        (self.accepted, self.dropped)
    }

    /// Takes note of what the socket has to complain of, and says whether its interface is gone.
    pub fn is_gone(&mut self) -> bool {
        // Down or gone, which is told once.
        let complaint = told(&self.socket, libc::SOL_SOCKET, libc::SO_ERROR);
        self.is_down |= complaint.is_ok_and(|[error, ..]| error != 0);
        !bound(&self.socket).is_ok_and(|(index, _)| index > 0)
    }

    /// Takes in no more; what is on its way into the ring comes within [`LATENCY_MS`].
    pub fn close(&self) {
        // A program that takes nothing. If it cannot be had, a few packets more are no harm.
        let _ = attach(&self.socket, &[Instruction { code: 0x06, jt: 0, jf: 0, k: 0 }]);
    }
}

impl AsFd for Tapped {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The word at a place, as the kernel wrote it.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_ne_bytes)
}

/// Goes through a block, whose first 12 bytes are left out.
fn packets(block: &[u8], each: &mut impl FnMut(&Seen<'_>) -> io::Result<()>) -> io::Result<()> {
    let count = word(block, 0).unwrap_or(0);
    let mut at = (word(block, 4).unwrap_or(0) as usize).saturating_sub(12);
    for _ in 0..count {
        let Some(header) = block.get(at..) else { break };
        if let Some(seen) = seen(header) {
            each(&seen)?;
        }
        match word(header, 0) {
            Some(next) if next > 0 => at += next as usize,
            _ => break,
        }
    }
    Ok(())
}

/// Reads a packet: `struct tpacket3_hdr`, `struct sockaddr_ll`, and the bytes where it says.
fn seen(header: &[u8]) -> Option<Seen<'_>> {
    let (seconds, nanoseconds) = (word(header, 4)?, word(header, 8)?);
    let (kept, length, status) = (word(header, 12)?, word(header, 16)?, word(header, 20)?);
    let start = usize::from(half(header, 24)?);
    let protocol = match status & TP_STATUS_VLAN_TPID_VALID {
        0 => 0x8100,
        _ => half(header, 36)?,
    };
    let tag = word(header, 32)? as u16;
    let direction = match *header.get(HEADER + 10)? {
        PACKET_OUTGOING => Direction::Out,
        _ => Direction::In,
    };
    Some(Seen {
        time_ns: u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds),
        direction,
        length,
        vlan: (status & TP_STATUS_VLAN_VALID != 0).then_some((protocol, tag)),
        bytes: header.get(start..start + kept as usize)?,
    })
}
