//! The daemon's configuration: text in, [`Config`] out, with the place of every mistake.
//!
//! | file | what |
//! |---|---|
//! | this one | the configuration, its defaults, and how files are merged |
//! | `file.rs` | one file's text: which keys there are and what their values may be |
//! | `error.rs` | mistakes, with file, line, column and key |
//!
//! Keys are described for users in holm.toml(5) and in the commented example `packaging/holm.toml`.

mod error;
mod file;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::model::{Bytes, Driver, FileSystem};

pub use error::{ConfigError, Mistake};

/// Everything that can be configured. [`Config::default`] is what holds without any file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// `[storage]`
    pub storage: StorageConfig,
    /// `[containers]`
    pub containers: ContainersConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[runtime]`
    pub runtime: RuntimeConfig,
}

/// Where and how trees are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageConfig {
    /// `driver`: `None` is `auto`, thin where the kernel has device-mapper, otherwise copy.
    pub driver: Option<Driver>,
    /// `directory`: absolute path of the durable state.
    pub directory: PathBuf,
    /// `prefix`: first part of every device-mapper name, so that two daemons never meet.
    pub prefix: String,
    /// `data-size`: size of the pool's data file when it is made, from which it grows; `None` is chosen from the free
    /// space.
    pub data_size: Option<Bytes>,
    /// `data-max-size`: how large the pool's data may become by itself; `None` is until the file system has a tenth left.
    pub data_max_size: Option<Bytes>,
    /// `metadata-size`: size of the pool's metadata file when it is made; `None` is chosen from the data size.
    pub metadata_size: Option<Bytes>,
    /// `base-size`: virtual size of the empty file system from which everything descends.
    pub base_size: Bytes,
    /// `filesystem`: what the base is formatted with when it is made.
    pub filesystem: FileSystem,
    /// `data-device`: block device for the pool's data, with `metadata-device`; `None` is files in `directory`.
    pub data_device: Option<PathBuf>,
    /// `metadata-device`: block device for the pool's metadata, with `data-device`.
    pub metadata_device: Option<PathBuf>,
    /// `device`: block device that is split into both.
    pub device: Option<PathBuf>,
    /// `pool`: an active thin pool that nobody else manages, by its device-mapper name.
    pub pool: Option<String>,
}

/// What holds for containers that do not say otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainersConfig {
    /// `slice`: the slice of their scopes.
    pub slice: String,
    /// `stop-timeout-sec`: how long a polite stop may take before everything is killed.
    pub stop_timeout: Duration,
    /// `pids-limit`: tasks a container may have; `None` is `"none"`, no limit.
    pub pids_limit: Option<u64>,
    /// `keep-runs`: how many of its last runs each remembers, with their figures.
    pub keep_runs: usize,
    /// `images-may-boot`: whether an image whose own command is an init is a whole system without the caller's word.
    pub images_may_boot: bool,
}

/// What is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// `level`
    pub level: LogLevel,
}

/// How containers are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// `init-path`: absolute path of the static helper `holm-init`.
    pub init_path: PathBuf,
}

/// How much is logged: this and everything more urgent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
    /// Failures only.
    Error,
    /// And what somebody should look at.
    Warn,
    /// And what happens to containers.
    Info,
    /// And how.
    Debug,
    /// And every step of it.
    Trace,
}

impl LogLevel {
    /// The word, as `tracing` filters take it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl StorageConfig {
    /// What no file alone can tell: keys that exclude or need one another.
    fn check(&self) -> Result<(), ConfigError> {
        let wrong = |key, message| Err(ConfigError::Together { key, message });
        let pair = match (&self.data_device, &self.metadata_device) {
            (Some(_), None) => return wrong("storage.data-device", "needs storage.metadata-device beside it"),
            (None, Some(_)) => return wrong("storage.metadata-device", "needs storage.data-device beside it"),
            (Some(data), Some(metadata)) if data == metadata => {
                return wrong(
                    "storage.metadata-device",
                    "is the data-device too; use storage.device for one that is split",
                );
            }
            (data, _) => data.is_some(),
        };
        if self.device.is_some() && pair {
            return wrong("storage.device", "cannot be used with storage.data-device: leave one of them out");
        }
        if self.pool.is_some() && (pair || self.device.is_some()) {
            return wrong("storage.pool", "cannot be used with a device: leave one of them out");
        }
        if self.driver == Some(Driver::Copy) && (pair || self.device.is_some() || self.pool.is_some()) {
            return wrong("storage.driver", "\"copy\" uses neither devices nor pools: leave these keys out");
        }
        Ok(())
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        Self {
            driver: None,
            directory: PathBuf::from("/var/lib/holm"),
            prefix: "holm".to_owned(),
            data_size: None,
            data_max_size: None,
            metadata_size: None,
            base_size: Bytes(10 * Bytes::GIB),
            filesystem: FileSystem::Ext4,
            data_device: None,
            metadata_device: None,
            device: None,
            pool: None,
        }
    }
}

impl Default for ContainersConfig {
    fn default() -> Self {
        Self {
            slice: "holm.slice".to_owned(),
            stop_timeout: Duration::from_secs(10),
            // A fork bomb in one container must not take the host's process table; podman's default is the same.
            pids_limit: Some(2048),
            keep_runs: 10,
            // Nobody who only pulls and runs an image means to give it the host.
            images_may_boot: false,
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: LogLevel::Info }
    }
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { init_path: PathBuf::from("/usr/lib/holm/holm-init") }
    }
}

impl Config {
    /// Where configuration is looked for, the least important first: the vendor's, then the administrator's.
    pub const ROOTS: [&'static str; 2] = ["/usr/lib/holm", "/etc/holm"];

    /// Reads one file's text over the defaults. `path` is only named in errors.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        file::parse(text, path)?.apply(&mut config);
        Ok(config)
    }

    /// Reads every file below `roots`, see [`Config::files`], and merges them key by key: what is read later wins.
    /// Files and directories that are not there are no error; one that cannot be read is.
    pub fn load<P: AsRef<Path>>(roots: &[P]) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for path in Self::files(roots)? {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(ConfigError::Read { path, source }),
            };
            file::parse(&text, &path)?.apply(&mut config);
        }
        config.storage.check()?;
        Ok(config)
    }

    /// The files that make up the configuration, in the order in which they are merged: `holm.toml` of each root, then
    /// the drop-ins `holm.toml.d/*.toml` of all roots together, sorted by file name. As with systemd's drop-ins, of
    /// several of one name only that of the last root counts; an empty one (or a link to /dev/null) masks the others.
    pub fn files<P: AsRef<Path>>(roots: &[P]) -> Result<Vec<PathBuf>, ConfigError> {
        let mut files: Vec<PathBuf> = roots.iter().map(|root| root.as_ref().join("holm.toml")).collect();
        let mut drop_ins = BTreeMap::new();
        for root in roots {
            for path in drop_ins_of(&root.as_ref().join("holm.toml.d"))? {
                drop_ins.insert(path.file_name().map(ToOwned::to_owned), path);
            }
        }
        files.extend(drop_ins.into_values());
        Ok(files)
    }
}

/// The `*.toml` files of a directory; none when it does not exist. Hidden files are left out, as editors leave them.
fn drop_ins_of(directory: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let read_error = |source| ConfigError::Read { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(read_error(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(read_error)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests;
