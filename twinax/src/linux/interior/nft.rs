//! Lists everybody's nftables: tables, chains, rules, and the sets that are part of rules or map
//! something. Answers, and judges nothing.
//!
//! A list is of one moment only if the generation of the ruleset is the same before and after.

use std::collections::HashMap;

use rustix::{io::Errno, net::netlink::NETFILTER};
use twinax_core::firewall::{
    Base, Engine, Family, Hook,
    decoded::{Chain, Element, Rule, Set, Table, Yield},
};

use super::expression;
use crate::linux::{
    netlink::{Message, Outgoing, attribute, attributes, be32, text},
    nft::{UDATA_COMMENT, udata},
    socket::Channel,
};

// linux/netfilter/nf_tables.h
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_GETTABLE: u16 = 1;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_GETSET: u16 = 10;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_GETSETELEM: u16 = 13;
const NFT_MSG_NEWGEN: u16 = 15;
const NFT_MSG_GETGEN: u16 = 16;
/// `nfgenmsg`: family u8, version u8, resource u16.
const GENERIC: usize = 4;

/// How often the ruleset is read again that changed meanwhile.
const TRIES: usize = 4;
/// Rules that are read of one namespace.
const RULES: usize = 100_000;
/// Elements that are read of one namespace.
const ELEMENTS: usize = 65_536;

/// What was read.
#[derive(Debug, Default)]
pub(super) struct Read {
    pub(super) tables: Vec<Table>,
    /// There is more than is read.
    pub(super) cut: bool,
}

/// Reads the ruleset of the namespace of the calling thread; one that changes all the time as well
/// as that is possible.
pub(super) fn read() -> Result<Read, Errno> {
    let mut asker = Asker { channel: Channel::open(Some(NETFILTER))? };
    let mut told = Told::default();
    for _ in 0..TRIES {
        let before = asker.generation()?;
        told = match asker.ask() {
            // Something went away between two questions.
            Err(Errno::NOENT) => continue,
            told => told?,
        };
        if asker.generation()? == before {
            break;
        }
    }
    Ok(Read { tables: assemble(&told.messages), cut: told.cut })
}

/// The kernel's answers: which of nftables' messages each is, and what follows its header.
#[derive(Default)]
struct Told {
    messages: Vec<(u16, Vec<u8>)>,
    cut: bool,
}

struct Asker {
    channel: Channel,
}

impl Asker {
    fn generation(&mut self) -> Result<u32, Errno> {
        let seq = self.channel.take_seq(1);
        let question = message(NFT_MSG_GETGEN, seq, 0);
        self.channel.send(question.bytes())?;
        loop {
            let answer = self.channel.receive(|message| {
                if message.seq != seq {
                    return None;
                }
                match message.refusal() {
                    Some((errno, _)) => Some(Err(errno)),
                    None if kind(&message) == Some(NFT_MSG_NEWGEN) => {
                        let id = message.body.get(GENERIC..).and_then(|rest| attribute(rest, 1));
                        Some(Ok(id.and_then(be32).unwrap_or_default()))
                    }
                    None => None,
                }
            })?;
            if let Some(answer) = answer {
                return answer;
            }
        }
    }

    /// Adds a list's messages, at most `most`.
    fn list(&mut self, told: &mut Told, mut question: Outgoing, most: usize) -> Result<(), Errno> {
        let (start, mut cut) = (told.messages.len(), false);
        let messages = &mut told.messages;
        let done = self.channel.dump(&mut question, &mut |message| match message {
            None => messages.truncate(start),
            Some(_) if messages.len() - start >= most => cut = true,
            Some(message) => {
                messages.extend(kind(&message).map(|kind| (kind, message.body.to_vec())));
            }
        });
        told.cut |= cut;
        done.map_err(|error| error.errno)
    }

    fn ask(&mut self) -> Result<Told, Errno> {
        let mut told = Told::default();
        self.list(&mut told, message(NFT_MSG_GETTABLE, 0, 0), RULES)?;
        if told.messages.is_empty() {
            return Ok(told);
        }
        for question in [NFT_MSG_GETCHAIN, NFT_MSG_GETRULE, NFT_MSG_GETSET] {
            self.list(&mut told, message(question, 0, 0), RULES)?;
        }
        self.elements(&mut told)?;
        Ok(told)
    }

    /// Elements of what is part of a rule, or maps something.
    fn elements(&mut self, told: &mut Told) -> Result<(), Errno> {
        let sets = told.messages.iter().filter_map(|(kind, body)| set(*kind, body));
        let sets: Vec<_> = sets.filter(|(.., set)| set.anonymous || set.map).collect();
        let mut left = ELEMENTS;
        for (family, table, set) in sets {
            let mut question = message(NFT_MSG_GETSETELEM, 0, family_number(family));
            question.text(1, &table);
            question.text(2, &set.name);
            let start = told.messages.len();
            // A message has one element at least.
            self.list(told, question, left)?;
            let heard =
                told.messages[start..].iter().filter_map(|(kind, body)| elements(*kind, body));
            left = left.saturating_sub(heard.map(|(.., elements)| elements.len()).sum());
        }
        Ok(())
    }
}

/// Puts together what belongs together. Chains and sets of a table that is not there are left out.
fn assemble(messages: &[(u16, Vec<u8>)]) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut at: HashMap<(Family, String), usize> = HashMap::new();
    let mut chains: HashMap<(usize, String), usize> = HashMap::new();
    for (kind, body) in messages {
        if let Some(table) = table(*kind, body) {
            at.insert((table.family, table.name.clone()), tables.len());
            tables.push(table);
        } else if let Some((family, of, chain)) = chain(*kind, body) {
            let Some(&n) = at.get(&(family, of)) else { continue };
            chains.insert((n, chain.name.clone()), tables[n].chains.len());
            tables[n].chains.push(chain);
        } else if let Some((family, [of, chain], rule)) = rule(*kind, body) {
            let Some(&n) = at.get(&(family, of)) else { continue };
            let Some(&c) = chains.get(&(n, chain)) else { continue };
            tables[n].chains[c].rules.push(rule);
        } else if let Some((family, of, set)) = set(*kind, body) {
            let Some(&n) = at.get(&(family, of)) else { continue };
            tables[n].sets.push(set);
        } else if let Some((family, [of, name], found)) = elements(*kind, body) {
            let Some(&n) = at.get(&(family, of)) else { continue };
            let set = tables[n].sets.iter_mut().find(|set| set.name == name);
            set.into_iter()
                .for_each(|set| set.elements.get_or_insert_default().extend(found.clone()));
        }
    }
    // A map that nobody told an element of is empty.
    for set in tables.iter_mut().flat_map(|table| &mut table.sets) {
        if set.anonymous || set.map {
            set.elements.get_or_insert_default();
        }
    }
    tables
}

fn message(kind: u16, seq: u32, family: u8) -> Outgoing {
    let mut out = Outgoing::default();
    out.message(NFNL_SUBSYS_NFTABLES << 8 | kind, 0, seq);
    out.body(&[family, 0, 0, 0]);
    out
}

/// Which of nftables' messages it is.
fn kind(message: &Message<'_>) -> Option<u16> {
    (message.kind >> 8 == NFNL_SUBSYS_NFTABLES).then_some(message.kind & 0xff)
}

/// The family and the attributes of a message, if it is of that kind.
fn attributes_of(kind: u16, wanted: u16, body: &[u8]) -> Option<(Family, &[u8])> {
    let (generic, rest) = body.split_at_checked(GENERIC)?;
    let family = match i32::from(generic[0]) {
        libc::NFPROTO_INET => Family::Inet,
        libc::NFPROTO_IPV4 => Family::Ip,
        libc::NFPROTO_IPV6 => Family::Ip6,
        libc::NFPROTO_ARP => Family::Arp,
        libc::NFPROTO_BRIDGE => Family::Bridge,
        libc::NFPROTO_NETDEV => Family::Netdev,
        _ => return None,
    };
    (kind == wanted).then_some((family, rest))
}

fn family_number(family: Family) -> u8 {
    let number = match family {
        Family::Inet => libc::NFPROTO_INET,
        Family::Ip => libc::NFPROTO_IPV4,
        Family::Ip6 => libc::NFPROTO_IPV6,
        Family::Arp => libc::NFPROTO_ARP,
        Family::Bridge => libc::NFPROTO_BRIDGE,
        Family::Netdev => libc::NFPROTO_NETDEV,
    };
    number as u8
}

fn name(rest: &[u8], kind: u16) -> Option<String> {
    attribute(rest, kind).and_then(text).map(ToOwned::to_owned)
}

fn table(kind: u16, body: &[u8]) -> Option<Table> {
    const DORMANT: u32 = 1;
    let (family, rest) = attributes_of(kind, NFT_MSG_NEWTABLE, body)?;
    let flags = attribute(rest, 2).and_then(be32).unwrap_or_default();
    Some(Table {
        engine: Engine::Nft,
        family,
        name: name(rest, 1)?,
        owner: attribute(rest, 7).and_then(be32),
        dormant: flags & DORMANT > 0,
        chains: Vec::new(),
        sets: Vec::new(),
    })
}

fn chain(kind: u16, body: &[u8]) -> Option<(Family, String, Chain)> {
    let (family, rest) = attributes_of(kind, NFT_MSG_NEWCHAIN, body)?;
    let base = attribute(rest, 4).and_then(|hook| {
        Some(Base {
            kind: name(rest, 7)?,
            hook: hook_of(family, attribute(hook, 1).and_then(be32)?)?,
            priority: attribute(hook, 2).and_then(be32)?.cast_signed(),
            drops: attribute(rest, 5).and_then(be32) == Some(0), // NF_DROP
        })
    });
    Some((family, name(rest, 1)?, Chain { name: name(rest, 3)?, base, rules: Vec::new() }))
}

fn hook_of(family: Family, number: u32) -> Option<Hook> {
    let usual = [
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
        Hook::Ingress,
    ];
    let hooks: &[Hook] = match family {
        Family::Netdev => &[Hook::Ingress, Hook::Egress],
        Family::Arp => &[Hook::Input, Hook::Output, Hook::Forward],
        _ => &usual,
    };
    hooks.get(number as usize).copied()
}

fn rule(kind: u16, body: &[u8]) -> Option<(Family, [String; 2], Rule)> {
    let (family, rest) = attributes_of(kind, NFT_MSG_NEWRULE, body)?;
    let steps = attribute(rest, 4).unwrap_or_default();
    let handle =
        attribute(rest, 3).and_then(|data| data.first_chunk()).map(|d| u64::from_be_bytes(*d));
    let comment = attribute(rest, 7).and_then(|data| udata(data, UDATA_COMMENT)).and_then(text);
    let rule = Rule {
        handle: handle.unwrap_or_default(),
        steps: attributes(steps).filter_map(|(_, step)| expression::step(step)).collect(),
        comment: comment.map(ToOwned::to_owned),
    };
    Some((family, [name(rest, 1)?, name(rest, 2)?], rule))
}

fn set(kind: u16, body: &[u8]) -> Option<(Family, String, Set)> {
    const ANONYMOUS: u32 = 1;
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const DATA_VERDICT: u32 = 0xffff_ff00;
    let (family, rest) = attributes_of(kind, NFT_MSG_NEWSET, body)?;
    let number = |kind| attribute(rest, kind).and_then(be32).unwrap_or_default();
    let flags = number(3);
    let set = Set {
        name: name(rest, 2)?,
        anonymous: flags & ANONYMOUS > 0,
        map: flags & MAP > 0,
        verdicts: number(6) == DATA_VERDICT,
        intervals: flags & INTERVAL > 0,
        key_len: number(5),
        elements: None,
    };
    Some((family, name(rest, 1)?, set))
}

fn elements(kind: u16, body: &[u8]) -> Option<(Family, [String; 2], Vec<Element>)> {
    let (family, rest) = attributes_of(kind, NFT_MSG_NEWSETELEM, body)?;
    let list = attribute(rest, 3).unwrap_or_default();
    let found = attributes(list).filter_map(|(_, data)| element(data)).collect();
    Some((family, [name(rest, 1)?, name(rest, 2)?], found))
}

fn element(data: &[u8]) -> Option<Element> {
    const END: u32 = 1;
    let key = attribute(attribute(data, 1)?, 1)?.to_vec();
    let value = attribute(data, 2);
    let plain = || Some(Yield::Value(attribute(value?, 1)?.to_vec()));
    let verdict = || {
        let (code, chain) = expression::verdict(attribute(value?, 2)?)?;
        Some(Yield::Verdict { code, chain })
    };
    Some(Element {
        key,
        last: attribute(data, 10).and_then(|last| attribute(last, 1)).map(<[u8]>::to_vec),
        end: attribute(data, 3).and_then(be32).is_some_and(|flags| flags & END > 0),
        yields: plain().or_else(verdict).unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use expect_test::expect_file;
    use twinax_core::firewall::understand;

    use super::*;

    /// Answers of a kernel as they were recorded: a message a line, its kind and its bytes.
    fn recorded(text: &str) -> Vec<(u16, Vec<u8>)> {
        let message = |line: &str| {
            let (kind, hex) = line.split_once(' ').unwrap();
            let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
            (kind.parse().unwrap(), (0..hex.len()).step_by(2).map(byte).collect())
        };
        text.lines().map(message).collect()
    }

    fn told(messages: &[(u16, Vec<u8>)]) -> String {
        let (tables, led) = understand(&assemble(messages));
        let mut text = String::new();
        for table in &tables {
            writeln!(text, "table {} {}", table.family, table.name).unwrap();
            for chain in &table.chains {
                let base = chain.base.as_ref().map(|base| {
                    let policy = if base.drops { "drop" } else { "accept" };
                    format!(" {} {} {} {policy}", base.kind, base.hook, base.priority)
                });
                writeln!(text, "  {}{}", chain.name, base.unwrap_or_default()).unwrap();
                for rule in &chain.rules {
                    let comment = rule.comment.as_ref().map(|c| format!(" # {c}"));
                    let comment = comment.unwrap_or_default();
                    writeln!(text, "    {} {rule}{comment}", rule.handle).unwrap();
                }
            }
            for set in &table.sets {
                writeln!(text, "  @{} {:?}", set.name, set.elements).unwrap();
            }
        }
        for port in led {
            let host = port.host.map_or_else(|| "*".to_owned(), |host| host.to_string());
            let ((first, last), to) = (port.host_ports, port.to);
            let to_port = port.to_port.map_or_else(|| "same".to_owned(), |port| port.to_string());
            let proto = port.proto;
            writeln!(text, "{proto} {host} {first}-{last} -> {to} {to_port} by {}", port.by)
                .unwrap();
        }
        text
    }

    /// Recorded on Linux 6.18 of: Docker 20.10 with iptables 1.8.9 beside our own tables; Podman
    /// 4.3 with netavark 1.4; CNI's portmap 1.1; a list of what nft 1.0.6 and iptables write.
    #[test]
    fn what_others_write_is_understood() {
        let docker = recorded(include_str!("golden/docker.txt"));
        expect_file!["golden/docker.expect"].assert_eq(&told(&docker));
        let podman = recorded(include_str!("golden/podman.txt"));
        expect_file!["golden/podman.expect"].assert_eq(&told(&podman));
        let portmap = recorded(include_str!("golden/portmap.txt"));
        expect_file!["golden/portmap.expect"].assert_eq(&told(&portmap));
        let nft = recorded(include_str!("golden/nft.txt"));
        expect_file!["golden/nft.expect"].assert_eq(&told(&nft));
    }

    #[test]
    fn what_is_cut_short_does_no_harm() {
        let whole = recorded(include_str!("golden/nft.txt"));
        let mut least = usize::MAX;
        for step in 1..40 {
            let mut cut = whole.clone();
            for (n, (_, body)) in cut.iter_mut().enumerate() {
                body.truncate(body.len().saturating_sub((n * 7 + step * 13) % 200));
            }
            least = least.min(told(&cut).len());
        }
        assert!(least < told(&whole).len());
    }
}
