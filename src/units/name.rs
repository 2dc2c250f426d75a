//! Names of files that declare something, and of units.

use std::path::Path;

/// What a file declares, said by the end of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `*.container`
    Container,
    /// `*.volume`: a tree that is kept.
    Volume,
    /// `*.image`: an archive to import.
    Image,
    /// What Quadlet has and Holm does not.
    Foreign(&'static str),
}

/// Suffixes that Quadlet knows, and why there is no unit of them here.
const FOREIGN: [(&str, &str); 5] = [
    ("network", "networks beyond 'host' and 'none' come later"),
    ("pod", "pods come later: order containers with After= and Requires= in [Unit]"),
    ("kube", "not supported: write a .container file for each container"),
    ("build", "not supported: build the image elsewhere, and import its archive with a .image file"),
    ("artifact", "not supported: put the files into an image or a volume"),
];

impl Kind {
    /// Those that Holm makes units of.
    pub const ALL: [Self; 3] = [Self::Container, Self::Volume, Self::Image];

    /// The end of the names of its files, without the dot.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volume => "volume",
            Self::Image => "image",
            Self::Foreign(suffix) => suffix,
        }
    }

    /// The section that is its own.
    pub(super) fn section(self) -> &'static str {
        match self {
            Self::Container => "Container",
            Self::Volume => "Volume",
            Self::Image => "Image",
            Self::Foreign(_) => "",
        }
    }

    /// Why there is no such thing, for what only others have.
    pub(super) fn refusal(self) -> Option<&'static str> {
        let Self::Foreign(suffix) = self else { return None };
        FOREIGN.iter().find(|(known, _)| *known == suffix).map(|(_, why)| *why)
    }

    /// The kind of files that end like this.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        let own = Self::ALL.into_iter().find(|kind| kind.suffix() == suffix);
        own.or_else(|| FOREIGN.iter().find(|(known, _)| *known == suffix).map(|(known, _)| Self::Foreign(known)))
    }
}

/// The name of a file that declares something, such as `web.container`, `web@.container` or `web@blue.container`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileName {
    stem: String,
    kind: Kind,
}

impl FileName {
    /// Reads it; `None` for a name that declares nothing.
    pub fn parse(name: &str) -> Option<Self> {
        let (stem, suffix) = name.rsplit_once('.')?;
        let kind = Kind::of_suffix(suffix)?;
        (is_unit_stem(stem)).then(|| Self { stem: stem.to_owned(), kind })
    }

    /// Of a file, wherever it is.
    pub fn of(path: &Path) -> Option<Self> {
        Self::parse(path.file_name()?.to_str()?)
    }

    /// What it declares.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Without the end that says the kind.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// What stands before the `@`, or all of the stem.
    pub fn prefix(&self) -> &str {
        self.stem.split_once('@').map_or(&self.stem, |(prefix, _)| prefix)
    }

    /// What stands behind the `@`, if there is one; empty for a template.
    pub fn instance(&self) -> Option<&str> {
        self.stem.split_once('@').map(|(_, instance)| instance)
    }

    /// Whether it is a template: `NAME@`.
    pub fn is_template(&self) -> bool {
        self.instance() == Some("")
    }

    /// The template that this is an instance of.
    pub fn template(&self) -> Option<Self> {
        let instance = self.instance()?;
        (!instance.is_empty()).then(|| Self { stem: format!("{}@", self.prefix()), kind: self.kind })
    }

    /// The names whose `.d` directories hold drop-ins for it, the closest first: itself, its template, and prefixes that
    /// end in a dash (systemd.unit(5)). The one of the kind, such as `container.d`, is not among them.
    pub(super) fn drop_in_names(&self) -> Vec<String> {
        let suffix = self.kind.suffix();
        let mut names = vec![format!("{self}")];
        names.extend(self.template().map(|template| template.to_string()));
        let mut prefix = self.prefix();
        let end = if self.instance().is_some() { "@" } else { "" };
        while let Some((shorter, _)) = prefix.trim_end_matches('-').rsplit_once('-') {
            if shorter.is_empty() {
                break;
            }
            names.push(format!("{shorter}-{end}.{suffix}"));
            if !end.is_empty() {
                names.push(format!("{shorter}-.{suffix}"));
            }
            prefix = shorter;
        }
        names
    }
}

impl std::fmt::Display for FileName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.stem, self.kind.suffix())
    }
}

/// The letters of a unit's name, systemd.unit(5), with at most one `@` and something before it.
fn is_unit_stem(stem: &str) -> bool {
    let letters = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\".contains(&b));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    !prefix.is_empty() && !stem.starts_with('.') && stem.len() <= 200 && letters(prefix) && letters(instance)
}

/// Whether this is the name of a unit of systemd's, so that it is safe as the name of a file.
pub(super) fn is_unit_name(name: &str) -> bool {
    let Some((stem, suffix)) = name.rsplit_once('.') else { return false };
    UNIT_SUFFIXES.contains(&suffix) && is_unit_stem(stem)
}

const UNIT_SUFFIXES: [&str; 11] =
    ["service", "socket", "target", "device", "mount", "automount", "swap", "timer", "path", "slice", "scope"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_parts() {
        let name = FileName::parse("web-a@blue.container").unwrap();
        assert_eq!((name.prefix(), name.instance(), name.is_template()), ("web-a", Some("blue"), false));
        assert_eq!(name.template().unwrap().to_string(), "web-a@.container");
        assert!(FileName::parse("web@.volume").unwrap().is_template());
        for bad in
            ["web", ".container", "web.service", "@x.container", "a b.container", "a@b@c.container", ".x.container"]
        {
            assert_eq!(FileName::parse(bad), None, "{bad}");
        }
        assert!(FileName::parse("lan.network").unwrap().kind().refusal().is_some());
    }

    #[test]
    fn drop_ins_are_looked_for_from_the_closest_on() {
        let names = |name| FileName::parse(name).unwrap().drop_in_names();
        assert_eq!(names("a-b-c.container"), ["a-b-c.container", "a-b-.container", "a-.container"]);
        assert_eq!(names("a-b@i.container"), ["a-b@i.container", "a-b@.container", "a-@.container", "a-.container"]);
        assert_eq!(names("a-.container"), ["a-.container"]);
    }

    #[test]
    fn names_of_units_are_no_paths() {
        assert!(is_unit_name("multi-user.target") && is_unit_name("a@b.service"));
        for bad in ["../x.service", "x", "x.conf", "a/b.target", ".service", ""] {
            assert!(!is_unit_name(bad), "{bad}");
        }
    }
}
