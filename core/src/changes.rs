//! What changed between two snapshots, each change in words.
//!
//! Things are the same if they are by what outlives their names: containers by runtime and id,
//! namespaces by cookie (in another boot, or where it is new, by the containers in it), links by
//! their namespace and number. What comes or goes with something greater is told with it: the
//! addresses of a cable with the cable, everything in a namespace with the namespace.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Display},
};

use crate::{
    map::{host_side, shown},
    sight::{Holder, PublishedPort, Runtime, Workload},
    snapshot::{Link, Listener, Namespace, Route, Snapshot},
};

/// A change.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    pub kind: Kind,
    /// Whose: a namespace by its label, or nothing.
    pub place: String,
    pub what: String,
    /// What it was; `None`: it was not there.
    pub before: Option<String>,
    /// What it is; `None`: it is gone.
    pub after: Option<String>,
    /// The handle of the namespace that it is in; of a cable that came or went, where it leads.
    pub namespace: Option<String>,
    /// The handle of the namespace that the link's other end is in.
    pub beside: Option<String>,
    /// The link, as far as it is about one; of a cable the end that is nearer to the host.
    pub interface: Option<String>,
    /// The container that it is about; of all else the containers in that namespace. By name.
    pub containers: Vec<String>,
}

/// In which way a thing is other than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Added,
    Changed,
    Removed,
}

impl Way {
    /// Its name as documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Changed => "changed",
            Self::Removed => "removed",
        }
    }
}

impl Change {
    pub fn way(&self) -> Way {
        match (&self.before, &self.after) {
            (None, Some(_)) => Way::Added,
            (Some(_), None) => Way::Removed,
            _ => Way::Changed,
        }
    }
}

/// What changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Boot,
    Container,
    Namespace,
    Cable,
    Link,
    /// One property of a link.
    Name,
    Mac,
    Mtu,
    State,
    Alias,
    Master,
    LeadsTo,
    Address,
    Gateway,
    Route,
    /// One property of a container.
    Image,
    Process,
    Network,
    Published,
    Listener,
    Holder,
}

impl Kind {
    /// Its name as documents have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Container => "container",
            Self::Namespace => "namespace",
            Self::Cable => "cable",
            Self::Link => "link",
            Self::Name => "name",
            Self::Mac => "mac",
            Self::Mtu => "mtu",
            Self::State => "state",
            Self::Alias => "alias",
            Self::Master => "master",
            Self::LeadsTo => "leads-to",
            Self::Address => "address",
            Self::Gateway => "gateway",
            Self::Route => "route",
            Self::Image => "image",
            Self::Process => "process",
            Self::Network => "network",
            Self::Published => "published",
            Self::Listener => "listener",
            Self::Holder => "holder",
        }
    }

    /// As it stands in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Master => "bridge or other master",
            Self::LeadsTo => "other end",
            Self::Process => "first process",
            Self::Published => "published port",
            other => other.as_str(),
        }
    }
}

impl Display for Change {
    /// `+`, `-` or `~`, and what it is about.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (on, of) = match self.place.as_str() {
            "" => (String::new(), String::new()),
            "host" => (" on the host".to_owned(), " of the host".to_owned()),
            place => (format!(" in {place}"), format!(" of {place}")),
        };
        let subject = match (self.kind, self.what.as_str()) {
            (Kind::Container | Kind::Namespace | Kind::Cable | Kind::Link, what) => {
                format!("{} {what}{on}", self.kind.words())
            }
            (kind, "") => format!("{}{of}", kind.words()),
            (kind, what) => format!("{} of {what}{on}", kind.words()),
        };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {subject}: {before} → {after}"),
            (None, Some(after)) => write!(f, "+ {subject}{}", told(after)),
            (Some(before), None) => write!(f, "- {subject}{}", told(before)),
            (None, None) => write!(f, "~ {subject}"),
        }
    }
}

fn told(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(": {details}") }
}

/// Returns what changed from `old` to `new`, in an order that does not depend on theirs.
pub fn changes(old: &Snapshot, new: &Snapshot) -> Vec<Change> {
    let mut comparison = Comparison::of(old, new);
    if !comparison.same_boot {
        let (before, after) = (old.snapshot.boot.clone(), new.snapshot.boot.clone());
        comparison.changed(Kind::Boot, About::default(), before, after);
    }
    comparison.containers();
    comparison.namespaces();
    for (old, new) in comparison.pairs.clone() {
        let loose = comparison.links(old, new);
        comparison.routes((old, new), &loose);
        comparison.listeners(old, new);
        comparison.holders(old, new);
    }
    comparison.loose_links();
    comparison.told.sort();
    comparison.told.dedup();
    comparison.told
}

/// Links, with the places of their namespaces.
type Loose<'a> = Vec<(usize, &'a Link)>;

/// A snapshot, with what is looked up again and again.
struct Side<'a> {
    spaces: &'a [Namespace],
    unplaced: &'a [Workload],
    by_handle: BTreeMap<&'a str, usize>,
    /// The links of each namespace, by name and by number.
    by_name: Vec<BTreeMap<&'a str, &'a Link>>,
    by_index: Vec<BTreeMap<u32, &'a Link>>,
    labels: Vec<String>,
}

impl<'a> Side<'a> {
    fn of(side: &'a Snapshot) -> Self {
        let spaces = side.namespaces.as_slice();
        let handle = |(at, space): (usize, &'a Namespace)| (space.handle.as_str(), at);
        Self {
            spaces,
            unplaced: &side.unplaced,
            // Of several called alike, which no file of ours has, the first.
            by_handle: spaces.iter().enumerate().rev().map(handle).collect(),
            by_name: spaces
                .iter()
                .map(|s| s.links.iter().map(|l| (&*l.name, l)).collect())
                .collect(),
            by_index: spaces
                .iter()
                .map(|s| s.links.iter().map(|l| (l.index, l)).collect())
                .collect(),
            labels: spaces.iter().map(Namespace::label).collect(),
        }
    }

    /// Everything that a runtime made, and the place of its namespace.
    fn containers(&self) -> BTreeMap<(Runtime, &'a str), (Option<usize>, &'a Workload)> {
        let unplaced = self.unplaced.iter().map(|c| (None, c));
        let spaces = self.spaces.iter().enumerate();
        let placed = spaces.flat_map(|(at, space)| space.made().map(move |c| (Some(at), c)));
        let all = unplaced.chain(placed).filter(|(_, c)| c.runtime != Runtime::Process);
        all.map(|(at, c)| ((c.runtime, c.id.as_str()), (at, c))).collect()
    }

    /// Where a link leads: the place of the namespace, and the link there.
    fn far(&self, link: &Link) -> Option<(usize, &'a Link)> {
        let far = link.leads_to.as_ref()?;
        let at = *self.by_handle.get(far.namespace.as_str())?;
        Some((at, self.by_name[at].get(far.interface.as_str())?))
    }

    /// The other end in words, `con1/eth0`.
    fn far_words(&self, link: &Link) -> Option<String> {
        let far = link.leads_to.as_ref()?;
        let space = self.by_handle.get(far.namespace.as_str());
        let label = space.map_or_else(|| shown(&far.namespace), |at| self.labels[*at].clone());
        Some(match label == "host" {
            true => shown(&far.interface),
            false => format!("{label}/{}", shown(&far.interface)),
        })
    }

    /// What is at a link, and at the other end if it is a cable's.
    fn link_words(&self, link: &Link) -> String {
        let far = self.far(link).filter(|_| link.kind == "veth").map(|(_, far)| far);
        let mut words = Vec::new();
        if link.kind != "veth" && !link.kind.is_empty() {
            words.push(shown(&link.kind));
        }
        for end in std::iter::once(link).chain(far) {
            words.extend(end.master.as_deref().map(|master| format!("on {}", shown(master))));
            words.extend(end.addresses.iter().map(ToString::to_string));
        }
        words.join(", ")
    }
}

/// The namespaces that are in both, by their places: by what outlives their names.
fn pairs(old: &Side<'_>, new: &Side<'_>, same_boot: bool) -> Vec<(usize, usize)> {
    let mut pairs = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut pair = |a: usize, b: Option<&usize>| {
        let alike = |b: &&usize| old.spaces[a].is_host() == new.spaces[**b].is_host();
        if let Some(b) = b.filter(alike)
            && !pairs.contains_key(&a)
            && taken.insert(*b)
        {
            pairs.insert(a, *b);
        }
    };
    let left = || old.spaces.iter().enumerate();
    let right = || new.spaces.iter().enumerate();
    for (a, _) in left().filter(|(_, space)| space.is_host()) {
        pair(a, new.by_handle.get("host"));
    }
    if same_boot {
        let cookies = right().filter_map(|(b, space)| Some((space.cookie?, b)));
        let cookies: BTreeMap<u64, usize> = cookies.collect();
        left().for_each(|(a, space)| pair(a, space.cookie.and_then(|c| cookies.get(&c))));
        for (a, space) in left() {
            // An inode's number is given out again, a handle too; both at once hardly ever.
            let b = new.by_handle.get(space.handle.as_str()).filter(|b| {
                let there = &new.spaces[**b];
                there.inode == space.inode && (space.cookie.is_none() || there.cookie.is_none())
            });
            pair(a, b);
        }
    }
    let key = |c: &Workload| (c.runtime, c.id.clone());
    let known = right().flat_map(|(b, space)| space.made().map(move |c| (key(c), b)));
    let known: BTreeMap<(Runtime, String), usize> = known.collect();
    for (a, space) in left() {
        space.made().for_each(|container| pair(a, known.get(&key(container))));
    }
    pairs.into_iter().collect()
}

/// What a change is about.
#[derive(Clone, Copy, Debug, Default)]
struct About<'b> {
    place: &'b str,
    what: &'b str,
    space: Option<&'b Namespace>,
    beside: Option<&'b str>,
    interface: Option<&'b str>,
    container: Option<&'b Workload>,
}

struct Comparison<'a> {
    old: Side<'a>,
    new: Side<'a>,
    same_boot: bool,
    /// Places of the same namespace in both.
    pairs: Vec<(usize, usize)>,
    /// The same, by the place in the old one.
    to_new: BTreeMap<usize, usize>,
    /// Links that are gone and that have come.
    gone: Loose<'a>,
    come: Loose<'a>,
    told: Vec<Change>,
}

impl<'a> Comparison<'a> {
    fn of(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let same_boot = old.snapshot.boot == new.snapshot.boot;
        let (old, new) = (Side::of(old), Side::of(new));
        let pairs = pairs(&old, &new, same_boot);
        let to_new = pairs.iter().copied().collect();
        let (gone, come, told) = (Vec::new(), Vec::new(), Vec::new());
        Self { old, new, same_boot, pairs, to_new, gone, come, told }
    }

    fn put(&mut self, kind: Kind, about: About<'_>, before: Option<String>, after: Option<String>) {
        let beside = about.space.map(|space| space.containers.as_slice()).unwrap_or_default();
        let containers = match about.container {
            Some(container) => vec![container.name.clone()],
            None => beside.iter().map(|container| container.name.clone()).collect(),
        };
        self.told.push(Change {
            kind,
            place: about.place.to_owned(),
            what: about.what.to_owned(),
            before,
            after,
            namespace: about.space.map(|space| space.handle.clone()),
            beside: about.beside.map(str::to_owned),
            interface: about.interface.map(str::to_owned),
            containers,
        });
    }

    fn changed(&mut self, kind: Kind, about: About<'_>, before: String, after: String) {
        if before != after {
            let some = |text: String| (!text.is_empty()).then_some(text);
            self.put(kind, about, some(before), some(after));
        }
    }

    /// Tells what is in one set only.
    fn sets<T: Ord + Clone>(
        &mut self,
        kind: Kind,
        about: About<'_>,
        (old, new): (BTreeSet<T>, BTreeSet<T>),
        words: impl Fn(&T) -> String,
    ) {
        for gone in old.difference(&new) {
            self.put(kind, about, Some(words(gone)), None);
        }
        for come in new.difference(&old) {
            self.put(kind, about, None, Some(words(come)));
        }
    }

    fn containers(&mut self) {
        let (old, new) = (self.old.containers(), self.new.containers());
        for (key, (at, before)) in &old {
            match new.get(key) {
                Some((at, after)) => self.container(before, after, *at),
                None => {
                    let space = at.map(|at| &self.old.spaces[at]);
                    let name = shown(&before.name);
                    let about = About { what: &name, space, ..About::by(before) };
                    self.put(kind_of(before), about, Some(words_of(before)), None);
                }
            }
        }
        for (at, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)).map(|(_, c)| c) {
            let space = at.map(|at| &self.new.spaces[at]);
            let name = shown(&after.name);
            let about = About { what: &name, space, ..About::by(after) };
            self.put(kind_of(after), about, None, Some(words_of(after)));
        }
    }

    fn container(&mut self, before: &Workload, after: &Workload, at: Option<usize>) {
        let (name, now) = (shown(&before.name), shown(&after.name));
        let space = at.map(|at| &self.new.spaces[at]);
        let about = About { what: &now, space, ..About::by(after) };
        let whole = format!("{} {now}", kind_of(after).as_str());
        self.changed(Kind::Name, About { what: &whole, ..about }, name, now.clone());
        let image = |c: &Workload| c.image.as_deref().map(shown).unwrap_or_default();
        self.changed(Kind::Image, about, image(before), image(after));
        let pid = |c: &Workload| c.pid.map(|pid| pid.to_string()).unwrap_or_default();
        self.changed(Kind::Process, about, pid(before), pid(after));
        let networks = |c: &Workload| c.networks.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(Kind::Network, about, (networks(before), networks(after)), |name| shown(name));
        let ports = |c: &Workload| c.published.iter().cloned().collect::<BTreeSet<_>>();
        self.sets(Kind::Published, about, (ports(before), ports(after)), port_words);
    }

    /// Those without containers; the others are told by these.
    fn namespaces(&mut self) {
        let words = |space: &Namespace| {
            let who = space.holders.iter().min().map(|holder| shown(&holder.to_string()));
            who.map(|who| format!("held by {who}")).unwrap_or_default()
        };
        let taken: BTreeSet<usize> = self.to_new.values().copied().collect();
        let left = self.old.spaces.iter().enumerate();
        let left = left.filter(|(at, _)| !self.to_new.contains_key(at)).map(|(_, it)| (it, false));
        let right = self.new.spaces.iter().enumerate();
        let right = right.filter(|(at, _)| !taken.contains(at)).map(|(_, it)| (it, true));
        let bare = left.chain(right).filter(|(space, _)| space.made().next().is_none());
        for (space, is_new) in bare.collect::<Vec<_>>() {
            let label = space.label();
            let about = About { what: &label, space: Some(space), ..About::default() };
            let (none, some) = (None, Some(words(space)));
            let (before, after) = if is_new { (none, some) } else { (some, none) };
            self.put(Kind::Namespace, about, before, after);
        }
        for (a, b) in self.pairs.clone() {
            let (before, after) = (&self.old.spaces[a], &self.new.spaces[b]);
            if let (true, Some(was), Some(is)) = (self.same_boot, before.cookie, after.cookie) {
                let label = after.label();
                let about = About { what: &label, space: Some(after), ..About::default() };
                let cookie = |cookie: u64| format!("cookie {cookie}");
                self.changed(Kind::Namespace, about, cookie(was), cookie(is));
            }
        }
    }

    /// The links of a namespace that is in both; returns the names of those that went and came.
    fn links(&mut self, a: usize, b: usize) -> [BTreeSet<&'a str>; 2] {
        let mut left = self.old.by_index[a].clone();
        let mut come = BTreeSet::new();
        for after in &self.new.spaces[b].links {
            // The same number is the same link, renamed or not; in another boot only names tell.
            let index = match self.same_boot {
                true => left.get(&after.index).filter(|l| l.kind == after.kind).map(|l| l.index),
                false => self.old.by_name[a].get(after.name.as_str()).map(|link| link.index),
            };
            match index.and_then(|index| left.remove(&index)) {
                Some(before) => self.link(before, after, (a, b)),
                // One of that name that was made again is another one.
                None => {
                    come.insert(after.name.as_str());
                    self.come.push((b, after));
                }
            }
        }
        self.gone.extend(left.values().map(|link| (a, *link)));
        [left.values().map(|link| link.name.as_str()).collect(), come]
    }

    fn link(&mut self, before: &Link, after: &Link, (a, b): (usize, usize)) {
        let place = self.new.labels[b].clone();
        let name = shown(&after.name);
        let about = About {
            place: &place,
            what: &name,
            space: Some(&self.new.spaces[b]),
            beside: after.leads_to.as_ref().map(|far| far.namespace.as_str()),
            interface: Some(&after.name),
            container: None,
        };
        self.changed(Kind::Name, about, shown(&before.name), name.clone());
        let mac = |link: &Link| link.mac.as_deref().map(shown).unwrap_or_default();
        self.changed(Kind::Mac, about, mac(before), mac(after));
        let mtu = |link: &Link| link.mtu.map(|mtu| mtu.to_string()).unwrap_or_default();
        self.changed(Kind::Mtu, about, mtu(before), mtu(after));
        self.changed(Kind::State, about, shown(&before.state), shown(&after.state));
        self.changed(Kind::Alias, about, shown(&before.alias), shown(&after.alias));
        let master = |link: &Link| link.master.as_deref().map(shown).unwrap_or_default();
        let was = self.now_called(a, b, before.master.as_deref());
        self.changed(Kind::Master, about, was, master(after));
        let was = self.old.far(before).map(|(at, far)| (self.to_new.get(&at), far.index));
        let is = self.new.far(after);
        if was != is.as_ref().map(|(at, far)| (Some(at), far.index)) {
            let words = |side: &Side<'_>, link| side.far_words(link).unwrap_or_default();
            let (was, is) = (words(&self.old, before), words(&self.new, after));
            self.changed(Kind::LeadsTo, about, was, is);
        }
        let addrs = |link: &Link| link.addresses.iter().copied().collect::<BTreeSet<_>>();
        self.sets(Kind::Address, about, (addrs(before), addrs(after)), ToString::to_string);
    }

    /// What a link of the old side is called on the new one.
    fn now_called(&self, a: usize, b: usize, name: Option<&str>) -> String {
        let Some(name) = name else { return String::new() };
        let before = self.old.by_name[a].get(name).filter(|_| self.same_boot);
        let now = before.and_then(|before| {
            let there = self.new.by_index[b].get(&before.index);
            there.filter(|link| link.kind == before.kind)
        });
        shown(now.map_or(name, |link| &link.name))
    }

    /// Links that have come or gone, in namespaces that are in both: cables once, with what is at
    /// both ends.
    fn loose_links(&mut self) {
        for is_new in [false, true] {
            let loose = std::mem::take(if is_new { &mut self.come } else { &mut self.gone });
            let both: BTreeSet<(usize, u32)> =
                loose.iter().map(|(at, link)| (*at, link.index)).collect();
            for (at, link) in loose {
                let side = if is_new { &self.new } else { &self.old };
                let far = side.far(link).filter(|_| link.kind == "veth");
                // Of a cable's two ends the one on the host speaks, else the one met first.
                let other = far.map(|(at, far)| (at, far.index));
                if other.is_some_and(|far| both.contains(&far) && far < (at, link.index)) {
                    continue;
                }
                let (space, label) = (&side.spaces[at], side.labels[at].clone());
                let name = match side.far_words(link).filter(|_| link.kind == "veth") {
                    Some(far) if space.is_host() => format!("{} ⇄ {far}", shown(&link.name)),
                    Some(far) => format!("{label}/{} ⇄ {far}", shown(&link.name)),
                    None => shown(&link.name),
                };
                let (kind, place, inside) = match far {
                    Some((there, _)) => (Kind::Cable, "", &side.spaces[there]),
                    None => (Kind::Link, label.as_str(), space),
                };
                let about = About {
                    place,
                    what: &name,
                    space: Some(inside),
                    beside: Some(&space.handle),
                    interface: Some(&link.name),
                    container: None,
                };
                let words = Some(side.link_words(link));
                let (before, after) = if is_new { (None, words) } else { (words, None) };
                self.put(kind, about, before, after);
            }
        }
    }

    /// `loose`: names of links that went and came. What goes by these is told with them, and so is
    /// the way to the neighbours that an address brings along.
    fn routes(&mut self, (a, b): (usize, usize), loose: &[BTreeSet<&str>; 2]) {
        let wanted = |side: &Side<'_>, at: usize, loose: &BTreeSet<&str>| -> Vec<Route> {
            let links = &side.by_name[at];
            let brought = |route: &Route| {
                let link = links.get(route.interface.as_str());
                let has = |link: &&Link| link.addresses.iter().any(|net| net.trunc() == route.to);
                route.via.is_none() && link.is_some_and(has)
            };
            let routes = side.spaces[at].routes.iter();
            let routes = routes.filter(|r| !loose.contains(r.interface.as_str()) && !brought(r));
            routes.cloned().collect()
        };
        let renamed = |route: Route| {
            let interface = self.now_called(a, b, Some(&route.interface));
            Route { interface, ..route }
        };
        let before = wanted(&self.old, a, &loose[0]).into_iter().map(renamed);
        let before: BTreeSet<Route> = before.collect();
        let after: BTreeSet<Route> = wanted(&self.new, b, &loose[1]).into_iter().collect();
        let is_default = |route: &&Route| route.to.prefix_len() == 0;
        let place = self.new.labels[b].clone();
        let space = Some(&self.new.spaces[b]);
        let about = About { place: &place, space, ..About::default() };
        for v6 in [false, true] {
            let of = |routes: &BTreeSet<Route>| -> String {
                let mine = routes.iter().filter(is_default);
                let mine = mine.filter(|r| matches!(r.to, ipnet::IpNet::V6(_)) == v6);
                let via = |route: &Route| {
                    let via = route.via.map_or_else(|| "none".to_owned(), |via| via.to_string());
                    format!("{via} by {}", shown(&route.interface))
                };
                mine.map(via).collect::<Vec<_>>().join(", ")
            };
            self.changed(Kind::Gateway, about, of(&before), of(&after));
        }
        let words = |route: &Route| {
            let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
            format!("{}{via} by {}", route.to, shown(&route.interface))
        };
        let rest = |routes: BTreeSet<Route>| -> BTreeSet<Route> {
            routes.into_iter().filter(|route| !is_default(&route)).collect()
        };
        self.sets(Kind::Route, about, (rest(before), rest(after)), words);
    }

    fn listeners(&mut self, a: usize, b: usize) {
        let all = |space: &Namespace| -> BTreeMap<_, String> {
            let one = |l: &Listener| {
                let who = l.processes.first().map(|p| format!(" {}", shown(&p.comm)));
                ((l.protocol, l.address), who.unwrap_or_default())
            };
            space.listeners.iter().map(one).collect()
        };
        let place = self.new.labels[b].clone();
        let space = &self.new.spaces[b];
        let about = About { place: &place, space: Some(space), ..About::default() };
        let (old, new) = (all(&self.old.spaces[a]), all(space));
        for ((proto, at), who) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
            self.put(Kind::Listener, about, Some(format!("{at}/{proto}{who}")), None);
        }
        for (key, who) in &new {
            let text = |who: &str| format!("{}/{}{who}", key.1, key.0);
            match old.get(key) {
                None => self.put(Kind::Listener, about, None, Some(text(who))),
                Some(was) => self.changed(Kind::Listener, about, text(was), text(who)),
            }
        }
    }

    /// Of the host they are everything that runs on it.
    fn holders(&mut self, a: usize, b: usize) {
        let (old, new) = (&self.old.spaces[a], &self.new.spaces[b]);
        if new.is_host() || old.holders == new.holders {
            return;
        }
        // In words, which leave out which of many processes a mount was seen by.
        let words = |holder: &Holder| shown(&holder.to_string());
        let all = |space: &Namespace| space.holders.iter().map(words).collect::<BTreeSet<String>>();
        let label = new.label();
        let about = About { place: &label, space: Some(new), ..About::default() };
        self.sets(Kind::Holder, about, (all(old), all(new)), String::clone);
    }
}

impl<'b> About<'b> {
    fn by(container: &'b Workload) -> Self {
        Self { container: Some(container), ..Self::default() }
    }
}

/// A name of `ip netns` is a namespace's, and no container.
fn kind_of(container: &Workload) -> Kind {
    match container.runtime {
        Runtime::IpNetns => Kind::Namespace,
        _ => Kind::Container,
    }
}

/// A container in a few words.
fn words_of(container: &Workload) -> String {
    let mut words = vec![container.runtime.to_string()];
    words.extend(container.image.as_deref().map(shown));
    if container.id != container.name {
        words.push(format!("id {}", shown(&container.id.chars().take(12).collect::<String>())));
    }
    words.extend(container.published.iter().map(|port| format!("published {}", port_words(port))));
    words.join(", ")
}

fn port_words(port: &PublishedPort) -> String {
    format!("{} → {}", host_side(port), port.container_port)
}
