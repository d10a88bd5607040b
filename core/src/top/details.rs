//! What is shown beside the tree of the row that is selected.

use super::Side;
use crate::{
    map::{Branch, Cell, Subject, Tone, held_by, host_side, is_loopback, port_cells, shown},
    model::{LinkId, Netns},
    peer,
    published::published,
    rate::Rates,
    sight::{LinkFacts, Sight},
};

/// Rows of two cells each: what it is, and what there is to say. `side` is which end of a cable
/// was chosen.
pub(super) fn details(sight: &Sight, rates: &Rates, about: &Subject, side: Side) -> Vec<Branch> {
    match about {
        Subject::Host => space(sight, &Netns::Host),
        Subject::Space(netns) => space(sight, netns),
        Subject::Heading(heading) => vec![row("", *heading)],
        Subject::Guest(runtime, id) => {
            let workloads = sight.spaces.values().flat_map(|space| &space.workloads);
            let mut workloads = workloads.chain(&sight.unplaced);
            let found = workloads.find(|w| w.runtime == *runtime && w.id == *id);
            found.map(|workload| row("container", peer::owner(workload))).into_iter().collect()
        }
        Subject::Port(..) => {
            let ports = published(sight);
            let Some(port) = ports.iter().find(|port| Subject::port(port) == *about) else {
                return Vec::new();
            };
            let told = port_cells(sight, port).into_iter().filter(|cell| !cell.text.is_empty());
            let told = told.map(|told| Branch {
                cells: vec![cell("published", Tone::Faint), told],
                children: Vec::new(),
            });
            told.chain(port.netns.into_iter().flat_map(|netns| space(sight, netns))).collect()
        }
        Subject::Link(id) => match sight.links.get(id) {
            Some(facts) if facts.kind == "veth" => {
                let mut rows = peer::about(sight, &peer::cable(sight, id), "");
                rows.extend(rate(rates, id, facts));
                if side == Side::Far {
                    rows.push(Branch::default());
                    rows.extend(space(sight, &id.netns));
                }
                rows
            }
            Some(facts) => link(sight, rates, id, facts),
            None => Vec::new(),
        },
    }
}

/// As that end of a cable has it that was measured, told for where the cable leads.
fn rate(rates: &Rates, id: &LinkId, facts: &LinkFacts) -> Option<Branch> {
    let own = rates.get(id).copied();
    let far = facts.leads_to.as_ref().and_then(|far| rates.get(far)).copied();
    let told = match id.netns {
        Netns::Host => own.map(|rate| rate.turned()).or(far),
        _ => own.or_else(|| far.map(|rate| rate.turned())),
    };
    told.map(|rate| row("now", rate.to_string()))
}

/// A link that is no cable.
fn link(sight: &Sight, rates: &Rates, id: &LinkId, facts: &LinkFacts) -> Vec<Branch> {
    let kind = if facts.kind.is_empty() { "device" } else { &facts.kind };
    let mut rows = vec![
        Branch { cells: vec![name(id), plain(shown(kind))], children: Vec::new() },
        row("in", sight.label(&id.netns)),
        row("state", shown(&facts.operstate)),
        row("ifindex", facts.index.to_string()),
    ];
    if let Some(link) = sight.topology.links.get(id) {
        rows.push(row("mac", link.mac.to_string()));
        rows.push(row("mtu", link.mtu.to_string()));
        if !link.alias.is_empty() {
            rows.push(row("alias", shown(&link.alias)));
        }
    }
    rows.extend(facts.addrs.iter().map(|addr| row("address", addr.to_string())));
    rows.extend(facts.details.iter().map(|detail| row("", shown(detail))));
    if let Some(on) = &facts.leads_to {
        rows.push(row("on", format!("{} {}", sight.label(&on.netns), on.name)));
    }
    rows.extend(facts.master.as_ref().map(|master| row("member of", master.name.to_string())));
    let members = sight.links.values().filter(|other| other.master.as_ref() == Some(id)).count();
    if facts.kind == "bridge" {
        rows.push(row("members", members.to_string()));
    }
    rows.push(peer::traffic(&facts.counters));
    rows.extend(rates.get(id).map(|rate| row("now", rate.to_string())));
    rows.extend(routes(sight, |route| route == id));
    rows
}

/// A namespace, and what is in it.
fn space(sight: &Sight, netns: &Netns) -> Vec<Branch> {
    let Some(space) = sight.spaces.get(netns) else { return Vec::new() };
    let mut rows: Vec<Branch> = {
        space.workloads.iter().map(|workload| row("container", peer::owner(workload))).collect()
    };
    let cookie = space.cookie.map(|cookie| format!(", cookie {cookie}")).unwrap_or_default();
    rows.push(row("namespace", format!("net:[{}]{cookie}", space.inode)));
    let held = held_by(space);
    if !held.is_empty() {
        rows.push(row("", held));
    }
    for workload in &space.workloads {
        if !workload.networks.is_empty() {
            rows.push(row("networks", shown(&workload.networks.join(" "))));
        }
        let ports = workload.published.iter();
        let ports = ports.map(|p| format!("{} → {}", host_side(p), p.container_port));
        rows.extend(ports.map(|port| row("published", port)));
    }
    for (id, facts) in sight.links.iter().filter(|(id, _)| id.netns == *netns) {
        // The tree has them, and there may be a thousand.
        let in_the_tree = *netns == Netns::Host && facts.kind == "veth";
        if is_loopback(id) || in_the_tree {
            continue;
        }
        let mut words = vec![shown(if facts.kind.is_empty() { "device" } else { &facts.kind })];
        words.push(shown(&facts.operstate));
        words.extend(facts.addrs.iter().map(ToString::to_string));
        let far = facts.leads_to.as_ref();
        words.extend(far.map(|far| format!("⇄ {} {}", sight.label(&far.netns), far.name)));
        rows.push(Branch { cells: vec![name(id), plain(words.join("  "))], children: Vec::new() });
    }
    rows.extend(routes(sight, |link| link.netns == *netns));
    for listener in sight.listeners.iter().filter(|listener| listener.netns == *netns) {
        let who = listener.processes.iter().map(|(pid, comm)| format!("{}({pid})", shown(comm)));
        let who = who.collect::<Vec<_>>().join(" ");
        rows.push(row("listens", format!("{} {}  {who}", listener.proto, listener.at)));
    }
    if *netns == Netns::Host {
        rows.extend(sight.unseen.iter().map(|line| Branch {
            cells: vec![cell("not seen", Tone::Bad), plain(shown(line))],
            children: Vec::new(),
        }));
    }
    rows
}

fn routes(sight: &Sight, wanted: impl Fn(&LinkId) -> bool) -> Vec<Branch> {
    let routes = sight.topology.routes.iter().filter(|route| wanted(&route.link));
    let told = routes.map(|route| {
        let to = match route.dst.prefix_len() {
            0 => "default".to_owned(),
            _ => route.dst.to_string(),
        };
        let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
        row("route", format!("{to}{via}  {}", route.link.name))
    });
    told.collect()
}

fn row(what: &str, text: impl Into<String>) -> Branch {
    Branch { cells: vec![cell(what, Tone::Faint), plain(text)], children: Vec::new() }
}

fn name(id: &LinkId) -> Cell {
    cell(shown(id.name.as_str()), Tone::Name)
}

fn plain(text: impl Into<String>) -> Cell {
    cell(text, Tone::Plain)
}

fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}
