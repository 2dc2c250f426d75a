//! Steps about the kernel's file systems: /proc, /sys, /dev, /run.
//!
//! Every mount is made detached and put in place by descriptor; /proc, /sys, /dev and /run must be real directories of the
//! image (R3, R8). Whatever is done below them goes through the descriptor of our own mount, so no link of the image and no
//! mount of somebody else's can be in the way.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};

use super::init::{Doing, Setup, Trouble};
use super::plan::Area;
use crate::sys::mount::{self, Attributes, Depth};
use crate::sys::rooted;

const NO_SUID: Attributes = Attributes::MOUNT_ATTR_NOSUID;
pub(super) const INERT: Attributes =
    Attributes::MOUNT_ATTR_NOSUID.union(Attributes::MOUNT_ATTR_NODEV).union(Attributes::MOUNT_ATTR_NOEXEC);

/// R8.
pub(super) fn mount_proc(setup: &mut Setup) -> Result<(), Trouble> {
    setup.proc = Some(mount_on_root(setup, "proc", "proc", &[], INERT)?);
    Ok(())
}

/// C11.
pub(super) fn mount_sys(setup: &mut Setup) -> Result<(), Trouble> {
    let attributes = INERT.union(Attributes::MOUNT_ATTR_RDONLY);
    setup.sys = Some(mount_on_root(setup, "sys", "sysfs", &[], attributes)?);
    Ok(())
}

/// R11, C18: seen from the cgroup namespace, so nothing above the payload's own cgroup shows. Where it is writable, the kernel
/// keeps the limits of that one from who is inside (`nsdelegate`, with which systemd mounts it).
pub(super) fn mount_cgroup(setup: &mut Setup, writable: bool) -> Result<(), Trouble> {
    let attributes = if writable { INERT } else { INERT.union(Attributes::MOUNT_ATTR_RDONLY) };
    let cgroup = mount::create("cgroup2", &[], attributes).doing("make a mount of cgroup2")?;
    let sys = setup.sys.as_ref().expect("MountSys comes before MountCgroup");
    mount::attach_at(cgroup.as_fd(), sys.as_fd(), "fs/cgroup").doing("mount /sys/fs/cgroup")
}

/// C13, C16.
pub(super) fn mount_dev(setup: &mut Setup) -> Result<(), Trouble> {
    let attributes = NO_SUID.union(Attributes::MOUNT_ATTR_NOEXEC);
    // Room for nodes and links; who wants files has /dev/shm.
    setup.dev = Some(mount_on_root(setup, "dev", "tmpfs", &[("mode", "755"), ("size", "1m")], attributes)?);
    Ok(())
}

/// Name and minor of the devices with major 1, and the one with major 5.
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

/// Nodes are made, not bound: one call each, and nothing of the host's /dev is trusted.
pub(super) fn make_devices(setup: &mut Setup) -> Result<(), Trouble> {
    let dev = setup.dev.as_ref().expect("MountDev comes before DeviceNodes");
    for (name, major, minor) in NODES {
        let device = makedev(major, minor);
        rustix::fs::mknodat(dev, name, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device)
            .doing_with(|| format!("make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        rustix::fs::symlinkat(target, dev, name).doing_with(|| format!("make /dev/{name}"))?;
    }
    Ok(())
}

/// An instance of its own (the kernel makes one for each mount); its nodes are what terminals are.
pub(super) fn mount_devpts(setup: &mut Setup) -> Result<(), Trouble> {
    let options = [("mode", "620"), ("ptmxmode", "666"), ("gid", "5")];
    setup.devpts = Some(mount_on_dev(setup, "pts", "devpts", &options, NO_SUID.union(Attributes::MOUNT_ATTR_NOEXEC))?);
    Ok(())
}

/// Its size is what other tools give it; it counts as the payload's memory either way.
pub(super) fn mount_shm(setup: &mut Setup) -> Result<(), Trouble> {
    mount_on_dev(setup, "shm", "tmpfs", &[("mode", "1777"), ("size", "64m")], INERT)?;
    Ok(())
}

/// The queues of the IPC namespace. A kernel without them (`CONFIG_POSIX_MQUEUE`) has none to show.
pub(super) fn mount_mqueue(setup: &mut Setup) -> Result<(), Trouble> {
    match mount_on_dev(setup, "mqueue", "mqueue", &[], INERT) {
        Err(Trouble::Call { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        result => result.map(drop),
    }
}

/// Volatile, as systemd's payloads expect it, but with the directories and files that the image has there: images of single
/// services rely on theirs (/run/postgresql, /run/mysqld).
pub(super) fn mount_run(setup: &mut Setup) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before MountRun");
    let place = root.real_directory("run").doing("open /run of the image")?;
    let attributes = NO_SUID.union(Attributes::MOUNT_ATTR_NODEV);
    let run = mount::create("tmpfs", &[("mode", "755")], attributes).doing("make a tmpfs for /run")?;
    let mut limit = MAX_RUN;
    rooted::copy_tree(place.as_fd(), run.as_fd(), &mut limit).doing("copy /run of the image")?;
    mount::attach(run.as_fd(), place.as_fd()).doing("mount /run")
}

/// Most that an image may have in /run, in bytes and entries.
const MAX_RUN: u64 = 4 << 20;

/// C24, C25, C28. Filled while detached, read-only when seen.
pub(super) fn mount_run_host(setup: &mut Setup, uuid: &str) -> Result<(), Trouble> {
    let host = mount::create("tmpfs", &[("mode", "755"), ("size", "1m")], INERT).doing("make a tmpfs for /run/host")?;
    let files = [
        ("container-manager", "holm\n"),
        ("container-uuid", &format!("{uuid}\n")),
        ("os-release", &setup.host_release),
    ];
    for (name, content) in files {
        rooted::write_new(host.as_fd(), name, content.as_bytes(), 0o444)
            .doing_with(|| format!("make /run/host/{name}"))?;
    }
    if let Some(resolver) = &setup.host_resolver {
        rooted::write_new(host.as_fd(), RESOLVER, resolver, 0o444).doing("make /run/host/resolv.conf")?;
    }
    for name in [INCOMING, UNIX_EXPORT, CREDENTIALS] {
        make_directory(&host, name, 0o755).doing_with(|| format!("make /run/host/{name}"))?;
    }
    if let Some(socket) = &setup.notify {
        name_socket(socket, &host).doing("make /run/host/notify")?;
    }
    let inaccessible = make_inaccessible(&host)?;
    let root = setup.root.as_ref().expect("PivotRoot comes before RunHost");
    let place = root.make_directories("/run/host".as_ref()).doing("make /run/host")?;
    mount::add_attributes(host.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One).doing("make /run/host read-only")?;
    mount::attach(host.as_fd(), place.as_fd()).doing("mount /run/host")?;
    setup.run_host = Some(host);
    setup.inaccessible = Some(inaccessible);
    setup.uuid = Some(uuid.to_owned());
    Ok(())
}

/// C5, C26. A name is given to a socket relative to where the process is. Everybody inside may write to it.
fn name_socket(socket: &OwnedFd, host: &OwnedFd) -> std::io::Result<()> {
    rustix::process::fchdir(host)?;
    rustix::net::bind(socket, &rustix::net::SocketAddrUnix::new(NOTIFY)?)?;
    rustix::process::chdir("/")?;
    Ok(rustix::fs::chmodat(host, NOTIFY, Mode::from_raw_mode(0o666), AtFlags::empty())?)
}

const NOTIFY: &str = "notify";
const RESOLVER: &str = "resolv.conf";
const INCOMING: &str = "incoming";
const UNIX_EXPORT: &str = "unix-export";
pub(super) const CREDENTIALS: &str = "credentials";

/// C27. Read-only, so that nobody inside reaches the host's directory; mounts arrive all the same.
pub(super) fn attach_incoming(setup: &mut Setup) -> Result<(), Trouble> {
    let Some(incoming) = &setup.incoming else { return Ok(()) };
    let attributes = INERT.union(Attributes::MOUNT_ATTR_RDONLY);
    mount::add_attributes(incoming.as_fd(), attributes, Depth::One).doing("make /run/host/incoming read-only")?;
    let host = setup.run_host.as_ref().expect("RunHost comes before Incoming");
    mount::attach_at(incoming.as_fd(), host.as_fd(), INCOMING).doing("mount /run/host/incoming")
}

/// C29. Small, since its content counts as nobody's.
pub(super) fn mount_unix_export(setup: &mut Setup) -> Result<(), Trouble> {
    let options = [("mode", "755"), ("size", "4m"), ("nr_inodes", "64")];
    let export = mount::create("tmpfs", &options, INERT).doing("make a tmpfs for /run/host/unix-export")?;
    let host = setup.run_host.as_ref().expect("RunHost comes before UnixExport");
    mount::attach_at(export.as_fd(), host.as_fd(), UNIX_EXPORT).doing("mount /run/host/unix-export")
}

/// C20: over a file, never through a link: an image that links to a resolver's file means that. Nothing is written to the
/// root but an empty file where there was none.
pub(super) fn attach_resolver(setup: &mut Setup) -> Result<(), Trouble> {
    if setup.host_resolver.is_none() {
        return Ok(());
    }
    let root = setup.root.as_ref().expect("PivotRoot comes before Resolver");
    let etc = root.make_directories("/etc".as_ref()).doing("open /etc inside")?;
    match rustix::fs::statat(&etc, RESOLVER, AtFlags::SYMLINK_NOFOLLOW) {
        Err(rustix::io::Errno::NOENT) => {
            rooted::write_new(etc.as_fd(), RESOLVER, b"", 0o644).doing("make /etc/resolv.conf")?;
        }
        status if FileType::from_raw_mode(status.doing("look at /etc/resolv.conf")?.st_mode).is_file() => {}
        _ => return Ok(()),
    }
    let host = setup.run_host.as_ref().expect("RunHost comes before Resolver");
    let resolver = mount::copy_at(host.as_fd(), RESOLVER, Depth::One).doing("take the host's resolv.conf")?;
    mount::attach_at(resolver.as_fd(), etc.as_fd(), RESOLVER).doing("mount /etc/resolv.conf")
}

/// One empty, mode 000 file of each kind, to be mounted over what is to be hidden.
fn make_inaccessible(host: &OwnedFd) -> Result<OwnedFd, Trouble> {
    let kinds = [
        ("reg", FileType::RegularFile),
        ("fifo", FileType::Fifo),
        ("sock", FileType::Socket),
        ("chr", FileType::CharacterDevice),
        ("blk", FileType::BlockDevice),
    ];
    let directory = make_directory(host, "inaccessible", 0o755).doing("make /run/host/inaccessible")?;
    for (name, kind) in kinds {
        rustix::fs::mknodat(&directory, name, kind, Mode::empty(), 0)
            .doing_with(|| format!("make /run/host/inaccessible/{name}"))?;
    }
    rustix::fs::mkdirat(&directory, "dir", Mode::empty()).doing("make /run/host/inaccessible/dir")?;
    Ok(directory)
}

/// R12.
pub(super) fn make_read_only(setup: &mut Setup, area: Area, path: &str) -> Result<(), Trouble> {
    let area = area_of(setup, area);
    let part = match mount::copy_at(area.as_fd(), path, Depth::One) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        part => part.doing_with(|| format!("take '{path}'"))?,
    };
    mount::add_attributes(part.as_fd(), Attributes::MOUNT_ATTR_RDONLY, Depth::One)
        .doing_with(|| format!("make '{path}' read-only"))?;
    mount::attach_at(part.as_fd(), area.as_fd(), path).doing_with(|| format!("mount '{path}' read-only"))
}

/// R9: the cover is a file of our own tmpfs, found by descriptor; there is no /dev/null that could be something else.
pub(super) fn mask(setup: &mut Setup, area: Area, path: &str, cover: &str) -> Result<(), Trouble> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    // Looked at first: a cover that is made and not used costs the kernel a grace period (70 µs).
    let place = match rustix::fs::openat(area_of(setup, area), path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        place => place.doing_with(|| format!("open '{path}'"))?,
    };
    let inaccessible = setup.inaccessible.as_ref().expect("RunHost comes before masks");
    let cover = mount::copy_at(inaccessible.as_fd(), cover, Depth::One).doing("take a cover")?;
    mount::attach(cover.as_fd(), place.as_fd()).doing_with(|| format!("hide '{path}'"))
}

fn area_of(setup: &Setup, area: Area) -> &OwnedFd {
    match area {
        Area::Proc => setup.proc.as_ref().expect("MountProc comes before what is done in it"),
        Area::Sys => setup.sys.as_ref().expect("MountSys comes before what is done in it"),
    }
}

fn mount_on_root(
    setup: &Setup,
    name: &str,
    file_system: &str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd, Trouble> {
    let root = setup.root.as_ref().expect("PivotRoot comes before mounts");
    let place = root
        .real_directory(name)
        .doing_with(|| format!("open /{name} of the image, which must be a directory and no link"))?;
    let mount =
        mount::create(file_system, options, attributes).doing_with(|| format!("make a mount of {file_system}"))?;
    mount::attach(mount.as_fd(), place.as_fd()).doing_with(|| format!("mount /{name}"))?;
    Ok(mount)
}

fn mount_on_dev(
    setup: &Setup,
    name: &str,
    file_system: &str,
    options: &[(&str, &str)],
    attributes: Attributes,
) -> Result<OwnedFd, Trouble> {
    let dev = setup.dev.as_ref().expect("MountDev comes before what is in it");
    rustix::fs::mkdirat(dev, name, Mode::from_raw_mode(0o755)).doing_with(|| format!("make /dev/{name}"))?;
    let mount =
        mount::create(file_system, options, attributes).doing_with(|| format!("make a mount of {file_system}"))?;
    mount::attach_at(mount.as_fd(), dev.as_fd(), name).doing_with(|| format!("mount /dev/{name}"))?;
    Ok(mount)
}

fn make_directory(parent: &OwnedFd, name: &str, mode: u32) -> std::io::Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(mode))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}
