//! Whose a device is: Holm keeps its own under ids that it reserves, other software takes any other.

use std::collections::BTreeMap;

use super::super::Inner;
use super::super::table::{container_device, snapshot_device};
use super::error::DeviceError;
use crate::model::DeviceId;

/// What Holm has a device for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// The empty tree, from which every other descends.
    Base,
    /// A layer of images.
    Layer,
    /// The root of a container.
    Container,
    /// A snapshot of a container's root.
    Snapshot,
    /// Anything else, now or in a later version.
    Other,
}

/// Which of Holm's own a device is; `None` when it is other software's. The rule is in `docs/dbus.md` and holds for ever:
/// what Holm comes to need will begin with `holm`.
pub(super) fn own(id: &DeviceId) -> Option<Own> {
    let id = id.as_str();
    match id.split_once(':').map(|(kind, _)| kind) {
        _ if id == "base" => Some(Own::Base),
        Some("layer" | "image") => Some(Own::Layer),
        Some("container") => Some(Own::Container),
        Some("snapshot") => Some(Own::Snapshot),
        _ if matches!(id, "ballast" | "table") || id.starts_with("holm") => Some(Own::Other),
        _ => None,
    }
}

/// Refuses what is Holm's own.
pub(super) fn check_not_own(id: &DeviceId) -> Result<(), DeviceError> {
    own(id).map_or(Ok(()), |own| Err(reserved(id, own)))
}

/// The refusal.
pub(super) fn reserved(id: &DeviceId, own: Own) -> DeviceError {
    let (what, advice) = match own {
        Own::Base => {
            ("the tree that every other descends from", "add a device of your own on it, or mount it read-only")
        }
        Own::Layer => ("a layer of an image", "use 'holmctl image', or mount it read-only"),
        Own::Container => ("the root of a container", "use 'holmctl rm' and its like, or mount it read-only"),
        Own::Snapshot => ("a snapshot of a container", "use 'holmctl snapshot', or mount it read-only"),
        Own::Other => ("under a name that it keeps for itself", "choose another id"),
    };
    DeviceError::Reserved { id: id.clone(), what, advice: advice.to_owned() }
}

impl Inner {
    /// What needs each device, in words such as `container web`.
    pub(super) fn users_of_devices(&self) -> BTreeMap<DeviceId, Vec<String>> {
        let mut users: BTreeMap<DeviceId, Vec<String>> = BTreeMap::new();
        for view in self.views() {
            let name = view.name();
            users.entry(container_device(view.id())).or_default().push(format!("container {name}"));
            for snapshot in view.snapshots.keys() {
                let device = snapshot_device(view.id(), snapshot);
                users.entry(device).or_default().push(format!("snapshot {snapshot} of container {name}"));
            }
        }
        for (name, image) in self.images().iter() {
            for layer in &image.devices {
                users.entry(layer.device.clone()).or_default().push(format!("image {name}"));
            }
        }
        users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_software_has_every_id_that_holm_does_not_keep() {
        let own = |text: &str| own(&DeviceId::parse(text).unwrap());
        assert_eq!(own("base"), Some(Own::Base));
        assert_eq!(own("layer:1"), Some(Own::Layer));
        assert_eq!(own("container:1"), Some(Own::Container));
        assert_eq!(own("snapshot:1:before"), Some(Own::Snapshot));
        for kept in ["ballast", "table", "holm", "holm-x", "holm:x"] {
            assert_eq!(own(kept), Some(Own::Other), "{kept}");
        }
        for free in ["based", "tables", "pgdata", "containers", "com.example:1", "x:container:1"] {
            assert_eq!(own(free), None, "{free}");
        }
    }

    #[test]
    fn a_refusal_says_what_to_use_instead() {
        let error = check_not_own(&DeviceId::parse("container:1").unwrap()).unwrap_err();
        assert!(error.to_string().contains("holmctl rm"), "{error}");
    }
}
