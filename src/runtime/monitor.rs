//! The container's keeper: makes it, waits for it, writes down how it ended.
//!
//! ```text
//!  spawned ──► waits for an order ──► divides the scope ──► clone3 ──► init reports ──► waits ──► record ──► ends
//!              (holmd gone: ends)                                      (failure: kills and ends)
//! ```
//!
//! It outlives holmd, and nothing in its wait depends on anybody: it ends when the leader has ended, never before.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::WaitIdStatus;
use rustix::thread::UnshareFlags;

use super::cgroups::Scope;
use super::console::Console;
use super::init::{Setup, Stopwatch};
use super::notifier::Notifier;
use super::plan::{self, Step};
use super::stop::Stop;
use super::tie::Tie;
use super::wire::{ClientEnd, Executed, Failure, InitEnd, InitSide, MonitorEnd, Order, WireError};
use super::{LaunchFds, LaunchPlan, StepError, exec, record};
use crate::model::{Exit, ExitRecord, NetworkMode, now_usec};
use crate::sys::process::{self, Child, Cloned, OomScore};
use crate::sys::signal::{self, SignalFd};
use crate::sys::{pidfd, socket};

/// All of `holm-init`: its standard input is a packet socket on which one order comes.
pub fn main() -> ExitCode {
    let Ok(daemon) = become_monitor() else { return ExitCode::FAILURE };
    let protection = Protection::prepare();
    let result = match daemon.order() {
        Ok(Order::Launch(plan, fds)) => keep(&daemon, *plan, fds, protection),
        Ok(Order::Exec(plan, fds)) => exec::keep(&daemon, *plan, fds, protection),
        // The daemon dropped us before there was anything to do.
        Err(WireError::Closed) => Ok(()),
        Err(error) => Err(broken("Order", &error.to_string())),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // If the daemon is gone there is nobody to tell.
            let _ = daemon.failed(failure);
            ExitCode::FAILURE
        }
    }
}

/// A process that nobody holds and nobody can look into: own session, own working directory, no inherited descriptor, no
/// inherited signal state, undumpable (R5). Everything init needs of this it inherits.
fn become_monitor() -> io::Result<MonitorEnd> {
    process::new_session()?;
    process::make_undumpable()?;
    process::close_from(3)?;
    process::set_name(c"holm-init")?;
    // Also SIGPIPE, which the Rust runtime ignores: it would be ignored in the payload too.
    signal::reset_dispositions();
    signal::block_all()?;
    rustix::process::chdir("/")?;
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(rustix::stdio::stdout())?;
    Ok(MonitorEnd::new(socket))
}

fn keep(daemon: &MonitorEnd, plan: LaunchPlan, fds: LaunchFds, protection: Protection) -> Result<(), Failure> {
    let mut watch = Stopwatch::start();
    let steps = plan::launch_steps(&plan).map_err(|error| Failure::Step(error.into()))?;
    let signals = stop_signals().map_err(|error| failed("Signals", &error))?;
    let scope = Scope::divide(fds.cgroup).map_err(|error| failed("DivideScope", &error))?;
    if plan.survive_soft_reboot {
        scope.mark_survivor().map_err(|error| failed("MarkSurvivor", &error))?;
    }
    watch.lap("DivideScope");
    let (ours, inits) = socket::packet_pair().map_err(|error| failed("Socket", &error))?;
    let (run, boot, policy, shown) = (plan.run, plan.boot, plan.stop, plan.process.terminal);
    let tie = tie_of(fds.client.as_ref().filter(|_| plan.stop_with_caller)).map_err(|error| failed("Tie", &error))?;
    let named = plan.notify.then(Notifier::socket).transpose().map_err(|error| failed("Notify", &error))?;
    let listener = fds.client.as_ref().filter(|_| plan.notify_caller).map(OwnedFd::try_clone).transpose();
    let listener = listener.map_err(|error| failed("Notify", &error))?.map(|caller| ClientEnd::new(Some(caller)));
    // What a system's console shows is copied by the monitor.
    let output = fds.stdio[1].as_ref().filter(|_| boot).map(OwnedFd::try_clone).transpose();
    let output = output.map_err(|error| failed("Console", &error))?;
    let mut setup = Setup {
        device: Some(fds.root),
        kept_blocked: boot.then_some(policy.signal),
        notify: named,
        passed: fds.passed,
        fd_names: plan.fd_names,
        credentials: plan.credentials.into_iter().zip(fds.credentials).collect(),
        ..Setup::new(plan.process, fds.stdio)
    };
    let cloning = Instant::now();
    let cloned = process::clone_process(namespaces(plan.network), Some(scope.payload().as_fd()));
    let child = match cloned.map_err(|error| failed("Clone", &error))? {
        Cloned::Child => be_init(setup, InitEnd::new(inits), &steps, Stopwatch::of(cloning)),
        Cloned::Parent(child) => child,
    };
    // Whatever stays open here keeps the device busy, or a pipe from ending.
    let named = setup.notify.take();
    drop((inits, setup, plan.mounts, steps));
    let client = ClientEnd::new(fds.client);
    let console = |executed: &mut Executed| match executed.terminal.take_if(|_| boot) {
        Some(master) => console_of(master, shown, &client, output).map(Some),
        None => Ok(None),
    };
    let executed = outcome(InitSide::new(ours), &child)
        .and_then(|mut executed| Ok((console(&mut executed).map_err(|error| failed("Console", &error))?, executed)));
    let (mut console, executed) = match executed {
        Ok(executed) => executed,
        Err(failure) => {
            scope.kill_payload();
            scope.remove_parts();
            return Err(failure);
        }
    };
    announce(daemon, &client, &child, executed, watch);
    protection.take();
    let mut notifier = named.map(|socket| Notifier::new(socket, fds.notified, listener));
    let watched = Watched { console: console.as_mut(), tie, notifier: notifier.as_mut() };
    let mut stop = Stop::new(&child, &scope, policy);
    let exit = wait(&child, &signals, |wake| stop.go_on(wake), watched).map_err(|error| failed("Wait", &error))?;
    console.iter_mut().for_each(Console::drain);
    // What it said last comes before its end.
    notifier.iter_mut().for_each(Notifier::go_on);
    let end = if boot { end_of_system(exit) } else { End { exit, reboot: false } };
    finish(&scope, fds.record_dir, (run, &stop), end, |oom_kills| {
        // A caller that follows a system follows it over its reboots; holmd has its socket too.
        if !end.reboot {
            client.exited(end.exit, oom_kills);
        }
        // A daemon that is gone or stuck reads the record.
        let _ = daemon.ended(end.exit, oom_kills);
    });
    Ok(())
}

/// The child's life: it becomes the payload, or tells why not and ends.
fn be_init(mut setup: Setup, report: InitEnd, steps: &[Step], watch: Stopwatch) -> ! {
    // Without a report, it is told by what becomes of this process.
    let Ok(report) = setup.make_room(report) else { process::exit_now(1) };
    match setup.close_others(&report, None).and_then(|()| setup.place_passed()) {
        Ok(()) => setup.run(steps, watch, &report),
        Err(error) => abandon(&report, "CloseOthers", &error),
    }
}

/// A caller that wants a terminal gets the console's master; holmd never does, so that nobody else empties it.
fn console_of(master: OwnedFd, shown: bool, client: &ClientEnd, output: Option<OwnedFd>) -> io::Result<Console> {
    let shown_to = match shown {
        true => client.socket().map(|socket| socket.try_clone_to_owned()).transpose()?,
        false => None,
    };
    if shown_to.is_some() {
        client.terminal(&master);
    }
    Console::new(master, shown_to, output)
}

/// How a leader ended, as it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) exit: Exit,
    pub(super) reboot: bool,
}

/// C31: of an init that called reboot(2) in its pid namespace the kernel says that a signal ended it: SIGINT when it powered
/// off or halted, SIGHUP when it asked for a reboot (pid_namespaces(7)). Neither is a failure.
pub(super) fn end_of_system(exit: Exit) -> End {
    let number = match exit {
        Exit::Signal { number, .. } => i32::from(number),
        Exit::Code(_) => 0,
    };
    match number {
        libc::SIGINT => End { exit: Exit::Code(0), reboot: false },
        libc::SIGHUP => End { exit: Exit::Code(0), reboot: true },
        _ => End { exit, reboot: false },
    }
}

/// The cgroup namespace is made later, by init: made here it would be rooted at the monitor's cgroup.
fn namespaces(network: NetworkMode) -> UnshareFlags {
    let always = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
    match network {
        NetworkMode::None => always | UnshareFlags::NEWNET,
        NetworkMode::Host => always,
    }
}

/// How the set-up went. After a failure the child is reaped.
pub(super) fn outcome(init: InitSide, child: &Child) -> Result<Executed, Failure> {
    let failure = match init.outcome() {
        Ok(Ok(executed)) => return Ok(executed),
        Ok(Err(failure)) => failure,
        Err(error) => broken("Init", &format!("init ended before the program ran: {error}")),
    };
    // It ends by itself after a report, and has ended if there was none; the signal is for one that is confused.
    let _ = pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL);
    let _ = process::reap(child.pidfd.as_fd());
    Err(failure)
}

/// Tells daemon and caller that the payload runs. Neither has to be there.
pub(super) fn announce(
    daemon: &MonitorEnd,
    client: &ClientEnd,
    child: &Child,
    executed: Executed,
    mut watch: Stopwatch,
) {
    watch.timings.extend(executed.steps);
    let _ = daemon.started(child.pid, child.pidfd.as_fd(), executed.terminal.as_ref(), watch.timings);
    if let Some(master) = &executed.terminal {
        client.terminal(master);
    }
}

/// The monitor is the last that should be killed for lack of memory: with it goes the exit status. The payload is like any
/// other process, and it inherits; so the monitor is unprotected, whatever holmd is, until the payload is made.
#[derive(Debug)]
pub(super) struct Protection(Option<OomScore>);

impl Protection {
    /// Before the payload is made, and before there is anything to hurry for.
    fn prepare() -> Self {
        let score = OomScore::open().ok();
        // Not everybody may lower it (CAP_SYS_RESOURCE), but then it was not lowered either.
        score.as_ref().map(|score| score.adjust(0));
        Self(score)
    }

    /// After the payload is made. Who may not is as likely to be killed as others.
    pub(super) fn take(self) {
        self.0.map(|score| score.adjust(-999));
    }
}

/// SIGURG is what systemd sends when it stops a scope: its KillSignal, so that only a monitor heeds it. SIGTERM is what the
/// system's last sweep sends to everybody (systemd-shutdown(8)), and what people send.
pub(super) fn stop_signals() -> io::Result<SignalFd> {
    SignalFd::new(&[libc::SIGTERM, libc::SIGURG])
}

/// What is looked after while a payload runs.
#[derive(Debug, Default)]
pub(super) struct Watched<'a> {
    pub(super) console: Option<&'a mut Console>,
    pub(super) tie: Option<Tie>,
    pub(super) notifier: Option<&'a mut Notifier>,
}

fn tie_of(caller: Option<&OwnedFd>) -> io::Result<Option<Tie>> {
    Ok(caller.map(OwnedFd::try_clone).transpose()?.map(Tie::new))
}

/// Why a wait was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// A stop signal came, or the caller is gone.
    Asked,
    /// The time is up that the last interruption asked for.
    Time,
}

/// Waits for the end of a process. `interrupted` is called for each stop signal meanwhile, and when the caller is gone; it says
/// after what time it wants to be called again.
pub(super) fn wait(
    child: &Child,
    signals: &SignalFd,
    mut interrupted: impl FnMut(Wake) -> Option<Duration>,
    mut watched: Watched<'_>,
) -> io::Result<Exit> {
    // For the long sleep: a thousand monitors should not matter.
    process::release_memory();
    let mut due: Option<Instant> = None;
    loop {
        // No vector: the less code is run here, the less of it is in memory for as long as the payload lives.
        let nothing = || PollFd::new(&child.pidfd, PollFlags::empty());
        let mut events = [
            PollFd::new(&child.pidfd, PollFlags::IN),
            PollFd::new(signals, PollFlags::IN),
            watched.console.as_deref().map_or_else(nothing, Console::awaited),
            watched.tie.as_ref().and_then(Tie::awaited).unwrap_or_else(nothing),
            watched.notifier.as_deref().map_or_else(nothing, Notifier::awaited),
        ];
        let left = due.map(|due| due.saturating_duration_since(Instant::now()));
        match rustix::event::poll(&mut events, left.and_then(|left| Timespec::try_from(left).ok()).as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let [ended, signalled, spoken, let_go, notified] = events.map(|event| !event.revents().is_empty());
        if let (true, Some(console)) = (spoken, watched.console.as_deref_mut()) {
            console.go_on();
        }
        if let (true, Some(notifier)) = (notified, watched.notifier.as_deref_mut()) {
            notifier.go_on();
        }
        if ended {
            return Ok(exit_of(&process::reap(child.pidfd.as_fd())?));
        }
        if let (true, Some(tie)) = (let_go, &mut watched.tie) {
            tie.let_go();
        }
        let wake = match () {
            () if let_go || (signalled && signals.take()?.is_some()) => Wake::Asked,
            () if due.is_some_and(|due| due <= Instant::now()) => Wake::Time,
            () => continue,
        };
        // What cannot be expressed is longer than anybody waits.
        due = interrupted(wake).and_then(|again| Instant::now().checked_add(again));
    }
}

fn exit_of(status: &WaitIdStatus) -> Exit {
    let small = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match status.terminating_signal() {
        Some(number) => Exit::Signal { number: small(number), core_dumped: status.dumped() },
        // waitid without WSTOPPED and WCONTINUED tells of nothing but ends.
        None => Exit::Code(status.exit_status().map_or(u8::MAX, small)),
    }
}

/// Figures first, as the cgroup goes; then the record, before anybody is told; the disk last, so that nobody waits for it.
fn finish(
    scope: &Scope,
    record_dir: OwnedFd,
    (run, stop): (u64, &Stop<'_>),
    End { exit, reboot }: End,
    tell: impl FnOnce(u64),
) {
    let exited_usec = now_usec();
    // The pid namespace died with its leader; this is for what joined the cgroups otherwise.
    scope.kill_payload();
    let oom_kills = scope.oom_kills();
    let figures = scope.figures();
    let (version, stop, unheard) = (ExitRecord::VERSION, stop.course(), stop.unheard());
    let record = ExitRecord { version, run, exit, reboot, exited_usec, oom_kills, figures, stop, unheard };
    let written = record::write(record_dir, &record);
    tell(oom_kills);
    scope.remove_parts();
    // A record that cannot be written is a run whose end is lost to a daemon that was away; there is no third place to
    // tell it to. One that cannot be synced is lost only with the machine.
    let _ = written.and_then(record::Written::sync);
}

/// In a child that cannot even begin its steps.
pub(super) fn abandon(report: &InitEnd, step: &str, error: &io::Error) -> ! {
    // If the monitor is gone there is nobody to tell.
    let _ = report.failed(failed(step, error));
    process::exit_now(1)
}

pub(super) fn failed(step: &str, error: &io::Error) -> Failure {
    let errno = error.raw_os_error().unwrap_or(0);
    Failure::Step(StepError { step: step.to_owned(), errno, message: error.to_string() })
}

fn broken(step: &str, message: &str) -> Failure {
    Failure::Step(StepError { step: step.to_owned(), errno: 0, message: message.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_powered_off_or_reboots_has_succeeded() {
        let signal = |number: i32| Exit::Signal { number: u8::try_from(number).unwrap(), core_dumped: false };
        let success = |reboot| End { exit: Exit::Code(0), reboot };
        assert_eq!(end_of_system(signal(libc::SIGINT)), success(false));
        assert_eq!(end_of_system(signal(libc::SIGHUP)), success(true));
        for exit in [signal(libc::SIGKILL), Exit::Code(0), Exit::Code(3)] {
            assert_eq!(end_of_system(exit), End { exit, reboot: false });
        }
    }
}
