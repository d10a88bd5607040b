//! Captured packets as pcapng, block by block (draft-ietf-opsawg-pcapng). Little-endian, one
//! section, whose length is left open, so that a reader at the other end of a pipe needs not wait.

/// What of a section says who wrote it.
const APPLICATION: &str = concat!("twinax ", env!("CARGO_PKG_VERSION"));

// Types of blocks.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const STATISTICS: u32 = 5;
const PACKET: u32 = 6;

/// Tells a reader which end of a number comes first.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;

// Options.
const COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const IF_FILTER: u16 = 11;
const EPB_FLAGS: u16 = 2;
const ISB_STARTTIME: u16 = 2;
const ISB_ENDTIME: u16 = 3;
const ISB_IFRECV: u16 = 4;
const ISB_FILTERACCEPT: u16 = 6;
const ISB_OSDROP: u16 = 7;
const ISB_USRDELIV: u16 = 8;

/// The power of ten that times are counted in: nanoseconds.
const NANOSECONDS: u8 = 9;
/// The longest text of an option; a longer one is cut.
const TEXT_MAX: usize = 4096;

/// What the bytes of a packet begin with (LINKTYPE_, as registered for capture files).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkType {
    Ethernet,
    /// An IPv4 or IPv6 packet with nothing before it: tun, WireGuard.
    RawIp,
}

impl LinkType {
    /// Of a device by its hardware type (`ARPHRD_*`, linux/if_arp.h); `None`: its packets have a
    /// form that is not known here.
    pub fn of(hardware: u16) -> Option<Self> {
        match hardware {
            1 | 772 => Some(Self::Ethernet), // ARPHRD_ETHER, ARPHRD_LOOPBACK
            65534 | 776 | 768 | 769 | 519 => Some(Self::RawIp), // NONE, SIT, TUNNEL, TUNNEL6, RAWIP
            _ => None,
        }
    }

    fn number(self) -> u16 {
        match self {
            Self::Ethernet => 1,
            Self::RawIp => 101,
        }
    }
}

/// An interface that packets are captured of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Unique among those of a file: Wireshark tells them apart by it.
    pub name: String,
    /// Whose it is, in a few words.
    pub description: String,
    /// Everything else that is known of it.
    pub comment: String,
    pub link_type: LinkType,
    /// Bytes of a packet that are kept at most; 0: all.
    pub snap_length: u32,
    /// As it was written; empty: none.
    pub filter: String,
}

/// Where a packet was going, seen from its interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    In,
    Out,
}

/// One packet, as it was captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The place of its interface among those of the file, from 0 on.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    pub direction: Direction,
    /// How long it was on the wire, in bytes.
    pub length: u32,
    /// What was kept of it.
    pub bytes: &'a [u8],
}

/// How many there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Nanoseconds since 1970.
    pub start_ns: u64,
    pub end_ns: u64,
    /// Packets that passed the filter, those that were lost included.
    pub accepted: u64,
    /// Packets that the kernel had no room for.
    pub dropped: u64,
    /// Packets that were written.
    pub written: u64,
    /// There was no filter, so that what was accepted is what the interface had.
    pub all: bool,
}

/// Returns the block that a file begins with.
pub fn section() -> Vec<u8> {
    let mut block = Block::new(SECTION);
    block.u32(BYTE_ORDER);
    block.u16(1); // major and minor version
    block.u16(0);
    block.u64(u64::MAX); // Its length is not known yet.
    block.text(SHB_USERAPPL, APPLICATION);
    block.done()
}

/// Returns the block that introduces an interface; its place among these is its number.
pub fn interface(interface: &Interface) -> Vec<u8> {
    let mut block = Block::new(INTERFACE);
    block.u16(interface.link_type.number());
    block.u16(0);
    block.u32(interface.snap_length);
    block.text(IF_NAME, &interface.name);
    block.text(IF_DESCRIPTION, &interface.description);
    block.text(COMMENT, &interface.comment);
    block.option(IF_TSRESOL, &[NANOSECONDS]);
    if !interface.filter.is_empty() {
        // The first byte says that a text follows, as libpcap would take it.
        let text = [b"\0", interface.filter.as_bytes()].concat();
        block.option(IF_FILTER, &text[..text.len().min(TEXT_MAX)]);
    }
    block.done()
}

/// Returns a packet's block.
pub fn packet(packet: &Packet<'_>) -> Vec<u8> {
    let mut block = Block::new(PACKET);
    block.u32(packet.interface);
    block.time(packet.time_ns);
    block.u32(packet.bytes.len() as u32);
    block.u32(packet.length);
    block.padded(packet.bytes);
    let flags: u32 = match packet.direction {
        Direction::In => 1,
        Direction::Out => 2,
    };
    block.option(EPB_FLAGS, &flags.to_le_bytes());
    block.done()
}

/// Returns the block that says of an interface how much was captured; they close a file.
pub fn statistics(interface: u32, counted: &Statistics) -> Vec<u8> {
    let mut block = Block::new(STATISTICS);
    block.u32(interface);
    block.time(counted.end_ns);
    for (option, time) in [(ISB_STARTTIME, counted.start_ns), (ISB_ENDTIME, counted.end_ns)] {
        let halves = [high(time).to_le_bytes(), low(time).to_le_bytes()].concat();
        block.option(option, &halves);
    }
    if counted.all {
        block.option(ISB_IFRECV, &counted.accepted.to_le_bytes());
    }
    block.option(ISB_FILTERACCEPT, &counted.accepted.to_le_bytes());
    block.option(ISB_OSDROP, &counted.dropped.to_le_bytes());
    block.option(ISB_USRDELIV, &counted.written.to_le_bytes());
    block.done()
}

/// A block that is being written: its type, its length, its fields, its options, its length again.
struct Block {
    bytes: Vec<u8>,
    /// It has options, whose end must be marked.
    options: bool,
}

impl Block {
    fn new(kind: u32) -> Self {
        let mut block = Self { bytes: Vec::new(), options: false };
        block.u32(kind);
        block.u32(0);
        block
    }

    fn u16(&mut self, number: u16) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.bytes.extend(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.bytes.extend(number.to_le_bytes());
    }

    /// A time has its upper half first, whichever byte of each does.
    fn time(&mut self, ns: u64) {
        self.u32(high(ns));
        self.u32(low(ns));
    }

    fn padded(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let whole = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(whole, 0);
    }

    fn option(&mut self, kind: u16, value: &[u8]) {
        self.options = true;
        self.u16(kind);
        self.u16(value.len() as u16);
        self.padded(value);
    }

    /// A text of UTF-8; nothing if it is empty.
    fn text(&mut self, kind: u16, text: &str) {
        if !text.is_empty() {
            self.option(kind, &text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]);
        }
    }

    fn done(mut self) -> Vec<u8> {
        if self.options {
            self.u32(0); // opt_endofopt
        }
        let length = self.bytes.len() as u32 + 4;
        self.u32(length);
        self.bytes[4..8].copy_from_slice(&length.to_le_bytes());
        self.bytes
    }
}

fn high(ns: u64) -> u32 {
    (ns >> 32) as u32
}

fn low(ns: u64) -> u32 {
    ns as u32
}
