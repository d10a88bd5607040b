//! Files that network namespaces are mounted on, in every mount namespace.
//!
//! A mount namespace is read by what one process in it sees (`/proc/PID/mountinfo`); those without
//! a process are asked of the kernel, from Linux 6.12.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd,
};

use rustix::{
    fd::OwnedFd,
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
    thread::{CapabilitySet, LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use twinax_core::sight::{Inode, Process};

use super::{
    ask, is_it, kernel, many,
    processes::{count, inode_in, link, text},
    refused, reopened,
};
use crate::linux::task::unshare;

/// `NSFS_MAGIC` (linux/magic.h).
const NSFS_MAGIC: u64 = 0x6e73_6673;
/// How many of a mount namespace's processes are tried for one that sees all of it.
const TRIED: usize = 8;
/// File systems that find a name by themselves. Others may ask a server, which may be stuck.
const LOCAL: [&[u8]; 14] = [
    b"tmpfs",
    b"ramfs",
    b"rootfs",
    b"devtmpfs",
    b"ext2",
    b"ext3",
    b"ext4",
    b"xfs",
    b"btrfs",
    b"overlay",
    b"squashfs",
    b"erofs",
    b"f2fs",
    b"zfs",
];

/// A network namespace on a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) inode: Inode,
    /// As bytes, because the name may be any.
    pub(super) path: Vec<u8>,
    /// Who sees it there; 0: nobody.
    pub(super) seen_by: u32,
    /// In the mount namespace of the caller.
    pub(super) ours: bool,
    /// No file system on the way may have to ask a server.
    local: bool,
}

/// All mounts, and mount namespaces that nobody is in.
#[derive(Default)]
pub(super) struct Mounts {
    pub(super) mounts: Vec<Mount>,
    pub(super) deserted: Vec<OwnedFd>,
    pub(super) unseen: Vec<String>,
}

/// Reads the mount namespaces of `processes`, and those of nobody.
pub(super) fn mounts(proc: &OwnedFd, processes: &[Process]) -> Mounts {
    let mut groups: BTreeMap<Inode, Vec<u32>> = BTreeMap::new();
    for process in processes {
        if let Some(inode) = process.mntns {
            groups.entry(inode).or_default().push(process.pid);
        }
    }
    let own = rustix::fs::stat("/proc/thread-self/ns/mnt").map(|stat| stat.st_ino).ok();
    // What we see ourselves is named as we see it.
    if let Some(pids) = own.and_then(|own| groups.get_mut(&own)) {
        pids.insert(0, std::process::id());
    }
    let lived_in: BTreeSet<Inode> = groups.keys().copied().collect();
    let with_some = kernel::with_mounts();
    let worth = |inode: &Inode| with_some.as_ref().is_none_or(|some| some.contains(inode));
    let groups: Vec<_> = groups.into_iter().filter(|(inode, _)| worth(inode)).collect();
    let mut all = Mounts::default();
    let mut unread = 0;
    for (mounts, refused) in many(&groups, |groups| read_groups(proc, groups, own)) {
        all.mounts.extend(mounts);
        unread += refused;
    }
    if unread > 0 {
        let what = format!("mounts of {}", count(unread, "mount namespace", "mount namespaces"));
        all.unseen.push(refused(&what, CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE"));
    }
    if with_some.is_none_or(|some| !some.is_subset(&lived_in)) {
        deserted(&lived_in, &mut all);
    }
    all
}

/// Reads the mount namespace where we are.
pub(super) fn ours(proc: &OwnedFd) -> Mounts {
    let own = rustix::fs::stat("/proc/thread-self/ns/mnt").map(|stat| stat.st_ino).ok();
    let groups = own.map(|own| (own, vec![std::process::id()]));
    let (mounts, _) = read_groups(proc, groups.as_slice(), own);
    Mounts { mounts, ..Mounts::default() }
}

/// Reads each mount namespace by one of its processes; counts those it may not read.
fn read_groups(
    proc: &OwnedFd,
    groups: &[(Inode, Vec<u32>)],
    own: Option<Inode>,
) -> (Vec<Mount>, usize) {
    let (mut mounts, mut refused, mut buffer) = (Vec::new(), 0, Vec::new());
    for (inode, pids) in groups {
        // Most have none, and to be told so is a fraction of the work.
        if pids.first().is_some_and(|pid| has_none(proc, *pid, *inode)) {
            continue;
        }
        let mut order: Vec<u32> = pids.iter().copied().take(TRIED).collect();
        // Whoever has another root sees only what is below it.
        let mut root = [0; 2];
        order.sort_by_key(|pid| !matches!(link(proc, &format!("{pid}/root"), &mut root), Ok(b"/")));
        let mut last = None;
        let read = order.into_iter().find(|pid| {
            last = text(proc.as_fd(), &format!("{pid}/mountinfo"), &mut buffer).err();
            last.is_none()
        });
        match read {
            Some(pid) => mounts.extend(mounts_in(&buffer, pid, Some(*inode) == own)),
            None => refused += usize::from(matches!(last, Some(Errno::ACCESS | Errno::PERM))),
        }
    }
    (mounts, refused)
}

/// Whether no namespace is mounted in a mount namespace, for certain: the kernel lists its mounts
/// by number and tells the file system of each, from Linux 6.10.
fn has_none(proc: &OwnedFd, pid: u32, inode: Inode) -> bool {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(proc, format!("{pid}/ns/mnt"), flags, Mode::empty()) else {
        return false;
    };
    // It may have gone elsewhere since.
    let Some(id) = is_it(&fd, inode).then(|| ask::mounts_id(fd.as_fd()).ok()).flatten() else {
        return false;
    };
    let (mut ids, mut after) = ([0; 512], 0);
    let mut facts = [0; 512];
    loop {
        let number = match ask::list_mounts(id, after, &mut ids) {
            Ok(0) => return true,
            Ok(number) => number,
            Err(_) => return false,
        };
        for &mount in &ids[..number] {
            match ask::mount_facts((id, mount), ask::OF_SYSTEM, &mut facts) {
                Ok(()) if magic(&facts).is_some_and(|magic| magic != NSFS_MAGIC) => {}
                // It has been unmounted.
                Err(Errno::NOENT) => {}
                _ => return false,
            }
            after = mount;
        }
        if number < ids.len() {
            return true;
        }
    }
}

/// Of which kind the file system is, in a `struct statmount` (linux/mount.h), if it says so.
fn magic(facts: &[u8]) -> Option<u64> {
    let number = |at: usize| Some(u64::from_ne_bytes(facts.get(at..at + 8)?.try_into().ok()?));
    let said = number(8)? & ask::OF_SYSTEM != 0;
    number(24).filter(|_| said)
}

/// A line of mountinfo (proc(5)).
struct Line<'a> {
    root: &'a [u8],
    place: &'a [u8],
    kind: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut words = line.split(|&byte| byte == b' ');
        let (root, place) = (words.nth(3)?, words.next()?);
        // Options, then fields of which there may be any number, then a dash.
        words.find(|word| *word == b"-")?;
        Some(Self { root, place, kind: words.next()? })
    }
}

fn mounts_in(mountinfo: &[u8], seen_by: u32, ours: bool) -> Vec<Mount> {
    let lines = || mountinfo.split(|&byte| byte == b'\n').filter_map(Line::parse);
    let remote: Vec<&[u8]> = lines()
        .filter(|line| !LOCAL.contains(&line.kind) && line.kind != b"nsfs")
        .map(|line| line.place)
        .collect();
    let nsfs = lines().filter(|line| line.kind == b"nsfs");
    let mount = |line: Line<'_>| {
        let inode = inode_in(line.root, "net")?;
        let local = !remote.iter().any(|above| lies_below(line.place, above));
        Some(Mount { inode, path: unescaped(line.place), seen_by, ours, local })
    };
    nsfs.filter_map(mount).collect()
}

fn lies_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above)
        .is_some_and(|rest| above == b"/" || matches!(rest.first(), None | Some(b'/')))
}

/// Undoes `\040` and the like.
fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        let octal = text.get(at + 1..at + 4).filter(|_| byte == b'\\').and_then(octal);
        bytes.push(octal.unwrap_or(byte));
        at += if octal.is_some() { 4 } else { 1 };
    }
    bytes
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = digits.iter().map(|digit| digit.checked_sub(b'0').filter(|digit| *digit < 8));
    let value = digits
        .map(|digit| digit.map(u32::from))
        .try_fold(0, |sum, digit| Some(sum * 8 + digit?))?;
    u8::try_from(value).ok()
}

/// Finds the mount namespaces that no process is in: held by a descriptor, or mounted themselves.
fn deserted(lived_in: &BTreeSet<Inode>, all: &mut Mounts) {
    const MORE_THAN_ANY: usize = 1 << 20;
    let Ok(own) = std::fs::File::open("/proc/thread-self/ns/mnt") else {
        return;
    };
    for forward in [true, false] {
        let mut here = OwnedFd::from(match own.try_clone() {
            Ok(own) => own,
            Err(_) => return,
        });
        for _ in 0..MORE_THAN_ANY {
            let (next, id) = match ask::neighbour(here.as_fd(), forward) {
                Ok(found) => found,
                Err(Errno::NOENT) => break,
                Err(errno) => {
                    all.unseen.push(why_not(errno));
                    return;
                }
            };
            let inode = rustix::fs::fstat(&next).map(|stat| stat.st_ino);
            let is_new = inode.is_ok_and(|inode| !lived_in.contains(&inode));
            let found = if is_new { mounts_of(id) } else { Vec::new() };
            if !found.is_empty() {
                all.mounts.extend(found);
                // Kept, to open what is mounted there.
                all.deserted.extend(next.try_clone());
            }
            here = next;
        }
    }
}

fn why_not(errno: Errno) -> String {
    let what = "mounts in mount namespaces without a process";
    match errno {
        // Over the whole machine: a pid or user namespace of our own is in the way too.
        Errno::PERM | Errno::ACCESS => refused(what, CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN"),
        _ => format!("{what} cannot be seen: needs Linux 6.12"),
    }
}

/// The network namespaces mounted in a mount namespace of this number.
fn mounts_of(namespace: u64) -> Vec<Mount> {
    let (mut ids, mut after) = ([0; 512], 0);
    let mut facts = vec![0; 512 + 2 * 4096];
    let mut found = Vec::new();
    while let Ok(number @ 1..) = ask::list_mounts(namespace, after, &mut ids) {
        for &id in &ids[..number] {
            if ask::mount_facts((namespace, id), ask::OF_PLACE, &mut facts).is_ok() {
                found.extend(mount_from(&facts));
            }
            after = id;
        }
    }
    found
}

/// Reads a `struct statmount` (linux/mount.h).
fn mount_from(facts: &[u8]) -> Option<Mount> {
    let word = |at: usize| -> Option<[u8; 4]> { facts.get(at..at + 4)?.try_into().ok() };
    let text = |at: usize| -> Option<&[u8]> {
        let rest = facts.get(512 + u32::from_ne_bytes(word(at)?) as usize..)?;
        rest.split(|&byte| byte == 0).next()
    };
    if magic(facts)? != NSFS_MAGIC {
        return None;
    }
    let (root, place) = (text(104)?, text(108)?);
    let inode = inode_in(root, "net")?;
    Some(Mount { inode, path: unescaped(place), seen_by: 0, ours: false, local: false })
}

impl Mount {
    /// Opens the namespace by the name it is mounted on, if that still leads to it.
    pub(super) fn open(&self, proc: &OwnedFd) -> Option<OwnedFd> {
        reopened(&self.at(proc)?, self.inode)
    }

    /// Whether the name leads to the namespace, and not to what is mounted above it.
    pub(super) fn leads_there(&self, proc: &OwnedFd) -> bool {
        self.at(proc).is_some_and(|file| is_it(&file, self.inode))
    }

    /// A file by this name could be anything by now: it is opened for nothing, which has no effect
    /// on any, and followed only where no link leads astray.
    fn at(&self, proc: &OwnedFd) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = format!("{}/root", self.seen_by);
        let root = rustix::fs::openat(proc, root, flags, Mode::empty()).ok()?;
        let path = self.path.strip_prefix(b"/")?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        if !self.local {
            resolve |= ResolveFlags::CACHED;
        }
        rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()
    }

    /// Opens the namespace from inside a mount namespace that nobody is in, on a thread that goes
    /// there and ends.
    pub(super) fn open_inside(&self, deserted: &[OwnedFd]) -> Option<OwnedFd> {
        let visit = |namespace: &OwnedFd| {
            // A thread that shares its root with others may not go.
            unshare(UnshareFlags::FS).ok()?;
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount)).ok()?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let root = rustix::fs::open("/", flags, Mode::empty()).ok()?;
            let path = self.path.strip_prefix(b"/")?;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::CACHED;
            rustix::fs::openat2(root, path, flags, Mode::empty(), resolve).ok()
        };
        deserted.iter().find_map(|namespace| {
            let there = || visit(namespace);
            let file = std::thread::scope(|scope| scope.spawn(there).join().ok().flatten())?;
            // Here, where there is a `/proc`.
            reopened(&file, self.inode)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_whatever_they_are() {
        assert_eq!(unescaped(br"/a\040b\012c\134"), b"/a b\nc\\");
        assert_eq!(unescaped(br"\04\999\777\"), br"\04\999\777\");
        let line = br"10 1 0:4 net:[4026532184] /run/a\012b rw,nosuid shared:5 - nsfs nsfs rw";
        let [mount] = &mounts_in(line, 7, true)[..] else { panic!("one mount") };
        assert_eq!((mount.inode, mount.path.as_slice()), (4_026_532_184, &b"/run/a\nb"[..]));
        assert!(mount.local && mount.ours);
    }

    #[test]
    fn other_lines_are_no_namespaces() {
        let lines: [&[u8]; 5] = [
            b"10 1 0:4 mnt:[4026532184] /x rw - nsfs nsfs rw",
            b"10 1 0:4 net:[4026532184] /x rw - tmpfs nsfs rw",
            b"10 1 0:4 net:[x] /x rw - nsfs nsfs rw",
            b"10 1 0:4 net:[4026532184] /x rw",
            b"",
        ];
        assert_eq!(mounts_in(&lines.join(&b'\n'), 1, false), []);
    }

    #[test]
    fn what_lies_on_a_server_is_known() {
        let info = b"1 0 0:1 / / rw - ext4 x rw\n2 1 0:2 / /mnt rw - fuse.x x rw\n\
                     3 2 0:4 net:[7] /mnt/x rw - nsfs nsfs rw\n\
                     4 1 0:4 net:[8] /mntx rw - nsfs nsfs rw";
        let local: Vec<bool> = mounts_in(info, 1, false).iter().map(|mount| mount.local).collect();
        assert_eq!(local, [false, true]);
    }
}
