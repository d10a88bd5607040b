//! Entries of the real connection table, through the crate's own API.

use twinax::linux::{
    conntrack::Conntrack,
    nft::{NftOp, NftSocket},
};

use crate::{
    harness::Outcome,
    sandbox::{Reach, Sandbox, Talk},
    tests,
};

tests![a_connection_past_its_port_is_forgotten_once];

/// ```text
/// host ── uplink ═══ eth0 ── outside
///      192.0.2.1    192.0.2.2
/// ```
fn a_connection_past_its_port_is_forgotten_once(sandbox: &mut Sandbox) -> Outcome {
    let ours = ["192.0.2.1/24", "2001:db8::1/64"];
    let outside = sandbox.outside("uplink", &ours, &["192.0.2.2/24", "2001:db8::2/64"]);
    // It is the rules that have the kernel follow connections.
    let mut nft = NftSocket::open().unwrap();
    nft.transact(&[NftOp::PutTables]).unwrap();
    let mut table = Conntrack::open().unwrap();
    for (addr, target) in [("192.0.2.1", "10.1.0.2"), ("2001:db8::1", "fd00:1::2")] {
        let (addr, target) = (addr.parse().unwrap(), target.parse().unwrap());
        for port in [5353, 5354] {
            let at = (addr, port).into();
            let reach = outside.reach(Talk::Udp, sandbox.host(), at, at);
            assert!(matches!(reach, Reach::Reached(_)), "{at}: {reach:?}");
        }
        let host = Some(addr);
        assert_eq!(table.drop_udp(host, 9, (target, 53)).unwrap(), 0);
        let elsewhere = Some("198.51.100.1".parse().unwrap());
        assert_eq!(table.drop_udp(elsewhere, 5353, (target, 53)).unwrap(), 0);
        assert_eq!(table.drop_udp(host, 5353, (target, 53)).unwrap(), 1);
        assert_eq!(table.drop_udp(host, 5353, (target, 53)).unwrap(), 0);
        assert_eq!(table.drop_udp(None, 5354, (target, 53)).unwrap(), 1);
    }
    Outcome::Passed
}
