//! What a check or a trim came to, as it is shown.

use crate::model::{Bytes, DeviceId, Usec};
use crate::storage::{Finding, ForeignDevice, Report, Source, Trimmed};

/// What a check or a repair found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckView {
    /// When it was.
    pub at_usec: Usec,
    /// Devices that were looked at.
    pub devices: u32,
    /// What does not agree. Nothing when all is well.
    pub findings: Vec<FindingView>,
    /// Devices of the pool that are on no record.
    pub foreign: Vec<ForeignView>,
}

/// One thing that does not agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingView {
    /// Its kind, as a word.
    pub kind: &'static str,
    /// The device that it is about, if it is one.
    pub device: Option<DeviceId>,
    /// A sentence, with what to do.
    pub text: String,
}

/// A device of the pool that is on no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignView {
    /// Its number in the pool.
    pub thin_id: u32,
    /// The pool's transaction id when it was made.
    pub stamp: u64,
    /// Bytes it maps, shared ones included.
    pub mapped: Bytes,
    /// What is known of it.
    pub about: String,
}

/// What a trim gave back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrimView {
    /// When it was.
    pub at_usec: Usec,
    /// Bytes given back to the pool.
    pub bytes: Bytes,
    /// Devices that were trimmed.
    pub devices: u32,
    /// Devices that could not be, and why.
    pub failed: Vec<(DeviceId, String)>,
}

impl CheckView {
    /// As of `at_usec`.
    pub fn of(report: Report, at_usec: Usec) -> Self {
        let findings = report.findings.into_iter().map(FindingView::from).collect();
        let foreign = report.foreign.into_iter().map(ForeignView::from).collect();
        Self { at_usec, devices: report.devices, findings, foreign }
    }
}

impl TrimView {
    pub(super) fn of(trimmed: Trimmed, at_usec: Usec) -> Self {
        Self { at_usec, bytes: trimmed.bytes, devices: trimmed.devices, failed: trimmed.failed }
    }
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let repair = "'holmctl device check --repair' writes it";
        let (kind, device, text) = match finding {
            Finding::Pool(state) => {
                ("pool", None, format!("the pool is {}: see 'holmctl device status'", state.as_str()))
            }
            Finding::JournalBehind { journal, pool } => {
                let text = format!(
                    "the journal is of an earlier time (transaction {journal}) than the pool ({pool}): stop holmd and run 'holmctl device salvage'"
                );
                ("journal-behind", None, text)
            }
            Finding::Lost(id) => {
                let text = "the pool has it no more: remove what needs it, and make that anew from a backup";
                ("lost", Some(id), text.to_owned())
            }
            Finding::Unlabelled(id) => ("unlabelled", Some(id), format!("it has no label of its own: {repair}")),
            Finding::WrongLabel { id, says } => ("wrong-label", Some(id), format!("its label says {says}: {repair}")),
            Finding::Unreadable { id, reason } => ("unreadable", Some(id), format!("it cannot be looked at: {reason}")),
            Finding::Salvaged { id, from } => {
                let from = match from {
                    Source::Label => "its label",
                    Source::Journal => "the former journal",
                    Source::Copy => "the copy of the journal in the pool",
                };
                ("salvaged", Some(id), format!("it is back, from {from}"))
            }
        };
        Self { kind, device, text }
    }
}

impl From<ForeignDevice> for ForeignView {
    fn from(device: ForeignDevice) -> Self {
        Self { thin_id: device.thin_id, stamp: device.stamp, mapped: device.mapped, about: device.about }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        let id = DeviceId::parse("container:1").unwrap();
        let report = Report {
            devices: 7,
            findings: vec![Finding::JournalBehind { journal: 3, pool: 5 }, Finding::Unlabelled(id)],
            foreign: vec![ForeignDevice { thin_id: 9, stamp: 2, mapped: Bytes(1 << 20), about: "has no label".into() }],
        };
        let view = CheckView::of(report, 1);
        let texts: Vec<_> = view.findings.iter().map(|finding| finding.text.as_str()).collect();
        assert!(texts[0].contains("holmctl device salvage") && texts[1].contains("--repair"), "{texts:?}");
        assert_eq!(
            view.findings.iter().map(|finding| finding.kind).collect::<Vec<_>>(),
            ["journal-behind", "unlabelled"]
        );
    }
}
