//! One TCP connection through the forwarder: two sockets and what is on its way between them.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt},
};

use super::forwards::Port;

/// Rounds of reading and writing before others get their turn.
const ROUNDS: usize = 16;

/// A client, its target, and the bytes in between.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) port: Port,
    pub(super) client: OwnedFd,
    pub(super) target: OwnedFd,
    connected: bool,
    up: Way,
    down: Way,
}

/// One direction. It reads no further while anything is pending, so that is bounded by one read.
#[derive(Debug, Default)]
struct Way {
    pending: Vec<u8>,
    /// The source has sent its end.
    ended: bool,
    /// The end was passed on.
    closed: bool,
}

/// What a relay needs next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// An event.
    Wait,
    /// Another turn.
    Again,
    /// To be dropped: both ways were closed in order.
    Done,
    /// To be aborted: one side is gone.
    Broken,
}

impl Relay {
    /// Starts to connect to the target; the outcome is an event of `target`.
    pub(super) fn new(port: Port, client: OwnedFd, to: SocketAddr) -> rustix::io::Result<Self> {
        let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let target = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        for socket in [&client, &target] {
            sockopt::set_tcp_nodelay(socket, true)?;
            // A peer that vanished without a word is noticed after some hours.
            sockopt::set_socket_keepalive(socket, true)?;
        }
        match rustix::net::connect(&target, &to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => {
                // The client should see a failure, not an answer without a word.
                let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
                return Err(error);
            }
        }
        let (up, down) = (Way::default(), Way::default());
        Ok(Self { port, client, target, connected: false, up, down })
    }

    /// Moves what can be moved. Events are edge-triggered: only `Wait` says that all was tried.
    pub(super) fn advance(&mut self, scratch: &mut [u8]) -> Next {
        if !self.connected {
            match sockopt::socket_error(&self.target) {
                Ok(Ok(())) => {}
                _ => return Next::Broken,
            }
            if rustix::net::getpeername(&self.target).is_err() {
                return Next::Wait;
            }
            self.connected = true;
        }
        let up = self.up.pump(&self.client, &self.target, scratch);
        let down = self.down.pump(&self.target, &self.client, scratch);
        match (up, down) {
            (Err(_), _) | (_, Err(_)) => Next::Broken,
            _ if self.up.closed && self.down.closed => Next::Done,
            (Ok(true), _) | (_, Ok(true)) => Next::Again,
            _ => Next::Wait,
        }
    }

    /// Has both sides see a reset instead of an orderly end, when this is dropped.
    pub(super) fn abort(&self) {
        for socket in [&self.client, &self.target] {
            let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
        }
    }
}

impl Way {
    /// Returns whether there may be more to do at once.
    fn pump(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        scratch: &mut [u8],
    ) -> rustix::io::Result<bool> {
        for _ in 0..ROUNDS {
            if !self.pending.is_empty() {
                let sent = write(to, &self.pending)?;
                self.pending.drain(..sent);
                if !self.pending.is_empty() {
                    return Ok(false);
                }
                self.pending = Vec::new(); // An idle connection holds no memory.
            }
            if self.ended {
                if !self.closed {
                    self.closed = true;
                    rustix::net::shutdown(to, Shutdown::Write)?;
                }
                return Ok(false);
            }
            match rustix::net::recv(from, &mut *scratch, RecvFlags::empty()) {
                Ok((0, _)) => self.ended = true,
                Ok((length, _)) => {
                    let sent = write(to, &scratch[..length])?;
                    self.pending.extend_from_slice(&scratch[sent..length]);
                }
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Writes until all is written or the socket is full; returns how much was.
fn write(to: &OwnedFd, mut bytes: &[u8]) -> rustix::io::Result<usize> {
    let mut sent = 0;
    while !bytes.is_empty() {
        match rustix::net::send(to, bytes, SendFlags::NOSIGNAL) {
            Ok(length) => {
                sent += length;
                bytes = &bytes[length..];
            }
            Err(Errno::WOULDBLOCK) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
