//! Gives each part of the benchmark a machine of its own: fresh namespaces, empty state.
//!
//! This program runs itself again, twice: the door enters the namespaces while it has one thread,
//! and the process inside is their pid 1, so that nothing outlives it. It reports on standard
//! output, a line a fact. Root stays root; anybody else becomes root of a user namespace.

use std::{
    env, fs,
    io::{self, BufRead, BufReader},
    os::{fd::AsRawFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, Stdio},
};

use rustix::{
    fs::{Mode, OFlags},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    process::Signal,
    thread::UnshareFlags,
};

/// The command that is measured.
pub const TWINAX: &str = env!("CARGO_BIN_EXE_twinax");
const ROLE: &str = "TWINAX_BENCH_ROLE";
const PART: &str = "TWINAX_BENCH_PART";
const OUTER_ROOT: &str = "TWINAX_BENCH_ROOT";

/// Who this process is.
pub enum Role {
    /// Prints the table.
    Runner,
    Door,
    /// Measures the part of this name.
    Inside(String),
    /// Runs the command line and says how much memory that took.
    Weigh,
}

impl Role {
    pub fn own() -> Self {
        match env::var(ROLE).as_deref() {
            Ok("door") => Self::Door,
            Ok("inside") => Self::Inside(env::var(PART).unwrap_or_default()),
            Ok("weigh") => Self::Weigh,
            _ => Self::Runner,
        }
    }
}

/// Runs `part` in a sandbox and hands each line that it reports to `hear`.
pub fn run(part: &str, mut hear: impl FnMut(&str)) -> io::Result<()> {
    let root = if is_root() { "yes" } else { "no" };
    let mut door =
        again("door").env(PART, part).env(OUTER_ROOT, root).stdout(Stdio::piped()).spawn()?;
    if let Some(stdout) = door.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            hear(&line?);
        }
    }
    let status = door.wait()?;
    match status.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("part {part:?} ended with {status}"))),
    }
}

/// Enters the namespaces, and waits for what happens inside.
pub fn door() -> ExitCode {
    let entered = die_with_parent().and_then(|()| enter()).and_then(|()| again("inside").spawn());
    match entered.and_then(|mut inside: Child| inside.wait()) {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: no sandbox: {error}");
            ExitCode::FAILURE
        }
    }
}

/// This program again, with the same arguments.
fn again(role: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(env!("CARGO_CRATE_NAME")).args(env::args_os().skip(1)).env(ROLE, role);
    command
}

/// Returns the resident memory, in bytes at its highest, of a command run to its end.
///
/// A process in between starts it: the figure of a child begins with what its parent has.
pub fn weigh(program: &str, args: &[&str]) -> io::Result<u64> {
    let mut command = Command::new("/proc/self/exe");
    let output = command.env(ROLE, "weigh").arg(program).args(args).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().parse().map_err(|_| {
        io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)))
    })
}

/// The process in between.
pub fn weigh_here() -> ExitCode {
    let mut args = env::args_os().skip(1);
    let program = args.next().unwrap_or_default();
    match Command::new(program).args(args).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => {
            println!("{}", children_rss());
            ExitCode::SUCCESS
        }
        outcome => {
            eprintln!("{outcome:?}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the most bytes that any child that has ended had resident.
fn children_rss() -> u64 {
    children().ru_maxrss as u64 * 1024
}

/// What all children that have ended have used.
#[allow(unsafe_code, reason = "rustix has no getrusage")]
pub fn children() -> libc::rusage {
    // SAFETY: all zeros is a value of this plain structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the structure is live for the call.
    unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage) };
    usage
}

/// Mounts what a fresh machine has. Must be called by pid 1 before any thread is started.
pub fn furnish() -> io::Result<()> {
    die_with_parent()?;
    // The programs may lie below a directory that is about to be covered.
    let programs = [env::current_exe()?, PathBuf::from(TWINAX)];
    let mut open = Vec::new();
    for path in &programs {
        open.push(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?);
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    mount("proc", "/proc", "proc", plain | MountFlags::NOEXEC, None)?;
    // Refused where the outer one is masked; then deletions are waited for by the clock.
    let _ = mount("sysfs", "/sys", "sysfs", plain | MountFlags::NOEXEC, None);
    for covered in ["/run", "/tmp", "/var/lib"] {
        if Path::new(covered).is_dir() {
            mount("tmpfs", covered, "tmpfs", plain, Some(c"mode=755"))?;
        }
    }
    for (path, fd) in programs.iter().zip(&open) {
        if !path.exists() {
            fs::create_dir_all(path.parent().unwrap_or_else(|| Path::new("/")))?;
            fs::write(path, "")?;
            mount_bind(format!("/proc/self/fd/{}", fd.as_raw_fd()), path)?;
        }
    }
    fs::create_dir("/run/netns")?;
    raise_open_files()
}

fn raise_open_files() -> io::Result<()> {
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum;
    Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?)
}

pub fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// What the figures were taken on.
pub fn machine() -> String {
    let system = rustix::system::uname();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let user = if is_root() { "root" } else { "an ordinary user" };
    let release = system.release().to_string_lossy();
    let machine = system.machine().to_string_lossy();
    format!("Linux {release} {machine}, {cpus} CPUs, as {user}")
}

/// Within a sandbox: whether it is root's outside, too.
pub fn outer_is_root() -> bool {
    env::var(OUTER_ROOT).is_ok_and(|root| root == "yes")
}

fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
}

fn enter() -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    if !uid.is_root() {
        unshare(UnshareFlags::NEWUSER)?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
        fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))?;
    }
    let flags = UnshareFlags::NEWNET | UnshareFlags::NEWNS | UnshareFlags::NEWPID;
    unshare(flags | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC)
}

#[allow(unsafe_code, reason = "rustix marks unshare so for the sake of CLONE_FILES")]
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: CLONE_FILES is never among the flags, and the process has one thread.
    Ok(unsafe { rustix::thread::unshare_unsafe(flags) }?)
}
