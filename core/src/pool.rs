//! Free addresses, ports, names and subnets: pure arithmetic on sets.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The addresses of one network that are given out: one bitmap a subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leases {
    pub subnets: BTreeMap<IpNet, Bitmap>,
}

/// Which of the first 65,536 addresses of a subnet are taken, by offset from its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bitmap {
    words: Vec<u64>,
    /// Where the search goes on, so that an address given back is not given out at once.
    next: u32,
}

impl Leases {
    pub fn holds(&self, _addr: IpAddr) -> bool {
        false
    }
}
