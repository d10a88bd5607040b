//! Asks the kernel whether host ports can be had, and who holds those that cannot.
//!
//! All questions are about the network namespace of the calling thread. Nothing stays bound: an
//! answer is true of the moment it was given.
//!
//! # Theory of operation
//!
//! A port is free if a socket of ours can be bound to it; no list of sockets is read for that. For
//! TCP the socket has `SO_REUSEADDR`, which lets it pass over connections in `TIME_WAIT` but not
//! over a listener, whatever options that has. A UDP holder that set `SO_REUSEADDR` would let
//! such a socket pass, so there it is not set. "Every address" is tried by one socket of both families
//! (`[::]`); if that fails, once a family (`0.0.0.0`, and `[::]` with `IPV6_V6ONLY`): each fails if
//! any address of its family is held.
//!
//! Only if that fails are the sockets of this one port listed (sock_diag(7), filtered by the
//! kernel), for two reasons: to name the holder, and because a mere connection whose own port it
//! is does not stand in the way of what is published there.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
};

use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, SocketFlags, SocketType, ipproto, netlink, sockopt},
};
use twinax_core::{
    decide::{Probe, ProbeAnswer},
    name::Proto,
};

use super::netlink::{Outgoing, messages};

/// The range `connect` takes local ports from, and the ports it never takes.
const LOCAL_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const LOCAL_RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

const UNSPECIFIED6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Why a probe has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ListenersError {
    #[error("trying to bind {proto} port {port}")]
    Bind { proto: Proto, port: u16, source: io::Error },
    #[error("asking the kernel who holds {proto} port {port}")]
    Holder { proto: Proto, port: u16, source: io::Error },
    #[error("reading {path}")]
    Read { path: &'static str, source: io::Error },
    #[error("{path} holds {text:?}: not two ports")]
    Range { path: &'static str, text: String },
}

/// Finds up to `probe.want` free ports, lowest first, and names the holders of those passed over.
///
/// Where more ports are offered than wanted, it also passes over reserved ones
/// (`ip_local_reserved_ports`) and those some connection uses as its own.
pub fn probe(probe: &Probe) -> Result<ProbeAnswer, ListenersError> {
    let mut answer = ProbeAnswer::default();
    let offered = u32::from(probe.last).saturating_sub(u32::from(probe.first)) + 1;
    let choosy = offered > u32::from(probe.want);
    let reserved = if choosy { reserved_ports()? } else { Vec::new() };
    for port in probe.first..=probe.last {
        if answer.free.len() >= usize::from(probe.want) {
            break;
        }
        if reserved.iter().any(|range| range.contains(&port)) {
            answer.busy.insert(port, "reserved by net.ipv4.ip_local_reserved_ports".to_owned());
            continue;
        }
        match taken(probe.proto, probe.host, port, choosy)? {
            Taken::Free => answer.free.push(port),
            Taken::By(holder) => drop(answer.busy.insert(port, holder)),
            Taken::NoAddress => {
                answer.absent = true;
                break;
            }
        }
    }
    Ok(answer)
}

/// Returns the first and the last port that `connect` and automatic publishing choose from.
pub fn ephemeral_range() -> Result<(u16, u16), ListenersError> {
    let path = LOCAL_RANGE;
    let text = fs::read_to_string(path).map_err(|source| ListenersError::Read { path, source })?;
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => Ok((first, last)),
        _ => Err(ListenersError::Range { path, text: text.trim().to_owned() }),
    }
}

fn reserved_ports() -> Result<Vec<RangeInclusive<u16>>, ListenersError> {
    let path = LOCAL_RESERVED;
    let text = fs::read_to_string(path).map_err(|source| ListenersError::Read { path, source })?;
    Ok(parse_ranges(&text))
}

/// Reads `8080,9000-9010`.
fn parse_ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |word: &str| {
        let (first, last) = word.split_once('-').unwrap_or((word, word));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// Whether a port can be had.
enum Taken {
    Free,
    /// What holds it.
    By(String),
    /// The host does not have the address.
    NoAddress,
}

/// Tries whether the port can be had.
fn taken(
    proto: Proto,
    host: Option<IpAddr>,
    port: u16,
    choosy: bool,
) -> Result<Taken, ListenersError> {
    // Without the protocol nobody can hold its ports; asking for a socket might load it.
    if proto == Proto::Sctp && !fs::exists("/proc/thread-self/net/sctp").unwrap_or(false) {
        return Ok(Taken::Free);
    }
    let addrs = match host {
        Some(addr) => vec![addr],
        // One socket for both families has what two would. Whatever it is refused for is asked again,
        // family by family.
        None if try_bind(proto, UNSPECIFIED6, port, false).is_ok() => return Ok(Taken::Free),
        None => vec![Ipv4Addr::UNSPECIFIED.into(), UNSPECIFIED6],
    };
    for addr in addrs {
        let holder = match try_bind(proto, addr, port, true) {
            Ok(()) => None,
            // No IPv6 in this kernel or namespace.
            Err(Errno::AFNOSUPPORT) => None,
            Err(Errno::ADDRNOTAVAIL) if addr.is_unspecified() => None,
            Err(Errno::ADDRNOTAVAIL) => return Ok(Taken::NoAddress),
            Err(Errno::ACCESS) => Some(
                "the system: ports below net.ipv4.ip_unprivileged_port_start are for root"
                    .to_owned(),
            ),
            Err(Errno::ADDRINUSE) => holder(proto, addr, port, choosy)
                .map_err(|source| ListenersError::Holder { proto, port, source })?,
            Err(error) => {
                return Err(ListenersError::Bind { proto, port, source: error.into() });
            }
        };
        if let Some(holder) = holder {
            return Ok(Taken::By(holder));
        }
    }
    Ok(Taken::Free)
}

/// Binds a socket; one of IPv6 that is not `alone` takes the port of IPv4 as well.
fn try_bind(proto: Proto, addr: IpAddr, port: u16, alone: bool) -> rustix::io::Result<()> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, protocol) = match proto {
        Proto::Tcp => (SocketType::STREAM, ipproto::TCP),
        Proto::Udp => (SocketType::DGRAM, ipproto::UDP),
        Proto::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    if proto == Proto::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if addr.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, alone)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(addr, port))
}

/// Names who keeps us from binding; `None` if only connections do and the caller is not choosy.
fn holder(proto: Proto, addr: IpAddr, port: u16, choosy: bool) -> io::Result<Option<String>> {
    let protocol = match proto {
        Proto::Tcp => ipproto::TCP,
        Proto::Udp => ipproto::UDP,
        // The kernel lists these sockets differently; bind has said enough.
        Proto::Sctp => return Ok(Some("another socket".to_owned())),
    };
    let mut sockets = Vec::new();
    for family in [AddressFamily::INET, AddressFamily::INET6] {
        match sockets_at(family, protocol, port) {
            Ok(found) => sockets.extend(found),
            // This kernel has no sock_diag for it: held all the same.
            Err(Errno::NOENT | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let in_the_way = |socket: &&Socket| {
        let there = socket.addr.to_canonical();
        addr.is_unspecified() || there.is_unspecified() || there == addr
    };
    if let Some(socket) = sockets.iter().filter(in_the_way).find(|socket| socket.waits(proto)) {
        return Ok(Some(owner(socket)));
    }
    Ok(match sockets.first() {
        Some(_) if !choosy => None,
        Some(socket) => Some(format!("a connection of {}", owner(socket))),
        None => Some("a socket the kernel does not show".to_owned()),
    })
}

/// A socket as sock_diag tells of it.
#[derive(Debug, PartialEq, Eq)]
struct Socket {
    addr: IpAddr,
    state: u8,
    uid: u32,
    inode: u32,
}

// include/net/tcp_states.h
const TCP_ESTABLISHED: u8 = 1;
const TCP_LISTEN: u8 = 10;
/// Bound, neither listening nor connected. Told since Linux 6.8.
const TCP_BOUND_INACTIVE: u8 = 13;

impl Socket {
    /// Whether it takes what comes from anyone, or is about to.
    fn waits(&self, proto: Proto) -> bool {
        match proto {
            Proto::Udp => self.state != TCP_ESTABLISHED,
            _ => matches!(self.state, TCP_LISTEN | TCP_BOUND_INACTIVE),
        }
    }
}

// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// Bytes of `struct inet_diag_req_v2`.
const DIAG_REQUEST: usize = 56;
/// Bytes of `struct inet_diag_msg`.
const DIAG_MESSAGE: usize = 72;

/// Lists the sockets of one family whose own port is `port`.
fn sockets_at(
    family: AddressFamily,
    protocol: Protocol,
    port: u16,
) -> rustix::io::Result<Vec<Socket>> {
    let mut socket = super::netlink::Socket::open(Some(netlink::SOCK_DIAG))?;
    socket.send(diag_request(family, protocol, port).bytes())?;
    let mut sockets = Vec::new();
    loop {
        for message in messages(socket.wait()?) {
            if let Some((errno, _)) = message.refusal() {
                return Err(errno);
            }
            if message.is_done() {
                return Ok(sockets);
            }
            sockets.extend(parse_socket(message.body));
        }
    }
}

/// `struct inet_diag_req_v2`: the port in its `id` is matched by the kernel.
fn diag_request(family: AddressFamily, protocol: Protocol, port: u16) -> Outgoing {
    let mut body = vec![family.as_raw() as u8, protocol.as_raw().get() as u8, 0, 0];
    body.extend(u32::MAX.to_ne_bytes()); // idiag_states: all
    body.extend(port.to_be_bytes());
    body.resize(DIAG_REQUEST, 0);
    let mut out = Outgoing::default();
    out.message(SOCK_DIAG_BY_FAMILY, libc::NLM_F_DUMP as u16, 0);
    out.body(&body);
    out
}

fn parse_socket(body: &[u8]) -> Option<Socket> {
    let body = body.get(..DIAG_MESSAGE)?;
    let (family, state) = (body[0], body[1]);
    let addr = if AddressFamily::from_raw(family.into()) == AddressFamily::INET {
        IpAddr::from(<[u8; 4]>::try_from(&body[8..12]).ok()?)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&body[8..24]).ok()?)
    };
    Some(Socket { addr, state, uid: word(body, 64), inode: word(body, 68) })
}

/// The word at an offset, 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    let bytes = bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    bytes.map_or(0, u32::from_ne_bytes)
}

/// Names the process behind a socket, as "nginx (pid 812)".
fn owner(socket: &Socket) -> String {
    let wanted = format!("socket:[{}]", socket.inode);
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Ok(pid) = process.file_name().to_string_lossy().parse::<u32>() else { continue };
        let fds = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for fd in fds {
            if fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                return format!("{} (pid {pid})", name.trim_end());
            }
        }
    }
    format!("a process we may not see (user id {})", socket.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_ports_are_read_as_the_kernel_writes_them() {
        assert_eq!(parse_ranges("\n"), []);
        assert_eq!(parse_ranges("8080,9000-9010\n"), [8080..=8080, 9000..=9010]);
    }

    #[test]
    fn a_question_has_its_size_and_a_short_answer_is_none() {
        let request = diag_request(AddressFamily::INET, ipproto::TCP, 80);
        assert_eq!(request.bytes().len(), 16 + DIAG_REQUEST);
        assert_eq!(parse_socket(&[0; DIAG_MESSAGE - 1]), None);
    }
}
