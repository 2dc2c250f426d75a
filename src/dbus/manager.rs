//! `org.holm1.Manager`.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;
use zbus::object_server::SignalEmitter;

use super::auth::{Action, Wish};
use super::door::Door;
use super::error::Result;
use super::options::{self, Dictionary};
use super::paths::{self, Path};
use super::requests;
use super::table::Latest;
use crate::engine::EngineError;
use crate::model::{ContainerName, Driver, ImageName};

/// How the daemon is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SystemState {
    /// Everything works.
    Running,
    /// The system is shutting down: nothing is started any more, and containers are being stopped.
    Stopping,
}

impl SystemState {
    /// The word shown outside.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stopping => "stopping",
        }
    }
}

/// The entry to everything.
#[derive(Debug)]
pub(super) struct Manager {
    pub(super) door: Door,
    pub(super) driver: Driver,
    pub(super) features: Vec<String>,
    pub(super) state: Arc<Latest<SystemState>>,
}

#[interface(name = "org.holm1.Manager", introspection_docs = false)]
impl Manager {
    /// Defines a container. An empty name asks for a generated one.
    #[zbus(out_args("container"))]
    async fn create_container(
        &self,
        name: &str,
        image: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Path> {
        let request = requests::create(name, image, options)?;
        let wish = Wish::new(Action::ManageContainers, "create").container(name).image(image);
        let room = self.door.authorize(&header, wish).await?;
        let view = room.engine.create(request).await?;
        room.settled().await;
        Ok(paths::container(view.name()))
    }

    /// Defines a container and starts it. An empty name asks for a generated one.
    #[zbus(out_args("container", "job"))]
    async fn run_container(
        &self,
        name: &str,
        image: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(Path, Path)> {
        let (request, start) = requests::run(name, image, options)?;
        let wish = Wish::new(Action::ManageContainers, "run").container(name).image(image);
        let room = self.door.authorize(&header, wish).await?;
        let io = room.run_io(start, &header).await?;
        let (view, job) = room.engine.run(request, io).await?;
        Ok((paths::container(view.name()), room.job(job).await))
    }

    /// The object of a container.
    #[zbus(out_args("container"))]
    async fn get_container(&self, name: &str) -> Result<Path> {
        let name = ContainerName::parse(name)?;
        let known = self.door.open()?.table.containers.get(&name);
        known.map(|_| paths::container(&name)).ok_or_else(|| EngineError::NoSuchContainer(name.into()).into())
    }

    /// The container that a process is in; pid as the host sees it.
    #[zbus(name = "GetContainerByPID", out_args("container"))]
    async fn get_container_by_pid(&self, pid: u32) -> Result<Path> {
        Ok(paths::container(self.door.open()?.engine.container_by_pid(pid)?.name()))
    }

    /// Every container: name, state, image, unit, object.
    #[zbus(out_args("containers"))]
    async fn list_containers(&self) -> Result<Vec<(String, String, String, String, Path)>> {
        let views = self.door.open()?.table.containers.views();
        let row = |view: &Arc<crate::engine::ContainerView>| {
            let state = view.status.as_str().to_owned();
            let image = view.spec.image.to_string();
            (view.name().to_string(), state, image, view.unit.clone(), paths::container(view.name()))
        };
        Ok(views.iter().map(row).collect())
    }

    /// Removes a container and its root. Options: Force b, to kill it first if it runs.
    #[zbus(out_args("job"))]
    async fn remove_container(
        &self,
        name: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Path> {
        let name = ContainerName::parse(name)?;
        let options = requests::remove(options)?;
        let wish = Wish::new(Action::ManageContainers, "remove").container(name.as_str());
        let room = self.door.authorize(&header, wish).await?;
        let job = room.engine.remove(&name, options)?;
        Ok(room.job(job).await)
    }

    /// Imports an archive read from the descriptor: OCI archive, docker-archive or tar of a root, plain or compressed by
    /// gzip, zstd or xz, found by content. An empty name takes the one in the archive. No options.
    #[zbus(out_args("job"))]
    async fn import_image(
        &self,
        fd: zbus::OwnedFd,
        name: &str,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<Path> {
        let parsed = requests::optional_image(name)?;
        options::none(options)?;
        let wish = Wish::new(Action::ManageImages, "import").image(name);
        let room = self.door.authorize(&header, wish).await?;
        let job = room.engine.import_image(fd.into(), parsed)?;
        Ok(room.job(job).await)
    }

    /// The object of an image.
    #[zbus(out_args("image"))]
    async fn get_image(&self, name: &str) -> Result<Path> {
        let name = ImageName::normalized(name)?;
        let known = self.door.open()?.table.images.get(&name);
        known.map(|_| paths::image(&name)).ok_or_else(|| EngineError::NoSuchImage(name.into()).into())
    }

    /// Gives an image a second name.
    async fn tag_image(&self, image: &str, name: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let (image, name) = (ImageName::normalized(image)?, ImageName::normalized(name)?);
        let wish = Wish::new(Action::ManageImages, "tag-image").image(image.as_str());
        let room = self.door.authorize(&header, wish).await?;
        room.engine.tag_image(&image, name).await?;
        room.settled().await;
        Ok(())
    }

    /// Removes a name of an image, and with the last one the layers that nobody else needs. No options.
    async fn remove_image(&self, name: &str, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let name = ImageName::normalized(name)?;
        options::none(options)?;
        let wish = Wish::new(Action::ManageImages, "remove-image").image(name.as_str());
        let room = self.door.authorize(&header, wish).await?;
        room.engine.remove_image(&name).await?;
        room.settled().await;
        Ok(())
    }

    // Last on purpose: busctl, reading the objects above this one, takes the direction of the last method's last argument
    // for that of the signals, and complains unless it is "out".
    /// Every image: name, digest, bytes, time of import in µs, object.
    #[zbus(out_args("images"))]
    async fn list_images(&self) -> Result<Vec<(String, String, u64, u64, Path)>> {
        let views = self.door.open()?.table.images.views();
        let row = |view: &Arc<crate::engine::ImageView>| {
            let path = paths::image(&view.name);
            (view.name.to_string(), view.digest.clone(), view.size.0, view.created_usec, path)
        };
        Ok(views.iter().map(row).collect())
    }

    /// A container is there.
    #[zbus(signal)]
    pub(super) async fn container_new(emitter: &SignalEmitter<'_>, name: &str, container: Path) -> zbus::Result<()>;

    /// A container is gone.
    #[zbus(signal)]
    pub(super) async fn container_removed(emitter: &SignalEmitter<'_>, name: &str, container: Path)
    -> zbus::Result<()>;

    /// An image is there.
    #[zbus(signal)]
    pub(super) async fn image_new(emitter: &SignalEmitter<'_>, name: &str, image: Path) -> zbus::Result<()>;

    /// An image's name is gone.
    #[zbus(signal)]
    pub(super) async fn image_removed(emitter: &SignalEmitter<'_>, name: &str, image: Path) -> zbus::Result<()>;

    /// A job began.
    #[zbus(signal)]
    pub(super) async fn job_new(emitter: &SignalEmitter<'_>, id: u32, job: Path) -> zbus::Result<()>;

    /// A job is over: result is done, failed, canceled or timeout. Everything it did has been signalled before.
    #[zbus(signal)]
    pub(super) async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: Path,
        subject: &str,
        result: &str,
    ) -> zbus::Result<()>;

    /// Version of holmd.
    #[zbus(property(emits_changed_signal = "const"))]
    fn version(&self) -> &str {
        env!("CARGO_PKG_VERSION")
    }

    /// thin or copy: what keeps the roots.
    #[zbus(property(emits_changed_signal = "const"))]
    fn driver(&self) -> &str {
        self.driver.as_str()
    }

    /// running, or stopping: then nothing is started any more.
    #[zbus(property)]
    fn system_state(&self) -> &str {
        self.state.get().as_str()
    }

    /// What this host and this build can do, as words.
    #[zbus(property(emits_changed_signal = "const"))]
    fn features(&self) -> Vec<String> {
        self.features.clone()
    }
}
