//! Finds what breaks container networks, and says why and what to do. Judges what was seen: a check
//! that lacks a fact says so, and never takes what it does not know for healthy or for broken.
//!
//! # Theory of operation
//!
//! A [`Check`] is a row of [`CHECKS`]: an identifier that does not change, and a function that looks
//! at an [`Exam`], which is the sight with what all checks need to know of it: which links hear each
//! other (segments), and by which link of which namespace a container's default route leads on
//! (ways). What it finds is a [`Finding`] each; what it could not look at is an [`Unchecked`].
//!
//! The firewall is judged by packets: one is made up for each network and walked through the rules
//! (`packet`). Only what happens to it for certain is found; a rule that is not understood may do
//! anything.

mod exam;
mod packet;
mod forwarding;
mod firewall;
mod addresses;
mod links;
mod reach;
mod conntrack;
mod names;
mod ports;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::exam::Exam;
use crate::{
    handle::{Meaning, meanings},
    map::some,
    model::{LinkId, Netns},
    name::{acts, shown},
    sight::{Sight, Space},
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing; nothing need be wrong.
    Note,
    /// Something does not work at times, or will not soon.
    Warning,
    /// Packets are lost.
    Problem,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 3] = [Self::Problem, Self::Warning, Self::Note];

    /// Its name as people and options have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that is looked for.
#[derive(Clone, Copy, Debug)]
pub struct Check {
    /// Does not change; also the anchor of its explanation in docs/doctor.md.
    pub id: &'static str,
    /// The worst that it finds.
    pub severity: Severity,
    /// What it finds, in one line.
    pub title: &'static str,
    run: fn(&Exam<'_>, &mut Found),
}

const fn check(
    id: &'static str,
    severity: Severity,
    title: &'static str,
    run: fn(&Exam<'_>, &mut Found),
) -> Check {
    Check { id, severity, title, run }
}

use Severity::{Note, Problem, Warning};

/// Every check, in the order a packet would meet what it is about.
pub const CHECKS: &[Check] = &[
    check(
        "forwarding-off",
        Problem,
        "the kernel does not forward what containers send out",
        forwarding::off,
    ),
    check(
        "rp-filter-strict",
        Warning,
        "strict reverse-path filtering where answers may come by another way",
        forwarding::strict,
    ),
    check(
        "ipv6-default-route-lost",
        Warning,
        "forwarding makes the uplink deaf to IPv6 router advertisements",
        forwarding::deaf,
    ),
    check(
        "ipv6-disabled",
        Warning,
        "IPv6 is switched off on a link of a network that has it",
        forwarding::disabled,
    ),
    check(
        "forward-dropped",
        Problem,
        "a firewall that knows nothing of a network drops what it forwards",
        firewall::dropped,
    ),
    check(
        "bridge-netfilter",
        Problem,
        "frames that stay on a bridge are dropped by the firewall for IP",
        firewall::bridged,
    ),
    check(
        "bridge-dropped",
        Problem,
        "a firewall of the bridge itself drops all between its ports",
        firewall::frames,
    ),
    check(
        "masquerade-missing",
        Problem,
        "private addresses leave the host as they are",
        firewall::masquerade,
    ),
    check(
        "legacy-beside-nft",
        Warning,
        "two firewalls decide, and neither's tools show the other",
        firewall::legacy,
    ),
    check(
        "duplicate-address",
        Problem,
        "one address is in two places of a network",
        addresses::duplicate_address,
    ),
    check(
        "duplicate-mac",
        Problem,
        "one hardware address is in two places of a network",
        addresses::duplicate_mac,
    ),
    check(
        "gateway-unreachable",
        Problem,
        "a default route leads to an address that nobody on the network has",
        addresses::gateway,
    ),
    check(
        "default-route-missing",
        Warning,
        "a container has no way out of a network that has one",
        addresses::no_default_route,
    ),
    check(
        "subnet-overlap",
        Problem,
        "a network's addresses are also reached by another route",
        addresses::overlap,
    ),
    check(
        "prefix-mismatch",
        Problem,
        "a container takes more or less for its network than the bridge does",
        reach::prefix,
    ),
    check(
        "route-blackholed",
        Problem,
        "a rule or a route throws away what containers send or get",
        reach::blackholed,
    ),
    check(
        "neighbour-table-full",
        Problem,
        "the kernel's table of neighbours is near its limit",
        addresses::neighbours,
    ),
    check(
        "mtu-step",
        Problem,
        "large packets vanish between links of one network",
        links::mtu_step,
    ),
    check(
        "mtu-tunnel",
        Problem,
        "a tunnel's packets are too large for what carries them",
        links::mtu_tunnel,
    ),
    check(
        "mtu-uplink",
        Warning,
        "containers may send larger packets than the uplink takes",
        links::mtu_uplink,
    ),
    check("port-down", Problem, "a container's cable or bridge is down", links::port_down),
    check(
        "bridge-port-blocked",
        Problem,
        "a bridge passes nothing through a container's port, or not between some",
        reach::port_blocked,
    ),
    check(
        "bridge-ports",
        Problem,
        "a bridge is near the most ports it can have",
        links::bridge_ports,
    ),
    check("orphan-veth", Warning, "a cable leads nowhere", links::orphan_veth),
    check(
        "orphan-namespace",
        Note,
        "a namespace is kept by a mounted name alone",
        links::orphan_namespace,
    ),
    check(
        "hidden-namespace",
        Note,
        "a namespace with links is kept by what other tools do not show",
        links::hidden_namespace,
    ),
    check(
        "published-not-led",
        Problem,
        "nothing on the host leads a published port on",
        ports::not_led,
    ),
    check(
        "published-no-listener",
        Warning,
        "nobody listens where a published port leads",
        ports::no_listener,
    ),
    check(
        "published-loopback-listener",
        Problem,
        "where a published port leads, only the loopback is listened on",
        ports::loopback_listener,
    ),
    check(
        "published-conflict",
        Problem,
        "two containers have the same port published",
        ports::conflict,
    ),
    check("conntrack-full", Problem, "connection tracking is near its limit", conntrack::full),
    check(
        "conntrack-stale",
        Problem,
        "a UDP flow still leads to where its port led before",
        conntrack::stale,
    ),
    check(
        "resolver-loopback",
        Problem,
        "names are asked of a loopback address where nobody answers",
        names::loopback,
    ),
];

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub check: &'static str,
    pub severity: Severity,
    /// What people call that which it is about: namespaces, containers, links. Safe to print.
    pub of: Vec<String>,
    /// The links that it is about, and those that it concerns.
    pub links: BTreeSet<LinkId>,
    /// The namespaces that it is about, and those that it concerns.
    pub spaces: BTreeSet<Netns>,
    pub what: String,
    pub why: String,
    /// Commands that mend it, to be run one after the other; a remark begins with `#`.
    pub todo: Vec<String>,
}

/// A check that could not be made somewhere, or anywhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unchecked {
    pub check: &'static str,
    pub why: String,
    /// The namespaces, as people call them, in which it could not be made.
    pub of: Vec<String>,
}

/// What to look for, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Handles of containers, networks, namespaces and links; everything, if empty.
    pub of: Vec<String>,
    /// Only these checks, if there are any.
    pub only: Vec<String>,
    pub skip: Vec<String>,
}

/// All that was found, the worst first, and what could not be looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
    pub unchecked: Vec<Unchecked>,
    /// Of the namespaces that were asked for, as people call them, those of which nothing could be
    /// read: nothing is said of them.
    pub unread: Vec<String>,
    /// How many checks were made.
    pub checks: usize,
}

impl Report {
    /// The worst severity of what was found.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    /// Has commands lead through `holder`, a process in the user and network namespaces that are
    /// the host here: for whoever runs them stands outside.
    pub fn lead_through(&mut self, holder: u32) {
        const TOOLS: [&str; 9] = [
            "sysctl",
            "ip",
            "bridge",
            "nft",
            "iptables",
            "ip6tables",
            "iptables-legacy",
            "ip6tables-legacy",
            "conntrack",
        ];
        const OWN: &str = "-U --preserve-credentials -n";
        for line in self.findings.iter_mut().flat_map(|finding| &mut finding.todo) {
            let tool = line.split(' ').next().unwrap_or_default();
            if let Some(rest) = line.strip_prefix("nsenter ") {
                *line = format!("nsenter {}", rest.replacen(" -n ", &format!(" {OWN} "), 1));
            } else if TOOLS.contains(&tool) {
                *line = format!("nsenter -t {holder} {OWN} {line}");
            }
        }
    }

    /// How many findings there are of a severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// Makes the checks. A handle that nothing is called by comes back as the error.
pub fn examine(sight: &Sight, asked: &Asked) -> Result<Report, String> {
    let scope = Scope::of(sight, &asked.of)?;
    let exam = Exam::of(sight);
    let mut report = Report::default();
    let wanted = |check: &&Check| {
        let named = |list: &[String]| list.iter().any(|id| id == check.id);
        (asked.only.is_empty() || named(&asked.only)) && !named(&asked.skip)
    };
    for check in CHECKS.iter().filter(wanted) {
        let mut found = Found { check: check.id, findings: Vec::new(), unchecked: BTreeMap::new() };
        (check.run)(&exam, &mut found);
        report.checks += 1;
        report.findings.extend(found.findings.into_iter().filter(|it| scope.covers(it)));
        for (why, spaces) in found.unchecked {
            let spaces: Vec<&Netns> = spaces.iter().filter(|it| scope.covers_space(it)).collect();
            if !spaces.is_empty() || scope.all {
                let of = spaces.into_iter().map(|netns| sight.label(netns)).collect();
                report.unchecked.push(Unchecked { check: check.id, why, of });
            }
        }
    }
    report.unread = scope.unread(sight);
    report.findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    Ok(report)
}

/// What the handles name.
struct Scope {
    all: bool,
    spaces: BTreeSet<Netns>,
    links: BTreeSet<LinkId>,
}

impl Scope {
    fn of(sight: &Sight, handles: &[String]) -> Result<Self, String> {
        let mut scope =
            Self { all: handles.is_empty(), spaces: BTreeSet::new(), links: BTreeSet::new() };
        for handle in handles {
            let meanings = meanings(sight, handle);
            if meanings.is_empty() {
                return Err(handle.clone());
            }
            meanings.iter().for_each(|meaning| scope.take(sight, meaning));
        }
        Ok(scope)
    }

    /// Takes in what one handle means.
    fn take(&mut self, sight: &Sight, meaning: &Meaning<'_>) {
        match meaning {
            Meaning::Namespace(netns) | Meaning::Container(netns, _) => {
                self.spaces.insert((*netns).clone());
            }
            Meaning::Network(runtime, name) => {
                let on = |space: &Space| {
                    let mut all = space.workloads.iter().filter(|it| it.runtime == *runtime);
                    all.any(|it| it.networks.iter().any(|network| network == name))
                };
                let spaces = sight.spaces.iter().filter(|(_, space)| on(space));
                self.spaces.extend(spaces.map(|(netns, _)| netns.clone()));
            }
            Meaning::Link(id) => {
                // A bridge's name stands for the network, one end of a cable for both.
                let ports = sight.links.iter();
                let ports = ports.filter(|(_, facts)| facts.master.as_ref() == Some(*id));
                let own = sight.links.get_key_value(*id);
                for (id, facts) in ports.chain(own) {
                    self.links.insert(id.clone());
                    self.links.extend(facts.leads_to.clone());
                }
            }
        }
    }

    fn covers(&self, finding: &Finding) -> bool {
        self.all
            || !self.spaces.is_disjoint(&finding.spaces)
            || !self.links.is_disjoint(&finding.links)
    }

    /// The namespaces among them that could not be looked into: even a bare one has a loopback.
    fn unread(&self, sight: &Sight) -> Vec<String> {
        let read: BTreeSet<&Netns> = sight.links.keys().map(|id| &id.netns).collect();
        let unread = self.spaces.iter().filter(|netns| !read.contains(netns));
        unread.map(|netns| sight.label(netns)).collect()
    }

    fn covers_space(&self, netns: &Netns) -> bool {
        self.all || self.spaces.contains(netns) || self.links.iter().any(|id| id.netns == *netns)
    }
}

/// What one check finds.
struct Found {
    check: &'static str,
    findings: Vec<Finding>,
    unchecked: BTreeMap<String, BTreeSet<Netns>>,
}

/// What a finding says.
struct Told {
    what: String,
    why: String,
    todo: Vec<String>,
}

impl Found {
    fn add(&mut self, severity: Severity, subject: Subject, told: Told) {
        let Subject { of, links, mut spaces } = subject;
        spaces.extend(links.iter().map(|id| id.netns.clone()));
        let Told { what, why, todo } = told;
        self.findings.push(Finding {
            check: self.check,
            severity,
            of,
            links,
            spaces,
            what,
            why,
            todo,
        });
    }

    /// Says that the check could not be made in a namespace.
    fn not_checked(&mut self, netns: &Netns, why: &str) {
        self.unchecked.entry(why.to_owned()).or_default().insert(netns.clone());
    }
}

/// What a finding is about.
#[derive(Default)]
struct Subject {
    of: Vec<String>,
    links: BTreeSet<LinkId>,
    spaces: BTreeSet<Netns>,
}

impl Subject {
    fn link(sight: &Sight, id: &LinkId) -> Self {
        let links = [id.clone()].into();
        Self { of: vec![place(sight, id)], links, spaces: BTreeSet::new() }
    }

    fn space(sight: &Sight, netns: &Netns) -> Self {
        let spaces = [netns.clone()].into();
        Self { of: vec![sight.label(netns)], links: BTreeSet::new(), spaces }
    }

    /// Adds what it concerns without naming it.
    fn with(mut self, links: impl IntoIterator<Item = LinkId>) -> Self {
        self.links.extend(links);
        self
    }

    /// Names another link, too.
    fn and(mut self, sight: &Sight, id: &LinkId) -> Self {
        if self.links.insert(id.clone()) {
            self.of.push(place(sight, id));
        }
        self
    }
}

/// A link as people find it again: its name, and whose it is.
fn place(sight: &Sight, id: &LinkId) -> String {
    format!("{} {}", sight.label(&id.netns), shown(id.name.as_str()))
}

/// A word for the shell, quoted where it has to be. What would act on a terminal is written in a way
/// that shells read back (`$'\x1b'`: bash, zsh, POSIX since 2024), so that the command still means it.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-:/@%+,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    match text.chars().any(acts) {
        true => spelled(&shown(&text.replace('\\', r"\x5c"))),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

/// The same for what [`IfName::spelled`] has spelled: there a backslash begins a byte.
///
/// [`IfName::spelled`]: crate::name::IfName::spelled
fn spelled(text: &str) -> String {
    match text.contains('\\') {
        true => format!("$'{}'", text.replace('\'', r"\x27")),
        false => word(text),
    }
}

/// A link's name in a rule for `nft`, which has quotes of its own: for names with other characters
/// than those of its own names, and for those that may be words of its language, as `fwd`. None of
/// these that is as short has a dash in it or a digit at its end.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    let may_be_word = !name.contains('-') && !name.ends_with(|c: char| c.is_ascii_digit());
    match () {
        () if is_name && !may_be_word => name.to_owned(),
        () if name.contains('\\') => spelled(&format!("\"{name}\"")),
        // At the end it would stand for any rest.
        () => word(&format!("\"{}\"", name.replace('*', r"\*"))),
    }
}

/// Whether `nft` can be told of a link by [`quoted`] and of a table and a chain by their names: it has
/// no way to write a quote, and no quotes for others than links.
fn is_told_to_nft(link: &str, names: [&str; 2]) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    let is_name =
        |name: &str| name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(plain);
    !link.contains('"') && names.into_iter().all(is_name)
}

/// What is said in place of a command for `nft` that cannot be written.
const BY_HAND: &str = "# accept it in that chain: names there cannot be written for nft";

/// The beginning of a command that is to be run inside a namespace: empty on the host.
fn within(sight: &Sight, netns: &Netns) -> String {
    let Netns::Container(handle) = netns else { return String::new() };
    let pid = sight.spaces.get(netns).and_then(|space| {
        let first = space.holders.iter().find_map(|holder| match holder {
            crate::sight::Holder::Process { pid, .. } => Some(*pid),
            _ => None,
        });
        space.workloads.iter().find_map(|workload| workload.pid).or(first)
    });
    if let Some(pid) = pid {
        return format!("nsenter -t {pid} -n ");
    }
    match handle.as_str().strip_prefix("netns:") {
        // These are names for what cannot be opened.
        Some(path) if path.starts_with("/nsfs/") || path.starts_with("/dev/null/") => {
            "# inside that namespace: ".to_owned()
        }
        Some(path) => format!("nsenter --net={} ", word(path)),
        None => format!("nsenter -t {} -n ", word(handle.as_str().trim_start_matches("pid:"))),
    }
}

/// The command that turns a switch.
fn turn(sight: &Sight, netns: &Netns, switch: &str, value: &str) -> String {
    // With `/` between its parts a name may have dots in it.
    format!("{}sysctl -w {}={value}", within(sight, netns), spelled(&format!("net/{switch}")))
}
