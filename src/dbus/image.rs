//! `org.holm1.Image`.

use std::sync::Arc;

use zbus::interface;
use zbus::message::Header;

use super::auth::{Action, Wish};
use super::door::{Door, Room};
use super::error::Result;
use super::options::{self, Dictionary};
use super::table::Latest;
use crate::engine::ImageView;
use crate::model::ImageName;

/// One name of an image.
#[derive(Debug)]
pub(super) struct Image {
    door: Door,
    name: ImageName,
    view: Arc<Latest<ImageView>>,
}

impl Image {
    pub(super) fn new(door: Door, view: Arc<Latest<ImageView>>) -> Self {
        let name = view.get().name.clone();
        Self { door, name, view }
    }

    async fn authorize(&self, header: &Header<'_>, verb: &'static str) -> Result<Arc<Room>> {
        let wish = Wish::new(Action::ManageImages, verb).image(self.name.as_str());
        self.door.authorize(header, wish).await
    }
}

#[interface(name = "org.holm1.Image", introspection_docs = false)]
impl Image {
    /// Removes this name, and with the last one the layers that nobody else needs.
    async fn remove(&self, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<()> {
        options::none(options)?;
        let room = self.authorize(&header, "remove-image").await?;
        room.engine.remove_image(&self.name).await?;
        room.settled().await;
        Ok(())
    }

    /// Gives the image a second name.
    async fn tag(&self, name: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let to = ImageName::normalized(name)?;
        let room = self.authorize(&header, "tag-image").await?;
        room.engine.tag_image(&self.name, to).await?;
        room.settled().await;
        Ok(())
    }

    /// Name.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        self.name.as_str()
    }

    /// sha256:… of the configuration, or of the tar stream of a plain tree: the image id.
    #[zbus(property)]
    fn digest(&self) -> String {
        self.view.get().digest.clone()
    }

    /// Uncompressed bytes of its layers.
    #[zbus(property)]
    fn size(&self) -> u64 {
        self.view.get().size.0
    }

    /// When it was imported.
    #[zbus(property, name = "CreatedUSec")]
    fn created_usec(&self) -> u64 {
        self.view.get().created_usec
    }

    /// sha256:… of each layer's uncompressed tar stream, lowest first.
    #[zbus(property)]
    fn layers(&self) -> Vec<String> {
        self.view.get().layers.clone()
    }

    /// The device of the DeviceSet that holds the topmost layer.
    #[zbus(property)]
    fn device(&self) -> String {
        self.view.get().device.to_string()
    }

    /// First words of the command line.
    #[zbus(property)]
    fn entrypoint(&self) -> Vec<String> {
        self.view.get().config.entrypoint.clone()
    }

    /// Default arguments, or the command if there is no entry point.
    #[zbus(property)]
    fn command(&self) -> Vec<String> {
        self.view.get().config.command.clone()
    }

    /// NAME=VALUE entries that the image brings; everybody who has the image can read them.
    #[zbus(property)]
    fn environment(&self) -> Vec<String> {
        self.view.get().config.environment.clone()
    }
}
