//! From whatever a person has in hand to a cable: both of its ends, and whose it is.

use std::collections::BTreeSet;

use crate::{
    handle::{Meaning, meanings},
    interior::Attached,
    map::{Branch, Cell, Tone, cell, is_loopback, shown},
    model::{LinkId, Netns},
    sight::{Counters, Runtime, Sight, Space, Workload},
};

/// A cable, the end nearer to the host first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable<'a> {
    pub near: &'a LinkId,
    /// `None`: it was not found.
    pub far: Option<&'a LinkId>,
}

/// Returns the cables that `handle` may mean ([`crate::handle::meanings`]): of a container or a
/// namespace all that lead out of it.
pub fn find<'a>(sight: &'a Sight, handle: &str) -> Vec<Cable<'a>> {
    let mut cables: Vec<Cable<'a>> = Vec::new();
    for id in links(sight, handle).into_iter().filter(|id| is_cable(sight, id)) {
        let cable = cable(sight, id);
        if !cables.contains(&cable) {
            cables.push(cable);
        }
    }
    cables
}

/// Returns the links that `handle` may mean and that have no cable, as bridges and macvlans.
pub fn without_cable<'a>(sight: &'a Sight, handle: &str) -> Vec<&'a LinkId> {
    let links = links(sight, handle).into_iter();
    links.filter(|id| !is_cable(sight, id) && !is_loopback(id)).collect()
}

/// The links that a handle may mean. A cable of the host's own comes before whatever else is called
/// so: it was read off `ip link`.
fn links<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<&'a LinkId> {
    let bare = handle.split_once('@').map_or(handle, |(name, _)| name);
    let in_netns = |netns: &Netns| {
        let netns = netns.clone();
        sight.links.keys().filter(move |id| id.netns == netns)
    };
    let mut links = BTreeSet::new();
    let found = meanings(sight, handle);
    let own = |id: &LinkId| id.netns == Netns::Host && id.name.as_str() == bare;
    let own = |meaning: &Meaning<'a>| match *meaning {
        Meaning::Link(id) if own(id) && is_cable(sight, id) => Some(id),
        _ => None,
    };
    if let Some(own) = found.iter().find_map(own) {
        return BTreeSet::from([own]);
    }
    for meaning in found {
        match meaning {
            Meaning::Link(id) => links.extend([id]),
            Meaning::Namespace(netns) => links.extend(in_netns(netns)),
            // One on the host's own network has none of its own.
            Meaning::Container(Netns::Host, _) => {}
            Meaning::Container(netns, _) => links.extend(in_netns(netns)),
            Meaning::Network(runtime, name) => {
                let spaces = sight.spaces.iter().filter(|(_, space)| space.is_on(runtime, name));
                links.extend(spaces.flat_map(|(netns, _)| in_netns(netns)));
            }
        }
    }
    links
}

fn is_cable(sight: &Sight, id: &LinkId) -> bool {
    let kind = sight.links.get(id).map(|facts| facts.kind.as_str());
    matches!(kind, Some("veth" | "netkit" | "vxcan"))
}

pub(crate) fn cable<'a>(sight: &'a Sight, id: &'a LinkId) -> Cable<'a> {
    let far = sight.links.get(id).and_then(|facts| facts.leads_to.as_ref());
    let far = far.and_then(|far| sight.links.get_key_value(far)).map(|(far, _)| far);
    match far {
        Some(far) if far < id => Cable { near: far, far: Some(id) },
        far => Cable { near: id, far },
    }
}

/// Returns what is known of a cable, for people; the side that `handle` asked for is marked.
pub fn about(sight: &Sight, cable: &Cable<'_>, handle: &str) -> Vec<Branch> {
    let asked = links(sight, handle);
    let both = cable.far.is_some_and(|far| asked.contains(far) && asked.contains(cable.near));
    let mark = |id: &LinkId| if asked.contains(id) && !both { "▸ " } else { "  " };
    let mut rows = side(sight, cable.near, mark(cable.near));
    match cable.far {
        Some(far) => {
            rows.push(proof(sight, cable.near, far));
            rows.extend(side(sight, far, mark(far)));
        }
        None => rows.push(row([
            cell("", Tone::Plain),
            cell("its other end was not found: in a namespace that is hidden, or gone", Tone::Bad),
        ])),
    }
    rows.extend(sight.links.get(cable.near).map(|facts| traffic(&facts.counters)));
    rows
}

/// Returns a link without a cable as one row.
pub fn line_without(sight: &Sight, id: &LinkId) -> Branch {
    let kind = sight.links.get(id).map(|facts| facts.kind.clone()).unwrap_or_default();
    let place = format!("{} {}", sight.label(&id.netns), shown(id.name.as_str()));
    row([
        cell(place, Tone::Plain),
        cell(format!("{kind}, no cable").trim_start_matches(", "), Tone::Faint),
    ])
}

/// An end, whose it is, and what hangs on its wire.
fn side(sight: &Sight, id: &LinkId, mark: &str) -> Vec<Branch> {
    let mut rows = vec![end(sight, id, mark)];
    if let Some(attached) = sight.attached.get(id) {
        rows.push(faint("    on its wire", on_the_wire(attached)));
    }
    if id.netns == Netns::Host {
        return rows;
    }
    let Some(space) = sight.spaces.get(&id.netns) else { return rows };
    rows.extend(space.workloads.iter().map(|w| faint("    container", owner(w))));
    rows.push(faint("    namespace", numbers(space)));
    rows
}

/// Returns what is said of a link that has no cable.
pub fn uncabled(sight: &Sight, id: &LinkId) -> Vec<Branch> {
    let mut rows = side(sight, id, "▸ ");
    let Some(facts) = sight.links.get(id) else { return rows };
    let members: Vec<String> = members(sight, id).map(|id| shown(id.name.as_str())).collect();
    let on = facts.leads_to.as_ref().map(|on| {
        let place = if on.netns == id.netns {
            String::new()
        } else {
            format!(" of {}", sight.label(&on.netns))
        };
        format!("it lies on {}{place}", shown(on.name.as_str()))
    });
    let why = match (facts.kind.as_str(), on) {
        ("bridge" | "bond" | "vrf", _) if members.is_empty() => "without members".to_owned(),
        ("bridge" | "bond" | "vrf", _) => format!("with members {}", members.join(" ")),
        (_, Some(on)) => on,
        _ => "nothing is known that it leads to".to_owned(),
    };
    let kind = if facts.kind.is_empty() { "a device" } else { &facts.kind };
    rows.insert(1, faint("    no cable", format!("{kind}: {why}")));
    rows.push(traffic(&facts.counters));
    rows
}

/// The members of a bridge, bond or VRF.
pub fn members<'a>(sight: &'a Sight, id: &LinkId) -> impl Iterator<Item = &'a LinkId> {
    let id = id.clone();
    let links = sight.links.iter();
    links.filter(move |(_, facts)| facts.master.as_ref() == Some(&id)).map(|(member, _)| member)
}

/// The bridges that the containers on a network of their runtime are on by their cables.
pub fn bridges<'a>(sight: &'a Sight, runtime: Runtime, network: &str) -> BTreeSet<&'a LinkId> {
    let (mut all, mut sure) = (BTreeSet::new(), BTreeSet::new());
    for (netns, space) in sight.spaces.iter().filter(|(_, space)| space.is_on(runtime, network)) {
        let links = sight.links.iter().filter(|(id, _)| id.netns == *netns);
        let masters = links.filter_map(|(_, facts)| {
            let far = sight.links.get(facts.leads_to.as_ref()?)?;
            sight.links.get_key_value(far.master.as_ref()?).map(|(id, _)| id)
        });
        let masters: BTreeSet<&LinkId> = masters.collect();
        // Of one that is on this network only, it is clear which bridge is meant.
        let alone = |w: &Workload| matches!(w.networks.as_slice(), [one] if one == network);
        if space.workloads.iter().any(alone) {
            sure.extend(masters.iter().copied());
        }
        all.extend(masters);
    }
    if sure.is_empty() { all } else { sure }
}

/// Returns what hangs on a wire, in words.
pub fn on_the_wire(attached: &Attached) -> String {
    let qdiscs = attached.qdiscs.join(", ");
    let mut words = vec![format!("qdisc {}", if qdiscs.is_empty() { "none" } else { &qdiscs })];
    let programs = attached
        .programs
        .iter()
        .map(|(at, id, name)| format!("{at} program {id} {}", shown(name)).trim_end().to_owned());
    words.extend(programs);
    if attached.programs.is_empty() {
        words.push("no BPF".to_owned());
    }
    words.extend(attached.port.iter().cloned());
    words.join("  ")
}

/// A namespace's numbers.
pub fn numbers(space: &Space) -> String {
    let cookie = space.cookie.map(|cookie| format!(", cookie {cookie}")).unwrap_or_default();
    format!("net:[{}]{cookie}", space.inode)
}

/// Returns a cable as one row, where several are to be told apart.
pub fn line(sight: &Sight, cable: &Cable<'_>) -> Branch {
    let place = |id: &LinkId| format!("{} {}", sight.label(&id.netns), shown(id.name.as_str()));
    let far = cable.far.map_or_else(|| "its other end was not found".to_owned(), place);
    row([cell(place(cable.near), Tone::Plain), cell(format!("⇄ {far}"), Tone::Plain)])
}

fn end(sight: &Sight, id: &LinkId, mark: &str) -> Branch {
    let Some(facts) = sight.links.get(id) else { return Branch::default() };
    let mut words = vec![format!("ifindex {}", facts.index)];
    if let Some(link) = sight.topology.links.get(id) {
        words.push(link.mac.to_string());
        words.push(format!("mtu {}", link.mtu));
    }
    words.extend(facts.master.as_ref().map(|master| format!("on {}", master.name)));
    words.extend(facts.addrs.iter().map(ToString::to_string));
    let routes = sight.topology.routes.iter().filter(|route| route.link == *id);
    let gateways = routes.filter(|route| route.dst.prefix_len() == 0).filter_map(|r| r.via);
    words.extend(gateways.map(|via| format!("default via {via}")));
    words.push(facts.operstate.clone());
    words.extend(facts.details.iter().cloned());
    row([
        cell(format!("{mark}{}", shown(id.name.as_str())), Tone::Name),
        cell(format!("{:<12} {}", sight.label(&id.netns), words.join("  ")), Tone::Plain),
    ])
}

/// Both ends, as the kernel tells of each: a number in a namespace.
fn proof(sight: &Sight, near: &LinkId, far: &LinkId) -> Branch {
    let index = |id: &LinkId| sight.links.get(id).map_or(0, |facts| facts.index);
    let proven = |id: &LinkId| sight.links.get(id).is_some_and(|facts| facts.proven);
    let place = |id: &LinkId| format!("{} in {}", index(id), sight.label(&id.netns));
    let (text, tone) = match proven(near) && proven(far) {
        true => (format!("each end names the other: {} ⇄ {}", place(near), place(far)), Tone::Good),
        false => {
            (format!("one end only names the other: {} → {}", place(near), place(far)), Tone::Bad)
        }
    };
    row([cell("    ⇅", Tone::Faint), cell(text, tone)])
}

/// A container in words.
pub fn owner(workload: &Workload) -> String {
    let mut words = vec![shown(&workload.name)];
    if workload.id != workload.name {
        words.push(format!("id {}", shown(&workload.id.chars().take(12).collect::<String>())));
    }
    words.extend(workload.pod.iter().map(|pod| format!("pod {}", shown(pod))));
    words.extend(workload.image.iter().map(|image| format!("image {}", shown(image))));
    if workload.runtime != Runtime::Process {
        words.push(workload.runtime.to_string());
    }
    words.extend(workload.pid.map(|pid| format!("pid {pid}")));
    words.join("  ")
}

pub(crate) fn traffic(counters: &Counters) -> Branch {
    let text = format!(
        "in {} packets {} bytes, out {} packets {} bytes, dropped {}",
        counters.rx_packets,
        counters.rx_bytes,
        counters.tx_packets,
        counters.tx_bytes,
        counters.rx_dropped + counters.tx_dropped,
    );
    faint("  traffic", text)
}

fn faint(what: &str, text: String) -> Branch {
    row([cell(what, Tone::Faint), cell(text, Tone::Plain)])
}

fn row(cells: [Cell; 2]) -> Branch {
    Branch { cells: cells.into(), children: Vec::new() }
}

/// Why nothing is known of the links of the namespaces that a handle means, if that is so of all of
/// them: even a bare one has a loopback.
pub fn unread(sight: &Sight, handle: &str) -> Option<String> {
    let mut why = None;
    for meaning in meanings(sight, handle) {
        let (Meaning::Namespace(netns) | Meaning::Container(netns, _)) = meaning else {
            return None;
        };
        if sight.links.keys().any(|id| id.netns == *netns) {
            return None;
        }
        let prefix = format!("links of {netns}: ");
        let told = sight.unseen.iter().find_map(|line| line.strip_prefix(&prefix));
        why = Some(told.unwrap_or("it could not be entered").to_owned());
    }
    why
}
