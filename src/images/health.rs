//! The check that an image brings for its containers: Docker's `Healthcheck`, which OCI's image-spec does not have and image
//! builders write all the same.

use serde::Deserialize;

use super::ImageError;
use super::members::invalid;
use crate::model::{HealthCheck, Usec};

/// Reads it from a configuration. `None` when it has none, or says that there is to be none.
pub(super) fn of(configuration: &[u8]) -> Result<Option<HealthCheck>, ImageError> {
    let outer: Outer = serde_json::from_slice(configuration).map_err(|e| invalid(format!("its Healthcheck: {e}")))?;
    let Some(found) = outer.config.and_then(|config| config.healthcheck) else { return Ok(None) };
    let words = found.test.clone().unwrap_or_default();
    let command = match words.split_first() {
        None => return Ok(None),
        Some((kind, _)) if kind == "NONE" => return Ok(None),
        Some((kind, command)) if kind == "CMD" && !command.is_empty() => command.to_vec(),
        Some((kind, [line])) if kind == "CMD-SHELL" => ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
        Some((kind, _)) => return Err(invalid(format!("its Healthcheck begins with '{kind}' and names no command"))),
    };
    let mut check = HealthCheck::new(command);
    // 0 is Docker's word for what is not set.
    set(&mut check.interval_usec, found.interval / 1000);
    set(&mut check.timeout_usec, found.timeout / 1000);
    set(&mut check.start_period_usec, found.start_period / 1000);
    set(&mut check.retries, found.retries);
    Ok(Some(check))
}

fn set<T: Default + PartialEq>(place: &mut T, value: T) {
    if value != T::default() {
        *place = value;
    }
}

#[derive(Deserialize)]
struct Outer {
    config: Option<Inner>,
}

#[derive(Deserialize)]
struct Inner {
    #[serde(rename = "Healthcheck")]
    healthcheck: Option<Healthcheck>,
}

/// Times in nanoseconds.
#[derive(Deserialize)]
#[serde(default, rename_all = "PascalCase")]
#[derive(Default)]
struct Healthcheck {
    test: Option<Vec<String>>,
    interval: Usec,
    timeout: Usec,
    start_period: Usec,
    retries: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<HealthCheck>, ImageError> {
        of(format!(r#"{{"config":{{"Healthcheck":{text}}}}}"#).as_bytes())
    }

    #[test]
    fn a_check_is_read_as_builders_write_it() {
        let text = r#"{"Test":["CMD-SHELL","curl -f http://localhost/"],"Interval":5000000000,"Timeout":2000000000,"Retries":4}"#;
        let found = check(text).unwrap().unwrap();
        assert_eq!(found.command, ["/bin/sh", "-c", "curl -f http://localhost/"]);
        assert_eq!((found.interval_usec, found.timeout_usec, found.retries), (5_000_000, 2_000_000, 4));
        let found = check(r#"{"Test":["CMD","/check","-q"],"StartPeriod":60000000000}"#).unwrap().unwrap();
        assert_eq!(found.command, ["/check", "-q"]);
        let default = HealthCheck::new(found.command.clone());
        assert_eq!(found, HealthCheck { start_period_usec: 60_000_000, ..default });
    }

    #[test]
    fn none_is_none() {
        for text in ["null", "{}", r#"{"Test":[]}"#, r#"{"Test":["NONE"]}"#, r#"{"Interval":5}"#] {
            assert_eq!(check(text).unwrap(), None, "{text}");
        }
        assert_eq!(of(b"{}").unwrap(), None);
    }

    #[test]
    fn nonsense_is_refused() {
        for text in
            [r#"{"Test":["CMD"]}"#, r#"{"Test":["RUN","x"]}"#, r#"{"Test":["CMD-SHELL","a","b"]}"#, r#"{"Test":"x"}"#]
        {
            assert!(check(text).is_err(), "{text}");
        }
    }
}
