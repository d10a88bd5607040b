//! Lists the sockets that wait for others, and finds who has them open.
//!
//! Asking by sock_diag(7) can make the kernel load a module. Where that could happen the lists in
//! `/proc` are read instead, which do not say whether an IPv6 socket takes IPv4 too.

use std::{
    collections::HashMap,
    ffi::CStr,
    fs,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use rustix::{
    fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw},
    io::Errno,
    net::netlink::SOCK_DIAG,
};
use twinax_core::name::Proto;

use super::asker::Asker;
use crate::linux::{
    module,
    netlink::{Message, Socket, attribute, number},
};

/// Who has a socket open, by the socket's inode: the pid and name of each process.
pub type Holders = HashMap<u32, Vec<(u32, String)>>;

/// A socket by its inode.
#[derive(Clone, Debug)]
pub(super) struct RawListener {
    pub(super) proto: Proto,
    pub(super) at: SocketAddr,
    pub(super) dual: bool,
    pub(super) inode: u32,
}

// linux/inet_diag.h, linux/sock_diag.h, include/net/tcp_states.h
const TCPDIAG_GETSOCK: u16 = 18;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_SKV6ONLY: u16 = 11;
const TCP_CLOSE: u8 = 7;
const TCP_LISTEN: u8 = 10;
/// Bytes of `struct inet_diag_msg`.
const DIAG_MESSAGE: usize = 72;

/// Whether sock_diag answers for TCP and UDP without loading anything.
pub(super) fn diag_is_there() -> bool {
    module::are_there(&["inet_diag", "tcp_diag", "udp_diag"])
}

/// Lists what waits in the namespace of the calling thread.
pub(super) fn listeners(diag: bool) -> Result<Vec<RawListener>, Errno> {
    let Some(held) = held() else {
        return Ok(Vec::new());
    };
    if !diag {
        return Ok(told_by_proc());
    }
    let mut asker = Asker::over(Socket::open(Some(SOCK_DIAG))?);
    let mut found = Vec::new();
    if held.tcp {
        // The old question is the one that is answered for both families at once.
        let mut body = [0; 60]; // struct inet_diag_req
        body[52..56].copy_from_slice(&(1u32 << TCP_LISTEN).to_ne_bytes());
        let read = |message: &Message<'_>| parse(Proto::Tcp, TCP_LISTEN, message);
        found.extend(asker.list(TCPDIAG_GETSOCK, |out| out.body(&body), read)?);
    }
    let families = [(held.udp4, libc::AF_INET), (held.udp6, libc::AF_INET6)];
    for (_, family) in families.iter().filter(|(held, _)| *held) {
        let mut body = [0; 56]; // struct inet_diag_req_v2
        body[0] = *family as u8;
        body[1] = Proto::Udp.number();
        body[4..8].copy_from_slice(&(1u32 << TCP_CLOSE).to_ne_bytes());
        let read = |message: &Message<'_>| parse(Proto::Udp, TCP_CLOSE, message);
        found.extend(asker.list(SOCK_DIAG_BY_FAMILY, |out| out.body(&body), read)?);
    }
    Ok(found)
}

fn parse(proto: Proto, wanted: u8, message: &Message<'_>) -> Option<RawListener> {
    let (header, rest) = message.body.split_at_checked(DIAG_MESSAGE)?;
    if header[1] != wanted {
        return None;
    }
    let v6 = i32::from(header[0]) == libc::AF_INET6;
    let addr: IpAddr = match v6 {
        true => Ipv6Addr::from(<[u8; 16]>::try_from(&header[8..24]).ok()?).to_canonical(),
        false => Ipv4Addr::from(<[u8; 4]>::try_from(&header[8..12]).ok()?).into(),
    };
    let only = attribute(rest, INET_DIAG_SKV6ONLY).is_some_and(|only| only.first() == Some(&1));
    Some(RawListener {
        proto,
        at: SocketAddr::new(addr, u16::from_be_bytes([header[4], header[5]])),
        dual: v6 && !only && addr.is_ipv6() && addr.is_unspecified(),
        inode: number(&header[68..])?,
    })
}

/// Which kinds of sockets there are in the namespace of the calling thread.
struct Held {
    tcp: bool,
    udp4: bool,
    udp6: bool,
}

/// The kernel walks the tables of all namespaces for the sockets of one; that there are none it
/// tells without. `None`: there are none of any kind.
fn held() -> Option<Held> {
    let read = |path: &str| fs::read_to_string(path).ok();
    let v4 = read("/proc/thread-self/net/sockstat");
    let v6 = read("/proc/thread-self/net/sockstat6");
    // Not told is taken for some.
    let some = |text: &Option<String>, what: &str| match text {
        Some(text) => text.lines().any(|line| {
            let count = line.strip_prefix(what).and_then(|rest| rest.strip_prefix(": inuse "));
            count.is_some_and(|rest| !matches!(rest.split(' ').next(), Some("0") | None))
        }),
        None => true,
    };
    let held = Held {
        tcp: some(&v4, "TCP") || some(&v6, "TCP6"),
        udp4: some(&v4, "UDP"),
        udp6: some(&v6, "UDP6"),
    };
    (held.tcp || held.udp4 || held.udp6).then_some(held)
}

fn told_by_proc() -> Vec<RawListener> {
    let lists = [
        ("tcp", Proto::Tcp, TCP_LISTEN),
        ("tcp6", Proto::Tcp, TCP_LISTEN),
        ("udp", Proto::Udp, TCP_CLOSE),
        ("udp6", Proto::Udp, TCP_CLOSE),
    ];
    let mut found = Vec::new();
    for (list, proto, state) in lists {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{list}")).unwrap_or_default();
        found.extend(text.lines().skip(1).filter_map(|line| parse_line(proto, state, line)));
    }
    found
}

/// Reads a line of `/proc/net/tcp6`: `sl local remote state …`, the inode being the tenth word.
fn parse_line(proto: Proto, wanted: u8, line: &str) -> Option<RawListener> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (addr, port) = words.get(1)?.split_once(':')?;
    if u8::from_str_radix(words.get(3)?, 16).ok()? != wanted {
        return None;
    }
    // Words of 32 bits as they stand in memory.
    let mut octets = Vec::with_capacity(16);
    for at in (0..addr.len()).step_by(8) {
        octets.extend(u32::from_str_radix(addr.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    }
    let addr = match octets.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(octets).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(octets).ok()?).to_canonical(),
    };
    Some(RawListener {
        proto,
        at: SocketAddr::new(addr, u16::from_str_radix(port, 16).ok()?),
        dual: addr.is_ipv6() && addr.is_unspecified(),
        inode: words.get(9)?.parse().ok()?,
    })
}

/// Finds who has which socket open, in one pass over the processes that may be looked at.
pub fn holders() -> Holders {
    let mut holders = Holders::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
            sockets_of(pid, &mut holders);
        }
    }
    holders
}

fn sockets_of(pid: u32, holders: &mut Holders) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = openat(CWD, format!("/proc/{pid}/fd"), flags, Mode::empty()) else {
        return;
    };
    let mut comm = None;
    let mut space = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(&dir, &mut space);
    while let Some(Ok(entry)) = entries.next() {
        let mut target = [MaybeUninit::<u8>::uninit(); 64];
        let name: &CStr = entry.file_name();
        let Ok((target, _)) = readlinkat_raw(&dir, name, &mut target) else {
            continue;
        };
        let inode = target.strip_prefix(b"socket:[").and_then(|rest| rest.strip_suffix(b"]"));
        let inode = inode.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        if let Some(inode) = inode {
            let comm = comm.get_or_insert_with(|| comm_of(pid));
            let list: &mut Vec<(u32, String)> = holders.entry(inode).or_default();
            if list.last().is_none_or(|(last, _)| *last != pid) {
                list.push((pid, comm.clone()));
            }
        }
    }
}

fn comm_of(pid: u32) -> String {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    String::from_utf8_lossy(comm.strip_suffix(b"\n").unwrap_or(&comm)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_are_read() {
        let line = "  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  \
                    0        0 4711 1 0000000000000000 100 0 0 10 0";
        let found = parse_line(Proto::Tcp, TCP_LISTEN, line).unwrap();
        assert_eq!((found.at.to_string().as_str(), found.inode), ("127.0.0.1:8080", 4711));
        assert!(parse_line(Proto::Udp, TCP_CLOSE, line).is_none());
        let line = line.replace("0100007F:", "00000000000000000000000000000000:");
        let found = parse_line(Proto::Tcp, TCP_LISTEN, &line).unwrap();
        assert_eq!((found.at.to_string().as_str(), found.dual), ("[::]:8080", true));
        assert!(parse_line(Proto::Tcp, TCP_LISTEN, "0: 7F:1 x 0A").is_none());
    }
}
