//! Which interfaces are meant when packets are to be captured, and what is written of each.

use std::collections::BTreeSet;

use crate::{
    called::{called, candidate},
    handle::{Meaning, meanings},
    map::{is_loopback, shown},
    model::{LinkId, Netns},
    peer,
    sight::{Holder, LinkFacts, Runtime, Sight, Workload},
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
    /// Several are called so, a line each.
    Ambiguous(Vec<String>),
}

/// Returns where to capture for `handle`: an interface, a bridge (all its members), a container or
/// namespace (all its interfaces but `lo`), or whatever else [`peer::find`] takes, at the end that is called so.
/// With `both` also at the other end of each cable.
///
/// # Errors
/// See [`Untapped`].
pub fn taps(sight: &Sight, handle: &str, both: bool) -> Result<Vec<Tap>, Untapped> {
    let mut links = match spaces(sight, handle) {
        Some(spaces) => within(sight, &spaces)?,
        None => {
            let meant = meant(sight, handle)?.into_iter();
            meant
                .flat_map(|id| if is_bridge(sight, id) { members(sight, id) } else { vec![id] })
                .collect()
        }
    };
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

fn is_bridge(sight: &Sight, id: &LinkId) -> bool {
    sight.links.get(id).is_some_and(|facts| facts.kind == "bridge")
}

fn members<'a>(sight: &'a Sight, bridge: &LinkId) -> Vec<&'a LinkId> {
    let all = sight.links.iter();
    all.filter(|(_, facts)| facts.master.as_ref() == Some(bridge)).map(|(id, _)| id).collect()
}

fn other_end<'a>(sight: &'a Sight, id: &LinkId) -> Option<&'a LinkId> {
    let facts = sight.links.get(id).filter(|facts| facts.kind == "veth")?;
    sight.links.get_key_value(facts.leads_to.as_ref()?).map(|(id, _)| id)
}

/// The links that are meant, all of one namespace.
fn meant<'a>(sight: &'a Sight, handle: &str) -> Result<Vec<&'a LinkId>, Untapped> {
    if let Some(id) = host_link(sight, handle) {
        return Ok(vec![id]);
    }
    if let Some((place, name)) = handle.rsplit_once('/') {
        let spaces = match place {
            "host" => vec![&Netns::Host],
            place => called(sight, place),
        };
        let links = sight.links.keys();
        let named = links.filter(|id| id.name.as_str() == name && spaces.contains(&&id.netns));
        let named: Vec<&LinkId> = named.collect();
        if !named.is_empty() {
            return one_namespace(sight, named);
        }
    }
    let ends: Vec<&LinkId> =
        peer::find(sight, handle).iter().map(|cable| end(sight, cable, handle)).collect();
    if !ends.is_empty() {
        return one_namespace(sight, ends);
    }
    within(sight, &called(sight, handle))
}

/// The namespaces that are meant, if a handle means nothing else. An interface of the host's own is
/// meant before all that is called like it.
fn spaces<'a>(sight: &'a Sight, handle: &str) -> Option<Vec<&'a Netns>> {
    if host_link(sight, handle).is_some() {
        return None;
    }
    let spaces: Option<BTreeSet<&Netns>> = meanings(sight, handle).iter().map(whole).collect();
    spaces.filter(|spaces| !spaces.is_empty()).map(|spaces| spaces.into_iter().collect())
}

fn host_link<'a>(sight: &'a Sight, handle: &str) -> Option<&'a LinkId> {
    let own = LinkId { netns: Netns::Host, name: crate::name::IfName::spelled(handle.as_bytes()) };
    sight.links.get_key_value(&own).map(|(id, _)| id)
}

/// The namespace that a meaning is about as a whole.
fn whole<'a>(meaning: &Meaning<'a>) -> Option<&'a Netns> {
    match *meaning {
        Meaning::Namespace(netns) | Meaning::Container(netns, _) => Some(netns),
        Meaning::Link(_) | Meaning::Network(..) => None,
    }
}

/// All links of a namespace but `lo`, where that is not all there is.
fn within<'a>(sight: &'a Sight, spaces: &[&Netns]) -> Result<Vec<&'a LinkId>, Untapped> {
    let is_in = |id: &&LinkId| spaces.contains(&&id.netns) && !is_loopback(id);
    let links: Vec<&LinkId> = sight.links.keys().filter(is_in).collect();
    match (spaces, links.is_empty()) {
        ([], _) => Err(Untapped::Unknown),
        ([_], false) => Ok(links),
        ([netns], true) => {
            let lo = sight.links.keys().find(|id| id.netns == **netns);
            lo.map(|lo| vec![lo]).ok_or_else(|| Untapped::Unseen(sight.label(netns)))
        }
        (many, _) => {
            Err(Untapped::Ambiguous(many.iter().map(|netns| candidate(sight, netns)).collect()))
        }
    }
}

/// The end of a cable that a handle speaks of; the one that is further in where it may be either.
fn end<'a>(sight: &Sight, cable: &peer::Cable<'a>, handle: &str) -> &'a LinkId {
    let bare = handle.split('@').next().unwrap_or(handle);
    let is_meant = |id: &LinkId| {
        let facts = sight.links.get(id);
        let mac = sight.topology.links.get(id).map(|link| link.mac.to_string());
        let has = |facts: &LinkFacts| {
            facts.addrs.iter().any(|net| net.addr().to_string() == handle)
                || handle.split_once('@').is_some_and(|(index, place)| {
                    let here = sight.spaces.get(&id.netns);
                    index.parse() == Ok(facts.index)
                        && here.is_some_and(|space| sight.is_called(&id.netns, space, place))
                })
        };
        id.name.as_str() == bare
            || id.to_string() == handle
            || mac.is_some_and(|mac| mac == handle.to_lowercase())
            || facts.is_some_and(has)
    };
    match cable.far {
        Some(far) if is_meant(far) || !is_meant(cable.near) => far,
        _ => cable.near,
    }
}

fn one_namespace<'a>(sight: &Sight, links: Vec<&'a LinkId>) -> Result<Vec<&'a LinkId>, Untapped> {
    let first = &links[0].netns;
    if links.iter().all(|id| id.netns == *first) {
        return Ok(links);
    }
    let line = |id: &&LinkId| format!("{id}  {}", candidate(sight, &id.netns));
    Err(Untapped::Ambiguous(links.iter().map(line).collect()))
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
        words.push(candidate(sight, netns));
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
