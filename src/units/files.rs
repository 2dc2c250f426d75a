//! Which files there are: three directories, one before the other, and drop-ins.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::name::{FileName, Kind};
use super::problem::{Place, Problem};
use super::syntax::{self, Assignment};

/// Where declarations are looked for, the most important first: the administrator's, until the next boot, the vendor's.
pub const DIRECTORIES: [&str; 3] = ["/etc/holm/units", "/run/holm/units", "/usr/share/holm/units"];

/// A file that declares something, with its drop-ins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub name: FileName,
    /// The file; of those with one name, that in the most important directory.
    pub path: PathBuf,
    /// Its drop-ins, in the order in which they are read.
    pub drop_ins: Vec<PathBuf>,
}

/// Directories with declarations in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directories(Vec<PathBuf>);

impl Default for Directories {
    fn default() -> Self {
        Self(DIRECTORIES.map(PathBuf::from).to_vec())
    }
}

impl Directories {
    /// Other ones, the most important first.
    pub fn new(directories: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(directories.into_iter().collect())
    }

    /// Those of this host; the variable `HOLM_UNIT_PATH`, with colons, names others, for tests.
    pub fn of_host() -> Self {
        match std::env::var_os("HOLM_UNIT_PATH") {
            Some(path) => Self::new(std::env::split_paths(&path)),
            None => Self::default(),
        }
    }

    /// The most important one: where an administrator's changes go.
    pub fn first(&self) -> &Path {
        self.0.first().map_or(Path::new(DIRECTORIES[0]), PathBuf::as_path)
    }

    /// These, and before them another one, unless it is one of them.
    pub fn with_first(mut self, directory: &Path) -> Self {
        if !self.0.iter().any(|known| known == directory) {
            self.0.insert(0, directory.to_owned());
        }
        self
    }

    /// All that is declared, sorted by name. A directory that cannot be read is a problem, one that is not there is not.
    pub fn sources(&self, problems: &mut Vec<Problem>) -> Vec<Source> {
        let mut found: BTreeMap<FileName, PathBuf> = BTreeMap::new();
        for directory in &self.0 {
            for path in entries(directory, problems) {
                match FileName::of(&path) {
                    Some(name) => drop(found.entry(name).or_insert(path)),
                    None => problems.extend(misnamed(&path)),
                }
            }
        }
        let source = |(name, path)| Source { drop_ins: self.drop_ins(&name, problems), name, path };
        found.into_iter().map(source).collect()
    }

    /// The drop-ins of a name: of several with one file name the closest counts, and an empty one masks the others.
    fn drop_ins(&self, name: &FileName, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
        let own = name.drop_in_names();
        let of_name =
            self.0.iter().flat_map(|directory| own.iter().map(move |name| directory.join(format!("{name}.d"))));
        let of_kind = self.0.iter().map(|directory| directory.join(format!("{}.d", name.kind().suffix())));
        let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
        for directory in of_name.chain(of_kind) {
            for path in entries(&directory, problems) {
                if path.extension().is_some_and(|extension| extension == "conf") {
                    let file = path.file_name().map(ToOwned::to_owned).unwrap_or_default();
                    found.entry(file).or_insert(path);
                }
            }
        }
        found.into_values().collect()
    }
}

impl Source {
    /// Whether it says that there is nothing of this name: it is empty, or a link to /dev/null.
    pub fn is_masked(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|known| known.len() == 0 && !known.is_dir())
    }

    /// What the file and its drop-ins have in them, in order.
    pub(super) fn read(&self, problems: &mut Vec<Problem>) -> Vec<Assignment> {
        let files = std::iter::once(&self.path).chain(&self.drop_ins);
        files.flat_map(|path| read(path, problems)).collect()
    }
}

/// A file that would declare something, but whose name cannot be that of a unit.
fn misnamed(path: &Path) -> Option<Problem> {
    Kind::of_suffix(path.extension()?.to_str()?)?;
    let rule = "the name is not one of a unit: use a-z, A-Z, 0-9, ':', '-', '_', '.' and one '@', and begin with none of '.' and '@'";
    Some(Place::whole(path).problem(rule))
}

fn read(path: &Path, problems: &mut Vec<Problem>) -> Vec<Assignment> {
    match std::fs::read(path) {
        Ok(text) => syntax::parse(&text, path, problems),
        Err(error) => {
            problems.push(Place::whole(path).problem(format!("cannot be read: {error}")));
            Vec::new()
        }
    }
}

/// What is in a directory, without hidden files, as editors leave them. None when it is not there.
fn entries(directory: &Path, problems: &mut Vec<Problem>) -> Vec<PathBuf> {
    let listed: io::Result<Vec<_>> =
        std::fs::read_dir(directory).and_then(|found| found.map(|entry| Ok(entry?.path())).collect());
    match listed {
        Ok(paths) => visible(paths),
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) {
                problems.push(Place::whole(directory).problem(format!("cannot be listed: {error}")));
            }
            Vec::new()
        }
    }
}

fn visible(mut paths: Vec<PathBuf>) -> Vec<PathBuf> {
    paths.retain(|path| path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")));
    paths
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn found(root: &Path) -> Vec<(String, String, Vec<String>)> {
        let directories = Directories::new(["etc", "run", "usr"].map(|name| root.join(name)));
        let mut problems = Vec::new();
        let sources = directories.sources(&mut problems);
        assert_eq!(problems, []);
        let shown = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let row = |s: Source| (s.name.to_string(), shown(&s.path), s.drop_ins.iter().map(|p| shown(p)).collect());
        sources.into_iter().map(row).collect()
    }

    #[test]
    fn the_most_important_directory_wins() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[("usr/a.container", "x"), ("etc/a.container", "y"), ("run/b.volume", "z"), ("usr/note", "")],
        );
        let expected = [("a.container", "etc/a.container"), ("b.volume", "run/b.volume")];
        let expected: Vec<_> = expected.iter().map(|(n, p)| ((*n).to_owned(), (*p).to_owned(), vec![])).collect();
        assert_eq!(found(root.path()), expected);
    }

    #[test]
    fn drop_ins_are_sorted_by_name_and_the_closest_of_a_name_counts() {
        let root = tempfile::tempdir().unwrap();
        put(
            root.path(),
            &[
                ("usr/app-web@.container", "x"),
                ("usr/app-web@.container.d/20.conf", ""),
                ("etc/app-.container.d/20.conf", ""),
                ("etc/app-.container.d/30.conf", ""),
                ("etc/container.d/10.conf", ""),
                ("run/container.d/10.conf", ""),
                ("etc/container.d/note.txt", ""),
            ],
        );
        let drop_ins = ["etc/container.d/10.conf", "etc/app-.container.d/20.conf", "etc/app-.container.d/30.conf"];
        assert_eq!(found(root.path())[0].2, drop_ins);
    }

    #[test]
    fn an_empty_file_and_a_link_to_nothing_mask() {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), &[("a.container", ""), ("b.container", "[Container]")]);
        std::os::unix::fs::symlink("/dev/null", root.path().join("c.container")).unwrap();
        let sources = Directories::new([root.path().to_owned()]).sources(&mut Vec::new());
        assert_eq!(sources.iter().map(Source::is_masked).collect::<Vec<_>>(), [true, false, true]);
    }
}
