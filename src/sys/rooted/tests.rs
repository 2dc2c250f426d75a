use super::*;

fn root() -> (tempfile::TempDir, Root) {
    let directory = tempfile::tempdir().unwrap();
    let fd = rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    (directory, Root::new(fd))
}

#[test]
fn an_absolute_link_stays_inside() {
    let (directory, root) = root();
    std::fs::create_dir(directory.path().join("etc")).unwrap();
    std::fs::write(directory.path().join("etc/passwd"), "inside").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", directory.path().join("link")).unwrap();
    assert_eq!(root.read_file("/link", 100).unwrap().unwrap(), b"inside");
}

#[test]
fn dots_do_not_climb_out() {
    let (directory, root) = root();
    std::os::unix::fs::symlink("../../../../../../etc/hostname", directory.path().join("link")).unwrap();
    assert_eq!(root.read_file("/link", 100).unwrap(), None);
}

#[test]
fn a_directory_that_is_a_link_is_no_real_directory() {
    let (directory, root) = root();
    std::os::unix::fs::symlink("/proc", directory.path().join("proc")).unwrap();
    assert!(root.real_directory("proc").is_err());
    assert!(root.real_directory("sys").is_ok(), "a missing one is made");
    assert!(directory.path().join("sys").is_dir());
}

#[test]
fn directories_are_made_through_links_but_inside() {
    let (directory, root) = root();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    std::os::unix::fs::symlink("/data", directory.path().join("link")).unwrap();
    root.make_directories(Path::new("/link/a/b")).unwrap();
    assert!(directory.path().join("data/a/b").is_dir());
    assert!(root.make_directories(Path::new("/link/../x")).is_err(), "'..' is refused");
}

#[test]
fn a_fifo_or_a_long_file_is_refused() {
    let (directory, root) = root();
    rustix::fs::mknodat(rustix::fs::CWD, directory.path().join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    assert_eq!(root.read_file("/fifo", 9).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    std::fs::write(directory.path().join("long"), "0123456789").unwrap();
    assert_eq!(root.read_file("/long", 9).unwrap_err().raw_os_error(), Some(libc::EFBIG));
}

#[test]
fn a_tree_is_copied_with_its_modes_up_to_a_limit() {
    let (source, _) = root();
    let (target, _) = root();
    std::fs::create_dir(source.path().join("lock")).unwrap();
    std::fs::write(source.path().join("lock/file"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", source.path().join("lock/link")).unwrap();
    let from = rustix::fs::open(source.path(), OFlags::PATH, Mode::empty()).unwrap();
    let to = rustix::fs::open(target.path(), OFlags::PATH, Mode::empty()).unwrap();
    copy_tree(from.as_fd(), to.as_fd(), &mut 100).unwrap();
    assert_eq!(std::fs::read(target.path().join("lock/file")).unwrap(), b"x");
    assert!(target.path().join("lock/link").is_symlink());
    let (other, _) = root();
    let to = rustix::fs::open(other.path(), OFlags::PATH, Mode::empty()).unwrap();
    assert_eq!(copy_tree(from.as_fd(), to.as_fd(), &mut 2).unwrap_err().raw_os_error(), Some(libc::EFBIG));
}
