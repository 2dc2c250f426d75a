//! OCI image layouts (OCI image-spec, image-layout.md): `index.json` names a manifest, that names a configuration and
//! layers, each by digest and size, each in `blobs/sha256`.

use oci_spec::image::{Arch, Descriptor, DigestAlgorithm, ImageIndex, ImageManifest, OciLayout, Os};
use serde::de::DeserializeOwned;

use super::ImageError;
use super::config::{Configuration, architecture};
use super::digest::digest;
use super::job::Job;
use super::layers::{Image, Layer};
use super::members::{Files, invalid};
use super::source::Extent;

/// Where the index is.
pub(super) const INDEX: &str = "index.json";
const LAYOUT: &str = "oci-layout";

/// Indexes inside one another.
const DEPTH: usize = 4;

const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// Layers are tar streams; how they are packed is seen from their contents, so that a wrong ending does no harm.
const LAYER_TYPES: [&str; 11] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// Where the name stands; the first one is a whole reference, the second may be only a tag.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Resolves the image for this machine.
pub(super) fn resolve(files: &impl Files, job: &Job<'_>) -> Result<Image, ImageError> {
    check_version(files, job)?;
    let mut index: ImageIndex = parse(&files.document(INDEX, job)?, INDEX)?;
    let mut name = None;
    for _ in 0..DEPTH {
        let chosen = choose(index.manifests())?;
        name = name.or_else(|| annotated_name(chosen));
        let text = document(files, chosen, job)?;
        let kind = chosen.media_type().to_string();
        if INDEX_TYPES.contains(&kind.as_str()) {
            index = parse(&text, &kind)?;
        } else {
            return image(files, &parse(&text, &kind)?, name, job);
        }
    }
    Err(invalid(format!("its indexes are nested more than {DEPTH} deep")))
}

fn check_version(files: &impl Files, job: &Job<'_>) -> Result<(), ImageError> {
    if files.find(LAYOUT)?.is_none() {
        return Ok(());
    }
    let layout: OciLayout = parse(&files.document(LAYOUT, job)?, LAYOUT)?;
    match layout.image_layout_version() {
        version if version.starts_with("1.") => Ok(()),
        version => Err(invalid(format!("its layout version is {version}; 1.0.0 can be read"))),
    }
}

/// The manifest or index for this machine: the one with its platform, or else the only one without any.
fn choose(all: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let images: Vec<_> = all.iter().filter(|d| is_image(d)).collect();
    let fitting: Vec<_> = images.iter().copied().filter(|d| fits(d) == Some(true)).collect();
    let open: Vec<_> = images.iter().copied().filter(|d| fits(d).is_none()).collect();
    let candidates = if fitting.is_empty() { open } else { fitting };
    match candidates[..] {
        [only] => Ok(only),
        [first, ref rest @ ..] if rest.iter().all(|d| d.digest() == first.digest()) => Ok(first),
        [] if images.is_empty() => Err(invalid("its index names no image".into())),
        [] => Err(invalid(format!("it has no image for linux/{}, only {}", architecture(), list(&images)))),
        _ => Err(invalid(format!("it has several images ({}); export just one", list(&candidates)))),
    }
}

/// Neither signatures nor attestations nor other artifacts.
fn is_image(descriptor: &Descriptor) -> bool {
    let kind = descriptor.media_type().to_string();
    let attests = descriptor.annotations().as_ref().is_some_and(|a| a.contains_key("vnd.docker.reference.type"));
    let known = INDEX_TYPES.iter().chain(&MANIFEST_TYPES).any(|known| *known == kind);
    known && !attests && descriptor.artifact_type().is_none()
}

/// Whether its platform is ours; `None` when it says nothing.
fn fits(descriptor: &Descriptor) -> Option<bool> {
    let platform = descriptor.platform().as_ref()?;
    Some(*platform.os() == Os::Linux && *platform.architecture() == Arch::from(architecture()))
}

fn list(descriptors: &[&Descriptor]) -> String {
    let describe = |descriptor: &&Descriptor| {
        let platform = descriptor.platform().as_ref().map(|p| format!("{}/{}", p.os(), p.architecture()));
        let name = annotated_name(descriptor).or(platform);
        name.unwrap_or_else(|| descriptor.digest().to_string())
    };
    descriptors.iter().map(describe).collect::<Vec<_>>().join(", ")
}

fn annotated_name(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations().as_ref()?;
    NAMES.iter().find_map(|key| annotations.get(*key)).filter(|name| !name.is_empty()).cloned()
}

fn image(
    files: &impl Files,
    manifest: &ImageManifest,
    name: Option<String>,
    job: &Job<'_>,
) -> Result<Image, ImageError> {
    let kind = manifest.config().media_type().to_string();
    if !CONFIG_TYPES.contains(&kind.as_str()) {
        return Err(invalid(format!("it is not an image that can be run, its configuration is of type '{kind}'")));
    }
    let configuration = Configuration::parse(&document(files, manifest.config(), job)?)?;
    let (blobs, ids) = (manifest.layers().len(), configuration.diff_ids.len());
    if blobs != ids {
        return Err(invalid(format!("its manifest names {blobs} layers, its configuration {ids}")));
    }
    let layers = manifest.layers().iter().map(|d| layer(files, d)).collect::<Result<_, _>>()?;
    Ok(Image { name, configuration, layers })
}

fn layer(files: &impl Files, descriptor: &Descriptor) -> Result<Layer, ImageError> {
    let kind = descriptor.media_type().to_string();
    if !LAYER_TYPES.contains(&kind.as_str()) {
        return Err(invalid(format!("layer {} is of unknown type '{kind}'", descriptor.digest())));
    }
    let digest = descriptor.digest().to_string();
    Ok(Layer { name: digest.clone(), extent: blob(files, descriptor)?, digest: Some(digest) })
}

/// The blob that a descriptor names, of the size it says.
fn blob(files: &impl Files, descriptor: &Descriptor) -> Result<Extent, ImageError> {
    let digest = descriptor.digest();
    if *digest.algorithm() != DigestAlgorithm::Sha256 {
        return Err(invalid(format!("'{digest}' is not a sha256 digest")));
    }
    let extent = files.get(&format!("blobs/sha256/{}", digest.digest()))?;
    match (extent.len, descriptor.size()) {
        (found, wanted) if found != wanted => Err(invalid(format!("{digest} has {found} bytes instead of {wanted}"))),
        _ => Ok(extent),
    }
}

/// The contents of the small blob that a descriptor names, verified.
fn document(files: &impl Files, descriptor: &Descriptor, job: &Job<'_>) -> Result<Vec<u8>, ImageError> {
    blob(files, descriptor)?;
    let expected = descriptor.digest().to_string();
    let text = files.document(&format!("blobs/sha256/{}", descriptor.digest().digest()), job)?;
    match digest(&text) {
        found if found == expected => Ok(text),
        found => Err(ImageError::DigestMismatch { what: descriptor.media_type().to_string(), found, expected }),
    }
}

fn parse<T: DeserializeOwned>(text: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(text).map_err(|e| invalid(format!("'{what}' cannot be read: {e}")))
}
