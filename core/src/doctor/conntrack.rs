//! Connection tracking: too much in it, or too old.

use std::net::IpAddr;

use super::{Found, Severity, Subject, Told, exam::Exam, firewall::led, within};
use crate::{
    firewall::LedPort,
    interior::Flow,
    model::{LinkId, Netns},
    name::Proto,
};

const UDP: u8 = 17;
/// Of stale flows, so many are told one by one.
const FLOWS_MAX: usize = 20;

/// Past its limit new connections are dropped.
pub(super) fn full(exam: &Exam<'_>, found: &mut Found) {
    for (netns, interior) in exam.interiors() {
        let Some(table) = interior.conntrack.as_ref().filter(|table| table.limit > 0) else {
            if interior.unseen.iter().any(|line| line.contains("connection tracking")) {
                found.not_checked(netns, "connection tracking could not be read");
            }
            continue;
        };
        let share = table.entries.saturating_mul(100) / table.limit;
        let severity = match share {
            0..=80 => continue,
            81..=95 => Severity::Warning,
            _ => Severity::Problem,
        };
        let told = Told {
            what: format!(
                "{} connections are tracked, of {} at most: {share} %",
                table.entries, table.limit
            ),
            why:
                "When the table is full the kernel drops the first packet of every new connection \
                  that passes a stateful firewall or NAT, and the log says \"nf_conntrack: table \
                  full, dropping packet\". To those who wait it looks like a lossy network."
                    .to_owned(),
            todo: vec![
                // The limit belongs to the machine, and is set in its first namespace.
                format!(
                    "sysctl -w net.netfilter.nf_conntrack_max={}",
                    table.limit.saturating_mul(2)
                ),
                "# and look who has so many: conntrack -L -o extended | sort".to_owned(),
            ],
        };
        found.add(severity, Subject::space(exam.sight, netns), told);
    }
}

/// The port leads to another container now, and the flow does not know.
pub(super) fn stale(exam: &Exam<'_>, found: &mut Found) {
    for (netns, interior) in exam.interiors() {
        let flows = interior.conntrack.as_ref().map(|it| it.udp.as_slice()).unwrap_or_default();
        if flows.is_empty() {
            if interior.unseen.iter().any(|line| line.contains("connection tracking")) {
                found.not_checked(netns, "connection tracking could not be read");
            }
            continue;
        }
        let Some(ports) = led(exam, netns, found) else { continue };
        let stale = flows.iter().filter_map(|flow| Some((flow, leads_elsewhere(flow, ports)?)));
        for (flow, now) in stale.take(FLOWS_MAX) {
            tell_stale(exam, netns, (flow, now), found);
        }
    }
}

/// Where the port of a flow leads now, if that is not where the flow goes.
fn leads_elsewhere<'a>(flow: &Flow, ports: &'a [LedPort]) -> Option<&'a LedPort> {
    // What was not translated is the host's own, or a program's that relays.
    if flow.protocol != UDP || flow.reply_from.0 == flow.to.0 {
        return None;
    }
    let (addr, port) = flow.to;
    let claims = |led: &&LedPort| {
        led.proto == Proto::Udp
            && (led.host_ports.0..=led.host_ports.1).contains(&port)
            && led.host.is_none_or(|host| host == addr)
            && led.to.is_ipv4() == addr.is_ipv4()
    };
    let goes_there = |led: &LedPort| {
        let to = led.to_port.map_or(port, |first| first.saturating_add(port - led.host_ports.0));
        flow.reply_from == (led.to, to) || (led.to == flow.reply_from.0 && led.host_ports.0 != port)
    };
    let now = ports.iter().find(claims)?;
    (!ports.iter().filter(claims).any(goes_there)).then_some(now)
}

fn tell_stale(exam: &Exam<'_>, netns: &Netns, (flow, now): (&Flow, &LedPort), found: &mut Found) {
    let name = |addr: IpAddr| {
        let id = holder(exam, addr)?;
        Some(format!(" ({})", exam.sight.label(&id.netns)))
    };
    let (from, to) = (flow.from, flow.to);
    let told = Told {
        what: format!(
            "the flow {}:{} → {}:{}/udp goes to {}{}, and the port leads to {}{}",
            from.0,
            from.1,
            to.0,
            to.1,
            flow.reply_from.0,
            name(flow.reply_from.0).unwrap_or_else(|| " (nobody)".to_owned()),
            now.to,
            name(now.to).unwrap_or_default()
        ),
        why:
            "NAT is decided once a flow, by its first packet. While a client goes on sending, the \
              flow does not expire, and its packets go where the container was before: DNS, VPN, \
              syslog and game clients stay cut off until they pause."
                .to_owned(),
        todo: vec![format!(
            "{}conntrack -D -p udp --orig-src {} --orig-dst {} --sport {} --dport {}",
            within(exam.sight, netns),
            from.0,
            to.0,
            from.1,
            to.1
        )],
    };
    let links = [holder(exam, now.to), holder(exam, flow.reply_from.0)];
    let subject = Subject::space(exam.sight, netns);
    found.add(Severity::Problem, subject.with(links.into_iter().flatten().cloned()), told);
}

/// The link of a container that has an address.
fn holder<'a>(exam: &Exam<'a>, addr: IpAddr) -> Option<&'a LinkId> {
    let mut links = exam.sight.links.iter().filter(|(id, _)| id.netns != Netns::Host);
    links.find(|(_, facts)| facts.addrs.iter().any(|net| net.addr() == addr)).map(|(id, _)| id)
}
