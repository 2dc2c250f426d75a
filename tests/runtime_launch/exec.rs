//! Further processes in a running container.

use std::fs;
use std::os::fd::AsFd;

use holm::model::{Exit, MonitorMessage};
use holm::runtime::LaunchError;

use super::host::{Host, exec_plan, host, pipe, plan, read_all};

fn sleeping(host: &Host) -> super::host::Running<'_> {
    host.launch(&plan(&["sleep", "600"]), [None, None, None]).unwrap()
}

#[test]
fn it_sees_what_the_container_sees() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let (output, stdout) = pipe();
    let script =
        "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/sys/kernel/hostname; echo $container $container_uuid
        cat /proc/self/cgroup | grep ^0; for n in mnt pid net ipc uts cgroup; do
            [ $(readlink /proc/1/ns/$n) = $(readlink /proc/self/ns/$n) ] || echo other $n; done
        cd /proc; echo processes [0-9]*; cd /proc/self/fd; echo *; grep -E 'Cap(Bnd|Inh|Amb)|NoNew' /proc/self/status";
    let mut plan = exec_plan(&["sh", "-c", script]);
    for applet in ["tr", "grep", "readlink"] {
        std::os::unix::fs::symlink("busybox", format!("/proc/{}/root/bin/{applet}", running.launched.leader)).unwrap();
    }
    plan.process.working_directory = Some("/etc".to_owned());
    let process = host.exec(&running, &plan, [None, Some(stdout), None]).unwrap();
    let text = read_all(output);
    assert!(text.starts_with("sleep 600 \nweb\nholm 0707070707074707"), "{text}");
    assert!(text.contains("0::/../exec-1\n"), "a cgroup beside payload: {text}");
    assert!(!text.contains("other"), "{text}");
    let processes = text.lines().find(|line| line.starts_with("processes")).unwrap();
    assert!(processes.starts_with("processes 1 ") && processes.split(' ').count() == 3, "no keeper (R5): {text}");
    assert!(text.contains("\n0 1 2"), "no other descriptor: {text}");
    assert!(text.contains("CapBnd:\t00000000800405fb") && text.contains("NoNewPrivs:\t1"), "{text}");
    assert_eq!(process.wait(), Exit::Code(0));
    assert_eq!(process.launched.keeper.ended(), Some((Exit::Code(0), 0)));
    assert!(!host.scope.join("exec-1").exists());
}

#[test]
fn its_exit_is_told_and_the_container_goes_on() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let process = host.exec(&running, &exec_plan(&["sh", "-c", "exit 42"]), [None, None, None]).unwrap();
    assert_eq!(process.wait(), Exit::Code(42));
    let error = host.exec(&running, &exec_plan(&["nonesuch"]), [None, None, None]).err().unwrap();
    assert!(matches!(error, LaunchError::CommandNotFound(_)), "{error}");
    assert!(fs::metadata(format!("/proc/{}", running.launched.leader)).is_ok());
    assert!(!host.scope.join("exec-1").exists());
}

#[test]
fn asking_its_keeper_to_stop_kills_it_with_all_it_started() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let (output, stdout) = pipe();
    let script = "trap '' TERM; (trap '' TERM; sleep 600) & (sleep 600) & echo ready; wait";
    let process = host.exec(&running, &exec_plan(&["sh", "-c", script]), [None, Some(stdout), None]).unwrap();
    let mut line = [0; 6];
    std::io::Read::read_exact(&mut &output, &mut line).unwrap();
    process.launched.keeper.stop().unwrap();
    assert!(matches!(process.wait(), Exit::Signal { number: 9, .. }));
    assert_eq!(read_all(output), "", "nobody holds the pipe any more");
    assert!(!host.scope.join("exec-1").exists());
}

#[test]
fn what_it_leaves_behind_is_killed_at_its_end() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let (output, stdout) = pipe();
    let process =
        host.exec(&running, &exec_plan(&["sh", "-c", "sleep 600 & exit 3"]), [None, Some(stdout), None]).unwrap();
    assert_eq!(process.wait(), Exit::Code(3));
    assert_eq!(read_all(output), "");
}

#[test]
fn it_ends_with_the_container() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let process = host.exec(&running, &exec_plan(&["sleep", "600"]), [None, None, None]).unwrap();
    holm::sys::pidfd::send_signal(running.launched.leader_pidfd.as_fd(), 9).unwrap();
    assert!(matches!(process.wait(), Exit::Signal { number: 9, .. }));
    running.wait();
}

#[test]
fn it_can_have_a_terminal_of_the_containers() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let mut plan = exec_plan(&["sh", "-c", "stty size; tty; echo x > /dev/tty"]);
    plan.process.terminal = true;
    plan.terminal_size = Some((10, 20));
    let process = host.exec(&running, &plan, [None, None, None]).unwrap();
    let (message, mut fds) = process.message();
    assert_eq!(message, MonitorMessage::Terminal);
    let mut text = String::new();
    let end = std::io::Read::read_to_string(&mut fs::File::from(fds.pop().unwrap()), &mut text);
    assert_eq!(end.unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(text.replace('\r', ""), "10 20\n/dev/pts/0\nx\n");
    assert_eq!(process.wait(), Exit::Code(0));
}

#[test]
fn it_can_be_another_user() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    let (output, stdout) = pipe();
    let mut plan = exec_plan(&["sh", "-c", "id; grep CapEff /proc/self/status; echo $HOME"]);
    std::os::unix::fs::symlink("busybox", format!("/proc/{}/root/bin/grep", running.launched.leader)).unwrap();
    plan.process.user = Some("alice".to_owned());
    let process = host.exec(&running, &plan, [None, Some(stdout), None]).unwrap();
    let text = read_all(output);
    assert!(text.starts_with("uid=1000(alice) gid=1000(alice) groups=44(video),1000(alice)\n"), "{text}");
    assert!(text.ends_with("CapEff:\t0000000000000000\n/home/alice\n"), "{text}");
    assert_eq!(process.wait(), Exit::Code(0));
}

#[test]
fn a_cgroup_name_that_is_not_ours_is_refused() {
    let Some(host) = host() else { return };
    let running = sleeping(&host);
    for name in ["payload", "exec-", "exec-1/x", "../x", "cgroup.procs", "exec-x"] {
        let mut plan = exec_plan(&["true"]);
        plan.cgroup_name = name.to_owned();
        assert!(matches!(host.exec(&running, &plan, [None, None, None]), Err(LaunchError::Plan(_))), "{name}");
    }
}

#[test]
fn a_container_that_has_ended_cannot_be_entered() {
    let Some(host) = host() else { return };
    let running = host.launch(&plan(&["true"]), [None, None, None]).unwrap();
    running.wait();
    let error = host.exec(&running, &exec_plan(&["true"]), [None, None, None]).err().unwrap();
    assert!(matches!(&error, LaunchError::Step(step) if step.step == "JoinNamespaces"), "{error}");
    assert!(!host.scope.join("exec-1").exists());
}
