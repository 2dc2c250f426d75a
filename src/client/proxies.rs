//! The interfaces of `org.holm1` as traits; `dbus/*.xml` is the contract. Properties are read through
//! [`Client::properties`](super::Client::properties), all at once, or one by one here where one is enough.

use std::collections::HashMap;

use zbus::{Fd, OwnedFd, OwnedObjectPath, OwnedVariant, Variant, proxy};

/// `a{sv}` as it is passed.
type Dict<'a> = HashMap<&'a str, Variant<'a>>;

/// The manager.
#[proxy(interface = "org.holm1.Manager", default_service = "org.holm1", default_path = "/org/holm1")]
pub trait Manager {
    /// Defines a container.
    #[zbus(allow_interactive_auth)]
    fn create_container(&self, name: &str, image: &str, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Defines and starts a container.
    #[zbus(allow_interactive_auth)]
    fn run_container(
        &self,
        name: &str,
        image: &str,
        options: &Dict<'_>,
    ) -> zbus::Result<(OwnedObjectPath, OwnedObjectPath)>;
    /// The path of a container.
    fn get_container(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    /// Name, state, image, unit and path of each container.
    fn list_containers(&self) -> zbus::Result<Vec<(String, String, String, String, OwnedObjectPath)>>;
    /// Removes a container.
    #[zbus(allow_interactive_auth)]
    fn remove_container(&self, name: &str, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Imports an archive.
    #[zbus(allow_interactive_auth)]
    fn import_image(&self, file: &Fd<'_>, name: &str, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// The path of an image.
    fn get_image(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
    /// Name, digest, bytes, time of import in µs and path of each image.
    fn list_images(&self) -> zbus::Result<Vec<(String, String, u64, u64, OwnedObjectPath)>>;
    /// Gives an image a second name.
    #[zbus(allow_interactive_auth)]
    fn tag_image(&self, name: &str, to: &str) -> zbus::Result<()>;
    /// Removes an image's name.
    #[zbus(allow_interactive_auth)]
    fn remove_image(&self, name: &str, options: &Dict<'_>) -> zbus::Result<()>;
    /// The daemon's version.
    #[zbus(property)]
    fn version(&self) -> zbus::Result<String>;
    /// The driver that keeps the roots.
    #[zbus(property)]
    fn driver(&self) -> zbus::Result<String>;
}

/// A container.
#[proxy(interface = "org.holm1.Container", default_service = "org.holm1")]
pub trait Container {
    /// Starts it.
    #[zbus(allow_interactive_auth)]
    fn start(&self, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Stops it.
    #[zbus(allow_interactive_auth)]
    fn stop(&self, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Stops and starts it.
    #[zbus(allow_interactive_auth)]
    fn restart(&self, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Sends a signal to `leader` or `all`.
    #[zbus(allow_interactive_auth)]
    fn kill(&self, who: &str, signal: i32) -> zbus::Result<()>;
    /// Freezes it.
    #[zbus(allow_interactive_auth)]
    fn freeze(&self) -> zbus::Result<()>;
    /// Lets it go on.
    #[zbus(allow_interactive_auth)]
    fn thaw(&self) -> zbus::Result<()>;
    /// Changes what it may use.
    #[zbus(allow_interactive_auth)]
    fn set_resources(&self, resources: &Dict<'_>) -> zbus::Result<()>;
    /// Makes a container of it.
    #[zbus(allow_interactive_auth)]
    fn clone(&self, name: &str, options: &Dict<'_>) -> zbus::Result<OwnedObjectPath>;
    /// Makes a snapshot of it.
    #[zbus(allow_interactive_auth)]
    fn snapshot(&self, label: &str) -> zbus::Result<OwnedObjectPath>;
    /// Brings it back to a snapshot.
    #[zbus(allow_interactive_auth)]
    fn rollback(&self, label: &str) -> zbus::Result<OwnedObjectPath>;
    /// Removes a snapshot of it.
    #[zbus(allow_interactive_auth)]
    fn remove_snapshot(&self, label: &str) -> zbus::Result<OwnedObjectPath>;
    /// Renames it.
    #[zbus(allow_interactive_auth)]
    fn rename(&self, name: &str) -> zbus::Result<()>;
    /// Runs a process inside.
    #[zbus(allow_interactive_auth)]
    fn exec(&self, argv: &[String], options: &Dict<'_>) -> zbus::Result<(OwnedObjectPath, HashMap<String, OwnedFd>)>;
    /// Its terminal.
    #[zbus(allow_interactive_auth)]
    fn attach(&self) -> zbus::Result<HashMap<String, OwnedFd>>;
    /// Its figures.
    fn get_stats(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;
    /// What its checks said.
    fn get_health(&self) -> zbus::Result<HashMap<String, OwnedVariant>>;
    /// Its last runs, newest last.
    fn get_runs(&self) -> zbus::Result<Vec<HashMap<String, OwnedVariant>>>;
    /// Its os-release(5).
    #[zbus(name = "GetOSRelease")]
    fn get_os_release(&self) -> zbus::Result<HashMap<String, String>>;
    /// Sub-cgroup, process id and command line of each process.
    fn get_processes(&self) -> zbus::Result<Vec<(String, u32, String)>>;
    /// Its name.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
    /// Its state.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Its program and arguments.
    #[zbus(property)]
    fn command(&self) -> zbus::Result<Vec<String>>;
    /// Whether its payload is the init of a whole system.
    #[zbus(property)]
    fn boot(&self) -> zbus::Result<bool>;
    /// Its unit.
    #[zbus(property)]
    fn unit(&self) -> zbus::Result<String>;
    /// Its last exit status.
    #[zbus(property)]
    fn exit_status(&self) -> zbus::Result<i32>;
    /// The plain word for how it ended.
    #[zbus(property)]
    fn result(&self) -> zbus::Result<String>;
    /// Why its last start failed, or more about how it ended or stands.
    #[zbus(property)]
    fn status_text(&self) -> zbus::Result<String>;
    /// Which of its limits have no effect on this host.
    #[zbus(property(emits_changed_signal = "false"))]
    fn warnings(&self) -> zbus::Result<Vec<String>>;
    /// Its snapshots, and when each was made.
    #[zbus(property)]
    fn snapshots(&self) -> zbus::Result<Vec<(String, u64)>>;
}

/// An image.
#[proxy(interface = "org.holm1.Image", default_service = "org.holm1")]
pub trait Image {
    /// Its name.
    #[zbus(property)]
    fn name(&self) -> zbus::Result<String>;
}

/// A process that exec started.
#[proxy(interface = "org.holm1.Process", default_service = "org.holm1")]
pub trait Process {
    /// Sends a signal to `leader` or `all`.
    #[zbus(allow_interactive_auth)]
    fn kill(&self, who: &str, signal: i32) -> zbus::Result<()>;
    /// `running` or `exited`.
    #[zbus(property)]
    fn state(&self) -> zbus::Result<String>;
    /// Its exit status.
    #[zbus(property)]
    fn exit_status(&self) -> zbus::Result<i32>;
}

/// A job.
#[proxy(interface = "org.holm1.Job", default_service = "org.holm1")]
pub trait Job {
    /// Asks it to end early.
    #[zbus(allow_interactive_auth)]
    fn cancel(&self) -> zbus::Result<()>;
}

/// What a check found: when, devices looked at, findings (kind, device, text), devices on no record (number, stamp, bytes,
/// text).
pub type CheckReport = (u64, u32, Vec<(String, String, String)>, Vec<(u32, u64, u64, String)>);

/// What a trim came to: when, bytes, devices trimmed, devices that could not be and why.
pub type TrimReport = (u64, u64, u32, Vec<(String, String)>);

/// The pool and its devices.
#[proxy(interface = "org.holm1.DeviceSet", default_service = "org.holm1", default_path = "/org/holm1/deviceset")]
pub trait DeviceSet {
    /// Adds a device; for how many µs its base was held still.
    #[zbus(allow_interactive_auth)]
    fn snapshot_device(&self, id: &str, base: &str, options: &Dict<'_>) -> zbus::Result<u64>;
    /// Removes one.
    #[zbus(allow_interactive_auth)]
    fn remove_device(&self, id: &str) -> zbus::Result<()>;
    /// Makes it larger.
    #[zbus(allow_interactive_auth)]
    fn resize_device(&self, id: &str, size: u64) -> zbus::Result<u64>;
    /// Mounts its tree.
    #[zbus(allow_interactive_auth)]
    fn mount_device(&self, id: &str, target: &Fd<'_>, options: &Dict<'_>) -> zbus::Result<()>;
    /// Takes its mounts away.
    #[zbus(allow_interactive_auth)]
    fn unmount_device(&self, id: &str) -> zbus::Result<()>;
    /// Makes the pool larger.
    #[zbus(allow_interactive_auth)]
    fn grow(&self, data: u64, metadata: u64) -> zbus::Result<OwnedObjectPath>;
    /// Compares the copies of the truth.
    #[zbus(allow_interactive_auth)]
    fn check(&self) -> zbus::Result<OwnedObjectPath>;
    /// Brings them in line.
    #[zbus(allow_interactive_auth)]
    fn repair(&self) -> zbus::Result<OwnedObjectPath>;
    /// Gives back what is not needed.
    #[zbus(allow_interactive_auth)]
    fn trim(&self) -> zbus::Result<OwnedObjectPath>;
    /// Gives back what one device does not need; how many bytes.
    #[zbus(allow_interactive_auth)]
    fn trim_device(&self, id: &str) -> zbus::Result<u64>;
    /// Deletes a device that is on no record.
    #[zbus(allow_interactive_auth)]
    fn remove_foreign(&self, thin_id: u32) -> zbus::Result<()>;
    /// What the last check found.
    fn get_check_report(&self) -> zbus::Result<CheckReport>;
    /// What the last trim came to.
    fn get_trim_report(&self) -> zbus::Result<TrimReport>;
    /// Bytes that are each device's own.
    fn measure_devices(&self) -> zbus::Result<Vec<(String, u64)>>;
    /// Each device with what is known of it.
    fn describe_devices(&self) -> zbus::Result<Vec<(String, HashMap<String, OwnedVariant>)>>;
    /// Id, thin id, base, mapped bytes and whether active, of each device.
    fn list_devices(&self) -> zbus::Result<Vec<(String, u32, String, u64, bool)>>;
}
