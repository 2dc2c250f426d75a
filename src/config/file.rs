//! One file: every key optional, every unknown key refused, every value checked where it stands, so that a mistake can
//! be shown with its line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::model::{Bytes, Driver, FileSystem};

use super::{Config, ConfigError, LogLevel, Mistake};

/// Reads one file's text.
pub(super) fn parse(text: &str, path: &Path) -> Result<File, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Invalid(Mistake::of(path, text, error)))
}

/// What one file says.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    storage: Storage,
    containers: Containers,
    log: Log,
    runtime: Runtime,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Storage {
    driver: Option<DriverChoice>,
    #[serde(deserialize_with = "absolute_path")]
    directory: Option<PathBuf>,
    #[serde(deserialize_with = "prefix")]
    prefix: Option<String>,
    #[serde(deserialize_with = "size")]
    data_size: Option<Bytes>,
    #[serde(deserialize_with = "size")]
    data_max_size: Option<Bytes>,
    #[serde(deserialize_with = "size")]
    metadata_size: Option<Bytes>,
    #[serde(deserialize_with = "size")]
    base_size: Option<Bytes>,
    filesystem: Option<FileSystem>,
    #[serde(deserialize_with = "absolute_path")]
    data_device: Option<PathBuf>,
    #[serde(deserialize_with = "absolute_path")]
    metadata_device: Option<PathBuf>,
    #[serde(deserialize_with = "absolute_path")]
    device: Option<PathBuf>,
    #[serde(deserialize_with = "pool")]
    pool: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Containers {
    #[serde(deserialize_with = "slice")]
    slice: Option<String>,
    #[serde(deserialize_with = "seconds")]
    stop_timeout_sec: Option<Duration>,
    pids_limit: Option<TaskLimit>,
    #[serde(deserialize_with = "few")]
    keep_runs: Option<usize>,
    images_may_boot: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Log {
    level: Option<LogLevel>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Runtime {
    #[serde(deserialize_with = "absolute_path")]
    init_path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum DriverChoice {
    Auto,
    Thin,
    Copy,
}

/// A number of tasks, or `"none"`.
#[derive(Debug, Clone, Copy)]
struct TaskLimit(Option<u64>);

impl File {
    /// Puts what this file says over `config`.
    pub(super) fn apply(self, config: &mut Config) {
        let Self { storage, containers, log, runtime } = self;
        storage.apply(config);
        replace(&mut config.containers.slice, containers.slice);
        replace(&mut config.containers.stop_timeout, containers.stop_timeout_sec);
        replace(&mut config.containers.pids_limit, containers.pids_limit.map(|limit| limit.0));
        replace(&mut config.containers.keep_runs, containers.keep_runs);
        replace(&mut config.containers.images_may_boot, containers.images_may_boot);
        replace(&mut config.log.level, log.level);
        replace(&mut config.runtime.init_path, runtime.init_path);
    }
}

impl Storage {
    fn apply(self, config: &mut Config) {
        let storage = &mut config.storage;
        replace(&mut storage.driver, self.driver.map(DriverChoice::driver));
        replace(&mut storage.directory, self.directory);
        replace(&mut storage.prefix, self.prefix);
        replace(&mut storage.data_size, self.data_size.map(Some));
        replace(&mut storage.data_max_size, self.data_max_size.map(Some));
        replace(&mut storage.metadata_size, self.metadata_size.map(Some));
        replace(&mut storage.base_size, self.base_size);
        replace(&mut storage.filesystem, self.filesystem);
        replace(&mut storage.data_device, self.data_device.map(Some));
        replace(&mut storage.metadata_device, self.metadata_device.map(Some));
        replace(&mut storage.device, self.device.map(Some));
        replace(&mut storage.pool, self.pool.map(Some));
    }
}

impl DriverChoice {
    fn driver(self) -> Option<Driver> {
        match self {
            Self::Auto => None,
            Self::Thin => Some(Driver::Thin),
            Self::Copy => Some(Driver::Copy),
        }
    }
}

fn replace<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// A size: a number of bytes, or text such as `"10G"`.
fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    let bytes = match NumberOrText::deserialize(deserializer)? {
        NumberOrText::Number(number) => Bytes(number),
        NumberOrText::Text(text) => text.parse().map_err(D::Error::custom)?,
    };
    // Less cannot hold a file system; the likeliest mistake is a forgotten suffix.
    if bytes < SMALLEST_SIZE {
        return Err(D::Error::custom(format!("{bytes} is too small: use at least {SMALLEST_SIZE}, such as \"10G\"")));
    }
    Ok(Some(bytes))
}

/// Whole seconds or a fraction, at most a day.
fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let seconds = match IntegerOrFloat::deserialize(deserializer)? {
        IntegerOrFloat::Integer(seconds) => Duration::from_secs(seconds),
        IntegerOrFloat::Float(seconds) => Duration::try_from_secs_f64(seconds).map_err(D::Error::custom)?,
    };
    if seconds > LONGEST_STOP {
        return Err(D::Error::custom("too long: use at most 86400 seconds (a day)"));
    }
    Ok(Some(seconds))
}

/// They are written to the disk at each end, and read at each start of holmd.
fn few<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = usize::deserialize(deserializer)?;
    if number > MOST_RUNS {
        return Err(D::Error::custom(format!("too many: use at most {MOST_RUNS}")));
    }
    Ok(Some(number))
}

fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    let path = PathBuf::deserialize(deserializer)?;
    if !path.is_absolute() {
        return Err(D::Error::custom(format!("'{}' is not an absolute path", path.display())));
    }
    Ok(Some(path))
}

/// The name of a device-mapper device, as in `/dev/mapper`.
fn pool<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    if !(1..=127).contains(&name.len()) || name.contains('/') || name.contains(char::is_whitespace) {
        return Err(D::Error::custom(format!("'{name}' is no name of a device-mapper device: see 'dmsetup ls'")));
    }
    Ok(Some(name))
}

/// Device-mapper names are at most 127 bytes and udev escapes most punctuation, so the prefix is short and plain.
fn prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let prefix = String::deserialize(deserializer)?;
    let plain = prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !plain || !(1..=16).contains(&prefix.len()) || prefix.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(D::Error::custom("use 1 to 16 of a-z and 0-9, starting with a letter"));
    }
    Ok(Some(prefix))
}

/// A slice's unit name (systemd.slice(5)): no leading, trailing or double dash, and not the root slice.
fn slice<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = String::deserialize(deserializer)?;
    let valid = name.len() <= 255
        && name.strip_suffix(".slice").is_some_and(|stem| {
            !stem.is_empty()
                && stem.split('-').all(|part| !part.is_empty())
                && stem.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\".contains(&b))
        });
    if !valid {
        return Err(D::Error::custom(format!("'{name}' is not the name of a slice, such as \"holm.slice\"")));
    }
    Ok(Some(name))
}

impl<'de> Deserialize<'de> for TaskLimit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match NumberOrText::deserialize(deserializer)? {
            NumberOrText::Number(0) => Err(D::Error::custom("0 tasks cannot run: use a number, or \"none\"")),
            NumberOrText::Number(tasks) => Ok(Self(Some(tasks))),
            NumberOrText::Text(text) if text == "none" => Ok(Self(None)),
            NumberOrText::Text(text) => Err(D::Error::custom(format!("'{text}' is not a number of tasks or \"none\""))),
        }
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "use a positive number, or text such as \"10G\" or \"none\"")]
enum NumberOrText {
    Number(u64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "use a number of seconds, 0 or more")]
enum IntegerOrFloat {
    Integer(u64),
    Float(f64),
}

const SMALLEST_SIZE: Bytes = Bytes(4 * Bytes::MIB);
const MOST_RUNS: usize = 1000;
const LONGEST_STOP: Duration = Duration::from_secs(86_400);
