//! Where the daemon's words go: the journal as fields, or standard error when there is no journal.

use std::io;

use tracing::Level;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogLevel;

/// Starts logging. Fields become journal fields of their own name in capitals, such as `CONTAINER=` and `OP=`.
pub(super) fn start(level: LogLevel) -> io::Result<()> {
    let filter = LevelFilter::from_level(match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    });
    let targets = tracing_subscriber::filter::Targets::new()
        .with_target("holm", filter)
        // What libraries say matters only when it is bad.
        .with_default(LevelFilter::WARN.min(filter));
    let registry = tracing_subscriber::registry().with(targets);
    match tracing_journald::layer() {
        Ok(journal) => registry
            .with(journal.with_syslog_identifier("holmd".to_owned()).with_field_prefix(None).with_priority_mappings(
                PriorityMappings {
                    error: Priority::Error,
                    warn: Priority::Warning,
                    info: Priority::Informational,
                    debug: Priority::Debug,
                    trace: Priority::Debug,
                },
            ))
            .init(),
        Err(_) => registry.with(tracing_subscriber::fmt::layer().with_writer(io::stderr).without_time()).init(),
    }
    Ok(())
}
