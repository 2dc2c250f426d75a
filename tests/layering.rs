//! Holds the floors: which module may name which.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may use whom. A module that is missing here may use nothing.
const MAY_USE: [(&str, &[&str]); 15] = [
    ("model", &[]),
    ("sys", &[]),
    ("config", &["model", "sys"]),
    ("records", &["model", "sys"]),
    ("storage", &["model", "sys"]),
    ("images", &["model", "sys"]),
    ("systemd", &["model", "sys"]),
    ("runtime", &["model", "sys"]),
    ("units", &["model"]),
    ("engine", &["model", "sys", "config", "records", "storage", "images", "systemd", "runtime"]),
    ("client", &["model", "sys"]),
    ("dbus", &["model", "sys", "engine"]),
    ("cli", &["model", "sys", "units", "client"]),
    ("generator", &["model", "sys", "units"]),
    ("daemon", &["model", "sys", "config", "records", "storage", "images", "systemd", "runtime", "engine", "dbus"]),
];

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the source tree can be listed") {
        let path = entry.expect("the source tree can be listed").path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The top-level modules that a line names: `crate::<module>`, and every name in `use crate::{…}`.
fn named(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut names = Vec::new();
    for (at, word) in code.match_indices("crate::") {
        let rest = &code[at + word.len()..];
        match rest.strip_prefix('{') {
            Some(list) => names.extend(list.split([',', '}']).map(|name| first_segment(name.trim()))),
            None => names.push(first_segment(rest)),
        }
    }
    names.retain(|name| MAY_USE.iter().any(|(module, _)| module == name));
    names
}

fn first_segment(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn a_module_uses_only_the_floors_below_it() {
    let may_use: BTreeMap<_, _> = MAY_USE.into_iter().collect();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (module, allowed) in may_use {
        let mut files = Vec::new();
        rust_files(&source().join(module), &mut files);
        for file in files {
            let text = fs::read_to_string(&file).expect("a source file can be read");
            for (number, line) in text.lines().enumerate() {
                for name in named(line) {
                    checked += 1;
                    if name != module && !allowed.contains(&name.as_str()) {
                        wrong.push(format!("{}:{}: {module} uses {name}", file.display(), number + 1));
                    }
                }
            }
        }
    }
    assert!(checked > 50, "only {checked} uses were seen: the test no longer reads the source");
    assert!(wrong.is_empty(), "floors are broken:\n{}", wrong.join("\n"));
}

#[test]
fn every_module_has_its_floor() {
    for entry in fs::read_dir(source()).expect("the source tree can be listed") {
        let path = entry.expect("the source tree can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("file names are text");
        if path.is_dir() && name != "bin" {
            assert!(MAY_USE.iter().any(|(module, _)| *module == name), "{name} has no floor in this test");
        }
    }
}

#[test]
fn unsafe_code_is_allowed_only_in_sys() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).expect("a source file can be read");
        let fenced = file.starts_with(source().join("sys"));
        assert!(fenced || !text.contains("allow(unsafe_code)"), "{} lets unsafe code in", file.display());
    }
}

#[test]
fn an_inline_path_and_a_list_are_both_seen() {
    assert_eq!(named("use crate::{model, sys::proc};"), ["model", "sys"]);
    assert_eq!(named("    let x = crate::engine::Engine::open();"), ["engine"]);
    assert!(named("// crate::engine is above us").is_empty());
}
