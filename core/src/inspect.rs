//! Everything that is known of one namespace, container, link or network, as sections of rows.
//! Only what is interesting: what is as everywhere is left out or counted.

use std::{collections::BTreeSet, fmt::Display, net::IpAddr};

use crate::{
    firewall::{Chain, Engine, Rule, Table, What},
    handle::Meaning,
    interior::{Interior, PolicyRule, SeenRoute},
    map::{Branch, Cell, Tone, cell, is_up, list, port_cells, shown, some, who},
    model::{LinkId, Netns},
    peer::{bridges, members, numbers, on_the_wire, owner},
    published::{Published, published},
    sight::{LinkFacts, Runtime, Sight, Space, Workload},
};

/// Chains with more rules than this are counted, unless all rules are wanted.
const FEW: usize = 8;
/// Rows of one list, unless all are wanted.
const ROWS: usize = 40;

/// What to tell beside the usual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Every rule of the firewall, and every row of long lists.
    pub rules: bool,
}

/// The namespaces whose inside has to be read to tell of what is meant: its own, and those at the
/// far ends of its cables, as their rules lead to it.
pub fn needed(sight: &Sight, meanings: &[Meaning<'_>]) -> BTreeSet<Netns> {
    let mut needed = BTreeSet::new();
    for meaning in meanings {
        let about: BTreeSet<&Netns> = match meaning {
            Meaning::Network(runtime, name) => {
                let spaces = sight.spaces.iter().filter(|(_, space)| space.is_on(*runtime, name));
                spaces.map(|(netns, _)| netns).collect()
            }
            meaning => meaning.netns().into_iter().collect(),
        };
        if !matches!(meaning, Meaning::Network(..)) {
            needed.extend(about.iter().map(|netns| (*netns).clone()));
        }
        let far = |netns: &Netns| {
            let links = sight.links.iter().filter(|(id, _)| id.netns == *netns);
            let far = links.filter_map(|(_, facts)| facts.leads_to.as_ref());
            far.map(|far| far.netns.clone()).collect::<BTreeSet<Netns>>()
        };
        // Those of the host lead everywhere.
        let about = about.into_iter().filter(|netns| **netns != Netns::Host);
        needed.extend(about.flat_map(far));
    }
    needed
}

/// Returns what is known, a section a branch.
pub fn inspect(sight: &Sight, meaning: &Meaning<'_>, detail: Detail) -> Vec<Branch> {
    let page = Page { sight, detail };
    let sections = match meaning {
        Meaning::Namespace(netns) => page.space(netns, None),
        Meaning::Container(netns, n) => page.space(netns, Some(*n)),
        Meaning::Link(id) => page.link(id),
        Meaning::Network(runtime, name) => page.network(*runtime, name),
    };
    sections.into_iter().flatten().collect()
}

struct Page<'a> {
    sight: &'a Sight,
    detail: Detail,
}

impl<'a> Page<'a> {
    fn space(&self, netns: &'a Netns, which: Option<usize>) -> Vec<Option<Branch>> {
        let Some(space) = self.sight.spaces.get(netns) else { return Vec::new() };
        let ports = published(self.sight).into_iter().filter(|port| match netns {
            Netns::Host => port.host == netns,
            _ => port.netns == Some(netns) || port.host == netns,
        });
        let mut sections = vec![self.identity(netns, space, which), self.links(netns)];
        sections.push(self.neighbours(|id| id.netns == *netns));
        sections.push(self.listeners(netns));
        sections.push(self.ports(ports.collect()));
        sections.push(self.routes(netns));
        if let Some(inside) = self.sight.interiors.get(netns) {
            sections.push(policy(inside));
            sections.push(resolver(inside));
            sections.extend(inside.firewall.iter().map(|table| Some(self.table(table))));
            sections.push(switches(inside));
            sections.push(unseen(inside));
        }
        sections
    }

    fn identity(&self, netns: &Netns, space: &Space, which: Option<usize>) -> Option<Branch> {
        let mut rows = Vec::new();
        for (n, workload) in space.workloads.iter().enumerate() {
            let what = if which.is_none_or(|which| which == n) { "container" } else { "beside it" };
            rows.push(pair(what, owner(workload)));
            if which != Some(n) {
                continue;
            }
            if workload.id != workload.name {
                rows.push(pair("id", shown(&workload.id)));
            }
            if !workload.networks.is_empty() {
                rows.push(pair("networks", shown(&workload.networks.join(" "))));
            }
            for (key, value) in &workload.labels {
                rows.push(pair(&shown(key), shown(value)));
            }
        }
        rows.push(pair("namespace", format!("{}  {}", shown(&netns.to_string()), numbers(space))));
        let most = if self.detail.rules { usize::MAX } else { 6 };
        for holder in space.holders.iter().take(most) {
            rows.push(pair("held by", shown(&holder.to_string())));
        }
        if space.holders.len() > most {
            rows.push(pair(
                "",
                format!("and {} more (inspect --rules)", space.holders.len() - most),
            ));
        }
        section("identity", rows)
    }

    fn links(&self, netns: &Netns) -> Option<Branch> {
        let links = self.sight.links.iter().filter(|(id, _)| id.netns == *netns);
        let rows = links.map(|(id, facts)| self.link_row(id, facts)).collect();
        section("links", self.cut(rows))
    }

    fn link_row(&self, id: &LinkId, facts: &LinkFacts) -> Branch {
        let far = match &facts.leads_to {
            Some(far) => {
                let arrow = if facts.proven { "⇄" } else { "→" };
                format!("{arrow} {} {}", shown(far.name.as_str()), self.sight.label(&far.netns))
            }
            None => facts.kind.clone(),
        };
        let master = facts.master.as_ref().map(|on| format!("on {}", shown(on.name.as_str())));
        let (text, tone) = state(facts);
        Branch {
            cells: vec![
                cell(format!("{} {}", facts.index, shown(id.name.as_str())), Tone::Name),
                cell(far, Tone::Plain),
                cell(list(&facts.addrs), Tone::Plain),
                cell(self.mac_and_mtu(id), Tone::Faint),
                cell(master.unwrap_or_default(), Tone::Plain),
                cell(text, tone),
                cell(shown(&facts.details.join(", ")), Tone::Faint),
            ],
            children: Vec::new(),
        }
    }

    fn mac_and_mtu(&self, id: &LinkId) -> String {
        let link = self.sight.topology.links.get(id);
        link.map(|link| format!("{} mtu {}", link.mac, link.mtu)).unwrap_or_default()
    }

    fn neighbours(&self, wanted: impl Fn(&LinkId) -> bool) -> Option<Branch> {
        let mut rows = Vec::new();
        for (id, facts) in self.sight.links.iter().filter(|(id, _)| wanted(id)) {
            for known in facts.neighbours.iter().filter(|known| known.addr.is_some()) {
                let tone = if known.state == "failed" { Tone::Bad } else { Tone::Faint };
                rows.push(row([
                    cell(known.addr.map(|addr| addr.to_string()).unwrap_or_default(), Tone::Plain),
                    cell(known.mac.map(|mac| mac.to_string()).unwrap_or_default(), Tone::Plain),
                    cell(shown(id.name.as_str()), Tone::Plain),
                    cell(&known.state, tone),
                ]));
            }
        }
        section("neighbours", self.cut(rows))
    }

    fn listeners(&self, netns: &Netns) -> Option<Branch> {
        let all = self.sight.listeners.iter().filter(|listener| listener.netns == *netns);
        let rows = all.map(|listener| {
            let both = if listener.dual { "IPv4 too" } else { "" };
            row([
                cell(listener.proto, Tone::Plain),
                cell(listener.at, Tone::Plain),
                cell(who(listener), Tone::Name),
                cell(both, Tone::Faint),
            ])
        });
        section("listening", self.cut(rows.collect()))
    }

    fn ports(&self, ports: Vec<Published<'_>>) -> Option<Branch> {
        let rows = ports
            .iter()
            .map(|port| Branch { cells: port_cells(self.sight, port), children: Vec::new() });
        section("published", self.cut(rows.collect()))
    }

    fn routes(&self, netns: &Netns) -> Option<Branch> {
        match self.sight.interiors.get(netns).map(|inside| &inside.routes) {
            Some(all) if !all.is_empty() => {
                section("routes", self.cut(all.iter().map(route).collect()))
            }
            _ => self.main_routes(|id| id.netns == *netns),
        }
    }

    /// Those of the main table, which are known where those of every table were not read.
    fn main_routes(&self, wanted: impl Fn(&LinkId) -> bool) -> Option<Branch> {
        let routes = self.sight.topology.routes.iter().filter(|route| wanted(&route.link));
        let rows = routes.map(|route| {
            let via = route.via.map(|via| format!("via {via} ")).unwrap_or_default();
            let src = route.src.map(|src| format!("src {src}")).unwrap_or_default();
            row([
                cell(destination(&route.dst), Tone::Plain),
                cell(format!("{via}dev {}", shown(route.link.name.as_str())), Tone::Plain),
                cell(src, Tone::Faint),
                Cell::default(),
            ])
        });
        section("routes", self.cut(rows.collect()))
    }

    fn table(&self, table: &Table) -> Branch {
        let engine = if table.engine == Engine::Legacy { "iptables-legacy " } else { "" };
        let rules: usize = table.chains.iter().map(|chain| chain.rules.len()).sum();
        let mut words =
            vec![format!("{} in {}", some(rules, "rule"), some(table.chains.len(), "chain"))];
        words.extend(table.dormant.then(|| "dormant: none of it is in force".to_owned()));
        words.extend(table.owner.map(|port| format!("owned by a process's socket {port}")));
        let sets = table.sets.iter().map(|set| match set.elements {
            Some(n) => format!("{} ({n})", shown(&set.name)),
            None => shown(&set.name),
        });
        let sets: Vec<String> = sets.collect();
        let mut children: Vec<Branch> =
            table.chains.iter().map(|chain| self.chain(chain)).collect();
        if !sets.is_empty() {
            children.push(pair("sets", sets.join(" ")));
        }
        Branch {
            cells: vec![
                cell(
                    format!("firewall {engine}{} {}", table.family, shown(&table.name)),
                    Tone::Name,
                ),
                cell(words.join(", "), Tone::Faint),
            ],
            children,
        }
    }

    fn chain(&self, chain: &Chain) -> Branch {
        let base = chain.base.as_ref().map(|base| {
            let policy = if base.drops { "policy drop" } else { "policy accept" };
            format!("{} {} at {}, {policy}", base.kind, base.hook, base.priority)
        });
        let drops = chain.base.as_ref().is_some_and(|base| base.drops);
        let few = self.detail.rules || chain.rules.len() <= FEW;
        let count = match chain.rules.len() {
            0 => "empty".to_owned(),
            n if few => some(n, "rule"),
            n => format!("{n} rules (inspect --rules)"),
        };
        Branch {
            cells: vec![
                cell(shown(&chain.name), Tone::Plain),
                cell(base.unwrap_or_default(), if drops { Tone::Bad } else { Tone::Plain }),
                cell(count, Tone::Faint),
            ],
            children: chain.rules.iter().filter(|_| few).map(rule).collect(),
        }
    }

    fn link(&self, id: &'a LinkId) -> Vec<Option<Branch>> {
        let Some(facts) = self.sight.links.get(id) else { return Vec::new() };
        let mut ends = vec![self.link_row(id, facts)];
        let far = facts.leads_to.as_ref();
        if let Some((far, there)) = far.and_then(|far| self.sight.links.get_key_value(far)) {
            ends.push(self.link_row(far, there));
            ends.extend(self.owners(&far.netns));
        }
        ends.extend(self.owners(&id.netns));
        let mut wire = Vec::new();
        for end in [Some(id), far].into_iter().flatten() {
            if let Some(attached) = self.sight.attached.get(end) {
                wire.push(pair(&shown(end.name.as_str()), on_the_wire(attached)));
            }
        }
        let mut sections =
            vec![section("ends", ends), section("on the wire", wire), counters(facts)];
        if matches!(facts.kind.as_str(), "bridge" | "bond" | "vrf") {
            sections.push(self.members(id));
        }
        sections.push(self.forwarding(id));
        sections.push(self.neighbours(|link| link == id));
        sections.push(self.routes_by(id));
        if let Some(inside) = self.sight.interiors.get(&id.netns) {
            sections.push(self.rules_about(inside, id));
            let of_link = format!("/{}/", id.name);
            sections.push(switches_of(inside, |name| name.contains(&of_link)));
            sections.push(unseen(inside));
        }
        if facts.kind == "bridge" {
            sections.push(self.ports(self.ports_through(id)));
        }
        sections
    }

    fn owners(&self, netns: &Netns) -> Vec<Branch> {
        let space = self.sight.spaces.get(netns).filter(|_| *netns != Netns::Host);
        let workloads = space.map(|space| space.workloads.as_slice()).unwrap_or_default();
        workloads.iter().map(|workload| pair("container", owner(workload))).collect()
    }

    fn members(&self, id: &LinkId) -> Option<Branch> {
        let rows = members(self.sight, id)
            .filter_map(|member| Some(self.link_row(member, self.sight.links.get(member)?)));
        section("members", self.cut(rows.collect()))
    }

    /// What a bridge knows to be behind its ports, or behind this one.
    fn forwarding(&self, id: &LinkId) -> Option<Branch> {
        let mut rows = Vec::new();
        let ports: Vec<&LinkId> = self
            .sight
            .links
            .keys()
            .filter(|link| *link == id)
            .chain(members(self.sight, id))
            .collect();
        for port in ports {
            let facts = &self.sight.links[port];
            let behind = facts.neighbours.iter().filter(|known| known.addr.is_none());
            for known in behind.filter(|known| known.state != "own") {
                rows.push(row([
                    cell(known.mac.map(|mac| mac.to_string()).unwrap_or_default(), Tone::Plain),
                    cell(format!("behind {}", shown(port.name.as_str())), Tone::Plain),
                    cell(self.owner_of(&known.mac), Tone::Name),
                    cell(&known.state, Tone::Faint),
                ]));
            }
        }
        section("forwarding database", self.cut(rows))
    }

    /// Whose hardware address it is, if one container has it alone.
    fn owner_of(&self, mac: &Option<crate::name::Mac>) -> String {
        let links = self.sight.topology.links.iter();
        let mut has = links.filter(|(id, link)| Some(link.mac) == *mac && id.netns != Netns::Host);
        match (has.next(), has.next()) {
            (Some((id, _)), None) => self.sight.label(&id.netns),
            _ => String::new(),
        }
    }

    fn routes_by(&self, id: &LinkId) -> Option<Branch> {
        let by =
            |r: &&SeenRoute| r.hops.iter().any(|hop| hop.out.as_deref() == Some(id.name.as_str()));
        match self.sight.interiors.get(&id.netns).map(|inside| &inside.routes) {
            Some(all) if !all.is_empty() => {
                section("routes", self.cut(all.iter().filter(by).map(route).collect()))
            }
            _ => self.main_routes(|link| link == id),
        }
    }

    /// Rules that name an interface, or an address on one of its subnets.
    fn rules_about(&self, inside: &Interior, id: &LinkId) -> Option<Branch> {
        let facts = self.sight.links.get(id)?;
        let about = |what: &What| names(what, id.name.as_str(), &facts.addrs);
        let mut rows = Vec::new();
        for table in &inside.firewall {
            let engine = if table.engine == Engine::Legacy { "iptables-legacy " } else { "" };
            for chain in &table.chains {
                for one in
                    chain.rules.iter().filter(|one| one.matches.iter().any(|m| about(&m.what)))
                {
                    let place = format!("{engine}{} {} {}", table.family, table.name, chain.name);
                    let mut branch = rule(one);
                    branch.cells.insert(0, cell(shown(&place), Tone::Faint));
                    rows.push(branch);
                }
            }
        }
        section("firewall rules that name it", self.cut(rows))
    }

    fn ports_through(&self, bridge: &LinkId) -> Vec<Published<'a>> {
        let behind: BTreeSet<&Netns> = members(self.sight, bridge)
            .filter_map(|member| self.sight.links.get(member)?.leads_to.as_ref())
            .map(|far| &far.netns)
            .collect();
        let through = |port: &Published<'_>| {
            let on = port.to.is_none_or(|to| self.is_on(bridge, to));
            on && port.netns.is_some_and(|netns| behind.contains(netns))
        };
        published(self.sight).into_iter().filter(through).collect()
    }

    fn is_on(&self, bridge: &LinkId, addr: IpAddr) -> bool {
        let addrs = self.sight.links.get(bridge).map(|facts| facts.addrs.as_slice());
        let addrs = addrs.unwrap_or_default();
        addrs.is_empty() || addrs.iter().any(|net| net.contains(&addr))
    }

    fn network(&self, runtime: Runtime, name: &str) -> Vec<Option<Branch>> {
        let spaces = self.sight.spaces.values().filter(|space| space.is_on(runtime, name));
        let on = |w: &&Workload| w.networks.iter().any(|n| n == name);
        let rows = spaces.flat_map(|space| space.workloads.iter().filter(on));
        let rows = rows.map(|workload| pair("container", owner(workload)));
        let mut sections = vec![section("containers", self.cut(rows.collect()))];
        for bridge in bridges(self.sight, runtime, name) {
            let name = cell(format!("bridge {}", shown(bridge.name.as_str())), Tone::Name);
            sections.push(Some(Branch { cells: vec![name], children: Vec::new() }));
            sections.extend(self.link(bridge));
        }
        sections
    }

    /// The first rows, and how many there are.
    fn cut(&self, mut rows: Vec<Branch>) -> Vec<Branch> {
        if !self.detail.rules && rows.len() > ROWS {
            let more = rows.len() - ROWS;
            rows.truncate(ROWS);
            rows.push(pair("…", format!("and {more} more (inspect --rules)")));
        }
        rows
    }
}

/// Whether a match is about an interface or its subnets.
fn names(what: &What, interface: &str, addrs: &[ipnet::IpNet]) -> bool {
    let called = |pattern: &str| match pattern.strip_suffix('*') {
        Some(start) => interface.starts_with(start),
        None => pattern == interface,
    };
    match what {
        What::InInterface(name) | What::OutInterface(name) => called(name),
        What::Source(net) | What::Destination(net) => {
            // Every link has a subnet of its own that begins with fe80.
            let mut own = addrs.iter().filter(|own| !is_link_local(own.addr()));
            net.prefix_len() > 0 && own.any(|own| own.trunc().contains(&net.addr()))
        }
        What::AnyOf(some) => some.iter().any(|what| names(what, interface, addrs)),
        _ => false,
    }
}

fn is_link_local(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => addr.is_link_local(),
        IpAddr::V6(addr) => addr.is_unicast_link_local(),
    }
}

fn destination(dst: &ipnet::IpNet) -> String {
    match (dst.prefix_len(), dst) {
        (0, ipnet::IpNet::V4(_)) => "default".to_owned(),
        (0, ipnet::IpNet::V6(_)) => "default (IPv6)".to_owned(),
        _ => dst.to_string(),
    }
}

fn route(route: &SeenRoute) -> Branch {
    let hops = route.hops.iter().map(|hop| {
        let via = hop.via.map(|via| format!("via {via} ")).unwrap_or_default();
        let out = hop.out.as_ref().map(|out| format!("dev {}", shown(out))).unwrap_or_default();
        format!("{via}{out}").trim_end().to_owned()
    });
    let hops: Vec<String> = hops.collect();
    let mut words = Vec::new();
    words.extend(route.src.map(|src| format!("src {src}")));
    words.extend((route.metric > 0).then(|| format!("metric {}", route.metric)));
    words.extend(route.mtu.map(|mtu| format!("mtu {mtu}")));
    words.push(route.protocol.clone());
    let unicast = route.kind == "unicast";
    let table = match route.table {
        254 => String::new(),
        253 => "table default".to_owned(),
        255 => "table local".to_owned(),
        table => format!("table {table}"),
    };
    row([
        cell(destination(&route.dst), Tone::Plain),
        cell(
            if unicast { hops.join(", ") } else { route.kind.clone() },
            if unicast { Tone::Plain } else { Tone::Bad },
        ),
        cell(words.join("  "), Tone::Faint),
        cell(table, Tone::Plain),
    ])
}

/// Policy rules beside the kernel's own, which are the same everywhere.
fn policy(inside: &Interior) -> Option<Branch> {
    let usual = |rule: &&PolicyRule| {
        let kept = [(0, "lookup local"), (32_766, "lookup main"), (32_767, "lookup default")];
        rule.when == "from all" && kept.contains(&(rule.priority, rule.action.as_str()))
    };
    let rows = inside.rules.iter().filter(|rule| !usual(rule)).map(|rule| {
        let version = if rule.ipv6 { "IPv6" } else { "IPv4" };
        row([
            cell(version, Tone::Faint),
            cell(format!("{}:", rule.priority), Tone::Plain),
            cell(shown(&rule.when), Tone::Plain),
            cell(shown(&rule.action), Tone::Name),
        ])
    });
    section("policy rules", rows.collect())
}

fn resolver(inside: &Interior) -> Option<Branch> {
    let found = inside.resolver.as_ref()?;
    let mut rows = vec![pair("servers", list(&found.servers))];
    for (what, words) in [("search", &found.search), ("options", &found.options)] {
        if !words.is_empty() {
            rows.push(pair(what, shown(&words.join(" "))));
        }
    }
    rows.push(pair("as of", format!("process {}", found.pid)));
    section("resolver", rows)
}

/// Switches that stand at what decides something: forwarding, and all that is not off.
fn switches(inside: &Interior) -> Option<Branch> {
    let matters = |name: &str| {
        matches!(name, "ipv4/ip_forward" | "ipv6/conf/all/forwarding")
            || name.starts_with("bridge/")
            || name.starts_with("netfilter/nf_conntrack_c")
            || name == "netfilter/nf_conntrack_max"
            || name.ends_with("/rp_filter")
            || name.ends_with("/route_localnet")
            || name.ends_with("/proxy_arp")
            || name.ends_with("/disable_ipv6")
            || name.ends_with("/accept_local")
    };
    let always = |name: &str| !name.contains("/conf/") || name.ends_with("all/forwarding");
    let set = inside.switches.iter().filter(|(_, value)| *value != "0");
    let off = inside.switches.iter().filter(|(name, value)| *value == "0" && always(name));
    let mut all: Vec<_> = set.chain(off).filter(|(name, _)| matters(name)).collect();
    all.sort();
    section(
        "switches",
        all.into_iter().map(|(name, value)| pair(&shown(name), shown(value))).collect(),
    )
}

fn switches_of(inside: &Interior, wanted: impl Fn(&str) -> bool) -> Option<Branch> {
    let all = inside.switches.iter().filter(|(name, value)| wanted(name) && *value != "0");
    section("switches", all.map(|(name, value)| pair(&shown(name), shown(value))).collect())
}

fn unseen(inside: &Interior) -> Option<Branch> {
    let row =
        |line: &String| Branch { cells: vec![cell(shown(line), Tone::Bad)], children: vec![] };
    section("not seen", inside.unseen.iter().map(row).collect())
}

fn rule(one: &Rule) -> Branch {
    let handle = if one.handle > 0 { format!("#{}", one.handle) } else { String::new() };
    let comment = one.comment.as_ref().map(|text| format!("\"{text}\"")).unwrap_or_default();
    let counted = one.counted.map(|counted| match counted {
        (0, _) => "0 packets".to_owned(),
        (packets, bytes) => format!("{packets} packets {bytes} bytes"),
    });
    row([
        cell(handle, Tone::Faint),
        cell(shown(&one.to_string()), Tone::Plain),
        cell(shown(&comment), Tone::Faint),
        cell(counted.unwrap_or_default(), Tone::Faint),
    ])
}

fn counters(facts: &LinkFacts) -> Option<Branch> {
    let c = &facts.counters;
    let way =
        |packets, bytes, dropped| format!("{packets} packets  {bytes} bytes  dropped {dropped}");
    section(
        "traffic",
        vec![
            pair("in", way(c.rx_packets, c.rx_bytes, c.rx_dropped)),
            pair("out", way(c.tx_packets, c.tx_bytes, c.tx_dropped)),
        ],
    )
}

fn state(facts: &LinkFacts) -> (String, Tone) {
    match is_up(facts) {
        true => ("● up".to_owned(), Tone::Good),
        false => (format!("○ {}", facts.operstate), Tone::Faint),
    }
}

/// A heading with its rows; none without.
fn section(title: impl Display, rows: Vec<Branch>) -> Option<Branch> {
    let cells = vec![cell(title, Tone::Name)];
    (!rows.is_empty()).then_some(Branch { cells, children: rows })
}

fn pair(what: &str, text: String) -> Branch {
    Branch { cells: vec![cell(what, Tone::Faint), cell(text, Tone::Plain)], children: Vec::new() }
}

fn row(cells: [Cell; 4]) -> Branch {
    Branch { cells: cells.into(), children: Vec::new() }
}
