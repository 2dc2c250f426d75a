//! Rebuilds the journal from the pool and the labels of its devices, when it is gone, damaged, or older than the pool.
//!
//! A label counts when its stamp is that of the device it is on: a snapshot carries its origin's until it has its own.
//! What has none of its own is known from an older table: the old journal's or its copy in the pool, whichever is newer.
//! What neither knows is left alone and listed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use super::backend::{Backend, Spec};
use super::check::{Replay, foreign, is_own, look_at_foreign};
use super::health::Depth;
use super::journal::{FileLog, Journal};
use super::kernel::Control;
use super::label::Label;
use super::metadata::Listing;
use super::names::{Names, Role};
use super::recovery;
use super::setup;
use super::state::{Device, Op, Phase, State};
use super::store::{self, Claim};
use super::{Store, ThinConfig};
use super::{duplicate, hidden};
use crate::model::{Bytes, DeviceId};
use crate::storage::{BASE, Finding, Report, Source, StorageError, lock_directory};

/// How long the pool may take to go when all was read.
const GOING: Duration = Duration::from_secs(10);

/// Rebuilds the journal in `config.directory`; no daemon may be running there. The former journal is kept beside it as
/// `journal.before-salvage`. Devices may be in use. After an error the journal is as it was, and nothing is active that
/// was not before unless something holds it.
///
/// A device that was being filled when the journal went comes back as if it was complete: nobody knows better.
pub fn salvage(config: &ThinConfig) -> Result<Report, StorageError> {
    let _lock = lock_directory(&config.directory)?;
    let path = config.directory.join("journal");
    let failed = |op| {
        let path = path.clone();
        move |source| StorageError::Io { op, path, source }
    };
    let log = || FileLog::new(&config.directory).map_err(failed("open"));
    let old = match Journal::open(Box::new(log()?)) {
        Ok((_, state)) => state,
        Err(StorageError::Damaged { .. }) => None,
        Err(error) => return Err(error),
    };
    let known = match &old {
        Some(state) => Some(state.uuid.clone()),
        None => active_pool(config)?.or(store::uuid_of(config)?),
    };
    // Nodes need a UUID, also those of a pool whose own is not known yet.
    let uuid = known.clone().map_or_else(setup::random_uuid, Ok)?;
    let names = Names::new(&config.prefix, &uuid)?;
    let kernel = setup::activate(config, names.clone(), Depth::Full)?;
    let rebuilt = rebuild(&kernel, &names, known, old.as_ref(), kernel.block_size());
    let left = leave(&kernel, &names);
    let rebuilt = rebuilt?;
    left?;
    if path.exists() {
        fs::copy(&path, path.with_extension("before-salvage")).map_err(failed("keep a copy of"))?;
    }
    Journal::begin(Box::new(log()?)).checkpoint(&rebuilt.state)?;
    Ok(rebuilt.report)
}

/// Takes block devices or a pool over that are not known to be ours; no daemon may be running in `config.directory`, and
/// there must be no journal in it. Where there is a pool, its devices are taken over as [`salvage`] does it: those with a
/// label of ours under their names, others are listed and left alone. Anything else that is there is given up: the device
/// holds an empty pool afterwards. Never when it is in use. Nothing to do for a pool in files.
pub fn adopt(config: &ThinConfig) -> Result<Report, StorageError> {
    let refused = |advice: String| Err(StorageError::NotSupported { what: "adopting", advice });
    if config.store == Store::Files {
        return refused("configure storage.device, storage.data-device or storage.pool first".to_owned());
    }
    let lock = lock_directory(&config.directory)?;
    let path = config.directory.join("journal");
    if path.exists() {
        return refused(format!("{} belongs to a pool already: configure another directory", path.display()));
    }
    setup::available()?;
    if store::holds_pool(config)? {
        drop(lock);
        return salvage(config);
    }
    let log = FileLog::new(&config.directory).map_err(|source| StorageError::Io { op: "open", path, source })?;
    store::prepare(config, &mut Journal::begin(Box::new(log)), None, Claim::Forced)?;
    Ok(Report::default())
}

/// The UUID of the pool if it is active, as of our prefix.
fn active_pool(config: &ThinConfig) -> Result<Option<String>, StorageError> {
    setup::available()?;
    let name = Names::new(&config.prefix, "")?.name(Role::Pool);
    let info = Control::open().and_then(|control| control.info(&name));
    let info = info.map_err(|source| StorageError::DeviceMapper { op: "look at", device: name, source })?;
    Ok(info.and_then(|info| Names::pool_of(&info.uuid()?.to_string())))
}

/// Everything goes that is not in use.
fn leave(backend: &dyn Backend, names: &Names) -> Result<(), StorageError> {
    let pool = names.name(Role::Pool);
    let nodes = || backend.ours();
    let result = (|| {
        for node in nodes()?.iter().filter(|node| node.users == 0) {
            backend.remove(&node.name)?;
            backend.wait_gone(&node.name, GOING)?;
        }
        if nodes()?.is_empty() && backend.deactivate()? && !backend.wait_gone(&pool, GOING)? {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        Ok(())
    })();
    result.map_err(|source| StorageError::DeviceMapper { op: "deactivate", device: pool, source })
}

/// A table and how it came about.
#[derive(Debug)]
pub(super) struct Rebuilt {
    pub(super) state: State,
    pub(super) report: Report,
}

/// Reads the labels of all devices, and joins them.
pub(super) fn rebuild(
    backend: &dyn Backend,
    names: &Names,
    known: Option<String>,
    old: Option<&State>,
    block: Bytes,
) -> Result<Rebuilt, StorageError> {
    let asked = |source| StorageError::DeviceMapper { op: "ask the status of", device: names.name(Role::Pool), source };
    let transaction = backend.numbers().map_err(asked)?.transaction;
    let pool = backend.listing()?;
    if let Some(old) = old {
        let base = DeviceId::parse(BASE).expect("the base has a valid id");
        let base = old.find(&base).map(|(device, _)| device.thin);
        if recovery::plan(old, base, transaction, &pool).read_only.is_none() {
            let advice = "journal and pool are of the same time; see 'holmctl device check'".to_owned();
            return Err(StorageError::NotSupported { what: "to salvage a journal that is whole", advice });
        }
    }
    let labels = pool
        .iter()
        .map(|(thin, details)| (*thin, look(backend, names, *thin, details.stamp)))
        .collect::<BTreeMap<_, _>>();
    let uuid = match known.or_else(|| most_named(&pool, &labels)) {
        Some(uuid) => uuid,
        None => setup::random_uuid()?,
    };
    let copy = find_copy(backend, names, &uuid, &pool, &labels).filter(|copy| copy.uuid == uuid);
    let (older, source) = match (old, &copy) {
        (Some(old), Some(copy)) if copy.transaction > old.transaction => (Some(copy), Source::Copy),
        (None, Some(copy)) => (Some(copy), Source::Copy),
        (old, _) => (old, Source::Journal),
    };
    join(&uuid, older.map(|older| (older, source)), transaction, &pool, &labels, block)
}

/// The table as it was copied into the pool.
fn find_copy(backend: &dyn Backend, names: &Names, pool_uuid: &str, pool: &Listing, labels: &Labels) -> Option<State> {
    let named = |thin: &u32, stamp| {
        let label = labels.get(thin)?.as_ref().ok()?.as_ref()?;
        (label.id == duplicate::id() && is_own(label, pool_uuid, *thin, stamp)).then_some((*thin, stamp))
    };
    let (thin, stamp) = pool.iter().find_map(|(thin, details)| named(thin, details.stamp))?;
    let (name, uuid) = (names.name(Role::Foreign(thin, stamp)), names.uuid(Role::Foreign(thin, stamp)));
    let read = settle(backend, names, thin, stamp)
        .and_then(|()| backend.activate(&Spec { name: &name, uuid: &uuid, thin, size: duplicate::SIZE }))
        .and_then(|node| duplicate::newest(backend, &node));
    if let Err(error) = backend.remove(&name) {
        tracing::debug!(%error, name, "cannot ask for removal at last close, ignoring");
    }
    let read = read.inspect_err(|error| tracing::debug!(%error, "cannot read the copy of the table, ignoring"));
    read.ok().flatten().map(|(_, state)| state)
}

type Labels = BTreeMap<u32, io::Result<Option<Label>>>;

/// Without a replay first. A label that was just written may be in the file system's own journal still.
fn look(backend: &dyn Backend, names: &Names, thin: u32, stamp: u64) -> io::Result<Option<Label>> {
    let label = look_at_foreign(backend, names, thin, stamp, Replay::No);
    match label {
        Ok(Some(label)) if (label.thin, label.stamp) == (thin, stamp) => Ok(Some(label)),
        _ => {
            settle(backend, names, thin, stamp)?;
            look_at_foreign(backend, names, thin, stamp, Replay::Yes)
        }
    }
}

/// A node that is on its way cannot be used again.
fn settle(backend: &dyn Backend, names: &Names, thin: u32, stamp: u64) -> io::Result<()> {
    backend.wait_gone(&names.name(Role::Foreign(thin, stamp)), GOING).map(drop)
}

/// The pool that most labels name which are their device's own.
fn most_named(pool: &Listing, labels: &Labels) -> Option<String> {
    let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
    for (thin, label) in labels {
        if let Ok(Some(label)) = label
            && is_own(label, &label.pool, *thin, pool[thin].stamp)
        {
            *votes.entry(&label.pool).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|(_, count)| *count).map(|(uuid, _)| uuid.to_owned())
}

/// Pure: who is who. The older table is believed where its stamps are the pool's; of two that claim one id the
/// younger has it, as an id is only given again after a removal.
pub(super) fn join(
    uuid: &str,
    old: Option<(&State, Source)>,
    transaction: u64,
    pool: &Listing,
    labels: &Labels,
    block: Bytes,
) -> Result<Rebuilt, StorageError> {
    let (old, source) = (old.map(|(old, _)| old), old.map_or(Source::Journal, |(_, source)| source));
    let mut found: Vec<(Device, Phase, Source)> = Vec::new();
    for (thin, details) in pool {
        let recorded = old.and_then(|old| old.devices.get(thin)).filter(|(device, _)| device.stamp == details.stamp);
        let label = labels.get(thin).and_then(|label| label.as_ref().ok()?.as_ref());
        match (recorded, label.filter(|label| is_own(label, uuid, *thin, details.stamp))) {
            // Also what was to replace another and had not yet: that one is whole.
            (Some((device, phase)), _) if *phase == Phase::Removing || device.replaces.is_some() => {
                found.push((device.clone(), Phase::Removing, source));
            }
            (_, Some(label)) => found.push((device_of(label), Phase::Ready, Source::Label)),
            (Some((device, _)), None) => {
                found.push((Device { pending: false, ..device.clone() }, Phase::Ready, source));
            }
            (None, None) => {}
        }
    }
    found.sort_by_key(|(device, ..)| std::cmp::Reverse(device.stamp));
    let numbers: BTreeMap<DeviceId, u32> =
        found.iter().rev().map(|(device, ..)| (device.id.clone(), device.thin)).collect();
    let (mut state, mut report) = (State::new(uuid), Report::default());
    for (mut device, phase, from) in found {
        if phase == Phase::Ready && state.names.contains_key(&device.id) {
            continue;
        }
        if let Some((parent, thin)) = &mut device.base {
            *thin = numbers.get(parent).copied().unwrap_or(*thin);
        }
        let id = device.id.clone();
        let kept = state.apply(&Op::Keep { device, phase });
        kept.map_err(|reason| StorageError::Damaged { path: "the rebuilt journal".into(), reason })?;
        if !hidden::is_hidden(&id) {
            report.devices += 1;
            report.findings.push(Finding::Salvaged { id, from });
        }
    }
    let next_thin = pool.keys().next_back().map_or(0, |last| last + 1).max(old.map_or(0, |old| old.next_thin));
    let transaction = transaction.max(old.map_or(0, |old| old.transaction));
    let counted = state.apply(&Op::Counters { next_thin, transaction });
    counted.map_err(|reason| StorageError::Damaged { path: "the rebuilt journal".into(), reason })?;
    for (thin, details) in pool.iter().filter(|(thin, _)| !state.devices.contains_key(thin)) {
        report.foreign.push(foreign(*thin, *details, block, uuid, labels.get(thin).unwrap_or(&Ok(None))));
    }
    Ok(Rebuilt { state, report })
}

/// The parent's number is found later, by its id; unknown until then.
fn device_of(label: &Label) -> Device {
    Device {
        id: label.id.clone(),
        thin: label.thin,
        stamp: label.stamp,
        base: label.base.clone().map(|id| (id, u32::MAX)),
        size: label.size,
        pending: false,
        replaces: None,
    }
}
