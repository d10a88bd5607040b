//! What live views show on a screen, and what keys are read as.

use expect_test::expect;
use ratatui_core::{
    buffer::Buffer,
    layout::Rect,
    style::{Color, Modifier},
};
use twinax::front::{
    keys::{self, Input},
    print::Style,
    top::{Places, ansi, draw},
    tree, words,
};
use twinax_core::{
    map::{Counts, Wanted, rows},
    top::{Key, Outcome, Top},
};

use crate::map::host;

fn screen(top: &mut Top, width: u16, height: u16) -> Buffer {
    let mut buffer = Buffer::empty(Rect::new(0, 0, width, height));
    draw(top, &mut buffer, true);
    buffer
}

fn lines(buffer: &Buffer) -> Vec<String> {
    let area = buffer.area;
    let line = |y| -> String { (0..area.width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..area.height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn ready() -> Top {
    let mut top = Top::new(Wanted::default());
    top.see(host());
    top
}

fn press(top: &mut Top, keys: &[Key]) {
    for key in keys {
        assert_eq!(top.press(*key), Outcome::Stay);
    }
}

#[test]
fn the_tree_stands_above_its_details_and_beside_them_where_there_is_room() {
    let mut top = ready();
    let below = lines(&screen(&mut top, 80, 24));
    assert!(below[0].starts_with(" twinax top  4 containers"), "{below:#?}");
    assert!(below[1].starts_with("host"), "{below:#?}");
    assert!(below[11].contains(" 1 of "), "{below:#?}");
    assert_eq!(below[12], "identity");
    assert!(below[13].contains("─ namespace  host  net:[4026531833]"), "{below:#?}");
    assert!(below[23].contains("q quit"), "{below:#?}");
    let beside = lines(&screen(&mut top, 120, 24));
    assert!(beside[1].starts_with("host"), "{beside:#?}");
    assert!(beside[1].contains("│ identity"), "{beside:#?}");
}

/// What `inspect` tells, in sections; a row that is too wide is cut at the edge.
#[test]
fn details_are_what_inspect_tells() {
    let mut top = ready();
    top.press(Key::Down);
    let all = lines(&screen(&mut top, 120, 40));
    let details = all[1..39].iter().map(|line| line.chars().skip(74).collect::<String>());
    let details: Vec<String> = details.collect();
    expect![[r#"
        ends
        └─ 3 docker0  bridge  172.17.0.1/16  ● up
        traffic
        ├─ in   12 packets  928 bytes  dropped 0
        └─ out  0 packets  0 bytes  dropped 0
        members
        ├─ 7 veth1  ⇄ eth0 con1  on docker0  ● up
        └─ 8 veth2  ⇄ eth0 con2  on docker0  ● up
        published
        └─ *:8080/tcp  → con1:80  listener ✓ nginx(10…
    "#]]
    .assert_eq(&format!("{}\n", details.join("\n").trim_end()));
    let width = |line: &String| line.chars().count();
    assert!(all.iter().any(|line| line.ends_with('…') && width(line) == 120), "{all:#?}");
}

#[test]
fn before_the_first_look_it_says_so() {
    let mut top = Top::new(Wanted::default());
    assert!(lines(&screen(&mut top, 80, 24))[0].contains("looking"));
}

#[test]
fn no_screen_is_too_small() {
    for (width, height) in (0..45).flat_map(|w| (0..16).map(move |h| (w, h))) {
        let mut top = ready();
        for key in [Key::Down, Key::End, Key::Char('p'), Key::WheelTree(-3), Key::Char('?')] {
            top.press(key);
            screen(&mut top, width, height);
        }
    }
    let small = lines(&screen(&mut ready(), 40, 10));
    assert!(small[1].starts_with("host"), "{small:#?}");
}

#[test]
fn only_the_selected_row_is_turned_round() {
    let mut top = ready();
    top.press(Key::Down);
    let buffer = screen(&mut top, 80, 24);
    let turned = |y: u16| buffer[(0, y)].modifier.contains(Modifier::REVERSED);
    let rows: Vec<u16> = (0..24).filter(|y| turned(*y)).collect();
    assert_eq!(rows, [0, 2], "the title and the second row");
    let green = (0..80).any(|x| buffer[(x, 2)].fg == Color::Green);
    assert!(green, "the bridge is up");
    let mut plain = Buffer::empty(Rect::new(0, 0, 80, 24));
    draw(&mut top, &mut plain, false);
    assert!(plain.content().iter().all(|spot| spot.fg == Color::Reset), "without colour");
}

#[test]
fn hostile_names_reach_no_terminal() {
    let mut sight = host();
    for space in sight.spaces.values_mut() {
        for workload in &mut space.workloads {
            workload.name = "a\x1b]0;x\x07\n\u{202e}b".to_owned();
        }
    }
    let mut top = Top::new(Wanted::default());
    top.see(sight);
    let before = Buffer::empty(Rect::new(0, 0, 120, 40));
    for key in [Key::Down, Key::Down, Key::Char('p'), Key::End] {
        top.press(key);
        let sent = ansi(&before, &screen(&mut top, 120, 40));
        let plain = sent.replace("\x1b[", "");
        assert!(!plain.contains(['\x1b', '\x07', '\n', '\u{202e}']), "{plain:?}");
        assert!(plain.contains("x1b"), "{plain:?}");
    }
}

#[test]
fn only_what_is_other_is_sent() {
    let mut top = ready();
    let first = screen(&mut top, 80, 24);
    assert_eq!(ansi(&first, &screen(&mut top, 80, 24)), "");
    top.press(Key::Char('?'));
    top.press(Key::Char('/'));
    top.press(Key::Char('/'));
    let sent = ansi(&first, &screen(&mut top, 80, 24));
    assert!(sent.contains("\x1b[24;") && !sent.contains("\x1b[2;"), "{sent:?}");
}

#[test]
fn a_mouse_means_what_it_is_on() {
    let places = Places::of(Rect::new(0, 0, 80, 24));
    assert_eq!(places.key(Input::Press(5, 3)), Some(Key::Click(2)));
    assert_eq!(places.key(Input::Press(5, 0)), None, "the title");
    assert_eq!(places.key(Input::Press(5, 23)), None, "the last line");
    assert_eq!(places.key(Input::Wheel(5, 3, 3)), Some(Key::WheelTree(3)));
    assert_eq!(places.key(Input::Wheel(5, 20, -3)), Some(Key::WheelDetails(-3)));
    let places = Places::of(Rect::new(0, 0, 120, 24));
    assert_eq!(places.key(Input::Press(110, 3)), None, "the details");
}

#[test]
fn details_scroll_as_far_as_there_are_any() {
    let mut top = ready();
    press(&mut top, &[Key::Down; 2]);
    let whole = lines(&screen(&mut top, 30, 16));
    top.press(Key::WheelDetails(3));
    let down = lines(&screen(&mut top, 30, 16));
    assert_ne!(down, whole);
    press(&mut top, &[Key::WheelDetails(3); 50]);
    assert!(!lines(&screen(&mut top, 30, 16))[14].is_empty(), "the last line is at the bottom");
    press(&mut top, &[Key::WheelDetails(-3); 50]);
    assert_eq!(lines(&screen(&mut top, 30, 16)), whole);
    press(&mut top, &[Key::Char('J'); 3]);
    assert_eq!(lines(&screen(&mut top, 30, 16)), down);
    press(&mut top, &[Key::Char('K'); 3]);
    assert_eq!(lines(&screen(&mut top, 30, 16)), whole);
}

fn read(bytes: &str) -> Vec<Input> {
    let (inputs, used) = keys::read(bytes.as_bytes(), true);
    assert_eq!(used, bytes.len());
    inputs
}

#[test]
fn keys_are_read_as_terminals_send_them() {
    let keys = |bytes: &str| -> Vec<Key> {
        let keys = read(bytes).into_iter();
        keys.map(|input| match input {
            Input::Key(key) => key,
            other => panic!("{other:?}"),
        })
        .collect()
    };
    assert_eq!(keys("\x1b[A\x1b[B\x1bOC\x1b[1;5D"), [Key::Up, Key::Down, Key::Right, Key::Left]);
    assert_eq!(
        keys("\x1b[5~\x1b[6~\x1b[H\x1b[4~"),
        [Key::PageUp, Key::PageDown, Key::Home, Key::End]
    );
    assert_eq!(
        keys("\r\x7f\x08\x03\x1b"),
        [Key::Enter, Key::Backspace, Key::Backspace, Key::Interrupt, Key::Escape]
    );
    assert_eq!(keys("aé漢\x1b[99~\x00q").len(), 4, "what means nothing is passed");
    assert_eq!(
        read("\x1b[<0;6;4M\x1b[<0;6;4m\x1b[<65;1;1M\x0c\x1a"),
        [Input::Press(5, 3), Input::Wheel(0, 0, 3), Input::Redraw, Input::Suspend]
    );
    // An Escape pressed just before another key.
    assert_eq!(keys("\x1b\x1b[A"), [Key::Escape, Key::Up]);
}

#[test]
fn half_a_sequence_waits_for_the_rest() {
    for half in ["\x1b", "\x1b[", "\x1b[<0;6", "\x1bO", "\u{e9}"] {
        let bytes = &half.as_bytes()[..half.len().min(5)];
        let bytes = if half == "\u{e9}" { &bytes[..1] } else { bytes };
        assert_eq!(keys::read(bytes, false), (Vec::new(), 0), "{half:?}");
        assert_eq!(keys::read(bytes, true).1, bytes.len(), "{half:?}");
    }
    // Whatever is sent, it is read to its end.
    for byte in 0..=u8::MAX {
        for bytes in [vec![byte; 40], [vec![0x1b, b'[', byte], vec![b'1'; 40]].concat()] {
            assert_eq!(keys::read(&bytes, true).1, bytes.len(), "{byte}");
        }
    }
}

#[test]
fn a_map_is_cut_to_the_screen_and_says_so() {
    let (root, _) = rows(&host(), &Wanted::default(), None);
    let root = root.into();
    let style = Style { width: Some(40), colour: false };
    let below = ["".to_owned(), "3 containers".to_owned()];
    let cut = tree::screenful(&root, &below, 6, style);
    assert_eq!(cut.len(), 6);
    assert!(cut[3].starts_with("… and "), "{cut:#?}");
    assert_eq!(cut[5], "3 containers");
    assert!(cut.iter().all(|line| line.chars().count() <= 40), "{cut:#?}");
    let whole = tree::screenful(&root, &below, 50, style);
    assert!(!whole.iter().any(|line| line.contains("more rows")), "{whole:#?}");
    for height in 0..4 {
        assert!(tree::screenful(&root, &below, height, style).len() <= height);
    }
}

#[test]
fn times_are_those_of_the_day() {
    let time = std::time::Duration::from_secs(1_700_000_000);
    assert_eq!(words::clock(time), "22:13:20");
    let start = words::start(&Counts::default(), time);
    assert!(start.starts_with("22:13:20 = 0 containers"), "{start}");
}
