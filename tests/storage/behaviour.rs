//! What every driver must do, as bodies of tests. The including module has the words (`DeviceSet`, `DeviceId`, …) in
//! scope and says how to open a set; see `Subject`.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags};

use super::*;

/// A driver under test.
pub(crate) struct Subject<'a> {
    /// Opens the set, or opens it again after the last one was dropped.
    pub(crate) open: &'a dyn Fn() -> Arc<dyn DeviceSet>,
    /// Whether mounts are real mounts, which can be read-only.
    pub(crate) real_mounts: bool,
    /// Whether devices have sizes.
    pub(crate) sizes: bool,
    /// Whether file systems can be made smaller.
    pub(crate) shrinks: bool,
}

/// Every body.
pub(crate) fn every_behaviour(subject: &Subject<'_>) {
    what_is_written_stays_and_is_seen_by_younger_snapshots_only(subject);
    wrong_ids_are_named_errors(subject);
    a_pending_device_is_no_base_until_it_is_complete(subject);
    a_removed_id_is_free_although_the_device_is_in_use(subject);
    a_read_only_mount_is_read_only(subject);
    sizes_are_kept_or_refused(subject);
    a_device_goes_back_to_a_snapshot(subject);
    a_device_is_active_for_others_until_it_is_given_back(subject);
    what_is_a_devices_own_is_told(subject);
    a_new_start_finds_complete_devices_and_drops_pending_ones(subject);
    a_set_in_use_is_well_and_can_be_trimmed(subject);
}

fn what_is_written_stays_and_is_seen_by_younger_snapshots_only(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "old", "base");
    add(&set, "sibling", "base");
    write(set.mount_device(&id("old"), Access::ReadWrite).unwrap().mount(), "one");
    add(&set, "young", "old");
    write(set.mount_device(&id("old"), Access::ReadWrite).unwrap().mount(), "two");
    let seen = |name: &str| read(set.mount_device(&id(name), Access::ReadWrite).unwrap().mount());
    assert_eq!(seen("old").as_deref(), Some("two"));
    assert_eq!(seen("young").as_deref(), Some("one"));
    assert_eq!(seen("sibling"), None);
    for name in ["old", "young", "sibling"] {
        remove_for_good(&set, name);
    }
}

fn wrong_ids_are_named_errors(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "here", "base");
    let add = |new: &str, base: &str| set.add_device(&id(new), &id(base), &AddOptions::default());
    assert!(matches!(add("here", "base"), Err(StorageError::DeviceExists(_))));
    assert!(matches!(add("new", "nowhere"), Err(StorageError::NoSuchDevice(_))));
    assert!(matches!(set.mount_device(&id("nowhere"), Access::ReadOnly), Err(StorageError::NoSuchDevice(_))));
    assert!(matches!(set.device(&id("nowhere")), Err(StorageError::NoSuchDevice(_))));
    assert!(matches!(set.remove_device(&id("base")), Err(StorageError::InUse { .. })));
    assert_eq!(set.remove_device(&id("nowhere")).unwrap(), Removal::NotThere);
    remove_for_good(&set, "here");
    assert_eq!(ids(&set), ["base"]);
}

fn a_pending_device_is_no_base_until_it_is_complete(subject: &Subject<'_>) {
    let set = (subject.open)();
    set.add_device(&id("layer"), &id("base"), &AddOptions { size: None, pending: true }).unwrap();
    assert_eq!(set.device(&id("layer")).unwrap().state, DeviceState::Pending);
    let early = set.add_device(&id("c"), &id("layer"), &AddOptions::default());
    assert!(matches!(early, Err(StorageError::WrongState { .. })), "{early:?}");
    write(set.mount_device(&id("layer"), Access::ReadWrite).unwrap().mount(), "filled");
    set.complete_device(&id("layer")).unwrap();
    assert_eq!(set.device(&id("layer")).unwrap().state, DeviceState::Ready);
    assert!(matches!(set.complete_device(&id("layer")), Err(StorageError::WrongState { .. })));
    add(&set, "c", "layer");
    assert_eq!(read(set.mount_device(&id("c"), Access::ReadWrite).unwrap().mount()).as_deref(), Some("filled"));
    // A base may go before its snapshots.
    remove_for_good(&set, "layer");
    assert_eq!(read(set.mount_device(&id("c"), Access::ReadWrite).unwrap().mount()).as_deref(), Some("filled"));
    remove_for_good(&set, "c");
}

fn a_removed_id_is_free_although_the_device_is_in_use(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "busy", "base");
    let held = set.mount_device(&id("busy"), Access::ReadWrite).unwrap();
    write(held.mount(), "mine");
    assert_eq!(set.remove_device(&id("busy")).unwrap(), Removal::Deferred);
    assert!(matches!(set.mount_device(&id("busy"), Access::ReadOnly), Err(StorageError::NoSuchDevice(_))));
    add(&set, "busy", "base");
    assert_eq!(read(set.mount_device(&id("busy"), Access::ReadWrite).unwrap().mount()), None);
    assert_eq!(read(held.mount()).as_deref(), Some("mine"));
    drop(held);
    eventually("the removed device is deleted", || ids(&set) == ["base", "busy"]);
    remove_for_good(&set, "busy");
}

fn a_read_only_mount_is_read_only(subject: &Subject<'_>) {
    if !subject.real_mounts {
        return;
    }
    let set = (subject.open)();
    add(&set, "quiet", "base");
    write(set.mount_device(&id("quiet"), Access::ReadWrite).unwrap().mount(), "text");
    let quiet = set.mount_device(&id("quiet"), Access::ReadOnly).unwrap();
    assert_eq!(read(quiet.mount()).as_deref(), Some("text"));
    assert_eq!(create(quiet.mount()).unwrap_err(), rustix::io::Errno::ROFS);
    drop(quiet);
    let loud = set.mount_device(&id("quiet"), Access::ReadWrite).unwrap();
    let quiet = set.mount_device(&id("quiet"), Access::ReadOnly).unwrap();
    assert_eq!(create(quiet.mount()).unwrap_err(), rustix::io::Errno::ROFS);
    create(loud.mount()).unwrap();
    drop((loud, quiet));
    remove_for_good(&set, "quiet");
}

fn a_set_in_use_is_well_and_can_be_trimmed(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "idle", "base");
    add(&set, "used", "base");
    let used = set.mount_device(&id("used"), Access::ReadWrite).unwrap();
    write(used.mount(), "text");
    for report in [set.check().unwrap(), set.repair().unwrap()] {
        assert_eq!((report.devices, report.findings, report.foreign), (3, vec![], vec![]));
    }
    assert!(set.trim().unwrap().failed.is_empty());
    assert_eq!(set.remove_foreign(1 << 20).unwrap(), Removal::NotThere);
    assert_eq!(read(used.mount()).as_deref(), Some("text"));
    drop(used);
    for name in ["idle", "used"] {
        remove_for_good(&set, name);
    }
}

fn sizes_are_kept_or_refused(subject: &Subject<'_>) {
    let set = (subject.open)();
    let size = Bytes(set.device(&id("base")).unwrap().size.0 + (256 << 20));
    let options = AddOptions { size: Some(size), pending: false };
    let added = set.add_device(&id("large"), &id("base"), &options);
    if !subject.sizes {
        assert!(matches!(added, Err(StorageError::NotSupported { .. })), "{added:?}");
        assert_eq!(ids(&set), ["base"]);
        return;
    }
    added.unwrap();
    assert_eq!(set.device(&id("large")).unwrap().size, size);
    let smaller = |size| AddOptions { size: Some(Bytes(size)), pending: false };
    write(set.mount_device(&id("large"), Access::ReadWrite).unwrap().mount(), "kept");
    let added = set.add_device(&id("small"), &id("large"), &smaller(size.0 / 4));
    if !subject.shrinks {
        assert!(matches!(added, Err(StorageError::NotSupported { .. })), "{added:?}");
        assert!(!ids(&set).contains(&"small".to_owned()));
        let held = set.mount_device(&id("large"), Access::ReadWrite).unwrap();
        let before = blocks(held.mount());
        set.resize_device(&id("large"), Bytes(size.0 * 2)).unwrap();
        assert!(blocks(held.mount()) > before + size.0 / 2, "on line");
        drop(held);
        remove_for_good(&set, "large");
        return;
    }
    added.unwrap();
    assert_eq!(set.device(&id("small")).unwrap().size.0, size.0 / 4);
    let refused = set.add_device(&id("tiny"), &id("large"), &smaller(4 << 20));
    assert!(matches!(refused, Err(StorageError::NotSupported { .. })), "{refused:?}");
    assert!(!ids(&set).contains(&"tiny".to_owned()));
    let held = set.mount_device(&id("small"), Access::ReadWrite).unwrap();
    assert_eq!(read(held.mount()).as_deref(), Some("kept"));
    if subject.real_mounts {
        assert!(blocks(held.mount()) <= size.0 / 4);
    }
    assert_eq!(set.resize_device(&id("small"), size).unwrap().size, size);
    if subject.real_mounts {
        assert!(blocks(held.mount()) > size.0 / 2, "on line");
    }
    drop(held);
    assert!(matches!(set.resize_device(&id("small"), Bytes(4 << 20)), Err(StorageError::NotSupported { .. })));
    assert!(matches!(set.resize_device(&id("base"), size), Err(StorageError::NotSupported { .. })));
    remove_for_good(&set, "small");
    if subject.real_mounts {
        let grown = blocks(set.mount_device(&id("large"), Access::ReadWrite).unwrap().mount());
        let plain = blocks(set.mount_device(&id("base"), Access::ReadOnly).unwrap().mount());
        assert!(grown > plain + (200 << 20), "{grown} {plain}");
    }
    remove_for_good(&set, "large");
}

fn a_device_goes_back_to_a_snapshot(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "web", "base");
    write(set.mount_device(&id("web"), Access::ReadWrite).unwrap().mount(), "good");
    add(&set, "web:before", "web");
    let held = set.mount_device(&id("web"), Access::ReadWrite).unwrap();
    write(held.mount(), "bad");
    let refused = set.rollback_device(&id("web"), &id("web:before"));
    assert!(matches!(refused, Err(StorageError::InUse { .. })), "{refused:?}");
    drop(held);
    set.rollback_device(&id("web"), &id("web:before")).unwrap();
    assert_eq!(read(set.mount_device(&id("web"), Access::ReadWrite).unwrap().mount()).as_deref(), Some("good"));
    assert_eq!(set.device(&id("web")).unwrap().base, Some(id("web:before")));
    assert!(matches!(set.rollback_device(&id("web"), &id("nowhere")), Err(StorageError::NoSuchDevice(_))));
    assert!(matches!(set.rollback_device(&id("base"), &id("web")), Err(StorageError::InUse { .. })));
    for name in ["web", "web:before"] {
        remove_for_good(&set, name);
    }
    eventually("the former one is deleted", || ids(&set) == ["base"]);
}

fn a_device_is_active_for_others_until_it_is_given_back(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "other", "base");
    let path = set.activate_device(&id("other")).unwrap();
    assert!(!subject.real_mounts || path.exists(), "{}", path.display());
    assert_eq!(set.activate_device(&id("other")).unwrap(), path);
    let held = set.mount_device(&id("other"), Access::ReadWrite).unwrap();
    assert!(matches!(set.deactivate_device(&id("other")), Err(StorageError::InUse { .. })));
    drop(held);
    assert!(set.device(&id("other")).unwrap().active);
    set.deactivate_device(&id("other")).unwrap();
    set.deactivate_device(&id("other")).unwrap();
    eventually("it is not active any more", || !set.device(&id("other")).unwrap().active);
    set.activate_device(&id("other")).unwrap();
    remove_for_good(&set, "other");
}

fn what_is_a_devices_own_is_told(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "own", "base");
    write(set.mount_device(&id("own"), Access::ReadWrite).unwrap().mount(), "a little");
    let exclusive = set.exclusive().unwrap();
    assert_eq!(exclusive.keys().map(ToString::to_string).collect::<Vec<_>>(), ["base", "own"]);
    assert!(exclusive[&id("own")] <= set.device(&id("own")).unwrap().mapped);
    if subject.real_mounts && subject.sizes {
        assert!(exclusive[&id("own")].0 > 0, "its label is its own");
    }
    remove_for_good(&set, "own");
}

fn a_new_start_finds_complete_devices_and_drops_pending_ones(subject: &Subject<'_>) {
    let set = (subject.open)();
    add(&set, "kept", "base");
    write(set.mount_device(&id("kept"), Access::ReadWrite).unwrap().mount(), "still here");
    set.add_device(&id("half"), &id("base"), &AddOptions { size: None, pending: true }).unwrap();
    drop(set);
    let set = (subject.open)();
    eventually("the pending device is dropped", || ids(&set) == ["base", "kept"]);
    assert_eq!(read(set.mount_device(&id("kept"), Access::ReadWrite).unwrap().mount()).as_deref(), Some("still here"));
    assert_eq!(set.device(&id("kept")).unwrap().base, Some(id("base")));
    remove_for_good(&set, "kept");
}

/// An id.
pub(crate) fn id(text: &str) -> DeviceId {
    DeviceId::parse(text).unwrap()
}

/// The ids of all devices, those that wait for their removal too.
pub(crate) fn ids(set: &Arc<dyn DeviceSet>) -> Vec<String> {
    set.devices().unwrap().iter().map(|device| device.id.to_string()).collect()
}

/// Adds a device with nothing special.
pub(crate) fn add(set: &Arc<dyn DeviceSet>, new: &str, base: &str) {
    set.add_device(&id(new), &id(base), &AddOptions::default()).unwrap();
}

/// Removes a device and waits until it is deleted.
pub(crate) fn remove_for_good(set: &Arc<dyn DeviceSet>, name: &str) {
    assert_ne!(set.remove_device(&id(name)).unwrap(), Removal::NotThere);
    eventually("the device is deleted", || !ids(set).contains(&name.to_owned()));
}

/// Waits for what the kernel or a thread does by itself.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "{what}: not after 10 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Writes a file into the tree of a mounted device.
pub(crate) fn write(mount: BorrowedFd<'_>, text: &str) {
    let file = open(mount, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC).unwrap();
    File::from(file).write_all(text.as_bytes()).unwrap();
}

/// Reads the file that [`write`] wrote.
pub(crate) fn read(mount: BorrowedFd<'_>) -> Option<String> {
    let mut text = String::new();
    File::from(open(mount, OFlags::RDONLY).ok()?).read_to_string(&mut text).unwrap();
    Some(text)
}

fn open(mount: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let tree = rustix::fs::openat(mount, TREE, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())?;
    rustix::fs::openat(tree, "file", flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o644))
}

fn create(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    open(mount, OFlags::WRONLY | OFlags::CREATE).map(drop)
}

fn blocks(mount: BorrowedFd<'_>) -> u64 {
    let status = rustix::fs::fstatvfs(mount.as_fd()).unwrap();
    status.f_blocks * status.f_frsize
}
