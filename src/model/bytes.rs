//! Sizes in bytes, as people write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A number of bytes.
///
/// Parsed from a plain number or a number with one of the suffixes `K`, `M`, `G`, `T`, `P` (powers of 1024, as in
/// systemd.resource-control(5)); an optional trailing `B` or `iB` is accepted. Shown with the largest suffix that
/// leaves at least one whole unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// Why a size could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a size: write a number of bytes or a number with K, M, G, T or P, such as 512M")]
pub struct ParseBytesError(String);

impl Bytes {
    /// One kibibyte.
    pub const KIB: u64 = 1 << 10;
    /// One mebibyte.
    pub const MIB: u64 = 1 << 20;
    /// One gibibyte.
    pub const GIB: u64 = 1 << 30;

    /// Whole 512-byte sectors, rounded down.
    pub const fn sectors(self) -> u64 {
        self.0 / 512
    }
}

impl FromStr for Bytes {
    type Err = ParseBytesError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBytesError(text.to_owned());
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let shift = match suffix.trim().to_ascii_uppercase().trim_end_matches('B').trim_end_matches('I') {
            "" => 0,
            "K" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "P" => 50,
            _ => return Err(error()),
        };
        match number.split_once('.') {
            None => {
                let whole: u64 = number.parse().map_err(|_| error())?;
                whole.checked_mul(1 << shift).map(Self).ok_or_else(error)
            }
            Some((whole, fraction)) => fractional(whole, fraction, shift).map(Self).ok_or_else(error),
        }
    }
}

/// `whole.fraction` shifted left by `shift` bits, without floating point.
fn fractional(whole: &str, fraction: &str, shift: u32) -> Option<u64> {
    if fraction.is_empty() || fraction.len() > 6 {
        return None;
    }
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    u64::try_from((value << shift) / scale).ok()
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u32); 5] = [("P", 50), ("T", 40), ("G", 30), ("M", 20), ("K", 10)];
        for (unit, shift) in UNITS {
            let whole = self.0 >> shift;
            if whole > 0 {
                let tenth = ((u128::from(self.0) * 10) >> shift) % 10;
                return if tenth == 0 { write!(f, "{whole}{unit}") } else { write!(f, "{whole}.{tenth}{unit}") };
            }
        }
        write!(f, "{}B", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_systemd_reads_them() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("1K", 1024), ("512M", 512 << 20), ("1.5G", 3 << 29), ("10GiB", 10 << 30)]
        {
            assert_eq!(text.parse::<Bytes>().unwrap(), Bytes(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_and_overflow_are_refused() {
        for text in ["", "M", "-1", "1X", "1.G", "99999999P", "1.2.3G", "1 000"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_shown_with_the_largest_unit() {
        assert_eq!(Bytes(1536 << 20).to_string(), "1.5G");
        assert_eq!(Bytes(700).to_string(), "700B");
    }
}
