//! Which archive an image came from, so that it is not read again for nothing: at each boot, and an archive may be large.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::error::CliError;

/// An archive as it is now, and the file that says how it was.
#[derive(Debug)]
pub(crate) struct Stamp {
    file: PathBuf,
    /// What changes whenever the archive does: whoever writes to it changes its time, whoever replaces it its inode.
    archive: String,
}

impl Stamp {
    /// Looks at an open archive.
    pub(crate) fn of(file: &Path, archive: &OwnedFd) -> Result<Self, CliError> {
        let failed = |source| CliError::io("look at the archive", source);
        let known = archive.as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata()).map_err(failed)?;
        let (changed, nanoseconds) = (known.ctime(), known.ctime_nsec());
        let archive = format!("{} {} {} {changed}.{nanoseconds:09}", known.dev(), known.ino(), known.size());
        Ok(Self { file: file.to_owned(), archive })
    }

    /// Whether the image with this digest is what came of it.
    pub(crate) fn holds(&self, digest: Option<&str>) -> bool {
        let noted = fs::read_to_string(&self.file);
        digest.is_some_and(|digest| noted.is_ok_and(|noted| noted == self.line(digest)))
    }

    /// Notes that this is what came of it.
    pub(crate) fn note(&self, digest: &str) -> Result<(), CliError> {
        let next = self.file.with_extension("new");
        let written: io::Result<()> = fs::write(&next, self.line(digest)).and_then(|()| fs::rename(&next, &self.file));
        written.map_err(|source| CliError::io(format!("write {}", self.file.display()), source))
    }

    fn line(&self, digest: &str) -> String {
        format!("{} {digest}\n", self.archive)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_holds_until_the_archive_or_the_image_changes() {
        let directory = tempfile::tempdir().unwrap();
        let (archive, note) = (directory.path().join("a.tar"), directory.path().join("a.image"));
        fs::write(&archive, "one").unwrap();
        let stamp = || Stamp::of(&note, &File::open(&archive).unwrap().into()).unwrap();
        assert!(!stamp().holds(Some("d1")));
        stamp().note("d1").unwrap();
        assert!(stamp().holds(Some("d1")) && !stamp().holds(Some("d2")) && !stamp().holds(None));
        fs::write(&archive, "other").unwrap();
        assert!(!stamp().holds(Some("d1")));
    }
}
