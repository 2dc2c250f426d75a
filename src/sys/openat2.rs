//! openat2(2): opening a path that cannot leave a directory, whatever symbolic links lie on it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// How often a lookup that met a rename is tried again before its error is passed on.
const TRIES: u32 = 128;

/// Opens `path` as if `root` were the root directory: absolute symbolic links and `..` end at `root`, magic links
/// (`/proc/*/fd`) are refused with `ELOOP` (openat2(2), `RESOLVE_IN_ROOT`, `RESOLVE_NO_MAGICLINKS`).
///
/// The result is close-on-exec. `flags` must not create: nothing is left behind after an error.
pub fn open_in_root(root: impl AsFd, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 1;
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // "The caller may choose to retry" when a rename anywhere raced with a `..` on the path.
            Err(Errno::AGAIN | Errno::INTR) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("root/etc")).unwrap();
        fs::write(dir.path().join("root/etc/motd"), "in").unwrap();
        fs::write(dir.path().join("motd"), "out").unwrap();
        symlink("/etc", dir.path().join("root/absolute")).unwrap();
        symlink("../../../../etc", dir.path().join("root/climbing")).unwrap();
        let root = rustix::fs::open(dir.path().join("root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        (dir, root)
    }

    fn text(fd: OwnedFd) -> String {
        std::io::read_to_string(fs::File::from(fd)).unwrap()
    }

    #[test]
    fn links_out_of_the_root_end_inside_it() {
        let (_dir, root) = tree();
        for path in ["absolute/motd", "climbing/motd", "/etc/motd", "../../etc/motd"] {
            assert_eq!(text(open_in_root(&root, path.as_bytes(), OFlags::RDONLY).unwrap()), "in", "{path}");
        }
    }
}
