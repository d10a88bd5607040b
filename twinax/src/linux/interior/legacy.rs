//! Reads the tables of `iptables-legacy`, which are told by socket options (`struct ipt_entry`,
//! include/uapi/linux/netfilter_ipv4/ip_tables.h and its likes). Only those that the kernel has
//! loaded in the namespace: asking for another would load it.

use std::{collections::BTreeMap, fs, io::ErrorKind};

use ipnet::IpNet;
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};
use twinax_core::firewall::{
    Base, Engine, Family, Hook, Match, What,
    decoded::{Chain, Rule, Step, Table},
};

use super::ask;
use crate::linux::netlink::{ip, number};

/// `IPT_SO_GET_INFO` and `IPT_SO_GET_ENTRIES`, of IPv6 too.
const GET_INFO: i32 = 64;
const GET_ENTRIES: i32 = 65;
/// Tables larger than this are not read, in bytes.
const LARGEST: usize = 32 << 20;
/// Bytes before the entries of `struct ipt_get_entries`.
const BEFORE: usize = 40;
/// Bytes of `struct xt_entry_match` and `xt_entry_target`: size u16, name, revision u8.
const EXTENSION: usize = 32;

/// Where things stand in an entry of one IP version.
struct Layout {
    family: Family,
    list: &'static str,
    socket: AddressFamily,
    level: i32,
    /// Bytes of an address, which are source, destination and their masks, in this order.
    addr: usize,
    /// Of the protocol, of flags, and of those that turn matches round.
    proto: usize,
    flags: usize,
    /// The bit among the flags that says not to come back (`IPT_F_GOTO`).
    goto: u8,
    inverted: usize,
    /// Of the offset of the target; that of the next entry follows.
    target: usize,
    counters: usize,
    entry: usize,
}

const LAYOUTS: [Layout; 2] = [
    Layout {
        family: Family::Ip,
        list: "/proc/thread-self/net/ip_tables_names",
        socket: AddressFamily::INET,
        level: libc::SOL_IP,
        addr: 4,
        proto: 80,
        flags: 82,
        goto: 2,
        inverted: 83,
        target: 88,
        counters: 96,
        entry: 112,
    },
    Layout {
        family: Family::Ip6,
        list: "/proc/thread-self/net/ip6_tables_names",
        socket: AddressFamily::INET6,
        level: libc::SOL_IPV6,
        addr: 16,
        proto: 128,
        flags: 131,
        goto: 4,
        inverted: 132,
        target: 140,
        counters: 152,
        entry: 168,
    },
];

/// Reads the tables of the calling thread's namespace.
pub(super) fn read() -> Result<Vec<Table>, Errno> {
    let mut tables = Vec::new();
    for layout in &LAYOUTS {
        let names = match fs::read_to_string(layout.list) {
            Ok(names) => names,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => return Err(Errno::ACCESS),
            // It is not there, or not in this namespace.
            Err(_) => continue,
        };
        for name in names.lines() {
            tables.push(layout.table(name)?);
        }
    }
    Ok(tables)
}

/// `struct ipt_getinfo` after the name: which hooks, where each begins and where its policy is.
struct Info {
    valid: u32,
    begins: [u32; 5],
    policies: [u32; 5],
    size: usize,
}

impl Info {
    fn of(bytes: &[u8]) -> Option<Self> {
        let at = |n: usize| number(bytes.get(32 + 4 * n..)?);
        let five = |first: usize| -> Option<[u32; 5]> {
            let all: Option<Vec<u32>> = (first..first + 5).map(at).collect();
            all?.try_into().ok()
        };
        Some(Self { valid: at(0)?, begins: five(1)?, policies: five(6)?, size: at(12)? as usize })
    }
}

impl Layout {
    fn table(&self, name: &str) -> Result<Table, Errno> {
        let flags = SocketFlags::CLOEXEC;
        let raw = Some(rustix::net::ipproto::RAW);
        let socket = socket_with(self.socket, SocketType::RAW, flags, raw)?;
        let mut head = vec![0; 84];
        put_name(&mut head, name)?;
        ask::option(rustix::fd::AsFd::as_fd(&socket), self.level, GET_INFO, &mut head)?;
        let info = Info::of(&head).filter(|info| info.size <= LARGEST).ok_or(Errno::FBIG)?;
        let mut bytes = vec![0; BEFORE + info.size];
        put_name(&mut bytes, name)?;
        let size = u32::try_from(info.size).map_err(|_| Errno::FBIG)?;
        bytes[32..36].copy_from_slice(&size.to_ne_bytes());
        ask::option(rustix::fd::AsFd::as_fd(&socket), self.level, GET_ENTRIES, &mut bytes)?;
        Ok(self.decoded(name, &info, &bytes[BEFORE..]))
    }

    /// Cuts the entries into chains: what follows an `ERROR` target that has a name is one of a
    /// user's, and each hook begins where `info` says.
    fn decoded(&self, name: &str, info: &Info, entries: &[u8]) -> Table {
        let chains = self.chains(info, entries);
        let heads: BTreeMap<u32, &str> =
            chains.iter().map(|c| (c.first, c.name.as_str())).collect();
        let chains = chains.iter().map(|chain| {
            let mut rules: Vec<Rule> = Vec::new();
            let mut at = chain.first;
            while at < chain.end {
                let Some(entry) = self.entry(entries, at) else { break };
                rules.push(self.rule(&entry, at, &heads));
                at = entry.next;
            }
            // The last one of a chain is its policy, or the way back.
            let last = rules.pop();
            let base = chain.hook.map(|hook| Base {
                kind: if name == "nat" { "nat" } else { "filter" }.to_owned(),
                hook,
                priority: priority(name, hook),
                drops: last.is_some_and(|rule| {
                    rule.steps.contains(&Step::Verdict { code: 0, chain: None })
                }),
            });
            Chain { name: chain.name.clone(), base, rules }
        });
        Table {
            engine: Engine::Legacy,
            family: self.family,
            name: name.to_owned(),
            owner: None,
            dormant: false,
            chains: chains.collect(),
            sets: Vec::new(),
        }
    }

    fn chains(&self, info: &Info, entries: &[u8]) -> Vec<Span> {
        const HOOKS: [(Hook, &str); 5] = [
            (Hook::Prerouting, "PREROUTING"),
            (Hook::Input, "INPUT"),
            (Hook::Forward, "FORWARD"),
            (Hook::Output, "OUTPUT"),
            (Hook::Postrouting, "POSTROUTING"),
        ];
        let mut spans = Vec::new();
        for (n, (hook, name)) in HOOKS.into_iter().enumerate() {
            if info.valid & 1 << n > 0 {
                // The policy is the last of its chain.
                let end = self.entry(entries, info.policies[n]).map_or(0, |policy| policy.next);
                spans.push(Span {
                    name: name.to_owned(),
                    hook: Some(hook),
                    first: info.begins[n],
                    end,
                });
            }
        }
        let mut at = 0;
        while let Some(entry) = self.entry(entries, at) {
            if entry.target_name() == "ERROR" {
                if let Some(open) = spans.iter_mut().find(|span: &&mut Span| span.end == u32::MAX) {
                    open.end = at;
                }
                let name = until_nul(entry.target.get(EXTENSION..).unwrap_or_default());
                // The table itself ends with one that is called so.
                if name != "ERROR" {
                    spans.push(Span { name, hook: None, first: entry.next, end: u32::MAX });
                }
            }
            at = entry.next;
        }
        spans
    }

    fn entry<'a>(&self, entries: &'a [u8], at: u32) -> Option<Entry<'a>> {
        let bytes = entries.get(at as usize..)?;
        let offset = |at: usize| {
            let number = bytes.get(at..)?.first_chunk()?;
            Some(usize::from(u16::from_ne_bytes(*number)))
        };
        let (target, next) = (offset(self.target)?, offset(self.target + 2)?);
        // An entry that does not lead on would never end.
        if target < self.entry || next <= target {
            return None;
        }
        Some(Entry {
            head: bytes.get(..self.entry)?,
            matches: bytes.get(self.entry..target)?,
            target: bytes.get(target..next)?,
            next: at + u32::try_from(next).ok()?,
        })
    }

    fn rule(&self, entry: &Entry<'_>, at: u32, heads: &BTreeMap<u32, &str>) -> Rule {
        let mut steps = self.head(entry.head);
        let mut rest = entry.matches;
        while let Some((size, name, revision, info)) = extension(rest) {
            let (name, info) = (name.to_owned(), info.to_vec());
            steps.push(Step::Xt { target: false, name, revision, info });
            rest = rest.get(size..).unwrap_or_default();
        }
        let count = |at: usize| {
            let bytes = entry.head.get(at..).and_then(|bytes| bytes.first_chunk());
            bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
        };
        let (packets, bytes) = (count(self.counters), count(self.counters + 8));
        steps.push(Step::Counter { packets, bytes });
        steps.extend(self.target(entry, at, heads));
        Rule { handle: 0, steps, comment: None }
    }

    /// What stands in every entry: addresses, interfaces, the protocol.
    fn head(&self, head: &[u8]) -> Vec<Step> {
        let inverted = head[self.inverted];
        let mut found = Vec::new();
        let mut ask = |bit: u8, what: Option<What>| {
            let not = inverted & bit > 0;
            found.extend(what.map(|what| Step::Known(Match { not, what })));
        };
        let field = |n: usize| &head[n * self.addr..(n + 1) * self.addr];
        ask(0x08, network(field(0), field(2)).map(What::Source));
        ask(0x10, network(field(1), field(3)).map(What::Destination));
        let names = 4 * self.addr;
        let name = |n: usize| interface(&head[names + 16 * n..], &head[names + 32 + 16 * n..]);
        ask(0x01, name(0).map(What::InInterface));
        ask(0x02, name(1).map(What::OutInterface));
        let proto = head[self.proto];
        ask(0x40, (proto > 0).then_some(What::Protocol(proto)));
        if self.family == Family::Ip && head[self.flags] & 1 > 0 {
            ask(0x20, Some(What::Other("fragment".to_owned())));
        }
        found
    }

    /// A standard target has no name: a verdict, or where to go on.
    fn target(&self, entry: &Entry<'_>, at: u32, heads: &BTreeMap<u32, &str>) -> Option<Step> {
        let (_, name, revision, info) = extension(entry.target)?;
        if !name.is_empty() {
            let (name, info) = (name.to_owned(), info.to_vec());
            return Some(Step::Xt { target: true, name, revision, info });
        }
        let goto = entry.head[self.flags] & self.goto > 0;
        let verdict = number(info)?.cast_signed();
        Some(match verdict {
            -1 => Step::Verdict { code: 0, chain: None },
            -2 => Step::Verdict { code: 1, chain: None },
            -4 => Step::Verdict { code: 3, chain: None },
            -5 => Step::Verdict { code: -5, chain: None },
            // To the next one: nothing is done but counting.
            to if to.cast_unsigned() == entry.next => return None,
            to => {
                let chain = heads.get(&to.cast_unsigned()).map(|name| (*name).to_owned());
                let known = chain.is_some() && to.cast_unsigned() != at;
                match known {
                    true => Step::Verdict { code: if goto { -4 } else { -3 }, chain },
                    false => Step::Other { name: format!("verdict {to}"), into: None },
                }
            }
        })
    }
}

struct Span {
    name: String,
    hook: Option<Hook>,
    first: u32,
    end: u32,
}

struct Entry<'a> {
    head: &'a [u8],
    matches: &'a [u8],
    target: &'a [u8],
    next: u32,
}

impl Entry<'_> {
    fn target_name(&self) -> &str {
        extension(self.target).map_or("", |(_, name, ..)| name)
    }
}

/// The first match or target in `bytes`: its size, name, revision and what is its own.
fn extension(bytes: &[u8]) -> Option<(usize, &str, u32, &[u8])> {
    let size = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
    let whole = bytes.get(..size).filter(|whole| whole.len() >= EXTENSION)?;
    let name = whole[2..31].split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name).unwrap_or("?");
    Some((size, name, whole[31].into(), &whole[EXTENSION..]))
}

fn put_name(bytes: &mut [u8], name: &str) -> Result<(), Errno> {
    let room = bytes.get_mut(..name.len()).filter(|_| name.len() < 32).ok_or(Errno::INVAL)?;
    room.copy_from_slice(name.as_bytes());
    Ok(())
}

fn until_nul(bytes: &[u8]) -> String {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn network(addr: &[u8], mask: &[u8]) -> Option<IpNet> {
    let len: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let net = IpNet::new(ip(addr)?, u8::try_from(len).ok()?).ok()?;
    (len > 0).then_some(net)
}

/// A name whose mask does not reach its NUL stands for all that begin with what the mask covers;
/// iptables leaves its `+` behind that.
fn interface(name: &[u8], mask: &[u8]) -> Option<String> {
    let text = until_nul(&name[..16]);
    let covered = mask.iter().take_while(|byte| **byte > 0).count();
    match (text.is_empty(), covered > text.len()) {
        (true, _) => None,
        (false, true) => Some(text),
        (false, false) => Some(format!("{}*", until_nul(&name[..covered]))),
    }
}

/// `NF_IP_PRI_*`.
fn priority(table: &str, hook: Hook) -> i32 {
    match (table, hook) {
        ("raw", _) => -300,
        ("mangle", _) => -150,
        ("nat", Hook::Prerouting | Hook::Output) => -100,
        ("nat", _) => 100,
        ("security", _) => 50,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use twinax_core::firewall::understand;

    use super::*;

    /// Answers of Linux 6.18 about what iptables-legacy 1.8.9 wrote: a table a line, its name and
    /// family, then the bytes of both options.
    fn recorded() -> Vec<Table> {
        let bytes = |hex: &str| -> Vec<u8> {
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (0..hex.len()).step_by(2).map(byte).collect()
        };
        let table = |line: &str| {
            let words: Vec<&str> = line.split(' ').collect();
            let layout = LAYOUTS.iter().find(|layout| layout.family.to_string() == words[1]);
            let info = Info::of(&bytes(words[2])).unwrap();
            layout.unwrap().decoded(words[0], &info, &bytes(words[3]))
        };
        include_str!("golden/legacy.txt").lines().map(table).collect()
    }

    #[test]
    fn entries_are_cut_into_chains_and_understood() {
        let (tables, led) = understand(&recorded());
        let mut text = String::new();
        for table in &tables {
            for chain in &table.chains {
                let base = chain.base.as_ref().map(|base| format!(" {} {}", base.hook, base.drops));
                let base = base.unwrap_or_default();
                text += &format!("{} {} {}{base}\n", table.family, table.name, chain.name);
                text.extend(chain.rules.iter().map(|rule| format!("  {rule}\n")));
            }
        }
        text.extend(
            led.iter().map(|led| {
                format!("{:?} {} {:?} {}\n", led.host_ports, led.to, led.to_port, led.by)
            }),
        );
        expect![[r#"
            ip nat PREROUTING prerouting false
              tcp dport 81 dnat to 10.0.0.9:82
              tcp dport 82 redirect to :8082
            ip nat INPUT input false
            ip nat OUTPUT output false
            ip nat POSTROUTING postrouting false
              snat to 192.0.2.1-192.0.2.9
            ip filter INPUT input false
              fragment queue
            ip filter FORWARD forward true
              ip saddr != 10.0.0.0/8 iifname "eth0" tcp dport 80 jump theirs
            ip filter OUTPUT output false
            ip filter other
            ip filter theirs
              ct state established return
              oifname "veth*" drop
              goto other
            ip6 nat PREROUTING prerouting false
              udp dport 53 dnat to [fd00::9]:5353
              udp dport 54 redirect to :5354
            ip6 nat INPUT input false
            ip6 nat OUTPUT output false
            ip6 nat POSTROUTING postrouting false
            ip6 filter INPUT input false
              ip6 saddr != fd00::/8 reject
            ip6 filter FORWARD forward false
            ip6 filter OUTPUT output false
            (81, 81) 10.0.0.9 Some(82) iptables-legacy nat PREROUTING #1
            (53, 53) fd00::9 Some(5353) ip6tables-legacy nat PREROUTING #1
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn what_leads_nowhere_is_not_followed_for_ever() {
        let layout = &LAYOUTS[0];
        let info = Info { valid: 1, begins: [0; 5], policies: [0; 5], size: 0 };
        for next in [0u16, 8, 112, 200, u16::MAX] {
            let mut entry = vec![0; 300];
            entry[88..90].copy_from_slice(&112u16.to_ne_bytes());
            entry[90..92].copy_from_slice(&next.to_ne_bytes());
            let table = layout.decoded("filter", &info, &entry);
            assert!(table.chains.iter().all(|chain| chain.rules.len() < 3), "{next}: {table:?}");
        }
    }
}
