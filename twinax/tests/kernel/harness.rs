//! Runs each test as a process of its own in fresh namespaces, many at once, and reports like libtest.
//!
//! # Theory of operation
//!
//! Three processes stand behind a test, all of them this program run again:
//!
//! ```text
//! runner ──▶ door: enters user, network, mount, pid, uts and ipc namespaces while single-threaded
//!              └──▶ init: pid 1 inside; mounts, then reaps; its end ends everything inside
//!                     └──▶ the test
//! ```
//!
//! Each dies with its parent, so ending the door ends all. Standard output and error are one pipe,
//! read by the runner; standard input is a socket on which they tell how it went.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        unix::{fs::MetadataExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags},
    process::{Signal, WaitOptions},
    thread::UnshareFlags,
};

use crate::{sandbox::Sandbox, wire};

/// How long a test may take, in wall-clock time.
const LIMIT: Duration = Duration::from_secs(60);
/// Set to a number, it makes tests that repeat something do so as often, and lifts the limit.
pub const TRIALS: &str = "TWINAX_TRIALS";
/// How much of a test's output is kept.
const OUTPUT_MAX: u64 = 1 << 20;
/// Set to lines of `NAME: REASON`, it makes the skip of every other test a failure.
const ALLOWED_SKIPS: &str = "TWINAX_ALLOWED_SKIPS";
/// What to do where namespaces are refused; some systems grant the first and refuse the rest.
const REMEDY: &str = "\
The tests need user namespaces. See that /proc/sys/user/max_user_namespaces is not 0; that
/proc/sys/kernel/unprivileged_userns_clone, if there, is 1; that
/proc/sys/kernel/apparmor_restrict_unprivileged_userns, if there, is 0 (or run as root); and, in a
container, that its seccomp profile allows unshare and mount.";
/// Tells a copy of this program which of the three processes it is.
const ROLE: &str = "TWINAX_TEST_ROLE";
const TEST: &str = "TWINAX_TEST_NAME";

/// One test: what it claims, and how to try it.
#[derive(Clone, Copy)]
pub struct Test {
    pub path: &'static str,
    pub run: fn(&mut Sandbox) -> Outcome,
}

/// How a test ends, unless it panics.
pub enum Outcome {
    Passed,
    /// This machine cannot show it: the reason, as "this kernel has no SCTP".
    Skip(String),
}

impl Test {
    /// The name without the crate: `isolation::only_loopback`.
    pub fn name(&self) -> &'static str {
        self.path.split_once("::").map_or(self.path, |(_, name)| name)
    }
}

/// Declares `TESTS`, the table of a file's tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        pub const TESTS: &[$crate::harness::Test] = &[$($crate::harness::Test {
            path: concat!(module_path!(), "::", stringify!($name)),
            run: $name,
        }),+];
    };
}

/// Runs what the command line asks for. Must be called before any thread is started.
pub fn main(all: &[&[Test]]) -> ExitCode {
    let tests: Vec<Test> = all.iter().flat_map(|file| file.iter().copied()).collect();
    match env::var(ROLE).as_deref() {
        Ok("door") => door(),
        Ok("init") => init(),
        Ok("test") => test(&tests),
        _ => match Options::parse(env::args().skip(1)) {
            Ok(options) => options.run(&tests),
            Err(message) => {
                eprintln!("error: {message}");
                ExitCode::from(2)
            }
        },
    }
}

#[derive(Default)]
struct Options {
    list: bool,
    ignored: bool,
    exact: bool,
    nocapture: bool,
    threads: Option<usize>,
    filters: Vec<String>,
    skip: Vec<String>,
}

impl Options {
    /// Takes the part of libtest's command line that `cargo test` and cargo-nextest use.
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        let mut args = args.flat_map(|arg| match arg.split_once('=') {
            Some((flag, value)) if flag.starts_with("--") => {
                vec![flag.to_owned(), value.to_owned()]
            }
            _ => vec![arg],
        });
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
            match arg.as_str() {
                "--list" => options.list = true,
                "--ignored" => options.ignored = true,
                "--exact" => options.exact = true,
                "--nocapture" | "--no-capture" => options.nocapture = true,
                "--test-threads" => {
                    let text = value()?;
                    let count = text.parse().map_err(|_| format!("not a number: {text}"))?;
                    options.threads = Some(count);
                }
                "--skip" => options.skip.push(value()?),
                "--format" | "--color" | "-Z" => drop(value()?),
                "--include-ignored" | "--quiet" | "-q" | "--show-output" => {}
                flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    fn wants(&self, name: &str) -> bool {
        let fits = |pattern: &String| {
            if self.exact { name == pattern } else { name.contains(pattern.as_str()) }
        };
        !self.ignored
            && (self.filters.is_empty() || self.filters.iter().any(fits))
            && !self.skip.iter().any(fits)
    }

    fn run(&self, tests: &[Test]) -> ExitCode {
        let chosen: Vec<&Test> = tests.iter().filter(|test| self.wants(test.name())).collect();
        if self.list {
            for test in chosen {
                println!("{}: test", test.name());
            }
            return ExitCode::SUCCESS;
        }
        println!("\nrunning {} test{}", chosen.len(), if chosen.len() == 1 { "" } else { "s" });
        let started = Instant::now();
        let next = AtomicUsize::new(0);
        let summary = Mutex::new(Summary::default());
        let threads = self.threads.map_or_else(
            || thread::available_parallelism().map_or(1, usize::from),
            |count| count.max(1),
        );
        thread::scope(|scope| {
            for _ in 0..threads.min(chosen.len()) {
                scope.spawn(|| {
                    while let Some(test) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let ended = Ended::of(test, self.nocapture);
                        summary.lock().unwrap().add(test, ended);
                    }
                });
            }
        });
        let mut summary = summary.into_inner().unwrap();
        summary.leaks();
        summary.print(tests.len() - chosen.len(), started.elapsed())
    }
}

/// All that is known of a test that has ended.
struct Ended {
    verdict: Verdict,
    output: String,
    /// The pid namespace it ran in. Held, because the kernel would soon give its number to another.
    pids: Option<fs::File>,
}

enum Verdict {
    Passed,
    Skipped(String),
    Failed(String),
}

impl Ended {
    fn of(test: &Test, nocapture: bool) -> Self {
        match Self::attempt(test, nocapture) {
            Ok(ended) => ended,
            Err(error) => Self {
                verdict: Verdict::Failed(format!("the harness cannot run it: {error}")),
                output: String::new(),
                pids: None,
            },
        }
    }

    fn attempt(test: &Test, nocapture: bool) -> io::Result<Self> {
        let (told, theirs) = UnixStream::pair()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("kernel-test").env(ROLE, "door").env(TEST, test.name());
        command.stdin(OwnedFd::from(theirs));
        let reader = if nocapture {
            None
        } else {
            let (reader, writer) = io::pipe()?;
            command.stdout(writer.try_clone()?).stderr(writer);
            Some(thread::spawn(move || {
                let mut kept = Vec::new();
                let mut source = BufReader::new(reader);
                // What exceeds the limit is read all the same, or the test would stall.
                drop(source.by_ref().take(OUTPUT_MAX).read_to_end(&mut kept));
                drop(io::copy(&mut source, &mut io::sink()));
                kept
            }))
        };
        let mut child = command.spawn()?;
        drop(command); // The last copies on our side, so that both ends report the end.
        let (mut pids, mut said) = (None, None);
        let in_time = hear(told, Instant::now() + limit(), |line| match line {
            "inside" => {
                pids = fs::File::open(format!("/proc/{}/ns/pid_for_children", child.id())).ok();
            }
            _ => said = Some(line.to_owned()),
        });
        if !in_time {
            child.kill()?;
        }
        let status = child.wait()?;
        let output = reader.map_or_else(Vec::new, |reader| reader.join().unwrap_or_default());
        let mut verdict = match (in_time, status.code()) {
            (false, _) => Verdict::Failed(format!("took longer than {} s", limit().as_secs())),
            (true, Some(0)) => Verdict::Failed("ended without a verdict".to_owned()),
            (true, Some(code)) => Verdict::Failed(format!("exit code {code}")),
            (true, None) => Verdict::Failed(format!("{status}")),
        };
        if let (true, Some(said)) = (status.success(), said) {
            verdict = match said.split_once(' ') {
                Some(("skipped", why)) => Verdict::Skipped(why.to_owned()),
                _ => Verdict::Passed,
            };
        }
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(Self { verdict, output, pids })
    }
}

fn limit() -> Duration {
    if env::var_os(TRIALS).is_some() { LIMIT * 60 } else { LIMIT }
}

/// How often to repeat something.
pub fn trials(usual: usize) -> usize {
    env::var(TRIALS).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Hands on the lines told until every writer is gone; returns whether that was before `deadline`.
fn hear(told: UnixStream, deadline: Instant, mut heard: impl FnMut(&str)) -> bool {
    let mut source = BufReader::new(told);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || source.get_ref().set_read_timeout(Some(left)).is_err() {
            return false;
        }
        let mut line = String::new();
        match source.read_line(&mut line) {
            Ok(0) => return true,
            Ok(_) => heard(line.trim_end()),
            Err(_) => return false,
        }
    }
}

#[derive(Default)]
struct Summary {
    passed: usize,
    failed: Vec<(String, String)>,
    skipped: Vec<(String, String)>,
    pids: Vec<fs::File>,
}

impl Summary {
    fn add(&mut self, test: &Test, ended: Ended) {
        self.pids.extend(ended.pids);
        let name = test.name();
        match ended.verdict {
            Verdict::Passed => {
                println!("test {name} ... ok");
                self.passed += 1;
            }
            Verdict::Skipped(why) if !skip_allowed(name) => {
                println!("test {name} ... FAILED");
                let why = format!("skipped ({why}), and {ALLOWED_SKIPS} does not list it");
                self.failed.push((name.to_owned(), why));
            }
            Verdict::Skipped(why) => {
                println!("test {name} ... SKIPPED, {why}");
                self.skipped.push((name.to_owned(), why));
            }
            Verdict::Failed(why) => {
                println!("test {name} ... FAILED");
                self.failed.push((name.to_owned(), format!("{}{why}\n", ended.output)));
            }
        }
    }

    /// A process still in the pid namespace of a test that ended has leaked.
    fn leaks(&mut self) {
        let ids: BTreeSet<u64> =
            self.pids.iter().filter_map(|ns| Some(ns.metadata().ok()?.ino())).collect();
        let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes {
            let Ok(ns) = fs::metadata(process.path().join("ns/pid")) else { continue };
            if ids.contains(&ns.ino()) {
                let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
                let pid = process.file_name().to_string_lossy().into_owned();
                let what = format!("process {pid} ({}) is still there", name.trim());
                self.failed.push(("a test leaked".to_owned(), what));
            }
        }
    }

    fn print(&self, filtered_out: usize, took: Duration) -> ExitCode {
        if !self.failed.is_empty() {
            println!("\nfailures:\n");
            for (name, output) in &self.failed {
                println!("---- {name} ----\n{output}");
            }
            println!("failures:");
            for (name, _) in &self.failed {
                println!("    {name}");
            }
        }
        let verdict = if self.failed.is_empty() { "ok" } else { "FAILED" };
        // Libtest counts what did not run as ignored; the reasons follow.
        println!(
            "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; \
             {filtered_out} filtered out; finished in {:.2}s",
            self.passed,
            self.failed.len(),
            self.skipped.len(),
            took.as_secs_f64()
        );
        if !self.skipped.is_empty() {
            println!("skipped: {}", self.skipped.len());
            for (name, why) in &self.skipped {
                println!("    {name}: {why}");
            }
        }
        println!();
        ExitCode::from(if self.failed.is_empty() { 0 } else { 101 })
    }
}

fn skip_allowed(name: &str) -> bool {
    let names = |line: &str| line.split_once(": ").is_some_and(|(listed, _)| listed.trim() == name);
    env::var(ALLOWED_SKIPS).map_or(true, |list| list.lines().any(names))
}

/// Runs this program again in the given role; it dies with us.
fn again(role: &str) -> io::Result<Child> {
    let stdin = rustix::io::dup(rustix::stdio::stdin())?;
    Command::new("/proc/self/exe").arg0("kernel-test").env(ROLE, role).stdin(stdin).spawn()
}

fn say(line: &str) {
    let told = rustix::stdio::stdin();
    let _ = rustix::io::write(told, format!("{line}\n").as_bytes());
}

fn fail(what: &str, error: impl std::fmt::Display) -> ExitCode {
    eprintln!("{what}: {error}");
    ExitCode::from(101)
}

fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Enters the namespaces and waits for what happens inside.
fn door() -> ExitCode {
    if let Err(error) = die_with_parent().and_then(|()| enter()) {
        eprintln!("{REMEDY}");
        return fail("no namespaces for the test", error);
    }
    let ended = again("init").and_then(|mut init| {
        say("inside");
        init.wait()
    });
    match ended {
        Ok(status) => ExitCode::from(status.code().map_or(101, |code| code as u8)),
        Err(error) => fail("pid 1 of the test", error),
    }
}

fn enter() -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    unshare(UnshareFlags::NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    unshare(
        UnshareFlags::NEWNET
            | UnshareFlags::NEWNS
            | UnshareFlags::NEWPID
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWIPC,
    )
}

#[allow(unsafe_code, reason = "rustix marks unshare so for the sake of CLONE_FILES")]
fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: CLONE_FILES is never among the flags, and the process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}

/// Pid 1: makes the file system and loopback ready, starts the test, reaps until that ends.
fn init() -> ExitCode {
    if let Err(error) = die_with_parent().and_then(|()| furnish()) {
        return fail("furnishing the sandbox", error);
    }
    let test = match again("test") {
        Ok(child) => child.id() as i32,
        Err(error) => return fail("starting the test", error),
    };
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == test => {
                return ExitCode::from(status.exit_status().map_or(101, |code| code as u8));
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return fail("waiting for the test", error),
        }
    }
}

fn furnish() -> io::Result<()> {
    use rustix::mount::{mount, mount_bind, mount_change};
    // The two programs may lie below a directory that is about to be covered.
    let programs = [env::current_exe()?, PathBuf::from(env!("CARGO_BIN_EXE_twinax"))];
    let mut open = Vec::new();
    for path in &programs {
        open.push(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    let context = |what: &'static str| {
        move |error: rustix::io::Errno| io::Error::other(format!("{what}: {error}"))
    };
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(context("making mounts private"))?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None)
        .map_err(context("mounting /proc (in a container, its /proc must not be masked)"))?;
    // Refused where the outer one is masked; no test of ours needs it.
    let _ = mount("sysfs", "/sys", "sysfs", plain | MountFlags::NOEXEC, None);
    for covered in ["/run", "/tmp", "/var/lib"] {
        if Path::new(covered).is_dir() {
            mount("tmpfs", covered, "tmpfs", plain, Some(c"mode=755"))
                .map_err(context("mounting a tmpfs"))?;
        }
    }
    for (path, fd) in programs.iter().zip(&open) {
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
            fs::write(path, "")?;
            let source = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(fd));
            mount_bind(source, path).map_err(context("keeping the programs visible"))?;
        }
    }
    for dir in ["/run/home", "/run/user", "/run/tmp"] {
        fs::create_dir(dir)?;
    }
    // A new namespace begins with what the machine's own has, as forwarding where Docker runs.
    for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let path = Path::new("/proc/sys/net").join(switch);
        if path.exists() {
            fs::write(path, "0")?;
        }
    }
    wire::loopback_up()
}

/// The test itself; standard input becomes empty for it and its children.
fn test(tests: &[Test]) -> ExitCode {
    let prepared = die_with_parent().and_then(|()| {
        let told = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
        rustix::stdio::dup2_stdin(fs::File::open("/dev/null")?)?;
        Ok(UnixStream::from(told))
    });
    let mut told = match prepared {
        Ok(told) => told,
        Err(error) => return fail("preparing the test", error),
    };
    let name = env::var(TEST).unwrap_or_default();
    let Some(test) = tests.iter().find(|test| test.name() == name) else {
        return fail("no test has this name", name);
    };
    let verdict = match (test.run)(&mut Sandbox::new()) {
        Outcome::Passed => "passed\n".to_owned(),
        Outcome::Skip(why) => format!("skipped {}\n", why.replace('\n', " ")),
    };
    match told.write_all(verdict.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("telling the runner", error),
    }
}
