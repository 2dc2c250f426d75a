//! PAX records: `length key=value\n`, where the length counts the whole record. A value may hold any bytes.

use std::collections::HashMap;

use super::number::decimal;
use super::reader::Mtime;

/// Records by key; a later one replaces an earlier one.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Records {
    values: HashMap<Vec<u8>, Vec<u8>>,
    /// The map of sparse format 0.0, which repeats two keys: offset, length and so on.
    pub(super) sparse_pairs: Vec<Vec<u8>>,
}

impl Records {
    /// Takes a header's data apart; `None` when it is malformed.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let mut records = Self::default();
        let mut rest = data;
        while !rest.is_empty() {
            let (key, value, tail) = record(rest)?;
            if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
                records.sparse_pairs.push(value.to_vec());
            } else {
                records.values.insert(key.to_vec(), value.to_vec());
            }
            rest = tail;
        }
        Some(records)
    }

    /// The value of `key`; an empty one stands for none (pax(1): "shall delete any header block value").
    pub(super) fn get(&self, key: &str) -> Option<&[u8]> {
        self.values.get(key.as_bytes()).map(Vec::as_slice).filter(|v| !v.is_empty())
    }

    /// These records above those of the global headers: an own value, even an empty one, hides a global one.
    pub(super) fn over(mut self, global: &Self) -> Self {
        for (key, value) in &global.values {
            self.values.entry(key.clone()).or_insert_with(|| value.clone());
        }
        self
    }

    /// Adds the records of another global header.
    pub(super) fn extend(&mut self, newer: Self) {
        self.values.extend(newer.values);
    }

    /// Bytes held.
    pub(super) fn size(&self) -> u64 {
        self.values.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }

    /// Extended attributes (`SCHILY.xattr.`), in the order of their names. An empty attribute is one that exists.
    pub(super) fn xattrs(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found: Vec<_> = self
            .values
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
            .collect();
        found.sort();
        found
    }
}

/// Key, value and what follows.
fn record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|b| *b == b' ')?;
    let length = usize::try_from(decimal(&data[..space])?).ok()?;
    let body = data.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|b| *b == b'=')?;
    let key = &body[..equals];
    (!key.is_empty()).then_some((key, &body[equals + 1..], &data[length..]))
}

/// A time in seconds with a fraction, perhaps negative: `-1.25` is 1.25 s before the epoch.
pub(super) fn time(text: &[u8]) -> Option<Mtime> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let seconds = i64::try_from(decimal(parts.next()?)?).ok()?;
    let nanos = parts.next().map_or(Some(0), fraction)?;
    Some(match (negative, nanos) {
        (false, _) => Mtime { seconds, nanos },
        (true, 0) => Mtime { seconds: -seconds, nanos: 0 },
        (true, _) => Mtime { seconds: -seconds - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Nanoseconds of the digits behind the point; further digits are cut off.
fn fraction(digits: &[u8]) -> Option<u32> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let nine = digits.iter().copied().chain(std::iter::repeat(b'0')).take(9);
    Some(nine.fold(0, |value, digit| value * 10 + u32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_value_may_hold_newlines_and_zeros() {
        let records = Records::parse(b"27 SCHILY.xattr.user.a=\n\0=\n").unwrap();
        assert_eq!(records.xattrs(), [(b"user.a".to_vec(), b"\n\0=".to_vec())]);
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in ["x", "5 a=", "99 path=x\n", "10 path=xy", "3 \n", "5 =x\n", "0 a=b\n", " a=b\n", "6 a b\n"] {
            assert_eq!(Records::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn own_records_hide_global_ones_even_when_empty() {
        let global = Records::parse(b"9 path=g\n9 size=1\n").unwrap();
        let own = Records::parse(b"8 path=\n").unwrap().over(&global);
        assert_eq!(own.get("path"), None);
        assert_eq!(own.get("size"), Some(&b"1"[..]));
    }

    #[test]
    fn times_have_nanoseconds_and_may_be_negative() {
        let at = |seconds, nanos| Some(Mtime { seconds, nanos });
        assert_eq!(time(b"12"), at(12, 0));
        assert_eq!(time(b"12.5"), at(12, 500_000_000));
        assert_eq!(time(b"12.1234567899"), at(12, 123_456_789));
        assert_eq!(time(b"-1.25"), at(-2, 750_000_000));
        assert_eq!(time(b"-3"), at(-3, 0));
        for bad in ["", "-", "1e3", "1.x", " 1", "--1", "99999999999999999999"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Records::parse(&data);
            let _ = time(&data);
        }
    }
}
