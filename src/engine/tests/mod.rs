//! The engine's true policy, with fakes at the bottom: no root, no systemd, no device-mapper.

mod devices;
mod failures;
mod health;
mod host;
mod life;
mod readiness;
mod restart_policy;
mod restarts;
mod snapshots;
mod systems;
