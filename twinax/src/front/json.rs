//! The shapes that `--json` prints: documented in docs/json.md, and stable.
//!
//! They are the front's own and change only by addition while `version` stays; the core's types
//! change as the engine does and are never printed as they are.

mod doctor;
mod seen;
mod ports;
mod inspected;

use std::{
    collections::BTreeMap,
    fmt::{Display, Write as _},
    io::{self, Write},
    net::IpAddr,
};

use ipnet::IpNet;
use serde::Serialize;
use twinax_core::{
    model::host_end,
    name::{ContainerName, Mac, NetworkName, acts},
    state::{self, State, Status, Way},
};

pub use self::doctor::{Checks, Report, checks, report};
pub use self::inspected::{Inspected, inspected};
pub use self::seen::{Change, Diff, Peers, Sight, Snapshot, change, diff, peers, sight, snapshot};

/// Raised when a field is removed or changes its meaning.
pub const VERSION: u32 = 1;

/// What is printed: the version first, then the fields of the command at hand.
#[derive(Serialize)]
pub struct Document<T: Serialize> {
    pub version: u32,
    #[serde(flatten)]
    pub body: T,
}

/// Writes a document as indented JSON and a line end.
pub fn text<T: Serialize>(body: T) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(&Document { version: VERSION, body })
        .map(|text| visible(text) + "\n")
}

/// Escapes what JSON allows in its strings and a terminal obeys all the same, or does not show.
fn visible(text: String) -> String {
    let acts = |c: char| c >= '\x7f' && acts(c);
    if !text.contains(acts) {
        return text;
    }
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match acts(c) {
            true => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    // Writing to a string does not fail.
                    let _ = write!(plain, "\\u{unit:04x}");
                }
            }
            false => plain.push(c),
        }
    }
    plain
}

/// Writes a document as one line.
pub fn line<T: Serialize>(body: T) -> Result<String, serde_json::Error> {
    serde_json::to_string(&Document { version: VERSION, body }).map(|text| visible(text) + "\n")
}

/// Turns lines that begin with their time in nanoseconds since 1970 and a space into JSON, one
/// object a line.
pub struct LogWriter<W: Write> {
    stream: &'static str,
    to: W,
    line: Vec<u8>,
}

impl<W: Write> LogWriter<W> {
    pub fn new(stream: &'static str, to: W) -> Self {
        Self { stream, to, line: Vec::new() }
    }

    /// Writes a last line that has no end.
    ///
    /// # Errors
    /// Those of writing.
    pub fn finish(mut self) -> io::Result<()> {
        match self.line.is_empty() {
            true => Ok(()),
            false => self.tell(),
        }
    }

    fn tell(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.line);
        let (time, text) = text.split_once(' ').unwrap_or(("", &text));
        let time_ns = time.parse().unwrap_or(0);
        let json = line(LogLine { time_ns, stream: self.stream, text })?;
        self.line.clear();
        self.to.write_all(json.as_bytes())
    }
}

impl<W: Write> Write for LogWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") {
                self.tell()?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// `ps --json`
#[derive(Serialize)]
pub struct Containers {
    pub containers: Vec<Container>,
}

/// `network ls --json` and `network inspect --json`
#[derive(Serialize)]
pub struct Networks {
    pub networks: Vec<Network>,
}

/// `port --json`
#[derive(Serialize)]
pub struct Ports {
    pub container: ContainerName,
    pub ports: Vec<Port>,
}

/// `plan --json`
#[derive(Serialize)]
pub struct Plan {
    /// Whether there is nothing to do.
    pub done: bool,
    pub operations: Vec<String>,
}

/// `check --json`
#[derive(Serialize)]
pub struct Check {
    /// Whether the kernel is what was promised.
    pub whole: bool,
    /// The operations that would make it so, one for each difference.
    pub differences: Vec<String>,
}

/// `repair --json`
#[derive(Serialize)]
pub struct Repair {
    pub operations: Vec<String>,
}

/// `logs --json`: one to a line.
#[derive(Serialize)]
pub struct LogLine<'a> {
    /// Nanoseconds since 1970.
    pub time_ns: u64,
    /// `stdout` or `stderr`.
    pub stream: &'a str,
    pub text: &'a str,
}

/// A container, as `ps --json` has it.
#[derive(Serialize)]
pub struct Container {
    pub name: ContainerName,
    pub id: String,
    pub status: &'static str,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    /// Seconds since 1970.
    pub created: Option<u64>,
    pub ended: Option<u64>,
    pub command: Option<Vec<String>>,
    pub network_mode: Option<String>,
    pub networks: Vec<Endpoint>,
    pub ports: Vec<Port>,
    pub hostname: Option<String>,
    pub dns: Vec<IpAddr>,
    pub lab: Option<String>,
}

/// One end of a cable as seen from its container or from its network.
#[derive(Serialize)]
pub struct Endpoint {
    pub container: ContainerName,
    pub network: NetworkName,
    pub interface: String,
    pub host_interface: String,
    pub mac: Mac,
    pub addresses: Vec<IpAddr>,
    pub aliases: Vec<String>,
    pub gateway_priority: i32,
}

/// A published port.
#[derive(Serialize)]
pub struct Port {
    pub protocol: String,
    pub host_address: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
}

/// A network, as `network inspect --json` has it.
#[derive(Serialize)]
pub struct Network {
    pub name: NetworkName,
    pub driver: state::Driver,
    /// The bridge; none where the driver has none.
    pub host_interface: Option<String>,
    pub subnets: Vec<Subnet>,
    pub internal: bool,
    pub icc: bool,
    pub gateway_mode_ipv4: state::GatewayMode,
    pub gateway_mode_ipv6: state::GatewayMode,
    pub mtu: u32,
    pub labels: BTreeMap<String, String>,
    pub containers: Vec<Endpoint>,
}

/// A subnet of a network.
#[derive(Serialize)]
pub struct Subnet {
    pub subnet: IpNet,
    pub gateway: IpAddr,
    pub range: IpNet,
    pub reserved: BTreeMap<String, IpAddr>,
}

/// Returns the containers by name; ended ones only where `all`.
pub fn containers(state: &State, all: bool) -> Containers {
    let rows = state.containers.all().iter();
    let rows = rows.filter(|(_, container)| all || !container.exited());
    Containers { containers: rows.map(|(name, row)| container(name, row)).collect() }
}

fn container(name: &ContainerName, row: &state::Container) -> Container {
    let run = row.run.as_ref();
    let (status, pid, exit_code, ended) = match run.map(|run| &run.status) {
        None => ("attached", None, None, None),
        Some(Status::Running { init, .. }) => ("running", Some(init.0), None, None),
        Some(Status::Ending { init, .. }) => ("ending", Some(init.0), None, None),
        Some(Status::Exited { code, at }) => ("exited", None, *code, Some(*at)),
    };
    let pid = match &row.sandbox.way {
        Way::Pid { pid, .. } if run.is_none() => Some(*pid),
        _ => pid,
    };
    Container {
        name: name.clone(),
        id: row.id.clone(),
        status,
        pid,
        exit_code,
        created: run.map(|run| run.created),
        ended,
        command: run.map(|run| run.command.clone()),
        network_mode: network_mode(row),
        networks: row.endpoints.iter().map(|end| endpoint(name, end)).collect(),
        ports: row.published.iter().map(port).collect(),
        hostname: row.hostname.as_ref().map(ToString::to_string),
        dns: row.dns.clone(),
        lab: run.and_then(|run| run.lab.as_ref()).map(|lab| lab.name.clone()),
    }
}

/// `None` for an ended (or ending) container of its own network: it is detached, and from what is
/// forgotten.
pub(super) fn network_mode(row: &state::Container) -> Option<String> {
    match &row.sandbox.way {
        Way::Host => Some("host".to_owned()),
        Way::Of(name) => Some(format!("container:{name}")),
        Way::Pid { .. } | Way::Path(_) if !row.endpoints.is_empty() => Some("networks".to_owned()),
        Way::Pid { .. } | Way::Path(_) if row.is_over() => None,
        Way::Pid { .. } | Way::Path(_) => Some("none".to_owned()),
    }
}

fn endpoint(container: &ContainerName, end: &state::Endpoint) -> Endpoint {
    Endpoint {
        container: container.clone(),
        network: end.network.clone(),
        interface: end.ifname.to_string(),
        host_interface: host_end(end.number).to_string(),
        mac: end.mac,
        addresses: end.addrs.clone(),
        aliases: end.aliases.iter().map(ToString::to_string).collect(),
        gateway_priority: end.gateway_priority,
    }
}

fn port(port: &state::Published) -> Port {
    Port {
        protocol: port.proto.to_string(),
        host_address: port.host,
        host_port: port.host_port,
        container_port: port.container_port,
    }
}

/// Returns the ports of a container; `None` where there is no such container.
pub fn ports(state: &State, name: &ContainerName) -> Option<Ports> {
    let row = state.containers.get(name)?;
    Some(Ports { container: name.clone(), ports: row.published.iter().map(port).collect() })
}

/// Returns the networks by name, all of them or those in `names`; unknown ones are left out.
pub fn networks(state: &State, names: Option<&[NetworkName]>) -> Networks {
    let rows = state.networks.all().iter();
    let rows = rows.filter(|(name, _)| names.is_none_or(|names| names.contains(name)));
    Networks { networks: rows.map(|(name, row)| network(state, name, row)).collect() }
}

fn network(state: &State, name: &NetworkName, row: &state::Network) -> Network {
    let containers = ends(state, name).map(|(container, end)| endpoint(container, end));
    let subnet = |subnet: &state::Subnet| Subnet {
        subnet: subnet.net,
        gateway: subnet.gateway,
        range: subnet.range,
        reserved: subnet.reserved.clone(),
    };
    Network {
        name: name.clone(),
        driver: row.driver,
        host_interface: (row.driver == state::Driver::Bridge).then(|| row.bridge.to_string()),
        subnets: row.subnets.iter().map(subnet).collect(),
        internal: row.internal,
        icc: row.icc,
        gateway_mode_ipv4: row.mode4,
        gateway_mode_ipv6: row.mode6,
        mtu: row.mtu,
        labels: row.labels.clone(),
        containers: containers.collect(),
    }
}

/// The cables of a network, by container.
pub(super) fn ends<'s>(
    state: &'s State,
    network: &NetworkName,
) -> impl Iterator<Item = (&'s ContainerName, &'s state::Endpoint)> {
    state.containers.all().iter().flat_map(move |(container, row)| {
        let ends = row.endpoints.iter().filter(move |end| &end.network == network);
        ends.map(move |end| (container, end))
    })
}

/// The operations of a plan, as it prints them.
pub fn plan(operations: impl IntoIterator<Item = impl Display>) -> Plan {
    let operations = lines(operations);
    Plan { done: operations.is_empty(), operations }
}

/// Returns the body of `check --json`.
pub fn check(differences: impl IntoIterator<Item = impl Display>) -> Check {
    let differences = lines(differences);
    Check { whole: differences.is_empty(), differences }
}

/// Returns the body of `repair --json`.
pub fn repair(operations: impl IntoIterator<Item = impl Display>) -> Repair {
    Repair { operations: lines(operations) }
}

fn lines(texts: impl IntoIterator<Item = impl Display>) -> Vec<String> {
    texts.into_iter().map(|text| text.to_string()).collect()
}
