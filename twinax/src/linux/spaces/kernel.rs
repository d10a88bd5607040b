//! The kernel's own list of network namespaces, read from its memory: nothing escapes it.
//!
//! # Theory of operation
//!
//! A program of a few thousand instructions is put together here, with the offsets that the
//! kernel's description of its types gives, and run by the kernel on request (`BPF_PROG_TEST_RUN`).
//! It hooks nothing and writes nothing but its answer: from the namespace of the caller it follows
//! `net.list` around, some entries a run. One of the entries is the head of the list, which is no
//! namespace: the real ones all have the same `ns.ops`.
//!
//! The list may change on the way, and what a stale entry leads to is memory that is somebody
//! else's by now; reading that is harmless (`bpf_probe_read_kernel`), but an answer could be short.
//! So the walk is repeated until two agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    os::fd::OwnedFd,
    sync::OnceLock,
};

use rustix::io::Errno;
use twinax_core::sight::Inode;

use super::{ask, btf::Types};

const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Namespaces a run; the words of each.
const BATCH: usize = 16;
const WORDS: usize = 5;
const MOUNT_WORDS: usize = 2;
/// More namespaces than any machine has.
const RUNS_MAX: usize = 1 << 14;
const WALKS_MAX: usize = 4;

/// What the list says of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) cookie: u64,
    /// What it is opened by; before Linux 6.18 there is no such number.
    pub(super) id: Option<u64>,
}

/// Where things are in the kernel's structures.
#[derive(Clone, Copy, Debug)]
struct Offsets {
    nsproxy: u32,
    net: u32,
    list: u32,
    inode: u32,
    id: Option<u32>,
    cookie: u32,
    ops: u32,
    mounts: Option<MountOffsets>,
}

/// What leads to the mounts of namespaces, from Linux 6.18.
#[derive(Clone, Copy, Debug)]
struct MountOffsets {
    stashed: u32,
    system: u32,
    first: u32,
    next: u32,
    /// The mount namespace, and its inode in that.
    within: u32,
    inode: u32,
}

/// Returns every network namespace of the machine, or what it takes to read the list. `own` is the
/// caller's, which the list must have.
pub(super) fn list(own: Inode, own_cookie: u64) -> Result<BTreeMap<Inode, Entry>, &'static str> {
    let walker = Walker::load()?;
    let unsteady = "the kernel's list to hold still";
    let mut last: Option<BTreeMap<Inode, Entry>> = None;
    for _ in 0..WALKS_MAX {
        let Some(walk) = walker.walk() else { continue };
        if walk.get(&own).is_none_or(|entry| entry.cookie != own_cookie) {
            return Err("a kernel whose types are what it says they are");
        }
        match &last {
            Some(last) if last.keys().eq(walk.keys()) => return Ok(walk),
            _ => last = Some(walk),
        }
    }
    last.ok_or(unsteady)
}

/// A program that walks the list, ready to be run.
#[derive(Debug)]
pub(super) struct Walker {
    program: OwnedFd,
    has_id: bool,
}

impl Walker {
    /// Returns it, or what it takes to have one.
    pub(super) fn load() -> Result<Self, &'static str> {
        let offsets =
            offsets().ok_or("a kernel that describes its types (CONFIG_DEBUG_INFO_BTF)")?;
        let program = ask::load(&program(&offsets)).map_err(|errno| match errno {
            Errno::PERM | Errno::ACCESS => "CAP_BPF and CAP_PERFMON",
            _ => "a kernel that takes BPF programs to be called (Linux 5.14)",
        })?;
        Ok(Self { program, has_id: offsets.id.is_some() })
    }

    /// Goes around once; `None` if it does not come back to where it began. What is returned may
    /// be short, or have what is gone, if the list changed on the way.
    pub(super) fn walk(&self) -> Option<BTreeMap<Inode, Entry>> {
        walk(&self.program, self.has_id)
    }
}

/// Read once: the types of a running kernel do not change.
fn offsets() -> Option<Offsets> {
    static OFFSETS: OnceLock<Option<Offsets>> = OnceLock::new();
    *OFFSETS.get_or_init(|| {
        let mut file = File::open(BTF).ok()?;
        let length = ask::length(&file).ok()?;
        // Copying five megabytes is most of the cost, where they cannot be mapped (Linux 6.16).
        if let Ok(mapped) = ask::Mapped::of(std::os::fd::AsFd::as_fd(&file), length) {
            return offsets_in(mapped.bytes());
        }
        let mut bytes = Vec::with_capacity(length);
        file.read_to_end(&mut bytes).ok()?;
        offsets_in(&bytes)
    })
}

fn offsets_in(bytes: &[u8]) -> Option<Offsets> {
    const WANTED: [(&str, &str); 14] = [
        ("task_struct", "nsproxy"),
        ("nsproxy", "net_ns"),
        ("net", "list"),
        ("net", "ns"),
        ("net", "net_cookie"),
        ("ns_common", "inum"),
        ("ns_common", "ops"),
        ("ns_common", "ns_id"),
        ("ns_common", "stashed"),
        ("dentry", "d_sb"),
        ("super_block", "s_mounts"),
        ("mount", "mnt_next_for_sb"),
        ("mount", "mnt_ns"),
        ("mnt_namespace", "ns"),
    ];
    let found = Types::of(bytes)?.offsets(&WANTED);
    let ns = found[3]?;
    let mounts = || {
        Some(MountOffsets {
            stashed: ns + found[8]?,
            system: found[9]?,
            first: found[10]?,
            next: found[11]?,
            within: found[12]?,
            inode: found[13]? + found[5]?,
        })
    };
    Some(Offsets {
        nsproxy: found[0]?,
        net: found[1]?,
        list: found[2]?,
        inode: ns + found[5]?,
        id: found[7].map(|id| ns + id),
        cookie: found[4]?,
        ops: ns + found[6]?,
        mounts: mounts(),
    })
}

/// Goes around once; `None` if it does not come back to where it began.
fn walk(program: &OwnedFd, has_id: bool) -> Option<BTreeMap<Inode, Entry>> {
    let mut context = vec![0u64; 1 + BATCH * WORDS];
    let mut seen = BTreeMap::new();
    let mut first: Option<(u64, u64)> = None;
    for _ in 0..RUNS_MAX {
        ask::run(program, &mut context).ok()?;
        for entry in context[1..].chunks_exact(WORDS) {
            let [at, inode, id, cookie, ops] = entry.try_into().ok()?;
            let &mut (start, real) = first.get_or_insert((at, ops));
            if at == start && !seen.is_empty() {
                return Some(seen);
            }
            if ops == real && inode != 0 {
                seen.insert(inode, Entry { cookie, id: has_id.then_some(id) });
            }
        }
    }
    None
}

/// Returns the mount namespaces that have any namespace mounted; `None` where that cannot be told.
///
/// All namespaces are files of one file system, and the kernel has a list of its mounts. It is
/// walked as that of the network namespaces is.
pub(super) fn with_mounts() -> Option<BTreeSet<Inode>> {
    let offsets = offsets()?;
    let mounts = offsets.mounts?;
    // While it is open, the kernel has a name for the caller's own, which leads to the file system.
    let _own = File::open("/proc/thread-self/ns/net").ok()?;
    let program = ask::load(&mounts_program(&offsets, &mounts)).ok()?;
    let mut last = None;
    for _ in 0..WALKS_MAX {
        let walk = walk_mounts(&program)?;
        if last.as_ref() == Some(&walk) {
            return last;
        }
        last = Some(walk);
    }
    None
}

fn walk_mounts(program: &OwnedFd) -> Option<BTreeSet<Inode>> {
    let mut context = vec![0u64; 1 + BATCH * MOUNT_WORDS];
    let mut seen = BTreeSet::new();
    for run in 0..RUNS_MAX {
        ask::run(program, &mut context).ok()?;
        for (n, entry) in context[1..].chunks_exact(MOUNT_WORDS).enumerate() {
            let [at, inode] = entry.try_into().ok()?;
            // The kernel itself has one, which is first or last: there is no list without any.
            if at == 0 {
                return (run > 0 || n > 1).then_some(seen);
            }
            // What begins the list is no mount; the kernel's own is in no namespace.
            if (run > 0 || n > 0) && inode != 0 {
                seen.insert(inode);
            }
        }
        if context[0] == 0 {
            return Some(seen);
        }
    }
    None
}

/// As [`program`]: the entries are those of the list of mounts, each with its namespace's inode.
fn mounts_program(offsets: &Offsets, mounts: &MountOffsets) -> Vec<u64> {
    let mut code = Code::default();
    code.push(MOV, (CONTEXT, 1), 0, 0);
    code.push(LOAD, (CURSOR, CONTEXT), 0, 0);
    let mut start = Code::default();
    start.push(CALL, (0, 0), 0, GET_CURRENT_TASK);
    start.push(MOV, (3, 0), 0, 0);
    start.read(offsets.nsproxy, 8);
    for offset in [offsets.net, mounts.stashed, mounts.system] {
        start.push(LOAD, (3, STACK), SLOT, 0);
        start.read(offset, 8);
    }
    start.push(LOAD, (CURSOR, STACK), SLOT, 0);
    // From here the next one is found as from any other.
    start.push(ADD, (CURSOR, 0), 0, mounts.first as i32 - mounts.next as i32);
    code.push(JUMP_UNLESS_EQUAL, (CURSOR, 0), start.0.len() as i16, 0);
    code.0.extend(start.0);
    for n in 0..BATCH {
        let at = |word: usize| ((1 + n * MOUNT_WORDS + word) * 8) as i16;
        code.push(STORE, (CONTEXT, CURSOR), at(0), 0);
        code.push(MOV, (3, CURSOR), 0, 0);
        code.read(mounts.within, 8);
        code.push(LOAD, (3, STACK), SLOT, 0);
        code.push(SET, (1, 0), 0, 0);
        code.push(STORE, (STACK, 1), SLOT, 0);
        code.read(mounts.inode, 4);
        code.push(LOAD, (1, STACK), SLOT, 0);
        code.push(STORE, (CONTEXT, 1), at(1), 0);
        code.push(MOV, (3, CURSOR), 0, 0);
        code.read(mounts.next, 8);
        code.push(LOAD, (CURSOR, STACK), SLOT, 0);
    }
    code.push(STORE, (CONTEXT, CURSOR), 0, 0);
    code.push(SET, (0, 0), 0, 0);
    code.push(EXIT, (0, 0), 0, 0);
    code.0
}

/// The program: word 0 of its context is where to go on (0: from the caller's namespace), then
/// come the entries.
fn program(offsets: &Offsets) -> Vec<u64> {
    let mut code = Code::default();
    code.push(MOV, (CONTEXT, 1), 0, 0);
    code.push(LOAD, (CURSOR, CONTEXT), 0, 0);
    let mut start = Code::default();
    start.push(CALL, (0, 0), 0, GET_CURRENT_TASK);
    start.push(MOV, (3, 0), 0, 0);
    start.read(offsets.nsproxy, 8);
    start.push(LOAD, (3, STACK), SLOT, 0);
    start.read(offsets.net, 8);
    start.push(LOAD, (CURSOR, STACK), SLOT, 0);
    code.push(JUMP_UNLESS_EQUAL, (CURSOR, 0), start.0.len() as i16, 0);
    code.0.extend(start.0);
    for n in 0..BATCH {
        let at = |word: usize| ((1 + n * WORDS + word) * 8) as i16;
        code.push(STORE, (CONTEXT, CURSOR), at(0), 0);
        let fields = [
            (Some(offsets.inode), 4),
            (offsets.id, 8),
            (Some(offsets.cookie), 8),
            (Some(offsets.ops), 8),
        ];
        for (word, (offset, size)) in fields.into_iter().enumerate() {
            code.push(SET, (1, 0), 0, 0);
            code.push(STORE, (STACK, 1), SLOT, 0);
            if let Some(offset) = offset {
                code.push(MOV, (3, CURSOR), 0, 0);
                code.read(offset, size);
            }
            code.push(LOAD, (1, STACK), SLOT, 0);
            code.push(STORE, (CONTEXT, 1), at(1 + word), 0);
        }
        code.push(MOV, (3, CURSOR), 0, 0);
        code.read(offsets.list, 8);
        code.push(LOAD, (CURSOR, STACK), SLOT, 0);
        code.push(ADD, (CURSOR, 0), 0, -(offsets.list as i32));
    }
    code.push(STORE, (CONTEXT, CURSOR), 0, 0);
    code.push(SET, (0, 0), 0, 0);
    code.push(EXIT, (0, 0), 0, 0);
    code.0
}

/// Operations, registers, helpers (linux/bpf.h).
const MOV: u8 = 0xbf;
const SET: u8 = 0xb7;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
const STORE: u8 = 0x7b;
const LOAD: u8 = 0x79;
const JUMP_UNLESS_EQUAL: u8 = 0x55;
const CONTEXT: u8 = 6;
const CURSOR: u8 = 7;
const STACK: u8 = 10;
/// Where on the stack what is read arrives.
const SLOT: i16 = -8;
const GET_CURRENT_TASK: i32 = 35;
const PROBE_READ_KERNEL: i32 = 113;

#[derive(Default)]
struct Code(Vec<u64>);

impl Code {
    fn push(&mut self, operation: u8, (to, from): (u8, u8), offset: i16, number: i32) {
        let ([low, high], number) = (offset.to_ne_bytes(), number.to_ne_bytes());
        let registers =
            if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        let [a, b, c, d] = number;
        self.0.push(u64::from_ne_bytes([operation, registers, low, high, a, b, c, d]));
    }

    /// Reads `size` bytes, `offset` after where register 3 points, into the slot.
    fn read(&mut self, offset: u32, size: i32) {
        self.push(ADD, (3, 0), 0, offset as i32);
        self.push(MOV, (1, STACK), 0, 0);
        self.push(ADD, (1, 0), 0, SLOT.into());
        self.push(SET, (2, 0), 0, size);
        self.push(CALL, (0, 0), 0, PROBE_READ_KERNEL);
    }
}

#[cfg(test)]
mod tests {
    use rustix::{
        fs::{fstat, stat},
        mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount},
    };

    use super::*;
    use crate::linux::{
        netns::own_cookie,
        task::{UnshareFlags, unshare},
    };

    /// Where the tests may read the list, as root of the machine; others learn what that takes.
    #[test]
    fn the_list_has_what_only_a_descriptor_holds() {
        const NET: &str = "/proc/thread-self/ns/net";
        let (own, cookie) = (stat(NET).unwrap().st_ino, own_cookie().unwrap());
        let before = match list(own, cookie) {
            Ok(list) => list,
            Err(needs) => return assert!(!needs.is_empty()),
        };
        assert_eq!(before[&own].cookie, cookie);
        let plant = || {
            unshare(UnshareFlags::NEWNET).unwrap();
            (File::open(NET).unwrap(), own_cookie().unwrap())
        };
        let (planted, cookie) = std::thread::spawn(plant).join().unwrap();
        let inode = fstat(&planted).unwrap().st_ino;
        assert!(!before.contains_key(&inode));
        let entry = list(own, own_cookie().unwrap()).unwrap()[&inode];
        assert_eq!(entry.cookie, cookie);
        if let Some(id) = entry.id {
            let opened = ask::open_namespace(id, inode as u32).unwrap();
            assert_eq!(fstat(&opened).unwrap().st_ino, inode);
        }
    }

    /// Likewise: the mount namespace is there as long as a namespace is mounted in it, and where
    /// another is unmounted stays none.
    #[test]
    fn mount_namespaces_with_a_mounted_namespace_are_told() {
        const MNT: &str = "/proc/thread-self/ns/mnt";
        if with_mounts().is_none() {
            let (own, cookie) = (stat("/proc/thread-self/ns/net").unwrap().st_ino, own_cookie());
            let older = offsets().is_none_or(|offsets| offsets.mounts.is_none());
            return assert!(older || list(own, cookie.unwrap()).is_err());
        }
        let file = std::env::temp_dir().join(format!("twinax-mounted-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let plant = |keep: bool| {
            let file = file.clone();
            let plant = move || {
                unshare(UnshareFlags::FS | UnshareFlags::NEWNS).unwrap();
                let alone = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
                mount_change("/", alone).unwrap();
                mount_bind("/proc/thread-self/ns/net", &file).unwrap();
                if !keep {
                    unmount(&file, UnmountFlags::DETACH).unwrap();
                }
                File::open(MNT).unwrap()
            };
            std::thread::spawn(plant).join().unwrap()
        };
        let (with, without) = (plant(true), plant(false));
        // Others come and go, and a list that does not hold still is not believed.
        let told = (0..100).find_map(|_| with_mounts());
        // Which unmounts what is on it, wherever that is.
        std::fs::remove_file(&file).unwrap();
        let told = told.unwrap();
        assert!(told.contains(&fstat(&with).unwrap().st_ino));
        assert!(!told.contains(&fstat(&without).unwrap().st_ino));
    }
}
