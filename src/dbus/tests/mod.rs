//! The door over a private bus: a `dbus-daemon` of our own for each test, and no engine behind it.

mod auth;
mod bus;
mod contract;
mod device_set;
mod publisher;
mod runs;
mod samples;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use zbus::Connection;

use super::door::{Door, Settle};
use super::manager::Manager;
use super::publisher::{Publisher, Truth};
use super::table::{Latest, Table};
use super::{DeviceSet, SystemState, serve_fixed};
use crate::engine::{ContainerView, ImageView, JobView, ProcessId, ProcessView};
use crate::model::{Driver, PoolStatus};
use crate::testbus::TestBus as Bus;

/// What the engine would say, set by the test.
#[derive(Debug, Default)]
struct Said {
    containers: Vec<ContainerView>,
    images: Vec<ImageView>,
    jobs: Vec<JobView>,
    processes: Vec<ProcessView>,
    pool: Option<PoolStatus>,
}

/// Shared with the test.
#[derive(Debug, Clone, Default)]
struct FakeTruth(Arc<Mutex<Said>>);

impl FakeTruth {
    fn say(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.0.lock().unwrap());
    }
}

impl Truth for FakeTruth {
    fn containers(&self) -> Vec<ContainerView> {
        self.0.lock().unwrap().containers.clone()
    }
    fn images(&self) -> Vec<ImageView> {
        self.0.lock().unwrap().images.clone()
    }
    fn jobs(&self) -> Vec<JobView> {
        self.0.lock().unwrap().jobs.clone()
    }
    fn process(&self, id: ProcessId) -> Option<ProcessView> {
        self.0.lock().unwrap().processes.iter().find(|process| process.id == id).cloned()
    }
    fn pool(&self) -> PoolStatus {
        self.0.lock().unwrap().pool.clone().unwrap_or_else(samples::pool)
    }
}

/// A publisher on a private bus, and a client that sees what it sends.
struct Stage {
    publisher: Publisher<FakeTruth>,
    truth: FakeTruth,
    client: Connection,
    server: Connection,
    heard: bus::Heard,
    _bus: Bus,
}

impl Stage {
    /// `None` if there is no dbus-daemon here; the test says so and is over.
    async fn set() -> Option<Self> {
        let bus = Bus::start()?;
        let (server, client) = (bus.connect().await, bus.connect().await);
        let heard = bus::Heard::from(&client, &server).await;
        let truth = FakeTruth::default();
        let pool = Latest::new(samples::pool());
        let manager = Manager {
            door: Door::default(),
            driver: Driver::Copy,
            features: vec!["copy".to_owned()],
            state: Latest::new(SystemState::Running),
        };
        let devices = DeviceSet::new(Door::default(), Driver::Copy, Arc::clone(&pool));
        let tree = serve_fixed(&server, manager, devices).await.unwrap();
        let publisher = Publisher {
            truth: truth.clone(),
            connection: server.clone(),
            table: Arc::new(Table::default()),
            tree,
            pool,
            door: Door::default(),
            ended: VecDeque::new(),
        };
        let mut stage = Self { publisher, truth, client, server, heard, _bus: bus };
        stage.heard.forget(&stage.server).await;
        Some(stage)
    }

    /// What was signalled since the last look, as `path member details`.
    async fn heard(&mut self) -> Vec<String> {
        self.heard.so_far(&self.server).await
    }
}

/// A way to wait for the publisher, as a room has it.
fn settling() -> (mpsc::UnboundedSender<Settle>, mpsc::UnboundedReceiver<Settle>) {
    mpsc::unbounded_channel()
}
