//! Bus values as text and JSON.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};
use zbus::{OwnedVariant, Variant};

/// An object's properties, in order of name.
#[derive(Debug, Clone, Default)]
pub struct Properties(BTreeMap<String, OwnedVariant>);

impl Properties {
    /// From what `GetAll` replies.
    pub fn from_map(map: std::collections::HashMap<String, OwnedVariant>) -> Self {
        Self(map.into_iter().collect())
    }

    /// One value.
    pub fn get(&self, name: &str) -> Option<&Variant<'static>> {
        self.0.get(name).map(|value| &**value)
    }

    /// A string property; empty when there is none.
    pub fn text(&self, name: &str) -> String {
        self.get(name).map(to_text).unwrap_or_default()
    }

    /// The items of a list, or the `name=value` pairs of a dictionary, in order of name; empty when there is none.
    pub fn texts(&self, name: &str) -> Vec<String> {
        match self.get(name) {
            Some(Variant::Array(items)) => items.iter().map(to_text).collect(),
            Some(Variant::Dict(dict)) => {
                let pair = |(key, value): (&Variant<'_>, &Variant<'_>)| format!("{}={}", to_text(key), to_text(value));
                let mut pairs: Vec<_> = dict.iter().map(pair).collect();
                pairs.sort();
                pairs
            }
            _ => Vec::new(),
        }
    }

    /// A number; 0 when there is none.
    pub fn number(&self, name: &str) -> u64 {
        match self.get(name) {
            Some(Variant::U64(value)) => *value,
            Some(Variant::U32(value)) => u64::from(*value),
            Some(Variant::U16(value)) => u64::from(*value),
            _ => 0,
        }
    }

    /// A signed number, for exit statuses; -1 when there is none.
    pub fn status(&self, name: &str) -> i32 {
        match self.get(name) {
            Some(Variant::I32(value)) => *value,
            _ => -1,
        }
    }

    /// Whether a flag is set.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Variant::Bool(true)))
    }

    /// Each name and value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Variant<'static>)> {
        self.0.iter().map(|(name, value)| (name.as_str(), &**value))
    }

    /// All of them as one JSON object.
    pub fn to_json(&self) -> Json {
        Json::Object(self.iter().map(|(name, value)| (name.to_owned(), to_json(value))).collect())
    }
}

/// A value as JSON. A file descriptor is null: it has no meaning outside.
pub fn to_json(value: &Variant<'_>) -> Json {
    match value {
        Variant::U8(v) => json!(v),
        Variant::Bool(v) => json!(v),
        Variant::I16(v) => json!(v),
        Variant::U16(v) => json!(v),
        Variant::I32(v) => json!(v),
        Variant::U32(v) => json!(v),
        Variant::I64(v) => json!(v),
        Variant::U64(v) => json!(v),
        Variant::F64(v) => json!(v),
        Variant::Str(v) => json!(v.as_str()),
        Variant::Signature(v) => json!(v.to_string()),
        Variant::ObjectPath(v) => json!(v.as_str()),
        Variant::Variant(v) => to_json(v),
        Variant::Array(items) => Json::Array(items.iter().map(to_json).collect()),
        Variant::Dict(dict) => Json::Object(dict.iter().map(|(key, value)| (to_text(key), to_json(value))).collect()),
        Variant::Structure(parts) => Json::Array(parts.fields().iter().map(to_json).collect()),
        Variant::Fd(_) => Json::Null,
    }
}

/// A value as `machinectl show` writes it: flags as yes and no, lists with spaces between.
pub fn to_text(value: &Variant<'_>) -> String {
    let joined = |items: &mut dyn Iterator<Item = String>| items.collect::<Vec<_>>().join(" ");
    match value {
        Variant::Bool(true) => "yes".into(),
        Variant::Bool(false) => "no".into(),
        Variant::Str(v) => v.as_str().to_owned(),
        Variant::ObjectPath(v) => v.as_str().to_owned(),
        Variant::Signature(v) => v.to_string(),
        Variant::Variant(v) => to_text(v),
        Variant::Array(items) => joined(&mut items.iter().map(to_text)),
        Variant::Structure(parts) => joined(&mut parts.fields().iter().map(to_text)),
        Variant::Dict(dict) => {
            joined(&mut dict.iter().map(|(key, value)| format!("{}={}", to_text(key), to_text(value))))
        }
        Variant::Fd(_) => String::new(),
        number => to_json(number).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn values_are_written_as_machinectl_does() {
        assert_eq!(to_text(&Variant::from(true)), "yes");
        assert_eq!(to_text(&Variant::from(vec!["sh", "-c"])), "sh -c");
        assert_eq!(to_text(&Variant::from(-1i32)), "-1");
        assert_eq!(to_text(&Variant::from(HashMap::from([("a", "b")]))), "a=b");
    }

    #[test]
    fn lists_come_apart() {
        let map = HashMap::from([("b", "2"), ("a", "1")]);
        let values =
            [("List", Variant::from(vec!["a b", "c"])), ("Map", Variant::from(map)), ("One", Variant::from("x"))];
        let own = |(key, value): (&str, Variant<'_>)| (key.to_owned(), value.try_into_owned().unwrap());
        let properties = Properties::from_map(values.into_iter().map(own).collect());
        assert_eq!(properties.texts("List"), ["a b", "c"]);
        assert_eq!(properties.texts("Map"), ["a=1", "b=2"]);
        assert_eq!(properties.texts("One"), [""; 0]);
    }

    #[test]
    fn json_keeps_types() {
        assert_eq!(to_json(&Variant::from(7u64)), json!(7));
        assert_eq!(to_json(&Variant::from(vec!["a"])), json!(["a"]));
        assert_eq!(to_json(&Variant::from(("a", 1u32))), json!(["a", 1]));
        assert_eq!(to_json(&Variant::from(HashMap::from([("a", "b")]))), json!({"a": "b"}));
    }
}
