//! Every kind of archive, packed in every way, from a file and through a pipe.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::archives::{Oci, PACKINGS, Tar, docker, pack};
use super::store::{Store, file};
use crate::images::codec::Compression;
use crate::images::config::architecture;
use crate::images::digest::{chain_id, digest};
use crate::images::{ImageError, Imported, Progress, import};

fn lower() -> Vec<u8> {
    Tar::new().dir("./").dir("./etc/").file("./etc/motd", "lower").file("./etc/gone", "x").build()
}

fn upper() -> Vec<u8> {
    Tar::new().dir("etc/").file("etc/motd", "upper").whiteout("etc/.wh.gone").build()
}

fn two_layers() -> Oci {
    Oci::new().layer(Compression::Gzip, &lower()).layer(Compression::Zstd, &upper())
}

/// Packs, and imports in both ways; both must find the same.
fn everywhere(archive: &[u8], check: impl Fn(&Store, &Imported)) {
    for packing in PACKINGS {
        let packed = pack(packing, archive);
        let (by_file, by_pipe) = (Store::new(), Store::new());
        let imported = by_file.import(&packed).unwrap();
        check(&by_file, &imported);
        assert_eq!(by_pipe.import_piped(&packed).unwrap(), imported, "{packing:?}");
        check(&by_pipe, &imported);
    }
}

fn has_both_layers(store: &Store, imported: &Imported) {
    assert_eq!(store.kept(), 2);
    let root = store.layer(&imported.chain_id);
    assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "upper");
    assert!(!root.join("etc/gone").exists());
    let below = store.layer(&imported.diff_ids[0]);
    assert_eq!(fs::read_to_string(below.join("etc/motd")).unwrap(), "lower");
}

#[test]
fn a_root_file_system_is_imported() {
    everywhere(&lower(), |store, imported| {
        assert_eq!(imported.diff_ids, [digest(&lower())]);
        assert_eq!(imported.chain_id, imported.diff_ids[0]);
        assert_eq!((imported.size, imported.name.as_deref()), (lower().len() as u64, None));
        let root = store.layer(&imported.chain_id);
        assert_eq!(fs::read_to_string(root.join("etc/motd")).unwrap(), "lower");
        assert_eq!(fs::metadata(root.join("etc")).unwrap().mtime(), 1_000_000_000);
    });
}

#[test]
fn an_oci_archive_is_imported() {
    everywhere(&two_layers().build(), |store, imported| {
        has_both_layers(store, imported);
        assert_eq!(imported.name.as_deref(), Some("example.org/app:1"));
        assert_eq!(imported.diff_ids, [digest(&lower()), digest(&upper())]);
        assert_eq!(imported.chain_id, chain_id(Some(&digest(&lower())), &digest(&upper())));
        assert_eq!(imported.size, (lower().len() + upper().len()) as u64);
        assert_eq!(imported.config.command, ["/bin/sh"]);
        assert_eq!(imported.config.environment, ["A=b"]);
    });
}

#[test]
fn a_docker_archive_is_imported() {
    everywhere(&docker(&[lower(), upper()]), |store, imported| {
        has_both_layers(store, imported);
        assert_eq!(imported.name.as_deref(), Some("example.org/app:2"));
        assert_eq!(imported.config.entrypoint, ["/init"]);
        assert_eq!(imported.config.stop_signal.unwrap().number(), libc::SIGINT);
    });
}

#[test]
fn a_layer_file_may_be_a_link_to_another() {
    everywhere(&docker(&[lower(), upper(), upper()]), |store, imported| {
        assert_eq!(store.kept(), 3);
        assert_eq!(imported.diff_ids[1], imported.diff_ids[2]);
    });
}

#[test]
fn layers_may_be_packed_in_every_way() {
    for packing in PACKINGS {
        let store = Store::new();
        let archive = Oci::new().layer(packing, &lower()).layer(packing, &upper()).build();
        has_both_layers(&store, &store.import(&archive).unwrap());
        let packed = [pack(packing, &lower()), pack(packing, &upper())];
        let archive = docker_of_packed(&packed);
        let store = Store::new();
        has_both_layers(&store, &store.import(&archive).unwrap());
    }
}

/// A docker-archive whose layers are compressed, as some builders make them.
fn docker_of_packed(packed: &[Vec<u8>; 2]) -> Vec<u8> {
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [digest(&lower()), digest(&upper())] },
    })
    .to_string();
    let id = digest(config.as_bytes());
    let manifest = json!([{ "Config": id, "RepoTags": null, "Layers": ["a.tar.gz", "b.tar.gz"] }]).to_string();
    Tar::new()
        .file(&id, &config)
        .entry(b'0', "a.tar.gz", "", &packed[0])
        .entry(b'0', "b.tar.gz", "", &packed[1])
        .file("manifest.json", &manifest)
        .build()
}

#[test]
fn members_may_come_in_any_order_and_below_a_dot() {
    let mut oci = two_layers();
    let manifest = oci.manifest();
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] }).to_string();
    let mut tar =
        Tar::new().dir("./").file("./index.json", &index).file("./oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
    for (digest, bytes) in oci.blobs.iter().rev() {
        tar = tar.entry(b'0', &format!("./blobs/{}", digest.replace(':', "/")), "", bytes);
    }
    everywhere(&tar.build(), has_both_layers);
}

#[test]
fn a_layer_that_is_there_is_not_unpacked_again_but_verified() {
    let store = Store::new();
    let first = store.import(&two_layers().build()).unwrap();
    assert_eq!(store.import(&two_layers().build()).unwrap(), first);
    assert_eq!(store.kept(), 2);
    // The same layers by digest, but their bytes are not there.
    let mut without = two_layers();
    without.blobs[0].1 = b"not the layer".to_vec();
    without.layers[0]["size"] = json!(13);
    assert!(matches!(store.import(&without.build()), Err(ImageError::DigestMismatch { .. })));
    let tree = store.import(&lower()).unwrap();
    assert_eq!(tree.chain_id, first.diff_ids[0], "a plain tree can be the lowest layer of an image");
    assert_eq!(store.kept(), 2);
}

#[test]
fn a_tree_that_looks_like_an_image_at_first_is_still_a_tree_in_a_file() {
    let archive = Tar::new().dir("blobs/").file("blobs/a", "x").file("etc/motd", "y").build();
    let store = Store::new();
    let imported = store.import(&archive).unwrap();
    assert_eq!(fs::read_to_string(store.layer(&imported.chain_id).join("blobs/a")).unwrap(), "x");
    assert!(matches!(Store::new().import_piped(&archive), Err(ImageError::Invalid(_))));
}

#[test]
fn a_file_is_read_from_where_it_stands() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"something in front").unwrap();
    for archive in [lower(), two_layers().build(), pack(Compression::Gzip, &docker(&[lower()]))] {
        let start = file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(&archive).unwrap();
        file.seek(SeekFrom::Start(start)).unwrap();
        Store::new().import_from(file.try_clone().unwrap().into()).unwrap();
    }
}

#[test]
fn the_image_for_this_machine_is_chosen() {
    let mut oci = two_layers();
    let mut ours = oci.manifest();
    ours["platform"] = json!({ "os": "linux", "architecture": architecture() });
    let mut other = ours.clone();
    other["platform"]["architecture"] = json!("s390x");
    other["digest"] = json!(digest(b"not in this archive"));
    let attestation = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "digest": digest(b"attestation"),
        "platform": { "os": "unknown", "architecture": "unknown" },
        "annotations": { "vnd.docker.reference.type": "attestation-manifest" },
    });
    let inner = json!({ "schemaVersion": 2, "manifests": [other, attestation, ours] }).to_string();
    let index = oci.blob("application/vnd.oci.image.index.v1+json", inner.into_bytes());
    oci.manifests = vec![index];
    everywhere(&oci.clone().indexed(), has_both_layers);

    oci.manifests = vec![other.clone()];
    let error = Store::new().import(&oci.clone().indexed()).unwrap_err().to_string();
    assert!(error.contains("linux/s390x") && error.contains(architecture()), "{error}");
}

#[test]
fn several_images_are_refused_by_name() {
    let mut oci = two_layers();
    let mut first = oci.manifest();
    let mut second = first.clone();
    second["digest"] = json!(digest(b"another"));
    first["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    second["annotations"] = json!({ "org.opencontainers.image.ref.name": "two" });
    oci.manifests = vec![first, second];
    let error = Store::new().import(&oci.indexed()).unwrap_err().to_string();
    assert!(error.contains("one, two"), "{error}");

    let manifest = json!([
        { "Config": "c", "RepoTags": ["one"], "Layers": [] }, { "Config": "c", "RepoTags": ["two"], "Layers": [] },
    ]);
    let archive = Tar::new().file("manifest.json", &manifest.to_string()).build();
    let error = Store::new().import(&archive).unwrap_err().to_string();
    assert!(error.contains("one; two"), "{error}");
}

#[test]
fn docker_types_are_known_and_strange_types_are_named() {
    let mut oci = Oci::new().layer(Compression::Gzip, &lower());
    oci.layers[0]["mediaType"] = json!("application/vnd.docker.image.rootfs.diff.tar.gzip");
    Store::new().import(&oci.clone().build()).unwrap();
    oci.layers[0]["mediaType"] = json!("application/vnd.example.layer");
    let error = Store::new().import(&oci.build()).unwrap_err().to_string();
    assert!(error.contains("application/vnd.example.layer"), "{error}");
}

#[test]
fn progress_ends_at_the_total_and_a_pipe_has_none() {
    let store = Store::new();
    let scratch = tempfile::tempdir().unwrap();
    let archive = two_layers().build();
    let progress = Arc::new(Progress::default());
    import(file(&archive).into(), scratch.path(), &store, &progress).unwrap();
    assert_eq!(progress.total.load(Ordering::Relaxed), archive.len() as u64);
    assert_eq!(progress.read.load(Ordering::Relaxed), archive.len() as u64);
}

#[test]
fn a_cancelled_import_ends_even_when_the_pipe_is_silent() {
    let store = Store::new();
    let scratch = tempfile::tempdir().unwrap();
    let progress = Arc::new(Progress::default());
    let (reader, writer) = std::io::pipe().unwrap();
    let result = std::thread::scope(|scope| {
        let canceler = progress.clone();
        scope.spawn(move || canceler.canceled.store(true, Ordering::Relaxed));
        import(reader.into(), scratch.path(), &store, &progress)
    });
    assert!(matches!(result, Err(ImageError::Canceled)), "{result:?}");
    drop(writer);
    let result = import(file(&lower()).into(), scratch.path(), &store, &progress);
    assert!(matches!(result, Err(ImageError::Canceled)), "{result:?}");
    assert_eq!(store.trees(), 0);
}

#[test]
fn a_failed_import_does_not_wait_for_a_silent_pipe() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&Tar::new().dir("a/").file("../b", "").build()).unwrap();
    // The writer stays open: there is no end of file.
    let result = Store::new().import_from(reader.into());
    assert!(matches!(result, Err(ImageError::RefusedEntry { .. })), "{result:?}");
    drop(writer);
}

#[test]
fn what_is_no_archive_is_said_to_be_none() {
    let said = |bytes: &[u8]| match Store::new().import(bytes).unwrap_err() {
        ImageError::UnknownFormat(why) => why,
        other => panic!("{other}"),
    };
    assert!(said(b"").contains("empty"));
    assert!(said(b"BZh91AY&SY").contains("bzip2"));
    assert!(said(&[b'x'; 5000]).contains("no tar header"));
    assert!(said(&pack(Compression::Gzip, b"hello")).contains("5 bytes"));
    for archive in [Tar::new().build(), pack(Compression::Xz, &Tar::new().build())] {
        assert!(matches!(Store::new().import(&archive), Err(ImageError::Invalid(_))));
    }
    let directory: OwnedFd = fs::File::open("/").unwrap().into();
    assert!(matches!(Store::new().import_from(directory), Err(ImageError::Invalid(_))));
}

#[test]
fn the_root_has_the_mode_of_its_entry() {
    let store = Store::new();
    let imported = store.import(&Tar::new().mode(0o711).dir("./").file("a", "").build()).unwrap();
    let root = store.layer(&imported.chain_id);
    assert_eq!(fs::metadata(&root).unwrap().permissions().mode() & 0o7777, 0o711);
    assert_eq!(fs::metadata(&root).unwrap().mtime(), 1_000_000_000);
}
