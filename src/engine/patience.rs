//! How long a container may take until it is ready. Pure but for the clock where a moment becomes a timer's.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{ContainerSpec, Ready, Usec, now_usec};

/// A timeout that never comes.
pub(super) const FOREVER: Usec = Usec::MAX;
/// What systemd gives a service (DefaultTimeoutStartSec= in systemd-system.conf(5)).
const USUAL: Usec = 90_000_000;

/// By when a run that began at `started_usec` has to be ready, µs since the epoch; 0 for never. One that says itself when it is
/// ready might never do so, and has the usual time, unless whoever waits for it looks to that (`is_watched`); a check
/// has an end of its own.
pub(super) fn ready_by(spec: &ContainerSpec, started_usec: Usec, is_watched: bool) -> Usec {
    let usual = (!is_watched && spec.ready == Ready::Notify).then_some(USUAL);
    match (spec.ready, spec.start_timeout_usec.or(usual)) {
        (Ready::Exec, _) | (_, None | Some(FOREVER)) => 0,
        (Ready::Notify | Ready::Healthy, Some(timeout)) => started_usec.saturating_add(timeout),
    }
}

/// The same, once it has asked for time until `wanted`: it never has less than it had at first.
pub(super) fn extended(spec: &ContainerSpec, started_usec: Usec, wanted: Usec) -> Usec {
    ready_by(spec, started_usec, false).max(wanted)
}

/// A moment of the wall clock on the clock that timers go by. One that is too far away to be counted is in a year.
pub(super) fn until(moment: Usec) -> Instant {
    let now = Instant::now();
    let wait = Duration::from_micros(moment.saturating_sub(now_usec()));
    now + wait.min(YEAR)
}

const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::create::{Defaults, define};
    use crate::engine::request::{CreateRequest, HealthRequest};
    use crate::model::{Bytes, ContainerId, DeviceId, ImageConfig, ImageInfo, ImageName};

    fn spec(ready: Ready, start_timeout_usec: Option<Usec>) -> ContainerSpec {
        let image = ImageInfo {
            name: ImageName::parse("busybox").unwrap(),
            digest: String::new(),
            size: Bytes(0),
            created_usec: 0,
            layers: vec![],
            device: DeviceId::parse("layer:0").unwrap(),
            devices: vec![],
            config: ImageConfig { command: vec!["sleep".into()], ..ImageConfig::default() },
        };
        let health = HealthRequest { command: Some(vec!["true".into()]), ..HealthRequest::default() };
        let request = CreateRequest { ready, start_timeout_usec, health, ..CreateRequest::default() };
        let defaults = Defaults { stop_timeout_usec: 1, pids_limit: None, images_may_boot: false };
        define(request, &image, ContainerId::from_random([1; 16]), &defaults).unwrap()
    }

    #[test]
    fn who_says_when_it_is_ready_has_the_usual_time_unless_somebody_watches() {
        let by = |ready, timeout, is_watched| ready_by(&spec(ready, timeout), 1000, is_watched);
        assert_eq!(by(Ready::Notify, None, false), USUAL + 1000);
        assert_eq!(by(Ready::Notify, None, true), 0);
        assert_eq!(by(Ready::Notify, Some(5), true), 1005, "what was asked for holds in any case");
        assert_eq!(by(Ready::Notify, Some(0), false), 0);
        assert_eq!(by(Ready::Healthy, None, false), 0);
        assert_eq!(by(Ready::Healthy, Some(5), false), 1005);
        assert_eq!(by(Ready::Exec, None, false), 0);
        assert_eq!(by(Ready::Notify, Some(Usec::MAX - 1), false), Usec::MAX);
    }

    #[test]
    fn more_time_is_never_less() {
        let spec = spec(Ready::Notify, Some(100));
        assert_eq!(extended(&spec, 1000, 1050), 1100);
        assert_eq!(extended(&spec, 1000, 1200), 1200);
    }

    #[test]
    fn a_moment_that_cannot_be_counted_is_far_away() {
        assert!(until(Usec::MAX) > Instant::now() + YEAR / 2);
        assert!(until(0) <= Instant::now());
    }
}
