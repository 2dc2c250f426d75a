//! Driver `thin` on a real kernel: runs as root where there is device-mapper, for example in the test host.
//!
//! Each test has its own pool, with a name prefix and a directory of its own, and must leave neither a node nor a loop
//! device.
#![cfg(feature = "daemon")]
#![allow(missing_docs)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use holm::model::{Bytes, DeviceId, DeviceState, FileSystem};
use holm::storage::thin::{ThinConfig, ThinDeviceSet};
use holm::storage::{Access, AddOptions, DeviceSet, Removal, StorageError, TREE};

#[path = "storage/behaviour.rs"]
mod behaviour;
use behaviour::{Subject, add, eventually, id, ids, read, remove_for_good, write};
#[path = "storage/room.rs"]
mod room;
#[path = "storage/salvage.rs"]
mod salvage;
#[path = "storage/stores.rs"]
mod stores;

/// A pool of its own, gone at the end.
struct Rig {
    directory: tempfile::TempDir,
    prefix: String,
}

impl Rig {
    /// None where there is no device-mapper.
    fn new() -> Option<Self> {
        let prefix = new_prefix()?;
        Some(Self { directory: tempfile::tempdir_in("/var/tmp").unwrap(), prefix })
    }

    fn config(&self) -> ThinConfig {
        config(self.directory.path(), &self.prefix)
    }

    fn open(&self) -> Arc<dyn DeviceSet> {
        ThinDeviceSet::open(&self.config()).unwrap()
    }

    fn nodes(&self) -> Vec<String> {
        dm_names().into_iter().filter(|name| name.starts_with(&self.prefix)).collect()
    }

    /// Nodes but the pool's and those of its hidden devices (ballast and table), which are active for moments.
    fn devices(&self) -> usize {
        let hidden = |name: &str| name.contains("-45ec175171-") || name.contains("-0d4fc4a78d-");
        self.nodes().iter().filter(|name| !name.ends_with("-pool") && !hidden(name)).count()
    }
}

/// None, with a message, where there is no device-mapper.
fn new_prefix() -> Option<String> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if !Path::new("/dev/mapper/control").exists() || !rustix::process::geteuid().is_root() {
        eprintln!("skipped: no device-mapper");
        return None;
    }
    Some(format!("t{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("left: {:?}", self.nodes());
            return;
        }
        self.open().close().unwrap();
        eventually("the pool is gone", || self.nodes().is_empty());
        eventually("its loop devices are gone", || loops_of(self.directory.path()).is_empty());
    }
}

fn config(directory: &Path, prefix: &str) -> ThinConfig {
    let mut config = ThinConfig::new(directory);
    config.prefix = prefix.to_owned();
    config.data_size = Some(Bytes(512 << 20));
    config.base_size = Bytes(1 << 30);
    config
}

fn dm_names() -> Vec<String> {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("dm/name")).ok())
        .map(|name| name.trim().to_owned())
        .collect()
}

fn loops_of(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir("/sys/block").unwrap().flatten();
    let backing = entries.filter_map(|entry| fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    backing.map(|path| PathBuf::from(path.trim())).filter(|path| path.starts_with(directory)).collect()
}

#[test]
fn the_driver_does_what_every_driver_does() {
    let Some(rig) = Rig::new() else { return };
    behaviour::every_behaviour(&Subject { open: &|| rig.open(), real_mounts: true, sizes: true, shrinks: true });
}

#[test]
fn the_driver_does_it_with_xfs_too() {
    let Some(rig) = Rig::new() else { return };
    let mut config = rig.config();
    config.file_system = FileSystem::Xfs;
    let open = || ThinDeviceSet::open(&config).unwrap() as Arc<dyn DeviceSet>;
    behaviour::every_behaviour(&Subject { open: &open, real_mounts: true, sizes: true, shrinks: false });
    // What is configured holds for new pools only.
    let set = rig.open();
    add(&set, "c", "base");
    write(set.mount_device(&id("c"), Access::ReadWrite).unwrap().mount(), "xfs");
    assert_eq!(set.check().unwrap().findings, []);
    remove_for_good(&set, "c");
}

#[test]
fn fifty_snapshots_come_and_go() {
    let Some(rig) = Rig::new() else { return };
    let began = Instant::now();
    let set = rig.open();
    eprintln!("pool and base: {:?}", began.elapsed());
    let (mut adds, mut mounts, mut removes) = (vec![], vec![], vec![]);
    let timed = |times: &mut Vec<Duration>, work: &mut dyn FnMut()| {
        let began = Instant::now();
        work();
        times.push(began.elapsed());
    };
    for number in 0..50 {
        timed(&mut adds, &mut || add(&set, &format!("c{number}"), "base"));
    }
    eventually("fresh devices are deactivated when nobody comes", || rig.devices() == 0);
    for number in 0..50 {
        let mut mount = None;
        let name = id(&format!("c{number}"));
        timed(&mut mounts, &mut || mount = Some(set.mount_device(&name, Access::ReadWrite).unwrap()));
        let mount = mount.unwrap();
        write(mount.mount(), name.as_str());
        assert_eq!(rig.devices(), 1, "only what is used is active");
        assert!(set.device(&name).unwrap().active);
        drop(mount);
        eventually("the node goes with its mount", || rig.devices() == 0);
    }
    let data = fs::metadata(rig.directory.path().join("data")).unwrap();
    assert!(data.blocks() * 512 >= data.len(), "what was reserved stays reserved");
    let listed = Instant::now();
    let infos = set.devices().unwrap();
    eprintln!("devices(): {:?}", listed.elapsed());
    assert_eq!(infos.len(), 51);
    assert!(infos.iter().all(|info| info.mapped.0 > 0 && info.state == DeviceState::Ready), "{infos:?}");
    for number in 0..50 {
        let name = format!("c{number}");
        assert_eq!(read(set.mount_device(&id(&name), Access::ReadOnly).unwrap().mount()), Some(name));
    }
    eventually("all nodes are gone", || rig.devices() == 0);
    for number in 0..50 {
        timed(&mut removes, &mut || {
            assert_ne!(set.remove_device(&id(&format!("c{number}"))).unwrap(), Removal::NotThere);
        });
    }
    eventually("all devices are deleted", || ids(&set) == ["base"]);
    for (what, times) in [("add", &mut adds), ("mount", &mut mounts), ("remove", &mut removes)] {
        times.sort();
        eprintln!("{what}: median {:?}, worst {:?}", times[times.len() / 2], times[times.len() - 1]);
    }
}

#[test]
fn fifty_at_once_come_and_go() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "layer", "base");
    let began = Instant::now();
    std::thread::scope(|scope| {
        for number in 0..50 {
            let (set, name) = (&set, format!("c{number}"));
            scope.spawn(move || {
                add(set, &name, "layer");
                let mount = set.mount_device(&id(&name), Access::ReadWrite).unwrap();
                write(mount.mount(), &name);
                assert_eq!(read(mount.mount()), Some(name.clone()));
                assert_ne!(set.remove_device(&id(&name)).unwrap(), Removal::NotThere);
                assert_eq!(read(mount.mount()), Some(name));
            });
        }
    });
    eventually("all devices are deleted", || ids(&set) == ["base", "layer"]);
    eprintln!("50 devices added, mounted, removed at once: {:?}", began.elapsed());
    eventually("nothing stays active", || rig.devices() == 0);
}

#[test]
fn no_mount_is_seen_by_anybody() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "c", "base");
    let held = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("/dev/dm-"), "{mounts}");
    drop(held);
}

#[test]
fn an_active_device_is_snapshotted_with_what_was_just_written() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "running", "base");
    let running = set.mount_device(&id("running"), Access::ReadWrite).unwrap();
    write(running.mount(), "not yet synced");
    add(&set, "snapshot", "running");
    write(running.mount(), "later");
    let snapshot = set.mount_device(&id("snapshot"), Access::ReadWrite).unwrap();
    assert_eq!(read(snapshot.mount()).as_deref(), Some("not yet synced"));
    assert_eq!(read(running.mount()).as_deref(), Some("later"));
}

#[test]
fn an_active_pool_is_adopted_with_a_device_in_use() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "c", "base");
    let (mount, lease) = set.mount_device(&id("c"), Access::ReadWrite).unwrap().into_parts();
    use std::os::fd::AsFd;
    write(mount.as_fd(), "before");
    drop(lease);
    drop(set);
    let loops = loops_of(rig.directory.path());
    assert_eq!(loops.len(), 2, "{loops:?}");
    let set = rig.open();
    assert_eq!(loops_of(rig.directory.path()).len(), 2);
    assert!(set.device(&id("c")).unwrap().active);
    assert_eq!(read(mount.as_fd()).as_deref(), Some("before"));
    let again = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    write(again.mount(), "after");
    assert_eq!(read(mount.as_fd()).as_deref(), Some("after"));
    assert_eq!(set.remove_device(&id("c")).unwrap(), Removal::Deferred);
    drop(again);
    assert_eq!(rig.devices(), 1);
    // The remover sleeps by now, and has no clock that is shorter than this.
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    drop(mount);
    eventually("the device is deleted", || ids(&set) == ["base"]);
    assert!(began.elapsed() < Duration::from_secs(4), "an event wakes the remover, not its clock");
}

#[test]
fn two_daemons_cannot_have_one_directory_nor_one_prefix() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    assert!(matches!(ThinDeviceSet::open(&rig.config()), Err(StorageError::PoolState { .. })));
    let other = tempfile::tempdir_in("/var/tmp").unwrap();
    let error = ThinDeviceSet::open(&config(other.path(), &rig.prefix)).unwrap_err();
    assert!(error.to_string().contains("prefix"), "{error}");
    add(&set, "c", "base");
}

#[test]
fn a_pool_that_was_closed_is_there_again() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "c", "base");
    write(set.mount_device(&id("c"), Access::ReadWrite).unwrap().mount(), "kept");
    set.close().unwrap();
    eventually("closed means closed", || rig.nodes().is_empty());
    assert!(matches!(set.remove_device(&id("c")), Err(StorageError::PoolState { .. })));
    drop(set);
    let set = rig.open();
    assert_eq!(read(set.mount_device(&id("c"), Access::ReadOnly).unwrap().mount()).as_deref(), Some("kept"));
}

#[test]
fn a_pool_in_use_is_left_alone_by_close() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    add(&set, "c", "base");
    let held = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    set.close().unwrap();
    assert_eq!(rig.nodes().len(), 2);
    write(held.mount(), "works");
    drop(held);
}

/// The child of the test below: works until it is killed, and says what is done.
#[test]
fn storm() {
    let Ok(directory) = std::env::var("HOLM_STORM") else { return };
    let prefix = std::env::var("HOLM_STORM_PREFIX").unwrap();
    let set: Arc<dyn DeviceSet> = ThinDeviceSet::open(&config(Path::new(&directory), &prefix)).unwrap();
    let mut out = std::io::stderr();
    for name in ids(&set) {
        writeln!(out, "ACK found {name}").unwrap();
    }
    // Names that no earlier run used.
    let first = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    for number in first.. {
        let name = format!("s{number}");
        writeln!(out, "ACK maybe {name}").unwrap();
        add(&set, &name, "base");
        writeln!(out, "ACK add {name}").unwrap();
        write(set.mount_device(&id(&name), Access::ReadWrite).unwrap().mount(), &name);
        if number % 3 == 0 {
            set.add_device(&id(&format!("p{number}")), &id(&name), &AddOptions { size: None, pending: true }).unwrap();
            writeln!(out, "ACK going {name}").unwrap();
            set.remove_device(&id(&name)).unwrap();
            writeln!(out, "ACK remove {name}").unwrap();
        }
    }
}

#[test]
fn a_daemon_killed_at_any_moment_loses_nothing_that_it_acknowledged() {
    let Some(rig) = Rig::new() else { return };
    drop(rig.open());
    // What is there for sure, and what may or may not be.
    let mut present = std::collections::BTreeSet::new();
    let mut unsure = std::collections::BTreeSet::new();
    for round in 0..12u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["storm", "--exact", "--nocapture", "--test-threads=1"])
            .env("HOLM_STORM", rig.directory.path())
            .env("HOLM_STORM_PREFIX", &rig.prefix)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stderr.take().unwrap());
        let reader = std::thread::spawn(move || said.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(150 + round * 61));
        child.kill().unwrap();
        child.wait().unwrap();
        for line in reader.join().unwrap() {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["ACK", "maybe", name] => drop(unsure.insert(name.to_owned())),
                ["ACK", "add", name] => {
                    unsure.remove(name);
                    present.insert(name.to_owned());
                }
                ["ACK", "going", name] => {
                    present.remove(name);
                    unsure.insert(name.to_owned());
                }
                ["ACK", "remove", name] => drop(unsure.remove(name)),
                _ => assert!(!line.contains("panicked"), "{line}"),
            }
        }
        let set = rig.open();
        eventually("what was pending is gone", || !ids(&set).iter().any(|name| name.starts_with('p')));
        let found: std::collections::BTreeSet<_> = ids(&set).into_iter().filter(|name| name != "base").collect();
        assert!(found.is_superset(&present), "lost {:?}", present.difference(&found).collect::<Vec<_>>());
        let allowed: std::collections::BTreeSet<_> = present.union(&unsure).cloned().collect();
        assert!(found.is_subset(&allowed), "leaked {:?}", found.difference(&allowed).collect::<Vec<_>>());
        for name in &found {
            let text = read(set.mount_device(&id(name), Access::ReadOnly).unwrap().mount());
            assert!(text.is_none_or(|text| text.is_empty() || text == *name), "{name}");
        }
        present = found;
        unsure.clear();
        eventually("nothing stays active", || rig.devices() == 0);
    }
    eprintln!("{} devices survived 12 kills", present.len());
    let set = rig.open();
    for name in present {
        remove_for_good(&set, &name);
    }
}
