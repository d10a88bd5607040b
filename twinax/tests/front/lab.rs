//! Lab files: what they mean, and what is told of those that mean nothing.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use twinax::front::{
    cli::Mode,
    lab::{self, LabFile},
    spelling::publish_text,
};

fn read(text: &str) -> LabFile {
    lab::parse(text, "my.toml").unwrap_or_else(|error| panic!("{error}"))
}

fn check(text: &str, expected: Expect) {
    let error = lab::parse(text, "my.toml").expect_err(text);
    expected.assert_eq(&format!("{error}\n"));
}

/// A lab as a few lines.
fn told(lab: &LabFile) -> String {
    let mut text = format!("lab {}\n", lab.name);
    for (name, spec) in &lab.networks {
        let nets: Vec<_> = spec.subnets.iter().map(|s| s.net.to_string()).collect();
        let internal = if spec.internal { " internal" } else { "" };
        writeln!(text, "network {name} {}{internal}", nets.join(" ")).expect("a text takes all");
    }
    for container in &lab.containers {
        let mode = match &container.mode {
            Mode::Networks(specs) => {
                let names: Vec<_> = specs.iter().map(|spec| spec.network.as_str()).collect();
                names.join(",")
            }
            mode => format!("{mode:?}"),
        };
        let ports: Vec<_> = container.publish.iter().map(publish_text).collect();
        writeln!(text, "{} on {mode} [{}]", container.name, ports.join(" "))
            .expect("a text takes all");
    }
    text
}

#[test]
fn the_examples_are_lab_files() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut all = String::new();
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|e| e == "toml")) {
        let text = std::fs::read_to_string(path).unwrap();
        let lab = lab::parse(&text, path.to_str().unwrap()).unwrap_or_else(|e| panic!("{e}"));
        all += &told(&lab);
    }
    expect![[r#"
        lab dual-stack
        network blue 10.82.2.0/24 fd00:82:2::/64
        network green 10.82.1.0/24 fd00:82:1::/64
        echo on green,blue [7007:7/udp [::1]:7008:7/udp]
        shell on green []
        lab sidecar
        network front 
        web on front [8081:80]
        app on Of(ContainerName("web")) []
        lab three-tier
        network app 10.81.2.0/24 internal
        network data 10.81.3.0/24 internal
        network edge 10.81.1.0/24
        db on data []
        api on app,data []
        web1 on edge,app []
        web2 on edge,app []
        lb on edge [8080:80]
    "#]]
    .assert_eq(&all);
}

/// The documentation's own examples are lab files too.
#[test]
fn the_documentation_s_examples_are_lab_files() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/lab-file.md");
    let text = std::fs::read_to_string(path).unwrap();
    let blocks: Vec<_> = text.split("```toml\n").skip(1).collect();
    assert!(blocks.len() >= 2);
    for block in blocks {
        let lab = block.split("```").next().unwrap();
        lab::parse(lab, "lab-file.md").unwrap_or_else(|error| panic!("{error}\n{lab}"));
    }
}

#[test]
fn what_is_left_out_has_a_default() {
    let lab = read("[container.a]\nrun = ['true']\nready = { tcp = 80 }");
    assert_eq!(lab.name, "my");
    let a = &lab.containers[0];
    let Mode::Networks(specs) = &a.mode else { panic!("networks") };
    assert_eq!(specs[0].network.as_str(), "default");
    assert_eq!(a.ready.unwrap().timeout_s, 10);
    assert_eq!(read("name = 'x'").name, "x");
}

#[test]
fn networks_are_joined_in_the_order_of_the_file() {
    let text = "[network.a]\n[network.b]\n[network.c]\n[container.x]\nrun = ['true']\n\
                networks = { c = {}, a = { priority = 3, aliases = ['q', 'r'] }, b = {} }";
    let lab = read(text);
    let Mode::Networks(specs) = &lab.containers[0].mode else { panic!("networks") };
    let names: Vec<_> = specs.iter().map(|spec| spec.network.as_str()).collect();
    assert_eq!(names, ["c", "a", "b"]);
    assert_eq!((specs[1].gateway_priority, specs[1].aliases.len()), (3, 2));
}

#[test]
fn each_container_comes_after_those_it_needs() {
    let lab = read(
        "[container.a]\nrun = ['x']\ndepends = ['c']\n[container.b]\nrun = ['x']\n\
         [container.c]\nrun = ['x']\nnetwork_mode = 'container:d'\n[container.d]\nrun = ['x']",
    );
    let names: Vec<_> = lab.containers.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["b", "d", "c", "a"]);
}

/// What is changed, and whether the container must then be replaced.
#[test]
fn a_digest_changes_when_a_container_must_be_replaced_and_not_otherwise() {
    let digest = |lines: &str| {
        let head = "[network.n]\nsubnet = '10.1.0.0/24'\n[container.z]\nrun = ['z']\n";
        let lab = read(&format!("{head}[container.a]\n{lines}"));
        let a = lab.containers.iter().find(|c| c.name.as_str() == "a").unwrap();
        a.digest.clone()
    };
    let base = digest("run = ['x', 'y']");
    let same = [
        "ports = ['80']\nrun = ['x', 'y']",
        "networks = ['n']\nrun = ['x', 'y']",
        "run = ['x', 'y']\ndepends = ['z']\nready = { tcp = 1 }",
    ];
    let other = [
        "run = ['xy']",
        "run = ['x', 'y', '']",
        "run = ['x']\nenv = { y = '' }",
        "run = ['x', 'y']\nhostname = 'h'",
        "run = ['x', 'y']\ndns = ['1.1.1.1']",
        "run = ['x', 'y']\nworkdir = '/'",
        "run = ['x', 'y']\nnetwork_mode = 'none'",
        "run = ['x', 'y']\nnetwork_mode = 'container:z'",
    ];
    for lines in same {
        assert_eq!(digest(lines), base, "{lines}");
    }
    for lines in other {
        assert_ne!(digest(lines), base, "{lines}");
    }
    // Stored by one version and compared by another: it may not change by accident.
    expect!["1756b3c550417755"].assert_eq(&base);
}

#[test]
fn who_shares_a_replaced_container_s_network_is_replaced_too() {
    let digest = |command: &str| {
        let text = format!(
            "[container.a]\nrun = ['{command}']\n\
             [container.b]\nrun = ['x']\nnetwork_mode = 'container:a'"
        );
        read(&text).containers[1].digest.clone()
    };
    assert_ne!(digest("one"), digest("two"));
}

#[test]
fn every_fault_is_told_with_its_place() {
    check(
        "\
nam = 'x'
[network.web]
subnets = ['10.1.0.0/24']
intern = true
[network.default]
[containers.web]
[container.web]
run = 'httpd'
port = ['80:80']
networks = ['wbe']
[container.api]
zebra = 1
",
        expect![[r#"
            my.toml:1:1: unknown key `nam` in a lab file
                 1 | nam = 'x'
                   | ^ did you mean `name`?
            my.toml:3:1: unknown key `subnets` in [network.web]
                 3 | subnets = ['10.1.0.0/24']
                   | ^ did you mean `subnet`?
            my.toml:4:1: unknown key `intern` in [network.web]
                 4 | intern = true
                   | ^ did you mean `internal`?
            my.toml:5:10: the network `default` is there without being described
                 5 | [network.default]
                   |          ^
            my.toml:6:2: unknown key `containers` in a lab file
                 6 | [containers.web]
                   |  ^ did you mean `container`?
            my.toml:8:7: run is a list, as ["a", "b"], and this is a text
                 8 | run = 'httpd'
                   |       ^
            my.toml:9:1: unknown key `port` in [container.web]
                 9 | port = ['80:80']
                   | ^ did you mean `ports`?
            my.toml:10:13: network `wbe` is not in this file
                10 | networks = ['wbe']
                   |             ^ did you mean `web`?
            my.toml:11:12: [container.api] lacks `run`: what it does
                11 | [container.api]
                   |            ^ run = ["sleep", "1d"]
            my.toml:12:1: unknown key `zebra` in [container.api]
                12 | zebra = 1
                   | ^ known here: depends, dns, env, hostname, network_mode, networks, ports, ready, run, workdir
        "#]],
    );
}

#[test]
fn text_that_is_no_toml_is_told_where() {
    check(
        "[network.web\nsubnet = 1",
        expect![[r#"
        my.toml:1:13: unclosed table, expected `]`
             1 | [network.web
               |             ^
    "#]],
    );
    check(
        "name = 'ä' x",
        expect![[r#"
        my.toml:1:12: unexpected key or value, expected newline, `#`
             1 | name = 'ä' x
               |            ^
    "#]],
    );
}

#[test]
fn a_circle_of_dependencies_is_drawn() {
    check(
        "\
[container.lonely]
run = ['x']
depends = ['a']
[container.a]
run = ['x']
depends = ['lone', 'b']
[container.b]
run = ['x']
network_mode = 'container:a'
[container.lone]
run = ['x']
",
        expect![[r#"
            my.toml:6:20: these wait for each other: a → b → a
                 6 | depends = ['lone', 'b']
                   |                    ^
        "#]],
    );
    check(
        "[container.a]\nrun = ['x']\ndepends = ['a']",
        expect![[r#"
        my.toml:3:12: these wait for each other: a → a
             3 | depends = ['a']
               |            ^
    "#]],
    );
}

/// One fault each: the line and column, and some of the words.
#[test]
fn a_value_that_cannot_be_is_told_why() {
    let n = "[network.n]\nsubnet = '10.1.0.0/24'\n";
    let c = "[container.c]\nrun = ['x']\n";
    let cases = [
        ("name = 'a b'".to_owned(), "1:8", "\"a b\" does not do as a lab's name: it starts"),
        ("name = 3".to_owned(), "1:8", "name is a text in quotes, and this is a number"),
        ("network = 3".to_owned(), "1:11", "write [network.NAME] above its keys"),
        ("[network]\nn = 3".to_owned(), "2:5", "[network.n] is a table, and this is a number"),
        ("[network.'a b']".to_owned(), "1:10", "it starts with a letter or digit"),
        ("[network.n]\nsubnet = '10.1.0.9/24'".to_owned(), "2:10", "write 10.1.0.0/24"),
        ("[network.n]\nsubnet = ['10.1.0.0/24', 'x']".to_owned(), "2:26", "is not a subnet"),
        ("[network.n]\ngateway = '10.1.0.1'".to_owned(), "2:11", "needs the subnet it lies in"),
        (format!("{n}gateway = ['10.1.0.1', '10.2.0.1']"), "3:24", "lies in none of"),
        (format!("{n}range = '10.0.0.0/8'"), "3:9", "lies in none of"),
        (format!("{n}reserved = {{ a = '10.1.0.9', b = '10.9.0.9' }}"), "3:30", "lies in none"),
        (format!("{n}reserved = {{ a = 'x' }}"), "3:14", "is not an address"),
        (format!("{n}ipv6 = '10.2.0.0/24'"), "3:8", "is not an IPv6 subnet"),
        (format!("{n}ipv6 = 6"), "3:8", "ipv6 is true or false"),
        (format!("{n}ipv4 = false\nipv6 = true"), "1:10", "to have no IPv4, but also subnet"),
        ("[network.n]\nipv4 = false".to_owned(), "1:10", "needs IPv6"),
        (format!("{n}[network.m]\nsubnet = '10.1.0.128/25'"), "3:10", "10.1.0.0/24 of network `n`"),
        (format!("{n}driver = 'overlay'"), "3:10", "bridge or routed"),
        (format!("{n}gateway_mode = 'nap'"), "3:16", "nat, routed or isolated"),
        (format!("{n}mtu = 20"), "3:7", "from 68 to 65535"),
        (format!("{n}mtu = -1"), "3:7", "out of bounds"),
        (format!("{n}mtu = '1400'"), "3:7", "mtu is a number, and this is a text"),
        (format!("{n}labels = {{ 'twinax.x' = '1' }}"), "3:12", "Twinax's own"),
        (format!("{n}labels = ['x']"), "3:10", "labels is a table of texts"),
        ("[container.c]".to_owned(), "1:12", "lacks `run`"),
        ("[container.c]\nrun = []".to_owned(), "2:7", "run is empty"),
        ("[container.c]\nrun = ['x', 3]".to_owned(), "2:13", "run is a text in quotes"),
        ("[container.'pid:3']\nrun = ['x']".to_owned(), "1:12", "not by ':'"),
        (format!("{c}networks = []"), "3:12", "network_mode = \"none\""),
        (format!("{c}networks = 'n'"), "3:12", "networks is a list"),
        (format!("{n}{c}networks = ['n', 'n']"), "5:18", "named twice"),
        (format!("{n}{c}networks = ['m']"), "5:13", "network `m` is not in this file"),
        (format!("{n}{c}networks = {{ n = {{ ip4 = '10.1.0.5' }} }}"), "5:20", "did you mean `ip`"),
        (format!("{n}{c}networks = {{ n = {{ ip = '10.2.0.5' }} }}"), "5:25", "is not in the netw"),
        (format!("{n}{c}networks = {{ n = {{ ip6 = 'fd00::5' }} }}"), "5:26", "can be given only"),
        (
            format!("{n}gateway = '10.1.0.5'\n{c}networks = {{ n = {{ ip = '10.1.0.5' }} }}"),
            "6:25",
            "is the gateway of",
        ),
        (format!("{n}{c}networks = {{ n = {{ mac = '03:00:00:00:00:01' }} }}"), "5:26", "unicast"),
        (
            format!("{n}{c}networks = {{ n = {{ priority = 1.5 }} }}"),
            "5:31",
            "priority is a number",
        ),
        (format!("{c}ports = ['80:http']"), "3:10", "container port \"http\""),
        (format!("{c}ports = ['80:80', '80-81:90-91']"), "3:19", "takes a host port of `80:80`"),
        (format!("{c}ports = ['0.0.0.0:80:80', '127.0.0.1:80:8']"), "3:27", "takes a host port"),
        (format!("{c}network_mode = 'bridge'"), "3:16", "\"none\", \"host\" or"),
        (format!("{c}network_mode = 'none'\nports = ['80']"), "4:9", "cannot be used with"),
        (format!("{c}depends = ['d']"), "3:12", "container `d` is not in this file"),
        (format!("{c}network_mode = 'container:d'"), "3:16", "container `d` is not in this file"),
        (format!("{c}ready = {{ udp = 80 }}"), "3:11", "unknown key `udp` in ready of"),
        (format!("{c}ready = {{ tcp = 80000 }}"), "3:17", "out of bounds"),
        (format!("{c}env = {{ A = 1 }}"), "3:13", "A is a text in quotes"),
        (format!("{c}dns = ['one']"), "3:8", "is not an address"),
        (format!("{c}hostname = 'a_b-'"), "3:12", "each part between dots"),
    ];
    for (text, place, why) in cases {
        let error = lab::parse(&text, "my.toml").expect_err(&text).to_string();
        assert!(error.contains(&format!("my.toml:{place}: ")), "{text}\n{error}");
        assert!(error.contains(why), "{text}\n{error}");
    }
}

#[test]
fn ports_that_may_both_be_found_do_not_clash() {
    read(
        "[container.c]\nrun = ['x']\nports = [\n'80', '80', '127.0.0.1:81:80', '127.0.0.2:81:80',\n\
         '82:80', '82:80/udp', '90-99:1', '90-99:2', '0.0.0.0:83:80', '[::]:83:80' ]",
    );
}

#[test]
fn two_containers_may_not_have_one_address() {
    check(
        "\
[network.n]
subnet = '10.1.0.0/24'
[container.a]
run = ['x']
networks.n.ip = '10.1.0.5'
[container.b]
run = ['x']
networks.n.ip = '10.1.0.5'
",
        expect![[r#"
            my.toml:8:17: 10.1.0.5 on `n` is given to `a` already
                 8 | networks.n.ip = '10.1.0.5'
                   |                 ^
        "#]],
    );
}

/// Nothing in the reading is quadratic enough to be noticed.
#[test]
fn a_file_of_twenty_thousand_containers_is_read() {
    let mut text = String::from("[network.n]\n");
    for n in (1..=20_000).rev() {
        let before = if n > 1 { format!("'c{}'", n - 1) } else { String::new() };
        let ports = format!("ports = ['{n}:80']\nnetworks = ['n']\ndepends = [{before}]");
        text += &format!("[container.c{n}]\nrun = ['x']\n{ports}\n");
    }
    let lab = read(&text);
    assert_eq!(lab.containers[0].name.as_str(), "c1");
    assert_eq!(lab.containers[19_999].name.as_str(), "c20000");
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let error = lab::parse("\"\\u001b[2J\" = 1\nname = '\x1b[2J'", "my.toml").unwrap_err();
    assert!(!error.to_string().replace('\n', "").contains(char::is_control), "{error:?}");
}

/// A lab file as somebody has it half written: the example with a piece cut out or put in.
fn broken() -> impl Strategy<Value = String> {
    let text = include_str!("../../../examples/dual-stack.toml");
    let piece = prop_oneof![
        "[\\[\\]{}=.,'\"#\n\ta-z0-9é:/-]{0,12}",
        Just("[container.echo]\n".to_owned()),
        Just("network_mode = 'container:shell'\n".to_owned()),
    ];
    (0..text.len(), 0..40usize, piece).prop_map(move |(at, cut, piece)| {
        let (at, end) = (text.floor_char_boundary(at), (at + cut).min(text.len()));
        format!("{}{piece}{}", &text[..at], &text[text.ceil_char_boundary(end)..])
    })
}

proptest! {
    #[test]
    fn a_broken_file_is_refused_with_a_place_in_it_or_read(text in broken()) {
        if let Err(error) = lab::parse(&text, "my.toml") {
            prop_assert!(!error.faults.is_empty());
            let lines = text.split('\n').count();
            prop_assert!(error.faults.iter().all(|f| (1..=lines).contains(&f.line)));
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
