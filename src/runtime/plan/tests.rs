use super::*;
use crate::model::{Capabilities, ContainerId, ContainerName, StopPolicy};

fn plan() -> LaunchPlan {
    LaunchPlan {
        name: ContainerName::parse("web").unwrap(),
        id: ContainerId::from_random([1; 16]),
        run: 1,
        hostname: "web".to_owned(),
        process: process(),
        boot: false,
        network: NetworkMode::None,
        read_only: true,
        mounts: vec![BindMount { source: "/srv".to_owned(), destination: "/data".to_owned(), read_only: true }],
        stop: StopPolicy::default(),
        survive_soft_reboot: false,
        terminal_size: Some((24, 80)),
        stop_with_caller: false,
        fd_names: vec![],
        credentials: vec![],
        notify: false,
        notify_caller: false,
    }
}

fn process() -> Process {
    Process {
        command: vec!["sh".to_owned()],
        environment: Vec::new(),
        working_directory: None,
        user: None,
        terminal: true,
        init: false,
        capabilities: Capabilities::default(),
        no_new_privileges: true,
    }
}

fn names(steps: &[Step]) -> Vec<&'static str> {
    let mut names: Vec<_> = steps.iter().map(Step::name).collect();
    names.dedup();
    names
}

fn position(steps: &[Step], name: &str) -> usize {
    steps.iter().position(|step| step.name() == name).unwrap_or_else(|| panic!("no {name} in {steps:?}"))
}

#[test]
fn a_launch_with_everything_takes_these_steps() {
    let expected = "OpenIncoming MakePrivate HostRelease OpenBind AttachRoot PivotRoot CgroupNamespace Hostname Loopback MountProc \
        MountSys MountCgroup MountDev DeviceNodes MountDevPts MountDevShm MountDevMqueue MountRun RunHost Incoming AttachBind \
        ReadOnlyPaths MaskPaths FindUser OpenTerminal Console WorkingDirectory ReadOnlyRoot Keyring ResourceLimits Stdio Session \
        BoundingSet User OwnSets NoNewPrivileges CloseFds Exec";
    assert_eq!(names(&launch_steps(&plan()).unwrap()).join(" "), expected);
}

#[test]
fn a_whole_system_takes_these_steps_too() {
    let plain = names(&launch_steps(&plan()).unwrap());
    let boot = LaunchPlan { boot: true, ..plan() };
    let more: Vec<_> = names(&launch_steps(&boot).unwrap()).into_iter().filter(|name| !plain.contains(name)).collect();
    assert_eq!(more.join(" "), "HostZone MountVolatile UnixExport MachineId JournalDirectory Zone ShareMounts");
}

#[test]
fn a_system_has_a_console_without_being_given_a_terminal_and_is_not_controlled_by_it() {
    let mut plan = LaunchPlan { boot: true, ..plan() };
    for terminal in [false, true] {
        plan.process.terminal = terminal;
        let steps = launch_steps(&plan).unwrap();
        assert!(position(&steps, "OpenTerminal") < position(&steps, "Console"));
        assert!(steps.contains(&Step::Session { take_terminal: false }));
    }
}

#[test]
fn only_a_system_makes_cgroups() {
    let plain = launch_steps(&plan()).unwrap();
    assert!(plain.contains(&Step::MountCgroup { writable: false }));
    let boot = launch_steps(&LaunchPlan { boot: true, ..plan() }).unwrap();
    assert!(boot.contains(&Step::MountCgroup { writable: true }));
}

#[test]
fn the_hosts_resolver_is_for_who_has_the_hosts_network() {
    let names = names(&launch_steps(&LaunchPlan { network: NetworkMode::Host, ..plan() }).unwrap());
    assert!(names.contains(&"HostResolver") && names.contains(&"Resolver"));
}

#[test]
fn what_is_not_wanted_is_not_done() {
    let mut plan = plan();
    plan.network = NetworkMode::Host;
    plan.read_only = false;
    plan.mounts.clear();
    plan.process.terminal = false;
    plan.process.no_new_privileges = false;
    let names = names(&launch_steps(&plan).unwrap());
    for name in ["Loopback", "ReadOnlyRoot", "OpenBind", "AttachBind", "OpenTerminal", "Console", "NoNewPrivileges"] {
        assert!(!names.contains(&name), "{name}");
    }
}

#[test]
fn the_host_is_gone_before_the_image_is_looked_at() {
    let steps = launch_steps(&plan()).unwrap();
    for name in ["MountProc", "MountDev", "MountRun", "AttachBind", "FindUser", "WorkingDirectory"] {
        assert!(position(&steps, "PivotRoot") < position(&steps, name), "{name}");
    }
    assert!(position(&steps, "OpenBind") < position(&steps, "PivotRoot"));
    assert!(position(&steps, "OpenIncoming") < position(&steps, "MakePrivate"), "what is sent in comes from the host");
}

#[test]
fn privileges_are_given_up_in_an_order_that_works() {
    let steps = launch_steps(&plan()).unwrap();
    // Dropping from the bounding set needs CAP_SETPCAP, a change of user CAP_SETUID; the sets themselves go last.
    assert!(position(&steps, "BoundingSet") < position(&steps, "User"));
    assert!(position(&steps, "User") < position(&steps, "OwnSets"));
    assert!(position(&steps, "ReadOnlyRoot") < position(&steps, "BoundingSet"), "mounting needs CAP_SYS_ADMIN");
    assert!(position(&steps, "WorkingDirectory") < position(&steps, "ReadOnlyRoot"), "it may have to be made");
}

#[test]
fn every_plan_ends_with_exec_and_has_it_once() {
    let exec = ExecPlan { process: process(), cgroup_name: "exec-7".to_owned(), terminal_size: None };
    for steps in [launch_steps(&plan()).unwrap(), exec_steps(&exec).unwrap()] {
        assert!(matches!(steps.last(), Some(Step::Exec { .. })));
        assert_eq!(steps.iter().filter(|step| step.name() == "Exec").count(), 1);
        assert_eq!(steps[steps.len() - 2], Step::CloseFds);
    }
}

#[test]
fn one_more_process_gives_up_as_much_as_the_first() {
    let exec = ExecPlan { process: process(), cgroup_name: "exec-7".to_owned(), terminal_size: None };
    let tail = |steps: Vec<Step>| {
        let start = position(&steps, "Keyring");
        steps[start..].to_vec()
    };
    assert_eq!(tail(exec_steps(&exec).unwrap()), tail(launch_steps(&plan()).unwrap()));
}

#[test]
fn under_init_the_terminal_is_left_to_the_command() {
    let mut plan = plan();
    plan.process.init = true;
    let steps = launch_steps(&plan).unwrap();
    assert!(steps.contains(&Step::Session { take_terminal: false }));
    assert_eq!(steps.last(), Some(&Step::Exec { under_init: true }));
}

#[test]
fn destinations_in_kernel_areas_or_with_dots_are_refused() {
    for destination in
        ["/proc", "/proc/sys", "/sys/fs", "/dev/null", "/run/host", "/run/host/x", "/", "data", "/a/../proc", "", "//"]
    {
        let mount = BindMount { source: "/srv".to_owned(), destination: destination.to_owned(), read_only: false };
        assert_eq!(check_bind(&mount), Err(PlanError::Destination(destination.to_owned())), "{destination}");
    }
    for destination in ["/data", "/procedure", "/run/x", "/devices/x", "/data/"] {
        let mount = BindMount { source: "/srv".to_owned(), destination: destination.to_owned(), read_only: false };
        assert_eq!(check_bind(&mount), Ok(()), "{destination}");
    }
    let relative = BindMount { source: "srv".to_owned(), destination: "/data".to_owned(), read_only: false };
    assert_eq!(check_bind(&relative), Err(PlanError::Source("srv".to_owned())));
}

#[test]
fn a_plan_without_a_command_is_none() {
    for command in [vec![], vec![String::new()]] {
        let mut plan = plan();
        plan.process.command = command;
        assert_eq!(launch_steps(&plan), Err(PlanError::NoCommand));
    }
}

#[test]
fn the_cgroup_of_a_process_cannot_be_named_like_a_control_file() {
    for name in
        ["exec-", "exec-a", "exec-1/..", "payload", "supervisor", "cgroup.procs", "", "exec-123456789012345678901"]
    {
        assert!(check_exec_cgroup(name).is_err(), "{name}");
    }
    assert_eq!(check_exec_cgroup("exec-12"), Ok(()));
}
