//! Tests of what we tell the manager.
//!
//! The environment of a process must not be changed once it has threads, so each test runs this program a second time
//! with the manager's variables set, and plays the manager itself.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn readiness_and_status_are_one_message() {
    let messages = messages_of("child_says_ready");
    assert_eq!(messages, ["READY=1\nSTATUS=two lines\n", "STOPPING=1\nSTATUS=going\n", "STATUS=fine\n"]);
}

#[test]
fn stored_descriptors_are_kept_when_the_other_side_hangs_up() {
    let messages = messages_of("child_stores_a_descriptor");
    assert_eq!(messages, ["FDSTORE=1\nFDNAME=pidfd-web\nFDPOLL=0\n", "FDSTOREREMOVE=1\nFDNAME=pidfd-web\n"]);
}

#[test]
fn the_watchdog_is_answered_only_while_alive() {
    assert_eq!(messages_of("child_answers_the_watchdog_twice"), ["WATCHDOG=1\n", "WATCHDOG=1\n"]);
}

#[test]
fn more_time_is_asked_for_at_once_and_as_long_as_the_work_goes_on() {
    let messages = messages_of("child_works_long");
    assert!(messages.len() >= 2, "{messages:?}");
    assert!(messages.iter().all(|message| message == "EXTEND_TIMEOUT_USEC=15000000\n"), "{messages:?}");
    assert_eq!(messages_of("child_works_a_moment"), ["EXTEND_TIMEOUT_USEC=15000000\n"]);
}

#[test]
fn bad_names_are_refused() {
    for name in ["", "a:b", "a b", "ä", &"x".repeat(256)] {
        assert_eq!(store(name, io::stdin()).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name}");
    }
}

#[test]
fn without_a_manager_every_call_does_nothing() {
    let output = child("child_says_ready").output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "run by readiness_and_status_are_one_message"]
fn child_says_ready() {
    ready("two\nlines").unwrap();
    stopping("going").unwrap();
    status("fine").unwrap();
}

#[test]
#[ignore = "run by stored_descriptors_are_kept_when_the_other_side_hangs_up"]
fn child_stores_a_descriptor() {
    store("pidfd-web", io::stdin()).unwrap();
    forget("pidfd-web").unwrap();
}

#[test]
#[ignore = "run by the_watchdog_is_answered_only_while_alive"]
fn child_answers_the_watchdog_twice() {
    let checks = std::cell::Cell::new(0);
    let (fourth, mut seen) = tokio::sync::mpsc::unbounded_channel();
    run(async {
        let alive = || {
            checks.set(checks.get() + 1);
            if checks.get() == 4 {
                fourth.send(()).unwrap();
            }
            std::future::ready(matches!(checks.get(), 1 | 3))
        };
        tokio::select! {
            () = answer_watchdog(Duration::from_millis(20), alive) => unreachable!("it has no end"),
            _ = seen.recv() => {}
        }
    });
}

#[test]
#[ignore = "run by more_time_is_asked_for_at_once_and_as_long_as_the_work_goes_on"]
fn child_works_long() {
    run(ask_while(Duration::from_millis(10), async { tokio::time::sleep(Duration::from_millis(300)).await }));
}

#[test]
#[ignore = "run by more_time_is_asked_for_at_once_and_as_long_as_the_work_goes_on"]
fn child_works_a_moment() {
    run(with_more_time(async { tokio::time::sleep(Duration::from_millis(1)).await }));
}

#[test]
#[ignore = "run by stored_descriptors_come_back_once_with_their_names"]
fn child_takes_what_was_stored() {
    // The shell that started us cannot know our process id in advance, but it is its own: it executes us.
    let stored = take_stored().unwrap();
    let names: Vec<_> = stored.iter().map(|(name, fd)| (name.as_str(), fd.as_raw_fd())).collect();
    assert_eq!(names, [("one", 3), ("two", 4)]);
    assert!(take_stored().is_err());
}

#[test]
fn stored_descriptors_come_back_once_with_their_names() {
    let program = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .arg("-c")
        .arg("export LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=one:two; exec \"$0\" \"$@\" 3</dev/null 4</dev/null")
        .arg(program)
        .args(["--exact", "systemd::notify::tests::child_takes_what_was_stored", "--ignored"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
}

/// This program, running one ignored test.
fn child(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", &format!("systemd::notify::tests::{test}"), "--ignored"]).env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null());
    command
}

/// Runs a test as a service and returns what it told its manager.
fn messages_of(test: &str) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    // Read while it runs: the queue of such a socket is short, and a full one makes the sender wait.
    let reader = std::thread::spawn(move || read_until_empty_message(&manager));
    let output = child(test).env("NOTIFY_SOCKET", &path).output().unwrap();
    UnixDatagram::unbound().unwrap().send_to(b"", &path).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    reader.join().unwrap()
}

fn read_until_empty_message(manager: &UnixDatagram) -> Vec<String> {
    let mut buffer = [0; 4096];
    std::iter::from_fn(|| {
        let length = manager.recv(&mut buffer).unwrap();
        (length > 0).then(|| String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
    .collect()
}
