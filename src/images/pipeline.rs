//! Two threads for one stream: one reads, decompresses and sums, the other takes it apart.
//!
//! ```text
//!  input --> [sum] --> decoder --> [sum] --> chunks --(bounded channel)--> consumer
//!                                              ^------(empty ones)----------'
//! ```

use std::io::{self, BufRead, Read};
use std::panic::resume_unwind;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use super::ImageError;
use super::codec::{self, Compression};
use super::digest::{Sum, Summer, Summing};
use super::job::{Job, from_io, into_io};

/// Bytes of one chunk. Larger ones fall out of the cache between the threads, smaller ones cost more switches.
const CHUNK: usize = 256 << 10;

/// Chunks between the threads.
const DEPTH: usize = 8;

/// What passed through.
#[derive(Debug)]
pub(super) struct Sums {
    /// Of the bytes as they were stored; only if they were asked for.
    pub(super) stored: Option<Sum>,
    /// Of the uncompressed stream.
    pub(super) stream: Sum,
}

/// Whether the sum of the bytes as stored is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    Sum,
    Ignore,
}

/// Feeds the uncompressed `input` to `consume`, reads what that leaves to the end, so that every checksum is seen, and
/// sums. The first cause of a failure is returned, not what followed from it.
pub(super) fn run<T>(
    job: &Job<'_>,
    input: impl Read + Send,
    stored: Stored,
    consume: impl FnOnce(&mut Chunks) -> Result<T, ImageError>,
) -> Result<(T, Sums), ImageError> {
    let (full_in, full_out) = sync_channel(DEPTH);
    let (empty_in, empty_out) = channel();
    thread::scope(|scope| {
        let producer = thread::Builder::new()
            .name("image-read".into())
            .spawn_scoped(scope, move || produce(job, input, stored, &full_in, &empty_out))
            .map_err(|source| ImageError::Io { op: "start", path: PathBuf::from("a thread"), source })?;
        let mut chunks = Chunks { full: Some(full_out), empty: empty_in, current: None };
        let result = consume(&mut chunks).and_then(|value| chunks.drain(job).map(|()| value));
        let was_read_to_the_end = chunks.full.is_none();
        // Whatever the producer waits for, it is not to wait any longer.
        job.failed.store(result.is_err(), Ordering::Relaxed);
        drop(chunks);
        let produced = producer.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (result, produced) {
            (Err(_), Err(cause)) if was_read_to_the_end => Err(cause),
            (Err(cause), _) | (Ok(_), Err(cause)) => Err(cause),
            (Ok(value), Ok(sums)) => Ok((value, sums)),
        }
    })
}

fn produce(
    job: &Job<'_>,
    mut input: impl Read + Send,
    stored: Stored,
    full: &SyncSender<Chunk>,
    empty: &Receiver<Chunk>,
) -> Result<Sums, ImageError> {
    let head = codec::read_head(&mut input).map_err(from_io)?;
    let packed = Compression::of(&head) != Compression::None;
    let mut input = Summing::new(&head, input, stored == Stored::Sum && packed);
    let stream = {
        let mut decoder = codec::decoder(head, &mut input).map_err(from_io)?;
        pump(job, &mut decoder, full, empty)?
    };
    let stored = if packed { input.finish() } else { Some(stream.clone()) };
    Ok(Sums { stored, stream })
}

/// Sends chunks until the decoder ends, each as soon as there is anything in it. A consumer that went away has a better
/// error than we could give.
fn pump(
    job: &Job<'_>,
    decoder: &mut dyn Read,
    full: &SyncSender<Chunk>,
    empty: &Receiver<Chunk>,
) -> Result<Sum, ImageError> {
    let mut summer = Summer::default();
    let mut left = job.limits.bytes;
    loop {
        job.check()?;
        let mut chunk = empty.try_recv().unwrap_or_else(|_| Chunk::empty());
        chunk.fill(decoder).map_err(from_io)?;
        summer.update(chunk.bytes());
        if chunk.bytes().is_empty() {
            return Ok(summer.finish());
        }
        left = left
            .checked_sub(chunk.bytes().len() as u64)
            .ok_or_else(|| ImageError::Limit(format!("more than {} bytes when uncompressed", job.limits.bytes)))?;
        if full.send(chunk).is_err() {
            return Err(ImageError::Canceled);
        }
    }
}

/// A buffer that goes back and forth between the threads.
#[derive(Debug)]
struct Chunk {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Chunk {
    fn empty() -> Self {
        Self { buffer: vec![0; CHUNK].into_boxed_slice(), start: 0, end: 0 }
    }

    /// What was not read yet.
    fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn fill(&mut self, from: &mut dyn Read) -> io::Result<()> {
        self.start = 0;
        self.end = loop {
            match from.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        Ok(())
    }
}

/// The uncompressed stream, as the consumer sees it.
#[derive(Debug)]
pub(super) struct Chunks {
    /// `None` once the producer has ended.
    full: Option<Receiver<Chunk>>,
    empty: Sender<Chunk>,
    current: Option<Chunk>,
}

impl Chunks {
    /// Reads to the end; what stands behind the end of an archive is padding.
    fn drain(&mut self, job: &Job<'_>) -> Result<(), ImageError> {
        let mut left = job.limits.trailing;
        loop {
            let count = self.fill_buf().map_err(from_io)?.len();
            if count == 0 {
                return Ok(());
            }
            left = left
                .checked_sub(count as u64)
                .ok_or_else(|| ImageError::Limit(format!("more than {} bytes behind its end", job.limits.trailing)))?;
            self.consume(count);
        }
    }
}

impl BufRead for Chunks {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.current.as_ref().is_none_or(|chunk| chunk.bytes().is_empty()) {
            if let Some(used) = self.current.take() {
                // Not taken back once the producer has ended.
                let _ = self.empty.send(used);
            }
            self.current = self.full.as_ref().and_then(|full| full.recv().ok());
            if self.current.is_none() {
                self.full = None;
            }
        }
        Ok(self.current.as_ref().map(Chunk::bytes).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        if let Some(chunk) = &mut self.current {
            chunk.start = (chunk.start + count).min(chunk.end);
        }
    }
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// What of a failed stream shows inside a reader.
pub(super) fn ended_early(what: &str) -> io::Error {
    into_io(ImageError::Damaged(format!("it ends in the middle of {what}")))
}
