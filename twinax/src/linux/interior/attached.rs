//! What hangs on links' wires: queueing disciplines, BPF programs, a bridge port's settings.

use std::{
    collections::BTreeMap,
    os::fd::{AsRawFd, BorrowedFd},
    thread,
};

use rustix::io::Errno;
use twinax_core::{interior::Attached, name::IfName};

use super::ask;
use crate::linux::{
    netlink::{Message, attribute, attributes, number, text},
    netns::unshare_network,
    socket::{Batch, RouteSocket},
};

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWQDISC: u16 = 36;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_GETTFILTER: u16 = 46;
/// Bytes of `struct tcmsg`, and of `struct ifinfomsg`.
const TC_HEADER: usize = 20;
const LINK_HEADER: usize = 16;

// linux/rtnetlink.h, linux/pkt_cls.h
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_ID: u16 = 11;
/// The sides of `ingress` and `clsact`.
const SIDES: [(u32, &str); 2] = [(0xffff_fff2, "tc ingress"), (0xffff_fff3, "tc egress")];
/// `BPF_TCX_INGRESS`, `BPF_TCX_EGRESS`.
const TCX: [(u32, &str); 2] = [(46, "tcx ingress"), (47, "tcx egress")];

// linux/if_link.h
const IFLA_QDISC: u16 = 6;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_TARGET_NETNSID: u16 = 46;
const IFLA_XDP_PROG_ID: u16 = 4;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

// linux/net_namespace.h
const RTM_NEWNSID: u16 = 88;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;
const HOME: i32 = 0;

/// So many links are asked one by one.
const FEW: usize = 16;
/// What a link has as queueing discipline that has none, or was never up.
const NONE: &str = "noop";
/// Those that have no others below, and of which no more is told than their kind.
const PLAIN: [&str; 7] = ["noqueue", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "codel"];

/// Reads what hangs on these links of the calling thread's namespace, which `netns` stands for.
pub(super) fn read(
    links: &BTreeMap<u32, IfName>,
    netns: BorrowedFd<'_>,
) -> Result<Vec<(IfName, Attached)>, Errno> {
    let mut socket = RouteSocket::open()?;
    let mut found: BTreeMap<u32, Attached> =
        links.keys().map(|index| (*index, Attached::default())).collect();
    let told = told(links, netns, &mut socket)?;
    let mut sided = Vec::new();
    for (index, kind, words) in qdiscs(&told, links.len(), &mut socket)? {
        // Others are not asked for.
        let Some(one) = found.get_mut(&index) else { continue };
        if matches!(kind.as_str(), "ingress" | "clsact") {
            sided.push(index);
        }
        one.qdiscs.push(words);
    }
    for link in told {
        let Some(one) = found.get_mut(&link.index) else { continue };
        one.port = link.port;
        one.programs.extend(link.xdp.map(|id| ("xdp".to_owned(), id, ask::program_name(id))));
    }
    for index in sided {
        for (parent, side) in SIDES {
            let programs = filters(&mut socket, index, parent)?;
            let programs = programs.into_iter().map(|(id, filter)| {
                let own = Some(ask::program_name(id)).filter(|name| !name.is_empty());
                (side.to_owned(), id, own.unwrap_or(filter))
            });
            found.entry(index).or_default().programs.extend(programs);
        }
    }
    for (attach_type, side) in TCX {
        for (index, one) in &mut found {
            // Older kernels have no such point, and an ordinary user may not ask.
            let Ok(ids) = ask::programs_at(*index, attach_type) else { break };
            let ids = ids.into_iter().map(|id| (side.to_owned(), id, ask::program_name(id)));
            one.programs.extend(ids);
        }
    }
    let named =
        found.into_iter().filter_map(|(index, one)| Some((links.get(&index)?.clone(), one)));
    Ok(named.collect())
}

/// What the kernel tells of the links: of each by a question, or of all that are there if they are
/// many. It is asked from a namespace that nobody else is in: the kernel gives the namespace of a
/// far end a number in that of whoever asks.
fn told(
    links: &BTreeMap<u32, IfName>,
    netns: BorrowedFd<'_>,
    within: &mut RouteSocket,
) -> Result<Vec<Told>, Errno> {
    let mut outside = outside(netns).ok();
    let is_outside = outside.is_some();
    let socket = outside.as_mut().unwrap_or(within);
    let ask = |batch: &mut Batch, index: u32| {
        let mut header = [0; LINK_HEADER];
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        let out = batch.request(RTM_GETLINK, 0);
        out.body(&header);
        if is_outside {
            out.attr(IFLA_TARGET_NETNSID, &HOME.to_ne_bytes());
        }
    };
    if links.len() > FEW {
        return socket.dump(|batch| ask(batch, 0), link).map_err(|error| error.errno);
    }
    let all = |batch: &mut Batch| links.keys().for_each(|index| ask(batch, *index));
    let mut told = Vec::with_capacity(links.len());
    for answer in socket.ask(all, link).map_err(|error| error.errno)? {
        match answer {
            Ok(link) => told.push(link),
            Err(Errno::NODEV) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(told)
}

/// A socket of a new namespace, which calls `netns` by the number `HOME`.
fn outside(netns: BorrowedFd<'_>) -> Result<RouteSocket, Errno> {
    let open = || {
        unshare_network()?;
        let mut socket = RouteSocket::open()?;
        let mut batch = Batch::default();
        let out = batch.request(RTM_NEWNSID, 0);
        out.body(&[0; 4]); // struct rtgenmsg, padded
        out.attr(NETNSA_FD, &netns.as_raw_fd().to_ne_bytes());
        out.attr(NETNSA_NSID, &HOME.to_ne_bytes());
        socket.send(&mut batch).map_err(|error| error.errno)?;
        Ok(socket)
    };
    thread::scope(|scope| scope.spawn(open).join().unwrap_or(Err(Errno::IO)))
}

/// The queueing disciplines of the links: number of the link, kind, words. They can be listed of all
/// links only (20 ms for a thousand); a few links are asked whether there is more to be told than
/// the kind of the first, and mostly there is not.
fn qdiscs(
    told: &[Told],
    count: usize,
    socket: &mut RouteSocket,
) -> Result<Vec<(u32, String, String)>, Errno> {
    let plain = |link: &Told| link.qdisc == NONE || PLAIN.contains(&link.qdisc.as_str());
    if count <= FEW && told.iter().all(plain) && !any_side(told, socket)? {
        let some = told.iter().filter(|link| link.qdisc != NONE);
        return Ok(some.map(|it| (it.index, it.qdisc.clone(), it.qdisc.clone())).collect());
    }
    let list = |batch: &mut Batch| {
        batch.request(RTM_GETQDISC, 0).body(&[0; TC_HEADER]);
    };
    socket.dump(list, qdisc).map_err(|error| error.errno)
}

/// Whether one of the links may have `ingress` or `clsact`, which is not told of a link. Asked for a
/// filter that nobody has, the kernel says whether there is anything to have one; if its
/// words should change one day, all are listed.
fn any_side(told: &[Told], socket: &mut RouteSocket) -> Result<bool, Errno> {
    /// net/sched/cls_api.c, `__tcf_qdisc_find`.
    const NO_PARENT: &str = "Parent Qdisc doesn't exists";
    /// The last priority, of all protocols. (A kind is not named, as its module would be loaded.)
    const FILTER: u32 = 0xffff_0000 | (libc::ETH_P_ALL as u16).to_be() as u32;
    for link in told {
        let mut header = [0; TC_HEADER];
        header[4..8].copy_from_slice(&link.index.to_ne_bytes());
        header[12..16].copy_from_slice(&SIDES[0].0.to_ne_bytes());
        header[16..].copy_from_slice(&FILTER.to_ne_bytes());
        let mut batch = Batch::default();
        batch.request(RTM_GETTFILTER, 0).body(&header);
        match socket.send(&mut batch) {
            Err(error) if error.errno == Errno::INVAL && error.text == NO_PARENT => {}
            Err(error) if error.errno == Errno::NODEV => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

fn qdisc(message: &Message<'_>) -> Option<(u32, String, String)> {
    let (header, rest) = message.body.split_at_checked(TC_HEADER)?;
    if message.kind != RTM_NEWQDISC {
        return None;
    }
    let kind = attribute(rest, TCA_KIND).and_then(text)?.to_owned();
    let options = attribute(rest, TCA_OPTIONS).unwrap_or_default();
    let words = match kind.as_str() {
        "tbf" => tbf(options),
        "netem" => netem(options),
        _ => None,
    };
    let words = words.map_or_else(|| kind.clone(), |words| format!("{kind} {words}"));
    Some((number(&header[4..])?, kind, words.trim_end().to_owned()))
}

/// `struct tc_tbf_qopt` begins with a `tc_ratespec`, at whose offset 8 is the rate in bytes a
/// second; what does not fit stands beside it (`TCA_TBF_RATE64`).
fn tbf(options: &[u8]) -> Option<String> {
    const PARMS: u16 = 1;
    const RATE64: u16 = 4;
    let long = attribute(options, RATE64).and_then(|data| data.first_chunk());
    let short = attribute(options, PARMS).and_then(|data| number(data.get(8..)?));
    let bytes = long.map(|bytes| u64::from_ne_bytes(*bytes)).or_else(|| short.map(u64::from))?;
    Some(format!("rate {}", rate(bytes.saturating_mul(8))))
}

/// Bits a second, as tc(8) has them.
fn rate(bits: u64) -> String {
    for (unit, name) in [(1_000_000_000, "Gbit"), (1_000_000, "Mbit"), (1_000, "kbit")] {
        if bits >= unit && bits.is_multiple_of(unit) {
            return format!("{}{name}", bits / unit);
        }
    }
    format!("{bits}bit")
}

/// `struct tc_netem_qopt`: latency in ticks, limit, loss, gap, duplicate, jitter; then attributes,
/// of which `TCA_NETEM_LATENCY64` has the delay in nanoseconds.
fn netem(options: &[u8]) -> Option<String> {
    const BYTES: usize = 24;
    const LATENCY64: u16 = 10;
    const JITTER64: u16 = 11;
    let (fixed, rest) = options.split_at_checked(BYTES)?;
    let time = |kind| {
        let data = attribute(rest, kind)?.first_chunk()?;
        Some(i64::from_ne_bytes(*data)).filter(|ns| *ns > 0)
    };
    let mut words = Vec::new();
    words.extend(time(LATENCY64).map(|ns| format!("delay {}", duration(ns))));
    words.extend(time(JITTER64).map(|ns| format!("jitter {}", duration(ns))));
    let share = |at: usize| number(&fixed[at..]).filter(|share| *share > 0);
    let percent = |share: u32| f64::from(share) * 100.0 / f64::from(u32::MAX);
    words.extend(share(8).map(|share| format!("loss {:.3}%", percent(share))));
    words.extend(share(16).map(|share| format!("duplicate {:.3}%", percent(share))));
    Some(words.join(" "))
}

fn duration(ns: i64) -> String {
    match ns {
        1_000_000.. if ns % 1_000_000 == 0 => format!("{}ms", ns / 1_000_000),
        1_000.. => format!("{}us", ns / 1_000),
        _ => format!("{ns}ns"),
    }
}

/// The BPF programs among the filters of one side.
fn filters(socket: &mut RouteSocket, index: u32, parent: u32) -> Result<Vec<(u32, String)>, Errno> {
    let mut header = [0; TC_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[12..16].copy_from_slice(&parent.to_ne_bytes());
    let found = socket.dump(|batch| batch.request(RTM_GETTFILTER, 0).body(&header), filter);
    match found {
        Ok(found) => Ok(found.into_iter().flatten().collect()),
        // The qdisc has just gone.
        Err(error) if matches!(error.errno, Errno::INVAL | Errno::NOENT) => Ok(Vec::new()),
        Err(error) => Err(error.errno),
    }
}

fn filter(message: &Message<'_>) -> Option<Option<(u32, String)>> {
    let rest = message.body.get(TC_HEADER..)?;
    if message.kind != RTM_NEWTFILTER {
        return None;
    }
    let is_bpf = attribute(rest, TCA_KIND).and_then(text) == Some("bpf");
    let options = attribute(rest, TCA_OPTIONS).filter(|_| is_bpf).unwrap_or_default();
    let id = attribute(options, TCA_BPF_ID).and_then(number);
    let name = attribute(options, TCA_BPF_NAME).and_then(text).unwrap_or_default().to_owned();
    Some(id.map(|id| (id, name)))
}

/// What is told of a link.
struct Told {
    index: u32,
    /// The kind of its first queueing discipline.
    qdisc: String,
    /// Its XDP program.
    xdp: Option<u32>,
    /// Its settings as a bridge's port.
    port: Vec<String>,
}

fn link(message: &Message<'_>) -> Option<Told> {
    let (header, rest) = message.body.split_at_checked(LINK_HEADER)?;
    if message.kind != RTM_NEWLINK {
        return None;
    }
    let xdp = attribute(rest, IFLA_XDP).and_then(|xdp| attribute(xdp, IFLA_XDP_PROG_ID));
    let info = attribute(rest, IFLA_LINKINFO).unwrap_or_default();
    let on_bridge = attribute(info, IFLA_INFO_SLAVE_KIND).and_then(text) == Some("bridge");
    let port = attribute(info, IFLA_INFO_SLAVE_DATA).filter(|_| on_bridge);
    Some(Told {
        index: number(&header[4..])?,
        qdisc: attribute(rest, IFLA_QDISC).and_then(text).unwrap_or(NONE).to_owned(),
        xdp: xdp.and_then(number).filter(|id| *id != 0),
        port: port.map(port_words).unwrap_or_default(),
    })
}

/// `IFLA_BRPORT_*`: those settings that are not as the kernel makes them.
fn port_words(data: &[u8]) -> Vec<String> {
    const SWITCHES: [(u16, &str, bool); 12] = [
        (4, "hairpin", false),
        (5, "guard", false),
        (6, "root block", false),
        (7, "fast leave", false),
        (8, "learning", true),
        (9, "flood", true),
        (10, "proxy arp", false),
        (27, "multicast flood", true),
        (30, "broadcast flood", true),
        (32, "neighbour suppression", false),
        (33, "isolated", false),
        (37, "locked", false),
    ];
    let mut words = Vec::new();
    for (kind, value) in attributes(data) {
        let known = SWITCHES.iter().find(|(number, ..)| *number == kind);
        if let (Some((_, name, usual)), Some(on)) = (known, value.first())
            && (*on > 0) != *usual
        {
            words.push(format!("{name} {}", if *on > 0 { "on" } else { "off" }));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::netlink::Outgoing;

    #[test]
    fn settings_that_are_not_the_usual_are_told() {
        let mut out = Outgoing::default();
        out.message(0, 0, 0);
        for (kind, on) in [(4, 1), (8, 0), (9, 1), (33, 1), (6, 0)] {
            out.attr(kind, &[on]);
        }
        assert_eq!(port_words(&out.bytes()[16..]), ["hairpin on", "learning off", "isolated on"]);
    }

    #[test]
    fn rates_and_times_are_told_as_tc_does() {
        assert_eq!([rate(1_000_000), rate(512_000), rate(7)], ["1Mbit", "512kbit", "7bit"]);
        assert_eq!([duration(10_000_000), duration(1_500_000)], ["10ms", "1500us"]);
    }
}
