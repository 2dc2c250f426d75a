//! What `docker save` writes: `manifest.json` names a configuration and layer files (Docker image specification v1.2,
//! "Combined Image JSON + Filesystem Changeset Format").

use serde::Deserialize;

use super::ImageError;
use super::config::Configuration;
use super::digest::is_hex64;
use super::job::Job;
use super::layers::{Image, Layer};
use super::members::{Files, invalid};

/// Where the manifest is.
pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Manifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Resolves the one image of the archive.
pub(super) fn resolve(files: &impl Files, job: &Job<'_>) -> Result<Image, ImageError> {
    let manifest = the_only(files, job)?;
    let text = files.document(&manifest.config, job)?;
    let configuration = Configuration::parse(&text)?;
    check_name(&manifest.config, &configuration.digest)?;
    if manifest.layers.len() != configuration.diff_ids.len() {
        let (files, ids) = (manifest.layers.len(), configuration.diff_ids.len());
        return Err(invalid(format!("its manifest names {files} layers, its configuration {ids}")));
    }
    let layers = manifest
        .layers
        .iter()
        .map(|name| Ok(Layer { name: name.clone(), extent: files.get(name)?, digest: None }))
        .collect::<Result<_, ImageError>>()?;
    let name = manifest.repo_tags.unwrap_or_default().into_iter().next();
    Ok(Image { name, configuration, layers })
}

fn the_only(files: &impl Files, job: &Job<'_>) -> Result<Manifest, ImageError> {
    let text = files.document(MANIFEST, job)?;
    let mut manifests: Vec<Manifest> =
        serde_json::from_slice(&text).map_err(|e| invalid(format!("'{MANIFEST}' cannot be read: {e}")))?;
    match manifests.len() {
        0 => Err(invalid("it has no image".into())),
        1 => Ok(manifests.remove(0)),
        _ => {
            let names: Vec<_> = manifests.iter().map(|m| m.repo_tags.clone().unwrap_or_default().join(", ")).collect();
            Err(invalid(format!("it has several images ({}); save just one", names.join("; "))))
        }
    }
}

/// The configuration is named by its digest: `<hex>.json`, `sha256:<hex>` or `blobs/sha256/<hex>`.
fn check_name(name: &str, found: &str) -> Result<(), ImageError> {
    let last = name.rsplit('/').next().unwrap_or(name);
    let hex = last.strip_suffix(".json").unwrap_or(last);
    let hex = hex.strip_prefix("sha256:").unwrap_or(hex);
    if is_hex64(hex) && found.strip_prefix("sha256:") != Some(hex) {
        let (what, expected) = ("the configuration".into(), format!("sha256:{hex}"));
        return Err(ImageError::DigestMismatch { what, found: found.to_owned(), expected });
    }
    Ok(())
}
