//! Files of containers on a file system that nobody serves.

use std::{
    fs::{self, File},
    os::{fd::AsRawFd, unix::fs::symlink},
    path::Path,
    time::{Duration, Instant},
};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use twinax::runtimes::{PATIENCE, workloads};
use twinax_core::sight::{Process, Runtime};

use crate::{harness::Outcome, sandbox::Sandbox, tests};

tests![a_file_system_that_nobody_serves_stops_nobody];

/// An engine in a container, whose `/var` is such a file system; and a container beside it.
fn a_file_system_that_nobody_serves_stops_nobody(_: &mut Sandbox) -> Outcome {
    let Ok(device) = File::options().read(true).write(true).open("/dev/fuse") else {
        return Outcome::Skip("no /dev/fuse".into());
    };
    let root = std::env::temp_dir().join(format!("twinax-unanswered-{}", std::process::id()));
    let id = "4b".repeat(32);
    let processes = [
        process(&root, (1, 0), ("init", 1), "/"),
        process(&root, (10, 1), ("containerd-shim", 2), "/"),
        process(&root, (11, 10), ("web", 3), &format!("/docker/{id}")),
        process(&root, (20, 1), ("init", 4), "/lxc.payload.beside"),
    ];
    fs::write(root.join("proc/10/cmdline"), "shim\0-namespace\0moby\0-id\0x\0").unwrap();
    symlink(format!("/var/{id}"), root.join("proc/10/cwd")).unwrap();
    let var = root.join("proc/10/root/var");
    fs::create_dir_all(&var).unwrap();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let options = std::ffi::CString::new(options).unwrap();
    if mount("none", &var, "fuse", MountFlags::empty(), options.as_c_str()).is_err() {
        fs::remove_dir_all(&root).unwrap();
        return Outcome::Skip("no file system in user space can be mounted".into());
    }
    let before = Instant::now();
    let (found, unseen) = workloads(&processes, &root);
    let took = before.elapsed();
    drop(device); // Whoever waits for it is told now that it is gone.
    unmount(&var, UnmountFlags::DETACH).unwrap();
    fs::remove_dir_all(&root).unwrap();
    assert!(took >= PATIENCE, "nothing was waited for: {took:?}");
    assert!(took < PATIENCE + Duration::from_secs(1), "{took:?}");
    let found: Vec<_> = found.iter().map(|one| (one.runtime, one.name.as_str())).collect();
    let engine = (Runtime::Process, "containerd-shim");
    assert_eq!(found, [(Runtime::Docker, &id[..12]), (Runtime::Lxc, "beside"), engine]);
    assert!(matches!(&unseen[..], [line] if line.contains("did not answer")), "{unseen:?}");
    Outcome::Passed
}

/// Makes what is read of a process that `parent` started, in namespaces with the number `space`.
fn process(
    root: &Path,
    (pid, parent): (u32, u32),
    (comm, space): (&str, u64),
    cgroup: &str,
) -> Process {
    let dir = root.join(format!("proc/{pid}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("stat"), format!("{pid} ({comm}) S {parent} 0")).unwrap();
    Process {
        pid,
        start: u64::from(pid),
        comm: comm.to_owned(),
        netns: Some(space),
        mntns: Some(space),
        cgroup: cgroup.to_owned(),
        ..Process::default()
    }
}
