//! What the kernel answers about elements, tables, chains and rules.
//!
//! May not: trust it. Another program may have put into our sets what we never would; that is
//! told as an element which cannot be read, never as a panic.

use std::net::{Ipv4Addr, Ipv6Addr};

use twinax_core::{
    name::{Mac, Proto},
    ruleset::{Chain, DataType, Datum, ElementId, Group, KeyType, SetName, Value},
};

use super::{
    encode::{self, UDATA_COMMENT},
    expr,
};
use crate::linux::netlink::{attribute, attributes, be32, text};

/// Returns the elements in the body of a `NFT_MSG_NEWSETELEM`, each with its comment; `None` in
/// place of one that is not of our making.
pub(super) fn elements(
    set: SetName,
    body: &[u8],
) -> impl Iterator<Item = Option<(ElementId, Value, String)>> {
    let list = body.get(4..).and_then(|rest| attribute(rest, 3)).unwrap_or_default();
    attributes(list).map(move |(_, data)| element(set, data))
}

fn element(set: SetName, body: &[u8]) -> Option<(ElementId, Value, String)> {
    let key = concat(set.key(), attribute(attribute(body, 1)?, 1)?)?;
    let data = attribute(body, 2);
    let value = match set.data() {
        DataType::None => Value::None,
        DataType::Concat(types) => Value::Concat(concat(types, attribute(data?, 1)?)?),
        DataType::Verdict => Value::Goto(verdict(attribute(data?, 2)?)?),
    };
    let comment = attribute(body, 6).and_then(|data| udata(data, UDATA_COMMENT)).and_then(text);
    Some((ElementId { set, key }, value, comment.unwrap_or_default().to_owned()))
}

fn verdict(data: &[u8]) -> Option<Chain> {
    let code = be32(attribute(data, 1)?)? as i32;
    let name = text(attribute(data, 2)?)?;
    let chain = Chain::ALL.into_iter().find(|chain| chain.as_str() == name)?;
    (code == expr::verdict::GOTO).then_some(chain)
}

fn concat(types: &[KeyType], mut bytes: &[u8]) -> Option<Vec<Datum>> {
    let mut parts = Vec::with_capacity(types.len());
    for one in types {
        let len = encode::type_len(*one);
        parts.push(datum(*one, bytes.get(..len)?)?);
        bytes = bytes.get(len.next_multiple_of(4)..)?;
    }
    Some(parts)
}

fn datum(kind: KeyType, bytes: &[u8]) -> Option<Datum> {
    Some(match kind {
        KeyType::Group => Datum::Group(Group(u32::from_ne_bytes(bytes.try_into().ok()?))),
        KeyType::IfName => Datum::IfName(text(bytes)?.parse().ok()?),
        KeyType::V4 => Datum::V4(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        KeyType::V6 => Datum::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        KeyType::Mac => Datum::Mac(Mac(bytes.try_into().ok()?)),
        KeyType::Port => Datum::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        KeyType::Proto => {
            let all = [Proto::Tcp, Proto::Udp, Proto::Sctp];
            Datum::Proto(all.into_iter().find(|proto| [proto.number()] == bytes)?)
        }
    })
}

/// Returns a part of user data: kind and length are a byte each.
pub(in super::super) fn udata(mut bytes: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let [kind, len] = *bytes.first_chunk()?;
        let end = 2 + usize::from(len);
        let data = bytes.get(2..end)?;
        if kind == wanted {
            return Some(data);
        }
        bytes = &bytes[end..];
    }
}
