//! Forgets connections of UDP ports whose translation has changed.
//!
//! An established entry of the connection table keeps its translation for as long as packets
//! come, whatever the ruleset says by now; for UDP that can be for ever.

use std::net::IpAddr;

use netlink_packet_core::{
    DefaultNla, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_ERROR, NlaBuffer,
    NlasIterator,
};
use rustix::{io::Errno, net::netlink};

use super::socket::{BatchError, Channel, HEADER_BYTES, Received, refusal};

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h.
const NFNL_SUBSYS_CTNETLINK: u16 = 1;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_FILTER: u16 = 25;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;
const CTA_ID: u16 = 12;
const UDP: u8 = 17;

/// `nfgenmsg`: family u8, version u8, resource u16.
const GENERIC_BYTES: usize = 4;

/// A socket to the connection table of the namespace it was opened in.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
}

impl Conntrack {
    pub fn open() -> Result<Self, Errno> {
        Channel::open(Some(netlink::NETFILTER)).map(|channel| Self { channel })
    }

    /// Deletes the UDP entries that came to `host_port` (on `host`; `None`: on any address) and
    /// either are translated to `target` or are not translated at all. The next packet is
    /// then judged by the ruleset. Returns how many there were.
    pub fn drop_udp(
        &mut self,
        host: Option<IpAddr>,
        host_port: u16,
        target: (IpAddr, u16),
    ) -> Result<usize, BatchError> {
        let family = match target.0 {
            IpAddr::V4(_) => libc::AF_INET as u8,
            IpAddr::V6(_) => libc::AF_INET6 as u8,
        };
        let question = filter(host_port);
        let mut stale: Vec<Vec<u8>> = Vec::new();
        self.channel.dump(
            |seq| frame(IPCTNL_MSG_CT_GET, NLM_F_DUMP, seq, family, &question),
            |message| match message {
                None => stale.clear(),
                Some(message) => {
                    let Some(entry) = Entry::read(message) else {
                        return;
                    };
                    let here = host.is_none_or(|host| entry.orig.dst == host);
                    let at = entry.orig.dst_port == host_port && entry.proto == UDP;
                    if at && here && (entry.reply.source() == target || !entry.is_translated()) {
                        stale.push(entry.key);
                    }
                }
            },
        )?;
        for key in &stale {
            self.delete(family, key)?;
        }
        Ok(stale.len())
    }

    fn delete(&mut self, family: u8, key: &[u8]) -> Result<(), BatchError> {
        let seq = self.channel.take_seq(1);
        let message = frame(IPCTNL_MSG_CT_DELETE, NLM_F_ACK, seq, family, key);
        let io = |errno| BatchError { index: 0, errno, text: "conntrack socket".to_owned() };
        self.channel.send(&message).map_err(io)?;
        loop {
            let answer = self.channel.receive(|message| {
                let ours = message.seq == seq && message.kind == NLMSG_ERROR;
                ours.then(|| refusal(message))
            });
            match answer.map_err(io)? {
                None => {}
                // It may have run out, or been replaced, since it was listed.
                Some(None | Some((Errno::NOENT, _))) => return Ok(()),
                Some(Some((errno, text))) => return Err(BatchError { index: 0, errno, text }),
            }
        }
    }
}

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    src: IpAddr,
    src_port: u16,
    dst: IpAddr,
    dst_port: u16,
}

impl Tuple {
    fn source(&self) -> (IpAddr, u16) {
        (self.src, self.src_port)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    proto: u8,
    orig: Tuple,
    reply: Tuple,
    /// The attributes that name this very entry in a deletion.
    key: Vec<u8>,
}

impl Entry {
    fn read(message: Received<'_>) -> Option<Self> {
        let mut orig = None;
        let mut reply = None;
        let mut key = Vec::new();
        for attribute in attributes(message.payload.get(GENERIC_BYTES..)?) {
            match attribute.kind() {
                CTA_TUPLE_ORIG => orig = read_tuple(attribute.value()),
                CTA_TUPLE_REPLY => reply = read_tuple(attribute.value()),
                CTA_ID => {}
                _ => continue,
            }
            // Without a tuple a deletion would empty the table, hence the `?` below.
            if attribute.kind() != CTA_TUPLE_REPLY {
                let nested = attribute.nested_flag();
                key.extend(attr(attribute.kind(), nested, attribute.value()));
            }
        }
        let ((proto, orig), (_, reply)) = (orig?, reply?);
        Some(Self { proto, orig, reply, key })
    }

    fn is_translated(&self) -> bool {
        (self.reply.src, self.reply.src_port) != (self.orig.dst, self.orig.dst_port)
            || (self.reply.dst, self.reply.dst_port) != (self.orig.src, self.orig.src_port)
    }
}

fn read_tuple(bytes: &[u8]) -> Option<(u8, Tuple)> {
    let mut proto = None;
    let (mut src, mut dst, mut src_port, mut dst_port) = (None, None, 0, 0);
    for part in attributes(bytes) {
        match part.kind() {
            CTA_TUPLE_IP => {
                // CTA_IP_V4_SRC, V4_DST, V6_SRC and V6_DST are 1 to 4.
                for ip in attributes(part.value()) {
                    match ip.kind() {
                        1 | 3 => src = read_addr(ip.value()),
                        2 | 4 => dst = read_addr(ip.value()),
                        _ => {}
                    }
                }
            }
            CTA_TUPLE_PROTO => {
                for field in attributes(part.value()) {
                    let port = field.value().first_chunk().map(|port| u16::from_be_bytes(*port));
                    match field.kind() {
                        CTA_PROTO_NUM => proto = field.value().first().copied(),
                        CTA_PROTO_SRC_PORT => src_port = port?,
                        CTA_PROTO_DST_PORT => dst_port = port?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((proto?, Tuple { src: src?, src_port, dst: dst?, dst_port }))
}

fn read_addr(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|addr| (*addr).into()),
        16 => bytes.first_chunk::<16>().map(|addr| (*addr).into()),
        _ => None,
    }
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

/// Lets the kernel leave out what is not UDP to this port (since Linux 5.8; older kernels list
/// everything, and all that is listed is looked at here once more).
fn filter(port: u16) -> Vec<u8> {
    // CTA_FILTER_FLAG_CTA_PROTO_NUM and CTA_FILTER_FLAG_CTA_PROTO_DST_PORT: bits 3 and 5
    // of net/netfilter/nf_conntrack_netlink.c (IP_SRC, IP_DST, ZONE, NUM, SRC_PORT, DST_PORT).
    let orig_flags: u32 = 1 << 3 | 1 << 5;
    let proto =
        [attr(CTA_PROTO_NUM, false, &[UDP]), attr(CTA_PROTO_DST_PORT, false, &port.to_be_bytes())]
            .concat();
    let tuple = attr(CTA_TUPLE_PROTO, true, &proto);
    let flags = [
        attr(CTA_FILTER_ORIG_FLAGS, false, &orig_flags.to_ne_bytes()),
        attr(CTA_FILTER_REPLY_FLAGS, false, &0u32.to_ne_bytes()),
    ]
    .concat();
    [attr(CTA_TUPLE_ORIG, true, &tuple), attr(CTA_FILTER, true, &flags)].concat()
}

fn attr(kind: u16, nested: bool, value: &[u8]) -> Vec<u8> {
    const NLA_F_NESTED: u16 = 0x8000;
    let kind = kind | if nested { NLA_F_NESTED } else { 0 };
    let attribute = DefaultNla::new(kind, value.to_vec());
    let mut bytes = vec![0; attribute.buffer_len().next_multiple_of(4)];
    attribute.emit(&mut bytes);
    bytes
}

fn frame(kind: u16, flags: u16, seq: u32, family: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER_BYTES + GENERIC_BYTES + attributes.len()) as u32;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend((NFNL_SUBSYS_CTNETLINK << 8 | kind).to_ne_bytes());
    bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend(seq.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(src: &str, dst: &str) -> Vec<u8> {
        let (src, dst): (std::net::SocketAddrV4, std::net::SocketAddrV4) =
            (src.parse().unwrap(), dst.parse().unwrap());
        let ip = [attr(1, false, &src.ip().octets()), attr(2, false, &dst.ip().octets())];
        let proto = [
            attr(CTA_PROTO_NUM, false, &[UDP]),
            attr(CTA_PROTO_SRC_PORT, false, &src.port().to_be_bytes()),
            attr(CTA_PROTO_DST_PORT, false, &dst.port().to_be_bytes()),
        ];
        [attr(CTA_TUPLE_IP, true, &ip.concat()), attr(CTA_TUPLE_PROTO, true, &proto.concat())]
            .concat()
    }

    fn entry(parts: &[Vec<u8>]) -> Option<Entry> {
        let payload = [vec![2, 0, 0, 0], parts.concat()].concat();
        Entry::read(Received { kind: 0, flags: 0, seq: 0, payload: &payload, whole: &[] })
    }

    #[test]
    fn an_entry_names_itself_and_its_translation() {
        let orig = attr(CTA_TUPLE_ORIG, true, &tuple("192.0.2.9:5000", "192.0.2.1:53"));
        let plain = attr(CTA_TUPLE_REPLY, true, &tuple("192.0.2.1:53", "192.0.2.9:5000"));
        let moved = attr(CTA_TUPLE_REPLY, true, &tuple("10.1.0.2:5353", "192.0.2.9:5000"));
        let id = attr(CTA_ID, false, &[1, 2, 3, 4]);
        let read = entry(&[orig.clone(), moved, id.clone()]).unwrap();
        assert_eq!(read.reply.source(), ("10.1.0.2".parse().unwrap(), 5353));
        assert!(read.is_translated());
        assert_eq!(read.key, [orig.clone(), id].concat());
        assert!(!entry(&[orig.clone(), plain.clone()]).unwrap().is_translated());
        assert_eq!(entry(&[plain]), None, "no key, no deletion");
        for n in 0..orig.len() {
            let _ = entry(&[orig[..n].to_vec()]);
        }
    }
}
