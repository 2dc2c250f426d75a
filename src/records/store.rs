//! The records of containers and images.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::file::{self, Durability, RecordError};
use crate::model::{
    ContainerId, ContainerSpec, Exit, ExitRecord, Figures, HealthState, ImageInfo, ImageName, RunResult, Signal,
    SnapshotName, Usec,
};

/// A container as it is remembered for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Version of this format.
    pub version: u32,
    /// What it is.
    pub spec: ContainerSpec,
    /// When it was defined.
    pub created_usec: Usec,
    /// The number of the last run that was begun; 0 when none was.
    pub run: u64,
    /// When that run began.
    pub started_usec: Usec,
    /// How the last finished run ended.
    pub last: Option<LastRun>,
    /// How its last runs ended, as many as are kept, the last one among them and newest last. Absent in records of older
    /// versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<LastRun>,
    /// Why the last start failed, or more about how it ended, or empty.
    pub status_text: String,
    /// Its snapshots, and when each was made. One whose device is not there was never finished. Absent in records of
    /// older versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub snapshots: BTreeMap<SnapshotName, Usec>,
    /// How it stands with starting it again. Absent in records of older versions.
    #[serde(default)]
    pub restarts: Restarts,
}

/// How it stands with starting a container again by its policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Restarts {
    /// Whether it is to run as far as its policy goes: from a start that somebody asked for until a stop that somebody
    /// asked for, or an end after which the policy lets it rest.
    pub wanted: bool,
    /// How often it was started again since somebody started it.
    pub count: u32,
    /// How many of these came in a row, without a long run between.
    pub tries: u32,
    /// When the interval of the limit began, µs since the epoch; 0 when none did.
    pub interval_usec: Usec,
    /// How many tries there were in that interval.
    pub within: u32,
    /// When it is tried next, µs since the epoch; 0 when it does not wait for that.
    pub next_usec: Usec,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// Its number.
    pub run: u64,
    /// When it began; 0 in records of older versions.
    #[serde(default)]
    pub started_usec: Usec,
    /// How its leader ended; absent when nobody knows, or when it never started.
    pub exit: Option<Exit>,
    /// The plain word.
    pub result: RunResult,
    /// Whether it counts as failed (nobody asked for the end, and it was not a success).
    pub failed: bool,
    /// When.
    pub stopped_usec: Usec,
    /// Processes killed for lack of memory.
    pub oom_kills: u64,
    /// Last figures.
    pub figures: Figures,
}

/// A run under way, remembered until reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Version of this format.
    pub version: u32,
    /// Its number.
    pub run: u64,
    /// The scope.
    pub unit: String,
    /// The scope's control group below the mount of cgroup2.
    pub control_group: String,
    /// The monitor's process id.
    pub monitor: u32,
    /// When the monitor started, in clock ticks since boot (proc_pid_stat(5), field 22): tells a reused id apart.
    pub monitor_start: u64,
    /// The leader's process id; 0 while it is not known yet.
    pub leader: u32,
    /// When the leader started, as above.
    pub leader_start: u64,
    /// When the run began; 0 in records of older versions.
    #[serde(default)]
    pub started_usec: Usec,
    /// Whether a stop was asked for.
    pub stopping: bool,
    /// When it is killed if it has not ended by then, in µs since boot (CLOCK_BOOTTIME); absent when no stop was asked for, and
    /// in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_usec: Option<u64>,
    /// The stop signal, while the leader does not take it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unheard: Option<Signal>,
    /// Whether its stop timeout passed and it was killed.
    pub forced: bool,
    /// The unit on whose behalf it runs; absent in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted_by: Option<String>,
    /// Whether it is frozen because the pool has no room, and to be thawed when it has.
    #[serde(default)]
    pub held: bool,
    /// Whether it does not count as started yet.
    #[serde(default)]
    pub unready: bool,
    /// Whether it was asked to end because it was not ready in time.
    #[serde(default)]
    pub given_up: bool,
    /// When it is asked to end because it is not ready, µs since the epoch; 0 for never.
    #[serde(default)]
    pub ready_by_usec: Usec,
    /// How it stands with its health.
    #[serde(default)]
    pub health: HealthState,
}

/// The records.
#[derive(Debug, Clone)]
pub struct Store {
    containers: PathBuf,
    images: PathBuf,
    runs: PathBuf,
    scratch: PathBuf,
}

impl ContainerRecord {
    /// The format's version.
    pub const VERSION: u32 = 1;

    /// That of a container which was defined at `created_usec` and never started.
    pub fn new(spec: ContainerSpec, created_usec: Usec) -> Self {
        Self {
            version: Self::VERSION,
            spec,
            created_usec,
            run: 0,
            started_usec: 0,
            last: None,
            runs: Vec::new(),
            status_text: String::new(),
            snapshots: BTreeMap::new(),
            restarts: Restarts::default(),
        }
    }

    /// Notes the end of a run, and forgets the oldest of more than `keep`.
    pub fn note_end(&mut self, last: LastRun, keep: usize) {
        self.last = Some(last);
        self.runs.push(last);
        self.runs.drain(..self.runs.len().saturating_sub(keep));
    }
}

impl RunRecord {
    /// The format's version.
    pub const VERSION: u32 = 1;
}

impl Store {
    /// Opens the records below `state` (durable) and `runtime` (until reboot), making directories, mode 0700, that are
    /// missing.
    pub fn open(state: &Path, runtime: &Path) -> Result<Self, RecordError> {
        let store = Self {
            containers: state.join("containers"),
            images: state.join("images"),
            runs: runtime.join("run"),
            scratch: state.join("scratch"),
        };
        for directory in [&store.containers, &store.images, &store.runs, &store.scratch] {
            make_private(directory)?;
        }
        Ok(store)
    }

    /// Every container's record, each on its own: one damaged file hides no other.
    pub fn containers(&self) -> Result<Vec<Result<ContainerRecord, RecordError>>, RecordError> {
        let mut records = Vec::new();
        for id in names_in(&self.containers)? {
            let path = self.containers.join(&id).join(CONTAINER);
            if let Some(record) = file::read(&path, ContainerRecord::VERSION).transpose() {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Writes a container's record.
    pub fn put_container(&self, record: &ContainerRecord, durability: Durability) -> Result<(), RecordError> {
        let directory = self.container(&record.spec.id);
        let fresh = !directory.is_dir();
        if fresh {
            make_private(&directory)?;
        }
        file::write(&directory.join(CONTAINER), record, durability)?;
        // Last: what the file's own sync took along to the disk costs nothing now.
        if fresh && durability == Durability::Synced { file::sync_parent(&directory) } else { Ok(()) }
    }

    /// Forgets a container. What remains of it after an error is still listed.
    pub fn remove_container(&self, id: &ContainerId) -> Result<(), RecordError> {
        self.remove_run(id)?;
        let directory = self.container(id);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(RecordError::io("remove", &directory)(error))
            }
            _ => Ok(()),
        }
    }

    /// The directory that the monitor writes its exit record to, freed of the last one.
    pub fn exit_directory(&self, id: &ContainerId) -> Result<OwnedFd, RecordError> {
        let directory = self.container(id);
        file::remove(&directory.join(EXIT))?;
        File::open(&directory).map(OwnedFd::from).map_err(RecordError::io("open", &directory))
    }

    /// What the monitor of the container's last run wrote.
    pub fn exit(&self, id: &ContainerId) -> Result<Option<ExitRecord>, RecordError> {
        file::read(&self.container(id).join(EXIT), ExitRecord::VERSION)
    }

    /// The run under way.
    pub fn run(&self, id: &ContainerId) -> Result<Option<RunRecord>, RecordError> {
        file::read(&self.run_path(id), RunRecord::VERSION)
    }

    /// Remembers the run under way.
    pub fn put_run(&self, id: &ContainerId, record: &RunRecord) -> Result<(), RecordError> {
        file::write(&self.run_path(id), record, Durability::Eventual)
    }

    /// Forgets the run under way.
    pub fn remove_run(&self, id: &ContainerId) -> Result<(), RecordError> {
        file::remove(&self.run_path(id))
    }

    /// Every image's record, each on its own.
    pub fn images(&self) -> Result<Vec<Result<ImageInfo, RecordError>>, RecordError> {
        let mut records = Vec::new();
        for name in names_in(&self.images)? {
            if let Some(record) = read_image(&self.images.join(name)).transpose() {
                records.push(record);
            }
        }
        Ok(records)
    }

    /// Writes an image's record durably.
    pub fn put_image(&self, image: &ImageInfo) -> Result<(), RecordError> {
        let record = ImageRecord { version: IMAGE_VERSION, image: image.clone() };
        file::write(&self.image(&image.name), &record, Durability::Synced)
    }

    /// Forgets an image's name, durably.
    pub fn remove_image(&self, name: &ImageName) -> Result<(), RecordError> {
        let path = self.image(name);
        file::remove(&path)?;
        file::sync_parent(&path)
    }

    /// A directory for what is only needed while an import runs.
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    fn container(&self, id: &ContainerId) -> PathBuf {
        self.containers.join(id.as_str())
    }

    fn run_path(&self, id: &ContainerId) -> PathBuf {
        self.runs.join(format!("{id}.json"))
    }

    fn image(&self, name: &ImageName) -> PathBuf {
        let escaped: String =
            name.as_str().chars().map(|c| if c == '/' { "%2F".to_owned() } else { c.to_string() }).collect();
        self.images.join(format!("{escaped}.json"))
    }
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    version: u32,
    image: ImageInfo,
}

const CONTAINER: &str = "container.json";
const EXIT: &str = "exit.json";
const IMAGE_VERSION: u32 = 1;

fn read_image(path: &Path) -> Result<Option<ImageInfo>, RecordError> {
    let record: Option<ImageRecord> = read_json(path, IMAGE_VERSION)?;
    Ok(record.map(|record| record.image))
}

fn read_json<T: DeserializeOwned>(path: &Path, version: u32) -> Result<Option<T>, RecordError> {
    if path.extension().is_some_and(|extension| extension == "json") { file::read(path, version) } else { Ok(None) }
}

fn make_private(directory: &Path) -> Result<(), RecordError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(RecordError::io("create", directory))
}

fn names_in(directory: &Path) -> Result<Vec<std::ffi::OsString>, RecordError> {
    let error = || RecordError::io("list", directory);
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(error())? {
        names.push(entry.map_err(error())?.file_name());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Bytes, Capabilities, ContainerName, DeviceId, ImageConfig, Lifetime, Limits, NetworkMode, Process, StopPolicy,
    };

    fn record(name: &str, id: u8) -> ContainerRecord {
        ContainerRecord {
            version: ContainerRecord::VERSION,
            spec: ContainerSpec {
                name: ContainerName::parse(name).unwrap(),
                id: ContainerId::from_random([id; 16]),
                image: ImageName::parse("busybox").unwrap(),
                process: Process {
                    command: vec!["true".into()],
                    environment: vec![],
                    working_directory: None,
                    user: None,
                    terminal: false,
                    init: false,
                    capabilities: Capabilities::default(),
                    no_new_privileges: true,
                },
                boot: false,
                hostname: None,
                network: NetworkMode::None,
                read_only: false,
                mounts: vec![],
                limits: Limits::default(),
                size: Some(Bytes(1 << 30)),
                slice: None,
                stop: StopPolicy::default(),
                lifetime: Lifetime::Kept,
                restart: Default::default(),
                health: None,
                ready: Default::default(),
                log_rate: None,
                start_timeout_usec: None,
                survive_soft_reboot: false,
                labels: Default::default(),
            },
            created_usec: 1,
            run: 0,
            started_usec: 0,
            last: None,
            runs: vec![],
            status_text: String::new(),
            snapshots: BTreeMap::new(),
            restarts: Restarts::default(),
        }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("state"), &directory.path().join("run")).unwrap();
        (directory, store)
    }

    #[test]
    fn a_container_of_a_version_that_knew_no_whole_systems_is_none() {
        let mut written = serde_json::to_value(record("web", 1)).unwrap();
        assert!(written["spec"].as_object_mut().unwrap().remove("boot").is_some());
        assert_eq!(serde_json::from_value::<ContainerRecord>(written).unwrap(), record("web", 1));
    }

    #[test]
    fn a_container_is_read_back_as_written() {
        let (_directory, store) = store();
        let web = record("web", 1);
        store.put_container(&web, Durability::Synced).unwrap();
        let found: Vec<_> = store.containers().unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(found, std::slice::from_ref(&web));
        store.remove_container(&web.spec.id).unwrap();
        assert!(store.containers().unwrap().is_empty());
    }

    #[test]
    fn a_record_of_an_older_version_is_read() {
        let mut text = serde_json::to_value(record("web", 1)).unwrap();
        text.as_object_mut().unwrap().remove("restarts").unwrap();
        text["spec"].as_object_mut().unwrap().remove("restart").unwrap();
        text["spec"].as_object_mut().unwrap().remove("health").unwrap();
        text["spec"].as_object_mut().unwrap().remove("ready").unwrap();
        assert_eq!(serde_json::from_value::<ContainerRecord>(text).unwrap(), record("web", 1));
    }

    #[test]
    fn the_newest_runs_are_kept() {
        let mut record = record("web", 1);
        let last = |run| LastRun {
            run,
            started_usec: run,
            exit: None,
            result: RunResult::Lost,
            failed: true,
            stopped_usec: run,
            oom_kills: 0,
            figures: Figures::default(),
        };
        for run in 1..=4 {
            record.note_end(last(run), 3);
        }
        assert_eq!(record.runs, [last(2), last(3), last(4)]);
        record.note_end(last(5), 0);
        assert_eq!((record.runs, record.last), (vec![], Some(last(5))));
    }

    #[test]
    fn one_damaged_record_hides_no_other() {
        let (directory, store) = store();
        store.put_container(&record("web", 1), Durability::Eventual).unwrap();
        let other = record("db", 2);
        store.put_container(&other, Durability::Eventual).unwrap();
        let path = directory.path().join("state/containers").join(other.spec.id.as_str()).join(CONTAINER);
        fs::write(&path, "{").unwrap();
        let found = store.containers().unwrap();
        assert_eq!(found.iter().filter(|record| record.is_ok()).count(), 1);
        assert!(found.iter().any(|record| matches!(record, Err(RecordError::Damaged { .. }))));
    }

    #[test]
    fn a_newer_format_is_refused_with_advice() {
        let (directory, store) = store();
        let path = directory.path().join("state/images/x.json");
        fs::write(&path, r#"{"version": 99, "image": {}}"#).unwrap();
        let found = store.images().unwrap();
        assert!(matches!(found[0], Err(RecordError::UnknownVersion { found: 99, .. })));
    }

    #[test]
    fn an_image_name_with_slashes_is_one_file() {
        let (_directory, store) = store();
        let image = ImageInfo {
            name: ImageName::parse("example.org/a/b:1").unwrap(),
            digest: "sha256:0".into(),
            size: Bytes(1),
            created_usec: 2,
            layers: vec![],
            device: DeviceId::parse("layer:0").unwrap(),
            devices: vec![],
            config: ImageConfig::default(),
        };
        store.put_image(&image).unwrap();
        let found: Vec<_> = store.images().unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!(found, std::slice::from_ref(&image));
        store.remove_image(&image.name).unwrap();
        assert!(store.images().unwrap().is_empty());
    }
}
