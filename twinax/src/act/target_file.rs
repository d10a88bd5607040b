//! Files that a user names to be written: found where the user stands, written where Twinax acts.
//!
//! An ordinary user's commands move to another mount namespace. The directory of the file is opened
//! before that, and the file by it.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, fcntl_setfl, fsync, openat, renameat, statat,
        unlinkat,
    },
    io::Errno,
};

use twinax_core::map::shown;

use super::failed::Failed;

/// A name in a directory that was there when the command began.
pub(super) struct TargetFile {
    dir: OwnedFd,
    name: OsString,
    shown: PathBuf,
}

impl TargetFile {
    /// Finds the directory; touches no file.
    pub(super) fn find(path: &Path) -> Result<Self, Failed> {
        let cannot = |cause: io::Error| failed(path, &cause);
        let Some(name) = path.file_name() else {
            return Err(failed(path, &io::ErrorKind::IsADirectory.into()));
        };
        let parent = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, parent.unwrap_or_else(|| Path::new(".")), flags, Mode::empty());
        let dir = dir.map_err(|errno| cannot(errno.into()))?;
        Ok(Self { dir, name: name.to_owned(), shown: path.to_owned() })
    }

    /// Opens the file, emptied if it is there, for its owner only if it is not. A symbolic link is
    /// not followed: somebody else may have put it there. `None`: it is a named pipe, which nobody
    /// reads yet.
    pub(super) fn create(&self) -> Result<Option<File>, Failed> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NONBLOCK;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
        match openat(&self.dir, &self.name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => {
                // Only the opening was not to wait.
                fcntl_setfl(&fd, OFlags::empty()).map_err(|e| failed(&self.shown, &e.into()))?;
                Ok(Some(fd.into()))
            }
            Err(Errno::NXIO) if self.kind(AtFlags::SYMLINK_NOFOLLOW) == Some(FileType::Fifo) => {
                Ok(None)
            }
            Err(Errno::LOOP) => {
                let what =
                    format!("{} is a symbolic link", shown(&self.shown.display().to_string()));
                Err(Failed::told(what).hint("name the file that it leads to"))
            }
            Err(errno) => Err(failed(&self.shown, &errno.into())),
        }
    }

    /// What is there; `None` where nothing is.
    fn kind(&self, flags: AtFlags) -> Option<FileType> {
        let stat = statat(&self.dir, &self.name, flags).ok()?;
        Some(FileType::from_raw_mode(stat.st_mode))
    }

    /// Puts a whole file in place of what is there, or leaves that as it is. A link is replaced, not
    /// followed.
    ///
    /// A device or a pipe is refused, and so is a link to one: in place of `/dev/null` or
    /// `/dev/stdout` a file is not what anybody wants.
    pub(super) fn replace(&self, bytes: &[u8]) -> Result<(), Failed> {
        let what = match self.kind(AtFlags::empty()) {
            None | Some(FileType::RegularFile | FileType::Directory) => "",
            Some(FileType::Fifo) => "a pipe",
            Some(FileType::Socket) => "a socket",
            Some(_) => "a device",
        };
        if !what.is_empty() {
            let name = shown(&self.shown.display().to_string());
            return Err(Failed::told(format!("{name} is {what}, and a file would take its place"))
                .hint("- writes to standard output, and leads where you want"));
        }
        // Not named after the file, whose name may be as long as one can be.
        let name = OsString::from(format!(".twinax.{}", std::process::id()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || -> io::Result<()> {
            let mut file = File::from(openat(&self.dir, &name, flags, Mode::RUSR | Mode::WUSR)?);
            let written = file.write_all(bytes).and_then(|()| Ok(fsync(&file)?));
            let placed =
                written.and_then(|()| Ok(renameat(&self.dir, &name, &self.dir, &self.name)?));
            if placed.is_err() {
                // What failed before is what is told.
                let _ = unlinkat(&self.dir, &name, AtFlags::empty());
            }
            placed
        };
        write().map_err(|cause| failed(&self.shown, &cause))
    }
}

fn failed(path: &Path, cause: &io::Error) -> Failed {
    Failed::told(format!("cannot write {}: {cause}", shown(&path.display().to_string())))
}
