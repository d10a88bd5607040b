//! Closes a descriptor without waiting for what the kernel does when the last one is closed.
//!
//! A descriptor on its way between two sockets outlives its sender. If it travels together with
//! the socket that it is sent to, nobody can ever receive it, and the kernel collects the lot as
//! garbage (unix(7), `net/unix/garbage.c`): since Linux 6.8 in a worker of its own. An older one
//! does so before the last close returns, which then takes what it would have taken anyway.

use std::{
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    io::{DupFlags, Errno, dup3},
    net::{
        AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
        SocketType, sendmsg, socketpair,
    },
};

/// Leaves the closing of `fd` to the kernel; what `fd` is afterwards is good for nothing but being
/// dropped. On an error it is what it was.
pub(super) fn part_with(fd: &mut OwnedFd) -> Result<(), Errno> {
    let flags = SocketFlags::CLOEXEC;
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let travellers = [fd.as_fd(), far.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&travellers));
    sendmsg(&near, &[IoSlice::new(b".")], &mut control, SendFlags::NOSIGNAL)?;
    // The one who closes last must be `near`: its end is when the kernel looks for garbage.
    dup3(&near, fd, DupFlags::CLOEXEC)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;

    #[test]
    fn what_is_parted_with_is_closed() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut writer = OwnedFd::from(writer);
        part_with(&mut writer).unwrap();
        assert!(File::from(writer.try_clone().unwrap()).metadata().is_ok());
        drop(writer);
        // The end of the pipe, once nobody can write any more.
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
