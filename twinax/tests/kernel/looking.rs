//! `map` and `peer` as whole commands: they leave no trace, and nothing that goes on meanwhile, or is
//! called badly, stops, breaks or fools them.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount},
    thread::UnshareFlags,
};
use serde_json::Value as Json;
use twinax::{linux::task::unshare, runtimes::PATIENCE};
use twinax_core::name::acts;

use crate::{
    harness::{Outcome, trials},
    product::Inside,
    sandbox::{Netns, Sandbox},
    tables, tests, wire,
};

tests![
    looking_leaves_no_trace,
    who_comes_and_goes_meanwhile_spoils_nothing,
    a_file_system_that_nobody_serves_keeps_no_command,
    what_is_no_file_keeps_nobody_waiting,
    hostile_names_act_in_no_output,
    what_is_not_there_is_refused,
    a_store_is_found_where_its_user_has_it,
];

const FORMS: [&str; 6] = ["text", "json", "svg", "html", "dot", "mermaid"];

/// Two containers on a network, one with a port; a cable to another host; a bare process.
fn furnish(sandbox: &mut Sandbox) -> (Vec<Inside>, Netns, Bare) {
    sandbox.done("network create --ipv6 web");
    let options = ["--network web -p 8080:7", "--network web"];
    let containers = ["left", "right"].iter().zip(options);
    let containers = containers.map(|(name, options)| sandbox.start(name, options)).collect();
    let outside = sandbox.outside("up0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    (containers, outside, Bare::new())
}

/// A process in a namespace of its own; ends with the test.
struct Bare(Child);

impl Bare {
    fn new() -> Self {
        let sleep = || Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
        let started = thread::spawn(move || {
            unshare(UnshareFlags::NEWNET).unwrap();
            sleep().unwrap()
        });
        Self(started.join().unwrap())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// All of the host that looking could change, a line each; nothing is asked that gives a namespace
/// a number, as listing its links does.
fn state(namespaces: &[&Netns]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    lines.insert(format!("modules {}", read("/proc/modules")));
    lines.insert(format!("tables {}", tables::elements().unwrap()));
    for folder in ["/run", "/var/lib", "/etc", "/tmp"] {
        files(Path::new(folder), &mut |path, at| {
            let times = (at.mtime(), at.mtime_nsec(), at.ctime(), at.ctime_nsec());
            lines.insert(format!("{path:?} {} {:o} {times:?}", at.size(), at.mode()));
        });
    }
    for pid in fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name()) {
        let Some(pid) = pid.to_str().and_then(|pid| pid.parse::<u32>().ok()) else { continue };
        let of = |file: &str| read(&format!("/proc/{pid}/{file}"));
        let kinds = ["net", "mnt", "pid", "user", "uts", "ipc"];
        let spaces = kinds.map(|kind| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok());
        lines.insert(format!("process {pid} {} {spaces:?} {}", of("comm"), of("mountinfo")));
    }
    for (n, netns) in namespaces.iter().enumerate() {
        netns.run(|| inside(&format!("namespace {n}"), &mut lines));
    }
    lines
}

/// The state once nothing changes any more by itself: addresses are tried out, and the kernel looks
/// at links again up to a second later (`linkwatch`), which may give numbers.
fn settled(namespaces: &[&Netns]) -> BTreeSet<String> {
    let mut last = state(namespaces);
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(1500));
        let next = state(namespaces);
        if next == last {
            return next;
        }
        last = next;
    }
    panic!("the host does not come to rest");
}

/// What one network namespace has.
fn inside(name: &str, lines: &mut BTreeSet<String>) {
    lines.insert(format!("{name} numbers {:?}", wire::numbers_of_namespaces().unwrap()));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let links = read("/proc/thread-self/net/dev");
    let links: Vec<_> = links.lines().filter_map(|line| line.split_once(':')).collect();
    let links: Vec<_> = links.iter().map(|(link, _)| link.trim()).collect();
    lines.insert(format!("{name} links {links:?}"));
    for table in ["fib_trie", "packet"] {
        lines.insert(format!("{name} {table} {}", read(&format!("/proc/thread-self/net/{table}"))));
    }
    // Without the flags: whether an address is tried out still is a matter of time.
    let addrs = read("/proc/thread-self/net/if_inet6");
    let addrs = addrs.lines().map(|line| line.get(..41).unwrap_or(line).to_owned());
    lines.insert(format!("{name} addresses {:?}", addrs.collect::<BTreeSet<_>>()));
    files(Path::new("/proc/sys/net"), &mut |path, _| {
        // It falls as connections are forgotten.
        if !path.ends_with("nf_conntrack_count") {
            let value = fs::read(path).unwrap_or_default();
            lines.insert(format!("{name} {path:?} {}", String::from_utf8_lossy(&value)));
        }
    });
}

fn files(folder: &Path, each: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(at) = fs::symlink_metadata(entry.path()) else { continue };
        each(&entry.path(), &at);
        if at.is_dir() {
            files(&entry.path(), each);
        }
    }
}

fn connections() -> u32 {
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count");
    count.map_or(0, |count| count.trim().parse().unwrap())
}

fn looking_leaves_no_trace(sandbox: &mut Sandbox) -> Outcome {
    let (containers, outside, bare) = furnish(sandbox);
    let theirs = Netns::of_process(bare.0.id()).unwrap();
    let fd = theirs.as_fd().as_raw_fd();
    outside.run(|| wire::add_veth("aside", "eth0", fd).unwrap());
    let mut all = vec![sandbox.host(), &outside, &theirs];
    all.extend(containers.iter().map(|container| &container.netns));
    let before = (settled(&all), connections());
    for form in FORMS {
        sandbox.done(&format!("map --all --output {form}"));
    }
    for handle in ["left", "up0", "192.0.2.2", "web", "nobody"] {
        sandbox.twinax(&["peer", handle]);
    }
    sandbox.done("map --only left");
    let after = state(&all);
    let changed: Vec<_> = after.symmetric_difference(&before.0).collect();
    assert!(changed.is_empty(), "{changed:#?}");
    assert!(connections() <= before.1);
    // What would be seen: each kind of change there is.
    let notices = |what: &str, change: &dyn Fn()| {
        let before = state(&all);
        change();
        assert_ne!(state(&all), before, "{what} is not noticed");
    };
    notices("a number", &|| theirs.run(|| wire::settle("eth0").unwrap()));
    notices("a file", &|| fs::write("/run/tmp/trace", "").unwrap());
    notices("a link", &|| wire::add_bridge("trace").unwrap());
    let switch = "/proc/sys/net/ipv4/conf/lo/rp_filter";
    notices("a switch", &|| outside.run(|| fs::write(switch, "2").unwrap()));
    notices("a mount", &|| mount_bind("/run/tmp", "/run/home").unwrap());
    let late = std::cell::RefCell::new(None);
    notices("a process", &|| drop(late.borrow_mut().replace(Bare::new())));
    let mut nft = twinax::linux::nft::NftSocket::open().unwrap();
    let before = state(&all);
    nft.transact(&[twinax::linux::nft::NftOp::DelTables]).unwrap();
    assert_ne!(state(&all), before, "a table is not noticed");
    unmount("/run/home", UnmountFlags::DETACH).unwrap();
    Outcome::Passed
}

/// While processes, namespaces, cables and names come and go without end, what stays is found each
/// time, whole.
fn who_comes_and_goes_meanwhile_spoils_nothing(sandbox: &mut Sandbox) -> Outcome {
    let stays = Bare::new();
    let theirs = Netns::of_process(stays.0.id()).unwrap();
    wire::add_veth("stays", "eth0", theirs.as_fd().as_raw_fd()).unwrap();
    fs::create_dir_all("/run/netns").unwrap();
    let (over, rounds) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 3]);
    let churn = |n: usize, once: &dyn Fn(usize)| {
        while !over.load(Ordering::Relaxed) {
            once(rounds[n].fetch_add(1, Ordering::Relaxed));
        }
    };
    let host = sandbox.host();
    thread::scope(|scope| {
        scope.spawn(|| churn(0, &|_| drop(Command::new("/bin/true").status())));
        scope.spawn(|| churn(1, &|_| drop(Bare::new())));
        scope.spawn(|| churn(2, &|round| come_and_go(host, round)));
        let outcome = std::panic::catch_unwind(|| {
            for _ in 0..trials(50) {
                let output = sandbox.twinax(&["map", "--all", "--json"]);
                assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
                assert_finds(&serde_json::from_str(&output.stdout).unwrap(), stays.0.id());
                let output = sandbox.twinax(&["peer", "stays"]);
                assert_eq!((output.code, output.stderr.as_str()), (Some(0), ""));
                assert!(output.stdout.contains("each end names the other"), "{}", output.stdout);
            }
        });
        over.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    let rounds = rounds.map(AtomicUsize::into_inner);
    assert!(rounds.iter().all(|rounds| *rounds >= 20), "too little went on: {rounds:?}");
    Outcome::Passed
}

/// A namespace with a name and a cable to the host, for a moment.
fn come_and_go(host: &Netns, round: usize) {
    let path = format!("/run/netns/brief{round}");
    let brief = thread::spawn(|| {
        unshare(UnshareFlags::NEWNET).unwrap();
        Netns::current().unwrap()
    });
    let brief = brief.join().unwrap();
    File::create(&path).unwrap();
    mount_bind(format!("/proc/self/fd/{}", brief.as_fd().as_raw_fd()), &path).unwrap();
    let name = format!("b{}", round % 100);
    host.run(|| drop(wire::add_veth(&name, "eth0", brief.as_fd().as_raw_fd())));
    unmount(&path, UnmountFlags::DETACH).unwrap();
    fs::remove_file(path).unwrap();
}

fn assert_finds(map: &Json, pid: u32) {
    let spaces = map["namespaces"].as_array().unwrap();
    let handle = format!("pid:{pid}");
    let theirs = spaces.iter().find(|space| space["handle"] == *handle).expect("it stays");
    let links = theirs["links"].as_array().unwrap();
    let eth0 = links.iter().find(|link| link["name"] == "eth0").expect("it has a cable");
    let leads = &eth0["leads_to"];
    assert_eq!(
        (&leads["namespace"], &leads["interface"], &leads["proven"]),
        (&"host".into(), &"stays".into(), &true.into()),
    );
}

/// Runs `map`, which must be done soon, and returns what it prints.
fn map_soon(sandbox: &Sandbox, limit: Duration) -> String {
    let before = Instant::now();
    let text = sandbox.done("map --all");
    assert!(before.elapsed() < limit, "{:?}: {text}", before.elapsed());
    text
}

fn a_file_system_that_nobody_serves_keeps_no_command(sandbox: &mut Sandbox) -> Outcome {
    let Ok(device) = File::options().read(true).write(true).open("/dev/fuse") else {
        return Outcome::Skip("no /dev/fuse".into());
    };
    let bare = Bare::new();
    fs::create_dir_all("/run/netns").unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    if mount("none", "/run/netns", "fuse", MountFlags::empty(), options.as_c_str()).is_err() {
        return Outcome::Skip("no file system in user space can be mounted".into());
    }
    let text = map_soon(sandbox, PATIENCE + Duration::from_secs(3));
    drop(device); // Whoever waits for it is told now that it is gone.
    unmount("/run/netns", UnmountFlags::DETACH).unwrap();
    assert!(
        text.contains("not seen: files of runtimes in /: they did not answer in time"),
        "{text}"
    );
    assert!(text.contains(&format!("pid:{}", bare.0.id())) || text.contains("sleep"), "{text}");
    Outcome::Passed
}

/// Pipes, devices, links in a circle and folders where files should be.
fn what_is_no_file_keeps_nobody_waiting(sandbox: &mut Sandbox) -> Outcome {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let (containers, _outside, _bare) = furnish(sandbox);
    let cookie = fs::read_dir("/run/twinax").unwrap().flatten().next().unwrap().path();
    let record = cookie.join("containers/left/record.json");
    let kept = fs::read(&record).unwrap();
    for name in ["/run/netns/pipe", "/var/lib/cni/results/x", "/run/containerd/x", "/tmp/twinax-x"]
    {
        fs::create_dir_all(Path::new(name).parent().unwrap()).unwrap();
        mknodat(CWD, name, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    }
    std::os::unix::fs::symlink("loop", "/run/netns/loop").unwrap();
    let map = || {
        let text = map_soon(sandbox, PATIENCE + Duration::from_secs(3));
        assert!(!text.contains("did not answer"), "{text}");
        text
    };
    assert!(map().contains(" left"));
    let harms: [&dyn Fn(); 4] = [
        &|| mknodat(CWD, &record, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap(),
        &|| std::os::unix::fs::symlink("record.json", &record).unwrap(),
        &|| fs::create_dir(&record).unwrap(),
        &|| fs::write(&record, vec![b'['; 1 << 20]).unwrap(),
    ];
    for harm in harms {
        fs::remove_file(&record).or_else(|_| fs::remove_dir(&record)).unwrap();
        harm();
        let text = map();
        let pid = containers[0].pid;
        assert!(text.contains("right") && !text.contains(" left"), "{pid}: {text}");
    }
    fs::remove_file(&record).unwrap();
    fs::write(&record, kept).unwrap();
    assert!(map().contains(" left"));
    Outcome::Passed
}

fn hostile_names_act_in_no_output(sandbox: &mut Sandbox) -> Outcome {
    let theirs = sandbox.namespace();
    let fd = theirs.as_fd().as_raw_fd();
    let names: [&[u8]; 5] =
        [b"\x1b[2J", "\u{9b}31m".as_bytes(), "\u{202e}0hte".as_bytes(), b"<b>\"&'", b"\xff\xc3"];
    for (n, name) in names.iter().enumerate() {
        wire::add_cable((name, 0), (format!("e{n}").as_bytes(), 0, fd)).unwrap();
        wire::add_cable((format!("h{n}").as_bytes(), 0), (name, 0, fd)).unwrap();
    }
    // A process, and a name of `ip netns`, as hostile as files' names may be.
    let program = "/run/tmp/\x1b[2J\n\u{202e}";
    std::os::unix::fs::symlink("/bin/sleep", program).unwrap();
    let mut evil = theirs.run(|| Command::new(program).arg("600").spawn().unwrap());
    fs::create_dir_all("/run/netns").unwrap();
    let path = "/run/netns/a\x1b[2J\n\u{202e}<b>";
    File::create(path).unwrap();
    let named = sandbox.namespace();
    mount_bind(format!("/proc/self/fd/{}", named.as_fd().as_raw_fd()), path).unwrap();
    let is_quiet = |text: &str, what: &str| {
        assert!(!text.contains(|c| acts(c) && c != '\n'), "{what}: {text:?}");
        assert!(text.contains("x1b") || text.contains("u001b"), "{what}: {text}");
    };
    for form in FORMS {
        let text = sandbox.done(&format!("map --all --output {form}"));
        is_quiet(&text, form);
        if form == "json" {
            let map: Json = serde_json::from_str(&text).unwrap();
            let spaces = map["namespaces"].as_array().unwrap();
            let of = |space: &Json| space["containers"].as_array().unwrap().clone();
            let all: Vec<_> = spaces.iter().flat_map(of).collect();
            let name = &path["/run/netns/".len()..];
            assert!(all.iter().any(|one| one["name"] == *name), "{all:?}");
        }
    }
    for handle in ["e0", "h0", "\u{1b}[2J", "\\x1b[2J"] {
        let output = sandbox.twinax(&["peer", handle]);
        is_quiet(&(output.stdout + &output.stderr), handle);
    }
    evil.kill().unwrap();
    evil.wait().unwrap();
    Outcome::Passed
}

fn what_is_not_there_is_refused(sandbox: &mut Sandbox) -> Outcome {
    let _bare = furnish(sandbox);
    for (line, said) in [
        ("map --only nobody", "called nobody"),
        ("map --only left --only nobody --output svg", "called nobody"),
        ("map --network none-such --json", "on a network or bridge called none-such"),
        ("map --runtime lxc", "no container on this host is lxc's"),
        ("map --runtime twinax --only up0", "all that was asked for"),
        ("peer nobody", "called nobody"),
    ] {
        let error = sandbox.refused(line);
        assert!(error.contains(said) && error.contains("hint: "), "{line}: {error}");
    }
    for line in
        ["map --only left", "map --network web", "map --network tx-web", "map --runtime twinax"]
    {
        assert!(sandbox.done(line).contains("left"), "{line}");
    }
    Outcome::Passed
}

/// An ordinary user's store is below `XDG_RUNTIME_DIR`, wherever that is: here `/run/user` itself,
/// and not a directory below it.
fn a_store_is_found_where_its_user_has_it(sandbox: &mut Sandbox) -> Outcome {
    sandbox.done("network create web");
    sandbox.start("left", "--network web");
    assert!(sandbox.done("map").contains("  left "));
    let only = |folder: &Path| {
        let names: Vec<_> = fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(names.len(), 1, "{names:?}");
        names[0].clone()
    };
    // The store itself has mounts in it, and stays.
    let record = only(&only(Path::new("/run/twinax")).join("containers")).join("record.json");
    let theirs = Path::new("/run/user/twinax/state/containers/left/record.json");
    fs::create_dir_all(theirs.parent().unwrap()).unwrap();
    fs::rename(&record, theirs).unwrap();
    let map = sandbox.done("map");
    let elsewhere = sandbox.command(&["map"]).env("XDG_RUNTIME_DIR", "/run/else").output().unwrap();
    fs::rename(theirs, &record).unwrap();
    assert!(map.contains("  left "), "{map}");
    let elsewhere = String::from_utf8_lossy(&elsewhere.stdout).into_owned();
    assert!(!elsewhere.contains("  left "), "{elsewhere}");
    Outcome::Passed
}
