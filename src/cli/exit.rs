//! Exit statuses: the payload's own, 128 and the signal's number, 127 command not found, 126 cannot be run, 125 our own
//! failure, wrong usage among them.

use std::process::ExitCode;

use super::error::CliError;
use super::output;
use crate::model::{ErrorCode, Exit};

/// An exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Status(u8);

impl Status {
    pub(crate) const SUCCESS: Self = Self(0);
    /// What `doctor` says when something is missing.
    pub(crate) const UNFIT: Self = Self(1);
    /// Our own failure.
    pub(crate) const FAILURE: Self = Self(125);

    /// From a status on the bus, where -1 is "nobody knows".
    pub(crate) fn from_bus(status: i32) -> Self {
        u8::try_from(status).map_or(Self::FAILURE, Self)
    }
}

impl From<Exit> for Status {
    fn from(exit: Exit) -> Self {
        Self::from_bus(exit.status())
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.0)
    }
}

impl From<&CliError> for Status {
    fn from(error: &CliError) -> Self {
        match error {
            CliError::Client(error) => Self(error.code().map_or(125, ErrorCode::exit_status)),
            CliError::Closed => Self::SUCCESS,
            CliError::Name(_) | CliError::Signal(_) | CliError::Usage(_) | CliError::Io { .. } => Self::FAILURE,
        }
    }
}

/// Says on standard error what went wrong, and which status that is.
pub(crate) fn report(error: &CliError) -> Status {
    if !matches!(error, CliError::Closed) {
        output::tell(&error.to_string());
    }
    error.into()
}

/// Shows what clap has to say: help and version are success, wrong usage is one line and 125.
pub(crate) fn of_usage(error: &clap::Error, verb: &str) -> ExitCode {
    use clap::error::ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    match error.kind() {
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand => {
            // Nothing can be done when it cannot be shown.
            drop(error.print());
            if error.use_stderr() { Status::FAILURE.into() } else { Status::SUCCESS.into() }
        }
        _ => report(&CliError::Usage(usage_line(&error.to_string(), verb))).into(),
    }
}

/// The first paragraph of clap's text, and where to read on.
fn usage_line(text: &str, verb: &str) -> String {
    let paragraph = text.split("\n\n").next().unwrap_or(text);
    let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let space = if verb.is_empty() { "" } else { " " };
    format!("{line}: see 'holmctl {verb}{space}--help'")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::ClientError;

    #[test]
    fn each_error_code_has_its_status() {
        for code in ErrorCode::ALL {
            let expected = match code {
                ErrorCode::CommandNotFound => 127,
                ErrorCode::CommandNotExecutable => 126,
                _ => 125,
            };
            let error = CliError::Client(ClientError::Refused { code, message: String::new() });
            assert_eq!(Status::from(&error), Status(expected), "{code:?}");
        }
    }

    #[test]
    fn wrong_usage_is_one_line() {
        let text = "error: unexpected argument '-p' found\n\n  tip: x\n\nUsage: holmctl image import [OPTIONS]\n";
        let line = "unexpected argument '-p' found: see 'holmctl image import --help'";
        assert_eq!(usage_line(text, "image import"), line);
        let text = "error: the following required arguments were not provided:\n  <IMAGE>\n\nUsage: x\n";
        let line = "the following required arguments were not provided: <IMAGE>: see 'holmctl --help'";
        assert_eq!(usage_line(text, ""), line);
    }

    #[test]
    fn a_payloads_end_is_our_end() {
        assert_eq!(Status::from(Exit::Code(42)), Status(42));
        assert_eq!(Status::from(Exit::Signal { number: 9, core_dumped: false }), Status(137));
        assert_eq!(Status::from_bus(-1), Status::FAILURE);
    }
}
