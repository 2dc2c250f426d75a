//! Tests against a machined that we play ourselves, on a bus of our own.

use tokio::sync::mpsc;
use zbus::interface;

use super::*;
use crate::testbus::{Refusal, TestBus};

#[tokio::test]
async fn a_container_is_registered_and_unregistered() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    machined.register(machine(42)).await.unwrap();
    machined.unregister(&name()).await;
    assert_eq!(log.recv().await.unwrap(), "register web 0101 holm container 42 '' [3]");
    assert_eq!(log.recv().await.unwrap(), "unregister web");
}

#[tokio::test]
async fn what_was_never_registered_is_not_unregistered() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    machined.unregister(&name()).await;
    assert!(log.try_recv().is_err());
}

#[tokio::test]
async fn every_container_is_registered_again_when_machined_was_restarted() {
    let Some(bus) = TestBus::start() else { return };
    let (server, mut log) = played_machined(&bus, Existing::None).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    machined.register(machine(42)).await.unwrap();
    log.recv().await.unwrap();
    server.close().await.unwrap();
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    assert_eq!(log.recv().await.unwrap(), "register web 0101 holm container 42 '' [3]");
}

#[tokio::test]
async fn a_machined_without_its_name_is_not_called_before_it_has_one() {
    let Some(bus) = TestBus::start() else { return };
    let systemd = bus.connect().await;
    systemd.object_server().at(unit_path(MACHINED_UNIT).as_str(), PlayedUnit).await.unwrap();
    systemd.request_name(SYSTEMD).await.unwrap();
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    // Nobody has the name: a call would end at once, with an error.
    let registered = tokio::spawn(machined.register(machine(42)));
    while !machined.shared.machines().values().all(|listed| listed.told) {
        sleep(Duration::from_millis(1)).await;
    }
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    assert!(registered.await.unwrap().is_ok());
    assert_eq!(log.recv().await.unwrap(), "register web 0101 holm container 42 '' [3]");
}

struct PlayedUnit;

#[interface(name = "org.freedesktop.systemd1.Unit")]
impl PlayedUnit {
    #[zbus(property)]
    fn active_state(&self) -> &'static str {
        "active"
    }
}

#[tokio::test]
async fn a_machine_that_machined_knows_already_is_fine() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::Ours(42)).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    machined.register(machine(42)).await.unwrap();
    log.recv().await.unwrap();
    assert!(log.try_recv().is_err(), "it is left as it is");
}

#[tokio::test]
async fn what_is_left_of_the_last_run_is_replaced() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::Ours(41)).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    machined.register(machine(42)).await.unwrap();
    log.recv().await.unwrap();
    assert_eq!(words(&mut log), ["unregister", "register", "unregister", "register", "unregister", "register"]);
}

#[tokio::test]
async fn a_machine_of_somebody_else_is_left_alone() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::Foreign).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let error = machined.register(machine(42)).await.unwrap_err();
    assert!(matches!(&error, SystemdError::MachineTaken { service, .. } if service == "systemd-nspawn"), "{error}");
    log.recv().await.unwrap();
    assert!(log.try_recv().is_err());
}

#[tokio::test]
async fn a_container_that_ends_before_machined_is_told_is_never_told_of() {
    let Some(bus) = TestBus::start() else { return };
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let registration = machined.register(machine(42));
    drop(machined.unregister(&name()));
    registration.await.unwrap();
    assert!(log.try_recv().is_err());
}

#[tokio::test]
async fn a_container_that_ends_while_machined_is_told_is_unregistered() {
    let Some(bus) = TestBus::start() else { return };
    // It takes some attempts, so there is a while in which it can end.
    let (_server, mut log) = played_machined(&bus, Existing::Lingering(2)).await;
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let registration = tokio::spawn(machined.register(machine(42)));
    assert!(log.recv().await.unwrap().starts_with("register web"));
    drop(machined.unregister(&name()));
    registration.await.unwrap().unwrap();
    let rest = words(&mut log);
    assert_eq!(rest, ["unregister", "register", "unregister", "register", "unregister"]);
}

#[tokio::test]
async fn a_machine_is_seen_off_until_machined_does_not_know_it() {
    let Some(bus) = TestBus::start() else { return };
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    // Without machined there is nobody to wait for.
    machined.see_off(&name()).await;
    let (_server, mut log) = played_machined(&bus, Existing::Leaving(3)).await;
    machined.see_off(&name()).await;
    assert_eq!(words(&mut log), ["get"; 4]);
}

#[tokio::test]
async fn somebody_elses_machine_is_not_waited_for() {
    let Some(bus) = TestBus::start() else { return };
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let (_server, _log) = played_machined(&bus, Existing::Foreign).await;
    machined.see_off(&name()).await;
}

#[tokio::test]
async fn without_machined_the_error_says_what_is_missing() {
    let Some(bus) = TestBus::start() else { return };
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let error = machined.register(machine(42)).await.unwrap_err();
    assert!(error.to_string().contains("'machinectl' will not show it"), "{error}");
    // And it is told of the machine when it comes.
    let (_server, mut log) = played_machined(&bus, Existing::None).await;
    assert!(log.recv().await.unwrap().starts_with("register web"));
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Existing {
    None,
    Ours(u32),
    /// Ours, unregistered, and not dropped yet for that many more attempts.
    Lingering(u32),
    /// Ours, and dropped after it has been looked at that many times.
    Leaving(u32),
    Foreign,
}

struct FakeManager {
    existing: Mutex<Existing>,
    log: mpsc::UnboundedSender<String>,
}

#[interface(name = "org.freedesktop.machine1.Manager")]
impl FakeManager {
    #[allow(clippy::too_many_arguments)] // as many as the real one
    fn register_machine_with_network(
        &self,
        name: String,
        id: Vec<u8>,
        service: String,
        class: String,
        leader: u32,
        root: String,
        interfaces: Vec<i32>,
    ) -> Result<OwnedObjectPath, Refusal> {
        assert_eq!(id.len(), 16);
        let id: String = id[..2].iter().map(|byte| format!("{byte:02x}")).collect();
        self.log.send(format!("register {name} {id} {service} {class} {leader} '{root}' {interfaces:?}")).unwrap();
        let mut existing = self.existing.lock().unwrap();
        *existing = match *existing {
            Existing::Lingering(0) => Existing::None,
            Existing::Lingering(attempts) => Existing::Lingering(attempts - 1),
            other => other,
        };
        match *existing {
            Existing::None => Ok(OwnedObjectPath::try_from(MACHINE_PATH).unwrap()),
            Existing::Ours(_) | Existing::Lingering(_) | Existing::Leaving(_) | Existing::Foreign => {
                Err(Refusal { name: MACHINE_EXISTS, text: format!("Machine '{name}' already exists") })
            }
        }
    }

    fn unregister_machine(&self, name: String) {
        self.log.send(format!("unregister {name}")).unwrap();
        let mut existing = self.existing.lock().unwrap();
        if let Existing::Ours(_) = *existing {
            *existing = Existing::Lingering(2);
        }
    }

    fn get_machine(&self, name: String) -> Result<OwnedObjectPath, Refusal> {
        let mut existing = self.existing.lock().unwrap();
        if let Existing::Leaving(looks) = *existing {
            self.log.send(format!("get {name}")).unwrap();
            *existing = if looks == 0 { Existing::None } else { Existing::Leaving(looks - 1) };
        }
        match *existing {
            Existing::None => Err(Refusal { name: NO_SUCH_MACHINE, text: format!("No machine '{name}' known") }),
            _ => Ok(OwnedObjectPath::try_from(MACHINE_PATH).unwrap()),
        }
    }
}

struct FakeMachine(Existing);

#[tokio::test]
async fn a_machine_that_machined_wants_to_end_is_found_by_its_leader() {
    let Some(bus) = TestBus::start() else { return };
    let machined = Machined::connect(&bus.connect().await).await.unwrap();
    let (_server, _log) = played_machined(&bus, Existing::Ours(42)).await;
    machined.register(machine(42)).await.unwrap();
    assert_eq!(Machines::closing(&*machined).await, [name()]);
    // That of its last run.
    drop(machined.register(machine(43)));
    assert!(Machines::closing(&*machined).await.is_empty());
}

#[interface(name = "org.freedesktop.machine1.Machine")]
impl FakeMachine {
    #[zbus(property)]
    fn service(&self) -> String {
        if self.0 == Existing::Foreign { "systemd-nspawn" } else { SERVICE }.to_owned()
    }

    #[zbus(property)]
    fn state(&self) -> String {
        CLOSING.to_owned()
    }

    #[zbus(property)]
    fn leader(&self) -> u32 {
        if let Existing::Ours(leader) = self.0 { leader } else { 1 }
    }
}

async fn played_machined(bus: &TestBus, existing: Existing) -> (zbus::Connection, mpsc::UnboundedReceiver<String>) {
    let (sender, log) = mpsc::unbounded_channel();
    let manager = FakeManager { existing: Mutex::new(existing), log: sender };
    let server = bus
        .builder()
        .serve_at("/org/freedesktop/machine1", manager)
        .serve_at(MACHINE_PATH, FakeMachine(existing))
        .name(MACHINED)
        .build()
        .await
        .unwrap();
    (server, log)
}

/// The first word of every call until now.
fn words(log: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| log.try_recv().ok()).map(|call| call.split(' ').next().unwrap().to_owned()).collect()
}

fn name() -> ContainerName {
    ContainerName::parse("web").unwrap()
}

fn machine(leader: u32) -> Machine {
    Machine { name: name(), id: [1; 16], leader, interfaces: vec![3] }
}

const MACHINE_PATH: &str = "/org/freedesktop/machine1/machine/web";
