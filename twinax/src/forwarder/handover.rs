//! Ports' sockets: how they are opened, and how they pass from who publishes to the forwarder.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixDatagram,
    },
};

use rustix::{
    cmsg_space,
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
        SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
    },
};
use twinax_core::name::Proto;

use super::forwards::Port;

/// As many descriptors go in one message (`SCM_MAX_FD`, unix(7)).
pub(super) const MOST: usize = 253;

/// Opens the socket of a port: from here on the kernel takes connections, or datagrams, for it.
pub(super) fn open(port: Port) -> io::Result<OwnedFd> {
    let family = if port.listen.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let tcp = port.proto == Proto::Tcp;
    let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    if tcp {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if port.listen.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    rustix::net::bind(&socket, &port.listen)?;
    if tcp {
        rustix::net::listen(&socket, 1024)?;
    }
    Ok(socket)
}

/// Whether a port cannot be opened because there is no IPv6: nobody can come by it then, so
/// nobody misses it.
pub(super) fn is_needless(port: Port, error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    let absent = matches!(errno, Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL));
    port.listen.is_ipv6() && absent
}

/// Whether a socket that was handed over is the port's, and never makes us wait.
pub(super) fn is_of(socket: &OwnedFd, port: Port) -> bool {
    let kind = if port.proto == Proto::Tcp { SocketType::STREAM } else { SocketType::DGRAM };
    let bound = rustix::net::getsockname(socket).ok();
    let bound = bound.and_then(|addr| SocketAddr::try_from(addr).ok());
    let listens =
        || port.proto == Proto::Udp || matches!(sockopt::socket_acceptconn(socket), Ok(true));
    let prompt = rustix::io::ioctl_fionbio(socket, true).is_ok();
    prompt && bound == Some(port.listen) && sockopt::socket_type(socket) == Ok(kind) && listens()
}

/// Sends a message and, with it, at most [`MOST`] descriptors.
pub(super) fn send(to: &UnixDatagram, text: &[u8], handed: &[OwnedFd]) -> io::Result<()> {
    let borrowed: Vec<BorrowedFd<'_>> = handed.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(to, &[IoSlice::new(text)], &mut control, flags)?;
    Ok(())
}

/// Reads a message and the descriptors that came with it.
///
/// Those that do not fit are closed by the kernel, and all of a message that is not whole here.
pub(super) fn receive(
    from: &UnixDatagram,
    scratch: &mut [u8],
) -> io::Result<(String, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(MOST))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut into = [IoSliceMut::new(scratch)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(from, &mut into, &mut control, flags)?;
    let mut handed = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            handed.extend(fds);
        }
    }
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let text = str::from_utf8(&scratch[..received.bytes]);
    Ok((text.map_err(|_| io::ErrorKind::InvalidData)?.to_owned(), handed))
}
