//! Finds network namespaces, proves that they are the ones meant, and opens sockets inside.
//!
//! The calling thread is never left in a namespace other than its own.
#![allow(unsafe_code, reason = "rustix has no SO_NETNS_COOKIE")]

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space},
};
use twinax_core::state::{Sandbox, Way};

use super::{netlink::last_errno, process::Task, socket::RouteSocket};

/// Why a namespace is not there to be worked in.
#[derive(Debug, thiserror::Error)]
pub enum NetnsError {
    #[error("network namespace {what} is gone")]
    Gone { what: String },
    #[error("cannot {doing} network namespace {what}")]
    System {
        doing: &'static str,
        what: String,
        #[source]
        cause: io::Error,
    },
    #[error("{path} is not a network namespace")]
    NotOne { path: String },
    /// Whoever asked must follow the name to the container that owns the namespace.
    #[error("the namespace of container {0} has to be looked up under its own name")]
    Shared(String),
}

/// A network namespace that stays alive while the handle does.
#[derive(Debug)]
pub struct NetnsHandle {
    /// `None`: the namespace of the calling thread.
    fd: Option<OwnedFd>,
    what: String,
}

impl NetnsHandle {
    /// Opens the namespace that `way` leads to, whichever it is by now; see [`Self::of`]. Whether a
    /// file is a namespace at all shows when it is first entered.
    pub fn open(way: &Way) -> Result<Self, NetnsError> {
        match way {
            Way::Host => Ok(Self { fd: None, what: "of the host".to_owned() }),
            Way::Path(path) => Self::open_path(path),
            Way::Pid { pid, start } => Self::open_pid(*pid, *start),
            Way::Of(name) => Err(NetnsError::Shared(name.to_string())),
        }
    }

    /// Opens the namespace of a sandbox if it still is the one on record.
    pub fn of(sandbox: &Sandbox) -> Result<Self, NetnsError> {
        let handle = Self::open(&sandbox.way)?;
        match sandbox.cookie {
            Some(cookie) if handle.cookie()? == cookie => Ok(handle),
            _ => Err(NetnsError::Gone { what: handle.what }),
        }
    }

    /// Opens the namespace of a sandbox, if it still is the one on record, with a socket in it.
    pub fn with_socket(sandbox: &Sandbox) -> Result<(Self, RouteSocket), NetnsError> {
        let (cookie, handle, socket) = Self::meet(&sandbox.way)?;
        match sandbox.cookie == Some(cookie) {
            true => Ok((handle, socket)),
            false => Err(NetnsError::Gone { what: handle.what }),
        }
    }

    /// Opens the namespace that `way` leads to, whichever it is by now, with a socket in it; tells
    /// its cookie too.
    pub fn meet(way: &Way) -> Result<(u64, Self, RouteSocket), NetnsError> {
        let handle = Self::open(way)?;
        let socket = handle.route_socket()?;
        let cookie = cookie_at(socket.as_fd());
        let cookie = cookie.map_err(|errno| handle.failed("read the cookie of", errno))?;
        Ok((cookie, handle, socket))
    }

    fn open_path(path: &str) -> Result<Self, NetnsError> {
        Ok(Self { fd: Some(open(path)?), what: path.to_owned() })
    }

    fn open_pid(pid: u32, start: u64) -> Result<Self, NetnsError> {
        let what = format!("of process {pid}");
        let gone = || NetnsError::Gone { what: what.clone() };
        let fd = match open(&format!("/proc/{pid}/ns/net")) {
            Err(NetnsError::Gone { .. }) => return Err(gone()),
            opened => opened?,
        };
        // After the opening: if it is that process now, it was it then.
        match (Task { pid, start }).alive() {
            true => Ok(Self { fd: Some(fd), what }),
            false => Err(gone()),
        }
    }

    /// Runs `action` with the calling thread inside the namespace.
    ///
    /// # Panics
    /// Ends the process if the thread cannot return: it would go on in the wrong network.
    pub fn within<T>(&self, action: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let Some(fd) = &self.fd else {
            return Ok(action());
        };
        let home = open("/proc/thread-self/ns/net")?;
        let _way_back = WayBack { home };
        match move_into_link_name_space(fd.as_fd(), Some(LinkNameSpaceType::Network)) {
            Ok(()) => Ok(action()),
            // A name in /run/netns is an empty file once its mount is gone.
            Err(Errno::INVAL) => Err(NetnsError::NotOne { path: self.what.clone() }),
            Err(errno) => Err(self.failed("enter", errno)),
        }
    }

    /// Opens a route socket that lives in the namespace for good.
    pub fn route_socket(&self) -> Result<RouteSocket, NetnsError> {
        self.within(RouteSocket::open)?.map_err(|errno| self.failed("open a socket in", errno))
    }

    /// Returns what identifies the namespace until the next boot.
    pub fn cookie(&self) -> Result<u64, NetnsError> {
        self.within(own_cookie)?.map_err(|errno| self.failed("read the cookie of", errno))
    }

    /// The descriptor that stands for the namespace; `None` for the caller's own.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    fn failed(&self, doing: &'static str, errno: Errno) -> NetnsError {
        NetnsError::System { doing, what: self.what.clone(), cause: errno.into() }
    }
}

/// Returns the calling thread to where it came from when dropped, also by a panic.
struct WayBack {
    home: OwnedFd,
}

impl Drop for WayBack {
    fn drop(&mut self) {
        let home = self.home.as_fd();
        if move_into_link_name_space(home, Some(LinkNameSpaceType::Network)).is_err() {
            std::process::abort();
        }
    }
}

fn open(path: &str) -> Result<OwnedFd, NetnsError> {
    match File::open(path) {
        Ok(file) => Ok(file.into()),
        Err(cause) => match cause.raw_os_error() {
            Some(libc::ENOENT | libc::ESRCH) => Err(NetnsError::Gone { what: path.to_owned() }),
            _ => Err(NetnsError::System { doing: "open", what: path.to_owned(), cause }),
        },
    }
}

/// Moves the calling thread into a network namespace that nobody else is in, for good.
pub(super) fn unshare_network() -> Result<(), Errno> {
    // SAFETY: CLONE_FILES is not among the flags.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }
}

/// Opens the user namespace that owns a namespace: who is root there may enter. `fd` must be known
/// to be a namespace.
///
/// # Errors
/// The kernel's: `EPERM` where it is no namespace of ours or below.
pub fn owner(fd: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    const NS_GET_USERNS: libc::Ioctl = 0xb701; // linux/nsfs.h
    // SAFETY: the question has no argument; the answer is a new descriptor, or -1.
    match unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_USERNS) } {
        // SAFETY: the kernel has just made this descriptor for us, and nobody else knows of it.
        got @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(got) }),
        _ => Err(last_errno()),
    }
}

/// Returns the cookie of the calling thread's network namespace: unique until the next boot.
///
/// # Errors
/// The kernel's; before Linux 5.14 there is no such option (`ENOPROTOOPT`).
pub fn own_cookie() -> Result<u64, Errno> {
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    cookie_at(socket.as_fd())
}

/// As [`own_cookie`], of the namespace that a socket lives in (`SO_NETNS_COOKIE`,
/// asm-generic/socket.h).
pub fn cookie_at(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie: u64 = 0;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes into `cookie`, which are live.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    match done {
        0 => Ok(cookie),
        _ => Err(last_errno()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_found_and_another_start_is_gone() {
        let Task { pid, start } = Task::own().unwrap();
        assert!(NetnsHandle::open(&Way::Pid { pid, start }).is_ok());
        let other = NetnsHandle::open(&Way::Pid { pid, start: start + 1 });
        assert!(matches!(other, Err(NetnsError::Gone { .. })), "{other:?}");
        let nobody = NetnsHandle::open(&Way::Pid { pid: u32::MAX, start });
        assert!(matches!(nobody, Err(NetnsError::Gone { .. })), "{nobody:?}");
    }
}
