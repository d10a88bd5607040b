//! Drawings of the host: which cards, lanes and wires there are. Where they stand is
//! [`layout`]'s, how they are written that of the formats.
//!
//! A lane is what cards hang on: a bridge, the host's own routing, a device that macvlan lies on.
//! A card is a network namespace, a wire a cable or whatever else ties one link to another.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{
    map::{Counts, Tone, View, Wanted, held_by, is_loopback, is_up, port_cells, shown, tree},
    model::{LinkId, Netns},
    sight::{Holder, LinkFacts, Sight, Space, Workload},
};

pub mod layout;
pub mod svg;
mod digest;
pub mod html;
pub mod dot;
pub mod mermaid;

/// What is drawn, without places. Every text of others has gone through [`shown`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scene {
    pub lanes: Vec<Lane>,
    pub cards: Vec<Card>,
    pub devices: Vec<Device>,
    pub wires: Vec<Wire>,
    pub counts: Counts,
    pub unseen: Vec<String>,
    /// The host's namespace, in the kernel's spelling.
    pub host: String,
}

/// What cards hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    pub hang: Hang,
    pub name: String,
    /// Addresses, the gateway, the network's name: a word each.
    pub words: Vec<String>,
    pub up: bool,
}

/// Which lane it is. The order is that from top to bottom, where nothing else decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hang {
    Bridge(LinkId),
    /// Cables that end on the host itself.
    Routed,
    /// What lies on a device of the host.
    Parent(LinkId),
    /// Cables that end in a namespace which holds others, as a node of KinD.
    Inside(Netns),
    /// Namespaces with links that lead to no lane.
    Apart,
    /// Containers in the host's own namespace; each is a card.
    Shared,
    /// Containers in namespaces that may not be seen; each is a card.
    Unseen,
    /// Namespaces with nothing but their loopback.
    NoNetwork,
}

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    pub netns: Netns,
    /// The lane it stands in.
    pub lane: usize,
    pub label: String,
    pub chips: Vec<Chip>,
    pub ports: Vec<Port>,
    pub published: Vec<String>,
    /// What keeps it alive, if no process does.
    pub held: String,
    /// Nobody who could be seen keeps it alive.
    pub forlorn: bool,
}

/// A workload of a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chip {
    pub runtime: String,
    pub name: String,
    pub image: String,
}

/// A link in a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: String,
    pub kind: String,
    pub addrs: Vec<IpAddr>,
    pub orphan: bool,
}

/// A link on the host that is neither a bridge nor one of a found cable's ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    pub id: LinkId,
    pub name: String,
    /// The kernel's word; empty for a physical device.
    pub kind: String,
    pub words: Vec<String>,
    pub gateways: Vec<IpAddr>,
    pub orphan: bool,
    pub up: bool,
}

/// One link tied to another. The first end is the one that is drawn lower.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    pub ends: [End; 2],
    pub tie: Tie,
    pub up: bool,
    /// Both ends name each other, as far as they could be asked.
    pub proven: bool,
}

/// What a wire is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tie {
    Cable,
    /// One link lies on another, or is its member; in words.
    On(String),
}

/// Where a wire ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    pub node: Node,
    /// The link's name there; empty where the node is the link.
    pub name: String,
    /// The link there, if it is one.
    pub link: Option<LinkId>,
}

/// A thing that wires lead to, by its number in the [`Scene`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Lane(usize),
    Card(usize),
    Device(usize),
}

impl Device {
    /// Whether it leads out of the host.
    pub fn is_physical(&self) -> bool {
        self.kind.is_empty()
    }
}

impl Card {
    /// What is to be read on it where lines cost nothing.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.label.clone()];
        for chip in &self.chips {
            // The label is the name of a single one.
            let name = if chip.name == self.label { "" } else { &chip.name };
            let words = [chip.runtime.as_str(), name, &chip.image];
            lines.push(words.into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join(" "));
        }
        for port in &self.ports {
            let addrs: Vec<String> = port.addrs.iter().map(ToString::to_string).collect();
            let text = match (port.orphan, addrs.is_empty()) {
                (true, _) => "orphan: its other end was not found".to_owned(),
                (false, true) => port.kind.clone(),
                (false, false) => addrs.join(" "),
            };
            lines.push(format!("{} {text}", port.name));
        }
        lines.extend(self.published.iter().map(|text| format!("published {text}")));
        if self.forlorn {
            lines.push("held by nobody who could be seen".to_owned());
        } else if !self.held.is_empty() {
            lines.push(self.held.clone());
        }
        lines
    }
}

impl Wire {
    /// Whether it is a card's wire to the lane that the card stands in.
    pub fn is_home(&self, scene: &Scene) -> bool {
        match (self.ends[0].node, self.ends[1].node) {
            (Node::Card(card), Node::Lane(lane)) => scene.cards[card].lane == lane,
            _ => false,
        }
    }

    /// What is written on it: the far end's name, or what it is.
    pub fn label(&self) -> &str {
        match &self.tie {
            Tie::Cable => &self.ends[1].name,
            Tie::On(what) => what,
        }
    }
}

impl Scene {
    /// Returns what is wanted of a sight, as it is drawn.
    pub fn of(sight: &Sight, wanted: &Wanted) -> Self {
        let view = View::of(sight, wanted);
        let mut ties = Ties::default();
        for netns in sight.spaces.keys().filter(|n| **n != Netns::Host && view.is_shown(n)) {
            ties.cards.push(netns);
        }
        ties.find_homes(&view);
        ties.find_lanes(&view);
        ties.find_devices(&view);
        let ports = ports(&view);
        let mut scene = Self {
            lanes: ties.lanes.iter().map(|hang| lane(&view, hang)).collect(),
            cards: ties.cards.iter().map(|netns| card(&view, &ties, netns, &ports)).collect(),
            devices: ties.devices.iter().map(|id| device(&view, id)).collect(),
            wires: Vec::new(),
            counts: tree(sight, wanted).1,
            unseen: sight.unseen.iter().map(|line| shown(line)).collect(),
            host: sight
                .spaces
                .get(&Netns::Host)
                .map_or_else(String::new, |space| format!("net:[{}]", space.inode)),
        };
        scene.wires = ties.wires(&view);
        for (hang, workloads) in [(Hang::Shared, &view.guests), (Hang::Unseen, &view.unplaced)] {
            if !workloads.is_empty() {
                scene.lanes.push(lane(&view, &hang));
                let lane = scene.lanes.len() - 1;
                scene.cards.extend(workloads.iter().map(|w| guest(w, lane)));
            }
        }
        scene.keep_kin_together();
        scene
    }

    /// Orders the lanes such that those which share a card stand beside each other, and the cards
    /// of a lane such that those with wires to elsewhere come last.
    fn keep_kin_together(&mut self) {
        let mut shared = vec![vec![0_usize; self.lanes.len()]; self.lanes.len()];
        for wire in &self.wires {
            if let (Some(a), Some(b)) =
                (self.lane_of(wire.ends[0].node), self.lane_of(wire.ends[1].node))
                && a != b
            {
                shared[a][b] += 1;
                shared[b][a] += 1;
            }
        }
        let mut order: Vec<usize> = Vec::new();
        let mut left: BTreeSet<usize> = (0..self.lanes.len()).collect();
        while !left.is_empty() {
            let last = order.last().copied();
            let rank = |lane: &usize| {
                let with_last = last.map_or(0, |last| shared[last][*lane]);
                let with_any: usize = shared[*lane].iter().sum();
                // Those apart from everything keep their own order, at the end.
                let is_rest = self.lanes[*lane].hang >= Hang::Apart;
                (!is_rest, with_last, with_any > 0, std::cmp::Reverse(*lane))
            };
            let Some(next) = left.iter().copied().max_by_key(rank) else { break };
            left.remove(&next);
            order.push(next);
        }
        let place: BTreeMap<usize, usize> =
            order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        self.lanes = order.iter().map(|old| self.lanes[*old].clone()).collect();
        for card in &mut self.cards {
            card.lane = place[&card.lane];
        }
        for end in self.wires.iter_mut().flat_map(|wire| &mut wire.ends) {
            if let Node::Lane(lane) = &mut end.node {
                *lane = place[lane];
            }
        }
        self.order_cards();
    }

    fn order_cards(&mut self) {
        let mut abroad = vec![0_usize; self.cards.len()];
        for wire in self.wires.iter().filter(|wire| !wire.is_home(self)) {
            for end in &wire.ends {
                if let Node::Card(card) = end.node {
                    abroad[card] += 1;
                }
            }
        }
        let mut order: Vec<usize> = (0..self.cards.len()).collect();
        order.sort_by_cached_key(|n| {
            let card = &self.cards[*n];
            (card.lane, abroad[*n] > 0, natural(&card.label), card.netns.clone())
        });
        let place: BTreeMap<usize, usize> =
            order.iter().enumerate().map(|(new, old)| (*old, new)).collect();
        self.cards = order.iter().map(|old| self.cards[*old].clone()).collect();
        for end in self.wires.iter_mut().flat_map(|wire| &mut wire.ends) {
            if let Node::Card(card) = &mut end.node {
                *card = place[card];
            }
        }
        self.wires.sort_by(|a, b| {
            let key = |wire: &Wire| wire.ends.clone().map(|end| (end.node, end.name));
            key(a).cmp(&key(b))
        });
    }

    /// The lane that a node stands in.
    fn lane_of(&self, node: Node) -> Option<usize> {
        match node {
            Node::Lane(lane) => Some(lane),
            Node::Card(card) => self.cards.get(card).map(|card| card.lane),
            Node::Device(_) => None,
        }
    }
}

/// Text such that `web2` comes before `web10`.
fn natural(text: &str) -> Vec<(String, u64)> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let number =
            rest[word..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| word + n);
        parts.push((rest[..word].to_owned(), rest[word..number].parse().unwrap_or_default()));
        rest = &rest[number..];
    }
    parts
}

/// Who hangs on what, before it gets numbers.
#[derive(Default)]
struct Ties<'a> {
    cards: Vec<&'a Netns>,
    lanes: Vec<Hang>,
    devices: Vec<&'a LinkId>,
    homes: BTreeMap<&'a Netns, Hang>,
}

impl<'a> Ties<'a> {
    /// Finds the lane of each card: where its default route leads, or else its first link.
    fn find_homes(&mut self, view: &View<'a>) {
        let routes = &view.sight.topology.routes;
        let defaults: BTreeSet<&LinkId> =
            routes.iter().filter(|route| route.dst.prefix_len() == 0).map(|r| &r.link).collect();
        let mut hubs: BTreeMap<&Netns, usize> = BTreeMap::new();
        for netns in &self.cards {
            let links = || view.links_in(netns).filter(|(id, _)| !is_loopback(id));
            let mut hangs: Vec<(bool, Hang)> = links()
                .filter_map(|(id, facts)| Some((!defaults.contains(id), hang(view, facts)?)))
                .collect();
            hangs.sort_by_key(|(rank, _)| *rank);
            let home = match hangs.into_iter().next() {
                Some((_, hang)) => hang,
                None if links().next().is_none() => Hang::NoNetwork,
                None => Hang::Apart,
            };
            if home == Hang::Apart {
                let far = links().filter_map(|(_, facts)| facts.leads_to.as_ref());
                for far in far.map(|far| &far.netns).collect::<BTreeSet<_>>() {
                    *hubs.entry(far).or_default() += 1;
                }
            }
            self.homes.insert(netns, home);
        }
        // What holds several that lead nowhere else is a lane to them.
        let hubs: BTreeSet<&Netns> =
            hubs.into_iter().filter(|(_, leaves)| *leaves >= 3).map(|(netns, _)| netns).collect();
        for netns in &self.cards {
            if hubs.contains(netns) || self.homes.get(netns) != Some(&Hang::Apart) {
                continue;
            }
            let mut far = view.links_in(netns).filter_map(|(_, facts)| facts.leads_to.as_ref());
            if let Some(hub) =
                far.find(|far| hubs.contains(&far.netns) && view.is_shown(&far.netns))
            {
                self.homes.insert(netns, Hang::Inside(hub.netns.clone()));
            }
        }
    }

    fn find_lanes(&mut self, view: &View<'a>) {
        let mut lanes: BTreeSet<Hang> = self.homes.values().cloned().collect();
        for (_, facts) in self.cards.iter().flat_map(|netns| view.links_in(netns)) {
            lanes.extend(hang(view, facts).filter(|hang| !matches!(hang, Hang::Parent(_))));
        }
        if !view.narrowed {
            for (id, facts) in view.links_in(&Netns::Host) {
                if facts.kind == "bridge" {
                    lanes.insert(Hang::Bridge(id.clone()));
                }
                // A cable with both ends on the host.
                if facts.leads_to.as_ref().is_some_and(|far| far.netns == Netns::Host) {
                    lanes.extend(hang(view, facts).filter(|hang| *hang == Hang::Routed));
                }
            }
        }
        self.lanes = lanes.into_iter().collect();
    }

    fn find_devices(&mut self, view: &View<'a>) {
        let parents: BTreeSet<&LinkId> = self
            .cards
            .iter()
            .flat_map(|netns| view.links_in(netns))
            .filter(|(_, facts)| facts.kind != "veth")
            .filter_map(|(_, facts)| facts.leads_to.as_ref())
            .collect();
        let is_device = |facts: &LinkFacts| match facts.kind.as_str() {
            "bridge" => false,
            "veth" => facts.leads_to.is_none(),
            _ => true,
        };
        let links = view.links_in(&Netns::Host).filter(|(id, _)| !is_loopback(id));
        let devices = links.filter(|(_, facts)| is_device(facts));
        let wanted = devices.filter(|(id, _)| !view.narrowed || parents.contains(id));
        self.devices = wanted.map(|(id, _)| id).collect();
        // Physical ones first: they are the way out.
        self.devices
            .sort_by_key(|id| (!view.sight.links[*id].kind.is_empty(), natural(id.name.as_str())));
    }

    fn lane(&self, hang: &Hang) -> Option<Node> {
        self.lanes.iter().position(|lane| lane == hang).map(Node::Lane)
    }

    fn card(&self, netns: &Netns) -> Option<Node> {
        self.cards.binary_search(&netns).ok().map(Node::Card)
    }

    /// The node that stands for a link of the host.
    fn host_node(&self, view: &View<'_>, id: &LinkId) -> Option<Node> {
        let device = self.devices.iter().position(|device| *device == id).map(Node::Device);
        let facts = view.sight.links.get(id)?;
        device.or_else(|| self.lane(&Hang::Bridge(id.clone()))).or_else(|| {
            match facts.kind.as_str() {
                "veth" => self.lane(&seat(view, facts)),
                _ => None,
            }
        })
    }

    fn wires(&self, view: &View<'a>) -> Vec<Wire> {
        let mut wires = Vec::new();
        for netns in &self.cards {
            for (id, facts) in view.links_in(netns).filter(|(id, _)| !is_loopback(id)) {
                wires.extend(self.card_wire(view, id, facts));
            }
        }
        for (n, hang) in self.lanes.iter().enumerate() {
            let far = match hang {
                Hang::Parent(id) => self.host_node(view, id),
                Hang::Inside(netns) => self.card(netns),
                _ => None,
            };
            wires.extend(far.map(|far| Wire {
                ends: [whole(Node::Lane(n)), whole(far)],
                tie: Tie::On("lies on".to_owned()),
                up: true,
                proven: true,
            }));
        }
        if !view.narrowed {
            for (id, facts) in view.links_in(&Netns::Host).filter(|(id, _)| !is_loopback(id)) {
                wires.extend(self.host_wires(view, id, facts));
            }
        }
        wires
    }

    /// What a link in a card is tied to.
    fn card_wire(&self, view: &View<'_>, id: &LinkId, facts: &LinkFacts) -> Option<Wire> {
        let here = self.card(&id.netns)?;
        let far = facts.leads_to.as_ref()?;
        if far.netns == id.netns {
            return None;
        }
        let there = match hang(view, facts) {
            Some(Hang::Parent(parent)) if self.lane(&Hang::Parent(parent.clone())).is_none() => {
                self.host_node(view, &parent)?
            }
            Some(hang) => self.lane(&hang)?,
            None => {
                let inside = |netns: &Netns, of: &Netns| {
                    self.homes.get(netns) == Some(&Hang::Inside(of.clone()))
                };
                // Drawn once: from the one that hangs on the other, or from the first.
                let is_cable = facts.kind == "veth";
                match inside(&id.netns, &far.netns) {
                    true => self.lane(&Hang::Inside(far.netns.clone()))?,
                    false if is_cable && (inside(&far.netns, &id.netns) || *far < *id) => {
                        return None;
                    }
                    false => self.card(&far.netns)?,
                }
            }
        };
        let tie = match facts.kind.as_str() {
            "veth" => Tie::Cable,
            kind => Tie::On(shown(kind)),
        };
        Some(Wire {
            ends: [end(here, id), end(there, far)],
            up: is_up(facts),
            proven: facts.kind != "veth" || facts.proven,
            tie,
        })
    }

    /// What a link of the host is tied to, other than a card.
    fn host_wires(&self, view: &View<'_>, id: &LinkId, facts: &LinkFacts) -> Vec<Wire> {
        let mut wires = Vec::new();
        let far = facts.leads_to.as_ref().filter(|far| far.netns == Netns::Host);
        let master = facts.master.as_ref();
        let is_cable = facts.kind == "veth" && facts.leads_to.is_some();
        let mut tie = |far: &LinkId, tie: Tie| {
            let ends = self.host_node(view, id).zip(self.host_node(view, far));
            let Some((here, there)) = ends.filter(|(here, there)| here != there || is_cable) else {
                return;
            };
            let ends = match tie {
                Tie::Cable => [end(here, id), end(there, far)],
                Tie::On(_) => [whole(here), whole(there)],
            };
            wires.push(Wire { ends, tie, up: is_up(facts), proven: !is_cable || facts.proven });
        };
        match far {
            Some(far) if is_cable && id < far => tie(far, Tie::Cable),
            Some(far) if !is_cable => tie(far, Tie::On(shown(&facts.kind))),
            _ => {}
        }
        if let Some(master) = master.filter(|_| !is_cable) {
            tie(master, Tie::On("port".to_owned()));
        }
        wires
    }
}

/// The end at a link of a node's.
fn end(node: Node, link: &LinkId) -> End {
    End { node, name: shown(link.name.as_str()), link: Some(link.clone()) }
}

/// The end at the node itself.
fn whole(node: Node) -> End {
    End { node, name: String::new(), link: None }
}

/// The lane that a link of a card leads to, if it leads to the host.
fn hang(view: &View<'_>, facts: &LinkFacts) -> Option<Hang> {
    let far = facts.leads_to.as_ref().filter(|far| far.netns == Netns::Host)?;
    let there = view.sight.links.get(far)?;
    Some(match (facts.kind.as_str(), there.kind.as_str()) {
        ("veth", _) => seat(view, there),
        (_, "bridge") => Hang::Bridge(far.clone()),
        _ => Hang::Parent(far.clone()),
    })
}

/// Where the host end of a cable sits.
fn seat(view: &View<'_>, host_end: &LinkFacts) -> Hang {
    let is_bridge = |id: &&LinkId| view.sight.links.get(*id).is_some_and(|m| m.kind == "bridge");
    match host_end.master.as_ref().filter(is_bridge) {
        Some(bridge) => Hang::Bridge(bridge.clone()),
        None => Hang::Routed,
    }
}

fn lane(view: &View<'_>, hang: &Hang) -> Lane {
    let (name, mut words) = match hang {
        Hang::Bridge(id) => (shown(id.name.as_str()), Vec::new()),
        Hang::Parent(id) => (format!("on {}", shown(id.name.as_str())), Vec::new()),
        Hang::Routed => ("host".to_owned(), vec!["routed, without a bridge".to_owned()]),
        Hang::Inside(netns) => (format!("inside {}", view.sight.label(netns)), Vec::new()),
        Hang::Apart => ("on no network of the host".to_owned(), Vec::new()),
        Hang::Shared => ("host network".to_owned(), vec!["in the host's own namespace".to_owned()]),
        Hang::Unseen => {
            ("somewhere".to_owned(), vec!["in namespaces that may not be seen".to_owned()])
        }
        Hang::NoNetwork => ("no network".to_owned(), vec!["loopback only".to_owned()]),
    };
    let facts = match hang {
        Hang::Bridge(id) | Hang::Parent(id) => view.sight.links.get(id),
        _ => None,
    };
    if let Hang::Bridge(id) = hang {
        let alias = view.sight.topology.links.get(id).map(|link| shown(&link.alias));
        let names = match network_of(view, id) {
            names if names.is_empty() => alias.unwrap_or_default(),
            names => names,
        };
        words.extend((!names.is_empty() && names != name).then_some(names));
        words.extend(facts.into_iter().flat_map(worth_showing).map(|net| net.to_string()));
        words.extend(gateways(view, id).iter().map(|gateway| format!("gw {gateway}")));
    }
    Lane { hang: hang.clone(), name, words, up: facts.is_none_or(is_up) }
}

/// What the runtimes call a bridge's network, as far as one name fits all who are on it and on
/// nothing else.
fn network_of(view: &View<'_>, bridge: &LinkId) -> String {
    let mut names = BTreeSet::new();
    for (netns, space) in &view.sight.spaces {
        let mut hangs = view.links_in(netns).filter_map(|(_, facts)| hang(view, facts));
        if let (Some(Hang::Bridge(only)), None) = (hangs.next(), hangs.next())
            && only == *bridge
        {
            let networks = space.workloads.iter().flat_map(|w| &w.networks);
            names.extend(networks.map(|name| shown(name)));
        }
    }
    match names.len() {
        1 => names.into_iter().next().map(|name| format!("network {name}")).unwrap_or_default(),
        _ => String::new(),
    }
}

fn gateways(view: &View<'_>, id: &LinkId) -> Vec<IpAddr> {
    let routes = view.sight.topology.routes.iter();
    let ways = routes.filter(|route| route.link == *id && route.dst.prefix_len() == 0);
    ways.filter_map(|route| route.via).collect()
}

fn card(view: &View<'_>, ties: &Ties<'_>, netns: &Netns, ports: &Ports<'_>) -> Card {
    let nobody = Space::default();
    let space = view.sight.spaces.get(netns).unwrap_or(&nobody);
    let home = ties.homes.get(netns);
    let chips = space.workloads.iter().map(chip);
    let links = view.links_in(netns).filter(|(id, _)| !is_loopback(id));
    let ends = links.map(|(id, facts)| Port {
        name: shown(id.name.as_str()),
        kind: shown(&facts.kind),
        addrs: worth_showing(facts).iter().map(IpNet::addr).collect(),
        orphan: facts.kind == "veth" && facts.leads_to.is_none(),
    });
    Card {
        netns: netns.clone(),
        lane: ties.lanes.iter().position(|lane| Some(lane) == home).unwrap_or_default(),
        label: view.sight.label(netns),
        chips: chips.collect(),
        ports: ends.collect(),
        published: ports.get(netns).cloned().unwrap_or_default(),
        held: shown(&held_by(space)),
        forlorn: !space.holders.iter().any(|holder| *holder != Holder::Unseen),
    }
}

fn chip(workload: &Workload) -> Chip {
    Chip {
        runtime: workload.runtime.to_string(),
        name: shown(&workload.name),
        image: workload.image.as_deref().map(shown).unwrap_or_default(),
    }
}

fn guest(workload: &Workload, lane: usize) -> Card {
    Card {
        netns: Netns::Host,
        lane,
        label: shown(&workload.name),
        chips: vec![chip(workload)],
        ports: Vec::new(),
        published: Vec::new(),
        held: String::new(),
        forlorn: false,
    }
}

/// A link's addresses, without those that every link gives itself, unless it has no others.
fn worth_showing(facts: &LinkFacts) -> Vec<IpNet> {
    let is_own = |net: &IpNet| matches!(net, IpNet::V6(v6) if v6.addr().is_unicast_link_local());
    let (own, given): (Vec<IpNet>, Vec<IpNet>) = facts.addrs.iter().copied().partition(is_own);
    if given.is_empty() { own } else { given }
}

/// What is written of the ports that lead to each namespace.
type Ports<'a> = BTreeMap<&'a Netns, Vec<String>>;

/// As the tree has them: where, which port there, and what is wrong with it.
fn ports<'a>(view: &View<'a>) -> Ports<'a> {
    let mut ports = Ports::new();
    for port in view.ports() {
        let Some(netns) = port.netns else { continue };
        let cells = port_cells(view.sight, &port);
        let at = cells.first().map(|cell| cell.text.as_str()).unwrap_or_default();
        let bad = cells.iter().filter(|cell| cell.tone == Tone::Bad);
        let bad: String = bad.map(|cell| format!(" ({})", cell.text)).collect();
        ports.entry(netns).or_default().push(format!("{at} → {}{bad}", port.to_port));
    }
    ports
}

fn device(view: &View<'_>, id: &LinkId) -> Device {
    let facts = &view.sight.links[id];
    let orphan = facts.kind == "veth";
    let mut words: Vec<String> = worth_showing(facts).iter().map(ToString::to_string).collect();
    words.extend(facts.details.iter().map(|detail| shown(detail)));
    if orphan {
        words.insert(0, "its other end was not found".to_owned());
    }
    Device {
        id: id.clone(),
        name: shown(id.name.as_str()),
        kind: shown(&facts.kind),
        words,
        gateways: gateways(view, id),
        orphan,
        up: is_up(facts),
    }
}
