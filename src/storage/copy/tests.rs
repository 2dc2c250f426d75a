//! What a new daemon finds, and what it leaves alone.

use std::process::{Child, Command, Stdio};

use super::super::behaviour::{add, eventually, id, read, write};
use super::*;
use crate::storage::Finding;

/// A set in a directory of its own; None without the right to mount.
fn set() -> Option<(tempfile::TempDir, Arc<dyn DeviceSet>)> {
    let directory = tempfile::tempdir_in("/var/tmp").unwrap();
    let set = open(&directory);
    match set.mount_device(&id(BASE), Access::ReadOnly) {
        Err(StorageError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
            eprintln!("skipped: detached mounts need CAP_SYS_ADMIN");
            None
        }
        mounted => {
            drop(mounted.unwrap());
            Some((directory, set))
        }
    }
}

fn open(directory: &tempfile::TempDir) -> Arc<dyn DeviceSet> {
    CopyDeviceSet::open(directory.path()).unwrap()
}

/// A process that uses a tree until its input ends.
fn stand_in(directory: &Path) -> Child {
    Command::new("cat").current_dir(directory).stdin(Stdio::piped()).spawn().unwrap()
}

fn leave(mut user: Child) {
    drop(user.stdin.take());
    user.wait().unwrap();
}

fn entries(directory: &tempfile::TempDir, place: &str) -> Vec<PathBuf> {
    fs::read_dir(directory.path().join(place)).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn a_tree_that_somebody_uses_outlives_its_removal_and_new_starts() {
    let Some((directory, set)) = set() else { return };
    add(&set, "web", BASE);
    write(set.mount_device(&id("web"), Access::ReadWrite).unwrap().mount(), "mine");
    let user = stand_in(&directory.path().join("trees/web").join(TREE));
    drop(set);
    let set = open(&directory);
    assert!(set.devices().unwrap().iter().any(|device| device.id == id("web") && device.active), "seen anew");
    assert!(matches!(set.deactivate_device(&id("web")), Err(StorageError::InUse { .. })));
    add(&set, "before", BASE);
    assert!(matches!(set.rollback_device(&id("web"), &id("before")), Err(StorageError::InUse { .. })));
    assert_eq!(set.remove_device(&id("web")).unwrap(), Removal::Deferred);
    drop(set);
    let set = open(&directory);
    set.close().unwrap();
    let seen = fs::read(format!("/proc/{}/cwd/file", user.id())).unwrap();
    assert_eq!(seen, b"mine");
    leave(user);
    eventually("the tree is deleted", || entries(&directory, "trash").is_empty());
}

#[test]
fn what_was_pending_is_moved_away_at_once_and_deleted_when_it_is_unused() {
    let Some((directory, set)) = set() else { return };
    set.add_device(&id("half"), &id(BASE), &AddOptions { size: None, pending: true }).unwrap();
    let user = stand_in(&directory.path().join("pending/half").join(TREE));
    drop(set);
    let set = open(&directory);
    set.close().unwrap();
    assert!(entries(&directory, "pending").is_empty());
    assert_eq!(entries(&directory, "trash").len(), 1);
    add(&set, "half", BASE);
    leave(user);
    eventually("the tree is deleted", || entries(&directory, "trash").is_empty());
}

#[test]
fn a_copy_that_fails_leaves_nothing() {
    let Some((directory, set)) = set() else { return };
    add(&set, "web", BASE);
    // A tree that is none cannot be copied.
    let tree = directory.path().join("trees/web").join(TREE);
    fs::remove_dir(&tree).unwrap();
    fs::write(&tree, "").unwrap();
    let failed = set.add_device(&id("new"), &id("web"), &AddOptions::default());
    assert!(matches!(&failed, Err(StorageError::Io { path, .. }) if path.ends_with("trees/web")), "{failed:?}");
    assert!(matches!(set.rollback_device(&id(BASE), &id("web")), Err(StorageError::InUse { .. })));
    assert!(matches!(set.device(&id("new")), Err(StorageError::NoSuchDevice(_))));
    assert!(entries(&directory, "pending").is_empty());
    eventually("nothing is left", || entries(&directory, "trash").is_empty());
    let report = set.check().unwrap();
    assert!(
        matches!(&report.findings[..], [Finding::Unreadable { id: found, .. }] if *found == id("web")),
        "{report:?}"
    );
}

#[test]
fn a_note_that_is_damaged_costs_no_device_and_is_written_anew() {
    let Some((directory, set)) = set() else { return };
    add(&set, "web", BASE);
    write(set.mount_device(&id("web"), Access::ReadWrite).unwrap().mount(), "kept");
    drop(set);
    fs::write(directory.path().join("trees/web/holm.note"), "{").unwrap();
    let set = open(&directory);
    assert_eq!(read(set.mount_device(&id("web"), Access::ReadOnly).unwrap().mount()).as_deref(), Some("kept"));
    let report = set.check().unwrap();
    assert!(matches!(&report.findings[..], [Finding::WrongLabel { .. }]), "{report:?}");
    assert_eq!(set.repair().unwrap().findings, []);
    assert_eq!(set.check().unwrap().findings, []);
}
