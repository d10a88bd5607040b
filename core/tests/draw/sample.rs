//! Hosts to draw: as Docker would leave them, with what else is found in practice.

use std::net::IpAddr;

use ipnet::IpNet;
use twinax_core::{
    model::{Addr, Link, LinkId, LinkKind, Netns, Port, Route},
    name::{IfName, Mac, Proto},
    sight::{Holder, LinkFacts, PublishedPort, Runtime, Sight, Space, Workload},
};

pub(super) struct Host(pub(super) Sight);

pub(super) fn link(netns: &Netns, name: &str) -> LinkId {
    LinkId { netns: netns.clone(), name: ifname(name) }
}

pub(super) fn ifname(name: &str) -> IfName {
    name.parse().expect("an interface's name")
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().expect("a subnet")
}

pub(super) fn workload(runtime: Runtime, name: &str, image: &str) -> Workload {
    Workload {
        runtime,
        id: format!("{:0>12}", name.len()) + name,
        name: name.to_owned(),
        image: (!image.is_empty()).then(|| image.to_owned()),
        pod: None,
        pid: Some(4000),
        netns_path: None,
        networks: Vec::new(),
        published: Vec::new(),
        labels: [].into(),
    }
}

impl Host {
    pub(super) fn new() -> Self {
        let mut host = Self(Sight::default());
        let space = Space { inode: 4_026_531_840, ..Space::default() };
        host.0.spaces.insert(Netns::Host, space);
        host.link(&link(&Netns::Host, "lo"), "", &["127.0.0.1/8"]);
        host
    }

    /// An uplink and `n` containers on `k` bridges, as Docker names them.
    pub(super) fn docker(n: usize, k: usize) -> Self {
        let mut host = Self::new();
        let uplink = link(&Netns::Host, "enp1s0");
        host.link(&uplink, "", &["192.0.2.17/24"]);
        host.default_route(&uplink, "192.0.2.1");
        for bridge in 0..k {
            host.bridge(&bridge_name(bridge), &format!("172.{}.0.1/16", 17 + bridge));
        }
        let names = ["web", "api", "db", "cache", "queue", "worker", "proxy", "search"];
        let images = ["nginx:1.27", "ghcr.io/acme/api:v4.2.1", "postgres:17-alpine", "redis:7"];
        for c in 0..n {
            // Most are on the first ones, as on hosts of people.
            let bridge = (c * 7 + c / 3) % (k * 2) % k;
            let name = format!("{}-{}", names[c % names.len()], c / names.len() + 1);
            let mut docker = workload(Runtime::Docker, &name, images[c % images.len()]);
            docker.networks = vec![format!("net{bridge}")];
            if c % 3 == 0 {
                docker.published = vec![published(8000 + u16::try_from(c).expect("few"), 80)];
            }
            let netns = host.space(&format!("pid:{}", 4000 + c), vec![docker]);
            let addr = format!("172.{}.{}.{}/16", 17 + bridge, c / 250, 2 + c % 250);
            let eth0 = link(&netns, "eth0");
            host.cable(
                &eth0,
                &format!("veth{:07x}", 0x9a_31c5 + c * 7919),
                Some(&bridge_name(bridge)),
                &[&addr],
            );
            host.default_route(&eth0, &format!("172.{}.0.1", 17 + bridge));
        }
        host
    }

    /// Containers on several bridges each, and a node of KinD with pods of its own inside.
    pub(super) fn crossed(n: usize, k: usize) -> Self {
        let mut host = Self::docker(n, k);
        for c in 0..n {
            let netns = Netns::Container(format!("pid:{}", 4000 + c).parse().expect("a handle"));
            for more in 1..=c % 3 {
                let bridge = (c * 7 + c / 3 + more) % k;
                let eth = link(&netns, &format!("eth{more}"));
                let addr = format!("172.{}.9.{}/16", 17 + bridge, c + 1);
                host.cable(&eth, &format!("vethf{c}x{more}"), Some(&bridge_name(bridge)), &[&addr]);
            }
        }
        let node =
            host.space("pid:7000", vec![workload(Runtime::Docker, "kind-node", "kindest/node")]);
        host.cable(&link(&node, "eth0"), "vethkind", Some("docker0"), &["172.17.200.1/16"]);
        for pod in 0..7 {
            let name = format!("pod-{pod}");
            let inner =
                host.space(&format!("pid:{}", 7001 + pod), vec![workload(Runtime::Cri, &name, "")]);
            host.pair(&link(&inner, "eth0"), &link(&node, &format!("vethpod{pod}")));
        }
        host
    }

    /// Adds one of each kind that is not the usual.
    pub(super) fn with_oddities(mut self) -> Self {
        let host = Netns::Host;
        let mut a = workload(Runtime::Cri, "envoy", "envoyproxy/envoy:v1.31");
        a.pod = Some("shop/checkout-7f9c".to_owned());
        let mut b = workload(Runtime::Cri, "checkout", "registry.example/shop/checkout:2026.4");
        b.pod.clone_from(&a.pod);
        let pod = self.space("netns:/run/netns/cni-1", vec![a, b]);
        self.cable(&link(&pod, "eth0"), "veth5b3c1d2e", None, &["10.88.0.9/32", "fd00:88::9/128"]);
        self.default_route(&link(&pod, "eth0"), "169.254.1.1");

        let two = self.space("pid:6001", vec![workload(Runtime::Docker, "gateway", "traefik:v3")]);
        self.cable(&link(&two, "eth0"), "vethaaa0001", Some("docker0"), &["172.17.9.9/16"]);
        self.default_route(&link(&two, "eth0"), "172.17.0.1");
        if self.0.links.contains_key(&link(&host, &bridge_name(1))) {
            self.cable(
                &link(&two, "eth1"),
                "vethaaa0002",
                Some(&bridge_name(1)),
                &["172.18.9.9/16"],
            );
        }
        let lan = self.space("pid:6002", vec![workload(Runtime::Podman, "dhcp", "dnsmasq")]);
        self.lies_on(&link(&lan, "eth0"), "macvlan", &link(&host, "enp1s0"), &["192.0.2.60/24"]);

        self.link(&link(&host, "vethdead001"), "veth", &[]);
        self.lies_on(&link(&host, "enp1s0.5"), "vlan", &link(&host, "enp1s0"), &["10.5.0.2/24"]);
        self.facts(&link(&host, "enp1s0.5")).details = vec!["vlan id 5".to_owned()];
        self.link(&link(&host, "vxlan42"), "vxlan", &[]);
        self.facts(&link(&host, "vxlan42")).master = Some(link(&host, "docker0"));
        self.facts(&link(&host, "vxlan42")).details = vec!["vxlan id 42".to_owned()];

        self.pair(&link(&host, "to-host"), &link(&host, "to-bridge"));
        self.facts(&link(&host, "to-host")).master = Some(link(&host, "docker0"));

        let held = self.space("netns:/proc/812/fd/7", vec![]);
        let holder = Holder::Descriptor { pid: 812, fd: 7, comm: "agent".to_owned() };
        self.0.spaces.get_mut(&held).expect("just added").holders = vec![holder];
        self.link(&link(&held, "veth0"), "veth", &["10.9.0.2/24"]);
        let lost = self.space("netns:/run/netns/lost", vec![]);
        self.0.spaces.get_mut(&lost).expect("just added").holders = vec![Holder::Unseen];
        self.link(&link(&lost, "tun0"), "tun", &["10.10.0.1/24"]);

        let left =
            self.space("netns:/run/netns/left", vec![workload(Runtime::IpNetns, "left", "")]);
        let right =
            self.space("netns:/run/netns/right", vec![workload(Runtime::IpNetns, "right", "")]);
        self.pair(&link(&left, "to-right"), &link(&right, "to-left"));
        self.space("pid:6003", vec![workload(Runtime::Docker, "batch", "alpine:3")]);
        let guest = workload(Runtime::Docker, "node-exporter", "prom/node-exporter:v1.8");
        self.0.spaces.get_mut(&host).expect("the host is there").workloads.push(guest);
        self.0.unseen = vec!["processes of others: no CAP_SYS_PTRACE".to_owned()];
        self
    }

    pub(super) fn space(&mut self, handle: &str, workloads: Vec<Workload>) -> Netns {
        let netns = Netns::Container(handle.parse().expect("a handle"));
        let inode = 4_026_532_000 + self.0.spaces.len() as u64;
        let holders = vec![Holder::Process { pid: 4000, comm: "init".to_owned() }];
        let space = Space { inode, cookie: None, holders, workloads };
        self.0.spaces.insert(netns.clone(), space);
        self.link(&link(&netns, "lo"), "", &["127.0.0.1/8"]);
        netns
    }

    pub(super) fn facts(&mut self, id: &LinkId) -> &mut LinkFacts {
        self.0.links.get_mut(id).expect("it was added")
    }

    pub(super) fn link(&mut self, id: &LinkId, kind: &str, addrs: &[&str]) {
        let addrs: Vec<IpNet> = addrs.iter().map(|text| net(text)).collect();
        self.0.topology.addrs.extend(addrs.iter().map(|net| Addr { link: id.clone(), net: *net }));
        let facts = LinkFacts {
            index: u32::try_from(self.0.links.len()).expect("few"),
            kind: kind.to_owned(),
            operstate: "up".to_owned(),
            carrier: true,
            addrs,
            ..LinkFacts::default()
        };
        self.0.links.insert(id.clone(), facts);
    }

    pub(super) fn bridge(&mut self, name: &str, addr: &str) {
        let id = link(&Netns::Host, name);
        self.link(&id, "bridge", &[addr]);
        self.describe(&id, LinkKind::Bridge, 1);
    }

    /// A cable from a container to the host, and there to a bridge.
    pub(super) fn cable(
        &mut self,
        inner: &LinkId,
        outer: &str,
        bridge: Option<&str>,
        addrs: &[&str],
    ) {
        let outer = link(&Netns::Host, outer);
        self.link(inner, "veth", addrs);
        self.link(&outer, "veth", &[]);
        let number = self.0.links.len();
        let port = bridge.map(|bridge| Port { bridge: ifname(bridge), hairpin: false });
        self.describe(&outer, LinkKind::VethHost { peer: inner.clone(), port }, number);
        self.describe(inner, LinkKind::VethContainer { peer: outer.clone() }, number + 1);
        self.facts(&outer).master = bridge.map(|bridge| link(&Netns::Host, bridge));
        self.join(inner, &outer);
    }

    /// A cable between two containers.
    pub(super) fn pair(&mut self, a: &LinkId, b: &LinkId) {
        self.link(a, "veth", &[]);
        self.link(b, "veth", &[]);
        self.join(a, b);
    }

    fn join(&mut self, a: &LinkId, b: &LinkId) {
        for (here, there) in [(a, b), (b, a)] {
            let facts = self.facts(here);
            (facts.leads_to, facts.proven) = (Some(there.clone()), true);
        }
    }

    pub(super) fn lies_on(&mut self, id: &LinkId, kind: &str, on: &LinkId, addrs: &[&str]) {
        self.link(id, kind, addrs);
        self.facts(id).leads_to = Some(on.clone());
    }

    pub(super) fn default_route(&mut self, id: &LinkId, via: &str) {
        let via: IpAddr = via.parse().expect("an address");
        let dst = net(if via.is_ipv4() { "0.0.0.0/0" } else { "::/0" });
        self.0.topology.routes.insert(Route { link: id.clone(), dst, via: Some(via), src: None });
    }

    fn describe(&mut self, id: &LinkId, kind: LinkKind, number: usize) {
        let [.., a, b] = number.to_be_bytes();
        let mac = Mac([2, 0x42, 0xac, 0x11, a, b]);
        let link = Link { kind, up: true, mac, mtu: 1500, group: None, alias: String::new() };
        self.0.topology.links.insert(id.clone(), link);
    }
}

fn published(host_port: u16, container_port: u16) -> PublishedPort {
    PublishedPort { proto: Proto::Tcp, host: None, host_port, container_port }
}

fn bridge_name(n: usize) -> String {
    match n {
        0 => "docker0".to_owned(),
        n => format!("br-{:012x}", 0x3f1d_77a9_u64 * n as u64 + 0x1000_0000_0000),
    }
}
