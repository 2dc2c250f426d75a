//! What a container may use, changed while it runs or not.

use std::sync::Arc;

use super::Engine;
use super::container::Request;
use super::create::check_limits;
use super::error::EngineError;
use super::request::ResourceRequest;
use super::table::{blocking, container_device};
use crate::model::{ContainerName, Limits};

impl Engine {
    /// Changes what a container may use, for good; at once when it runs. Its root can only be made larger. The root comes
    /// first: after an error there nothing has changed.
    pub async fn set_resources(&self, name: &ContainerName, request: ResourceRequest) -> Result<(), EngineError> {
        check_limits(&request.limits)?;
        let container = self.inner.find(name)?;
        if let Some(size) = request.size {
            let devices = Arc::clone(&self.inner.devices);
            let device = container_device(container.view().id());
            let held = container.hold_root().await;
            let now = blocking(move || devices.resize_device(&device, size)).await?.size;
            drop(held);
            container.ask_and_wait(|reply| Request::Resized { size: now, reply }).await?;
        }
        if request.limits == Limits::default() {
            return Ok(());
        }
        let before = container.view().spec.limits.clone();
        let limits = request.limits.over(before);
        container.ask_and_wait(|reply| Request::Limit { limits: Box::new(limits), reply }).await
    }
}
