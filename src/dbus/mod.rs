//! Not written yet.
pub enum SystemState { Running, Stopping }
#[derive(Debug, thiserror::Error)] pub enum DbusError { #[error("x")] X }
pub struct Server;
impl Server { pub fn set_system_state(&self,_:SystemState){} }
pub async fn serve(_:crate::engine::Engine,_:&zbus::Connection)->Result<Server,DbusError>{Ok(Server)}
