//! Published ports: who reaches what, as whom, and what a change of ports does to a running container.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket},
    thread,
};

use serde_json::Value;

use crate::{
    harness::Outcome,
    product::{Inside, answer, left, traces},
    sandbox::{Netns, PATIENCE, Reach, Sandbox, Talk},
    tables, tests, wire,
};

tests![
    every_way_in_over_both_protocols_and_families,
    ranges_and_automatic_ports,
    one_address_of_the_host_only,
    a_port_on_loopback_stays_there,
    a_taken_port_is_refused_by_the_name_of_its_holder,
    ports_change_while_the_container_runs,
    a_udp_flow_moves_with_its_port,
    ports_follow_the_way_out,
    no_loopback_to_lay_open,
];

const V4: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const V6: [&str; 2] = ["2001:db8::1", "2001:db8::2"];

/// ```text
/// host 192.0.2.1 ═══ 192.0.2.2 outside
/// ```
fn outside(sandbox: &Sandbox) -> Netns {
    let (ours, theirs) = (["192.0.2.1/24", "2001:db8::1/64"], ["192.0.2.2/24", "2001:db8::2/64"]);
    sandbox.outside("uplink", &ours, &theirs)
}

fn at(addr: impl ToString, port: u16) -> SocketAddr {
    SocketAddr::new(addr.to_string().parse().unwrap(), port)
}

fn serving(inside: &Inside, port: u16) {
    answer(&inside.netns, at("::", port));
}

#[track_caller]
fn reached(from: &Netns, target: SocketAddr, client: impl ToString) {
    let client: IpAddr = client.to_string().parse().unwrap();
    for talk in [Talk::Tcp, Talk::Udp] {
        let reach = from.ask(talk, target);
        assert_eq!(reach, Reach::Reached(client), "{talk:?} to {target}");
    }
}

#[track_caller]
fn out_of_reach(from: &Netns, target: SocketAddr) {
    for talk in [Talk::Tcp, Talk::Udp] {
        let reach = from.ask(talk, target);
        assert!(!matches!(reach, Reach::Reached(_)), "{talk:?} to {target}: {reach:?}");
    }
}

fn every_way_in_over_both_protocols_and_families(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    sandbox.done("network create --ipv6 web");
    sandbox.done("network create --ipv6 back");
    let web = sandbox.start("web", "--network web -p 8080:80 -p 8080:80/udp");
    let neighbour = sandbox.start("neighbour", "--network web");
    let stranger = sandbox.start("stranger", "--network back");
    serving(&web, 80);
    let gateways = sandbox.gateways("web");
    for ([host, client], v6) in [(V4, false), (V6, true)] {
        let target = at(host, 8080);
        let gateway = gateways.iter().find(|addr| addr.is_ipv6() == v6).unwrap();
        reached(&outside, target, client);
        reached(&stranger.netns, target, stranger.of(v6).unwrap());
        reached(&neighbour.netns, target, gateway);
        reached(&web.netns, target, gateway);
        // The gateway is an address of the host like any other.
        reached(&neighbour.netns, at(gateway, 8080), gateway);
        reached(sandbox.host(), at(if v6 { "::1" } else { "127.0.0.1" }, 8080), gateway);
        let Reach::Reached(_) = sandbox.host().ask(Talk::Tcp, target) else {
            panic!("the host does not reach {target}");
        };
        out_of_reach(&outside, at(host, 80));
    }
    Outcome::Passed
}

fn ports(sandbox: &Sandbox, name: &str) -> Vec<(String, u16, u16)> {
    let ports = sandbox.json(&format!("port {name}"));
    let number = |port: &Value, key: &str| port[key].as_u64().unwrap() as u16;
    let ports = ports["ports"].as_array().unwrap().iter();
    ports
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap().to_owned();
            (protocol, number(port, "host_port"), number(port, "container_port"))
        })
        .collect()
}

fn ranges_and_automatic_ports(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    fs::write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40999").unwrap();
    // Held, so that the first of a range onto one port is passed over.
    let _held = TcpListener::bind("0.0.0.0:9000").unwrap();
    let web = sandbox.start("web", "-p 8000-8002:80-82 -p 9000-9005:90 -p 100 -p 100/udp");
    let ports = ports(sandbox, "web");
    let tcp = |from, to| ("tcp".to_owned(), from, to);
    for expected in [tcp(8000, 80), tcp(8001, 81), tcp(8002, 82), tcp(9001, 90)] {
        assert!(ports.contains(&expected), "{expected:?} of {ports:?}");
    }
    assert_eq!(ports.len(), 6, "{ports:?}");
    for port in [80, 82, 90, 100] {
        serving(&web, port);
    }
    for (protocol, host, inside) in ports.iter().filter(|(_, _, inside)| *inside != 81) {
        let talk = if protocol == "tcp" { Talk::Tcp } else { Talk::Udp };
        let client = Reach::Reached(V4[1].parse().unwrap());
        assert_eq!(outside.ask(talk, at(V4[0], *host)), client, "{protocol} {host}");
        assert!(*inside != 100 || (40000..41000).contains(host), "{host} is not ephemeral");
    }
    assert_eq!(outside.ask(Talk::Tcp, at(V4[0], 8001)), Reach::Refused, "nobody listens on 81");
    Outcome::Passed
}

fn one_address_of_the_host_only(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    wire::add_addr("uplink", "192.0.2.9".parse().unwrap(), 24).unwrap();
    wire::add_addr("uplink", "2001:db8::9".parse().unwrap(), 64).unwrap();
    sandbox.done("network create --ipv6 web");
    let options = |addr: &str| format!("-p {addr}:8080:80 -p {addr}:8080:80/udp");
    let (four, six) = (options("192.0.2.9"), options("[2001:db8::9]"));
    let web = sandbox.start("web", &format!("--network web {four} {six}"));
    serving(&web, 80);
    reached(&outside, at("192.0.2.9", 8080), V4[1]);
    reached(&outside, at("2001:db8::9", 8080), V6[1]);
    for other in [V4[0], V6[0]] {
        out_of_reach(&outside, at(other, 8080));
    }
    for own in ["127.0.0.1", "::1"] {
        out_of_reach(sandbox.host(), at(own, 8080));
    }
    // The same port on the other address is another promise.
    let second =
        sandbox.start("second", "--network web -p 192.0.2.1:8080:80 -p 192.0.2.1:8080:80/udp");
    answer(&second.netns, at("::", 80));
    reached(&outside, at("192.0.2.1", 8080), V4[1]);
    let error = sandbox.refused("publish second 8080:80");
    assert!(error.contains("container web") || error.contains("container second"), "{error}");
    Outcome::Passed
}

fn a_port_on_loopback_stays_there(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    sandbox.done("network create --ipv6 web");
    let options =
        "-p 127.0.0.1:8080:80 -p 127.0.0.1:8080:80/udp -p [::1]:8081:80 -p [::1]:8081:80/udp";
    let web = sandbox.start("web", &format!("--network web {options}"));
    let neighbour = sandbox.start("neighbour", "--network web");
    serving(&web, 80);
    let gateways = sandbox.gateways("web");
    let gateway = |v6| gateways.iter().find(|addr: &&IpAddr| addr.is_ipv6() == v6).unwrap();
    reached(sandbox.host(), at("127.0.0.1", 8080), gateway(false));
    reached(sandbox.host(), at("::1", 8081), gateway(true));
    for from in [&outside, &neighbour.netns] {
        for (host, port) in [(V4[0], 8080), (V6[0], 8081)] {
            out_of_reach(from, at(host, port));
        }
    }
    Outcome::Passed
}

fn a_taken_port_is_refused_by_the_name_of_its_holder(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --ipv6 web");
    sandbox.start("first", "--network web -p 8080:80");
    sandbox.start("second", "--network web");
    let comm = fs::read_to_string("/proc/self/comm").unwrap();
    let us = format!("{} (pid {})", comm.trim(), std::process::id());
    let _v4 = TcpListener::bind("0.0.0.0:8000").unwrap();
    let _v6 = TcpListener::bind("[::1]:8001").unwrap();
    let _udp = UdpSocket::bind("127.0.0.1:8002").unwrap();
    let before = (traces(), sandbox.row("second"));
    for (port, by) in [
        ("8000:80", us.as_str()),
        ("8001:80", &us),
        ("8002:80/udp", &us),
        ("8080:80", "container first"),
        // One that is free beside one that is not: neither is done.
        ("8003:80 8000:80", &us),
    ] {
        let error = sandbox.refused(&format!("publish second {port}"));
        assert!(error.contains("is taken by") && error.contains(by), "{port}: {error}");
    }
    let error = sandbox.refused("run -d --name third --network web -p 8000:80 -- /bin/sh -c :");
    assert!(error.contains(&us), "{error}");
    let after = (traces(), sandbox.row("second"));
    assert_eq!(before.1, after.1);
    assert!(before.0 == after.0, "{}", crate::product::difference(&before.0, &after.0));
    sandbox.done("publish second 8003:80");
    Outcome::Passed
}

fn ports_change_while_the_container_runs(sandbox: &mut Sandbox) -> Outcome {
    sandbox.warm();
    let outside = outside(sandbox);
    sandbox.done("network create --ipv6 web");
    let web = sandbox.start("web", "--network web");
    serving(&web, 80);
    let bare = traces();
    out_of_reach(&outside, at(V4[0], 8080));
    for _ in 0..2 {
        sandbox.done("publish web 8080:80 8080:80/udp");
        reached(&outside, at(V4[0], 8080), V4[1]);
        reached(&outside, at(V6[0], 8080), V6[1]);
        reached(sandbox.host(), at("127.0.0.1", 8080), sandbox.gateways("web")[0]);
        sandbox.done("unpublish web 80 80/udp");
        for host in [V4[0], V6[0], "127.0.0.1", "::1"] {
            let from = if host.len() > 9 { &outside } else { sandbox.host() };
            out_of_reach(from, at(host, 8080));
        }
    }
    assert!(sandbox.refused("unpublish web 8080:80").contains("does not publish"));
    // The forwarder ends with its last port, a moment later.
    left(&bare, "the ports");
    sandbox.whole();
    Outcome::Passed
}

fn a_udp_flow_moves_with_its_port(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    sandbox.done("network create --ipv6 web");
    let one = sandbox.start("one", "--network web -p 8080:80/udp");
    let two = sandbox.start("two", "--network web");
    tells(&one, "one");
    tells(&two, "two");
    for [host, _] in [V4, V6] {
        let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
        let socket = outside.run(|| UdpSocket::bind(any)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(at(host, 8080)).unwrap();
        let ask = || {
            socket.send(b"who").unwrap();
            let mut answer = [0; 16];
            let length = socket.recv(&mut answer).unwrap_or(0);
            String::from_utf8_lossy(&answer[..length]).into_owned()
        };
        assert_eq!(ask(), "one");
        sandbox.done("unpublish one 8080:80/udp");
        sandbox.done("publish two 8080:80/udp");
        // The very same five numbers: without care they would lead to the first one for minutes.
        assert_eq!(ask(), "two", "at {host}");
        sandbox.done("unpublish two 8080:80/udp");
        sandbox.done("publish one 8080:80/udp");
        assert_eq!(ask(), "one", "at {host}");
    }
    Outcome::Passed
}

/// Answers on udp port 80 with a name.
fn tells(inside: &Inside, name: &'static str) {
    let socket = inside.netns.run(|| UdpSocket::bind("[::]:80")).unwrap();
    thread::spawn(move || {
        while let Ok((_, client)) = socket.recv_from(&mut [0; 64]) {
            drop(socket.send_to(name.as_bytes(), client));
        }
    });
}

fn ports_follow_the_way_out(sandbox: &mut Sandbox) -> Outcome {
    let outside = outside(sandbox);
    sandbox.done("network create one");
    sandbox.done("network create two");
    sandbox.done("network create --internal closed");
    let web = sandbox.start("web", "--network one -p 8080:80 -p 8080:80/udp");
    serving(&web, 80);
    reached(&outside, at(V4[0], 8080), V4[1]);
    sandbox.done("network connect --priority 5 two web");
    reached(&outside, at(V4[0], 8080), V4[1]);
    sandbox.done("network disconnect one web");
    reached(&outside, at(V4[0], 8080), V4[1]);
    sandbox.done("network connect closed web");
    let error = sandbox.refused("network disconnect two web");
    assert!(error.contains("8080"), "{error}");
    reached(&outside, at(V4[0], 8080), V4[1]);
    sandbox.whole();
    Outcome::Passed
}

/// Without a single rule of ours, a frame that a container sends to 127.0.0.1 finds nobody: no
/// switch is left that is safe only while a rule stands.
fn no_loopback_to_lay_open(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let web = sandbox.start("web", "--network web -p 8080:80 -p 8080:80/udp");
    let gateway = sandbox.gateways("web")[0];
    let mac = mac_of(&sandbox.network("web")["host_interface"]);
    let secret = UdpSocket::bind("127.0.0.1:9999").unwrap();
    let open = UdpSocket::bind(at(gateway, 9999)).unwrap();
    for socket in [&secret, &open] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    tables::delete_tables().unwrap();
    let IpAddr::V4(from) = web.v4() else { panic!("an IPv4 address") };
    let IpAddr::V4(gateway) = gateway else { panic!("an IPv4 gateway") };
    let own: [u8; 6] = octets(sandbox.row("web")["networks"][0]["mac"].as_str().unwrap());
    web.netns.run(|| {
        for to in [gateway, Ipv4Addr::LOCALHOST] {
            let from = (own, SocketAddrV4::new(from, 4000));
            let to = (mac, SocketAddrV4::new(to, 9999));
            wire::send_frame("eth0", &wire::udp_frame(from, to, b"hello")).unwrap();
        }
    });
    // That a frame made the same way arrives shows that the other was not merely malformed.
    let mut buffer = [0; 16];
    assert_eq!(open.recv(&mut buffer).unwrap(), 5);
    assert!(secret.recv(&mut buffer).is_err(), "the host's loopback lies open");
    sandbox.done("repair");
    sandbox.whole();
    Outcome::Passed
}

fn mac_of(link: &Value) -> [u8; 6] {
    let link = link.as_str().expect("a bridge");
    wire::mac(link).unwrap()
}

fn octets(mac: &str) -> [u8; 6] {
    let bytes: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}
