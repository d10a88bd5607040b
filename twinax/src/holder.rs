//! Keeps the namespaces that an ordinary user's containers live in.
//!
//! Root acts on the host's network. Anybody else gets a user, a mount and a network namespace of
//! their own, which play the host; one small process per user, the holder, keeps them while
//! containers live. Every command finds it by a record in the user's run directory, enters its
//! namespaces before anything else, and from there on is the same program as root's.
//!
//! The map has one line, the user's own id as 0, written without help: `newuidmap` and
//! `/etc/subuid` are not used, for network and processes need one id only, and a map of many
//! would make files in containers belong to ids that the user cannot remove.
//!
//! If the holder is killed, its namespaces live on with the supervisors of running containers;
//! the next command enters by one of them and starts a new holder there.

use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{FlockOperation, flock},
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    process::Signal,
    thread::{
        CapabilitySet, ThreadNameSpaceType, UnshareFlags, capabilities,
        move_into_thread_name_spaces,
    },
};
use serde::{Deserialize, Serialize};

use crate::linux::{
    process::{Task, boot_id},
    task::{self, Signals},
};

/// The hidden first argument of a holder; its second is `new` or `adopt`.
pub(crate) const HOLD: &str = "--holder";

/// In which capacity this process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may change the network it is in: root, or root of a user namespace.
    Privileged,
    /// It has entered the namespaces of this holder.
    Held(Task),
}

/// Whether a command can do without a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It makes something: start a holder if there is none.
    Start,
    /// It reads or removes: without a holder there is nothing.
    IfRunning,
}

/// Why the user's namespaces cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    #[error("this kernel gives ordinary users no namespaces: {switch}; {remedy}")]
    Forbidden {
        switch: String,
        remedy: &'static str,
        #[source]
        cause: io::Error,
    },
    #[error("cannot use {path} as the run directory: {why}", path = .path.display())]
    RunDir { path: PathBuf, why: String },
    #[error("cannot {step}")]
    Step {
        step: String,
        #[source]
        cause: io::Error,
    },
    #[error("the holder of your namespaces did not start: {0}")]
    Start(String),
}

fn step(step: impl Into<String>) -> impl FnOnce(io::Error) -> HolderError {
    let step = step.into();
    move |cause| HolderError::Step { step, cause }
}

/// Says whether this process may change the network it is in.
pub fn privileged() -> bool {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::SYS_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// The directory of an ordinary user's runtime files, made if need be: `$XDG_RUNTIME_DIR/twinax`
/// if that is ours, else `/tmp/twinax-UID`. `xdg` is the variable's value.
///
/// # Errors
/// When it is, or may be, under somebody else's control.
pub fn user_run_dir(xdg: Option<&OsStr>) -> Result<PathBuf, HolderError> {
    let uid = rustix::process::geteuid().as_raw();
    let ours = |dir: &Path| {
        std::fs::symlink_metadata(dir).is_ok_and(|meta| meta.is_dir() && meta.uid() == uid)
    };
    let path = match xdg.map(Path::new) {
        Some(dir) if dir.is_absolute() && ours(dir) => dir.join("twinax"),
        _ => PathBuf::from(format!("/tmp/twinax-{uid}")),
    };
    secure_dir(&path, uid)?;
    Ok(path)
}

fn secure_dir(path: &Path, uid: u32) -> Result<(), HolderError> {
    let bad = |why: String| Err(HolderError::RunDir { path: path.to_owned(), why });
    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return bad(error.to_string()),
        _ => {}
    }
    // The link itself, not what it may lead to: /tmp is everybody's.
    let meta = std::fs::symlink_metadata(path)
        .map_err(|e| HolderError::RunDir { path: path.to_owned(), why: e.to_string() })?;
    if !meta.is_dir() {
        return bad("it is not a directory; remove it".to_owned());
    }
    if meta.uid() != uid {
        return bad(format!("it belongs to user {}; remove it or set XDG_RUNTIME_DIR", meta.uid()));
    }
    if meta.mode() & 0o077 != 0 {
        return bad("others may enter it; run chmod 700 on it".to_owned());
    }
    Ok(())
}

/// What a run directory says of its holder.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    holder: Task,
    /// Its number means nothing in another boot.
    boot: String,
}

fn record_path(run_dir: &Path) -> PathBuf {
    run_dir.join("holder")
}

/// The live holder on record.
pub fn find(run_dir: &Path) -> Option<Task> {
    let text = std::fs::read(record_path(run_dir)).ok()?;
    let record: Record = serde_json::from_slice(&text).ok()?;
    (record.boot == boot_id().ok()? && record.holder.alive()).then_some(record.holder)
}

/// Goes where Twinax may act. To be called first in `main`, before any thread, and with a
/// `run_dir` from [`user_run_dir`]. `survivors` names processes that may still live in the
/// namespaces of a holder that was killed: supervisors of containers. The working directory is
/// kept. `None`: an ordinary user without a holder, and `need` asks for none.
///
/// # Errors
/// See [`HolderError`].
pub fn enter(
    run_dir: &Path,
    need: Need,
    survivors: &dyn Fn() -> Vec<Task>,
) -> Result<Option<Standing>, HolderError> {
    if privileged() {
        return Ok(Some(Standing::Privileged));
    }
    if let Some(holder) = find(run_dir)
        && join(&holder).is_ok()
    {
        return Ok(Some(Standing::Held(holder)));
    }
    // From here on one at a time, so that two commands started at once share a holder.
    let _lock = lock(run_dir)?;
    if let Some(holder) = find(run_dir) {
        join(&holder)?;
        return Ok(Some(Standing::Held(holder)));
    }
    if survivors().iter().any(|task| task.alive() && join(task).is_ok()) {
        return start(run_dir, "adopt").map(Standing::Held).map(Some);
    }
    if need == Need::IfRunning {
        return Ok(None);
    }
    let holder = start(run_dir, "new")?;
    join(&holder)?;
    Ok(Some(Standing::Held(holder)))
}

/// Ends the holder once its last container is gone. The caller says so; it is not checked.
///
/// # Errors
/// See [`HolderError`].
pub fn release(run_dir: &Path) -> Result<(), HolderError> {
    let _lock = lock(run_dir)?;
    let holder = find(run_dir);
    match std::fs::remove_file(record_path(run_dir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(step("remove the record of the holder")(error));
        }
        _ => {}
    }
    let Some(holder) = holder else {
        return Ok(());
    };
    holder.signal(Signal::TERM).map_err(step("end the holder"))?;
    holder.wait_gone(Duration::from_secs(5)).map_err(step("wait for the holder's end"))?;
    Ok(())
}

fn lock(run_dir: &Path) -> Result<File, HolderError> {
    let path = run_dir.join("holder.lock");
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).mode(0o600);
    let file = options.open(&path).map_err(step(format!("open {}", path.display())))?;
    flock(&file, FlockOperation::LockExclusive)
        .map_err(|e| step(format!("lock {}", path.display()))(e.into()))?;
    Ok(file)
}

fn join(task: &Task) -> Result<(), HolderError> {
    let name = format!("enter the namespaces of process {}", task.pid);
    let home = std::env::current_dir().ok();
    let fd = task
        .open()
        .ok_or_else(|| io::Error::from_raw_os_error(libc::ESRCH))
        .map_err(step(name.clone()))?;
    let which =
        ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT | ThreadNameSpaceType::NETWORK;
    move_into_thread_name_spaces(fd.as_fd(), which).map_err(|e| step(name)(e.into()))?;
    if let Some(home) = home {
        // A directory that is gone, or not visible inside, is no reason to stop.
        let _ = std::env::set_current_dir(home);
    }
    Ok(())
}

/// Starts a holder and waits until it is ready.
fn start(run_dir: &Path, how: &str) -> Result<Task, HolderError> {
    let (mut said, mouth) = io::pipe().map_err(step("make a pipe"))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("twinax-holder")
        .args([HOLD, how])
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(mouth)
        .stderr(Stdio::null());
    let child = command.spawn().map_err(step("execute this program as holder"))?;
    drop(command); // It holds the writing end.
    let mut text = String::new();
    io::Read::read_to_string(&mut said, &mut text).map_err(step("hear from the holder"))?;
    let said: Result<(), Trouble> = serde_json::from_str(&text)
        .map_err(|_| HolderError::Start("it ended unexpectedly; try again".to_owned()))?;
    if let Err(trouble) = said {
        return Err(trouble.explain(&Switches::read()));
    }
    let holder = Task::of(child.id())
        .ok_or_else(|| HolderError::Start("it ended unexpectedly; try again".to_owned()))?;
    let boot = boot_id().map_err(step("read the id of this boot"))?;
    let record =
        serde_json::to_vec(&Record { holder, boot }).map_err(|e| step("write")(e.into()))?;
    let (path, fresh) = (record_path(run_dir), run_dir.join("holder.new"));
    std::fs::write(&fresh, record).and_then(|()| std::fs::rename(&fresh, &path)).map_err(
        |cause| {
            // Nobody would find it again.
            let _ = holder.signal(Signal::TERM);
            step(format!("write {}", path.display()))(cause)
        },
    )?;
    Ok(holder)
}

/// What a holder could not do, by its errno.
#[derive(Debug, Serialize, Deserialize)]
struct Trouble {
    step: String,
    errno: i32,
}

/// The kernel's switches about namespaces, as far as they exist.
#[derive(Debug, Default)]
struct Switches {
    max_user: Option<u64>,
    max_net: Option<u64>,
    max_mnt: Option<u64>,
    unprivileged_clone: Option<u64>,
    apparmor: Option<u64>,
}

impl Switches {
    fn read() -> Self {
        let read = |name: &str| {
            std::fs::read_to_string(Path::new("/proc/sys").join(name)).ok()?.trim().parse().ok()
        };
        Self {
            max_user: read("user/max_user_namespaces"),
            max_net: read("user/max_net_namespaces"),
            max_mnt: read("user/max_mnt_namespaces"),
            unprivileged_clone: read("kernel/unprivileged_userns_clone"),
            apparmor: read("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    /// Which switch is off, and how root turns it on.
    fn off(&self) -> Option<(&'static str, &'static str)> {
        let table = [
            (
                self.max_user,
                0,
                "user.max_user_namespaces is 0",
                "as root run: sysctl -w user.max_user_namespaces=15000",
            ),
            (
                self.max_net,
                0,
                "user.max_net_namespaces is 0",
                "as root run: sysctl -w user.max_net_namespaces=15000",
            ),
            (
                self.max_mnt,
                0,
                "user.max_mnt_namespaces is 0",
                "as root run: sysctl -w user.max_mnt_namespaces=15000",
            ),
            (
                self.unprivileged_clone,
                0,
                "kernel.unprivileged_userns_clone is 0",
                "as root run: sysctl -w kernel.unprivileged_userns_clone=1",
            ),
            (
                self.apparmor,
                1,
                "kernel.apparmor_restrict_unprivileged_userns is 1",
                "as root run: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 (or give this program an AppArmor profile that allows userns)",
            ),
        ];
        let found = table.into_iter().find(|(value, off, ..)| *value == Some(*off));
        found.map(|(_, _, switch, remedy)| (switch, remedy))
    }
}

impl Trouble {
    fn explain(self, switches: &Switches) -> HolderError {
        let cause = || io::Error::from_raw_os_error(self.errno);
        let forbidden =
            |switch: String, remedy| HolderError::Forbidden { switch, remedy, cause: cause() };
        let denied = matches!(self.errno, libc::EPERM | libc::EACCES);
        match (switches.off(), self.errno) {
            (Some((switch, remedy)), _) if denied || self.errno == libc::ENOSPC => {
                forbidden(switch.to_owned(), remedy)
            }
            (None, libc::ENOSPC) => forbidden(
                "the limit of namespaces of a user is reached, or they are nested 32 deep"
                    .to_owned(),
                "end what uses them, or as root raise the user.max_*_namespaces sysctls",
            ),
            (None, libc::ENOSYS | libc::EINVAL) => forbidden(
                "it is built without user namespaces (CONFIG_USER_NS)".to_owned(),
                "run Twinax as root, or boot another kernel",
            ),
            _ if denied => forbidden(
                format!(
                    "no sysctl forbids it, but to {} is denied, as seccomp does in a hardened container",
                    self.step
                ),
                "run Twinax outside of that container, or start it with --privileged or --security-opt seccomp=unconfined",
            ),
            _ => HolderError::Start(format!("cannot {}: {}", self.step, cause())),
        }
    }
}

/// The life of a holder. `how` is `new`, or `adopt` if it is started in the namespaces already.
pub(crate) fn hold(how: Option<&OsStr>) -> ExitCode {
    task::close_inherited();
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"twinax-holder");
    let made = match how.and_then(OsStr::to_str) {
        Some("new") => make_namespaces(),
        _ => Ok(()),
    };
    let signals = made.and_then(|()| {
        Signals::block(&[libc::SIGTERM]).map_err(|e| trouble("take signals as a file")(e))
    });
    let said: Result<(), &Trouble> = signals.as_ref().map(|_| ());
    let told = || -> io::Result<()> {
        let mut out = io::stdout();
        serde_json::to_writer(&mut out, &said)?;
        out.flush()?;
        // Closes the pipe, which ends the message.
        let null = File::options().write(true).open("/dev/null")?;
        Ok(rustix::stdio::dup2_stdout(&null)?)
    };
    let told = told();
    let (Ok(signals), Ok(())) = (signals, told) else {
        return ExitCode::FAILURE;
    };
    task::trim_memory();
    while signals.next().is_none() {
        let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
    }
    ExitCode::SUCCESS
}

fn trouble(step: &str) -> impl FnOnce(io::Error) -> Trouble {
    let step = step.to_owned();
    move |cause| Trouble { step, errno: cause.raw_os_error().unwrap_or(0) }
}

fn make_namespaces() -> Result<(), Trouble> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    task::unshare(UnshareFlags::NEWUSER).map_err(trouble("make a user namespace"))?;
    let write = |path: &str, text: String| {
        std::fs::write(path, text).map_err(trouble("map the own user to root"))
    };
    write("/proc/self/setgroups", "deny".to_owned())?;
    write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    write("/proc/self/gid_map", format!("0 {gid} 1"))?;
    task::unshare(UnshareFlags::NEWNET).map_err(trouble("make a network namespace"))?;
    task::unshare(UnshareFlags::NEWNS).map_err(trouble("make a mount namespace"))?;
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|e| trouble("keep mounts apart")(e.into()))?;
    // Refused where the caller's own /sys is partly covered: then it shows the host's links.
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let _ = mount("sysfs", "/sys", "sysfs", plain, None);
    task::raise_loopback().map_err(trouble("set lo up"))?;
    // Bridged packets are for the bridge's own rules. Absent without br_netfilter.
    for name in ["iptables", "ip6tables", "arptables"] {
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{name}"), "0");
    }
    // A user's later commands must be able to open our namespaces.
    let dumpable = rustix::process::DumpableBehavior::Dumpable;
    rustix::process::set_dumpable_behavior(dumpable)
        .map_err(|e| trouble("let the user's processes enter")(e.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(errno: i32, switches: &Switches) -> String {
        Trouble { step: "make a user namespace".to_owned(), errno }.explain(switches).to_string()
    }

    #[test]
    fn the_switch_that_forbids_is_named_with_its_remedy() {
        let off = Switches { max_user: Some(0), ..Switches::default() };
        assert!(explain(libc::ENOSPC, &off).contains("sysctl -w user.max_user_namespaces=15000"));
        let debian = Switches { unprivileged_clone: Some(0), ..Switches::default() };
        assert!(explain(libc::EPERM, &debian).contains("kernel.unprivileged_userns_clone=1"));
        let ubuntu = Switches { apparmor: Some(1), ..Switches::default() };
        assert!(explain(libc::EACCES, &ubuntu).contains("apparmor_restrict_unprivileged_userns=0"));
        assert!(explain(libc::EPERM, &Switches::default()).contains("seccomp"));
        assert!(explain(libc::ENOMEM, &ubuntu).contains("make a user namespace"));
    }

    #[test]
    fn a_run_directory_of_doubtful_ownership_is_refused() {
        let uid = rustix::process::geteuid().as_raw();
        let base = std::env::temp_dir().join(format!("twinax-holder-{}", std::process::id()));
        secure_dir(&base, uid).unwrap();
        assert!(secure_dir(&base, uid + 1).unwrap_err().to_string().contains("belongs to user"));
        let link = base.join("link");
        std::os::unix::fs::symlink(&base, &link).unwrap();
        assert!(secure_dir(&link, uid).unwrap_err().to_string().contains("not a directory"));
        let open = base.join("open");
        std::fs::create_dir(&open).unwrap();
        let wide = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&open, wide).unwrap();
        assert!(secure_dir(&open, uid).unwrap_err().to_string().contains("chmod 700"));
        std::fs::remove_dir_all(&base).unwrap();
    }
}
