//! Units → files and links. Each is tried, whatever became of those before.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::units::Unit;

/// A file or link that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(super) struct WriteError {
    path: PathBuf,
    source: io::Error,
}

/// Writes units and their links below a directory, which systemd gives us empty.
pub(super) fn units(directory: &Path, units: &[Unit]) -> Vec<WriteError> {
    units.iter().flat_map(|unit| one(directory, unit)).collect()
}

fn one(directory: &Path, unit: &Unit) -> Vec<WriteError> {
    let path = directory.join(&unit.name);
    let written = match &unit.text {
        Some(text) => fs::write(&path, text),
        None => symlink("/dev/null", &path),
    };
    let mut failed: Vec<_> = written.err().map(|source| WriteError { path, source }).into_iter().collect();
    for link in &unit.links {
        let path = directory.join(&link.path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| symlink(&link.target, &path));
        failed.extend(made.err().map(|source| WriteError { path, source }));
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Link;

    #[test]
    fn units_links_and_masks_are_written() {
        let root = tempfile::tempdir().unwrap();
        let link = Link { path: "multi-user.target.wants/a.service".into(), target: "../a.service".into() };
        let unit = Unit { name: "a.service".into(), text: Some("[Unit]\n".into()), links: vec![link] };
        let masked = Unit { name: "b.service".into(), text: None, links: vec![] };
        assert!(units(root.path(), &[unit.clone(), masked]).is_empty());
        assert_eq!(fs::read_to_string(root.path().join("multi-user.target.wants/a.service")).unwrap(), "[Unit]\n");
        assert_eq!(fs::read_link(root.path().join("b.service")).unwrap(), Path::new("/dev/null"));
        // What is there already is said, and the rest is done.
        assert_eq!(units(root.path(), &[unit]).len(), 1);
        assert_eq!(units(Path::new("/nowhere"), &[Unit { name: "a".into(), text: None, links: vec![] }]).len(), 1);
    }
}
