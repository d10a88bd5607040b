//! System calls about the calling process that no safe crate offers: leaving namespaces,
//! reading signals from a file descriptor, closing what was inherited, raising `lo`.
//!
//! Nothing here may keep state or start processes.
#![allow(unsafe_code, reason = "these calls have no safe wrapper in rustix")]

use std::{
    ffi::CString,
    io,
    mem::{MaybeUninit, size_of},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::Command,
};

use rustix::{
    io::Errno,
    process::{Pid, WaitOptions, waitpid},
};

pub use rustix::thread::UnshareFlags;

/// Moves the calling thread into new namespaces (`unshare(2)`).
///
/// # Errors
/// The kernel's refusal: `EPERM` without the capability, `ENOSPC` at a limit of
/// `/proc/sys/user`, `EINVAL` for a new user or pid namespace of a threaded process.
pub fn unshare(flags: UnshareFlags) -> io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    // SAFETY: without CLONE_FILES no descriptor changes its meaning for another thread.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Closes every descriptor above standard error. To be called first thing in a fresh process.
pub fn close_inherited() {
    // SAFETY: called before this process has opened anything of its own, so no owner of a
    // descriptor exists that could be surprised. A kernel without the call (before 5.9) leaves
    // them open, which is untidy but harmless.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// A process started by [`spawn_first`], to be waited for.
#[derive(Debug)]
pub struct First {
    pub pid: Pid,
    pub pidfd: OwnedFd,
}

impl First {
    /// Waits for its end; returns its exit code, or 128 + the signal that ended it.
    pub fn wait(&self) -> Option<i32> {
        loop {
            match waitpid(Some(self.pid), WaitOptions::empty()) {
                Err(Errno::INTR) => continue,
                Err(_) | Ok(None) => return None,
                Ok(Some((_, status))) => {
                    let killed = status.terminating_signal().map(|signal| 128 + signal);
                    return status.exit_status().or(killed);
                }
            }
        }
    }
}

/// Starts this program again as the first process (PID 1) of a new pid namespace, with an empty
/// environment and `stdio` as its standard input, output and error.
///
/// Not by `unshare(2)`: that binds the caller's later children to the namespace too, and the way
/// back is closed to the root of a user namespace.
///
/// # Errors
/// The kernel's refusal, as of [`unshare`].
pub fn spawn_first(args: &[CString], stdio: [OwnedFd; 3]) -> io::Result<First> {
    let program = std::fs::File::open("/proc/self/exe")?;
    let mut argv: Vec<*const libc::c_char> = args.iter().map(|arg| arg.as_ptr()).collect();
    argv.push(std::ptr::null());
    let envp = [std::ptr::null::<libc::c_char>()];
    let mut pidfd: libc::c_int = -1;
    // SAFETY: all fields are numbers, for which zero means "not used".
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = (libc::CLONE_NEWPID | libc::CLONE_PIDFD) as u64;
    how.pidfd = (&raw mut pidfd) as u64;
    how.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: without CLONE_VM this is fork(2): the child has a copy of everything.
    let pid =
        unsafe { libc::syscall(libc::SYS_clone3, &raw mut how, size_of::<libc::clone_args>()) };
    if pid == 0 {
        // SAFETY: between fork and exec only calls that are safe in a signal handler are made, on
        // what was prepared before; nothing is allocated or dropped.
        unsafe {
            for (at, fd) in stdio.iter().enumerate() {
                if libc::dup2(fd.as_raw_fd(), at as libc::c_int) < 0 {
                    libc::_exit(127);
                }
            }
            libc::syscall(
                libc::SYS_execveat,
                program.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            );
            libc::_exit(127);
        }
    }
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0).and_then(Pid::from_raw) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the kernel has just stored a descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(First { pid, pidfd })
}

/// Returns freed memory to the kernel; for processes that live long and do little.
pub fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// A signal read from [`Signals`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caught {
    pub number: i32,
    /// Sent by the kernel itself, such as a terminal's `SIGINT` to its foreground group.
    pub by_kernel: bool,
}

/// Signals that no longer interrupt the process but are read, as a `signalfd(2)`.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks `numbers` for the calling thread and those it starts later, and for the programs
    /// it starts unless they are [`unblocked`].
    ///
    /// # Errors
    /// The kernel's, when no descriptor can be had.
    pub fn block(numbers: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before anything reads it; all pointers are to
        // a live local; a null old set is allowed.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &number in numbers {
                libc::sigaddset(set.as_mut_ptr(), number);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Self(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The next signal that waits, without blocking.
    pub fn next(&self) -> Option<Caught> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::zeroed();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the kernel writes at most `size` bytes to a live local of that size, of which
        // every bit pattern is valid.
        let read = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(read) != Ok(size) {
            return None;
        }
        // SAFETY: zeroed, then written whole.
        let info = unsafe { info.assume_init() };
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(Caught { number, by_kernel: info.ssi_code > 0 })
    }
}

/// Makes the program that `command` starts begin with no signal blocked: what we block in order to
/// read it is inherited otherwise.
pub fn unblocked(command: &mut Command) -> &mut Command {
    let reset = || {
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set before it is read; a null old set is allowed.
        let error = unsafe {
            libc::sigemptyset(none.as_mut_ptr());
            libc::pthread_sigmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
        };
        match error {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    };
    // SAFETY: between fork and exec only these two async-signal-safe calls are made.
    unsafe { command.pre_exec(reset) }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Sets the loopback device of the calling thread's network namespace up.
///
/// # Errors
/// The kernel's: `EPERM` where the namespace is not ours.
pub fn raise_loopback() -> io::Result<()> {
    let socket = any_socket()?;
    // SAFETY: an ifreq of zeros is valid; both ioctls read and write only within it, and the
    // flags are the union's member they are about (netdevice(7)).
    unsafe {
        let mut request = MaybeUninit::<libc::ifreq>::zeroed().assume_init();
        for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
            *to = libc::c_char::from_ne_bytes([*from]);
        }
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
        request.ifr_ifru.ifru_flags |= libc::c_short::try_from(libc::IFF_UP).expect("one");
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A socket that shows which network namespace we are in; it needs no protocol of its own.
fn any_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let kind = (AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC);
    socket_with(kind.0, kind.1, kind.2, None).map_err(io::Error::from)
}
