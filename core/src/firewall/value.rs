//! Fields of packets, and what a value of each means.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

use super::{
    What,
    translate::{states, statuses},
};

/// Something that a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Field {
    InName,
    OutName,
    InGroup,
    OutGroup,
    /// Of that IP version, and how many of its first bytes.
    Source(u8),
    Destination(u8),
    NfProto,
    EtherType,
    Protocol,
    SourcePort(Option<u8>),
    DestinationPort(Option<u8>),
    AddressType,
    CtState,
    CtStatus,
    Mark,
    /// In words.
    Other(String),
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ip = |version: &u8| if *version == 4 { "ip" } else { "ip6" };
        let of = |proto: &Option<u8>| match proto {
            Some(6) => "tcp",
            Some(17) => "udp",
            Some(132) => "sctp",
            _ => "th",
        };
        match self {
            Self::InName => f.write_str("iifname"),
            Self::OutName => f.write_str("oifname"),
            Self::InGroup => f.write_str("iifgroup"),
            Self::OutGroup => f.write_str("oifgroup"),
            Self::Source(version) => write!(f, "{} saddr", ip(version)),
            Self::Destination(version) => write!(f, "{} daddr", ip(version)),
            Self::NfProto => f.write_str("meta nfproto"),
            Self::EtherType => f.write_str("ether type"),
            Self::Protocol => f.write_str("meta l4proto"),
            Self::SourcePort(proto) => write!(f, "{} sport", of(proto)),
            Self::DestinationPort(proto) => write!(f, "{} dport", of(proto)),
            Self::AddressType => f.write_str("fib daddr type"),
            Self::CtState => f.write_str("ct state"),
            Self::CtStatus => f.write_str("ct status"),
            Self::Mark => f.write_str("meta mark"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl Field {
    /// What stands at a place of the packet: base, offset and length in bytes.
    pub(super) fn of_payload(
        version: Option<u8>,
        (base, offset, len): (u32, u32, u32),
        proto: Option<u8>,
    ) -> Self {
        match (base, version, offset, len) {
            (0, _, 12, 2) => Self::EtherType,
            (0, _, 0, 6) => Self::Other("ether daddr".to_owned()),
            (0, _, 6, 6) => Self::Other("ether saddr".to_owned()),
            (1, Some(4), 12, ..=4) => Self::Source(4),
            (1, Some(4), 16, ..=4) => Self::Destination(4),
            (1, Some(4), 9, 1) | (1, Some(6), 6, 1) => Self::Protocol,
            (1, Some(6), 8, ..=16) => Self::Source(6),
            (1, Some(6), 24, ..=16) => Self::Destination(6),
            (2, _, 0, 1) if proto == Some(1) => Self::Other("icmp type".to_owned()),
            (2, _, 0, 1) if proto == Some(58) => Self::Other("icmpv6 type".to_owned()),
            (2, _, 0, 2) if proto != Some(1) => Self::SourcePort(proto),
            (2, _, 2, 2) if proto != Some(1) => Self::DestinationPort(proto),
            _ => {
                let base = ["ll", "nh", "th", "inner"].get(base as usize).unwrap_or(&"?");
                Self::Other(format!("@{base},{},{}", offset * 8, len * 8))
            }
        }
    }

    /// `NFT_META_*`.
    pub(super) fn of_meta(key: u32) -> Self {
        let other = |words: &str| Self::Other(words.to_owned());
        match key {
            1 => Self::EtherType,
            3 => Self::Mark,
            4 => other("iif"),
            5 => other("oif"),
            6 => Self::InName,
            7 => Self::OutName,
            8 => other("iiftype"),
            9 => other("oiftype"),
            10 => other("meta skuid"),
            11 => other("meta skgid"),
            15 => Self::NfProto,
            16 => Self::Protocol,
            17 => other("ibrname"),
            18 => other("obrname"),
            19 => other("pkttype"),
            21 => Self::InGroup,
            22 => Self::OutGroup,
            23 => other("meta cgroup"),
            12 => other("meta nftrace"),
            26 => other("iifkind"),
            27 => other("oifkind"),
            key => Self::Other(format!("meta {key}")),
        }
    }

    /// `NFT_CT_*`.
    pub(super) fn of_ct(key: u32) -> Self {
        match key {
            0 => Self::CtState,
            1 => Self::Other("ct direction".to_owned()),
            2 => Self::CtStatus,
            3 => Self::Other("ct mark".to_owned()),
            key => Self::Other(format!("ct {key}")),
        }
    }

    /// `NFT_FIB_RESULT_*`, and whose address is asked for.
    pub(super) fn of_fib(result: u32, flags: u32) -> Self {
        const ADDRTYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        match (result, flags) {
            (ADDRTYPE, DESTINATION) => Self::AddressType,
            (ADDRTYPE, _) => {
                let of = ["saddr", "daddr", "mark", "iif", "oif"];
                let of = of.iter().enumerate().filter(|(n, _)| flags & 1 << n > 0);
                let of: Vec<&str> = of.map(|(_, word)| *word).collect();
                Self::Other(format!("fib {} type", of.join(" . ")))
            }
            _ => Self::Other(format!("fib result {result}")),
        }
    }

    /// How many bytes the kernel loads of it, where that is not said.
    pub(super) fn len(&self) -> u32 {
        match self {
            Self::InName | Self::OutName => 16,
            Self::NfProto | Self::Protocol => 1,
            Self::EtherType => 2,
            Self::Other(words) if matches!(words.as_str(), "ibrname" | "obrname") => 16,
            Self::Other(words) if matches!(words.as_str(), "iifkind" | "oifkind") => 16,
            _ => 4,
        }
    }

    /// A value of this field, for people.
    pub(super) fn spelled(&self, value: &[u8]) -> String {
        match self {
            Self::InName | Self::OutName => name(value),
            Self::Source(_) | Self::Destination(_) => {
                addr(value).map_or_else(|| hex(value), |addr| addr.to_string())
            }
            Self::SourcePort(_) | Self::DestinationPort(_) => {
                port(value).map_or_else(|| hex(value), |port| port.to_string())
            }
            Self::Mark => number(value).map_or_else(|| hex(value), |n| format!("{n:#x}")),
            Self::InGroup | Self::OutGroup => {
                number(value).map_or_else(|| hex(value), |n| n.to_string())
            }
            Self::AddressType => address_type(value),
            Self::Other(words) if words.starts_with("fib") && words.ends_with("type") => {
                address_type(value)
            }
            Self::Other(words) if words.starts_with("icmp") => {
                value.first().map(ToString::to_string).unwrap_or_default()
            }
            Self::Other(words) if matches!(words.as_str(), "iif" | "oif") => {
                number(value).map_or_else(|| hex(value), |n| format!("number {n}"))
            }
            Self::Other(words) if words.ends_with("name") || words.ends_with("kind") => name(value),
            _ => hex(value),
        }
    }
}

/// What it means that a field is equal to a value, under a mask if there is one; and whether the
/// sense is turned round by that.
pub(super) fn is(field: &Field, mask: Option<&[u8]>, value: &[u8]) -> (bool, What) {
    let bits = mask.and_then(number);
    let any_of = value.iter().all(|byte| *byte == 0);
    let what = match (field, mask) {
        (Field::CtState | Field::CtStatus, _) => {
            let words = if *field == Field::CtState { states } else { statuses };
            // Some bit of the mask is set: that the rest is not zero.
            let (not, bits) = match bits {
                Some(bits) if any_of => (true, bits),
                _ => (false, number(value).unwrap_or_default()),
            };
            let words = words(bits);
            let state = *field == Field::CtState;
            return (not, if state { What::CtState(words) } else { What::CtStatus(words) });
        }
        (Field::Mark, mask) => {
            let mask = mask.and_then(number).unwrap_or(u32::MAX);
            number(value).map(|value| What::Mark { value, mask })
        }
        (Field::Source(_) | Field::Destination(_), Some(mask)) => {
            prefix_of(mask).and_then(|len| network(field, value, len))
        }
        (_, None) => exactly(field, value),
        (_, Some(_)) => None,
    };
    let words = || match mask {
        Some(mask) => format!("{field} & {} == {}", hex(mask), hex(value)),
        None => format!("{field} {}", field.spelled(value)),
    };
    (false, what.unwrap_or_else(|| What::Other(words())))
}

fn exactly(field: &Field, value: &[u8]) -> Option<What> {
    Some(match field {
        Field::InName => What::InInterface(name(value)),
        Field::OutName => What::OutInterface(name(value)),
        Field::InGroup => What::InGroup(number(value)?),
        Field::OutGroup => What::OutGroup(number(value)?),
        Field::Source(_) | Field::Destination(_) => {
            return network(field, value, u8::try_from(value.len() * 8).ok()?);
        }
        Field::NfProto => match value.first()? {
            2 => What::IpVersion(4),
            10 => What::IpVersion(6),
            _ => return None,
        },
        Field::EtherType => match value {
            [0x08, 0x00] => What::IpVersion(4),
            [0x86, 0xdd] => What::IpVersion(6),
            _ => return None,
        },
        Field::Protocol => What::Protocol(*value.first()?),
        Field::SourcePort(_) => What::SourcePort(port(value)?, port(value)?),
        Field::DestinationPort(_) => What::DestinationPort(port(value)?, port(value)?),
        Field::AddressType => match number(value)? {
            2 => What::ToLocal, // RTN_LOCAL
            _ => return None,
        },
        _ => return None,
    })
}

/// What it means that a field lies between two values, both included.
pub(super) fn one_of(field: &Field, low: &[u8], high: &[u8]) -> What {
    if low == high {
        return is(field, None, low).1;
    }
    let what = match field {
        Field::SourcePort(_) => port(low).zip(port(high)).map(|(a, b)| What::SourcePort(a, b)),
        Field::DestinationPort(_) => {
            port(low).zip(port(high)).map(|(a, b)| What::DestinationPort(a, b))
        }
        Field::Source(_) | Field::Destination(_) => {
            span(low, high).and_then(|len| network(field, low, len))
        }
        // All that begin so, as an interval of texts.
        Field::InName | Field::OutName if high.ends_with(&[0xff]) => {
            let name = format!("{}*", name(low));
            Some(if *field == Field::InName {
                What::InInterface(name)
            } else {
                What::OutInterface(name)
            })
        }
        _ => None,
    };
    let words = || format!("{field} {}-{}", field.spelled(low), field.spelled(high));
    what.unwrap_or_else(|| What::Other(words()))
}

/// Whether two ends are those of a network: the length of its prefix.
fn span(low: &[u8], high: &[u8]) -> Option<u8> {
    let inverse: Vec<u8> = low.iter().zip(high).map(|(a, b)| !(a ^ b)).collect();
    let len = prefix_of(&inverse)?;
    let ends = low.iter().zip(high).zip(&inverse);
    let mut whole = ends.map(|((a, b), same)| a & !same == 0 && b | same == 0xff);
    whole.all(|one| one).then_some(len)
}

/// The length of a mask's prefix, if it is one.
fn prefix_of(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let mut left = ones;
    let straight = mask.iter().all(|byte| {
        let here = left.min(8);
        left -= here;
        byte.leading_ones() == here && byte.count_ones() == here
    });
    straight.then(|| u8::try_from(ones).ok())?
}

/// A network of which only the first bytes may be given.
fn network(field: &Field, value: &[u8], len: u8) -> Option<What> {
    let (Field::Source(version) | Field::Destination(version)) = field else { return None };
    let mut whole = value.to_vec();
    whole.resize(if *version == 4 { 4 } else { 16 }, 0);
    let net = IpNet::new(addr(&whole)?, len).ok()?;
    Some(match field {
        Field::Source(_) => What::Source(net),
        _ => What::Destination(net),
    })
}

/// An interface's name: what has no NUL at its end stands for all that begin so.
fn name(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let rest = if value.len() < 16 && !value.contains(&0) { "*" } else { "" };
    format!("{}{rest}", String::from_utf8_lossy(text))
}

/// `RTN_*`.
fn address_type(value: &[u8]) -> String {
    let words = ["unspec", "unicast", "local", "broadcast", "anycast", "multicast", "blackhole"];
    let word = number(value).and_then(|n| words.get(n as usize));
    word.map_or_else(|| hex(value), |word| (*word).to_owned())
}

pub(super) fn port(value: &[u8]) -> Option<u16> {
    value.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn addr(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => Some(Ipv4Addr::from(*value.first_chunk::<4>()?).into()),
        16 => Some(Ipv6Addr::from(*value.first_chunk::<16>()?).into()),
        _ => None,
    }
}

fn hex(value: &[u8]) -> String {
    value.iter().fold("0x".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}
