//! Images: import into layer devices, names, removal.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, openat};
use tracing::{info, warn};

use super::error::EngineError;
use super::jobs::Job;
use super::view::{Event, JobId, JobKind, JobResult};
use super::{Engine, Inner, blocking, random_bytes};
use crate::images::{ImageError, Imported, LayerStore, LayerTree, Progress, import};
use crate::model::{Bytes, DeviceId, DeviceState, ImageInfo, ImageName, LayerDevice, now_usec};
use crate::storage::{Access, AddOptions, BASE, DeviceSet, MountedDevice, StorageError, TREE};

/// How often a running import says how far it has come.
const REPORT: Duration = Duration::from_millis(200);

impl Engine {
    /// Imports an archive. An absent name takes the one in the archive.
    pub fn import_image(&self, source: OwnedFd, name: Option<ImageName>) -> Result<JobId, EngineError> {
        self.inner.check_open()?;
        let progress = Arc::new(Progress::default());
        let subject = name.as_ref().map_or("", |name| name.as_str());
        let job = self.inner.jobs.begin_counted(JobKind::ImportImage, subject, Arc::clone(&progress));
        let id = job.id();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let result = watched_import(&inner, &job, source, name, progress).await;
            match result {
                Ok(image) => {
                    job.rename(image.as_str());
                    job.finish(JobResult::Done);
                }
                Err(error) => job.finish(JobResult::from(&error)),
            }
        });
        Ok(id)
    }

    /// Gives an image a second name, taking it from another image if need be.
    pub async fn tag_image(&self, name: &ImageName, to: ImageName) -> Result<(), EngineError> {
        let _one_at_a_time = self.inner.image_changes.lock().await;
        let image = ImageInfo { name: to, ..ImageInfo::clone(&*self.image(name)?) };
        self.inner.put_image(image).await
    }

    /// Removes a name, and with the last one the layers nobody else needs.
    pub async fn remove_image(&self, name: &ImageName) -> Result<(), EngineError> {
        let _one_at_a_time = self.inner.image_changes.lock().await;
        let image = self.image(name)?;
        self.inner.check_unused(&image)?;
        let inner = Arc::clone(&self.inner);
        let store = inner.store.clone();
        let gone = name.clone();
        blocking(move || store.remove_image(&gone)).await?;
        inner.images().remove(name);
        inner.events.send(Event::ImageRemoved(name.clone()));
        info!(image = %name, op = "remove-image", "Image {name} removed.");
        blocking(move || inner.remove_unneeded_layers(&image)).await;
        Ok(())
    }
}

/// Runs the import and reports its progress until it has ended.
async fn watched_import(
    inner: &Arc<Inner>,
    job: &Job,
    source: OwnedFd,
    name: Option<ImageName>,
    progress: Arc<Progress>,
) -> Result<ImageName, EngineError> {
    let work = import_one(inner, source, name, progress);
    tokio::pin!(work);
    let mut ticker = tokio::time::interval(REPORT);
    loop {
        tokio::select! {
            result = &mut work => return result,
            _ = ticker.tick() => job.report(),
        }
    }
}

async fn import_one(
    inner: &Arc<Inner>,
    source: OwnedFd,
    name: Option<ImageName>,
    progress: Arc<Progress>,
) -> Result<ImageName, EngineError> {
    // One at a time: two imports would otherwise fill the same layer twice.
    let _one_at_a_time = inner.image_changes.lock().await;
    let worker = Arc::clone(inner);
    let (imported, devices) = blocking(move || worker.import_layers(source, &progress)).await?;
    let name = match (name, &imported.name) {
        (Some(name), _) => Ok(name),
        (None, Some(found)) => ImageName::normalized(found).map_err(EngineError::from),
        (None, None) => {
            Err(EngineError::InvalidConfig("the archive names no image: give it a name with --name".to_owned()))
        }
    };
    let image = match name.and_then(|name| describe(name, imported, devices)) {
        Ok(image) => image,
        Err(error) => {
            let inner = Arc::clone(inner);
            blocking(move || inner.remove_orphaned_layers()).await;
            return Err(error);
        }
    };
    let name = image.name.clone();
    inner.put_image(image).await?;
    info!(image = %name, op = "import-image", "Image {name} imported.");
    Ok(name)
}

fn describe(name: ImageName, imported: Imported, devices: Vec<LayerDevice>) -> Result<ImageInfo, EngineError> {
    let top = devices.last().ok_or_else(|| EngineError::InvalidConfig("the image has no layers".to_owned()))?;
    Ok(ImageInfo {
        name,
        digest: imported.digest,
        size: Bytes(imported.size),
        created_usec: now_usec(),
        layers: imported.diff_ids,
        device: top.device.clone(),
        devices,
        config: imported.config,
    })
}

impl Inner {
    /// Writes an image down and shows it. Layers that only the image it replaces needed go.
    async fn put_image(self: &Arc<Self>, image: ImageInfo) -> Result<(), EngineError> {
        let store = self.store.clone();
        let written = image.clone();
        blocking(move || store.put_image(&written)).await?;
        let image = Arc::new(image);
        let before = self.images().insert(image.name.clone(), Arc::clone(&image));
        self.events.send(Event::ImageNew(image));
        if let Some(before) = before {
            let inner = Arc::clone(self);
            blocking(move || inner.remove_unneeded_layers(&before)).await;
        }
        Ok(())
    }

    fn check_unused(&self, image: &ImageInfo) -> Result<(), EngineError> {
        let users: Vec<_> = self
            .views()
            .into_iter()
            .filter(|view| view.spec.image == image.name)
            .map(|view| view.spec.name.to_string())
            .collect();
        if users.is_empty() {
            return Ok(());
        }
        Err(EngineError::ImageInUse { image: image.name.clone(), users: users.join(", ") })
    }

    /// Unpacks an archive's layers. After an error none of them is left that no other image needs.
    fn import_layers(
        &self,
        source: OwnedFd,
        progress: &Arc<Progress>,
    ) -> Result<(Imported, Vec<LayerDevice>), EngineError> {
        let known = self.images().values().flat_map(|image| image.devices.clone()).collect();
        let layers = Layers {
            devices: Arc::clone(&self.devices),
            chain: Arc::new(Mutex::new(Chain { known, used: Vec::new() })),
        };
        match import(source, self.store.scratch(), &layers, progress) {
            Ok(imported) => Ok((imported, std::mem::take(&mut layers.chain().used))),
            Err(error) => {
                self.remove_orphaned_layers();
                Err(error.into())
            }
        }
    }

    /// Removes those layers of a removed image that no image needs. A container's root is a snapshot of its own and
    /// needs none of them.
    fn remove_unneeded_layers(&self, image: &ImageInfo) {
        let needed = self.needed_layers();
        for layer in image.devices.iter().rev().filter(|layer| !needed.contains(&layer.device)) {
            self.remove_layer(&layer.device);
        }
    }

    /// Removes layers no image needs: what an import that failed, or an import or a removal that was cut short, left
    /// behind. None while there is an image whose record cannot be read: they may be its layers.
    pub(super) fn remove_orphaned_layers(&self) {
        if let Some(error) = self.store.images().map_or_else(Some, |images| images.into_iter().find_map(Result::err)) {
            return warn!(op = "remove-layers", "{error}: layers that no image needs are kept until it can be read");
        }
        let needed = self.needed_layers();
        let devices = match self.devices.devices() {
            Ok(devices) => devices,
            Err(error) => return warn!(op = "remove-layers", "{error}, ignoring"),
        };
        for device in devices {
            if device.id.as_str().starts_with("layer:") && !needed.contains(&device.id) {
                self.remove_layer(&device.id);
            }
        }
    }

    fn remove_layer(&self, id: &DeviceId) {
        if let Err(error) = self.devices.remove_device(id) {
            warn!(op = "remove-layers", device = %id, "{error}, ignoring");
        }
    }

    fn needed_layers(&self) -> BTreeSet<DeviceId> {
        self.images().values().flat_map(|image| image.devices.iter().map(|layer| layer.device.clone())).collect()
    }
}

/// Layers as devices.
struct Layers {
    devices: Arc<dyn DeviceSet>,
    chain: Arc<Mutex<Chain>>,
}

/// Which layers there are, and which of them the image being imported has, lowest first.
struct Chain {
    known: Vec<LayerDevice>,
    used: Vec<LayerDevice>,
}

/// A layer's device being filled.
struct Layer {
    devices: Arc<dyn DeviceSet>,
    chain: Arc<Mutex<Chain>>,
    id: DeviceId,
    /// The tree's directory and the mount it is on; closed before the device is removed.
    open: Option<(OwnedFd, MountedDevice)>,
    finished: bool,
}

impl Layers {
    fn chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The device of the layer with this chain id.
    fn device(&self, chain_id: &str) -> Option<LayerDevice> {
        let chain = self.chain();
        chain.known.iter().chain(&chain.used).find(|layer| layer.chain_id == chain_id).cloned()
    }
}

impl LayerStore for Layers {
    type Tree = Layer;

    fn contains(&self, chain_id: &str) -> Result<bool, ImageError> {
        let Some(layer) = self.device(chain_id) else { return Ok(false) };
        match self.devices.device(&layer.device) {
            Ok(device) if device.state == DeviceState::Ready => {
                self.chain().used.push(layer);
                Ok(true)
            }
            // One that is lost is made anew.
            Ok(_) | Err(StorageError::NoSuchDevice(_)) => Ok(false),
            Err(error) => Err(store_error(&error)),
        }
    }

    fn begin(&self, parent: Option<&str>) -> Result<Layer, ImageError> {
        let unknown = |chain_id| ImageError::Invalid(format!("the layer below, {chain_id}, is not there"));
        let base = match parent {
            Some(parent) => self.device(parent).ok_or_else(|| unknown(parent))?.device,
            None => DeviceId::parse(BASE).map_err(|error| ImageError::Invalid(error.to_string()))?,
        };
        let id = new_layer_id()?;
        let options = AddOptions { size: None, pending: true };
        self.devices.add_device(&id, &base, &options).map_err(|error| store_error(&error))?;
        Layer::open(self, id.clone()).inspect_err(|_| {
            let _ = self.devices.remove_device(&id);
        })
    }
}

/// A layer's chain id is known only when all of it was read, so its device has a name of its own.
fn new_layer_id() -> Result<DeviceId, ImageError> {
    let random = random_bytes().map_err(|source| ImageError::Io { op: "read", path: "/dev/urandom".into(), source })?;
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    DeviceId::parse(&format!("layer:{hex}")).map_err(|error| ImageError::Invalid(error.to_string()))
}

impl Layer {
    fn open(layers: &Layers, id: DeviceId) -> Result<Self, ImageError> {
        let mounted =
            layers.devices.mount_device_for(&id, Access::ReadWrite, "import").map_err(|error| store_error(&error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(mounted.mount(), TREE, flags, Mode::empty()).map_err(|error| ImageError::Io {
            op: "open",
            path: TREE.into(),
            source: error.into(),
        })?;
        Ok(Self {
            devices: Arc::clone(&layers.devices),
            chain: Arc::clone(&layers.chain),
            id,
            open: Some((root, mounted)),
            finished: false,
        })
    }
}

impl LayerTree for Layer {
    fn root(&self) -> BorrowedFd<'_> {
        let (root, _) = self.open.as_ref().expect("a layer is open until it is dropped");
        root.as_fd()
    }

    fn finish(mut self, chain_id: &str) -> Result<(), ImageError> {
        // Said to be complete only once it is on the disk.
        rustix::fs::syncfs(self.root()).map_err(|error| ImageError::Io {
            op: "sync",
            path: TREE.into(),
            source: error.into(),
        })?;
        self.devices.complete_device(&self.id).map_err(|error| store_error(&error))?;
        self.finished = true;
        let layer = LayerDevice { chain_id: chain_id.to_owned(), device: self.id.clone() };
        self.chain.lock().unwrap_or_else(PoisonError::into_inner).used.push(layer);
        Ok(())
    }
}

impl Drop for Layer {
    fn drop(&mut self) {
        self.open = None;
        if !self.finished
            && let Err(error) = self.devices.remove_device(&self.id)
        {
            warn!(op = "import-image", device = %self.id, "{error}: the next start removes it");
        }
    }
}

fn store_error(error: &StorageError) -> ImageError {
    ImageError::Store { code: error.code(), message: error.to_string() }
}
