//! Files below one root, read so that whoever owns them can neither lead the reader elsewhere nor
//! keep it waiting.

use std::{
    cell::Cell,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{Dir, FileType, FsWord, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2, readlinkat},
    io::Errno,
};

/// Longer files are not a runtime's record of one container.
pub(super) const RECORD: u64 = 1 << 20;
/// Databases, and the mounts of a busy host.
pub(super) const LARGE: u64 = 64 << 20;
/// `NSFS_MAGIC` (include/uapi/linux/magic.h).
const NSFS: FsWord = 0x6e73_6673;
/// More names than this are not read from a directory.
const NAMES: usize = 65_536;

/// A root directory and what is reached from there: absolute links lead back into it, the
/// kernel's magic ones nowhere.
#[derive(Debug)]
pub(super) struct View {
    root: OwnedFd,
    /// How often the kernel said that this is none of our business.
    denied: Cell<u32>,
}

impl View {
    /// Opens the directory at `path`, which is trusted: `/`, or `/proc/PID/root`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { root: rustix::fs::open(path, flags, Mode::empty())?, denied: Cell::new(0) })
    }

    /// How many files were kept from us.
    pub(super) fn denied(&self) -> u32 {
        self.denied.get()
    }

    /// Returns a regular file's bytes; `None` if there is none, it may not be read or is longer
    /// than `most`.
    pub(super) fn read(&self, path: &str, most: u64) -> Option<Vec<u8>> {
        bounded(self.file(path)?, most)
    }

    /// As [`View::read`], of a file that the kernel makes up, or that only root can have put there:
    /// it is what it seems, and is opened only once.
    pub(super) fn read_proc(&self, path: &str, most: u64) -> Option<Vec<u8>> {
        bounded(self.reach(path, OFlags::RDONLY | OFlags::NONBLOCK)?.into(), most)
    }

    /// Returns a view of a folder below, if only root can have put there what is in it.
    pub(super) fn of_root(&self, path: &str) -> Option<Self> {
        let root = self.reach(path, OFlags::PATH | OFlags::DIRECTORY)?;
        let stat = fstat(&root).ok()?;
        let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH);
        (stat.st_uid == 0 && !others).then(|| Self { root, denied: Cell::new(0) })
    }

    /// Opens a regular file.
    fn file(&self, path: &str) -> Option<File> {
        // What it is must be known before it is opened: opening a device may do something.
        let place = self.reach(path, OFlags::PATH)?;
        if !is_a(&place, FileType::RegularFile) {
            return None;
        }
        let fd = self.reach(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        // It may have been changed for another in between.
        is_a(&fd, FileType::RegularFile).then(|| fd.into())
    }

    /// The names in a directory, sorted.
    pub(super) fn list(&self, path: &str) -> Vec<String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK;
        let Some(dir) = self.reach(path, flags).and_then(|fd| Dir::new(fd).ok()) else {
            return Vec::new();
        };
        let names = dir.take(NAMES).map_while(Result::ok);
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name != "." && name != "..").collect();
        names.sort_unstable();
        names
    }

    /// Where a symbolic link leads, as it has it.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let (folder, name) = path.trim_start_matches('/').rsplit_once('/')?;
        let folder = self.reach(folder, OFlags::PATH | OFlags::DIRECTORY)?;
        let target = readlinkat(folder, name, Vec::new());
        Some(self.noted(target)?.to_string_lossy().into_owned())
    }

    /// The inode's number of the namespace that is mounted on `path`.
    pub(super) fn namespace(&self, path: &str) -> Option<u64> {
        let place = self.reach(path, OFlags::PATH)?;
        let is_one = fstatfs(&place).is_ok_and(|system| system.f_type == NSFS);
        is_one.then(|| fstat(&place).ok().map(|stat| stat.st_ino))?
    }

    fn reach(&self, path: &str, flags: OFlags) -> Option<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        let opened = openat2(&self.root, path, flags, Mode::empty(), resolve);
        // It says so where somebody moves directories about meanwhile.
        let opened = match opened {
            Err(Errno::AGAIN) => openat2(&self.root, path, flags, Mode::empty(), resolve),
            outcome => outcome,
        };
        self.noted(opened)
    }

    fn noted<T>(&self, outcome: rustix::io::Result<T>) -> Option<T> {
        if matches!(outcome, Err(Errno::ACCESS | Errno::PERM)) {
            self.denied.set(self.denied.get() + 1);
        }
        outcome.ok()
    }
}

fn bounded(file: File, most: u64) -> Option<Vec<u8>> {
    // Most are shorter than this.
    let mut bytes = Vec::with_capacity(8192);
    file.take(most + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= most).then_some(bytes)
}

fn is_a(fd: &OwnedFd, kind: FileType) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == kind)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_leads_out_of_the_root_or_waits() {
        let base = std::env::temp_dir().join(format!("twinax-view-{}", std::process::id()));
        let root = base.join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::write(base.join("secret"), "outside").unwrap();
        std::fs::write(root.join("secret"), "inside").unwrap();
        std::fs::write(root.join("long"), vec![b'x'; 100]).unwrap();
        symlink("/secret", root.join("etc/absolute")).unwrap();
        symlink("../../secret", root.join("etc/upwards")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            root.join("fifo"),
            FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .unwrap();
        let view = View::open(&root).unwrap();
        for path in ["etc/absolute", "/etc/upwards", "secret", "../secret"] {
            assert_eq!(view.read(path, RECORD).as_deref(), Some(&b"inside"[..]), "{path}");
        }
        for path in ["fifo", "etc", "loop", "magic/etc/passwd", "none", ""] {
            assert_eq!(view.read(path, RECORD), None, "{path}");
        }
        assert_eq!(view.read("long", 99), None);
        assert_eq!(view.read("long", 100).map(|bytes| bytes.len()), Some(100));
        assert_eq!(view.link("etc/absolute").as_deref(), Some("/secret"));
        assert_eq!(view.list("etc"), ["absolute", "upwards"]);
        assert_eq!(view.list("fifo"), [""; 0]);
        std::fs::remove_dir_all(base).unwrap();
    }
}
