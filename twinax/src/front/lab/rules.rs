//! What a lab file may say: its keys, and what must hold between its parts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Range,
};

use ipnet::IpNet;
use toml::de::DeTable;
use twinax_core::{
    name::{ContainerName, NetworkName, Proto},
    state::{AttachSpec, DEFAULT_NETWORK, Driver, NetworkSpec, PublishSpec},
};

use super::{
    LabContainer, LabFile, Ready,
    reader::{Reader, Table, Value},
    replacing_digest,
};
use crate::front::{
    cli::{self, Mode},
    spelling::{self, Addressing, Misspelt, Part},
};

const LAB_KEYS: [&str; 3] = ["container", "name", "network"];
const NETWORK_KEYS: [&str; 15] = [
    "bridge",
    "driver",
    "gateway",
    "gateway_mode",
    "gateway_mode_ipv4",
    "gateway_mode_ipv6",
    "icc",
    "internal",
    "ipv4",
    "ipv6",
    "labels",
    "mtu",
    "range",
    "reserved",
    "subnet",
];
const CONTAINER_KEYS: [&str; 10] = [
    "depends",
    "dns",
    "env",
    "hostname",
    "network_mode",
    "networks",
    "ports",
    "ready",
    "run",
    "workdir",
];
const ATTACH_KEYS: [&str; 6] = ["aliases", "ifname", "ip", "ip6", "mac", "priority"];
const READY_KEYS: [&str; 2] = ["tcp", "timeout"];
const READY_TIMEOUT_S: u32 = 10;

type Span = Range<usize>;

/// A container with the places that later checks point at.
struct Draft {
    container: LabContainer,
    span: Span,
    attach: Vec<Attach>,
    ports: Vec<Span>,
    depends: Vec<Span>,
    /// Where `network_mode` stands.
    mode: Span,
}

struct Attach {
    spec: AttachSpec,
    span: Span,
    fixed: Vec<(IpAddr, Span)>,
}

pub(super) fn read(text: &str, file: &str, faults: &mut Vec<super::Fault>) -> Option<LabFile> {
    let mut reader = Reader { text, faults };
    let root = match DeTable::parse(text) {
        Ok(root) => root,
        Err(error) => {
            let span = error.span().unwrap_or(text.len()..text.len());
            reader.fault(&span, error.message());
            return None;
        }
    };
    let title = "a lab file".to_owned();
    let root = Table { entries: root.get_ref(), span: 0..0, title };
    reader.known(&root, &LAB_KEYS);
    let name = reader.name(&root, file);
    let networks = reader.networks(&root);
    let drafts = reader.containers(&root);
    reader.check_overlaps(&networks);
    reader.check_networks(&networks, &drafts);
    reader.check_ports(&drafts);
    let drafts = reader.in_order(drafts)?;
    let networks = networks.into_iter().map(|(name, it)| (name, it.spec.unwrap_or_default()));
    let networks = networks.collect();
    Some(LabFile { path: String::new(), name: name?, networks, containers: digested(drafts) })
}

fn digested(drafts: Vec<Draft>) -> Vec<LabContainer> {
    let mut digests = BTreeMap::new();
    let mut containers = Vec::new();
    for Draft { mut container, .. } in drafts {
        let shared = match &container.mode {
            Mode::Of(name) => digests.get(name).map(String::as_str),
            _ => None,
        };
        container.digest = replacing_digest(&container, shared);
        digests.insert(container.name.clone(), container.digest.clone());
        containers.push(container);
    }
    containers
}

/// A network whose specification could not be read is known by name all the same.
type Networks = BTreeMap<NetworkName, Described>;

struct Described {
    spec: Option<NetworkSpec>,
    /// Its name in the header.
    span: Span,
}

fn lab_name(text: &str) -> Result<String, Misspelt> {
    // Labs are named as networks are: both names end up as labels of networks.
    let name = text.parse::<NetworkName>().map(String::from);
    name.map_err(|bad| Misspelt(format!("{text:?} does not do as a lab's name: {}", bad.why)))
}

impl Reader<'_> {
    fn name(&mut self, root: &Table<'_, '_>, file: &str) -> Option<String> {
        let named = match root.get("name") {
            Some(value) => self.read(value, "name", lab_name)?,
            None => {
                let stem = std::path::Path::new(file).file_stem().and_then(|s| s.to_str());
                let stem = stem.and_then(|stem| lab_name(stem).ok());
                let Some(stem) = stem else {
                    let what = "the file's own name does not do as the lab's: give one";
                    self.fault_with(&(0..0), what, Some("name = \"mylab\"".to_owned()));
                    return None;
                };
                stem
            }
        };
        Some(named)
    }

    /// The tables `[kind.NAME]`, in the order of the file.
    fn named<'v, 't>(
        &mut self,
        root: &Table<'v, 't>,
        kind: &str,
    ) -> Vec<(&'v str, Span, &'v Value<'t>)> {
        let Some(value) = root.get(kind) else { return Vec::new() };
        let Some(tables) = value.get_ref().as_table() else {
            let hint = Some(format!("write [{kind}.NAME] above its keys"));
            self.fault_with(&value.span(), format!("{kind} is a table of tables"), hint);
            return Vec::new();
        };
        let mut tables: Vec<_> =
            tables.iter().map(|(key, value)| (&**key.get_ref(), key.span(), value)).collect();
        tables.sort_by_key(|(_, span, _)| span.start);
        tables
    }

    fn networks(&mut self, root: &Table<'_, '_>) -> Networks {
        let mut networks = Networks::new();
        for (name, span, value) in self.named(root, "network") {
            let table = self.table(value, format!("[network.{name}]"), &NETWORK_KEYS);
            let name = self.word::<NetworkName>(&span, name);
            if name.as_ref().is_some_and(|name| name.as_str() == DEFAULT_NETWORK) {
                self.fault(&span, "the network `default` is there without being described");
            }
            let spec = table.and_then(|table| self.network(&table, &span));
            if let Some(name) = name {
                networks.insert(name, Described { spec, span });
            }
        }
        networks
    }

    fn network(&mut self, table: &Table<'_, '_>, span: &Span) -> Option<NetworkSpec> {
        let before = self.faults.len();
        let mode = self.value(table, "gateway_mode", spelling::gateway_mode);
        let mode4 = self.value(table, "gateway_mode_ipv4", spelling::gateway_mode).or(mode);
        let mode6 = self.value(table, "gateway_mode_ipv6", spelling::gateway_mode).or(mode);
        let (ipv6, wanted) = self.ipv6(table);
        let mut spec = NetworkSpec {
            driver: self.value(table, "driver", spelling::driver).unwrap_or(Driver::Bridge),
            no_ipv4: !self.flag(table, "ipv4").unwrap_or(true),
            ipv6,
            subnets: Vec::new(),
            internal: self.flag(table, "internal").unwrap_or(false),
            no_icc: !self.flag(table, "icc").unwrap_or(true),
            mode4: mode4.unwrap_or_default(),
            mode6: mode6.unwrap_or_default(),
            mtu: self.mtu(table),
            bridge: self.value(table, "bridge", spelling::word),
            labels: self.labels(table),
        };
        spec.subnets = self.addressing(table, wanted)?;
        match spelling::settle(spec) {
            Ok(spec) => (self.faults.len() == before).then_some(spec),
            Err(why) => {
                self.fault(span, format!("{}: {why}", table.title));
                None
            }
        }
    }

    fn value<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, Misspelt>,
    ) -> Option<T> {
        table.get(key).and_then(|value| self.read(value, key, read))
    }

    /// `ipv6 = true`, or the subnet at once.
    fn ipv6<'v, 't>(&mut self, table: &Table<'v, 't>) -> (bool, Option<&'v Value<'t>>) {
        match table.get("ipv6") {
            Some(value) if value.get_ref().is_str() => (true, Some(value)),
            _ => (self.flag(table, "ipv6").unwrap_or(false), None),
        }
    }

    fn mtu(&mut self, table: &Table<'_, '_>) -> Option<u32> {
        let value = table.get("mtu")?;
        let number: u32 = self.integer(value, "mtu")?;
        match spelling::mtu(&number.to_string()) {
            Ok(mtu) => Some(mtu),
            Err(why) => {
                self.fault(&value.span(), format!("mtu: {why}"));
                None
            }
        }
    }

    fn labels(&mut self, table: &Table<'_, '_>) -> BTreeMap<String, String> {
        let labels = self.texts(table, "labels");
        let labels = labels.into_iter().filter_map(|(key, span, value)| {
            match spelling::label(&format!("{key}={value}")) {
                Ok(label) => Some(label),
                Err(why) => {
                    self.fault(&span, why.to_string());
                    None
                }
            }
        });
        labels.collect()
    }

    /// A table of texts.
    fn texts(&mut self, table: &Table<'_, '_>, key: &str) -> Vec<(String, Span, String)> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let Some(entries) = value.get_ref().as_table() else {
            let what = format!("{key} is a table of texts, as {{ KEY = \"value\" }}");
            self.fault(&value.span(), what);
            return Vec::new();
        };
        let mut texts = Vec::new();
        for (name, value) in entries {
            if let Some(text) = self.string(value, name.get_ref()) {
                texts.push((name.get_ref().to_string(), name.span(), text.to_owned()));
            }
        }
        texts
    }

    /// Each of the key's values, with its place.
    fn each<T>(
        &mut self,
        table: &Table<'_, '_>,
        key: &str,
        read: impl Fn(&str) -> Result<T, Misspelt>,
    ) -> (Vec<T>, Vec<Span>) {
        let values = self.some(table.get(key));
        let read = values
            .into_iter()
            .filter_map(|value| self.read(value, key, &read).map(|read| (read, value.span())));
        read.unzip()
    }

    fn addressing(
        &mut self,
        table: &Table<'_, '_>,
        ipv6: Option<&Value<'_>>,
    ) -> Option<Vec<twinax_core::state::SubnetSpec>> {
        let before = self.faults.len();
        let address = |text: &str| spelling::number::<IpAddr>(text, "an address, as 10.1.0.1");
        let (mut subnets, mut subnet_spans) = self.each(table, "subnet", spelling::subnet);
        if let Some(value) = ipv6 {
            let v6 = |text: &str| match spelling::subnet(text)? {
                net @ IpNet::V6(_) => Ok(net),
                net => Err(Misspelt(format!("{net} is not an IPv6 subnet"))),
            };
            subnets.extend(self.read(value, "ipv6", v6));
            subnet_spans.push(value.span());
        }
        let (gateways, gateway_spans) = self.each(table, "gateway", address);
        let (ranges, range_spans) = self.each(table, "range", spelling::subnet);
        let mut reserved = Vec::new();
        let mut reserved_spans = Vec::new();
        for (name, span, text) in self.texts(table, "reserved") {
            match address(&text) {
                Ok(addr) => {
                    reserved.push((name, addr));
                    reserved_spans.push(span);
                }
                Err(why) => self.fault(&span, format!("reserved: {why}")),
            }
        }
        if self.faults.len() != before {
            return None;
        }
        match (Addressing { subnets, gateways, ranges, reserved }).resolve() {
            Ok(specs) => Some(specs),
            Err(misplaced) => {
                let spans = match misplaced.part {
                    Part::Subnet => &subnet_spans,
                    Part::Gateway => &gateway_spans,
                    Part::Range => &range_spans,
                    Part::Reserved => &reserved_spans,
                };
                self.fault(&spans[misplaced.index], misplaced.why);
                None
            }
        }
    }

    fn containers(&mut self, root: &Table<'_, '_>) -> Vec<Draft> {
        let mut drafts = Vec::new();
        for (name, span, value) in self.named(root, "container") {
            let title = format!("[container.{name}]");
            let table = self.table(value, title, &CONTAINER_KEYS);
            let good = self.word::<ContainerName>(&span, name);
            if name.contains(':') {
                self.fault(&span, "a lab's container is named by letters and digits, not by ':'");
            } else if let (Some(table), Some(name)) = (table, good) {
                drafts.push(self.container(&table, name, span));
            }
        }
        drafts
    }

    fn container(&mut self, table: &Table<'_, '_>, name: ContainerName, span: Span) -> Draft {
        let (publish, ports) = self.each(table, "ports", spelling::publish);
        let (mut depends, mut depends_spans) = self.each(table, "depends", spelling::word);
        let (mode, mode_span) = self.mode(table, &span);
        if let Mode::Of(name) = &mode {
            depends.push(name.clone());
            depends_spans.push(mode_span.clone());
        }
        let attach = match mode {
            Mode::Networks(_) => self.attachments(table),
            _ => Vec::new(),
        };
        let mode = match mode {
            Mode::Networks(_) => Mode::Networks(attach.iter().map(|a| a.spec.clone()).collect()),
            mode => mode,
        };
        let address = |text: &str| spelling::number::<IpAddr>(text, "an address, as 10.1.0.1");
        let env = self.texts(table, "env").into_iter().map(|(key, _, value)| (key, value));
        let container = LabContainer {
            name,
            mode,
            publish,
            run: self.command(table, &span),
            env: env.collect(),
            hostname: self.value(table, "hostname", spelling::word),
            dns: self.each(table, "dns", address).0,
            workdir: self.value(table, "workdir", |text| Ok(text.to_owned())),
            depends,
            ready: self.ready(table),
            digest: String::new(),
        };
        Draft { container, span, attach, ports, depends: depends_spans, mode: mode_span }
    }

    fn command(&mut self, table: &Table<'_, '_>, span: &Span) -> Vec<String> {
        let Some(value) = table.get("run") else {
            let what = format!("{} lacks `run`: what it does", table.title);
            self.fault_with(span, what, Some("run = [\"sleep\", \"1d\"]".to_owned()));
            return Vec::new();
        };
        let words = self.list(value, "run").unwrap_or_default();
        if value.get_ref().is_array() && words.is_empty() {
            self.fault(&value.span(), "run is empty; its first word is the program");
        }
        words.iter().filter_map(|word| self.string(word, "run").map(str::to_owned)).collect()
    }

    fn mode(&mut self, table: &Table<'_, '_>, span: &Span) -> (Mode, Span) {
        let Some(value) = table.get("network_mode") else {
            return (Mode::Networks(Vec::new()), span.clone());
        };
        let expected = || Misspelt("it is \"none\", \"host\" or \"container:NAME\"".to_owned());
        let read = |text: &str| cli::special(text).unwrap_or_else(|| Err(expected()));
        let Some(mode) = self.read(value, "network_mode", read) else {
            return (Mode::None, value.span());
        };
        let without: &[&str] = match mode {
            Mode::Of(_) => &["networks", "ports", "hostname", "dns"],
            _ => &["networks", "ports"],
        };
        for key in without {
            if let Some(other) = table.get(key) {
                let what = format!("{key} cannot be used with this network_mode");
                self.fault(&other.span(), what);
            }
        }
        (mode, value.span())
    }

    fn attachments(&mut self, table: &Table<'_, '_>) -> Vec<Attach> {
        let default = DEFAULT_NETWORK.parse().expect("the default network's name is a name");
        let Some(value) = table.get("networks") else {
            let (spec, span) = (AttachSpec::new(default), table.span.clone());
            return vec![Attach { spec, span, fixed: Vec::new() }];
        };
        let attach = match value.get_ref().as_table() {
            None => self.plain_attachments(value),
            Some(entries) => {
                let mut entries: Vec<_> = entries.iter().collect();
                entries.sort_by_key(|(key, _)| key.span().start);
                let named = entries.into_iter().filter_map(|(key, value)| {
                    let network = self.word(&key.span(), key.get_ref());
                    let title = format!("networks.{} of {}", key.get_ref(), table.title);
                    let inner = self.table(value, title, &ATTACH_KEYS)?;
                    Some(self.attachment(&inner, network?, key.span()))
                });
                named.collect()
            }
        };
        let empty = match value.get_ref() {
            toml::de::DeValue::Array(list) => list.is_empty(),
            toml::de::DeValue::Table(entries) => entries.is_empty(),
            _ => false,
        };
        if empty {
            let hint = Some("network_mode = \"none\" leaves it alone".to_owned());
            self.fault_with(&value.span(), "networks is empty", hint);
        }
        attach
    }

    fn plain_attachments(&mut self, value: &Value<'_>) -> Vec<Attach> {
        let mut attach: Vec<Attach> = Vec::new();
        for value in self.list(value, "networks").unwrap_or_default() {
            let Some(network) = self.read(value, "networks", spelling::word::<NetworkName>) else {
                continue;
            };
            if attach.iter().any(|other| other.spec.network == network) {
                self.fault(&value.span(), format!("network `{network}` is named twice"));
                continue;
            }
            let spec = AttachSpec::new(network);
            attach.push(Attach { spec, span: value.span(), fixed: Vec::new() });
        }
        attach
    }

    fn attachment(&mut self, table: &Table<'_, '_>, network: NetworkName, span: Span) -> Attach {
        let v4 = |text: &str| spelling::number(text, "an IPv4 address, as 10.1.0.5");
        let v6 = |text: &str| spelling::number(text, "an IPv6 address, as fd00::5");
        let mut spec = AttachSpec::new(network);
        spec.ip = self.value(table, "ip", v4);
        spec.ip6 = self.value(table, "ip6", v6);
        spec.mac = self.value(table, "mac", spelling::word);
        spec.ifname = self.value(table, "ifname", spelling::word);
        spec.aliases = self.each(table, "aliases", spelling::word).0;
        let priority = table.get("priority").and_then(|value| self.integer(value, "priority"));
        spec.gateway_priority = priority.unwrap_or(0);
        let place = |key: &str| table.get(key).map_or_else(|| span.clone(), |v| v.span());
        let v4 = spec.ip.map(|ip| (IpAddr::from(ip), place("ip")));
        let v6 = spec.ip6.map(|ip| (IpAddr::from(ip), place("ip6")));
        let fixed = v4.into_iter().chain(v6).collect();
        Attach { spec, span, fixed }
    }

    fn ready(&mut self, table: &Table<'_, '_>) -> Option<Ready> {
        let value = table.get("ready")?;
        let inner = self.table(value, format!("ready of {}", table.title), &READY_KEYS)?;
        let Some(tcp) = inner.get("tcp") else {
            let hint = Some("ready = { tcp = 80 }".to_owned());
            self.fault_with(&value.span(), "ready lacks `tcp`: the port that is to accept", hint);
            return None;
        };
        let port: u16 = self.integer(tcp, "tcp")?;
        if port == 0 {
            self.fault(&tcp.span(), "tcp is a port from 1 to 65535");
        }
        let timeout = inner.get("timeout").and_then(|value| self.integer(value, "timeout"));
        Some(Ready { tcp: port, timeout_s: timeout.unwrap_or(READY_TIMEOUT_S) })
    }

    /// Two networks of a host may not have an address in common.
    fn check_overlaps(&mut self, networks: &Networks) {
        let mut described: Vec<_> = networks.iter().collect();
        described.sort_by_key(|(_, it)| it.span.start);
        let subnets = described.iter().flat_map(|(name, it)| {
            let specs = it.spec.iter().flat_map(|spec| &spec.subnets);
            specs.map(move |subnet| (*name, subnet.net, &it.span))
        });
        let mut seen: Vec<(&NetworkName, IpNet)> = Vec::new();
        for (name, net, span) in subnets {
            let other = seen.iter().find(|(n, other)| *n != name && spelling::overlap(*other, net));
            if let Some((owner, other)) = other {
                self.fault(span, format!("{net} overlaps {other} of network `{owner}`"));
            }
            seen.push((name, net));
        }
    }

    fn check_networks(&mut self, networks: &Networks, drafts: &[Draft]) {
        let mut fixed: BTreeMap<(&NetworkName, IpAddr), &ContainerName> = BTreeMap::new();
        for draft in drafts {
            for attach in &draft.attach {
                let network = &attach.spec.network;
                let known = networks.get(network);
                if known.is_none() && network.as_str() != DEFAULT_NETWORK {
                    self.no_such_network(networks, attach);
                }
                for (addr, span) in &attach.fixed {
                    let name = &draft.container.name;
                    if let Some(other) = fixed.insert((network, *addr), name) {
                        let what = format!("{addr} on `{network}` is given to `{other}` already");
                        self.fault(span, what);
                    }
                    if let Some(spec) = known.and_then(|known| known.spec.as_ref()) {
                        self.check_fixed(spec, *addr, span);
                    }
                }
            }
        }
    }

    fn no_such_network(&mut self, networks: &Networks, attach: &Attach) {
        let known: Vec<_> = networks.keys().map(NetworkName::as_str).collect();
        let network = &attach.spec.network;
        let hint = match spelling::nearest(network.as_str(), &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("describe it as [network.{network}]"),
        };
        let what = format!("network `{network}` is not in this file");
        self.fault_with(&attach.span, what, Some(hint));
    }

    fn check_fixed(&mut self, spec: &NetworkSpec, addr: IpAddr, span: &Span) {
        let family = spec.subnets.iter().filter(|s| s.net.addr().is_ipv4() == addr.is_ipv4());
        let nets: Vec<_> = family.map(|s| s.net).collect();
        if nets.is_empty() {
            self.fault_with(
                span,
                format!("{addr} can be given only where the network's subnet is"),
                Some("add a subnet to the network".to_owned()),
            );
        } else if !nets.iter().any(|net| net.contains(&addr)) {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            self.fault(span, format!("{addr} is not in the network's {}", nets.join(", ")));
        } else if let Some(taken) = spec.subnets.iter().find(|s| s.gateway == Some(addr)) {
            self.fault(span, format!("{addr} is the gateway of {}", taken.net));
        }
    }

    fn check_ports(&mut self, drafts: &[Draft]) {
        type Taken<'a> = (&'a PublishSpec, &'a ContainerName);
        let mut taken: BTreeMap<(Proto, u16), Vec<Taken<'_>>> = BTreeMap::new();
        for draft in drafts {
            let owner = &draft.container.name;
            for (spec, span) in draft.container.publish.iter().zip(&draft.ports) {
                let mut clash = None;
                for port in certain(spec) {
                    let takers = taken.entry((spec.proto, port)).or_default();
                    clash = clash.or_else(|| takers.iter().find(|t| same_host(t.0, spec)).copied());
                    takers.push((spec, owner));
                }
                if let Some((other, owner)) = clash {
                    let port = spelling::publish_text(spec);
                    let other = spelling::publish_text(other);
                    let what = format!("`{port}` takes a host port of `{other}` of `{owner}`");
                    self.fault(span, what);
                }
            }
        }
    }

    /// Puts each container after those it depends on, otherwise as they stand in the file; `None`
    /// where a fault forbids it.
    fn in_order(&mut self, drafts: Vec<Draft>) -> Option<Vec<Draft>> {
        let indices = drafts.iter().enumerate().map(|(n, draft)| (&draft.container.name, n));
        let indices: BTreeMap<_, _> = indices.collect();
        let mut missing: Vec<usize> = vec![0; drafts.len()];
        let mut waited_by: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
        let before = self.faults.len();
        for (n, draft) in drafts.iter().enumerate() {
            for (name, span) in draft.container.depends.iter().zip(&draft.depends) {
                match indices.get(name) {
                    Some(&on) => {
                        missing[n] += 1;
                        waited_by[on].push(n);
                    }
                    None => self.no_such_container(&drafts, name, span),
                }
            }
        }
        if self.faults.len() != before {
            return None;
        }
        let mut free: BTreeSet<usize> = (0..drafts.len()).filter(|&n| missing[n] == 0).collect();
        let mut order = Vec::new();
        while let Some(next) = free.pop_first() {
            order.push(next);
            for &n in &waited_by[next] {
                missing[n] -= 1;
                if missing[n] == 0 {
                    free.insert(n);
                }
            }
        }
        let mut drafts: Vec<_> = drafts.into_iter().map(Some).collect();
        let ordered: Vec<_> = order.into_iter().filter_map(|n| drafts[n].take()).collect();
        let waiting: Vec<_> = drafts.into_iter().flatten().collect();
        if !waiting.is_empty() {
            self.cycle(&waiting);
            return None;
        }
        Some(ordered)
    }

    fn no_such_container(&mut self, drafts: &[Draft], name: &ContainerName, span: &Span) {
        let known: Vec<_> = drafts.iter().map(|d| d.container.name.as_str()).collect();
        let hint = spelling::nearest(name.as_str(), &known);
        let hint = hint.map(|near| format!("did you mean `{near}`?"));
        self.fault_with(span, format!("container `{name}` is not in this file"), hint);
    }

    /// Every one of `waiting` depends on another of them: follows the first until one comes again.
    fn cycle(&mut self, waiting: &[Draft]) {
        let find = |name: &ContainerName| waiting.iter().position(|d| &d.container.name == name);
        let mut path = vec![0];
        let start = loop {
            let last = &waiting[path[path.len() - 1]];
            let Some(next) = last.container.depends.iter().find_map(find) else { return };
            if let Some(start) = path.iter().position(|&seen| seen == next) {
                break start;
            }
            path.push(next);
        };
        let circle = &path[start..];
        let mut names: Vec<_> =
            circle.iter().map(|&n| waiting[n].container.name.to_string()).collect();
        names.push(names[0].clone());
        let first = &waiting[circle[0]];
        let which = first.container.depends.iter().position(|d| d.as_str() == names[1]);
        let span = which.map_or(&first.mode, |n| &first.depends[n]);
        let span = if first.depends.is_empty() { &first.span } else { span };
        self.fault(span, format!("these wait for each other: {}", names.join(" → ")));
    }
}

/// The host ports that are taken for certain: of a range wider than what it leads to, none is.
fn certain(spec: &PublishSpec) -> impl Iterator<Item = u16> + use<> {
    let width = |(first, last): (u16, u16)| last - first;
    let ports = spec.host_ports.filter(|&ports| width(ports) == width(spec.container_ports));
    ports.into_iter().flat_map(|(first, last)| first..=last)
}

/// Whether a port of one cannot be a port of the other too. The wildcards of the two families are
/// apart, as each is bound for its own.
fn same_host(a: &PublishSpec, b: &PublishSpec) -> bool {
    match (a.host, b.host) {
        (Some(x), Some(y)) => {
            let any = x.is_unspecified() || y.is_unspecified();
            x == y || any && x.is_ipv4() == y.is_ipv4()
        }
        _ => true,
    }
}
