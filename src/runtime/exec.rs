//! One more process in a running container, and its keeper.
//!
//! The keeper joins the container's namespaces in one step and makes the process inside; it stays outside the pid namespace
//! itself, so the container cannot see it (R5). The process has a cgroup of its own, so that it and all it started can be
//! killed as a whole.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::thread::UnshareFlags;

use super::cgroups::ExecCgroup;
use super::init::{Setup, Stopwatch};
use super::monitor::{Protection, Watched, abandon, announce, failed, outcome, stop_signals, wait};
use super::plan::{self, Step};
use super::wire::{ClientEnd, Failure, InitEnd, InitSide, MonitorEnd};
use super::{ExecFds, ExecPlan};
use crate::model::Process;
use crate::sys::namespace::{self, Namespaces};
use crate::sys::process::{self, Child, Cloned};
use crate::sys::rooted::Root;
use crate::sys::socket;

/// Runs the process and stays until it has ended.
pub(super) fn keep(daemon: &MonitorEnd, plan: ExecPlan, fds: ExecFds, protection: Protection) -> Result<(), Failure> {
    let mut watch = Stopwatch::start();
    let steps = plan::exec_steps(&plan).map_err(|error| Failure::Step(error.into()))?;
    let signals = stop_signals().map_err(|error| failed("Signals", &error))?;
    let cgroup = ExecCgroup::make(fds.cgroup, &plan.cgroup_name).map_err(|error| failed("MakeCgroup", &error))?;
    watch.lap("MakeCgroup");
    let started = start(&cgroup, fds.leader, plan.process, fds.stdio, &steps, &mut watch);
    let (child, init) = match started {
        Ok(started) => started,
        Err(failure) => {
            cgroup.close();
            return Err(failure);
        }
    };
    let client = ClientEnd::new(fds.client);
    let executed = match outcome(init, &child) {
        Ok(executed) => executed,
        Err(failure) => {
            cgroup.close();
            return Err(failure);
        }
    };
    announce(daemon, &client, &child, executed, watch);
    protection.take();
    // Only now, because the move may take an RCU grace period (see `Scope::divide`). Without it the keeper would be counted to
    // holmd, which is untidy but works.
    let _ = cgroup.enter_supervisor();
    let kill = |_| {
        // If nothing is left to be killed the wait sees the end next.
        let _ = cgroup.cgroup().kill();
        None
    };
    let exit = wait(&child, &signals, kill, Watched::default()).map_err(|error| failed("Wait", &error))?;
    let oom_kills = cgroup.oom_kills();
    cgroup.close();
    client.exited(exit, oom_kills);
    // A daemon that is gone has no use for it.
    let _ = daemon.ended(exit, oom_kills);
    Ok(())
}

fn start(
    cgroup: &ExecCgroup,
    leader: OwnedFd,
    process: Process,
    stdio: [Option<OwnedFd>; 3],
    steps: &[Step],
    watch: &mut Stopwatch,
) -> Result<(Child, InitSide), Failure> {
    let (ours, inits) = socket::packet_pair().map_err(|error| failed("Socket", &error))?;
    namespace::join(leader.as_fd(), JOINED).map_err(|error| failed("JoinNamespaces", &error))?;
    watch.lap("JoinNamespaces");
    let cloning = Instant::now();
    let cloned = process::clone_process(UnshareFlags::empty(), Some(cgroup.cgroup().as_fd()));
    let child = match cloned.map_err(|error| failed("Clone", &error))? {
        Cloned::Parent(child) => child,
        Cloned::Child => enter(leader, Setup::new(process, stdio), steps, cloning, &InitEnd::new(inits)),
    };
    Ok((child, InitSide::new(ours)))
}

/// In the child. The cgroup namespace is joined here and not before: on a file system mounted with `nsdelegate`, as systemd
/// does, a process in the container's cgroup namespace cannot place another one beside `payload`.
fn enter(leader: OwnedFd, mut setup: Setup, steps: &[Step], cloning: Instant, report: &InitEnd) -> ! {
    if let Err(error) = setup.close_others(report, Some(&leader)) {
        abandon(report, "CloseOthers", &error);
    }
    let joined = namespace::join(leader.as_fd(), Namespaces::CONTROL_GROUP);
    drop(leader);
    match joined.and_then(|()| Root::of_process()) {
        Ok(root) => {
            setup.root = Some(root);
            setup.run(steps, Stopwatch::of(cloning), report)
        }
        Err(error) => abandon(report, "JoinNamespaces", &error),
    }
}

const JOINED: Namespaces = Namespaces::MOUNT
    .union(Namespaces::PROCESS_ID)
    .union(Namespaces::NETWORK)
    .union(Namespaces::INTER_PROCESS_COMMUNICATION)
    .union(Namespaces::HOST_NAME_AND_NIS_DOMAIN_NAME);
