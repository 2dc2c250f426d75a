//! Waits for the end of jobs, across restarts of the daemon.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use zbus::OwnedObjectPath;

use super::value::Properties;
use super::{Client, ClientError, Rule, Signal, Signals};
use crate::model::{ErrorCode, Usec};

/// How far a job is, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct JobProgress {
    /// Done.
    pub done: u64,
    /// In all; 0 when unknown.
    pub total: u64,
}

impl JobProgress {
    /// Takes over what has changed; what has not is not in a signal.
    fn update(&mut self, values: &Properties) {
        if values.get("Progress").is_some() {
            self.done = values.number("Progress");
        }
        if values.get("Total").is_some() {
            self.total = values.number("Total");
        }
    }
}

/// What a job is to reach: what we look at when the daemon was restarted and the job is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal<'a> {
    /// The container runs.
    Running(&'a str),
    /// It does not.
    Stopped(&'a str),
    /// It is gone.
    Removed(&'a str),
    /// Nothing that outlives a restart of the daemon.
    Nothing(&'a str),
}

/// Jobs that are waited for, and removals. Open it before the calls that make them; they may then be waited for in any
/// order.
#[derive(Debug)]
pub struct Jobs {
    client: Client,
    signals: Signals,
    ended: HashMap<OwnedObjectPath, Result<(), ClientError>>,
    removed: HashSet<OwnedObjectPath>,
    progress: HashMap<OwnedObjectPath, JobProgress>,
    subjects: HashMap<OwnedObjectPath, String>,
    frozen: HashMap<OwnedObjectPath, Usec>,
    interrupted: bool,
}

impl Jobs {
    /// Starts to listen to the end of jobs, and to what `rules` add.
    pub async fn listen(client: &Client, rules: &[Rule<'_>]) -> Result<Self, ClientError> {
        let rules: Vec<_> = rules.iter().copied().chain([Rule::JobChanges]).collect();
        let signals = client.signals(&rules).await?;
        Ok(Self {
            client: client.clone(),
            signals,
            ended: HashMap::new(),
            removed: HashSet::new(),
            progress: HashMap::new(),
            subjects: HashMap::new(),
            frozen: HashMap::new(),
            interrupted: false,
        })
    }

    /// Waits, without limit, until a job has ended. Its failure is the error. When the daemon is restarted meanwhile the
    /// goal decides: it was reached, or is being reached, or the error is [`ClientError::Interrupted`]. May be cancelled
    /// and called again.
    pub async fn wait(
        &mut self,
        job: &OwnedObjectPath,
        goal: Goal<'_>,
        mut progress: impl FnMut(JobProgress),
    ) -> Result<(), ClientError> {
        loop {
            if let Some(end) = self.ended.remove(job) {
                return end;
            }
            if self.interrupted {
                return self.settle(goal).await;
            }
            if let Some((path, done)) = self.step().await?
                && path == *job
            {
                progress(done);
            }
        }
    }

    /// Waits until a container that is removed after its run is gone; `Rule::ContainersRemoved` must have been listened to. A
    /// restart of the daemon is survived by asking it. Without a daemon this ends: the next one removes what is left. It is not
    /// started for that, since systemd would start it only when a unit that is being stopped and ordered after it has stopped
    /// (systemd.unit(5)): such a unit's process would wait for itself.
    pub async fn wait_removed(&mut self, path: &OwnedObjectPath, name: &str) -> Result<(), ClientError> {
        while !self.removed.contains(path) {
            if std::mem::take(&mut self.interrupted) {
                match self.client.knows_container(name).await {
                    Ok(true) => {}
                    Ok(false) | Err(ClientError::NoDaemon { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            self.step().await?;
        }
        Ok(())
    }

    /// Waits until the daemon has noted the end of a run, which its monitor has told of already: whoever looks at the container
    /// next sees that. Without a daemon this ends, as [`wait_removed`](Self::wait_removed) does, and after five seconds: somebody
    /// else may have started it again.
    pub async fn wait_noted(&mut self, path: &OwnedObjectPath) -> Result<(), ClientError> {
        tokio::time::timeout(NOTED, self.wait_until_noted(path)).await.unwrap_or(Ok(()))
    }

    async fn wait_until_noted(&mut self, path: &OwnedObjectPath) -> Result<(), ClientError> {
        self.signals.add(Rule::Object(path.as_str())).await?;
        loop {
            match self.client.known_state(path).await {
                Ok(state) if matches!(state.as_str(), "starting" | "running" | "frozen" | "stopping") => {
                    drop(self.step().await?)
                }
                // Noted, or gone.
                Ok(_) | Err(ClientError::NoDaemon { .. } | ClientError::Mismatch { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the daemon that all this was asked of is gone.
    pub async fn wait_for_daemons_end(&mut self) -> Result<(), ClientError> {
        while !self.interrupted {
            self.step().await?;
        }
        Ok(())
    }

    /// What a job that has ended was about, which for an import may only be known at its end; `Rule::JobsRemoved` must
    /// have been listened to. `None` when the daemon was restarted meanwhile.
    pub async fn subject(&mut self, job: &OwnedObjectPath) -> Result<Option<String>, ClientError> {
        while !self.interrupted && !self.subjects.contains_key(job) {
            self.step().await?;
        }
        Ok(self.subjects.remove(job))
    }

    /// How long a running container was held still for a job that has ended; `None` when none was.
    pub fn frozen(&mut self, job: &OwnedObjectPath) -> Option<Usec> {
        self.frozen.remove(job)
    }

    /// Takes one signal; gives back a job's progress if that is what it was.
    async fn step(&mut self) -> Result<Option<(OwnedObjectPath, JobProgress)>, ClientError> {
        match self.next().await? {
            Signal::Changed { path, values, .. } => {
                if values.get("FrozenUSec").is_some() {
                    self.frozen.insert(path.clone(), values.number("FrozenUSec"));
                }
                if let Some(end) = job_end(&values) {
                    self.ended.insert(path, end);
                    return Ok(None);
                }
                let progress = self.progress.entry(path.clone()).or_default();
                progress.update(&values);
                return Ok(Some((path, *progress)));
            }
            Signal::Listed { member, path, .. } if member == "ContainerRemoved" => drop(self.removed.insert(path)),
            Signal::JobRemoved { path, subject, .. } => drop(self.subjects.insert(path, subject)),
            Signal::DaemonGone => self.interrupted = true,
            _ => {}
        }
        Ok(None)
    }

    async fn next(&mut self) -> Result<Signal, ClientError> {
        self.signals.next().await.ok_or(ClientError::BusGone)
    }

    /// Looks at the container, which starts the daemon again, and waits while its state is on the way.
    async fn settle(&mut self, goal: Goal<'_>) -> Result<(), ClientError> {
        if matches!(goal, Goal::Nothing(_)) {
            return Err(goal.interrupted());
        }
        let container = match self.client.container(goal.name()).await {
            Ok(container) => container,
            Err(error) if error.is(ErrorCode::NoSuchContainer) && matches!(goal, Goal::Removed(_)) => return Ok(()),
            Err(error) if error.is(ErrorCode::NoSuchContainer) => return Err(goal.interrupted()),
            Err(error) => return Err(error),
        };
        self.signals.add(Rule::Object(container.inner().path().as_str())).await?;
        self.signals.add(Rule::ContainersRemoved).await?;
        loop {
            let state = match container.state().await.map_err(ClientError::from) {
                Ok(state) => state,
                // The object is gone from the bus.
                Err(ClientError::Mismatch { .. }) if matches!(goal, Goal::Removed(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            match goal.judge(&state) {
                Verdict::Reached => return Ok(()),
                Verdict::Missed => return Err(goal.interrupted()),
                Verdict::OnTheWay => self.next().await?,
            };
        }
    }
}

const NOTED: Duration = Duration::from_secs(5);

/// How a job ended, once its properties say so.
pub(super) fn job_end(values: &Properties) -> Option<Result<(), ClientError>> {
    match values.text("Result").as_str() {
        "" => None,
        "done" => Some(Ok(())),
        result => Some(Err(ClientError::from_job(result, &values.text("Error"), values.text("Message")))),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Reached,
    OnTheWay,
    Missed,
}

impl Goal<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Running(name) | Self::Stopped(name) | Self::Removed(name) | Self::Nothing(name) => name,
        }
    }

    fn interrupted(&self) -> ClientError {
        ClientError::Interrupted { subject: self.name().to_owned() }
    }

    fn judge(&self, state: &str) -> Verdict {
        match (self, state) {
            (Self::Running(_), "running" | "frozen") => Verdict::Reached,
            (Self::Running(_), "starting") => Verdict::OnTheWay,
            (Self::Stopped(_), "created" | "stopped" | "failed") => Verdict::Reached,
            (Self::Stopped(_) | Self::Removed(_), "stopping") => Verdict::OnTheWay,
            _ => Verdict::Missed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use zbus::{OwnedVariant, Str};

    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Properties {
        let own = |text: &str| OwnedVariant::from(Str::from(text.to_owned()));
        Properties::from_map(pairs.iter().map(|(k, v)| ((*k).to_owned(), own(v))).collect::<HashMap<_, _>>())
    }

    #[test]
    fn what_is_not_in_a_signal_has_not_changed() {
        let mut progress = JobProgress::default();
        let signal = |name: &str, value: u64| Properties::from_map(HashMap::from([(name.into(), value.into())]));
        progress.update(&signal("Total", 10));
        progress.update(&signal("Progress", 4));
        assert_eq!(progress, JobProgress { done: 4, total: 10 });
    }

    #[test]
    fn progress_is_no_end() {
        assert!(job_end(&values(&[])).is_none());
        assert!(job_end(&values(&[("Result", "")])).is_none());
    }

    #[test]
    fn an_end_carries_its_error() {
        assert!(job_end(&values(&[("Result", "done")])).unwrap().is_ok());
        let failed = values(&[("Result", "failed"), ("Error", "org.holm1.Error.PoolFull"), ("Message", "no room")]);
        assert!(job_end(&failed).unwrap().unwrap_err().is(ErrorCode::PoolFull));
    }

    #[test]
    fn a_lost_job_is_judged_by_the_state() {
        assert_eq!(Goal::Running("a").judge("starting"), Verdict::OnTheWay);
        assert_eq!(Goal::Running("a").judge("failed"), Verdict::Missed);
        assert_eq!(Goal::Stopped("a").judge("failed"), Verdict::Reached);
        assert_eq!(Goal::Stopped("a").judge("running"), Verdict::Missed);
        assert_eq!(Goal::Removed("a").judge("stopped"), Verdict::Missed);
        assert_eq!(Goal::Nothing("a").judge("running"), Verdict::Missed);
    }
}
