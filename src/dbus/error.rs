//! Every failure of a method, as the bus shows it.

use zbus::message::{Header, Message};
use zbus::names::ErrorName;

use crate::engine::EngineError;
use crate::model::{ErrorCode, NameError};

/// What a method fails with: an error named `org.holm1.Error.<code>`, and a text that says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) code: ErrorCode,
    pub(super) message: String,
}

/// What a method returns.
pub(super) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(super) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An option or argument that makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidConfig, message)
    }

    /// The server was dropped while a call was on its way.
    pub(super) fn going_down() -> Self {
        Self::new(ErrorCode::ShuttingDown, "holmd is going down: try again when it is back")
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::new(ErrorCode::InvalidName, error.to_string())
    }
}

impl zbus::DBusError for Error {
    fn create_reply(&self, call: &Header<'_>) -> zbus::Result<Message> {
        Message::error(call, self.name()).build(&self.message.as_str())
    }

    fn name(&self) -> ErrorName<'_> {
        ErrorName::try_from(self.code.bus_name()).expect("a code's bus name is a valid error name")
    }

    fn description(&self) -> Option<&str> {
        Some(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use zbus::DBusError;

    use super::*;
    use crate::model::ContainerName;

    #[test]
    fn every_code_makes_a_valid_error_name() {
        for code in ErrorCode::ALL {
            let error = Error::new(code, "text");
            assert_eq!(ErrorCode::from_bus_name(error.name().as_str()), Some(code));
        }
    }

    #[test]
    fn an_engine_error_keeps_its_code_and_its_advice() {
        let error = Error::from(EngineError::NameInUse("web".into()));
        assert_eq!(error.name().as_str(), "org.holm1.Error.NameInUse");
        assert!(error.message.contains("holmctl rm web"), "{}", error.message);
        let error = Error::from(ContainerName::parse("-").unwrap_err());
        assert_eq!(error.name().as_str(), "org.holm1.Error.InvalidName");
    }
}
