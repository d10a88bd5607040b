//! Messages about permanent neighbours and forwarding entries that stay. Sends nothing.

use std::net::IpAddr;

use rustix::io::Errno;
use twinax_core::{model::PROTOCOL, name::Mac};

use super::{
    addr::family,
    netlink::{Message, Outgoing, attributes, ip, number},
    socket::Batch,
};

/// linux/neighbour.h
const NDA_PROTOCOL: u16 = 12;

const NTF_EXT_LEARNED: u8 = 0x10;

const BRIDGE: u8 = libc::AF_BRIDGE as u8;

/// State and flag of a forwarding entry that is made; its state means nothing to the kernel then, but
/// one must be given.
const TOLD: (u16, u8) = (libc::NUD_NOARP, NTF_EXT_LEARNED);
const ASKED: (u16, u8) = (0, 0);

/// Makes it, or takes the place of what is there.
const PUT: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// Ties an IP address to a MAC on a link for good, whatever was known before.
pub fn add(batch: &mut Batch, index: u32, addr: IpAddr, mac: Mac) {
    let out = batch.request(libc::RTM_NEWNEIGH, PUT);
    put_neighbour(out, index, addr, libc::NUD_PERMANENT);
    out.attr(libc::NDA_LLADDR, &mac.0);
    out.attr(NDA_PROTOCOL, &[PROTOCOL]);
}

/// Deletes a neighbour.
pub fn delete(batch: &mut Batch, index: u32, addr: IpAddr) {
    put_neighbour(batch.request(libc::RTM_DELNEIGH, 0), index, addr, 0);
    batch.forgive(&[Errno::NOENT, Errno::NODEV, Errno::NXIO]);
}

/// Asks for one neighbour.
pub fn get(batch: &mut Batch, index: u32, addr: IpAddr) {
    put_neighbour(batch.request(libc::RTM_GETNEIGH, 0), index, addr, 0);
}

fn put_neighbour(out: &mut Outgoing, index: u32, addr: IpAddr, state: u16) {
    out.body(&header(family(addr), index, state, 0));
    out.ip(libc::NDA_DST, addr);
}

/// Tells a bridge that a MAC is behind one of its ports, wherever it was thought to be.
pub fn add_fdb(batch: &mut Batch, port: u32, mac: Mac) {
    // Learnt elsewhere, in the bridge's terms: it never ages, as a static one does not, for which the
    // bridge would go through all of its ports to tell them of the MAC.
    put_fdb(batch.request(libc::RTM_NEWNEIGH, PUT), port, mac, TOLD);
}

/// Deletes an entry of a bridge's forwarding table.
pub fn delete_fdb(batch: &mut Batch, port: u32, mac: Mac) {
    put_fdb(batch.request(libc::RTM_DELNEIGH, 0), port, mac, ASKED);
    // EINVAL: the port is off its bridge, and its entries went with it.
    batch.forgive(&[Errno::NOENT, Errno::NODEV, Errno::INVAL, Errno::OPNOTSUPP]);
}

/// Asks a port's bridge where a MAC is.
pub fn get_fdb(batch: &mut Batch, port: u32, mac: Mac) {
    put_fdb(batch.request(libc::RTM_GETNEIGH, 0), port, mac, ASKED);
}

fn put_fdb(out: &mut Outgoing, port: u32, mac: Mac, (state, flags): (u16, u8)) {
    // NTF_MASTER: the table of the port's bridge, not the port's own.
    out.body(&header(BRIDGE, port, state, flags | libc::NTF_MASTER));
    out.attr(libc::NDA_LLADDR, &mac.0);
}

/// `struct ndmsg` (linux/neighbour.h): family, link, state, flags, type.
fn header(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let [a, b, c, d] = index.to_ne_bytes();
    let [e, f] = state.to_ne_bytes();
    [family, 0, 0, 0, a, b, c, d, e, f, flags, 0]
}

/// What is read of a neighbour or a forwarding entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourFacts {
    /// The link; for a forwarding entry, the port.
    pub index: u32,
    /// `None` for forwarding entries.
    pub addr: Option<IpAddr>,
    pub mac: Option<Mac>,
    /// As Twinax writes it: permanent and marked, or a static forwarding entry.
    pub ours: bool,
}

/// Reads an answer about a neighbour or a forwarding entry.
pub fn facts(message: &Message<'_>) -> Option<NeighbourFacts> {
    let (header, rest) = message.body.split_at_checked(12)?;
    let state = u16::from_ne_bytes([header[8], header[9]]);
    let index = number(&header[4..])?;
    let mut facts = NeighbourFacts { index, addr: None, mac: None, ours: false };
    let mut marked = false;
    for (kind, data) in attributes(rest) {
        match kind {
            libc::NDA_DST => facts.addr = ip(data),
            libc::NDA_LLADDR => facts.mac = data.try_into().ok().map(Mac),
            NDA_PROTOCOL => marked = data == [PROTOCOL],
            _ => {}
        }
    }
    facts.ours = match header[0] {
        BRIDGE => header[10] & NTF_EXT_LEARNED != 0,
        _ => marked && state == libc::NUD_PERMANENT,
    };
    Some(facts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_back_as_ours() {
        let mac = Mac([2, 0x74, 10, 1, 0, 2]);
        for addr in ["10.1.0.2", "fd00::2"] {
            let addr: IpAddr = addr.parse().unwrap();
            let mut batch = Batch::default();
            add(&mut batch, 7, addr, mac);
            let read = facts(&batch.messages()[0]).unwrap();
            let expected =
                NeighbourFacts { index: 7, addr: Some(addr), mac: Some(mac), ours: true };
            assert_eq!(read, expected);
        }
        let mut batch = Batch::default();
        add_fdb(&mut batch, 7, mac);
        let read = facts(&batch.messages()[0]).unwrap();
        assert_eq!(read, NeighbourFacts { index: 7, addr: None, mac: Some(mac), ours: true });
    }
}
