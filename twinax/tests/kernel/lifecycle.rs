//! From `run` to `rm`, from `up` to `down`, from damage to repair; and that nothing stays behind.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    thread,
};

use crate::{
    harness::Outcome,
    product::{answer, left, links, processes, soon, traces},
    sandbox::{Reach, Sandbox, Talk},
    tables, tests, wire,
};

tests![
    a_container_runs_tells_and_ends,
    exit_codes_are_the_commands_own,
    what_the_caller_has_closed_ends_nothing,
    a_container_has_namespaces_of_its_own,
    daemons_end_with_their_container,
    rm_leaves_nothing,
    a_namespace_held_open_is_cut_off,
    the_last_network_takes_all_with_it,
    networks_of_others_are_shared,
    a_lab_goes_up_changes_and_goes_down,
    a_lab_converges_after_any_edit,
    labs_of_one_name_do_not_end_each_other,
    check_finds_damage_and_repair_mends_it,
];

const LAB: &str = include_str!("../../../examples/three-tier.toml");

fn a_container_runs_tells_and_ends(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let script =
        "echo one; echo two >&2; trap 'echo bye; exit 3' TERM; while :; do sleep 0.05; done";
    let told = sandbox
        .twinax(&["run", "-d", "--name", "c", "--network", "web", "--", "/bin/sh", "-c", script])
        .ok();
    assert_eq!(told, "c\n");
    assert_eq!(sandbox.row("c")["status"], "running");
    soon("both lines are logged", || {
        let logs = sandbox.try_line("logs c");
        logs.stdout.contains("one\n") && (logs.stdout + &logs.stderr).contains("two\n")
    });
    assert_eq!(sandbox.twinax(&["exec", "c", "--", "/bin/sh", "-c", "exit 5"]).code, Some(5));
    let text = sandbox.done("ps");
    assert!(text.contains("Up ") && text.contains("web"), "{text}");
    sandbox.done("stop c");
    let row = sandbox.row("c");
    assert_eq!((&row["status"], &row["exit_code"]), (&"exited".into(), &3.into()), "{row}");
    assert!(sandbox.done("logs c").contains("bye\n"));
    assert!(!sandbox.done("ps").contains("web"));
    // It has given its address back, and its place on the network.
    assert_eq!(sandbox.network("web")["containers"], serde_json::json!([]));
    sandbox.done("rm c");
    assert!(sandbox.refused("logs c").contains("no container"));
    Outcome::Passed
}

/// No file that is opened takes the place of a standard stream, and no signal comes of a reader
/// that has gone.
fn what_the_caller_has_closed_ends_nothing(sandbox: &mut Sandbox) -> Outcome {
    for stream in [0, 1, 2] {
        // Where nothing has taken its place there is no such file; `/dev/null` is an empty lab.
        let line = format!("exec \"$0\" plan /proc/self/fd/{stream} {stream}>&-");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &line, env!("CARGO_BIN_EXE_twinax")]).stdout(Stdio::null());
        assert_eq!(shell.status().unwrap().code(), Some(0), "{line}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = sandbox.command(&["completions", "bash"]).stdout(writer).status().unwrap();
    assert!(status.code().is_some(), "{status}");
    Outcome::Passed
}

fn exit_codes_are_the_commands_own(sandbox: &mut Sandbox) -> Outcome {
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill $$", 143)] {
        let output = sandbox.twinax(&["run", "--rm", "--", "/bin/sh", "-c", script]);
        assert_eq!(output.code, Some(code), "{script}: {output:?}");
    }
    let output = sandbox.twinax(&["run", "--rm", "--", "/bin/sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
    let missing = sandbox.try_line("run --rm --name m -- /no/such/program");
    assert!(missing.code != Some(0) && missing.stderr.contains("/no/such/program"), "{missing:?}");
    soon("--rm leaves no container", || {
        sandbox.json("ps --all")["containers"] == serde_json::json!([])
    });
    Outcome::Passed
}

fn a_container_has_namespaces_of_its_own(sandbox: &mut Sandbox) -> Outcome {
    let inside = sandbox.start("c", "");
    for kind in ["net", "pid", "mnt", "uts", "ipc"] {
        let ns = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(ns(&inside.pid.to_string()), ns("self"), "{kind}");
    }
    let seen = sandbox.twinax(&["exec", "c", "--", "/bin/sh", "-c", "echo /proc/[0-9]*"]).ok();
    let count = seen.split_whitespace().count();
    assert!((2..=4).contains(&count), "processes seen inside: {seen}");
    // The root file system is the host's.
    sandbox.twinax(&["exec", "c", "--", "/bin/sh", "-c", "echo x > /tmp/from-inside"]).ok();
    assert_eq!(fs::read_to_string("/tmp/from-inside").unwrap(), "x\n");
    Outcome::Passed
}

fn daemons_end_with_their_container(sandbox: &mut Sandbox) -> Outcome {
    let twinax = env!("CARGO_BIN_EXE_twinax");
    let daemon = |port: u16| {
        format!(
            "(trap '' TERM HUP; {twinax} demo echo --tcp --port {port} <&- >/dev/null 2>&1 &) & "
        )
    };
    for (verb, port) in [("stop -t 1", 4001), ("rm -f", 4002)] {
        let script = daemon(port) + "while :; do sleep 0.05; done";
        let line = ["run", "-d", "--name", "c", "--", "/bin/sh", "-c", &script];
        sandbox.twinax(&line).ok();
        let ours = |text: &String| text.contains("demo echo") && text.contains(&port.to_string());
        let daemons =
            || processes().iter().filter(|text| ours(text) && !text.starts_with("/bin/sh")).count();
        soon("the daemon runs", || daemons() > 0);
        sandbox.done(&format!("{verb} c"));
        assert_eq!(daemons(), 0, "{verb} leaves {:?}", processes());
        drop(sandbox.try_line("rm c"));
    }
    Outcome::Passed
}

/// With everything it can have, beside another that stays.
fn rm_leaves_nothing(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --ipv6 web");
    sandbox.done("network create --driver routed --ipv6 edge");
    sandbox.start("stays", "--network web");
    let options =
        "--network web,alias=db --network edge -p 8080:80 -p 8080:80/udp --dns 192.0.2.53";
    sandbox.start("warm", &format!("{options} --hostname x"));
    sandbox.done("rm -f warm");
    let before = settled(sandbox);
    for end in ["rm -f c", "stop -t 0 c"] {
        sandbox.start("c", &format!("{options} --hostname x"));
        assert_ne!(traces(), before);
        sandbox.done(end);
        drop(sandbox.try_line("rm c"));
        left(&before, end);
    }
    let run = ["run", "--rm", "--network", "web", "-p", "8081:80", "--", "/bin/sh", "-c", ":"];
    sandbox.twinax(&run).ok();
    left(&before, "run --rm");
    sandbox.whole();
    Outcome::Passed
}

/// Somebody may hold a container's namespace longer than the container lives: its cable is there
/// as long, but leads nowhere.
fn a_namespace_held_open_is_cut_off(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create --ipv6 web");
    sandbox.done("network create --ipv6 --driver routed edge");
    for network in ["web", "edge"] {
        let stays = sandbox.start(&format!("{network}-stays"), &format!("--network {network}"));
        let goes = sandbox.start("goes", &format!("--network {network} -p 8080:81"));
        let mut flows = Vec::new();
        for v6 in [false, true] {
            let [stays_at, goes_at] = [&stays, &goes].map(|inside| inside.of(v6).unwrap());
            let gateway = sandbox.gateways(network)[usize::from(v6)];
            answer(&goes.netns, SocketAddr::new(goes_at, 81));
            answer(sandbox.host(), SocketAddr::new(gateway, 79));
            flows.extend([
                (&stays.netns, SocketAddr::new(goes_at, 81)),
                (sandbox.host(), SocketAddr::new(goes_at, 81)),
                (&goes.netns, SocketAddr::new(stays_at, 7)),
                (&goes.netns, SocketAddr::new(gateway, 79)),
            ]);
        }
        let reached = || {
            thread::scope(|scope| {
                let asks = flows.iter().map(|&(from, to)| {
                    scope.spawn(move || matches!(from.ask(Talk::Tcp, to), Reach::Reached(_)))
                });
                let asks: Vec<_> = asks.collect();
                asks.into_iter().map(|ask| ask.join().unwrap()).collect::<Vec<_>>()
            })
        };
        assert_eq!(reached(), [true; 8], "{network}: {flows:?}");
        let cables = links();
        sandbox.done("rm -f goes");
        assert_eq!(links(), cables, "the namespace is not held");
        assert_eq!(reached(), [false; 8], "{network}: {flows:?}");
        sandbox.whole();
        sandbox.done("repair");
        assert!(cables.difference(&links()).all(|link| link.starts_with("txv")));
        assert_eq!(links().len() + 1, cables.len(), "the cable outlives a repair");
    }
    Outcome::Passed
}

/// What is there once supervisors and forwarders that have nothing left to do are gone, and the
/// cables of containers that were ended.
fn settled(sandbox: &Sandbox) -> String {
    let containers = sandbox.json("ps");
    let rows = containers["containers"].as_array().unwrap().iter();
    let ends: usize = rows.map(|row| row["networks"].as_array().unwrap().len()).sum();
    let cables = || links().iter().filter(|link| link.starts_with("txv")).count();
    soon("the kernel has taken all cut cables away", || cables() == ends);
    let mut last = traces();
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(20));
        let now = traces();
        if now == last {
            break;
        }
        last = now;
    }
    last
}

fn the_last_network_takes_all_with_it(sandbox: &mut Sandbox) -> Outcome {
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    let cycle = |sandbox: &Sandbox| {
        sandbox.done("network create --ipv6 one");
        sandbox.done("network create --ipv6 --internal two");
        sandbox.start("c", "--network one --network two -p 8080:80");
        assert_eq!(fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim(), "1");
        sandbox.done("rm -f c");
        sandbox.done("network rm one two");
    };
    let pristine = traces();
    cycle(sandbox);
    let bare = |text: &str| -> String {
        text.lines()
            .filter(|line| !line.starts_with("file "))
            .map(|line| format!("{line}\n"))
            .collect()
    };
    soon("only files may stay", || bare(&traces()) == bare(&pristine));
    let warm = settled(sandbox);
    cycle(sandbox);
    left(&warm, "a second round");
    for line in warm.lines().filter(|line| line.starts_with("file ") && !pristine.contains(*line)) {
        let path = Path::new(&line[5..]);
        let kept = path.is_dir() || path.metadata().is_ok_and(|data| data.len() < 1024);
        assert!(kept, "{line} is large for what is only remembered");
    }
    Outcome::Passed
}

fn networks_of_others_are_shared(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    let one = sandbox.start("one", "--network web");
    let twinax = env!("CARGO_BIN_EXE_twinax");
    for (options, target) in [("container:one", "127.0.0.1:7"), ("web", "one:7")] {
        let line = format!("run --rm --network {options} -- {twinax} demo send --tcp {target} hi");
        assert!(sandbox.done(&line).ends_with(" hi\n"));
    }
    answer(sandbox.host(), "127.0.0.1:7100".parse().unwrap());
    let line = "run --rm --network host -- TWINAX demo send --tcp 127.0.0.1:7100 hi";
    sandbox.done(&line.replace("TWINAX", twinax));
    let line = "run --rm --network none -- TWINAX demo send --tcp 127.0.0.1:7100 hi --timeout 0.3";
    assert_eq!(sandbox.try_line(&line.replace("TWINAX", twinax)).code, Some(1));
    let sharer = sandbox.start_with("sharer", "--network container:one", 8);
    let ns = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_eq!(ns(one.pid), ns(sharer));
    Outcome::Passed
}

fn a_lab_converges_after_any_edit(sandbox: &mut Sandbox) -> Outcome {
    let path = "/run/tmp/edited.toml";
    let lab = |networks: &str, a: &str, b: &str| {
        let head =
            networks.split(' ').map(|name| format!("[network.{name}]\n")).collect::<String>();
        format!("{head}[container.a]\n{a}\n[container.b]\n{b}\n")
    };
    let run = "run = [\"sleep\", \"1d\"]\n";
    let on = |networks: &str, ports: &str| format!("{run}networks = {networks}\nports = {ports}");
    let edits = [
        lab("x", &on("[\"x\"]", "[\"8088:80\"]"), &on("[\"x\"]", "[\"8089:80\"]")),
        // Two swap their ports.
        lab("x", &on("[\"x\"]", "[\"8089:80\"]"), &on("[\"x\"]", "[\"8088:80\"]")),
        // A network gets another name under running containers.
        lab("z", &on("[\"z\"]", "[\"8089:80\"]"), &on("[\"z\"]", "[\"8088:80\"]")),
        // One moves to a second network with its port.
        lab("z y", &on("[\"y\"]", "[\"8089:80\"]"), &on("[\"z\"]", "[\"8088:80\"]")),
        // The network itself changes, and what one runs.
        lab("z y", &on("[\"y\"]", "[]"), &on("[\"z\"]", "[]"))
            .replace("[network.z]", "[network.z]\ninternal = true")
            .replacen("1d", "2d", 1),
    ];
    for (n, edit) in edits.iter().enumerate() {
        fs::write(path, edit).unwrap();
        let plan = sandbox.json(&format!("plan {path}"));
        assert_eq!(plan["done"], false, "edit {n}: {plan}");
        sandbox.done(&format!("up {path}"));
        assert_eq!(sandbox.json(&format!("plan {path}"))["done"], true, "edit {n}");
        sandbox.whole();
    }
    sandbox.done(&format!("down {path}"));
    Outcome::Passed
}

fn labs_of_one_name_do_not_end_each_other(sandbox: &mut Sandbox) -> Outcome {
    for (dir, name) in [("/run/tmp/p1", "one"), ("/run/tmp/p2", "two")] {
        fs::create_dir(dir).unwrap();
        let text = format!("name = \"same\"\n[container.{name}]\nrun = [\"sleep\", \"1d\"]\n");
        fs::write(format!("{dir}/lab.toml"), text).unwrap();
    }
    sandbox.done("up /run/tmp/p1/lab.toml");
    let refused = sandbox.refused("up /run/tmp/p2/lab.toml");
    assert!(refused.contains("/run/tmp/p1/lab.toml"), "{refused}");
    sandbox.refused("down /run/tmp/p2/lab.toml");
    assert_eq!(sandbox.row("one")["status"], "running");
    // A file that was renamed goes on with its lab.
    fs::rename("/run/tmp/p1/lab.toml", "/run/tmp/p1/moved.toml").unwrap();
    sandbox.done("down /run/tmp/p1/moved.toml");
    Outcome::Passed
}

fn a_lab_goes_up_changes_and_goes_down(sandbox: &mut Sandbox) -> Outcome {
    let path = "/run/tmp/three-tier.toml";
    fs::write(path, LAB).unwrap();
    let outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    sandbox.done("network create warm");
    sandbox.start("warm", "--network warm -p 9999:80");
    sandbox.done("rm -f warm");
    let before = settled(sandbox);
    let plan = sandbox.json(&format!("plan {path}"));
    assert!(plan["done"] == false && plan["operations"].as_array().unwrap().len() > 20, "{plan}");
    left(&before, "plan");
    sandbox.done(&format!("up {path}"));
    let page = outside.run(|| sandbox.try_line("demo fetch http://192.0.2.1:8080")).ok();
    assert!(page.contains("lb was asked by 192.0.2.2") && page.contains("visit 1"), "{page}");
    let up = (sandbox.json("ps"), settled(sandbox));
    let again = sandbox.done(&format!("up {path}"));
    assert!(again.contains("nothing to do"), "{again}");
    assert_eq!(sandbox.json(&format!("plan {path}"))["done"], true);
    assert_eq!(sandbox.json("ps"), up.0);
    left(&up.1, "a second up");

    fs::write(path, LAB.replace("8080:80", "8090:80")).unwrap();
    let plan = sandbox.done(&format!("plan {path}"));
    assert!(plan.contains("8090") && !plan.contains("web1"), "{plan}");
    let pids = |value: &serde_json::Value| -> Vec<serde_json::Value> {
        value["containers"].as_array().unwrap().iter().map(|row| row["pid"].clone()).collect()
    };
    sandbox.done(&format!("up {path}"));
    assert_eq!(pids(&sandbox.json("ps")), pids(&up.0), "a port is no reason to start anew");
    outside.run(|| sandbox.try_line("demo fetch http://192.0.2.1:8090")).ok();
    let old: SocketAddr = "192.0.2.1:8080".parse().unwrap();
    assert!(!matches!(outside.ask(Talk::Tcp, old), Reach::Reached(_)));

    fs::write(path, LAB.replace("\"--name\", \"web2\"", "\"--name\", \"other\"")).unwrap();
    sandbox.done(&format!("up {path}"));
    let now = sandbox.json("ps");
    let changed = pids(&now).iter().zip(pids(&up.0)).filter(|(a, b)| *a != b).count();
    assert_eq!(changed, 1, "only web2 is replaced");
    sandbox.whole();
    sandbox.done(&format!("down {path}"));
    left(&before, "down");
    Outcome::Passed
}

fn check_finds_damage_and_repair_mends_it(sandbox: &mut Sandbox) -> Outcome {
    let outside = sandbox.outside("uplink", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    sandbox.done("network create --subnet 10.1.0.0/24 --bridge tx-web web");
    sandbox.done("network create --driver routed edge");
    let c = sandbox.start("c", "--network web -p 8080:80");
    sandbox.start("d", "--network edge");
    answer(&c.netns, "[::]:80".parse().unwrap());
    let works = || {
        let reach = outside.ask(Talk::Tcp, "192.0.2.1:8080".parse().unwrap());
        assert_eq!(reach, Reach::Reached("192.0.2.2".parse().unwrap()));
        assert!(matches!(
            sandbox.host().ask(Talk::Tcp, "127.0.0.1:8080".parse().unwrap()),
            Reach::Reached(_)
        ));
    };
    works();
    let whole = settled(sandbox);
    let outer = |name: &str| {
        sandbox.row(name)["networks"][0]["host_interface"].as_str().unwrap().to_owned()
    };
    let gateway: IpAddr = "10.1.0.1".parse().unwrap();
    let damages: [(&str, &dyn Fn()); 9] = [
        ("the tables are gone", &|| tables::delete_tables().unwrap()),
        ("a chain is empty", &|| tables::flush_chain("forward").unwrap()),
        ("the bridge has lost its address", &|| wire::del_addr("tx-web", gateway, 24).unwrap()),
        ("the bridge is down", &|| wire::set_down("tx-web").unwrap()),
        ("the bridge is gone", &|| wire::del_link("tx-web").unwrap()),
        ("a cable is gone", &|| wire::del_link(&outer("c")).unwrap()),
        ("a routed cable is gone", &|| wire::del_link(&outer("d")).unwrap()),
        ("a link inside is down", &|| c.netns.run(|| wire::set_down("eth0")).unwrap()),
        ("forwarding is off", &|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        }),
    ];
    for (what, damage) in damages {
        damage();
        let found = sandbox.try_line("check");
        assert_eq!(found.code, Some(1), "{what}: {found:?}");
        let json = sandbox.try_line("check --json");
        assert!(json.stdout.contains("\"whole\": false"), "{what}: {json:?}");
        let done = sandbox.done("repair");
        assert!(!done.contains("nothing to repair"), "{what}: {found:?}");
        sandbox.whole();
        assert!(sandbox.done("repair").contains("nothing to repair"), "{what}");
        works();
        left(&whole, what);
    }
    Outcome::Passed
}
