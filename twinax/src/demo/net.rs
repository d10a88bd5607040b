//! Sockets as the demos want them: dual-stack servers, clients that try every address in time.

use std::{
    io,
    net::{
        IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
    },
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::{Stop, Transport};

/// `HOST:PORT`, not resolved. An IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("not HOST:PORT: {text}");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(wrong)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        if host.is_empty() || host.contains('/') || (bare.is_none() && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }

    fn addrs(&self) -> io::Result<Vec<SocketAddr>> {
        let addrs: Vec<_> = (self.host.as_str(), self.port).to_socket_addrs()?.collect();
        if addrs.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        Ok(addrs)
    }

    /// Connects to the first address that answers before `limit` is over; reads and writes wait
    /// no longer than `limit` either.
    pub(super) fn connect(&self, limit: Duration) -> io::Result<TcpStream> {
        let deadline = Instant::now() + limit;
        let mut last = io::Error::from(io::ErrorKind::TimedOut);
        for addr in self.addrs()? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match TcpStream::connect_timeout(&addr, left) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(limit))?;
                    stream.set_write_timeout(Some(limit))?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A UDP socket that talks to the first address of the name only.
    pub(super) fn connect_udp(&self, limit: Duration) -> io::Result<UdpSocket> {
        let addr = self.addrs()?[0];
        let any: IpAddr = match addr {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        socket.connect(addr)?;
        socket.set_read_timeout(Some(limit))?;
        Ok(socket)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// Listens on `addr`, or on every address of both families, or of IPv4 where IPv6 is absent.
pub(super) fn listen_tcp(addr: Option<IpAddr>, port: u16) -> Result<TcpListener, Stop> {
    let socket = bound(Transport::Tcp, addr, port)?;
    let listening = rustix::net::listen(&socket, 128);
    listening.map_err(|error| Stop::failed(format!("tcp port {port}"), &error.into()))?;
    Ok(TcpListener::from(socket))
}

/// Waits for the next client; returns it with its address in words.
pub(super) fn accept(listener: &TcpListener) -> (TcpStream, String) {
    loop {
        match listener.accept() {
            Ok((stream, client)) => return (stream, plain(client).to_string()),
            // A client gone already, or no descriptor left: neither ends a server.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Like [`listen_tcp`], for datagrams.
pub(super) fn listen_udp(addr: Option<IpAddr>, port: u16) -> Result<UdpSocket, Stop> {
    Ok(UdpSocket::from(bound(Transport::Udp, addr, port)?))
}

fn bound(transport: Transport, addr: Option<IpAddr>, port: u16) -> Result<OwnedFd, Stop> {
    let attempt = match addr {
        Some(addr) => bind(transport, addr, port),
        None => match bind(transport, Ipv6Addr::UNSPECIFIED.into(), port) {
            // No IPv6 in this kernel, or switched off in this namespace.
            Err(rustix::io::Errno::AFNOSUPPORT | rustix::io::Errno::ADDRNOTAVAIL) => {
                bind(transport, Ipv4Addr::UNSPECIFIED.into(), port)
            }
            attempt => attempt,
        },
    };
    let name = if transport == Transport::Tcp { "tcp" } else { "udp" };
    attempt.map_err(|error| Stop::failed(format!("{name} port {port}"), &error.into()))
}

fn bind(transport: Transport, addr: IpAddr, port: u16) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match transport {
        Transport::Tcp => SocketType::STREAM,
        Transport::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    if transport == Transport::Tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if addr == IpAddr::from(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&socket, false)?;
    }
    rustix::net::bind(&socket, &SocketAddr::new(addr, port))?;
    Ok(socket)
}

/// An IPv4 address stays one, also when a dual-stack socket saw it.
pub(super) fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// The error in words for people, without the system's number.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time".to_owned(),
        io::ErrorKind::ConnectionRefused => "connection refused: nobody listens there".to_owned(),
        io::ErrorKind::AddrInUse => "already in use".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed before the answer".to_owned(),
        _ => error.to_string(),
    }
}
