//! One code per thing that a caller can act on: it gives the bus error name and the exit status.

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// No container has that name.
    NoSuchContainer,
    /// No image has that name.
    NoSuchImage,
    /// No device has that id.
    NoSuchDevice,
    /// The container has no snapshot of that name.
    NoSuchSnapshot,
    /// No process of Holm's has that id, or the process is in no container.
    NoSuchProcess,
    /// The name is taken.
    NameInUse,
    /// A container or another image still needs the image.
    ImageInUse,
    /// The device is mounted, active or has children.
    DeviceInUse,
    /// The device is Holm's own: a container's, an image's, or the base.
    DeviceReserved,
    /// The device is mounted nowhere that was looked at.
    NotMounted,
    /// The container does not run.
    NotRunning,
    /// The container runs already.
    AlreadyRunning,
    /// The pool has no room for it.
    PoolFull,
    /// An option has an unknown key, a wrong type or a value out of range.
    InvalidConfig,
    /// A name breaks the rule for names.
    InvalidName,
    /// The archive or tree is not an image, is damaged, or would write outside its root.
    InvalidImage,
    /// The program is not in the container.
    CommandNotFound,
    /// The program is there but cannot be run.
    CommandNotExecutable,
    /// The user is not in the container.
    NoSuchUser,
    /// polkit said no.
    NotAuthorized,
    /// The system or the daemon is shutting down.
    ShuttingDown,
    /// It took longer than allowed.
    Timeout,
    /// Somebody cancelled it.
    Canceled,
    /// This host or this driver cannot do it.
    NotSupported,
    /// The pool or a device failed.
    StorageFailed,
    /// systemd refused or failed.
    SystemdFailed,
    /// The container could not be set up.
    StartFailed,
    /// The state on disk cannot be read or written.
    StateFailed,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 28] = [
        Self::NoSuchContainer,
        Self::NoSuchImage,
        Self::NoSuchDevice,
        Self::NoSuchSnapshot,
        Self::NoSuchProcess,
        Self::NameInUse,
        Self::ImageInUse,
        Self::DeviceInUse,
        Self::DeviceReserved,
        Self::NotMounted,
        Self::NotRunning,
        Self::AlreadyRunning,
        Self::PoolFull,
        Self::InvalidConfig,
        Self::InvalidName,
        Self::InvalidImage,
        Self::CommandNotFound,
        Self::CommandNotExecutable,
        Self::NoSuchUser,
        Self::NotAuthorized,
        Self::ShuttingDown,
        Self::Timeout,
        Self::Canceled,
        Self::NotSupported,
        Self::StorageFailed,
        Self::SystemdFailed,
        Self::StartFailed,
        Self::StateFailed,
    ];

    /// The last part of its bus name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSuchContainer => "NoSuchContainer",
            Self::NoSuchImage => "NoSuchImage",
            Self::NoSuchDevice => "NoSuchDevice",
            Self::NoSuchSnapshot => "NoSuchSnapshot",
            Self::NoSuchProcess => "NoSuchProcess",
            Self::NameInUse => "NameInUse",
            Self::ImageInUse => "ImageInUse",
            Self::DeviceInUse => "DeviceInUse",
            Self::DeviceReserved => "DeviceReserved",
            Self::NotMounted => "NotMounted",
            Self::NotRunning => "NotRunning",
            Self::AlreadyRunning => "AlreadyRunning",
            Self::PoolFull => "PoolFull",
            Self::InvalidConfig => "InvalidConfig",
            Self::InvalidName => "InvalidName",
            Self::InvalidImage => "InvalidImage",
            Self::CommandNotFound => "CommandNotFound",
            Self::CommandNotExecutable => "CommandNotExecutable",
            Self::NoSuchUser => "NoSuchUser",
            Self::NotAuthorized => "NotAuthorized",
            Self::ShuttingDown => "ShuttingDown",
            Self::Timeout => "Timeout",
            Self::Canceled => "Canceled",
            Self::NotSupported => "NotSupported",
            Self::StorageFailed => "StorageFailed",
            Self::SystemdFailed => "SystemdFailed",
            Self::StartFailed => "StartFailed",
            Self::StateFailed => "StateFailed",
        }
    }

    /// The name of the D-Bus error, `org.holm1.Error.…`.
    pub fn bus_name(self) -> String {
        format!("{}{}", Self::BUS_PREFIX, self.as_str())
    }

    /// The code behind a D-Bus error name, if it is one of ours.
    pub fn from_bus_name(name: &str) -> Option<Self> {
        let last = name.strip_prefix(Self::BUS_PREFIX)?;
        Self::ALL.into_iter().find(|code| code.as_str() == last)
    }

    /// The exit status of the command line: 127 and 126 as shells have them, 125 for every failure of Holm's own.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::CommandNotFound => 127,
            Self::CommandNotExecutable => 126,
            _ => 125,
        }
    }

    const BUS_PREFIX: &'static str = "org.holm1.Error.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_survives_the_bus() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_bus_name(&code.bus_name()), Some(code));
        }
        assert_eq!(ErrorCode::from_bus_name("org.freedesktop.DBus.Error.Failed"), None);
    }
}
