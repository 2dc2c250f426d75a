//! From an archive, whatever it is, to an image in the store.
//!
//! ```text
//!  a file that is not compressed: entries are looked up in place
//!     image archive  -> layers are read where they lie
//!     anything else  -> unpacked as one layer
//!  a pipe, or compressed: read once
//!     image archive  -> members into a nameless scratch file, layers are read from there
//!     anything else  -> unpacked as one layer while it is read
//! ```

use std::io::{BufReader, Cursor, Read};
use std::sync::atomic::Ordering;

use super::codec::{Compression, HEAD};
use super::config::Configuration;
use super::detect::{Kind, Recorder, kind_of};
use super::job::{Job, from_io};
use super::layers::{self, Image};
use super::members::{Files, Members, invalid};
use super::pipeline::{self, Chunks, Stored};
use super::source::{Extent, Pipe, Section, Source};
use super::tar::{Reader, Stream, Trailer};
use super::unpack::unpack;
use super::{ImageError, Imported, LayerStore, LayerTree, docker, oci};

/// How a plain tree is called in messages.
const TREE: &str = "of the root file system";

/// Imports what `source` holds.
pub(super) fn import<S: LayerStore>(source: Source, store: &S, job: &Job<'_>) -> Result<Imported, ImageError> {
    let imported = match source {
        Source::Pipe(fd) => import_stream(Pipe::new(fd, job), store, job),
        Source::File(extent) if is_packed(&extent, job)? => import_stream(Section::new(extent, job), store, job),
        Source::File(extent) => import_file(extent, store, job),
    }?;
    let total = job.progress.total.load(Ordering::Relaxed);
    if total > 0 {
        // Members that nobody asked for were passed by.
        job.progress.read.store(total, Ordering::Relaxed);
    }
    Ok(imported)
}

fn is_packed(extent: &Extent, job: &Job<'_>) -> Result<bool, ImageError> {
    let mut head = Vec::new();
    let quiet = Extent { counts: false, ..extent.clone() };
    Section::new(quiet, job).take(HEAD as u64).read_to_end(&mut head).map_err(from_io)?;
    Ok(Compression::of(&head) != Compression::None)
}

fn import_file<S: LayerStore>(extent: Extent, store: &S, job: &Job<'_>) -> Result<Imported, ImageError> {
    let quiet = Extent { counts: false, ..extent.clone() };
    let mut reader =
        Reader::new(BufReader::with_capacity(4096, Section::new(quiet, job)), Trailer::Required, &job.limits);
    match kind_of(&mut reader)? {
        Kind::Empty => Err(empty()),
        Kind::RootFs => import_stream(Section::new(extent, job), store, job),
        Kind::Image(first) => {
            let members = Members::in_place(&extent, &mut reader, first, job)?;
            if is_image(&members)? {
                return layers::import(resolve(&members, job)?, store, job);
            }
            // A tree that has, say, a directory `blobs`.
            import_tree(Section::new(extent, job), store, job)
        }
    }
}

/// What became of a stream that is read once.
enum Read1<T> {
    Members(Members),
    Tree(T),
}

fn import_stream<S: LayerStore>(input: impl Read + Send, store: &S, job: &Job<'_>) -> Result<Imported, ImageError> {
    let (read, sums) = pipeline::run(job, input, Stored::Ignore, |chunks| {
        let mut recorder = Recorder::new(chunks);
        let mut reader = Reader::new(&mut recorder, Trailer::Required, &job.limits);
        match kind_of(&mut reader)? {
            Kind::Empty => Err(empty()),
            Kind::Image(first) => {
                reader.stream().stop();
                Members::spooled(&mut reader, first, job).map(Read1::Members)
            }
            Kind::RootFs => {
                let again = Cursor::new(recorder.into_kept()).chain(chunks);
                unpack_tree(again, store, job).map(Read1::Tree)
            }
        }
    })?;
    match read {
        Read1::Members(members) if is_image(&members)? => layers::import(resolve(&members, job)?, store, job),
        Read1::Members(_) => Err(invalid(format!("it has neither '{}' nor '{}'", oci::INDEX, docker::MANIFEST))),
        Read1::Tree(tree) => keep_tree(tree, sums.stream, store),
    }
}

fn import_tree<S: LayerStore>(input: impl Read + Send, store: &S, job: &Job<'_>) -> Result<Imported, ImageError> {
    let (tree, sums) =
        pipeline::run(job, input, Stored::Ignore, |chunks: &mut Chunks| unpack_tree(chunks, store, job))?;
    keep_tree(tree, sums.stream, store)
}

fn unpack_tree<S: LayerStore>(stream: impl Stream, store: &S, job: &Job<'_>) -> Result<S::Tree, ImageError> {
    let tree = store.begin(None)?;
    let mut reader = Reader::new(stream, Trailer::Required, &job.limits);
    unpack(&mut reader, tree.root(), TREE, job)?;
    Ok(tree)
}

/// The digest of a tree that came through a pipe is known only now.
fn keep_tree<S: LayerStore>(tree: S::Tree, sum: super::digest::Sum, store: &S) -> Result<Imported, ImageError> {
    let chain_id = sum.digest.clone();
    if store.contains(&chain_id)? {
        drop(tree);
    } else {
        tree.finish(&chain_id)?;
    }
    let Configuration { digest, diff_ids, config } = Configuration::of_tree(sum.digest);
    Ok(Imported { name: None, digest, diff_ids, chain_id, size: sum.len, config })
}

fn is_image(files: &impl Files) -> Result<bool, ImageError> {
    Ok(files.find(oci::INDEX)?.is_some() || files.find(docker::MANIFEST)?.is_some())
}

/// Archives of newer Docker versions are both; an OCI layout says the digest of everything.
fn resolve(files: &impl Files, job: &Job<'_>) -> Result<Image, ImageError> {
    match files.find(oci::INDEX)? {
        Some(_) => oci::resolve(files, job),
        None => docker::resolve(files, job),
    }
}

fn empty() -> ImageError {
    invalid("the archive has no entries".into())
}
