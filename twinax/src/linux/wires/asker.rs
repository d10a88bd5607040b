//! Lists what rtnetlink has, in one's own namespace or in one that a number stands for.

use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;

use crate::linux::netlink::{Message, Outgoing, Socket, attribute, messages};

const RTM_NEWNSID: u16 = 88;
const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

/// How often a list is asked for again that changed while it was told.
const PATIENCE: u32 = 8;

/// A socket to rtnetlink that asks one question at a time.
#[derive(Debug)]
pub(super) struct Asker {
    socket: Socket,
    out: Outgoing,
    seq: u32,
}

impl Asker {
    /// Opens a socket in the namespace of the calling thread.
    pub(super) fn open() -> Result<Self, Errno> {
        let mut asker = Self::over(Socket::open(None)?);
        // Without it the kernel reads no filter, nor whose addresses are meant.
        asker.socket.switch_on(libc::NETLINK_GET_STRICT_CHK)?;
        asker.seq = 1;
        Ok(asker)
    }

    /// Asks through a socket of any protocol.
    pub(super) fn over(socket: Socket) -> Self {
        Self { socket, out: Outgoing::default(), seq: 0 }
    }

    /// Returns what `read` makes of each message of a list. One that changed while it was told is
    /// asked for again, a few times.
    pub(super) fn list<T>(
        &mut self,
        kind: u16,
        question: impl Fn(&mut Outgoing),
        mut read: impl FnMut(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Errno> {
        let mut found = Vec::new();
        for _ in 0..PATIENCE {
            found.clear();
            self.seq += 1;
            self.out.clear();
            self.out.message(kind, libc::NLM_F_DUMP as u16, self.seq);
            question(&mut self.out);
            self.socket.send(self.out.bytes())?;
            if self.hear(|message| found.extend(read(message)))? {
                break;
            }
        }
        Ok(found)
    }

    /// Returns what `read` makes of the one answer to a question; `None` where the kernel knows of no
    /// such thing.
    pub(super) fn one<T>(
        &mut self,
        kind: u16,
        question: impl Fn(&mut Outgoing),
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Option<T>, Errno> {
        self.seq += 1;
        self.out.clear();
        self.out.message(kind, 0, self.seq);
        question(&mut self.out);
        self.socket.send(self.out.bytes())?;
        loop {
            for message in messages(self.socket.wait()?) {
                if message.seq != self.seq {
                    continue;
                }
                return match message.refusal() {
                    Some((Errno::NODEV, _)) => Ok(None),
                    Some((errno, _)) => Err(errno),
                    None => Ok(read(&message)),
                };
            }
        }
    }

    /// Hears a list to its end; returns whether it is of one moment.
    fn hear(&mut self, mut each: impl FnMut(&Message<'_>)) -> Result<bool, Errno> {
        let mut whole = true;
        loop {
            for message in messages(self.socket.wait()?) {
                if message.seq != self.seq {
                    continue;
                }
                whole &= message.flags & libc::NLM_F_DUMP_INTR as u16 == 0;
                match message.refusal() {
                    Some((Errno::INTR, _)) => return Ok(false),
                    Some((errno, _)) => return Err(errno),
                    None if message.is_done() => return Ok(whole),
                    None => each(&message),
                }
            }
        }
    }

    /// Has the namespace of this socket call each namespace by its place in the list; returns which
    /// of them it does.
    pub(super) fn number(&mut self, fds: &[BorrowedFd<'_>]) -> Result<Vec<bool>, Errno> {
        let mut numbered = vec![true; fds.len()];
        self.about(
            RTM_NEWNSID,
            fds,
            |out, at| {
                out.attr(NETNSA_NSID, &(at as u32).to_ne_bytes());
                out.ask_for_ack();
            },
            |at, message| {
                numbered[at] = message.verdict().is_some_and(|verdict| verdict.errno.is_none());
            },
        )?;
        Ok(numbered)
    }

    /// Has the namespace of this socket give each namespace a number of the kernel's choice.
    pub(super) fn number_any(&mut self, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        const ANY: i32 = -1;
        self.about(
            RTM_NEWNSID,
            fds,
            |out, _| {
                out.attr(NETNSA_NSID, &ANY.to_ne_bytes());
                out.ask_for_ack();
            },
            // One that could not be numbered is found to have none.
            |_, _| {},
        )
    }

    /// Returns what the namespace of this socket calls each of the namespaces, if anything. Asking
    /// gives no number.
    pub(super) fn numbers(&mut self, fds: &[BorrowedFd<'_>]) -> Result<Vec<Option<i32>>, Errno> {
        let mut numbers = vec![None; fds.len()];
        self.about(
            RTM_GETNSID,
            fds,
            |_, _| {},
            |at, message| {
                let number = message.body.get(4..).and_then(|rest| attribute(rest, NETNSA_NSID));
                let number = number.and_then(|data| data.first_chunk().copied());
                numbers[at] = number.map(i32::from_ne_bytes).filter(|number| *number >= 0);
            },
        )?;
        Ok(numbers)
    }

    /// Asks one question about each namespace, many in one send, and hears one answer to each.
    fn about(
        &mut self,
        kind: u16,
        fds: &[BorrowedFd<'_>],
        add: impl Fn(&mut Outgoing, usize),
        mut answer: impl FnMut(usize, &Message<'_>),
    ) -> Result<(), Errno> {
        // So few that the answers fit in a receive buffer of the usual size.
        const AT_ONCE: usize = 64;
        for (n, some) in fds.chunks(AT_ONCE).enumerate() {
            let first = self.seq + 1;
            self.out.clear();
            for (k, fd) in some.iter().enumerate() {
                self.seq += 1;
                self.out.message(kind, 0, self.seq);
                self.out.body(&[0; 4]); // struct rtgenmsg, padded
                self.out.attr(NETNSA_FD, &fd.as_raw_fd().to_ne_bytes());
                add(&mut self.out, n * AT_ONCE + k);
            }
            self.socket.send(self.out.bytes())?;
            let mut heard = 0;
            while heard < some.len() {
                for message in messages(self.socket.wait()?) {
                    let at = message.seq.wrapping_sub(first) as usize;
                    if at < some.len() {
                        heard += 1;
                        answer(n * AT_ONCE + at, &message);
                    }
                }
            }
        }
        Ok(())
    }
}
