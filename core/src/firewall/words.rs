//! Rules in words, as near to `nft list ruleset` as what is known of them allows.

use std::{fmt, net::IpAddr};

use super::{Action, MapDoes, Match, Rule, What};

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words: Vec<String> = Vec::new();
        let mut proto = None;
        for (n, one) in self.matches.iter().enumerate() {
            // `tcp dport 80` says which protocol, too.
            if let (What::Protocol(number), false) = (&one.what, one.not)
                && self.matches[n + 1..].iter().any(|one| is_port(&one.what))
            {
                proto = Some(*number);
                continue;
            }
            words.push(one.worded(proto));
        }
        words.extend(self.also.iter().cloned());
        words.extend(Some(self.action.to_string()).filter(|action| !action.is_empty()));
        f.write_str(&words.join(" "))
    }
}

fn is_port(what: &What) -> bool {
    match what {
        What::SourcePort(..) | What::DestinationPort(..) => true,
        What::AnyOf(some) => some.iter().any(is_port),
        _ => false,
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.worded(None))
    }
}

impl Match {
    fn worded(&self, proto: Option<u8>) -> String {
        let not = if self.not { "!= " } else { "" };
        let (key, value) = match &self.what {
            What::AnyOf(some) => {
                let all: Vec<(String, String)> =
                    some.iter().map(|what| words(what, proto)).collect();
                let alike = all.windows(2).all(|pair| pair[0].0 == pair[1].0);
                let key = all.first().filter(|_| alike).map(|(key, _)| key.clone());
                let values = all.into_iter().map(|(key, value)| match alike {
                    true => value,
                    false => format!("{key} {value}"),
                });
                let values: Vec<String> = values.collect();
                (key.unwrap_or_else(|| "any of".to_owned()), format!("{{ {} }}", values.join(", ")))
            }
            what => words(what, proto),
        };
        match (key.is_empty(), value.is_empty()) {
            (true, _) if self.not => format!("not {value}"),
            (true, _) => value,
            (_, true) => format!("{not}{key}"),
            _ => format!("{key} {not}{value}"),
        }
    }
}

/// What is looked at, and for what value.
fn words(what: &What, proto: Option<u8>) -> (String, String) {
    let both = |key: &str, value: String| (key.to_owned(), value);
    let th = proto.map_or_else(|| "th".to_owned(), protocol);
    let ip = |addr: IpAddr| if addr.is_ipv4() { "ip" } else { "ip6" };
    match what {
        What::InInterface(name) => both("iifname", format!("\"{name}\"")),
        What::OutInterface(name) => both("oifname", format!("\"{name}\"")),
        What::InGroup(group) => both("iifgroup", group.to_string()),
        What::OutGroup(group) => both("oifgroup", group.to_string()),
        What::Source(net) => (format!("{} saddr", ip(net.addr())), network(net)),
        What::Destination(net) => (format!("{} daddr", ip(net.addr())), network(net)),
        What::IpVersion(version) => both("meta nfproto", format!("ipv{version}")),
        What::Protocol(number) => both("meta l4proto", protocol(*number)),
        What::SourcePort(a, b) => (format!("{th} sport"), range(a, b)),
        What::DestinationPort(a, b) => (format!("{th} dport"), range(a, b)),
        What::ToLocal => both("fib daddr type", "local".to_owned()),
        What::CtState(states) => both("ct state", states.join(",")),
        What::CtStatus(statuses) => both("ct status", statuses.join(",")),
        What::Mark { value, mask: u32::MAX } => both("meta mark", format!("{value:#x}")),
        What::Mark { value, mask } => both("meta mark", format!("{value:#x}/{mask:#x}")),
        What::InSet { key, set } => (key.clone(), format!("@{set}")),
        What::AnyOf(some) => {
            let all = some.iter().map(|what| {
                let (key, value) = words(what, proto);
                format!("{key} {value}")
            });
            both("", format!("({})", all.collect::<Vec<_>>().join(" or ")))
        }
        What::Other(text) => both("", text.clone()),
    }
}

fn network(net: &ipnet::IpNet) -> String {
    match net.prefix_len() == net.max_prefix_len() {
        true => net.addr().to_string(),
        false => net.to_string(),
    }
}

fn range<T: PartialEq + fmt::Display>(first: &T, last: &T) -> String {
    match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    }
}

/// IANA's protocol numbers that firewalls speak of.
pub fn protocol(number: u8) -> String {
    match number {
        1 => "icmp".to_owned(),
        2 => "igmp".to_owned(),
        6 => "tcp".to_owned(),
        17 => "udp".to_owned(),
        47 => "gre".to_owned(),
        50 => "esp".to_owned(),
        58 => "icmpv6".to_owned(),
        132 => "sctp".to_owned(),
        number => number.to_string(),
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Continue => Ok(()),
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Reject => f.write_str("reject"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
            Self::Masquerade => f.write_str("masquerade"),
            Self::Dnat { addr, ports } => write!(f, "dnat to {}", target(*addr, *ports)),
            Self::Snat { addr, ports } => write!(f, "snat to {}", target(*addr, *ports)),
            Self::Redirect { ports: None } => f.write_str("redirect"),
            Self::Redirect { ports } => write!(f, "redirect to {}", target(None, *ports)),
            Self::ByMap { key, map, does } => match does {
                MapDoes::Verdict => write!(f, "{key} vmap @{map}"),
                MapDoes::Dnat => write!(f, "dnat to {key} map @{map}"),
                MapDoes::Snat => write!(f, "snat to {key} map @{map}"),
                MapDoes::Other => write!(f, "{key} map @{map}"),
            },
            Self::Queue => f.write_str("queue"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

fn target(addr: Option<(IpAddr, IpAddr)>, ports: Option<(u16, u16)>) -> String {
    let ports = ports.map(|(first, last)| range(&first, &last));
    match (addr, ports) {
        (Some((IpAddr::V6(first), last)), Some(ports)) if first == last => {
            format!("[{first}]:{ports}")
        }
        (Some((first, last)), Some(ports)) => format!("{}:{ports}", range(&first, &last)),
        (Some((first, last)), None) => range(&first, &last),
        (None, Some(ports)) => format!(":{ports}"),
        (None, None) => "?".to_owned(),
    }
}
