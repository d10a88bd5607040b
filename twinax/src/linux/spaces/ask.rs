//! The kernel's questions about namespaces, mounts and its own memory that no safe crate asks.
//!
//! Each asks and changes nothing; none may be put to a descriptor of unknown kind, as the numbers
//! of `ioctl` mean something else to every driver.
#![allow(unsafe_code, reason = "rustix has none of these calls")]

use std::{
    io,
    mem::size_of_val,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::io::Errno;

use super::super::netlink::last_errno;

/// The namespace of a socket (linux/sockios.h), of a tun device too.
pub(super) const SIOCGSKNS: libc::Ioctl = 0x894c;
/// The namespace that a tun device is in (linux/if_tun.h).
pub(super) const TUNGETDEVNETNS: libc::Ioctl = 0x54e3;
/// linux/nsfs.h.
const NS_GET_ID: libc::Ioctl = 0x8008_b70d;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const NS_GET_MNTNS_ID: libc::Ioctl = 0x8008_b705;
const NS_MNT_GET_NEXT: libc::Ioctl = 0x8010_b70b;
const NS_MNT_GET_PREV: libc::Ioctl = 0x8010_b70c;

/// The same numbers on every architecture.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
/// `struct mnt_id_req`, `MNT_ID_REQ_SIZE_VER1`.
const REQUEST_SIZE: u32 = 32;

fn descriptor(got: libc::c_long) -> Result<OwnedFd, Errno> {
    match i32::try_from(got) {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(last_errno()),
    }
}

/// The namespace that a socket or a tun device belongs to. `fd` must be known to be one.
pub(super) fn namespace_of(fd: BorrowedFd<'_>, question: libc::Ioctl) -> Result<OwnedFd, Errno> {
    // SAFETY: neither question has an argument; the answer is a new descriptor.
    descriptor(unsafe { libc::ioctl(fd.as_raw_fd(), question, 0) }.into())
}

/// Whether a namespace is one of the network. `fd` must be known to be a namespace.
pub(super) fn is_of_network(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: the question has no argument.
    unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}

/// What identifies a namespace until the next boot, from Linux 6.18; of a network namespace that
/// is its cookie. `fd` must be known to be a namespace.
pub(super) fn namespace_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut id: u64 = 0;
    // SAFETY: the kernel writes eight bytes into `id`.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_ID, &raw mut id) } {
        0 => Ok(id),
        _ => Err(last_errno()),
    }
}

/// What the kernel calls a mount namespace where it lists mounts, from Linux 6.10. `fd` must be known
/// to be a namespace.
pub(super) fn mounts_id(fd: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut id: u64 = 0;
    // SAFETY: the kernel writes eight bytes into `id`.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_MNTNS_ID, &raw mut id) } {
        0 => Ok(id),
        _ => Err(last_errno()),
    }
}

/// The mount namespace after or before that of `fd` in the kernel's list, of those the caller may
/// see, and its number (from Linux 6.12); `ENOENT` at the end.
pub(super) fn neighbour(fd: BorrowedFd<'_>, forward: bool) -> Result<(OwnedFd, u64), Errno> {
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        size: u32,
        mounts: u32,
        id: u64,
    }
    let mut info = Info { size: 16, ..Info::default() };
    let question = if forward { NS_MNT_GET_NEXT } else { NS_MNT_GET_PREV };
    // SAFETY: the kernel writes sixteen bytes into `info`, and returns a new descriptor.
    let got = unsafe { libc::ioctl(fd.as_raw_fd(), question, &raw mut info) };
    Ok((descriptor(got.into())?, info.id))
}

/// Lists up to `into.len()` mounts of a mount namespace, those after `after`.
pub(super) fn list_mounts(namespace: u64, after: u64, into: &mut [u64]) -> Result<usize, Errno> {
    const LSMT_ROOT: u64 = u64::MAX;
    let request = request_of([u64::from(REQUEST_SIZE), LSMT_ROOT, after, namespace]);
    // SAFETY: the kernel reads 32 bytes of `request` and writes at most `into.len()` numbers.
    let got =
        unsafe { libc::syscall(SYS_LISTMOUNT, request.as_ptr(), into.as_mut_ptr(), into.len(), 0) };
    usize::try_from(got).map_err(|_| last_errno())
}

/// `STATMOUNT_SB_BASIC`: of the file system.
pub(super) const OF_SYSTEM: u64 = 0x1;
/// `STATMOUNT_MNT_ROOT` and `_MNT_POINT` as well.
pub(super) const OF_PLACE: u64 = OF_SYSTEM | 0x8 | 0x10;

/// Fills `into` with the `struct statmount` of a mount, as far as is `wanted`.
pub(super) fn mount_facts(
    (namespace, mount): (u64, u64),
    wanted: u64,
    into: &mut [u8],
) -> Result<(), Errno> {
    let request = request_of([u64::from(REQUEST_SIZE), mount, wanted, namespace]);
    // SAFETY: the kernel reads 32 bytes of `request` and writes at most `into.len()` into `into`.
    let got =
        unsafe { libc::syscall(SYS_STATMOUNT, request.as_ptr(), into.as_mut_ptr(), into.len(), 0) };
    if got == 0 { Ok(()) } else { Err(last_errno()) }
}

/// `struct mnt_id_req`: the size and a spare word of four bytes each, then the rest as it is.
fn request_of([size, mount, param, namespace]: [u64; 4]) -> [u64; 4] {
    let mut first = [0; 8];
    first[..4].copy_from_slice(&(size as u32).to_ne_bytes());
    [u64::from_ne_bytes(first), mount, param, namespace]
}

/// Opens a network namespace by what the kernel calls it (from Linux 6.18).
pub(super) fn open_namespace(id: u64, inode: u32) -> Result<OwnedFd, Errno> {
    const FD_NSFS_ROOT: libc::c_int = -10003;
    const FILEID_NSFS: i32 = 0xf1;
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 8],
        namespace: u32,
        inode: u32,
    }
    let mut handle = Handle {
        bytes: 16,
        kind: FILEID_NSFS,
        id: id.to_ne_bytes(),
        namespace: libc::CLONE_NEWNET as u32,
        inode,
    };
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: `handle` is a live `struct file_handle` with the sixteen bytes it says.
    descriptor(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, FD_NSFS_ROOT, &raw mut handle, flags)
    })
}

/// A whole file as the kernel has it in memory, not copied.
#[derive(Debug)]
pub(super) struct Mapped {
    at: *mut libc::c_void,
    length: usize,
}

impl Mapped {
    /// Maps the first `length` bytes, which must not change while the file exists.
    pub(super) fn of(file: BorrowedFd<'_>, length: usize) -> Result<Self, Errno> {
        let null = std::ptr::null_mut();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs none.
        let at = unsafe {
            let fd = file.as_raw_fd();
            libc::mmap(null, length, libc::PROT_READ, libc::MAP_PRIVATE, fd, 0)
        };
        if at == libc::MAP_FAILED { Err(last_errno()) } else { Ok(Self { at, length }) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is live, readable, of that length, and of memory that is constant.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: made by `of`, and no reference into it outlives `self`.
        unsafe { libc::munmap(self.at, self.length) };
    }
}

/// `union bpf_attr`, of which only the first words are used.
type Attr = [u64; 19];

fn bpf(command: libc::c_int, attr: &mut Attr) -> Result<libc::c_long, Errno> {
    // SAFETY: every pointer in `attr` is of a live buffer with the length that stands beside it,
    // as the two callers make it.
    let got =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if got < 0 { Err(last_errno()) } else { Ok(got) }
}

/// Two words of four bytes in a row.
fn pair(first: u32, second: u32) -> u64 {
    let (first, second) = (first.to_ne_bytes(), second.to_ne_bytes());
    let mut both = [0; 8];
    both[..4].copy_from_slice(&first);
    both[4..].copy_from_slice(&second);
    u64::from_ne_bytes(both)
}

/// Has the kernel verify and load a program that runs when [`run`] says so, and only then.
pub(super) fn load(program: &[u64]) -> Result<OwnedFd, Errno> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const BPF_PROG_TYPE_SYSCALL: u32 = 31;
    const BPF_F_SLEEPABLE: u32 = 1 << 4;
    let mut attr = Attr::default();
    attr[0] = pair(BPF_PROG_TYPE_SYSCALL, program.len() as u32);
    attr[1] = program.as_ptr() as u64;
    attr[2] = c"Dual MIT/GPL".as_ptr() as u64;
    // No log: level, size and buffer stay zero; then the version, and the flags beside it.
    attr[5] = pair(0, BPF_F_SLEEPABLE);
    let fd = descriptor(bpf(BPF_PROG_LOAD, &mut attr)?)?;
    Ok(fd)
}

/// Runs a loaded program once over `context`.
pub(super) fn run(program: &OwnedFd, context: &mut [u64]) -> Result<(), Errno> {
    const BPF_PROG_TEST_RUN: libc::c_int = 10;
    let mut attr = Attr::default();
    attr[0] = pair(program.as_fd().as_raw_fd() as u32, 0);
    attr[5] = pair(size_of_val(context) as u32, 0);
    attr[6] = context.as_mut_ptr() as u64;
    bpf(BPF_PROG_TEST_RUN, &mut attr)?;
    Ok(())
}

/// The length of a file.
pub(super) fn length(file: &std::fs::File) -> io::Result<usize> {
    usize::try_from(file.metadata()?.len()).map_err(io::Error::other)
}
