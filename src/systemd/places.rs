//! What of a machine is in the host's tree, where nspawn has it and other programs look for it.
//!
//! | place | what |
//! |---|---|
//! | `/run/systemd/nspawn/propagate/NAME` | what machined mounts below it arrives in the container's `/run/host/incoming` (`machinectl bind`, before systemd 255) |
//! | `/run/systemd/nspawn/unix-export/NAME` | the sockets that a system shows (`ssh machine/NAME`, since systemd 256) |
//! | `/var/log/journal/ID`, or the same in `/run` | the journal of a system, for `journalctl -m` |
//!
//! A container's tree is mounted inside it only, so the last two are links through the leader's root in /proc: nothing of the
//! container is on the host's disk, and nothing of it is in use unless somebody reads it. They are there while it runs.

use std::fs::DirBuilder;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use crate::model::{ContainerId, ContainerName};

/// A directory tree to work in: the host's root, or that of a test.
#[derive(Debug, Clone)]
pub(super) struct Places(PathBuf);

impl Places {
    pub(super) fn of_host() -> Self {
        Self(PathBuf::from("/"))
    }

    /// Makes the directory for what is sent in.
    pub(super) fn prepare(&self, name: &ContainerName) -> io::Result<()> {
        let directory = self.incoming(name);
        make_parent(&directory)?;
        DirBuilder::new().mode(0o700).recursive(true).create(directory)
    }

    /// Shows the parts of a system that runs. What cannot be shown is missing there and nowhere else; the first error is told.
    pub(super) fn show(&self, name: &ContainerName, id: &ContainerId, leader: u32) -> io::Result<()> {
        let root = PathBuf::from(format!("/proc/{leader}/root"));
        let export = self.export(name);
        let exported = make_parent(&export).and_then(|()| link(&root.join("run/host/unix-export"), &export));
        let journal = match self.journals().find(|directory| directory.is_dir()) {
            Some(directory) => link(&root.join(format!("var/log/journal/{id}")), &directory.join(id.as_str())),
            // A host without a journal has nothing to read one with.
            None => Ok(()),
        };
        exported.and(journal)
    }

    /// Takes everything of a machine away, whatever there is of it.
    pub(super) fn hide(&self, name: &ContainerName, id: &ContainerId) {
        // What is not there, or is not empty because something is still mounted there, is left.
        let _ = std::fs::remove_dir(self.incoming(name));
        for place in self.journals().map(|directory| directory.join(id.as_str())).chain([self.export(name)]) {
            if is_link(&place) {
                let _ = std::fs::remove_file(place);
            }
        }
    }

    fn incoming(&self, name: &ContainerName) -> PathBuf {
        self.0.join("run/systemd/nspawn/propagate").join(name.as_str())
    }

    fn export(&self, name: &ContainerName) -> PathBuf {
        self.0.join("run/systemd/nspawn/unix-export").join(name.as_str())
    }

    /// In the order in which journald looks (Storage=auto).
    fn journals(&self) -> impl Iterator<Item = PathBuf> {
        ["var/log/journal", "run/log/journal"].into_iter().map(|directory| self.0.join(directory))
    }
}

fn make_parent(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o755).recursive(true).create(path.parent().unwrap_or(Path::new("/")))
}

/// In place of a link of an earlier run, but of nothing else.
fn link(target: &Path, place: &Path) -> io::Result<()> {
    if is_link(place) {
        std::fs::remove_file(place)?;
    }
    match symlink(target, place) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            Err(io::Error::new(error.kind(), format!("{} is there and not ours", place.display())))
        }
        made => made,
    }
}

fn is_link(place: &Path) -> bool {
    std::fs::symlink_metadata(place).is_ok_and(|status| status.is_symlink())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(journal: &str) -> (tempfile::TempDir, Places, ContainerName, ContainerId) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join(journal)).unwrap();
        let places = Places(directory.path().to_owned());
        (directory, places, ContainerName::parse("web").unwrap(), ContainerId::from_random([1; 16]))
    }

    #[test]
    fn a_system_is_shown_while_it_runs() {
        for journal in ["var/log/journal", "run/log/journal"] {
            let (directory, places, name, id) = host(journal);
            places.prepare(&name).unwrap();
            places.prepare(&name).unwrap();
            places.show(&name, &id, 7).unwrap();
            // As after a reboot, with another leader.
            places.show(&name, &id, 8).unwrap();
            let shown = std::fs::read_link(directory.path().join(journal).join(id.as_str())).unwrap();
            assert_eq!(shown, Path::new("/proc/8/root/var/log/journal").join(id.as_str()));
            places.hide(&name, &id);
            let left = |path: &str| std::fs::read_dir(directory.path().join(path)).unwrap().count();
            assert_eq!(left(journal) + left("run/systemd/nspawn/propagate"), 0);
            assert_eq!(left("run/systemd/nspawn/unix-export"), 0);
        }
    }

    #[test]
    fn a_journal_that_is_there_is_not_touched() {
        let (directory, places, name, id) = host("var/log/journal");
        let kept = directory.path().join("var/log/journal").join(id.as_str());
        std::fs::create_dir(&kept).unwrap();
        assert!(places.show(&name, &id, 7).is_err());
        places.hide(&name, &id);
        assert!(kept.is_dir());
    }
}
