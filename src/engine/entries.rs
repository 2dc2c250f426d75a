//! The ids of the journal's entries about containers (`MESSAGE_ID=`): `packaging/holm.catalog` says what each means and
//! what to do.

/// It runs.
pub(super) const STARTED: &str = "7aee0f9871054a51864366809a0cda76";
/// It did not come to run.
pub(super) const NOT_STARTED: &str = "ef874f18505642b681f6ddbadf7d92e0";
/// Its run is over, and that is no failure.
pub(super) const ENDED: &str = "943b99ba9d4c48e6b456b4bc9d3ba361";
/// Its run is over, and that is a failure.
pub(super) const FAILED: &str = "2b21f51cb9254e22816dbfb3c3f27262";
/// It is killed, and its first process never took the stop signal.
pub(super) const UNHEARD: &str = "b7f4c1d25e0841d6930a7c8f2be6d415";
/// The kernel killed processes of it for lack of memory.
pub(super) const OUT_OF_MEMORY: &str = "8c1a06f4b3d24e7f9a5086d2c7e1f93b";
/// It is frozen because the pool has no room.
pub(super) const HELD: &str = "c2f3b1f0a8c84b2e9a4d6b7c1e5f9a03";
/// It goes on.
pub(super) const RELEASED: &str = "5f0d7c9e41b34a6f8e2ab6d15c7093e8";
/// Its policy starts it again.
pub(super) const RESTART: &str = "7be1f1c0d0a74c3a9a5f6d1c2b8e4f10";
/// Its policy would, but did too often.
pub(super) const GIVEN_UP: &str = "a41d3f2f6b5e4e0f8d3c7a90e1b65c27";

/// Its check failed too often.
pub(super) const UNHEALTHY: &str = "3c6e0b8a9c15471e8a2d5c90f7b1d4e6";
/// It passes again.
pub(super) const HEALTHY: &str = "d0b2e7415f3a4a6c9e48107ac35d92fb";

/// All of them.
#[cfg(test)]
pub(super) const ALL: [&str; 12] = [
    STARTED,
    NOT_STARTED,
    ENDED,
    FAILED,
    UNHEARD,
    OUT_OF_MEMORY,
    HELD,
    RELEASED,
    RESTART,
    GIVEN_UP,
    UNHEALTHY,
    HEALTHY,
];
