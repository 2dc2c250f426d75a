//! Follows a payload until it ends: what its monitor says, signals for us that are meant for it, its terminal.

use std::collections::HashMap;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

use tokio::signal::unix::{self, SignalKind};
use zbus::OwnedObjectPath;

use super::Outcome;
use super::error::CliError;
use super::exit::{self, Status};
use super::notify;
use super::output;
use super::service;
use super::terminal::{self, Terminal};
use super::warnings;
use crate::client::{Client, ClientError, ContainerProxy, Goal, Io, Jobs, Monitor, MonitorEvent, ProcessProxy};
use crate::model::Exit;
use crate::sys::signal;

/// What of the caller's the payload gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streams {
    /// Standard input.
    pub(crate) interactive: bool,
    /// A terminal, instead of the three streams.
    pub(crate) terminal: bool,
}

/// Who runs.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// A container, and the way to it without the daemon.
    Container(ContainerProxy<'static>, Client, String),
    /// A process that exec started.
    Process(ProcessProxy<'static>),
}

/// The start that a container waits for.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) jobs: &'a mut Jobs,
    pub(crate) job: &'a OwnedObjectPath,
    pub(crate) name: &'a str,
    /// Whether there may be something to tell about its limits.
    pub(crate) limited: bool,
    /// Whether it is done once the program runs, as one of which we hear the end did.
    pub(crate) at_exec: bool,
}

/// How following ended.
#[derive(Debug)]
pub(crate) enum Ending {
    /// The payload ended.
    Exited(Exit),
    /// The payload ended, after our service was asked to.
    Stopped(Exit),
    /// The user went; the payload goes on.
    Detached,
    /// The payload's monitor, or its terminal, is closed and nobody said how it ended.
    Closed,
}

/// A payload's monitor and terminal, and the signals for it.
#[derive(Debug)]
pub(crate) struct Session {
    monitor: Option<Monitor>,
    forwarded: Forwarded,
    interactive: bool,
    terminal: Option<Terminal>,
    /// The stop that a service manager asks us for is the payload's.
    of_service: bool,
    stopping: bool,
    /// Signals that came before there was a payload for them.
    early: Vec<i32>,
}

impl Session {
    /// Before the request: what goes along with it. Signals are caught from now on.
    pub(crate) fn prepare(streams: Streams) -> Result<(Self, Io), CliError> {
        let (monitor, theirs) = Monitor::pair()?;
        let io = Io { monitor: Some(theirs), ..streams.io()? };
        Ok((Self { monitor: Some(monitor), ..Self::new(streams.interactive)? }, io))
    }

    /// As [`prepare`](Self::prepare), for a run: when we belong to a service, its stop is the payload's.
    pub(crate) fn prepare_run(streams: Streams) -> Result<(Self, Io), CliError> {
        let (session, io) = Self::prepare(streams)?;
        let of_service = service::own().is_some();
        // Else the daemon would take our control group's word for it.
        let wanted_by = (!of_service).then(String::new);
        Ok((Self { of_service, ..session }, Io { notify: notify::is_wanted(), wanted_by, ..io }))
    }

    fn new(interactive: bool) -> Result<Self, CliError> {
        let forwarded = Forwarded::catch()?;
        let (of_service, stopping) = (false, false);
        Ok(Self { monitor: None, forwarded, interactive, terminal: None, of_service, stopping, early: Vec::new() })
    }

    /// For a terminal that is there already; its end is that of the terminal.
    pub(crate) fn of_terminal(master: OwnedFd) -> Result<Self, CliError> {
        let mut session = Self::new(true)?;
        session.connect(master)?;
        Ok(session)
    }

    /// Connects a terminal; a second one is closed.
    pub(crate) fn connect(&mut self, master: OwnedFd) -> Result<(), CliError> {
        if self.terminal.is_none() {
            self.terminal = Some(Terminal::connect(master, self.interactive)?);
        }
        Ok(())
    }

    /// Completes when our service is stopped before the daemon has answered, with the status for that: what the daemon makes
    /// of the request ends with us. Other signals are kept.
    pub(crate) async fn given_up(&mut self) -> Status {
        loop {
            match self.forwarded.next().await {
                libc::SIGTERM if self.of_service => {
                    notify::stopping();
                    return end_like(Exit::Signal { number: 15, core_dumped: false });
                }
                // The size of a terminal is asked for when there is one.
                libc::SIGWINCH => {}
                signal => self.early.push(signal),
            }
        }
    }

    /// Follows until the end. With a `start`, its failure is the error, and signals are kept until it has succeeded.
    pub(crate) async fn follow(mut self, payload: &Payload, mut start: Option<Start<'_>>) -> Result<Ending, CliError> {
        let mut early = std::mem::take(&mut self.early);
        loop {
            tokio::select! {
                // First the monitor: when it has told the end, a start that the daemon lost sight of does not matter.
                biased;
                event = next_event(self.monitor.as_ref()) => match event? {
                    MonitorEvent::Terminal(master) => self.connect(master)?,
                    MonitorEvent::Notified(text) => notify::pass_on(&text),
                    MonitorEvent::Exited(end) => {
                        if start.is_some_and(|start| start.at_exec) {
                            notify::ready();
                        }
                        self.finish().await;
                        hint(end.exit, end.oom_kills);
                        return Ok(if self.stopping { Ending::Stopped(end.exit) } else { Ending::Exited(end.exit) });
                    }
                    MonitorEvent::Closed => {
                        self.finish().await;
                        return started(start).await.map(|()| Ending::Closed);
                    }
                },
                ended = start_end(start.as_mut()) => {
                    ended?;
                    if start.take().is_some_and(|start| start.limited) {
                        payload.tell_warnings();
                    }
                    notify::ready();
                    early.drain(..).for_each(|signal| payload.kill(signal));
                }
                signal = self.forwarded.next() => match signal {
                    libc::SIGWINCH => self.terminal.iter().for_each(Terminal::resize),
                    // Our terminal is gone, and the user with it.
                    libc::SIGHUP if self.terminal.is_some() => return Ok(Ending::Detached),
                    libc::SIGTERM if self.of_service => self.stop()?,
                    signal if start.is_some() => early.push(signal),
                    signal => payload.kill(signal),
                },
                left = left(self.terminal.as_ref(), self.monitor.is_none()) => return Ok(left),
            }
        }
    }

    /// By the container's signal and with its timeout, whether holmd answers or not.
    fn stop(&mut self) -> Result<(), CliError> {
        notify::stopping();
        self.stopping = true;
        Ok(self.monitor.as_ref().map_or(Ok(()), Monitor::ask_to_stop)?)
    }

    async fn finish(&mut self) {
        if let Some(terminal) = self.terminal.take() {
            terminal.finish().await;
        }
    }
}

/// The status after a stop. A payload that was ended by the signal it was asked with has done as it was told: for a service
/// manager that is so when we end by it too (systemd.service(5), SuccessExitStatus=).
pub(crate) fn end_like(exit: Exit) -> Status {
    if let Exit::Signal { number, .. } = exit
        && CLEAN.contains(&i32::from(number))
    {
        // If it does not end us, the status says the same.
        let _ = signal::end_by(i32::from(number));
    }
    exit.into()
}

/// The signals that are a good end for systemd.
const CLEAN: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGTERM, libc::SIGPIPE];

async fn next_event(monitor: Option<&Monitor>) -> Result<MonitorEvent, CliError> {
    match monitor {
        Some(monitor) => Ok(monitor.next().await?),
        None => std::future::pending().await,
    }
}

async fn start_end(start: Option<&mut Start<'_>>) -> Result<(), CliError> {
    match start {
        Some(start) => Ok(start.jobs.wait(start.job, Goal::Running(start.name), |_| {}).await?),
        None => std::future::pending().await,
    }
}

/// The monitor is gone: if that is because the start failed, its job says why.
async fn started(mut start: Option<Start<'_>>) -> Result<(), CliError> {
    match start.as_mut() {
        Some(start) => start_end(Some(start)).await,
        None => Ok(()),
    }
}

/// Completes when the user went or, where the terminal is all we have, when that is closed.
async fn left(terminal: Option<&Terminal>, is_all: bool) -> Ending {
    match terminal {
        Some(terminal) if is_all => {
            if terminal.gone().await {
                Ending::Detached
            } else {
                Ending::Closed
            }
        }
        Some(terminal) => {
            terminal.detached().await;
            Ending::Detached
        }
        None => std::future::pending().await,
    }
}

/// A kill for lack of memory looks like any other.
fn hint(exit: Exit, oom_kills: u64) {
    if oom_kills > 0 && matches!(exit, Exit::Signal { number: 9, .. }) {
        output::tell("the kernel killed it for lack of memory: raise --memory");
    }
}

impl Ending {
    /// Waits for what the daemon does once the end is told. A service that stops does not wait for one that hangs: what is left is
    /// for the next.
    pub(crate) async fn once(&self, done: impl Future<Output = Result<(), ClientError>>) -> Result<(), CliError> {
        match self {
            Self::Stopped(_) => tokio::time::timeout(MOMENT, unless_interrupted(done)).await.unwrap_or(Ok(())),
            _ => unless_interrupted(done).await,
        }
    }
}

const MOMENT: Duration = Duration::from_secs(5);

/// Waits until something is done, or the user has waited enough.
pub(crate) async fn unless_interrupted(done: impl Future<Output = Result<(), ClientError>>) -> Result<(), CliError> {
    tokio::select! {
        done = done => Ok(done?),
        interrupted = interrupted() => interrupted.map(drop),
    }
}

/// Completes when somebody wants us, not the payload, to end, with the status that we then have.
pub(crate) async fn interrupted() -> Outcome {
    let mut forwarded = Forwarded::catch()?;
    loop {
        match forwarded.next().await {
            libc::SIGWINCH | libc::SIGUSR1 | libc::SIGUSR2 => {}
            signal => return Ok(Status::from_bus(128 + signal)),
        }
    }
}

impl Payload {
    /// Tells, without waiting, what holmd has to say about its limits.
    fn tell_warnings(&self) {
        if let Self::Container(container, _, name) = self.clone() {
            tokio::spawn(async move { warnings::tell(&container, &name).await });
        }
    }

    /// Sends a signal, without waiting: the daemon may be slow or away, and the payload's end must not be missed for it.
    fn kill(&self, signal: i32) {
        let payload = self.clone();
        tokio::spawn(async move {
            let sent = match &payload {
                // An init takes these for something else: SIGINT for a wish to reboot.
                Self::Container(container, ..)
                    if matches!(signal, libc::SIGTERM | libc::SIGINT | libc::SIGHUP | libc::SIGQUIT)
                        && container.boot().await.unwrap_or(false) =>
                {
                    container.stop(&HashMap::new()).await.map(drop)
                }
                Self::Container(container, ..) => container.kill("leader", signal).await,
                Self::Process(process) => process.kill("leader", signal).await,
            };
            match (sent.map_err(ClientError::from), &payload) {
                // It may have ended meanwhile, which the monitor tells; but that we may not is news.
                (Err(error @ ClientError::AccessDenied { .. }), _) => {
                    exit::report(&error.into());
                }
                (
                    Err(ClientError::NoDaemon { .. } | ClientError::NoAnswer { .. } | ClientError::Bus(_)),
                    Self::Container(_, client, name),
                ) if signal == libc::SIGTERM => {
                    if let Err(error) = client.stop_by_systemd(name).await {
                        exit::report(&error.into());
                    }
                }
                _ => {}
            }
        });
    }
}

impl Streams {
    fn io(self) -> Result<Io, CliError> {
        if self.terminal {
            return Ok(Io { terminal_size: terminal::size(), ..Io::default() });
        }
        let stdin = if self.interactive { pass(io::stdin())? } else { null()? };
        Ok(Io {
            stdin: Some(stdin),
            stdout: Some(pass(io::stdout())?),
            stderr: Some(pass(io::stderr())?),
            ..Io::default()
        })
    }
}

fn pass(stream: impl AsFd) -> Result<OwnedFd, CliError> {
    stream.as_fd().try_clone_to_owned().map_err(|source| CliError::io("pass a standard stream on", source))
}

fn null() -> Result<OwnedFd, CliError> {
    Ok(File::open("/dev/null").map_err(|source| CliError::io("open /dev/null", source))?.into())
}

/// Signals that are meant for the payload, and SIGWINCH.
#[derive(Debug)]
struct Forwarded(Vec<(i32, unix::Signal)>);

impl Forwarded {
    fn catch() -> Result<Self, CliError> {
        const SIGNALS: [i32; 7] =
            [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH];
        let one = |number| Ok((number, unix::signal(SignalKind::from_raw(number))?));
        let signals: io::Result<_> = SIGNALS.into_iter().map(one).collect();
        signals.map(Self).map_err(|source| CliError::io("catch signals", source))
    }

    async fn next(&mut self) -> i32 {
        poll_fn(|context| {
            for (number, signal) in &mut self.0 {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}
