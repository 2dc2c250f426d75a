//! A layer store of temporary directories: a layer is a copy of the one below, filled further.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::sync::Arc;

use crate::images::{ImageError, Imported, LayerStore, LayerTree, Progress, import};

/// Everything is inside `dir`: layers in `layers`, and `canary`, which nothing may touch.
pub(super) struct Store {
    dir: tempfile::TempDir,
    layers: Rc<RefCell<BTreeMap<String, PathBuf>>>,
    next: Cell<u32>,
}

pub(super) struct Tree {
    path: PathBuf,
    root: File,
    layers: Rc<RefCell<BTreeMap<String, PathBuf>>>,
    kept: bool,
}

impl Store {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["layers", "scratch", "canary"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("canary/secret"), "untouched").unwrap();
        Self { dir, layers: Rc::default(), next: Cell::new(0) }
    }

    pub(super) fn canary(&self) -> PathBuf {
        self.dir.path().join("canary")
    }

    /// How many layers were kept.
    pub(super) fn kept(&self) -> usize {
        self.layers.borrow().len()
    }

    /// How many trees there are, kept or not.
    pub(super) fn trees(&self) -> usize {
        fs::read_dir(self.dir.path().join("layers")).unwrap().count()
    }

    pub(super) fn layer(&self, chain_id: &str) -> PathBuf {
        self.layers.borrow()[chain_id].clone()
    }

    /// Imports from a file.
    pub(super) fn import(&self, archive: &[u8]) -> Result<Imported, ImageError> {
        self.import_from(file(archive).into())
    }

    /// Imports through a pipe.
    pub(super) fn import_piped(&self, archive: &[u8]) -> Result<Imported, ImageError> {
        let (reader, mut writer) = std::io::pipe().unwrap();
        std::thread::scope(|scope| {
            // After an error nobody reads the rest.
            scope.spawn(move || drop(writer.write_all(archive)));
            self.import_from(reader.into())
        })
    }

    pub(super) fn import_from(&self, source: OwnedFd) -> Result<Imported, ImageError> {
        let scratch = self.dir.path().join("scratch");
        let result = import(source, &scratch, self, &Arc::new(Progress::default()));
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0, "nothing is left in the scratch directory");
        assert_eq!(self.trees(), self.kept(), "a tree that was not finished is thrown away");
        self.check_canary();
        result
    }

    pub(super) fn check_canary(&self) {
        let names: Vec<_> = fs::read_dir(self.canary()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        let secret = self.canary().join("secret");
        assert_eq!(fs::read_to_string(&secret).unwrap(), "untouched");
        let meta = fs::metadata(&secret).unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o7000), (1, 0));
        let mut top: Vec<_> = fs::read_dir(self.dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        top.sort();
        assert_eq!(top, ["canary", "layers", "scratch"]);
    }
}

pub(super) fn file(contents: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(contents).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

impl LayerStore for Store {
    type Tree = Tree;

    fn contains(&self, chain_id: &str) -> Result<bool, ImageError> {
        Ok(self.layers.borrow().contains_key(chain_id))
    }

    fn begin(&self, parent: Option<&str>) -> Result<Tree, ImageError> {
        let number = self.next.replace(self.next.get() + 1);
        let path = self.dir.path().join(format!("layers/{number}"));
        match parent {
            None => fs::create_dir(&path).unwrap(),
            Some(parent) => copy(&self.layer(parent), &path),
        }
        let root = File::open(&path).unwrap();
        Ok(Tree { path, root, layers: self.layers.clone(), kept: false })
    }
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

impl LayerTree for Tree {
    fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    fn finish(mut self, chain_id: &str) -> Result<(), ImageError> {
        self.kept = true;
        let before = self.layers.borrow_mut().insert(chain_id.to_owned(), self.path.clone());
        assert_eq!(before, None, "a layer is kept once");
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if !self.kept {
            fs::remove_dir_all(&self.path).unwrap();
        }
    }
}
