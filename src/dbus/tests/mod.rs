//! Tests over a private bus.
