//! Every network namespace is found, with what holds it, whatever that is; and nothing else is.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs::{self, File},
    io::{BufRead, BufReader, IoSlice},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    process::{Child, Command, ExitCode, Stdio},
    thread,
};

use rustix::{
    mount::{MountPropagationFlags, UnmountFlags},
    net::{AddressFamily, SocketFlags, SocketType},
    thread::UnshareFlags,
};
use twinax::linux::{
    spaces::{Found, Seen, find, processes},
    task::unshare,
};
use twinax_core::{
    model::Netns,
    sight::{Holder, Inode},
};

use crate::{
    harness::Outcome::{self, Passed},
    sandbox::Sandbox,
    tests,
};

tests![
    each_kind_of_holder_is_found_and_nothing_else,
    a_namespace_in_flight_is_found_or_said_to_be_missed,
    a_mount_that_nobody_can_see_is_found_or_said_to_be_missed,
    a_descriptor_outlives_the_name_it_was_opened_by,
    hostile_names_are_names,
    who_ends_meanwhile_is_forgotten,
    a_first_thread_that_ended_hides_nothing,
    names_are_what_commands_take,
    looking_changes_nothing,
];

const NET: &str = "/proc/thread-self/ns/net";

/// `--trial-spaces KIND [PATH]` makes a namespace, says which, and holds it in that way until its
/// standard input ends; `look` prints what is found on the machine, and what that costs.
pub fn role(args: &[OsString]) -> Option<ExitCode> {
    if args.first()? != "--trial-spaces" {
        return None;
    }
    let word = |n: usize| args.get(n).and_then(|word| word.to_str());
    if word(1) == Some("look") {
        look(word(2).and_then(|times| times.parse().ok()).unwrap_or(1));
        return Some(ExitCode::SUCCESS);
    }
    let kept = hold(word(1).unwrap(), word(2));
    println!("{}", kept.0);
    drop(std::io::read_to_string(std::io::stdin()));
    Some(ExitCode::SUCCESS)
}

/// Prints everything; of several rounds the costs of the last.
fn look(rounds: usize) {
    for round in 1..=rounds {
        let start = std::time::Instant::now();
        let (processes, unseen) = processes();
        println!("{:>8.2?} processes ({})", start.elapsed(), processes.len());
        let found = find(&processes);
        for (step, cost) in &found.costs {
            println!("{cost:>8.2?} {step}");
        }
        println!("{:>8.2?} in all, {} namespaces", start.elapsed(), found.spaces.len());
        for line in unseen.iter().chain(&found.unseen) {
            println!("unseen: {line}");
        }
        let opened = found.spaces.values().filter(|seen| seen.fd.is_some()).count();
        println!("{opened} opened");
        if round == rounds {
            for seen in found.spaces.values().take(40) {
                let holders: Vec<_> = seen.space.holders.iter().take(3).collect();
                println!(
                    "{:?} {:?} {:?} {holders:?}",
                    seen.netns, seen.space.inode, seen.space.cookie
                );
            }
        }
    }
}

/// What keeps a planted namespace, as long as it lives.
type Kept = (Inode, Box<dyn std::any::Any>);

fn inode(path: impl AsRef<Path>) -> Inode {
    fs::metadata(path).unwrap().ino()
}

/// Runs `work` on a thread in a new network namespace.
fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> (Inode, T) {
    let work = || {
        unshare(UnshareFlags::NEWNET).unwrap();
        (inode(NET), work())
    };
    thread::spawn(work).join().unwrap()
}

fn hold(kind: &str, path: Option<&str>) -> Kept {
    let open = || OwnedFd::from(File::open(NET).unwrap());
    match kind {
        "process" => {
            unshare(UnshareFlags::NEWNET).unwrap();
            (inode(NET), Box::new(()))
        }
        "thread" => {
            let (tell, hear) = std::sync::mpsc::channel();
            thread::spawn(move || {
                unshare(UnshareFlags::NEWNET).unwrap();
                tell.send(inode(NET)).unwrap();
                thread::park();
            });
            (hear.recv().unwrap(), Box::new(()))
        }
        "thread-alone" => {
            thread::spawn(|| {
                let (inode, _kept) = hold("process", None);
                println!("{inode}");
                drop(std::io::read_to_string(std::io::stdin()));
                std::process::exit(0);
            });
            end_this_thread()
        }
        "descriptor" => boxed(elsewhere(open)),
        "socket" => {
            let socket =
                || rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
            boxed(elsewhere(socket))
        }
        "tun" => boxed(elsewhere(tun)),
        "mount" => {
            let path = path.unwrap().to_owned();
            boxed(elsewhere(move || mount_own(&path)))
        }
        "private-mount" | "kept-mount" => {
            unshare(UnshareFlags::NEWNS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            rustix::mount::mount_change("/", private).unwrap();
            hold("mount", path)
        }
        "message" => {
            let (flags, kind) = (SocketFlags::CLOEXEC, SocketType::STREAM);
            let pair = rustix::net::socketpair(AddressFamily::UNIX, kind, flags, None).unwrap();
            boxed(elsewhere(move || message(pair)))
        }
        _ => unreachable!(),
    }
}

fn boxed<T: 'static>((inode, kept): (Inode, T)) -> Kept {
    (inode, Box::new(kept))
}

/// Ends the calling thread, and not the process.
#[allow(unsafe_code, reason = "Rust ends its first thread only with the process")]
fn end_this_thread() -> ! {
    // SAFETY: nothing of this thread's is used by others; its stack stays.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    unreachable!("the thread has ended")
}

/// Mounts the namespace of the calling thread.
fn mount_own(path: &str) {
    fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
    File::create(path).unwrap();
    rustix::mount::mount_bind(NET, path).unwrap();
}

/// A tap device, and the descriptor that it lives by.
#[allow(unsafe_code, reason = "there is no safe way to make one")]
fn tun() -> Option<OwnedFd> {
    const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
    let file = File::options().read(true).write(true).open("/dev/net/tun").ok()?;
    let mut request = [0u8; 40];
    request[..4].copy_from_slice(b"tap0");
    request[16..18].copy_from_slice(&0x1002u16.to_ne_bytes());
    // SAFETY: `request` is a live `struct ifreq` of forty bytes.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) };
    (done == 0).then(|| file.into())
}

/// A descriptor of the namespace on its way from a socket to another.
fn message((from, to): (OwnedFd, OwnedFd)) -> (OwnedFd, OwnedFd) {
    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let namespace = File::open(NET).unwrap();
    let fds = [namespace.as_fd()];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    assert!(rights.push(SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(&from, &[IoSlice::new(b"x")], &mut rights, SendFlags::empty()).unwrap();
    (from, to)
}

/// A process that holds a namespace in some way.
struct Plant {
    child: Child,
    inode: Inode,
}

impl Plant {
    fn new(words: &[&str]) -> Self {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--trial-spaces").args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
        Self { child, inode: said.trim_end().parse().expect("a plant says its namespace") }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Plant {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

fn found() -> Found {
    find(&processes().0)
}

fn seen(found: &Found, inode: Inode) -> &Seen {
    found.spaces.get(&inode).unwrap_or_else(|| panic!("{inode} is not among {found:#?}"))
}

/// What holds it, without the numbers of descriptors and threads.
fn holders(found: &Found, inode: Inode) -> BTreeSet<String> {
    let holders = seen(found, inode).space.holders.iter();
    let words = holders.map(|holder| match holder {
        Holder::Process { pid, .. } => format!("process {pid}"),
        Holder::Thread { pid, tid, .. } => format!("thread of {pid} {}", tid != pid),
        Holder::Descriptor { pid, .. } => format!("descriptor of {pid}"),
        Holder::Socket { pid, .. } => format!("socket of {pid}"),
        Holder::Tun { pid, .. } => format!("tun of {pid}"),
        Holder::Mount { path, seen_by } => format!("mount {path:?} seen by {seen_by}"),
        Holder::Unseen => "unseen".to_owned(),
        Holder::Outside => "outside".to_owned(),
    });
    words.collect()
}

/// It has these holders and no others, is opened, and is the one that its cookie says.
fn check(found: &Found, inode: Inode, wanted: &[String]) {
    assert_eq!(holders(found, inode), wanted.iter().cloned().collect());
    let Seen { space, fd, .. } = seen(found, inode);
    let fd = fd.as_ref().expect("it can be opened");
    assert_eq!(rustix::fs::fstat(fd).unwrap().st_ino, inode);
    let cookie = thread::scope(|scope| {
        let visit = scope.spawn(|| {
            let kind = rustix::thread::LinkNameSpaceType::Network;
            rustix::thread::move_into_link_name_space(fd.as_fd(), Some(kind)).unwrap();
            twinax::linux::netns::own_cookie().unwrap()
        });
        visit.join().unwrap()
    });
    assert_eq!(space.cookie, Some(cookie));
}

fn each_kind_of_holder_is_found_and_nothing_else(_: &mut Sandbox) -> Outcome {
    let before: BTreeSet<Inode> = found().spaces.into_keys().collect();
    assert_eq!(before, BTreeSet::from([inode(NET)]), "the test begins alone");
    let [process, thread, descriptor, socket] =
        ["process", "thread", "descriptor", "socket"].map(|kind| Plant::new(&[kind]));
    let private = Plant::new(&["private-mount", "/run/tmp/red"]);
    let named = Plant::new(&["mount", "/run/netns/blue"]);
    let tun = tun().map(|_| Plant::new(&["tun"]));
    let found = found();
    let us = std::process::id();
    check(&found, process.inode, &[format!("process {}", process.pid())]);
    check(&found, thread.inode, &[format!("thread of {} true", thread.pid())]);
    check(&found, descriptor.inode, &[format!("descriptor of {}", descriptor.pid())]);
    check(&found, socket.inode, &[format!("socket of {}", socket.pid())]);
    check(&found, named.inode, &[format!("mount \"/run/netns/blue\" seen by {us}")]);
    let theirs = format!("mount \"/run/tmp/red\" seen by {}", private.pid());
    check(&found, private.inode, &[theirs]);
    if let Some(tun) = &tun {
        check(&found, tun.inode, &[format!("tun of {}", tun.pid())]);
    }
    assert_eq!(found.spaces.len(), 7 + usize::from(tun.is_some()), "{found:#?}");
    Passed
}

/// The kernel's list takes privileges over the whole machine, which no test has.
fn a_namespace_in_flight_is_found_or_said_to_be_missed(_: &mut Sandbox) -> Outcome {
    let message = Plant::new(&["message"]);
    let found = found();
    match found.spaces.contains_key(&message.inode) {
        true => check(&found, message.inode, &["outside".to_owned()]),
        false => {
            let said = "namespaces held only by descriptors in flight cannot be seen: needs \
                        CAP_BPF and CAP_PERFMON";
            assert!(found.unseen.iter().any(|line| line == said), "{:?}", found.unseen);
        }
    }
    Passed
}

fn a_mount_that_nobody_can_see_is_found_or_said_to_be_missed(_: &mut Sandbox) -> Outcome {
    let plant = Plant::new(&["kept-mount", "/run/tmp/alone"]);
    let (planted, theirs) = (plant.inode, format!("/proc/{}/ns/mnt", plant.pid()));
    let kept = File::open(theirs).unwrap();
    drop(plant);
    let found = found();
    // For this list too, it takes privileges that a test may not have.
    match found.spaces.contains_key(&planted) {
        true => check(&found, planted, &["mount \"/run/tmp/alone\" seen by 0".to_owned()]),
        false => {
            let said = "mounts in mount namespaces without a process cannot be seen: ";
            assert!(found.unseen.iter().any(|line| line.starts_with(said)), "{:?}", found.unseen);
        }
    }
    drop(kept);
    Passed
}

fn a_descriptor_outlives_the_name_it_was_opened_by(_: &mut Sandbox) -> Outcome {
    let path = "/run/netns/gone";
    let planted = hold("mount", Some(path)).0;
    let mut keeper = Command::new("sleep");
    let mut keeper = keeper.arg("60").stdin(File::open(path).unwrap()).spawn().unwrap();
    let of_keeper = format!("descriptor of {}", keeper.id());
    let mounted = format!("mount {path:?} seen by {}", std::process::id());
    check(&found(), planted, &[of_keeper.clone(), mounted]);
    rustix::mount::unmount(path, UnmountFlags::DETACH).unwrap();
    check(&found(), planted, &[of_keeper]);
    keeper.kill().unwrap();
    keeper.wait().unwrap();
    assert!(!found().spaces.contains_key(&planted));
    Passed
}

fn hostile_names_are_names(_: &mut Sandbox) -> Outcome {
    let path = "/run/netns/a b\\040\n1 1 0:4 net:[7] /x rw - nsfs \u{1b}[2J";
    let planted = hold("mount", Some(path)).0;
    // A file that is called as the kernel calls a namespace.
    let lure = "/run/tmp/net:[12345]";
    File::create(lure).unwrap();
    let name = "/run/tmp/x) R 1 net:[8]\n";
    std::os::unix::fs::symlink("/bin/sleep", name).unwrap();
    let mut process = Command::new(name);
    let mut process = process.arg("60").stdin(File::open(lure).unwrap()).spawn().unwrap();
    let found = found();
    check(&found, planted, &[format!("mount {path:?} seen by {}", std::process::id())]);
    assert_eq!(found.spaces.len(), 2, "{found:#?}");
    let Netns::Container(handle) = &seen(&found, planted).netns else { panic!("not the host") };
    assert_eq!(handle.to_string(), format!("netns:/nsfs/{planted}"));
    let all = processes().0;
    let theirs = all.iter().find(|seen| seen.pid == process.id()).unwrap();
    assert_eq!((theirs.comm.as_str(), theirs.threads), ("x) R 1 net:[8]\n".get(..15).unwrap(), 1));
    process.kill().unwrap();
    process.wait().unwrap();
    Passed
}

fn who_ends_meanwhile_is_forgotten(_: &mut Sandbox) -> Outcome {
    let (process, thread) = (Plant::new(&["process"]), Plant::new(&["thread"]));
    let (one, two) = (process.inode, thread.inode);
    let seen = processes().0;
    assert!(seen.iter().any(|seen| seen.netns == Some(one)));
    drop((process, thread));
    let found = find(&seen);
    assert_eq!((found.spaces.contains_key(&one), found.spaces.contains_key(&two)), (false, false));
    // While many come and go, what stays is found each time.
    let stays = Plant::new(&["descriptor"]);
    for _ in 0..20 {
        let brief: Vec<Child> =
            (0..4).map(|_| Command::new("/bin/true").spawn().unwrap()).collect();
        let found = self::found();
        check(&found, stays.inode, &[format!("descriptor of {}", stays.pid())]);
        brief.into_iter().for_each(|mut brief| drop(brief.wait()));
    }
    Passed
}

/// Its own entries in `/proc` are empty, while its process goes on.
fn a_first_thread_that_ended_hides_nothing(_: &mut Sandbox) -> Outcome {
    let plant = Plant::new(&["thread-alone"]);
    let found = found();
    let holders = holders(&found, plant.inode);
    assert_eq!(holders, BTreeSet::from([format!("thread of {} true", plant.pid())]));
    Passed
}

fn names_are_what_commands_take(_: &mut Sandbox) -> Outcome {
    let [process, thread, descriptor, socket] =
        ["process", "thread", "descriptor", "socket"].map(|kind| Plant::new(&[kind]));
    let named = Plant::new(&["mount", "/run/netns/blue"]);
    let private = Plant::new(&["private-mount", "/run/tmp/red"]);
    let found = found();
    let name = |inode| match &seen(&found, inode).netns {
        Netns::Host => "host".to_owned(),
        Netns::Container(name) => name.to_string(),
    };
    assert_eq!(name(inode(NET)), "host");
    assert_eq!(name(process.inode), format!("pid:{}", process.pid()));
    assert_eq!(name(named.inode), "netns:/run/netns/blue");
    assert_eq!(name(socket.inode), format!("netns:/nsfs/{}", socket.inode));
    for (planted, start) in [
        (thread.inode, format!("netns:/proc/{}/task/", thread.pid())),
        (descriptor.inode, format!("netns:/proc/{}/fd/", descriptor.pid())),
        (private.inode, format!("netns:/proc/{}/root/run/tmp/red", private.pid())),
    ] {
        let name = name(planted);
        assert!(name.starts_with(&start), "{name} does not start with {start}");
        assert_eq!(inode(name.strip_prefix("netns:").unwrap()), planted);
    }
    Passed
}

fn looking_changes_nothing(sandbox: &mut Sandbox) -> Outcome {
    let other = sandbox.outside("up0", &["192.0.2.1/24"], &["192.0.2.2/24"]);
    let plants = ["process", "descriptor", "socket", "message"].map(|kind| Plant::new(&[kind]));
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let state = || {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let tables = other.run(|| read("/proc/thread-self/net/dev").lines().count());
        let fds = plants.each_ref().map(|plant| {
            let fds = fs::read_dir(format!("/proc/{}/fd", plant.pid())).unwrap();
            let links = fds.map(|fd| fs::read_link(fd.unwrap().path()).ok());
            links.collect::<BTreeSet<_>>()
        });
        let own = fs::read_dir("/proc/self/fd").unwrap().count();
        (tables, fds, own, read("/proc/self/mountinfo"), read("/proc/modules"), inode(NET))
    };
    let before = state();
    drop(found());
    assert_eq!(state(), before);
    drop(listening);
    Passed
}
