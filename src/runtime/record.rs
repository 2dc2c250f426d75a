//! Writing the exit record, which is what is left of a run when everybody else was away.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use crate::model::ExitRecord;

/// A record that can be read but is not yet proof against a power cut.
#[derive(Debug)]
pub(super) struct Written {
    directory: OwnedFd,
    file: File,
}

/// Writes the record as `exit.json`, whole or not at all: a new file takes the place of the old one by rename(2).
pub(super) fn write(directory: OwnedFd, record: &ExitRecord) -> io::Result<Written> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(directory.as_fd(), TEMPORARY, flags, Mode::from_raw_mode(0o600))?);
    file.write_all(&serde_json::to_vec(record)?)?;
    rustix::fs::renameat(directory.as_fd(), TEMPORARY, directory.as_fd(), NAME)?;
    Ok(Written { directory, file })
}

impl Written {
    /// Makes it last. Apart from [`write`], so that nobody waits for the disk to learn how a run ended.
    pub(super) fn sync(self) -> io::Result<()> {
        self.file.sync_all()?;
        Ok(rustix::fs::fsync(&self.directory)?)
    }
}

const NAME: &str = "exit.json";
const TEMPORARY: &str = "exit.json.new";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Exit, Figures, StopCourse};

    #[test]
    fn the_record_is_whole_and_alone() {
        let directory = tempfile::tempdir().unwrap();
        let fd = || rustix::fs::open(directory.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for run in [1, 2] {
            let record = ExitRecord {
                version: ExitRecord::VERSION,
                run,
                exit: Exit::Code(42),
                reboot: false,
                exited_usec: 7,
                oom_kills: 0,
                figures: Figures { cpu_usec: Some(5), ..Figures::default() },
                stop: StopCourse::Asked,
                unheard: false,
            };
            write(fd(), &record).unwrap().sync().unwrap();
            let text = std::fs::read(directory.path().join(NAME)).unwrap();
            assert_eq!(serde_json::from_slice::<ExitRecord>(&text).unwrap(), record);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
