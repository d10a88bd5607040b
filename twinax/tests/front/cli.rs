//! Command lines: what they mean, and what those that mean nothing are told.

use expect_test::{ExpectFile, expect_file};
use twinax::front::cli::{self, Command, Mode, Output, Since};

fn parse(line: &str) -> Result<Command, clap::Error> {
    cli::parse(std::iter::once("twinax").chain(line.split_whitespace()))
}

/// What is printed, for a line that is an error or asks for help, after its exit code.
fn told(line: &str) -> String {
    let error = parse(line).expect_err(line);
    format!("{}\n{}", error.exit_code(), error.render())
}

/// Compares a help text, whatever the width of the terminal that the test runs in.
fn check(line: &str, expected: ExpectFile) {
    let words = std::iter::once("twinax").chain(line.split_whitespace());
    let help = cli::grammar().term_width(90).try_get_matches_from(words).expect_err(line);
    assert_eq!(help.exit_code(), 0);
    let help = help.render().to_string();
    let lines: Vec<_> = help.lines().map(str::trim_end).collect();
    expected.assert_eq(&(lines.join("\n") + "\n"));
}

#[test]
fn a_command_begins_with_the_first_word_that_is_no_option() {
    for line in ["run -d ls -l -d", "run -d -- ls -l -d"] {
        let Command::Run(run) = parse(line).unwrap() else { panic!("{line}") };
        assert_eq!(run.command, ["ls", "-l", "-d"]);
        assert!(run.detach);
    }
    let Command::Exec(exec) = parse("exec -e A=b=c web ls -e --all").unwrap() else { panic!() };
    assert_eq!((exec.name.as_str(), exec.detach), ("web", false));
    assert_eq!(exec.command, ["ls", "-e", "--all"]);
    assert_eq!(exec.env, [("A".to_owned(), "b=c".to_owned())]);
}

#[test]
fn exec_takes_whatever_a_container_is_called() {
    for name in ["shop/cart-0", "4b46ab12", "10.1.0.2", "pid:7", "netns:/run/netns/x", "my app"] {
        let words = ["twinax", "exec", name, "--", "ls"];
        let Ok(Command::Exec(exec)) = cli::parse(words) else { panic!("{name}") };
        assert_eq!((exec.name.as_str(), exec.command), (name, vec!["ls".to_owned()]));
    }
}

#[test]
fn a_capture_has_its_filter_at_the_end() {
    let line = "capture web -w - --both -c 5 --for 3 -s 96 tcp port 80 and not src 10.1.0.2";
    let Command::Capture(asked) = parse(line).unwrap() else { panic!("{line}") };
    assert_eq!((asked.handle.as_str(), asked.both, asked.keep), ("web", true, 96));
    assert_eq!((asked.count, asked.seconds), (Some(5), Some(3)));
    assert_eq!(asked.write.as_deref(), Some(std::path::Path::new("-")));
    assert_eq!(asked.words, "tcp port 80 and not src 10.1.0.2");
    assert_eq!(asked.filter, twinax_core::filter::parse(&asked.words).unwrap());
    let Command::Capture(plain) = parse("capture veth1@if2").unwrap() else { panic!() };
    assert_eq!((plain.write, plain.filter, plain.count, plain.seconds), (None, None, None, None));
}

#[test]
fn a_snapshot_is_compared_with_now_or_another() {
    let diff =
        |new: Option<&str>, json| Command::Diff { old: "a".into(), new: new.map(Into::into), json };
    assert_eq!(parse("diff a").unwrap(), diff(None, false));
    assert_eq!(parse("diff a - --json").unwrap(), diff(Some("-"), true));
    assert_eq!(parse("snapshot -").unwrap(), Command::Snapshot { file: "-".into() });
}

#[test]
fn demo_gets_its_words_as_they_are() {
    let Command::Demo { args } = parse("demo http --port 80 --help -- x").unwrap() else {
        panic!("demo")
    };
    assert_eq!(args, ["http", "--port", "80", "--help", "--", "x"]);
}

#[test]
fn a_network_of_a_container_takes_options_after_commas() {
    let line = "run --network web,ip=10.1.0.5,ip6=fd00::5,mac=02:00:5e:00:53:01,alias=a,alias=b,\
                ifname=lan0,priority=-3 --network name=back,gw-priority=7 sh";
    let Command::Run(run) = parse(line).unwrap() else { panic!("run") };
    let Mode::Networks(specs) = run.mode else { panic!("networks") };
    assert_eq!(specs.len(), 2);
    assert_eq!(specs[0].ip, Some("10.1.0.5".parse().unwrap()));
    assert_eq!(specs[0].ip6, Some("fd00::5".parse().unwrap()));
    assert_eq!(specs[0].aliases.len(), 2);
    assert_eq!(specs[0].ifname.as_ref().unwrap().as_str(), "lan0");
    assert_eq!((specs[0].gateway_priority, specs[1].gateway_priority), (-3, 7));
    assert_eq!(specs[1].network.as_str(), "back");
}

#[test]
fn modes_of_a_container_stand_where_its_networks_would() {
    let mode = |line: &str| match parse(line).unwrap() {
        Command::Run(run) => run.mode,
        other => panic!("{other:?}"),
    };
    assert_eq!(mode("run sh"), Mode::Networks(Vec::new()));
    assert_eq!(mode("run --network none sh"), Mode::None);
    assert_eq!(mode("run --net host sh"), Mode::Host);
    assert_eq!(mode("run --network=container:web sh"), Mode::Of("web".parse().unwrap()));
}

#[test]
fn foreign_namespaces_are_containers_too() {
    for name in ["pid:1234", "netns:/run/netns/x", "web"] {
        let line = format!("network connect front {name} --ip 10.1.0.5 -p 8080:80 --priority -1");
        let Command::NetworkConnect { container, spec, publish } = parse(&line).unwrap() else {
            panic!("{line}")
        };
        assert_eq!(container.as_str(), name);
        assert_eq!((spec.gateway_priority, publish.len()), (-1, 1));
    }
}

#[test]
fn docker_s_own_spelling_of_network_options_means_the_same() {
    let ours = "network create --no-icc --mtu 1400 --bridge br7 --no-ipv4 --ipv6 \
                --gateway-mode-ipv4 routed --gateway-mode-ipv6 isolated n";
    let theirs = "network create -o com.docker.network.bridge.enable_icc=false \
                  -o com.docker.network.driver.mtu=1400 --ipv4=false --ipv6 \
                  --opt com.docker.network.bridge.name=br7 \
                  -o com.docker.network.bridge.gateway_mode_ipv4=routed \
                  -o com.docker.network.bridge.gateway_mode_ipv6=isolated n";
    assert_eq!(parse(ours).unwrap(), parse(theirs).unwrap());
}

#[test]
fn a_subnet_brings_its_family() {
    let Command::NetworkCreate { spec, .. } =
        parse("network create --subnet fd00:1::/64 --gateway fd00:1::9 n").unwrap()
    else {
        panic!("create")
    };
    assert!(spec.ipv6 && !spec.no_ipv4);
    assert_eq!(spec.subnets[0].gateway, Some("fd00:1::9".parse().unwrap()));
}

#[test]
fn logs_take_times_and_lines() {
    let logs = |line: &str| match parse(line).unwrap() {
        Command::Logs(logs) => (logs.tail, logs.since),
        other => panic!("{other:?}"),
    };
    assert_eq!(logs("logs web"), (None, None));
    assert_eq!(logs("logs -n 5 --since 2h web"), (Some(5), Some(Since::AgoSeconds(7200))));
    assert_eq!(logs("logs --tail all --since 1700000000 web").1, Some(Since::At(1_700_000_000)));
}

/// Every line that cannot be read: exit code 2, and a text that says what and why.
#[test]
fn a_line_that_means_nothing_is_told_why() {
    let cases = [
        ("", "Usage: twinax <COMMAND>"),
        ("netwrk ls", "a similar subcommand exists: 'network'"),
        ("network", "Usage: twinax network <COMMAND>"),
        ("run", "<COMMAND>"),
        ("run -p 70000:80 sh", "'70000:80' for '--publish <PORT>': the host port \"70000\""),
        ("run --network web,ipp=1 sh", "did you mean ip?"),
        ("run --network web,ip=fd00::1 sh", "\"fd00::1\" is not an IPv4 address"),
        ("run --network web,ip sh", "\"ip\" is not key=value"),
        ("run --network web,ip=10.0.0.1,ip=10.0.0.2 sh", "ip is given twice"),
        ("run --network web --network web sh", "--network web is given twice"),
        ("run --network none --network web sh", "cannot be combined with another --network"),
        ("run --network none -p 80 sh", "--publish cannot be used with --network none"),
        ("run --network host -p 80 sh", "--publish cannot be used with --network host"),
        ("run --network container:a --hostname b sh", "--hostname cannot be used"),
        ("run --network container:a --dns 1.1.1.1 sh", "--dns cannot be used"),
        ("run --network container: sh", "it has 1 to 63 characters"),
        ("run --name -x sh", "unexpected argument '-x'"),
        ("run --name a/b sh", "it starts with a letter or digit"),
        ("run --dns ns1 sh", "'ns1' for '--dns <IP>'"),
        ("run -e HOME sh", "is not KEY=VALUE"),
        ("run --hostname under/score sh", "each part between dots"),
        ("network create", "<NETWORK>"),
        ("network create --subnet 10.1.0.1/24 n", "write 10.1.0.0/24"),
        ("network create --subnet 10.1.0.0 n", "is not a subnet, as 10.1.0.0/24"),
        ("network create --gateway 10.1.0.1 n", "needs the subnet it lies in"),
        ("network create --subnet 10.1.0.0/24 --gateway 10.2.0.1 n", "--gateway: 10.2.0.1 lies"),
        ("network create --subnet 10.1.0.0/24 --ip-range 10.0.0.0/8 n", "--ip-range: 10.0.0.0/8"),
        ("network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 n", "overlaps 10.1.0.0/16"),
        ("network create --aux-address router n", "is not KEY=VALUE"),
        ("network create --no-ipv4 n", "a network without IPv4 needs IPv6"),
        ("network create --no-ipv4 --subnet 10.1.0.0/24 --ipv6 n", "also subnet 10.1.0.0/24"),
        ("network create -d overlay n", "is not a driver: bridge or routed"),
        ("network create -d host n", "is there without being created"),
        ("network create --mtu 20 n", "from 68 to 65535"),
        ("network create --bridge abcdefghijklmnop n", "it has 1 to 15 bytes"),
        ("network create --label twinax.x=1 n", "Twinax's own"),
        ("network create -o com.docker.network.driver.mtuu=1 n", "did you mean com.docker.net"),
        ("network create --gateway-mode-ipv4 nap n", "nat, routed or isolated"),
        ("network connect web pid:zero", "pid: is followed by the number of a process"),
        ("network ls --json --quiet", "cannot be used with"),
        ("publish web", "<PORT>"),
        ("stop", "<CONTAINER>"),
        ("stop -t soon web", "'soon' for '--time <SECONDS>'"),
        ("logs --since 1w web", "30s, 10m, 2h or 1d ago"),
        ("logs --since 18446744073709551615d web", "further back than time goes"),
        ("logs --tail few web", "a number of lines, or all"),
        ("up", "<FILE>"),
        ("snapshot", "<FILE>"),
        ("diff", "<OLD>"),
        ("exec pid:x -- ls", "pid: is followed by the number of a process"),
        ("capture", "<HANDLE>"),
        ("capture web tcp udp", "the filter: before \"udp\", \"and\" or \"or\" is missing"),
        ("capture web -c 0", "'0' for '--count <COUNT>'"),
        ("capture web -s 5", "'5' for '--snap-length <BYTES>'"),
        ("completions tcsh", "possible values: bash"),
    ];
    for (line, why) in cases {
        let told = told(line);
        assert!(told.starts_with("2\n"), "{line}: {told}");
        assert!(told.contains(why), "{line}: {told}");
    }
}

#[test]
fn help_says_what_there_is_and_what_the_exit_codes_mean() {
    check("--help", expect_file!["golden/help.txt"]);
    check("run --help", expect_file!["golden/run.txt"]);
    check("exec --help", expect_file!["golden/exec.txt"]);
    check("network --help", expect_file!["golden/network.txt"]);
    check("network create --help", expect_file!["golden/network-create.txt"]);
    check("network connect --help", expect_file!["golden/network-connect.txt"]);
    check("logs --help", expect_file!["golden/logs.txt"]);
    check("up --help", expect_file!["golden/up.txt"]);
    check("capture --help", expect_file!["golden/capture.txt"]);
    check("diff --help", expect_file!["golden/diff.txt"]);
}

#[test]
fn completions_and_manual_come_from_the_same_grammar() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish]
    {
        let script = String::from_utf8(cli::completions(shell)).unwrap();
        assert!(script.contains("disconnect") && script.contains("unpublish"), "{shell}");
    }
    let pages = cli::manual().unwrap();
    let names: Vec<_> = pages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names[0], "twinax.1");
    assert!(names.contains(&"twinax-network-create.1") && names.contains(&"twinax-up.1"));
    assert!(!names.iter().any(|name| name.contains("demo") || name.contains("help")));
    let create = pages.iter().find(|(name, _)| name == "twinax-network-create.1").unwrap();
    let create = String::from_utf8_lossy(&create.1);
    assert!(
        create.contains("twinax\\-network\\-create") && create.contains("10.1.0.254"),
        "{create}"
    );
}

#[test]
fn a_watch_prints_text_or_json_only() {
    for (line, json) in [("map --watch", false), ("map -w --json -a", true), ("map -wo json", true)]
    {
        let Command::Map(map) = parse(line).unwrap() else { panic!("{line}") };
        assert!(map.watch, "{line}");
        assert_eq!(map.output == Output::Json, json, "{line}");
    }
    for form in ["svg", "html", "dot", "mermaid"] {
        let error = parse(&format!("map --watch -o {form}")).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(&format!("no {form}")), "{error}");
    }
    let Command::Top(wanted) = parse("top --only web --only db --runtime docker").unwrap() else {
        panic!("top")
    };
    assert_eq!((wanted.only.len(), wanted.runtime.is_some(), wanted.all), (2, true, false));
}
