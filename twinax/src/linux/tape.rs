//! What this thread sends to the kernel, written down for whoever wants to compare it.
//!
//! Off unless switched on, and then only for the thread that did: for the benchmark, whose floor
//! must send the same bytes. Changes nothing of what is sent.

use std::cell::RefCell;

thread_local! {
    static TAPE: RefCell<Option<Vec<Vec<u8>>>> = const { RefCell::new(None) };
}

/// Writes down, from here on, what the calling thread sends by any netlink socket.
pub fn start() {
    TAPE.with_borrow_mut(|tape| *tape = Some(Vec::new()));
}

/// Stops, and returns what was sent, one item a send.
pub fn stop() -> Vec<Vec<u8>> {
    TAPE.with_borrow_mut(Option::take).unwrap_or_default()
}

pub(super) fn record(bytes: &[u8]) {
    TAPE.with_borrow_mut(|tape| tape.iter_mut().for_each(|tape| tape.push(bytes.to_vec())));
}
