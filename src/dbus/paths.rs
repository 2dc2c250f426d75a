//! Object paths, and the escaping of names in them.

use zbus::ObjectPath;

use crate::engine::{JobId, ProcessId};
use crate::model::{ContainerName, ImageName};

/// Manager and ObjectManager.
pub(super) const ROOT: &str = "/org/holm1";
/// The DeviceSet.
pub(super) const DEVICE_SET: &str = "/org/holm1/deviceset";

/// An owned object path.
pub(super) type Path = ObjectPath<'static>;

/// The object of a container.
pub(super) fn container(name: &ContainerName) -> Path {
    path(format!("{ROOT}/container/{}", encode(name.as_str())))
}

/// The object of a process in a container.
pub(super) fn process(container: &ContainerName, id: ProcessId) -> Path {
    path(format!("{ROOT}/container/{}/process/{id}", encode(container.as_str())))
}

/// The object of an image.
pub(super) fn image(name: &ImageName) -> Path {
    path(format!("{ROOT}/image/{}", encode(name.as_str())))
}

/// The object of a job.
pub(super) fn job(id: JobId) -> Path {
    path(format!("{ROOT}/job/{id}"))
}

fn path(text: String) -> Path {
    ObjectPath::try_from(text).expect("an encoded label is letters, digits and '_'")
}

/// Makes one element of an object path from any text, as `sd_bus_path_encode(3)` does: what is not an ASCII letter or
/// digit, and a digit in front, becomes `_` and two hexadecimal digits; the empty text becomes `_`.
pub fn encode(text: &str) -> String {
    if text.is_empty() {
        return "_".to_owned();
    }
    let mut label = String::with_capacity(text.len());
    for (index, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (index > 0 && byte.is_ascii_digit()) {
            label.push(char::from(byte));
        } else {
            label.push_str(&format!("_{byte:02x}"));
        }
    }
    label
}

/// The text behind an element of an object path, as `sd_bus_path_decode(3)` reads it. `None` if it is not UTF-8.
pub fn decode(label: &str) -> Option<String> {
    if label == "_" {
        return Some(String::new());
    }
    let bytes = label.as_bytes();
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, escaped(tail)) {
            (b'_', Some(byte)) => {
                text.push(byte);
                rest = &tail[2..];
            }
            // sd-bus takes a stray '_' as it is.
            _ => {
                text.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(text).ok()
}

/// The byte that two hexadecimal digits in front of `bytes` stand for.
fn escaped(bytes: &[u8]) -> Option<u8> {
    let digit = |index: usize| bytes.get(index).and_then(|byte| char::from(*byte).to_digit(16));
    u8::try_from(digit(0)? * 16 + digit(1)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn labels_are_those_of_sd_bus() {
        for (text, label) in [
            ("", "_"),
            ("web", "web"),
            ("web-1.a", "web_2d1_2ea"),
            ("1web", "_31web"),
            ("a_b", "a_5fb"),
            ("example.org/debian:12", "example_2eorg_2fdebian_3a12"),
            ("ü", "_c3_bc"),
        ] {
            assert_eq!(encode(text), label);
            assert_eq!(decode(label).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_stray_underscore_is_taken_as_it_is() {
        assert_eq!(decode("a_").as_deref(), Some("a_"));
        assert_eq!(decode("a_zz").as_deref(), Some("a_zz"));
        assert_eq!(decode("_ff"), None, "not UTF-8");
    }

    #[test]
    fn paths_are_those_of_the_contract() {
        let web = ContainerName::parse("web-1").unwrap();
        assert_eq!(container(&web).as_str(), "/org/holm1/container/web_2d1");
        assert_eq!(process(&web, 7).as_str(), "/org/holm1/container/web_2d1/process/7");
        assert_eq!(image(&ImageName::parse("a/b:1").unwrap()).as_str(), "/org/holm1/image/a_2fb_3a1");
        assert_eq!(job(3).as_str(), "/org/holm1/job/3");
    }

    proptest! {
        #[test]
        fn every_text_survives_the_way_there_and_back(text in ".*") {
            let label = encode(&text);
            let path = ObjectPath::try_from(format!("/{}", label));
            prop_assert!(path.is_ok());
            prop_assert_eq!(decode(&label), Some(text));
        }

        #[test]
        fn no_label_makes_decode_panic(label in "[A-Za-z0-9_]{0,40}") {
            let _ = decode(&label);
        }
    }
}
