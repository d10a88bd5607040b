//! Whether a port is free, and who holds it, is answered as the kernel will decide it.

use std::{
    fs,
    io::Read,
    net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
};

use rustix::net::{AddressFamily, SocketType, sockopt};
use twinax::linux::listeners;
use twinax_core::{
    decide::{Probe, ProbeAnswer},
    name::Proto,
};

use crate::{harness::Outcome, sandbox::Sandbox, tests};

tests![
    a_listener_is_found_on_whatever_address_it_listens,
    a_holder_is_named,
    other_addresses_stay_free,
    old_connections_do_not_hold_a_port,
    a_range_is_searched_past_what_is_taken,
    without_sctp_its_ports_are_free,
    without_ipv6_only_ipv4_counts,
];

fn busy(proto: Proto, host: Option<&str>, port: u16) -> Option<String> {
    let host = host.map(|addr| addr.parse().unwrap());
    let probe = Probe { proto, host, first: port, last: port, want: 1 };
    let mut answer = listeners::probe(&probe).unwrap();
    assert_eq!(answer.free.is_empty(), !answer.busy.is_empty());
    answer.busy.remove(&port)
}

/// Whether the host is found not to have an address, and nothing else is said.
fn absent(addr: &str) -> bool {
    let host = Some(addr.parse().unwrap());
    let probe = Probe { proto: Proto::Tcp, host, first: 80, last: 80, want: 1 };
    let absent = ProbeAnswer { absent: true, ..ProbeAnswer::default() };
    listeners::probe(&probe).unwrap() == absent
}

/// Binds the dual-stack wildcard.
fn dual(kind: SocketType, port: u16) -> rustix::fd::OwnedFd {
    let socket = rustix::net::socket(AddressFamily::INET6, kind, None).unwrap();
    sockopt::set_ipv6_v6only(&socket, false).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    if kind == SocketType::STREAM {
        rustix::net::listen(&socket, 1).unwrap();
    }
    socket
}

fn a_listener_is_found_on_whatever_address_it_listens(_: &mut Sandbox) -> Outcome {
    for addr in ["127.0.0.1:80", "0.0.0.0:80", "[::1]:80", "[::]:80"] {
        assert_eq!(busy(Proto::Tcp, None, 80), None);
        let listener = TcpListener::bind(addr).unwrap();
        assert!(busy(Proto::Tcp, None, 80).is_some(), "tcp {addr}");
        drop(listener);
        assert_eq!(busy(Proto::Udp, None, 80), None);
        let socket = UdpSocket::bind(addr).unwrap();
        assert!(busy(Proto::Udp, None, 80).is_some(), "udp {addr}");
        assert_eq!(busy(Proto::Tcp, None, 80), None);
        drop(socket);
    }
    let _both = (dual(SocketType::STREAM, 81), dual(SocketType::DGRAM, 81));
    for host in [None, Some("127.0.0.1"), Some("::1")] {
        assert!(busy(Proto::Tcp, host, 81).is_some() && busy(Proto::Udp, host, 81).is_some());
    }
    // A holder that lets others share is one too.
    let shared = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
    sockopt::set_socket_reuseaddr(&shared, true).unwrap();
    rustix::net::bind(&shared, &"127.0.0.1:82".parse::<SocketAddr>().unwrap()).unwrap();
    assert!(busy(Proto::Udp, None, 82).is_some());
    Outcome::Passed
}

fn a_holder_is_named(_: &mut Sandbox) -> Outcome {
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let us = format!("{} (pid {})", name.trim(), std::process::id());
    let _tcp = TcpListener::bind("127.0.0.1:80").unwrap();
    let _udp = UdpSocket::bind("[::1]:80").unwrap();
    assert_eq!(busy(Proto::Tcp, None, 80), Some(us.clone()));
    assert_eq!(busy(Proto::Udp, Some("::1"), 80), Some(us));
    Outcome::Passed
}

fn other_addresses_stay_free(_: &mut Sandbox) -> Outcome {
    let _listener = TcpListener::bind("127.0.0.1:80").unwrap();
    assert_eq!(busy(Proto::Tcp, Some("127.0.0.2"), 80), None);
    assert_eq!(busy(Proto::Tcp, Some("::1"), 80), None);
    assert!(absent("192.0.2.1"));
    Outcome::Passed
}

fn old_connections_do_not_hold_a_port(_: &mut Sandbox) -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:80").unwrap();
    let mut client = TcpStream::connect("127.0.0.1:80").unwrap();
    let (server, _) = listener.accept().unwrap();
    drop(listener);
    assert_eq!(busy(Proto::Tcp, None, 80), None, "established");
    drop(server);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    let own = client.local_addr().unwrap().port();
    assert_eq!(busy(Proto::Tcp, None, own), None, "a client's own port");
    drop(client);
    assert_eq!(busy(Proto::Tcp, None, 80), None, "time-wait");
    Outcome::Passed
}

fn a_range_is_searched_past_what_is_taken(_: &mut Sandbox) -> Outcome {
    fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8002-8003").unwrap();
    let _listener = TcpListener::bind("127.0.0.1:8001").unwrap();
    let probe = Probe { proto: Proto::Tcp, host: None, first: 8000, last: 8100, want: 3 };
    let answer = listeners::probe(&probe).unwrap();
    assert_eq!(answer.free, [8000, 8004, 8005]);
    assert_eq!(answer.busy.into_keys().collect::<Vec<_>>(), [8001, 8002, 8003]);
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 41000").unwrap();
    assert_eq!(listeners::ephemeral_range().unwrap(), (40000, 41000));
    Outcome::Passed
}

fn without_sctp_its_ports_are_free(_: &mut Sandbox) -> Outcome {
    if fs::exists("/proc/self/net/sctp").unwrap() {
        return Outcome::Skip("this kernel has SCTP".to_owned());
    }
    assert_eq!(busy(Proto::Sctp, None, 80), None);
    Outcome::Passed
}

fn without_ipv6_only_ipv4_counts(_: &mut Sandbox) -> Outcome {
    fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    assert_eq!(busy(Proto::Tcp, None, 80), None);
    assert!(absent("::1"));
    Outcome::Passed
}
