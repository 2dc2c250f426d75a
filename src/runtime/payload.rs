//! Steps about the process: who it is, what it holds, what it becomes.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, makedev};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::environment::{self, Facts};
use super::init::{Doing, Setup, Trouble, fail};
use super::plan::Step;
use super::user::{self, Identity};
use super::wire::{Failure, InitEnd};
use super::{command, credentials, reaper};
use crate::sys::process::{self, Cloned};
use crate::sys::{capability, loopback, namespace, pty, signal};

/// The process was made in the payload's cgroup, so that is where the namespace is rooted.
pub(super) fn new_cgroup_namespace() -> Result<(), Trouble> {
    namespace::new_cgroup_namespace().doing("make a cgroup namespace")
}

/// C9.
pub(super) fn set_hostname(name: &str) -> Result<(), Trouble> {
    namespace::set_hostname(name).doing_with(|| format!("set the host name to '{name}'"))
}

/// Programs expect 127.0.0.1 even where there is no other network.
pub(super) fn loopback_up() -> Result<(), Trouble> {
    loopback::up().doing("set lo up")
}

/// R2, R16.
pub(super) fn find_user(setup: &mut Setup, wanted: Option<&str>) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("the root is there before the user is looked up");
    let read = |path: &str| {
        let bytes = root.read_file(path, MAX_ACCOUNTS).doing_with(|| format!("read {path} inside"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    let found = user::find(wanted.unwrap_or("0"), &read("/etc/passwd")?, &read("/etc/group")?);
    let no_such_user = || Trouble::Named(Failure::NoSuchUser(wanted.unwrap_or("0").to_owned()));
    setup.identity = Some(found.ok_or_else(no_such_user)?);
    Ok(())
}

/// Longest /etc/passwd and /etc/group in bytes.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// In a joined container: where its devices are. Whatever they are by now, they are checked when used.
pub(super) fn open_devices(setup: &mut Setup) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("a joined container has a root");
    setup.dev = Some(root.place("/dev").doing("open /dev inside")?);
    if setup.process.terminal {
        setup.devpts = Some(root.place("/dev/pts").doing("open /dev/pts inside")?);
    }
    let read = |path: &str| -> Result<String, Trouble> {
        let bytes = root.read_file(path, 0x1_0000).doing_with(|| format!("read {path}"))?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    };
    setup.uuid = Some(read("/run/host/container-uuid")?.trim().to_owned()).filter(|uuid| !uuid.is_empty());
    setup.host_release = read("/run/host/os-release")?;
    Ok(())
}

/// R10: the terminal is of the container's devpts, and its slave comes from the master, not from a path.
pub(super) fn open_terminal(setup: &mut Setup, size: Option<(u16, u16)>) -> Result<(), Trouble> {
    let devpts = setup.devpts.as_ref().expect("devpts comes before a terminal");
    let terminal = pty::open_in(devpts.as_fd()).doing("open a terminal in /dev/pts")?;
    if let Some((rows, columns)) = size {
        terminal.resize(rows, columns).doing("set the terminal's size")?;
    }
    let identity = setup.identity.as_ref().expect("FindUser comes before OpenTerminal");
    if identity.uid != 0 {
        rustix::fs::fchown(&terminal.slave, Some(Uid::from_raw(identity.uid)), None)
            .doing("give the terminal to the user")?;
    }
    setup.terminal = Some(terminal);
    Ok(())
}

/// Without a terminal there is no /dev/console, as with other container tools; but a whole system always has one.
pub(super) fn make_console(setup: &mut Setup) -> Result<(), Trouble> {
    use crate::sys::mount::{self, Depth};
    use crate::sys::rooted;
    let dev = setup.dev.as_ref().expect("MountDev comes before Console");
    let devpts = setup.devpts.as_ref().expect("MountDevPts comes before Console");
    let terminal = setup.terminal.as_ref().expect("OpenTerminal comes before Console");
    rooted::write_new(dev.as_fd(), "console", b"", 0o600).doing("make /dev/console")?;
    let node = mount::copy_at(devpts.as_fd(), terminal.number.to_string(), Depth::One).doing("take the terminal")?;
    let (taken, slave) = (rustix::fs::fstat(&node), rustix::fs::fstat(&terminal.slave));
    let (taken, slave) = (taken.doing("look at the terminal")?, slave.doing("look at the terminal")?);
    if (taken.st_dev, taken.st_ino) != (slave.st_dev, slave.st_ino) {
        return Err(Trouble::refused("the terminal changed while it was taken", libc::ESTALE));
    }
    mount::attach_at(node.as_fd(), dev.as_fd(), "console").doing("mount /dev/console")
}

/// As root, as other tools do it, so that a directory which its user may not enter works too. Magic links lead nowhere, and
/// what getcwd says must be inside (R4, CVE-2024-21626).
pub(super) fn enter_directory(setup: &mut Setup, path: &str) -> Result<(), Trouble> {
    let root = setup.root.as_ref().expect("the root is there before a directory in it");
    if !path.starts_with('/') {
        return Err(Trouble::refused(format!("the working directory '{path}' is not absolute"), libc::EINVAL));
    }
    let place = match root.place(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => root.make_directories(Path::new(path)),
        place => place,
    };
    let place = place.doing_with(|| format!("open the working directory '{path}'"))?;
    rustix::process::fchdir(place).doing_with(|| format!("go to the working directory '{path}'"))?;
    let current = rustix::process::getcwd(Vec::new()).doing("ask for the working directory")?;
    if !current.to_bytes().starts_with(b"/") {
        return Err(Trouble::refused(format!("the working directory '{path}' is outside the container"), libc::EXDEV));
    }
    Ok(())
}

/// R22. A kernel without keyrings has none to share.
pub(super) fn new_keyring() -> Result<(), Trouble> {
    match process::new_session_keyring() {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        result => result.doing("make a session keyring"),
    }
}

/// holmd has raised its limit of open files for itself. What systemd gives a service is what programs expect: those that use
/// select(2) break above a soft limit of 1024, old ones close every descriptor up to it, and who needs more raises it.
pub(super) fn limit_resources() -> Result<(), Trouble> {
    let hard = getrlimit(Resource::Nofile).maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    let limit = Rlimit { current: Some(FILES.min(hard)), maximum: Some(hard) };
    setrlimit(Resource::Nofile, limit).doing("limit the number of open files")
}

/// systemd-system.conf(5), DefaultLimitNOFILE=.
const FILES: u64 = 1024;
const MOST_FILES: u64 = 524_288;

/// The terminal, or what was given, or the container's own /dev/null: never a file of the host's that nobody passed.
pub(super) fn place_stdio(setup: &mut Setup) -> Result<(), Trouble> {
    let mut given = setup.stdio.each_mut().map(Option::take);
    if let Some(terminal) = &setup.terminal {
        for slot in &mut given {
            *slot = Some(terminal.slave.try_clone().doing("duplicate the terminal")?);
        }
    }
    if given.iter().any(Option::is_none) {
        let dev = setup.dev.as_ref().expect("/dev is there before standard input");
        let null = open_null(dev.as_fd())?;
        for slot in given.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(null.try_clone().doing("duplicate /dev/null")?);
        }
    }
    let [Some(input), Some(output), Some(errors)] = given else { unreachable!("every slot was filled") };
    rustix::stdio::dup2_stdin(input).doing("place standard input")?;
    rustix::stdio::dup2_stdout(output).doing("place standard output")?;
    rustix::stdio::dup2_stderr(errors).doing("place standard error")
}

/// R9's check: in a joined container the payload may have put something else there.
fn open_null(dev: BorrowedFd<'_>) -> Result<OwnedFd, Trouble> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let status = rustix::fs::statat(dev, "null", AtFlags::SYMLINK_NOFOLLOW).doing("look at /dev/null inside")?;
    let is_null = |status: &rustix::fs::Stat| {
        rustix::fs::FileType::from_raw_mode(status.st_mode).is_char_device() && status.st_rdev == makedev(1, 3)
    };
    if !is_null(&status) {
        return Err(Trouble::refused("/dev/null inside is not the null device", libc::ENODEV));
    }
    let null = rustix::fs::openat(dev, "null", flags, Mode::empty()).doing("open /dev/null inside")?;
    // It may have been exchanged since.
    if !is_null(&rustix::fs::fstat(&null).doing("look at /dev/null inside")?) {
        return Err(Trouble::refused("/dev/null inside is not the null device", libc::ENODEV));
    }
    rustix::fs::fcntl_setfl(&null, OFlags::empty()).doing("make /dev/null blocking")?;
    Ok(null)
}

/// Never the monitor's session; with a terminal, one that is controlled by it.
pub(super) fn new_session(take_terminal: bool) -> Result<(), Trouble> {
    process::new_session().doing("start a session")?;
    if take_terminal {
        pty::take_control(rustix::stdio::stdin()).doing("take the terminal")?;
    }
    Ok(())
}

/// R1, R6.
pub(super) fn limit_bounding_set(keep: CapabilitySet) -> Result<(), Trouble> {
    capability::limit_bounding_set(keep).doing("limit the capability bounding set")
}

/// R15: the groups are always set, and the primary one is among them. The kernel empties the capability sets of a user that is
/// not root here (capabilities(7), "Effect of user ID changes").
pub(super) fn become_user(setup: &mut Setup) -> Result<(), Trouble> {
    let Identity { uid, gid, groups, .. } = setup.identity.as_ref().expect("FindUser comes before User");
    let groups: Vec<_> = groups.iter().copied().map(Gid::from_raw).collect();
    let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
    rustix::thread::set_thread_groups(&groups).doing("set the supplementary groups")?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).doing("set the group")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).doing("set the user")?;
    // A change of ids sets this to the sysctl fs.suid_dumpable (R5).
    process::make_undumpable().doing("make the process undumpable")?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    Ok(())
}

/// R6: inheritable empty; permitted and effective what is kept, for root, and nothing for anybody else.
pub(super) fn limit_own_sets(setup: &mut Setup, keep: CapabilitySet) -> Result<(), Trouble> {
    let identity = setup.identity.as_ref().expect("FindUser comes before OwnSets");
    let own = if identity.uid == 0 { keep } else { CapabilitySet::empty() };
    capability::limit_own_sets(own).doing("limit the capability sets")
}

/// prctl(2), PR_SET_NO_NEW_PRIVS.
pub(super) fn no_new_privileges() -> Result<(), Trouble> {
    rustix::thread::set_no_new_privs(true).doing("set no_new_privs")
}

/// R4: whatever was opened without the flag, by whomever, does not reach the payload; only what is passed on does.
pub(super) fn close_fds(setup: &Setup) -> Result<(), Trouble> {
    process::close_on_exec_from(setup.first_free().unsigned_abs()).doing("mark descriptors close-on-exec")
}

/// The end of the plan: becomes the program, or its init. Returns from neither; a failure is reported as such.
pub(super) fn execute(setup: &Setup, under_init: bool, report: &InitEnd) -> ! {
    let step = Step::Exec { under_init };
    if under_init {
        match process::clone_process(UnshareFlags::empty(), None).doing("fork the command") {
            Err(trouble) => fail(report, &step, trouble),
            Ok(Cloned::Parent(child)) => reaper::stay(child.pid),
            Ok(Cloned::Child) => {
                if let Err(trouble) = new_session(setup.process.terminal) {
                    fail(report, &step, trouble);
                }
            }
        }
    }
    match become_program(setup) {
        Ok(never) => match never {},
        Err(trouble) => fail(report, &step, trouble),
    }
}

fn become_program(setup: &Setup) -> Result<std::convert::Infallible, Trouble> {
    let variables = variables(setup)?;
    let path = environment::value(&variables, "PATH").unwrap_or_default().to_owned();
    let arguments = to_c_strings(&setup.process.command)?;
    let variables = to_c_strings(&variables)?;
    // The monitor's mask: everything blocked. A process 1 that does not listen yet would lose a signal that is not.
    match setup.kept_blocked {
        Some(signal) => signal::block_only(signal.number()),
        None => signal::unblock_all(),
    }
    .doing("unblock signals")?;
    Err(Trouble::Named(command::execute(&setup.process.command[0], &arguments, &variables, &path)))
}

fn variables(setup: &Setup) -> Result<Vec<String>, Trouble> {
    let identity = setup.identity.as_ref().expect("FindUser comes before Exec");
    let system = rustix::system::uname();
    let facts = Facts {
        uuid: setup.uuid.as_deref(),
        hostname: &system.nodename().to_string_lossy(),
        home: &identity.home,
        terminal: match (&setup.terminal, setup.process.terminal) {
            (None, _) => None,
            (Some(_), true) => Some("xterm"),
            // A console that nobody looks at but the journal, which shows no colours.
            (Some(_), false) => Some("dumb"),
        },
        host_release: &setup.host_release,
    };
    let listen = environment::listen(std::process::id(), &setup.fd_names);
    let credentials = setup.has_credentials.then(|| format!("CREDENTIALS_DIRECTORY={}", credentials::DIRECTORY));
    let notify = setup.notify.is_some().then(|| "NOTIFY_SOCKET=/run/host/notify".to_owned());
    // Ours come last: what the caller says of them is of another place.
    let given: Vec<_> =
        setup.process.environment.iter().cloned().chain(listen).chain(credentials).chain(notify).collect();
    environment::build(facts, &given)
        .map_err(|entry| Trouble::refused(format!("'{entry}' in the environment is not NAME=VALUE"), libc::EINVAL))
}

fn to_c_strings(texts: &[String]) -> Result<Vec<CString>, Trouble> {
    let convert = |text: &String| {
        CString::new(text.as_str())
            .map_err(|_| Trouble::refused("a NUL byte in the command or the environment", libc::EINVAL))
    };
    texts.iter().map(convert).collect()
}
