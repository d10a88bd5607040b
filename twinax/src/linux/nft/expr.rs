//! Rules as the kernel's expressions (include/uapi/linux/netfilter/nf_tables.h).
//!
//! Fields are loaded into 32-bit registers, one after another, each beginning in a register of its
//! own: that is how sets lay out a concatenated key. Addresses, ports and ethertypes are in
//! network byte order, link groups and all that is not of the packet in the host's.

use twinax_core::ruleset::{Family, Field, L4, Literal, Match, Rule, SetName, Statement};

use crate::linux::netlink::Outgoing;

pub(super) mod verdict {
    //! Verdict codes.
    pub(in super::super) const DROP: i32 = libc::NF_DROP;
    pub(in super::super) const ACCEPT: i32 = libc::NF_ACCEPT;
    pub(in super::super) const JUMP: i32 = libc::NFT_JUMP;
    pub(in super::super) const GOTO: i32 = libc::NFT_GOTO;
    pub(in super::super) const RETURN: i32 = libc::NFT_RETURN;
}

/// `NFT_REG32_00`, the first of sixteen.
const FIRST: u32 = 8;
const REG_VERDICT: u32 = 0;

const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const LOOKUP_INVERT: u32 = 1;
const DATA_VALUE: u16 = 1;

/// Puts `rule`'s expressions.
pub(super) fn put(out: &mut Outgoing, rule: &Rule) {
    for one in rule.matches {
        match one {
            Match::Is(field, literal) => put_compare(out, *field, literal, CMP_EQ),
            Match::IsNot(field, literal) => put_compare(out, *field, literal, CMP_NEQ),
            Match::In(fields, set) => put_lookup(out, fields, *set, &[]),
            Match::NotIn(fields, set) => put_lookup(out, fields, *set, &[(5, LOOKUP_INVERT)]),
        }
    }
    match &rule.statement {
        Statement::Accept => put_immediate(out, verdict::ACCEPT, None),
        Statement::Drop => put_immediate(out, verdict::DROP, None),
        Statement::Return => put_immediate(out, verdict::RETURN, None),
        Statement::Jump(chain) => put_immediate(out, verdict::JUMP, Some(chain)),
        Statement::Vmap(fields, map) => put_lookup(out, fields, *map, &[(3, REG_VERDICT)]),
        Statement::Masquerade => put_numbers(out, "masq", &[]),
        Statement::Dnat(family, fields, map) => {
            put_lookup(out, fields, *map, &[(3, FIRST)]);
            let (family, words) = match family {
                Family::V4 => (libc::NFPROTO_IPV4, 1),
                Family::V6 => (libc::NFPROTO_IPV6, 4),
            };
            const DNAT: u32 = 1;
            let port = FIRST + words;
            put_numbers(out, "nat", &[(1, DNAT), (2, family as u32), (3, FIRST), (5, port)]);
        }
    }
}

/// Puts one expression, `NFTA_LIST_ELEM { NFTA_EXPR_NAME, NFTA_EXPR_DATA { … } }`.
fn put_expression(out: &mut Outgoing, name: &str, data: impl FnOnce(&mut Outgoing)) {
    let element = out.open(1);
    out.text(1, name);
    let inner = out.open(2);
    data(out);
    out.close(inner);
    out.close(element);
}

fn put_numbers(out: &mut Outgoing, name: &str, numbers: &[(u16, u32)]) {
    put_expression(out, name, |out| {
        numbers.iter().for_each(|(kind, number)| out.be32(*kind, *number));
    });
}

fn put_immediate(out: &mut Outgoing, code: i32, chain: Option<&str>) {
    put_expression(out, "immediate", |out| {
        out.be32(1, REG_VERDICT);
        let data = out.open(2);
        put_verdict(out, code, chain);
        out.close(data);
    });
}

/// Puts `NFTA_DATA_VERDICT`.
pub(super) fn put_verdict(out: &mut Outgoing, code: i32, chain: Option<&str>) {
    let nest = out.open(2);
    out.attr(1, &code.to_be_bytes());
    chain.into_iter().for_each(|chain| out.text(2, chain));
    out.close(nest);
}

fn put_lookup(out: &mut Outgoing, fields: &[Field], set: SetName, more: &[(u16, u32)]) {
    let mut register = FIRST;
    for field in fields {
        put_load(out, *field, register);
        register += (width(*field) as u32).div_ceil(4);
    }
    put_expression(out, "lookup", |out| {
        out.text(1, set.as_str());
        out.be32(2, FIRST);
        more.iter().for_each(|(kind, number)| out.be32(*kind, *number));
    });
}

fn put_compare(out: &mut Outgoing, field: Field, literal: &Literal, op: u32) {
    put_load(out, field, FIRST);
    match masked(literal) {
        Masked::Whole(value) => put_cmp(out, op, &value),
        Masked::Bits { mask, value } => {
            put_mask(out, &mask);
            put_cmp(out, op, &value);
        }
        Masked::Any { bits } => {
            put_mask(out, &bits.to_ne_bytes());
            // `is` asks whether any bit is left.
            put_cmp(out, if op == CMP_EQ { CMP_NEQ } else { CMP_EQ }, &[0; 4]);
        }
    }
}

fn put_cmp(out: &mut Outgoing, op: u32, value: &[u8]) {
    put_expression(out, "cmp", |out| {
        out.be32(1, FIRST);
        out.be32(2, op);
        put_value(out, 3, value);
    });
}

fn put_mask(out: &mut Outgoing, mask: &[u8]) {
    put_expression(out, "bitwise", |out| {
        out.be32(1, FIRST);
        out.be32(2, FIRST);
        out.be32(3, mask.len() as u32);
        put_value(out, 4, mask);
        put_value(out, 5, &vec![0; mask.len()]);
    });
}

fn put_value(out: &mut Outgoing, kind: u16, value: &[u8]) {
    let data = out.open(kind);
    out.attr(DATA_VALUE, value);
    out.close(data);
}

enum Masked {
    Whole(Vec<u8>),
    Bits { mask: Vec<u8>, value: Vec<u8> },
    Any { bits: u32 },
}

fn masked(literal: &Literal) -> Masked {
    let bits = |bits: u8, value: &[u8]| {
        let mut mask = vec![0; value.len()];
        for bit in 0..usize::from(bits) {
            mask[bit / 8] |= 0x80 >> (bit % 8);
        }
        Masked::Bits { mask, value: value.to_vec() }
    };
    Masked::Whole(match literal {
        Literal::Family(Family::V4) => vec![libc::NFPROTO_IPV4 as u8],
        Literal::Family(Family::V6) => vec![libc::NFPROTO_IPV6 as u8],
        Literal::L4(L4::Icmp) => vec![libc::IPPROTO_ICMP as u8],
        Literal::L4(L4::Icmp6) => vec![libc::IPPROTO_ICMPV6 as u8],
        Literal::EtherType(kind) => kind.number().to_be_bytes().to_vec(),
        Literal::EchoRequest => vec![8],
        Literal::Icmp6(kind) => vec![kind.number()],
        Literal::V4(addr) => addr.octets().to_vec(),
        Literal::V6(addr) => addr.octets().to_vec(),
        Literal::Net4(addr, len) => return bits(*len, &addr.octets()),
        Literal::Net6(addr, len) => return bits(*len, &addr.octets()),
        // NF_CT_STATE_BIT() of IP_CT_ESTABLISHED and IP_CT_RELATED.
        Literal::Established => return Masked::Any { bits: 0x2 | 0x4 },
        // IPS_DST_NAT.
        Literal::DestinationNat => return Masked::Any { bits: 1 << 5 },
        Literal::Broadcast => vec![0xff; 6],
        Literal::Local => u32::from(libc::RTN_LOCAL).to_ne_bytes().to_vec(),
        Literal::NoInterface => vec![0; 4],
        // A comparison of the first bytes only.
        Literal::NamePrefix(prefix) => prefix.as_bytes().to_vec(),
    })
}

/// Returns how many bytes a field has in a register.
fn width(field: Field) -> usize {
    match source(field) {
        Source::Payload { len, .. } => len as usize,
        Source::Meta(META_IIFNAME) => 16,
        Source::Meta(META_NFPROTO | META_L4PROTO) => 1,
        Source::Meta(META_PROTOCOL) => 2,
        Source::Meta(_) | Source::Ct(_) | Source::Fib { .. } => 4,
    }
}

enum Source {
    Meta(u32),
    Payload { base: u32, offset: u32, len: u32 },
    Ct(u32),
    Fib { flags: u32 },
}

const META_PROTOCOL: u32 = 1;
const META_IIF: u32 = 4;
const META_IIFNAME: u32 = 6;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const META_IIFGROUP: u32 = 21;
const META_OIFGROUP: u32 = 22;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const FIB_SADDR: u32 = 1;
const FIB_DADDR: u32 = 2;
const FIB_IIF: u32 = 8;

fn source(field: Field) -> Source {
    let link = |offset, len| Source::Payload { base: 0, offset, len };
    let network = |offset, len| Source::Payload { base: 1, offset, len };
    let transport = |offset, len| Source::Payload { base: 2, offset, len };
    match field {
        Field::Iif => Source::Meta(META_IIF),
        Field::IifName => Source::Meta(META_IIFNAME),
        Field::IifGroup => Source::Meta(META_IIFGROUP),
        Field::OifGroup => Source::Meta(META_OIFGROUP),
        Field::Nfproto => Source::Meta(META_NFPROTO),
        Field::L4Proto => Source::Meta(META_L4PROTO),
        Field::Protocol => Source::Meta(META_PROTOCOL),
        Field::EtherDaddr => link(0, 6),
        Field::EtherSaddr => link(6, 6),
        Field::ArpSaddrIp => network(14, 4),
        Field::IpSaddr => network(12, 4),
        Field::IpDaddr => network(16, 4),
        Field::Ip6Saddr => network(8, 16),
        Field::Ip6Daddr => network(24, 16),
        Field::ThDport => transport(2, 2),
        Field::IcmpType | Field::Icmp6Type => transport(0, 1),
        Field::CtState => Source::Ct(CT_STATE),
        Field::CtStatus => Source::Ct(CT_STATUS),
        Field::FibSaddrType => Source::Fib { flags: FIB_SADDR },
        Field::FibDaddrType => Source::Fib { flags: FIB_DADDR },
        Field::FibDaddrIifType => Source::Fib { flags: FIB_DADDR | FIB_IIF },
    }
}

fn put_load(out: &mut Outgoing, field: Field, register: u32) {
    const FIB_ADDRTYPE: u32 = 3;
    match source(field) {
        Source::Meta(key) => put_numbers(out, "meta", &[(1, register), (2, key)]),
        Source::Ct(key) => put_numbers(out, "ct", &[(1, register), (2, key)]),
        Source::Fib { flags } => {
            put_numbers(out, "fib", &[(1, register), (2, FIB_ADDRTYPE), (3, flags)]);
        }
        Source::Payload { base, offset, len } => {
            put_numbers(out, "payload", &[(1, register), (2, base), (3, offset), (4, len)]);
        }
    }
}
