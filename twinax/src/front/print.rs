//! What people read: tables and blocks of text, made from the state alone.
//!
//! The time is passed in. Colour and width are those of standard output, found once by [`Style`];
//! what is not a terminal gets everything whole and plain.

use std::{
    fmt::{Display, Write as _},
    net::IpAddr,
};

use twinax_core::{
    model::host_end,
    name::{ContainerName, NetworkName, shown},
    state::{Container, Driver, GatewayMode, Network, Published, State, Status},
};

use super::json;

/// How to write to a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; `None` where it is none.
    pub width: Option<usize>,
    pub colour: bool,
}

impl Style {
    /// Asks the kernel whether `stream` is a terminal. `no_colour` is whether `NO_COLOR` is set
    /// to anything (<https://no-color.org>).
    pub fn of(stream: impl rustix::fd::AsFd, no_colour: bool) -> Self {
        if !rustix::termios::isatty(&stream) {
            return Self::default();
        }
        let width = rustix::termios::tcgetwinsize(&stream).map_or(0, |size| size.ws_col);
        // A terminal that does not know its width, as a serial one, is taken for an ordinary one.
        let width = if width == 0 { 80 } else { usize::from(width) };
        Self { width: Some(width), colour: !no_colour }
    }
}

/// Rows under headings, each column as wide as its widest cell.
pub struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that may be cut where the terminal is too narrow, the first to be cut first.
    cut: Vec<usize>,
}

/// A column that is cut keeps at least so much.
const LEAST: usize = 12;
const GAP: usize = 2;

impl Table {
    /// Starts a table; `cut` says which columns may be cut, the first to be cut first.
    pub fn new(headings: &[&str], cut: &[usize]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()], cut: cut.to_vec() }
    }

    /// Adds a row, with a cell for each heading.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Returns the table as text, a line a row.
    pub fn render(&self, style: Style) -> String {
        let columns = self.rows[0].len();
        let wide = |column: usize| self.rows.iter().map(|r| length(&r[column])).max().unwrap_or(0);
        let mut widths: Vec<_> = (0..columns).map(wide).collect();
        if let Some(width) = style.width {
            for &column in &self.cut {
                let all = widths.iter().sum::<usize>() + GAP * (columns - 1);
                let over = all.saturating_sub(width);
                let least = widths[column].min(LEAST);
                widths[column] = (widths[column].saturating_sub(over)).max(least);
            }
        }
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, &width) in row.iter().zip(&widths) {
                let cell = fit(cell, width);
                line.push_str(&cell);
                line.extend(std::iter::repeat_n(' ', width - length(&cell) + GAP));
            }
            let line = line.trim_end();
            match style.colour && n == 0 {
                true => _ = writeln!(text, "\x1b[1m{line}\x1b[0m"),
                false => _ = writeln!(text, "{line}"),
            }
        }
        text
    }
}

/// Columns on the screen; names and addresses are ASCII, and a command's other letters are taken
/// for one column each.
fn length(text: &str) -> usize {
    text.chars().count()
}

fn fit(text: &str, width: usize) -> String {
    match length(text) <= width {
        true => text.to_owned(),
        false => text.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
    }
}

fn joined(items: impl IntoIterator<Item = impl Display>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    items.join(", ")
}

/// `ps`; `now` in seconds since 1970.
pub fn containers(state: &State, all: bool, now: u64, style: Style) -> String {
    let headings = ["NAME", "ID", "STATUS", "NETWORKS", "PORTS", "COMMAND"];
    let mut table = Table::new(&headings, &[5, 4, 3]);
    for (name, row) in state.containers.all() {
        if all || !row.exited() {
            let command = row.run.as_ref().map(|run| run.command.iter().map(|word| quoted(word)));
            let command: Vec<_> = command.into_iter().flatten().collect();
            table.row(vec![
                name.to_string(),
                row.id.clone(),
                status(row, now),
                networks_of(row),
                joined(row.published.iter().map(published)),
                command.join(" "),
            ]);
        }
    }
    table.render(style)
}

/// `ps -q`
pub fn container_names(state: &State, all: bool) -> String {
    let rows = state.containers.all().iter().filter(|(_, row)| all || !row.exited());
    rows.map(|(name, _)| format!("{name}\n")).collect()
}

/// A word of a command as a shell would read it back; control characters never reach the screen.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if shown(word) != word {
        return format!("$'{}'", shown(&word.replace('\\', r"\\").replace('\'', r"\'")));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `Up 3 minutes`, `Ending`, `Exited (0) 5 seconds ago`, or `Attached` where another runs it.
pub fn status(container: &Container, now: u64) -> String {
    let Some(run) = &container.run else {
        return "Attached".to_owned();
    };
    match &run.status {
        Status::Running { .. } => format!("Up {}", duration(now.saturating_sub(run.created))),
        Status::Ending { .. } => "Ending".to_owned(),
        Status::Exited { code, at } => {
            let code = code.map_or_else(|| "?".to_owned(), |code| code.to_string());
            format!("Exited ({code}) {} ago", duration(now.saturating_sub(*at)))
        }
    }
}

fn duration(seconds: u64) -> String {
    let units = [(86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")];
    for (length, unit) in units {
        let count = seconds / length;
        if count > 0 {
            return format!("{count} {unit}{}", if count == 1 { "" } else { "s" });
        }
    }
    "less than a second".to_owned()
}

fn networks_of(row: &Container) -> String {
    match row.endpoints.is_empty() {
        true => json::network_mode(row).unwrap_or_default(),
        false => joined(row.endpoints.iter().map(|end| {
            let addrs: Vec<_> = end.addrs.iter().map(ToString::to_string).collect();
            format!("{}={}", end.network, addrs.join("+"))
        })),
    }
}

/// `0.0.0.0:8080->80/tcp`; a port on every address of both families has a `*` for its address.
pub fn published(port: &Published) -> String {
    let host = match port.host {
        None => "*".to_owned(),
        Some(IpAddr::V4(host)) => host.to_string(),
        Some(IpAddr::V6(host)) => format!("[{host}]"),
    };
    format!("{host}:{}->{}/{}", port.host_port, port.container_port, port.proto)
}

/// `port`, as Docker prints it: `80/tcp -> 0.0.0.0:8080`.
pub fn ports(container: &Container) -> String {
    let line = |port: &Published| {
        let inner = format!("{}/{}", port.container_port, port.proto);
        match port.host {
            None => format!("{inner} -> *:{}\n", port.host_port),
            Some(IpAddr::V4(host)) => format!("{inner} -> {host}:{}\n", port.host_port),
            Some(IpAddr::V6(host)) => format!("{inner} -> [{host}]:{}\n", port.host_port),
        }
    };
    container.published.iter().map(line).collect()
}

/// `network ls`
pub fn networks(state: &State, style: Style) -> String {
    let headings = ["NAME", "DRIVER", "SUBNETS", "WAY OUT", "CONTAINERS", "INTERFACE", "MTU"];
    let mut table = Table::new(&headings, &[2]);
    for (name, row) in state.networks.all() {
        table.row(vec![
            name.to_string(),
            driver(row.driver).to_owned(),
            joined(row.subnets.iter().map(|subnet| subnet.net)),
            way_out(row),
            json::ends(state, name).count().to_string(),
            interface(row),
            row.mtu.to_string(),
        ]);
    }
    table.render(style)
}

/// `network ls -q`
pub fn network_names(state: &State) -> String {
    state.networks.all().keys().map(|name| format!("{name}\n")).collect()
}

fn driver(driver: Driver) -> &'static str {
    match driver {
        Driver::Bridge => "bridge",
        Driver::Routed => "routed",
    }
}

fn mode(mode: GatewayMode) -> &'static str {
    match mode {
        GatewayMode::Nat => "nat",
        GatewayMode::Routed => "routed",
        GatewayMode::Isolated => "isolated",
    }
}

fn interface(row: &Network) -> String {
    match row.driver {
        Driver::Bridge => row.bridge.to_string(),
        Driver::Routed => "-".to_owned(),
    }
}

/// What the gateway does for the families that the network has.
fn way_out(row: &Network) -> String {
    let has = |v4: bool| row.subnets.iter().any(|subnet| subnet.net.addr().is_ipv4() == v4);
    let modes = match (has(true), has(false)) {
        (true, true) if row.mode4 == row.mode6 => mode(row.mode4).to_owned(),
        (true, true) => format!("{}/{}", mode(row.mode4), mode(row.mode6)),
        (_, true) => mode(row.mode6).to_owned(),
        (_, false) => mode(row.mode4).to_owned(),
    };
    match row.internal {
        true if modes == "nat" => "internal".to_owned(),
        true => format!("internal, {modes}"),
        false => modes,
    }
}

/// `network inspect` of one network; `None` where there is no such network.
pub fn network(state: &State, name: &NetworkName, style: Style) -> Option<String> {
    let row = state.networks.get(name)?;
    let mut text = String::new();
    let mut field = |key: &str, value: String| _ = writeln!(text, "{key:<12}{value}");
    field("Network", name.to_string());
    field("Driver", driver(row.driver).to_owned());
    field("Interface", interface(row));
    for subnet in &row.subnets {
        let mut line = format!("{}, gateway {}", subnet.net, subnet.gateway);
        if subnet.range != subnet.net {
            _ = write!(line, ", range {}", subnet.range);
        }
        for (label, addr) in &subnet.reserved {
            _ = write!(line, ", {addr} kept for {label}");
        }
        field("Subnet", line);
    }
    field("Way out", way_out(row));
    field("Among them", if row.icc { "may talk" } else { "may not talk" }.to_owned());
    field("MTU", row.mtu.to_string());
    for (key, value) in &row.labels {
        field("Label", format!("{}={}", quoted(key), quoted(value)));
    }
    let headings = ["CONTAINER", "INTERFACE", "HOST END", "MAC", "ADDRESSES", "ALIASES"];
    let mut table = Table::new(&headings, &[5]);
    for (container, end) in json::ends(state, name) {
        table.row(vec![
            container.to_string(),
            end.ifname.to_string(),
            host_end(end.number).to_string(),
            end.mac.to_string(),
            joined(&end.addrs),
            joined(&end.aliases),
        ]);
    }
    if table.rows.len() > 1 {
        _ = write!(text, "\n{}", table.render(style));
    }
    Some(text)
}

/// `plan`: one operation a line, or that there is none.
pub fn plan(operations: impl IntoIterator<Item = impl Display>) -> String {
    lines(operations, "nothing to do")
}

/// `check`: one difference a line, or that there is none.
pub fn check(differences: impl IntoIterator<Item = impl Display>) -> String {
    lines(differences, "the kernel is what was promised")
}

/// `repair`: what was done.
pub fn repair(operations: impl IntoIterator<Item = impl Display>) -> String {
    lines(operations, "nothing to repair")
}

fn lines(items: impl IntoIterator<Item = impl Display>, none: &str) -> String {
    let text: String = items.into_iter().map(|item| format!("{item}\n")).collect();
    match text.is_empty() {
        true => format!("{none}\n"),
        false => text,
    }
}

/// What `up` says at the end: each container, its networks, and how to reach its ports.
pub fn reach(state: &State, names: &[ContainerName], style: Style) -> String {
    let mut table = Table::new(&["CONTAINER", "NETWORKS", "PORTS"], &[2, 1]);
    for name in names {
        if let Some(row) = state.containers.get(name) {
            let ports = joined(row.published.iter().map(published));
            table.row(vec![name.to_string(), networks_of(row), ports]);
        }
    }
    table.render(style)
}
