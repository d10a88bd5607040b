//! What the bytes of iptables' own matches and targets mean (`struct xt_*_info`,
//! include/uapi/linux/netfilter/xt_*.h): numbers in the host's byte order, addresses and the ports
//! of NAT in the network's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Action, Family, Match, What, translate::states};

/// What a match asks for.
pub(super) fn matches(name: &str, revision: u32, info: &[u8]) -> Vec<Match> {
    let found = match name {
        "tcp" => tcp(info),
        "udp" => info.get(8).and_then(|inverted| ports(info, *inverted)),
        "multiport" => multiport(revision, info),
        "conntrack" => conntrack(revision, info),
        "state" => u32_at(info, 0).map(|mask| vec![ct_state(mask, false)]),
        "addrtype" if revision == 1 => addrtype(info),
        "mark" if revision == 1 => mark(info),
        "set" => set(info),
        _ => None,
    };
    found.unwrap_or_else(|| vec![is(What::Other(format!("xt {name}")))])
}

/// The text of a `comment` match.
pub(super) fn comment(info: &[u8]) -> String {
    let text = info.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn is(what: What) -> Match {
    Match { not: false, what }
}

/// `struct xt_tcp`, `struct xt_udp`: ranges of source and destination ports come first.
fn ports(info: &[u8], inverted: u8) -> Option<Vec<Match>> {
    let range = |at| Some((u16_at(info, at)?, u16_at(info, at + 2)?));
    let mut found = Vec::new();
    let (from, to) = range(0)?;
    if (from, to) != (0, u16::MAX) || inverted & 1 > 0 {
        found.push(Match { not: inverted & 1 > 0, what: What::SourcePort(from, to) });
    }
    let (from, to) = range(4)?;
    if (from, to) != (0, u16::MAX) || inverted & 2 > 0 {
        found.push(Match { not: inverted & 2 > 0, what: What::DestinationPort(from, to) });
    }
    Some(found)
}

/// `struct xt_tcp`: ports, an option, flags and their mask (`--syn`), what is inverted.
fn tcp(info: &[u8]) -> Option<Vec<Match>> {
    let [option, mask, set, inverted] = *info.get(8..)?.first_chunk()?;
    let mut found = ports(info, inverted)?;
    if mask > 0 {
        let what = What::Other(format!("tcp flags & {mask:#x} == {set:#x}"));
        found.push(Match { not: inverted & 4 > 0, what });
    }
    if option > 0 {
        found.push(Match {
            not: inverted & 8 > 0,
            what: What::Other(format!("tcp option {option}")),
        });
    }
    Some(found)
}

/// `struct xt_multiport_v1`.
fn multiport(revision: u32, info: &[u8]) -> Option<Vec<Match>> {
    if revision != 1 {
        return None;
    }
    let count = usize::from(*info.get(1)?).min(15);
    let mut some = Vec::new();
    let mut n = 0;
    while n < count {
        let first = u16_at(info, 2 + 2 * n)?;
        // A range takes two places, of which the first is marked.
        let last = match *info.get(32 + n)? {
            0 => first,
            _ => {
                n += 1;
                u16_at(info, 2 + 2 * n)?
            }
        };
        n += 1;
        match *info.first()? {
            0 => some.push(What::SourcePort(first, last)),
            1 => some.push(What::DestinationPort(first, last)),
            _ => some.extend([What::SourcePort(first, last), What::DestinationPort(first, last)]),
        }
    }
    let what = if some.len() == 1 { some.pop()? } else { What::AnyOf(some) };
    Some(vec![Match { not: *info.get(47)? > 0, what }])
}

/// `struct xt_conntrack_mtinfo1` to `3`: eight addresses, then numbers.
fn conntrack(revision: u32, info: &[u8]) -> Option<Vec<Match>> {
    const STATE: u16 = 1;
    const STATUS: u16 = 64;
    let (asked, inverted) = (u16_at(info, 146)?, u16_at(info, 148)?);
    let (state, status) = match revision {
        1 => (u16::from(*info.get(150)?), u16::from(*info.get(151)?)),
        _ => (u16_at(info, 150)?, u16_at(info, 152)?),
    };
    let mut found = Vec::new();
    if asked & STATE > 0 {
        found.push(ct_state(state.into(), inverted & STATE > 0));
    }
    if asked & STATUS > 0 {
        let words = super::translate::statuses(status.into());
        found.push(Match { not: inverted & STATUS > 0, what: What::CtStatus(words) });
    }
    if asked & !(STATE | STATUS) > 0 {
        found.push(is(What::Other("xt conntrack: more than a state".to_owned())));
    }
    Some(found)
}

fn ct_state(mask: u32, not: bool) -> Match {
    // Above the states stand whether it was translated (bits 6 and 7), and `untracked`.
    let nat: Vec<String> = [(1 << 6, "snat"), (1 << 7, "dnat")]
        .iter()
        .filter(|(bit, _)| mask & bit > 0)
        .map(|(_, word)| (*word).to_owned())
        .collect();
    let plain = mask & 0b1_1111 | if mask & 1 << 8 > 0 { 1 << 6 } else { 0 };
    let what = match (nat.is_empty(), plain) {
        (true, _) => What::CtState(states(plain)),
        (false, 0) => What::CtStatus(nat),
        (false, _) => What::AnyOf(vec![What::CtState(states(plain)), What::CtStatus(nat)]),
    };
    Match { not, what }
}

/// `struct xt_addrtype_info_v1`: a mask of `1 << RTN_*` for either address.
fn addrtype(info: &[u8]) -> Option<Vec<Match>> {
    const LOCAL: u16 = 1 << 2;
    let (source, destination, flags) = (u16_at(info, 0)?, u16_at(info, 2)?, u32_at(info, 4)?);
    let mut found = Vec::new();
    if source > 0 {
        let what = What::Other(format!("source address type {source:#x}"));
        found.push(Match { not: flags & 1 > 0, what });
    }
    if destination == LOCAL && flags & !3 == 0 {
        found.push(Match { not: flags & 2 > 0, what: What::ToLocal });
    } else if destination > 0 {
        let what = What::Other(format!("destination address type {destination:#x}"));
        found.push(Match { not: flags & 2 > 0, what });
    }
    Some(found)
}

/// `struct xt_set_info`: an ipset is named by a number of the kernel's here.
fn set(info: &[u8]) -> Option<Vec<Match>> {
    const INVERTED: u8 = 2;
    let what = What::InSet { key: "ipset".to_owned(), set: format!("number {}", u16_at(info, 0)?) };
    Some(vec![Match { not: info.get(3)? & INVERTED > 0, what }])
}

/// `struct xt_mark_mtinfo1`.
fn mark(info: &[u8]) -> Option<Vec<Match>> {
    let what = What::Mark { value: u32_at(info, 0)?, mask: u32_at(info, 4)? };
    Some(vec![Match { not: *info.get(8)? > 0, what }])
}

/// What a target does: what decides, or in words what it does beside.
pub(super) fn target(
    family: Family,
    name: &str,
    revision: u32,
    info: &[u8],
) -> Result<Action, String> {
    let nat = || range(family, name, revision, info);
    Ok(match name {
        "MASQUERADE" => Action::Masquerade,
        "DNAT" => nat().map_or_else(unread(name), |(addr, ports)| Action::Dnat { addr, ports }),
        "SNAT" => nat().map_or_else(unread(name), |(addr, ports)| Action::Snat { addr, ports }),
        "REDIRECT" => nat().map_or_else(unread(name), |(_, ports)| Action::Redirect { ports }),
        "REJECT" => Action::Reject,
        "NFQUEUE" => Action::Queue,
        "MARK" => match (u32_at(info, 0), u32_at(info, 4)) {
            (Some(mark), Some(u32::MAX)) => return Err(format!("mark set {mark:#x}")),
            (Some(mark), Some(mask)) => return Err(format!("mark set {mark:#x}/{mask:#x}")),
            _ => return Err("mark set".to_owned()),
        },
        "LOG" | "NFLOG" => return Err("log".to_owned()),
        // These go on with the next rule.
        "CONNMARK" | "CT" | "NOTRACK" | "TCPMSS" | "CHECKSUM" | "CLASSIFY" | "DSCP" | "SET"
        | "TTL" | "HL" | "TRACE" | "AUDIT" | "SECMARK" | "CONNSECMARK" => {
            return Err(name.to_owned());
        }
        _ => Action::Other(format!("xt {name}")),
    })
}

fn unread(name: &str) -> impl FnOnce() -> Action {
    let name = format!("xt {name}");
    move || Action::Other(name)
}

type Addrs = Option<(IpAddr, IpAddr)>;
type Ports = Option<(u16, u16)>;

/// The range of a NAT target: `struct nf_nat_ipv4_multi_range_compat`, `nf_nat_range` or
/// `nf_nat_range2`.
fn range(family: Family, name: &str, revision: u32, info: &[u8]) -> Option<(Addrs, Ports)> {
    const ADDRESSES: u32 = 1;
    const PORTS: u32 = 2;
    let old = revision == 0 && family == Family::Ip;
    let (flags, info) = match old {
        true => (u32_at(info, 4)?, info.get(8..)?),
        false => (u32_at(info, 0)?, info.get(4..)?),
    };
    let width = if old { 4 } else { 16 };
    let wide = family == Family::Ip6 || (name == "REDIRECT" && !old);
    let addr = |at: usize| -> Option<IpAddr> {
        match wide {
            true => Some(Ipv6Addr::from(*info.get(at..)?.first_chunk::<16>()?).into()),
            false => Some(Ipv4Addr::from(*info.get(at..)?.first_chunk::<4>()?).into()),
        }
    };
    let port = |at: usize| Some(u16::from_be_bytes(*info.get(at..)?.first_chunk()?));
    let addrs = match flags & ADDRESSES {
        0 => None,
        _ => Some((addr(0)?, addr(width)?)),
    };
    let ports = match flags & PORTS {
        0 => None,
        _ => Some((port(2 * width)?, port(2 * width + 2)?)),
    };
    Some((addrs, ports))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}
