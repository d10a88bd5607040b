//! What people read of captured packets.

use expect_test::expect;
use twinax::front::{
    packets::{Counted, Told, counts, line},
    print::Style,
};
use twinax_core::pcapng::{Direction, LinkType};

/// 10.1.0.2 asks for 10.1.0.3, at 01:46:40.123456 UTC.
fn told(direction: Direction) -> Told<'static> {
    const ARP: [u8; 42] = [
        2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 2, 10, 1,
        0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0, 3,
    ];
    Told {
        time_ns: 1_000_000_000_123_456_789,
        name: "con1/eth0",
        width: 12,
        direction,
        link_type: LinkType::Ethernet,
        bytes: &ARP,
        length: 42,
    }
}

#[test]
fn a_packet_is_a_line() {
    let plain = |direction| line(&told(direction), Style::default());
    expect![[r#"
        01:46:40.123456  con1/eth0    in  ARP who has 10.1.0.3? tell 10.1.0.2, 42 bytes
        01:46:40.123456  con1/eth0    out ARP who has 10.1.0.3? tell 10.1.0.2, 42 bytes
    "#]]
    .assert_eq(&(plain(Direction::In) + &plain(Direction::Out)));
    let narrow = line(&told(Direction::In), Style { width: Some(50), colour: false });
    assert_eq!(narrow.trim_end().chars().count(), 50, "{narrow}");
    assert!(narrow.ends_with("…\n"), "{narrow}");
    let coloured = line(&told(Direction::Out), Style { width: Some(50), colour: true });
    let bare = coloured.replace("\x1b[2m", "").replace("\x1b[36m", "").replace("\x1b[0m", "");
    assert_eq!(bare, line(&told(Direction::Out), Style { width: Some(50), colour: false }));
    let no_room = line(&told(Direction::In), Style { width: Some(5), colour: false });
    assert!(no_room.ends_with(" …\n"), "{no_room}");
}

#[test]
fn drops_are_told() {
    let counted =
        |name: &str, written, dropped| Counted { name: name.to_owned(), written, dropped };
    expect![[r#"
        con1/eth0: 1 packet, none dropped
        veth1: 2 packets, 3 dropped by the kernel for lack of room
    "#]]
    .assert_eq(&counts(&[counted("con1/eth0", 1, 0), counted("veth1", 2, 3)]));
}
