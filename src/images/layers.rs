//! Layers into the store, lowest first, each verified before it is kept.

use std::io::{BufRead, Cursor};

use super::config::Configuration;
use super::digest::{Sum, chain_id};
use super::job::Job;
use super::pipeline::{self, Chunks, Stored, Sums};
use super::source::{Extent, Section};
use super::tar::{Reader, Stream, Trailer};
use super::unpack::unpack;
use super::{ImageError, Imported, LayerStore, LayerTree};

/// An image resolved: everything but its layers was read and verified.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) name: Option<String>,
    pub(super) configuration: Configuration,
    /// As many as the configuration has.
    pub(super) layers: Vec<Layer>,
}

/// A layer as it is stored.
#[derive(Debug)]
pub(super) struct Layer {
    /// For messages.
    pub(super) name: String,
    pub(super) extent: Extent,
    /// `sha256:…` of the bytes as stored, if the archive says it.
    pub(super) digest: Option<String>,
}

impl Stream for Chunks {}
impl Stream for std::io::Chain<Cursor<Vec<u8>>, &mut Chunks> {}
impl<S: Stream> Stream for &mut S where Self: BufRead {}

/// Unpacks what the store does not have.
pub(super) fn import<S: LayerStore>(image: Image, store: &S, job: &Job<'_>) -> Result<Imported, ImageError> {
    let Image { name, configuration, layers } = image;
    let mut below: Option<String> = None;
    let mut size = 0;
    for (layer, diff_id) in layers.iter().zip(&configuration.diff_ids) {
        let id = chain_id(below.as_deref(), diff_id);
        let stream = if store.contains(&id)? {
            verify_only(layer, diff_id, job)?
        } else {
            let tree = store.begin(below.as_deref())?;
            let stream = fill(layer, diff_id, &tree, job)?;
            tree.finish(&id)?;
            stream
        };
        size += stream.len;
        below = Some(id);
    }
    let chain_id = below.ok_or_else(|| ImageError::Invalid("it has no layers".into()))?;
    let Configuration { digest, diff_ids, config } = configuration;
    Ok(Imported { name, digest, diff_ids, chain_id, size, config })
}

/// A layer that is there already is read all the same: naming its digest is no proof of having it, and its size counts.
fn verify_only(layer: &Layer, diff_id: &str, job: &Job<'_>) -> Result<Sum, ImageError> {
    let ((), sums) = read(layer, job, |chunks| pass(chunks, job))?;
    verified(layer, diff_id, sums)
}

fn pass(chunks: &mut Chunks, job: &Job<'_>) -> Result<(), ImageError> {
    loop {
        job.check()?;
        let count = chunks.fill_buf().map_err(super::job::from_io)?.len();
        if count == 0 {
            return Ok(());
        }
        chunks.consume(count);
    }
}

fn fill(layer: &Layer, diff_id: &str, tree: &impl LayerTree, job: &Job<'_>) -> Result<Sum, ImageError> {
    let (_, sums) = read(layer, job, |chunks| {
        // Its digest shows whether it is complete.
        let mut reader = Reader::new(chunks, Trailer::Optional, &job.limits);
        unpack(&mut reader, tree.root(), &layer.name, job)
    })?;
    verified(layer, diff_id, sums)
}

fn read<T>(
    layer: &Layer,
    job: &Job<'_>,
    consume: impl FnOnce(&mut Chunks) -> Result<T, ImageError>,
) -> Result<(T, Sums), ImageError> {
    let stored = if layer.digest.is_some() { Stored::Sum } else { Stored::Ignore };
    let input = Section::new(layer.extent.clone(), job);
    pipeline::run(job, input, stored, consume).map_err(|error| match error {
        ImageError::UnknownFormat(why) => {
            ImageError::Invalid(format!("layer {} is not a tar archive: {why}", layer.name))
        }
        ImageError::Damaged(why) => ImageError::Damaged(format!("layer {}: {why}", layer.name)),
        ImageError::Limit(why) => ImageError::Limit(format!("layer {}: {why}", layer.name)),
        other => other,
    })
}

fn verified(layer: &Layer, diff_id: &str, sums: Sums) -> Result<Sum, ImageError> {
    if let (Some(expected), Some(found)) = (&layer.digest, &sums.stored) {
        same(format!("layer {}", layer.name), &found.digest, expected)?;
    }
    same(format!("the uncompressed layer {}", layer.name), &sums.stream.digest, diff_id)?;
    Ok(sums.stream)
}

fn same(what: String, found: &str, expected: &str) -> Result<(), ImageError> {
    if found == expected {
        return Ok(());
    }
    Err(ImageError::DigestMismatch { what, found: found.to_owned(), expected: expected.to_owned() })
}
