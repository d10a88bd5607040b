//! Published ports from all sides, as `map` and `inspect` print them.

use std::net::IpAddr;

use serde::Serialize;
use twinax_core::{
    name::Proto,
    published::{Listens, Published as Port, published},
    sight::{Listener, Sight},
};

#[derive(Serialize)]
pub(super) struct Published<'a> {
    protocol: Proto,
    host_namespace: String,
    host_address: Option<IpAddr>,
    host_ports: (u16, u16),
    container: Option<&'a str>,
    namespace: Option<String>,
    container_address: Option<IpAddr>,
    container_port: u16,
    recorded: bool,
    rules: Vec<&'a str>,
    relay: Vec<u32>,
    /// `yes`, `no`, `loopback`, or `null` where that is not known.
    listens: Option<&'static str>,
    listener: Vec<u32>,
}

/// Returns those that are wanted.
pub(super) fn ports<'a>(
    sight: &'a Sight,
    wanted: impl Fn(&Port<'a>) -> bool,
) -> Vec<Published<'a>> {
    published(sight).into_iter().filter(wanted).map(told).collect()
}

fn told(port: Port<'_>) -> Published<'_> {
    let (listens, listener) = match port.listens {
        Listens::Yes(listener) => (Some("yes"), Some(listener)),
        Listens::Loopback(listener) => (Some("loopback"), Some(listener)),
        Listens::Nobody => (Some("no"), None),
        Listens::Unknown => (None, None),
    };
    Published {
        protocol: port.proto,
        host_namespace: port.host.to_string(),
        host_address: port.at,
        host_ports: port.ports,
        container: port.workload.map(|workload| workload.name.as_str()),
        namespace: port.netns.map(ToString::to_string),
        container_address: port.to,
        container_port: port.to_port,
        recorded: port.recorded,
        rules: port.rules,
        relay: pids(port.relay),
        listens,
        listener: pids(listener),
    }
}

fn pids(listener: Option<&Listener>) -> Vec<u32> {
    let all = listener.map(|one| one.processes.iter().map(|(pid, _)| *pid).collect());
    all.unwrap_or_default()
}
