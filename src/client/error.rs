//! Every failure of the client, with its code.

use zbus::fdo;

use crate::model::ErrorCode;

/// What can go wrong between us and `holmd`. The text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no system bus.
    #[error("cannot reach the system bus: {source}: is dbus running, and may you use it?")]
    NoBus {
        /// Why.
        source: zbus::Error,
    },
    /// Nobody answers for `org.holm1`.
    #[error("cannot reach holmd on the system bus: start it with 'systemctl start holmd'")]
    NoDaemon {
        /// What the bus said.
        message: String,
    },
    /// The daemon went away with our call.
    #[error("holmd went away before it answered: look with 'holmctl list --all' and try again ({message})")]
    NoAnswer {
        /// What the bus said.
        message: String,
    },
    /// The connection to the bus ended.
    #[error("the connection to the system bus ended: see whether dbus was restarted, and try again")]
    BusGone,
    /// `holmd` said no.
    #[error("{message}")]
    Refused {
        /// What a caller can do about it.
        code: ErrorCode,
        /// What happened, and advice.
        message: String,
    },
    /// The bus said no before `holmd` was asked.
    #[error("access to holmd was refused by the bus: run this as root ({message})")]
    AccessDenied {
        /// What the bus said.
        message: String,
    },
    /// The daemon does not know the method, or takes other arguments: it is of another version.
    #[error("holmd does not offer this: it is of another version than holmctl ({message})")]
    Mismatch {
        /// What it said.
        message: String,
    },
    /// The daemon went away while it worked for us, and what we asked for has not happened.
    #[error("holmd was restarted while it worked on '{subject}': look with 'holmctl list --all' and try again")]
    Interrupted {
        /// What it worked on.
        subject: String,
    },
    /// The container's monitor went away without a word.
    #[error("nobody knows how '{subject}' ended: its monitor was killed")]
    Lost {
        /// Which container or process.
        subject: String,
    },
    /// Another failure of the bus.
    #[error("the bus failed: {0}")]
    Bus(zbus::Error),
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl ClientError {
    /// What a caller can do about it, when `holmd` said so.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether it is this refusal.
    pub fn is(&self, code: ErrorCode) -> bool {
        self.code() == Some(code)
    }

    /// A job's end that was not `done`, from its `Result`, `Error` and `Message`.
    pub fn from_job(result: &str, error: &str, message: String) -> Self {
        let code = ErrorCode::from_bus_name(error).unwrap_or(match result {
            "canceled" => ErrorCode::Canceled,
            "timeout" => ErrorCode::Timeout,
            _ => ErrorCode::StartFailed,
        });
        let message = if message.is_empty() { format!("the job ended as '{result}'") } else { message };
        Self::Refused { code, message: one_line(&message) }
    }
}

impl ClientError {
    /// Whether the daemon ended before it had done what it was asked for, and another may do it.
    pub fn is_daemons_end(&self) -> bool {
        matches!(self, Self::Interrupted { .. }) || self.is(ErrorCode::ShuttingDown)
    }
}

impl From<zbus::Error> for ClientError {
    fn from(error: zbus::Error) -> Self {
        match error {
            zbus::Error::MethodError(name, message, _) => {
                let message = one_line(&message.unwrap_or_else(|| name.to_string()));
                match ErrorCode::from_bus_name(name.as_str()) {
                    Some(code) => Self::Refused { code, message },
                    // systemd could not start the daemon for the bus.
                    None if name.starts_with("org.freedesktop.systemd1.") => Self::NoDaemon { message },
                    None => Self::Bus(zbus::Error::Failure(format!("{name}: {message}"))),
                }
            }
            zbus::Error::FDO(error) => Self::from(*error),
            other => Self::Bus(other),
        }
    }
}

impl From<fdo::Error> for ClientError {
    fn from(error: fdo::Error) -> Self {
        use fdo::Error as E;
        match error {
            E::ServiceUnknown(message)
            | E::NameHasNoOwner(message)
            | E::SpawnExecFailed(message)
            | E::SpawnForkFailed(message)
            | E::SpawnChildExited(message)
            | E::SpawnChildSignaled(message)
            | E::SpawnFailed(message)
            | E::SpawnServiceNotFound(message)
            | E::SpawnFailedToSetup(message)
            | E::TimedOut(message)
            | E::Timeout(message) => Self::NoDaemon { message },
            E::NoReply(message) => Self::NoAnswer { message },
            E::Disconnected(_) => Self::BusGone,
            E::AccessDenied(message) | E::AuthFailed(message) | E::InteractiveAuthorizationRequired(message) => {
                Self::AccessDenied { message: one_line(&message) }
            }
            E::UnknownMethod(message)
            | E::UnknownInterface(message)
            | E::UnknownProperty(message)
            | E::InvalidArgs(message)
            | E::InvalidSignature(message) => Self::Mismatch { message: one_line(&message) },
            E::ZBus(error) => Self::from(error),
            other => Self::Bus(other.into()),
        }
    }
}

/// Our errors are one line, whatever somebody put into theirs.
fn one_line(text: &str) -> String {
    text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_job_keeps_its_code() {
        let error = ClientError::from_job("failed", "org.holm1.Error.CommandNotFound", "no 'x' in\nthe image".into());
        assert_eq!(error.code(), Some(ErrorCode::CommandNotFound));
        assert_eq!(error.to_string(), "no 'x' in; the image");
    }

    #[test]
    fn a_job_without_an_error_name_is_named_by_its_result() {
        assert_eq!(ClientError::from_job("canceled", "", String::new()).code(), Some(ErrorCode::Canceled));
    }

    #[test]
    fn a_missing_daemon_is_told_with_what_to_do() {
        let error = ClientError::from(fdo::Error::ServiceUnknown("The name org.holm1 was not provided".into()));
        assert!(error.to_string().contains("systemctl start holmd"));
        assert_eq!(error.code(), None);
    }
}
