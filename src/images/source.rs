//! Where an archive comes from: a regular file, which is read in place as often as needed, or a pipe, which is read
//! once.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::FileType;
use rustix::io::Errno;

use super::ImageError;
use super::job::{Job, into_io};

/// Most bytes read between two looks at the flag that cancels.
const STEP: usize = 64 << 10;

/// How long a silent pipe is waited for between two looks at that flag, which cannot be waited for.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };

/// The archive as it was handed in.
#[derive(Debug)]
pub(super) enum Source {
    /// A regular file, from where its reader stood to its end.
    File(Extent),
    /// A pipe or socket.
    Pipe(OwnedFd),
}

/// A piece of a file.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub(super) file: Arc<File>,
    /// Where it begins, bytes from the start of the file.
    pub(super) offset: u64,
    /// Bytes.
    pub(super) len: u64,
    /// Whether reading it counts as reading the archive.
    pub(super) counts: bool,
}

impl Source {
    /// Looks at `fd` and tells the progress how much there is. Neither a file nor a pipe: `Invalid`.
    pub(super) fn open(fd: OwnedFd, job: &Job<'_>) -> Result<Self, ImageError> {
        let stat = rustix::fs::fstat(&fd).map_err(|e| failed("inspect", e.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::file(File::from(fd), job),
            FileType::Fifo | FileType::Socket => Ok(Self::Pipe(fd)),
            _ => Err(ImageError::Invalid("it is neither a file nor a pipe".into())),
        }
    }

    fn file(mut file: File, job: &Job<'_>) -> Result<Self, ImageError> {
        let offset = file.stream_position().map_err(|e| failed("inspect", e))?;
        let end = file.metadata().map_err(|e| failed("inspect", e))?.len();
        let len = end.saturating_sub(offset);
        job.progress.total.store(len, Ordering::Relaxed);
        Ok(Self::File(Extent { file: Arc::new(file), offset, len, counts: true }))
    }
}

fn failed(op: &'static str, source: io::Error) -> ImageError {
    ImageError::Io { op, path: PathBuf::from("the archive"), source }
}

/// Reads an [`Extent`] without moving the file's own position.
#[derive(Debug)]
pub(super) struct Section<'a> {
    extent: Extent,
    /// Bytes from the start of the extent.
    position: u64,
    job: &'a Job<'a>,
}

impl<'a> Section<'a> {
    pub(super) fn new(extent: Extent, job: &'a Job<'a>) -> Self {
        Self { extent, position: 0, job }
    }
}

impl Read for Section<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.job.check().map_err(into_io)?;
        let left = usize::try_from(self.extent.len - self.position).unwrap_or(usize::MAX);
        let want = buffer.len().min(STEP).min(left);
        if want == 0 {
            return Ok(0);
        }
        let count = match self.extent.file.read_at(&mut buffer[..want], self.extent.offset + self.position) {
            Ok(0) => return Err(into_io(ImageError::Damaged("the file became shorter while it was read".into()))),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => return Err(into_io(failed("read", error))),
        };
        self.position += count as u64;
        if self.extent.counts {
            self.job.advance(count);
        }
        Ok(count)
    }
}

impl Seek for Section<'_> {
    /// Only positions inside the extent or at its end exist.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
            SeekFrom::End(delta) => self.extent.len.checked_add_signed(delta),
        };
        match position.filter(|p| *p <= self.extent.len) {
            Some(position) => {
                self.position = position;
                Ok(position)
            }
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads a pipe or socket, blocking or not.
#[derive(Debug)]
pub(super) struct Pipe<'a> {
    fd: OwnedFd,
    job: &'a Job<'a>,
}

impl<'a> Pipe<'a> {
    pub(super) fn new(fd: OwnedFd, job: &'a Job<'a>) -> Self {
        Self { fd, job }
    }

    /// Waits until there is something to read; ends early when the import is to end.
    fn wait(&self) -> io::Result<()> {
        loop {
            self.job.check().map_err(into_io)?;
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match rustix::event::poll(&mut fds, Some(&PATIENCE)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(into_io(failed("wait for", error.into()))),
            }
        }
    }
}

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer.len().min(STEP);
        loop {
            self.wait()?;
            match rustix::io::read(&self.fd, &mut buffer[..want]) {
                // A non-blocking descriptor, and someone else was faster.
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(into_io(failed("read", error.into()))),
                Ok(count) => {
                    self.job.advance(count);
                    return Ok(count);
                }
            }
        }
    }
}
