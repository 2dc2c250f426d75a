//! The keeper itself.

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use holm::model::{Exit, StopCourse};
use holm::runtime::{Launched, Launcher};

use super::host::{host, image, pipe, plan, read_all};

#[test]
fn asked_to_stop_it_sends_the_stop_signal_and_stays_until_the_end() {
    let Some(host) = host() else { return };
    let (output, stdout) = pipe();
    let mut plan = plan(&["sh", "-c", "trap 'echo stopping; exit 9' USR1; echo ready; sleep 600 & wait"]);
    plan.stop.signal = "USR1".parse().unwrap();
    let running = host.launch(&plan, [None, Some(stdout), None]).unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(&mut &output, &mut line).unwrap();
    running.launched.keeper.stop().unwrap();
    assert_eq!(read_all(output), "stopping\n");
    assert_eq!(running.wait(), Exit::Code(9));
}

#[test]
fn asked_to_stop_too_early_it_sends_the_signal_when_the_payload_listens() {
    let Some(host) = host() else { return };
    let (output, stdout) = pipe();
    let plan =
        plan(&["sh", "-c", "sleep 1; trap 'echo stopping; exit 9' TERM; echo ready; while :; do sleep 0.05; done"]);
    let running = host.launch(&plan, [None, Some(stdout), None]).unwrap();
    running.launched.keeper.stop().unwrap();
    assert_eq!(running.wait(), Exit::Code(9));
    assert_eq!(read_all(output), "ready\nstopping\n");
    assert_eq!(host.record().stop, StopCourse::Asked);
}

#[test]
fn asked_to_stop_it_kills_what_does_not_end_in_time() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "while :; do sleep 0.05; done"]);
    plan.stop.timeout_usec = 300_000;
    let running = host.launch(&plan, [None, None, None]).unwrap();
    running.launched.keeper.stop().unwrap();
    assert_eq!(running.wait(), Exit::Signal { number: 9, core_dumped: false });
    assert_eq!(host.record().stop, StopCourse::Forced);
}

#[test]
fn init_forwards_signals_reaps_orphans_and_ends_as_its_command() {
    let Some(host) = host() else { return };
    let (output, stdout) = pipe();
    let script = "echo $$; (sleep 0.01 & exec true) ; sleep 0.2; grep -l ' Z ' /proc/[0-9]*/stat 2>/dev/null
        trap 'echo got; kill -9 $$' TERM; echo ready; sleep 600 & wait";
    let mut plan = plan(&["sh", "-c", script]);
    std::os::unix::fs::symlink("busybox", host.tree().join("bin/grep")).unwrap();
    plan.process.init = true;
    let running = host.launch(&plan, [None, Some(stdout), None]).unwrap();
    let mut lines = [0; 8];
    std::io::Read::read_exact(&mut &output, &mut lines).unwrap();
    assert_eq!(&lines, b"2\nready\n", "no zombie is left");
    let fds: Vec<_> = fs::read_dir(format!("/proc/{}/fd", running.launched.leader))
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(fds, [Path::new("anon_inode:[signalfd]")], "init holds nothing else");
    let status = fs::read_to_string(format!("/proc/{}/status", running.launched.leader)).unwrap();
    assert!(status.contains("CapEff:\t00000000800405fb") && status.contains("NoNewPrivs:\t1"), "{status}");
    running.launched.keeper.stop().unwrap();
    assert_eq!(running.wait(), Exit::Code(137));
    assert_eq!(read_all(output), "got\n");
}

#[test]
fn it_holds_only_what_it_needs() {
    let Some(host) = host() else { return };
    let (_output, stdout) = pipe();
    let running = host.launch(&plan(&["sleep", "600"]), [None, Some(stdout), None]).unwrap();
    wait_until_quiet(&running.launched);
    let directory = format!("/proc/{}/fd", running.launched.keeper.pid());
    let mut held: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| fs::read_link(entry.unwrap().path()).unwrap().to_string_lossy().into_owned())
        .map(|target| target.split(":[").next().unwrap().to_owned())
        .collect();
    held.sort();
    let scope = host.scope.to_str().unwrap().to_owned();
    let payload = format!("{scope}/payload");
    let records = host.records.path().to_str().unwrap().to_owned();
    let mut expected = vec![
        "/dev/null".to_owned(),
        "/dev/null".to_owned(),
        "/dev/null".to_owned(),
        "anon_inode".to_owned(),
        "anon_inode".to_owned(),
        "socket".to_owned(),
        "socket".to_owned(),
        scope,
        payload,
        records,
    ];
    // A pidfd is an anonymous inode before Linux 6.9 and a file of pidfs since.
    for name in &mut held {
        if name == "pidfd" || name.starts_with("anon_inode") {
            *name = "anon_inode".to_owned();
        }
    }
    held.sort();
    expected.sort();
    assert_eq!(held, expected);
}

/// The keeper reports first and lets go of things then: it is done when it sleeps and goes on sleeping.
fn wait_until_quiet(launched: &Launched) {
    let state = || {
        let status = fs::read_to_string(format!("/proc/{}/status", launched.keeper.pid())).unwrap();
        let switches = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned();
        status.contains("State:\tS").then_some(switches)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    let mut last = None;
    loop {
        let now = state();
        if now.is_some() && now == last {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the keeper does not come to rest");
        last = now;
        // Nothing tells when another process has come to rest; this is how long it must have rested.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn it_is_a_session_of_its_own_in_supervisor_and_cannot_be_traced() {
    let Some(host) = host() else { return };
    let running = host.launch(&plan(&["sleep", "600"]), [None, None, None]).unwrap();
    let pid = running.launched.keeper.pid();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (pid.to_string().as_str(), pid.to_string().as_str()), "group and session");
    assert!(stat.contains("(holm-init)"));
    let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    assert!(cgroup.lines().any(|line| line.starts_with("0::") && line.ends_with(".scope/supervisor")), "{cgroup}");
    let cgroup = fs::read_to_string(format!("/proc/{}/cgroup", running.launched.leader)).unwrap();
    assert!(cgroup.lines().any(|line| line.starts_with("0::") && line.ends_with(".scope/payload")), "{cgroup}");
    // An undumpable process's files belong to root whoever it is; that they cannot be opened by its own user is what counts,
    // and what root sees of it is its sealed image (R7).
    let image = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(image.to_str().unwrap().starts_with("/memfd:holm-init"), "{image:?}");
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
    let written = opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x"));
    assert!(written.is_err(), "the image is sealed");
}

#[test]
fn it_writes_the_record_without_anybody_there() {
    let Some(host) = host() else { return };
    let (output, stdout) = pipe();
    let running = host.launch(&plan(&["sh", "-c", "read x; exit 42"]), [Some(output.into()), None, None]).unwrap();
    let Launched { keeper, leader_pidfd, .. } = running.launched;
    drop(running.client);
    let pidfd = keeper.pidfd().try_clone_to_owned().unwrap();
    // As if holmd had died: both its descriptors and the caller's socket are closed.
    drop((keeper, leader_pidfd));
    drop(stdout);
    holm::sys::process::reap(pidfd.as_fd()).unwrap();
    assert_eq!(host.record().exit, Exit::Code(42));
    assert!(!host.scope.join("payload").exists());
}

#[test]
fn dropped_before_its_order_it_is_killed_and_reaped() {
    if host().is_none() {
        return;
    }
    let monitor = image().spawn_monitor().unwrap();
    let pid = monitor.pid();
    assert!(Path::new(&format!("/proc/{pid}")).exists());
    drop(monitor);
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn killed_during_the_start_it_leaves_nothing_running() {
    let Some(host) = host() else { return };
    let monitor = image().spawn_monitor().unwrap();
    holm::sys::pidfd::send_signal(monitor.pidfd(), 9).unwrap();
    let error = host.launch_in(monitor, &plan(&["sleep", "600"]), [None, None, None]).err().unwrap();
    assert!(matches!(error, holm::runtime::LaunchError::MonitorGone(_)), "{error}");
    assert_eq!(fs::read_to_string(host.scope.join("cgroup.procs")).unwrap(), "");
}

#[test]
fn it_is_small() {
    let Some(host) = host() else { return };
    if std::env::var_os("HOLM_INIT").is_none() {
        eprintln!("skipped: HOLM_INIT does not name the static release build, the only one that is meant to be small");
        return;
    }
    let running = host.launch(&plan(&["sleep", "600"]), [None, None, None]).unwrap();
    wait_until_quiet(&running.launched);
    let maps = fs::read_to_string(format!("/proc/{}/smaps_rollup", running.launched.keeper.pid())).unwrap();
    println!("{maps}");
    let kib = |key: &str| -> u64 {
        let line = maps.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_matches([':', ' ', 'k', 'B']).parse().unwrap()
    };
    assert!(kib("Private_Dirty") <= 300, "{maps}");
}

#[test]
fn the_last_figures_are_kept_where_the_kernel_has_them() {
    let Some(host) = host() else { return };
    let controllers = fs::read_to_string(host.scope.join("cgroup.controllers")).unwrap();
    host.run("cat /bin/busybox > /dev/null").ok();
    let figures = host.record().figures;
    assert!(figures.cpu_usec.is_some());
    for (controller, file, figure) in
        [("memory", "memory.peak", figures.memory_peak), ("pids", "pids.peak", figures.tasks_peak)]
    {
        if controllers.split_whitespace().any(|name| name == controller) {
            // Peaks are of Linux 5.19 and 6.6.
            assert!(figure.is_none_or(|figure| figure > 0), "{file}: {figure:?}");
            assert_eq!(figure.is_some(), host.scope.join(file).exists(), "{file}");
        } else {
            eprintln!("skipped: no {controller} controller here");
        }
    }
}

#[test]
fn a_payload_without_memory_is_counted_as_killed_for_it() {
    let Some(host) = host() else { return };
    if !host.scope.join("memory.max").exists() {
        eprintln!("skipped: no memory controller here");
        return;
    }
    fs::write(host.scope.join("memory.max"), "20M").unwrap();
    let ended = host.run("x=x; while true; do x=$x$x; done");
    assert_eq!(ended.exit, Exit::Signal { number: 9, core_dumped: false });
    assert!(host.record().oom_kills >= 1);
}
