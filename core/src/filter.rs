//! Which packets are wanted: a small language, as tcpdump's users know it, and the program in the
//! kernel's old packet language (classic BPF) that says the same.
//!
//! ```text
//! expression = term { ("and" | "or") term }      left to right, as tcpdump has it
//! term       = "not" term | "(" expression ")" | primitive
//! primitive  = [direction] "host" ADDRESS | [direction] "net" ADDRESS/LENGTH | direction ADDRESS
//!            | ["tcp" | "udp"] [direction] "port" NUMBER
//!            | "tcp" | "udp" | "icmp" | "icmp6" | "arp" | "ip" | "ip6"
//! direction  = "src" | "dst"
//! ```
//!
//! One VLAN tag is looked behind. Extension headers of IPv6 are not, nor is a second tag, nor what
//! is inside a tunnel. An address of IPv4 is found in ARP too. A packet that ends before the place
//! where an expression has to look is not taken, whatever the rest of the expression says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::pcapng::LinkType;

const IPV4: u32 = 0x0800;
const ARP: u32 = 0x0806;
const IPV6: u32 = 0x86dd;
const VLAN: [u32; 2] = [0x8100, 0x88a8];

const TCP: u32 = 6;
const UDP: u32 = 17;
const SCTP: u32 = 132;

/// Open parentheses and negations that an expression may have.
const DEPTH_MAX: usize = 32;
/// Words that an expression may have: their program stays below what the kernel takes (4096).
const WORDS_MAX: usize = 200;

/// An expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    /// What an Ethernet frame has in it.
    Ether(Ether),
    Proto(Proto),
    /// An address in this network.
    Net(Side, IpNet),
    Port(Side, Ports, u16),
}

/// `ip`, `ip6`, `arp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ether {
    Ip,
    Ip6,
    Arp,
}

/// `tcp`, `udp`, `icmp`, `icmp6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    Tcp,
    Udp,
    Icmp,
    Icmp6,
}

/// Of sender, receiver, or one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Src,
    Dst,
    Either,
}

/// Whose ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    Tcp,
    Udp,
    /// TCP, UDP and SCTP.
    Any,
}

/// Why an expression cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadFilter(String);

fn bad<T>(why: impl Into<String>) -> Result<T, BadFilter> {
    Err(BadFilter(why.into()))
}

/// Reads an expression; `None` where there are no words.
///
/// # Errors
/// See [`BadFilter`].
pub fn parse(text: &str) -> Result<Option<Filter>, BadFilter> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ").replace('!', " ! ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    if words.len() > WORDS_MAX {
        return bad(format!("it has {} words, {WORDS_MAX} are the most", words.len()));
    }
    if words.is_empty() {
        return Ok(None);
    }
    let mut reader = Reader { words: &words, depth: 0 };
    let filter = reader.expression()?;
    match reader.words.first() {
        None => Ok(Some(filter)),
        Some(&")") => bad("there is no ( for a )"),
        Some(word) => bad(format!("before {word:?}, \"and\" or \"or\" is missing")),
    }
}

struct Reader<'a> {
    words: &'a [&'a str],
    depth: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self, expected: &str) -> Result<&'a str, BadFilter> {
        let Some((first, rest)) = self.words.split_first() else {
            return bad(format!("it ends where {expected} is expected"));
        };
        self.words = rest;
        Ok(first)
    }

    fn take(&mut self, words: &[&str]) -> bool {
        let found = self.words.first().is_some_and(|word| words.contains(word));
        if found {
            self.words = &self.words[1..];
        }
        found
    }

    fn expression(&mut self) -> Result<Filter, BadFilter> {
        let mut left = self.term()?;
        loop {
            if self.take(&["and", "&&"]) {
                left = Filter::And(Box::new(left), Box::new(self.term()?));
            } else if self.take(&["or", "||"]) {
                left = Filter::Or(Box::new(left), Box::new(self.term()?));
            } else {
                return Ok(left);
            }
        }
    }

    fn term(&mut self) -> Result<Filter, BadFilter> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return bad(format!("it is nested more than {DEPTH_MAX} deep"));
        }
        let term = if self.take(&["not", "!"]) {
            Filter::Not(Box::new(self.term()?))
        } else if self.take(&["("]) {
            let inner = self.expression()?;
            if !self.take(&[")"]) {
                return bad("a ) is missing");
            }
            inner
        } else {
            self.primitive()?
        };
        self.depth -= 1;
        Ok(term)
    }

    fn primitive(&mut self) -> Result<Filter, BadFilter> {
        let word = self.next("host, net, port or a protocol")?;
        Ok(match word {
            "tcp" | "udp" => {
                let (proto, ports) = match word {
                    "tcp" => (Proto::Tcp, Ports::Tcp),
                    _ => (Proto::Udp, Ports::Udp),
                };
                let side = self.side_before("port");
                match side {
                    Some(side) => self.port(side, ports)?,
                    None => Filter::Proto(proto),
                }
            }
            "icmp" => Filter::Proto(Proto::Icmp),
            "icmp6" => Filter::Proto(Proto::Icmp6),
            "ip" => Filter::Ether(Ether::Ip),
            "ip6" => Filter::Ether(Ether::Ip6),
            "arp" => Filter::Ether(Ether::Arp),
            "src" | "dst" => {
                let side = if word == "src" { Side::Src } else { Side::Dst };
                let word = self.next("host, net, port or an address")?;
                self.value(side, word)?
            }
            "host" | "net" | "port" => self.value(Side::Either, word)?,
            other => return bad(format!("{other:?} is none of its words")),
        })
    }

    /// Takes `[src|dst] port`; nothing where that is not what follows.
    fn side_before(&mut self, word: &str) -> Option<Side> {
        let (side, length) = match self.words {
            [first, ..] if *first == word => (Side::Either, 1),
            ["src", second, ..] if *second == word => (Side::Src, 2),
            ["dst", second, ..] if *second == word => (Side::Dst, 2),
            _ => return None,
        };
        self.words = &self.words[length..];
        Some(side)
    }

    fn value(&mut self, side: Side, word: &str) -> Result<Filter, BadFilter> {
        match word {
            "port" => self.port(side, Ports::Any),
            "net" => {
                let text = self.next("a network")?;
                let net = text.parse::<IpNet>().ok().filter(|net| *net == net.trunc());
                match net {
                    Some(net) => Ok(Filter::Net(side, net)),
                    None => bad(format!("{text:?} is not a network, as 10.1.0.0/24 or fd00::/64")),
                }
            }
            _ => {
                let text = if word == "host" { self.next("an address")? } else { word };
                match text.parse::<IpAddr>() {
                    Ok(addr) => Ok(Filter::Net(side, addr.into())),
                    Err(_) => bad(format!("{text:?} is not an address; names are not looked up")),
                }
            }
        }
    }

    fn port(&mut self, side: Side, ports: Ports) -> Result<Filter, BadFilter> {
        let text = self.next("a port")?;
        match text.parse() {
            Ok(port) => Ok(Filter::Port(side, ports, port)),
            Err(_) => bad(format!("{text:?} is not a port, which is a number up to 65535")),
        }
    }
}

impl Proto {
    /// IANA's number, and in which of the two IPs.
    fn number(self) -> (u32, bool, bool) {
        match self {
            Self::Tcp => (TCP, true, true),
            Self::Udp => (UDP, true, true),
            Self::Icmp => (1, true, false),
            Self::Icmp6 => (58, false, true),
        }
    }
}

impl Ports {
    fn numbers(self) -> &'static [u32] {
        match self {
            Self::Tcp => &[TCP],
            Self::Udp => &[UDP],
            Self::Any => &[TCP, UDP, SCTP],
        }
    }
}

/// A packet's bytes, and where IP or ARP begins in them.
struct Bytes<'a> {
    bytes: &'a [u8],
    base: usize,
    kind: u32,
}

impl Filter {
    /// Whether a packet is wanted: what [`compile`] must come to, said without a program.
    pub fn takes(&self, link: LinkType, packet: &[u8]) -> bool {
        Bytes::of(link, packet).and_then(|packet| self.holds(&packet)).unwrap_or(false)
    }

    /// `None`: the packet ends before the place that had to be looked at.
    fn holds(&self, packet: &Bytes<'_>) -> Option<bool> {
        match self {
            Self::And(a, b) => match a.holds(packet)? {
                true => b.holds(packet),
                false => Some(false),
            },
            Self::Or(a, b) => match a.holds(packet)? {
                true => Some(true),
                false => b.holds(packet),
            },
            Self::Not(inner) => Some(!inner.holds(packet)?),
            Self::Ether(ether) => Some(packet.kind == ether.number()),
            Self::Proto(proto) => {
                let (number, in4, in6) = proto.number();
                match packet.kind {
                    IPV4 if in4 => Some(packet.number(9, 1)? == number),
                    IPV6 if in6 => Some(packet.number(6, 1)? == number),
                    _ => Some(false),
                }
            }
            Self::Net(side, net) => packet.has_addr(*side, net),
            Self::Port(side, ports, port) => packet.has_port(*side, *ports, *port),
        }
    }
}

impl Ether {
    fn number(self) -> u32 {
        match self {
            Self::Ip => IPV4,
            Self::Ip6 => IPV6,
            Self::Arp => ARP,
        }
    }
}

impl<'a> Bytes<'a> {
    fn of(link: LinkType, bytes: &'a [u8]) -> Option<Self> {
        let whole = Self { bytes, base: 0, kind: 0 };
        let (base, kind) = match link {
            LinkType::Ethernet => match whole.number(12, 2)? {
                tag if VLAN.contains(&tag) => (18, whole.number(16, 2)?),
                kind => (14, kind),
            },
            LinkType::RawIp => match whole.number(0, 1)? >> 4 {
                4 => (0, IPV4),
                6 => (0, IPV6),
                _ => (0, 0),
            },
        };
        Some(Self { base, kind, ..whole })
    }

    fn slice(&self, at: usize, length: usize) -> Option<&'a [u8]> {
        self.bytes.get(self.base + at..)?.get(..length)
    }

    fn number(&self, at: usize, length: usize) -> Option<u32> {
        Some(self.slice(at, length)?.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }

    fn has_addr(&self, side: Side, net: &IpNet) -> Option<bool> {
        let (src, dst) = match (self.kind, net) {
            (IPV4, IpNet::V4(_)) => (12, 16),
            (ARP, IpNet::V4(_)) => (14, 24),
            (IPV6, IpNet::V6(_)) => (8, 24),
            _ => return Some(false),
        };
        let within = |at: usize| {
            let addr: IpAddr = match net {
                IpNet::V4(_) => {
                    Ipv4Addr::from(<[u8; 4]>::try_from(self.slice(at, 4)?).ok()?).into()
                }
                // Word by word, as the kernel does it: what comes after the first that differs may
                // be missing.
                IpNet::V6(net) => return self.within6(at, net.addr(), net.netmask()),
            };
            Some(net.contains(&addr))
        };
        match side {
            Side::Src => within(src),
            Side::Dst => within(dst),
            Side::Either => Some(within(src)? || within(dst)?),
        }
    }

    fn within6(&self, at: usize, addr: Ipv6Addr, mask: Ipv6Addr) -> Option<bool> {
        for (n, (want, mask)) in words(addr).into_iter().zip(words(mask)).enumerate() {
            if mask != 0 && self.number(at + 4 * n, 4)? & mask != want {
                return Some(false);
            }
        }
        Some(true)
    }

    fn has_port(&self, side: Side, ports: Ports, port: u16) -> Option<bool> {
        let (proto, at) = match self.kind {
            IPV4 => (self.number(9, 1)?, None),
            IPV6 => (self.number(6, 1)?, Some(40)),
            _ => return Some(false),
        };
        if !ports.numbers().contains(&proto) {
            return Some(false);
        }
        let at = match at {
            Some(at) => at,
            // Only the first fragment has ports.
            None if self.number(6, 2)? & 0x1fff != 0 => return Some(false),
            None => (self.number(0, 1)? & 0xf) as usize * 4,
        };
        let is = |at: usize| Some(self.number(at, 2)? == u32::from(port));
        match side {
            Side::Src => is(at),
            Side::Dst => is(at + 2),
            Side::Either => Some(is(at)? || is(at + 2)?),
        }
    }
}

fn words(addr: Ipv6Addr) -> [u32; 4] {
    let bits = addr.to_bits();
    [96, 64, 32, 0].map(|shift| (bits >> shift) as u32)
}

/// One instruction of classic BPF (`struct sock_filter`, linux/filter.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    pub code: u16,
    /// How many instructions are passed over where a condition holds, and where it does not.
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

// linux/bpf_common.h, linux/filter.h.
const LD_IMM: u16 = 0x00;
const LD_MEM: u16 = 0x60;
const LDX_MEM: u16 = 0x61;
const ST: u16 = 0x02;
const LDB_ABS: u16 = 0x30;
const LDH_ABS: u16 = 0x28;
const LD_IND: u16 = 0x40;
const LDH_IND: u16 = 0x48;
const LDB_IND: u16 = 0x50;
const AND: u16 = 0x54;
const LSH: u16 = 0x64;
const ADD_X: u16 = 0x0c;
const TAX: u16 = 0x07;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;

/// Cells of the program's memory: where IP or ARP begins, and which of them it is.
const BASE: u32 = 0;
const KIND: u32 = 1;

/// A place in the program that is not written yet.
type Label = usize;

/// What a packet is, and where its addresses are: the sender's, the receiver's.
type Place = (u32, u32, u32);

enum Step {
    Plain(u16, u32),
    /// Code, value, where to go if it holds, where if not.
    Branch(u16, u32, Label, Label),
    Mark(Label),
}

/// Translates into a program that returns `keep`, the number of bytes of a packet to be kept, for
/// packets that are wanted, and 0 for others. Without a filter all are.
pub fn compile(filter: Option<&Filter>, link: LinkType, keep: u32) -> Vec<Instruction> {
    let mut program = Program { steps: Vec::new(), labels: 0 };
    if let Some(filter) = filter {
        let (yes, no) = (program.label(), program.label());
        program.begin(link);
        program.filter(filter, yes, no);
        program.mark(no);
        program.step(RET, 0);
        program.mark(yes);
    }
    program.step(RET, keep);
    program.resolved(false).or_else(|| program.resolved(true)).unwrap_or_default()
}

struct Program {
    steps: Vec<Step>,
    labels: usize,
}

impl Program {
    fn label(&mut self) -> Label {
        self.labels += 1;
        self.labels - 1
    }

    fn mark(&mut self, label: Label) {
        self.steps.push(Step::Mark(label));
    }

    fn step(&mut self, code: u16, k: u32) {
        self.steps.push(Step::Plain(code, k));
    }

    fn branch(&mut self, code: u16, k: u32, yes: Label, no: Label) {
        self.steps.push(Step::Branch(code, k, yes, no));
    }

    /// Goes on at a new place if it holds.
    fn only(&mut self, code: u16, k: u32, no: Label) {
        let on = self.label();
        self.branch(code, k, on, no);
        self.mark(on);
    }

    /// Goes on at a new place unless it holds.
    fn unless(&mut self, code: u16, k: u32, yes: Label) {
        let on = self.label();
        self.branch(code, k, yes, on);
        self.mark(on);
    }

    /// Finds out what the packet is.
    fn begin(&mut self, link: LinkType) {
        let end = self.label();
        match link {
            LinkType::Ethernet => {
                let tagged = self.label();
                self.step(LDH_ABS, 12);
                VLAN.iter().for_each(|tag| self.unless(JEQ, *tag, tagged));
                self.step(ST, KIND);
                self.step(LD_IMM, 14);
                self.goto(end);
                self.mark(tagged);
                self.step(LDH_ABS, 16);
                self.step(ST, KIND);
                self.step(LD_IMM, 18);
            }
            LinkType::RawIp => {
                let known = self.label();
                self.step(LDB_ABS, 0);
                self.step(AND, 0xf0);
                for (nibble, kind) in [(0x40, IPV4), (0x60, IPV6)] {
                    let other = self.label();
                    self.only(JEQ, nibble, other);
                    self.step(LD_IMM, kind);
                    self.goto(known);
                    self.mark(other);
                }
                self.step(LD_IMM, 0);
                self.mark(known);
                self.step(ST, KIND);
                self.step(LD_IMM, 0);
            }
        }
        self.mark(end);
        self.step(ST, BASE);
    }

    /// A branch that goes one way: equal to nothing in particular, both ways lead there.
    fn goto(&mut self, to: Label) {
        self.branch(JA, 0, to, to);
    }

    fn filter(&mut self, filter: &Filter, yes: Label, no: Label) {
        match filter {
            Filter::And(a, b) => {
                let on = self.label();
                self.filter(a, on, no);
                self.mark(on);
                self.filter(b, yes, no);
            }
            Filter::Or(a, b) => {
                let on = self.label();
                self.filter(a, yes, on);
                self.mark(on);
                self.filter(b, yes, no);
            }
            Filter::Not(inner) => self.filter(inner, no, yes),
            Filter::Ether(ether) => {
                self.step(LD_MEM, KIND);
                self.branch(JEQ, ether.number(), yes, no);
            }
            Filter::Proto(proto) => {
                let (number, in4, in6) = proto.number();
                for (kind, at, found) in [(IPV4, 9, in4), (IPV6, 6, in6)] {
                    if found {
                        let other = self.label();
                        self.is(kind, other);
                        self.step(LDB_IND, at);
                        self.branch(JEQ, number, yes, no);
                        self.mark(other);
                    }
                }
                self.goto(no);
            }
            Filter::Net(side, net) => self.net(*side, net, (yes, no)),
            Filter::Port(side, ports, port) => self.port(*side, *ports, *port, (yes, no)),
        }
    }

    /// Goes on, with X where the packet of that kind begins, or elsewhere.
    fn is(&mut self, kind: u32, other: Label) {
        self.step(LD_MEM, KIND);
        self.only(JEQ, kind, other);
        self.step(LDX_MEM, BASE);
    }

    fn net(&mut self, side: Side, net: &IpNet, (yes, no): (Label, Label)) {
        let (want, mask, kinds): (Vec<u32>, Vec<u32>, &[Place]) = match net {
            IpNet::V4(net) => (
                vec![net.addr().to_bits()],
                vec![net.netmask().to_bits()],
                &[(IPV4, 12, 16), (ARP, 14, 24)],
            ),
            IpNet::V6(net) => {
                (words(net.addr()).into(), words(net.netmask()).into(), &[(IPV6, 8, 24)])
            }
        };
        for &(kind, src, dst) in kinds {
            let other = self.label();
            self.is(kind, other);
            let places: &[u32] = match side {
                Side::Src => &[src],
                Side::Dst => &[dst],
                Side::Either => &[src, dst],
            };
            for at in places {
                let next = self.label();
                for (n, (want, mask)) in want.iter().zip(&mask).enumerate() {
                    // Of IPv4 the whole address is looked at, of IPv6 as much as counts.
                    if *mask == 0 && kind == IPV6 {
                        continue;
                    }
                    self.step(LD_IND, at + 4 * n as u32);
                    self.step(AND, *mask);
                    self.only(JEQ, *want, next);
                }
                self.goto(yes);
                self.mark(next);
            }
            self.goto(no);
            self.mark(other);
        }
        self.goto(no);
    }

    fn port(&mut self, side: Side, ports: Ports, port: u16, (yes, no): (Label, Label)) {
        for (kind, proto_at, ports_at) in [(IPV4, 9, 0), (IPV6, 6, 40)] {
            let (other, has_ports) = (self.label(), self.label());
            self.is(kind, other);
            self.step(LDB_IND, proto_at);
            ports.numbers().iter().for_each(|proto| self.unless(JEQ, *proto, has_ports));
            self.goto(no);
            self.mark(has_ports);
            if kind == IPV4 {
                self.step(LDH_IND, 6);
                self.unless(JSET, 0x1fff, no);
                self.step(LDB_IND, 0);
                self.step(AND, 0xf);
                self.step(LSH, 2);
                self.step(ADD_X, 0);
                self.step(TAX, 0);
            }
            let places: &[u32] = match side {
                Side::Src => &[0],
                Side::Dst => &[2],
                Side::Either => &[0, 2],
            };
            for at in places {
                self.step(LDH_IND, ports_at + at);
                self.unless(JEQ, port.into(), yes);
            }
            self.goto(no);
            self.mark(other);
        }
        self.goto(no);
    }

    /// Puts distances in the place of labels. A condition passes over 255 instructions at most: in
    /// a long program each is followed by two that go anywhere. `None`: it has to be long.
    fn resolved(&self, long: bool) -> Option<Vec<Instruction>> {
        let mut places = vec![0; self.labels];
        let mut at = 0;
        for step in &self.steps {
            match step {
                Step::Mark(label) => places[*label] = at,
                Step::Branch(code, ..) if *code != JA && long => at += 3,
                _ => at += 1,
            }
        }
        let mut program = Vec::with_capacity(at);
        let plain = |code, k| Instruction { code, jt: 0, jf: 0, k };
        for step in &self.steps {
            let here = program.len() + 1;
            match *step {
                Step::Mark(_) => {}
                Step::Plain(code, k) => program.push(plain(code, k)),
                Step::Branch(JA, _, to, _) => program.push(plain(JA, (places[to] - here) as u32)),
                Step::Branch(code, k, yes, no) if long => {
                    program.push(Instruction { code, jt: 0, jf: 1, k });
                    program.push(plain(JA, (places[yes] - here - 1) as u32));
                    program.push(plain(JA, (places[no] - here - 2) as u32));
                }
                Step::Branch(code, k, yes, no) => {
                    let jt = u8::try_from(places[yes] - here).ok()?;
                    let jf = u8::try_from(places[no] - here).ok()?;
                    program.push(Instruction { code, jt, jf, k });
                }
            }
        }
        Some(program)
    }
}
