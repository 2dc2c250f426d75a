//! Tricks that an image can play with paths.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use holm::runtime::LaunchError;

use super::host::{bind, host, plan};

#[test]
fn a_linked_proc_sys_dev_or_run_is_refused() {
    for name in ["proc", "sys", "dev", "run"] {
        let Some(host) = host() else { return };
        let place = host.tree().join(name);
        fs::remove_dir(&place).unwrap();
        symlink("/etc", &place).unwrap();
        let error = host.launch(&plan(&["true"]), [None, None, None]).err().unwrap();
        assert!(matches!(&error, LaunchError::Step(step) if step.step.starts_with("Mount")), "{name}: {error}");
    }
}

#[test]
fn a_missing_proc_is_made() {
    let Some(host) = host() else { return };
    for name in ["proc", "sys", "dev", "run"] {
        fs::remove_dir(host.tree().join(name)).unwrap();
    }
    assert_eq!(host.run("echo $$").ok(), "1\n");
}

#[test]
fn accounts_behind_a_link_are_read_inside() {
    let Some(host) = host() else { return };
    fs::rename(host.tree().join("etc/passwd"), host.tree().join("etc/accounts")).unwrap();
    symlink("../../../../../../etc/accounts", host.tree().join("etc/passwd")).unwrap();
    let mut plan = plan(&["id", "-u"]);
    plan.process.user = Some("alice".to_owned());
    assert_eq!(host.run_plan(&plan).ok(), "1000\n");
}

#[test]
fn a_fifo_for_accounts_holds_nobody_up() {
    let Some(host) = host() else { return };
    fs::remove_file(host.tree().join("etc/passwd")).unwrap();
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, host.tree().join("etc/passwd"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = host.launch(&plan(&["true"]), [None, None, None]).err().unwrap();
    assert!(matches!(&error, LaunchError::Step(step) if step.step == "FindUser"), "{error}");
}

#[test]
fn a_destination_that_leads_into_kernel_areas_is_refused() {
    for target in ["/proc/sys", "/sys", "/dev", "/dev/shm", "/run/host", "/proc/1", "/sys/fs/cgroup"] {
        let Some(host) = host() else { return };
        symlink(target, host.tree().join("data")).unwrap();
        let source = tempfile::tempdir().unwrap();
        let mut plan = plan(&["true"]);
        plan.mounts = vec![bind(source.path(), "/data", false)];
        let error = host.launch(&plan, [None, None, None]).err().unwrap();
        assert!(matches!(&error, LaunchError::Step(step) if step.step == "AttachBind"), "{target}: {error}");
    }
}

#[test]
fn a_destination_behind_links_is_made_inside() {
    let Some(host) = host() else { return };
    symlink("/../../../../holm-must-not-exist", host.tree().join("data")).unwrap();
    fs::create_dir(host.tree().join("holm-must-not-exist")).unwrap();
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "x\n").unwrap();
    let mut plan = plan(&["cat", "/holm-must-not-exist/below/file"]);
    plan.mounts = vec![bind(source.path(), "/data/below", false)];
    assert_eq!(host.run_plan(&plan).ok(), "x\n");
    assert!(!Path::new("/holm-must-not-exist").exists());
}

#[test]
fn a_working_directory_behind_a_magic_link_is_refused() {
    for path in ["/proc/self/cwd", "/fds/7", "/proc/self/fd/3", "/proc/1/root"] {
        let Some(host) = host() else { return };
        symlink("/proc/self/fd", host.tree().join("fds")).unwrap();
        let mut plan = plan(&["true"]);
        plan.process.working_directory = Some(path.to_owned());
        let error = host.launch(&plan, [None, None, None]).err().unwrap();
        assert!(matches!(&error, LaunchError::Step(step) if step.step == "WorkingDirectory"), "{path}: {error}");
    }
}

#[test]
fn a_rootfs_that_is_a_link_is_refused() {
    let Some(host) = host() else { return };
    let tree = host.tree();
    fs::rename(&tree, tree.with_file_name("elsewhere")).unwrap();
    symlink("/", &tree).unwrap();
    let error = host.launch(&plan(&["true"]), [None, None, None]).err().unwrap();
    assert!(matches!(&error, LaunchError::Step(step) if step.step == "AttachRoot"), "{error}");
}

#[test]
fn the_payload_cannot_reach_the_host_through_its_root() {
    let Some(host) = host() else { return };
    // Beside the tree on the device.
    fs::write(host.tree().join("../secret"), "x").unwrap();
    let ended = host.run("cd /; cd ../../..; ls; ls -a / | cat; cat /../secret");
    assert!(!ended.output.contains("secret") && !ended.output.contains("rootfs"), "{ended:?}");
}
