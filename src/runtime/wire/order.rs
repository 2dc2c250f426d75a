//! Orders: what the daemon asks a monitor to do, with the descriptors for it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use serde::{Deserialize, Serialize};

use super::{DaemonEnd, MonitorEnd, WireError, take};
use crate::runtime::{ExecFds, ExecPlan, LaunchFds, LaunchPlan};
use crate::sys::{memfd, socket};

/// Longest order in bytes.
pub(crate) const MAX_ORDER: u64 = 1 << 20;
/// Orders up to this length travel in the packet itself.
const MAX_INLINE: usize = 56 << 10;

/// What a descriptor that comes with an order is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub(crate) enum Role {
    Order,
    Root,
    Cgroup,
    RecordDir,
    Leader,
    Stdin,
    Stdout,
    Stderr,
    Client,
    Passed,
    Credential,
    Notified,
}

const STDIO: [Role; 3] = [Role::Stdin, Role::Stdout, Role::Stderr];

/// What the daemon asks a monitor to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Task {
    Launch(LaunchPlan),
    Exec(ExecPlan),
}

/// The packet around a task. Without a task in it, the task is in the memory file that comes along.
#[derive(Debug, Serialize, Deserialize)]
struct Packet {
    roles: Vec<Role>,
    task: Option<Task>,
}

/// What the monitor reads.
#[derive(Debug)]
pub(crate) enum Order {
    /// Start a container and stay until it ends.
    Launch(Box<LaunchPlan>, LaunchFds),
    /// Run a process in a container and stay until it ends.
    Exec(Box<ExecPlan>, ExecFds),
}

impl DaemonEnd {
    /// Asks for a container.
    pub(crate) fn launch(&self, plan: &LaunchPlan, fds: &LaunchFds) -> Result<(), WireError> {
        let required = [(Role::Root, &fds.root), (Role::Cgroup, &fds.cgroup), (Role::RecordDir, &fds.record_dir)];
        let passed = fds.passed.iter().map(|fd| (Role::Passed, fd));
        let passed = passed.chain(fds.notified.iter().map(|fd| (Role::Notified, fd)));
        let more: Vec<_> = passed.chain(fds.credentials.iter().map(|fd| (Role::Credential, fd))).collect();
        let required: Vec<_> = required.into_iter().chain(more).collect();
        self.order(Task::Launch(plan.clone()), &required, &fds.stdio, fds.client.as_ref())
    }

    /// Asks for a process in a container.
    pub(crate) fn exec(&self, plan: &ExecPlan, fds: &ExecFds) -> Result<(), WireError> {
        let required = [(Role::Leader, &fds.leader), (Role::Cgroup, &fds.cgroup)];
        self.order(Task::Exec(plan.clone()), &required, &fds.stdio, fds.client.as_ref())
    }

    fn order(
        &self,
        task: Task,
        required: &[(Role, &OwnedFd)],
        stdio: &[Option<OwnedFd>; 3],
        client: Option<&OwnedFd>,
    ) -> Result<(), WireError> {
        let mut fds: Vec<(Role, BorrowedFd<'_>)> = required.iter().map(|(role, fd)| (*role, fd.as_fd())).collect();
        fds.extend(STDIO.into_iter().zip(stdio).filter_map(|(role, fd)| Some((role, fd.as_ref()?.as_fd()))));
        fds.extend(client.map(|fd| (Role::Client, fd.as_fd())));
        let text = serde_json::to_vec(&task)?;
        if text.len() <= MAX_INLINE {
            return self.packet(Some(task), &fds);
        }
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > MAX_ORDER {
            return Err(WireError::TooLong(text.len()));
        }
        let file = memfd::sealed("holm-order", &mut text.as_slice())?;
        fds.push((Role::Order, file.as_fd()));
        self.packet(None, &fds)
    }

    fn packet(&self, task: Option<Task>, fds: &[(Role, BorrowedFd<'_>)]) -> Result<(), WireError> {
        let (roles, fds): (Vec<_>, Vec<_>) = fds.iter().copied().unzip();
        let text = serde_json::to_vec(&Packet { roles, task })?;
        Ok(socket::send(self.0.as_fd(), &text, &fds)?)
    }
}

impl MonitorEnd {
    /// Waits for the order. [`WireError::Closed`] if the daemon thought better of it.
    pub(crate) fn order(&self) -> Result<Order, WireError> {
        let (packet, fds): (Packet, _) = take(self.0.as_fd(), socket::receive)?;
        let mut fds = Fds::new(packet.roles, fds)?;
        let task = match packet.task {
            Some(task) => task,
            None => serde_json::from_slice(&memfd::read_sealed(fds.required(Role::Order)?, MAX_ORDER)?)?,
        };
        Ok(match task {
            Task::Launch(plan) => Order::Launch(Box::new(plan), fds.for_launch()?),
            Task::Exec(plan) => Order::Exec(Box::new(plan), fds.for_exec()?),
        })
    }
}

/// The descriptors of an order by their roles.
struct Fds(Vec<(Role, OwnedFd)>);

impl Fds {
    fn new(roles: Vec<Role>, fds: Vec<OwnedFd>) -> Result<Self, WireError> {
        if roles.len() != fds.len() {
            return Err(WireError::Descriptors { got: fds.len(), named: roles.len() });
        }
        Ok(Self(roles.into_iter().zip(fds).collect()))
    }

    fn optional(&mut self, role: Role) -> Option<OwnedFd> {
        let index = self.0.iter().position(|(named, _)| *named == role)?;
        // The order of those with one role is theirs.
        Some(self.0.remove(index).1)
    }

    fn all(&mut self, role: Role) -> Vec<OwnedFd> {
        std::iter::from_fn(|| self.optional(role)).collect()
    }

    fn required(&mut self, role: Role) -> Result<OwnedFd, WireError> {
        self.optional(role).ok_or(WireError::Missing(role))
    }

    fn stdio(&mut self) -> [Option<OwnedFd>; 3] {
        STDIO.map(|role| self.optional(role))
    }

    fn for_launch(mut self) -> Result<LaunchFds, WireError> {
        Ok(LaunchFds {
            root: self.required(Role::Root)?,
            cgroup: self.required(Role::Cgroup)?,
            record_dir: self.required(Role::RecordDir)?,
            stdio: self.stdio(),
            client: self.optional(Role::Client),
            passed: self.all(Role::Passed),
            credentials: self.all(Role::Credential),
            notified: self.optional(Role::Notified),
        })
    }

    fn for_exec(mut self) -> Result<ExecFds, WireError> {
        Ok(ExecFds {
            leader: self.required(Role::Leader)?,
            cgroup: self.required(Role::Cgroup)?,
            stdio: self.stdio(),
            client: self.optional(Role::Client),
        })
    }
}
