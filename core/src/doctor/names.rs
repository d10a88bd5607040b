//! Where names are asked for.

use std::{collections::BTreeSet, net::IpAddr};

use super::{Found, Severity, Subject, Told, exam::Exam};
use crate::{map::is_loopback, model::Netns, name::Proto};

const DNS: u16 = 53;

/// A loopback address is the container's own, not the host's.
pub(super) fn loopback(exam: &Exam<'_>, found: &mut Found) {
    let connected: BTreeSet<&Netns> = {
        let links = exam.sight.links.iter().filter(|(id, _)| !is_loopback(id));
        links.filter(|(_, facts)| !facts.addrs.is_empty()).map(|(id, _)| &id.netns).collect()
    };
    for (netns, interior) in exam.interiors() {
        let Some(resolver) = &interior.resolver else { continue };
        // Who is cut off on purpose asks nobody.
        if *netns == Netns::Host || !connected.contains(netns) {
            continue;
        }
        let local: Vec<IpAddr> =
            resolver.servers.iter().copied().filter(IpAddr::is_loopback).collect();
        let answered = |addr: &&IpAddr| {
            let led = interior.led.iter().any(|led| {
                led.host.is_none_or(|host| host == **addr)
                    && (led.host_ports.0..=led.host_ports.1).contains(&DNS)
            });
            led || listens(exam, netns, **addr)
        };
        let (good, dead): (Vec<&IpAddr>, Vec<&IpAddr>) = local.iter().partition(answered);
        if dead.is_empty() {
            continue;
        }
        if !exam.is_heard(netns) {
            found.not_checked(netns, super::ports::UNHEARD);
            continue;
        }
        let others = resolver.servers.len() - dead.len();
        let list: Vec<String> = dead.iter().map(ToString::to_string).collect();
        let severity = if others == 0 { Severity::Problem } else { Severity::Warning };
        let told = Told {
            what: format!(
                "/etc/resolv.conf of process {} names {}, where nobody answers{}",
                resolver.pid,
                list.join(", "),
                if good.len() + others == 0 { "" } else { "; others are named as well" }
            ),
            why: "A loopback address means the container itself. The file was copied from a host \
                  that has a resolver of its own there (systemd-resolved, dnsmasq); in here no \
                  name is resolved, or only after the first server was waited for."
                .to_owned(),
            todo: vec![
                "# give it servers that it can reach (--dns ADDRESS), as the host's own has them:"
                    .to_owned(),
                "grep nameserver /run/systemd/resolve/resolv.conf".to_owned(),
            ],
        };
        found.add(severity, Subject::space(exam.sight, netns), told);
    }
}

/// Whether somebody takes questions at an address, by its port or by one that a rule leads to it.
fn listens(exam: &Exam<'_>, netns: &Netns, addr: IpAddr) -> bool {
    let mut all = exam.sight.listeners.iter().filter(|it| it.netns == *netns);
    all.any(|it| {
        let at = it.at.ip();
        let any = at.is_unspecified() && (at.is_ipv4() == addr.is_ipv4() || it.dual);
        // Docker's resolver listens elsewhere on 127.0.0.11, and rules lead port 53 there.
        let docker = at == addr && addr.to_string() == "127.0.0.11";
        it.proto != Proto::Sctp && (docker || (it.at.port() == DNS && (at == addr || any)))
    })
}
