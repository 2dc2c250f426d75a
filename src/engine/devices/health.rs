//! What the journal says of the pool's health: entries with a `MESSAGE_ID`, to which `packaging/holm.catalog` says what to
//! do (`journalctl -x`), and the pool's numbers as fields, sizes in bytes.

use std::fmt::Write as _;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::super::Inner;
use super::lock;
use crate::model::{Bytes, DeviceId, DeviceState, PoolState, PoolStatus};
use crate::storage::{Pressure, PressureLevel};

const LOW_DATA: &str = "1b0a168d4ced46fdb5e11777b739672e";
const LOW_METADATA: &str = "a0a0d74cc4f341268d38cbd2b169a3a8";
const OUT_OF_DATA: &str = "586774cdc02e497891d4d2c59acdaadc";
const READ_ONLY: &str = "6a2503690e0e40bbb42ce59460d9fe3d";
const NEEDS_CHECK: &str = "373c3054cb614ee9b1a35796c84950a3";
const WELL: &str = "3d91173a5f044bab9bfef4fedb914f4e";
const GROWN: &str = "49038552120147279164b4e40dbbda14";
const CANNOT_GROW: &str = "df617ab00cbb4e259a9c6c03abb508ce";
const ROOM_AGAIN: &str = "8bf45c291e2a40f8babc6790dabe5535";
const LOST: &str = "5eb6525f26774bd99b97131f57ce770b";
const FOREIGN: &str = "27d6a538bd79424c92c972d23152707c";
const FINDINGS: &str = "e5ec0a11fb3643ff933ef7a55bc1ae33";

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: &'static str,
    priority: Priority,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Priority {
    Error,
    Warning,
    Info,
}

/// Writes down how the pool is as the daemon starts, if that is not well.
pub(in crate::engine) fn at_start(inner: &Arc<Inner>) {
    let status = inner.pool();
    if status.state != PoolState::Ok {
        write(&of_state(&status), &status);
    }
    match inner.devices.devices() {
        Ok(devices) => {
            let lost = devices.into_iter().filter(|device| device.state == DeviceState::Lost);
            of_lost(&lost.map(|device| device.id).collect::<Vec<_>>()).iter().for_each(|entry| write(entry, &status));
        }
        Err(error) => warn!(op = "pool-status", "{error}, ignoring"),
    }
    of_foreign(&inner.devices.foreign()).iter().for_each(|entry| write(entry, &status));
}

/// Writes down how the pool has changed.
pub(super) fn changed(before: &PoolStatus, now: &PoolStatus) {
    of_growth(before, now).iter().for_each(|entry| write(entry, now));
    if before.state != now.state {
        write(&of_state(now), now);
    }
}

/// Writes down that the pool cannot grow any more, or can again. Called whenever the DeviceSet tells of its room.
pub(in crate::engine) fn pressed(inner: &Inner, pressure: &Pressure) {
    let before = std::mem::replace(&mut *lock(&inner.held.pressed), pressure.level);
    if let Some(entry) = of_pressure(before, pressure) {
        write(&entry, &inner.pool());
    }
}

/// Writes down what a check found, if it found anything.
pub(super) fn checked(inner: &Inner, findings: usize) {
    if findings > 0 {
        let text = format!("{findings} things of the pool's devices do not agree.");
        write(&Entry { id: FINDINGS, priority: Priority::Warning, text }, &inner.pool());
    }
}

fn of_state(now: &PoolStatus) -> Entry {
    let pool = &now.pool;
    let data = room(now.data_used, now.data_total);
    let metadata = room(now.metadata_used, now.metadata_total);
    let (id, priority, text) = match now.state {
        PoolState::Ok => (WELL, Priority::Info, format!("The pool {pool} is well again: {data}.")),
        PoolState::LowData => (LOW_DATA, Priority::Warning, format!("The pool {pool} is low on data: {data}.")),
        PoolState::LowMetadata => {
            (LOW_METADATA, Priority::Warning, format!("The pool {pool} is low on metadata: {metadata}."))
        }
        PoolState::OutOfData => (OUT_OF_DATA, Priority::Error, format!("The pool {pool} is out of data: {data}.")),
        PoolState::ReadOnly => (READ_ONLY, Priority::Error, format!("The pool {pool} is read-only.")),
        PoolState::NeedsCheck => (NEEDS_CHECK, Priority::Error, format!("The pool {pool} has to be checked.")),
    };
    Entry { id, priority, text }
}

fn room(used: Bytes, total: Bytes) -> String {
    format!("{} of {total} are free", Bytes(total.0.saturating_sub(used.0)))
}

fn of_growth(before: &PoolStatus, now: &PoolStatus) -> Option<Entry> {
    let mut parts = Vec::new();
    // A total of 0 is one that nobody could read.
    for (part, before, now) in
        [("data", before.data_total, now.data_total), ("metadata", before.metadata_total, now.metadata_total)]
    {
        if now > before && before.0 > 0 {
            parts.push(format!("{part} from {before} to {now}"));
        }
    }
    let text = format!("The pool {} has grown: {}.", now.pool, parts.join(", "));
    (!parts.is_empty()).then_some(Entry { id: GROWN, priority: Priority::Info, text })
}

fn of_pressure(before: PressureLevel, pressure: &Pressure) -> Option<Entry> {
    let (was, is) = (before > PressureLevel::None, pressure.level > PressureLevel::None);
    let mut text = match (was, is) {
        (false, true) => "The pool cannot grow any more".to_owned(),
        (true, false) => "The pool has room again".to_owned(),
        _ => return None,
    };
    let _ = write!(text, ": {} of {} are free", pressure.free, pressure.total);
    if let (true, Some(left)) = (is, pressure.time_to_full) {
        let _ = write!(text, ", for about {} s at this pace", left.as_secs());
    }
    if let (true, Some(fastest)) = (is, pressure.fastest.first()) {
        let _ = write!(text, "; the fastest writer is {}", fastest.id);
    }
    text.push('.');
    let (id, priority) = if is { (CANNOT_GROW, Priority::Warning) } else { (ROOM_AGAIN, Priority::Info) };
    Some(Entry { id, priority, text })
}

fn of_lost(lost: &[DeviceId]) -> Option<Entry> {
    let names = listed(lost)?;
    let text = format!("On record, but not in the pool: {names}.");
    Some(Entry { id: LOST, priority: Priority::Error, text })
}

fn of_foreign(foreign: &[u32]) -> Option<Entry> {
    let numbers = listed(foreign)?;
    let text = format!("In the pool, but on no record, and left alone: thin device {numbers}.");
    Some(Entry { id: FOREIGN, priority: Priority::Warning, text })
}

/// The first few of them; `None` when there are none.
fn listed<T: std::fmt::Display>(items: &[T]) -> Option<String> {
    const SHOWN: usize = 10;
    let mut text = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(", ");
    if items.len() > SHOWN {
        let _ = write!(text, " and {} more", items.len() - SHOWN);
    }
    (!items.is_empty()).then_some(text)
}

fn write(entry: &Entry, status: &PoolStatus) {
    macro_rules! say {
        ($level:ident) => {
            $level!(
                op = "pool",
                message_id = entry.id,
                pool = status.pool,
                state = status.state.as_str(),
                data_used = status.data_used.0,
                data_total = status.data_total.0,
                metadata_used = status.metadata_used.0,
                metadata_total = status.metadata_total.0,
                "{}",
                entry.text
            )
        };
    }
    match entry.priority {
        Priority::Error => say!(error),
        Priority::Warning => say!(warn),
        Priority::Info => say!(info),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::engine::entries;

    /// Written by the daemon, which knows before there is an engine.
    const OUT_OF_ORDER: &str = "9d2c64b1e7a34f0c8b5e31f7a6d09c42";

    fn status(state: PoolState, data_used: u64, data_total: u64) -> PoolStatus {
        PoolStatus {
            pool: "holm-pool".into(),
            state,
            data_used: Bytes(data_used << 20),
            data_total: Bytes(data_total << 20),
            metadata_used: Bytes(1 << 20),
            metadata_total: Bytes(16 << 20),
            block_size: Bytes(65536),
            transaction_id: 1,
            devices: 1,
            active: 0,
        }
    }

    fn pressure(level: PressureLevel) -> Pressure {
        Pressure {
            level,
            free: Bytes(100 << 20),
            dirty: Bytes(0),
            total: Bytes(1 << 30),
            growable: Bytes(0),
            time_to_full: Some(Duration::from_secs(90)),
            fastest: Vec::new(),
        }
    }

    #[test]
    fn every_state_has_an_entry_of_its_own_with_the_numbers() {
        use PoolState::{LowData, LowMetadata, NeedsCheck, Ok, OutOfData, ReadOnly};
        let states = [Ok, LowData, LowMetadata, OutOfData, ReadOnly, NeedsCheck];
        let ids: std::collections::BTreeSet<_> =
            states.iter().map(|state| of_state(&status(*state, 1000, 1024)).id).collect();
        assert_eq!(ids.len(), states.len());
        let low = of_state(&status(LowData, 1000, 1024));
        assert_eq!(low.text, "The pool holm-pool is low on data: 24M of 1G are free.");
    }

    #[test]
    fn a_growth_is_told_with_both_sizes() {
        let (before, now) = (status(PoolState::Ok, 1, 1024), status(PoolState::Ok, 1, 2048));
        assert_eq!(of_growth(&before, &now).unwrap().text, "The pool holm-pool has grown: data from 1G to 2G.");
        assert_eq!(of_growth(&now, &now), None);
        assert_eq!(of_growth(&now, &before), None);
    }

    #[test]
    fn pressure_is_told_when_it_begins_and_when_it_ends() {
        use PressureLevel::{Full, High, Low, None as Well};
        let told = |before, now| of_pressure(before, &pressure(now)).map(|entry| entry.id);
        assert_eq!(told(Well, Low), Some(CANNOT_GROW));
        assert_eq!(told(Well, Full), Some(CANNOT_GROW));
        assert_eq!([told(Low, High), told(High, High), told(Well, Well)], [None; 3]);
        assert_eq!(told(High, Well), Some(ROOM_AGAIN));
        let text = of_pressure(Well, &pressure(Low)).unwrap().text;
        assert_eq!(text, "The pool cannot grow any more: 100M of 1G are free, for about 90 s at this pace.");
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(of_lost(&[]), None);
        let text = of_foreign(&(1..=12).collect::<Vec<_>>()).unwrap().text;
        assert!(text.ends_with("thin device 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 2 more."), "{text}");
    }

    #[test]
    fn the_catalogue_has_a_text_for_each_entry_and_no_other() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/holm.catalog");
        let catalogue = std::fs::read_to_string(file).unwrap();
        let mut there: Vec<_> = catalogue.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let mut here = vec![
            LOW_DATA,
            LOW_METADATA,
            OUT_OF_DATA,
            READ_ONLY,
            NEEDS_CHECK,
            WELL,
            GROWN,
            CANNOT_GROW,
            ROOM_AGAIN,
            LOST,
            FOREIGN,
            FINDINGS,
            OUT_OF_ORDER,
        ];
        here.extend(entries::ALL);
        there.sort_unstable();
        here.sort_unstable();
        assert_eq!(there, here);
    }
}
