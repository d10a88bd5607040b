//! Reads a list of links.

use std::collections::BTreeSet;

use rustix::io::Errno;
use twinax_core::{
    name::{IfName, Mac},
    sight::Counters,
};

use super::{asker::Asker, details};
use crate::linux::netlink::{Message, attribute, attributes, number};

const RTM_GETLINK: u16 = 18;
const RTM_NEWLINK: u16 = 16;
/// Bytes of `struct ifinfomsg`.
const HEADER: usize = 16;
const RTEXT_FILTER_SKIP_STATS: u32 = 8;

// linux/if_link.h
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_QDISC: u16 = 6;
const IFLA_MASTER: u16 = 10;
const IFLA_OPERSTATE: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_STATS64: u16 = 23;
const IFLA_GROUP: u16 = 27;
const IFLA_EXT_MASK: u16 = 29;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_PROP_LIST: u16 = 52;
const IFLA_ALT_IFNAME: u16 = 53;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_VXLAN_LINK: u16 = 3;

/// A link as the kernel tells of it: by indices, and numbers of namespaces.
#[derive(Clone, Debug)]
pub(super) struct RawLink {
    pub(super) index: u32,
    pub(super) name: IfName,
    /// Empty for hardware and `lo`.
    pub(super) kind: String,
    pub(super) loopback: bool,
    pub(super) up: bool,
    pub(super) carrier: bool,
    pub(super) operstate: u8,
    pub(super) mac: Mac,
    pub(super) mtu: u32,
    pub(super) group: u32,
    pub(super) alias: String,
    pub(super) master: Option<u32>,
    /// The index of the far end, or of what it lies on.
    pub(super) leads_to: Option<u32>,
    /// Which namespace that index is of.
    pub(super) far: Far,
    pub(super) hairpin: bool,
    pub(super) counters: Counters,
    pub(super) details: Vec<String>,
    pub(super) alt_names: BTreeSet<String>,
}

/// Which namespace the far end of a link is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Far {
    Same,
    /// As the namespace of the socket that was asked through calls it.
    Number(i32),
    /// One of those that are read, by its place among them.
    Room(usize),
}

impl RawLink {
    /// Whether links of this kind come in pairs.
    pub(super) fn is_cable(&self) -> bool {
        matches!(self.kind.as_str(), "veth" | "netkit" | "vxcan")
    }
}

/// Lists the links of the namespace that the socket's own calls `target`, or of the socket's own.
pub(super) fn list(asker: &mut Asker, target: Option<i32>) -> Result<Vec<RawLink>, Errno> {
    asker.list(
        RTM_GETLINK,
        |out| {
            out.body(&[0; HEADER]);
            // Only those of IPv6, of which there are dozens, can be left out.
            out.attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
            if let Some(number) = target {
                out.attr(IFLA_TARGET_NETNSID, &number.to_ne_bytes());
            }
        },
        parse,
    )
}

/// A link, by what it is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which<'a> {
    Name(&'a str),
    Index(u32),
}

/// Asks for one link of the namespace that the socket's own calls `target`.
pub(super) fn one(
    asker: &mut Asker,
    target: i32,
    which: &Which<'_>,
) -> Result<Option<RawLink>, Errno> {
    asker.one(
        RTM_GETLINK,
        |out| {
            let mut header = [0; HEADER];
            if let Which::Index(index) = which {
                header[4..8].copy_from_slice(&index.to_ne_bytes());
            }
            out.body(&header);
            out.attr(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
            out.attr(IFLA_TARGET_NETNSID, &target.to_ne_bytes());
            if let Which::Name(name) = which {
                out.text(IFLA_IFNAME, name);
            }
        },
        parse,
    )
}

fn parse(message: &Message<'_>) -> Option<RawLink> {
    let (header, rest) = message.body.split_at_checked(HEADER)?;
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let flags = number(&header[8..])?;
    let mut link = RawLink {
        index: number(&header[4..])?,
        name: IfName::spelled(b"?"),
        kind: String::new(),
        loopback: flags & libc::IFF_LOOPBACK as u32 != 0,
        up: flags & libc::IFF_UP as u32 != 0,
        carrier: flags & libc::IFF_LOWER_UP as u32 != 0,
        operstate: 0,
        mac: Mac([0; 6]),
        mtu: 0,
        group: 0,
        alias: String::new(),
        master: None,
        leads_to: None,
        far: Far::Same,
        hairpin: false,
        counters: Counters::default(),
        details: Vec::new(),
        alt_names: BTreeSet::new(),
    };
    for (kind, data) in attributes(rest) {
        link.take(kind, data);
    }
    // Kernels before 6.1 leave the index out where it is the same on both sides.
    if link.is_cable() && matches!(link.far, Far::Number(_)) && link.leads_to.is_none() {
        link.leads_to = Some(link.index);
    }
    link.leads_to = link.leads_to.filter(|index| *index != 0);
    Some(link)
}

impl RawLink {
    fn take(&mut self, kind: u16, data: &[u8]) {
        let value = number(data);
        let byte = data.first().copied().unwrap_or_default();
        match kind {
            IFLA_IFNAME => self.name = IfName::spelled(until_nul(data)),
            IFLA_ADDRESS => self.mac = data.try_into().map_or(self.mac, Mac),
            IFLA_MTU => self.mtu = value.unwrap_or_default(),
            IFLA_LINK => self.leads_to = value,
            IFLA_LINK_NETNSID => self.far = Far::Number(value.unwrap_or(u32::MAX).cast_signed()),
            IFLA_MASTER => self.master = value,
            IFLA_OPERSTATE => self.operstate = byte,
            IFLA_CARRIER => self.carrier = byte != 0,
            IFLA_GROUP => self.group = value.unwrap_or_default(),
            IFLA_IFALIAS => self.alias = lossy(data),
            IFLA_STATS64 => self.counters = counters(data),
            IFLA_LINKINFO => self.take_info(data),
            IFLA_PROP_LIST => {
                let names = attributes(data).filter(|(kind, _)| *kind == IFLA_ALT_IFNAME);
                self.alt_names.extend(names.map(|(_, name)| lossy(name)));
            }
            IFLA_QDISC => match lossy(data).as_str() {
                "noqueue" | "noop" => {}
                other => self.details.push(format!("qdisc {other}")),
            },
            IFLA_XDP => {
                let id = attribute(data, IFLA_XDP_PROG_ID).and_then(number).filter(|id| *id != 0);
                self.details.extend(id.map(|id| format!("xdp program {id}")));
            }
            IFLA_PARENT_DEV_NAME => self.details.push(format!("device {}", lossy(data))),
            _ => {}
        }
    }

    fn take_info(&mut self, info: &[u8]) {
        let kind = attribute(info, IFLA_INFO_KIND).map(lossy).unwrap_or_default();
        let data = attribute(info, IFLA_INFO_DATA).unwrap_or_default();
        self.details.extend(details::of(&kind, data));
        // Of these only their own options tell what they lie on.
        if kind == "vxlan" {
            self.leads_to = attribute(data, IFLA_VXLAN_LINK).and_then(number);
        }
        if attribute(info, IFLA_INFO_SLAVE_KIND).map(until_nul) == Some(b"bridge") {
            let data = attribute(info, IFLA_INFO_SLAVE_DATA).unwrap_or_default();
            self.hairpin = details::hairpin(data);
            self.details.extend(details::of_port(data));
        }
        self.kind = kind;
    }
}

/// `IF_OPER_*`, linux/if.h.
pub(super) fn operstate(state: u8) -> &'static str {
    const WORDS: [&str; 7] =
        ["unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up"];
    WORDS.get(usize::from(state)).copied().unwrap_or("unknown")
}

/// `struct rtnl_link_stats64` begins with eight numbers.
pub(super) fn counters(data: &[u8]) -> Counters {
    let number = |n: usize| {
        let bytes = data.get(n * 8..).and_then(|bytes| bytes.first_chunk());
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    Counters {
        rx_packets: number(0),
        tx_packets: number(1),
        rx_bytes: number(2),
        tx_bytes: number(3),
        rx_dropped: number(6),
        tx_dropped: number(7),
    }
}

fn until_nul(data: &[u8]) -> &[u8] {
    data.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Text of somebody else's, whatever it holds.
fn lossy(data: &[u8]) -> String {
    String::from_utf8_lossy(until_nul(data)).into_owned()
}
