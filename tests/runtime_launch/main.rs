//! Real containers from the runtime alone, without daemon and systemd. Needs root, cgroup2 and a static busybox; says
//! "skipped" where it has not. `HOLM_INIT` names another holm-init than the one built for tests, such as the static one.

mod escapes;
mod exec;
mod host;
mod inside;
mod monitor;
mod terminal;

use std::fs;
use std::os::fd::AsFd;

use holm::model::{Exit, MonitorMessage, NetworkMode};
use holm::runtime::{LaunchError, Launcher};
use host::{host, plan};

#[test]
fn the_command_is_process_1_and_its_output_arrives() {
    let Some(host) = host() else { return };
    assert_eq!(host.run("echo $$; cat /proc/sys/kernel/hostname; pwd").ok(), "1\nweb\n/\n");
}

#[test]
fn a_payload_may_open_as_many_files_as_a_service() {
    let Some(host) = host() else { return };
    let limits = host.run("ulimit -Sn; ulimit -Hn").ok();
    let (soft, hard) = limits.trim().split_once('\n').unwrap();
    assert_eq!(soft, "1024");
    let hard: u64 = hard.parse().unwrap();
    assert!((1024..=524_288).contains(&hard), "{hard}");
}

#[test]
fn exit_codes_and_signals_are_told_as_they_are() {
    for (script, exit) in [("exit 0", Exit::Code(0)), ("exit 42", Exit::Code(42)), ("exit 255", Exit::Code(255))] {
        let Some(host) = host() else { return };
        assert_eq!(host.run(script).exit, exit);
        let record = host.record();
        assert_eq!((record.exit, record.run, record.oom_kills), (exit, 3, 0));
        assert!(record.figures.cpu_usec.is_some(), "cpu.stat is in every cgroup");
    }
}

#[test]
fn a_leader_that_is_killed_is_told_as_killed() {
    let Some(host) = host() else { return };
    let running = host.launch(&plan(&["sleep", "60"]), [None, None, None]).unwrap();
    holm::sys::pidfd::send_signal(running.launched.leader_pidfd.as_fd(), 9).unwrap();
    assert_eq!(running.wait(), Exit::Signal { number: 9, core_dumped: false });
    assert_eq!(running.launched.keeper.ended(), Some((Exit::Signal { number: 9, core_dumped: false }, 0)));
}

#[test]
fn the_daemons_own_socket_tells_the_end_too() {
    let Some(host) = host() else { return };
    let running = host.launch(&plan(&["sh", "-c", "exit 7"]), [None, None, None]).unwrap();
    assert!(matches!(running.message().0, MonitorMessage::Exited { exit: Exit::Code(7), .. }));
    running.launched.keeper.reap().unwrap();
    assert_eq!(running.launched.keeper.ended(), Some((Exit::Code(7), 0)));
}

/// Why the command does not start.
fn refused(command: &str) -> Option<LaunchError> {
    let host = host()?;
    fs::write(host.tree().join("etc/data"), "x").unwrap();
    fs::write(host.tree().join("bin/orphan"), "#!/bin/none\n").unwrap();
    fs::set_permissions(host.tree().join("bin/orphan"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let error = host.launch(&plan(&[command]), [None, None, None]).err();
    assert!(!host.records.path().join("exit.json").exists(), "what never ran has no record");
    Some(error.unwrap_or_else(|| panic!("{command} started")))
}

#[test]
fn a_command_that_is_not_there_is_named() {
    for command in ["nonesuch", "/no/such"] {
        let Some(error) = refused(command) else { return };
        assert!(matches!(&error, LaunchError::CommandNotFound(name) if name == command), "{error}");
    }
}

#[test]
fn a_command_that_cannot_run_is_named_with_the_reason() {
    for (command, wanted) in [("/etc/data", "ermission"), ("orphan", "interpreter"), ("/etc", "ermission")] {
        let Some(error) = refused(command) else { return };
        let LaunchError::CommandNotExecutable { reason, .. } = &error else { panic!("{error}") };
        assert!(reason.contains(wanted), "{command}: {reason}");
    }
}

#[test]
fn a_user_that_is_not_there_is_named() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["id"]);
    plan.process.user = Some("bob".to_owned());
    assert!(matches!(host.launch(&plan, [None, None, None]), Err(LaunchError::NoSuchUser(user)) if user == "bob"));
}

#[test]
fn after_a_failed_start_nothing_is_left() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["true"]);
    plan.process.working_directory = Some("/etc/passwd/x".to_owned());
    let Err(LaunchError::Step(error)) = host.launch(&plan, [None, None, None]) else { panic!("it started") };
    assert_eq!((error.step.as_str(), error.errno), ("WorkingDirectory", libc::ENOTDIR));
    assert!(error.message.contains("/etc/passwd/x"), "{error}");
    let left: Vec<_> =
        fs::read_dir(&host.scope).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_dir()).collect();
    assert_eq!(left.len(), 1, "supervisor is what goes with the scope: {left:?}");
}

#[test]
fn input_output_and_errors_are_the_descriptors_given() {
    let Some(host) = host() else { return };
    let (reader, stdin) = host::pipe();
    let (output, stdout) = host::pipe();
    let (errors, stderr) = host::pipe();
    let mut input = fs::File::from(stdin);
    let running = host
        .launch(
            &plan(&["sh", "-c", "read x; echo got $x; echo bad >&2"]),
            [Some(reader.into()), Some(stdout), Some(stderr)],
        )
        .unwrap();
    std::io::Write::write_all(&mut input, b"this\n").unwrap();
    assert_eq!((host::read_all(output).as_str(), host::read_all(errors).as_str()), ("got this\n", "bad\n"));
    assert_eq!(running.wait(), Exit::Code(0));
}

#[test]
fn without_descriptors_there_is_the_containers_null_device() {
    let Some(host) = host() else { return };
    let (output, stdout) = host::pipe();
    let script = "ls -l /proc/self/fd/0 /proc/self/fd/2; cat";
    let running = host.launch(&plan(&["sh", "-c", script]), [None, Some(stdout), None]).unwrap();
    let output = host::read_all(output);
    assert_eq!(output.matches("-> /dev/null").count(), 2, "{output}");
    assert_eq!(running.wait(), Exit::Code(0));
}

#[test]
fn the_network_is_loopback_only_or_the_hosts() {
    let Some(host) = host() else { return };
    let interfaces = "for i in /sys/class/net/*; do echo ${i##*/}; done; cat /proc/net/if_inet6 | cat >/dev/null";
    assert_eq!(host.run(interfaces).ok(), "lo\n");
    let Some(host) = self::host::host() else { return };
    assert_eq!(host.run("cat /sys/class/net/lo/flags").ok().trim(), "0x9", "up and loopback");
    let Some(host) = self::host::host() else { return };
    let mut plan = plan(&["sh", "-c", "ls -l /proc/self/ns/net"]);
    plan.network = NetworkMode::Host;
    let shown = host.run_plan(&plan).ok();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(shown.contains(own.to_str().unwrap()), "{shown}");
}

#[test]
fn a_long_order_travels_as_well_as_a_short_one() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["sh", "-c", "echo ${#LONG}"]);
    plan.process.environment = vec![format!("LONG={}", "x".repeat(100_000))];
    assert_eq!(host.run_plan(&plan).ok(), "100000\n");
}

#[test]
fn an_order_without_bounds_is_refused() {
    let Some(host) = host() else { return };
    let mut plan = plan(&["true"]);
    plan.process.environment = vec![format!("LONG={}", "x".repeat(2 << 20))];
    let error = host.launch(&plan, [None, None, None]).err().unwrap();
    assert_eq!(error.code(), holm::model::ErrorCode::InvalidConfig, "{error}");
}

#[test]
#[ignore = "prints where the time of a start goes; run with --ignored --nocapture, alone"]
fn where_the_time_goes() {
    let mut rows: Vec<(String, Vec<u64>)> = Vec::new();
    let mut note = |name: &str, usec: u64| match rows.iter_mut().find(|(known, _)| known == name) {
        Some((_, all)) => all.push(usec),
        None => rows.push((name.to_owned(), vec![usec])),
    };
    let usec = |from: std::time::Instant| u64::try_from(from.elapsed().as_micros()).unwrap();
    for _ in 0..40 {
        let Some(host) = host() else { return };
        // As after systemd's own move: see `Scope::divide`.
        let spawned = std::time::Instant::now();
        let monitor = host::image().spawn_monitor().unwrap();
        note("= spawn", usec(spawned));
        fs::write(host.scope.join("cgroup.procs"), monitor.pid().to_string()).unwrap();
        // As long as systemd takes for the scope.
        std::thread::sleep(std::time::Duration::from_millis(2));
        let started = std::time::Instant::now();
        let running = host.launch_in(monitor, &plan(&["true"]), [None, None, None]).unwrap();
        note("= launch", usec(started));
        running.message();
        note("= launch to told exit", usec(started));
        running.launched.keeper.reap().unwrap();
        note("= launch to reaped monitor", usec(started));
        running.launched.steps.iter().for_each(|(name, usec)| note(name, *usec));
    }
    for (name, mut all) in rows {
        all.sort_unstable();
        println!("{name:28} {:6} µs, at best {:6}", all[all.len() / 2], all[0]);
    }
}
