//! Steps that only a payload which is a whole system takes: what its init expects to find, by systemd's container interface.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, FileType};

use super::init::{Doing, Setup, Trouble};
use crate::sys::mount::{self, Attributes};
use crate::sys::rooted::Root;

/// Empty at each boot, as on a machine: what the image or an earlier boot left there is covered.
pub(super) fn mount_volatile(setup: &mut Setup, path: &str, size: &str) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before MountVolatile");
    let place = root.make_directories(path.as_ref()).doing_with(|| format!("make {path}"))?;
    let attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    let volatile = mount::create("tmpfs", &[("mode", "1777"), ("size", size)], attributes)
        .doing_with(|| format!("make a tmpfs for {path}"))?;
    mount::attach(volatile.as_fd(), place.as_fd()).doing_with(|| format!("mount {path}"))
}

/// C2. A system that has none yet takes `container_uuid`, and knows by it that this is its first boot. One that has another has
/// it from its image, or from the container that it is a clone of.
pub(super) fn set_machine_id(setup: &mut Setup, id: &str) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before MachineId");
    let Some(now) = root.read_file(MACHINE_ID, 0x1000).doing("read /etc/machine-id")? else { return Ok(()) };
    let now = String::from_utf8_lossy(&now);
    if !is_id(now.trim()) || now.trim() == id {
        return Ok(());
    }
    root.overwrite_file(MACHINE_ID, format!("{id}\n").as_bytes()).doing("write /etc/machine-id")
}

/// machine-id(5): anything else means that it is not initialised.
fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

const MACHINE_ID: &str = "/etc/machine-id";

/// C33: where there is this directory the system's journal is kept, and there the host finds it. A root that has no place for
/// it has a journal in memory, or none.
pub(super) fn make_journal_directory(setup: &mut Setup, id: &str) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before JournalDirectory");
    let _ = root.make_directories(format!("/var/log/journal/{id}").as_ref());
    Ok(())
}

/// C19. Only a link into the database of zones has a name that means the same inside.
pub(super) fn read_host_zone(setup: &mut Setup) -> Result<(), Trouble> {
    let link = rustix::fs::readlink("/etc/localtime", Vec::new()).ok();
    setup.host_zone = link.and_then(|link| zone_of(&link.to_string_lossy()));
    Ok(())
}

fn zone_of(link: &str) -> Option<String> {
    let zone = link.split_once("zoneinfo/")?.1;
    let part = |part: &str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+-_".contains(&byte);
        !part.is_empty() && part.bytes().all(known)
    };
    zone.split('/').all(part).then(|| zone.to_owned())
}

/// Where the container knows the zone, and has no file of its own in place of the link.
pub(super) fn set_zone(setup: &mut Setup) -> Result<(), Trouble> {
    let Some(zone) = &setup.host_zone else { return Ok(()) };
    let root = setup.root.as_ref().expect("PivotRoot comes before Zone");
    if root.place(format!("/usr/share/zoneinfo/{zone}")).is_err() {
        return Ok(());
    }
    let etc = root.make_directories("/etc".as_ref()).doing("open /etc inside")?;
    match rustix::fs::statat(&etc, LOCALTIME, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => {}
        status if FileType::from_raw_mode(status.doing("look at /etc/localtime")?.st_mode).is_symlink() => {
            rustix::fs::unlinkat(&etc, LOCALTIME, AtFlags::empty()).doing("remove /etc/localtime")?;
        }
        _ => return Ok(()),
    }
    rustix::fs::symlinkat(format!("../usr/share/zoneinfo/{zone}"), &etc, LOCALTIME).doing("make /etc/localtime")
}

const LOCALTIME: &str = "localtime";

/// Services of the system that have a namespace of their own see what is mounted later. What is sent in stays the host's to
/// send, and can only be moved from a mount that is not shared.
pub(super) fn share_mounts(setup: &mut Setup) -> Result<(), Trouble> {
    let root = Root::of_process().doing("open the root")?;
    mount::make_shared(root.as_fd()).doing("make the mounts shared")?;
    match &setup.incoming {
        Some(incoming) => mount::make_slave(incoming.as_fd()).doing("receive what is sent in"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_is_what_the_link_leads_to_in_the_database() {
        for link in ["/usr/share/zoneinfo/Europe/Berlin", "../usr/share/zoneinfo/Europe/Berlin"] {
            assert_eq!(zone_of(link).as_deref(), Some("Europe/Berlin"));
        }
        assert_eq!(zone_of("/usr/share/zoneinfo/Etc/GMT+1").as_deref(), Some("Etc/GMT+1"));
        for link in ["/etc/zone", "/usr/share/zoneinfo/", "/usr/share/zoneinfo/../../etc/shadow", "zoneinfo//x"] {
            assert_eq!(zone_of(link), None, "{link}");
        }
    }

    #[test]
    fn only_a_whole_id_counts_as_one() {
        assert!(is_id("0123456789abcdef0123456789abcdef"));
        for text in ["", "uninitialized", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdeg"] {
            assert!(!is_id(text), "{text}");
        }
    }
}
