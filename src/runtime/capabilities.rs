//! Which capabilities a payload keeps (R1). Pure.

use rustix::thread::CapabilitySet;

use crate::model::Capabilities;
use crate::sys::capability;

/// What a payload has when nobody says otherwise: enough to install packages and serve a low port, nothing that reaches the
/// host. Podman's list; without MKNOD, NET_RAW and AUDIT_WRITE (C22), which Docker adds.
const DEFAULT: [CapabilitySet; 11] = [
    CapabilitySet::CHOWN,
    CapabilitySet::DAC_OVERRIDE,
    CapabilitySet::FOWNER,
    CapabilitySet::FSETID,
    CapabilitySet::KILL,
    CapabilitySet::SETGID,
    CapabilitySet::SETUID,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_BIND_SERVICE,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::SETFCAP,
];

/// A word in a capability list that is no capability.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a capability: use a name such as NET_ADMIN (see capabilities(7)), or ALL")]
pub struct UnknownCapability(pub String);

/// The set to keep: the default, less what is dropped, with what is added.
pub(super) fn keep(wanted: &Capabilities) -> Result<CapabilitySet, UnknownCapability> {
    let mut set: CapabilitySet = DEFAULT.into_iter().collect();
    for name in &wanted.drop {
        set.remove(parse(name)?);
    }
    for name in &wanted.add {
        set.insert(parse(name)?);
    }
    Ok(set)
}

fn parse(name: &str) -> Result<CapabilitySet, UnknownCapability> {
    match name {
        "ALL" => Ok(capability::all()),
        name => capability::by_name(name).ok_or_else(|| UnknownCapability(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(add: &[&str], drop: &[&str]) -> Result<CapabilitySet, UnknownCapability> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        keep(&Capabilities { add: owned(add), drop: owned(drop) })
    }

    #[test]
    fn the_default_reaches_nothing_of_the_host() {
        let set = kept(&[], &[]).unwrap();
        assert_eq!(set.bits().count_ones(), 11);
        let reaching = CapabilitySet::SYS_ADMIN
            | CapabilitySet::DAC_READ_SEARCH
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::SYS_MODULE
            | CapabilitySet::MKNOD
            | CapabilitySet::AUDIT_CONTROL
            | CapabilitySet::AUDIT_READ
            | CapabilitySet::AUDIT_WRITE;
        assert!(!set.intersects(reaching));
    }

    #[test]
    fn all_is_dropped_before_anything_is_added() {
        assert_eq!(kept(&["CHOWN"], &["ALL"]).unwrap(), CapabilitySet::CHOWN);
        assert_eq!(kept(&["ALL"], &["ALL"]).unwrap(), capability::all());
        assert_eq!(kept(&[], &["ALL"]).unwrap(), CapabilitySet::empty());
    }

    #[test]
    fn an_unknown_name_is_an_error_wherever_it_stands() {
        for name in ["CAP_CHOWN", "chown", "", "FLY"] {
            assert_eq!(kept(&[name], &[]), Err(UnknownCapability(name.to_owned())));
            assert_eq!(kept(&[], &[name]), Err(UnknownCapability(name.to_owned())));
        }
    }
}
