//! A memory file over a UNIX socket, from the one who dialled to the one who listens.
//!
//! Not here: what may be in it (`region`).

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Hands `file` over `socket`, which has carried nothing yet.
///
/// # Errors
/// When the system refuses.
pub fn offer(socket: impl AsFd, file: &OwnedFd) -> io::Result<()> {
    let files = [file.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(&[0])], &mut control, flags)?;
    Ok(())
}

/// Takes what was handed over `socket`. `None` at its end.
///
/// # Errors
/// `WouldBlock` when nothing has come yet; `InvalidData` when what came is no file.
pub fn take(socket: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let came = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    // What is beyond the space for one was closed by the system.
    let file = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut files) => files.next(),
        _ => None,
    });
    match file {
        Some(file) => Ok(Some(file)),
        None if came.bytes == 0 => Ok(None),
        None => Err(io::Error::new(ErrorKind::InvalidData, "no file was handed over")),
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::Region;

    #[test]
    fn a_file_arrives_and_bytes_alone_are_refused() {
        let (one, other) = UnixStream::pair().expect("a pair");
        assert_eq!(take(&other).expect_err("nothing yet").kind(), ErrorKind::WouldBlock);
        let (_region, file) = Region::create().expect("memory");
        offer(&one, &file).expect("sent");
        let taken = take(&other).expect("it came").expect("a file");
        assert!(Region::adopt(taken).is_ok());
        (&one).write_all(b"x").expect("sent");
        assert_eq!(take(&other).expect_err("a byte").kind(), ErrorKind::InvalidData);
        drop(one);
        assert!(take(&other).expect("the end").is_none());
    }
}
