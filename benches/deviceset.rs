//! `deviceset DIRECTORY TREE ROUNDS`: what each step of a device's life costs through the DeviceSet, and as bare ioctls
//! on the same pool: milliseconds of every round, as JSON. Runs in the test host, started by `storage` beside this file.
#![allow(missing_docs)]

use std::collections::BTreeMap;
use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use devicemapper::{DM, DevId, DmName, DmOptions};
use holm::model::{Bytes, DeviceId};
use holm::storage::thin::{ThinConfig, ThinDeviceSet};
use holm::storage::{Access, AddOptions, DeviceSet, TREE};
use holm::sys::dm::{self, Remove};
use holm::sys::fsmount::{self, Writable};

type Outcome<T> = Result<T, Box<dyn Error>>;
/// Step → its times.
type Times = BTreeMap<&'static str, Vec<f64>>;

const PREFIX: &str = "bench";
const POOL: &str = "bench-pool";
const RAW: &str = "bench_raw";
const SIZE: Bytes = Bytes(10 * Bytes::GIB);
/// Of bare devices, above those of the set.
const FIRST_RAW: u32 = 9_000_000;
/// Between two rounds, so that neither pays for what the one before left to be done.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> Outcome<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [directory, tree, rounds] = arguments.as_slice() else { return Err("deviceset DIRECTORY TREE ROUNDS".into()) };
    let mut config = ThinConfig::new(directory);
    config.prefix = PREFIX.to_owned();
    config.base_size = SIZE;
    let set = ThinDeviceSet::open(&config)?;
    let image = id("image");
    set.add_device(&image, &id("base"), &AddOptions::default())?;
    fill(&*set, &image, Path::new(tree))?;
    gone(&set, &image)?;
    let origin = set.device(&image)?.thin_id;
    let (mut ours, mut raw) = (Times::new(), Times::new());
    let control = DM::new()?;
    for round in 0..rounds.parse::<u32>()? {
        through_the_set(&*set, &image, &mut ours)?;
        std::thread::sleep(PAUSE);
        bare(&control, origin, FIRST_RAW + round, &mut raw)?;
        std::thread::sleep(PAUSE);
    }
    println!("{}", serde_json::to_string(&BTreeMap::from([("DeviceSet", ours), ("bare ioctls", raw)]))?);
    set.remove_device(&image)?;
    set.close()?;
    Ok(())
}

fn id(name: &str) -> DeviceId {
    DeviceId::parse(name).expect("the names here are valid ids")
}

fn fill(set: &dyn DeviceSet, image: &DeviceId, tree: &Path) -> Outcome<()> {
    let mounted = set.mount_device(image, Access::ReadWrite)?;
    let top = rustix::fs::openat(
        mounted.mount(),
        TREE,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )?;
    rustix::io::fcntl_setfd(&top, rustix::io::FdFlags::empty())?;
    let into = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&top));
    let copied = Command::new("cp").arg("-a").arg(tree.join(".")).arg(into).status()?;
    if !copied.success() {
        return Err("cp failed".into());
    }
    rustix::fs::syncfs(&top)?;
    Ok(())
}

/// Waits until a device is not active any more.
fn gone(set: &ThinDeviceSet, device: &DeviceId) -> Outcome<()> {
    while set.device(device)?.active {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn timed<T>(times: &mut Times, step: &'static str, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    let began = Instant::now();
    let result = work()?;
    times.entry(step).or_default().push(began.elapsed().as_secs_f64() * 1e3);
    Ok(result)
}

fn through_the_set(set: &dyn DeviceSet, image: &DeviceId, times: &mut Times) -> Outcome<()> {
    let device = id("round");
    timed(times, "create", || Ok(set.add_device(&device, image, &AddOptions::default())?))?;
    timed(times, "activate", || Ok(set.activate_device(&device)?))?;
    let mounted = timed(times, "mount", || Ok(set.mount_device(&device, Access::ReadWrite)?))?;
    timed(times, "unmount", || {
        drop(mounted);
        Ok(())
    })?;
    timed(times, "deactivate", || {
        set.deactivate_device(&device)?;
        while set.device(&device)?.active {
            std::thread::yield_now();
        }
        Ok(())
    })?;
    let began = Instant::now();
    timed(times, "delete", || Ok(set.remove_device(&device)?))?;
    // The remover's part, which nobody waits for.
    while set.devices()?.iter().any(|info| info.id == device) {
        std::thread::sleep(Duration::from_micros(200));
    }
    times.entry("delete, until it is gone").or_default().push(began.elapsed().as_secs_f64() * 1e3);
    Ok(())
}

fn bare(control: &DM, origin: u32, thin: u32, times: &mut Times) -> Outcome<()> {
    let pool = DevId::Name(DmName::new(POOL)?);
    let name = DmName::new(RAW)?;
    let pool_number = control.device_info(&pool)?.device();
    timed(times, "create", || Ok(control.target_msg(&pool, None, &format!("create_snap {thin} {origin}"))?))?;
    let node = timed(times, "activate", || {
        let info = control.device_create(name, None, DmOptions::default())?;
        let params = format!("{}:{} {thin}", pool_number.major, pool_number.minor);
        let table = [(0, SIZE.0 / 512, "thin".to_owned(), params)];
        control.table_load(&DevId::Name(name), &table, DmOptions::default())?;
        dm::resume(control.file(), RAW)?;
        Ok(PathBuf::from(format!("/dev/dm-{}", info.device().minor)))
    })?;
    // As the set's: both have to find a block device there.
    std::fs::metadata(&node)?.rdev();
    let mount = timed(times, "mount", || Ok(fsmount::detached("ext4", &node, &[], Writable::Yes)?))?;
    rustix::fs::fstat(mount.as_fd())?;
    timed(times, "unmount", || {
        drop(mount);
        Ok(())
    })?;
    timed(times, "deactivate", || Ok(dm::remove(control.file(), RAW, Remove::IfIdle)?))?;
    timed(times, "delete", || Ok(control.target_msg(&pool, None, &format!("delete {thin}"))?))?;
    Ok(())
}
