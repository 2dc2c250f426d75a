//! What a payload sees and has.

use std::fs;
use std::path::Path;

use holm::model::Exit;

use super::host::{bind, host, plan};

#[test]
fn the_mounts_are_these_and_no_others() {
    let Some(host) = host() else { return };
    let mounts = host.run("cat /proc/self/mountinfo").ok();
    let mut places: Vec<_> = mounts.lines().map(|line| line.split(' ').nth(4).unwrap()).collect();
    places.retain(|place| {
        !place.starts_with("/proc/") && !place.starts_with("/sys/firmware") && !place.ends_with("powercap")
    });
    let expected =
        ["/", "/proc", "/sys", "/sys/fs/cgroup", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/run", "/run/host"];
    assert_eq!(places, expected, "{mounts}");
    let options = |place: &str| {
        let line = mounts.lines().find(|line| line.split(' ').nth(4) == Some(place)).unwrap();
        line.split(' ').nth(5).unwrap().to_owned()
    };
    for (place, wanted) in [
        ("/", "rw,nodev"),
        ("/proc", "rw,nosuid,nodev,noexec"),
        ("/sys", "ro,nosuid,nodev,noexec"),
        ("/sys/fs/cgroup", "ro,nosuid,nodev,noexec"),
        ("/dev", "rw,nosuid,noexec"),
        ("/run", "rw,nosuid,nodev"),
        ("/run/host", "ro,nosuid,nodev,noexec"),
    ] {
        assert!(options(place).starts_with(wanted), "{place}: {}", options(place));
    }
    assert!(!mounts.contains("shared:") && !mounts.contains("master:"), "nothing propagates: {mounts}");
}

#[test]
fn host_wide_knobs_are_read_only_or_hidden() {
    let Some(host) = host() else { return };
    let script = "
        for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel/uevent_helper; do
            [ -e $f ] && (echo x > $f) 2>/dev/null && echo wrote $f; done
        for f in kcore keys timer_list sched_debug latency_stats; do
            [ -e /proc/$f ] && [ -n \"$(cat /proc/$f)\" ] && echo read $f; done
        for d in /proc/scsi /proc/acpi /sys/firmware; do [ -d $d ] && ls -A $d; done
        touch /sys/fs/cgroup/x 2>/dev/null && echo made a cgroup
        mount -o remount,rw /proc/sys 2>/dev/null && echo remounted
        exit 0";
    assert_eq!(host.run(script).output, "");
}

#[test]
fn devices_are_the_few_that_mean_nothing() {
    let Some(host) = host() else { return };
    let listing = host.run("ls /dev; echo x > /dev/null; ls -l /dev/full /dev/ptmx; ls -A /dev/shm /dev/pts").ok();
    for name in ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "stdin", "stdout", "stderr", "core"]
    {
        assert!(listing.lines().any(|line| line == name), "{name}: {listing}");
    }
    for name in ["console", "tty1", "kmsg", "mem", "sda", "vda"] {
        assert!(!listing.lines().any(|line| line == name), "{name}: {listing}");
    }
    assert!(listing.contains("1,   7") && listing.contains("-> pts/ptmx"), "{listing}");
}

#[test]
fn a_device_node_of_the_image_opens_nothing() {
    let Some(host) = host() else { return };
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(
        rustix::fs::CWD,
        host.tree().join("etc/null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        null,
    )
    .unwrap();
    let ended = host.run("cat /etc/null");
    assert!(ended.errors.contains("ermission denied"), "{ended:?}");
}

#[test]
fn the_container_interface_is_kept() {
    let Some(host) = host() else { return };
    let uuid = plan(&["x"]).id.to_string();
    let output = host
        .run(
            "cat /run/host/container-manager /run/host/container-uuid; echo $container $container_uuid $container_host_id
             ls /run/host/inaccessible; touch /run/host/x 2>/dev/null && echo writable; [ -s /run/host/os-release ] || echo none
             grep -q ^ID= /run/host/os-release || echo no id",
        )
        .output;
    let host_id = fs::read_to_string("/etc/os-release").unwrap();
    let host_id = host_id.lines().find_map(|line| line.strip_prefix("ID=")).unwrap().trim_matches('"').to_owned();
    assert_eq!(output, format!("holm\n{uuid}\nholm {uuid} {host_id}\nblk\nchr\ndir\nfifo\nreg\nsock\n"));
}

#[test]
fn run_keeps_what_the_image_has_there() {
    let Some(host) = host() else { return };
    fs::create_dir(host.tree().join("run/service")).unwrap();
    fs::write(host.tree().join("run/service/file"), "kept\n").unwrap();
    std::os::unix::fs::chown(host.tree().join("run/service"), Some(1000), Some(1000)).unwrap();
    fs::set_permissions(host.tree().join("run/service"), std::os::unix::fs::PermissionsExt::from_mode(0o2770)).unwrap();
    let output = host.run("cat /run/service/file; ls -ldn /run/service; echo gone > /run/service/file").ok();
    assert!(output.starts_with("kept\ndrwxrws---") && output.contains(" 1000 "), "{output}");
    assert_eq!(
        fs::read_to_string(host.tree().join("run/service/file")).unwrap(),
        "kept\n",
        "the image's own is untouched"
    );
}

fn status(text: &str, key: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in {text}")).trim().to_owned()
}

#[test]
fn capabilities_are_the_default_set_and_never_inherited() {
    let Some(host) = host() else { return };
    let text = host.run_plan(&plan(&["cat", "/proc/self/status"])).ok();
    let default = "00000000800405fb";
    for (set, bits) in [("CapBnd", default), ("CapPrm", default), ("CapEff", default)] {
        assert_eq!(status(&text, set), bits, "{set}");
    }
    for set in ["CapInh", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set} (R6)");
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert_eq!(status(&text, "SigBlk"), "0000000000000000");
    assert_eq!(status(&text, "SigIgn"), "0000000000000000", "also SIGPIPE");
}

#[test]
fn a_user_that_is_not_root_has_no_capabilities_but_its_groups() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "cat /proc/self/status; echo HOME=$HOME"]);
    plan.process.user = Some("alice".to_owned());
    let text = host.run_plan(&plan).ok();
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&text, "Uid"), "1000\t1000\t1000\t1000");
    assert_eq!(status(&text, "Groups"), "44 1000", "the primary group is among them (R15)");
    assert!(text.ends_with("HOME=/home/alice\n"));
}

#[test]
fn capabilities_can_be_added_and_dropped() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["cat", "/proc/self/status"]);
    plan.process.capabilities.drop = vec!["ALL".to_owned()];
    plan.process.capabilities.add = vec!["CHOWN".to_owned()];
    plan.process.no_new_privileges = false;
    let text = host.run_plan(&plan).ok();
    assert_eq!(status(&text, "CapBnd"), "0000000000000001");
    assert_eq!(status(&text, "CapEff"), "0000000000000001");
    assert_eq!(status(&text, "NoNewPrivs"), "0");
}

#[test]
fn no_descriptor_leaks_in() {
    let Some(host) = host() else { return };
    // A descriptor without the close-on-exec flag, as a careless library might leave it.
    let careless = rustix::fs::open("/etc/hostname", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let script = "n=0; while [ $n -lt 200 ]; do [ -e /proc/1/fd/$n ] && echo $n; n=$((n+1)); done; exit 0";
    assert_eq!(host.run(script).ok(), "0\n1\n2\n");
    drop(careless);
}

#[test]
fn the_environment_is_ours_then_the_callers() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["env"]);
    plan.process.environment = vec!["HOSTNAME=other".to_owned(), "A=1".to_owned()];
    let output = host.run_plan(&plan).ok();
    let mut names: Vec<_> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| !name.starts_with("container_host_"));
    names.sort_unstable();
    assert_eq!(names, ["A", "HOME", "HOSTNAME", "PATH", "container", "container_uuid"], "nothing of the host's (C8)");
    assert!(output.contains("HOSTNAME=other\n") && output.contains("HOME=/root\n"));
}

#[test]
fn the_working_directory_is_made_and_its_path_is_inside() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "pwd; ls -ld ."]);
    plan.process.working_directory = Some("/srv/app/x".to_owned());
    assert!(host.run_plan(&plan).ok().starts_with("/srv/app/x\ndrwxr-xr-x"));
}

#[test]
fn a_read_only_root_is_read_only_and_the_volatile_places_are_not() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "touch /etc/x; touch /run/x /dev/shm/x && echo volatile"]);
    plan.read_only = true;
    let ended = host.run_plan(&plan);
    assert_eq!(ended.output, "volatile\n");
    assert!(ended.errors.contains("Read-only file system"), "{ended:?}");
}

#[test]
fn bind_mounts_are_there_read_only_or_not_and_their_places_are_made() {
    let Some(host) = host() else { return };
    let source = tempfile::tempdir().unwrap();
    fs::write(source.path().join("file"), "data\n").unwrap();
    let mut plan = plan(&[
        "sh",
        "-c",
        "cat /data/deep/file /etc/one; echo new > /data/deep/made; touch /ro/x 2>/dev/null && echo written
         grep -E ' (/ro|/data/deep) ' /proc/self/mountinfo | cut -d' ' -f5,6",
    ]);
    fs::create_dir(host.tree().join("usr")).unwrap();
    for applet in ["grep", "cut"] {
        std::os::unix::fs::symlink("busybox", host.tree().join("bin").join(applet)).unwrap();
    }
    plan.mounts = vec![
        bind(source.path(), "/data/deep", false),
        bind(source.path(), "/ro", true),
        bind(&source.path().join("file"), "/etc/one", true),
    ];
    let output = host.run_plan(&plan).ok();
    assert!(output.starts_with("data\ndata\n/data/deep rw,nosuid,nodev"), "{output}");
    assert!(output.contains("/ro ro,nosuid,nodev"), "{output}");
    assert_eq!(fs::read_to_string(source.path().join("made")).unwrap(), "new\n");
}

#[test]
fn a_mount_below_a_bind_mount_is_read_only_too() {
    let Some(host) = host() else { return };
    // Of this process's namespace: /dev has /dev/shm or /dev/pts mounted below on every host.
    let mut plan = plan(&["sh", "-c", "touch /hostdev/shm/holm-test 2>/dev/null && echo written; exit 0"]);
    plan.mounts = vec![bind(Path::new("/dev"), "/hostdev", true)];
    assert_eq!(host.run_plan(&plan).output, "");
}

#[test]
fn a_bind_source_that_is_not_there_is_named() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["true"]);
    plan.mounts = vec![bind(Path::new("/no/such/place"), "/x", false)];
    let error = host.launch(&plan, [None, None, None]).err().unwrap().to_string();
    assert!(error.contains("OpenBind") && error.contains("/no/such/place"), "{error}");
}

#[test]
fn the_cgroup_namespace_is_rooted_at_the_payload() {
    let Some(host) = host() else { return };
    let shown = host.run("cat /proc/self/cgroup").ok();
    assert!(shown.lines().any(|line| line == "0::/"), "{shown}");
}

#[test]
fn the_session_is_its_own() {
    let Some(host) = host() else { return };
    // Fields 5 and 6 of proc_pid_stat(5): process group and session.
    let text = host.run("read p c s pp g sid rest < /proc/1/stat; echo $g $sid").ok();
    assert_eq!(text, "1 1\n");
}

#[test]
fn nothing_shows_on_the_host_while_it_runs() {
    let Some(host) = host() else { return };
    let before = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let running = host.launch(&plan(&["sleep", "60"]), [None, None, None]).unwrap();
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    running.launched.keeper.stop().unwrap();
    holm::sys::pidfd::send_signal(std::os::fd::AsFd::as_fd(&running.launched.leader_pidfd), 9).unwrap();
    assert!(matches!(running.wait(), Exit::Signal { number: 9, .. }));
}

#[test]
fn the_payload_is_as_likely_to_be_killed_for_memory_as_any_process() {
    let Some(host) = host() else { return };
    assert_eq!(host.run("cat /proc/self/oom_score_adj").ok(), "0\n");
}
