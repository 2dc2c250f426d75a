//! The pool's metadata is checked before it is activated, with thin_check(8) where that is installed: a kernel that
//! meets damage later stops the pool under running containers.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::metadata::Superblock;
use crate::storage::StorageError;

const PROGRAM: &str = "thin_check";

/// How thoroughly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// Devices only: after a clean stop.
    Quick,
    /// Every mapping.
    Full,
}

/// Checks inactive metadata in `file`. Damage is an error with advice; nothing is activated then. A mark of the kernel
/// that it must be checked is cleared when all is well. Without the program the kernel alone decides.
pub(super) fn check(file: &Path, superblock: &Superblock, depth: Depth) -> Result<(), StorageError> {
    let options: &[&str] = match (superblock.needs_check, depth) {
        (true, _) => &["--clear-needs-check-flag"],
        (false, Depth::Quick) => &["--skip-mappings"],
        (false, Depth::Full) => &[],
    };
    run(PROGRAM, options, file)
}

fn run(program: &'static str, options: &[&str], file: &Path) -> Result<(), StorageError> {
    let output = Command::new(program)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .args(options)
        .arg(file)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            tracing::debug!(program, "not installed, so the pool's metadata is not checked");
            return Ok(());
        }
        Err(error) => return Err(StorageError::Program { program, message: error.to_string() }),
        Ok(output) => output,
    };
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
    let reason = format!(
        "{program} says '{said}' ({}); keep a copy of the file, make a repaired one with 'thin_repair -i FILE -o NEW', \
         put that in its place and start again; 'holmctl device check' shows then what is missing",
        output.status
    );
    Err(StorageError::Damaged { path: file.to_owned(), reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_no_damage() {
        run("no-such-program-at-all", &[], Path::new("/dev/null")).unwrap();
    }

    #[test]
    fn what_the_program_says_is_in_the_error() {
        let error = run("ls", &[], Path::new("/no/such/file")).unwrap_err();
        assert!(matches!(&error, StorageError::Damaged { reason, .. } if reason.contains("No such file")), "{error}");
    }
}
