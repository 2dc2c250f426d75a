//! Sealed memory files (memfd_create(2), fcntl(2) `F_ADD_SEALS`): bytes that nobody can change any more.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags};

/// A memory file with what `source` holds, sealed against every change; close-on-exec. `name` is what /proc shows. It can be
/// executed, whatever the sysctl vm.memfd_noexec says.
pub fn sealed(name: &str, source: &mut impl Read) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 there is no such flag, and every memory file can be executed.
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(name, flags)?,
        fd => fd?,
    };
    let mut file = File::from(fd);
    io::copy(source, &mut file)?;
    rustix::fs::fcntl_add_seals(&file, ALL_SEALS)?;
    Ok(file.into())
}

/// The bytes of a memory file made by [`sealed`], at most `limit`. `EPERM` if it lacks a seal, `EFBIG` if it is longer.
pub fn read_sealed(fd: OwnedFd, limit: u64) -> io::Result<Vec<u8>> {
    if !rustix::fs::fcntl_get_seals(&fd)?.contains(ALL_SEALS) {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    }
    let mut file = File::from(fd);
    if file.metadata()?.len() > limit {
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

const ALL_SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_sealed_file_cannot_be_changed() {
        let fd = sealed("test", &mut &b"bytes"[..]).unwrap();
        let mut file = File::from(fd.try_clone().unwrap());
        assert!(file.write_all(b"x").is_err());
        assert!(file.set_len(0).is_err());
        assert_eq!(read_sealed(fd, 5).unwrap(), b"bytes");
    }

    #[test]
    fn an_unsealed_or_long_file_is_refused() {
        let loose = rustix::fs::memfd_create("loose", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        assert_eq!(read_sealed(loose, 5).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let long = sealed("long", &mut &b"bytes"[..]).unwrap();
        assert_eq!(read_sealed(long, 4).unwrap_err().raw_os_error(), Some(libc::EFBIG));
    }
}
