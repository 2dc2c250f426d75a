//! The bus client: what `holmctl` and other programs of ours say to `holmd`.
//!
//! | file | what |
//! |---|---|
//! | `proxies.rs` | the interfaces of `org.holm1` as traits |
//! | `options.rs` | what may be asked, as the `a{sv}` that goes over the bus |
//! | `signals.rs` | match rules and one queue of what they let through |
//! | `jobs.rs` | waits for the end of jobs, across restarts of the daemon |
//! | `monitor.rs` | the socket on which a container's monitor tells its end |
//! | `path.rs` | names in object paths |
//! | `value.rs` | bus values as text and JSON |
//! | `error.rs` | every failure, with its code |

mod error;
mod jobs;
mod monitor;
mod options;
mod path;
mod proxies;
mod signals;
mod value;

pub use error::ClientError;
pub use jobs::{Goal, JobProgress, Jobs};
pub use monitor::{Monitor, MonitorEnd, MonitorEvent};
pub use options::{CreateOptions, ExecOptions, Io, Options, limits};
pub use path::object_name;
pub use proxies::{
    CheckReport, ContainerProxy, DeviceSetProxy, ImageProxy, JobProxy, ManagerProxy, ProcessProxy, TrimReport,
};
pub use signals::{Rule, Signal, Signals};
pub use value::{Properties, to_json, to_text};

use std::collections::{BTreeMap, HashMap};

use zbus::proxy::{CacheProperties, MethodFlags};
use zbus::{Connection, ObjectPath, OwnedObjectPath, OwnedVariant};

use crate::model::ErrorCode;

/// The daemon's name on the bus.
pub const SERVICE: &str = "org.holm1";
/// The manager's object.
pub const ROOT: &str = "/org/holm1";

/// A connection to the system bus, for talking to `holmd`.
#[derive(Debug, Clone)]
pub struct Client {
    bus: Connection,
}

impl Client {
    /// Connects to the system bus (`DBUS_SYSTEM_BUS_ADDRESS` says which, if set). The daemon itself is not called, and
    /// calls have no time limit.
    pub async fn connect() -> Result<Self, ClientError> {
        let bus = Connection::system().await.map_err(|source| ClientError::NoBus { source })?;
        Ok(Self { bus })
    }

    /// The connection.
    pub fn bus(&self) -> &Connection {
        &self.bus
    }

    /// The manager.
    pub async fn manager(&self) -> Result<ManagerProxy<'static>, ClientError> {
        Ok(ManagerProxy::builder(&self.bus).cache_properties(CacheProperties::No).build().await?)
    }

    /// The container at a path that the manager gave.
    pub async fn container_at(&self, path: OwnedObjectPath) -> Result<ContainerProxy<'static>, ClientError> {
        Ok(ContainerProxy::builder(&self.bus).path(path).cache_properties(CacheProperties::No).build().await?)
    }

    /// The container with this name. One round trip; fails with `NoSuchContainer`.
    pub async fn container(&self, name: &str) -> Result<ContainerProxy<'static>, ClientError> {
        let path = self.manager().await?.get_container(name).await?;
        self.container_at(path).await
    }

    /// Whether there is a container of this name; the daemon is not started to tell.
    pub async fn knows_container(&self, name: &str) -> Result<bool, ClientError> {
        let manager = self.manager().await?;
        let told: zbus::Result<Option<OwnedObjectPath>> =
            manager.inner().call_with_flags("GetContainer", MethodFlags::NO_AUTO_START, &name).await;
        match told.map_err(ClientError::from) {
            Ok(_) => Ok(true),
            Err(error) if error.is(ErrorCode::NoSuchContainer) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The state of a container; the daemon is not started to tell.
    async fn known_state(&self, path: &OwnedObjectPath) -> Result<String, ClientError> {
        let proxy = zbus::Proxy::new(&self.bus, SERVICE, path, "org.freedesktop.DBus.Properties").await?;
        let state = ("org.holm1.Container", "State");
        let told: Option<OwnedVariant> = proxy.call_with_flags("Get", MethodFlags::NO_AUTO_START, &state).await?;
        Ok(told.map(String::try_from).transpose()?.unwrap_or_default())
    }

    /// The image with this name. One round trip; fails with `NoSuchImage`.
    pub async fn image(&self, name: &str) -> Result<ImageProxy<'static>, ClientError> {
        let path = self.manager().await?.get_image(name).await?;
        Ok(ImageProxy::builder(&self.bus).path(path).cache_properties(CacheProperties::No).build().await?)
    }

    /// A process that exec started.
    pub async fn process_at(&self, path: OwnedObjectPath) -> Result<ProcessProxy<'static>, ClientError> {
        Ok(ProcessProxy::builder(&self.bus).path(path).cache_properties(CacheProperties::No).build().await?)
    }

    /// A job.
    pub async fn job_at(&self, path: OwnedObjectPath) -> Result<JobProxy<'static>, ClientError> {
        Ok(JobProxy::builder(&self.bus).path(path).cache_properties(CacheProperties::No).build().await?)
    }

    /// The pool and its devices.
    pub async fn devices(&self) -> Result<DeviceSetProxy<'static>, ClientError> {
        Ok(DeviceSetProxy::builder(&self.bus).cache_properties(CacheProperties::No).build().await?)
    }

    /// Every property that an object has on one of our interfaces, as it is now.
    pub async fn properties(&self, path: &ObjectPath<'_>, interface: &str) -> Result<Properties, ClientError> {
        let reply = self
            .bus
            .call_method(Some(SERVICE), path, Some("org.freedesktop.DBus.Properties"), "GetAll", &interface)
            .await?;
        Ok(Properties::from_map(reply.body().deserialize()?))
    }

    /// Every object with its properties on our interfaces, by path. One round trip.
    pub async fn objects(&self) -> Result<BTreeMap<String, HashMap<String, Properties>>, ClientError> {
        type Objects = HashMap<OwnedObjectPath, HashMap<String, HashMap<String, OwnedVariant>>>;
        let manager = Some("org.freedesktop.DBus.ObjectManager");
        let reply = self.bus.call_method(Some(SERVICE), ROOT, manager, "GetManagedObjects", &()).await?;
        let objects: Objects = reply.body().deserialize()?;
        let own = |interfaces: HashMap<String, _>| {
            interfaces.into_iter().map(|(name, values)| (name, Properties::from_map(values))).collect()
        };
        Ok(objects.into_iter().map(|(path, interfaces)| (path.to_string(), own(interfaces))).collect())
    }

    /// Has systemd ask a container's monitor to stop it politely, for when the daemon is away: SIGURG to all of its scope, which
    /// only the monitor heeds.
    pub async fn stop_by_systemd(&self, container: &str) -> Result<(), ClientError> {
        const SYSTEMD: &str = "org.freedesktop.systemd1";
        let arguments = (format!("holm-{container}.scope"), "all", libc::SIGURG);
        let path = "/org/freedesktop/systemd1";
        self.bus
            .call_method(Some(SYSTEMD), path, Some("org.freedesktop.systemd1.Manager"), "KillUnit", &arguments)
            .await?;
        Ok(())
    }

    /// Whether systemd stops a container's scope after another unit, as it does when that unit runs it.
    pub async fn is_stopped_after(&self, scope: &str, unit: &str) -> Result<bool, ClientError> {
        const SYSTEMD: &str = "org.freedesktop.systemd1";
        let manager = ("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager");
        let call = self.bus.call_method(Some(SYSTEMD), manager.0, Some(manager.1), "LoadUnit", &scope).await?;
        let path: OwnedObjectPath = call.body().deserialize()?;
        let before = ("org.freedesktop.systemd1.Unit", "Before");
        let interface = "org.freedesktop.DBus.Properties";
        let call = self.bus.call_method(Some(SYSTEMD), path, Some(interface), "Get", &before).await?;
        let value: OwnedVariant = call.body().deserialize()?;
        let units = Vec::<String>::try_from(value)?;
        Ok(units.iter().any(|before| before == unit))
    }

    /// Lets signals through; see [`Signals`]. Nothing is awaited from the bus.
    pub async fn signals(&self, rules: &[Rule<'_>]) -> Result<Signals, ClientError> {
        Signals::open(&self.bus, rules).await
    }
}
