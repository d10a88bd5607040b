//! Which of a container's places on networks leads out, and can be reached from outside.
//!
//! Read only: what is published and where the default route goes follow from the same answer.

use std::net::IpAddr;

use crate::{
    name::NetworkName,
    state::{Container, Endpoint, GatewayMode, Network, Table},
};

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    /// Both, in the order they are worked on.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// Returns the family of an address.
    pub fn of(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

impl Network {
    /// Returns how the network leads out in `family`.
    pub fn mode(&self, family: Family) -> GatewayMode {
        match family {
            Family::V4 => self.mode4,
            Family::V6 => self.mode6,
        }
    }

    /// Whether the network has a subnet in `family`.
    pub fn has(&self, family: Family) -> bool {
        self.subnets.iter().any(|subnet| Family::of(subnet.gateway) == family)
    }

    /// Whether the host routes between the network and the world in `family`.
    pub fn leads_out(&self, family: Family) -> bool {
        !self.internal && self.has(family) && self.mode(family) != GatewayMode::Isolated
    }
}

/// Returns the endpoint that carries the default route and the published ports of `family`: of
/// those whose network leads out, the one with the highest gateway priority, then the one
/// attached first.
pub fn gateway_endpoint<'a>(
    container: &'a Container,
    networks: &Table<NetworkName, Network>,
    family: Family,
) -> Option<&'a Endpoint> {
    let leads_out = |endpoint: &&Endpoint| {
        endpoint.addrs.iter().any(|addr| Family::of(*addr) == family)
            && networks.get(&endpoint.network).is_some_and(|network| network.leads_out(family))
    };
    // Reversed, as `max_by_key` returns the last of equals.
    let endpoints = container.endpoints.iter().rev();
    endpoints.filter(leads_out).max_by_key(|endpoint| endpoint.gateway_priority)
}
