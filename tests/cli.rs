//! The command line as a user meets it: wrong usage, and talking to a small stand-in for the daemon on a private bus.
#![cfg(feature = "cli")]
#![allow(missing_docs)]

#[path = "cli/stand_in.rs"]
mod stand_in;

use std::os::fd::OwnedFd;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use stand_in::StandIn;

fn holmctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holmctl"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Exit status, standard output and standard error.
fn seen(output: Output) -> (i32, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("our output is UTF-8");
    (output.status.code().expect("it exited"), text(output.stdout), text(output.stderr))
}

fn run(command: &mut Command) -> (i32, String, String) {
    seen(command.output().expect("holmctl runs"))
}

/// Runs it on the stand-in's bus.
async fn on(stand_in: &StandIn, arguments: &[&str]) -> (i32, String, String) {
    let mut command = holmctl(arguments);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", stand_in.address());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    end_of(command.spawn().expect("holmctl runs")).await
}

/// A hang is a failure, and is ended.
async fn end_of(child: std::process::Child) -> (i32, String, String) {
    let pid = rustix::process::Pid::from_child(&child);
    let waiting = tokio::task::spawn_blocking(|| child.wait_with_output());
    match tokio::time::timeout(Duration::from_secs(20), waiting).await {
        Ok(output) => seen(output.expect("it is waited for").expect("it can be waited for")),
        Err(_) => {
            // It may have ended this moment.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            panic!("holmctl hangs");
        }
    }
}

#[test]
fn wrong_usage_is_one_line_and_125() {
    for line in [&["run"][..], &["fly"], &["run", "-p", "80:80", "x"], &["kill", "-s", "NOPE", "x"], &["exec", "web"]] {
        let (status, output, error) = run(&mut holmctl(line));
        assert_eq!((status, output.as_str()), (125, ""), "{line:?}");
        assert!(error.starts_with("holmctl: ") && error.lines().count() == 1, "{line:?}: {error}");
    }
}

#[test]
fn unit_verify_says_what_is_wrong_and_where() {
    let samples = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/units");
    let bad = format!("{samples}/bad/01-unknown-key.container");
    let (status, output, error) = run(&mut holmctl(&["unit", "verify", &bad]));
    assert_eq!((status, output.as_str()), (1, ""));
    let wanted = format!(
        "{bad}:3: Memroy=: no such key in [Container]: did you mean 'Memory'?\nholmctl: 1 mistake, in 1 of 1 file\n"
    );
    assert_eq!(error, wanted);
    let (status, output, error) = run(&mut holmctl(&["unit", "verify", "--json", &bad]));
    assert_eq!((status, error.as_str()), (1, ""));
    assert!(output.contains(r#""key":"Memroy","line":3"#), "{output}");
    let good = format!("{samples}/good/15-volume-file.container");
    assert_eq!(run(&mut holmctl(&["unit", "verify", &good])), (0, String::new(), String::new()));
    assert_eq!(run(&mut holmctl(&["unit", "verify", "/etc/passwd"])).0, 125);
    assert_eq!(run(&mut holmctl(&["unit", "verify", "/nowhere.container"])).0, 125);
}

#[test]
fn units_are_listed_shown_switched_off_and_on_and_edited() {
    let root = tempfile::tempdir().unwrap();
    let unit = |arguments: &[&str], editor: &str| {
        let mut command = holmctl(&[&["unit"], arguments].concat());
        run(command.env("HOLM_UNIT_PATH", root.path()).env("EDITOR", editor).env_remove("SYSTEMD_EDITOR"))
    };
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    write("web.container", "[Container]\nImage=a\n[Install]\nWantedBy=multi-user.target\n");
    write("job@.container", "[Container]\nImage=a\n[Install]\nWantedBy=multi-user.target\n");
    let install = |file: &str| {
        let (_, list, _) = unit(&["list", "--no-legend"], "");
        list.lines().find(|line| line.starts_with(file)).map(|line| line.split_whitespace().nth(3).unwrap().to_owned())
    };
    assert_eq!(install("web.container").as_deref(), Some("enabled"));
    assert_eq!(unit(&["disable", "--no-reload", "web"], "").0, 0);
    assert_eq!(install("web.container").as_deref(), Some("disabled"));
    assert!(!unit(&["cat", "web"], "").1.contains("# link:"));
    assert_eq!(unit(&["enable", "--no-reload", "web.service"], "").0, 0);
    assert!(unit(&["cat", "web"], "").1.contains("# link: multi-user.target.wants/web.service"));
    assert!(!root.path().join("web.container.d").exists(), "what disable made is left");
    assert_eq!(unit(&["enable", "--no-reload", "job@a"], "").0, 0);
    assert_eq!(install("job@a.container").as_deref(), Some("enabled"));
    assert_eq!(unit(&["disable", "--no-reload", "job@a"], "").0, 0);
    assert_eq!(install("job@a.container"), None);

    // An editor that writes what stands in a file; it is given the file to edit as its last argument.
    let editor = |text: &str| {
        write("wanted.txt", text);
        format!("cp {}", root.path().join("wanted.txt").display())
    };
    assert_eq!(unit(&["edit", "--no-reload", "web"], "true").0, 0);
    assert!(!root.path().join("web.container.d").exists(), "an edit that changes nothing");
    assert_eq!(unit(&["edit", "--no-reload", "web"], &editor("[Container]\nMemory=1G\n")).0, 0);
    assert!(unit(&["cat", "web"], "").1.contains("--memory=1G"));
    let (status, _, error) = unit(&["edit", "--no-reload", "web"], &editor("[Container]\nMemory=x\n"));
    assert!(status == 125 && error.contains("override.conf:2: Memory=: 'x' is not a size"), "{error}");
    assert!(unit(&["cat", "web"], "").1.contains("--memory=1G"), "a wrong edit was taken over");
    assert_eq!(unit(&["edit", "--no-reload", "--full", "web"], "false").0, 125);
    assert_eq!(unit(&["edit", "--no-reload", "new.container"], &editor("[Container]\nImage=b\n")).0, 0);
    assert_eq!(unit(&["verify"], ""), (0, String::new(), String::new()));
}

#[test]
fn a_devices_verbs_need_what_they_work_on() {
    for line in [
        &["grow"][..],
        &["grow", "web"],
        &["grow", "web", "lots"],
        &["grow", "web", "1G", "--data", "1G"],
        &["rm"],
        &["rm", "mine", "--foreign", "3"],
        &["rm", "--foreign", "mine"],
        &["add", "a/b"],
        &["mount", "mine"],
    ] {
        let line: Vec<_> = std::iter::once("device").chain(line.iter().copied()).collect();
        let (status, output, error) = run(&mut holmctl(&line));
        assert_eq!((status, output.as_str()), (125, ""), "{line:?}");
        assert!(error.lines().count() == 1 && error.contains("see 'holmctl device "), "{line:?}: {error}");
    }
}

#[test]
fn help_and_version_are_success() {
    assert_eq!(run(&mut holmctl(&["--version"])).1, concat!("holmctl ", env!("CARGO_PKG_VERSION"), "\n"));
    let (status, output, _) = run(&mut holmctl(&["--help"]));
    assert_eq!(status, 0);
    let verbs = "run create start stop restart kill freeze thaw rm rename list status show exec shell attach logs wait \
                 stats events image device doctor completion";
    for verb in verbs.split_whitespace() {
        assert!(output.contains(&format!("\n  {verb} ")), "{verb} in {output}");
    }
}

#[test]
fn a_missing_bus_is_told_with_advice() {
    let (status, _, error) = run(holmctl(&["list"]).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere"));
    assert_eq!(status, 125);
    assert!(error.starts_with("holmctl: cannot reach the system bus: "), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn the_doctor_works_without_a_bus() {
    let (status, output, _) = run(holmctl(&["doctor"]).env("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere"));
    assert_eq!(status, 1);
    assert!(output.contains("\nfail  system bus"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_daemon_is_told_with_advice() {
    let Some(stand_in) = StandIn::bus_only() else { return };
    let expected = "holmctl: cannot reach holmd on the system bus: start it with 'systemctl start holmd'\n";
    assert_eq!(on(&stand_in, &["list"]).await, (125, String::new(), expected.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_ends_as_its_payload() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "--name", "a", "exit", "42"]).await, (42, String::new(), String::new()));
    assert_eq!(on(&stand_in, &["run", "exit", "0"]).await.0, 0);
    assert_eq!(on(&stand_in, &["run", "signal", "9"]).await.0, 137);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_start_is_told_with_its_status() {
    let Some(stand_in) = StandIn::start().await else { return };
    let refused = on(&stand_in, &["run", "missing"]).await;
    assert_eq!(refused, (125, String::new(), "holmctl: no image is named 'missing'\n".into()));
    let failed = on(&stand_in, &["run", "fail", "CommandNotFound"]).await;
    assert_eq!(failed, (127, String::new(), "holmctl: the start failed; as asked\n".into()));
    assert_eq!(on(&stand_in, &["run", "fail", "CommandNotExecutable"]).await.0, 126);
    assert_eq!(on(&stand_in, &["run", "-d", "fail", "PoolFull"]).await.0, 125);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_streams_are_the_payloads() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "write"]).await, (0, "to output\n".into(), "to error\n".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_comes_from_the_monitor() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "-t", "terminal"]).await, (7, "on a terminal\r\n".into(), String::new()));
}

/// Types on a terminal that holmctl has; gives back its exit status and whether the terminal is as it was before.
async fn type_to(stand_in: &StandIn, arguments: &[&str], keys: &[u8]) -> (i32, bool) {
    let (master, slave) = stand_in::pty();
    let settings = |fd: &OwnedFd| format!("{:?}", rustix::termios::tcgetattr(fd).expect("it is a terminal"));
    let before = settings(&slave);
    let mut command = holmctl(arguments);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", stand_in.address()).stdin(slave.try_clone().unwrap());
    let child = command.stdout(slave.try_clone().unwrap()).stderr(Stdio::piped()).spawn().expect("holmctl runs");
    stand_in.has_run().await;
    rustix::io::write(&master, keys).expect("it takes keys");
    let (status, ..) = end_of(child).await;
    (status, settings(&slave) == before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_carries_keys_and_is_restored() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(type_to(&stand_in, &["run", "-it", "ask"], b"21\r").await, (21, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_presses_leave_a_terminal() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(type_to(&stand_in, &["run", "-it", "ask"], b"\x1d\x1d\x1d").await, (0, true));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_monitor_that_was_killed_is_told() {
    let Some(stand_in) = StandIn::start().await else { return };
    let (status, _, error) = on(&stand_in, &["run", "--name", "a", "vanish"]).await;
    assert_eq!(status, 125);
    assert_eq!(error, "holmctl: nobody knows how 'a' ended: its monitor was killed\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_with_rm_ends_when_the_name_is_free() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "--rm", "--name", "a", "exit", "3"]).await.0, 3);
    assert!(stand_in.removed("a"), "it waited for the removal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_outlives_a_restart_of_the_daemon() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "--rm", "--name", "a", "restart", "5"]).await, (5, String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_run_prints_its_name() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["run", "-d", "--name", "db-1", "exit", "0"]).await, (0, "db-1\n".into(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_the_payload() {
    let Some(stand_in) = StandIn::start().await else { return };
    let mut command = holmctl(&["run", "wait-for-signal"]);
    command.env("DBUS_SYSTEM_BUS_ADDRESS", stand_in.address()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("holmctl runs");
    stand_in.has_run().await;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(end_of(child).await, (130, String::new(), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exec_ends_as_its_process() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["exec", "web", "exit", "9"]).await, (9, String::new(), String::new()));
    let (status, _, error) = on(&stand_in, &["exec", "web", "nothing"]).await;
    assert_eq!((status, error.as_str()), (127, "holmctl: 'nothing' is not in the container\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_are_tables_or_json() {
    let Some(stand_in) = StandIn::start().await else { return };
    let table = "NAME STATE   IMAGE  UNIT\nweb  running debian holm-web.scope\n\n1 container listed.\n";
    assert_eq!(on(&stand_in, &["list"]).await, (0, table.into(), String::new()));
    let bare = "old stopped debian holm-old.scope\nweb running debian holm-web.scope\n";
    assert_eq!(on(&stand_in, &["list", "--all", "--no-legend"]).await.1, bare);
    let json = r#"[{"image":"debian","name":"web","state":"running","unit":"holm-web.scope"}]"#;
    assert_eq!(on(&stand_in, &["list", "--json"]).await.1.trim(), json);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_is_not_waited_for() {
    let Some(stand_in) = StandIn::start().await else { return };
    assert_eq!(on(&stand_in, &["wait", "old"]).await, (4, "4\n".into(), String::new()));
    assert_eq!(on(&stand_in, &["show", "-p", "State,ExitStatus", "old"]).await.1, "State=stopped\nExitStatus=4\n");
    assert_eq!(on(&stand_in, &["show", "--value", "-p", "State", "old"]).await.1, "stopped\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_several_names_is_tried() {
    let Some(stand_in) = StandIn::start().await else { return };
    let (status, _, error) = on(&stand_in, &["rm", "nobody", "old"]).await;
    assert_eq!((status, error.as_str()), (125, "holmctl: no container is named 'nobody'\n"));
    assert!(stand_in.removed("old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_prints_the_name_it_got() {
    let Some(stand_in) = StandIn::start().await else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let (status, output, error) = on(&stand_in, &["image", "import", path]).await;
    assert_eq!((status, output.as_str()), (0, "named-by-archive\n"));
    assert_eq!(error, format!("importing {path}\n"));
}
