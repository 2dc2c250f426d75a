//! Containers in `machinectl list` (org.freedesktop.machine1(5)).
//!
//! machined is told of each container and its own scope (RegisterMachine…, not CreateMachine…). It forgets a machine
//! when its scope ends, and everything when it is restarted; then each is registered again. A container works as well
//! without it, so nothing here takes long or is needed for a start. It is told a moment after the start: one that has
//! ended by then is nobody's to list, and would cost machined, systemd and the bus a fifth of its whole start.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use zbus::proxy::CacheProperties;
use zbus::{OwnedObjectPath, fdo};

use crate::model::{ContainerId, ContainerName};

use super::bus::{SYSTEMD, UNIT, is_error, property, unit_path};
use super::places::Places;
use super::{BoxFuture, Machines, SystemdError};

/// A container as machined sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub name: ContainerName,
    /// Its id, also its `container_uuid`.
    pub id: [u8; 16],
    /// Its leader: PID 1 inside, by its number outside. It must be in its scope already, since machined takes the
    /// machine's unit from it and keeps that.
    pub leader: u32,
    /// Indices of the host's network interfaces that belong to it.
    pub interfaces: Vec<i32>,
}

/// The registrations. Machines stay in its list until [`Machined::unregister`].
#[derive(Debug)]
pub struct Machined {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    connection: zbus::Connection,
    proxy: ManagerProxy<'static>,
    machines: Mutex<BTreeMap<ContainerName, Listed>>,
    restarted: Notify,
}

/// A machine in our list.
#[derive(Debug)]
struct Listed {
    machine: Machine,
    /// Whether machined may know of it.
    told: bool,
}

#[zbus::proxy(
    interface = "org.freedesktop.machine1.Manager",
    default_service = "org.freedesktop.machine1",
    default_path = "/org/freedesktop/machine1"
)]
trait Manager {
    #[allow(clippy::too_many_arguments)] // the bus method has as many
    fn register_machine_with_network(
        &self,
        name: &str,
        id: &[u8],
        service: &str,
        class: &str,
        leader: u32,
        root_directory: &str,
        interfaces: &[i32],
    ) -> zbus::Result<OwnedObjectPath>;

    fn unregister_machine(&self, name: &str) -> zbus::Result<()>;

    fn get_machine(&self, name: &str) -> zbus::Result<OwnedObjectPath>;
}

impl Machined {
    /// Starts to watch for restarts of machined. It need not run, nor be installed.
    pub async fn connect(connection: &zbus::Connection) -> Result<Arc<Self>, SystemdError> {
        Self::open(connection).await.map(Arc::new).map_err(SystemdError::Unreachable)
    }

    async fn open(connection: &zbus::Connection) -> zbus::Result<Self> {
        let proxy = ManagerProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let bus = fdo::DBusProxy::builder(connection).cache_properties(CacheProperties::No).build().await?;
        let owners = bus.receive_name_owner_changed_with_args(&[(0, MACHINED)]).await?;
        let shared = Arc::new(Shared {
            connection: connection.clone(),
            proxy,
            machines: Mutex::default(),
            restarted: Notify::new(),
        });
        // Two tasks: the stream has to be drained also while machines are being registered.
        let watch = tokio::spawn(watch(owners, Arc::clone(&shared)));
        let register = tokio::spawn(register_after_restarts(Arc::clone(&shared)));
        Ok(Self { shared, tasks: [watch, register] })
    }

    /// Tells machined of a machine, and again whenever machined is restarted.
    ///
    /// The machine is in the list when this returns, and what is returned tells machined, after 50 ms: it takes 5 s at
    /// most, and may run beside anything else, also beside [`Machined::unregister`]. After an error the machine is in
    /// the list all the same, for machined's next start.
    pub fn register(&self, machine: Machine) -> impl Future<Output = Result<(), SystemdError>> + Send + use<> {
        self.shared.machines().insert(machine.name.clone(), Listed { machine: machine.clone(), told: false });
        let shared = Arc::clone(&self.shared);
        async move {
            sleep(MOMENT).await;
            shared.register_if_listed(&machine).await
        }
    }

    /// Takes a machine off the list when this returns, and off machined's in what is returned, which ends when machined has
    /// let go of it, and takes 10 s at most. Does nothing for one that is not in the list.
    pub fn unregister(&self, name: &ContainerName) -> impl Future<Output = ()> + Send + use<> {
        let listed = self.shared.machines().remove(name);
        let shared = Arc::clone(&self.shared);
        async move {
            if let Some(Listed { machine, told: true }) = listed {
                shared.unregister(&machine.name).await;
                shared.see_off(&machine.name).await;
            }
        }
    }
}

impl Machines for Machined {
    fn register(&self, machine: Machine) -> BoxFuture<'static, Result<(), SystemdError>> {
        Box::pin(Self::register(self, machine))
    }

    fn prepare(&self, name: &ContainerName) -> std::io::Result<()> {
        Places::of_host().prepare(name)
    }

    fn show(&self, name: &ContainerName, id: &ContainerId, leader: u32) -> std::io::Result<()> {
        Places::of_host().show(name, id, leader)
    }

    fn hide(&self, name: &ContainerName, id: &ContainerId) {
        Places::of_host().hide(name, id);
    }

    fn unregister(&self, name: &ContainerName) -> BoxFuture<'static, ()> {
        Box::pin(Self::unregister(self, name))
    }

    fn closing(&self) -> BoxFuture<'static, Vec<ContainerName>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.closing().await })
    }

    fn see_off(&self, name: &ContainerName) -> BoxFuture<'static, ()> {
        let (shared, name) = (Arc::clone(&self.shared), name.clone());
        Box::pin(async move { shared.see_off(&name).await })
    }
}

impl Drop for Machined {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Shared {
    /// Inserting and removing are single steps, so the list is sound even after a panic.
    fn machines(&self) -> MutexGuard<'_, BTreeMap<ContainerName, Listed>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lists(&self, machine: &Machine) -> bool {
        self.machines().get(&machine.name).is_some_and(|listed| listed.machine == *machine)
    }

    /// Whether the machine is listed; from now on machined may know of it.
    fn about_to_tell(&self, machine: &Machine) -> bool {
        let mut machines = self.machines();
        let listed = machines.get_mut(&machine.name).filter(|listed| listed.machine == *machine);
        listed.map(|listed| listed.told = true).is_some()
    }

    /// A container may end while machined is being told of it: then it is not told, or told again.
    async fn register_if_listed(&self, machine: &Machine) -> Result<(), SystemdError> {
        if !self.about_to_tell(machine) {
            return Ok(());
        }
        let registered = self.register(machine).await;
        if registered.is_ok() && !self.lists(machine) {
            self.unregister(&machine.name).await;
        }
        registered
    }

    async fn unregister(&self, name: &ContainerName) {
        // Usually machined has seen the end of the scope before us.
        if let Ok(Err(error)) = timeout(LIMIT, self.proxy.unregister_machine(name.as_str())).await {
            tracing::debug!(machine = %name, %error, "machined did not unregister a machine");
        }
    }

    /// One of an earlier run, which is ending by itself, has another leader.
    async fn closing(&self) -> Vec<ContainerName> {
        let machines: Vec<Machine> = self.machines().values().map(|listed| listed.machine.clone()).collect();
        let mut closing = Vec::new();
        for machine in machines {
            match timeout(LIMIT, self.state(machine.name.as_str())).await {
                Ok(Ok((leader, state))) if leader == machine.leader && state == CLOSING => closing.push(machine.name),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::debug!(machine = %machine.name, %error, "cannot ask for a machine's state"),
                Err(_) => tracing::debug!(machine = %machine.name, "cannot ask for a machine's state: no answer"),
            }
        }
        closing
    }

    /// Leader and state of a machine that machined knows.
    async fn state(&self, name: &str) -> zbus::Result<(u32, String)> {
        let path = self.proxy.get_machine(name).await?;
        let leader = property(&self.connection, MACHINED, path.as_str(), MACHINE, "Leader").await?;
        let state = property(&self.connection, MACHINED, path.as_str(), MACHINE, "State").await?;
        Ok((leader, state))
    }

    /// An unregistered machine is dropped when machined has nothing else to do, after it has stopped the machine's unit: when
    /// it is not known any more, that is behind us. There is no event to wait for.
    async fn see_off(&self, name: &ContainerName) {
        let gone = async {
            while self.existing(name.as_str()).await.is_ok_and(|(service, _)| service == SERVICE) {
                sleep(ROOM_INTERVAL).await;
            }
        };
        if timeout(LIMIT, gone).await.is_err() {
            tracing::debug!(machine = %name, "machined does not let go of a machine");
        }
    }

    async fn register(&self, machine: &Machine) -> Result<(), SystemdError> {
        let failed = |source| SystemdError::Machined { machine: machine.name.to_string(), source };
        let registered = async {
            self.wait_for_its_end().await;
            loop {
                match self.call_register(machine).await {
                    Err(error) if is_error(&error, MACHINE_EXISTS) => {}
                    result => return result.map_err(failed),
                }
                if self.make_room(machine).await? == Room::Taken {
                    return Ok(());
                }
                // From 257 on, machined drops a machine when it has nothing else to do, after it has answered and
                // signalled that the machine is gone: there is no event to wait for.
                sleep(ROOM_INTERVAL).await;
            }
        };
        let no_answer = || failed(fdo::Error::TimedOut("no answer".into()).into());
        timeout(LIMIT, registered).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// After the bus itself was restarted machined runs on without its name, until systemd ends it. A call meanwhile would have the
    /// bus wait for 25 s, with all its callers, for a start that has nothing to do.
    async fn wait_for_its_end(&self) {
        while self.is_without_name().await.unwrap_or(false) {
            // Rare and short, so that no signals are asked for.
            sleep(END_INTERVAL).await;
        }
    }

    async fn is_without_name(&self) -> zbus::Result<bool> {
        let bus = fdo::DBusProxy::builder(&self.connection).cache_properties(CacheProperties::No).build().await?;
        if bus.name_has_owner(MACHINED.try_into()?).await? {
            return Ok(false);
        }
        let state: String = property(&self.connection, SYSTEMD, &unit_path(MACHINED_UNIT), UNIT, "ActiveState").await?;
        Ok(state == "active")
    }

    async fn call_register(&self, machine: &Machine) -> zbus::Result<()> {
        let Machine { name, id, leader, interfaces } = machine;
        // No root directory: it is a mount inside the container only, and no path of the host leads there.
        self.proxy
            .register_machine_with_network(name.as_str(), id, SERVICE, "container", *leader, "", interfaces)
            .await?;
        Ok(())
    }

    /// Looks at a machine of the same name that machined knows: from before it or we were restarted, or, for a short
    /// while, from the container's last run, which is unregistered.
    async fn make_room(&self, machine: &Machine) -> Result<Room, SystemdError> {
        let name = machine.name.as_str();
        let failed = |source| SystemdError::Machined { machine: name.to_owned(), source };
        let (service, leader) = match self.existing(name).await {
            Ok(existing) => existing,
            // It has vanished by itself in this moment.
            Err(error) if is_error(&error, NO_SUCH_MACHINE) => return Ok(Room::Made),
            Err(error) => return Err(failed(error)),
        };
        if service != SERVICE {
            return Err(SystemdError::MachineTaken { machine: name.to_owned(), service });
        }
        if leader == machine.leader {
            return Ok(Room::Taken);
        }
        match self.proxy.unregister_machine(name).await {
            Err(error) if !is_error(&error, NO_SUCH_MACHINE) => Err(failed(error)),
            _ => Ok(Room::Made),
        }
    }

    /// Service and leader of a machine that machined knows.
    async fn existing(&self, name: &str) -> zbus::Result<(String, u32)> {
        let path = self.proxy.get_machine(name).await?;
        let service = property(&self.connection, MACHINED, path.as_str(), MACHINE, "Service").await?;
        let leader = property(&self.connection, MACHINED, path.as_str(), MACHINE, "Leader").await?;
        Ok((service, leader))
    }
}

/// Whether a name is free, or soon will be.
#[derive(Debug, PartialEq, Eq)]
enum Room {
    Made,
    /// By this very machine.
    Taken,
}

/// Passes on each time that machined gets a (new) owner of its name.
async fn watch(mut owners: fdo::NameOwnerChangedStream, shared: Arc<Shared>) {
    while let Some(signal) = owners.next().await {
        if signal.args().is_ok_and(|change| change.new_owner().is_some()) {
            shared.restarted.notify_one();
        }
    }
}

async fn register_after_restarts(shared: Arc<Shared>) {
    loop {
        shared.restarted.notified().await;
        let machines: Vec<Machine> = shared.machines().values().map(|listed| listed.machine.clone()).collect();
        for machine in machines {
            if let Err(error) = shared.register_if_listed(&machine).await {
                tracing::debug!(machine = %machine.name, %error, "cannot register a machine again, ignoring");
            }
        }
    }
}

/// How long a container must live to be told of. `machinectl list` has it well within a tenth of a second.
const MOMENT: Duration = Duration::from_millis(50);
/// How long machined may take.
const LIMIT: Duration = Duration::from_secs(5);
const MACHINED: &str = "org.freedesktop.machine1";
const MACHINE: &str = "org.freedesktop.machine1.Machine";
/// A machine's State from `machinectl terminate` on.
const CLOSING: &str = "closing";
const MACHINE_EXISTS: &str = "org.freedesktop.machine1.MachineExists";
const NO_SUCH_MACHINE: &str = "org.freedesktop.machine1.NoSuchMachine";
const ROOM_INTERVAL: Duration = Duration::from_millis(5);
const END_INTERVAL: Duration = Duration::from_millis(100);
const MACHINED_UNIT: &str = "systemd-machined.service";
/// What `machinectl list` shows as the service.
const SERVICE: &str = "holm";

#[cfg(test)]
#[path = "machined_tests.rs"]
mod tests;
