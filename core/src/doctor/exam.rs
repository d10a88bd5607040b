//! What all checks need to know of a sight: segments, ways out, and how to ask for a switch.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::{
    interior::Interior,
    map::is_loopback,
    model::{Link, LinkId, Netns},
    sight::{Holder, LinkFacts, Sight},
};

/// A sight, and what follows from it.
pub(super) struct Exam<'a> {
    pub(super) sight: &'a Sight,
    pub(super) segments: Vec<Segment<'a>>,
    segment_of: BTreeMap<&'a LinkId, usize>,
    pub(super) ports: BTreeMap<&'a LinkId, Vec<&'a LinkId>>,
    pub(super) ways: Vec<Way<'a>>,
    uplinks: BTreeMap<(&'a Netns, bool), Vec<&'a LinkId>>,
    /// There are namespaces whose links could not be read.
    pub(super) blind: bool,
}

/// Links that hear each other's frames.
#[derive(Default)]
pub(super) struct Segment<'a> {
    pub(super) links: Vec<&'a LinkId>,
    /// Those that send and receive for themselves: all but ports of bridges.
    pub(super) stations: Vec<&'a LinkId>,
    /// It goes on where nobody sees: into a wire, a tunnel, a virtual machine.
    pub(super) open: bool,
    /// Frames on it may be kept apart by VLANs.
    pub(super) vlans: bool,
}

/// A default route of a container, and where it leads.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    pub(super) from: &'a LinkId,
    pub(super) via: IpAddr,
    /// The link of another namespace that has the address `via`, if one is seen.
    pub(super) router: Option<&'a LinkId>,
}

impl<'a> Exam<'a> {
    pub(super) fn of(sight: &'a Sight) -> Self {
        let mut ports: BTreeMap<&LinkId, Vec<&LinkId>> = BTreeMap::new();
        for (id, facts) in &sight.links {
            if let Some((bridge, _)) = bridge_of(sight, facts) {
                ports.entry(bridge).or_default().push(id);
            }
        }
        let segments = segments(sight);
        let mut segment_of = BTreeMap::new();
        for (n, segment) in segments.iter().enumerate() {
            segment_of.extend(segment.links.iter().map(|id| (*id, n)));
        }
        let read: BTreeSet<&Netns> = sight.links.keys().map(|id| &id.netns).collect();
        let blind = sight.spaces.keys().any(|netns| !read.contains(netns));
        let (ways, uplinks) = (Vec::new(), uplinks(sight));
        let mut exam = Self { sight, segments, segment_of, ports, ways, uplinks, blind };
        exam.ways = exam.find_ways();
        exam
    }

    fn find_ways(&self) -> Vec<Way<'a>> {
        let mut at: BTreeMap<(usize, IpAddr), Vec<&LinkId>> = BTreeMap::new();
        for (n, segment) in self.segments.iter().enumerate() {
            for id in &segment.stations {
                for net in &self.sight.links[*id].addrs {
                    at.entry((n, net.addr())).or_default().push(id);
                }
            }
        }
        let mut ways = Vec::new();
        let defaults = self.sight.topology.routes.iter().filter(|it| it.dst.prefix_len() == 0);
        for route in defaults {
            let Some((from, _)) = self.sight.links.get_key_value(&route.link) else { continue };
            let Some(via) = route.via else { continue };
            let segment = self.segment_of.get(from);
            let have = segment.and_then(|segment| at.get(&(*segment, via)));
            let router =
                have.into_iter().flatten().copied().find(|router| router.netns != from.netns);
            ways.push(Way { from, via, router });
        }
        ways
    }

    /// The ways through each link of a router, and of which family.
    pub(super) fn networks(&self) -> BTreeMap<(&'a LinkId, bool), Vec<Way<'a>>> {
        let mut networks: BTreeMap<_, Vec<Way<'a>>> = BTreeMap::new();
        for way in &self.ways {
            if let Some(router) = way.router {
                networks.entry((router, way.via.is_ipv6())).or_default().push(*way);
            }
        }
        networks
    }

    pub(super) fn facts(&self, id: &LinkId) -> Option<&'a LinkFacts> {
        self.sight.links.get(id)
    }

    pub(super) fn link(&self, id: &LinkId) -> Option<&'a Link> {
        self.sight.topology.links.get(id)
    }

    pub(super) fn segment(&self, id: &LinkId) -> Option<&Segment<'a>> {
        self.segments.get(*self.segment_of.get(id)?)
    }

    /// Whether a link is a bridge's port, and so has no address of its own.
    pub(super) fn is_port(&self, id: &LinkId) -> bool {
        self.facts(id).is_some_and(|facts| bridge_of(self.sight, facts).is_some())
    }

    /// The links of a segment that send and receive for themselves: all but ports of bridges.
    pub(super) fn stations(&self, id: &LinkId) -> &[&'a LinkId] {
        self.segment(id).map(|segment| segment.stations.as_slice()).unwrap_or_default()
    }

    /// The links by which a namespace reaches everything else, of one family.
    pub(super) fn uplinks(&self, netns: &'a Netns, ipv6: bool) -> &[&'a LinkId] {
        self.uplinks.get(&(netns, ipv6)).map(Vec::as_slice).unwrap_or_default()
    }

    /// The first link by which what comes from a router's link leaves its namespace.
    pub(super) fn uplink(&self, router: &'a LinkId, ipv6: bool) -> Option<&'a LinkId> {
        self.uplinks(&router.netns, ipv6).iter().copied().find(|id| *id != router)
    }

    pub(super) fn interior(&self, netns: &Netns) -> Option<&'a Interior> {
        self.sight.interiors.get(netns)
    }

    /// Whether it is known who listens in a namespace.
    pub(super) fn is_heard(&self, netns: &Netns) -> bool {
        let prefix = format!("routes of {netns}:");
        let unread = self.sight.unseen.iter().any(|line| line.starts_with(&prefix));
        self.interior(netns).is_some() && !unread
    }

    /// A switch of a namespace; `None` where it could not be read.
    pub(super) fn switch(&self, netns: &Netns, name: &str) -> Option<&'a str> {
        self.interior(netns)?.switches.get(name).map(String::as_str)
    }

    /// A switch of a link; `None` where it could not be read.
    pub(super) fn link_switch(&self, id: &LinkId, family: &str, name: &str) -> Option<&'a str> {
        self.switch(&id.netns, &format!("{family}/conf/{}/{name}", id.name))
    }

    /// Whether somebody lives in a namespace.
    pub(super) fn has_process(&self, netns: &Netns) -> bool {
        let process = |holder: &Holder| matches!(holder, Holder::Process { .. });
        self.sight.spaces.get(netns).is_some_and(|space| space.holders.iter().any(process))
    }

    /// The namespaces whose inside was read.
    pub(super) fn interiors(&self) -> impl Iterator<Item = (&'a Netns, &'a Interior)> {
        self.sight.interiors.iter()
    }
}

/// The links that default routes of the main tables leave by.
fn uplinks(sight: &Sight) -> BTreeMap<(&Netns, bool), Vec<&LinkId>> {
    let mut uplinks: BTreeMap<(&Netns, bool), Vec<&LinkId>> = BTreeMap::new();
    for route in sight.topology.routes.iter().filter(|route| route.dst.prefix_len() == 0) {
        let key = (&route.link.netns, route.dst.addr().is_ipv6());
        let links = uplinks.entry(key).or_default();
        if !links.contains(&&route.link) {
            links.push(&route.link);
        }
    }
    uplinks
}

/// The bridge that a link is a port of.
fn bridge_of<'a>(sight: &'a Sight, facts: &LinkFacts) -> Option<(&'a LinkId, &'a LinkFacts)> {
    let master = sight.links.get_key_value(facts.master.as_ref()?)?;
    (master.1.kind == "bridge").then_some(master)
}

/// Whether the far end of a link of this kind gets the same frames.
fn is_cable(kind: &str) -> bool {
    matches!(kind, "veth" | "netkit" | "vxcan")
}

/// Sorts links into those that hear each other.
fn segments(sight: &Sight) -> Vec<Segment<'_>> {
    let ids: Vec<&LinkId> = sight.links.keys().filter(|id| !is_loopback(id)).collect();
    let at: BTreeMap<&LinkId, usize> = ids.iter().enumerate().map(|(n, id)| (*id, n)).collect();
    let mut root: Vec<usize> = (0..ids.len()).collect();
    for (n, id) in ids.iter().enumerate() {
        let facts = &sight.links[*id];
        let lies_on = matches!(facts.kind.as_str(), "macvlan" | "macvtap" | "ipvlan" | "ipvtap");
        let next = (is_cable(&facts.kind) || lies_on).then_some(facts.leads_to.as_ref()).flatten();
        let master = facts.master.as_ref().filter(|master| {
            sight.links.get(*master).is_some_and(|it| matches!(it.kind.as_str(), "bridge" | "bond"))
        });
        for other in next.into_iter().chain(master).filter_map(|other| at.get(other)) {
            let (a, b) = (find(&mut root, n), find(&mut root, *other));
            root[a.max(b)] = a.min(b);
        }
    }
    let mut segments: BTreeMap<usize, Segment<'_>> = BTreeMap::new();
    for (n, id) in ids.iter().enumerate() {
        let segment = segments.entry(find(&mut root, n)).or_default();
        let facts = &sight.links[*id];
        segment.links.push(id);
        if bridge_of(sight, facts).is_none() {
            segment.stations.push(id);
        }
        segment.open |= match facts.kind.as_str() {
            "bridge" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" => false,
            kind if is_cable(kind) => facts.leads_to.is_none(),
            _ => true,
        };
        segment.vlans |= facts.details.iter().any(|detail| detail == "vlan filtering");
    }
    segments.into_values().collect()
}

fn find(root: &mut [usize], mut n: usize) -> usize {
    while root[n] != n {
        root[n] = root[root[n]];
        n = root[n];
    }
    n
}
