//! What the forwarder serves, as the list and messages say it; no effects.

use std::{fmt, net::SocketAddr};

use twinax_core::{model::Forward, name::Proto};

/// Where it listens. Displayed as in messages, `tcp 127.0.0.1:8080`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Port {
    pub(super) proto: Proto,
    pub(super) listen: SocketAddr,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.proto, self.listen)
    }
}

impl Port {
    /// The name that the list has it under, `tcp-127.0.0.1:8080`.
    pub(super) fn entry(self) -> String {
        format!("{}-{}", self.proto, self.listen)
    }
}

/// Reads an entry of the list: a port's name, and where it leads.
pub(super) fn parse_entry(name: &str, target: &str) -> Option<(Port, SocketAddr)> {
    let (proto, listen) = name.split_once('-')?;
    let (port, target) = parse_line(&format!("{proto} {listen} {target}"))?;
    (port.entry() == name).then_some((port, target))
}

/// Splits an operation's subject into what listens and where it leads.
pub(super) fn split(forward: &Forward) -> (Port, SocketAddr) {
    (Port { proto: forward.proto, listen: forward.listen }, forward.target)
}

/// One port more, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add(Port, SocketAddr),
    Del(Port),
}

/// Reads lines that begin with `+` or `-`, as `+tcp 127.0.0.1:8080 10.1.0.2:80`.
///
/// Whoever was killed while it wrote leaves a line without an end, which says nothing.
pub(super) fn parse_changes(text: &str) -> Result<Vec<Change>, String> {
    if !text.is_empty() && !text.ends_with('\n') {
        return Err("a change that ends midway".to_owned());
    }
    let change = |line: &str| {
        let (port, target) = parse_line(line.get(1..)?)?;
        match line.as_bytes().first()? {
            b'+' => Some(Change::Add(port, target)),
            b'-' => Some(Change::Del(port)),
            _ => None,
        }
    };
    text.lines().map(|line| change(line).ok_or_else(|| format!("a change: {line:?}"))).collect()
}

fn parse_line(line: &str) -> Option<(Port, SocketAddr)> {
    let Forward { proto, listen, target } = line.parse().ok()?;
    // An SCTP association cannot be relayed (see `lower`).
    (proto != Proto::Sctp).then_some((Port { proto, listen }, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_port() {
        for (name, target) in
            [("tcp-127.0.0.1:8080", "10.1.0.2:80"), ("udp-[::1]:53", "[fd00::2]:53")]
        {
            let (port, to) = parse_entry(name, target).unwrap();
            assert_eq!((port.entry(), to.to_string()), (name.to_owned(), target.to_owned()));
        }
        for (name, target) in [
            ("tcp-127.0.0.1:80", "x"),
            ("tcp 127.0.0.1:80", "10.0.0.1:80"),
            ("sctp-127.0.0.1:80", "10.0.0.1:80"),
            ("tcp-[0::1]:80", "10.0.0.1:80"), // A second name of one port.
            ("", "10.0.0.1:80"),
        ] {
            assert_eq!(parse_entry(name, target), None, "{name}");
        }
    }

    #[test]
    fn a_change_that_is_cut_short_is_none() {
        let line = "+tcp 127.0.0.1:8080 10.1.0.2:80\n";
        assert_eq!(parse_changes(line).unwrap().len(), 1);
        for cut in 1..line.len() {
            assert!(parse_changes(&line[..cut]).is_err(), "{cut}");
        }
        assert_eq!(parse_changes("").unwrap(), []);
        assert!(parse_changes("tcp 127.0.0.1:8080 10.1.0.2:80\n").is_err());
    }
}
