//! The samples below `tests/units`, and what holds for any file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

fn samples(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/units").join(kind)
}

fn load(directory: &Path) -> Declared {
    Declared::load(&Directories::new([directory.to_owned()]))
}

/// Compares with a file of `tests/units`. With `HOLM_BLESS` set it is written instead.
fn golden(name: &str, text: &str) {
    let path = samples(name);
    if std::env::var_os("HOLM_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let wanted = fs::read_to_string(&path).unwrap();
    for (number, (got, wanted)) in text.lines().zip(wanted.lines()).enumerate() {
        assert_eq!(got, wanted, "line {} of {name}; HOLM_BLESS=1 takes it over", number + 1);
    }
    assert_eq!(text.lines().count(), wanted.lines().count(), "lines of {name}; HOLM_BLESS=1 takes it over");
}

/// Text with the samples' directory as it is called in the test host.
fn moved(text: &str, directory: &Path) -> String {
    text.replace(directory.to_str().unwrap(), "/etc/holm/units")
}

#[test]
fn a_line_of_a_unit_is_found_where_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let text =
        "[Container]\nImage=x\nEnvironment=C=1\n[Service]\nEnvironment=A=1 \\\n B=1\n#Restart=alway\nRestart = alway\n";
    fs::write(directory.path().join("web.container"), text).unwrap();
    let declared = load(directory.path());
    let file = &declared.files[0];
    let place_of = |key: &str| {
        let unit = file.units[0].text.as_ref().unwrap();
        let line = unit.lines().position(|line| line.starts_with(key)).unwrap() + 1;
        file.problem_in("web.service", line, "wrong".to_owned()).map(|problem| (problem.line, problem.key.unwrap()))
    };
    assert_eq!(place_of("Restart="), Some((8, "Restart".to_owned())));
    assert_eq!(place_of("Environment="), Some((5, "Environment".to_owned())));
    assert_eq!(place_of("Type="), None, "it is from no file");
    assert_eq!(file.problem_in("other.service", 1, "wrong".to_owned()), None);
}

#[test]
fn the_good_samples_become_these_units() {
    let directory = samples("good");
    let declared = load(&directory);
    assert_eq!(declared.all_problems().map(ToString::to_string).collect::<Vec<_>>(), Vec::<String>::new());
    let mut text = String::new();
    for unit in declared.files.iter().flat_map(|file| &file.units) {
        let _ = writeln!(text, "==> {} <==\n{}", unit.name, moved(unit.text.as_deref().unwrap(), &directory));
        for link in &unit.links {
            let _ = writeln!(text, "link {} -> {}", link.path, link.target);
        }
    }
    golden("good.golden", &text);
}

#[test]
fn the_bad_samples_have_these_messages() {
    let directory = samples("bad");
    let declared = load(&directory);
    let shown = declared.all_problems().map(|problem| moved(&problem.to_string(), &directory) + "\n");
    golden("bad.golden", &shown.collect::<String>());
    for file in &declared.files {
        assert!(!file.problems.is_empty(), "{} has no mistake", file.source.name);
        assert!(file.units.len() <= 1, "{} has more than the unit that says so", file.source.name);
    }
}

#[test]
fn every_key_that_is_used_is_in_a_good_sample() {
    let declared = load(&samples("good"));
    for kind in Kind::ALL {
        let mut used = BTreeSet::new();
        for file in declared.files.iter().filter(|file| file.source.name.kind() == kind) {
            let assignments = file.source.read(&mut Vec::new());
            used.extend(assignments.into_iter().filter(|a| *a.section == *kind.section()).map(|a| a.key));
        }
        for key in keys(kind).iter().filter(|key| !key.form.is_empty()) {
            assert!(used.contains(key.name), "no good sample has {}= in [{}]", key.name, kind.section());
        }
    }
}

#[test]
fn names_of_keys_are_there_once() {
    for kind in Kind::ALL {
        let names: Vec<_> = keys(kind).iter().map(|key| key.name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{kind:?}");
    }
}

/// What stands between two marks of a page is what `text` says. With `HOLM_BLESS` set it is written there instead.
fn page_has(page: &str, begin: &str, end: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let mut content = fs::read_to_string(&path).unwrap();
    let start = content.find(begin).expect("the page has a place for each kind") + begin.len();
    let stop = start + content[start..].find(end).expect("each place has an end");
    if std::env::var_os("HOLM_BLESS").is_some() {
        content.replace_range(start..stop, text);
        fs::write(&path, &content).unwrap();
        return;
    }
    assert_eq!(&content[start..stop], text, "{page}; HOLM_BLESS=1 takes it over");
}

#[test]
fn the_pages_have_every_key() {
    for kind in Kind::ALL {
        let section = kind.section();
        page_has("docs/units.md", &format!("<!-- keys of {section} -->\n"), "<!-- end -->", &table_of(kind));
        page_has("packaging/man/holm.unit.5", &format!(".\\\" keys of {section}\n"), ".\\\" end", &manual_of(kind));
    }
}

fn manual_of(kind: Kind) -> String {
    let plain = |text: &str| text.replace('`', "").replace('\\', "\\e").replace('-', "\\-");
    let mut text = String::new();
    for key in keys(kind).iter().filter(|key| !key.form.is_empty()) {
        let many = if key.list { " Several add up." } else { "" };
        let _ = writeln!(text, ".TP\n.BI {}= \" {}\"\n{}.{many}", key.name, plain(key.form), plain(key.text));
    }
    text
}

fn table_of(kind: Kind) -> String {
    let mut text = String::from("\n| key | value | |\n|---|---|---|\n");
    let all = keys(kind);
    for key in all.iter().filter(|key| !key.form.is_empty()) {
        let many = if key.list { " (adds up)" } else { "" };
        let _ = writeln!(text, "| `{}=` | {} | {}{many} |", key.name, key.form.replace('|', "\\|"), key.text);
    }
    text.push_str("\nRefused, with what to do instead:\n\n| key | |\n|---|---|\n");
    for key in all.iter().filter(|key| key.form.is_empty()) {
        let _ = writeln!(text, "| `{}=` | {} |", key.name, key.text);
    }
    text.push('\n');
    text
}

fn declared_of(name: &str, text: &[u8]) -> Declared {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join(name), text).unwrap();
    load(root.path())
}

/// Pieces that files are made of, so that more than the parser is reached.
fn pieces() -> impl Strategy<Value = String> {
    let names = keys(Kind::Container).iter().map(|key| key.name.to_owned()).collect::<Vec<_>>();
    let section = prop_oneof![Just("Container"), Just("Unit"), Just("Service"), Just("Install"), Just("Volume")];
    let value = prop_oneof![
        "[ -~]{0,20}",
        Just("x.volume:/a".to_owned()),
        Just("%i \"$X\" \\x41".to_owned()),
        Just("1min 5".to_owned()),
        any::<String>(),
    ];
    prop_oneof![
        section.prop_map(|section| format!("[{section}]\n")),
        (proptest::sample::select(names), value).prop_map(|(name, value)| format!("{name}={value}\n")),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_file_becomes_a_unit(parts in proptest::collection::vec(pieces(), 0..12), kind in 0usize..3) {
        let name = format!("a@b.{}", Kind::ALL[kind].suffix());
        let text = parts.concat();
        let declared = declared_of(&name, text.as_bytes());
        prop_assert_eq!(declared.files.len(), 1);
        let file = &declared.files[0];
        prop_assert!(!file.units.is_empty());
        for unit in &file.units {
            prop_assert!(name::is_unit_name(&unit.name), "{}", &unit.name);
            for link in &unit.links {
                let parts: Vec<_> = link.path.split('/').collect();
                prop_assert!(parts.len() <= 2 && parts.iter().all(|part| !part.is_empty() && !part.starts_with('.')), "{}", &link.path);
            }
            // What is passed on cannot begin a section or a line of its own.
            let begun = unit.text.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with('[')).count();
            prop_assert!(begun <= 2 || !file.problems.is_empty() || begun == 2, "{:?}", unit.text);
        }
    }
}
