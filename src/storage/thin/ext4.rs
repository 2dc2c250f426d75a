//! The file system ext4 on a device.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::model::Bytes;
use crate::storage::StorageError;
use crate::sys::{block, ext4};

/// Makes an empty one on all of `device`.
pub(super) fn format(device: &Path) -> Result<(), StorageError> {
    // Unmapped blocks of a thin device read as zeros, so inode tables and journal need no zeroing; older mke2fs does not
    // know that option.
    make(device, "nodiscard,root_owner=0:0,assume_storage_prezeroed=1")
        .or_else(|_| make(device, "nodiscard,root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1"))
}

/// Explicit features, so that a pool does not depend on the host's `mke2fs.conf`; no reserved blocks; a small journal,
/// because every device comes to map all of its own; an inode for every 8 KiB, which costs nothing until it is used.
fn make(device: &Path, extended: &str) -> Result<(), StorageError> {
    let options = ["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-i", "8192", "-m", "0", "-J", "size=16"];
    let rest = ["-L", "holm", "-O", FEATURES, "-E", extended];
    succeed("mkfs.ext4", &[&options[..], &rest[..]].concat(), device, &[]).map(drop)
}

/// Makes the one on `device`, which nobody uses, `size` large, and gives back what is behind it. NotSupported when its
/// content needs more.
pub(super) fn shrink(device: &Path, size: Bytes) -> Result<(), StorageError> {
    // It was in use when its origin was snapshotted: its journal is replayed here. 1 says that something was corrected.
    let checked = run("e2fsck", PACKAGE, &["-f", "-p"], device, &[])?;
    if !matches!(checked.status.code(), Some(0 | 1)) {
        return Err(failed("e2fsck", &checked));
    }
    let least = least(device)?;
    if size < least {
        let advice = format!("its content needs at least {least}");
        return Err(StorageError::NotSupported { what: "a device of this size", advice });
    }
    succeed("resize2fs", &["-f"], device, &[&format!("{}K", size.0 / Bytes::KIB)])?;
    if let Err(error) = discard_behind(device, size) {
        tracing::debug!(%error, device = %device.display(), "cannot give back what a device does not need, ignoring");
    }
    Ok(())
}

/// What resize2fs(8) says it can be made, and a little more, because that is an estimate.
fn least(device: &Path) -> Result<Bytes, StorageError> {
    let said = succeed("resize2fs", &["-P"], device, &[])?;
    let blocks = estimate(&String::from_utf8_lossy(&said.stdout)).ok_or_else(|| failed("resize2fs", &said))?;
    let bytes = blocks.saturating_mul(BLOCK);
    Ok(Bytes(bytes.saturating_add(bytes / 50).next_multiple_of(Bytes::MIB)))
}

fn estimate(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.split_once(": ")?.1.trim().parse().ok())
}

fn discard_behind(device: &Path, size: Bytes) -> io::Result<()> {
    let file = File::options().write(true).open(device)?;
    let end = block::size(&file)?;
    block::discard(&file, size.0, end.saturating_sub(size.0))
}

/// Grows the one that the open directory `top` is on.
pub(super) fn grow(top: impl AsFd, size: Bytes) -> io::Result<()> {
    ext4::resize(top, size.0 / BLOCK)
}

fn succeed(program: &'static str, options: &[&str], device: &Path, last: &[&str]) -> Result<Output, StorageError> {
    let output = run(program, PACKAGE, options, device, last)?;
    if output.status.success() { Ok(output) } else { Err(failed(program, &output)) }
}

/// Runs a program over a device; `package` is where it comes from.
pub(super) fn run(
    program: &'static str,
    package: &str,
    options: &[&str],
    device: &Path,
    last: &[&str],
) -> Result<Output, StorageError> {
    Command::new(program)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
        .env("LC_ALL", "C")
        .args(options)
        .arg(device)
        .args(last)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| StorageError::Program { program, message: format!("{error}; install {package}") })
}

/// What a program said.
pub(super) fn failed(program: &'static str, output: &Output) -> StorageError {
    let said = [&output.stderr[..], b" ", &output.stdout[..]].concat();
    let said = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
    StorageError::Program { program, message: format!("{said} ({})", output.status) }
}

const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,\
                        large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
const BLOCK: u64 = 4096;
const PACKAGE: &str = "e2fsprogs";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_found_in_what_the_program_says() {
        assert_eq!(estimate("Estimated minimum size of the filesystem: 8321\n"), Some(8321));
        assert_eq!(estimate("resize2fs 1.47.0\n"), None);
    }
}
