//! Names and ids. Each is parsed once, at the door; inside, a value is known to be good.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a valid {what}: {rule}")]
pub struct NameError {
    what: &'static str,
    text: String,
    rule: &'static str,
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the rule and takes the name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(NameError { what: $what, text: text.chars().take(80).collect(), rule: $rule })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// The name of a container: also its machine name, so the rule is machined's (systemd's `hostname_is_valid`).
    ContainerName,
    "container name",
    "use 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', starting with a letter or digit, without '..' or a final '.' or '-'",
    |text| {
        let bytes = text.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !text.contains("..")
            && !text.ends_with(['.', '-'])
    }
);

name_type!(
    /// The name of an image. `name:latest` and `name` are the same image; see [`ImageName::normalized`].
    ImageName,
    "image name",
    "use 1 to 255 of a-z, A-Z, 0-9 and '._-/:@', starting with a letter or digit, without '//' or '..'",
    |text| {
        let bytes = text.as_bytes();
        (1..=255).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || b"._-/:@".contains(b))
            && !text.contains("//")
            && !text.contains("..")
            && !text.ends_with(['/', ':', '@'])
    }
);

impl ImageName {
    /// Reads a name and drops a trailing `:latest`, so that both spellings meet.
    pub fn normalized(text: &str) -> Result<Self, NameError> {
        Self::parse(text.strip_suffix(":latest").unwrap_or(text))
    }
}

name_type!(
    /// The name of a snapshot of a container, unique among its snapshots.
    SnapshotName,
    "snapshot name",
    "use 1 to 64 of a-z, A-Z, 0-9, '-', '_' and '.', starting with a letter or digit",
    |text| {
        let bytes = text.as_bytes();
        (1..=64).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }
);

name_type!(
    /// The id of a device in the DeviceSet, for example `base`, `layer:<chain id>` or `container:<container id>`.
    DeviceId,
    "device id",
    "use 1 to 128 of a-z, A-Z, 0-9, '-', '_', '.' and ':', starting with a letter or digit",
    |text| {
        let bytes = text.as_bytes();
        (1..=128).contains(&bytes.len())
            && bytes[0].is_ascii_alphanumeric()
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
    }
);

name_type!(
    /// The id of a container: 128 random bits as 32 lower-case hexadecimal digits; also its `container_uuid`.
    ContainerId,
    "container id",
    "use 32 lower-case hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);

impl ContainerId {
    /// An id from 128 bits, marked as a version 4 UUID (RFC 9562) as machine-id(5) wants it.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = (bytes[6] & 0x0f) | 0x40;
        bytes[8] = (bytes[8] & 0x3f) | 0x80;
        Self(bytes.iter().map(|b| format!("{b:02x}")).collect())
    }

    /// The 16 bytes, as machined takes them.
    pub fn to_bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&self.0[index * 2..index * 2 + 2], 16).expect("an id is 32 hexadecimal digits");
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_follow_machined() {
        for good in ["web", "a", "db-1.example", "A_b", &"x".repeat(64)] {
            assert!(ContainerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "-a", "a..b", "a.", "a-", "a/b", "ü", "a b", &"x".repeat(65)] {
            assert!(ContainerName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn latest_is_the_same_image() {
        assert_eq!(ImageName::normalized("debian:latest").unwrap(), ImageName::normalized("debian").unwrap());
    }

    #[test]
    fn an_id_survives_the_way_to_bytes_and_back() {
        let id = ContainerId::from_random([0xab; 16]);
        assert_eq!(ContainerId::parse(id.as_str()).unwrap(), id);
        assert_eq!(id.to_bytes()[0], 0xab);
        assert_eq!(id.to_bytes()[6] >> 4, 4);
    }
}
