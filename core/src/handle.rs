//! From whatever a person has in hand to what it may mean: a namespace, a container, a link, a
//! network.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    model::{LinkId, Netns},
    name::shown,
    sight::{Holder, LinkFacts, Runtime, Sight, Space, Workload, is_loopback},
};

/// No more meanings of one handle are listed.
const CHOICES: usize = 40;

/// What a handle may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Meaning<'a> {
    Namespace(&'a Netns),
    /// A container, by its place among those that live in the namespace.
    Container(&'a Netns, usize),
    Link(&'a LinkId),
    /// A network in its runtime's words; a bridge that is called so is a link.
    Network(Runtime, &'a str),
}

impl<'a> Meaning<'a> {
    /// A handle that means this and nothing else.
    pub fn exact(&self, sight: &Sight) -> String {
        match self {
            Self::Namespace(netns) => netns.to_string(),
            Self::Container(netns, n) => {
                let space = sight.spaces.get(*netns);
                let workload = space.and_then(|space| space.workloads.get(*n));
                workload.map(|w| format!("container:{}", w.id)).unwrap_or_default()
            }
            Self::Link(id) if id.netns == Netns::Host => format!("{}@host", id.name),
            Self::Link(id) => id.to_string(),
            Self::Network(_, name) => format!("network:{name}"),
        }
    }

    /// The namespace that it is in; none of a network.
    pub fn netns(&self) -> Option<&'a Netns> {
        match self {
            Self::Namespace(netns) | Self::Container(netns, _) => Some(netns),
            Self::Link(id) => Some(&id.netns),
            Self::Network(..) => None,
        }
    }
}

/// Returns what `handle` may mean, the exact ones alone if there are any:
///
/// * `container:NAME`, `network:NAME`: that and nothing else;
/// * `host`, `pid:N`, `netns:PATH`, `net:[INODE]`, `twinax`'s own names: a namespace;
/// * `INDEX@NAMESPACE`, `INTERFACE@CONTAINER`, `CONTAINER/INTERFACE`, `veth12@if6`: a link;
/// * an interface's name, a container's name, a pod, a network's name;
/// * an IP address or MAC of a link;
/// * a process number; the beginning of a container's id, of four digits or more.
pub fn meanings<'a>(sight: &'a Sight, handle: &str) -> Vec<Meaning<'a>> {
    for (kind, is_network) in [("container:", false), ("network:", true)] {
        if let Some(name) = handle.strip_prefix(kind) {
            let mut found = named(sight, name);
            if !is_network {
                found.extend(with_id(sight, name));
            }
            found.retain(|meaning| match meaning {
                Meaning::Network(..) => is_network,
                Meaning::Container(..) => !is_network,
                _ => false,
            });
            return found.into_iter().collect();
        }
    }
    type Way<'a> = fn(&'a Sight, &str) -> BTreeSet<Meaning<'a>>;
    let ways = [
        namespaces as Way<'a>,
        links_at as Way<'a>,
        named as Way<'a>,
        with_value as Way<'a>,
        of_process as Way<'a>,
        with_id as Way<'a>,
    ];
    let found = ways.iter().map(|way| way(sight, handle)).find(|found| !found.is_empty());
    found.into_iter().flatten().collect()
}

/// Namespaces as every command takes them.
fn namespaces<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    let inode = handle.strip_prefix("net:[").and_then(|rest| rest.strip_suffix(']'));
    let inode: Option<u64> = inode.and_then(|digits| digits.parse().ok());
    let pid: Option<u32> = handle.strip_prefix("pid:").and_then(|pid| pid.parse().ok());
    let path = handle.strip_prefix("netns:");
    let is = |netns: &Netns, space: &Space| {
        is_host(netns, handle)
            || (matches!(netns, Netns::Container(_)) && exactly(netns, handle))
            || Some(space.inode) == inode
            || pid.is_some_and(|pid| has_process(space, pid))
            || path.is_some_and(|path| is_mounted(space, path))
    };
    let found = sight.spaces.iter().filter(|(netns, space)| is(netns, space));
    // A Twinax container's namespace has the container's name: that says more.
    let found = found.filter(|(_, space)| !space.workloads.iter().any(|w| w.name == handle));
    found.map(|(netns, _)| Meaning::Namespace(netns)).collect()
}

fn is_host(netns: &Netns, handle: &str) -> bool {
    *netns == Netns::Host && handle == "host"
}

fn exactly(netns: &Netns, handle: &str) -> bool {
    netns.to_string() == handle
}

fn has_process(space: &Space, pid: u32) -> bool {
    let holds =
        |holder: &Holder| matches!(holder, Holder::Process { pid: held, .. } if *held == pid);
    space.holders.iter().any(holds) || space.workloads.iter().any(|w| w.pid == Some(pid))
}

fn is_mounted(space: &Space, path: &str) -> bool {
    space
        .holders
        .iter()
        .any(|holder| matches!(holder, Holder::Mount { path: at, .. } if at == path))
}

/// Links by their place: in a namespace, or before a peer.
fn links_at<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    // A bare name is not one of the host alone: others may have it as well.
    let exact = pick(sight, |id, _| id.netns != Netns::Host && id.to_string() == handle);
    if !exact.is_empty() {
        return exact;
    }
    if let Some((bare, at)) = handle.split_once('@') {
        // `veth926be0c@if6`: what follows is the peer's number, which many share.
        if let Some(peer) = at.strip_prefix("if").and_then(|peer| peer.parse::<u32>().ok()) {
            let found = pick(sight, |id, facts| {
                let far = facts.leads_to.as_ref().and_then(|far| sight.links.get(far));
                id.name.as_str() == bare && far.is_some_and(|far| far.index == peer)
            });
            if !found.is_empty() {
                return own_first(found);
            }
        }
        return in_place(sight, bare, at);
    }
    // A name may have a slash in it (`netns:/run/netns/x`), an interface's may not.
    match handle.rsplit_once('/') {
        Some((place, name)) => in_place(sight, name, place),
        None => BTreeSet::new(),
    }
}

/// The link of that name or number in what is called `place`.
fn in_place<'a>(sight: &'a Sight, link: &str, place: &str) -> BTreeSet<Meaning<'a>> {
    let places: BTreeSet<&Netns> = match place {
        "" => return BTreeSet::new(),
        place => meanings(sight, place).iter().filter_map(Meaning::netns).collect(),
    };
    let index: Option<u32> = link.parse().ok();
    pick(sight, |id, facts| {
        places.contains(&id.netns)
            && (id.name.as_str() == link
                || Some(facts.index) == index
                || facts.alt_names.contains(link))
    })
}

fn pick<'a>(
    sight: &'a Sight,
    wanted: impl Fn(&LinkId, &LinkFacts) -> bool,
) -> BTreeSet<Meaning<'a>> {
    let found = sight.links.iter().filter(|(id, facts)| wanted(id, facts));
    found.map(|(id, _)| Meaning::Link(id)).collect()
}

/// As `ip link` shows the host's own, if one of the links is that.
fn own_first(links: BTreeSet<Meaning<'_>>) -> BTreeSet<Meaning<'_>> {
    let is_own = |meaning: &Meaning<'_>| meaning.netns() == Some(&Netns::Host);
    match links.iter().any(is_own) {
        true => links.into_iter().filter(is_own).collect(),
        false => links,
    }
}

/// Whatever has that name.
fn named<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    let mut found =
        pick(sight, |id, facts| id.name.as_str() == handle || facts.alt_names.contains(handle));
    found.extend(containers(sight, |workload| is_named(workload, handle)));
    for (netns, space) in &sight.spaces {
        // A pod's containers share a namespace: that is the pod.
        if space.workloads.iter().any(|w| w.pod.as_deref() == Some(handle)) {
            found.insert(Meaning::Namespace(netns));
        }
        for workload in &space.workloads {
            let network = workload.networks.iter().find(|network| *network == handle);
            found.extend(network.map(|network| Meaning::Network(workload.runtime, network)));
        }
    }
    found
}

fn containers<'a>(
    sight: &'a Sight,
    wanted: impl Fn(&Workload) -> bool,
) -> impl Iterator<Item = Meaning<'a>> {
    sight.spaces.iter().flat_map(move |(netns, space)| {
        let found: Vec<Meaning<'a>> = (0..space.workloads.len())
            .filter(|n| wanted(&space.workloads[*n]))
            .map(|n| Meaning::Container(netns, n))
            .collect();
        found
    })
}

/// Links with that address.
fn with_value<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    if let Ok(addr) = handle.parse::<IpAddr>() {
        return pick(sight, |_, facts| facts.addrs.iter().any(|net| net.addr() == addr));
    }
    let mac = handle.to_lowercase();
    if mac.len() != 17 || mac.split(':').count() != 6 {
        return BTreeSet::new();
    }
    let has = |id: &LinkId| sight.topology.links.get(id).is_some_and(|l| l.mac.to_string() == mac);
    pick(sight, |id, _| !is_loopback(id) && has(id))
}

/// The namespace of a process; that with an inode.
fn of_process<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    let (pid, inode) = (handle.parse::<u32>().ok(), handle.parse::<u64>().ok());
    let found = sight.spaces.iter().filter(|(_, space)| {
        pid.is_some_and(|pid| has_process(space, pid)) || Some(space.inode) == inode
    });
    found.map(|(netns, _)| Meaning::Namespace(netns)).collect()
}

fn with_id<'a>(sight: &'a Sight, handle: &str) -> BTreeSet<Meaning<'a>> {
    containers(sight, |workload| begins(workload, handle)).collect()
}

/// Returns the namespaces that `handle` may mean, each with what is called so: a container or a
/// namespace before an interface, which means the container that its cable leads to if it is one
/// of the host's, and that before a network, which means all that are on it.
pub fn spaces<'a>(sight: &'a Sight, handle: &str) -> BTreeMap<&'a Netns, Meaning<'a>> {
    let rank = |meaning: &Meaning<'_>| match meaning {
        Meaning::Namespace(_) | Meaning::Container(..) => 0,
        Meaning::Link(_) => 1,
        Meaning::Network(..) => 2,
    };
    let found = meanings(sight, handle);
    let first = found.iter().map(rank).min();
    let mut spaces = BTreeMap::new();
    for meaning in found.into_iter().filter(|meaning| Some(rank(meaning)) == first) {
        match meaning {
            Meaning::Namespace(netns) | Meaning::Container(netns, _) => {
                spaces.insert(netns, meaning);
            }
            Meaning::Link(id) => {
                let far = sight.links.get(id).and_then(|facts| facts.leads_to.as_ref());
                let far = far.filter(|_| id.netns == Netns::Host);
                let far = far.and_then(|far| sight.spaces.get_key_value(&far.netns));
                spaces.insert(far.map_or(&id.netns, |(netns, _)| netns), meaning);
            }
            Meaning::Network(runtime, name) => {
                let on = sight.spaces.iter().filter(|(_, space)| space.is_on(runtime, name));
                spaces.extend(on.map(|(netns, _)| (netns, Meaning::Namespace(netns))));
            }
        }
    }
    spaces
}

/// What a thing is called and what it is, in one line.
pub fn title(sight: &Sight, meaning: &Meaning<'_>) -> String {
    match meaning {
        Meaning::Namespace(netns) => format!("namespace {}", sight.label(netns)),
        Meaning::Container(netns, n) => {
            let workload = sight.spaces.get(*netns).and_then(|space| space.workloads.get(*n));
            workload
                .map(|w| format!("container {} ({})", shown(&w.name), w.runtime))
                .unwrap_or_default()
        }
        Meaning::Link(id) => {
            let kind = sight.links.get(*id).map(|facts| facts.kind.as_str()).unwrap_or_default();
            let kind = if kind.is_empty() { "device" } else { kind };
            format!("{kind} {} of {}", shown(id.name.as_str()), sight.label(&id.netns))
        }
        Meaning::Network(runtime, name) => format!("network {} ({runtime})", shown(name)),
    }
}

/// Returns what a handle may mean where that is several things, a line each for people, with what
/// to write to mean one of them: `verb` is the command that was given. Of very many the first.
pub fn choices<'a>(
    sight: &Sight,
    verb: &str,
    meanings: impl IntoIterator<Item = &'a Meaning<'a>>,
) -> String {
    let exact = |meaning: &Meaning<'_>| shown(&meaning.exact(sight));
    let line = |meaning: &'a Meaning<'a>| {
        format!("  {}  (twinax {verb} {})\n", title(sight, meaning), exact(meaning))
    };
    let mut meanings = meanings.into_iter();
    let mut lines: String = meanings.by_ref().take(CHOICES).map(line).collect();
    match meanings.count() {
        0 => {}
        more => lines += &format!("  … and {more} more\n"),
    }
    lines
}

impl Sight {
    /// What people call a namespace: its containers, its pod, or a handle that commands take.
    pub fn label(&self, netns: &Netns) -> String {
        let Netns::Container(handle) = netns else { return "host".to_owned() };
        let workloads = self.spaces.get(netns).map(|space| space.workloads.as_slice());
        let workloads = workloads.unwrap_or_default();
        let pod = workloads.iter().find_map(|workload| workload.pod.as_deref());
        // Podman's pods need not share a network: then the name tells more.
        let is_alone = matches!(workloads, [one] if one.runtime == Runtime::Podman
            && !one.labels.contains_key("role"));
        if let Some(pod) = pod.filter(|_| !is_alone) {
            return format!("pod {}", shown(pod));
        }
        let names: Vec<String> = workloads.iter().map(|workload| shown(&workload.name)).collect();
        match names.is_empty() {
            true => shown(handle.as_str()),
            false => names.join(" + "),
        }
    }
}

impl Space {
    /// Whether a container that lives in it is on that network of its runtime.
    pub fn is_on(&self, runtime: Runtime, network: &str) -> bool {
        let on = |w: &Workload| w.runtime == runtime && w.networks.iter().any(|n| n == network);
        self.workloads.iter().any(on)
    }
}

impl Workload {
    /// Whether a person may mean this container by `handle`, whatever else is called so.
    pub(crate) fn is_called(&self, handle: &str) -> bool {
        let handle = handle.strip_prefix("container:").unwrap_or(handle);
        is_named(self, handle)
            || self.pod.as_deref() == Some(handle)
            || begins(self, handle)
            || self.pid.is_some_and(|pid| handle.parse() == Ok(pid))
    }
}

fn is_named(workload: &Workload, handle: &str) -> bool {
    workload.name == handle || workload.id == handle
}

/// Of fewer digits it would be chance.
fn begins(workload: &Workload, handle: &str) -> bool {
    handle.len() >= 4 && workload.id.starts_with(handle)
}

/// The names that come nearest to a handle that means nothing, at most five, the nearest first.
pub fn near(sight: &Sight, handle: &str) -> Vec<String> {
    let mut names: BTreeSet<&str> = sight.links.keys().map(|id| id.name.as_str()).collect();
    for workload in sight.spaces.values().flat_map(|space| &space.workloads) {
        names.insert(&workload.name);
        names.extend(workload.pod.as_deref());
        names.extend(workload.networks.iter().map(String::as_str));
    }
    let wanted = handle.rsplit(['/', '@']).next_back().unwrap_or(handle).to_lowercase();
    let mut close: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let known = name.to_lowercase();
            let part = wanted.len() >= 3
                && (known.contains(&wanted) || wanted.contains(&known) && known.len() >= 3);
            let steps = if part { 1 } else { distance(&wanted, &known) };
            (steps <= 1 + wanted.chars().count() / 4).then_some((steps, name))
        })
        .collect();
    close.sort_unstable();
    close.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
}

/// How many letters have to be put, taken away or changed (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (n, one) in a.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = n + 1;
        for (m, other) in b.iter().enumerate() {
            let change = corner + usize::from(one != *other);
            corner = row[m + 1];
            row[m + 1] = change.min(row[m] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}
