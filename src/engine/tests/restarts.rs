//! The rows of reconcile's table: daemons that are killed, and what the next one makes of it.

use super::host::{Host, Verbs, kernel_tells, killed_unseen, name, names, request};
use crate::engine::{CreateRequest, RunIo, StopOptions};
use crate::model::{DeviceId, ErrorCode, Exit, Lifetime, RunResult, Status};
use crate::storage::{AddOptions, BASE, DeviceSet};
use crate::sys::pidfd;

/// A container called `web` that runs `shell`, and then the daemon is killed; its leader.
fn running(host: &Host, shell: &str) -> u32 {
    host.with_daemon(async |engine| {
        engine.create(request("web", shell)).await.unwrap();
        engine.started("web").await;
        engine.look("web").leader
    })
}

fn kill(pid: u32) {
    let process = pidfd::open(pid).unwrap();
    pidfd::send_signal(&process, libc::SIGKILL).unwrap();
    ended(&process);
}

fn ended(process: &std::os::fd::OwnedFd) {
    let mut events = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut events, None).unwrap();
}

fn id(host: &Host) -> String {
    names(&host.path("state/containers")).pop().unwrap()
}

/// A container called `web` that ends with status 42 after its daemon was killed.
fn ends_unseen(host: &Host) {
    let go = host.path("go");
    running(host, &format!("while ! test -e {}; do sleep 0.02; done; exit 42", go.display()));
    std::fs::write(&go, "").unwrap();
    exit_record(host);
}

/// Waits for the monitor's record without a daemon.
fn exit_record(host: &Host) {
    let path = host.path("state/containers").join(id(host)).join("exit.json");
    while !path.exists() || host.launcher.alive() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn what_rests_goes_on_resting() {
    let host = Host::new();
    host.with_daemon(async |engine| engine.create(request("web", "")).await.unwrap());
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").status, Status::Created);
        engine.started("web").await;
        engine.stopped("web").await;
    });
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.result), (Status::Stopped, RunResult::Signal));
    });
}

#[test]
fn what_runs_goes_on_running_and_its_end_is_exact() {
    let host = Host::new();
    let go = host.path("go");
    let leader = running(&host, &format!("while ! test -e {}; do sleep 0.02; done; exit 42", go.display()));
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.leader), (Status::Running, leader));
        assert!(view.started_usec > 0);
        assert_eq!(host.machines.list()[&name("web")], leader);
        std::fs::write(&go, "").unwrap();
        let view = engine.reaches("web", Status::Failed).await;
        assert_eq!(view.exit, Some(Exit::Code(42)));
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn an_end_that_came_while_nobody_looked_is_exact() {
    let host = Host::new();
    ends_unseen(&host);
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.exit, view.result), (Status::Failed, Some(Exit::Code(42)), RunResult::ExitCode));
        engine.started("web").await;
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn after_a_reboot_a_run_is_lost_unless_its_end_was_written() {
    let host = Host::new();
    let leader = running(&host, "");
    kill(host.launcher.monitors()[0]);
    kill(leader);
    std::fs::remove_dir_all(host.path("run")).unwrap();
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.result, view.exit), (Status::Failed, RunResult::Lost, None));
    });

    let host = Host::new();
    ends_unseen(&host);
    std::fs::remove_dir_all(host.path("run")).unwrap();
    host.with_daemon(async |engine| assert_eq!(engine.look("web").exit, Some(Exit::Code(42))));
}

#[test]
fn without_monitor_and_leader_a_run_is_lost() {
    let host = Host::new();
    let leader = running(&host, "");
    kill(host.launcher.monitors()[0]);
    kill(leader);
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").result, RunResult::Lost);
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn without_monitor_and_leader_the_kernel_may_know() {
    let host = Host::new();
    let go = host.path("go");
    let leader = running(&host, &format!("while ! test -e {}; do sleep 0.02; done; exit 42", go.display()));
    let pidfd = pidfd::open(leader).unwrap();
    host.leave_with_service_manager(&format!("leader-{}-1", id(&host)), pidfd.try_clone().unwrap());
    host.leave_with_service_manager(&format!("leader-{}-7", id(&host)), pidfd::open(std::process::id()).unwrap());
    kill(host.launcher.monitors()[0]);
    std::fs::write(&go, "").unwrap();
    ended(&pidfd);
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        let told = kernel_tells().then_some(Exit::Code(42));
        assert_eq!(view.exit, told);
        assert_eq!(view.result, if told.is_some() { RunResult::ExitCode } else { RunResult::Lost });
    });
}

#[test]
fn without_its_monitor_a_payload_is_watched_by_its_leader() {
    let host = Host::new();
    let leader = running(&host, "");
    kill(host.launcher.monitors()[0]);
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!((view.status, view.leader), (Status::Running, leader));
        engine.stopped("web").await;
        let view = engine.look("web");
        assert_eq!((view.result, view.status), killed_unseen());
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn a_container_of_one_run_that_ended_meanwhile_is_removed() {
    let host = Host::new();
    let go = host.path("go");
    host.with_daemon(async |engine| {
        let shell = format!("while ! test -e {}; do sleep 0.02; done", go.display());
        let once = CreateRequest { lifetime: Lifetime::OneRun, ..request("once", &shell) };
        engine.create(once).await.unwrap();
        engine.started("once").await;
    });
    std::fs::write(&go, "").unwrap();
    exit_record(&host);
    host.with_daemon(async |engine| {
        assert!(engine.containers().is_empty());
        host.nothing_is_left().await;
    });
}

/// The container's own record is written last: a daemon that dies before still knows the run.
#[test]
fn a_run_that_only_its_own_record_knows_is_known() {
    let host = Host::new();
    host.with_daemon(async |engine| engine.create(request("web", "")).await.unwrap());
    let record = host.path("state/containers").join(id(&host)).join("container.json");
    let before = std::fs::read(&record).unwrap();
    host.with_daemon(async |engine| engine.started("web").await);
    std::fs::write(&record, before).unwrap();
    host.with_daemon(async |engine| {
        let view = engine.look("web");
        assert_eq!(view.status, Status::Running);
        assert!(view.started_usec > 0);
        engine.stopped("web").await;
        assert_eq!(engine.look("web").status, Status::Stopped);
    });
    host.with_daemon(async |engine| assert_eq!(engine.look("web").result, RunResult::Signal));
}

#[test]
fn a_record_without_a_root_is_removed() {
    let host = Host::new();
    host.with_daemon(async |engine| engine.create(request("web", "")).await.unwrap());
    for device in crate::storage::DeviceSet::devices(&*host.devices).unwrap() {
        if device.id.as_str() != crate::storage::BASE {
            crate::storage::DeviceSet::remove_device(&*host.devices, &device.id).unwrap();
        }
    }
    // But not while the journal may be older than the pool.
    host.devices.set_read_only(true);
    host.with_daemon(async |engine| assert_eq!(engine.look("web").status, Status::Created));
    host.devices.set_read_only(false);
    host.with_daemon(async |engine| {
        assert!(engine.containers().is_empty());
        host.nothing_is_left().await;
    });
}

#[test]
fn an_unreadable_exit_record_is_none() {
    let host = Host::new();
    ends_unseen(&host);
    std::fs::write(host.path("state/containers").join(id(&host)).join("exit.json"), "{").unwrap();
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").result, RunResult::Lost);
        engine.started("web").await;
        engine.reaches("web", Status::Failed).await;
        assert_eq!(engine.look("web").exit, Some(Exit::Code(42)));
    });
}

#[test]
fn a_container_that_may_be_running_is_not_shown_and_keeps_its_name() {
    let host = Host::new();
    running(&host, "");
    let run = host.path("run/run").join(format!("{}.json", id(&host)));
    let good = std::fs::read(&run).unwrap();
    std::fs::write(&run, "{").unwrap();
    host.with_daemon(async |engine| {
        assert!(engine.containers().is_empty());
        assert_eq!(engine.create(request("web", "")).await.unwrap_err().code(), ErrorCode::NameInUse);
    });
    std::fs::write(&run, good).unwrap();
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").status, Status::Running);
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn a_stop_that_was_under_way_goes_on() {
    let host = Host::new();
    let deaf = "trap '' TERM; while :; do sleep 0.02; done";
    host.with_daemon(async |engine| {
        let request = CreateRequest { stop_timeout_usec: Some(300_000), ..request("web", deaf) };
        engine.create(request).await.unwrap();
        engine.started_deaf("web").await;
        engine.stop(&name("web"), Default::default()).unwrap();
        engine.reaches("web", Status::Stopping).await;
        // Written after it is shown.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    });
    host.with_daemon(async |engine| {
        assert_eq!(engine.look("web").status, Status::Stopping);
        let view = engine.reaches("web", Status::Failed).await;
        assert_eq!(view.result, RunResult::Timeout);
    });
}

/// The second daemon gives it no more time than the first one did.
#[test]
fn a_stop_that_was_under_way_keeps_its_deadline() {
    let host = Host::new();
    let deaf = "trap '' TERM; while :; do sleep 0.02; done";
    host.with_daemon(async |engine| {
        engine.create(request("web", deaf)).await.unwrap();
        engine.started_deaf("web").await;
        engine.stop(&name("web"), StopOptions { timeout_usec: Some(300_000), signal: None }).unwrap();
        engine.reaches("web", Status::Stopping).await;
        // Written after it is shown.
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    });
    // Without it, the container's own twenty seconds would count anew.
    host.with_daemon(async |engine| {
        let end = tokio::time::timeout(std::time::Duration::from_secs(10), engine.reaches("web", Status::Failed));
        assert_eq!(end.await.unwrap().result, RunResult::Timeout);
    });
}

#[test]
fn a_start_that_a_killed_daemon_began_leaves_nothing_running_unknown() {
    let host = Host::new();
    host.with_daemon(async |engine| {
        engine.create(request("web", "")).await.unwrap();
        engine.start(&name("web"), RunIo::default()).unwrap();
        tokio::task::yield_now().await;
    });
    host.with_daemon(async |engine| {
        engine.removed("web").await;
        host.nothing_is_left().await;
    });
}

#[test]
fn a_layer_that_a_cut_left_without_an_image_is_removed_unless_its_image_may_only_be_unreadable() {
    let host = Host::new();
    let layer = DeviceId::parse("layer:left").unwrap();
    let base = DeviceId::parse(BASE).unwrap();
    let there = || host.devices.devices().unwrap().iter().any(|device| device.id == layer);
    host.devices.add_device(&layer, &base, &AddOptions::default()).unwrap();
    let damaged = host.path("state/images/damaged.json");
    std::fs::write(&damaged, "{").unwrap();
    host.with_daemon(async |_| assert!(there()));
    std::fs::remove_file(&damaged).unwrap();
    host.with_daemon(async |_| host.nothing_is_left().await);
}
