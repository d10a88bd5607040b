//! Published ports that lead nowhere, or to two places.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    Found, Severity, Subject, Told,
    exam::Exam,
    firewall::{address, led},
    within,
};
use crate::{
    firewall::LedPort,
    map::{host_side, shown},
    model::{LinkId, Netns},
    name::Proto,
    sight::{Listener, PublishedPort, Runtime, Workload},
};

pub(super) const UNHEARD: &str = "who listens in it could not be read";

/// A published port of a running container.
struct Claim<'a> {
    netns: &'a Netns,
    workload: &'a Workload,
    port: &'a PublishedPort,
}

impl Claim<'_> {
    fn subject(&self, exam: &Exam<'_>) -> Subject {
        let links = exam.sight.links.keys().filter(|id| id.netns == *self.netns).cloned();
        let of = vec![format!("{} {}", shown(&self.workload.name), host_side(self.port))];
        Subject { of, ..Subject::space(exam.sight, self.netns) }.with(links)
    }
}

fn claims<'a>(exam: &Exam<'a>) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for (netns, space) in exam.sight.spaces.iter().filter(|(netns, _)| **netns != Netns::Host) {
        for workload in &space.workloads {
            let ports = workload.published.iter().filter(|port| port.host_port != 0);
            claims.extend(ports.map(|port| Claim { netns, workload, port }));
        }
    }
    claims
}

/// Those who listen on a port of a namespace; `None` where that was not read.
fn listeners<'a>(
    exam: &Exam<'a>,
    netns: &Netns,
    (proto, port): (Proto, u16),
) -> Option<Vec<&'a Listener>> {
    // Sockets of SCTP are not listed.
    if !exam.is_heard(netns) || proto == Proto::Sctp {
        return None;
    }
    let all = exam.sight.listeners.iter().filter(|it| it.netns == *netns);
    Some(all.filter(|it| it.proto == proto && it.at.port() == port).collect())
}

/// The namespace through which a container's ports are reached.
fn router<'a>(exam: &Exam<'a>, netns: &Netns) -> Option<&'a Netns> {
    let mut ways = exam.ways.iter().filter(|way| way.from.netns == *netns);
    ways.find_map(|way| way.router).map(|id| &id.netns)
}

/// The container's own end of it.
pub(super) fn no_listener(exam: &Exam<'_>, found: &mut Found) {
    for claim in claims(exam) {
        let (proto, port) = (claim.port.proto, claim.port.container_port);
        let Some(listeners) = listeners(exam, claim.netns, (proto, port)) else {
            found.not_checked(claim.netns, UNHEARD);
            continue;
        };
        if !listeners.is_empty() {
            continue;
        }
        let own = exam.sight.listeners.iter();
        let own = own.filter(|it| it.netns == *claim.netns && it.proto == proto);
        let mut others: Vec<u16> = own.map(|it| it.at.port()).collect();
        others.sort_unstable();
        others.dedup();
        let others: Vec<String> = others.iter().take(5).map(ToString::to_string).collect();
        let told = Told {
            what: format!(
                "nobody in the container listens on {port}/{proto}{}",
                match others.is_empty() {
                    true => String::new(),
                    false => format!("; somebody does on {}", others.join(", ")),
                }
            ),
            why: "The port leads into the container, where nobody takes it: clients are refused, \
                  or, through a proxy on the host, taken and cut off at once. The program has not \
                  started yet, has ended, or listens on another port."
                .to_owned(),
            todo: vec![format!(
                "{}ss -lntup   # who listens, and where",
                within(exam.sight, claim.netns)
            )],
        };
        found.add(Severity::Warning, claim.subject(exam), told);
    }
}

/// Listening, but not where packets from outside arrive.
pub(super) fn loopback_listener(exam: &Exam<'_>, found: &mut Found) {
    for claim in claims(exam) {
        let (proto, port) = (claim.port.proto, claim.port.container_port);
        let Some(listeners) = listeners(exam, claim.netns, (proto, port)) else {
            found.not_checked(claim.netns, UNHEARD);
            continue;
        };
        if listeners.is_empty() || !listeners.iter().all(|it| it.at.ip().is_loopback()) {
            continue;
        }
        let who = listeners[0].processes.first();
        let who = who.map_or_else(String::new, |(pid, comm)| format!("{}({pid}) ", shown(comm)));
        let told = Told {
            what: format!("{who}listens on {} only", listeners[0].at),
            why: "Connections to a published port arrive at the container's address on its \
                  network. A program that listens on the loopback takes those from inside the \
                  container alone: everybody else is refused."
                .to_owned(),
            todo: vec![format!(
                "# have the program listen on all addresses: {}:{port}",
                if listeners[0].at.is_ipv4() { "0.0.0.0" } else { "[::]" }
            )],
        };
        found.add(Severity::Problem, claim.subject(exam), told);
    }
}

/// The host's end of it: a rule, or a process that relays.
pub(super) fn not_led(exam: &Exam<'_>, found: &mut Found) {
    for claim in claims(exam) {
        // Of others it is not known that they use rules: Kubernetes may do it by BPF.
        let by_rules = matches!(
            claim.workload.runtime,
            Runtime::Twinax | Runtime::Docker | Runtime::Podman | Runtime::Containerd
        );
        let Some(router) = router(exam, claim.netns).filter(|_| by_rules) else { continue };
        let key = (claim.port.proto, claim.port.host_port);
        let relayed = [&Netns::Host, router]
            .into_iter()
            .filter_map(|netns| listeners(exam, netns, key))
            .flatten()
            // Who listens on the loopback does not serve other addresses.
            .any(|it| !it.at.ip().is_loopback() || claim.port.host == Some(it.at.ip()));
        let Some(ports) = led(exam, router, found).filter(|_| !relayed) else { continue };
        let own = |it: &&LedPort| {
            it.proto == key.0 && (it.host_ports.0..=it.host_ports.1).contains(&key.1)
        };
        if ports.iter().any(|it| own(&it)) {
            continue;
        }
        let told = Told {
            what: format!(
                "no rule and no process on the host leads {} to {}",
                host_side(claim.port),
                shown(&claim.workload.name)
            ),
            why:
                "Its runtime has the port on record, and the rule that it wrote for it is gone, as \
                  after a flush or a restart of the firewall: clients are refused by the host."
                    .to_owned(),
            todo: vec![match claim.workload.runtime {
                Runtime::Twinax => "twinax repair".to_owned(),
                Runtime::Docker => "systemctl restart docker   # writes its rules anew".to_owned(),
                Runtime::Podman => "podman network reload --all".to_owned(),
                _ => "# restart the container, which writes its rules anew".to_owned(),
            }],
        };
        found.add(Severity::Problem, claim.subject(exam), told);
    }
}

/// One port of one host, for two containers.
pub(super) fn conflict(exam: &Exam<'_>, found: &mut Found) {
    let mut by_port: BTreeMap<(&Netns, Proto, u16), Vec<Claim<'_>>> = BTreeMap::new();
    for claim in claims(exam) {
        // Engines in containers have hosts of their own.
        let Some(router) = router(exam, claim.netns) else { continue };
        let key = (router, claim.port.proto, claim.port.host_port);
        by_port.entry(key).or_default().push(claim);
    }
    for claims in by_port.into_values() {
        for (n, one) in claims.iter().enumerate() {
            let meets = |other: &&Claim<'_>| {
                let (a, b) = (one.port.host, other.port.host);
                // Those of one namespace have the port together.
                other.netns != one.netns && (a == b || is_any(a) || is_any(b))
            };
            if let Some(other) = claims[..n].iter().find(meets) {
                tell_conflict(exam, one, other, found);
            }
        }
    }
}

fn is_any(host: Option<IpAddr>) -> bool {
    host.is_none_or(|host| host.is_unspecified())
}

fn tell_conflict(exam: &Exam<'_>, one: &Claim<'_>, other: &Claim<'_>, found: &mut Found) {
    let addr = |claim: &Claim<'_>| {
        let mut links = exam.sight.links.keys().filter(|id: &&LinkId| id.netns == *claim.netns);
        links.find_map(|id| address(exam, id, false))
    };
    let to = |claim: &Claim<'_>| match addr(claim) {
        Some(addr) => format!("{} ({addr})", shown(&claim.workload.name)),
        None => shown(&claim.workload.name),
    };
    let told = Told {
        what: format!(
            "{} is to lead to {}, and {} to {}",
            host_side(other.port),
            to(other),
            host_side(one.port),
            to(one)
        ),
        why: "Two programs each believe that the port is theirs. The rule that comes first wins, \
              and which one that is depends on who was started last: clients of the one reach the \
              other."
            .to_owned(),
        todo: vec!["# publish one of them on another port".to_owned()],
    };
    let mut subject = one.subject(exam);
    let second = other.subject(exam);
    subject.of.extend(second.of);
    subject.links.extend(second.links);
    subject.spaces.extend(second.spaces);
    found.add(Severity::Problem, subject, told);
}
