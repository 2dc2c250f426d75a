//! Payloads that are a whole system. The fake's processes are in no pid namespace, so the signals that the kernel would tell of
//! a reboot or a power-off are sent by the payload itself.

use std::os::fd::{AsFd, OwnedFd};

use super::host::{Host, Verbs, end_of, name, request};
use crate::engine::{CreateRequest, RunIo, StopOptions};
use crate::model::{Boot, Exit, Lifetime, MonitorMessage, RunResult, Signal, Status};
use crate::sys::socket;

/// A system called `web`.
fn system(shell: &str) -> CreateRequest {
    CreateRequest { boot: Boot::Yes, ..request("web", shell) }
}

/// It reboots once, and then stays up.
fn reboots_once(host: &Host) -> String {
    let mark = host.path("rebooted");
    format!("test -e {0} || {{ : >{0}; kill -HUP $$; }}; sleep 1000", mark.display())
}

fn said(socket: &OwnedFd) -> std::io::Result<usize> {
    socket::receive_now(socket.as_fd(), &mut [0; MonitorMessage::MAX]).map(|(length, _)| length)
}

#[tokio::test]
async fn a_system_that_reboots_runs_again_and_keeps_its_caller() {
    for lifetime in [Lifetime::Kept, Lifetime::OneRun] {
        let host = Host::new();
        let engine = host.open();
        let (ours, theirs) = socket::packet_pair().unwrap();
        engine.create(CreateRequest { lifetime, ..system(&reboots_once(&host)) }).await.unwrap();
        let io = RunIo { monitor: Some(theirs), ..RunIo::default() };
        let events = engine.subscribe();
        let job = engine.start(&name("web"), io).unwrap();
        end_of(events, job).await;
        while !(host.path("rebooted").exists() && engine.look("web").status == Status::Running) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        assert_eq!(said(&ours).unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the caller is still there");
        engine.removed("web").await;
        host.nothing_is_left().await;
    }
}

#[tokio::test]
async fn a_system_that_powers_off_has_succeeded() {
    let host = Host::new();
    let engine = host.open();
    engine.create(system("kill -INT $$; sleep 1000")).await.unwrap();
    engine.started("web").await;
    let view = engine.reaches("web", Status::Stopped).await;
    assert_eq!((view.exit, view.result), (Some(Exit::Code(0)), RunResult::Success));
}

#[tokio::test]
async fn a_system_that_reboots_while_it_is_stopped_stays_down_and_its_caller_is_told() {
    let host = Host::new();
    let engine = host.open();
    let (ours, theirs) = socket::packet_pair().unwrap();
    engine.create(system("sleep 1000")).await.unwrap();
    let io = RunIo { monitor: Some(theirs), ..RunIo::default() };
    let events = engine.subscribe();
    let job = engine.start(&name("web"), io).unwrap();
    end_of(events, job).await;
    let hup = StopOptions { signal: Signal::from_number(libc::SIGHUP).ok(), ..StopOptions::default() };
    engine.done(|engine| engine.stop(&name("web"), hup)).await.unwrap();
    assert_eq!(engine.look("web").result, RunResult::Success);
    assert!(said(&ours).unwrap() > 0);
}

#[test]
fn a_reboot_that_no_daemon_saw_is_made_up_for() {
    let host = Host::new();
    let go = host.path("go");
    let waits = format!("while ! test -e {}; do sleep 0.02; done; ", go.display());
    host.with_daemon(async |engine| {
        engine.create(system(&(waits + &reboots_once(&host)))).await.unwrap();
        engine.started("web").await;
    });
    std::fs::write(&go, "").unwrap();
    while host.launcher.alive() > 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    host.with_daemon(async |engine| {
        engine.reaches("web", Status::Running).await;
        engine.removed("web").await;
    });
}
