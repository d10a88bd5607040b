//! Tables, JSON, progress and errors, made from a small state.

use std::{collections::BTreeMap, io::Write};

use expect_test::{Expect, ExpectFile, expect, expect_file};
use twinax::front::{
    json,
    print::{self, Style},
    progress::Progress,
    report::Report,
};
use twinax_core::{
    name::{ContainerName, Mac, NetworkName, Proto},
    state::{
        Container, Driver, Endpoint, GatewayMode, Lab, Led, Network, Published, Run, Sandbox,
        State, Status, Subnet, Way,
    },
};

const PLAIN: Style = Style { width: None, colour: false };
const NOW: u64 = 1_800_000_000;

fn name(text: &str) -> ContainerName {
    text.parse().expect("well written")
}

fn net(text: &str) -> NetworkName {
    text.parse().expect("well written")
}

fn network(number: u32, subnets: &[(&str, &str)]) -> Network {
    let subnet = |(net, gateway): &(&str, &str)| Subnet {
        net: net.parse().expect("well written"),
        gateway: gateway.parse().expect("well written"),
        range: net.parse().expect("well written"),
        reserved: BTreeMap::new(),
    };
    Network {
        driver: Driver::Bridge,
        number,
        bridge: format!("tx-{number}").parse().expect("well written"),
        subnets: subnets.iter().map(subnet).collect(),
        internal: false,
        icc: true,
        mode4: GatewayMode::Nat,
        mode6: GatewayMode::Nat,
        mtu: 1500,
        labels: BTreeMap::new(),
    }
}

fn endpoint(network: &str, number: u32, ifname: &str, addrs: &[&str]) -> Endpoint {
    let addrs: Vec<_> = addrs.iter().map(|addr| addr.parse().expect("well written")).collect();
    Endpoint {
        network: net(network),
        number,
        ifname: ifname.parse().expect("well written"),
        mac: Mac::of(addrs[0]),
        addrs,
        aliases: Vec::new(),
        gateway_priority: 0,
    }
}

fn container(id: &str, run: Option<(&[&str], Status)>) -> Container {
    let run = run.map(|(command, status)| Run {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        remove: false,
        status,
        created: NOW - 190,
        lab: Some(Lab { name: "shop".to_owned(), digest: "0".to_owned(), file: String::new() }),
    });
    Container {
        id: id.to_owned(),
        sandbox: Sandbox { way: Way::Pid { pid: 4711, start: 9 }, cookie: Some(7) },
        hostname: None,
        endpoints: Vec::new(),
        published: Vec::new(),
        view: None,
        dns: Vec::new(),
        run,
        led: Led::default(),
    }
}

/// web on front and back, db on back, an ended job, and a foreign process on front.
fn shop() -> State {
    let mut state = State::default();
    let dual = [("10.1.0.0/24", "10.1.0.1"), ("fd00:1::/64", "fd00:1::1")];
    let mut front = network(1, &dual);
    front.labels.insert("team".to_owned(), "shop\x1b[2J".to_owned());
    let mut back = network(2, &[("10.2.0.0/24", "10.2.0.1")]);
    back.internal = true;
    back.subnets[0].range = "10.2.0.128/25".parse().expect("well written");
    back.subnets[0]
        .reserved
        .insert("printer".to_owned(), "10.2.0.9".parse().expect("well written"));
    state.networks.insert(net("front"), front);
    state.networks.insert(net("back"), back);
    let running = Status::Running { init: (4711, 9), supervisor: (4710, 8) };
    let mut web = container("0123456789ab", Some((&["httpd", "-f", "a b"], running.clone())));
    web.endpoints.push(endpoint("front", 1, "eth0", &["10.1.0.2", "fd00:1::2"]));
    web.endpoints[0].aliases.push("www".parse().expect("well written"));
    web.endpoints.push(endpoint("back", 2, "eth1", &["10.2.0.129"]));
    let port = |host: Option<&str>, host_port, container_port, proto| Published {
        proto,
        host: host.map(|host| host.parse().expect("well written")),
        host_port,
        container_port,
    };
    web.published.push(port(None, 8080, 80, Proto::Tcp));
    web.published.push(port(Some("127.0.0.1"), 5353, 53, Proto::Udp));
    web.published.push(port(Some("::1"), 8081, 81, Proto::Tcp));
    state.containers.insert(name("web"), web);
    let mut db = container("ba9876543210", Some((&["keep", "\x1b[31m"], running)));
    db.endpoints.push(endpoint("back", 3, "eth0", &["10.2.0.130"]));
    state.containers.insert(name("db"), db);
    let exited = Status::Exited { code: Some(137), at: NOW - 5 };
    state.containers.insert(name("job"), container("aaaaaaaaaaaa", Some((&["true"], exited))));
    let mut foreign = container("bbbbbbbbbbbb", None);
    foreign.endpoints.push(endpoint("front", 4, "eth0", &["10.1.0.3"]));
    state.containers.insert(name("pid:4711"), foreign);
    state
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(text);
}

#[test]
fn containers_are_listed_as_docker_lists_them() {
    let state = shop();
    check(
        &print::containers(&state, false, NOW, PLAIN),
        expect![[r#"
        NAME      ID            STATUS        NETWORKS                                   PORTS                                                       COMMAND
        db        ba9876543210  Up 3 minutes  back=10.2.0.130                                                                                        keep $'\x1b[31m'
        pid:4711  bbbbbbbbbbbb  Attached      front=10.1.0.3
        web       0123456789ab  Up 3 minutes  front=10.1.0.2+fd00:1::2, back=10.2.0.129  *:8080->80/tcp, 127.0.0.1:5353->53/udp, [::1]:8081->81/tcp  httpd -f 'a b'
    "#]],
    );
    check(
        &print::containers(&state, true, NOW, PLAIN),
        expect![[r#"
            NAME      ID            STATUS                      NETWORKS                                   PORTS                                                       COMMAND
            db        ba9876543210  Up 3 minutes                back=10.2.0.130                                                                                        keep $'\x1b[31m'
            job       aaaaaaaaaaaa  Exited (137) 5 seconds ago                                                                                                         true
            pid:4711  bbbbbbbbbbbb  Attached                    front=10.1.0.3
            web       0123456789ab  Up 3 minutes                front=10.1.0.2+fd00:1::2, back=10.2.0.129  *:8080->80/tcp, 127.0.0.1:5353->53/udp, [::1]:8081->81/tcp  httpd -f 'a b'
        "#]],
    );
    check(
        &print::container_names(&state, false),
        expect![[r#"
            db
            pid:4711
            web
        "#]],
    );
}

#[test]
fn a_narrow_terminal_loses_commands_first() {
    let style = |width| Style { width: Some(width), colour: true };
    check(
        &print::containers(&shop(), false, NOW, style(140)),
        expect![[r#"
        [1mNAME      ID            STATUS        NETWORKS                                   PORTS                                          COMMAND[0m
        db        ba9876543210  Up 3 minutes  back=10.2.0.130                                                                           keep $'\x1b…
        pid:4711  bbbbbbbbbbbb  Attached      front=10.1.0.3
        web       0123456789ab  Up 3 minutes  front=10.1.0.2+fd00:1::2, back=10.2.0.129  *:8080->80/tcp, 127.0.0.1:5353->53/udp, [::1…  httpd -f 'a…
    "#]],
    );
    check(
        &print::containers(&shop(), false, NOW, style(80)),
        expect![[r#"
        [1mNAME      ID            STATUS        NETWORKS        PORTS         COMMAND[0m
        db        ba9876543210  Up 3 minutes  back=10.2.0.1…                keep $'\x1b…
        pid:4711  bbbbbbbbbbbb  Attached      front=10.1.0.3
        web       0123456789ab  Up 3 minutes  front=10.1.0.…  *:8080->80/…  httpd -f 'a…
    "#]],
    );
}

#[test]
fn networks_are_listed_and_inspected() {
    let state = shop();
    check(
        &print::networks(&state, PLAIN),
        expect![[r#"
        NAME   DRIVER  SUBNETS                   WAY OUT   CONTAINERS  INTERFACE  MTU
        back   bridge  10.2.0.0/24               internal  2           tx-2       1500
        front  bridge  10.1.0.0/24, fd00:1::/64  nat       2           tx-1       1500
    "#]],
    );
    check(
        &print::network(&state, &net("front"), PLAIN).unwrap(),
        expect![[r#"
        Network     front
        Driver      bridge
        Interface   tx-1
        Subnet      10.1.0.0/24, gateway 10.1.0.1
        Subnet      fd00:1::/64, gateway fd00:1::1
        Way out     nat
        Among them  may talk
        MTU         1500
        Label       team=$'shop\x1b[2J'

        CONTAINER  INTERFACE  HOST END  MAC                ADDRESSES            ALIASES
        pid:4711   eth0       txv4      02:74:0a:01:00:03  10.1.0.3
        web        eth0       txv1      02:74:0a:01:00:02  10.1.0.2, fd00:1::2  www
    "#]],
    );
    check(
        &print::network(&state, &net("back"), PLAIN).unwrap(),
        expect![[r#"
        Network     back
        Driver      bridge
        Interface   tx-2
        Subnet      10.2.0.0/24, gateway 10.2.0.1, range 10.2.0.128/25, 10.2.0.9 kept for printer
        Way out     internal
        Among them  may talk
        MTU         1500

        CONTAINER  INTERFACE  HOST END  MAC                ADDRESSES   ALIASES
        db         eth0       txv3      02:74:0a:02:00:82  10.2.0.130
        web        eth1       txv2      02:74:0a:02:00:81  10.2.0.129
    "#]],
    );
    assert_eq!(print::network(&state, &net("nosuch"), PLAIN), None);
}

#[test]
fn ports_are_listed_as_docker_lists_them() {
    let state = shop();
    check(
        &print::ports(state.containers.get(&name("web")).unwrap()),
        expect![[r#"
        80/tcp -> *:8080
        53/udp -> 127.0.0.1:5353
        81/tcp -> [::1]:8081
    "#]],
    );
    check(
        &print::reach(&state, &[name("db"), name("web")], PLAIN),
        expect![[r#"
        CONTAINER  NETWORKS                                   PORTS
        db         back=10.2.0.130
        web        front=10.1.0.2+fd00:1::2, back=10.2.0.129  *:8080->80/tcp, 127.0.0.1:5353->53/udp, [::1]:8081->81/tcp
    "#]],
    );
}

#[test]
fn times_are_told_in_their_largest_unit() {
    let up = |seconds| {
        let running = Status::Running { init: (1, 1), supervisor: (1, 1) };
        print::status(&container("x", Some((&[], running))), NOW - 190 + seconds)
    };
    let told: Vec<_> = [0, 1, 59, 60, 3599, 7200, 86400].map(up).into();
    check(
        &told.join("\n"),
        expect![[r#"
        Up less than a second
        Up 1 second
        Up 59 seconds
        Up 1 minute
        Up 59 minutes
        Up 2 hours
        Up 1 day"#]],
    );
    let unseen = Status::Exited { code: None, at: NOW + 9 };
    // The clock may have been set back.
    check(
        &print::status(&container("x", Some((&[], unseen))), NOW),
        expect!["Exited (?) less than a second ago"],
    );
}

#[test]
fn the_shapes_of_json_stay() {
    let state = shop();
    let check = |text: Result<String, serde_json::Error>, expected: ExpectFile| {
        expected.assert_eq(&text.expect("the shapes can be written"));
    };
    check(json::text(json::containers(&state, true)), expect_file!["golden/ps.json"]);
    let back = [net("back")];
    check(json::text(json::networks(&state, Some(&back))), expect_file!["golden/networks.json"]);
    check(json::text(json::ports(&state, &name("web"))), expect_file!["golden/port.json"]);
    check(json::text(json::plan(["add a", "add b"])), expect_file!["golden/plan.json"]);
    check(json::text(json::check([""; 0])), expect_file!["golden/check.json"]);
    check(json::text(json::repair(["add a"])), expect_file!["golden/repair.json"]);
    let line = json::LogLine { time_ns: 1, stream: "stdout", text: "a\"b" };
    check(json::line(line), expect_file!["golden/logs.json"]);
}

#[test]
fn logs_become_json_line_by_line() {
    let mut out = Vec::new();
    let mut writer = json::LogWriter::new("stderr", &mut out);
    for piece in [&b"17 on"[..], b"e\n18 \n", b"19 no end \xff"] {
        writer.write_all(piece).unwrap();
    }
    writer.finish().unwrap();
    let lines: Vec<_> = out.split(|byte| *byte == b'\n').map(String::from_utf8_lossy).collect();
    let line = |time, text| {
        format!("{{\"version\":1,\"time_ns\":{time},\"stream\":\"stderr\",\"text\":\"{text}\"}}")
    };
    assert_eq!(lines, [line(17, "one"), line(18, ""), line(19, "no end \u{fffd}"), String::new()]);
}

#[test]
fn plans_and_checks_say_when_there_is_nothing() {
    assert_eq!(print::plan([""; 0]), "nothing to do\n");
    assert_eq!(print::check(["a", "b"]), "a\nb\n");
}

fn progressed(style: Style) -> String {
    let mut out = Vec::new();
    let mut progress = Progress::new(&mut out, style, 3);
    progress.step("creating network web").expect("a vector takes all");
    progress.step("starting api").expect("a vector takes all");
    progress.step("starting lb, which has a long name").expect("a vector takes all");
    drop(progress);
    String::from_utf8(out)
        .expect("a vector takes all")
        .escape_debug()
        .to_string()
        .replace("\\n", "\n")
}

#[test]
fn progress_is_one_line_on_a_terminal_and_many_elsewhere() {
    check(
        &progressed(PLAIN),
        expect![[r#"
        1/3 creating network web
        2/3 starting api
        3/3 starting lb, which has a long name
    "#]],
    );
    let narrow = Style { width: Some(44), colour: false };
    check(
        &progressed(narrow).replace("\\r", "\n\\r"),
        expect![[r#"

        \r[--------------------] 0/3 creating network\u{1b}[K
        \r[######--------------] 1/3 starting api\u{1b}[K
        \r[#############-------] 2/3 starting lb, whi\u{1b}[K
        \r\u{1b}[K"#]],
    );
    let mut out = Vec::new();
    drop(Progress::new(&mut out, narrow, 0));
    assert!(out.is_empty());
}

#[derive(Debug, thiserror::Error)]
#[error("set the MTU of tx-1 to 9000")]
struct Outer(#[source] std::io::Error);

#[test]
fn errors_say_what_why_and_what_to_do() {
    let cause = std::io::Error::other("the kernel says no");
    let report = Report::of(&Outer(cause)).hint("ask for less\nor for nothing");
    check(
        &report.to_string(),
        expect![[r#"
        twinax: error: set the MTU of tx-1 to 9000: the kernel says no
          hint: ask for less
                or for nothing"#]],
    );
}
