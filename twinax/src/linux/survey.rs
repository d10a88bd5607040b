//! Answers about the host beyond what is ours: its uplink, its subnets, whether a link exists.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;
use twinax_core::decide::Room;

use super::{
    addr::{self, INET, INET6},
    link,
    route::{self, RouteFacts},
    socket::{BatchError, RouteSocket},
};

/// What Ethernet carries (RFC 894), where nothing else is known.
const ETHERNET_MTU: u32 = 1500;

/// Returns the MTU in bytes of the device that the default route leads out by, the IPv4 one
/// first; 1500 where there is none.
pub fn uplink_mtu(socket: &mut RouteSocket) -> Result<u32, BatchError> {
    for family in [INET, INET6] {
        let routes = listed(socket, family, libc::RT_TABLE_MAIN)?;
        let best = routes
            .into_iter()
            .filter(|route| route.dst.prefix_len() == 0 && route.kind == libc::RTN_UNICAST)
            .filter_map(|route| route.index.map(|index| (route.metric, index)))
            .min();
        let Some((_, index)) = best else {
            continue;
        };
        if let Some(facts) = link::by_index(socket, index)? {
            return Ok(facts.mtu);
        }
    }
    Ok(ETHERNET_MTU)
}

/// Returns every subnet that the host has an address in or a route to, without its default
/// routes, loopback, link-local and multicast, and without what Twinax made.
///
/// Lists the routing tables, so only for when a subnet is chosen.
pub fn foreign_subnets(socket: &mut RouteSocket) -> Result<BTreeSet<IpNet>, BatchError> {
    let addrs = socket.dump(|batch| addr::list(batch, None), addr::facts)?;
    // By link, what is ours there: routes and local entries that the kernel made of it, too.
    let mut ours: BTreeMap<u32, Vec<IpNet>> = BTreeMap::new();
    let mut found = BTreeSet::new();
    for facts in addrs {
        if facts.ours {
            ours.entry(facts.index).or_default().push(facts.net.trunc());
        } else {
            found.insert(facts.net.trunc());
        }
    }
    for family in [INET, INET6] {
        for table in [libc::RT_TABLE_MAIN, libc::RT_TABLE_LOCAL] {
            for facts in listed(socket, family, table)? {
                let made_of_ours = facts
                    .index
                    .and_then(|index| ours.get(&index))
                    .is_some_and(|nets| nets.iter().any(|net| net.contains(&facts.dst)));
                let counts = !matches!(facts.kind, libc::RTN_BROADCAST | libc::RTN_MULTICAST);
                if counts && !facts.ours && !made_of_ours {
                    found.insert(facts.dst);
                }
            }
        }
    }
    found.retain(|net| !is_of_no_account(net));
    Ok(found)
}

/// Returns what others made in the namespace of `socket`; default routes of ours do not count.
pub fn room(socket: &mut RouteSocket) -> Result<Room, BatchError> {
    let names = link::names(socket)?;
    let led = route::leads_out(socket)?;
    Ok(Room { links: names.iter().filter_map(|name| name.parse().ok()).collect(), led })
}

/// Whether the host has a link of that name.
pub fn link_exists(socket: &mut RouteSocket, name: &str) -> Result<bool, BatchError> {
    Ok(link::by_name(socket, name)?.is_some())
}

fn listed(socket: &mut RouteSocket, family: u8, table: u8) -> Result<Vec<RouteFacts>, BatchError> {
    socket.dump(|batch| route::list(batch, family, table), route::facts)
}

fn is_of_no_account(net: &IpNet) -> bool {
    let addr = net.network();
    net.prefix_len() == 0
        || addr.is_loopback()
        || addr.is_multicast()
        || addr.is_unspecified()
        || addr::is_link_local(addr)
}
