//! How a process of ours begins, without what the standard library does before `main`.
//!
//! That is a third of what the program takes to start: it reads `/proc/self/maps` for a message
//! about overflown stacks, and loads a second library to unwind them. What of it protects us is
//! done here.
#![allow(unsafe_code, reason = "the symbol that the C library calls, and its signals")]

use std::{ffi::OsString, process::ExitCode};

// The unwinder of the C compiler, which would be loaded as `libgcc_s` if it were not linked in.
#[cfg(target_env = "gnu")]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

/// Makes `$run`, a function of the arguments that returns an `ExitCode`, what the program does.
/// The program's crate has to say `#![no_main]`.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        /// What the C library calls.
        #[allow(unsafe_code, reason = "the name is the C library's")]
        // SAFETY: nothing else is called `main` in a program with `#![no_main]`, and this has the
        // type that the C library expects.
        #[unsafe(no_mangle)]
        extern "C" fn main(
            _count: std::ffi::c_int,
            _arguments: *const *const std::ffi::c_char,
        ) -> std::ffi::c_int {
            $crate::linux::start::run($run)
        }
    };
}

/// Calls `run` as `main` is called, and ends the process with the code that it returns.
pub fn run(run: fn(Vec<OsString>) -> ExitCode) -> ! {
    fill_standard_streams();
    // SAFETY: ignoring a signal runs no code of ours. A pipe that nobody reads is an error then.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let code = run(std::env::args_os().collect());
    let number = (0..=u8::MAX).find(|number| ExitCode::from(*number) == code);
    // Writes out what is left in standard output.
    std::process::exit(number.unwrap_or(u8::MAX).into())
}

/// Opens what the caller has closed of the first three descriptors: the next file to be opened
/// would be taken for standard output, and be written into.
fn fill_standard_streams() {
    let stream = |fd| libc::pollfd { fd, events: 0, revents: 0 };
    let mut streams = [0, 1, 2].map(stream);
    // SAFETY: the array lives through the call, and its length is told.
    let asked = unsafe { libc::poll(streams.as_mut_ptr(), streams.len() as libc::nfds_t, 0) };
    let closed = |stream: &libc::pollfd| stream.revents & libc::POLLNVAL != 0;
    if asked == 0 || !streams.iter().any(closed) {
        return;
    }
    for _ in streams.iter().filter(|stream| closed(stream)) {
        // SAFETY: the path is a C string; the lowest closed descriptor is the one it gets.
        let opened = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR) };
        if opened < 0 {
            std::process::abort();
        }
    }
}
