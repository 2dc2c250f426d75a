//! Copies what is in one file: shared on the disk where the file system can, else run by run, and holes stay holes.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// The content of the files of one copy.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Set when the file system turned out not to share extents.
    no_clone: AtomicBool,
}

impl Content {
    /// From one file to an empty one; `length` is what the first has.
    pub(super) fn copy(&self, from: &OwnedFd, to: &OwnedFd, length: u64) -> rustix::io::Result<()> {
        if !self.no_clone.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(to, from) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::NOTTY) => self.no_clone.store(true, Ordering::Relaxed),
                // This file cannot: it is swapped to, or exempt from copy-on-write.
                Err(Errno::INVAL | Errno::TXTBSY) => {}
                Err(error) => return Err(error),
            }
        }
        copy_data(from, to, length)?;
        // A hole at the end.
        rustix::fs::ftruncate(to, length)
    }
}

/// Copies the runs of data and leaves holes.
fn copy_data(from: &OwnedFd, to: &OwnedFd, length: u64) -> rustix::io::Result<()> {
    let mut position = 0;
    while position < length {
        let start = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            Err(Errno::NXIO) => return Ok(()),
            // No holes on this file system.
            Err(Errno::INVAL) => position,
            other => other?,
        };
        let end = match rustix::fs::seek(from, SeekFrom::Hole(start)) {
            Err(Errno::INVAL) => length,
            other => other?.min(length),
        };
        copy_run(from, to, start, end)?;
        position = end.max(start + 1);
    }
    Ok(())
}

fn copy_run(from: &OwnedFd, to: &OwnedFd, mut start: u64, end: u64) -> rustix::io::Result<()> {
    while start < end {
        let left = usize::try_from(end - start).unwrap_or(usize::MAX).min(1 << 30);
        let mut target = start;
        let mut source = start;
        match rustix::fs::copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            // It became shorter meanwhile.
            Ok(0) => return Ok(()),
            Ok(copied) => start += copied as u64,
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL) => return pump(from, to, start, end),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn pump(from: &OwnedFd, to: &OwnedFd, mut start: u64, end: u64) -> rustix::io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    while start < end {
        let room = usize::try_from(end - start).unwrap_or(usize::MAX).min(buffer.len());
        let got = rustix::io::pread(from, &mut buffer[..room], start)?;
        if got == 0 {
            return Ok(());
        }
        let mut written = 0;
        while written < got {
            written += rustix::io::pwrite(to, &buffer[written..got], start + written as u64)?;
        }
        start += got as u64;
    }
    Ok(())
}
