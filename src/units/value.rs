//! Values: each from its text, with an error that says what is allowed.

use super::problem::shown;
use crate::model::{Bytes, Signal, Usec};

pub(super) type Parsed<T> = Result<T, String>;

/// The words of systemd.syntax(7) for yes and no.
pub(super) fn boolean(text: &str) -> Parsed<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "yes" | "y" | "true" | "t" | "on" => Ok(true),
        "0" | "no" | "n" | "false" | "f" | "off" => Ok(false),
        _ => Err(format!("'{}' is neither 'yes' nor 'no'", shown(text))),
    }
}

/// A length of time as systemd.time(7) has it: `90`, `1.5s`, `1min 30s`. Seconds without a unit.
pub(super) fn span(text: &str) -> Parsed<Usec> {
    let error =
        || format!("'{}' is not a length of time: write seconds, or such as '500ms' or '1min 30s'", shown(text));
    let mut rest = text.trim();
    let mut sum: u64 = 0;
    if rest.is_empty() {
        return Err(error());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let behind = behind.trim_start();
        let letters = behind.find(|c: char| !c.is_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(letters);
        let unit = UNITS.iter().find(|(names, _)| names.contains(&unit)).ok_or_else(error)?.1;
        let part = scaled(number, unit).ok_or_else(error)?;
        sum = sum.checked_add(part).ok_or_else(error)?;
        rest = behind.trim_start();
    }
    Ok(sum)
}

const UNITS: [(&[&str], u64); 7] = [
    (&["", "s", "sec", "second", "seconds"], 1_000_000),
    (&["ms", "msec"], 1_000),
    (&["us", "usec", "\u{b5}s", "\u{3bc}s"], 1),
    (&["m", "min", "minute", "minutes"], 60_000_000),
    (&["h", "hr", "hour", "hours"], 3_600_000_000),
    (&["d", "day", "days"], 86_400_000_000),
    (&["w", "week", "weeks"], 604_800_000_000),
];

/// `WHOLE.FRACTION` times `unit`, without floating point.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 6 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    let scale = 10u64.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / scale)
}

/// µs as the command line takes seconds.
pub(super) fn seconds(usec: Usec) -> String {
    decimal(usec, 6)
}

/// `number` / 10^`places`, without needless zeros.
fn decimal(number: u64, places: u32) -> String {
    let scale = 10u64.pow(places);
    let text = format!("{}.{:0width$}", number / scale, number % scale, width = places as usize);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A size above 0, passed on as it was written.
pub(super) fn size(text: &str) -> Parsed<String> {
    match text.parse::<Bytes>() {
        Ok(Bytes(0)) => Err("must be greater than 0; leave it out for no limit of its own".into()),
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A size that may be 0.
pub(super) fn size_or_none(text: &str) -> Parsed<String> {
    text.parse::<Bytes>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A number above 0, passed on as it was written.
pub(super) fn count(text: &str) -> Parsed<String> {
    match text.parse::<u64>() {
        Ok(0) | Err(_) => {
            Err(format!("'{}' is not a number above 0; leave it out for no limit of its own", shown(text)))
        }
        Ok(_) => Ok(text.to_owned()),
    }
}

/// `150%` is one and a half CPUs, as `--cpus` takes them.
pub(super) fn cpus(text: &str) -> Parsed<String> {
    let error = || format!("'{}' is not a part of CPUs: write such as '150%' for one and a half", shown(text));
    let percent = text.strip_suffix('%').ok_or_else(error)?;
    match scaled(percent.trim_end(), 10_000) {
        Some(millionths) if millionths > 0 => Ok(decimal(millionths, 6)),
        _ => Err(error()),
    }
}

/// A signal.
pub(super) fn signal(text: &str) -> Parsed<Signal> {
    text.parse().map_err(|error: crate::model::SignalError| error.to_string())
}

/// One of some words.
pub(super) fn one_of<'a>(text: &str, words: &[&'a str]) -> Parsed<&'a str> {
    words.iter().find(|word| **word == text).copied().ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
        format!("'{}' is not one of {}", shown(text), words.join(", "))
    })
}

/// A path that begins at the root, or with a specifier that will be one, without `..`.
pub(super) fn absolute(text: &str) -> Parsed<String> {
    if text.split('/').any(|part| part == "..") {
        return Err(format!("'{}' has a '..' in it: write the path that is meant", shown(text)));
    }
    if text.starts_with(['/', '%', '$']) {
        return Ok(text.to_owned());
    }
    Err(format!("'{}' is not an absolute path", shown(text)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_those_of_systemd() {
        for (text, usec) in [
            ("90", 90_000_000),
            ("1.5s", 1_500_000),
            ("1min 30s", 90_000_000),
            ("1h30m", 5_400_000_000),
            ("500 ms", 500_000),
            ("2 weeks", 1_209_600_000_000),
        ] {
            assert_eq!(span(text), Ok(usec), "{text}");
        }
        for text in ["", "s", "-1", "1.x", "1 fortnight", "1..2", "infinity", "99999999999999999999"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert_eq!(seconds(1_500_000), "1.5");
        assert_eq!(seconds(90_000_000), "90");
    }

    #[test]
    fn shares_of_cpus_are_percents() {
        for (text, cpus_) in [("150%", "1.5"), ("20%", "0.2"), ("1600%", "16"), ("0.5%", "0.005")] {
            assert_eq!(cpus(text).as_deref(), Ok(cpus_), "{text}");
        }
        for text in ["150", "0%", "%", "-5%", "a%"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn words_numbers_and_paths_are_checked() {
        assert_eq!((boolean("On"), boolean("0")), (Ok(true), Ok(false)));
        assert!(size_or_none("0").is_ok() && size_or_none("-1").is_err());
        assert!(boolean("maybe").is_err() && size("0").is_err() && size("lots").is_err() && count("-1").is_err());
        assert!(
            absolute("/a").is_ok()
                && absolute("%h/a").is_ok()
                && absolute("a").is_err()
                && absolute("/a/../b").is_err()
        );
        assert_eq!(one_of("b", &["a", "c"]).unwrap_err(), "'b' is not one of 'a', 'c'");
    }

    proptest! {
        #[test]
        fn any_text_is_a_value_or_an_error(text in any::<String>()) {
            let _ = (span(&text), size(&text), count(&text), cpus(&text), boolean(&text), signal(&text), absolute(&text));
        }
    }
}
