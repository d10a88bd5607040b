//! What a packet says, in one line for people.
//!
//! Whoever sends a packet writes what is in it: nothing here trusts a length, and names from inside
//! are escaped.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::{map::shown, name::Mac, pcapng::LinkType};

/// Labels of a name that are shown of a question to a name server.
const LABELS_MAX: usize = 32;

/// Returns a line that says what the packet is; `length` is what it had on the wire.
pub fn summary(link: LinkType, bytes: &[u8], length: u32) -> String {
    let mut told = String::new();
    if tell(link, bytes, &mut told).is_none() {
        told.truncate(told.trim_end().len());
        let join = if told.is_empty() { "" } else { " " };
        // Writing to a string does not fail.
        let _ = write!(told, "{join}(cut short)");
    }
    let _ = write!(told, ", {length} bytes");
    told
}

fn tell(link: LinkType, bytes: &[u8], out: &mut String) -> Option<()> {
    match link {
        LinkType::Ethernet => ethernet(bytes, out),
        LinkType::RawIp => match bytes.first()? >> 4 {
            4 => ipv4(bytes, out),
            6 => ipv6(bytes, out),
            other => said(out, format_args!("IP of version {other}")),
        },
    }
}

fn said(out: &mut String, text: std::fmt::Arguments<'_>) -> Option<()> {
    out.write_fmt(text).ok()
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn number(bytes: &[u8], place: usize) -> Option<u16> {
    at(bytes, place).map(u16::from_be_bytes)
}

fn v4(bytes: &[u8], place: usize) -> Option<Ipv4Addr> {
    at::<4>(bytes, place).map(Ipv4Addr::from)
}

fn v6(bytes: &[u8], place: usize) -> Option<Ipv6Addr> {
    at::<16>(bytes, place).map(Ipv6Addr::from)
}

fn ethernet(bytes: &[u8], out: &mut String) -> Option<()> {
    let (to, from) = (Mac(at(bytes, 0)?), Mac(at(bytes, 6)?));
    let (mut kind, mut rest) = (number(bytes, 12)?, bytes.get(14..)?);
    // Two tags at most, as of a provider around a customer's.
    for _ in 0..2 {
        if matches!(kind, 0x8100 | 0x88a8) {
            said(out, format_args!("vlan {} ", number(rest, 0)? & 0xfff))?;
            (kind, rest) = (number(rest, 2)?, rest.get(4..)?);
        }
    }
    match kind {
        0x0800 => ipv4(rest, out),
        0x0806 => arp(rest, out),
        0x86dd => ipv6(rest, out),
        0..0x0600 => said(out, format_args!("LLC {from} > {to}")),
        kind => said(out, format_args!("ethertype {kind:#06x} {from} > {to}")),
    }
}

fn arp(bytes: &[u8], out: &mut String) -> Option<()> {
    let (from, to) = (v4(bytes, 14)?, v4(bytes, 24)?);
    match number(bytes, 6)? {
        1 if from == to => said(out, format_args!("ARP {from} is announced")),
        1 => said(out, format_args!("ARP who has {to}? tell {from}")),
        2 => said(out, format_args!("ARP {from} is at {}", Mac(at(bytes, 8)?))),
        other => said(out, format_args!("ARP operation {other}")),
    }
}

fn ipv4(bytes: &[u8], out: &mut String) -> Option<()> {
    let (from, to) = (v4(bytes, 12)?, v4(bytes, 16)?);
    let header = usize::from(bytes[0] & 0xf) * 4;
    let ends = (from.to_string(), to.to_string());
    let fragment = number(bytes, 6)? & 0x1fff;
    if fragment != 0 {
        let offset = u32::from(fragment) * 8;
        return said(out, format_args!("{from} > {to} IPv4 fragment from byte {offset} on"));
    }
    let whole = usize::from(number(bytes, 2)?);
    let length = whole.checked_sub(header);
    carried(bytes[9], ends, bytes.get(header..)?, length, out)
}

fn ipv6(bytes: &[u8], out: &mut String) -> Option<()> {
    let (from, to) = (v6(bytes, 8)?, v6(bytes, 24)?);
    let brackets = |addr: Ipv6Addr| match bytes[6] {
        6 | 17 | 132 => format!("[{addr}]"),
        _ => addr.to_string(),
    };
    let ends = (brackets(from), brackets(to));
    carried(bytes[6], ends, bytes.get(40..)?, Some(usize::from(number(bytes, 4)?)), out)
}

/// What IP carries; `length` is what its header says there is.
fn carried(
    proto: u8,
    (from, to): (String, String),
    bytes: &[u8],
    length: Option<usize>,
    out: &mut String,
) -> Option<()> {
    match proto {
        6 | 17 | 132 => {
            let (src, dst) = (number(bytes, 0)?, number(bytes, 2)?);
            said(out, format_args!("{from}:{src} > {to}:{dst} "))?;
            match proto {
                6 => tcp(bytes, length, out),
                17 => udp(bytes, src == 53 || dst == 53, out),
                _ => said(out, format_args!("SCTP")),
            }
        }
        1 => {
            said(out, format_args!("{from} > {to} "))?;
            icmp(bytes, out)
        }
        58 => {
            said(out, format_args!("{from} > {to} "))?;
            icmp6(bytes, out)
        }
        2 => said(out, format_args!("{from} > {to} IGMP")),
        0 => said(out, format_args!("{from} > {to} IPv6 with options")),
        4 | 41 => said(out, format_args!("{from} > {to} IP in IP")),
        47 => said(out, format_args!("{from} > {to} GRE")),
        50 => said(out, format_args!("{from} > {to} ESP")),
        other => said(out, format_args!("{from} > {to} protocol {other}")),
    }
}

fn tcp(bytes: &[u8], length: Option<usize>, out: &mut String) -> Option<()> {
    let header = usize::from(bytes.get(12)? >> 4) * 4;
    let flags = bytes.get(13)?;
    out.push_str("TCP");
    let names = [(0x02, "SYN"), (0x01, "FIN"), (0x04, "RST"), (0x08, "PSH"), (0x10, "ACK")];
    for (_, name) in names.iter().filter(|(bit, _)| flags & bit != 0) {
        out.push(' ');
        out.push_str(name);
    }
    let data = length.and_then(|length| length.checked_sub(header)).unwrap_or(0);
    if data > 0 {
        said(out, format_args!(" with {data}"))?;
    }
    Some(())
}

fn udp(bytes: &[u8], dns: bool, out: &mut String) -> Option<()> {
    let data = usize::from(number(bytes, 4)?).saturating_sub(8);
    let told = dns.then(|| question(bytes.get(8..)?)).flatten();
    match told {
        Some(told) => said(out, format_args!("{told}")),
        None => said(out, format_args!("UDP with {data}")),
    }
}

/// The first question in a message to or from a name server (RFC 1035, 4.1), and how it ended.
fn question(bytes: &[u8]) -> Option<String> {
    let flags = number(bytes, 2)?;
    let (mut name, mut place) = (String::new(), 12);
    if number(bytes, 4)? == 0 {
        return None;
    }
    for _ in 0..LABELS_MAX {
        let length = usize::from(*bytes.get(place)?);
        // A name may be told by where it stood before; in the first question there is no before.
        if length > 63 {
            return None;
        }
        place += 1;
        if length == 0 {
            break;
        }
        let label = bytes.get(place..place + length)?;
        name.push_str(&shown(&String::from_utf8_lossy(label)));
        name.push('.');
        place += length;
    }
    let kind = match number(bytes, place)? {
        1 => "A".to_owned(),
        2 => "NS".to_owned(),
        5 => "CNAME".to_owned(),
        12 => "PTR".to_owned(),
        15 => "MX".to_owned(),
        16 => "TXT".to_owned(),
        28 => "AAAA".to_owned(),
        33 => "SRV".to_owned(),
        65 => "HTTPS".to_owned(),
        other => format!("type {other}"),
    };
    let answers = number(bytes, 6)?;
    Some(match (flags & 0x8000 != 0, flags & 0xf) {
        (false, _) => format!("DNS {kind}? {name}"),
        (true, 0) => format!("DNS {kind} {name} {answers} answers"),
        (true, 3) => format!("DNS {kind} {name} no such name"),
        (true, code) => format!("DNS {kind} {name} error {code}"),
    })
}

fn icmp(bytes: &[u8], out: &mut String) -> Option<()> {
    let code = *bytes.get(1)?;
    match bytes[0] {
        kind @ (0 | 8) => {
            let (id, sequence) = (number(bytes, 4)?, number(bytes, 6)?);
            let what = if kind == 8 { "request" } else { "reply" };
            said(out, format_args!("ICMP echo {what} id {id} seq {sequence}"))
        }
        3 => {
            let what = match code {
                0 => "network",
                1 => "host",
                2 => "protocol",
                3 => "port",
                4 => {
                    let mtu = number(bytes, 6)?;
                    return said(out, format_args!("ICMP fragmentation needed, mtu {mtu}"));
                }
                9 | 10 | 13 => {
                    return said(out, format_args!("ICMP prohibited by an administrator"));
                }
                _ => return said(out, format_args!("ICMP unreachable, code {code}")),
            };
            said(out, format_args!("ICMP {what} unreachable"))
        }
        5 => said(out, format_args!("ICMP redirect to {}", v4(bytes, 4)?)),
        11 => said(out, format_args!("ICMP time exceeded")),
        kind => said(out, format_args!("ICMP type {kind} code {code}")),
    }
}

fn icmp6(bytes: &[u8], out: &mut String) -> Option<()> {
    let code = *bytes.get(1)?;
    match bytes[0] {
        kind @ (128 | 129) => {
            let (id, sequence) = (number(bytes, 4)?, number(bytes, 6)?);
            let what = if kind == 128 { "request" } else { "reply" };
            said(out, format_args!("ICMPv6 echo {what} id {id} seq {sequence}"))
        }
        1 => {
            let what = match code {
                0 => "no route",
                1 => "prohibited by an administrator",
                3 => "address unreachable",
                4 => "port unreachable",
                _ => return said(out, format_args!("ICMPv6 unreachable, code {code}")),
            };
            said(out, format_args!("ICMPv6 {what}"))
        }
        2 => {
            let mtu = u32::from_be_bytes(at(bytes, 4)?);
            said(out, format_args!("ICMPv6 packet too big, mtu {mtu}"))
        }
        3 => said(out, format_args!("ICMPv6 time exceeded")),
        130 => said(out, format_args!("ICMPv6 multicast listener query")),
        131 | 143 => said(out, format_args!("ICMPv6 multicast listener report")),
        133 => said(out, format_args!("ICMPv6 router solicitation")),
        134 => said(out, format_args!("ICMPv6 router advertisement")),
        135 => said(out, format_args!("ICMPv6 who has {}?", v6(bytes, 8)?)),
        136 => said(out, format_args!("ICMPv6 {} is here", v6(bytes, 8)?)),
        kind => said(out, format_args!("ICMPv6 type {kind} code {code}")),
    }
}
