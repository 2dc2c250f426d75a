//! Archives that are cut, changed, or lie: each is an error, and leaves nothing but layers that were complete.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::json;

use super::archives::{Oci, PACKINGS, Tar, docker, pack};
use super::store::{Store, file};
use crate::images::codec::Compression;
use crate::images::digest::digest;
use crate::images::job::Job;
use crate::images::limits::Limits;
use crate::images::source::Source;
use crate::images::{ImageError, Imported, Progress, archive};

fn tree() -> Vec<u8> {
    Tar::new().dir("./").dir("etc/").pax("mtime", "1.5").file("etc/motd", "hello").symlink("l", "etc").build()
}

fn image() -> Oci {
    Oci::new().layer(Compression::Gzip, &tree())
}

fn error(archive: &[u8]) -> ImageError {
    Store::new().import(archive).unwrap_err()
}

/// Whether it is what a damaged archive may be said to be, and not, say, a failed file operation.
fn is_about_the_archive(result: &Result<Imported, ImageError>) -> bool {
    matches!(
        result,
        Err(ImageError::Damaged(_)
            | ImageError::UnknownFormat(_)
            | ImageError::Invalid(_)
            | ImageError::DigestMismatch { .. }
            | ImageError::RefusedEntry { .. })
    )
}

/// Every prefix of a short archive, and of a longer one those around each block.
fn prefixes(archive: &[u8]) -> impl Iterator<Item = usize> {
    let len = archive.len();
    (0..len).filter(move |end| len < 1000 || matches!(end % 512, 0 | 1 | 511))
}

#[test]
fn every_prefix_of_a_tree_is_an_error() {
    let store = Store::new();
    for packing in PACKINGS {
        let archive = pack(packing, &tree());
        for end in prefixes(&archive) {
            let by_file = store.import(&archive[..end]);
            assert!(is_about_the_archive(&by_file), "{packing:?}, {end} of {}: {by_file:?}", archive.len());
            let by_pipe = store.import_piped(&archive[..end]);
            assert!(is_about_the_archive(&by_pipe), "{packing:?}, {end} of {}: {by_pipe:?}", archive.len());
        }
    }
}

#[test]
fn every_prefix_of_an_image_is_an_error() {
    let store = Store::new();
    for image in [image().build(), docker(&[tree()])] {
        for packing in PACKINGS {
            let archive = pack(packing, &image);
            for end in prefixes(&archive) {
                let result = store.import(&archive[..end]);
                assert!(is_about_the_archive(&result), "{packing:?}, {end} of {}: {result:?}", archive.len());
            }
        }
    }
}

#[test]
fn every_prefix_of_a_layer_is_an_error() {
    let store = Store::new();
    for packing in PACKINGS {
        let layer = pack(packing, &tree());
        for end in prefixes(&layer) {
            // The digest of the blob is right, that of the uncompressed stream is that of the whole.
            let mut oci = Oci::new();
            let descriptor = oci.blob("application/vnd.oci.image.layer.v1.tar", layer[..end].to_vec());
            oci.layers.push(descriptor);
            oci.diff_ids.push(digest(&tree()));
            let result = store.import(&oci.build());
            assert!(is_about_the_archive(&result), "{packing:?}, {end} of {}: {result:?}", layer.len());
        }
    }
}

#[test]
fn flipped_bits_of_a_layer_are_noticed() {
    let store = Store::new();
    for packing in PACKINGS {
        let oci = Oci::new().layer(packing, &tree());
        let len = oci.blobs[0].1.len();
        for at in (0..len).step_by(if len > 1000 { 37 } else { 1 }) {
            let mut bad = oci.clone();
            bad.blobs[0].1[at] ^= 1 << (at % 8);
            let result = store.import(&bad.build());
            assert!(is_about_the_archive(&result), "{packing:?}, byte {at}: {result:?}");
        }
    }
}

#[test]
fn flipped_bits_of_a_compressed_tree_are_noticed_or_harmless() {
    let store = Store::new();
    for packing in [Compression::Gzip, Compression::Zstd, Compression::Xz] {
        let archive = pack(packing, &tree());
        for at in 0..archive.len() {
            let mut bad = archive.clone();
            bad[at] ^= 1 << (at % 8);
            match store.import(&bad) {
                // A bit that means nothing: a time in the header of gzip, what fills up the last byte.
                Ok(imported) => assert_eq!(imported.diff_ids, [digest(&tree())], "{packing:?}, byte {at}"),
                result => assert!(is_about_the_archive(&result), "{packing:?}, byte {at}: {result:?}"),
            }
        }
    }
}

proptest! {
    #[test]
    fn random_bytes_in_headers_make_no_panics(changes in prop::collection::vec((0_usize..2560, any::<u8>()), 1..4)) {
        let archive = Tar::new().pax("size", "5").file("a", "hello").long(b'L', "long").file("b", "");
        let mut bad = archive.build();
        for (at, value) in changes {
            bad[at] = value;
            fix_checksum(&mut bad, at);
        }
        let store = Store::new();
        let result = store.import(&bad);
        prop_assert!(result.is_ok() == (store.kept() == 1));
    }
}

/// Makes the checksum of the block around `at` right, so that what is behind it is reached.
fn fix_checksum(archive: &mut [u8], at: usize) {
    let block = &mut archive[at / 512 * 512..][..512];
    if block[257..262] == *b"ustar" {
        let mut header = ::tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

#[test]
fn a_wrong_digest_is_named() {
    let mut oci = image();
    oci.blobs[0].1 = pack(Compression::Gzip, &Tar::new().file("other", "x").build());
    oci.layers[0]["size"] = json!(oci.blobs[0].1.len());
    let expected = oci.blobs[0].0.clone();
    match error(&oci.build()) {
        ImageError::DigestMismatch { expected: said, found, .. } => {
            assert_eq!(said, expected);
            assert_ne!(found, expected);
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_wrong_digest_of_the_stream_is_named() {
    let mut oci = image();
    oci.diff_ids[0] = digest(b"another stream");
    let text = error(&oci.build()).to_string();
    assert!(text.contains("uncompressed") && text.contains(&digest(b"another stream")), "{text}");
    let mut oci = image();
    let manifest = oci.manifest();
    let at = oci.blobs.len() - 1;
    oci.blobs[at].1 = oci.blobs[at].1.iter().map(|b| if *b == b'2' { b'3' } else { *b }).collect();
    oci.manifests.push(manifest);
    assert!(matches!(error(&oci.indexed()), ImageError::DigestMismatch { .. }));
}

#[test]
fn a_wrong_size_or_a_missing_blob_is_named() {
    let mut oci = image();
    oci.layers[0]["size"] = json!(3);
    assert!(error(&oci.build()).to_string().contains("instead of 3"));
    for missing in 0..3 {
        let mut oci = image();
        let manifest = oci.manifest();
        oci.manifests.push(manifest);
        let (name, _) = oci.blobs.remove(missing);
        let text = error(&oci.indexed()).to_string();
        assert!(text.contains(&name["sha256:".len()..]) && text.contains("missing"), "{text}");
    }
}

#[test]
fn a_failed_layer_leaves_those_below_it() {
    let store = Store::new();
    let mut oci = image().layer(Compression::None, &Tar::new().file("../x", "").build());
    assert!(matches!(store.import(&oci.clone().build()), Err(ImageError::RefusedEntry { .. })));
    assert_eq!(store.kept(), 1);
    oci.diff_ids.pop();
    assert!(matches!(store.import(&oci.build()), Err(ImageError::Invalid(_))));
}

#[test]
fn documents_that_make_no_sense_are_invalid() {
    let archives = [
        Tar::new().file("index.json", "{").build(),
        Tar::new().file("index.json", r#"{"schemaVersion":2,"manifests":[]}"#).build(),
        Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"2.0.0"}"#).file("index.json", "{}").build(),
        Tar::new().file("manifest.json", "[]").build(),
        Tar::new().file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#).build(),
        Tar::new().symlink("manifest.json", "repositories").symlink("repositories", "manifest.json").build(),
        Tar::new().file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).build(),
    ];
    for archive in &archives[..6] {
        assert!(matches!(error(archive), ImageError::Invalid(_)), "{}", error(archive));
    }
    let piped = Store::new().import_piped(&archives[6]).unwrap_err();
    assert!(matches!(piped, ImageError::Invalid(_)), "{piped}");
}

#[test]
fn an_index_that_names_itself_comes_to_an_end() {
    let mut oci = image();
    let mut descriptor = oci.manifest();
    for _ in 0..6 {
        let inner = json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string().into_bytes();
        descriptor = oci.blob("application/vnd.oci.image.index.v1+json", inner);
    }
    oci.manifests.push(descriptor);
    assert!(error(&oci.indexed()).to_string().contains("nested"));
}

#[test]
fn huge_extended_headers_are_over_the_limit() {
    for kind in *b"xgLK" {
        let archive = Tar::new().raw(kind, "pax", "", b"", 1 << 40).file("a", "").build();
        assert!(matches!(error(&archive), ImageError::Limit(_)), "{}", kind as char);
    }
    let archive = Tar::new().raw(b'x', "pax", "", b"", u64::MAX >> 1).file("a", "").build();
    assert!(matches!(error(&archive), ImageError::Limit(_)));
}

#[test]
fn sizes_that_go_beyond_the_end_are_damage() {
    for size in ["18446744073709551615", "9223372036854775808", "1000000"] {
        let archive = Tar::new().pax("size", size).file("a", "x").build();
        let result = Store::new().import(&archive);
        assert!(matches!(result, Err(ImageError::Damaged(_))), "{size}: {result:?}");
    }
    let archive = Tar::new().pax("size", "x").file("a", "x").build();
    assert!(matches!(error(&archive), ImageError::Damaged(_)));
}

#[test]
fn extended_headers_without_an_entry_or_twice_are_damage() {
    for archive in [
        Tar::new().file("a", "").long(b'L', "b").build(),
        Tar::new().long(b'L', "b").long(b'L', "c").file("a", "").build(),
        Tar::new().raw(b'x', "pax", "", b"not a record", 12).file("a", "").build(),
    ] {
        assert!(matches!(error(&archive), ImageError::Damaged(_)), "{}", error(&archive));
    }
}

#[test]
fn a_missing_end_is_an_error_where_nothing_else_shows_completeness() {
    let archive = Tar::new().file("a", "x").unfinished();
    assert!(matches!(error(&archive), ImageError::Damaged(_)));
    let one_block = [archive.clone(), vec![0; 512]].concat();
    assert!(matches!(error(&one_block), ImageError::Damaged(_)));
    let oci = Oci::new().layer(Compression::None, &archive);
    Store::new().import(&oci.build()).unwrap();
}

#[test]
fn padding_behind_the_end_is_part_of_the_digest_and_bounded() {
    let padded = [tree(), vec![0; 9000]].concat();
    let imported = Store::new().import(&padded).unwrap();
    assert_eq!(imported.diff_ids, [digest(&padded)]);
    let endless = [tree(), vec![0; 65 << 20]].concat();
    let archive = pack(Compression::Zstd, &endless);
    assert!(matches!(error(&archive), ImageError::Limit(_)));
}

/// Imports within limits that are lower than the usual.
fn within(limits: Limits, archive: &[u8]) -> Result<Imported, ImageError> {
    let (store, progress, scratch) = (Store::new(), Arc::new(Progress::default()), tempfile::tempdir().unwrap());
    let job = Job::new(&progress, scratch.path(), limits);
    let result = archive::import(Source::open(file(archive).into(), &job)?, &store, &job);
    assert_eq!(store.trees(), store.kept());
    result
}

#[test]
fn every_limit_is_held() {
    let usual = Limits::default();
    let lower = [
        Limits { entries: 3, ..usual.clone() },
        Limits { bytes: 4000, ..usual.clone() },
        Limits { extended_header: 10, ..usual.clone() },
        Limits { path: 7, ..usual.clone() },
        Limits { depth: 1, ..usual.clone() },
        Limits { names: 10, ..usual.clone() },
    ];
    within(usual.clone(), &tree()).unwrap();
    for limits in lower {
        let result = within(limits.clone(), &tree());
        assert!(matches!(result, Err(ImageError::Limit(_))), "{limits:?}: {result:?}");
    }
    let image = image().build();
    within(usual.clone(), &image).unwrap();
    for limits in [Limits { members: 4, ..usual.clone() }, Limits { document: 100, ..usual }] {
        for archive in [image.clone(), pack(Compression::Zstd, &image)] {
            let result = within(limits.clone(), &archive);
            assert!(matches!(result, Err(ImageError::Limit(_))), "{limits:?}: {result:?}");
        }
    }
}
