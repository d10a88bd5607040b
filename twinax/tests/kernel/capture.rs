//! `capture` on what really passes: read back from the file, and filters held against the kernel.

use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    net::{IpAddr, UdpSocket},
    os::fd::{AsFd, AsRawFd},
    os::unix::fs::{PermissionsExt, symlink},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{CWD, Mode, mkfifoat},
    process::{Pid, Signal, kill_process},
};
use twinax::linux::packets::{self, Wanted};
use twinax_core::{filter, pcapng::LinkType};

use crate::{
    harness::Outcome,
    product::Inside,
    sandbox::{Sandbox, Talk},
    tests, wire,
};

tests![
    a_container_is_captured_into_a_file,
    both_ends_and_a_bridge_are_interfaces_of_one_file,
    lines_tell_what_passes,
    only_what_the_filter_takes_comes_through,
    the_kernel_and_the_expression_agree,
    a_burst_is_kept_or_counted,
    it_ends_with_its_container,
    a_link_in_the_place_of_the_file_is_not_followed,
    a_reader_that_stopped_does_not_keep_it,
    a_named_pipe_does_not_keep_it,
    a_time_that_no_clock_has_is_no_end,
    many_interfaces_begin_at_once,
];

/// A capture that has begun.
struct Begun {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Begun {
    fn of(sandbox: &Sandbox, line: &str) -> Self {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = sandbox.command(&words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut first = String::new();
        errors.read_line(&mut first).unwrap();
        assert!(first.starts_with("capturing at "), "{first}");
        Self { child, errors }
    }

    /// Waits until it ends, of itself or of a signal; what it said at the end, and printed.
    fn end(mut self, signal: Option<Signal>) -> (String, Vec<u8>) {
        if let Some(signal) = signal {
            // What is on its way into the ring comes first.
            thread::sleep(Duration::from_millis(100));
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
        let mut out = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut out).unwrap();
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
        let code = self.child.wait().unwrap().code();
        assert_eq!(code, Some(0), "{said}");
        (said, out)
    }
}

/// A capture file, as a reader that knows only the draft sees it.
#[derive(Debug, Default)]
struct Reading {
    interfaces: Vec<(String, String)>,
    /// Interface, time, flags, length on the wire, bytes.
    packets: Vec<(u32, u64, u32, u32, Vec<u8>)>,
    /// Interface, then accepted, dropped and written.
    statistics: Vec<(u32, u64, u64, u64)>,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn options(mut bytes: &[u8]) -> Vec<(u16, Vec<u8>)> {
    let mut options = Vec::new();
    while bytes.len() >= 4 {
        let kind = u16::from_le_bytes([bytes[0], bytes[1]]);
        let length = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        if kind == 0 {
            break;
        }
        options.push((kind, bytes[4..4 + length].to_vec()));
        bytes = &bytes[4 + length.next_multiple_of(4)..];
    }
    options
}

fn read(mut bytes: &[u8]) -> Reading {
    assert_eq!(word(bytes, 0), 0x0a0d_0d0a);
    assert_eq!(word(bytes, 8), 0x1a2b_3c4d);
    let mut found = Reading::default();
    while !bytes.is_empty() {
        let length = word(bytes, 4) as usize;
        let (block, rest) = bytes.split_at(length);
        assert_eq!(word(block, length - 4) as usize, length, "the length at a block's end");
        let body = &block[8..length - 4];
        let text = |options: &[(u16, Vec<u8>)], kind: u16| {
            let found = options.iter().find(|(of, _)| *of == kind);
            found.map(|(_, text)| String::from_utf8(text.clone()).unwrap()).unwrap_or_default()
        };
        match word(block, 0) {
            1 => {
                let options = options(&body[8..]);
                let resolution = options.iter().find(|(kind, _)| *kind == 9).unwrap();
                assert_eq!(resolution.1, [9], "nanoseconds");
                found.interfaces.push((text(&options, 2), text(&options, 1)));
            }
            5 => {
                let options = options(&body[12..]);
                let number = |kind: u16| {
                    let found = options.iter().find(|(of, _)| *of == kind).unwrap();
                    u64::from_le_bytes(found.1.clone().try_into().unwrap())
                };
                found.statistics.push((word(body, 0), number(6), number(7), number(8)));
            }
            6 => {
                let kept = word(body, 12) as usize;
                let options = options(&body[20 + kept.next_multiple_of(4)..]);
                let flags = options.iter().find(|(kind, _)| *kind == 2).unwrap();
                let time = u64::from(word(body, 4)) << 32 | u64::from(word(body, 8));
                let bytes = body[20..20 + kept].to_vec();
                found.packets.push((word(body, 0), time, word(&flags.1, 0), word(body, 16), bytes));
            }
            0x0a0d_0d0a => {}
            other => panic!("block {other:#x}"),
        }
        bytes = rest;
    }
    for (number, counted) in found.statistics.iter().enumerate() {
        assert_eq!(counted.0 as usize, number);
    }
    assert_eq!(found.statistics.len(), found.interfaces.len(), "an end for each");
    assert!(found.packets.is_sorted_by_key(|packet| packet.1), "in the order of time");
    found
}

/// Two containers on a network; the second asks the first over TCP and UDP.
fn two(sandbox: &Sandbox) -> (Inside, Inside) {
    sandbox.done("network create web");
    (sandbox.start("one", "--network web"), sandbox.start("two", "--network web"))
}

fn ask(from: &Inside, to: &Inside) {
    let reach = from.netns.ask(Talk::Tcp, (to.v4(), 7).into());
    assert_eq!(reach, crate::sandbox::Reach::Reached(from.v4()));
}

fn port(packet: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([packet[at], packet[at + 1]])
}

fn a_container_is_captured_into_a_file(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    fs::write("/run/tmp/x.pcapng", vec![b'x'; 1 << 20]).unwrap();
    let begun = Begun::of(sandbox, "capture one -w /run/tmp/x.pcapng tcp port 7");
    ask(&two, &one);
    let (said, out) = begun.end(Some(Signal::INT));
    assert!(out.is_empty());
    let found = read(&fs::read("/run/tmp/x.pcapng").unwrap());
    let [(name, comment)] = found.interfaces.as_slice() else { panic!("{found:?}") };
    assert_eq!(name, "one/eth0");
    assert!(comment.contains("; one  id ") && comment.contains("  twinax  "), "{comment}");
    assert!(comment.contains("net:["), "{comment}");
    // The handshake, a question, an answer and two ends, at least.
    assert!(found.packets.len() >= 6, "{found:?}");
    let (mut ins, mut outs) = (0, 0);
    for (interface, time, flags, length, bytes) in &found.packets {
        assert_eq!((*interface, *length as usize), (0, bytes.len()));
        assert!(*time > 1_600_000_000_000_000_000);
        // Ethernet, IPv4 without options.
        match (flags, port(bytes, 34), port(bytes, 36)) {
            (1, _, 7) => ins += 1,
            (2, 7, _) => outs += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(ins >= 3 && outs >= 2, "{ins} in, {outs} out");
    let count = found.packets.len() as u64;
    assert_eq!(found.statistics, [(0, count, 0, count)]);
    assert_eq!(said, format!("one/eth0: {count} packets, none dropped\n"));
    Outcome::Passed
}

fn both_ends_and_a_bridge_are_interfaces_of_one_file(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    let begun = Begun::of(sandbox, "capture one --both -w - tcp");
    ask(&two, &one);
    let (_, out) = begun.end(Some(Signal::TERM));
    let found = read(&out);
    assert_eq!(found.interfaces[0].0, "one/eth0");
    assert!(found.interfaces[1].0.starts_with("txv"), "{found:?}");
    assert!(found.interfaces[1].1.contains("; one  id "), "{found:?}");
    // What comes in at one end went out at the other, before.
    let of = |interface: u32, flags: u32| {
        let mine = found.packets.iter().filter(move |p| p.0 == interface && p.2 == flags);
        mine.map(|packet| packet.4.clone()).collect::<Vec<_>>()
    };
    assert!(of(0, 1).len() >= 3);
    assert_eq!(of(0, 1), of(1, 2));
    assert_eq!(of(0, 2), of(1, 1));

    let begun = Begun::of(sandbox, "capture tx-web -w - tcp");
    ask(&two, &one);
    let (_, out) = begun.end(Some(Signal::INT));
    let found = read(&out);
    assert_eq!(found.interfaces.len(), 2, "a port for each container: {found:?}");
    assert!(found.interfaces.iter().all(|(_, comment)| comment.contains("on tx-web")));
    let [(_, first, ..), (_, second, ..)] = found.statistics.as_slice() else { panic!("two") };
    // Each packet comes in at one port and goes out at the other.
    assert!(*first >= 6 && first == second, "{found:?}");
    Outcome::Passed
}

fn lines_tell_what_passes(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    let begun = Begun::of(sandbox, "capture one -c 2 tcp dst port 7");
    ask(&two, &one);
    let (said, out) = begun.end(None);
    assert_eq!(said, "one/eth0: 2 packets, none dropped\n");
    let text = String::from_utf8(out).unwrap();
    let [first, second] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    let (time, rest) = first.split_once("  ").unwrap();
    assert_eq!((time.len(), time.matches(':').count()), ("12:34:56.123456".len(), 2), "{first}");
    assert!(rest.starts_with(&format!("one/eth0 in  {}:", two.v4())), "{rest}");
    assert!(rest.contains(&format!(" > {}:7 TCP SYN, ", one.v4())), "{rest}");
    assert!(second.contains(" TCP ACK, "), "{second}");
    let begun = Begun::of(sandbox, "capture one --for 1");
    assert_eq!(begun.end(None).0, "one/eth0: 0 packets, none dropped\n");
    // Whoever reads it goes away.
    let mut begun = Begun::of(sandbox, "capture one -w -");
    drop(begun.child.stdout.take());
    assert_eq!(begun.child.wait().unwrap().code(), Some(0));
    Outcome::Passed
}

/// Of what was there before the filter was, nothing is seen.
fn only_what_the_filter_takes_comes_through(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    let socket = two.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    let target = one.v4();
    let flood = thread::spawn(move || {
        for _ in 0..3000 {
            let _ = socket.send_to(b"noise", (target, 9));
            let _ = socket.send_to(b"wanted", (target, 10));
        }
    });
    let begun = Begun::of(sandbox, "capture one -c 300 -s 60 -w - udp dst port 10");
    let (_, out) = begun.end(None);
    flood.join().unwrap();
    let found = read(&out);
    assert_eq!(found.packets.len(), 300);
    for (_, _, _, length, bytes) in &found.packets {
        assert_eq!((*length, bytes.len(), port(bytes, 36)), (48, 48, 10));
    }
    let begun = Begun::of(sandbox, "capture one -s 20 -c 1 -w - icmp or udp");
    ask(&two, &one);
    let noise = two.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    noise.send_to(b"noise", (target, 9)).unwrap();
    let found = read(&begun.end(None).1);
    assert_eq!((found.packets[0].3, found.packets[0].4.len()), (47, 20));
    Outcome::Passed
}

/// Frames of every kind, sent on a cable; each filter is run by the kernel and by the evaluator.
fn the_kernel_and_the_expression_agree(sandbox: &mut Sandbox) -> Outcome {
    let netns = sandbox.namespace();
    wire::add_veth(
        "left",
        "right",
        std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&netns)),
    )
    .unwrap();
    wire::set_up("left").unwrap();
    netns.run(|| wire::set_up("right").unwrap());
    let index = wire::index("left").unwrap();
    let frames = frames();
    let texts = [
        "tcp",
        "udp",
        "arp",
        "ip",
        "ip6",
        "icmp",
        "icmp6",
        "port 80",
        "src port 80",
        "udp dst port 53",
        "host 10.1.0.3",
        "src 10.1.0.3",
        "dst net 10.1.0.0/30",
        "net fd00::/64",
        "src host fd00::2",
        "not tcp",
        "not port 80",
        "(tcp or udp) and not host 10.1.0.3",
        "arp and net 10.0.0.0/8 or ip6",
        "not (ip or ip6 or arp)",
    ];
    for text in texts.into_iter().chain([""]) {
        let filter = filter::parse(text).unwrap();
        let wanted = Wanted { filter: filter.as_ref(), keep: 4096, interfaces: 1 };
        let mut tapped = packets::tap(index, &wanted).unwrap();
        tapped.begin().unwrap();
        assert_eq!(tapped.link_type, LinkType::Ethernet);
        frames.iter().for_each(|frame| wire::send_frame("left", frame).unwrap());
        let mut seen: Vec<Vec<u8>> = Vec::new();
        tapped.close();
        thread::sleep(Duration::from_millis(2 * u64::from(packets::LATENCY_MS)));
        tapped
            .read(|packet| {
                seen.push(packet.whole());
                Ok(())
            })
            .unwrap();
        // Others' packets, as of the kernel's own neighbour discovery, may be among them.
        seen.retain(|frame| frames.contains(frame));
        let takes = |frame: &&Vec<u8>| {
            filter.as_ref().is_none_or(|filter| filter.takes(LinkType::Ethernet, frame))
        };
        let expected: Vec<Vec<u8>> = frames.iter().filter(takes).cloned().collect();
        assert!(text.is_empty() || expected.len() < frames.len(), "{text:?} takes all");
        assert!(!expected.is_empty(), "{text:?} takes nothing");
        assert_eq!(seen, expected, "{text:?}");
    }
    Outcome::Passed
}

fn frames() -> Vec<Vec<u8>> {
    let (a, b) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let at = |last: u8, port: u16| std::net::SocketAddrV4::new([10, 1, 0, last].into(), port);
    let udp = |from, to| wire::udp_frame((a, from), (b, to), b"payload");
    let mut frames =
        vec![udp(at(2, 1234), at(3, 53)), udp(at(2, 80), at(9, 9)), udp(at(3, 9), at(2, 80))];
    // The same as TCP, as ICMP, and as a later fragment.
    for (place, value) in [(23, 6), (23, 1), (21, 5)] {
        for n in 0..3 {
            let mut frame = frames[n].clone();
            frame[place] = value;
            frame.resize(80, n as u8);
            frames.push(frame);
        }
    }
    for (proto, port) in [(6, 80u16), (17, 53), (58, 7), (43, 80)] {
        let mut frame = [&b[..], &a, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, proto, 64]].concat();
        for last in [2, 3] {
            frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        }
        frame.extend([4, 0]);
        frame.extend(port.to_be_bytes());
        frame.resize(70, 0);
        frames.push(frame);
    }
    for last in [3, 77] {
        let arp =
            [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10, 1, 0];
        frames.push([&b[..], &a, &[8, 6], &arp, &[last], &[0; 18]].concat());
    }
    frames.push([&b[..], &a, &[0x88, 0xb5], &[7; 50]].concat());
    frames
}

/// More than a small buffer holds: what was lost is counted, nothing is lost in silence.
fn a_burst_is_kept_or_counted(sandbox: &mut Sandbox) -> Outcome {
    const BURST: usize = 20_000;
    let (one, two) = two(sandbox);
    let begun = Begun::of(sandbox, "capture one -w /run/tmp/x.pcapng udp dst port 9");
    let target: IpAddr = one.v4();
    two.netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for n in 0..BURST {
            // A refusal of an earlier one is told of a later.
            while socket.send_to(&n.to_be_bytes(), (target, 9)).is_err() {}
        }
    });
    let (said, _) = begun.end(Some(Signal::INT));
    let found = read(&fs::read("/run/tmp/x.pcapng").unwrap());
    let [(_, accepted, dropped, written)] = found.statistics[..] else { panic!("one") };
    assert_eq!(found.packets.len() as u64, written);
    assert_eq!(accepted, BURST as u64);
    assert_eq!(written + dropped, accepted, "{said}");
    println!("{said}");
    Outcome::Passed
}

/// Our socket must not keep what is gone.
fn it_ends_with_its_container(sandbox: &mut Sandbox) -> Outcome {
    two(sandbox);
    let begun = Begun::of(sandbox, "capture one --both -w -");
    sandbox.done("rm -f one");
    let (said, out) = begun.end(None);
    assert!(said.contains("one/eth0 is gone\n"), "{said}");
    assert_eq!(read(&out).interfaces.len(), 2);
    let error = sandbox.refused("capture one");
    assert!(error.contains("nothing on this host that has packets is called one"), "{error}");
    Outcome::Passed
}

fn a_link_in_the_place_of_the_file_is_not_followed(sandbox: &mut Sandbox) -> Outcome {
    two(sandbox);
    fs::write("/run/tmp/precious", "kept").unwrap();
    symlink("/run/tmp/precious", "/run/tmp/link").unwrap();
    let error = sandbox.refused("capture one -w /run/tmp/link -c 1");
    assert!(error.contains("/run/tmp/link is a symbolic link"), "{error}");
    assert_eq!(fs::read_to_string("/run/tmp/precious").unwrap(), "kept");
    // A handle that means nothing leaves the file alone.
    sandbox.refused("capture nobody -w /run/tmp/precious");
    assert_eq!(fs::read_to_string("/run/tmp/precious").unwrap(), "kept");
    let begun = Begun::of(sandbox, "capture one -w /run/tmp/new.pcapng");
    begun.end(Some(Signal::INT));
    let mode = fs::metadata("/run/tmp/new.pcapng").unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Outcome::Passed
}

fn a_reader_that_stopped_does_not_keep_it(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    let mut begun = Begun::of(sandbox, "capture one -w - udp dst port 9");
    let target: IpAddr = one.v4();
    two.netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        // Twice what fits into the pipe.
        for _ in 0..200 {
            while socket.send_to(&[7; 1000], (target, 9)).is_err() {}
        }
    });
    thread::sleep(Duration::from_millis(200));
    assert!(begun.child.try_wait().unwrap().is_none(), "it waits for its reader");
    kill_process(Pid::from_child(&begun.child), Signal::INT).unwrap();
    assert_eq!(begun.child.wait().unwrap().code(), Some(0));
    Outcome::Passed
}

fn soon_ended(child: &mut Child) {
    let end = Instant::now() + Duration::from_secs(10);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// One that nobody reads, one whose reader stopped, and one whose reader went.
fn a_named_pipe_does_not_keep_it(sandbox: &mut Sandbox) -> Outcome {
    let (one, two) = two(sandbox);
    mkfifoat(CWD, "/run/tmp/pipe", Mode::RUSR | Mode::WUSR).unwrap();
    let words = ["capture", "one", "-w", "/run/tmp/pipe", "udp", "dst", "port", "9"];
    let begin = || {
        let mut child = sandbox.command(&words).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        errors.read_line(&mut line).unwrap();
        assert!(line.starts_with("waiting for somebody to read"), "{line}");
        (child, errors)
    };
    let (mut unread, _errors) = begin();
    kill_process(Pid::from_child(&unread), Signal::INT).unwrap();
    soon_ended(&mut unread);

    let (mut stopped, mut errors) = begin();
    let reader = File::open("/run/tmp/pipe").unwrap();
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    let target: IpAddr = one.v4();
    two.netns.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for _ in 0..200 {
            while socket.send_to(&[7; 1000], (target, 9)).is_err() {}
        }
    });
    thread::sleep(Duration::from_millis(200));
    assert!(stopped.try_wait().unwrap().is_none(), "it waits for its reader");
    kill_process(Pid::from_child(&stopped), Signal::INT).unwrap();
    soon_ended(&mut stopped);
    drop(reader);

    let (mut left, mut errors) = begin();
    let reader = File::open("/run/tmp/pipe").unwrap();
    errors.read_line(&mut line).unwrap();
    drop(reader);
    soon_ended(&mut left);
    Outcome::Passed
}

fn a_time_that_no_clock_has_is_no_end(sandbox: &mut Sandbox) -> Outcome {
    two(sandbox);
    let begun = Begun::of(sandbox, "capture one -w /run/tmp/a --for 18446744073709551615");
    begun.end(Some(Signal::TERM));
    Outcome::Passed
}

/// What passes while the last of many is made ready fills no ring that nobody reads yet.
fn many_interfaces_begin_at_once(sandbox: &mut Sandbox) -> Outcome {
    let beside = sandbox.namespace();
    let fd = beside.as_fd().as_raw_fd();
    wire::add_bridge("many").unwrap();
    wire::set_up("many").unwrap();
    for n in 0..48 {
        let (port, end) = (format!("port{n}"), format!("end{n}"));
        wire::add_veth(&port, &end, fd).unwrap();
        wire::set_master(&port, "many").unwrap();
        wire::set_up(&port).unwrap();
        beside.run(|| wire::set_up(&end).unwrap());
    }
    wire::add_addr("many", [10, 1, 1, 1].into(), 24).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&over);
    let talk = thread::spawn(move || {
        let socket = UdpSocket::bind("10.1.1.1:0").unwrap();
        socket.set_broadcast(true).unwrap();
        while !ends.load(Ordering::Relaxed) {
            socket.send_to(&[7; 100], "10.1.1.255:9").unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    });
    let begun = Begun::of(sandbox, "capture many -w /run/tmp/a udp dst port 9");
    thread::sleep(Duration::from_millis(300));
    let (said, _) = begun.end(Some(Signal::INT));
    over.store(true, Ordering::Relaxed);
    talk.join().unwrap();
    assert_eq!(said.matches(", none dropped").count(), 48, "{said}");
    let found = read(&fs::read("/run/tmp/a").unwrap());
    assert!(found.statistics.iter().all(|counted| counted.3 > 10), "{:?}", found.statistics);
    Outcome::Passed
}
