//! The files of an image archive, wherever they are: in the archive itself, or in a scratch file when the archive can
//! be read only once.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use super::ImageError;
use super::detect::normal;
use super::job::{Job, from_io};
use super::source::{Extent, Section};
use super::tar::{Entry, Kind, Reader, Stream};

/// Links followed from one member to the next.
const HOPS: usize = 16;

/// The files of an image archive by name.
#[derive(Debug)]
pub(super) struct Members {
    file: Arc<File>,
    /// Whether reading a member counts as reading the archive.
    counts: bool,
    found: HashMap<String, Member>,
}

#[derive(Debug)]
enum Member {
    /// Where its bytes are in the file.
    Bytes { offset: u64, len: u64 },
    /// Another name.
    Link(String),
}

impl Members {
    /// Notes where the members of the archive in `extent` lie, from `first`, the entry that `reader` gave last.
    pub(super) fn in_place<S: Stream>(
        extent: &Extent,
        reader: &mut Reader<'_, S>,
        first: Entry,
        job: &Job<'_>,
    ) -> Result<Self, ImageError> {
        let mut members = Self { file: extent.file.clone(), counts: extent.counts, found: HashMap::new() };
        members.collect(reader, first, job, |reader, entry| {
            Ok(Member::Bytes { offset: extent.offset + reader.position(), len: entry.size })
        })?;
        Ok(members)
    }

    /// Copies the members to a nameless file in the scratch directory, from `first`, the entry that `reader` gave last.
    pub(super) fn spooled<S: Stream>(
        reader: &mut Reader<'_, S>,
        first: Entry,
        job: &Job<'_>,
    ) -> Result<Self, ImageError> {
        let failed = |op| move |source| ImageError::Io { op, path: job.scratch.to_owned(), source };
        let file = nameless(job.scratch).map_err(failed("create a file in"))?;
        let mut end = 0;
        let mut members = Self { file: Arc::new(file), counts: false, found: HashMap::new() };
        let file = members.file.clone();
        members.collect(reader, first, job, |reader, entry| {
            let offset = end;
            loop {
                job.check()?;
                let data = reader.data()?;
                if data.is_empty() {
                    return Ok(Member::Bytes { offset, len: entry.size });
                }
                (&*file).write_all(data).map_err(failed("write to a file in"))?;
                let count = data.len();
                end += count as u64;
                reader.consume(count);
            }
        })?;
        Ok(members)
    }

    fn collect<S: Stream>(
        &mut self,
        reader: &mut Reader<'_, S>,
        first: Entry,
        job: &Job<'_>,
        mut take: impl FnMut(&mut Reader<'_, S>, &Entry) -> Result<Member, ImageError>,
    ) -> Result<(), ImageError> {
        let mut next = Some(first);
        while let Some(entry) = next {
            job.check()?;
            // A name that climbs out is nobody's member.
            if let (Some(name), member @ (Kind::File | Kind::Symlink | Kind::HardLink)) =
                (normal(&entry.path), entry.kind)
            {
                let member = match member {
                    Kind::File if entry.sparse.is_some() => return Err(invalid(format!("'{name}' is a sparse file"))),
                    Kind::File => take(reader, &entry)?,
                    _ => Member::Link(link_target(&name, &entry)),
                };
                self.found.insert(name, member);
            }
            if self.found.len() > job.limits.members {
                return Err(ImageError::Limit(format!("an image of more than {} files", job.limits.members)));
            }
            next = reader.next()?;
        }
        Ok(())
    }
}

/// Where an image's files are read from.
pub(super) trait Files {
    /// The file `name`, whole; `None` when it is not there.
    fn find(&self, name: &str) -> Result<Option<Extent>, ImageError>;

    /// The file `name`, which must be there.
    fn get(&self, name: &str) -> Result<Extent, ImageError> {
        self.find(name)?.ok_or_else(|| invalid(format!("'{name}' is missing")))
    }

    /// The contents of the small file `name`.
    fn document(&self, name: &str, job: &Job<'_>) -> Result<Vec<u8>, ImageError> {
        let extent = self.get(name)?;
        if extent.len > job.limits.document {
            return Err(ImageError::Limit(format!(
                "'{name}' has {} bytes, more than {}",
                extent.len, job.limits.document
            )));
        }
        let mut text = Vec::new();
        Section::new(extent, job).read_to_end(&mut text).map_err(from_io)?;
        Ok(text)
    }
}

impl Files for Members {
    fn find(&self, name: &str) -> Result<Option<Extent>, ImageError> {
        let mut name = name;
        for _ in 0..HOPS {
            match self.found.get(name) {
                None => return Ok(None),
                Some(Member::Link(target)) => name = target,
                Some(Member::Bytes { offset, len }) => {
                    let (file, counts) = (self.file.clone(), self.counts);
                    return Ok(Some(Extent { file, offset: *offset, len: *len, counts }));
                }
            }
        }
        Err(invalid(format!("'{name}' is a link that leads in a circle")))
    }
}

/// The member that a link names: a hard link counts from the top, a symbolic link from its directory.
fn link_target(name: &str, entry: &Entry) -> String {
    let link = String::from_utf8_lossy(&entry.link).into_owned();
    let mut parts: Vec<&str> = match (entry.kind, link.starts_with('/')) {
        (Kind::Symlink, false) => name.split('/').collect(),
        _ => vec![""],
    };
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

/// A file that is gone when it is closed (open(2), `O_TMPFILE`).
fn nameless(directory: &Path) -> io::Result<File> {
    let flags = libc::O_TMPFILE;
    match OpenOptions::new().read(true).write(true).custom_flags(flags).mode(0o600).open(directory) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => named_and_removed(directory),
        result => result,
    }
}

/// For file systems that have no nameless files.
fn named_and_removed(directory: &Path) -> io::Result<File> {
    let path = directory.join(format!("import-{}-{:?}", std::process::id(), std::thread::current().id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

pub(super) fn invalid(what: String) -> ImageError {
    ImageError::Invalid(what)
}
