//! The journal: one line per step, `crc32c {"seq":…,"durable":…,"op":…}`.
//!
//! A line is damaged when its checksum, its number or its JSON is wrong. Lines that were not yet on the disk when the
//! power went may be damaged in any way, so each line says up to which number everything was on the disk when it was
//! written: damage that no later line vouches for is a torn end and is cut off; any other is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::state::{Op, State};
use crate::storage::{StorageError, crc32c};

/// Where the bytes of the journal are kept.
pub(super) trait Log: Send + std::fmt::Debug {
    /// All of it; None when there is none.
    fn read(&self) -> io::Result<Option<Vec<u8>>>;
    /// Adds to the end; on an error nothing was added. Not yet on the disk.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Brings everything to the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Puts `bytes` in the place of the whole, on the disk: after a crash it is the old or the new whole.
    fn replace(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// For messages.
    fn path(&self) -> PathBuf;
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    log: Box<dyn Log>,
    /// Number of the last line.
    seq: u64,
    /// Everything up to this line is on the disk.
    durable: u64,
    /// Lines since the last checkpoint.
    lines: u64,
    /// Set by the first failed write: what is in the file is not known then.
    broken: bool,
}

#[derive(Serialize, Deserialize)]
struct Line {
    seq: u64,
    durable: u64,
    #[serde(flatten)]
    op: Op,
}

impl Journal {
    /// Reads the journal and the table that it leads to; None when there is no journal.
    pub(super) fn open(log: Box<dyn Log>) -> Result<(Self, Option<State>), StorageError> {
        let bytes = log.read().map_err(|source| StorageError::Io { op: "read", path: log.path(), source })?;
        let mut journal = Self::begin(log);
        let Some(bytes) = bytes else { return Ok((journal, None)) };
        let lines = intact_lines(&bytes).map_err(|reason| journal.damaged(reason))?;
        let mut state = State::default();
        for line in &lines {
            state.apply(&line.op).map_err(|reason| journal.damaged(format!("line {} {reason}", line.seq)))?;
        }
        let Some(last) = lines.last() else {
            return Err(journal.damaged("has no readable first line".to_owned()));
        };
        (journal.seq, journal.durable, journal.lines) = (last.seq, last.durable, lines.len() as u64);
        Ok((journal, Some(state)))
    }

    /// A journal that begins anew, whatever there is; the first [`checkpoint`](Self::checkpoint) replaces that.
    pub(super) fn begin(log: Box<dyn Log>) -> Self {
        Self { log, seq: 0, durable: 0, lines: 0, broken: false }
    }

    /// Writes the table as the whole journal. Also what begins a journal, and what cuts a torn end off.
    pub(super) fn checkpoint(&mut self, state: &State) -> Result<(), StorageError> {
        let first = self.seq + 1;
        let mut bytes = Vec::new();
        for op in state.checkpoint() {
            self.seq += 1;
            bytes.extend(encode(&Line { seq: self.seq, durable: first, op }));
        }
        let result = self.log.replace(&bytes);
        self.note("rewrite", result)?;
        (self.durable, self.lines) = (self.seq, 0);
        Ok(())
    }

    /// Adds a step; on the disk after the next [`sync`](Self::sync).
    pub(super) fn append(&mut self, op: &Op) -> Result<(), StorageError> {
        if self.broken {
            return Err(self.damaged("was not written completely; restart holmd".to_owned()));
        }
        let line = encode(&Line { seq: self.seq + 1, durable: self.durable, op: op.clone() });
        let result = self.log.append(&line);
        self.note("write", result)?;
        self.seq += 1;
        self.lines += 1;
        Ok(())
    }

    /// Brings every step to the disk.
    pub(super) fn sync(&mut self) -> Result<(), StorageError> {
        // A failed fdatasync may have dropped the pages and says so only once: never go on after it.
        let result = self.log.sync();
        self.note("sync", result)?;
        self.durable = self.seq;
        Ok(())
    }

    /// Whether it is worth a [`checkpoint`](Self::checkpoint) for a table of `devices` devices.
    pub(super) fn is_long(&self, devices: usize) -> bool {
        self.lines > 1024 + 4 * devices as u64
    }

    fn note(&mut self, op: &'static str, result: io::Result<()>) -> Result<(), StorageError> {
        self.broken |= result.is_err();
        result.map_err(|source| StorageError::Io { op, path: self.log.path(), source })
    }

    fn damaged(&self, reason: String) -> StorageError {
        StorageError::Damaged { path: self.log.path(), reason }
    }
}

/// The lines before the torn end, if there is one.
fn intact_lines(bytes: &[u8]) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    let mut torn = None;
    for text in bytes.split_inclusive(|byte| *byte == b'\n') {
        let line = decode(text);
        match (torn, line) {
            (None, Some(line)) if lines.last().is_none_or(|last| line.seq == last.seq + 1) => lines.push(line),
            (None, _) => torn = Some(lines.last().map_or(1, |last| last.seq + 1)),
            (Some(from), Some(later)) if later.durable >= from => {
                return Err(format!(
                    "line {from} cannot be read although it was on the disk; rebuild it with 'holmctl \
                     device salvage', restore the file from a backup, or move the directory away to begin with an empty pool"
                ));
            }
            (Some(_), _) => {}
        }
    }
    Ok(lines)
}

fn encode(line: &Line) -> Vec<u8> {
    let json = serde_json::to_string(line).expect("a line is plain data");
    format!("{:08x} {json}\n", crc32c::checksum(json.as_bytes())).into_bytes()
}

fn decode(text: &[u8]) -> Option<Line> {
    let text = str::from_utf8(text).ok()?.strip_suffix('\n')?;
    let (crc, json) = text.split_once(' ')?;
    let right = u32::from_str_radix(crc, 16).ok()? == crc32c::checksum(json.as_bytes());
    right.then(|| serde_json::from_str(json).ok())?
}

/// A journal in a file.
#[derive(Debug)]
pub(super) struct FileLog {
    directory: PathBuf,
    file: Option<(File, u64)>,
}

impl FileLog {
    /// `<directory>/journal`.
    pub(super) fn new(directory: &Path) -> io::Result<Self> {
        let mut log = Self { directory: directory.to_owned(), file: None };
        log.reopen()?;
        Ok(log)
    }

    fn reopen(&mut self) -> io::Result<()> {
        self.file = match OpenOptions::new().read(true).write(true).open(self.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
            Ok(file) => {
                let length = file.metadata()?.len();
                Some((file, length))
            }
        };
        Ok(())
    }
}

impl Log for FileLog {
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        match &self.file {
            None => Ok(None),
            Some(_) => fs::read(self.path()).map(Some),
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (file, length) = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
        if let Err(error) = file.write_all_at(bytes, *length) {
            file.set_len(*length)?;
            return Err(error);
        }
        *length += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |(file, _)| file.sync_data())
    }

    fn replace(&mut self, bytes: &[u8]) -> io::Result<()> {
        let path = self.path();
        let fresh = path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        // The rename is on the disk when the directory is.
        File::open(&self.directory)?.sync_all()?;
        self.reopen()
    }

    fn path(&self) -> PathBuf {
        self.directory.join("journal")
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::{device, state};
    use super::*;

    fn open(directory: &Path) -> Result<(Journal, Option<State>), StorageError> {
        Journal::open(Box::new(FileLog::new(directory).unwrap()))
    }

    /// A journal whose lines are all on the disk, and the table it leads to.
    fn written(directory: &Path) -> State {
        let (mut journal, none) = open(directory).unwrap();
        assert!(none.is_none());
        journal.checkpoint(&State::new("u")).unwrap();
        let ops = [Op::Create(device("a", 0, 1)), Op::Created { thin: 0 }, Op::Create(device("b", 1, 2))];
        for op in &ops {
            journal.append(op).unwrap();
            journal.sync().unwrap();
        }
        state(&ops)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let directory = tempfile::tempdir().unwrap();
        let expected = written(directory.path());
        let (mut journal, state) = open(directory.path()).unwrap();
        assert_eq!(state.as_ref(), Some(&expected));
        journal.checkpoint(&expected).unwrap();
        assert_eq!(open(directory.path()).unwrap().1, Some(expected));
    }

    #[test]
    fn a_torn_last_line_is_ignored_wherever_it_is_torn() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path());
        let path = directory.path().join("journal");
        let whole = fs::read(&path).unwrap();
        let last = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
        for cut in last..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let state = open(directory.path()).unwrap().1.unwrap();
            assert_eq!(state.devices.len(), 1);
        }
        let mut zeros = whole[..last].to_vec();
        zeros.extend([0; 100]);
        fs::write(&path, zeros).unwrap();
        assert_eq!(open(directory.path()).unwrap().1.unwrap().devices.len(), 1);
    }

    #[test]
    fn damage_before_the_end_is_an_error_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        written(directory.path());
        let path = directory.path().join("journal");
        let mut bytes = fs::read(&path).unwrap();
        let third = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').nth(1).unwrap().0 + 20;
        bytes[third] ^= 1;
        fs::write(&path, bytes).unwrap();
        let error = open(directory.path()).unwrap_err().to_string();
        assert!(error.contains("backup"), "{error}");
    }

    #[test]
    fn lines_that_never_reached_the_disk_may_be_damaged_in_any_order() {
        let directory = tempfile::tempdir().unwrap();
        let (mut journal, _) = open(directory.path()).unwrap();
        journal.checkpoint(&State::new("u")).unwrap();
        journal.append(&Op::Create(device("a", 0, 1))).unwrap();
        journal.sync().unwrap();
        let path = directory.path().join("journal");
        let safe = fs::metadata(&path).unwrap().len();
        journal.append(&Op::Created { thin: 0 }).unwrap();
        journal.append(&Op::Create(device("b", 1, 2))).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[usize::try_from(safe).unwrap() + 3] = 0;
        fs::write(&path, bytes).unwrap();
        let state = open(directory.path()).unwrap().1.unwrap();
        assert_eq!(state.devices[&0].1, super::super::state::Phase::Creating);
        assert_eq!(state.devices.len(), 1);
    }

    #[test]
    fn an_unknown_format_is_an_error_with_advice() {
        let directory = tempfile::tempdir().unwrap();
        let line = Line { seq: 1, durable: 1, op: Op::Pool { version: 9, uuid: "u".into() } };
        fs::write(directory.path().join("journal"), encode(&line)).unwrap();
        assert!(open(directory.path()).unwrap_err().to_string().contains("format 9"));
    }
}
