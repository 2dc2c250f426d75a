//! The label of a device: a file beside its tree that says whose it is. A snapshot carries its origin's label until it
//! gets its own, so the label holds the stamp: one that does not match is inherited.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;

use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};

use super::state::Device;
use crate::model::{Bytes, DeviceId};
use crate::storage::TREE;

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// The pool's UUID.
    pub(super) pool: String,
    /// The device.
    pub(super) id: DeviceId,
    /// Its number in the pool.
    pub(super) thin: u32,
    /// The transaction of its creation.
    pub(super) stamp: u64,
    /// Size of the file system.
    pub(super) size: Bytes,
    /// What it was snapshotted from.
    pub(super) base: Option<DeviceId>,
}

impl Label {
    /// What the label of `device` must say.
    pub(super) fn of(pool: &str, device: &Device) -> Self {
        Self {
            pool: pool.to_owned(),
            id: device.id.clone(),
            thin: device.thin,
            stamp: device.stamp,
            size: device.size,
            base: device.base.as_ref().map(|(id, _)| id.clone()),
        }
    }

    /// The label at the top of `mount`; None when there is none that can be read.
    pub(super) fn read(mount: BorrowedFd<'_>) -> io::Result<Option<Self>> {
        let fd =
            match rustix::fs::openat(mount, FILE, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Err(rustix::io::Errno::NOENT) => return Ok(None),
                other => other?,
            };
        let mut text = Vec::new();
        File::from(fd).take(MAX).read_to_end(&mut text)?;
        Ok(Self::parse(&text))
    }

    /// A label as text, with zeros behind it or not.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes.split(|byte| *byte == 0).next()?).ok()
    }

    /// As text.
    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a label is plain data")
    }

    /// Writes it. On the disk with the next sync of the file system; the journal has it all until then.
    pub(super) fn write(&self, mount: BorrowedFd<'_>) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(mount, FRESH, flags, Mode::from_raw_mode(0o600))?;
        File::from(fd).write_all(&self.text())?;
        rustix::fs::renameat(mount, FRESH, mount, FILE)?;
        Ok(())
    }
}

/// Makes the directory of the tree, mode 0755.
pub(super) fn make_tree(mount: BorrowedFd<'_>) -> io::Result<()> {
    rustix::fs::mkdirat(mount, TREE, Mode::from_raw_mode(0o755))?;
    // mkdir(2) takes the umask away.
    Ok(rustix::fs::chmodat(mount, TREE, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())?)
}

const FILE: &CStr = c"holm.label";
const FRESH: &CStr = c"holm.label.new";
/// No label is longer.
const MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::super::state::tests::device;
    use super::*;

    #[test]
    fn a_label_is_read_as_it_was_written_and_replaces_an_inherited_one() {
        let directory = tempfile::tempdir().unwrap();
        let mount = File::open(directory.path()).unwrap();
        assert_eq!(Label::read(mount.as_fd()).unwrap(), None);
        for device in [device("base", 0, 1), device("web", 1, 2)] {
            let label = Label::of("pool", &device);
            label.write(mount.as_fd()).unwrap();
            assert_eq!(Label::read(mount.as_fd()).unwrap(), Some(label));
        }
    }

    #[test]
    fn a_damaged_label_is_no_label() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("holm.label"), "{").unwrap();
        let mount = File::open(directory.path()).unwrap();
        assert_eq!(Label::read(mount.as_fd()).unwrap(), None);
    }
}
