//! Which interfaces are meant when packets are to be captured, and what is written of each.

use std::collections::BTreeSet;

use crate::{
    handle::{Meaning, choices, meanings},
    map::{is_loopback, shown},
    model::{LinkId, Netns},
    peer::{bridges, members, owner},
    sight::{Holder, Runtime, Sight, Workload},
};

/// An interface to capture at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    pub link: LinkId,
    /// The kernel's number of it, in its namespace.
    pub index: u32,
    /// What it is called in a capture: `con1/eth0`, and only its name on the host. No two of a
    /// capture are called alike.
    pub name: String,
    /// Whose it is, and where it leads: for the capture file.
    pub description: String,
    pub comment: String,
    /// With the last of these processes what is captured ends; empty: nobody can tell.
    pub processes: Vec<u32>,
}

/// Why there is nothing to capture at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untapped {
    Unknown,
    /// A namespace is called so, and its interfaces are not seen.
    Unseen(String),
    /// A bridge without members.
    NoMembers,
    /// Several things are called so: how many, and a line each.
    Ambiguous(usize, String),
}

/// Returns where to capture for `handle`: an interface, a bridge (all its members), a container or
/// namespace (all its interfaces but `lo`), a network (the members of its bridge, or its containers' interfaces),
/// or whatever else [`meanings`] finds.
/// With `both` also at the other end of each cable.
///
/// # Errors
/// See [`Untapped`].
pub fn taps(sight: &Sight, handle: &str, both: bool) -> Result<Vec<Tap>, Untapped> {
    let mut links = meant(sight, handle)?;
    if links.is_empty() {
        return Err(Untapped::NoMembers);
    }
    if both {
        let others = links.iter().filter_map(|id| other_end(sight, id));
        let others: Vec<&LinkId> = others.collect();
        links.extend(others);
    }
    let mut seen = BTreeSet::new();
    links.retain(|id| seen.insert(*id));
    let mut taps: Vec<Tap> = links.into_iter().map(|id| tap(sight, id)).collect();
    // Containers of two runtimes may be called alike, and only their handles tell them apart.
    let names: Vec<String> = taps.iter().map(|tap| tap.name.clone()).collect();
    for tap in &mut taps {
        if names.iter().filter(|name| **name == tap.name).count() > 1 {
            tap.name = format!("{} ({})", tap.name, shown(&tap.link.netns.to_string()));
        }
    }
    Ok(taps)
}

fn other_end<'a>(sight: &'a Sight, id: &LinkId) -> Option<&'a LinkId> {
    let facts = sight.links.get(id).filter(|facts| facts.kind == "veth")?;
    sight.links.get_key_value(facts.leads_to.as_ref()?).map(|(id, _)| id)
}

/// The links that are meant, all of one namespace or network.
fn meant<'a>(sight: &'a Sight, handle: &str) -> Result<Vec<&'a LinkId>, Untapped> {
    let own = LinkId { netns: Netns::Host, name: crate::name::IfName::spelled(handle.as_bytes()) };
    if let Some((id, _)) = sight.links.get_key_value(&own) {
        return Ok(ports(sight, id));
    }
    let found = meanings(sight, handle);
    let Some(first) = found.first() else { return Err(Untapped::Unknown) };
    let place = first.netns();
    if found.len() > 1 && (place.is_none() || found.iter().any(|one| one.netns() != place)) {
        return Err(Untapped::Ambiguous(found.len(), choices(sight, "capture", &found)));
    }
    let mut links = BTreeSet::new();
    for meaning in found {
        match meaning {
            Meaning::Link(id) => links.extend(ports(sight, id)),
            // Its bridges themselves: what passes their members need not be its own.
            Meaning::Namespace(netns) | Meaning::Container(netns, _) => {
                let inside = inside(sight, netns);
                if inside.is_empty() {
                    return Err(Untapped::Unseen(sight.label(netns)));
                }
                links.extend(inside);
            }
            Meaning::Network(runtime, name) => {
                let bridges = bridges(sight, runtime, name).into_iter();
                links.extend(bridges.flat_map(|id| ports(sight, id)));
                if links.is_empty() {
                    let on = sight.spaces.iter().filter(|(_, space)| space.is_on(runtime, name));
                    links.extend(on.flat_map(|(netns, _)| inside(sight, netns)));
                }
            }
        }
    }
    Ok(links.into_iter().collect())
}

/// The members of a bridge, and any other link itself.
fn ports<'a>(sight: &'a Sight, id: &'a LinkId) -> Vec<&'a LinkId> {
    match sight.links.get(id).is_some_and(|facts| facts.kind == "bridge") {
        true => members(sight, id).collect(),
        false => vec![id],
    }
}

/// All links of a namespace but `lo`, and that where there is no other.
fn inside<'a>(sight: &'a Sight, netns: &Netns) -> Vec<&'a LinkId> {
    let links: Vec<&LinkId> = sight.links.keys().filter(|id| id.netns == *netns).collect();
    let others: Vec<&LinkId> = links.iter().copied().filter(|id| !is_loopback(id)).collect();
    if others.is_empty() { links } else { others }
}

fn tap(sight: &Sight, id: &LinkId) -> Tap {
    let facts = sight.links.get(id);
    let place = |id: &LinkId| match &id.netns {
        Netns::Host => shown(id.name.as_str()),
        netns => format!("{}/{}", sight.label(netns), shown(id.name.as_str())),
    };
    let mut description = match &id.netns {
        Netns::Host => "host".to_owned(),
        netns => sight.label(netns),
    };
    if let Some(far) = facts.and_then(|facts| facts.leads_to.as_ref()) {
        description += &format!(", leads to {}", place(far));
    }
    let space = sight.spaces.get(&id.netns);
    let mut words = vec![format!("namespace {}", shown(&id.netns.to_string()))];
    words.extend(space.map(|space| format!("net:[{}]", space.inode)));
    let far = facts.and_then(|facts| facts.leads_to.as_ref()).map(|far| &far.netns);
    for netns in std::iter::once(&id.netns).chain(far).filter(|netns| **netns != Netns::Host) {
        let space = sight.spaces.get(netns);
        words.extend(space.into_iter().flat_map(|space| &space.workloads).map(owner));
    }
    words.extend(facts.and_then(|facts| facts.master.as_ref()).map(|m| format!("on {}", m.name)));
    Tap {
        link: id.clone(),
        index: facts.map_or(0, |facts| facts.index),
        name: place(id),
        description,
        comment: words.join("; "),
        processes: processes(sight, &id.netns),
    }
}

/// The containers' first processes; where no container is known, every process that was seen. The
/// host outlives any capture, and so may a namespace that is mounted somewhere with nobody in it.
fn processes(sight: &Sight, netns: &Netns) -> Vec<u32> {
    let Some(space) = sight.spaces.get(netns).filter(|_| *netns != Netns::Host) else {
        return Vec::new();
    };
    let is_container = |w: &&Workload| !matches!(w.runtime, Runtime::Process | Runtime::IpNetns);
    let containers = space.workloads.iter().filter(is_container);
    let first: Vec<u32> = containers.filter_map(|workload| workload.pid).collect();
    let is_mount = |holder: &Holder| matches!(holder, Holder::Mount { .. });
    if !first.is_empty() || space.holders.iter().any(is_mount) {
        return first;
    }
    let pid = |holder: &Holder| match holder {
        Holder::Process { pid, .. } => Some(*pid),
        _ => None,
    };
    space.holders.iter().filter_map(pid).collect()
}
