//! Questions that no safe crate asks: for tables of `iptables-legacy`, and for BPF programs.
//! Each asks and changes nothing.
#![allow(unsafe_code, reason = "rustix has neither these socket options nor bpf(2)")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::linux::netlink::last_errno;

/// Asks a socket for an option that tells as much as `buffer` holds; what is asked for stands at
/// its beginning. Returns how much was told.
pub(super) fn option(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    buffer: &mut [u8],
) -> Result<usize, Errno> {
    let mut len = libc::socklen_t::try_from(buffer.len()).map_err(|_| Errno::INVAL)?;
    // SAFETY: the kernel reads and writes at most `len` bytes of `buffer`, and writes `len`.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, name, buffer.as_mut_ptr().cast(), &raw mut len)
    };
    if result == 0 { Ok(len as usize) } else { Err(last_errno()) }
}

/// `union bpf_attr`, of which only the first words are used.
type Attr = [u32; 38];

fn bpf(command: libc::c_int, attr: &mut Attr) -> Result<libc::c_long, Errno> {
    // SAFETY: every pointer in `attr` is of a live buffer with the length that stands beside it,
    // as the callers make it; the kernel writes within `attr` and those buffers.
    let got =
        unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if got < 0 { Err(last_errno()) } else { Ok(got) }
}

fn put(attr: &mut Attr, at: usize, pointer: u64) {
    let bytes = pointer.to_ne_bytes();
    attr[at] = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    attr[at + 1] = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
}

/// The programs at an attach point of a link of the calling thread's namespace (`BPF_TCX_*`).
pub(super) fn programs_at(index: u32, attach_type: u32) -> Result<Vec<u32>, Errno> {
    const BPF_PROG_QUERY: libc::c_int = 16;
    let mut ids = [0u32; 64];
    let mut attr: Attr = [0; 38];
    attr[0] = index;
    attr[1] = attach_type;
    put(&mut attr, 4, ids.as_mut_ptr() as u64);
    attr[6] = ids.len() as u32;
    bpf(BPF_PROG_QUERY, &mut attr)?;
    let count = ids.len().min(attr[6] as usize);
    Ok(ids[..count].to_vec())
}

/// What a program is called; empty where that may not be asked.
pub(super) fn program_name(id: u32) -> String {
    named(id).unwrap_or_default()
}

fn named(id: u32) -> Result<String, Errno> {
    const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    /// Where `name` stands in `struct bpf_prog_info`.
    const NAME: usize = 64;
    let mut attr: Attr = [0; 38];
    attr[0] = id;
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    let fd = i32::try_from(fd).map_err(|_| Errno::BADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut info = [0u8; NAME + 16];
    let mut attr: Attr = [0; 38];
    attr[0] = fd.as_fd().as_raw_fd().cast_unsigned();
    attr[1] = info.len() as u32;
    put(&mut attr, 2, info.as_mut_ptr() as u64);
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    let name = info[NAME..].split(|byte| *byte == 0).next().unwrap_or_default();
    Ok(String::from_utf8_lossy(name).into_owned())
}
