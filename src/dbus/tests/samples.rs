//! Views as an engine would show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::engine::{ContainerView, ImageView, JobId, JobKind, JobView, ProcessId, ProcessView};
use crate::model::{
    Bytes, Capabilities, ContainerId, ContainerName, ContainerSpec, DeviceId, Health, ImageConfig, ImageInfo,
    ImageName, Lifetime, Limits, NetworkMode, PoolState, PoolStatus, Process, RunResult, Status, StopPolicy,
};

/// A value that must never be seen on the bus.
pub(super) const SECRET: &str = "hunter2";

pub(super) fn name(text: &str) -> ContainerName {
    ContainerName::parse(text).unwrap()
}

pub(super) fn container(text: &str) -> ContainerView {
    let spec = ContainerSpec {
        name: name(text),
        id: ContainerId::from_random([7; 16]),
        image: ImageName::parse("debian").unwrap(),
        process: Process {
            command: vec!["sleep".into(), "1".into()],
            environment: vec![format!("PASSWORD={SECRET}")],
            working_directory: None,
            user: None,
            terminal: false,
            init: true,
            capabilities: Capabilities::default(),
            no_new_privileges: true,
        },
        boot: false,
        hostname: None,
        network: NetworkMode::None,
        read_only: false,
        mounts: vec![],
        limits: Limits::default(),
        size: None,
        slice: None,
        stop: StopPolicy::default(),
        lifetime: Lifetime::Kept,
        restart: Default::default(),
        health: None,
        ready: Default::default(),
        log_rate: None,
        start_timeout_usec: None,
        survive_soft_reboot: false,
        labels: BTreeMap::new(),
    };
    ContainerView {
        spec: Arc::new(spec),
        status: Status::Created,
        unit: format!("holm-{text}.scope"),
        control_group: String::new(),
        leader: 0,
        created_usec: 1,
        started_usec: 0,
        stopped_usec: 0,
        exit: None,
        result: RunResult::None,
        oom_kills: 0,
        status_text: String::new(),
        run: 0,
        runs: Arc::default(),
        health: Health::None,
        restart_count: 0,
        next_restart_usec: 0,
        snapshots: Arc::default(),
    }
}

pub(super) fn running(text: &str) -> ContainerView {
    ContainerView { status: Status::Running, leader: 42, ..container(text) }
}

pub(super) fn image(text: &str) -> ImageView {
    Arc::new(ImageInfo {
        name: ImageName::parse(text).unwrap(),
        digest: "sha256:00".into(),
        size: Bytes(1),
        created_usec: 1,
        layers: vec!["sha256:01".into()],
        device: DeviceId::parse("layer:01").unwrap(),
        devices: vec![],
        config: ImageConfig::default(),
    })
}

pub(super) fn job(id: JobId) -> JobView {
    JobView {
        id,
        kind: JobKind::Start,
        subject: "web".into(),
        progress: 0,
        total: 0,
        started_usec: 1,
        frozen_usec: 0,
        result: None,
    }
}

pub(super) fn process(id: ProcessId) -> ProcessView {
    ProcessView {
        id,
        container: name("web"),
        command: vec!["ls".into()],
        pid: 43,
        owner: Some(":1.1".into()),
        started_usec: 1,
        ended: false,
        exit: None,
    }
}

pub(super) fn pool() -> PoolStatus {
    PoolStatus {
        pool: "holm-pool".into(),
        state: PoolState::Ok,
        data_used: Bytes(1),
        data_total: Bytes(2),
        metadata_used: Bytes(1),
        metadata_total: Bytes(2),
        block_size: Bytes(65536),
        transaction_id: 1,
        devices: 1,
        active: 0,
    }
}
