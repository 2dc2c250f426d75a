//! The pool's room, with real writers.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::thread::JoinHandle;

use holm::model::PoolState;
use holm::storage::{MountedDevice, PressureLevel};
use rustix::fs::{Mode, OFlags};

use super::*;

const MIB: u64 = 1 << 20;

/// Longer than `eventually`: waits for a disk, on a host that has other things to do.
fn within(seconds: u64, what: &str, reached: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !reached() {
        assert!(Instant::now() < until, "{what}: not after {seconds} s");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn small(rig: &Rig, data: u64, limit: u64) -> Arc<dyn DeviceSet> {
    let mut config = rig.config();
    config.data_size = Some(Bytes(data));
    config.data_max_size = Some(Bytes(limit));
    ThinDeviceSet::open(&config).unwrap()
}

fn open_file(mount: impl AsFd, flags: OFlags) -> File {
    let path = format!("{TREE}/big");
    let fd: OwnedFd = rustix::fs::openat(mount, path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(0o600)).unwrap();
    fd.into()
}

/// Writes `size` bytes that no two places share, and brings them to the disk.
fn fill(mount: impl AsFd, size: u64, seed: u64) -> std::io::Result<()> {
    let mut file = open_file(mount, OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC);
    for chunk in 0..size / MIB {
        file.write_all(&pattern(seed, chunk))?;
    }
    file.sync_all()
}

fn pattern(seed: u64, chunk: u64) -> Vec<u8> {
    let word = (seed << 32 | chunk).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    word.iter().copied().cycle().take(usize::try_from(MIB).unwrap()).collect()
}

fn holds(mount: impl AsFd, size: u64, seed: u64) -> bool {
    let mut file = open_file(mount, OFlags::RDONLY);
    (0..size / MIB).all(|chunk| {
        let mut bytes = vec![0; usize::try_from(MIB).unwrap()];
        file.read_exact(&mut bytes).is_ok() && bytes == pattern(seed, chunk)
    })
}

fn writers(set: &Arc<dyn DeviceSet>, size: u64) -> Vec<JoinHandle<(MountedDevice, std::io::Result<()>)>> {
    (0..3)
        .map(|number| {
            let name = format!("w{number}");
            add(set, &name, "base");
            let mount = set.mount_device(&id(&name), Access::ReadWrite).unwrap();
            std::thread::spawn(move || {
                let result = fill(mount.mount(), size, number);
                (mount, result)
            })
        })
        .collect()
}

/// No task hung, no I/O error, says the kernel's log.
fn assert_quiet_kernel(since: usize) {
    let log = kernel_log();
    for bad in ["I/O error", "blocked for more than", "EXT4-fs error", "out of data space, error"] {
        let found: Vec<_> = log.lines().skip(since).filter(|line| line.contains(bad)).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}

fn kernel_log() -> String {
    String::from_utf8_lossy(&Command::new("dmesg").output().unwrap().stdout).into_owned()
}

#[test]
fn three_writers_fill_a_pool_that_grows_under_them() {
    let Some(rig) = Rig::new() else { return };
    let since = kernel_log().lines().count();
    let set = small(&rig, 256 * MIB, 4096 * MIB);
    let began = Instant::now();
    let threads = writers(&set, 400 * MIB);
    let (mut totals, mut full) = (vec![set.status().unwrap().data_total], 0);
    let (mut snapshots, mut slowest) = (0, Duration::ZERO);
    while !threads.iter().all(JoinHandle::is_finished) {
        // Suspends a writer, which flushes it, while the pool wants to grow.
        let asked = Instant::now();
        add(&set, &format!("snapshot{snapshots}"), &format!("w{}", snapshots % 3));
        slowest = slowest.max(asked.elapsed());
        snapshots += 1;
        let status = set.status().unwrap();
        full += usize::from(status.state == PoolState::OutOfData);
        if totals.last() != Some(&status.data_total) {
            totals.push(status.data_total);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    eprintln!("{snapshots} snapshots of writers, the slowest in {slowest:?}");
    eprintln!("1200M written in {:?}, pool {totals:?}, seen full {full} times", began.elapsed());
    for (number, thread) in threads.into_iter().enumerate() {
        let (mount, result) = thread.join().unwrap();
        result.unwrap();
        assert!(holds(mount.mount(), 400 * MIB, number as u64));
    }
    let status = set.status().unwrap();
    assert!(totals.len() > 3 && status.data_total.0 > 1200 * MIB, "{totals:?}");
    assert_eq!(status.state, PoolState::Ok);
    assert_quiet_kernel(since);
    let data = fs::metadata(rig.directory.path().join("data")).unwrap();
    assert!(data.blocks() * 512 >= data.len(), "all of it is reserved");
    // What is deleted is the pool's again, and stays reserved.
    for number in 0..3 {
        remove_for_good(&set, &format!("w{number}"));
    }
    for number in 0..snapshots {
        remove_for_good(&set, &format!("snapshot{number}"));
    }
    eventually("their room is free", || set.status().unwrap().data_used.0 < 100 * MIB);
}

#[test]
fn one_growth_takes_a_moment() {
    let Some(rig) = Rig::new() else { return };
    let set = small(&rig, 256 * MIB, 256 * MIB);
    add(&set, "c", "base");
    let held = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    let mut times = vec![];
    for step in 1..=8 {
        write(held.mount(), "goes on");
        let began = Instant::now();
        let status = set.grow(Bytes((256 + step * 64) * MIB), Bytes((16 + step * 16) * MIB)).unwrap();
        times.push(began.elapsed());
        assert_eq!(
            (status.data_total, status.metadata_total),
            (Bytes((256 + step * 64) * MIB), Bytes((16 + step * 16) * MIB))
        );
    }
    times.sort();
    eprintln!("growth of data and metadata: median {:?}, worst {:?}", times[4], times[7]);
    drop(held);
    drop(set);
    let status = rig.open().status().unwrap();
    assert_eq!((status.data_total, status.metadata_total), (Bytes(768 * MIB), Bytes(144 * MIB)));
}

#[test]
fn on_a_full_pool_that_cannot_grow_everything_answers_and_a_removal_frees_the_rest() {
    let Some(rig) = Rig::new() else { return };
    let since = kernel_log().lines().count();
    let set = small(&rig, 256 * MIB, 256 * MIB);
    eventually("ballast is taken", || set.status().unwrap().data_used.0 > 2 * MIB);
    let heard = Arc::new(Mutex::new(Vec::new()));
    let own = heard.clone();
    set.on_pressure(Box::new(move |pressure| own.lock().unwrap().push(pressure.clone())));
    let threads = writers(&set, 120 * MIB);
    within(120, "the pool is full", || {
        heard.lock().unwrap().iter().any(|pressure| pressure.level == PressureLevel::Full)
    });
    // The ballast is the writers' by now as well.
    std::thread::sleep(Duration::from_secs(2));
    within(30, "the pool is full again", || set.status().unwrap().state == PoolState::OutOfData);
    let began = Instant::now();
    assert!(set.devices().unwrap().len() >= 4);
    let refused = set.add_device(&id("late"), &id("base"), &AddOptions::default());
    assert!(matches!(refused, Err(StorageError::PoolFull { .. })), "{refused:?}");
    let refused = set.add_device(&id("late"), &id("w1"), &AddOptions::default());
    assert!(matches!(refused, Err(StorageError::PoolFull { .. })), "{refused:?}");
    let asked = began.elapsed();
    assert_ne!(set.remove_device(&id("w0")).unwrap(), Removal::NotThere);
    let removed = || !set.devices().unwrap().iter().any(|info| info.id == id("w0"));
    within(10, "the device is deleted although it is in use", removed);
    eprintln!("asked in {asked:?}, removed in {:?}", began.elapsed() - asked);
    assert!(began.elapsed() < Duration::from_secs(1));
    for (number, thread) in threads.into_iter().enumerate() {
        let (mount, result) = thread.join().unwrap();
        if number > 0 {
            result.unwrap();
            assert!(holds(mount.mount(), 120 * MIB, number as u64));
        }
    }
    eprintln!("the others were done {:?} later", began.elapsed());
    let fastest = heard.lock().unwrap().iter().flat_map(|pressure| pressure.fastest.clone()).next();
    assert!(fastest.is_some_and(|growth| growth.id.as_str().starts_with('w')));
    // Only of the one that was removed.
    let log = kernel_log();
    let hung: Vec<_> = log.lines().skip(since).filter(|line| line.contains("blocked for more than")).collect();
    assert!(hung.is_empty(), "{hung:?}");
}

#[test]
fn a_trim_and_a_removal_give_room_back_to_the_pool_and_to_the_host() {
    let Some(rig) = Rig::new() else { return };
    let set = small(&rig, 256 * MIB, 256 * MIB);
    add(&set, "c", "base");
    let held = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    fill(held.mount(), 64 * MIB, 7).unwrap();
    let used = || set.status().unwrap().data_used.0;
    let before = used();
    rustix::fs::unlinkat(held.mount(), format!("{TREE}/big"), rustix::fs::AtFlags::empty()).unwrap();
    rustix::fs::syncfs(open_file(held.mount(), OFlags::WRONLY | OFlags::CREATE)).unwrap();
    let trimmed = set.trim().unwrap();
    assert!(trimmed.failed.is_empty() && trimmed.devices >= 1, "{trimmed:?}");
    eventually("the room is free", || used() + 50 * MIB < before);
    let allocated = || fs::metadata(rig.directory.path().join("data")).unwrap().blocks() * 512;
    eventually("the file has a hole", || allocated() + 50 * MIB < 256 * MIB);
    assert_eq!(fs::metadata(rig.directory.path().join("data")).unwrap().len(), 256 * MIB);
    fill(held.mount(), 64 * MIB, 8).unwrap();
    assert!(holds(held.mount(), 64 * MIB, 8));
    let before = allocated();
    drop(held);
    remove_for_good(&set, "c");
    eventually("the removed device's room is the host's", || allocated() + 50 * MIB < before);
}

/// A file system of its own, for a host that is to be filled.
struct SmallHost {
    directory: tempfile::TempDir,
}

impl SmallHost {
    fn new(size: u64) -> Self {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        let (image, place) = (directory.path().join("image"), directory.path().join("mount"));
        File::create(&image).unwrap().set_len(size).unwrap();
        fs::create_dir(&place).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program} {arguments:?}");
        };
        run("mkfs.ext4", &["-q", "-m", "0", image.to_str().unwrap()]);
        run("mount", &["-o", "loop", image.to_str().unwrap(), place.to_str().unwrap()]);
        Self { directory }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mount")
    }

    fn free(&self) -> u64 {
        let status = rustix::fs::statvfs(self.path()).unwrap();
        status.f_bavail * status.f_frsize
    }

    /// Takes room until `left` bytes are left.
    fn take_all_but(&self, name: &str, left: u64) {
        let file = File::create(self.path().join(name)).unwrap();
        let size = self.free().saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, size).unwrap();
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        // A loop device names its file no more a moment before it lets go of it (loop.c, __loop_clr_fd), and a child of
        // another test holds this process's descriptors until it executes its program.
        if std::thread::panicking() {
            let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
        } else {
            eventually("the small host is unmounted", || {
                Command::new("umount").arg(self.path()).output().is_ok_and(|output| output.status.success())
            });
        }
    }
}

#[test]
fn a_host_that_becomes_full_takes_nothing_from_the_pool_that_was_promised() {
    let Some(prefix) = new_prefix() else { return };
    let since = kernel_log().lines().count();
    let host = SmallHost::new(1700 * MIB);
    let mut config = config(&host.path().join("pool"), &prefix);
    config.data_size = Some(Bytes(256 * MIB));
    config.data_max_size = Some(Bytes(256 * MIB));
    let set: Arc<dyn DeviceSet> = ThinDeviceSet::open(&config).unwrap();
    add(&set, "c", "base");
    let held = set.mount_device(&id("c"), Access::ReadWrite).unwrap();
    fill(held.mount(), 100 * MIB, 1).unwrap();
    rustix::fs::unlinkat(held.mount(), format!("{TREE}/big"), rustix::fs::AtFlags::empty()).unwrap();
    rustix::fs::syncfs(open_file(held.mount(), OFlags::WRONLY | OFlags::CREATE)).unwrap();
    assert!(set.trim_device(&id("c")).unwrap().0 > 90 * MIB);
    let holes = || {
        let data = fs::metadata(host.path().join("pool/data")).unwrap();
        data.len().saturating_sub(data.blocks() * 512)
    };
    eventually("the host has room back", || holes() > 90 * MIB);
    // A GiB is the part that is kept for others: they begin to use it.
    host.take_all_but("others", 1000 * MIB);
    eventually("the pool takes its room again", || holes() == 0);
    host.take_all_but("more", 4 * MIB);
    fill(held.mount(), 150 * MIB, 2).unwrap();
    assert!(holds(held.mount(), 150 * MIB, 2));
    assert_quiet_kernel(since);
    drop(held);
    set.close().unwrap();
    drop(set);
    eventually("its loop devices are gone", || loops_of(&host.path()).is_empty());
}
