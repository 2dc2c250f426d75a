//! The generator as systemd runs it: three directories, and a success whatever there is.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn samples(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/units").join(kind)
}

/// Runs it over a directory of files; what it wrote.
fn generated(units: &Path) -> tempfile::TempDir {
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holm-generator"));
    command.args([out.path(), out.path(), out.path()]).env("HOLM_UNIT_PATH", units);
    assert!(command.output().unwrap().status.success(), "a generator must never fail");
    out
}

#[test]
fn good_files_become_units_and_links() {
    let out = generated(&samples("good"));
    let link = out.path().join("multi-user.target.wants/02-web.service");
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../02-web.service"));
    assert!(fs::read_to_string(&link).unwrap().contains("--network=host"));
    assert_eq!(fs::read_link(out.path().join("thirty-two.service")).unwrap(), Path::new("32-install.service"));
    assert!(out.path().join("sockets.target.wants/29-socket.socket").exists());
    assert!(!out.path().join("multi-user.target.wants/29-socket.service").exists());
    let instance = out.path().join("multi-user.target.wants/20-template@one.service");
    assert_eq!(fs::read_link(instance).unwrap(), Path::new("../20-template@.service"));
}

#[test]
fn bad_files_become_units_that_say_so() {
    let out = generated(&samples("bad"));
    let unit = fs::read_to_string(out.path().join("01-unknown-key.service")).unwrap();
    assert!(unit.contains("did you mean 'Memory'?") && unit.contains("unit explain --unit=%n "), "{unit}");
}

#[test]
fn whatever_there_is_it_succeeds() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("noise.container"), [0xff, 0, b'\n', b'[', 0xc3]).unwrap();
    fs::create_dir(root.path().join("directory.container")).unwrap();
    std::os::unix::fs::symlink("nowhere", root.path().join("dangling.volume")).unwrap();
    std::os::unix::fs::symlink("loop.image", root.path().join("loop.image")).unwrap();
    fs::write(root.path().join("sp ace.container"), "[Container]\n").unwrap();
    fs::write(root.path().join("masked.container"), "").unwrap();
    let out = generated(root.path());
    for unit in ["noise.service", "directory.service", "dangling-volume.service", "loop-image.service"] {
        assert!(fs::read_to_string(out.path().join(unit)).unwrap().contains("is wrong"), "{unit}");
    }
    assert_eq!(fs::read_link(out.path().join("masked.service")).unwrap(), Path::new("/dev/null"));
    generated(&root.path().join("not-there"));
    assert!(Command::new(env!("CARGO_BIN_EXE_holm-generator")).output().unwrap().status.success());
}
