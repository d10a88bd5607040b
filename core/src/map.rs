//! The host as a tree of rows: what hangs on what. Makes no text of it but the cells; how they are
//! laid out is the renderer's.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
    net::IpAddr,
};

pub use crate::name::shown;
pub(crate) use crate::sight::is_loopback;
use crate::{
    handle::{Meaning, spaces},
    model::{LinkId, Netns},
    name::Proto,
    published::{Listens, Published, published},
    rate::Rates,
    sight::{Holder, LinkFacts, Listener, PublishedPort, Runtime, Sight, Space, Workload},
};

/// A row and what hangs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// Cells of rows side by side stand below each other.
    pub cells: Vec<Cell>,
    pub children: Vec<Self>,
}

/// A row of the map, and what it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub about: Subject,
    /// As of [`Branch`].
    pub cells: Vec<Cell>,
    pub children: Vec<Self>,
}

/// What a row of the map is about; no two rows of a map are about the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    Host,
    /// A link, or a cable by this end.
    Link(LinkId),
    /// A published port: whose it is, on which address, which, and where it leads.
    Port(Netns, Proto, Option<IpAddr>, u16, (Option<IpAddr>, u16)),
    /// A heading.
    Heading(&'static str),
    Space(Netns),
    /// A container without a namespace of its own, or in one that may not be seen.
    Guest(Runtime, String),
}

impl Subject {
    /// What a published port's row is about.
    pub fn port(port: &Published<'_>) -> Self {
        let to = (port.to, port.to_port);
        Self::Port(port.host.clone(), port.proto, port.at, port.ports.0, to)
    }
}

impl From<Row> for Branch {
    fn from(row: Row) -> Self {
        Self { cells: row.cells, children: row.children.into_iter().map(Self::from).collect() }
    }
}

/// A piece of text that means one thing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cell {
    pub text: String,
    pub tone: Tone,
}

/// How a piece of text is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    #[default]
    Plain,
    /// What people call a thing.
    Name,
    Faint,
    Good,
    Bad,
}

/// What is to be in the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Also namespaces that hold nothing but their loopback, for nobody that is known.
    pub all: bool,
    /// Names, ids, addresses, …: of containers and links; everything, if empty.
    pub only: Vec<String>,
    /// A bridge, or a network in its runtime's words.
    pub network: Option<String>,
    pub runtime: Option<Runtime>,
}

/// Something that was asked for, and is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmatched {
    Only(String),
    Network(String),
    Runtime(Runtime),
    /// There is each, but nothing that is all of it.
    Together,
}

impl fmt::Display for Unmatched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Only(handle) => {
                write!(f, "no container or namespace on this host is called {}", shown(handle))
            }
            Self::Network(name) => {
                write!(f, "nothing on this host is on a network or bridge called {}", shown(name))
            }
            Self::Runtime(runtime) => write!(f, "no container on this host is {runtime}'s"),
            Self::Together => f.write_str("nothing on this host is all that was asked for"),
        }
    }
}

impl Wanted {
    /// Returns the first of what is wanted that nothing matches.
    pub fn unmatched(&self, sight: &Sight) -> Option<Unmatched> {
        let matches = |wanted: &Self| {
            !visible(sight, wanted).is_empty()
                || sight.unplaced.iter().any(|workload| wanted.takes(workload))
        };
        let only = |handle: &String| Self { only: vec![handle.clone()], ..Self::default() };
        let handle = self.only.iter().find(|handle| !matches(&only(handle)));
        if let Some(handle) = handle {
            return Some(Unmatched::Only(handle.clone()));
        }
        let network = self.network.as_ref();
        let on = |name: &String| Self { network: Some(name.clone()), ..Self::default() };
        if let Some(name) = network.filter(|name| !matches(&on(name))) {
            return Some(Unmatched::Network(name.clone()));
        }
        let of = |runtime| Self { runtime: Some(runtime), ..Self::default() };
        match self.runtime {
            Some(runtime) if !matches(&of(runtime)) => Some(Unmatched::Runtime(runtime)),
            _ => (!sight.spaces.is_empty() && !matches(self)).then_some(Unmatched::Together),
        }
    }

    /// Whether one of the containers in the host's own namespace is wanted.
    fn guest(&self, host: &Space, workload: &Workload) -> bool {
        let is_host = |handle: &String| {
            *handle == Netns::Host.to_string() || host.inode.to_string() == *handle
        };
        self.takes(workload) || self.only.iter().any(is_host) && self.of_it(workload)
    }

    /// Whether a container is wanted, by what is known of itself.
    fn takes(&self, workload: &Workload) -> bool {
        let named = |handle: &String| workload.is_called(handle);
        (self.only.is_empty() || self.only.iter().any(named)) && self.of_it(workload)
    }

    /// Whether it is of the runtime and on the network that are wanted, if any are.
    fn of_it(&self, workload: &Workload) -> bool {
        self.runtime.is_none_or(|runtime| workload.runtime == runtime)
            && self.network.as_ref().is_none_or(|network| workload.networks.contains(network))
    }
}

/// How many there are of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub containers: usize,
    pub namespaces: usize,
    pub bridges: usize,
    pub cables: usize,
    /// Ends of cables whose other end was not found.
    pub orphans: usize,
    /// The same where not every namespace could be read, so that nobody can tell.
    pub unpaired: usize,
    /// Namespaces that are left out of the tree.
    pub hidden: usize,
}

/// Returns the tree, and what it counts.
pub fn tree(sight: &Sight, wanted: &Wanted) -> (Branch, Counts) {
    let (root, counts) = rows(sight, wanted, None);
    (root.into(), counts)
}

/// Returns the tree with what each row is about, and with the traffic of each link if that was
/// measured.
pub fn rows(sight: &Sight, wanted: &Wanted, rates: Option<&Rates>) -> (Row, Counts) {
    let view = View { rates, ..View::of(sight, wanted) };
    let mut root = Row { about: Subject::Host, cells: view.host_cells(), children: Vec::new() };
    let mut told = BTreeSet::new();
    for (id, facts) in view.links_in(&Netns::Host).filter(|(_, facts)| facts.kind == "bridge") {
        root.children.extend(view.bridge(id, facts, &mut told));
    }
    root.children.extend(view.unbridged(&mut told));
    root.children.extend(listed("on the host's own network", &view.guests));
    root.children.extend(view.published());
    let apart = view.apart(&told);
    root.children.extend(view.elsewhere(&apart, &told));
    root.children.extend(listed("in namespaces that may not be seen", &view.unplaced));
    let counts = view.counts(&apart, &told);
    (root, counts)
}

/// A sight with what the tree and the drawings look up again and again, and what is wanted of it.
pub(crate) struct View<'a> {
    pub(crate) sight: &'a Sight,
    links: BTreeMap<&'a Netns, Vec<(&'a LinkId, &'a LinkFacts)>>,
    members: BTreeMap<&'a LinkId, Vec<&'a LinkId>>,
    gateways: BTreeMap<&'a LinkId, Vec<IpAddr>>,
    visible: BTreeSet<&'a Netns>,
    /// The containers on the host's own network that are wanted.
    pub(crate) guests: Vec<&'a Workload>,
    /// Those that are wanted of the containers in namespaces that may not be seen.
    pub(crate) unplaced: Vec<&'a Workload>,
    /// Only some are wanted, so that what leads to none of them is left out.
    pub(crate) narrowed: bool,
    all: bool,
    /// What goes over links, where that is measured.
    rates: Option<&'a Rates>,
    /// There are namespaces whose links could not be read: not even a loopback is there.
    blind: bool,
}

impl<'a> View<'a> {
    pub(crate) fn of(sight: &'a Sight, wanted: &Wanted) -> Self {
        let mut links: BTreeMap<&Netns, Vec<_>> = BTreeMap::new();
        let mut members: BTreeMap<&LinkId, Vec<&LinkId>> = BTreeMap::new();
        for (id, facts) in &sight.links {
            links.entry(&id.netns).or_default().push((id, facts));
            if let Some(master) = &facts.master {
                members.entry(master).or_default().push(id);
            }
        }
        let mut gateways: BTreeMap<&LinkId, Vec<IpAddr>> = BTreeMap::new();
        for route in sight.topology.routes.iter().filter(|route| route.dst.prefix_len() == 0) {
            gateways.entry(&route.link).or_default().extend(route.via);
        }
        let visible = visible(sight, wanted);
        let narrowed =
            !wanted.only.is_empty() || wanted.network.is_some() || wanted.runtime.is_some();
        let all = wanted.all;
        let blind = sight.spaces.keys().any(|netns| !links.contains_key(netns));
        let guests = guests(sight, wanted);
        let unplaced = sight.unplaced.iter().filter(|workload| wanted.takes(workload)).collect();
        Self {
            sight,
            links,
            members,
            gateways,
            visible,
            guests,
            unplaced,
            narrowed,
            all,
            rates: None,
            blind,
        }
    }

    pub(crate) fn links_in(
        &self,
        netns: &Netns,
    ) -> impl Iterator<Item = (&'a LinkId, &'a LinkFacts)> {
        self.links.get(netns).map(Vec::as_slice).unwrap_or_default().iter().copied()
    }

    /// Whether a namespace is wanted.
    pub(crate) fn is_visible(&self, netns: &Netns) -> bool {
        self.visible.contains(netns)
    }

    /// Whether a namespace is to be shown: wanted, and somebody's or with more in it than `lo`.
    pub(crate) fn is_shown(&self, netns: &Netns) -> bool {
        let mut links = self.links_in(netns);
        self.visible.contains(netns)
            && (links.any(|(id, _)| !is_loopback(id)) || self.all || self.is_remarkable(netns))
    }

    fn host_cells(&self) -> Vec<Cell> {
        let mut cells = vec![cell("host", Tone::Name)];
        if let Some(space) = self.sight.spaces.get(&Netns::Host) {
            cells.push(cell(format!("net:[{}]", space.inode), Tone::Faint));
        }
        cells.extend(self.gateway_cell(self.links_in(&Netns::Host).map(|(id, _)| id)));
        cells
    }

    /// The gateways that default routes by these links lead to.
    fn gateway_cell<'b>(&self, links: impl Iterator<Item = &'b LinkId>) -> Option<Cell> {
        let gateways: Vec<IpAddr> =
            links.filter_map(|id| self.gateways.get(id)).flatten().copied().collect();
        (!gateways.is_empty()).then(|| cell(format!("gw {}", list(&gateways)), Tone::Plain))
    }

    fn bridge(
        &self,
        id: &'a LinkId,
        facts: &'a LinkFacts,
        told: &mut BTreeSet<&'a LinkId>,
    ) -> Option<Row> {
        told.insert(id);
        let members = self.members.get(id).map(Vec::as_slice).unwrap_or_default();
        let mut children = Vec::new();
        for member in members {
            told.insert(member);
            children.extend(self.sight.links.get(*member).and_then(|m| self.end(member, m, told)));
        }
        if children.is_empty() && self.narrowed {
            return None;
        }
        let mut cells = vec![
            cell(format!("bridge {}", id.name), Tone::Name),
            cell(list(&facts.addrs), Tone::Plain),
            state_cell(facts),
        ];
        cells.extend(self.rate_cell(id, false));
        cells.push(cell(self.alias(id), Tone::Faint));
        if members.is_empty() {
            cells.push(cell("no members", Tone::Faint));
        }
        Some(Row { about: Subject::Link(id.clone()), cells, children })
    }

    /// One end of a link on the host, and where it leads.
    fn end(
        &self,
        id: &'a LinkId,
        facts: &'a LinkFacts,
        told: &mut BTreeSet<&'a LinkId>,
    ) -> Option<Row> {
        let Some(far) = &facts.leads_to else {
            let orphan = facts.kind == "veth";
            let (what, tone) = match orphan {
                true => self.unpaired(),
                false => (facts.kind.as_str(), Tone::Faint),
            };
            return (!self.narrowed).then(|| {
                let mut cells =
                    vec![cell(&id.name, Tone::Plain), cell(what, tone), state_cell(facts)];
                cells.extend(self.rate_cell(id, false));
                Row::of_link(id, cells)
            });
        };
        if let Some((far, _)) = self.sight.links.get_key_value(far) {
            told.insert(far);
        }
        if !self.visible.contains(&far.netns) && (self.narrowed || far.netns != Netns::Host) {
            return None;
        }
        let there = self.sight.links.get(far);
        let arrow = if facts.kind == "veth" { "⇄" } else { "→" };
        let mut cells = vec![
            cell(format!("{} {arrow} {}", id.name, far.name), Tone::Plain),
            cell(self.label(&far.netns), Tone::Name),
            cell(there.map(|there| list(&there.addrs)).unwrap_or_default(), Tone::Plain),
            self.gateway_cell(std::iter::once(far)).unwrap_or_default(),
            there.map_or_else(|| state_cell(facts), state_cell),
        ];
        cells.extend(self.rate_cell(id, facts.kind == "veth"));
        cells.push(cell(self.made_by(&far.netns), Tone::Faint));
        if facts.kind == "veth" && !facts.proven {
            cells.push(cell("not confirmed from the other end", Tone::Bad));
        }
        Some(Row::of_link(id, cells))
    }

    /// What is on the host and on no bridge.
    fn unbridged(&self, told: &mut BTreeSet<&'a LinkId>) -> Vec<Row> {
        let mut rows = Vec::new();
        for (id, facts) in self.links_in(&Netns::Host) {
            if !told.insert(id) || is_loopback(id) {
                continue;
            }
            if facts.kind == "veth" {
                rows.extend(self.end(id, facts, told));
            } else if !self.narrowed {
                rows.push(self.other_link(id, facts));
            }
        }
        rows
    }

    fn other_link(&self, id: &LinkId, facts: &LinkFacts) -> Row {
        let kind = if facts.kind.is_empty() { "device" } else { &facts.kind };
        let mut words = facts.details.join(", ");
        if let Some(on) = &facts.leads_to {
            let place = if on.netns == id.netns { String::new() } else { self.label(&on.netns) };
            let joint = if words.is_empty() { "" } else { ", " };
            words = format!("{words}{joint}on {} {place}", on.name).trim_end().to_owned();
        }
        let mut cells = vec![
            cell(format!("{kind} {}", id.name), Tone::Plain),
            cell(list(&facts.addrs), Tone::Plain),
            state_cell(facts),
        ];
        cells.extend(self.rate_cell(id, false));
        cells.push(cell(words, Tone::Faint));
        Row::of_link(id, cells)
    }

    /// The ports that lead into containers that are wanted.
    pub(crate) fn ports(&self) -> Vec<Published<'a>> {
        let ports = published(self.sight).into_iter();
        // An address that the host does not have is a cluster's service, not a port of the host.
        let own = |port: &Published<'_>, at: IpAddr| {
            let mut links = self.links_in(port.host);
            at.is_loopback()
                || links.any(|(_, facts)| facts.addrs.iter().any(|net| net.addr() == at))
        };
        let ports = ports.filter(|port| port.recorded || port.at.is_none_or(|at| own(port, at)));
        let shown = ports.filter(|port| match port.netns {
            Some(netns) => self.visible.contains(netns),
            None => !self.narrowed,
        });
        shown.collect()
    }

    /// These, by which rule, and who listens there.
    fn published(&self) -> Vec<Row> {
        let inside = |port: &Published<'_>| match port.host {
            Netns::Host => String::new(),
            host => format!(" of {}", self.label(host)),
        };
        let row = |port: Published<'_>| {
            let mut cells = port_cells(self.sight, &port);
            cells[0].text = format!("published {}{}", cells[0].text, inside(&port));
            Row { about: Subject::port(&port), cells, children: Vec::new() }
        };
        self.ports().into_iter().map(row).collect()
    }

    /// Namespaces that no cable from the host leads to, and what else is in those it does lead to.
    fn elsewhere(&self, apart: &[&'a Netns], told: &BTreeSet<&'a LinkId>) -> Option<Row> {
        let mut children = Vec::new();
        for &netns in apart {
            let space = &self.sight.spaces[netns];
            let links = self.links_in(netns).filter(|(id, _)| !told.contains(id));
            let links = links.filter(|(id, _)| !is_loopback(id));
            let rows = links.map(|(id, facts)| match facts.kind.as_str() {
                "veth" => self.far_cable(id, facts),
                _ => self.other_link(id, facts),
            });
            let children_of: Vec<Row> = rows.collect();
            let mut cells = vec![
                cell(self.label(netns), Tone::Name),
                cell(format!("net:[{}]", space.inode), Tone::Faint),
                cell(self.made_by(netns), Tone::Faint),
                cell(held_by(space), Tone::Faint),
            ];
            if !self.links.contains_key(netns) {
                cells.push(cell("its links could not be read", Tone::Bad));
            } else if children_of.is_empty() {
                cells.push(cell("lo only", Tone::Faint));
            }
            let about = Subject::Space(netns.clone());
            children.push(Row { about, cells, children: children_of });
        }
        let cells = vec![cell("other namespaces", Tone::Plain)];
        (!children.is_empty()).then_some(Row {
            about: Subject::Heading("other namespaces"),
            cells,
            children,
        })
    }

    /// What is said of an end of a cable whose other end was not found: an orphan only where
    /// nothing is left that it could be in.
    fn unpaired(&self) -> (&'static str, Tone) {
        match self.blind {
            true => ("its other end could not be seen", Tone::Faint),
            false => ("orphan: its other end was not found", Tone::Bad),
        }
    }

    fn far_cable(&self, id: &LinkId, facts: &LinkFacts) -> Row {
        let far = match &facts.leads_to {
            Some(far) => format!("⇄ {} {}", far.name, self.label(&far.netns)),
            None => self.unpaired().0.to_owned(),
        };
        let tone = if facts.leads_to.is_some() { Tone::Plain } else { self.unpaired().1 };
        let mut cells = vec![
            cell(&id.name, Tone::Plain),
            cell(far, tone),
            cell(list(&facts.addrs), Tone::Plain),
            state_cell(facts),
        ];
        cells.extend(self.rate_cell(id, false));
        Row::of_link(id, cells)
    }

    /// What goes over a link; empty before that is known, and none where it is not measured. Of a
    /// cable's end on the host what goes out is what comes in where the cable leads.
    fn rate_cell(&self, id: &LinkId, turned: bool) -> Option<Cell> {
        let rate = self.rates?.get(id);
        let rate = rate.map(|rate| if turned { rate.turned() } else { *rate });
        Some(rate.map_or_else(Cell::default, |rate| {
            cell(rate, if rate.is_idle() { Tone::Faint } else { Tone::Plain })
        }))
    }

    /// The namespaces that have something to show which hangs on nothing of the host.
    fn apart(&self, told: &BTreeSet<&'a LinkId>) -> Vec<&'a Netns> {
        let visible = self.visible.iter().copied().filter(|netns| **netns != Netns::Host);
        let untold = |netns: &&Netns| {
            let links = || self.links_in(netns).filter(|(id, _)| !is_loopback(id));
            links().next().is_none() || links().any(|(id, _)| !told.contains(id))
        };
        visible.filter(|netns| self.is_shown(netns)).filter(untold).collect()
    }

    /// Whether it is worth a row even with nothing in it: a runtime is known for it, or it is kept
    /// by something that other tools do not show.
    fn is_remarkable(&self, netns: &Netns) -> bool {
        let Some(space) = self.sight.spaces.get(netns) else { return false };
        let is_process = |holder: &Holder| matches!(holder, Holder::Process { .. });
        space.workloads.iter().any(|w| w.runtime != Runtime::Process)
            || !space.holders.iter().any(is_process)
    }

    fn counts(&self, apart: &[&'a Netns], told: &BTreeSet<&'a LinkId>) -> Counts {
        let shown: BTreeSet<&Netns> = apart.iter().copied().collect();
        let reached: BTreeSet<&Netns> = told.iter().map(|id| &id.netns).collect();
        let hidden = self.sight.spaces.keys();
        let hidden = hidden.filter(|n| !shown.contains(n) && !reached.contains(n)).count();
        let is_container =
            |w: &&Workload| !matches!(w.runtime, Runtime::Process | Runtime::IpNetns);
        let workloads = self.sight.spaces.values().flat_map(|space| &space.workloads);
        let workloads = workloads.chain(&self.sight.unplaced);
        let veths = || self.sight.links.values().filter(|facts| facts.kind == "veth");
        let unpaired = veths().filter(|facts| facts.leads_to.is_none()).count();
        Counts {
            containers: workloads.filter(is_container).count(),
            namespaces: self.sight.spaces.len(),
            bridges: self.sight.links.values().filter(|facts| facts.kind == "bridge").count(),
            cables: veths().filter(|facts| facts.leads_to.is_some()).count() / 2,
            orphans: if self.blind { 0 } else { unpaired },
            unpaired: if self.blind { unpaired } else { 0 },
            hidden,
        }
    }

    fn label(&self, netns: &Netns) -> String {
        self.sight.label(netns)
    }

    fn made_by(&self, netns: &Netns) -> String {
        let workloads = self.sight.spaces.get(netns).map(|space| space.workloads.as_slice());
        let first = workloads.unwrap_or_default().first();
        first.map(maker).unwrap_or_default()
    }

    fn alias(&self, id: &LinkId) -> String {
        self.sight.topology.links.get(id).map(|link| shown(&link.alias)).unwrap_or_default()
    }
}

impl Row {
    fn of_link(id: &LinkId, cells: Vec<Cell>) -> Self {
        Self { about: Subject::Link(id.clone()), cells, children: Vec::new() }
    }
}

/// The namespaces that are to be shown.
fn visible<'a>(sight: &'a Sight, wanted: &Wanted) -> BTreeSet<&'a Netns> {
    let called = |handle: &String| {
        let spaces = spaces(sight, handle).into_iter();
        // An interface of the host's own is in the map, and nothing that a map could be of.
        let spaces = spaces.filter(|(netns, meaning)| {
            **netns != Netns::Host || !matches!(meaning, Meaning::Link(_))
        });
        spaces.map(|(netns, _)| netns)
    };
    let only: BTreeSet<&Netns> = wanted.only.iter().flat_map(called).collect();
    let of = |w: &Workload| wanted.runtime.is_none_or(|runtime| w.runtime == runtime);
    let is_wanted = |(netns, space): &(&'a Netns, &'a Space)| {
        (wanted.only.is_empty() || only.contains(netns))
            && (wanted.runtime.is_none() || space.workloads.iter().any(of))
            && wanted.network.as_ref().is_none_or(|network| is_on(sight, netns, space, network))
    };
    sight.spaces.iter().filter(is_wanted).map(|(netns, _)| netns).collect()
}

/// Containers of which there is nothing but themselves to show, under a heading.
fn listed(heading: &'static str, workloads: &[&Workload]) -> Option<Row> {
    let row = |workload: &&Workload| {
        let pid = workload.pid.map(|pid| format!("pid {pid}")).unwrap_or_default();
        let cells = vec![
            cell(&workload.name, Tone::Name),
            cell(maker(workload), Tone::Faint),
            cell(pid, Tone::Faint),
        ];
        let about = Subject::Guest(workload.runtime, workload.id.clone());
        Row { about, cells, children: Vec::new() }
    };
    let children: Vec<Row> = workloads.iter().map(row).collect();
    let cells = vec![cell(heading, Tone::Plain)];
    (!children.is_empty()).then_some(Row { about: Subject::Heading(heading), cells, children })
}

/// Who made a container, and of what.
fn maker(workload: &Workload) -> String {
    let image = workload.image.as_deref().map(|image| format!(" {}", shown(image)));
    format!("{}{}", workload.runtime, image.unwrap_or_default())
}

/// The containers in the host's own namespace that are wanted.
fn guests<'a>(sight: &'a Sight, wanted: &Wanted) -> Vec<&'a Workload> {
    let Some(host) = sight.spaces.get(&Netns::Host) else { return Vec::new() };
    let is_one = |w: &&Workload| {
        !matches!(w.runtime, Runtime::Process | Runtime::IpNetns) && wanted.guest(host, w)
    };
    host.workloads.iter().filter(is_one).collect()
}

/// Whether a namespace is on a network, by its runtime's word or by the bridge its cables lead to.
fn is_on(sight: &Sight, netns: &Netns, space: &Space, network: &str) -> bool {
    let by_runtime = space.workloads.iter().any(|w| w.networks.iter().any(|n| n == network));
    let links = sight.links.iter().filter(|(id, _)| id.netns == *netns);
    let mut masters =
        links.filter_map(|(_, facts)| sight.links.get(facts.leads_to.as_ref()?)?.master.as_ref());
    by_runtime || masters.any(|master| master.name.as_str() == network)
}

/// Where a published port is reached on the host.
pub(crate) fn host_side(port: &PublishedPort) -> String {
    reached_at(port.host, (port.host_port, port.host_port), port.proto)
}

fn reached_at(host: Option<IpAddr>, (first, last): (u16, u16), proto: Proto) -> String {
    let host = match host {
        Some(IpAddr::V6(addr)) => format!("[{addr}]"),
        Some(addr) => addr.to_string(),
        None => "*".to_owned(),
    };
    let last = if first == last { String::new() } else { format!("-{last}") };
    format!("{host}:{first}{last}/{proto}")
}

/// A published port as four cells: where, to whom, by which rule, and who listens.
pub(crate) fn port_cells(sight: &Sight, port: &Published<'_>) -> Vec<Cell> {
    let to = match (port.workload, port.netns) {
        (Some(Workload { pod: Some(pod), .. }), _) => format!("pod {}", shown(pod)),
        (Some(workload), _) => shown(&workload.name),
        (None, Some(netns)) => sight.label(netns),
        (None, None) => "nobody".to_owned(),
    };
    let addr = port.to.map(|addr| format!(" ({addr})")).unwrap_or_default();
    let way = match (port.rules.as_slice(), port.relay) {
        ([], Some(relay)) => cell(format!("by {} only", who(relay)), Tone::Plain),
        ([], None) if port.is_lost(sight) => cell("no rule leads there", Tone::Bad),
        ([], None) => Cell::default(),
        (rules, _) if port.recorded => {
            cell(shown(&format!("DNAT {}", rules.join(", "))), Tone::Plain)
        }
        (rules, _) => {
            cell(shown(&format!("DNAT {} (on no runtime's record)", rules.join(", "))), Tone::Plain)
        }
    };
    let listener = match port.listens {
        Listens::Yes(listener) => {
            cell(format!("listener ✓ {}", who(listener)).trim_end(), Tone::Good)
        }
        Listens::Loopback(listener) => {
            cell(format!("listener ✗ {} is on {} only", who(listener), listener.at.ip()), Tone::Bad)
        }
        Listens::Nobody => cell("listener ✗ nobody", Tone::Bad),
        Listens::Unknown => Cell::default(),
    };
    vec![
        cell(reached_at(port.at, port.ports, port.proto), Tone::Plain),
        cell(format!("→ {to}:{}{addr}", port.to_port), Tone::Name),
        way,
        listener,
    ]
}

/// The first process that has a socket open.
pub(crate) fn who(listener: &Listener) -> String {
    let first = listener.processes.first();
    first.map(|(pid, comm)| format!("{}({pid})", shown(comm))).unwrap_or_default()
}

/// Whether a link carries packets. Devices that never tell, as tun, are up if they have a carrier.
pub(crate) fn is_up(facts: &LinkFacts) -> bool {
    facts.operstate == "up" || facts.operstate == "unknown" && facts.carrier
}

fn state_cell(facts: &LinkFacts) -> Cell {
    match is_up(facts) {
        true => cell("● up", Tone::Good),
        false => cell(format!("○ {}", facts.operstate), Tone::Faint),
    }
}

/// What keeps a namespace without processes alive.
pub(crate) fn held_by(space: &Space) -> String {
    if space.holders.iter().any(|holder| matches!(holder, Holder::Process { .. })) {
        return String::new();
    }
    let holder = space.holders.iter().min();
    holder.map(|holder| shown(&format!("held by {holder}"))).unwrap_or_default()
}

/// Whatever is in a cell may be somebody else's word.
pub(crate) fn cell(text: impl Display, tone: Tone) -> Cell {
    Cell { text: shown(&text.to_string()), tone }
}

/// So many of something that takes an s.
pub(crate) fn some(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

pub(crate) fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    items.join(" ")
}
