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
    if old.snapshot.boot != new.snapshot.boot {
        let (before, after) = (old.snapshot.boot.clone(), new.snapshot.boot.clone());
        comparison.changed(Kind::Boot, ("", ""), before, after);
    }
    comparison.containers();
    comparison.namespaces();
    for (old, new) in comparison.pairs.clone() {
        comparison.links(old, new);
        comparison.routes(old, new);
        comparison.listeners(old, new);
        comparison.holders(old, new);
    }
    comparison.loose_links();
    comparison.told.sort();
    comparison.told.dedup();
    comparison.told
}

type Side<'a> = Vec<(usize, &'a Link)>;

/// Whether a namespace of the old side is one of the new.
type IsSame<'a> = &'a dyn Fn(&Namespace, &Namespace) -> bool;

struct Comparison<'a> {
    old: &'a Snapshot,
    new: &'a Snapshot,
    /// Places of the same namespace in both.
    pairs: Vec<(usize, usize)>,
    /// Links that are gone and that have come, with the places of their namespaces.
    gone: Side<'a>,
    come: Side<'a>,
    told: Vec<Change>,
}

impl<'a> Comparison<'a> {
    fn of(old: &'a Snapshot, new: &'a Snapshot) -> Self {
        let mut pairs = Vec::new();
        let (mut left, mut right): (BTreeSet<usize>, BTreeSet<usize>) =
            ((0..old.namespaces.len()).collect(), (0..new.namespaces.len()).collect());
        let same_boot = old.snapshot.boot == new.snapshot.boot;
        let by_host = |a: &Namespace, b: &Namespace| a.is_host() && b.is_host();
        let by_cookie = |a: &Namespace, b: &Namespace| {
            same_boot
                && !a.is_host()
                && !b.is_host()
                && match (a.cookie, b.cookie) {
                    (Some(a), Some(b)) => a == b,
                    // An inode's number is given out again, a handle too; both at once hardly ever.
                    _ => a.inode == b.inode && a.handle == b.handle,
                }
        };
        let by_container = |a: &Namespace, b: &Namespace| {
            let key = |c: &Workload| (c.runtime, c.id.clone());
            let theirs: BTreeSet<_> = b.made().map(key).collect();
            !a.is_host() && !b.is_host() && a.made().any(|c| theirs.contains(&key(c)))
        };
        let ways: [IsSame<'_>; 3] = [&by_host, &by_cookie, &by_container];
        for is_same in ways {
            for a in left.clone() {
                let found = right
                    .iter()
                    .copied()
                    .find(|b| is_same(&old.namespaces[a], &new.namespaces[*b]));
                if let Some(b) = found {
                    left.remove(&a);
                    right.remove(&b);
                    pairs.push((a, b));
                }
            }
        }
        Self { old, new, pairs, gone: Vec::new(), come: Vec::new(), told: Vec::new() }
    }

    fn put(
        &mut self,
        kind: Kind,
        (place, what): (&str, &str),
        before: Option<String>,
        after: Option<String>,
    ) {
        let (place, what) = (place.to_owned(), what.to_owned());
        self.told.push(Change { kind, place, what, before, after });
    }

    fn changed(&mut self, kind: Kind, about: (&str, &str), before: String, after: String) {
        if before != after {
            let some = |text: String| (!text.is_empty()).then_some(text);
            self.put(kind, about, some(before), some(after));
        }
    }

    /// Tells what is in one set only.
    fn sets<T: Ord + Clone>(
        &mut self,
        kind: Kind,
        about: (&str, &str),
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
        let all = |side: &'a Snapshot| -> BTreeMap<(Runtime, &'a str), &'a Workload> {
            let made = side.namespaces.iter().flat_map(Namespace::made);
            made.map(|c| ((c.runtime, c.id.as_str()), c)).collect()
        };
        let (old, new) = (all(self.old), all(self.new));
        for (key, before) in &old {
            let name = shown(&before.name);
            let Some(after) = new.get(key) else {
                self.put(Kind::Container, ("", &name), Some(words_of(before)), None);
                continue;
            };
            let now = shown(&after.name);
            self.changed(Kind::Name, ("", &format!("container {now}")), name, now.clone());
            let image = |c: &Workload| c.image.as_deref().map(shown).unwrap_or_default();
            self.changed(Kind::Image, ("", &now), image(before), image(after));
            let pid = |c: &Workload| c.pid.map(|pid| pid.to_string()).unwrap_or_default();
            self.changed(Kind::Process, ("", &now), pid(before), pid(after));
            let networks = |c: &Workload| c.networks.iter().cloned().collect::<BTreeSet<_>>();
            let both = (networks(before), networks(after));
            self.sets(Kind::Network, ("", &now), both, |name| shown(name));
            let ports = |c: &Workload| c.published.iter().cloned().collect::<BTreeSet<_>>();
            let both = (ports(before), ports(after));
            self.sets(Kind::Published, ("", &now), both, port_words);
        }
        for (_, after) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
            self.put(Kind::Container, ("", &shown(&after.name)), None, Some(words_of(after)));
        }
    }

    /// Those without containers; the others are told by these.
    fn namespaces(&mut self) {
        let bare = |space: &Namespace| space.made().next().is_none();
        let words = |space: &Namespace| {
            let who = space.holders.iter().min().map(|holder| shown(&holder.to_string()));
            who.map(|who| format!("held by {who}")).unwrap_or_default()
        };
        let paired: (BTreeSet<usize>, BTreeSet<usize>) = self.pairs.iter().copied().unzip();
        let (old, new) = (self.old, self.new);
        for (at, space) in old.namespaces.iter().enumerate() {
            if !paired.0.contains(&at) && bare(space) {
                self.put(Kind::Namespace, ("", &space.label()), Some(words(space)), None);
            }
        }
        for (at, space) in new.namespaces.iter().enumerate() {
            if !paired.1.contains(&at) && bare(space) {
                self.put(Kind::Namespace, ("", &space.label()), None, Some(words(space)));
            }
        }
        for (a, b) in self.pairs.clone() {
            let (before, after) = (&old.namespaces[a], &new.namespaces[b]);
            let same_boot = old.snapshot.boot == new.snapshot.boot;
            if let (true, Some(was), Some(is)) = (same_boot, before.cookie, after.cookie)
                && was != is
            {
                let cookie = |cookie: u64| format!("cookie {cookie}");
                self.changed(Kind::Namespace, ("", &after.label()), cookie(was), cookie(is));
            }
        }
    }

    /// The links of a namespace that is in both.
    fn links(&mut self, a: usize, b: usize) {
        let (old, new) = (&self.old.namespaces[a].links, &self.new.namespaces[b].links);
        let same_boot = self.old.snapshot.boot == self.new.snapshot.boot;
        let mut left: Vec<&Link> = old.iter().collect();
        for after in new {
            // The same number is the same link, renamed or not; in another boot only names tell.
            let number = left.iter().position(|before| before.index == after.index);
            let name = left.iter().position(|before| before.name == after.name);
            let found = match same_boot {
                true => number.filter(|at| left[*at].kind == after.kind),
                false => name,
            };
            match found {
                Some(at) => {
                    let before = left.remove(at);
                    self.link(before, after, (a, b));
                }
                // One of that name that was made again is another one.
                None => self.come.push((b, after)),
            }
        }
        self.gone.extend(left.into_iter().map(|link| (a, link)));
    }

    fn link(&mut self, before: &Link, after: &Link, (a, b): (usize, usize)) {
        let place = self.new.namespaces[b].label();
        let name = shown(&after.name);
        let about = (place.as_str(), name.as_str());
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
        if self.far(self.old, before).map(|at| self.paired(at))
            != self.far(self.new, after).map(Some)
        {
            let lead = |side: &Snapshot, link: &Link| far_words(side, link).unwrap_or_default();
            let (was, is) = (lead(self.old, before), lead(self.new, after));
            self.changed(Kind::LeadsTo, about, was, is);
        }
        let addrs = |link: &Link| link.addresses.iter().copied().collect::<BTreeSet<_>>();
        let both = (addrs(before), addrs(after));
        self.sets(Kind::Address, about, both, ToString::to_string);
    }

    /// What a link of the old side is called on the new one.
    fn now_called(&self, a: usize, b: usize, name: Option<&str>) -> String {
        let Some(name) = name else { return String::new() };
        let index = self.old.namespaces[a].links.iter().find(|link| link.name == name);
        let same_boot = self.old.snapshot.boot == self.new.snapshot.boot;
        let now = index.filter(|_| same_boot).and_then(|before| {
            let links = &self.new.namespaces[b].links;
            links.iter().find(|link| link.index == before.index && link.kind == before.kind)
        });
        shown(now.map_or(name, |link| &link.name))
    }

    /// Where a link leads, by the place of the namespace and the number there.
    fn far(&self, side: &Snapshot, link: &Link) -> Option<(usize, u32)> {
        let far = link.leads_to.as_ref()?;
        let at = side.namespaces.iter().position(|space| space.handle == far.namespace)?;
        let links = &side.namespaces[at].links;
        Some((at, links.iter().find(|link| link.name == far.interface)?.index))
    }

    /// The same on the new side.
    fn paired(&self, (at, index): (usize, u32)) -> Option<(usize, u32)> {
        let pair = self.pairs.iter().find(|(a, _)| *a == at)?;
        Some((pair.1, index))
    }

    /// Links that have come or gone, in namespaces that are in both or not: cables once, with what
    /// is at both ends.
    fn loose_links(&mut self) {
        let (gone, come) = (std::mem::take(&mut self.gone), std::mem::take(&mut self.come));
        for (side, loose, is_new) in [(self.old, gone, false), (self.new, come, true)] {
            let both: BTreeSet<(usize, u32)> =
                loose.iter().map(|(at, link)| (*at, link.index)).collect();
            for (at, link) in loose {
                let other = self.far(side, link).filter(|_| link.kind == "veth");
                // Of a cable's two ends the one on the host speaks, else the one met first.
                if other.is_some_and(|far| both.contains(&far) && far < (at, link.index)) {
                    continue;
                }
                let words = link_words(side, link);
                let (before, after) =
                    if is_new { (None, Some(words)) } else { (Some(words), None) };
                let space = &side.namespaces[at];
                let name = match (space.is_host(), far_words(side, link)) {
                    (_, Some(far)) if link.kind == "veth" => {
                        let place =
                            if space.is_host() { String::new() } else { space.label() + "/" };
                        format!("{place}{} ⇄ {far}", shown(&link.name))
                    }
                    _ => shown(&link.name),
                };
                match link.kind == "veth" && other.is_some() {
                    true => self.put(Kind::Cable, ("", &name), before, after),
                    false => self.put(Kind::Link, (&space.label(), &name), before, after),
                }
            }
        }
    }

    fn routes(&mut self, a: usize, b: usize) {
        let (old, new) = (&self.old.namespaces[a], &self.new.namespaces[b]);
        let place = new.label();
        let loose = |side: &Side<'_>, at: usize| -> BTreeSet<String> {
            side.iter().filter(|(of, _)| *of == at).map(|(_, link)| link.name.clone()).collect()
        };
        let (gone, come) = (loose(&self.gone, a), loose(&self.come, b));
        // What goes by a link that has come or gone is told with it, and so is the way to the
        // neighbours that an address brings along.
        let brought = |space: &Namespace, route: &Route| {
            let link = space.links.iter().find(|link| link.name == route.interface);
            route.via.is_none()
                && link.is_some_and(|link| link.addresses.iter().any(|net| net.trunc() == route.to))
        };
        let renamed = |route: &Route| Route {
            interface: self.now_called(a, b, Some(&route.interface)),
            ..route.clone()
        };
        let before = old.routes.iter().filter(|r| !gone.contains(&r.interface) && !brought(old, r));
        let before: BTreeSet<Route> = before.map(renamed).collect();
        let after = new.routes.iter().filter(|r| !come.contains(&r.interface) && !brought(new, r));
        let after: BTreeSet<Route> = after.cloned().collect();
        let words = |route: &Route| {
            let via = route.via.map(|via| format!(" via {via}")).unwrap_or_default();
            format!("{}{via} by {}", route.to, shown(&route.interface))
        };
        let is_default = |route: &&Route| route.to.prefix_len() == 0;
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
            self.changed(Kind::Gateway, (&place, ""), of(&before), of(&after));
        }
        let rest = |routes: &BTreeSet<Route>| -> BTreeSet<Route> {
            routes.iter().filter(|route| !is_default(route)).cloned().collect()
        };
        self.sets(Kind::Route, (&place, ""), (rest(&before), rest(&after)), words);
    }

    fn listeners(&mut self, a: usize, b: usize) {
        let place = self.new.namespaces[b].label();
        let all = |space: &Namespace| -> BTreeMap<_, String> {
            let one = |l: &Listener| {
                let who = l.processes.first().map(|p| format!(" {}", shown(&p.comm)));
                ((l.protocol, l.address), who.unwrap_or_default())
            };
            space.listeners.iter().map(one).collect()
        };
        let (old, new) = (all(&self.old.namespaces[a]), all(&self.new.namespaces[b]));
        for ((proto, at), who) in old.iter().filter(|(key, _)| !new.contains_key(key)) {
            self.put(Kind::Listener, (&place, ""), Some(format!("{at}/{proto}{who}")), None);
        }
        for (key, who) in &new {
            let text = |who: &str| format!("{}/{}{who}", key.1, key.0);
            match old.get(key) {
                None => self.put(Kind::Listener, (&place, ""), None, Some(text(who))),
                Some(was) => self.changed(Kind::Listener, (&place, ""), text(was), text(who)),
            }
        }
    }

    /// Of the host they are everything that runs on it.
    fn holders(&mut self, a: usize, b: usize) {
        let (old, new) = (&self.old.namespaces[a], &self.new.namespaces[b]);
        if new.is_host() {
            return;
        }
        // In words, which leave out which of many processes a mount was seen by.
        let words = |holder: &Holder| shown(&holder.to_string());
        let all = |space: &Namespace| space.holders.iter().map(words).collect::<BTreeSet<String>>();
        let both = (all(old), all(new));
        self.sets(Kind::Holder, (&new.label(), ""), both, String::clone);
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

/// The other end in words, `con1/eth0`.
fn far_words(side: &Snapshot, link: &Link) -> Option<String> {
    let far = link.leads_to.as_ref()?;
    let space = side.namespaces.iter().find(|space| space.handle == far.namespace);
    let label = space.map_or_else(|| shown(&far.namespace), Namespace::label);
    Some(match label == "host" {
        true => shown(&far.interface),
        false => format!("{label}/{}", shown(&far.interface)),
    })
}

/// What is at a link, and at the other end if it is a cable's.
fn link_words(side: &Snapshot, link: &Link) -> String {
    let far = link.leads_to.as_ref().filter(|_| link.kind == "veth");
    let far = far.and_then(|far| {
        let space = side.namespaces.iter().find(|space| space.handle == far.namespace)?;
        space.links.iter().find(|link| link.name == far.interface)
    });
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
