//! The typed reader of `a{sv}` dictionaries: each known key is taken once with its type, and what is left is an error.

use std::collections::HashMap;

use zbus::{OwnedVariant, Type};

use super::error::{Error, Result};

/// A dictionary as it comes from the bus.
pub(super) type Dictionary = HashMap<String, OwnedVariant>;

/// A dictionary being read.
#[derive(Debug)]
pub(super) struct Options {
    left: Dictionary,
    known: Vec<&'static str>,
}

impl Options {
    pub(super) fn new(dictionary: Dictionary) -> Self {
        Self { left: dictionary, known: Vec::new() }
    }

    /// Takes the value of `key`. Fails if it is there with another type than `T`'s.
    pub(super) fn take<T>(&mut self, key: &'static str) -> Result<Option<T>>
    where
        T: Type + TryFrom<OwnedVariant>,
    {
        self.known.push(key);
        let Some(value) = self.left.remove(key) else {
            return Ok(None);
        };
        let found = value.value_signature().to_string();
        // `value` in an error would print what may be a secret, so only its type is named.
        let wrong =
            || Error::invalid(format!("option '{key}' wants a value of type '{}', not '{found}'", T::SIGNATURE));
        if *value.value_signature() != *T::SIGNATURE {
            return Err(wrong());
        }
        T::try_from(value).map(Some).map_err(|_| wrong())
    }

    /// Takes a flag; absent is `false`.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<bool> {
        Ok(self.take::<bool>(key)?.unwrap_or_default())
    }

    /// Takes the value of `key` and parses it; a failure names the key.
    pub(super) fn parse<T, U, E>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(T) -> std::result::Result<U, E>,
    ) -> Result<Option<U>>
    where
        T: Type + TryFrom<OwnedVariant>,
        E: std::fmt::Display,
    {
        let value = self.take::<T>(key)?;
        value.map(parse).transpose().map_err(|error| Error::invalid(format!("option '{key}': {error}")))
    }

    /// Ends the reading. Fails if a key is left.
    pub(super) fn finish(mut self) -> Result<()> {
        let Some(unknown) = self.left.keys().min() else {
            return Ok(());
        };
        let unknown: String = unknown.chars().take(80).collect();
        self.known.sort_unstable();
        Err(Error::invalid(match self.known.as_slice() {
            [] => format!("unknown option '{unknown}': none is known here"),
            known => format!("unknown option '{unknown}': known here are {}", known.join(", ")),
        }))
    }
}

/// Fails if `dictionary` has any key.
pub(super) fn none(dictionary: Dictionary) -> Result<()> {
    Options::new(dictionary).finish()
}

#[cfg(test)]
mod tests {
    use zbus::Variant;

    use super::*;

    fn options(entries: &[(&str, Variant<'static>)]) -> Options {
        Options::new(entries.iter().map(|(key, value)| ((*key).to_owned(), value.try_to_owned().unwrap())).collect())
    }

    #[test]
    fn known_keys_are_taken_with_their_type() {
        let mut options = options(&[("Init", true.into()), ("Size", 5u64.into())]);
        assert_eq!(options.take::<u64>("Size").unwrap(), Some(5));
        assert!(options.flag("Init").unwrap());
        assert!(!options.flag("Force").unwrap());
        options.finish().unwrap();
    }

    #[test]
    fn a_wrong_type_says_which_is_wanted() {
        let error = options(&[("Size", 5u32.into())]).take::<u64>("Size").unwrap_err();
        assert_eq!(error.message, "option 'Size' wants a value of type 't', not 'u'");
        let error = options(&[("Command", vec![1u8].into())]).take::<Vec<String>>("Command").unwrap_err();
        assert_eq!(error.message, "option 'Command' wants a value of type 'as', not 'ay'");
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_are_known() {
        let mut options = options(&[("Forse", true.into())]);
        options.flag("Force").unwrap();
        options.take::<u64>("Age").unwrap();
        assert_eq!(options.finish().unwrap_err().message, "unknown option 'Forse': known here are Age, Force");
        assert!(none(Dictionary::from([("A".to_owned(), true.into())])).unwrap_err().message.contains("none is known"));
    }
}
