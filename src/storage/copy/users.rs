//! Who uses which tree, as the kernel tells it: also what an earlier daemon handed out.
//!
//! | a tree is used by | which is seen in |
//! |---|---|
//! | a mount of it, or of a part of it, in any mount namespace | `/proc/<pid>/mountinfo`: the directory that is mounted |
//! | a mount of something else on a directory in it | the daemon's own table of mounts |
//! | a process that has something in it open, or stands in it | its descriptors, its working directory and its root |
//! | a mount that is in no mount namespace (`OpenDevice`) | a directory of it that some process has open |
//!
//! Not seen are descriptors on their way through a socket, mount namespaces that no process is in, and a detached mount of a
//! part of a tree that is known by nothing above.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use super::super::TREE;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::proc;

/// The trees in use, each by its path below the set's directory (`trees/web`), with its users in words: the first few.
pub(super) type Users = BTreeMap<PathBuf, Vec<String>>;

/// Looks at every process. It takes about a millisecond for ten of them.
pub(super) fn of_trees_in(directory: &Path) -> io::Result<Users> {
    let home = Home::of(directory)?;
    let processes = processes()?;
    let namespaces = Namespaces::of(&processes);
    let mut found = Found { home: &home, users: Users::new(), tops: None };
    for (process, mounts) in &namespaces.tables {
        found.mounts(process, mounts);
    }
    found.mounts_on_trees()?;
    for process in &processes {
        found.files(process, &namespaces);
    }
    Ok(found.users)
}

/// Where the set's directory is for the kernel: the same in every mount namespace.
struct Home {
    directory: PathBuf,
    device: String,
    /// From the root of its file system.
    root: PathBuf,
}

impl Home {
    fn of(directory: &Path) -> io::Result<Self> {
        let file = File::open(directory)?;
        let number = mount_of(&PathBuf::from(format!("/proc/self/fdinfo/{}", file.as_raw_fd())));
        let directory = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mounts = mountinfo::parse(&fs::read("/proc/self/mountinfo")?);
        let mount = mounts.into_iter().find(|mount| Some(mount.id) == number);
        let mount = mount.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "its mount is in no table"))?;
        let root = on_file_system(&mount, &directory).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { directory, device: mount.device, root })
    }

    /// The tree, by its path below the directory, in which a path of a file system is.
    fn tree(&self, device: &str, path: &Path) -> Option<PathBuf> {
        (device == self.device).then(|| tree_in(path.strip_prefix(&self.root).ok()?)).flatten()
    }
}

/// The place and the name of the device that a path below the set's directory leads to or into.
fn tree_in(path: &Path) -> Option<PathBuf> {
    let mut parts = path.components();
    let (place, name) = (parts.next()?, parts.next()?);
    Some(Path::new(place.as_os_str()).join(name))
}

/// Where on its file system a path of a mount is.
fn on_file_system(mount: &Mount, path: &Path) -> Option<PathBuf> {
    Some(mount.root.join(path.strip_prefix(&mount.point).ok()?))
}

/// A process, and in which mount namespace below which root it is: all that are alike see the same table of mounts.
struct Process {
    number: u32,
    proc: PathBuf,
    view: (PathBuf, PathBuf),
}

impl Process {
    fn describe(&self, what: &str) -> String {
        let name = fs::read_to_string(self.proc.join("comm")).unwrap_or_default();
        format!("process {} ({}), which has it {what}", self.number, name.trim())
    }
}

/// Those that could be looked at; one that ends meanwhile uses nothing. Not what this process is about to execute, which
/// has everything open that this one has.
fn processes() -> io::Result<Vec<Process>> {
    let own = std::process::id();
    let program = fs::read_link("/proc/self/exe")?;
    let is_fork = |number, proc: &Path| {
        fs::read_link(proc.join("exe")).is_ok_and(|path| path == program)
            && proc::stat(number).is_ok_and(|stat| stat.parent == own)
    };
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let proc = PathBuf::from(format!("/proc/{number}"));
        let (Ok(namespace), Ok(root)) = (fs::read_link(proc.join("ns/mnt")), fs::read_link(proc.join("root"))) else {
            continue;
        };
        if is_fork(number, &proc) {
            continue;
        }
        found.push(Process { number, proc, view: (namespace, root) });
    }
    Ok(found)
}

/// The tables of mounts, one for each view that processes have.
struct Namespaces<'a> {
    tables: Vec<(&'a Process, Vec<Mount>)>,
    of_view: HashMap<&'a (PathBuf, PathBuf), usize>,
    /// Every mount of every table.
    known: HashSet<u64>,
}

impl<'a> Namespaces<'a> {
    fn of(processes: &'a [Process]) -> Self {
        let mut namespaces = Self { tables: Vec::new(), of_view: HashMap::new(), known: HashSet::new() };
        for process in processes {
            if namespaces.of_view.contains_key(&process.view) {
                continue;
            }
            let mounts = mountinfo::parse(&fs::read(process.proc.join("mountinfo")).unwrap_or_default());
            // One that ends has none left; another of its view is asked instead.
            if !mounts.is_empty() {
                namespaces.known.extend(mounts.iter().map(|mount| mount.id));
                namespaces.of_view.insert(&process.view, namespaces.tables.len());
                namespaces.tables.push((process, mounts));
            }
        }
        namespaces
    }

    fn mounts(&self, process: &Process) -> &[Mount] {
        self.of_view.get(&process.view).map_or(&[], |index| &self.tables[*index].1)
    }
}

struct Found<'a> {
    home: &'a Home,
    users: Users,
    /// The trees by device number and inode of their tops; read when somebody has a detached mount.
    tops: Option<HashMap<(u64, u64), PathBuf>>,
}

impl Found<'_> {
    fn mounts(&mut self, process: &Process, mounts: &[Mount]) {
        for mount in mounts {
            if let Some(tree) = self.home.tree(&mount.device, &mount.root) {
                self.note(tree, || process.describe(&format!("mounted on {}", mount.point.display())));
            }
        }
    }

    /// Deleting a tree with something mounted in it would delete that.
    fn mounts_on_trees(&mut self) -> io::Result<()> {
        for mount in mountinfo::parse(&fs::read("/proc/self/mountinfo")?) {
            if let Some(tree) = mount.point.strip_prefix(&self.home.directory).ok().and_then(tree_in) {
                self.note(tree, || format!("a mount on {}", mount.point.display()));
            }
        }
        Ok(())
    }

    fn files(&mut self, process: &Process, namespaces: &Namespaces<'_>) {
        let own = process.number == std::process::id();
        let mounts = namespaces.mounts(process);
        // What this process itself has open are leases, which are counted; but not what it hands out just now.
        for link in ["cwd", "root"].iter().filter(|_| !own) {
            if let Ok(path) = fs::read_link(process.proc.join(link)) {
                self.path(process, mounts, &path, None);
            }
        }
        for entry in fs::read_dir(process.proc.join("fd")).into_iter().flatten().flatten() {
            let link = entry.path();
            let Some(path) = fs::read_link(&link).ok().filter(|path| path.is_absolute()) else { continue };
            let Some(mount) = mount_of(&process.proc.join("fdinfo").join(entry.file_name())) else { continue };
            if !namespaces.known.contains(&mount) {
                self.detached(process, &link);
            } else if !own {
                self.path(process, mounts, &path, Some(mount));
            }
        }
    }

    /// Something that a process has open or stands in: on `mount`, or on whichever its path leads to.
    fn path(&mut self, process: &Process, mounts: &[Mount], path: &Path, mount: Option<u64>) {
        let on = mounts.iter().filter(|at| mount.map_or_else(|| path.starts_with(&at.point), |mount| at.id == mount));
        // The longest mount point is the one that is looked through.
        let Some(mount) = on.max_by_key(|mount| mount.point.as_os_str().len()) else { return };
        let tree = on_file_system(mount, path).and_then(|path| self.home.tree(&mount.device, &path));
        if let Some(tree) = tree {
            self.note(tree, || process.describe("open"));
        }
    }

    /// A descriptor on a mount that is in no table: what is above it tells which tree that is of.
    fn detached(&mut self, process: &Process, link: &Path) {
        // Of what is no directory nothing can be reached; what is open stays so.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at: OwnedFd = match rustix::fs::openat(CWD, link, flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(_) => return,
        };
        let mut below = None;
        while let Ok(stat) = rustix::fs::fstat(&at) {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(tree) = self.tops().get(&inode).cloned() {
                self.note(tree, || process.describe("open, as a mount of its own"));
                return;
            }
            // The top of a mount is its own parent.
            if below.replace(inode) == Some(inode) {
                return;
            }
            match rustix::fs::openat(&at, "..", flags, Mode::empty()) {
                Ok(parent) => at = parent,
                Err(_) => return,
            }
        }
    }

    fn tops(&mut self) -> &HashMap<(u64, u64), PathBuf> {
        let directory = &self.home.directory;
        self.tops.get_or_insert_with(|| tops_in(directory))
    }

    fn note(&mut self, tree: PathBuf, who: impl FnOnce() -> String) {
        let users = self.users.entry(tree).or_default();
        if users.len() < NAMED {
            users.push(who());
        }
    }
}

/// How many users of a tree are named.
const NAMED: usize = 3;

fn tops_in(directory: &Path) -> HashMap<(u64, u64), PathBuf> {
    let mut tops = HashMap::new();
    for place in ["trees", "pending", "trash"] {
        for entry in fs::read_dir(directory.join(place)).into_iter().flatten().flatten() {
            let device = entry.path();
            for top in [device.join(TREE), device] {
                let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
                if let Ok(stat) = rustix::fs::statat(CWD, &top, flags) {
                    tops.insert((stat.st_dev, stat.st_ino), Path::new(place).join(entry.file_name()));
                }
            }
        }
    }
    tops
}

/// The number of the mount that a descriptor is on, from proc_pid_fdinfo(5).
fn mount_of(fdinfo: &Path) -> Option<u64> {
    let text = fs::read_to_string(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::sys::mount::{self, Depth};

    /// A directory as a set has it, with a tree.
    fn set() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir_in("/var/tmp").unwrap();
        fs::create_dir_all(directory.path().join("trees/web").join(TREE).join("etc")).unwrap();
        fs::create_dir_all(directory.path().join("trees/web2").join(TREE)).unwrap();
        let tree = directory.path().join("trees/web").join(TREE);
        (directory, tree)
    }

    #[test]
    fn nobody_uses_what_only_this_process_has_open() {
        let (directory, tree) = set();
        let _open = File::open(tree).unwrap();
        assert_eq!(of_trees_in(directory.path()).unwrap(), Users::new());
    }

    #[test]
    fn a_process_that_stands_in_a_tree_uses_it() {
        let (directory, tree) = set();
        let mut child = Command::new("cat").current_dir(tree.join("etc")).stdin(Stdio::piped()).spawn().unwrap();
        let users = of_trees_in(directory.path()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let (tree, who) = users.iter().next().unwrap();
        assert_eq!((users.len(), tree.as_path()), (1, Path::new("trees/web")));
        assert!(who[0].contains(&format!("process {} (", child.id())), "{who:?}");
        assert_eq!(of_trees_in(directory.path()).unwrap(), Users::new());
    }

    #[test]
    fn a_detached_mount_is_a_user_by_whatever_of_it_is_open() {
        let (directory, tree) = set();
        let detached = match mount::copy(File::open(&tree).unwrap().as_fd(), Depth::One) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: detached mounts need CAP_SYS_ADMIN");
                return;
            }
            other => other.unwrap(),
        };
        let inside = rustix::fs::openat(&detached, "etc", OFlags::RDONLY, Mode::empty()).unwrap();
        drop(detached);
        // It is found where it is now.
        fs::create_dir(directory.path().join("trash")).unwrap();
        fs::rename(directory.path().join("trees/web"), directory.path().join("trash/1")).unwrap();
        let users = of_trees_in(directory.path()).unwrap();
        assert_eq!(users.keys().collect::<Vec<_>>(), [Path::new("trash/1")]);
        drop(inside);
        assert_eq!(of_trees_in(directory.path()).unwrap(), Users::new());
    }

    #[test]
    fn a_path_is_told_from_others_that_begin_alike() {
        let home = Home { directory: "/d".into(), device: "8:1".into(), root: "/lib/d".into() };
        let tree = |path: &str| home.tree("8:1", Path::new(path));
        assert_eq!(tree("/lib/d/trees/web/rootfs/etc"), Some("trees/web".into()));
        assert_eq!(tree("/lib/d/trees"), None);
        assert_eq!(tree("/lib/d2/trees/web"), None);
        assert_eq!(home.tree("8:2", Path::new("/lib/d/trees/web")), None);
    }
}
