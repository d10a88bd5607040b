//! Free addresses, subnets, numbers and names: pure arithmetic on sets. Knows nothing of who asks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

use crate::name::IfName;

/// How many addresses of a range are given out: all of an IPv4 /16, the first of an IPv6 /64.
pub const WINDOW: u32 = 65_536;

/// Where subnets come from that nobody named, in order: (pool, prefix length of a block).
///
/// A /22 holds 1,021 containers, about what a bridge takes (1,023 ports: `BR_MAX_PORTS` in
/// net/bridge/br_private.h). 10.224.0.0/11 comes first as few sites number so high in 10/8;
/// it alone gives 2,048 networks.
pub const POOLS: [(Ipv4Net, u8); 3] = [
    (Ipv4Net::new_assert(Ipv4Addr::new(10, 224, 0, 0), 11), 22),
    (Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12), 22),
    (Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16), 22),
];

/// The addresses of one network that are given out or reserved.
///
/// One bitmap a range; addresses outside every bitmap's window are kept one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    /// By the range that addresses are given out of.
    pub subnets: BTreeMap<IpNet, Bitmap>,
    /// Fixed addresses outside the windows.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub others: BTreeSet<IpAddr>,
}

impl Leases {
    /// Returns leases with nothing taken that give addresses out of `ranges`, which do not
    /// overlap.
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let subnets = ranges.into_iter().map(|range| (range.trunc(), Bitmap::default())).collect();
        Self { subnets, others: BTreeSet::new() }
    }

    /// Whether `addr` is taken.
    pub fn holds(&self, addr: IpAddr) -> bool {
        match self.seat(addr) {
            Some((range, offset)) => self.subnets[&range].holds(offset),
            None => self.others.contains(&addr),
        }
    }

    /// Takes `addr`; false if it is taken already.
    pub fn claim(&mut self, addr: IpAddr) -> bool {
        match self.seat(addr) {
            Some((range, offset)) => self.subnets.entry(range).or_default().claim(offset),
            None => self.others.insert(addr),
        }
    }

    /// Gives `addr` back; false if it was not taken.
    pub fn release(&mut self, addr: IpAddr) -> bool {
        match self.seat(addr) {
            Some((range, offset)) => self.subnets.entry(range).or_default().release(offset),
            None => self.others.remove(&addr),
        }
    }

    /// Takes the next free address of `range`, which lies in subnet `net`: the search goes on
    /// behind the address given out last, and around. Never the subnet's own address, nor its
    /// broadcast address.
    pub fn take(&mut self, range: IpNet, net: IpNet) -> Option<IpAddr> {
        let (first, last) = usable(range, net)?;
        let bits = self.subnets.entry(range.trunc()).or_default();
        let offset = bits.next_free(first, last)?;
        bits.claim(offset);
        bits.next = offset + 1;
        nth(range, offset.into())
    }

    /// How many addresses are taken.
    pub fn count(&self) -> usize {
        self.subnets.values().map(Bitmap::count).sum::<usize>() + self.others.len()
    }

    /// The bitmap and offset of `addr`, if a window covers it.
    fn seat(&self, addr: IpAddr) -> Option<(IpNet, u32)> {
        let range = self.subnets.keys().find(|range| range.contains(&addr))?;
        let offset = number(addr) - number(range.network());
        let offset = u32::try_from(offset).ok().filter(|offset| *offset < WINDOW)?;
        Some((*range, offset))
    }
}

/// Which of the first [`WINDOW`] addresses of a range are taken, by offset from its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Bitmap {
    /// Bit `n % 64` of word `n / 64`; the last word is never zero, so that equal sets are equal.
    words: Vec<u64>,
    /// Where the search goes on, so that an address given back is not given out at once.
    next: u32,
}

impl Bitmap {
    /// Whether `offset` is taken.
    pub fn holds(&self, offset: u32) -> bool {
        let (word, bit) = place(offset);
        self.words.get(word).is_some_and(|w| w & bit != 0)
    }

    /// Takes `offset`; false if it is taken already.
    pub fn claim(&mut self, offset: u32) -> bool {
        let (word, bit) = place(offset);
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        let free = self.words[word] & bit == 0;
        self.words[word] |= bit;
        free
    }

    /// Gives `offset` back; false if it was not taken.
    pub fn release(&mut self, offset: u32) -> bool {
        let taken = self.holds(offset);
        if taken {
            let (word, bit) = place(offset);
            self.words[word] &= !bit;
            while self.words.last() == Some(&0) {
                self.words.pop();
            }
        }
        taken
    }

    /// Returns the first free offset in `first..=last`, from where the last search ended and
    /// around.
    pub fn next_free(&self, first: u32, last: u32) -> Option<u32> {
        let start = if (first..=last).contains(&self.next) { self.next } else { first };
        self.gap(start, last).or_else(|| self.gap(first, start))
    }

    /// Returns how many are taken.
    pub fn count(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    /// The first free offset in `first..=last`, a word at a time.
    fn gap(&self, first: u32, last: u32) -> Option<u32> {
        let mut offset = first;
        while offset <= last {
            let (word, _) = place(offset);
            let taken = self.words.get(word).copied().unwrap_or(0) >> (offset % 64);
            // Past the end of the word the shift brings in zeros, which are not free bits.
            let ones = taken.trailing_ones().min(64 - offset % 64);
            if ones < 64 - offset % 64 {
                return Some(offset + ones).filter(|offset| *offset <= last);
            }
            offset += ones;
        }
        None
    }
}

fn place(offset: u32) -> (usize, u64) {
    ((offset / 64) as usize, 1 << (offset % 64))
}

/// How a bitmap is stored: sixteen hexadecimal digits a word.
#[derive(Serialize, Deserialize)]
struct Written {
    taken: String,
    #[serde(default)]
    next: u32,
}

impl From<Bitmap> for Written {
    fn from(bits: Bitmap) -> Self {
        let taken = bits.words.iter().map(|word| format!("{word:016x}")).collect();
        Self { taken, next: bits.next }
    }
}

impl TryFrom<Written> for Bitmap {
    type Error = String;
    fn try_from(written: Written) -> Result<Self, String> {
        let bad = || format!("leases {:?} are not words of 16 hexadecimal digits", written.taken);
        let digits = written.taken.as_bytes();
        if !digits.iter().all(u8::is_ascii_hexdigit) || !digits.len().is_multiple_of(16) {
            return Err(bad());
        }
        if digits.len() / 16 > (WINDOW / 64) as usize {
            return Err(format!("leases hold more than {WINDOW} addresses"));
        }
        let word = |chunk: &[u8]| {
            let text = std::str::from_utf8(chunk).ok()?;
            u64::from_str_radix(text, 16).ok()
        };
        let words = digits.chunks(16).map(word).collect::<Option<Vec<_>>>().ok_or_else(bad)?;
        let mut bits = Self { words, next: written.next };
        while bits.words.last() == Some(&0) {
            bits.words.pop();
        }
        Ok(bits)
    }
}

/// Returns the offsets from `range`'s first address that containers may have, first and last.
fn usable(range: IpNet, net: IpNet) -> Option<(u32, u32)> {
    // The shift is by 128 for `::/0` only, which is larger than any window too.
    let size = 1u128.checked_shl((range.max_prefix_len() - range.prefix_len()).into());
    let last = size.unwrap_or(u128::MAX).min(WINDOW.into()) - 1;
    let mut last = u32::try_from(last).ok()?;
    let mut first = 0;
    if is_network_address(net, range.network()) {
        first = 1;
    }
    if nth(range, last.into()).is_some_and(|addr| is_broadcast(net, addr)) {
        last = last.checked_sub(1)?;
    }
    (first <= last).then_some((first, last))
}

/// Whether `addr` is the subnet's own: its number in IPv4, the anycast address of its routers in
/// IPv6 (RFC 4291, 2.6.1).
pub fn is_network_address(net: IpNet, addr: IpAddr) -> bool {
    net.network() == addr
}

/// Whether `addr` is the subnet's broadcast address, which only IPv4 has.
pub fn is_broadcast(net: IpNet, addr: IpAddr) -> bool {
    matches!(net, IpNet::V4(_)) && net.broadcast() == addr
}

/// Returns the address `offset` behind the first of `net`, if it is within.
pub fn nth(net: IpNet, offset: u128) -> Option<IpAddr> {
    let number = number(net.network()).checked_add(offset)?;
    let addr = match net {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).ok()?)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    };
    net.contains(&addr).then_some(addr)
}

fn number(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(addr) => u32::from(addr).into(),
        IpAddr::V6(addr) => addr.into(),
    }
}

/// Whether two subnets share an address.
pub fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Returns the first block of [`POOLS`] that overlaps nothing in `taken`.
pub fn free_subnet4(taken: &[IpNet]) -> Option<Ipv4Net> {
    let mut taken: Vec<(u64, u64)> = taken
        .iter()
        .filter_map(|net| match net {
            IpNet::V4(net) => Some(span(*net)),
            IpNet::V6(_) => None,
        })
        .collect();
    taken.sort_unstable();
    POOLS.iter().find_map(|(pool, prefix_len)| {
        let (mut first, end) = span(*pool);
        let size = 1u64 << (32 - prefix_len);
        // What is taken is met by its first address, so one pass is enough.
        for (from, to) in &taken {
            if *from >= first + size {
                break;
            }
            if *to >= first {
                first = (to + 1).next_multiple_of(size);
            }
        }
        let addr = Ipv4Addr::from(u32::try_from(first).ok()?);
        (first < end).then(|| Ipv4Net::new(addr, *prefix_len).ok()).flatten()
    })
}

fn span(net: Ipv4Net) -> (u64, u64) {
    (u32::from(net.network()).into(), u32::from(net.broadcast()).into())
}

/// Returns the first /64 of our unique local prefix (RFC 4193: `fd`, 40 random bits, 16 bits of
/// subnet) from number `first` on that overlaps nothing in `taken`.
pub fn free_subnet6(site: [u8; 5], first: u16, taken: &[IpNet]) -> Option<Ipv6Net> {
    let [a, b, c, d, e] = site;
    (first..=u16::MAX).chain(0..first).find_map(|n| {
        let [hi, lo] = n.to_be_bytes();
        let addr = Ipv6Addr::from([0xfd, a, b, c, d, e, hi, lo, 0, 0, 0, 0, 0, 0, 0, 0]);
        let net = Ipv6Net::new(addr, 64).ok()?;
        (!taken.iter().any(|other| overlap(*other, net.into()))).then_some(net)
    })
}

/// Returns the smallest number in `1..=65535` that is not in `used`.
pub fn free_number(used: &BTreeSet<u32>) -> Option<u32> {
    (1..=0xffff).find(|n| !used.contains(n))
}

/// Returns the bridge name of network `name`: `tx-NAME` if that fits in the kernel's 15 bytes
/// and is free, else `tx-` with six characters of the name and the network's number.
pub fn bridge_name(name: &str, number: u32, used: &BTreeSet<IfName>) -> Option<IfName> {
    let plain = format!("tx-{name}").parse().ok();
    let start: String = name.chars().take(6).collect();
    let short = format!("tx-{start}-{number}").parse().ok();
    [plain, short].into_iter().flatten().find(|bridge| !used.contains(bridge))
}

/// Returns the first of `eth0`, `eth1`, … that is not in `used`.
pub fn free_ifname(used: &BTreeSet<&IfName>) -> Option<IfName> {
    (0..u16::MAX).find_map(|n| {
        let name: IfName = format!("eth{n}").parse().ok()?;
        (!used.contains(&name)).then_some(name)
    })
}
