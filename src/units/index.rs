//! What is declared by which name, so that files can name one another.

use std::collections::BTreeMap;

use super::name::{FileName, Kind};
use super::problem::{did_you_mean, shown};
use super::syntax::Assignment;
use super::value::Parsed;
use super::{image, volume};

/// What a file stands for in others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its unit.
    pub(super) service: String,
    /// The directory of a volume's tree, or the name of an image.
    pub(super) thing: String,
}

/// All that is declared, by file name.
#[derive(Debug, Default)]
pub(super) struct Index(BTreeMap<String, Entry>);

impl Index {
    /// Notes a file. What it says may be wrong, which it answers for itself.
    pub(super) fn add(&mut self, name: &FileName, assignments: &[Assignment]) {
        let last = |key: &str| {
            let of_key = |assignment: &&Assignment| {
                *assignment.section == *name.kind().section() && assignment.key == key && !assignment.value.is_empty()
            };
            assignments.iter().rfind(of_key).map(|assignment| assignment.value.as_str())
        };
        let thing = match name.kind() {
            Kind::Volume => volume::directory_of(name, &last),
            Kind::Image => image::name_of(name, &last),
            Kind::Container | Kind::Foreign(_) => String::new(),
        };
        let service = service_of(name, last("ServiceName"));
        self.0.insert(name.to_string(), Entry { service, thing });
    }

    /// What a word names that ends like the name of a declaring file; `None` when it does not end so.
    pub(super) fn find(&self, word: &str) -> Parsed<Option<(Kind, Entry)>> {
        let Some(kind) = word.rsplit_once('.').and_then(|(_, suffix)| Kind::of_suffix(suffix)) else { return Ok(None) };
        if let Some(why) = kind.refusal() {
            return Err(format!("'{}': {why}", shown(word)));
        }
        if let Some(entry) = self.0.get(word) {
            return Ok(Some((kind, entry.clone())));
        }
        if let Some(entry) = self.of_template(word) {
            return Ok(Some((kind, entry)));
        }
        let same = self.0.keys().map(String::as_str).filter(|name| name.ends_with(&format!(".{}", kind.suffix())));
        let meant = did_you_mean(word, same);
        let advice =
            if meant.is_empty() { " in /etc/holm/units, /run/holm/units or /usr/share/holm/units" } else { &meant };
        Err(format!("there is no file '{}'{advice}", shown(word)))
    }

    /// An instance of a template that is there. The instance may be a specifier.
    fn of_template(&self, word: &str) -> Option<Entry> {
        let (stem, suffix) = word.rsplit_once('.')?;
        let (prefix, instance) = stem.split_once('@')?;
        let template = self.0.get(&format!("{prefix}@.{suffix}"))?;
        let service = template.service.replacen('@', &format!("@{instance}"), 1);
        Some(Entry { service, thing: template.thing.clone() })
    }
}

/// The unit that a file becomes: of `web.container` `web.service`, of `data.volume` `data-volume.service`. A name that is
/// asked for is taken where it can be one.
pub(super) fn service_of(name: &FileName, wanted: Option<&str>) -> String {
    let stem = name.stem();
    match (name.kind(), wanted.filter(|wanted| is_service_stem(wanted))) {
        (Kind::Container, Some(wanted)) => match name.instance() {
            Some(instance) => format!("{wanted}@{instance}.service"),
            None => format!("{wanted}.service"),
        },
        (_, Some(wanted)) => format!("{wanted}.service"),
        (Kind::Container, None) => format!("{stem}.service"),
        (kind, None) => match name.instance() {
            Some(instance) => format!("{}-{}@{instance}.service", name.prefix(), kind.suffix()),
            None => format!("{stem}-{}.service", kind.suffix()),
        },
    }
}

/// Whether a `ServiceName=` can be one: a unit's name without its end, and no template's.
pub(super) fn is_service_stem(text: &str) -> bool {
    !text.contains('@') && super::name::is_unit_name(&format!("{text}.service"))
}
