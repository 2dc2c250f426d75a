//! Check and salvage on a real pool.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::AsFd;

use holm::storage::thin::salvage;
use holm::storage::{Finding, Source};
use rustix::fs::{Mode, OFlags};
use sha2::{Digest, Sha256};

use super::*;

/// Some files, different in every device, beside what its origin has.
fn populate(mount: impl AsFd, name: &str) {
    for number in 0..20u32 {
        let path = format!("{TREE}/{name}.{number}");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&mount, path, flags, Mode::from_raw_mode(0o644)).unwrap();
        fs::File::from(fd).write_all(format!("{name} {number} ").repeat(1000).as_bytes()).unwrap();
    }
}

/// Names and contents of a tree.
fn hash(mount: impl AsFd) -> String {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tree = rustix::fs::openat(&mount, TREE, flags, Mode::empty()).unwrap();
    let mut names: Vec<_> = rustix::fs::Dir::read_from(&tree)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned())
        .filter(|name| !name.to_bytes().starts_with(b"."))
        .collect();
    names.sort();
    let mut hash = Sha256::new();
    for name in names {
        hash.update(name.to_bytes());
        let fd = rustix::fs::openat(&tree, &name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let mut content = Vec::new();
        fs::File::from(fd).read_to_end(&mut content).unwrap();
        hash.update(content);
    }
    format!("{:x}", hash.finalize())
}

fn hashes(set: &Arc<dyn DeviceSet>) -> BTreeMap<String, (Option<DeviceId>, String)> {
    let all = set.devices().unwrap().into_iter();
    all.map(|info| {
        let mount = set.mount_device(&info.id, Access::ReadOnly).unwrap();
        (info.id.to_string(), (info.base, hash(mount.mount())))
    })
    .collect()
}

fn stage(set: &Arc<dyn DeviceSet>) {
    for number in 0..4 {
        let layer = format!("layer{number}");
        let below = if number == 0 { "base".to_owned() } else { format!("layer{}", number - 1) };
        set.add_device(&id(&layer), &id(&below), &AddOptions { size: None, pending: true }).unwrap();
        populate(set.mount_device(&id(&layer), Access::ReadWrite).unwrap().mount(), &layer);
        set.complete_device(&id(&layer)).unwrap();
    }
    for number in 0..8 {
        let name = format!("c{number}");
        add(set, &name, &format!("layer{}", number % 4));
        populate(set.mount_device(&id(&name), Access::ReadWrite).unwrap().mount(), &name);
    }
    remove_for_good(set, "c3");
    // Made and never started, so without labels of their own.
    for (name, base) in [("never0", "layer1"), ("never1", "c0"), ("never2", "never1")] {
        add(set, name, base);
    }
}

#[test]
fn a_journal_that_is_gone_is_refused_with_advice_and_salvaged_with_every_device() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    stage(&set);
    let before = hashes(&set);
    set.close().unwrap();
    drop(set);
    eventually("the pool is gone", || rig.nodes().is_empty());
    fs::remove_file(rig.directory.path().join("journal")).unwrap();
    let error = ThinDeviceSet::open(&rig.config()).unwrap_err().to_string();
    assert!(error.contains("salvage"), "{error}");
    let began = Instant::now();
    let report = salvage(&rig.config()).unwrap();
    eprintln!("salvaged {} devices in {:?}", report.devices, began.elapsed());
    assert_eq!(report.foreign, []);
    for (name, from) in [("c0", Source::Label), ("never0", Source::Copy), ("never2", Source::Copy)] {
        assert!(report.findings.contains(&Finding::Salvaged { id: id(name), from }), "{report:?}");
    }
    assert!(rig.nodes().is_empty(), "{:?}", rig.nodes());
    let set = rig.open();
    assert_eq!(hashes(&set), before);
    assert_eq!(set.check().unwrap().findings, []);
    add(&set, "new", "c0");
}

#[test]
fn a_journal_of_an_earlier_time_is_salvaged_while_a_device_is_in_use() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    stage(&set);
    let journal = rig.directory.path().join("journal");
    let old = fs::read(&journal).unwrap();
    add(&set, "later", "c0");
    let (held, lease) = set.mount_device(&id("later"), Access::ReadWrite).unwrap().into_parts();
    populate(&held, "later");
    let before = hashes(&set);
    drop(lease);
    drop(set);
    fs::write(&journal, old).unwrap();
    let set = rig.open();
    assert!(set.check().unwrap().findings.iter().any(|finding| matches!(finding, Finding::JournalBehind { .. })));
    assert!(matches!(set.remove_device(&id("c1")), Err(StorageError::PoolState { .. })));
    drop(set);
    let report = salvage(&rig.config()).unwrap();
    assert_eq!(report.foreign, []);
    populate(&held, "still");
    drop(held);
    let set = rig.open();
    eventually("nothing is in use", || rig.devices() == 0);
    let mut after = hashes(&set);
    let (mut before, later) = (before, "later");
    assert_ne!(after.remove(later), before.remove(later), "it was written to meanwhile");
    assert_eq!(after, before);
    assert_eq!(set.check().unwrap().findings, []);
}

#[test]
fn damaged_metadata_is_refused_before_it_is_used() {
    let Some(rig) = Rig::new() else { return };
    let set = rig.open();
    stage(&set);
    set.close().unwrap();
    drop(set);
    eventually("the pool is gone", || rig.nodes().is_empty());
    let path = rig.directory.path().join("metadata");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    // The root of the tree of devices, which every depth of check reads.
    let root = u64::from_le_bytes(bad[328..336].try_into().unwrap());
    bad[usize::try_from(root).unwrap() * 4096 + 100] ^= 0x55;
    fs::write(&path, bad).unwrap();
    let journal = fs::read_to_string(rig.directory.path().join("journal")).unwrap();
    assert!(journal.trim_end().ends_with(r#""op":"clean"}"#), "{journal}");
    let error = ThinDeviceSet::open(&rig.config()).unwrap_err();
    eprintln!("{error}");
    assert!(matches!(&error, StorageError::Damaged { reason, .. } if reason.contains("thin_repair")), "{error}");
    assert!(rig.nodes().is_empty());
    fs::write(&path, good).unwrap();
    assert_eq!(rig.open().check().unwrap().findings, []);
}
