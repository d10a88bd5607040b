//! From whatever a person has in hand to a cable: both of its ends, and whose it is.

use std::net::IpAddr;

use crate::{
    map::{Branch, Cell, Tone, shown},
    model::{LinkId, Netns},
    sight::{Counters, LinkFacts, Runtime, Sight, Workload},
};

/// A cable, the end nearer to the host first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cable<'a> {
    pub near: &'a LinkId,
    /// `None`: it was not found.
    pub far: Option<&'a LinkId>,
}

/// Returns the cables that `handle` may mean: an interface (`veth926be0c`, with or without `@if6`;
/// `con1/eth0`), a container's name or the beginning of its id, a pod, an IP address, a MAC, a
/// process number, `INDEX@NAMESPACE`.
pub fn find<'a>(sight: &'a Sight, handle: &str) -> Vec<Cable<'a>> {
    let mut cables: Vec<Cable<'a>> = Vec::new();
    for id in ends(sight, handle) {
        let cable = cable(sight, id);
        if !cables.contains(&cable) {
            cables.push(cable);
        }
    }
    cables
}

/// The ends of cables that a handle may mean; those that are called so exactly come alone.
fn ends<'a>(sight: &'a Sight, handle: &str) -> Vec<&'a LinkId> {
    let (bare, at) = match handle.split_once('@') {
        Some((name, at)) => (name, Some(at)),
        None => (handle, None),
    };
    // `7@con1`: the kernel's number of a link, in a namespace.
    if let (Ok(index), Some(at)) = (bare.parse::<u32>(), at) {
        return pick(sight, |id, facts| facts.index == index && is_in(sight, &id.netns, at));
    }
    let exact = pick(sight, |id, _| id.to_string() == handle);
    if !exact.is_empty() {
        return exact;
    }
    // `veth926be0c@if6`: what follows is the peer's number, which many share.
    let peer = at.and_then(|at| at.strip_prefix("if")).and_then(|peer| peer.parse::<u32>().ok());
    let leads = |facts: &LinkFacts| {
        let far = facts.leads_to.as_ref().and_then(|far| sight.links.get(far));
        peer.is_none_or(|peer| far.is_some_and(|far| far.index == peer))
    };
    let named = pick(sight, |id, facts| id.name.as_str() == bare && leads(facts));
    if !named.is_empty() {
        return named;
    }
    let addr: Option<IpAddr> = handle.parse().ok();
    let mac = handle.to_lowercase();
    let by_value = pick(sight, |id, facts| {
        let has_mac = sight.topology.links.get(id).is_some_and(|link| link.mac.to_string() == mac);
        has_mac || (addr.is_some() && facts.addrs.iter().any(|net| Some(net.addr()) == addr))
    });
    if !by_value.is_empty() {
        return by_value;
    }
    pick(sight, |id, _| is_in(sight, &id.netns, handle))
}

fn pick(sight: &Sight, wanted: impl Fn(&LinkId, &LinkFacts) -> bool) -> Vec<&LinkId> {
    let cables = sight.links.iter().filter(|(_, facts)| facts.kind == "veth");
    cables.filter(|(id, facts)| wanted(id, facts)).map(|(id, _)| id).collect()
}

fn is_in(sight: &Sight, netns: &Netns, handle: &str) -> bool {
    sight.spaces.get(netns).is_some_and(|space| sight.is_called(netns, space, handle))
}

pub(crate) fn cable<'a>(sight: &'a Sight, id: &'a LinkId) -> Cable<'a> {
    let far = sight.links.get(id).and_then(|facts| facts.leads_to.as_ref());
    let far = far.and_then(|far| sight.links.get_key_value(far)).map(|(far, _)| far);
    match far {
        Some(far) if far < id => Cable { near: far, far: Some(id) },
        far => Cable { near: id, far },
    }
}

/// Returns what is known of a cable, for people.
pub fn about(sight: &Sight, cable: &Cable<'_>) -> Vec<Branch> {
    let mut rows = vec![end(sight, cable.near)];
    match cable.far {
        Some(far) => {
            rows.push(proof(sight, cable.near, far));
            rows.push(end(sight, far));
        }
        None => rows.push(row([
            cell("", Tone::Plain),
            cell("its other end was not found: in a namespace that is hidden, or gone", Tone::Bad),
        ])),
    }
    let netns = cable.far.map_or(&cable.near.netns, |far| &far.netns);
    let workloads = sight.spaces.get(netns).map(|space| space.workloads.as_slice());
    rows.extend(workloads.unwrap_or_default().iter().map(owner));
    if let Some(space) = sight.spaces.get(netns) {
        let cookie = space.cookie.map(|cookie| format!(", cookie {cookie}")).unwrap_or_default();
        let text = format!("net:[{}]{cookie}", space.inode);
        rows.push(row([cell("namespace", Tone::Faint), cell(text, Tone::Plain)]));
    }
    rows.extend(sight.links.get(cable.near).map(|facts| traffic(&facts.counters)));
    rows
}

/// Returns a cable as one row, where several are to be told apart.
pub fn line(sight: &Sight, cable: &Cable<'_>) -> Branch {
    let place = |id: &LinkId| format!("{} {}", sight.label(&id.netns), shown(id.name.as_str()));
    let far = cable.far.map_or_else(|| "its other end was not found".to_owned(), place);
    row([cell(place(cable.near), Tone::Plain), cell(format!("⇄ {far}"), Tone::Plain)])
}

fn end(sight: &Sight, id: &LinkId) -> Branch {
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
        cell(shown(id.name.as_str()), Tone::Name),
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
    row([cell("  ⇅", Tone::Faint), cell(text, tone)])
}

pub(crate) fn owner(workload: &Workload) -> Branch {
    let mut words = vec![shown(&workload.name)];
    if workload.id != workload.name {
        words.push(format!("id {:.12}", workload.id));
    }
    words.extend(workload.pod.iter().map(|pod| format!("pod {}", shown(pod))));
    words.extend(workload.image.iter().map(|image| format!("image {}", shown(image))));
    if workload.runtime != Runtime::Process {
        words.push(workload.runtime.to_string());
    }
    words.extend(workload.pid.map(|pid| format!("pid {pid}")));
    row([cell("container", Tone::Faint), cell(words.join("  "), Tone::Plain)])
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
    row([cell("traffic", Tone::Faint), cell(text, Tone::Plain)])
}

fn row(cells: [Cell; 2]) -> Branch {
    Branch { cells: cells.into(), children: Vec::new() }
}

fn cell(text: impl Into<String>, tone: Tone) -> Cell {
    Cell { text: text.into(), tone }
}
