//! UDP through the forwarder: a socket to the target for each client, as long as they talk.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::forwards::Port;

/// How long a flow lasts after its last datagram, if it was answered, and if not: the limits of
/// the kernel's own connection tracking (`nf_conntrack_udp_timeout_stream`, `…_timeout`).
const ANSWERED: Duration = Duration::from_secs(120);
const ONE_WAY: Duration = Duration::from_secs(30);
/// Flows at a time; past that the one silent for longest gives way.
const MAX: usize = 4096;

/// One client's conversation through one port.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) port: Port,
    pub(super) client: SocketAddr,
    pub(super) socket: UdpSocket,
    last: Instant,
    answered: bool,
}

/// All flows, by the token of their events.
#[derive(Debug, Default)]
pub(super) struct Flows {
    by_token: HashMap<u64, Flow>,
    tokens: HashMap<(Port, SocketAddr), u64>,
}

impl Flow {
    fn expired(&self, now: Instant) -> bool {
        let limit = if self.answered { ANSWERED } else { ONE_WAY };
        now.duration_since(self.last) >= limit
    }
}

impl Flows {
    pub(super) fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }

    /// The flow of a client, to send to the target.
    pub(super) fn of_client(&mut self, port: Port, client: SocketAddr) -> Option<&mut Flow> {
        let flow = self.by_token.get_mut(self.tokens.get(&(port, client))?)?;
        flow.last = Instant::now();
        Some(flow)
    }

    pub(super) fn has(&self, token: u64) -> bool {
        self.by_token.contains_key(&token)
    }

    pub(super) fn get(&self, token: u64) -> Option<&Flow> {
        self.by_token.get(&token)
    }

    /// Notes that the target has answered.
    pub(super) fn answered(&mut self, token: u64) {
        if let Some(flow) = self.by_token.get_mut(&token) {
            flow.answered = true;
            flow.last = Instant::now();
        }
    }

    /// Opens a flow; its socket is connected to the target, so only the target can answer.
    pub(super) fn open(
        &mut self,
        token: u64,
        port: Port,
        client: SocketAddr,
        target: SocketAddr,
    ) -> rustix::io::Result<&Flow> {
        if self.by_token.len() >= MAX {
            self.drop_idlest();
        }
        let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
        rustix::net::connect(&socket, &target)?;
        let socket = UdpSocket::from(socket);
        let flow = Flow { port, client, socket, last: Instant::now(), answered: false };
        self.tokens.insert((port, client), token);
        Ok(self.by_token.entry(token).or_insert(flow))
    }

    fn drop_idlest(&mut self) {
        let idlest = self.by_token.iter().min_by_key(|(_, flow)| flow.last);
        if let Some((&token, _)) = idlest {
            self.retain(|_, at| at != token);
        }
    }

    pub(super) fn drop_expired(&mut self, now: Instant) {
        self.retain(|flow, _| !flow.expired(now));
    }

    pub(super) fn drop_port(&mut self, port: Port) {
        self.retain(|flow, _| flow.port != port);
    }

    fn retain(&mut self, keep: impl Fn(&Flow, u64) -> bool) {
        self.by_token.retain(|&token, flow| keep(flow, token));
        let kept = &self.by_token;
        self.tokens.retain(|_, token| kept.contains_key(token));
    }
}

#[cfg(test)]
mod tests {
    use twinax_core::name::Proto;

    use super::*;

    #[test]
    fn a_flow_outlives_its_silence_longer_once_answered() {
        let port = Port { proto: Proto::Udp, listen: "127.0.0.1:53".parse().unwrap() };
        let (client, target) = ("127.0.0.1:4000".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
        let mut flows = Flows::default();
        flows.open(1, port, client, target).unwrap();
        let now = Instant::now();
        flows.drop_expired(now + Duration::from_secs(29));
        assert!(flows.of_client(port, client).is_some());
        flows.answered(1);
        flows.drop_expired(now + Duration::from_secs(100));
        assert!(!flows.is_empty());
        flows.drop_expired(now + Duration::from_secs(121));
        assert!(flows.is_empty() && flows.of_client(port, client).is_none());
    }
}
