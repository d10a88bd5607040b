//! What `inspect` prints: what a handle may mean, with all that is known of it.

use std::net::IpAddr;

use serde::Serialize;
use twinax_core::{
    handle::{Meaning, title},
    interior::{Attached, Interior},
    model::{LinkId, Netns},
    name::Mac,
    sight::{SeenNeighbour, Sight},
};

use super::{
    ports::{self, Published},
    seen::{self, Namespace, Told},
};

/// `inspect --json`.
#[derive(Serialize)]
pub struct Inspected<'a> {
    found: Vec<Found<'a>>,
    unseen: &'a [String],
}

#[derive(Serialize)]
struct Found<'a> {
    kind: &'static str,
    title: String,
    /// A handle that means this and nothing else.
    handle: String,
    namespace: Option<Namespace<'a>>,
    interior: Option<&'a Interior>,
    link: Option<Told<'a>>,
    far: Option<Told<'a>>,
    members: Vec<End>,
    neighbours: Vec<Neighbour<'a>>,
    attached: Vec<Hangs<'a>>,
    published: Vec<Published<'a>>,
}

#[derive(Serialize)]
struct End {
    namespace: String,
    interface: String,
}

#[derive(Serialize)]
struct Neighbour<'a> {
    interface: &'a str,
    address: Option<IpAddr>,
    mac: Option<Mac>,
    state: &'a str,
}

#[derive(Serialize)]
struct Hangs<'a> {
    namespace: String,
    interface: &'a str,
    #[serde(flatten)]
    attached: &'a Attached,
}

/// Returns what a handle may mean.
pub fn inspected<'a>(sight: &'a Sight, meanings: &[Meaning<'a>]) -> Inspected<'a> {
    let found = meanings.iter().map(|meaning| found(sight, meaning)).collect();
    Inspected { found, unseen: &sight.unseen }
}

fn found<'a>(sight: &'a Sight, meaning: &Meaning<'a>) -> Found<'a> {
    let netns = meaning.netns();
    let (kind, own): (_, Vec<&LinkId>) = match meaning {
        Meaning::Namespace(netns) => ("namespace", links_in(sight, netns)),
        Meaning::Container(netns, _) => ("container", links_in(sight, netns)),
        Meaning::Link(id) => ("link", vec![*id]),
        Meaning::Network(..) => ("network", Vec::new()),
    };
    let whole = |_: &&Netns| !matches!(meaning, Meaning::Link(_));
    let link = if let Meaning::Link(id) = meaning { Some(*id) } else { None };
    let far = link.and_then(|id| sight.links.get(id)?.leads_to.as_ref());
    let far = far.and_then(|far| sight.links.get_key_value(far)).map(|(far, _)| far);
    let members = match meaning {
        Meaning::Link(id) => twinax_core::peer::members(sight, id).collect(),
        Meaning::Network(runtime, name) => {
            let spaces = sight.spaces.iter().filter(|(_, space)| space.is_on(*runtime, name));
            spaces.flat_map(|(netns, _)| links_in(sight, netns)).collect()
        }
        _ => Vec::new(),
    };
    let ends = own.iter().chain(&far).chain(&members);
    let hangs = ends.filter_map(|id| sight.attached.get_key_value(*id)).map(|(id, attached)| {
        Hangs { namespace: id.netns.to_string(), interface: id.name.as_str(), attached }
    });
    Found {
        kind,
        title: title(sight, meaning),
        handle: meaning.exact(sight),
        namespace: netns.filter(whole).and_then(|netns| seen::namespace(sight, netns)),
        interior: netns.and_then(|netns| sight.interiors.get(netns)),
        link: link.map(|id| seen::told(sight, id)),
        far: far.map(|id| seen::told(sight, id)),
        neighbours: own.iter().chain(&members).flat_map(|id| neighbours(sight, id)).collect(),
        attached: hangs.collect(),
        members: members
            .iter()
            .map(|id| End { namespace: id.netns.to_string(), interface: id.name.to_string() })
            .collect(),
        published: of(sight, meaning),
    }
}

fn links_in<'a>(sight: &'a Sight, netns: &Netns) -> Vec<&'a LinkId> {
    sight.links.keys().filter(|id| id.netns == *netns).collect()
}

fn neighbours<'a>(sight: &'a Sight, id: &'a LinkId) -> impl Iterator<Item = Neighbour<'a>> {
    let known = sight.links.get(id).map(|facts| facts.neighbours.as_slice());
    known.unwrap_or_default().iter().map(|SeenNeighbour { addr, mac, state }| Neighbour {
        interface: id.name.as_str(),
        address: *addr,
        mac: *mac,
        state,
    })
}

/// The ports that lead to it, or through it.
fn of<'a>(sight: &'a Sight, meaning: &Meaning<'a>) -> Vec<Published<'a>> {
    ports::ports(sight, |port| match meaning {
        Meaning::Network(runtime, name) => {
            let space = port.netns.and_then(|netns| sight.spaces.get(netns));
            space.is_some_and(|space| space.is_on(*runtime, name))
        }
        meaning => meaning.netns() == Some(port.host) || meaning.netns() == port.netns,
    })
}
