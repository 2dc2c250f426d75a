//! `org.holm1.Container`.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use zbus::message::Header;
use zbus::object_server::SignalEmitter;
use zbus::{Variant, interface};

use super::auth::{Action, Wish, sender};
use super::door::{Door, Room};
use super::error::{Error, Result};
use super::options::Dictionary;
use super::paths::{self, Path};
use super::requests;
use super::runs;
use super::table::Latest;
use crate::engine::{ContainerView, EngineError, ExecRequest, Executed, Who};
use crate::model::{
    ContainerId, ContainerName, ErrorCode, Exit, HealthState, Lifetime, RunResult, Signal, SnapshotName,
};

/// Descriptors by name, as `a{sh}`.
type Descriptors = HashMap<&'static str, zbus::OwnedFd>;

/// One container. Its name never changes: a container that is renamed gets another object.
#[derive(Debug)]
pub(super) struct Container {
    door: Door,
    name: ContainerName,
    id: ContainerId,
    view: Arc<Latest<ContainerView>>,
}

impl Container {
    pub(super) fn new(door: Door, view: Arc<Latest<ContainerView>>) -> Self {
        let now = view.get();
        Self { door, name: now.name().clone(), id: now.id().clone(), view }
    }

    fn wish(&self, action: Action, verb: &'static str) -> Wish {
        Wish::new(action, verb).container(self.name.as_str()).unit(self.view.get().unit.as_str())
    }

    /// Passes if the caller may, and if the name still is this container's after the time that the answer took.
    async fn authorize(&self, header: &Header<'_>, wish: Wish) -> Result<Arc<Room>> {
        let room = self.door.authorize(header, wish).await?;
        if *room.engine.container(&self.name)?.id() == self.id {
            return Ok(room);
        }
        Err(EngineError::NoSuchContainer(self.name.to_string()).into())
    }

    async fn manage(&self, header: &Header<'_>, verb: &'static str) -> Result<Arc<Room>> {
        self.authorize(header, self.wish(Action::ManageContainers, verb)).await
    }

    /// Runs a process that ends with its caller if `request` names one.
    async fn execute(&self, room: &Room, request: ExecRequest) -> Result<Executed> {
        let owner = request.owner.clone();
        let executed = room.engine.exec(&self.name, request).await?;
        let id = executed.id;
        if owner.as_ref().is_some_and(|owner| !room.callers.adopt(owner, id)) {
            room.engine.kill_process(id, Who::All, Signal::KILL).await?;
            return Err(Error::new(ErrorCode::Canceled, "the caller left the bus while its process was started"));
        }
        room.settled().await;
        // Its end may have been on the bus before the adoption.
        let over = room.table.processes.get(&id).is_none_or(|process| process.get().ended);
        if let (true, Some(owner)) = (over, owner) {
            room.callers.ended(&owner, id);
        }
        Ok(executed)
    }
}

#[interface(name = "org.holm1.Container", introspection_docs = false)]
impl Container {
    /// Starts the container. The options are those of one run.
    #[zbus(out_args("job"))]
    async fn start(&self, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let start = requests::start(options)?;
        let room = self.manage(&header, "start").await?;
        let io = room.run_io(start, &header).await?;
        let job = room.engine.start(&self.name, io)?;
        Ok(room.job(job).await)
    }

    /// Stops it politely, then by force. Options: TimeoutUSec t, Signal i.
    #[zbus(out_args("job"))]
    async fn stop(&self, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let options = requests::stop(options)?;
        let room = self.manage(&header, "stop").await?;
        let job = room.engine.stop(&self.name, options)?;
        Ok(room.job(job).await)
    }

    /// Stops it if it runs, and starts it. Options: those of Stop.
    #[zbus(out_args("job"))]
    async fn restart(&self, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let options = requests::stop(options)?;
        let room = self.manage(&header, "restart").await?;
        let job = room.engine.restart(&self.name, options)?;
        Ok(room.job(job).await)
    }

    /// Sends a signal to the first process ("leader") or to every process ("all").
    async fn kill(&self, who: &str, signal: i32, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let (who, signal) = requests::kill(who, signal)?;
        let room = self.manage(&header, "kill").await?;
        Ok(room.engine.kill(&self.name, who, signal).await?)
    }

    /// Freezes every process; returns when all are frozen.
    async fn freeze(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let room = self.manage(&header, "freeze").await?;
        room.engine.freeze(&self.name).await?;
        room.settled().await;
        Ok(())
    }

    /// Lets frozen processes go on.
    async fn thaw(&self, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let room = self.manage(&header, "thaw").await?;
        room.engine.thaw(&self.name).await?;
        room.settled().await;
        Ok(())
    }

    /// Removes it and its root. Options: Force b, to kill it first if it runs.
    #[zbus(out_args("job"))]
    async fn remove(&self, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let options = requests::remove(options)?;
        let room = self.manage(&header, "remove").await?;
        let job = room.engine.remove(&self.name, options)?;
        Ok(room.job(job).await)
    }

    /// Gives it another name while it does not run. This object is removed and one for the new name added.
    async fn rename(&self, name: &str, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let to = ContainerName::parse(name)?;
        let room = self.manage(&header, "rename").await?;
        room.engine.rename(&self.name, to).await?;
        room.settled().await;
        Ok(())
    }

    /// Changes what it may use, for good and at once. Options: MemoryMax t, MemoryHigh t, MemorySwapMax t, TasksMax t,
    /// CPUQuotaPerSecUSec t, CPUWeight t, IOWeight t, each 18446744073709551615 for none; AllowedCPUs ay,
    /// IOReadBandwidthMax a(st), IOWriteBandwidthMax a(st), IOReadIOPSMax a(st), IOWriteIOPSMax a(st), each empty for none;
    /// Size t of the root, which can only grow.
    async fn set_resources(&self, resources: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<()> {
        let request = requests::resources(resources)?;
        let room = self.manage(&header, "set-resources").await?;
        room.engine.set_resources(&self.name, request).await?;
        room.settled().await;
        Ok(())
    }

    /// Makes a container of it, which is defined alike and has a root as this one has now; it may run. An empty name asks
    /// for a generated one: it is the job's Subject. Options: Snapshot s, to take the root as it was then.
    #[zbus(out_args("job"))]
    async fn clone(&self, name: &str, options: Dictionary, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let request = requests::clone(name, options)?;
        let room = self.manage(&header, "clone").await?;
        let job = room.engine.clone_container(&self.name, request)?;
        Ok(room.job(job).await)
    }

    /// Makes a snapshot of its root; it may run.
    #[zbus(out_args("job"))]
    async fn snapshot(&self, label: &str, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let label = SnapshotName::parse(label)?;
        let room = self.manage(&header, "snapshot").await?;
        let job = room.engine.snapshot(&self.name, label)?;
        Ok(room.job(job).await)
    }

    /// Brings its root back to a snapshot while it does not run. The snapshot stays.
    #[zbus(out_args("job"))]
    async fn rollback(&self, label: &str, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let label = SnapshotName::parse(label)?;
        let room = self.manage(&header, "rollback").await?;
        let job = room.engine.rollback(&self.name, label)?;
        Ok(room.job(job).await)
    }

    /// Removes a snapshot.
    #[zbus(out_args("job"))]
    async fn remove_snapshot(&self, label: &str, #[zbus(header)] header: Header<'_>) -> Result<Path> {
        let label = SnapshotName::parse(label)?;
        let room = self.manage(&header, "remove-snapshot").await?;
        let job = room.engine.remove_snapshot(&self.name, label)?;
        Ok(room.job(job).await)
    }

    /// Runs a process in the running container. Unless detached it is killed, with all it started, when its caller leaves
    /// the bus. The descriptors are the other ends of the streams that were not passed, and the terminal's master.
    #[zbus(out_args("process", "fds"))]
    async fn exec(
        &self,
        argv: Vec<String>,
        options: Dictionary,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(Path, Descriptors)> {
        let requests::Exec { mut request, detach } = requests::exec(argv, options)?;
        let wish = self.wish(Action::Exec, "exec").user(request.user.as_ref());
        let room = self.authorize(&header, wish).await?;
        let mut fds = Descriptors::new();
        if !detach {
            request.owner = Some(sender(&header)?.to_string());
            if !request.terminal {
                fds = pipes(&mut request.io.stdio).map_err(no_pipe)?;
            }
        }
        let executed = self.execute(&room, request).await?;
        fds.extend(executed.terminal.map(|master| ("terminal", master.into())));
        Ok((paths::process(&self.name, executed.id), fds))
    }

    /// Runs a shell with a terminal. An empty user is the container's; an empty path is the user's login shell; args
    /// begin with the shell's own name, as machine1's do. Returns the terminal's master, and its name inside. The shell
    /// is killed when its caller leaves the bus.
    #[zbus(out_args("master", "path"))]
    async fn open_shell(
        &self,
        user: &str,
        path: &str,
        args: Vec<String>,
        env: Vec<String>,
        #[zbus(header)] header: Header<'_>,
    ) -> Result<(zbus::OwnedFd, String)> {
        let mut request = requests::shell(user, path, args, env)?;
        let wish = self.wish(Action::Exec, "shell").user(request.user.as_ref());
        let room = self.authorize(&header, wish).await?;
        request.owner = Some(sender(&header)?.to_string());
        let master = self.execute(&room, request).await?.terminal;
        let master = master.ok_or_else(|| Error::new(ErrorCode::StartFailed, "the shell got no terminal"))?;
        let name = terminal_name(&master);
        Ok((master.into(), name))
    }

    /// The master of the container's terminal, as "terminal".
    #[zbus(out_args("fds"))]
    async fn attach(&self, #[zbus(header)] header: Header<'_>) -> Result<Descriptors> {
        let room = self.authorize(&header, self.wish(Action::Exec, "attach")).await?;
        Ok(Descriptors::from([("terminal", room.engine.attach(&self.name)?.into())]))
    }

    /// Figures of the container's control group by name, such as MemoryCurrent t.
    #[zbus(out_args("stats"))]
    async fn get_stats(&self) -> Result<HashMap<&'static str, Variant<'static>>> {
        let figures = self.door.open()?.engine.stats(&self.name).await?;
        Ok(figures.into_iter().map(|(name, value)| (name, value.into())).collect())
    }

    /// Processes: control group below the container's, process id as the host sees it, command line.
    #[zbus(out_args("processes"))]
    async fn get_processes(&self) -> Result<Vec<(String, u32, String)>> {
        Ok(self.door.open()?.engine.processes(&self.name).await?)
    }

    /// What its checks said in this run: Failures u (in a row, of those that count), Checks u, and of the last one LastUSec t,
    /// TookUSec t, ExitStatus i (-1: killed after its time, or not begun) and Output s, the beginning of what it wrote.
    #[zbus(out_args("health"))]
    async fn get_health(&self) -> Result<HashMap<&'static str, Variant<'static>>> {
        Ok(health(self.door.open()?.engine.health(&self.name)?))
    }

    /// Its last runs, newest last, with the one under way: Run t (its number), StartedUSec t, and of one that has ended EndedUSec
    /// t, Result s, ExitStatus i (-1: nobody knows), Signal i (0: none), Failed b, OOMKills t; CPUUsageUSec t, MemoryPeak t,
    /// TasksPeak t, IOReadBytes t and IOWriteBytes t as far as the kernel counted them.
    #[zbus(out_args("runs"))]
    async fn get_runs(&self) -> Result<Vec<HashMap<&'static str, Variant<'static>>>> {
        let view = self.door.open()?.engine.container(&self.name)?;
        Ok(runs::dictionaries(&view))
    }

    /// The container's os-release(5).
    #[zbus(name = "GetOSRelease", out_args("fields"))]
    async fn get_os_release(&self) -> Result<HashMap<String, String>> {
        let room = self.door.open()?;
        Ok(room.engine.os_release(&self.name).await?.into_iter().collect())
    }

    /// The payload ended. Status as in ExitStatus, result as in Result; follows the change of State.
    #[zbus(signal)]
    pub(super) async fn exited(emitter: &SignalEmitter<'_>, status: i32, result: &str) -> zbus::Result<()>;

    /// The kernel killed processes for lack of memory; count is that of this run so far.
    #[zbus(signal)]
    pub(super) async fn out_of_memory(emitter: &SignalEmitter<'_>, count: u64) -> zbus::Result<()>;

    /// Name. Another name is another object.
    #[zbus(property(emits_changed_signal = "const"))]
    fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Id: 32 hexadecimal digits, for ever.
    #[zbus(property(emits_changed_signal = "const"))]
    fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Name of the image it was made from.
    #[zbus(property(emits_changed_signal = "const"))]
    fn image(&self) -> String {
        self.view.get().spec.image.to_string()
    }

    /// created, starting, running, frozen, stopping, stopped or failed.
    #[zbus(property)]
    fn state(&self) -> &str {
        self.view.get().status.as_str()
    }

    /// Why the last start failed, why it had to be killed, why it is frozen if nobody asked for that, what the payload says of itself
    /// (`STATUS=`), or empty.
    #[zbus(property)]
    fn status_text(&self) -> String {
        self.view.get().status_text.clone()
    }

    /// Name of its scope, whether it runs or not.
    #[zbus(property(emits_changed_signal = "const"))]
    fn unit(&self) -> String {
        self.view.get().unit.clone()
    }

    /// Control group below the mount of cgroup2 while it runs, or empty.
    #[zbus(property)]
    fn control_group(&self) -> String {
        self.view.get().control_group.clone()
    }

    /// Process id of the first process as the host sees it, or 0.
    #[zbus(property)]
    fn leader(&self) -> u32 {
        self.view.get().leader
    }

    /// Program and arguments.
    #[zbus(property(emits_changed_signal = "const"))]
    fn command(&self) -> Vec<String> {
        self.view.get().spec.process.command.clone()
    }

    /// Whether the payload is the init of a whole system.
    #[zbus(property(emits_changed_signal = "const"))]
    fn boot(&self) -> bool {
        self.view.get().spec.boot
    }

    /// Whether the payload has a terminal.
    #[zbus(property(emits_changed_signal = "const"))]
    fn terminal(&self) -> bool {
        self.view.get().spec.process.terminal
    }

    /// When it was defined.
    #[zbus(property(emits_changed_signal = "const"), name = "CreatedUSec")]
    fn created_usec(&self) -> u64 {
        self.view.get().created_usec
    }

    /// When it last started; 0 when never.
    #[zbus(property, name = "StartedUSec")]
    fn started_usec(&self) -> u64 {
        self.view.get().started_usec
    }

    /// When it last ended; 0 when never.
    #[zbus(property, name = "StoppedUSec")]
    fn stopped_usec(&self) -> u64 {
        self.view.get().stopped_usec
    }

    /// Exit status of the last run, 128 plus the number for a signal; -1 when there is none, while it runs, or when nobody
    /// knows.
    #[zbus(property)]
    fn exit_status(&self) -> i32 {
        self.view.get().exit.map_or(-1, Exit::status)
    }

    /// none (also while it runs), success, exit-code, signal, core-dump, oom-kill, timeout or lost.
    #[zbus(property)]
    fn result(&self) -> &str {
        self.view.get().result.as_str()
    }

    /// Whether the last run ended for lack of memory.
    #[zbus(property, name = "OOMKilled")]
    fn oom_killed(&self) -> bool {
        self.view.get().result == RunResult::OomKill
    }

    /// Processes killed for lack of memory in the current or last run.
    #[zbus(property, name = "OOMKills")]
    fn oom_kills(&self) -> u64 {
        self.view.get().oom_kills
    }

    /// How it is by its own check: none (it has none, or does not run), starting, healthy or unhealthy.
    #[zbus(property)]
    fn health(&self) -> &str {
        self.view.get().health.as_str()
    }

    /// When it counts as started: exec (its program runs), notify (its payload says so) or healthy (its check passes).
    #[zbus(property(emits_changed_signal = "const"))]
    fn ready(&self) -> &str {
        self.view.get().spec.ready.as_str()
    }

    /// After which ends it is started again: no, on-success, on-failure, on-abnormal, on-abort or always.
    #[zbus(property(emits_changed_signal = "const"))]
    fn restart_policy(&self) -> &str {
        self.view.get().spec.restart.when.as_str()
    }

    /// How often its policy has started it again since somebody started it.
    #[zbus(property)]
    fn restart_count(&self) -> u32 {
        self.view.get().restart_count
    }

    /// When its policy starts it again; 0 when it does not wait for that.
    #[zbus(property, name = "NextRestartUSec")]
    fn next_restart_usec(&self) -> u64 {
        self.view.get().next_restart_usec
    }

    /// Its snapshots in order of name, and when each was made.
    #[zbus(property)]
    fn snapshots(&self) -> Vec<(String, u64)> {
        self.view.get().snapshots.iter().map(|(name, made)| (name.to_string(), *made)).collect()
    }

    /// Size of the root in bytes; 0 where the driver sets no bound.
    #[zbus(property)]
    fn size(&self) -> u64 {
        self.view.get().spec.size.map_or(0, |size| size.0)
    }

    /// What of its limits has no effect on this host, a sentence each; nothing while it does not run.
    #[zbus(property(emits_changed_signal = "false"))]
    fn warnings(&self) -> Vec<String> {
        self.view.get().warnings()
    }

    /// The caller's notes.
    #[zbus(property(emits_changed_signal = "const"))]
    fn labels(&self) -> HashMap<String, String> {
        self.view.get().spec.labels.clone().into_iter().collect()
    }

    /// Whether it is removed when its run has ended.
    #[zbus(property(emits_changed_signal = "const"))]
    fn auto_remove(&self) -> bool {
        self.view.get().spec.lifetime == Lifetime::OneRun
    }
}

/// What is not known is left out.
fn health(state: HealthState) -> HashMap<&'static str, Variant<'static>> {
    let mut values = HashMap::from([("Failures", state.failures.into()), ("Checks", state.checks.into())]);
    if let Some(last) = state.last {
        values.insert("LastUSec", last.at_usec.into());
        values.insert("TookUSec", last.took_usec.into());
        values.insert("ExitStatus", last.exit.map_or(-1, Exit::status).into());
        values.insert("Output", last.output.into());
    }
    values
}

/// Fills each absent stream with one end of a pipe (both close-on-exec); returns the other ends.
fn pipes(stdio: &mut [Option<OwnedFd>; 3]) -> io::Result<Descriptors> {
    let mut ours = Descriptors::new();
    for (slot, name) in stdio.iter_mut().zip(["stdin", "stdout", "stderr"]) {
        if slot.is_some() {
            continue;
        }
        let (reader, writer) = io::pipe()?;
        let (theirs, other) =
            if name == "stdin" { (reader.into(), writer.into()) } else { (writer.into(), OwnedFd::from(reader)) };
        *slot = Some(theirs);
        ours.insert(name, other.into());
    }
    Ok(ours)
}

fn no_pipe(error: io::Error) -> Error {
    Error::new(ErrorCode::StartFailed, format!("cannot make a pipe for the process: {error}"))
}

/// The terminal's name in the container's devpts, or empty if the kernel does not say.
fn terminal_name(master: &OwnedFd) -> String {
    rustix::pty::ptsname(master, Vec::new()).ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn only_absent_streams_become_pipes_and_they_are_joined_the_right_way() {
        let mut stdio = [None, Some(std::fs::File::open("/dev/null").unwrap().into()), None];
        let mut ours = pipes(&mut stdio).unwrap();
        assert!(stdio.iter().all(Option::is_some));
        assert!(!ours.contains_key("stdout"));
        let [stdin, _, stderr] = stdio.map(|fd| std::fs::File::from(fd.unwrap()));
        let mut take = |name| std::fs::File::from(OwnedFd::from(ours.remove(name).unwrap()));
        for (mut from, mut to) in [(take("stdin"), stdin), (stderr, take("stderr"))] {
            from.write_all(b"x").unwrap();
            let mut byte = [0];
            to.read_exact(&mut byte).unwrap();
            assert_eq!(&byte, b"x");
        }
    }
}
