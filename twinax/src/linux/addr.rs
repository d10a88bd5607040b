//! Messages about addresses. Sends nothing.

use std::net::IpAddr;

use ipnet::IpNet;
use rustix::io::Errno;
use twinax_core::model::PROTOCOL;

use super::{
    netlink::{Message, Outgoing, attributes, ip, number},
    socket::Batch,
};

/// Every family, in a question.
pub(super) const ANY: u8 = libc::AF_UNSPEC as u8;
pub(super) const INET: u8 = libc::AF_INET as u8;
pub(super) const INET6: u8 = libc::AF_INET6 as u8;

/// linux/if_addr.h, since Linux 5.18.
const IFA_PROTO: u16 = 11;

/// Gives an address to a link; once more changes nothing.
///
/// No broadcast address is stored, as `ip address add` does not either: the kernel knows the
/// subnet's last address as a broadcast all the same.
pub fn add(batch: &mut Batch, index: u32, net: IpNet) {
    let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
    let out = batch.request(libc::RTM_NEWADDR, flags as u16);
    put_addr(out, index, net);
    if net.addr().is_ipv6() {
        // Twinax gives out addresses itself: waiting a second for a clash would only delay.
        out.number(libc::IFA_FLAGS, libc::IFA_F_NODAD);
    }
    out.attr(IFA_PROTO, &[PROTOCOL]);
}

/// Takes an address from a link; one that is not there is no error.
pub fn delete(batch: &mut Batch, index: u32, net: IpNet) {
    put_addr(batch.request(libc::RTM_DELADDR, 0), index, net);
    batch.forgive(&[Errno::ADDRNOTAVAIL, Errno::NODEV]);
}

fn put_addr(out: &mut Outgoing, index: u32, net: IpNet) {
    out.body(&header(family(net.addr()), net.prefix_len(), index));
    out.ip(libc::IFA_LOCAL, net.addr());
    out.ip(libc::IFA_ADDRESS, net.addr());
}

/// Asks for the addresses of one link, or of all links (`None`), of both families.
pub fn list(batch: &mut Batch, index: Option<u32>) {
    batch.request(libc::RTM_GETADDR, 0).body(&header(0, 0, index.unwrap_or(0)));
}

/// `struct ifaddrmsg` (linux/if_addr.h): family, length of the prefix, flags, scope, link.
fn header(family: u8, prefix_len: u8, index: u32) -> [u8; 8] {
    let [a, b, c, d] = index.to_ne_bytes();
    [family, prefix_len, 0, 0, a, b, c, d]
}

/// What is read of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddrFacts {
    pub index: u32,
    pub net: IpNet,
    /// Given by Twinax (`IFA_PROTO`, since Linux 5.18; false on older kernels).
    pub ours: bool,
}

/// Reads an answer about an address.
pub fn facts(message: &Message<'_>) -> Option<AddrFacts> {
    let (header, rest) = message.body.split_at_checked(8)?;
    let mut local = None;
    let mut address = None;
    let mut ours = false;
    for (kind, data) in attributes(rest) {
        match kind {
            libc::IFA_LOCAL => local = ip(data),
            libc::IFA_ADDRESS => address = ip(data),
            IFA_PROTO => ours = data == [PROTOCOL],
            _ => {}
        }
    }
    let net = IpNet::new(local.or(address)?, header[1]).ok()?;
    Some(AddrFacts { index: number(&header[4..])?, net, ours })
}

/// Whether the kernel makes addresses such as this on its own.
pub fn is_link_local(addr: IpAddr) -> bool {
    matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local())
}

pub(super) fn family(addr: IpAddr) -> u8 {
    match addr {
        IpAddr::V4(_) => INET,
        IpAddr::V6(_) => INET6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_reads_back_as_ours() {
        for net in ["10.1.0.2/24", "10.1.0.2/32", "fd00::2/64", "fd00::2/128"] {
            let net: IpNet = net.parse().unwrap();
            let mut batch = Batch::default();
            add(&mut batch, 7, net);
            let read = facts(&batch.messages()[0]).unwrap();
            assert_eq!(read, AddrFacts { index: 7, net, ours: true });
        }
    }
}
