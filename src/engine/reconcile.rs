//! At the daemon's start: disk, kernel and systemd → the truth.
//!
//! | run record | exit record of that run | monitor | leader | then |
//! |---|---|---|---|---|
//! | none | none | | | it rests; a run that was begun and never recorded an end is lost (the machine went down) |
//! | none | there | | | it ended; the end is taken over |
//! | there | there | | | it ended while nobody looked; the end is taken over |
//! | there | none | lives | | it runs: watch the monitor |
//! | there | none | gone | lives | it runs without a monitor: watch the leader; its exit status will be lost |
//! | there | none | gone | gone | lost |

use std::os::fd::OwnedFd;
use std::sync::Arc;

use tracing::{info, warn};

use super::container::{Container, failed};
use super::run::{Run, belongs, open_process};
use super::{Inner, container_device};
use crate::model::{DeviceState, ExitRecord, Lifetime, RunResult, now_usec};
use crate::records::{ContainerRecord, Durability, LastRun, RecordError, RunRecord};
use crate::sys::proc;

/// Reads every record and brings the containers back as they are.
pub(super) fn containers(engine: &Arc<Inner>) -> Result<(), RecordError> {
    for record in engine.store.containers()? {
        match record.and_then(|record| container(engine, record)) {
            Ok(()) => {}
            Err(error) => warn!(op = "reconcile", "{error}, ignoring this container"),
        }
    }
    Ok(())
}

fn container(engine: &Arc<Inner>, mut record: ContainerRecord) -> Result<(), RecordError> {
    let name = record.spec.name.clone();
    if !has_root(engine, &record) {
        // Creating or removing it was cut short: the record is written before the root and removed after it.
        info!(container = %name, op = "reconcile", "has no root: removing what is left of it");
        return engine.store.remove_container(&record.spec.id);
    }
    let run = engine.store.run(&record.spec.id)?;
    let exit = engine.store.exit(&record.spec.id)?;
    let running = match run {
        Some(run) => match find_run(&run) {
            Found::Nothing => {
                take_end(engine, &mut record, Some(&run), belongs(exit, run.run))?;
                None
            }
            Found::Watching { .. } if exit.as_ref().is_some_and(|exit| exit.run == run.run) => {
                // The monitor has written its record and is about to end.
                take_end(engine, &mut record, Some(&run), exit)?;
                None
            }
            Found::Watching { run, watched, leader } => {
                engine.register_machine(&record.spec, run.leader);
                adopt(run, watched, leader, engine.stored_terminal(&record.spec))
            }
        },
        None => {
            if record.last.is_none_or(|last| last.run < record.run) && record.run > 0 {
                let exit = belongs(exit, record.run);
                take_end(engine, &mut record, None, exit)?;
            }
            None
        }
    };
    if running.is_none() && record.spec.lifetime == Lifetime::OneRun && record.run > 0 {
        engine.remove_leftover(&record);
        return Ok(());
    }
    engine.insert(&name, Container::adopt(engine, record, running));
    Ok(())
}

/// Whether the DeviceSet has the container's root, or had it and lost it (which must be shown, not tidied away).
fn has_root(engine: &Inner, record: &ContainerRecord) -> bool {
    match engine.devices.device(&container_device(&record.spec.id)) {
        Ok(device) => device.state != DeviceState::Removing,
        Err(crate::storage::StorageError::NoSuchDevice(_)) => false,
        // Not knowing is no reason to throw a record away.
        Err(_) => true,
    }
}

enum Found {
    Nothing,
    Watching { run: RunRecord, watched: OwnedFd, leader: Option<OwnedFd> },
}

fn find_run(run: &RunRecord) -> Found {
    let mut run = run.clone();
    let monitor = open_process(run.monitor, run.monitor_start);
    if run.leader == 0 && monitor.is_some() {
        // The daemon ended between handing the plan over and writing the leader down.
        if let Some((leader, start)) = leader_of(run.monitor) {
            (run.leader, run.leader_start) = (leader, start);
        }
    }
    let leader = (run.leader != 0).then(|| open_process(run.leader, run.leader_start)).flatten();
    match (monitor, leader) {
        (Some(monitor), leader) => Found::Watching { run, watched: monitor, leader },
        (None, Some(leader)) => match leader.try_clone() {
            Ok(watched) => Found::Watching { run, watched, leader: Some(leader) },
            Err(_) => Found::Nothing,
        },
        (None, None) => Found::Nothing,
    }
}

/// The monitor's only child.
fn leader_of(monitor: u32) -> Option<(u32, u64)> {
    let text = std::fs::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).ok()?;
    let leader = text.split_whitespace().next()?.parse().ok()?;
    let stat = proc::stat(leader).ok().filter(|stat| stat.parent == monitor)?;
    Some((leader, stat.start))
}

fn adopt(run: RunRecord, watched: OwnedFd, leader: Option<OwnedFd>, terminal: Option<OwnedFd>) -> Option<Run> {
    match Run::adopted(run, watched, leader, terminal) {
        Ok(run) => Some(run),
        Err(error) => {
            warn!(op = "reconcile", "cannot watch a container's monitor: {error}");
            None
        }
    }
}

/// Takes over an end that nobody was there to see.
fn take_end(
    engine: &Inner,
    record: &mut ContainerRecord,
    run: Option<&RunRecord>,
    exit: Option<ExitRecord>,
) -> Result<(), RecordError> {
    let forced = run.is_some_and(|run| run.forced);
    let oom_kills = exit.as_ref().map_or(0, |exit| exit.oom_kills);
    let result = exit.as_ref().map_or(RunResult::Lost, |exit| RunResult::of(exit.exit, oom_kills > 0, forced));
    record.last = Some(LastRun {
        run: record.run,
        exit: exit.as_ref().map(|exit| exit.exit),
        result,
        failed: failed(result, run.is_some_and(|run| run.stopping)),
        stopped_usec: exit.as_ref().map_or_else(now_usec, |exit| exit.exited_usec),
        oom_kills,
        figures: exit.map(|exit| exit.figures).unwrap_or_default(),
    });
    info!(container = %record.spec.name, op = "reconcile", result = result.as_str(), "ended while no daemon ran");
    engine.store.put_container(record, Durability::Synced)?;
    engine.store.remove_run(&record.spec.id)
}
