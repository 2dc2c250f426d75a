//! At the daemon's start: disk, kernel and systemd → the truth.
//!
//! | run record | exit record of that run | monitor | leader | then |
//! |---|---|---|---|---|
//! | none | none | | | it rests; a run that was begun and never recorded an end is lost (the machine went down) |
//! | none | there | | | it ended; the end is taken over |
//! | there | there | | | it ended while nobody looked; the end is taken over, even if the monitor is still about to end |
//! | there | none | lives | | it runs: watch the monitor |
//! | there | none | gone | lives | it runs without a monitor: watch the leader; how it ends only the kernel can tell |
//! | there | none | gone | gone | what the kernel tells through the leader's pidfd, which the service manager kept; else lost |
//!
//! An exit record that cannot be read counts as none. A container whose run record cannot be read may be running, and one
//! that runs but cannot be watched does: neither is shown, and its name stays taken.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::container::{Container, Request};
use super::error::EngineError;
use super::outcome::{belongs, in_words, last_run};
use super::request::RunIo;
use super::run::{Run, asked_of_kernel, bare_record, open_process};
use super::table::snapshot_device;
use super::view::JobKind;
use super::{Inner, container_device, restart, table};
use crate::model::{DeviceId, DeviceState, ExitRecord, Lifetime, PoolState, Ready, StopCourse, now_usec};
use crate::records::{ContainerRecord, Durability, RecordError, RunRecord};
use crate::sys::proc;

/// Reads every record and brings the containers back as they are.
pub(super) fn containers(engine: &Arc<Inner>) -> Result<(), RecordError> {
    for record in engine.store.containers()? {
        match record {
            Ok(record) => {
                let name = record.spec.name.clone();
                if let Err(error) = container(engine, record) {
                    warn!(container = %name, op = "reconcile", "{error}, ignoring this container");
                    engine.block(&name);
                }
            }
            Err(error) => warn!(op = "reconcile", "{error}, ignoring this container"),
        }
    }
    Ok(())
}

fn container(engine: &Arc<Inner>, mut record: ContainerRecord) -> Result<(), EngineError> {
    let name = record.spec.name.clone();
    if !has_root(engine, &record) {
        // Creating or removing it was cut short: the record is written before the root and removed after it.
        info!(container = %name, op = "reconcile", "has no root: removing what is left of it");
        engine.delete_snapshots(&record.spec.id, record.snapshots.keys())?;
        return Ok(engine.store.remove_container(&record.spec.id)?);
    }
    drop_unmade_snapshots(engine, &mut record)?;
    let run = engine.store.run(&record.spec.id)?;
    if let Some(run) = &run {
        // The container's own record is written after the run's, when the payload runs.
        record.run = record.run.max(run.run);
        record.started_usec = record.started_usec.max(run.started_usec);
    }
    let mut exit = belongs(read_exit(engine, &record), record.run);
    let found = run.as_ref().filter(|_| exit.is_none()).and_then(find_run);
    let running = match found {
        Some(found) => Some(adopt(engine, &record, found)?),
        None => {
            // What nobody wrote down the kernel may tell.
            if record.last.is_none_or(|last| last.run < record.run) && record.run > 0 {
                exit = exit.or_else(|| ask_kernel(engine, &record));
            }
            rest(engine, &mut record, run.as_ref(), exit.as_ref())?;
            engine.store.remove_run(&record.spec.id)?;
            None
        }
    };
    let rested = running.is_none();
    let reboots = rested && run.is_some_and(|run| !run.stopping) && exit.is_some_and(|exit| exit.reboot);
    if rested {
        engine.machines.hide(&name, &record.spec.id);
    }
    if rested && !reboots && record.spec.lifetime == Lifetime::OneRun && record.run > 0 {
        engine.remove_leftover(&record);
        return Ok(());
    }
    let container = Container::adopt(engine, record, running);
    engine.insert(&name, Arc::clone(&container));
    if reboots {
        // It waits by itself until the daemon is ready: the scope is ordered after it.
        info!(container = %name, op = "reconcile", "Container {name} asked to be rebooted while no daemon ran.");
        let job = engine.jobs.begin(JobKind::Start, name.as_str());
        let gone = engine.machines.see_off(&name);
        tokio::spawn(async move {
            gone.await;
            container.ask(Request::Start { io: RunIo::default(), job });
        });
    }
    Ok(())
}

/// A snapshot is on the record before it is made, so one may be there that never came to be.
fn drop_unmade_snapshots(engine: &Inner, record: &mut ContainerRecord) -> Result<(), RecordError> {
    let before = record.snapshots.len();
    let id = record.spec.id.clone();
    record.snapshots.retain(|snapshot, _| has_device(engine, &snapshot_device(&id, snapshot)));
    if record.snapshots.len() == before {
        return Ok(());
    }
    engine.store.put_container(record, Durability::Synced)
}

fn read_exit(engine: &Inner, record: &ContainerRecord) -> Option<ExitRecord> {
    engine.store.exit(&record.spec.id).unwrap_or_else(|error| {
        warn!(container = %record.spec.name, op = "reconcile", "{error}, ignoring");
        None
    })
}

/// Whether the DeviceSet has the container's root, or had it and lost it (which must be shown, not tidied away).
fn has_root(engine: &Inner, record: &ContainerRecord) -> bool {
    has_device(engine, &container_device(&record.spec.id))
}

fn has_device(engine: &Inner, id: &DeviceId) -> bool {
    match engine.devices.device(id) {
        Ok(device) => device.state != DeviceState::Removing,
        // A journal that is older than its pool does not know what was made since: salvage brings that back, and what
        // belongs to it has to be there then.
        Err(crate::storage::StorageError::NoSuchDevice(_)) => {
            matches!(engine.pool().state, PoolState::ReadOnly | PoolState::NeedsCheck)
        }
        // Not knowing is no reason to throw a record away.
        Err(_) => true,
    }
}

/// A run whose monitor, or at least leader, lives.
struct Found {
    run: RunRecord,
    monitor: Option<OwnedFd>,
    leader: Option<OwnedFd>,
}

fn find_run(run: &RunRecord) -> Option<Found> {
    let mut run = run.clone();
    let monitor = open_process(run.monitor, run.monitor_start);
    if run.leader == 0 && monitor.is_some() {
        // The daemon ended between handing the plan over and writing the leader down.
        if let Some((leader, start)) = leader_of(run.monitor) {
            (run.leader, run.leader_start) = (leader, start);
        }
    }
    let leader = (run.leader != 0).then(|| open_process(run.leader, run.leader_start)).flatten();
    (monitor.is_some() || leader.is_some()).then_some(Found { run, monitor, leader })
}

/// The monitor's only child.
fn leader_of(monitor: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
    let leader = text.split_whitespace().next()?.parse().ok()?;
    let stat = proc::stat(leader).ok().filter(|stat| stat.parent == monitor)?;
    Some((leader, stat.start))
}

/// Takes a run over that goes on.
fn adopt(engine: &Arc<Inner>, record: &ContainerRecord, found: Found) -> Result<Run, EngineError> {
    let Found { run, monitor, leader } = found;
    let failed = |source| EngineError::State { op: "watch", path: run.unit.clone().into(), source };
    let watched = match (monitor, &leader) {
        (Some(monitor), _) => monitor,
        (None, Some(leader)) => leader.try_clone().map_err(failed)?,
        (None, None) => return Err(failed(std::io::ErrorKind::NotFound.into())),
    };
    let number = run.leader;
    // Kept for this run still, by the service manager.
    let stored = engine.stored_leader(&record.spec, run.run).is_some();
    let terminal = engine.stored_terminal(&record.spec);
    let unit = run.unit.clone();
    let notified = engine.stored_notified(&record.spec);
    // What it has said is lost with the socket, and what it will say: nobody would ever learn that it is ready.
    let unready = run.unready && (record.spec.ready != Ready::Notify || notified.is_some());
    let run = RunRecord { unready, ..run };
    let adopted = Run::adopted(run, watched, leader, terminal, notified).map_err(|source| EngineError::State {
        op: "watch",
        path: unit.into(),
        source,
    })?;
    if stored {
        adopted.handles.store_leader(|_| {});
    } else {
        table::keep_leader(&record.spec, &adopted);
    }
    if number != 0 {
        engine.register_machine(&record.spec, number);
    }
    Ok(adopted)
}

/// Monitor and leader are gone without a word: how the leader ended, if the service manager has its pidfd and the kernel
/// tells.
fn ask_kernel(engine: &Inner, record: &ContainerRecord) -> Option<ExitRecord> {
    let exit = engine.with_stored_leader(&record.spec, record.run, asked_of_kernel)??;
    Some(bare_record(record.run, exit, 0))
}

/// There is no payload: takes over an end that nobody was there to see, and what its policy makes of that.
fn rest(
    engine: &Inner,
    record: &mut ContainerRecord,
    run: Option<&RunRecord>,
    exit: Option<&ExitRecord>,
) -> Result<(), RecordError> {
    let before = (record.last, record.restarts);
    let unseen = record.last.is_none_or(|last| last.run < record.run) && record.run > 0;
    if unseen {
        let last = last_run((record.run, record.started_usec), run, exit);
        record.note_end(last, engine.settings.keep_runs);
        info!(container = %record.spec.name, op = "reconcile", "ended while no daemon ran: {}", in_words(&last));
    }
    let asked = run.is_some_and(|run| run.stopping) || exit.is_some_and(|exit| exit.stop != StopCourse::None);
    match record.last.filter(|_| unseen && run.is_some()) {
        Some(_) if asked => restart::let_rest(&mut record.restarts),
        Some(last) => {
            let lasted = last.stopped_usec.saturating_sub(record.started_usec);
            let policy = record.spec.restart;
            restart::after_end(&policy, &mut record.restarts, &last, lasted, now_usec());
        }
        // What is remembered until a reboot is gone, or was never there.
        None => restart::at_start(&record.spec.restart, &mut record.restarts, true, now_usec()),
    }
    if before == (record.last, record.restarts) {
        return Ok(());
    }
    engine.store.put_container(record, Durability::Synced)
}
