//! One pass over `/proc`: who runs, and where.
//!
//! Four looks a process, each by a path from the opened `/proc`, into buffers that are used again:
//! at a few thousand processes every one of them counts.

use std::{fmt::Write as _, mem::MaybeUninit};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{Mode, OFlags, RawDir},
    io::Errno,
};
use twinax_core::sight::{Inode, Process};

use super::{many, refused};

const PTRACE: rustix::thread::CapabilitySet = rustix::thread::CapabilitySet::SYS_PTRACE;
const PROC: &str = "/proc";

/// Returns all processes that can be seen, without the kernel's own threads (which are all at home
/// in the first namespaces) and without those that have ended; and what could not be seen.
pub fn processes() -> (Vec<Process>, Vec<String>) {
    let listed = open_proc().and_then(|proc| {
        let pids = numbers(&proc)?;
        Ok((proc, pids))
    });
    let (proc, pids) = match listed {
        Ok(listed) => listed,
        Err(errno) => return (Vec::new(), vec![format!("no process: {PROC}: {errno}")]),
    };
    let mut all = Pass::default();
    for part in many(&pids, |pids| Pass::over(&proc, pids)) {
        all.processes.extend(part.processes);
        all.refused += part.refused;
        all.kernel_threads += part.kernel_threads;
    }
    all.processes.sort_unstable_by_key(|process| process.pid);
    let mut unseen = Vec::new();
    if all.refused > 0 {
        let what =
            format!("the network namespace of {}", count(all.refused, "process", "processes"));
        unseen.push(refused(&what, PTRACE, "CAP_SYS_PTRACE"));
    }
    // They are children of the first pid namespace, and belong to root.
    if all.kernel_threads == 0 {
        let what = "processes of other pid namespaces, or hidden by the options of /proc";
        unseen.push(format!("{what}, are not seen"));
    }
    (all.processes, unseen)
}

/// `1 process`, `2 processes`.
pub(super) fn count(number: usize, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

pub(super) fn open_proc() -> Result<OwnedFd, Errno> {
    open_dir(rustix::fs::CWD, PROC)
}

pub(super) fn open_dir(at: impl AsFd, path: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(at, path, flags, Mode::empty())
}

/// The entries of an open folder of `/proc` that are numbers, as far as they can be read.
pub(super) fn numbers(dir: &OwnedFd) -> Result<Vec<u32>, Errno> {
    let mut buffer = [MaybeUninit::uninit(); 32768];
    let mut entries = RawDir::new(dir, &mut buffer);
    let mut numbers = Vec::new();
    while let Some(entry) = entries.next() {
        let Ok(entry) = entry else { break };
        numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// The number in a link such as `net:[4026531840]`.
pub(super) fn linked(dir: impl AsFd, path: &str, kind: &str) -> Result<Inode, Errno> {
    let mut buffer = [0; 64];
    let text = link(dir, path, &mut buffer)?;
    inode_in(text, kind).ok_or(Errno::INVAL)
}

/// What a link says, as much as `buffer` holds.
pub(super) fn link<'a>(
    dir: impl AsFd,
    path: &str,
    buffer: &'a mut [u8],
) -> Result<&'a [u8], Errno> {
    let length = rustix::fs::readlinkat_raw(dir, path, &mut *buffer)?;
    Ok(&buffer[..length])
}

/// Reads `net:[4026531840]`.
pub(super) fn inode_in(text: &[u8], kind: &str) -> Option<Inode> {
    let number = text.strip_prefix(kind.as_bytes())?.strip_prefix(b":[")?.strip_suffix(b"]")?;
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// Reads a whole file of `/proc` into `into`, in place of what was in it.
pub(super) fn text(proc: BorrowedFd<'_>, path: &str, into: &mut Vec<u8>) -> Result<(), Errno> {
    read(proc, path, into, false)
}

/// As [`text`], of a file that the kernel writes in one go: a short read is the last.
fn short_text(proc: BorrowedFd<'_>, path: &str, into: &mut Vec<u8>) -> Result<(), Errno> {
    read(proc, path, into, true)
}

fn read(proc: BorrowedFd<'_>, path: &str, into: &mut Vec<u8>, at_once: bool) -> Result<(), Errno> {
    const STEP: usize = 4096;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(proc, path, flags, Mode::empty())?;
    into.clear();
    loop {
        into.reserve(STEP);
        match rustix::io::read(&file, rustix::buffer::spare_capacity(into)) {
            Ok(0) => return Ok(()),
            Ok(_) if at_once && into.len() < into.capacity() => return Ok(()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[derive(Default)]
pub(super) struct Pass {
    pub(super) processes: Vec<Process>,
    refused: usize,
    kernel_threads: usize,
}

impl Pass {
    pub(super) fn over(proc: &OwnedFd, pids: &[u32]) -> Self {
        let mut pass = Self::default();
        let (mut path, mut buffer) = (String::new(), Vec::new());
        for &pid in pids {
            // Whoever ends on the way is no longer there, which is all there is to it.
            pass.look(proc.as_fd(), pid, &mut path, &mut buffer);
        }
        pass
    }

    fn look(
        &mut self,
        proc: BorrowedFd<'_>,
        pid: u32,
        path: &mut String,
        buffer: &mut Vec<u8>,
    ) -> Option<()> {
        path.clear();
        write!(path, "{pid}/stat").ok()?;
        short_text(proc, path, buffer).ok()?;
        let stat = Stat::parse(buffer)?;
        if stat.kernel_thread {
            self.kernel_threads += 1;
            return None;
        }
        // Of a process whose first thread has ended, others may live on.
        if stat.ended && stat.threads < 2 {
            return None;
        }
        let mut process = Process { pid, start: stat.start, comm: stat.comm, ..Process::default() };
        (process.threads, process.parent) = (stat.threads, stat.parent);
        path.clear();
        write!(path, "{pid}/ns/net").ok()?;
        match linked(proc, path, "net") {
            Ok(inode) => process.netns = Some(inode),
            Err(Errno::ACCESS | Errno::PERM) if !stat.ended => self.refused += 1,
            // It has ended since.
            Err(_) if !stat.ended => return None,
            Err(_) => {}
        }
        if process.netns.is_some() {
            path.clear();
            write!(path, "{pid}/ns/mnt").ok()?;
            process.mntns = linked(proc, path, "mnt").ok();
        }
        path.clear();
        write!(path, "{pid}/cgroup").ok()?;
        if short_text(proc, path, buffer).is_ok() {
            process.cgroup = longest_cgroup(buffer);
        }
        self.processes.push(process);
        Some(())
    }
}

/// What is wanted of `/proc/PID/stat` (proc(5)).
#[derive(Debug, PartialEq)]
struct Stat {
    comm: String,
    ended: bool,
    kernel_thread: bool,
    parent: u32,
    threads: u32,
    start: u64,
}

impl Stat {
    /// The name stands in parentheses and may hold any of them, so the last one counts.
    fn parse(stat: &[u8]) -> Option<Self> {
        const PF_KTHREAD: u64 = 0x0020_0000;
        let open = stat.iter().position(|&byte| byte == b'(')?;
        let close = stat.iter().rposition(|&byte| byte == b')')?;
        let comm = String::from_utf8_lossy(stat.get(open + 1..close)?).into_owned();
        let mut fields = stat.get(close + 2..)?.split(|&byte| byte == b' ');
        let mut number = |skip: usize| -> Option<u64> {
            std::str::from_utf8(fields.nth(skip)?).ok()?.trim_end().parse().ok()
        };
        let state = *stat.get(close + 2)?;
        let parent = u32::try_from(number(1)?).ok()?;
        let flags = number(4)?;
        let threads = u32::try_from(number(10)?).ok()?;
        let start = number(1)?;
        let ended = matches!(state, b'Z' | b'X' | b'x');
        let kernel_thread = flags & PF_KTHREAD != 0;
        Some(Self { comm, ended, kernel_thread, parent, threads, start })
    }
}

/// The longest path of `ID:CONTROLLERS:PATH` lines; at equal length that of the unified hierarchy,
/// which comes last.
pub(super) fn longest_cgroup(lines: &[u8]) -> String {
    let path = |line: &[u8]| -> Option<String> {
        let path = line.splitn(3, |&byte| byte == b':').nth(2)?;
        Some(String::from_utf8_lossy(path).into_owned())
    };
    let paths = lines.split(|&byte| byte == b'\n').filter_map(path);
    paths.max_by_key(String::len).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_of_a_process_is_read() {
        let rest = "S 1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 6 7\n";
        for (name, comm) in
            [("sh", "sh"), ("a) S 1 (", "a) S 1 ("), ("x\n\u{1b}[2J", "x\n\u{1b}[2J")]
        {
            let stat = Stat::parse(format!("5 ({name}) {rest}").as_bytes()).unwrap();
            let wanted = Stat {
                comm: comm.to_owned(),
                ended: false,
                kernel_thread: false,
                parent: 1,
                threads: 3,
                start: 12345,
            };
            assert_eq!(stat, wanted);
        }
        let mut broken = b"5 (\xff\xfe) Z 1 5 5 0 -1 2097152 ".to_vec();
        broken.extend(b"1 2 3 4 5 6 7 8 20 0 1 0 9");
        let stat = Stat::parse(&broken).unwrap();
        assert_eq!((stat.comm.as_str(), stat.ended), ("\u{fffd}\u{fffd}", true));
        assert!(stat.kernel_thread);
    }

    #[test]
    fn what_is_cut_short_is_no_process() {
        let whole = b"5 (x) S 1 5 5 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345";
        for length in 0..whole.len() - 5 {
            assert_eq!(Stat::parse(&whole[..length]), None, "{length}");
        }
        assert_eq!(Stat::parse(b")("), None);
    }

    #[test]
    fn the_longest_cgroup_tells_most() {
        assert_eq!(longest_cgroup(b"0::/a\n"), "/a");
        assert_eq!(longest_cgroup(b"2:cpu:/docker/1:2\n1:name=systemd:/b\n0::/\n"), "/docker/1:2");
        assert_eq!(longest_cgroup(b"1:cpu:/x\n0::/y\n"), "/y");
        assert_eq!(longest_cgroup(b"nonsense\n"), "");
    }
}
