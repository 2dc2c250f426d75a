//! `*.volume`: a tree that is kept, in a device of the pool or in a directory of the host.

use super::index::Index;
use super::key::{self, Key};
use super::name::FileName;
use super::oneshot::{self, Oneshot};
use super::problem::{Place, Problem, shown};
use super::sections::Sections;
use super::unit::Unit;
use super::value::{self, Parsed};
use super::words::is_open;
use crate::model::DeviceId;

/// Where the trees of devices are mounted. Only root gets there.
const MOUNTS: &str = "/run/holm/volumes";

/// What `[Volume]` says.
#[derive(Debug, Default)]
struct Volume {
    directory: Option<String>,
    size: Option<(Place, String)>,
    base: Option<(Place, String)>,
    snapshots: Option<(Place, String)>,
    user: Option<String>,
    group: Option<String>,
}

/// Those that are used.
const KEYS: &[Key<Volume>] = &[
    Key::once(
        "VolumeName",
        "NAME",
        "Its name; that of the file when absent. The device is `volume:NAME`",
        |_, v, _| {
            if is_name(v) {
                Ok(())
            } else {
                Err(format!("'{}' is not a name: use 1 to 100 of a-z, A-Z, 0-9, '-', '_' and '.'", shown(v)))
            }
        },
    ),
    Key::once(
        "ServiceName",
        "NAME",
        "The service's name without its end; that of the file and `-volume` when absent",
        |_, v, _| oneshot::service_name(v),
    ),
    Key::once(
        "Directory",
        "DIRECTORY",
        "A directory of the host, made when it is missing, instead of a device",
        |c: &mut Volume, v, _| {
            if is_open(v) {
                return Err("specifiers and variables are not possible here".into());
            }
            c.directory = Some(value::absolute(v)?);
            Ok(())
        },
    ),
    Key::once(
        "Size",
        "BYTES",
        "Size of the device's file system; the pool's default when absent. It can be made larger later, never smaller",
        |c, v, x| {
            c.size = Some((x.place.clone(), value::size(v)?));
            Ok(())
        },
    ),
    Key::once("Base", "DEVICE", "The device begins as a snapshot of this one; empty when absent", |c, v, x| {
        c.base = Some((x.place.clone(), DeviceId::parse(v).map_err(|error| error.to_string())?.to_string()));
        Ok(())
    }),
    Key::once(
        "SnapshotOnStart",
        "NUMBER",
        "Makes a snapshot `volume:NAME:MOMENT` before each start, and keeps the newest so many",
        |c, v, x| {
            c.snapshots = Some((x.place.clone(), value::count(v)?));
            Ok(())
        },
    ),
    Key::once(
        "User",
        "USER",
        "Owner of the tree's root; best a number, since the host's names are not the container's",
        |c, v, _| {
            c.user = Some(owner(v)?);
            Ok(())
        },
    ),
    Key::once("Group", "GROUP", "And its group", |c, v, _| {
        c.group = Some(owner(v)?);
        Ok(())
    }),
    Key::once("UID", "NUMBER", "The same as User=", |c, v, _| {
        c.user = Some(owner(v)?);
        Ok(())
    }),
    Key::once("GID", "NUMBER", "The same as Group=", |c, v, _| {
        c.group = Some(owner(v)?);
        Ok(())
    }),
];

/// Those that Quadlet has.
const REFUSED: &[Key<Volume>] = &[
    Key::refused("ContainersConfModule", "not supported: holm.toml(5) configures holmd"),
    Key::refused("Copy", "not supported: a volume begins empty, or with Base= as another device"),
    Key::refused("Device", "not supported: mount it with a .mount unit, and name its directory with Directory="),
    Key::refused("Driver", "not supported: a volume is a device of the pool, or with Directory= a directory"),
    Key::refused("GlobalArgs", "not supported: use the key that does it"),
    Key::refused("Image", "not supported: a volume begins empty, or with Base= as another device"),
    Key::refused("Label", "comes later: notes on volumes"),
    Key::refused("Options", "not supported: mount it with a .mount unit, and name its directory with Directory="),
    Key::refused("PodmanArgs", "not supported: use the key that does it"),
    Key::refused("Type", "not supported: mount it with a .mount unit, and name its directory with Directory="),
];

/// Name, form and text of every key, the used ones first.
pub(super) fn described() -> impl Iterator<Item = key::Described> {
    KEYS.iter().chain(REFUSED).map(Key::described)
}

fn is_name(text: &str) -> bool {
    (1..=100).contains(&text.len())
        && text.as_bytes()[0].is_ascii_alphanumeric()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && !text.contains("..")
}

fn owner(text: &str) -> Parsed<String> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(letter) {
        return Ok(text.to_owned());
    }
    Err(format!("'{}' is neither a name nor a number", shown(text)))
}

/// The name of a volume, as far as it is one.
fn name_of<'v>(file: &FileName, last: &impl Fn(&str) -> Option<&'v str>) -> String {
    last("VolumeName").filter(|name| is_name(name)).unwrap_or(file.stem()).to_owned()
}

/// Where the tree is.
pub(super) fn directory_of<'v>(file: &FileName, last: &impl Fn(&str) -> Option<&'v str>) -> String {
    let own = || format!("{MOUNTS}/{}", name_of(file, last));
    last("Directory").filter(|path| value::absolute(path).is_ok() && !is_open(path)).map_or_else(own, str::to_owned)
}

/// The unit of a file.
pub(super) fn units(name: &FileName, sections: &Sections<'_>, index: &Index, problems: &mut Vec<Problem>) -> Vec<Unit> {
    let mut volume = Volume::default();
    let keys: Vec<_> = KEYS.iter().chain(REFUSED).collect();
    key::apply(&keys, &sections.of("Volume"), &mut volume, index, problems);
    let last = |key: &str| sections.last("Volume", key);
    let own = name_of(name, &last);
    if !is_name(&own) {
        let message = "is needed in [Volume]: the file's name is not 1 to 100 of a-z, A-Z, 0-9, '-', '_' and '.'";
        problems.push(Place::whole(sections.path()).problem_of("VolumeName", message));
    }
    let mut unit = Oneshot::new(format!("Volume {own}"));
    let directory = directory_of(name, &last);
    if volume.directory.is_some() {
        volume.refuse_device_keys(problems);
        unit.mounts = Some(directory.clone());
        unit.start.push(vec!["/usr/bin/mkdir".into(), "-p".into(), directory.clone()]);
    } else {
        volume.device(&format!("volume:{own}"), &directory, &mut unit);
    }
    if let Some(owner) = volume.owner() {
        unit.start.push(vec!["/usr/bin/chown".into(), owner, directory]);
    }
    vec![oneshot::unit(name, unit, sections, index, problems)]
}

impl Volume {
    fn device(&self, id: &str, directory: &str, unit: &mut Oneshot) {
        let mut add = vec!["device".to_owned(), "add".into(), "--if-missing".into()];
        add.extend(self.size.as_ref().map(|(_, size)| format!("--size={size}")));
        add.extend(self.base.as_ref().map(|(_, base)| format!("--base={base}")));
        add.push(id.into());
        unit.start_holmctl(add);
        if let Some((_, keep)) = &self.snapshots {
            unit.start_holmctl(vec!["device".into(), "snapshot".into(), format!("--keep={keep}"), id.into()]);
        }
        unit.start_holmctl(vec!["device".into(), "mount".into(), "--if-missing".into(), id.into(), directory.into()]);
        unit.stop = Some(vec!["device".into(), "umount".into(), "--ignore".into(), id.into()]);
    }

    /// `USER:GROUP`, as chown(1) takes it.
    fn owner(&self) -> Option<String> {
        match (&self.user, &self.group) {
            (None, None) => None,
            (user, None) => user.clone(),
            (user, Some(group)) => Some(format!("{}:{group}", user.as_deref().unwrap_or_default())),
        }
    }

    fn refuse_device_keys(&self, problems: &mut Vec<Problem>) {
        for (key, set) in [("Size", &self.size), ("Base", &self.base), ("SnapshotOnStart", &self.snapshots)] {
            if let Some((place, _)) = set {
                problems.push(place.problem_of(key, "is for a device: leave it or Directory= out"));
            }
        }
    }
}
