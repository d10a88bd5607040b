//! Holds the floor against the engine: for the same attach both must send the same bytes.
//!
//! Left out of the comparison are the numbers of messages, the number of the descriptor that
//! stands for the container's namespace, and questions, which change nothing.

use std::io;

use twinax::linux::tape;

use crate::{
    engine::{self, Chosen, Engine},
    floor::{self, Cable, Floor},
    ladder::new_netns,
    table::note_line,
};

const NAMES: [&str; 4] = ["firewall", "cable", "host", "container"];
const HEADER: usize = 16;

/// Attaches one container with the engine, and reports where the floor would differ.
pub fn run() -> io::Result<()> {
    let mut floor = Floor::open()?;
    floor.loopback_up()?;
    let mut engine = Engine::open().map_err(io::Error::other)?;
    let mut namespaces = 0;
    // The first makes the network.
    for port in [8080, 8081] {
        let netns = new_netns(&mut namespaces)?;
        tape::start();
        let chosen = engine.attach(engine::at(&netns), port).map_err(io::Error::other)?;
        let sent = tape::stop();
        if port == 8081 {
            compare(&mut floor, &chosen, (&sent, port))?;
        }
    }
    Ok(())
}

fn compare(floor: &mut Floor, chosen: &Chosen, (sent, port): (&[Vec<u8>], u16)) -> io::Result<()> {
    let cable = cable(floor, chosen, port)?;
    let (questions, changes): (Vec<_>, Vec<_>) = sent.iter().partition(|bytes| asks(bytes));
    let expected = floor::changes(&cable, -1, 2);
    println!(
        "{}",
        note_line(&format!(
            "the engine sends {} times to change something, and asks {} times",
            changes.len(),
            questions.len()
        ))
    );
    let mut same = changes.len() == expected.len();
    for (n, name) in NAMES.iter().enumerate() {
        let ours = masked(&expected[n]);
        let Some(theirs) = changes.get(n).map(|bytes| masked(bytes)) else { continue };
        if ours != theirs {
            same = false;
            println!("floor, {name}:\n{}engine, {name}:\n{}", show(&ours), show(&theirs));
        }
    }
    match same {
        true => {
            println!("{}", note_line("the floor sends byte for byte what the engine sends"));
            Ok(())
        }
        false => Err(io::Error::other("the floor does not send what the engine sends")),
    }
}

fn cable(floor: &mut Floor, chosen: &Chosen, host_port: u16) -> io::Result<Cable> {
    let facts = chosen.facts();
    let subnet = &chosen.network.subnets[0];
    let four = |addr| match addr {
        std::net::IpAddr::V4(addr) => addr.octets(),
        std::net::IpAddr::V6(_) => [0; 4],
    };
    let gateway = four(subnet.gateway);
    let [a, b, c, d] = chosen.endpoint.number.to_be_bytes();
    let [w, x, y, z] = gateway;
    Ok(Cable {
        container: chosen.name.to_string(),
        number: chosen.endpoint.number,
        alias: format!("twinax default/{} {}", chosen.name, chosen.endpoint.ifname),
        bridge: floor.index_of(&facts.bridge)?,
        bridge_name: facts.bridge.clone(),
        group: facts.group,
        mtu: facts.mtu,
        mac: chosen.endpoint.mac.0,
        host_mac: [0x0a, 0x74, a, b, c, d],
        addr: four(chosen.endpoint.addrs[0]),
        prefix: subnet.net.prefix_len(),
        gateway,
        gateway_mac: [2, 0x74, w, x, y, z],
        host_port,
        port: 80,
    })
}

/// Whether a send only asks: its first message is a request to get something.
fn asks(bytes: &[u8]) -> bool {
    const RTM_GET: [u16; 4] = [18, 22, 26, 30];
    const RTM_GETRULE: u16 = 34;
    const SOCK_DIAG: u16 = 20;
    let kind = bytes.get(4..6).map_or(0, |two| u16::from_ne_bytes([two[0], two[1]]));
    let nft_get = kind >> 8 == 10 && [1, 4, 7, 10, 13].contains(&(kind & 0xff));
    let dumps_sockets = kind == SOCK_DIAG && bytes.len() > HEADER + 40;
    RTM_GET.contains(&kind) || kind == RTM_GETRULE || nft_get || dumps_sockets
}

/// Takes the messages apart, without what may differ.
fn masked(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|four| u32::from_ne_bytes(*four) as usize) {
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else { break };
        let mut message = message.to_vec();
        message[8..12].fill(0);
        // IFLA_NET_NS_FD: 8 bytes, kind 28.
        let descriptor = [8, 0, 28, 0];
        let places: Vec<usize> = (HEADER..length.saturating_sub(7))
            .step_by(4)
            .filter(|at| message[*at..*at + 4] == descriptor)
            .collect();
        places.into_iter().for_each(|at| message[at + 4..at + 8].fill(0));
        messages.push(message);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

fn show(messages: &[Vec<u8>]) -> String {
    let hex = |bytes: &Vec<u8>| {
        let words = bytes
            .chunks(4)
            .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        words.collect::<Vec<_>>().join(" ")
    };
    messages.iter().map(|message| format!("    {}\n", hex(message))).collect()
}
