//! Copies of the pool's metadata beside the journal, as thin_dump(8) writes them, which thin_restore(8) reads: for the day on
//! which thin_repair(8) finds too little. Only where that program is installed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

/// How many are kept.
const KEPT: usize = 3;

/// How old the newest may become.
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const PROGRAM: &str = "thin_dump";

/// Whether it is time for another one in `directory`.
pub(super) fn is_due(directory: &Path, now: SystemTime) -> io::Result<bool> {
    let Some(newest) = backups(directory)?.pop() else { return Ok(true) };
    let age = now.duration_since(fs::metadata(newest)?.modified()?);
    // Of the future: the clock was set back.
    Ok(age.is_err() || age.is_ok_and(|age| age >= DAY))
}

/// Writes one of the metadata in `device`, of which the kernel holds a snapshot for us, and removes the oldest; the
/// former ones stay after an error. False where the program is missing.
pub(super) fn write(device: &Path, directory: &Path, now: SystemTime) -> io::Result<bool> {
    let fresh = directory.join("metadata-backup.new");
    let output = Command::new(PROGRAM)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(["--metadata-snap", "--output"])
        .arg(&fresh)
        .arg(device)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    File::open(&fresh)?.sync_all()?;
    let second = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    fs::rename(&fresh, directory.join(format!("{PREFIX}{second:012}{SUFFIX}")))?;
    File::open(directory)?.sync_all()?;
    let all = backups(directory)?;
    for old in all.iter().take(all.len().saturating_sub(KEPT)) {
        fs::remove_file(old)?;
    }
    Ok(true)
}

/// In order of age, the oldest first.
fn backups(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            found.push(directory.join(name));
        }
    }
    found.sort();
    Ok(found)
}

const PREFIX: &str = "metadata-";
const SUFFIX: &str = ".xml";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_due_once_a_day() {
        let directory = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        assert!(is_due(directory.path(), now).unwrap());
        fs::write(directory.path().join("metadata-000000000001.xml"), "").unwrap();
        fs::write(directory.path().join("metadata"), "").unwrap();
        assert_eq!(backups(directory.path()).unwrap().len(), 1);
        assert!(!is_due(directory.path(), now + Duration::from_secs(60)).unwrap());
        assert!(is_due(directory.path(), now + DAY * 2).unwrap());
    }
}
