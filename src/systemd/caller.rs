//! Who sent a message.

use zbus::fdo;
use zbus::names::UniqueName;

use super::SystemdError;
use super::bus::failed;

/// A sender, as the bus knows it: taken from its socket when it connected, so it cannot be made up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Its user.
    pub uid: u32,
    /// Its process when it connected. It may have ended since, so never decide anything by it.
    pub pid: Option<u32>,
}

impl Caller {
    /// Whether it is root, who is asked for nothing.
    pub fn is_root(&self) -> bool {
        self.uid == 0
    }
}

/// Asks the bus about a sender. Fails when it is gone.
pub async fn caller(connection: &zbus::Connection, sender: &UniqueName<'_>) -> Result<Caller, SystemdError> {
    let reply = connection
        .call_method(BUS, "/org/freedesktop/DBus", BUS, "GetConnectionCredentials", sender)
        .await
        .map_err(|error| failed("identify the caller", sender.as_str(), error))?;
    let body = reply.body();
    let credentials: fdo::ConnectionCredentials = body.deserialize().map_err(SystemdError::Unreachable)?;
    // Every bus on Linux knows the user; an answer without it proves nothing about who calls.
    let uid = credentials.unix_user_id().ok_or(SystemdError::Unreachable(zbus::Error::InvalidReply))?;
    Ok(Caller { uid, pid: credentials.process_id() })
}

const BUS: Option<&str> = Some("org.freedesktop.DBus");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testbus::TestBus;

    #[tokio::test]
    async fn a_sender_is_known_by_its_socket() {
        let Some(bus) = TestBus::start() else { return };
        let connection = bus.connect().await;
        let own = connection.unique_name().unwrap().clone();
        let found = caller(&connection, &own).await.unwrap();
        assert_eq!(found, Caller { uid: rustix::process::getuid().as_raw(), pid: Some(std::process::id()) });
    }

    #[tokio::test]
    async fn a_sender_that_is_gone_is_an_error() {
        let Some(bus) = TestBus::start() else { return };
        let connection = bus.connect().await;
        assert!(caller(&connection, &UniqueName::try_from(":1.999").unwrap()).await.is_err());
    }
}
