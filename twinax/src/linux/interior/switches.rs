//! Reads the switches under `/proc/sys/net` that decide about containers' traffic. They are those
//! of the namespace that the reading thread is in.

use std::collections::BTreeMap;

use twinax_core::name::IfName;

const ONES: [&str; 24] = [
    "ipv4/ip_forward",
    "ipv6/conf/all/forwarding",
    "bridge/bridge-nf-call-iptables",
    "bridge/bridge-nf-call-ip6tables",
    "bridge/bridge-nf-call-arptables",
    "bridge/bridge-nf-filter-vlan-tagged",
    "netfilter/nf_conntrack_max",
    "netfilter/nf_conntrack_count",
    "netfilter/nf_conntrack_buckets",
    "netfilter/nf_conntrack_udp_timeout",
    "netfilter/nf_conntrack_udp_timeout_stream",
    "netfilter/nf_conntrack_tcp_be_liberal",
    "ipv4/neigh/default/gc_thresh1",
    "ipv4/neigh/default/gc_thresh2",
    "ipv4/neigh/default/gc_thresh3",
    "ipv6/neigh/default/gc_thresh1",
    "ipv6/neigh/default/gc_thresh2",
    "ipv6/neigh/default/gc_thresh3",
    "ipv4/ip_unprivileged_port_start",
    "ipv4/ip_local_port_range",
    "ipv4/ip_nonlocal_bind",
    "ipv4/tcp_mtu_probing",
    "ipv4/ping_group_range",
    "core/somaxconn",
];
const OF_LINKS: [&str; 11] = [
    "ipv4/conf/{}/rp_filter",
    "ipv4/conf/{}/forwarding",
    "ipv4/conf/{}/src_valid_mark",
    "ipv4/conf/{}/accept_local",
    "ipv4/conf/{}/route_localnet",
    "ipv4/conf/{}/proxy_arp",
    "ipv4/conf/{}/arp_ignore",
    "ipv6/conf/{}/forwarding",
    "ipv6/conf/{}/disable_ipv6",
    "ipv6/conf/{}/accept_ra",
    "ipv6/conf/{}/proxy_ndp",
];
/// Of more links than this their own switches are not read.
const LINKS: usize = 256;

/// Reads the switches, those of each link with them. What is not there is left out.
pub(super) fn read<'a>(links: impl Iterator<Item = &'a IfName>) -> BTreeMap<String, String> {
    let mut names: Vec<String> = ONES.iter().map(|name| (*name).to_owned()).collect();
    let links = links.take(LINKS).map(IfName::as_str);
    for link in ["all", "default"].into_iter().chain(links) {
        names.extend(OF_LINKS.iter().map(|name| name.replace("{}", link)));
    }
    names.into_iter().filter_map(one).collect()
}

/// Reads one switch; `None` where there is no such thing.
pub(super) fn one(name: String) -> Option<(String, String)> {
    let value = std::fs::read_to_string(format!("/proc/sys/net/{name}")).ok()?;
    Some((name, value.trim_end().replace('\t', " ")))
}
