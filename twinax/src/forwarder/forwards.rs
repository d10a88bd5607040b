//! What the forwarder serves, as a file says it; no effects.

use std::{collections::BTreeMap, fmt, net::SocketAddr};

use twinax_core::{model::Forward, name::Proto};

/// Where it listens. Displayed as in the file, `tcp 127.0.0.1:8080`.
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

/// Reads the whole file, or says which line is wrong.
pub(super) fn parse(text: &str) -> Result<BTreeMap<Port, SocketAddr>, String> {
    let mut forwards = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let (port, target) =
            parse_line(line).ok_or_else(|| format!("line {number} of forwards: {line:?}"))?;
        if forwards.insert(port, target).is_some() {
            return Err(format!("line {number} of forwards: {port} a second time"));
        }
    }
    Ok(forwards)
}

/// One line of the file more, or less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Add(Port, SocketAddr),
    Del(Port),
}

/// Reads lines that begin with `+` or `-`, as `+tcp 127.0.0.1:8080 10.1.0.2:80`.
pub(super) fn parse_changes(text: &str) -> Result<Vec<Change>, String> {
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
    fn a_line_is_a_port() {
        let text = "tcp 127.0.0.1:8080 10.1.0.2:80\nudp [::1]:53 [fd00::2]:53\n";
        let forwards = parse(text).unwrap();
        let written: Vec<_> = forwards.iter().map(|(port, to)| format!("{port} {to}")).collect();
        assert_eq!(written.join("\n") + "\n", text);
    }

    #[test]
    fn a_wrong_line_is_named() {
        for (text, error) in [
            ("tcp 127.0.0.1:80 x", "line 1 of forwards: \"tcp 127.0.0.1:80 x\""),
            ("\n", "line 1 of forwards: \"\""),
            (
                "sctp 127.0.0.1:80 10.0.0.1:80",
                "line 1 of forwards: \"sctp 127.0.0.1:80 10.0.0.1:80\"",
            ),
            (
                "tcp 127.0.0.1:80 10.0.0.1:80\ntcp 127.0.0.1:80 10.0.0.2:80",
                "line 2 of forwards: tcp 127.0.0.1:80 a second time",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), error);
        }
    }
}
