//! What a check, a repair or a salvage found, for people and for programs.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::cli::error::CliError;
use crate::cli::exit::Status;
use crate::cli::output;
use crate::model::Bytes;

/// A report; `holmd --salvage` writes one as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) devices: u32,
    pub(super) findings: Vec<Finding>,
    pub(super) foreign: Vec<Foreign>,
}

/// One thing that does not agree.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Finding {
    pub(super) kind: String,
    /// The device that it is about, or empty.
    pub(super) device: String,
    pub(super) text: String,
}

/// A device of the pool that is on no record.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Foreign {
    pub(super) thin_id: u32,
    pub(super) stamp: u64,
    pub(super) mapped: u64,
    pub(super) about: String,
}

impl Findings {
    /// From what `GetCheckReport` replies.
    pub(super) fn of(
        devices: u32,
        findings: Vec<(String, String, String)>,
        foreign: Vec<(u32, u64, u64, String)>,
    ) -> Self {
        let found = findings.into_iter().map(|(kind, device, text)| Finding { kind, device, text });
        let on_no_record =
            foreign.into_iter().map(|(thin_id, stamp, mapped, about)| Foreign { thin_id, stamp, mapped, about });
        Self { devices, findings: found.collect(), foreign: on_no_record.collect() }
    }

    /// Writes it.
    pub(super) fn write(&self, json: bool) -> Result<(), CliError> {
        if !json {
            return output::write(&self.to_text());
        }
        output::write_json(&serde_json::json!(self))
    }

    /// As `doctor` has it: 1 when something is wrong.
    pub(super) fn status(&self) -> Status {
        if self.findings.is_empty() { Status::SUCCESS } else { Status::UNFIT }
    }

    /// A line for each, and one that sums it up.
    fn to_text(&self) -> String {
        let mut text = String::new();
        for Finding { device, text: line, .. } in &self.findings {
            let separator = if device.is_empty() { "" } else { ": " };
            let _ = writeln!(text, "{device}{separator}{line}");
        }
        for Foreign { thin_id, mapped, about, .. } in &self.foreign {
            let mapped = Bytes(*mapped);
            let _ = writeln!(
                text,
                "thin device {thin_id} ({mapped} mapped) is on no record and {about}: 'holmctl device rm --foreign {thin_id}' deletes it for good"
            );
        }
        let found = match self.findings.len() {
            0 => "all is well".to_owned(),
            1 => "one finding".to_owned(),
            more => format!("{more} findings"),
        };
        let _ = writeln!(text, "{} devices looked at, {found}.", self.devices);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_and_a_sum() {
        let findings = vec![
            ("pool".to_owned(), String::new(), "the pool is read-only".to_owned()),
            ("lost".to_owned(), "container:1".to_owned(), "it is gone".to_owned()),
        ];
        let report = Findings::of(7, findings, vec![(9, 2, 1 << 20, "has no label".to_owned())]);
        assert_eq!(
            report.to_text(),
            "the pool is read-only\ncontainer:1: it is gone\n\
             thin device 9 (1M mapped) is on no record and has no label: 'holmctl device rm --foreign 9' deletes it for good\n\
             7 devices looked at, 2 findings.\n"
        );
        assert_eq!(report.status(), Status::UNFIT);
        let well = Findings::of(7, vec![], vec![]);
        assert_eq!((well.to_text().as_str(), well.status()), ("7 devices looked at, all is well.\n", Status::SUCCESS));
    }
}
