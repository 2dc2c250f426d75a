//! How much a tree takes on the disk.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, Stat};
use rustix::io::Errno;

use super::tree::beneath;
use crate::model::Bytes;

/// Bytes that the tree below a directory takes, the directory's own too; a file with several names counts once. What
/// vanishes meanwhile counts as much as was seen of it.
pub(super) fn tree(top: BorrowedFd<'_>) -> io::Result<Bytes> {
    let mut measure = Measure { bytes: blocks(&rustix::fs::fstat(top)?), linked: HashSet::new() };
    let mut waiting = vec![PathBuf::new()];
    while let Some(path) = waiting.pop() {
        match measure.directory(top, &path, &mut waiting) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            other => other?,
        }
    }
    Ok(Bytes(measure.bytes))
}

struct Measure {
    bytes: u64,
    /// Files with several names that were counted.
    linked: HashSet<(u64, u64)>,
}

impl Measure {
    fn directory(&mut self, top: BorrowedFd<'_>, path: &Path, waiting: &mut Vec<PathBuf>) -> rustix::io::Result<()> {
        let directory = beneath(top, path)?;
        for entry in Dir::read_from(&directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let stat = match rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
            if is_directory || stat.st_nlink == 1 || self.linked.insert((stat.st_dev, stat.st_ino)) {
                self.bytes += blocks(&stat);
            }
            if is_directory {
                waiting.push(path.join(OsStr::from_bytes(name.to_bytes())));
            }
        }
        Ok(())
    }
}

fn blocks(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_file_with_two_names_counts_once() {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let measured = || tree(File::open(directory.path()).unwrap().as_fd()).unwrap().0;
        fs::create_dir(directory.path().join("d")).unwrap();
        let file = directory.path().join("d/file");
        fs::write(&file, vec![1; 1 << 20]).unwrap();
        File::open(&file).unwrap().sync_all().unwrap();
        let once = measured();
        assert!((1 << 20..3 << 19).contains(&once), "{once}");
        fs::hard_link(&file, directory.path().join("other")).unwrap();
        assert_eq!(measured(), once);
    }
}
