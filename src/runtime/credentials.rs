//! Credentials: secrets that a container is given when it starts (C6, <https://systemd.io/CREDENTIALS/>).
//!
//! They are copied into memory that the kernel never swaps, which only the container's user reads and nobody writes, and which is
//! gone with the container. They are in no plan, record or message.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::filesystems::{CREDENTIALS, INERT};
use super::init::{Doing, Setup, Trouble};
use crate::sys::mount::{self, Attributes, Depth};
use crate::sys::rooted;

/// Where they are; `CREDENTIALS_DIRECTORY` inside.
pub(super) const DIRECTORY: &str = "/run/host/credentials";

/// Largest sum in bytes (CREDENTIALS_TOTAL_SIZE_MAX of systemd). The memory they are in counts as nobody's.
const MAX_TOTAL: usize = 1 << 20;

/// Reads them, and closes where they came from.
pub(super) fn provide(setup: &mut Setup) -> Result<(), Trouble> {
    let identity = setup.identity.as_ref().expect("FindUser comes before Credentials");
    let owner = (Some(Uid::from_raw(identity.uid)), Some(Gid::from_raw(identity.gid)));
    let memory = mount::create("ramfs", &[("mode", "500")], INERT).doing("make a ramfs for the credentials")?;
    let mut room = MAX_TOTAL;
    for (name, source) in std::mem::take(&mut setup.credentials) {
        let content = read(File::from(source), &mut room).doing_with(|| format!("read the credential '{name}'"))?;
        rooted::write_new(memory.as_fd(), &name, &content, 0o400)
            .and_then(|()| Ok(rustix::fs::chownat(&memory, name.as_str(), owner.0, owner.1, NO_LINK)?))
            .doing_with(|| format!("write the credential '{name}'"))?;
    }
    let top = rustix::fs::openat(&memory, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let top = top.doing("open the directory of the credentials")?;
    rustix::fs::fchown(&top, owner.0, owner.1).doing("give the credentials to the user")?;
    drop(top);
    mount::add_attributes(memory.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One)
        .doing("make the credentials read-only")?;
    let host = setup.run_host.as_ref().expect("RunHost comes before Credentials");
    mount::attach_at(memory.as_fd(), host.as_fd(), CREDENTIALS).doing("mount the credentials")?;
    setup.has_credentials = true;
    Ok(())
}

const NO_LINK: rustix::fs::AtFlags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;

/// `EFBIG` when it does not fit into the room that is left.
fn read(source: impl Read, room: &mut usize) -> std::io::Result<Vec<u8>> {
    let mut content = Vec::new();
    source.take(u64::try_from(*room).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut content)?;
    *room = room.checked_sub(content.len()).ok_or_else(|| std::io::Error::from_raw_os_error(libc::EFBIG))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_together_have_a_limit() {
        let mut room = 8;
        assert_eq!(read(&b"secret"[..], &mut room).unwrap(), b"secret");
        assert_eq!(read(&b""[..], &mut room).unwrap(), b"");
        assert_eq!(read(&b"two"[..], &mut room).unwrap_err().raw_os_error(), Some(libc::EFBIG));
        assert_eq!(read(&b"2"[..], &mut 1).unwrap(), b"2");
    }
}
