//! Every failure of the command line: one line that says what to do.

use std::io;

use crate::client::ClientError;
use crate::model::{NameError, SignalError};

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The daemon or the bus.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A name breaks the rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A signal that is none.
    #[error(transparent)]
    Signal(#[from] SignalError),
    /// An argument makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A file, a terminal or a program.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// Whoever read our output has enough.
    #[error("the reader of the output is gone")]
    Closed,
}

impl CliError {
    pub(crate) fn io(action: impl Into<String>, source: io::Error) -> Self {
        Self::Io { action: action.into(), source }
    }
}

impl From<zbus::Error> for CliError {
    fn from(error: zbus::Error) -> Self {
        Self::Client(error.into())
    }
}
