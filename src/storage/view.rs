//! A part of a set: the devices whose ids begin with a prefix, under what follows it. For tenants and for tests: several
//! share a pool and never meet. The base is everybody's.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::{
    Access, AddOptions, Added, BASE, DeviceGrowth, DeviceSet, LeaseInfo, MountedDevice, PressureListener, Removal,
    Report, StorageError, Trimmed,
};
use crate::model::{Bytes, DeviceId, DeviceInfo, DeviceState, Driver, PoolStatus};

/// The part.
///
/// What is the pool's alone (growth by hand, check and repair, deletion of foreign devices, warnings) is passed on as it
/// is; it does not take the place of the pool's listener. [`close`](DeviceSet::close) leaves the set open.
#[derive(Debug)]
pub struct View {
    set: Arc<dyn DeviceSet>,
    prefix: String,
}

impl View {
    /// Over `set`. NotSupported when ids cannot begin with `prefix`.
    pub fn new(set: Arc<dyn DeviceSet>, prefix: &str) -> Result<Arc<Self>, StorageError> {
        let view = Self { set, prefix: prefix.to_owned() };
        view.outside(&DeviceId::parse("x").expect("a letter is an id"))?;
        Ok(Arc::new(view))
    }

    /// Devices and leases of this part that are there, in words; those that wait for their removal are none.
    pub fn leaks(&self) -> Result<Vec<String>, StorageError> {
        let devices = self.devices()?.into_iter().filter(|info| info.state != DeviceState::Removing);
        let own = devices.filter(|info| info.id.as_str() != BASE).map(|info| format!("device '{}'", info.id));
        let leases = self.leases().into_iter().map(|lease| format!("lease of '{}' ({})", lease.id, lease.purpose));
        Ok(own.chain(leases).collect())
    }

    fn outside(&self, id: &DeviceId) -> Result<DeviceId, StorageError> {
        if id.as_str() == BASE {
            return Ok(id.clone());
        }
        DeviceId::parse(&format!("{}{id}", self.prefix)).map_err(|error| StorageError::NotSupported {
            what: "an id with this prefix",
            advice: format!("'{}{id}': {error}", self.prefix),
        })
    }

    /// None for devices of others.
    fn inside(&self, id: &DeviceId) -> Option<DeviceId> {
        if id.as_str() == BASE {
            return Some(id.clone());
        }
        DeviceId::parse(id.as_str().strip_prefix(&self.prefix)?).ok().filter(|id| id.as_str() != BASE)
    }

    fn info_inside(&self, info: DeviceInfo) -> Option<DeviceInfo> {
        let id = self.inside(&info.id)?;
        let base = info.base.as_ref().and_then(|base| self.inside(base));
        Some(DeviceInfo { id, base, ..info })
    }
}

/// Errors speak of the ids that the caller knows.
fn renamed(error: StorageError, id: &DeviceId) -> StorageError {
    let id = id.clone();
    match error {
        StorageError::NoSuchDevice(_) => StorageError::NoSuchDevice(id),
        StorageError::DeviceExists(_) => StorageError::DeviceExists(id),
        StorageError::WrongState { state, .. } => StorageError::WrongState { id, state },
        StorageError::InUse { by, .. } => StorageError::InUse { id, by },
        other => other,
    }
}

impl DeviceSet for View {
    fn driver(&self) -> Driver {
        self.set.driver()
    }

    fn add_device(&self, id: &DeviceId, base: &DeviceId, options: &AddOptions) -> Result<Added, StorageError> {
        let (new, origin) = (self.outside(id)?, self.outside(base)?);
        self.set.add_device(&new, &origin, options).map_err(|error| {
            let speaks_of_base = matches!(&error,
                StorageError::NoSuchDevice(of) | StorageError::WrongState { id: of, .. } if *of == origin);
            renamed(error, if speaks_of_base { base } else { id })
        })
    }

    fn resize_device(&self, id: &DeviceId, size: Bytes) -> Result<DeviceInfo, StorageError> {
        let info = self.set.resize_device(&self.outside(id)?, size).map_err(|error| renamed(error, id))?;
        self.info_inside(info).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))
    }

    fn rollback_device(&self, id: &DeviceId, to: &DeviceId) -> Result<(), StorageError> {
        let (own, origin) = (self.outside(id)?, self.outside(to)?);
        self.set.rollback_device(&own, &origin).map_err(|error| {
            let speaks_of_origin = matches!(&error,
                StorageError::NoSuchDevice(of) | StorageError::WrongState { id: of, .. } if *of == origin);
            renamed(error, if speaks_of_origin { to } else { id })
        })
    }

    fn activate_device(&self, id: &DeviceId) -> Result<PathBuf, StorageError> {
        self.set.activate_device(&self.outside(id)?).map_err(|error| renamed(error, id))
    }

    fn deactivate_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.set.deactivate_device(&self.outside(id)?).map_err(|error| renamed(error, id))
    }

    fn exclusive(&self) -> Result<BTreeMap<DeviceId, Bytes>, StorageError> {
        let all = self.set.exclusive()?;
        Ok(all.into_iter().filter_map(|(id, bytes)| Some((self.inside(&id)?, bytes))).collect())
    }

    fn complete_device(&self, id: &DeviceId) -> Result<(), StorageError> {
        self.set.complete_device(&self.outside(id)?).map_err(|error| renamed(error, id))
    }

    fn remove_device(&self, id: &DeviceId) -> Result<Removal, StorageError> {
        self.set.remove_device(&self.outside(id)?).map_err(|error| renamed(error, id))
    }

    fn mount_device_for(&self, id: &DeviceId, access: Access, purpose: &str) -> Result<MountedDevice, StorageError> {
        self.set.mount_device_for(&self.outside(id)?, access, purpose).map_err(|error| renamed(error, id))
    }

    fn leases(&self) -> Vec<LeaseInfo> {
        let all = self.set.leases().into_iter();
        // The base is everybody's: who uses it cannot be told apart.
        let own = all.filter(|lease| lease.id.as_str() != BASE);
        own.filter_map(|lease| Some(LeaseInfo { id: self.inside(&lease.id)?, ..lease })).collect()
    }

    fn devices(&self) -> Result<Vec<DeviceInfo>, StorageError> {
        let mut own: Vec<_> = self.set.devices()?.into_iter().filter_map(|info| self.info_inside(info)).collect();
        own.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(own)
    }

    fn device(&self, id: &DeviceId) -> Result<DeviceInfo, StorageError> {
        let info = self.set.device(&self.outside(id)?).map_err(|error| renamed(error, id))?;
        self.info_inside(info).ok_or_else(|| StorageError::NoSuchDevice(id.clone()))
    }

    fn status(&self) -> Result<PoolStatus, StorageError> {
        let devices = self.devices()?;
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let active = devices.iter().filter(|info| info.active).count();
        Ok(PoolStatus { devices: count(devices.len()), active: count(active), ..self.set.status()? })
    }

    fn grow(&self, data: Bytes, metadata: Bytes) -> Result<PoolStatus, StorageError> {
        self.set.grow(data, metadata)?;
        self.status()
    }

    fn trim(&self) -> Result<Trimmed, StorageError> {
        let mut trimmed = Trimmed::default();
        for info in self.devices()?.into_iter().filter(|info| info.active && info.id.as_str() != BASE) {
            match self.trim_device(&info.id) {
                Ok(bytes) => {
                    trimmed.bytes.0 += bytes.0;
                    trimmed.devices += 1;
                }
                Err(error) => trimmed.failed.push((info.id, error.to_string())),
            }
        }
        Ok(trimmed)
    }

    fn trim_device(&self, id: &DeviceId) -> Result<Bytes, StorageError> {
        self.set.trim_device(&self.outside(id)?).map_err(|error| renamed(error, id))
    }

    fn check(&self) -> Result<Report, StorageError> {
        self.set.check()
    }

    fn repair(&self) -> Result<Report, StorageError> {
        self.set.repair()
    }

    fn remove_foreign(&self, thin_id: u32) -> Result<Removal, StorageError> {
        self.set.remove_foreign(thin_id)
    }

    fn foreign(&self) -> Vec<u32> {
        self.set.foreign()
    }

    fn growth(&self) -> Vec<DeviceGrowth> {
        let all = self.set.growth().into_iter();
        all.filter_map(|growth| Some(DeviceGrowth { id: self.inside(&growth.id)?, ..growth })).collect()
    }

    fn on_pressure(&self, _listener: PressureListener) {}

    fn backing(&self) -> Result<PathBuf, StorageError> {
        self.set.backing()
    }

    fn warnings(&self) -> Vec<String> {
        self.set.warnings()
    }

    /// InUse, naming all, when something of this part is still there.
    fn close(&self) -> Result<(), StorageError> {
        let leaks = self.leaks()?;
        match self.devices()?.into_iter().find(|info| info.id.as_str() != BASE) {
            Some(first) if !leaks.is_empty() => Err(StorageError::InUse { id: first.id, by: leaks.join(", ") }),
            _ => Ok(()),
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        match self.leaks() {
            Ok(leaks) if leaks.is_empty() => {}
            Ok(leaks) => tracing::debug!(prefix = self.prefix, ?leaks, "a part of the set was left with things in it"),
            Err(error) => tracing::debug!(%error, prefix = self.prefix, "cannot look for what is left, ignoring"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::behaviour::{Subject, add, every_behaviour, id, ids, read, remove_for_good, write};
    use super::*;

    #[test]
    fn a_part_does_what_every_driver_does() {
        let model = super::super::thin::model::Model::new();
        let open = || {
            let set = super::super::thin::over(&model) as Arc<dyn DeviceSet>;
            View::new(set, "t1:").unwrap() as Arc<dyn DeviceSet>
        };
        every_behaviour(&Subject { open: &open, real_mounts: false, sizes: true, shrinks: true });
    }

    #[test]
    fn two_parts_of_a_set_never_meet() {
        let set = super::super::in_memory();
        let one = View::new(set.clone(), "one:").unwrap() as Arc<dyn DeviceSet>;
        let two = View::new(set.clone(), "two:").unwrap() as Arc<dyn DeviceSet>;
        for (view, text) in [(&one, "first"), (&two, "second")] {
            add(view, "web", "base");
            write(view.mount_device(&id("web"), Access::ReadWrite).unwrap().mount(), text);
        }
        add(&one, "only", "web");
        assert_eq!(ids(&one), ["base", "only", "web"]);
        assert_eq!(ids(&two), ["base", "web"]);
        assert_eq!(read(two.mount_device(&id("web"), Access::ReadOnly).unwrap().mount()).as_deref(), Some("second"));
        assert_eq!(one.device(&id("only")).unwrap().base, Some(id("web")));
        let error = two.device(&id("only")).unwrap_err().to_string();
        assert!(error.contains("'only'"), "{error}");
        assert_eq!(ids(&set), ["base", "one:only", "one:web", "two:web"]);
        remove_for_good(&two, "web");
        two.close().unwrap();
    }

    #[test]
    fn what_is_left_in_a_part_is_told() {
        let set = super::super::in_memory();
        let view = View::new(set, "t:").unwrap();
        let all = view.clone() as Arc<dyn DeviceSet>;
        assert!(view.leaks().unwrap().is_empty());
        add(&all, "web", "base");
        let held = view.mount_device_for(&id("web"), Access::ReadWrite, "start").unwrap();
        assert_eq!(view.leaks().unwrap(), ["device 'web'", "lease of 'web' (start)"]);
        let error = view.close().unwrap_err().to_string();
        assert!(error.contains("device 'web'") && error.contains("start"), "{error}");
        drop(held);
        remove_for_good(&all, "web");
        view.close().unwrap();
    }

    #[test]
    fn a_prefix_that_no_id_can_have_is_refused() {
        assert!(View::new(super::super::in_memory(), "a/b").is_err());
    }
}
