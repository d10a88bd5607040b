//! The sandbox is what it says, and real packets can be told apart from lost ones.

use std::{
    fs,
    net::{IpAddr, UdpSocket},
    process::Command,
};

use crate::{
    harness::Outcome,
    sandbox::{PATIENCE, Reach, Sandbox, Talk},
    tests, wire,
};

tests![
    only_loopback_is_there,
    the_test_is_root_below_an_init,
    the_host_file_system_is_covered,
    probes_tell_reached_refused_and_silent_apart,
    a_crafted_frame_arrives_as_written,
    a_daemon_left_behind_ends_with_the_test,
];

fn only_loopback_is_there(sandbox: &mut Sandbox) -> Outcome {
    let links = fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let names: Vec<&str> =
        links.lines().skip(2).filter_map(|line| line.split(':').next()).map(str::trim).collect();
    assert_eq!(names, ["lo"]);
    let v4 = ("127.0.0.1:7000".parse().unwrap(), "127.0.0.1:7000".parse().unwrap());
    let reach = sandbox.host().reach(Talk::Tcp, sandbox.host(), v4.0, v4.1);
    assert_eq!(reach, Reach::Reached("127.0.0.1".parse().unwrap()));
    Outcome::Passed
}

fn the_test_is_root_below_an_init(_: &mut Sandbox) -> Outcome {
    assert!(rustix::process::geteuid().is_root());
    assert_eq!(std::os::unix::process::parent_id(), 1);
    Outcome::Passed
}

fn the_host_file_system_is_covered(_: &mut Sandbox) -> Outcome {
    for dir in ["/run", "/tmp", "/var/lib"] {
        fs::write(format!("{dir}/twinax-kernel-test"), "").unwrap();
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("shared:"), "a mount would be seen outside: {mounts}");
    Outcome::Passed
}

/// ```text
/// host ── uplink ═══ eth0 ── outside
///      192.0.2.1    192.0.2.2
/// ```
fn probes_tell_reached_refused_and_silent_apart(sandbox: &mut Sandbox) -> Outcome {
    let outside = sandbox.outside(
        "uplink",
        &["192.0.2.1/24", "2001:db8::1/64"],
        &["192.0.2.2/24", "2001:db8::2/64"],
    );
    let host = sandbox.host();
    for (client, server) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
        let client: IpAddr = client.parse().unwrap();
        let at = (server.parse::<IpAddr>().unwrap(), 7000).into();
        for talk in [Talk::Tcp, Talk::Udp] {
            assert_eq!(outside.ask(talk, at), Reach::Refused, "{talk:?} {at}");
            assert_eq!(outside.reach(talk, host, at, at), Reach::Reached(client), "{talk:?} {at}");
        }
    }
    assert_eq!(outside.ask(Talk::Udp, "192.0.2.77:7000".parse().unwrap()), Reach::Timeout);
    Outcome::Passed
}

fn a_crafted_frame_arrives_as_written(sandbox: &mut Sandbox) -> Outcome {
    let outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let (ours, theirs) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    wire::set_mac("uplink", ours).unwrap();
    let server = UdpSocket::bind("0.0.0.0:7000").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 64];
    let forged = "192.0.2.99:4000".parse().unwrap();
    for (to, arrives) in [("192.0.2.1:7000", true), ("127.0.0.1:7000", false)] {
        let frame = wire::udp_frame((theirs, forged), (ours, to.parse().unwrap()), b"hello");
        outside.run(|| wire::send_frame("eth0", &frame)).unwrap();
        match server.recv_from(&mut buffer) {
            Ok((length, from)) => {
                assert!(arrives, "{to}");
                assert_eq!((&buffer[..length], from), (&b"hello"[..], forged.into()));
            }
            Err(error) => assert!(!arrives, "{to}: {error}"),
        }
    }
    Outcome::Passed
}

/// That it does is what the runner verifies once all tests have ended.
fn a_daemon_left_behind_ends_with_the_test(_: &mut Sandbox) -> Outcome {
    drop(Command::new("/bin/sh").args(["-c", "(sleep 1000 <&- >&- 2>&-) &"]).status());
    Outcome::Passed
}
