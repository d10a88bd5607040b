//! Which containers are found in copies of real and documented state (see
//! `fixtures/runtimes/README.md`), and in states that mean harm.

#![expect(clippy::unwrap_used, reason = "a fixture that cannot be read is a test that fails")]

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use expect_test::expect;
use serde_json::Value;
use twinax::runtimes::{concerned, workloads};
use twinax_core::sight::{Process, PublishedPort, Workload};

/// Reads a `/proc`, or a copy of one; the product has a faster way.
fn processes(root: &Path) -> Vec<Process> {
    let proc = root.join("proc");
    let pids = fs::read_dir(&proc)
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
    let mut processes: Vec<Process> = pids.filter_map(|pid| process(&proc, pid)).collect();
    processes.sort_by_key(|process| process.pid);
    processes
}

fn process(proc: &Path, pid: u32) -> Option<Process> {
    let dir = proc.join(pid.to_string());
    let stat = String::from_utf8_lossy(&fs::read(dir.join("stat")).ok()?).into_owned();
    let (head, tail) = stat.rsplit_once(')')?;
    let inode = |kind: &str| {
        let link = fs::read_link(dir.join("ns").join(kind)).ok()?;
        link.to_str()?.rsplit_once('[')?.1.strip_suffix(']')?.parse().ok()
    };
    let groups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let paths = groups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    Some(Process {
        pid,
        start: tail.split_whitespace().nth(19)?.parse().ok()?,
        comm: head.split_once('(')?.1.to_owned(),
        netns: inode("net"),
        mntns: inode("mnt"),
        cgroup: paths.max_by_key(|path| path.len()).unwrap_or_default().to_owned(),
        ..Process::default()
    })
}

/// A look at one namespace needs those who could be of its containers, and nobody else.
#[test]
fn who_may_be_of_a_container_is_concerned() {
    let one = |pid, parent, netns, comm: &str, cgroup: &str| Process {
        pid,
        parent,
        comm: comm.to_owned(),
        netns: Some(netns),
        mntns: Some(netns),
        cgroup: cgroup.to_owned(),
        ..Process::default()
    };
    let group = format!("/docker/{:064x}", 7);
    let all = [
        one(1, 0, 1, "init", "/"),
        one(2, 1, 1, "containerd-shim", "/"),
        one(3, 2, 1, "first", &group),
        one(4, 3, 9, "second", &group),
        one(5, 1, 8, "plain", "/"),
        one(6, 2, 7, "made", "/"),
    ];
    let pids = |found: Option<Vec<Process>>| -> Option<Vec<u32>> {
        Some(found?.iter().map(|process| process.pid).collect())
    };
    let some = |pids: &[u32]| -> Vec<Process> {
        all.iter().filter(|process| pids.contains(&process.pid)).cloned().collect()
    };
    assert_eq!(pids(concerned(None, &some(&[1, 5]), 8)), Some(vec![1, 5]));
    // Of a control group's first process, or a monitor's, others have to be known.
    assert_eq!(concerned(None, &some(&[3, 4]), 9), None);
    assert_eq!(pids(concerned(Some(&all), &some(&[3, 4]), 9)), Some(vec![2, 3, 4]));
    assert_eq!(concerned(None, &some(&[2, 6]), 7), None);
    assert_eq!(pids(concerned(Some(&all), &some(&[2, 6]), 7)), Some(vec![2, 6]));
}

fn line(workload: &Workload) -> String {
    let id = workload.id.get(..12).unwrap_or(&workload.id);
    let mut line = format!("{:?} {} {}", workload.runtime, workload.name.escape_debug(), id);
    let mut add = |word: &str, text: String| {
        if !text.is_empty() {
            line += &format!(" {word}={text}");
        }
    };
    add("image", workload.image.clone().unwrap_or_default());
    add("pod", workload.pod.clone().unwrap_or_default());
    add("pid", workload.pid.map(|pid| pid.to_string()).unwrap_or_default());
    add("at", workload.netns_path.clone().unwrap_or_default());
    add("networks", workload.networks.join(","));
    let ports = workload.published.iter().map(|port| {
        let host = port.host.map_or_else(|| "*".to_owned(), |ip| ip.to_string());
        format!("{host}:{}->{}/{}", port.host_port, port.container_port, port.proto)
    });
    add("ports", ports.collect::<Vec<_>>().join(","));
    for (key, word) in &workload.labels {
        add(&format!("[{key}]"), word.escape_debug().to_string());
    }
    line
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/runtimes").join(name)
}

/// The containers in a copy of a machine, a line each, in order of their processes.
fn lines(root: &Path) -> Vec<String> {
    let (mut found, unseen) = workloads(&processes(root), root);
    assert_eq!(unseen, [""; 0]);
    found.sort_by_key(|workload| workload.pid);
    found.iter().map(line).collect()
}

#[test]
fn real_engines_containers_are_found() {
    expect![[r#"
        Docker web 3e89b4d6aff9 image=shop/web:1 pid=271 at=/run/docker/netns/68e3d33d5e0d networks=back,bridge ports=0.0.0.0:8090->80/tcp,:::8090->80/tcp,127.0.0.1:5353->53/udp [compose project]=shop [compose service]=web
        Docker side f48fcf24e308 image=shop/web:1 pid=407 [network of]=3e89b4d6aff9f121342f68711deec5813e06dc7d307739e6a4973951360c6b6b
        Docker none 84f4e1f81467 image=shop/web:1 pid=457 at=/run/docker/netns/a4e9e6adcbcf networks=none
        Docker onhost 85a42b982775 image=shop/web:1 pid=525 at=/run/docker/netns/default networks=host
        Podman pweb 6a997858746c pid=774 at=/run/netns/netns-4af227cf-7d1b-8020-8588-b898af47ffdf networks=inner,podman ports=*:8091->80/tcp,127.0.0.1:5354->53/udp
        Podman cfff19190aea-infra 24cd64439e28 image=localhost/shop/p:2 pod=mypod pid=871 at=/run/netns/netns-5046ab43-151e-fea1-7196-315860c79979 networks=podman ports=*:8092->80/tcp [role]=sandbox
        Podman inpod d616dcb58e5d image=localhost/shop/p:2 pod=mypod pid=894 at=/proc/871/ns/net [network of]=24cd64439e28a3ec888187329ec1fb58075c0bea897383fa8b2113c7594f5e82
        Podman pshare 4cf9f3fe2d64 image=localhost/shop/p:2 pid=924 at=/proc/774/ns/net [network of]=6a997858746c9de0b8d435dd107ecb07b1aee96216e45c38d875c67ec94a00c8
        Containerd fake ctr1 pid=1013 [namespace]=default
        Docker outer c04c1b8f1481 image=dind:1 pid=1126 at=/run/docker/netns/687e7f1f145c networks=bridge
        Docker nested cf105118be67 image=in:1 pid=1352 at=/var/run/docker/netns/4ff8186a2a6c networks=none [inside]=outer
        Lxc lx1 lx1 pid=1405 networks=lxcbr0
        Process sleep 1414 pid=1414
        Nspawn box box pid=1418
        Twinax mine 08762040bd4d pid=1421 networks=web ports=*:8099->80/tcp
        Process sleep 1426 pid=1426"#]].assert_eq(&lines(&fixture("real")).join("\n"));
}

#[test]
fn what_is_found_is_what_the_engines_say() {
    let root = fixture("real");
    let (found, _) = workloads(&processes(&root), &root);
    let mut compared = 0;
    for file in ["docker-inspect.json", "podman-inspect.json", "nested-inspect.json"] {
        let told: Value = serde_json::from_slice(&fs::read(root.join(file)).unwrap()).unwrap();
        for told in told.as_array().unwrap() {
            let same = |workload: &&Workload| Some(workload.id.as_str()) == told["Id"].as_str();
            let found = found.iter().find(same).unwrap_or_else(|| panic!("no {told}"));
            assert_eq!(Some(found.name.as_str()), told["Name"].as_str());
            assert_eq!(found.image.as_deref().unwrap_or_default(), told["Image"]);
            if file != "nested-inspect.json" {
                assert_eq!(found.pid.map(u64::from), told["Pid"].as_u64(), "{told}");
            }
            let mode = told["NetworkMode"].as_str().unwrap();
            let shares = found.labels.get("network of").map(String::as_str);
            assert_eq!(shares, mode.strip_prefix("container:"), "{told}");
            // Podman counts the networks of whoever's namespace it is as the container's own.
            if shares.is_none() {
                assert_eq!(serde_json::json!(found.networks), told["Networks"]);
                assert_eq!(ports(found), ports_told(&told["Ports"]), "{told}");
            }
            compared += 1;
        }
    }
    assert_eq!(compared, 8);
}

fn ports(workload: &Workload) -> Vec<String> {
    let show = |port: &PublishedPort| {
        let host = port.host.map(|ip| ip.to_string()).unwrap_or_default();
        format!("{host} {} {}/{}", port.host_port, port.container_port, port.proto)
    };
    let mut ports: Vec<String> = workload.published.iter().map(show).collect();
    ports.sort();
    ports
}

fn ports_told(told: &Value) -> Vec<String> {
    let mut ports = Vec::new();
    for (key, bindings) in told.as_object().into_iter().flatten() {
        for binding in bindings.as_array().into_iter().flatten() {
            let word = |key: &str| binding[key].as_str().unwrap().to_owned();
            ports.push(format!("{} {} {key}", word("HostIp"), word("HostPort")));
        }
    }
    ports.sort();
    ports
}

#[test]
fn documented_layouts_are_read() {
    expect![[r#"
        Cri web-6d4 a1a1a1a1a1a1 pod=shop/web-6d4 pid=101 at=/var/run/netns/cni-1f networks=podnet ports=*:8443->443/tcp [role]=sandbox
        Cri nginx a2a2a2a2a2a2 image=docker.io/library/nginx:1.25 pod=shop/web-6d4 pid=102 at=/proc/101/ns/net networks=podnet
        Containerd shopweb b1b1b1b1b1b1 pid=111 networks=bridge ports=0.0.0.0:8081->80/tcp [namespace]=default
        CriO db-0 c1c1c1c1c1c1 pod=shop/db-0 pid=121 at=/var/run/netns/2b networks=crio ports=*:5432->5432/tcp [role]=sandbox
        CriO postgres c2c2c2c2c2c2 image=docker.io/library/postgres:16 pod=shop/db-0 pid=123 at=/var/run/netns/2b networks=crio
        Nspawn my-box my-box image=/var/lib/machines/my-box pid=131
        Lxc shop_cache shop_cache pid=141 [engine]=incus
        Podman blog d1d1d1d1d1d1 image=docker.io/library/caddy:2 pod=shop pid=151 at=/run/user/1000/netns/netns-5e networks=podman,shopnet ports=*:8088->80/tcp,127.0.0.1:8443->443/tcp [compose project]=shop
        Process private-net 160 pid=160 [unit]=quiet.service
        Docker e1e1e1e1e1e1 e1e1e1e1e1e1 pid=161"#]].assert_eq(&lines(&fixture("documented")).join("\n"));
}

/// A copy of a fixture that may be changed; removed when dropped.
struct Copy(PathBuf);

impl Copy {
    fn of(name: &str, purpose: &str) -> Self {
        let to = std::env::temp_dir().join(format!("twinax-{purpose}-{}", std::process::id()));
        copy(&fixture(name), &to);
        Self(to)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (kind, to) = (entry.file_type().unwrap(), to.join(entry.file_name()));
        if kind.is_dir() {
            copy(&entry.path(), &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path()).unwrap(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn dockers_data_root_may_be_anywhere() {
    let copy = Copy::of("real", "data-root");
    let root = &copy.0;
    let before = lines(root);
    fs::create_dir_all(root.join("srv/a disk")).unwrap();
    fs::rename(root.join("var/lib/docker"), root.join("srv/a disk/docker")).unwrap();
    assert_ne!(lines(root), before);
    for entry in fs::read_dir(root.join("proc")).unwrap() {
        // What was mounted at /var/lib for the engine is elsewhere now.
        let path = entry.unwrap().path().join("mountinfo");
        if let Ok(text) = fs::read_to_string(&path) {
            fs::write(path, text.replace(" /var/lib ", " /srv/a\\040disk ")).unwrap();
        }
    }
    assert_eq!(lines(root), before);
}

/// Without privileges, or when files are gone, control groups and names of processes are left.
#[test]
fn without_files_containers_are_still_told_apart() {
    let copy = Copy::of("real", "no-files");
    fs::remove_dir_all(copy.0.join("var")).unwrap();
    fs::remove_dir_all(copy.0.join("run")).unwrap();
    let (found, _) = workloads(&processes(&copy.0), &copy.0);
    let kinds = |kind: &str| found.iter().filter(|w| format!("{:?}", w.runtime) == kind).count();
    assert_eq!((kinds("Docker"), kinds("Podman")), (6, 4));
    assert_eq!((kinds("Containerd"), kinds("Lxc"), kinds("Nspawn")), (1, 1, 1));
}

/// The files of the inner Docker are in the hands of the outer one's container.
#[test]
fn a_hostile_container_harms_nobody() {
    let copy = Copy::of("real", "hostile");
    let root = &copy.0;
    let nested = "cf105118be67901dcc47862b544e21b156ebde0019d5cf1d39f34041979ddfa6";
    let inner = root.join("proc/1126/root/var/lib/docker/containers").join(nested);
    let config = inner.join("config.v2.json");
    let (found, _) = workloads(&processes(root), root);
    let others = |found: &[Workload]| {
        let others = found.iter().filter(|workload| workload.id != nested);
        others.map(line).collect::<Vec<_>>()
    };
    let (want, secret) = (others(&found), root.join("secret"));
    let name = r#"{"Name":"/\u001b[2J\u0007evil\n","Config":{"Image":"x"}}"#;
    fs::write(&secret, name).unwrap();
    let harms: [&dyn Fn(); 7] = [
        &|| fs::write(&config, "").unwrap(),
        &|| fs::write(&config, "[".repeat(100_000)).unwrap(),
        &|| fs::write(&config, vec![0xff; 3 << 20]).unwrap(),
        &|| symlink(&secret, &config).unwrap(),
        &|| symlink("../../../../../../../../../secret", &config).unwrap(),
        &|| symlink("/proc/self/root/secret", &config).unwrap(),
        &|| mkfifo(&config),
    ];
    for (n, harm) in harms.iter().enumerate() {
        fs::remove_file(&config).unwrap();
        harm();
        let before = Instant::now();
        let (found, unseen) = workloads(&processes(root), root);
        assert!(before.elapsed() < Duration::from_secs(1), "harm {n} kept us waiting");
        assert_eq!((others(&found), unseen), (want.clone(), Vec::new()), "harm {n}");
        let hurt = found.iter().find(|workload| workload.id == nested).unwrap();
        assert_eq!(hurt.name, nested[..12], "harm {n}");
    }
    fs::remove_file(&config).unwrap();
    fs::write(&config, name).unwrap();
    let (found, _) = workloads(&processes(root), root);
    let odd = found.iter().find(|workload| workload.id == nested).unwrap();
    assert_eq!(odd.name, "\u{1b}[2J\u{7}evil\n", "names are data; they are escaped when shown");
}

fn mkfifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
}

#[test]
fn a_torn_bolt_database_costs_names_of_networks_only() {
    torn("real", "var/lib/containers/storage/libpod/bolt_state.db", 4);
}

#[test]
fn a_torn_sqlite_database_costs_names_of_networks_only() {
    torn("documented", "proc/150/root/home/ann/.local/share/containers/storage/db.sql", 1);
}

/// Every byte of a database that is torn or forged is doubted.
fn torn(fixture: &str, database: &str, containers: usize) {
    let copy = Copy::of(fixture, &format!("torn-{fixture}"));
    let path = copy.0.join(database);
    let whole = fs::read(&path).unwrap();
    let count = |found: &[String]| found.iter().filter(|line| line.contains("Podman")).count();
    let mut state = 1_u64;
    for round in 0..60 {
        let mut torn = whole.clone();
        torn.truncate(whole.len() * (round + 1) / 60);
        for _ in 0..200 {
            // Knuth's linear congruential generator: the same in every run.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Not the beginnings, without which it is no database.
            let at = 8192 + (state >> 33) as usize % whole.len();
            if let Some(byte) = torn.get_mut(at) {
                *byte = (state >> 25) as u8;
            }
        }
        fs::write(&path, torn).unwrap();
        let before = Instant::now();
        assert_eq!(count(&lines(&copy.0)), containers);
        assert!(before.elapsed() < Duration::from_secs(2));
    }
}
