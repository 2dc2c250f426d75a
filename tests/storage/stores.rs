//! Pools on block devices: loop devices of the test's own stand for them.

use holm::storage::thin::{Store, adopt};

use super::*;

const MIB: u64 = 1 << 20;

/// Files in loop devices, and a directory for the journal.
struct Devices {
    directory: tempfile::TempDir,
    prefix: String,
    loops: Vec<PathBuf>,
}

impl Devices {
    fn new(sizes: &[u64]) -> Option<Self> {
        let prefix = new_prefix()?;
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let mut devices = Self { directory, prefix, loops: Vec::new() };
        for (number, size) in sizes.iter().enumerate() {
            let path = devices.file(number);
            fs::File::create(&path).unwrap().set_len(*size).unwrap();
            devices.loops.push(run("losetup", &["--find", "--show", path.to_str().unwrap()]).into());
        }
        Some(devices)
    }

    fn file(&self, number: usize) -> PathBuf {
        self.directory.path().join(format!("disk{number}"))
    }

    fn config(&self, store: Store) -> ThinConfig {
        let mut config = ThinConfig::new(self.directory.path().join("pool"));
        config.prefix = self.prefix.clone();
        config.base_size = Bytes(1 << 30);
        config.store = store;
        config
    }

    fn pair(&self) -> Store {
        Store::Pair { data: self.loops[0].clone(), metadata: self.loops[1].clone() }
    }

    fn make_larger(&self, number: usize, size: u64) {
        fs::File::options().write(true).open(self.file(number)).unwrap().set_len(size).unwrap();
        run("losetup", &["--set-capacity", self.loops[number].to_str().unwrap()]);
    }

    fn nodes(&self) -> Vec<String> {
        dm_names().into_iter().filter(|name| name.starts_with(&self.prefix)).collect()
    }

    fn end(&self, set: Arc<dyn DeviceSet>) {
        set.close().unwrap();
        drop(set);
        eventually("every node is gone", || self.nodes().is_empty());
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        for device in &self.loops {
            let detached = Command::new("losetup").arg("-d").arg(device).status().unwrap();
            assert!(detached.success() || std::thread::panicking());
        }
    }
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A child of another test holds this process's descriptors until it executes its program: dmsetup tries again for 5 s.
fn remove(name: &str) {
    run("dmsetup", &["remove", "--retry", name]);
}

fn open(config: &ThinConfig) -> Arc<dyn DeviceSet> {
    ThinDeviceSet::open(config).unwrap()
}

fn kept(set: &Arc<dyn DeviceSet>) -> Option<String> {
    read(set.mount_device(&id("kept"), Access::ReadOnly).unwrap().mount())
}

fn keep(set: &Arc<dyn DeviceSet>) {
    add(set, "kept", "base");
    write(set.mount_device(&id("kept"), Access::ReadWrite).unwrap().mount(), "still here");
    add(set, "never", "kept");
}

#[test]
fn a_pair_of_devices_is_a_pool_that_grows_with_them() {
    let Some(devices) = Devices::new(&[256 * MIB, 16 * MIB]) else { return };
    let config = devices.config(devices.pair());
    let set = open(&config);
    keep(&set);
    let before = set.status().unwrap();
    assert_eq!(before.data_total, Bytes(256 * MIB));
    devices.make_larger(0, 512 * MIB);
    devices.make_larger(1, 32 * MIB);
    let after = set.grow(Bytes(512 * MIB), Bytes(32 * MIB)).unwrap();
    assert_eq!((after.data_total, after.metadata_total), (Bytes(512 * MIB), Bytes(32 * MIB)));
    assert!(matches!(set.grow(Bytes(1024 * MIB), Bytes(0)), Err(StorageError::DeviceMapper { .. })));
    // Adopted while it is active, and found again when it was not.
    drop(set);
    let set = open(&config);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    devices.end(set);
    let set = open(&config);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    assert_eq!(set.check().unwrap().findings, []);
    assert!(set.exclusive().unwrap().contains_key(&id("never")));
    devices.end(set);
}

#[test]
fn a_device_that_holds_something_is_refused_with_its_key_until_it_is_given_up() {
    let Some(devices) = Devices::new(&[256 * MIB, 16 * MIB]) else { return };
    let config = devices.config(devices.pair());
    run("mkfs.ext4", &["-q", devices.loops[0].to_str().unwrap()]);
    let error = ThinDeviceSet::open(&config).unwrap_err().to_string();
    assert!(error.contains("storage.data-device") && error.contains("ext4") && error.contains("adopt"), "{error}");
    assert!(!devices.directory.path().join("pool/journal").exists());
    let missing = devices.config(Store::Device("/dev/no-such-device".into()));
    let error = ThinDeviceSet::open(&missing).unwrap_err().to_string();
    assert!(error.contains("storage.device"), "{error}");
    adopt(&config).unwrap();
    assert!(matches!(adopt(&config), Err(StorageError::NotSupported { .. })), "once");
    let set = open(&config);
    keep(&set);
    devices.end(set);
}

#[test]
fn one_device_is_split_and_both_parts_grow() {
    let Some(devices) = Devices::new(&[400 * MIB]) else { return };
    let config = devices.config(Store::Device(devices.loops[0].clone()));
    let set = open(&config);
    keep(&set);
    let before = set.status().unwrap();
    assert_eq!(before.metadata_total, Bytes(16 * MIB));
    let after = set.grow(Bytes(0), Bytes(24 * MIB)).unwrap();
    assert_eq!(after.metadata_total, Bytes(24 * MIB));
    devices.make_larger(0, 800 * MIB);
    let after = set.grow(Bytes(before.data_total.0 + 200 * MIB), Bytes(0)).unwrap();
    assert_eq!(after.data_total.0, before.data_total.0 + 200 * MIB);
    drop(set);
    let set = open(&config);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    devices.end(set);
    // Without its journal it is a pool that somebody must vouch for.
    fs::remove_file(devices.directory.path().join("pool/journal")).unwrap();
    let error = ThinDeviceSet::open(&config).unwrap_err().to_string();
    assert!(error.contains("adopt"), "{error}");
    let report = adopt(&config).unwrap();
    assert_eq!((report.devices, &report.foreign), (3, &vec![]), "{report:?}");
    let set = open(&config);
    assert_eq!(ids(&set), ["base", "kept", "never"]);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    assert_eq!(set.status().unwrap().data_total, after.data_total);
    devices.end(set);
}

#[test]
fn a_pool_of_the_administrators_own_is_used_and_left_as_it_was() {
    let Some(devices) = Devices::new(&[256 * MIB, 16 * MIB]) else { return };
    let name = format!("own-{}", devices.prefix);
    let table = |kind: &str| {
        let [data, metadata] = [0, 1].map(|number: usize| devices.loops[number].display().to_string());
        format!("0 {} {kind} {metadata} {data} 128 1024", 256 * MIB / 512)
    };
    run("dmsetup", &["create", &name, "--uuid", &format!("LVM-{name}"), "--table", &table("thin-pool")]);
    let config = devices.config(Store::Pool(name.clone()));
    let error = ThinDeviceSet::open(&config).unwrap_err().to_string();
    assert!(error.contains("storage.pool") && error.contains("LVM"), "{error}");
    remove(&name);
    assert!(ThinDeviceSet::open(&config).unwrap_err().to_string().contains("storage.pool"));
    run("dmsetup", &["create", &name, "--table", &table("thin-pool")]);
    let set = open(&config);
    keep(&set);
    assert!(matches!(set.grow(Bytes(512 * MIB), Bytes(0)), Err(StorageError::DeviceMapper { .. })));
    devices.end(set);
    assert!(dm_names().contains(&name), "it is not ours to remove");
    let set = open(&config);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    devices.end(set);
    remove(&name);
}

#[test]
fn a_pool_whose_metadata_cannot_grow_refuses_new_devices_and_works_on() {
    let Some(devices) = Devices::new(&[256 * MIB, 2 * MIB]) else { return };
    let set = open(&devices.config(devices.pair()));
    keep(&set);
    // A snapshot that nobody writes to has next to no metadata of its own.
    let add_one = |number: u32| -> Result<(), StorageError> {
        let new = id(&format!("c{number}"));
        set.add_device(&new, &id("base"), &AddOptions::default())?;
        set.mount_device(&new, Access::ReadWrite).map(drop)
    };
    let first = (0..2000).find_map(|number| add_one(number).err().map(|error| (number, error)));
    let (count, error) = first.expect("2 MiB do not hold 2000 devices");
    eprintln!("{count} devices, then: {error}");
    assert!(matches!(error, StorageError::PoolFull { what: "metadata", .. }), "{error}");
    assert_eq!(set.status().unwrap().state, holm::model::PoolState::LowMetadata);
    assert_eq!(kept(&set).as_deref(), Some("still here"));
    for number in 0..count {
        assert_ne!(set.remove_device(&id(&format!("c{number}"))).unwrap(), Removal::NotThere);
    }
    eventually("there is room again", || add_one(count).is_ok());
    devices.end(set);
}
