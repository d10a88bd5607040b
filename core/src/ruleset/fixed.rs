//! The chains and rules themselves, in the order a packet meets them.
//!
//! A verdict map leads to its chain by `goto`: at its end a packet has the base chain's policy,
//! which is to accept. So every such chain ends with `drop`.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    BaseChain, Chain, ChainDef, ChainType,
    ChainType::{Filter, Nat},
    EtherType, Family, Field, Hook, Icmp6, L4, Literal, Match,
    Match::{In, Is, IsNot, NotIn},
    Rule, SetName, Statement,
    Statement::{Accept, Dnat, Drop, Jump, Masquerade, Return, Vmap},
    TableDef, TableName,
};

/// Returns our two tables as this version writes them.
pub fn tables() -> [&'static TableDef; 2] {
    [&INET, &BRIDGE]
}

const fn rule(matches: &'static [Match], statement: Statement) -> Rule {
    Rule { matches, statement }
}

const fn base(kind: ChainType, hook: Hook, priority: i32) -> Option<BaseChain> {
    Some(BaseChain { kind, hook, priority })
}

const V4: Match = Is(Field::Nfproto, Literal::Family(Family::V4));
const V6: Match = Is(Field::Nfproto, Literal::Family(Family::V6));
const ICMP: Match = Is(Field::L4Proto, Literal::L4(L4::Icmp));
const ICMP6: Match = Is(Field::L4Proto, Literal::L4(L4::Icmp6));
const PING4: Match = Is(Field::IcmpType, Literal::EchoRequest);
const ESTABLISHED: Match = Is(Field::CtState, Literal::Established);
/// Holds for both directions of a connection, and for ICMP errors about it.
const PUBLISHED: Match = Is(Field::CtStatus, Literal::DestinationNat);
const BETWEEN: &[Field] = &[Field::IifGroup, Field::OifGroup];
const SAME: Match = In(BETWEEN, SetName::Same);
const OPEN4: Match = In(&[Field::IpDaddr, Field::L4Proto, Field::ThDport], SetName::Open4);
const OPEN6: Match = In(&[Field::Ip6Daddr, Field::L4Proto, Field::ThDport], SetName::Open6);
const ROUTED: Match = In(&[Field::IifGroup], SetName::Routed);
const LINK_LOCAL: Match =
    Is(Field::Ip6Saddr, Literal::Net6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10));
/// Duplicate address detection asks from no address (RFC 4862, section 5.4.2).
const NO_ADDRESS6: Match = Is(Field::Ip6Saddr, Literal::V6(Ipv6Addr::UNSPECIFIED));

const fn icmp6(kind: Icmp6) -> Match {
    Is(Field::Icmp6Type, Literal::Icmp6(kind))
}

const fn ether(kind: EtherType) -> Match {
    Is(Field::Protocol, Literal::EtherType(kind))
}

static INET: TableDef = TableDef {
    name: TableName::Inet,
    chains: &[
        TO_NAT,
        TO_ROUTED,
        ChainDef { name: Chain::ToClosed.as_str(), base: None, rules: &[rule(&[], Drop)] },
        ChainDef { name: Chain::FromClosed.as_str(), base: None, rules: &[rule(&[], Drop)] },
        HOST_GATEWAY,
        ChainDef { name: Chain::HostClosed.as_str(), base: None, rules: &[rule(&[], Drop)] },
        PORTS,
        SOURCE,
        NAT_PREROUTING,
        INPUT,
        FORWARD,
        NAT_OUTPUT,
        NAT_POSTROUTING,
    ],
};

const TO_NAT: ChainDef = ChainDef {
    name: Chain::ToNat.as_str(),
    base: None,
    rules: &[
        rule(&[ESTABLISHED], Accept),
        // Without the first condition a neighbour of the host could route to the container's own
        // address, past the host address that the port is published on.
        rule(&[PUBLISHED, V4, OPEN4], Accept),
        rule(&[PUBLISHED, V6, OPEN6], Accept),
        rule(&[], Drop),
    ],
};

const TO_ROUTED: ChainDef = ChainDef {
    name: Chain::ToRouted.as_str(),
    base: None,
    rules: &[
        rule(&[ESTABLISHED], Accept),
        rule(&[ICMP, PING4], Accept),
        rule(&[ICMP6, icmp6(Icmp6::EchoRequest)], Accept),
        rule(&[V4, OPEN4], Accept),
        rule(&[V6, OPEN6], Accept),
        rule(&[], Drop),
    ],
};

const HOST_GATEWAY: ChainDef = ChainDef {
    name: Chain::HostGateway.as_str(),
    base: None,
    rules: &[
        // The host may speak to its containers from whichever of its addresses.
        rule(&[ESTABLISHED], Accept),
        rule(&[Is(Field::FibDaddrIifType, Literal::Local)], Accept),
        rule(&[ICMP6, icmp6(Icmp6::NeighborSolicit)], Accept),
        rule(&[ICMP6, icmp6(Icmp6::NeighborAdvert)], Accept),
        rule(&[], Drop),
    ],
};

const PORTS: ChainDef = ChainDef {
    name: "ports",
    base: None,
    rules: &[
        // The host's own loopback is served by a forwarder: the answer to a translated packet
        // from there is dropped by the kernel, and the loopback is nobody else's to reach.
        rule(&[V4, Is(Field::IpDaddr, Literal::Net4(Ipv4Addr::new(127, 0, 0, 0), 8))], Return),
        rule(&[V6, Is(Field::Ip6Daddr, Literal::V6(Ipv6Addr::LOCALHOST))], Return),
        rule(
            &[V4],
            Dnat(Family::V4, &[Field::IpDaddr, Field::L4Proto, Field::ThDport], SetName::Dnat4),
        ),
        rule(
            &[V6],
            Dnat(Family::V6, &[Field::Ip6Daddr, Field::L4Proto, Field::ThDport], SetName::Dnat6),
        ),
        rule(&[V4], Dnat(Family::V4, &[Field::L4Proto, Field::ThDport], SetName::Any4)),
        rule(&[V6], Dnat(Family::V6, &[Field::L4Proto, Field::ThDport], SetName::Any6)),
    ],
};

const SOURCE: ChainDef = ChainDef {
    name: "source",
    base: base(Filter, Hook::Prerouting, -300),
    rules: &[
        rule(&[ROUTED, V4, NotIn(&[Field::IifName, Field::IpSaddr], SetName::RoutedSource4)], Drop),
        rule(&[ROUTED, V6, LINK_LOCAL], Accept),
        rule(&[ROUTED, V6, NO_ADDRESS6], Accept),
        rule(
            &[ROUTED, V6, NotIn(&[Field::IifName, Field::Ip6Saddr], SetName::RoutedSource6)],
            Drop,
        ),
    ],
};

const NAT_PREROUTING: ChainDef = ChainDef {
    name: "nat-prerouting",
    base: base(Nat, Hook::Prerouting, -100),
    rules: &[rule(&[Is(Field::FibDaddrType, Literal::Local)], Jump("ports"))],
};

const INPUT: ChainDef = ChainDef {
    name: "input",
    base: base(Filter, Hook::Input, 0),
    rules: &[
        rule(&[V4], Vmap(&[Field::IifGroup], SetName::Host4)),
        rule(&[V6], Vmap(&[Field::IifGroup], SetName::Host6)),
    ],
};

const FORWARD: ChainDef = ChainDef {
    name: "forward",
    base: base(Filter, Hook::Forward, 0),
    rules: &[
        rule(&[SAME, PUBLISHED], Accept),
        rule(&[In(BETWEEN, SetName::Icc)], Accept),
        rule(&[SAME], Drop),
        rule(&[V4], Vmap(&[Field::IifGroup], SetName::From4)),
        rule(&[V6], Vmap(&[Field::IifGroup], SetName::From6)),
        rule(&[V4], Vmap(&[Field::OifGroup], SetName::To4)),
        rule(&[V6], Vmap(&[Field::OifGroup], SetName::To6)),
    ],
};

const NAT_OUTPUT: ChainDef = ChainDef {
    name: "nat-output",
    base: base(Nat, Hook::Output, -100),
    rules: &[rule(&[Is(Field::FibDaddrType, Literal::Local)], Jump("ports"))],
};

const NAT_POSTROUTING: ChainDef = ChainDef {
    name: "nat-postrouting",
    base: base(Nat, Hook::Postrouting, 100),
    rules: &[
        // The client would get the answer past us, from an address it did not ask.
        rule(&[SAME, PUBLISHED], Masquerade),
        // The same where the bridge itself turned the frame round (br_netfilter): here it comes
        // from no interface, as the host's own packets do, but not from an address of the host.
        rule(
            &[
                Is(Field::Iif, Literal::NoInterface),
                In(&[Field::OifGroup], SetName::Ours),
                PUBLISHED,
                IsNot(Field::FibSaddrType, Literal::Local),
            ],
            Masquerade,
        ),
        rule(
            &[V4, In(&[Field::IifGroup], SetName::Nat4), NotIn(&[Field::OifGroup], SetName::Ours)],
            Masquerade,
        ),
        rule(
            &[V6, In(&[Field::IifGroup], SetName::Nat6), NotIn(&[Field::OifGroup], SetName::Ours)],
            Masquerade,
        ),
    ],
};

/// What a container that may talk to its gateway only needs beside that to find it, and to be found
/// by it. An answer from another container would not come through.
const ALONE: ChainDef = ChainDef {
    name: "alone",
    base: None,
    rules: &[
        rule(&[In(&[Field::IifName, Field::EtherDaddr], SetName::PortGateway)], Return),
        rule(&[ether(EtherType::Arp), Is(Field::EtherDaddr, Literal::Broadcast)], Return),
        rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::NeighborSolicit)], Return),
        // For the bridge, which else would not bring the gateway's questions (MLD snooping).
        rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::ListenerReport)], Return),
        rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::ListenerDone)], Return),
        rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::ListenerReport2)], Return),
        rule(&[], Drop),
    ],
};

static BRIDGE: TableDef = TableDef {
    name: TableName::Bridge,
    chains: &[
        ALONE,
        ChainDef {
            name: "source",
            base: base(Filter, Hook::Prerouting, -300),
            rules: &[
                rule(&[IsNot(Field::IifName, Literal::NamePrefix("txv"))], Accept),
                rule(&[NotIn(&[Field::IifName, Field::EtherSaddr], SetName::PortMac)], Drop),
                // The kernel takes tags with VLAN id 0 off, however many: what is inside would come
                // in unchecked. (`meta protocol` looks past the first.)
                rule(&[ether(EtherType::Vlan)], Drop),
                rule(&[ether(EtherType::ServiceVlan)], Drop),
                // Here and not by isolated ports: those also keep apart what the bridge turned round
                // for a published port (br_netfilter).
                rule(&[In(&[Field::IifName], SetName::PortAlone)], Jump("alone")),
                // A probe (RFC 5227, section 2.1.1).
                rule(
                    &[
                        ether(EtherType::Arp),
                        Is(Field::ArpSaddrIp, Literal::V4(Ipv4Addr::UNSPECIFIED)),
                    ],
                    Accept,
                ),
                rule(
                    &[
                        ether(EtherType::Arp),
                        NotIn(&[Field::IifName, Field::ArpSaddrIp], SetName::PortSource4),
                    ],
                    Drop,
                ),
                // DHCP (RFC 2131, section 4.1).
                rule(
                    &[ether(EtherType::Ip), Is(Field::IpSaddr, Literal::V4(Ipv4Addr::UNSPECIFIED))],
                    Accept,
                ),
                rule(
                    &[
                        ether(EtherType::Ip),
                        NotIn(&[Field::IifName, Field::IpSaddr], SetName::PortSource4),
                    ],
                    Drop,
                ),
                // A container is nobody's router.
                rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::RouterAdvert)], Drop),
                rule(&[ether(EtherType::Ip6), ICMP6, icmp6(Icmp6::Redirect)], Drop),
                rule(&[ether(EtherType::Ip6), LINK_LOCAL], Accept),
                rule(&[ether(EtherType::Ip6), NO_ADDRESS6], Accept),
                rule(
                    &[
                        ether(EtherType::Ip6),
                        NotIn(&[Field::IifName, Field::Ip6Saddr], SetName::PortSource6),
                    ],
                    Drop,
                ),
            ],
        },
    ],
};
