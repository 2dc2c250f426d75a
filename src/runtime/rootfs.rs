//! Steps about the root: from a detached file system to the only tree the process can see.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::init::{Doing, Setup, Trouble};
use crate::model::ContainerName;
use crate::sys::mount::{self, Attributes, Depth};
use crate::sys::rooted::{self, Root};

/// What is mounted below this directory of the host arrives inside, and nothing goes the other way. machined uses it for
/// `machinectl bind`, before systemd 255; the directory is made by holmd, and nspawn has it in the same place. A host that
/// shares no mounts has nothing to send.
pub(super) fn open_incoming(setup: &mut Setup, name: &ContainerName) -> Result<(), Trouble> {
    let directory = match mount::copy_path(&Path::new(INCOMING).join(name.as_str()), Depth::One) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        directory => directory.doing("take the directory for what is sent in")?,
    };
    mount::make_slave(directory.as_fd()).doing("receive what is sent in")?;
    setup.incoming = Some(directory);
    Ok(())
}

/// Of nspawn and machined: a directory for each machine.
const INCOMING: &str = "/run/systemd/nspawn/propagate";

/// Nothing that is mounted here shows on the host, and nothing that the host mounts shows here.
pub(super) fn make_private() -> Result<(), Trouble> {
    mount::make_all_private().doing("make all mounts private")
}

/// C4, C25. A host without os-release is a host without a name, not an error.
pub(super) fn read_host_release(setup: &mut Setup) -> Result<(), Trouble> {
    let root = Root::of_process().doing("open the host's root")?;
    for path in ["etc/os-release", "usr/lib/os-release"] {
        if let Some(bytes) = root.read_file(path, 0x1_0000).doing("read the host's os-release")? {
            setup.host_release = String::from_utf8_lossy(&bytes).into_owned();
            break;
        }
    }
    Ok(())
}

/// C20. Nothing to say is as good as no file.
pub(super) fn read_host_resolver(setup: &mut Setup) -> Result<(), Trouble> {
    let root = Root::of_process().doing("open the host's root")?;
    let text = root.read_file("etc/resolv.conf", 0x1_0000).doing("read the host's resolv.conf")?;
    setup.host_resolver = text.filter(|text| !text.is_empty());
    Ok(())
}

/// Taken before the pivot, when host paths still mean something; put in place after it (R3).
pub(super) fn open_bind(setup: &mut Setup, source: &str) -> Result<(), Trouble> {
    let tree =
        mount::copy_path(Path::new(source), Depth::Tree).doing_with(|| format!("take '{source}' of the host"))?;
    setup.sources.push(Some(tree));
    Ok(())
}

/// The device's file system is attached first and its tree copied then: before Linux 6.15 only a mount of this namespace can
/// be copied. Any directory that every host has will do for it, in this namespace's copy of the host's tree; not the root
/// directory itself (see [`mount::pivot_into`]). It leaves with the old tree, so what else is on the device is out of reach.
pub(super) fn attach(setup: &mut Setup) -> Result<(), Trouble> {
    let device = setup.device.take().expect("a launch comes with a root");
    mount::attach_on_path(device.as_fd(), "/proc").doing("attach the root file system")?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let place = rustix::fs::openat2(&device, TREE, flags, Mode::empty(), resolve).doing("open rootfs in the device")?;
    let tree = mount::copy(place.as_fd(), Depth::One).doing("take rootfs as a mount")?;
    // Device nodes of an image open nothing; devices are in /dev, which is ours.
    mount::add_attributes(tree.as_fd(), Attributes::MOUNT_ATTR_NODEV, Depth::One).doing("make the root nodev")?;
    mount::attach(tree.as_fd(), place.as_fd()).doing("attach rootfs")?;
    setup.tree = Some(tree);
    Ok(())
}

/// Early, so that every later lookup, whatever tricks the image plays, cannot find the host: it is not there any more.
pub(super) fn pivot(setup: &mut Setup) -> Result<(), Trouble> {
    let tree = setup.tree.as_ref().expect("AttachRoot comes before PivotRoot");
    mount::pivot_into(tree.as_fd()).doing("make rootfs the root")?;
    setup.root = Some(Root::of_process().doing("open the new root")?);
    Ok(())
}

/// R3: the place is found inside the root, checked by what it is and not by its name, and the mount put on the descriptor.
pub(super) fn attach_bind(setup: &mut Setup, index: usize, destination: &str, read_only: bool) -> Result<(), Trouble> {
    let source = setup.sources.get_mut(index).and_then(Option::take).expect("OpenBind comes before AttachBind");
    let root = setup.root.as_ref().expect("PivotRoot comes before AttachBind");
    let place = make_place(root, &source, destination)?;
    refuse_kernel_areas(root, &place, destination)?;
    let mut attributes = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NODEV;
    attributes.set(Attributes::MOUNT_ATTR_RDONLY, read_only);
    mount::add_attributes(source.as_fd(), attributes, Depth::Tree)
        .doing_with(|| format!("set the attributes of the mount for '{destination}'"))?;
    mount::attach(source.as_fd(), place.as_fd()).doing_with(|| format!("mount on '{destination}'"))
}

/// A directory for a directory, an empty file for anything else.
fn make_place(root: &Root, source: &OwnedFd, destination: &str) -> Result<OwnedFd, Trouble> {
    let path = Path::new(destination);
    let place = match rooted::is_directory(source).doing("look at a bind mount's source")? {
        true => root.make_directories(path),
        false => root.make_file(path),
    };
    place.doing_with(|| format!("make '{destination}' inside"))
}

/// A link of the image can lead an innocent destination into /proc, /sys or /dev, where a mount would take protection away.
fn refuse_kernel_areas(root: &Root, place: &OwnedFd, destination: &str) -> Result<(), Trouble> {
    let device = rustix::fs::fstat(place).doing("look at a bind mount's destination")?.st_dev;
    for area in KERNEL_AREAS {
        let area = root.place(area).doing_with(|| format!("open {area}"))?;
        if rustix::fs::fstat(&area).doing("look at a kernel file system")?.st_dev == device {
            return Err(Trouble::refused(
                format!("'{destination}' leads to the kernel's file systems inside, where nothing can be mounted"),
                libc::EPERM,
            ));
        }
    }
    Ok(())
}

const KERNEL_AREAS: [&str; 8] =
    ["/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run/host"];

/// Last of the steps that may make something in it.
pub(super) fn make_read_only(setup: &mut Setup) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before ReadOnlyRoot");
    mount::add_attributes(root.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One).doing("make the root read-only")
}

/// The container's tree in its device, as `storage` lays it out.
const TREE: &str = "rootfs";
