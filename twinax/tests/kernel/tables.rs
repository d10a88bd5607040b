//! The few nf_tables messages with which tests look at the product's tables and damage them.

use std::{fmt::Write as _, io};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

// linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
const NFNL_SUBSYS_NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 16;
const NFNL_MSG_BATCH_END: u16 = 17;
const NFT_MSG_GETTABLE: u16 = NFNL_SUBSYS_NFTABLES | 1;
const NFT_MSG_DELTABLE: u16 = NFNL_SUBSYS_NFTABLES | 2;
const NFT_MSG_DELRULE: u16 = NFNL_SUBSYS_NFTABLES | 8;
const NFT_MSG_GETSET: u16 = NFNL_SUBSYS_NFTABLES | 10;
const NFT_MSG_GETSETELEM: u16 = NFNL_SUBSYS_NFTABLES | 13;
const NFPROTO_INET: u8 = 1;
const NFPROTO_BRIDGE: u8 = 7;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `NFTA_TABLE_NAME`, `NFTA_RULE_TABLE`, `NFTA_SET_TABLE` and `NFTA_SET_ELEM_LIST_TABLE` alike.
const TABLE: u16 = 1;
/// `NFTA_RULE_CHAIN`, `NFTA_SET_NAME` and `NFTA_SET_ELEM_LIST_SET` alike.
const WITHIN: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;

const FAMILIES: [(u8, &str); 2] = [(NFPROTO_INET, "inet"), (NFPROTO_BRIDGE, "bridge")];

/// Returns the tables called `twinax` and their elements, one a line, as bytes.
pub fn elements() -> io::Result<String> {
    let mut text = String::new();
    for (family, word) in FAMILIES {
        for table in dump(NFT_MSG_GETTABLE, family, &[])? {
            let name = name(&table, TABLE);
            // A dump of one family's tables brings only that family's.
            _ = writeln!(text, "table {word} {name}");
            let request = [(TABLE, name.as_str())];
            for set in dump(NFT_MSG_GETSET, family, &request)? {
                set_elements(&mut text, family, (word, &name), &self::name(&set, WITHIN))?;
            }
        }
    }
    Ok(text)
}

fn set_elements(
    text: &mut String,
    family: u8,
    (word, table): (&str, &str),
    set: &str,
) -> io::Result<()> {
    let mut lines = Vec::new();
    for part in dump(NFT_MSG_GETSETELEM, family, &[(TABLE, table), (WITHIN, set)])? {
        for (_, list) in attributes(&part).filter(|(kind, _)| *kind == NFTA_SET_ELEM_LIST_ELEMENTS)
        {
            for (_, element) in attributes(list) {
                let mut line = format!("element {word} {set}");
                for (kind, value) in attributes(element) {
                    if [NFTA_SET_ELEM_KEY, NFTA_SET_ELEM_DATA].contains(&kind) {
                        let hex = value.iter().map(|byte| format!("{byte:02x}"));
                        _ = write!(line, " {}", hex.collect::<String>());
                    }
                }
                lines.push(line + "\n");
            }
        }
    }
    lines.sort();
    text.extend(lines);
    Ok(())
}

/// Deletes both tables of the product, as `nft flush ruleset` would.
pub fn delete_tables() -> io::Result<()> {
    FAMILIES
        .iter()
        .try_for_each(|(family, _)| batch(NFT_MSG_DELTABLE, *family, &[(TABLE, "twinax")]))
}

/// Deletes every rule of one chain of `inet twinax`.
pub fn flush_chain(chain: &str) -> io::Result<()> {
    batch(NFT_MSG_DELRULE, NFPROTO_INET, &[(TABLE, "twinax"), (WITHIN, chain)])
}

fn socket() -> io::Result<rustix::fd::OwnedFd> {
    let protocol = Some(rustix::net::netlink::NETFILTER);
    let family = AddressFamily::NETLINK;
    Ok(rustix::net::socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?)
}

fn batch(kind: u16, family: u8, attributes: &[(u16, &str)]) -> io::Result<()> {
    let socket = socket()?;
    // struct nfgenmsg: the resource of a batch is its subsystem, in network order.
    let edge = [0, 0, 0, 10];
    let mut sent = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, edge, &[]);
    sent.extend(message(kind, NLM_F_REQUEST | NLM_F_ACK, [family, 0, 0, 0], attributes));
    sent.extend(message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, edge, &[]));
    rustix::net::send(&socket, &sent, SendFlags::empty())?;
    let mut reply = vec![0; 1 << 16];
    rustix::net::recv(&socket, &mut reply, RecvFlags::empty())?;
    error_of(&reply[16..])
}

/// Returns the attributes of each message of the answer.
fn dump(kind: u16, family: u8, wanted: &[(u16, &str)]) -> io::Result<Vec<Vec<u8>>> {
    let socket = socket()?;
    let request = message(kind, NLM_F_REQUEST | NLM_F_DUMP, [family, 0, 0, 0], wanted);
    rustix::net::send(&socket, &request, SendFlags::empty())?;
    let mut answers = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let (length, _) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let length = u32::from_ne_bytes(rest[..4].try_into().unwrap()) as usize;
            match u16::from_ne_bytes([rest[4], rest[5]]) {
                NLMSG_DONE => return Ok(answers),
                NLMSG_ERROR => return error_of(&rest[16..]).map(|()| answers),
                _ if rest[16] == family => answers.push(rest[20..length].to_vec()),
                _ => {}
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn error_of(body: &[u8]) -> io::Result<()> {
    match i32::from_ne_bytes(body[..4].try_into().unwrap()) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

fn message(kind: u16, flags: u16, head: [u8; 4], attributes: &[(u16, &str)]) -> Vec<u8> {
    let mut body = head.to_vec();
    for (kind, value) in attributes {
        body.extend(((4 + value.len() + 1) as u16).to_ne_bytes());
        body.extend(kind.to_ne_bytes());
        body.extend(value.as_bytes());
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(body);
    message
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn name(message: &[u8], wanted: u16) -> String {
    let value = attributes(message).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    String::from_utf8_lossy(value.unwrap_or_default()).trim_end_matches('\0').to_owned()
}
