//! What is shown beside the tree of the row that is selected: what `inspect` and `peer` tell of it,
//! and what goes over it now.

use super::Side;
use crate::{
    handle::Meaning,
    inspect::{Detail, inspect},
    map::{Branch, Cell, Subject, Tone, cell, port_cells, shown},
    model::{LinkId, Netns},
    peer,
    published::published,
    rate::Rates,
    sight::{LinkFacts, Sight},
};

/// Rows of a name and values, and sections of rows. `side` is which end of a cable was chosen.
pub(super) fn details(sight: &Sight, rates: &Rates, about: &Subject, side: Side) -> Vec<Branch> {
    match about {
        Subject::Host => space(sight, &Netns::Host),
        Subject::Space(netns) => space(sight, netns),
        Subject::Heading(heading) => vec![row("", cell(*heading, Tone::Plain))],
        Subject::Guest(runtime, id) => {
            let workloads = sight.spaces.values().flat_map(|space| &space.workloads);
            let mut workloads = workloads.chain(&sight.unplaced);
            let found = workloads.find(|w| w.runtime == *runtime && w.id == *id);
            let told = |workload| row("container", cell(peer::owner(workload), Tone::Plain));
            found.map(told).into_iter().collect()
        }
        Subject::Port(..) => {
            let ports = published(sight);
            let Some(port) = ports.iter().find(|port| Subject::port(port) == *about) else {
                return Vec::new();
            };
            let told = port_cells(sight, port).into_iter().filter(|cell| !cell.text.is_empty());
            let told = told.map(|told| row("published", told));
            told.chain(port.netns.into_iter().flat_map(|netns| space(sight, netns))).collect()
        }
        Subject::Link(id) => match sight.links.get(id) {
            Some(facts) if facts.kind == "veth" => {
                let mut rows = peer::about(sight, &peer::cable(sight, id), "");
                rows.extend(rate(rates, id, facts));
                if side == Side::Far {
                    rows.extend(space(sight, &id.netns));
                }
                rows
            }
            Some(facts) => {
                let told = inspect(sight, &Meaning::Link(id), Detail::default());
                rate(rates, id, facts).into_iter().chain(told).collect()
            }
            None => Vec::new(),
        },
    }
}

/// A namespace, as its container if it has one alone.
fn space(sight: &Sight, netns: &Netns) -> Vec<Branch> {
    let alone = sight.spaces.get(netns).is_some_and(|space| space.workloads.len() == 1);
    let meaning = match alone && *netns != Netns::Host {
        true => Meaning::Container(netns, 0),
        false => Meaning::Namespace(netns),
    };
    let mut rows = inspect(sight, &meaning, Detail::default());
    if *netns == Netns::Host {
        let unseen = sight.unseen.iter();
        rows.extend(unseen.map(|line| row("not seen", cell(shown(line), Tone::Bad))));
    }
    rows
}

/// Of a cable as that end has it that was measured, told for where the cable leads.
fn rate(rates: &Rates, id: &LinkId, facts: &LinkFacts) -> Option<Branch> {
    let own = rates.get(id).copied();
    let is_cable = facts.kind == "veth";
    let far = facts.leads_to.as_ref().filter(|_| is_cable).and_then(|far| rates.get(far)).copied();
    let told = match id.netns {
        Netns::Host if is_cable => own.map(|rate| rate.turned()).or(far),
        _ => own.or_else(|| far.map(|rate| rate.turned())),
    };
    told.map(|rate| row("now", cell(rate.to_string(), Tone::Plain)))
}

fn row(what: &str, told: Cell) -> Branch {
    Branch { cells: vec![cell(what, Tone::Faint), told], children: Vec::new() }
}
