//! The firewall's tables and elements on a real kernel, through the crate's own API.

use std::net::{Ipv4Addr, Ipv6Addr};

use rustix::io::Errno;
use twinax::linux::nft::{NftError, NftOp, NftSocket};
use twinax_core::{
    name::Proto,
    ruleset::{Chain, DataType, Datum, ElementId, GROUP_BASE, Group, KeyType, SetName, Value},
};

use crate::{harness::Outcome, sandbox::Sandbox, tests};

tests![
    tables_come_and_go,
    elements_of_every_set_come_back,
    a_refusal_names_the_element_and_undoes_the_rest,
    an_element_is_replaced_at_once,
    no_tables_no_elements,
    twenty_thousand_elements_with_the_stock_send_buffer,
];

/// `net.core.wmem_max` as Linux has it by default.
const STOCK_WMEM_MAX: usize = 212_992;

type Element = (ElementId, Value);

fn datum(kind: KeyType, n: u32) -> Datum {
    match kind {
        KeyType::Group => Datum::Group(Group(GROUP_BASE + n)),
        KeyType::IfName => Datum::IfName(format!("txv{n}").parse().expect("a short name")),
        KeyType::V4 => Datum::V4(Ipv4Addr::from_bits(0x0a01_0000 + n)),
        KeyType::V6 => Datum::V6(Ipv6Addr::from_bits((0xfd00 << 112) + u128::from(n))),
        KeyType::Mac => Datum::Mac("02:74:0a:01:00:02".parse().expect("a MAC")),
        KeyType::Proto => Datum::Proto(if n < 50_000 { Proto::Tcp } else { Proto::Udp }),
        KeyType::Port => Datum::Port((n % 50_000) as u16),
    }
}

fn element(set: SetName, n: u32) -> Element {
    let concat = |types: &[KeyType]| types.iter().map(|kind| datum(*kind, n)).collect();
    let value = match set.data() {
        DataType::None => Value::None,
        DataType::Verdict => Value::Goto(Chain::HostGateway),
        DataType::Concat(types) => Value::Concat(concat(types)),
    };
    (ElementId { set, key: concat(set.key()) }, value)
}

fn add((id, value): &Element) -> NftOp<'_> {
    NftOp::Add { id, value, comment: "web/c1" }
}

fn del((id, _): &Element) -> NftOp<'_> {
    NftOp::Del { id }
}

fn refusal(result: Result<(), NftError>) -> (Option<usize>, Errno) {
    match result {
        Err(NftError::Refused { op, cause, .. }) => (op, cause),
        other => panic!("{other:?} is not a refusal"),
    }
}

fn with_tables() -> NftSocket {
    let mut nft = NftSocket::open().expect("nftables is there");
    nft.transact(&[NftOp::PutTables]).expect("an empty kernel takes the tables");
    nft
}

/// The tables stand once written, again when written over, and not once deleted.
fn tables_come_and_go(_: &mut Sandbox) -> Outcome {
    let mut nft = NftSocket::open().expect("nftables is there");
    assert!(!nft.tables_stand().unwrap());
    assert_eq!(nft.table_faults().unwrap().len(), 2);
    for _ in 0..2 {
        nft.transact(&[NftOp::PutTables]).unwrap();
        assert!(nft.tables_stand().unwrap());
        assert_eq!(nft.table_faults().unwrap(), [""; 0]);
    }
    for _ in 0..2 {
        nft.transact(&[NftOp::DelTables]).unwrap();
        assert!(!nft.tables_stand().unwrap());
    }
    Outcome::Passed
}

/// An element of every set is found again, by question and by list, with value and comment.
fn elements_of_every_set_come_back(_: &mut Sandbox) -> Outcome {
    let mut nft = with_tables();
    let elements = SetName::ALL.map(|set| element(set, 1));
    nft.transact(&elements.each_ref().map(add)).unwrap();
    for (id, value) in &elements {
        assert_eq!(nft.get(id).unwrap().as_ref(), Some(value), "{id}");
        let dump = nft.dump(id.set).unwrap();
        assert_eq!(dump.elements, [(id.clone(), value.clone(), "web/c1".to_owned())]);
        assert_eq!(dump.foreign, 0);
    }
    let ids = elements.each_ref().map(|(id, _)| id);
    let values = elements.each_ref().map(|(_, value)| Some((value.clone(), "web/c1".to_owned())));
    assert_eq!(nft.get_many(&ids).unwrap(), values);
    nft.transact(&elements.each_ref().map(del)).unwrap();
    assert!(nft.get_many(&ids).unwrap().iter().all(Option::is_none));
    assert_eq!(nft.table_faults().unwrap(), [""; 0]);
    Outcome::Passed
}

/// A refused transaction changes nothing and says which of its operations was refused, also where
/// several share a message.
fn a_refusal_names_the_element_and_undoes_the_rest(_: &mut Sandbox) -> Outcome {
    let mut nft = with_tables();
    let elements: Vec<Element> = (0..10).map(|n| element(SetName::Any4, n)).collect();
    nft.transact(&[add(&elements[7])]).unwrap();
    let all: Vec<NftOp<'_>> = elements.iter().map(add).collect();
    assert_eq!(refusal(nft.transact(&all)), (Some(7), Errno::EXIST));
    assert_eq!(nft.dump(SetName::Any4).unwrap().elements.len(), 1);
    // What is gone needs no deleting, and keeps nothing else from being done.
    nft.transact(&[del(&elements[7]), del(&elements[3]), add(&elements[5])]).unwrap();
    assert_eq!(nft.dump(SetName::Any4).unwrap().elements.len(), 1);
    assert!(nft.get(&elements[5].0).unwrap().is_some());
    let unfit = ElementId { set: SetName::Any6, key: vec![] };
    let unfit = nft.transact(&[NftOp::Del { id: &unfit }]);
    assert!(matches!(unfit, Err(NftError::Unfit { op: 0, .. })), "{unfit:?}");
    Outcome::Passed
}

/// An element's value is changed within one transaction.
fn an_element_is_replaced_at_once(_: &mut Sandbox) -> Outcome {
    let mut nft = with_tables();
    let (id, value) = element(SetName::Dnat6, 1);
    let other = element(SetName::Dnat6, 2).1;
    nft.transact(&[NftOp::Add { id: &id, value: &value, comment: "" }]).unwrap();
    let add = NftOp::Add { id: &id, value: &other, comment: "" };
    nft.transact(&[NftOp::Del { id: &id }, add]).unwrap();
    assert_eq!(nft.get(&id).unwrap(), Some(other));
    Outcome::Passed
}

/// Without tables there are no elements; adding one is refused.
fn no_tables_no_elements(_: &mut Sandbox) -> Outcome {
    let mut nft = NftSocket::open().expect("nftables is there");
    let element = element(SetName::PortMac, 1);
    assert_eq!(nft.get(&element.0).unwrap(), None);
    assert_eq!(nft.dump(SetName::PortMac).unwrap().elements, []);
    assert_eq!(refusal(nft.transact(&[add(&element)])), (Some(0), Errno::NOENT));
    Outcome::Passed
}

/// 20,000 elements go in with the stock send buffer, are all found, and go out again.
fn twenty_thousand_elements_with_the_stock_send_buffer(_: &mut Sandbox) -> Outcome {
    let mut nft = NftSocket::open().expect("nftables is there");
    nft.limit_send_buffer(STOCK_WMEM_MAX).unwrap();
    const SETS: [SetName; 2] = [SetName::Any4, SetName::PortSource6];
    let elements: Vec<Element> =
        (0..10_000).flat_map(|n| SETS.map(|set| element(set, n))).collect();
    let mut ops = vec![NftOp::PutTables];
    ops.extend(elements.iter().map(add));
    nft.transact(&ops).unwrap();
    for set in SETS {
        assert_eq!(nft.dump(set).unwrap().elements.len(), 10_000);
    }
    let ids: Vec<&ElementId> = elements.iter().map(|(id, _)| id).collect();
    let found = nft.get_many(&ids).unwrap();
    let values = found.iter().map(|found| found.as_ref().map(|(value, _)| value));
    assert!(values.eq(elements.iter().map(|(_, value)| Some(value))));
    ops.push(add(&elements[5]));
    assert_eq!(refusal(nft.transact(&ops)).1, Errno::EXIST);
    nft.transact(&[NftOp::PutTables]).unwrap();
    nft.transact(&ops[1..20_001]).unwrap();
    nft.transact(&elements.iter().map(del).collect::<Vec<_>>()).unwrap();
    for set in SETS {
        assert_eq!(nft.dump(set).unwrap().elements, []);
    }
    Outcome::Passed
}
