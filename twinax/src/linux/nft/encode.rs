//! Tables and elements as nfnetlink messages.

use twinax_core::ruleset::{
    BaseChain, ChainDef, DataType, Datum, ElementId, Hook, KeyType, Rule, SetName, TableDef,
    TableName, Value, fnv1a,
};

use super::expr::{self, put_verdict, verdict};
use crate::linux::netlink::Outgoing;

pub(super) const NEWTABLE: u8 = 0;
pub(super) const GETTABLE: u8 = 1;
pub(super) const DELTABLE: u8 = 2;
pub(super) const NEWCHAIN: u8 = 3;
pub(super) const GETCHAIN: u8 = 4;
pub(super) const NEWRULE: u8 = 6;
pub(super) const GETRULE: u8 = 7;
pub(super) const NEWSET: u8 = 9;
pub(super) const NEWSETELEM: u8 = 12;
pub(super) const GETSETELEM: u8 = 13;
pub(super) const DELSETELEM: u8 = 14;

pub(super) const CREATE: u16 = libc::NLM_F_CREATE as u16;
pub(super) const EXCL: u16 = libc::NLM_F_EXCL as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

/// Kinds of parts of user data, which the kernel keeps and does not read. Those that nft shows:
pub(in super::super) const UDATA_COMMENT: u8 = 0;
const UDATA_KEY_BYTE_ORDER: u8 = 0;
const UDATA_DATA_BYTE_ORDER: u8 = 1;
/// Ours, which nft passes over: the digest of the rule's text.
pub(super) const UDATA_DIGEST: u8 = 200;

/// A comment is cut here; nft's own limit is 128 with the NUL.
pub(super) const COMMENT_MAX: usize = 127;

/// `NFPROTO_*` of a table.
pub(super) fn family(table: TableName) -> u8 {
    match table {
        TableName::Inet => libc::NFPROTO_INET as u8,
        TableName::Bridge => libc::NFPROTO_BRIDGE as u8,
    }
}

/// Begins a message to nftables, with its `nfgenmsg`.
pub(super) fn put_message(out: &mut Outgoing, kind: u8, table: TableName, flags: u16, seq: u32) {
    let subsystem = (libc::NFNL_SUBSYS_NFTABLES as u16) << 8;
    out.message(subsystem | u16::from(kind), flags, seq);
    out.body(&[family(table), 0, 0, 0]);
}

/// Begins the message that opens (`begin`) or commits a transaction.
pub(super) fn put_batch(out: &mut Outgoing, begin: bool, seq: u32) {
    let kind = if begin { libc::NFNL_MSG_BATCH_BEGIN } else { libc::NFNL_MSG_BATCH_END };
    out.message(kind as u16, 0, seq);
    let [high, low] = (libc::NFNL_SUBSYS_NFTABLES as u16).to_be_bytes();
    out.body(&[libc::AF_UNSPEC as u8, 0, high, low]);
}

/// Puts the messages that remove a table whether or not it stands. Takes the numbers it gives to
/// messages from `seq`.
pub(super) fn put_no_table(out: &mut Outgoing, table: TableName, seq: &mut impl FnMut() -> u32) {
    // Deleting what is not there would be an error.
    put_message(out, NEWTABLE, table, CREATE, seq());
    out.text(1, TableName::NAME);
    put_message(out, DELTABLE, table, 0, seq());
    out.text(1, TableName::NAME);
}

/// Puts the messages that write a table anew, without elements.
pub(super) fn put_table(out: &mut Outgoing, table: &TableDef, seq: &mut impl FnMut() -> u32) {
    put_no_table(out, table.name, seq);
    put_message(out, NEWTABLE, table.name, CREATE | EXCL, seq());
    out.text(1, TableName::NAME);
    out.be32(2, 0);
    out.attr(6, &udata_text(UDATA_COMMENT, &table.comment()));
    for set in table.sets() {
        put_message(out, NEWSET, table.name, CREATE | EXCL, seq());
        put_set(out, set);
    }
    for chain in table.chains {
        put_message(out, NEWCHAIN, table.name, CREATE | EXCL, seq());
        put_chain(out, chain);
    }
    for chain in table.chains {
        for rule in chain.rules {
            put_message(out, NEWRULE, table.name, CREATE | APPEND, seq());
            put_rule(out, chain, rule);
        }
    }
}

fn put_set(out: &mut Outgoing, set: SetName) {
    const MAP: u32 = 0x8;
    out.text(1, TableName::NAME);
    out.text(2, set.as_str());
    out.be32(3, if set.data() == DataType::None { 0 } else { MAP });
    out.be32(4, concat_type(set.key()));
    out.be32(5, concat_len(set.key()) as u32);
    // The kernel wants a number, unique within the transaction.
    out.be32(10, set as u32 + 1);
    let mut udata = udata(UDATA_KEY_BYTE_ORDER, &byte_order(set.key()).to_ne_bytes());
    match set.data() {
        DataType::None => {}
        DataType::Verdict => {
            out.be32(6, libc::NFT_DATA_VERDICT);
        }
        DataType::Concat(types) => {
            out.be32(6, concat_type(types));
            out.be32(7, concat_len(types) as u32);
            udata.extend(self::udata(UDATA_DATA_BYTE_ORDER, &byte_order(types).to_ne_bytes()));
        }
    }
    out.attr(13, &udata);
}

fn put_chain(out: &mut Outgoing, chain: &ChainDef) {
    out.text(1, TableName::NAME);
    out.text(3, chain.name);
    let Some(BaseChain { kind, hook, priority }) = chain.base else {
        return;
    };
    out.text(7, kind.as_str());
    let nest = out.open(4);
    out.be32(1, hook_number(hook));
    out.attr(2, &priority.to_be_bytes());
    out.close(nest);
    out.be32(5, verdict::ACCEPT as u32);
}

/// `NF_INET_*`; the bridge's `NF_BR_*` has the same numbers.
pub(super) fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn put_rule(out: &mut Outgoing, chain: &ChainDef, rule: &Rule) {
    out.text(1, TableName::NAME);
    out.text(2, chain.name);
    let nest = out.open(4);
    expr::put(out, rule);
    out.close(nest);
    out.attr(7, &udata(UDATA_DIGEST, &digest(rule)));
}

/// Returns what a rule bears in its user data.
pub(super) fn digest(rule: &Rule) -> [u8; 8] {
    fnv1a(rule.to_string().as_bytes()).to_be_bytes()
}

fn udata(kind: u8, data: &[u8]) -> Vec<u8> {
    let len = u8::try_from(data.len()).expect("user data is short");
    let mut bytes = Vec::with_capacity(2 + data.len());
    bytes.extend_from_slice(&[kind, len]);
    bytes.extend_from_slice(data);
    bytes
}

fn udata_text(kind: u8, text: &str) -> Vec<u8> {
    let mut text = text.as_bytes().to_vec();
    text.push(0);
    udata(kind, &text)
}

/// Returns nft's number of a type, 6 bits for each part (its `enum datatypes`).
fn concat_type(types: &[KeyType]) -> u32 {
    types.iter().fold(0, |all, one| {
        all << 6
            | match one {
                KeyType::V4 => 7,
                KeyType::V6 => 8,
                KeyType::Mac => 9,
                KeyType::Proto => 12,
                KeyType::Port => 13,
                KeyType::Group => 35,
                KeyType::IfName => 41,
            }
    })
}

/// Returns how many bytes a type has by itself.
pub(super) fn type_len(one: KeyType) -> usize {
    match one {
        KeyType::Proto => 1,
        KeyType::Port => 2,
        KeyType::V4 | KeyType::Group => 4,
        KeyType::Mac => 6,
        KeyType::V6 | KeyType::IfName => 16,
    }
}

/// Returns how many bytes a concatenation has: each part begins in a register of its own.
fn concat_len(types: &[KeyType]) -> usize {
    types.iter().map(|one| type_len(*one).next_multiple_of(4)).sum()
}

/// For nft, to show a lone part rightly: 1 is the host's byte order, 0 is none in particular.
fn byte_order(types: &[KeyType]) -> u32 {
    u32::from(matches!(types, [KeyType::Group | KeyType::IfName]))
}

/// Puts `NFTA_SET_ELEM_LIST_TABLE` and `…_SET`, with which messages about elements begin.
pub(super) fn put_set_name(out: &mut Outgoing, set: SetName) {
    out.text(1, TableName::NAME);
    out.text(2, set.as_str());
}

/// Puts an element; without a value only its key, as queries and deletions have it.
pub(super) fn put_element(out: &mut Outgoing, id: &ElementId, value: Option<(&Value, &str)>) {
    let element = out.open(1);
    let key = out.open(1);
    put_data(out, &id.key);
    out.close(key);
    if let Some((value, comment)) = value {
        put_element_value(out, value);
        let comment = &comment[..comment.floor_char_boundary(COMMENT_MAX)];
        if !comment.is_empty() {
            out.attr(6, &udata_text(UDATA_COMMENT, comment));
        }
    }
    out.close(element);
}

fn put_element_value(out: &mut Outgoing, value: &Value) {
    if *value == Value::None {
        return;
    }
    let data = out.open(2);
    match value {
        Value::None => {}
        Value::Goto(chain) => put_verdict(out, verdict::GOTO, Some(chain.as_str())),
        Value::Concat(parts) => put_data(out, parts),
    }
    out.close(data);
}

/// Puts `NFTA_DATA_VALUE`: the parts, each padded to 4 bytes.
fn put_data(out: &mut Outgoing, parts: &[Datum]) {
    let mut bytes = [0; 64];
    let mut len = 0;
    for part in parts {
        let mut put = |data: &[u8]| bytes[len..len + data.len()].copy_from_slice(data);
        match part {
            Datum::Group(group) => put(&group.0.to_ne_bytes()),
            Datum::IfName(name) => put(name.as_str().as_bytes()),
            Datum::V4(addr) => put(&addr.octets()),
            Datum::V6(addr) => put(&addr.octets()),
            Datum::Mac(mac) => put(&mac.0),
            Datum::Proto(proto) => put(&[proto.number()]),
            Datum::Port(port) => put(&port.to_be_bytes()),
        }
        len += type_len(part.key_type()).next_multiple_of(4);
    }
    out.attr(1, &bytes[..len]);
}
