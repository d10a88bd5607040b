//! What changed between two looks at a host, a line each, in words.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    map::{View, Wanted, held_by, host_side, is_loopback, shown},
    model::{LinkId, Netns},
    sight::{Inode, LinkFacts, PublishedPort, Runtime, Sight, Space, Workload},
};

/// One thing that is other than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub way: Way,
    pub what: What,
    /// What it is about, as every command takes it.
    pub netns: Netns,
    pub interface: Option<String>,
    /// The containers there, by name, as they are.
    pub containers: Vec<String>,
    /// For people; nothing in it acts on a terminal.
    pub text: String,
}

/// In which way a thing is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    Added,
    Changed,
    Removed,
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    Container,
    Namespace,
    Cable,
    /// Any other link.
    Link,
    Route,
    /// A published port.
    Port,
}

impl Way {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }

    /// `+`, `~` or `-`.
    pub fn sign(self) -> char {
        match self {
            Self::Added => '+',
            Self::Changed => '~',
            Self::Removed => '-',
        }
    }
}

impl What {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Namespace => "namespace",
            Self::Cable => "cable",
            Self::Link => "link",
            Self::Route => "route",
            Self::Port => "port",
        }
    }
}

/// Returns what is other in `after` than in `before`, of what is wanted: what went, what came, what
/// changed.
pub fn changes(before: &Sight, after: &Sight, wanted: &Wanted) -> Vec<Change> {
    let (old, new) = (Side::of(before, wanted), Side::of(after, wanted));
    let mut changes = Vec::new();
    for (way, here, there) in [(Way::Removed, &old, &new), (Way::Added, &new, &old)] {
        changes.extend(here.namespaces_beside(there, way));
        changes.extend(here.links_beside(there, way));
        changes.extend(here.routes_beside(there, way));
        changes.extend(here.ports_beside(there, way));
    }
    changes.extend(new.changed_since(&old));
    changes
}

/// A namespace whatever it is called: its number, its cookie, and its name if it has neither.
type Place<'a> = (Inode, Option<u64>, Option<&'a Netns>);
/// A container: its namespace, who made it, its id.
type Which<'a> = (Place<'a>, Runtime, &'a str);
/// A route: where to, and through whom.
type Path = (IpNet, Option<IpAddr>);

/// One of the two sights, by what does not change with names.
struct Side<'a> {
    sight: &'a Sight,
    view: View<'a>,
    places: BTreeMap<&'a Netns, Place<'a>>,
    links: BTreeMap<(Place<'a>, u32), (&'a LinkId, &'a LinkFacts)>,
    routes: BTreeMap<(Place<'a>, u32), BTreeSet<Path>>,
}

impl<'a> Side<'a> {
    fn of(sight: &'a Sight, wanted: &Wanted) -> Self {
        let place = |(netns, space): (&'a Netns, &'a Space)| {
            let unnumbered = space.inode == 0 && space.cookie.is_none();
            (netns, (space.inode, space.cookie, unnumbered.then_some(netns)))
        };
        let places: BTreeMap<&Netns, Place<'_>> = sight.spaces.iter().map(place).collect();
        let key = |id: &LinkId, facts: &LinkFacts| Some((*places.get(&id.netns)?, facts.index));
        let links = sight.links.iter();
        let links = links.filter_map(|(id, facts)| Some((key(id, facts)?, (id, facts)))).collect();
        let mut routes: BTreeMap<_, BTreeSet<Path>> = BTreeMap::new();
        for route in &sight.topology.routes {
            let Some(facts) = sight.links.get(&route.link) else { continue };
            let Some(key) = key(&route.link, facts) else { continue };
            routes.entry(key).or_default().insert((route.dst, route.via));
        }
        Self { sight, view: View::of(sight, wanted), places, links, routes }
    }

    fn change(&self, way: Way, what: What, netns: &Netns, text: String) -> Change {
        let workloads = self.sight.spaces.get(netns).map(|space| space.workloads.as_slice());
        let containers = workloads.unwrap_or_default().iter().map(|w| w.name.clone()).collect();
        Change { way, what, netns: netns.clone(), interface: None, containers, text }
    }

    /// The containers, and the namespaces that nothing is known to live in.
    fn shown(&self) -> impl Iterator<Item = (&'a Netns, &'a Space, Place<'a>)> {
        let spaces = self.sight.spaces.iter();
        let spaces = spaces.filter(|(n, _)| **n != Netns::Host && self.view.is_shown(n));
        spaces.map(|(netns, space)| (netns, space, self.places[netns]))
    }

    fn containers(&self) -> BTreeMap<Which<'a>, (&'a Netns, &'a Workload)> {
        let each = |(netns, space, place): (&'a Netns, &'a Space, Place<'a>)| {
            let workloads = space.workloads.iter();
            workloads.map(move |w| ((place, w.runtime, w.id.as_str()), (netns, w)))
        };
        self.shown().flat_map(each).collect()
    }

    fn namespaces_beside(&self, other: &Self, way: Way) -> Vec<Change> {
        let known = other.containers();
        let mut changes = Vec::new();
        for (which, (netns, workload)) in self.containers() {
            if known.contains_key(&which) {
                continue;
            }
            let what = match workload.runtime {
                Runtime::Process | Runtime::IpNetns => What::Namespace,
                _ => What::Container,
            };
            let mut words = vec![what.as_str().to_owned(), shown(&workload.name)];
            words.extend(workload.pod.iter().map(|pod| format!("of pod {}", shown(pod))));
            words.push(workload.runtime.to_string());
            words.extend(workload.image.iter().map(|image| shown(image)));
            changes.push(self.change(way, what, netns, words.join(" ")));
        }
        let empty = |side: &Self| -> BTreeMap<Place<'a>, (&'a Netns, &'a Space)> {
            let spaces = side.shown().filter(|(_, space, _)| space.workloads.is_empty());
            spaces.map(|(netns, space, place)| (place, (netns, space))).collect()
        };
        let known: BTreeSet<Place<'_>> = other.shown().map(|(_, _, place)| place).collect();
        for (_, (netns, space)) in empty(self).iter().filter(|(place, _)| !known.contains(*place)) {
            let name = match space.inode {
                0 => self.sight.label(netns),
                inode => format!("net:[{inode}]"),
            };
            let text = format!("namespace {name} {}", held_by(space));
            let text = text.trim_end().to_owned();
            changes.push(self.change(way, What::Namespace, netns, text));
        }
        changes
    }

    /// Whether a link is wanted, for its own namespace's sake or for where it leads.
    fn is_wanted(&self, id: &LinkId, facts: &LinkFacts) -> bool {
        let far = facts.leads_to.as_ref();
        !is_loopback(id)
            && (self.view.is_visible(&id.netns)
                || far.is_some_and(|far| self.view.is_visible(&far.netns)))
    }

    /// Whether another link tells of it: of a cable the end nearer to the host is told.
    fn is_told(id: &LinkId, facts: &LinkFacts) -> bool {
        facts.kind == "veth" && facts.leads_to.as_ref().is_some_and(|far| far < id)
    }

    fn links_beside(&self, other: &Self, way: Way) -> Vec<Change> {
        let new = self.links.iter().filter(|(key, _)| !other.links.contains_key(*key));
        let new = new.map(|(_, (id, facts))| (*id, *facts));
        let new = new.filter(|(id, facts)| self.is_wanted(id, facts) && !Self::is_told(id, facts));
        new.map(|(id, facts)| self.link(way, id, facts)).collect()
    }

    fn link(&self, way: Way, id: &LinkId, facts: &LinkFacts) -> Change {
        let (what, netns, text) = match &facts.leads_to {
            Some(far) if facts.kind == "veth" => {
                let there = self.sight.links.get(far);
                let addrs = there.map(|there| listed(&there.addrs)).unwrap_or_default();
                let (near, label) = (self.sight.label(&id.netns), self.sight.label(&far.netns));
                let place = match (&facts.master, &id.netns) {
                    (Some(master), Netns::Host) => format!("{label} on {}", master.name),
                    (_, Netns::Host) => label,
                    _ => format!("{near} and {label}"),
                };
                let text = format!("{place}: {} ⇄ {}{addrs}", id.name, far.name);
                (What::Cable, &far.netns, text)
            }
            _ => {
                let kind = if facts.kind.is_empty() { "device" } else { &facts.kind };
                let label = self.sight.label(&id.netns);
                let addrs = listed(&facts.addrs);
                (What::Link, &id.netns, format!("{label}: {} {}{addrs}", shown(kind), id.name))
            }
        };
        let interface = Some(id.name.to_string());
        Change { interface, ..self.change(way, what, netns, text) }
    }

    /// Routes by links that are on both sides; those that come and go with their link go unsaid.
    fn routes_beside(&self, other: &Self, way: Way) -> Vec<Change> {
        let mut changes = Vec::new();
        let none = BTreeSet::new();
        for (key, routes) in &self.routes {
            let (Some((id, facts)), true) = (self.links.get(key), other.links.contains_key(key))
            else {
                continue;
            };
            if !self.is_wanted(id, facts) {
                continue;
            }
            for (dst, via) in routes.difference(other.routes.get(key).unwrap_or(&none)) {
                let to = match dst.prefix_len() {
                    0 => "default".to_owned(),
                    _ => dst.to_string(),
                };
                let via = via.map(|via| format!(" via {via}")).unwrap_or_default();
                let label = self.sight.label(&id.netns);
                let text = format!("{label}: route {to}{via} by {}", id.name);
                let interface = Some(id.name.to_string());
                let change = self.change(way, What::Route, &id.netns, text);
                changes.push(Change { interface, ..change });
            }
        }
        changes
    }

    fn ports_beside(&self, other: &Self, way: Way) -> Vec<Change> {
        let ports = |side: &Self| -> BTreeMap<(Which<'a>, PublishedPort), (&'a Netns, &'a str)> {
            let of = |(which, (netns, w)): (Which<'a>, (&'a Netns, &'a Workload))| {
                let ports = w.published.iter();
                ports.map(move |port| ((which, port.clone()), (netns, w.name.as_str())))
            };
            side.containers().into_iter().flat_map(of).collect()
        };
        let known = ports(other);
        let new = ports(self).into_iter().filter(|(key, _)| !known.contains_key(key));
        let told = |((_, port), (netns, name)): ((_, PublishedPort), (&Netns, &str))| {
            let (at, name) = (host_side(&port), shown(name));
            let text = format!("published {at} → {name}:{}", port.container_port);
            self.change(way, What::Port, netns, text)
        };
        new.map(told).collect()
    }

    /// Links that were there before, and are other now.
    fn changed_since(&self, old: &Self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (key, (id, facts)) in &self.links {
            let Some((was, before)) = old.links.get(key) else { continue };
            let words = self.differences((old, was, before), id, facts);
            if words.is_empty() || !self.is_wanted(id, facts) {
                continue;
            }
            let what = if facts.kind == "veth" { What::Cable } else { What::Link };
            let text =
                format!("{}: {} {}", self.sight.label(&id.netns), was.name, words.join(", "));
            let interface = Some(id.name.to_string());
            let change = self.change(Way::Changed, what, &id.netns, text);
            changes.push(Change { interface, ..change });
        }
        changes
    }

    fn differences(
        &self,
        (old, was, before): (&Self, &LinkId, &LinkFacts),
        id: &LinkId,
        facts: &LinkFacts,
    ) -> Vec<String> {
        let mut words = Vec::new();
        if was.name != id.name {
            words.push(format!("is now {}", id.name));
        }
        if before.operstate != facts.operstate {
            words.push(format!("{} → {}", before.operstate, facts.operstate));
        }
        if before.master.as_ref().map(|m| &m.name) != facts.master.as_ref().map(|m| &m.name) {
            let master = |facts: &LinkFacts| {
                facts.master.as_ref().map_or_else(|| "nothing".to_owned(), |m| m.name.to_string())
            };
            words.push(format!("on {} → {}", master(before), master(facts)));
        }
        let far = |side: &Self, facts: &LinkFacts| {
            let far = facts.leads_to.as_ref()?;
            let facts = side.sight.links.get(far)?;
            let (inode, cookie, name) = side.places.get(&far.netns)?;
            Some((*inode, *cookie, name.cloned(), facts.index))
        };
        if far(old, before) != far(self, facts) {
            let label = |far: &LinkId| format!("{} {}", self.sight.label(&far.netns), far.name);
            let to = facts.leads_to.as_ref().map_or_else(|| "nothing known".to_owned(), label);
            words.push(format!("leads to {to}"));
        }
        let addrs = |facts: &LinkFacts| facts.addrs.iter().copied().collect::<BTreeSet<_>>();
        let (had, has) = (addrs(before), addrs(facts));
        words.extend(has.difference(&had).map(|addr| format!("+{addr}")));
        words.extend(had.difference(&has).map(|addr| format!("-{addr}")));
        let known = (old.sight.topology.links.get(was), self.sight.topology.links.get(id));
        if let (Some(before), Some(after)) = known {
            if before.mac != after.mac {
                words.push(format!("mac {} → {}", before.mac, after.mac));
            }
            if before.mtu != after.mtu {
                words.push(format!("mtu {} → {}", before.mtu, after.mtu));
            }
        }
        words
    }
}

/// A space and an address each.
fn listed(addrs: &[IpNet]) -> String {
    addrs.iter().map(|addr| format!(" {addr}")).collect()
}
