//! Runs the floor as the reference program runs, so that the floor itself can be held against it:
//! namespaces made on the way, both address families, nothing taken away in between.

use std::{fs, io, path::PathBuf, time::Instant};

use twinax::linux::nft::{NftOp, NftSocket};

use crate::{
    floor::{Cable, Floor},
    table::sample_line,
};

const GATEWAY: [u8; 4] = [10, 77, 0, 1];
const GATEWAY_MAC: [u8; 6] = [2, 0xaa, 0, 0, 0, 1];

/// Attaches `count` containers to one bridge and reports how long each took.
pub fn run(count: u32) -> io::Result<()> {
    for of in ["default", "all"] {
        fs::write(format!("/proc/sys/net/ipv6/conf/{of}/disable_ipv6"), "1")?;
    }
    let mut floor = Floor::open()?;
    let mut nft = NftSocket::open().map_err(io::Error::other)?;
    nft.transact(&[NftOp::PutTables]).map_err(io::Error::other)?;
    let bridge = floor.bridge("br0", GATEWAY_MAC, (GATEWAY, 16))?;
    let mut took = Vec::new();
    for number in 0..count {
        let [a, b, c, d] = number.to_be_bytes();
        let [high, low] = ((number + 2) as u16).to_be_bytes();
        let cable = Cable {
            container: String::new(),
            number,
            alias: String::new(),
            bridge,
            bridge_name: "br0".to_owned(),
            group: 0,
            mtu: 1500,
            mac: [2, 0x42, a, b, c, d],
            host_mac: [2, 0xfe, 0, 0, c, d],
            addr: [10, 77, high, low],
            prefix: 16,
            gateway: GATEWAY,
            gateway_mac: GATEWAY_MAC,
            host_port: (20_000 + number) as u16,
            port: 80,
        };
        let netns = PathBuf::from(format!("/run/netns/c{number}"));
        let started = Instant::now();
        floor.attach_as_reference(&cable, &netns)?;
        took.push(started.elapsed());
    }
    println!("{}", sample_line("r", count, &took));
    Ok(())
}
