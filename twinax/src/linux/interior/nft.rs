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
    let mut read = Read::default();
    for _ in 0..TRIES {
        let before = asker.generation()?;
        read = match asker.read() {
            // Something went away between two questions.
            Err(Errno::NOENT) => continue,
            read => read?,
        };
        if asker.generation()? == before {
            break;
        }
    }
    Ok(read)
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

    fn list(
        &mut self,
        mut question: Outgoing,
        mut each: impl FnMut(&Message<'_>),
    ) -> Result<(), Errno> {
        // One that is interrupted is told again from its start: the generation will differ.
        let done = self.channel.dump(&mut question, &mut |message| {
            message.iter().for_each(&mut each);
        });
        done.map_err(|error| error.errno)
    }

    fn read(&mut self) -> Result<Read, Errno> {
        let mut read = Read::default();
        let mut tables = Vec::new();
        self.list(message(NFT_MSG_GETTABLE, 0, 0), |message| tables.extend(table(message)))?;
        if tables.is_empty() {
            return Ok(read);
        }
        let mut at: HashMap<(Family, String), usize> = HashMap::new();
        for table in tables {
            at.insert((table.family, table.name.clone()), read.tables.len());
            read.tables.push(table);
        }
        let mut chains: HashMap<(usize, String), usize> = HashMap::new();
        self.list(message(NFT_MSG_GETCHAIN, 0, 0), |message| {
            let Some((family, of, chain)) = chain(message) else { return };
            if let Some(&n) = at.get(&(family, of)) {
                let chains_of = &mut read.tables[n].chains;
                if chains.insert((n, chain.name.clone()), chains_of.len()).is_none() {
                    chains_of.push(chain);
                }
            }
        })?;
        let mut count = 0;
        self.list(message(NFT_MSG_GETRULE, 0, 0), |message| {
            let Some((family, [of, chain], rule)) = rule(message) else { return };
            let Some(&n) = at.get(&(family, of)) else { return };
            if let Some(&c) = chains.get(&(n, chain)) {
                count += 1;
                match count <= RULES {
                    true => read.tables[n].chains[c].rules.push(rule),
                    false => read.cut = true,
                }
            }
        })?;
        self.list(message(NFT_MSG_GETSET, 0, 0), |message| {
            let Some((family, of, set)) = set(message) else { return };
            if let Some(&n) = at.get(&(family, of)) {
                read.tables[n].sets.push(set);
            }
        })?;
        self.elements(&mut read)?;
        Ok(read)
    }

    /// Elements of what is part of a rule, or maps something.
    fn elements(&mut self, read: &mut Read) -> Result<(), Errno> {
        let mut left = ELEMENTS;
        for table in &mut read.tables {
            let (family, name) = (family_number(table.family), table.name.clone());
            for set in table.sets.iter_mut().filter(|set| set.anonymous || set.map) {
                let mut question = message(NFT_MSG_GETSETELEM, 0, family);
                question.text(1, &name);
                question.text(2, &set.name);
                let mut found = Vec::new();
                let mut cut = false;
                self.list(question, |message| {
                    if kind(message) != Some(NFT_MSG_NEWSETELEM) {
                        return;
                    }
                    let list = message.body.get(GENERIC..).and_then(|rest| attribute(rest, 3));
                    for (_, data) in attributes(list.unwrap_or_default()) {
                        match found.len() < left {
                            true => found.extend(element(data)),
                            false => cut = true,
                        }
                    }
                })?;
                left -= found.len();
                read.cut |= cut;
                set.elements = (!cut).then_some(found);
            }
        }
        Ok(())
    }
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

/// The family and the attributes of a message of that kind.
fn body<'a>(message: &Message<'a>, wanted: u16) -> Option<(Family, &'a [u8])> {
    let (generic, rest) = message.body.split_at_checked(GENERIC)?;
    let family = match i32::from(generic[0]) {
        libc::NFPROTO_INET => Family::Inet,
        libc::NFPROTO_IPV4 => Family::Ip,
        libc::NFPROTO_IPV6 => Family::Ip6,
        libc::NFPROTO_ARP => Family::Arp,
        libc::NFPROTO_BRIDGE => Family::Bridge,
        libc::NFPROTO_NETDEV => Family::Netdev,
        _ => return None,
    };
    (kind(message) == Some(wanted)).then_some((family, rest))
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

fn table(message: &Message<'_>) -> Option<Table> {
    const DORMANT: u32 = 1;
    let (family, rest) = body(message, NFT_MSG_NEWTABLE)?;
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

fn chain(message: &Message<'_>) -> Option<(Family, String, Chain)> {
    let (family, rest) = body(message, NFT_MSG_NEWCHAIN)?;
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

fn rule(message: &Message<'_>) -> Option<(Family, [String; 2], Rule)> {
    let (family, rest) = body(message, NFT_MSG_NEWRULE)?;
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

fn set(message: &Message<'_>) -> Option<(Family, String, Set)> {
    const ANONYMOUS: u32 = 1;
    const INTERVAL: u32 = 4;
    const MAP: u32 = 8;
    const DATA_VERDICT: u32 = 0xffff_ff00;
    let (family, rest) = body(message, NFT_MSG_NEWSET)?;
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
