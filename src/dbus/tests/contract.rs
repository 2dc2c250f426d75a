//! The interfaces as they are served are those of `dbus/*.xml`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use zbus::object_server::Interface;

use super::super::{container::Container, image::Image, job::Job, process::Process};
use super::{DeviceSet, Door, Driver, Latest, Manager, SystemState, samples};
use crate::dbus::Action;

fn dbus_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("dbus")
}

fn introspection<I: Interface>(object: &I) -> (String, String) {
    let mut xml = String::new();
    object.introspect_to_writer(&mut xml, 0);
    (I::name().to_string(), xml)
}

fn served() -> [(String, String); 6] {
    let door = Door::default;
    let state = Latest::new(SystemState::Running);
    [
        introspection(&Manager { door: door(), driver: Driver::Copy, features: vec![], state }),
        introspection(&Container::new(door(), Latest::new(samples::container("web")))),
        introspection(&Process::new(door(), Latest::new(samples::process(1)))),
        introspection(&Image::new(door(), Latest::new(samples::image("debian")))),
        introspection(&DeviceSet::new(door(), Driver::Copy, Latest::new(samples::pool()))),
        introspection(&Job::new(door(), Latest::new(samples::job(1)))),
    ]
}

/// The tags of an XML text in order, each on one line, without comments and the document's frame.
fn tags(xml: &str) -> Vec<String> {
    let mut rest = xml;
    let mut tags = Vec::new();
    while let Some(start) = rest.find('<') {
        let (skip, end) = if rest[start..].starts_with("<!--") { (true, "-->") } else { (false, ">") };
        let length = rest[start..].find(end).expect("a tag has an end") + end.len();
        let tag = rest[start..start + length].split_whitespace().collect::<Vec<_>>().join(" ");
        let frame = ["<?xml", "<!DOCTYPE", "<node", "</node"].iter().any(|frame| tag.starts_with(frame));
        if !skip && !frame {
            tags.push(tag);
        }
        rest = &rest[start + length..];
    }
    tags
}

#[test]
fn the_interfaces_are_those_of_the_committed_xml() {
    for (name, xml) in served() {
        let file = dbus_folder().join(format!("{name}.xml"));
        let committed = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let (served, committed) = (tags(&xml), tags(&committed));
        let only = |a: &[String], b: &[String]| a.iter().filter(|tag| !b.contains(tag)).cloned().collect::<Vec<_>>();
        assert!(
            served == committed,
            "{name} differs from dbus/{name}.xml (or in order); only served: {:#?}; only in the file: {:#?}",
            only(&served, &committed),
            only(&committed, &served)
        );
    }
}

#[test]
fn every_interface_has_its_xml_and_no_xml_is_left_over() {
    let served: BTreeSet<String> = served().into_iter().map(|(name, _)| format!("{name}.xml")).collect();
    let files =
        std::fs::read_dir(dbus_folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let committed: BTreeSet<String> = files.filter(|file| file.ends_with(".xml")).collect();
    assert_eq!(served, committed);
}

#[test]
fn arguments_have_names() {
    for (name, xml) in served() {
        let nameless: Vec<_> =
            tags(&xml).into_iter().filter(|tag| tag.starts_with("<arg ") && !tag.contains("name=")).collect();
        assert!(nameless.is_empty(), "{name}: {nameless:?}");
    }
}

#[test]
fn every_action_is_in_the_policy_file() {
    let file = dbus_folder().join("org.holm1.policy");
    let policy = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    for action in Action::ALL {
        assert!(policy.contains(&format!("\"{}\"", action.id())), "{} is not declared", action.id());
    }
}

#[test]
fn tags_are_compared_without_comments_and_white_space() {
    let xml = "<?xml version='1.0'?>\n<node>\n <!-- a <b> c -->\n <interface\n   name=\"x\">\n </interface></node>";
    assert_eq!(tags(xml), ["<interface name=\"x\">", "</interface>"]);
}
