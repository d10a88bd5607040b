//! Says in the field's words what is particular to a kind of link (`IFLA_INFO_DATA`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::linux::netlink::{attribute, attributes, number};

const IFLA_BRPORT_MODE: u16 = 4;

/// Returns the details of a link of that kind.
pub(super) fn of(kind: &str, data: &[u8]) -> Vec<String> {
    let data = Data(data);
    match kind {
        "vlan" => data.numbered("vlan id", 1),
        "vxlan" => vxlan(&data),
        "geneve" => tunnel("geneve", data.number(1), data.addr(2).or_else(|| data.addr(7)), None),
        "macvlan" | "macvtap" => {
            let words: &[_] =
                &[(1, "private"), (2, "vepa"), (4, "bridge"), (8, "passthru"), (16, "source")];
            data.chosen("mode", 1, words)
        }
        "ipvlan" | "ipvtap" => data.chosen("mode", 1, &[(0, "l2"), (1, "l3"), (2, "l3s")]),
        "netkit" => data.chosen("mode", 2, &[(0, "l2"), (1, "l3")]),
        "vrf" => data.numbered("table", 1),
        "xfrm" => data.numbered("interface id", 2),
        "ipip" | "sit" | "ip6tnl" => tunnel("", None, data.addr(3), data.addr(2)),
        "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" => {
            tunnel("", None, data.addr(7), data.addr(6))
        }
        "bond" => {
            let words: &[_] = &[
                (0, "balance-rr"),
                (1, "active-backup"),
                (2, "balance-xor"),
                (3, "broadcast"),
                (4, "802.3ad"),
                (5, "balance-tlb"),
                (6, "balance-alb"),
            ];
            data.chosen("mode", 1, words)
        }
        "tun" => tun(&data),
        "bridge" => {
            let options = [(5, "spanning tree"), (7, "vlan filtering")];
            let on = options.iter().filter(|(kind, _)| data.number(*kind).is_some_and(|on| on > 0));
            on.map(|(_, word)| (*word).to_owned()).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the details of a seat on a bridge.
pub(super) fn of_port(data: &[u8]) -> Vec<String> {
    let all = Data(data);
    let states = ["disabled", "listening", "learning", "forwarding", "blocking"];
    let state = all.number(1).and_then(|state| states.get(state as usize)).unwrap_or(&"");
    let mut details = Vec::new();
    if let Some(port) = all.number(18) {
        details.push(format!("port {port} {state}").trim_end().to_owned());
    }
    let options = [(IFLA_BRPORT_MODE, "hairpin"), (33, "isolated"), (32, "answers for neighbours")];
    let on = options.iter().filter(|(kind, _)| all.number(*kind).is_some_and(|on| on > 0));
    details.extend(on.map(|(_, word)| (*word).to_owned()));
    details
}

/// Whether a frame may leave a bridge by the port it came in on.
pub(super) fn hairpin(data: &[u8]) -> bool {
    attribute(data, IFLA_BRPORT_MODE).is_some_and(|data| data.first().is_some_and(|on| *on > 0))
}

fn vxlan(data: &Data<'_>) -> Vec<String> {
    let remote = data.addr(2).or_else(|| data.addr(16));
    let local = data.addr(4).or_else(|| data.addr(17));
    let mut details = tunnel("vxlan", data.number(1), remote, local);
    let port = data.get(15).and_then(|data| data.first_chunk().copied()).map(u16::from_be_bytes);
    details.extend(port.map(|port| format!("port {port}")));
    details.extend(data.number(25).filter(|on| *on > 0).map(|_| "external".to_owned()));
    details
}

fn tun(data: &Data<'_>) -> Vec<String> {
    let mut details = data.chosen("", 3, &[(1, "tun"), (2, "tap")]);
    details.extend(data.numbered("owner uid", 1));
    details.extend(data.numbered("owner gid", 2));
    details.extend(data.number(6).filter(|on| *on > 0).map(|_| "persistent".to_owned()));
    details
}

fn tunnel(
    kind: &str,
    id: Option<u32>,
    remote: Option<IpAddr>,
    local: Option<IpAddr>,
) -> Vec<String> {
    let mut words: Vec<String> = id.map(|id| format!("{kind} id {id}")).into_iter().collect();
    words.extend(remote.map(|addr| format!("remote {addr}")));
    words.extend(local.map(|addr| format!("local {addr}")));
    if words.is_empty() { words } else { vec![words.join(" ")] }
}

struct Data<'a>(&'a [u8]);

impl Data<'_> {
    fn get(&self, kind: u16) -> Option<&[u8]> {
        attributes(self.0).find(|(found, _)| *found == kind).map(|(_, data)| data)
    }

    /// A number of one, two or four bytes.
    fn number(&self, kind: u16) -> Option<u32> {
        match self.get(kind)? {
            [byte] => Some((*byte).into()),
            [a, b] => Some(u16::from_ne_bytes([*a, *b]).into()),
            data => number(data),
        }
    }

    /// An address that says something.
    fn addr(&self, kind: u16) -> Option<IpAddr> {
        let data = self.get(kind)?;
        let addr = match data.len() {
            4 => Ipv4Addr::from(<[u8; 4]>::try_from(data).ok()?).into(),
            16 => Ipv6Addr::from(<[u8; 16]>::try_from(data).ok()?).into(),
            _ => return None,
        };
        Some(addr).filter(|addr: &IpAddr| !addr.is_unspecified())
    }

    fn numbered(&self, what: &str, kind: u16) -> Vec<String> {
        self.number(kind).map(|number| format!("{what} {number}")).into_iter().collect()
    }

    fn chosen(&self, what: &str, kind: u16, words: &[(u32, &str)]) -> Vec<String> {
        let Some(number) = self.number(kind) else {
            return Vec::new();
        };
        let word = words.iter().find(|(code, _)| *code == number);
        let word = word.map_or_else(|| number.to_string(), |(_, word)| (*word).to_owned());
        vec![format!("{what} {word}").trim_start().to_owned()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::netlink::Outgoing;

    fn told(kind: &str, options: &[(u16, &[u8])]) -> String {
        let mut out = Outgoing::default();
        out.message(0, 0, 0);
        options.iter().for_each(|(option, value)| out.attr(*option, value));
        of(kind, &out.bytes()[16..]).join(", ")
    }

    /// Of kinds that few kernels have all of, by what linux/if_link.h numbers their options.
    #[test]
    fn kinds_are_told_in_words() {
        assert_eq!(told("vlan", &[(1, &5u16.to_ne_bytes())]), "vlan id 5");
        assert_eq!(told("vrf", &[(1, &77u32.to_ne_bytes())]), "table 77");
        assert_eq!(told("ipvlan", &[(1, &2u16.to_ne_bytes())]), "mode l3s");
        assert_eq!(told("bond", &[(1, &[4])]), "mode 802.3ad");
        assert_eq!(told("netkit", &[(2, &1u32.to_ne_bytes())]), "mode l3");
        let geneve: &[(u16, &[u8])] = &[(1, &9u32.to_ne_bytes()), (2, &[192, 0, 2, 1])];
        assert_eq!(told("geneve", geneve), "geneve id 9 remote 192.0.2.1");
        let sit: &[(u16, &[u8])] = &[(2, &[192, 0, 2, 2]), (3, &[0; 4])];
        assert_eq!(told("sit", sit), "local 192.0.2.2");
        let tun: &[(u16, &[u8])] = &[(1, &1000u32.to_ne_bytes()), (3, &[2]), (6, &[1])];
        assert_eq!(told("tun", tun), "tap, owner uid 1000, persistent");
        assert_eq!(told("macvlan", &[(1, &99u32.to_ne_bytes())]), "mode 99");
        assert_eq!(told("wireguard", &[]), "");
        assert_eq!(told("vxlan", &[(1, &[1]), (2, &[1]), (15, &[])]), "vxlan id 1");
    }
}
