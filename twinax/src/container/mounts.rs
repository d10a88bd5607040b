//! What a container sees of files that is not the host's: `/proc`, `/sys`, `/etc/hosts`,
//! `/etc/resolv.conf`, and its host name.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, open},
    io::Errno,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
        mount_bind, mount_change, move_mount, open_tree, unmount,
    },
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};

use crate::{
    container::{Failure, Go, Task},
    linux::task,
};

/// Keeps what is mounted in this mount namespace from showing outside. What the host mounts later
/// shows up inside.
pub(super) fn keep_apart() -> Result<(), Failure> {
    let flags = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", flags).map_err(|e| Failure::step("keep mounts apart from the host's", e))
}

/// Makes the mounts of the calling process, which has a mount namespace of its own and keeps it
/// apart. Returns what could not be had but can be done without.
pub(super) fn furnish(go: &Go, own_net: bool) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    let plain = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(errno) = mount("proc", "/proc", "proc", plain, None) {
        // Refused where the caller's own /proc is partly covered, as in most containers.
        warnings.push(format!("/proc shows the processes of the host: {errno}"));
    }
    if own_net && let Err(error) = fresh_sys(plain) {
        warnings.push(format!("/sys/class/net shows the links of the host: {error}"));
    }
    if let Some(hosts) = &go.hosts
        && let Err(errno) = mount_bind(hosts, HOSTS)
    {
        warnings.push(format!("{HOSTS} is the host's, not {}: {errno}", hosts.display()));
    }
    if let Some(resolv) = &go.resolv {
        mount_bind(resolv, RESOLV).map_err(|errno| {
            let step = format!("show {} as {RESOLV}", resolv.display());
            let hint = "the file must exist on the host";
            Failure::step(
                step,
                if errno == Errno::NOENT { hint.to_owned() } else { errno.to_string() },
            )
        })?;
    }
    if let Some(hostname) = &go.hostname {
        rustix::system::sethostname(hostname.as_bytes())
            .map_err(|e| Failure::step(format!("set the host name to {hostname}"), e))?;
    }
    Ok(warnings)
}

const HOSTS: &str = "/etc/hosts";
const RESOLV: &str = "/etc/resolv.conf";

/// Mounts a sysfs of this network namespace, and what was mounted below the old one on it.
fn fresh_sys(flags: MountFlags) -> io::Result<()> {
    let below = mounts_below_sys(&std::fs::read_to_string("/proc/self/mountinfo")?);
    let kept: Vec<(PathBuf, OwnedFd)> = below
        .into_iter()
        .filter_map(|path| {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE
                | OpenTreeFlags::OPEN_TREE_CLOEXEC
                | OpenTreeFlags::AT_RECURSIVE;
            let tree = open_tree(CWD, &path, flags).ok()?;
            Some((path, tree))
        })
        .collect();
    mount("sysfs", "/sys", "sysfs", flags, None)?;
    for (path, tree) in kept {
        // A debugging file system less is no reason to fail.
        let _ = move_mount(&tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
    }
    Ok(())
}

/// The mount points directly below `/sys` in the text of `mountinfo` (proc(5): field 5).
fn mounts_below_sys(mountinfo: &str) -> Vec<PathBuf> {
    let mut points: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(PathBuf::from)
        .filter(|point| point.starts_with("/sys") && point != Path::new("/sys"))
        .collect();
    points.sort();
    // Sorted, a mount point follows the one it lies in, whose tree brings it along.
    points.dedup_by(|later, kept| later.starts_with(&*kept));
    points
}

/// Why a running container goes on with its old hosts file.
#[derive(Debug, thiserror::Error)]
#[error("cannot show {path} as {HOSTS} to process {pid}: {step}", path = .path.display())]
pub struct RemountFailed {
    path: PathBuf,
    pid: u32,
    step: &'static str,
    #[source]
    cause: io::Error,
}

/// Shows the file `path` as `/etc/hosts` to the container of `init`, instead of the one before.
///
/// # Errors
/// When the container is gone, or the kernel refuses; the old file stays then.
pub fn remount_hosts(init: &Task, path: &Path) -> Result<(), RemountFailed> {
    let failed = |step: &'static str, cause: io::Error| RemountFailed {
        path: path.to_owned(),
        pid: init.pid,
        step,
        cause,
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, path, flags).map_err(|e| failed("open the file", e.into()))?;
    let namespace = format!("/proc/{}/ns/mnt", init.pid);
    let namespace = open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| failed("open its mount namespace", e.into()))?;
    if !init.alive() {
        return Err(failed("open its mount namespace", Errno::SRCH.into()));
    }
    // A thread that ends with the job: nobody else must find itself among foreign mounts.
    let job = || -> Result<(), (&'static str, io::Error)> {
        task::unshare(UnshareFlags::FS).map_err(|e| ("leave the shared directory", e))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
            .map_err(|e| ("enter its mount namespace", e.into()))?;
        replace(&tree).map_err(|e| ("mount it", e.into()))
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .spawn_scoped(scope, job)
            .map_err(|e| ("start a thread", e))?;
        thread.join().unwrap_or_else(|_| Err(("run a thread", io::Error::other("it panicked"))))
    })
    .map_err(|(step, cause)| failed(step, cause))
}

/// Puts `tree` under the present mount and takes that off, so that there is a hosts file of the
/// container's at every moment; the other way round where the kernel cannot (before Linux 6.5).
fn replace(tree: &OwnedFd) -> Result<(), Errno> {
    let plain = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    let beneath = MoveMountFlags::from_bits_retain(plain.bits() | MOVE_MOUNT_BENEATH);
    if move_mount(tree, "", CWD, HOSTS, beneath).is_ok() {
        return unmount(HOSTS, UnmountFlags::DETACH);
    }
    match unmount(HOSTS, UnmountFlags::DETACH) {
        // Not a mount point: it could not be mounted on when the container started.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    move_mount(tree, "", CWD, HOSTS, plain)
}

/// `include/uapi/linux/mount.h`
const MOVE_MOUNT_BENEATH: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_within_another_comes_with_it() {
        let text = "\
            24 1 0:22 / /sys rw - sysfs sysfs rw\n\
            25 24 0:7 / /sys/kernel/security rw - securityfs s rw\n\
            26 24 0:28 / /sys/fs/cgroup rw - cgroup2 c rw\n\
            27 26 0:29 / /sys/fs/cgroup/x rw - tmpfs t rw\n\
            28 1 0:30 / /system rw - tmpfs t rw\n";
        let found = mounts_below_sys(text);
        assert_eq!(found, [PathBuf::from("/sys/fs/cgroup"), "/sys/kernel/security".into()]);
    }
}
