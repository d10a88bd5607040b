//! Messages between the processes of one container: a length, then JSON, over a socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::{
    io::{Errno, fcntl_dupfd_cloexec},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// More than the longest command line that the kernel takes (a quarter of an 8 MiB stack),
/// written as JSON numbers.
const LONGEST: usize = 32 << 20;

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let kind = (AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC);
        let (one, other) = socketpair(kind.0, kind.1, kind.2, None)?;
        Ok((Self(one), Self(other)))
    }

    /// Takes the socket that is this process's standard input, leaving `/dev/null` there.
    pub(super) fn take_stdin() -> io::Result<Self> {
        let socket = fcntl_dupfd_cloexec(io::stdin(), 3)?;
        let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
        rustix::stdio::dup2_stdin(&null)?;
        Ok(Self(socket))
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Sends `message` along with descriptors, at most one of them.
    pub(super) fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_ne_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() {
            control.push(SendAncillaryMessage::ScmRights(fds));
        }
        let head = [IoSlice::new(&length)];
        // Four bytes go whole or not at all.
        again(|| sendmsg(&self.0, &head, &mut control, SendFlags::NOSIGNAL))?;
        let mut rest = &body[..];
        while !rest.is_empty() {
            let sent = again(|| rustix::net::send(&self.0, rest, SendFlags::NOSIGNAL))?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// Waits for the next message; `None` when the other end is closed.
    pub(super) fn receive<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut length = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::WAITALL | RecvFlags::CMSG_CLOEXEC;
        let got =
            again(|| recvmsg(&self.0, &mut [IoSliceMut::new(&mut length)], &mut control, flags))?;
        let mut fds = Vec::new();
        for part in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = part {
                fds.extend(rights);
            }
        }
        if got.bytes != length.len() {
            return Ok(None);
        }
        let length = usize::try_from(u32::from_ne_bytes(length)).map_err(io::Error::other)?;
        if length > LONGEST {
            return Err(io::Error::other("a message too long to be ours"));
        }
        let mut body = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match again(|| rustix::io::read(&self.0, &mut body[filled..]))? {
                0 => return Ok(None),
                more => filled += more,
            }
        }
        Ok(Some((serde_json::from_slice(&body)?, fds)))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn again<T>(mut call: impl FnMut() -> Result<T, Errno>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            // Closed with unread data in it: closed all the same.
            Err(Errno::CONNRESET) => return Err(io::ErrorKind::BrokenPipe.into()),
            done => return done.map_err(io::Error::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_and_descriptors_arrive() {
        let (one, other) = Channel::pair().unwrap();
        let text = "x".repeat(1 << 20);
        let sender = std::thread::spawn(move || {
            one.send(&text, &[io::stdin().as_fd()]).unwrap();
            one.send(&7, &[]).unwrap();
        });
        let (text, fds): (String, _) = other.receive().unwrap().unwrap();
        assert_eq!((text.len(), fds.len()), (1 << 20, 1));
        assert_eq!(other.receive::<i32>().unwrap().unwrap().0, 7);
        sender.join().unwrap();
        assert!(other.receive::<i32>().unwrap().is_none());
    }
}
