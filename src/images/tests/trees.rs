//! What a tree has after unpacking: contents, owners, modes, times, attributes, holes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use super::archives::{Tar, record};
use super::store::Store;
use crate::images::ImageError;

fn tree(store: &Store, tar: Tar) -> Result<PathBuf, ImageError> {
    Ok(store.layer(&store.import(&tar.build())?.chain_id))
}

/// Whether the test can give files away; says so if not.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: only root may set owners and privileged attributes");
    }
    root
}

fn xattr(path: PathBuf, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1000];
    let count = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(count);
    Some(value)
}

#[test]
fn modes_are_kept_and_not_cut_by_the_umask() {
    let store = Store::new();
    let tar = Tar::new().mode(0o777).file("all", "").mode(0o1777).dir("tmp").mode(0o666).entry(b'6', "fifo", "", b"");
    let root =
        tree(&store, tar.mode(0o4755).file("suid", "x").mode(0o2755).dir("sgid").file("new/implied", "")).unwrap();
    let mode = |name: &str| fs::metadata(root.join(name)).unwrap().permissions().mode() & 0o7777;
    let modes = ["all", "tmp", "fifo", "suid", "sgid", "new"].map(mode);
    assert_eq!(modes, [0o777, 0o1777, 0o666, 0o4755, 0o2755, 0o755]);
}

#[test]
fn owners_are_kept_and_set_user_id_survives_them() {
    if !is_root() {
        return;
    }
    let store = Store::new();
    let tar = Tar::new().owner(1000, 2000).mode(0o6755).file("suid", "x").owner(3, 4).symlink("l", "nowhere");
    let tar = tar.owner(70_000, 4_294_967_294).pax("uid", "4000000000").dir("d").owner(5, 6).entry(b'6', "f", "", b"");
    let root = tree(&store, tar).unwrap();
    let owner = |name: &str| fs::symlink_metadata(root.join(name)).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!(["suid", "l", "d", "f"].map(owner), [(1000, 2000), (3, 4), (4_000_000_000, 4_294_967_294), (5, 6)]);
    assert_eq!(fs::metadata(root.join("suid")).unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn times_have_nanoseconds_and_directories_keep_theirs() {
    let store = Store::new();
    let tar = Tar::new().pax("mtime", "1234567890.123456789").dir("d").pax("mtime", "-1.5").file("d/f", "x");
    let tar = tar.pax("mtime", "7.25").symlink("d/l", "f").pax("mtime", "8").dir("gone").symlink("gone", "d");
    let root = tree(&store, tar).unwrap();
    let time = |name: &str| fs::symlink_metadata(root.join(name)).map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
    assert_eq!(time("d"), (1_234_567_890, 123_456_789));
    assert_eq!(time("d/f"), (-2, 500_000_000));
    assert_eq!(time("d/l"), (7, 250_000_000));
}

#[test]
fn attributes_are_kept_even_binary_ones() {
    if !is_root() {
        return;
    }
    // Revision 2, effective, cap_net_bind_service (capabilities(7), linux/capability.h).
    let mut capability = vec![1, 0, 0, 2, 0, 4, 0, 0];
    capability.extend([0; 12]);
    let store = Store::new();
    let tar = Tar::new()
        .pax("SCHILY.xattr.security.capability", &capability)
        .pax("SCHILY.xattr.trusted.odd", b"\n\0=\n")
        .pax("SCHILY.xattr.security.selinux", b"left:out")
        .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
        .pax("SCHILY.xattr.com.apple.provenance", b"x")
        .owner(1000, 1000)
        .file("f", "x")
        .pax("SCHILY.xattr.trusted.link", b"l")
        .symlink("l", "f");
    let root = tree(&store, tar).unwrap();
    assert_eq!(xattr(root.join("f"), "security.capability"), Some(capability));
    assert_eq!(xattr(root.join("f"), "trusted.odd").as_deref(), Some(&b"\n\0=\n"[..]));
    assert_eq!(xattr(root.join("f"), "trusted.overlay.opaque"), None);
    assert_eq!(xattr(root.join("l"), "trusted.link").as_deref(), Some(&b"l"[..]));
    assert_eq!(xattr(root.join("f"), "trusted.link"), None);
}

#[test]
fn hard_links_share_their_file() {
    let store = Store::new();
    let root = tree(&store, Tar::new().file("d/a", "x").hard_link("b", "d/a").hard_link("c", "/d/a")).unwrap();
    let inode = |name: &str| fs::metadata(root.join(name)).unwrap().ino();
    assert!(inode("d/a") == inode("b") && inode("b") == inode("c"));
    // A size on a hard link is not that of data (as Go's archive/tar reads it).
    let tar = Tar::new().file("a", "x").size(1000).hard_link("b", "a").file("after", "y");
    let root = tree(&Store::new(), tar).map(|_| ());
    root.unwrap();
}

#[test]
fn long_names_of_every_format_are_read() {
    let store = Store::new();
    let (gnu, pax) = (format!("gnu/{}", "g".repeat(200)), format!("pax/{}", "p".repeat(200)));
    let target = "t".repeat(300);
    let tar = Tar::new().long(b'L', &gnu).file("short", "1").pax("path", &pax).file("short", "2");
    let tar = tar.long(b'K', &target).symlink("gl", "x").pax("linkpath", &target).symlink("pl", "x");
    let root = tree(&store, tar).unwrap();
    assert_eq!(fs::read(root.join(gnu)).unwrap(), b"1");
    assert_eq!(fs::read(root.join(pax)).unwrap(), b"2");
    assert!(!root.join("short").exists());
    for link in ["gl", "pl"] {
        assert_eq!(fs::read_link(root.join(link)).unwrap(), PathBuf::from(&target), "{link}");
    }
}

#[test]
fn global_headers_hold_until_the_end_and_own_records_come_first() {
    let store = Store::new();
    let global = [record(b"mtime", b"77.5"), record(b"comment", b"x")].concat();
    let tar = Tar::new().raw(b'g', "global", "", &global, global.len() as u64).file("a", "");
    let root = tree(&store, tar.pax("mtime", "88").file("b", "").file("c", "")).unwrap();
    let time = |name: &str| fs::metadata(root.join(name)).unwrap().mtime();
    assert_eq!(["a", "b", "c"].map(time), [77, 88, 77]);
}

#[test]
fn an_entry_may_be_empty_or_large() {
    let store = Store::new();
    let large = "0123456789abcdef".repeat(100_000);
    let root = tree(&store, Tar::new().file("empty", "").file("large", &large).file("after", "x")).unwrap();
    assert_eq!(fs::read(root.join("empty")).unwrap(), b"");
    assert_eq!(fs::read_to_string(root.join("large")).unwrap(), large);
    assert_eq!(fs::read(root.join("after")).unwrap(), b"x");
}

#[test]
fn an_old_directory_is_a_file_with_a_slash() {
    let store = Store::new();
    let root = tree(&store, Tar::new().mode(0o755).entry(0, "d/", "", b"").file("d/a", "x")).unwrap();
    assert!(root.join("d").is_dir());
}

/// A file of 3 MiB with "begin" at 1 MiB and "end" at its end.
fn is_the_sparse_file(path: PathBuf) {
    let contents = fs::read(&path).unwrap();
    assert_eq!(contents.len(), 3 << 20);
    assert_eq!(&contents[1 << 20..][..5], b"begin");
    assert!(contents.ends_with(b"end"));
    assert_eq!(contents.iter().filter(|b| **b != 0).count(), 8);
    assert!(fs::metadata(path).unwrap().blocks() < 1000, "there are holes");
}

const FIRST: u64 = 1 << 20;
const LAST: u64 = (3 << 20) - 3;

#[test]
fn sparse_files_of_pax_formats_have_their_holes() {
    let store = Store::new();
    let size = (3 << 20).to_string();
    let data = b"beginend";
    let map = format!("{FIRST},5,{LAST},3");
    let tar = Tar::new().pax("GNU.sparse.size", &size).pax("GNU.sparse.numblocks", "2");
    let tar = tar.pax("GNU.sparse.offset", FIRST.to_string()).pax("GNU.sparse.numbytes", "5");
    let tar = tar.pax("GNU.sparse.offset", LAST.to_string()).pax("GNU.sparse.numbytes", "3");
    let tar = tar.entry(b'0', "v00", "", data);
    let tar = tar.pax("GNU.sparse.size", &size).pax("GNU.sparse.map", &map).pax("GNU.sparse.name", "v01");
    let tar = tar.entry(b'0', "GNUSparseFile.0/v01", "", data);
    let mut with_map = format!("2\n{FIRST}\n5\n{LAST}\n3\n").into_bytes();
    with_map.resize(512, 0);
    with_map.extend(data);
    let tar = tar.pax("GNU.sparse.major", "1").pax("GNU.sparse.minor", "0").pax("GNU.sparse.name", "v10");
    let tar = tar.pax("GNU.sparse.realsize", &size).entry(b'0', "GNUSparseFile.0/v10", "", &with_map);
    let root = tree(&store, tar.file("after", "x")).unwrap();
    for name in ["v00", "v01", "v10"] {
        is_the_sparse_file(root.join(name));
    }
    assert_eq!(fs::read(root.join("after")).unwrap(), b"x");
}

#[test]
fn archives_of_gnu_tar_are_read_in_every_format() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    fs::create_dir_all(source.join("sub")).unwrap();
    let sparse = fs::File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"begin", FIRST).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", LAST).unwrap();
    fs::write(source.join("sub").join("n".repeat(150)), "x").unwrap();
    for format in ["gnu", "pax"] {
        for version in ["0.0", "0.1", "1.0"] {
            let output = std::process::Command::new("tar")
                .args(["-c", "-S", "-C"])
                .arg(&source)
                .arg(format!("--format={format}"))
                .args((format == "pax").then(|| format!("--sparse-version={version}")))
                .arg(".")
                .output();
            let Ok(output) = output else {
                eprintln!("skipped: there is no tar");
                return;
            };
            let store = Store::new();
            let root = store.layer(&store.import(&output.stdout).unwrap().chain_id);
            is_the_sparse_file(root.join("sparse"));
            assert_eq!(fs::read(root.join("sub").join("n".repeat(150))).unwrap(), b"x");
        }
    }
}
