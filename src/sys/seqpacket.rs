//! Pairs of `SOCK_SEQPACKET` sockets: whole messages, descriptors alongside (unix(7)).

use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType, recvmsg, socketpair,
};

/// Two connected sockets, close-on-exec. The first never blocks; the second does, as whoever gets it expects.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

/// One message: its length in `buffer`, 0 when the other side is closed, and the descriptor that came along, if any.
///
/// A message longer than `buffer` is cut. Descriptors beyond the first are closed. `WouldBlock` when none is there yet.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut descriptors = control.drain().filter_map(|item| match item {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    let first = descriptors.by_ref().flatten().next();
    Ok((message.bytes, first))
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

    use super::*;

    #[test]
    fn a_message_brings_its_descriptor() {
        let (ours, theirs) = pair().unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let fds = [reader.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&theirs, &[IoSlice::new(b"hello")], &mut control, SendFlags::empty()).unwrap();

        let mut buffer = [0; 16];
        let (length, fd) = receive(&ours, &mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
        assert!(fd.is_some());
    }

    #[test]
    fn nothing_there_and_nobody_there_are_told_apart() {
        let (ours, theirs) = pair().unwrap();
        assert_eq!(receive(&ours, &mut [0; 4]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(theirs);
        assert_eq!(receive(&ours, &mut [0; 4]).unwrap().0, 0);
    }
}
