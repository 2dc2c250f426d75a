//! The calls of systemd's manager that are used (org.freedesktop.systemd1(5)), and its errors in our words.

use std::io;

use zbus::{OwnedObjectPath, OwnedVariant, Variant, fdo};

use super::SystemdError;

/// Properties as StartTransientUnit takes them.
pub(super) type Properties<'a> = Vec<(&'a str, Variant<'a>)>;

/// A unit in a list: name, description, load, active and sub state, whom it follows, path; and its job's number, type
/// and path.
pub(super) type ListedUnit =
    (String, String, String, String, String, String, OwnedObjectPath, u32, String, OwnedObjectPath);

#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &Properties<'_>,
        auxiliary: &[(&str, Properties<'_>)],
    ) -> zbus::Result<OwnedObjectPath>;

    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<OwnedObjectPath>;

    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;

    fn thaw_unit(&self, name: &str) -> zbus::Result<()>;

    fn list_units_by_patterns(&self, states: &[&str], patterns: &[&str]) -> zbus::Result<Vec<ListedUnit>>;

    fn get_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    fn load_unit(&self, name: &str) -> zbus::Result<OwnedObjectPath>;

    fn set_unit_properties(&self, name: &str, runtime: bool, properties: &Properties<'_>) -> zbus::Result<()>;

    #[zbus(property)]
    fn system_state(&self) -> zbus::Result<String>;

    #[zbus(signal)]
    fn job_removed(&self, id: u32, job: OwnedObjectPath, unit: String, result: String) -> zbus::Result<()>;
}

/// The bus name of systemd's manager.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
pub(super) const SCOPE: &str = "org.freedesktop.systemd1.Scope";

/// Reads one property; a unit has about a hundred, so never all of them.
pub(super) async fn property<T>(
    connection: &zbus::Connection,
    service: &str,
    path: &str,
    interface: &str,
    name: &str,
) -> zbus::Result<T>
where
    T: TryFrom<OwnedVariant>,
    T::Error: Into<zbus::Error>,
{
    let reply = connection
        .call_method(Some(service), path, Some("org.freedesktop.DBus.Properties"), "Get", &(interface, name))
        .await?;
    let value: OwnedVariant = reply.body().deserialize()?;
    T::try_from(value).map_err(Into::into)
}

/// The object path of a unit (sd-bus' label escaping): what is not a letter or a digit becomes `_` and two hexadecimal
/// digits, and so does a digit in front. Saves asking for it.
pub(super) fn unit_path(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for (index, byte) in unit.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (byte.is_ascii_digit() && index > 0) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("_{byte:02x}"));
        }
    }
    path
}

/// Whether a method was answered with the error of this name.
pub(super) fn is_error(error: &zbus::Error, name: &str) -> bool {
    match error {
        zbus::Error::MethodError(found, _, _) => found.as_str() == name,
        _ => false,
    }
}

/// An error of a call that was about `unit`: refused when the other side answered, otherwise unreachable.
pub(super) fn failed(op: &'static str, unit: &str, error: zbus::Error) -> SystemdError {
    if answered(&error) {
        SystemdError::Refused { op, unit: unit.to_owned(), source: error }
    } else {
        SystemdError::Unreachable(error)
    }
}

/// Whether the error is the other side's answer, and not the bus' word that nobody is there.
fn answered(error: &zbus::Error) -> bool {
    match error {
        zbus::Error::MethodError(..) => true,
        zbus::Error::FDO(error) => !matches!(
            **error,
            fdo::Error::ServiceUnknown(_)
                | fdo::Error::NameHasNoOwner(_)
                | fdo::Error::NoReply(_)
                | fdo::Error::NoServer(_)
                | fdo::Error::Disconnected(_)
                | fdo::Error::Timeout(_)
                | fdo::Error::TimedOut(_)
                | fdo::Error::ZBus(_)
        ),
        _ => false,
    }
}

/// What stands for "the connection is closed" where zbus just ends a stream.
pub(super) fn closed() -> zbus::Error {
    zbus::Error::InputOutput(io::Error::new(io::ErrorKind::BrokenPipe, "the connection to the bus is closed").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths_are_escaped_as_sd_bus_does() {
        assert_eq!(unit_path("holm-web.1.scope"), "/org/freedesktop/systemd1/unit/holm_2dweb_2e1_2escope");
        assert_eq!(unit_path("1.slice"), "/org/freedesktop/systemd1/unit/_31_2eslice");
    }
}
