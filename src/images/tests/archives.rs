//! Archives to import: tar streams with any header, images around them, packed in every way.

use std::io::Write;

use serde_json::{Value, json};

use crate::images::codec::Compression;
use crate::images::config::architecture;
use crate::images::digest::digest;

pub(super) const PACKINGS: [Compression; 4] =
    [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Xz];

/// A tar stream in the making. Nothing is checked: headers can say whatever a test wants.
#[derive(Clone, Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
    pax: Vec<(Vec<u8>, Vec<u8>)>,
    mode: Option<u32>,
    owner: Option<(u64, u64)>,
    size: Option<u64>,
    device: (u32, u32),
}

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A PAX record for the next entry.
    pub(super) fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    /// The mode of the next entry.
    pub(super) fn mode(mut self, mode: u32) -> Self {
        self.mode = Some(mode);
        self
    }

    /// The owner of the next entry.
    pub(super) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = Some((uid, gid));
        self
    }

    /// What the header of the next entry says about its size.
    pub(super) fn size(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    pub(super) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    pub(super) fn file(self, path: &str, contents: &str) -> Self {
        self.entry(b'0', path, "", contents.as_bytes())
    }

    pub(super) fn dir(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub(super) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub(super) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    pub(super) fn whiteout(self, path: &str) -> Self {
        self.file(path, "")
    }

    /// Any entry, owned by whoever runs the test.
    pub(super) fn entry(mut self, kind: u8, path: &str, link: &str, data: &[u8]) -> Self {
        let pax = std::mem::take(&mut self.pax);
        if !pax.is_empty() {
            let data: Vec<u8> = pax.iter().flat_map(|(key, value)| record(key, value)).collect();
            self = self.raw(b'x', "pax", "", &data, data.len() as u64);
        }
        let (mode, owner) = (self.mode.take(), self.owner.take());
        let size = self.size.take().unwrap_or(data.len() as u64);
        let default = if kind == b'5' { 0o755 } else { 0o644 };
        self = self.raw(kind, path, link, data, size);
        let at = self.bytes.len() - 512 - data.len().next_multiple_of(512);
        let header = tar::Header::from_byte_slice(&self.bytes[at..at + 512]);
        let mut header = header.clone();
        let own = || (u64::from(rustix::process::geteuid().as_raw()), u64::from(rustix::process::getegid().as_raw()));
        let (uid, gid) = owner.unwrap_or_else(own);
        header.set_mode(mode.unwrap_or(default));
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_device_major(self.device.0).unwrap();
        header.set_device_minor(self.device.1).unwrap();
        header.set_cksum();
        self.bytes[at..at + 512].copy_from_slice(header.as_bytes());
        self
    }

    pub(super) fn raw(mut self, kind: u8, path: &str, link: &str, data: &[u8], size: u64) -> Self {
        let mut header = tar::Header::new_gnu();
        let (path, link) = (path.as_bytes(), link.as_bytes());
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path);
        old.linkname[..link.len()].copy_from_slice(link);
        old.linkflag = [kind];
        header.set_size(size);
        header.set_mode(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.block(data)
    }

    /// Data, padded.
    pub(super) fn block(mut self, data: &[u8]) -> Self {
        self.bytes.extend_from_slice(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// A GNU extension header: `L` or `K`.
    pub(super) fn long(self, kind: u8, name: &str) -> Self {
        let data = [name.as_bytes(), b"\0"].concat();
        let size = data.len() as u64;
        self.raw(kind, "././@LongLink", "", &data, size)
    }

    /// The stream without its end.
    pub(super) fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    /// The stream with the two blocks that end it.
    pub(super) fn build(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }
}

/// One PAX record: its length counts itself.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

pub(super) fn pack(compression: Compression, bytes: &[u8]) -> Vec<u8> {
    match compression {
        Compression::None => bytes.to_vec(),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
            encoder.include_checksum(true).unwrap();
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Xz => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 0);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// An OCI archive in the making: blobs, and what refers to them.
#[derive(Clone)]
pub(super) struct Oci {
    pub(super) blobs: Vec<(String, Vec<u8>)>,
    pub(super) layers: Vec<Value>,
    pub(super) diff_ids: Vec<String>,
    pub(super) manifests: Vec<Value>,
    pub(super) config: Value,
}

impl Oci {
    pub(super) fn new() -> Self {
        let config = json!({ "Cmd": ["/bin/sh"], "Env": ["A=b"] });
        Self { blobs: vec![], layers: vec![], diff_ids: vec![], manifests: vec![], config }
    }

    /// Adds a blob; returns its descriptor.
    pub(super) fn blob(&mut self, media_type: &str, bytes: Vec<u8>) -> Value {
        let (digest, size) = (digest(&bytes), bytes.len());
        self.blobs.push((digest.clone(), bytes));
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    }

    pub(super) fn layer(mut self, compression: Compression, stream: &[u8]) -> Self {
        let kind = match compression {
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Compression::None | Compression::Xz => "application/vnd.oci.image.layer.v1.tar",
        };
        let descriptor = self.blob(kind, pack(compression, stream));
        self.layers.push(descriptor);
        self.diff_ids.push(digest(stream));
        self
    }

    /// Adds configuration and manifest; returns the manifest's descriptor.
    pub(super) fn manifest(&mut self) -> Value {
        let config = json!({
            "architecture": architecture(), "os": "linux", "config": self.config,
            "rootfs": { "type": "layers", "diff_ids": self.diff_ids },
        });
        let config = self.blob("application/vnd.oci.image.config.v1+json", config.to_string().into_bytes());
        let manifest = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config, "layers": self.layers,
        });
        self.blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().into_bytes())
    }

    /// The archive with the manifests that were put into its index.
    pub(super) fn indexed(self) -> Vec<u8> {
        let index = json!({ "schemaVersion": 2, "manifests": self.manifests }).to_string();
        let mut tar = Tar::new().dir("blobs/").dir("blobs/sha256/");
        for (digest, bytes) in &self.blobs {
            let path = format!("blobs/{}", digest.replace(':', "/"));
            tar = tar.entry(b'0', &path, "", bytes);
        }
        tar.file("index.json", &index).file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#).build()
    }

    /// The archive with one image named `example.org/app:1`.
    pub(super) fn build(mut self) -> Vec<u8> {
        let mut manifest = self.manifest();
        manifest["annotations"] = json!({
            "org.opencontainers.image.ref.name": "1", "io.containerd.image.name": "example.org/app:1",
        });
        self.manifests.push(manifest);
        self.indexed()
    }
}

/// What `docker save` makes of `layers`; the second of two equal ones is a link, as there.
pub(super) fn docker(layers: &[Vec<u8>]) -> Vec<u8> {
    let diff_ids: Vec<_> = layers.iter().map(|layer| digest(layer)).collect();
    let config = json!({
        "architecture": architecture(), "os": "linux", "config": { "Entrypoint": ["/init"], "StopSignal": "SIGINT" },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    })
    .to_string();
    let name = format!("{}.json", &digest(config.as_bytes())["sha256:".len()..]);
    let mut tar = Tar::new();
    let mut paths: Vec<String> = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let directory = format!("{number:064}");
        let path = format!("{directory}/layer.tar");
        tar = tar.dir(&format!("{directory}/"));
        tar = match layers[..number].iter().position(|earlier| earlier == layer) {
            Some(first) => tar.long(b'K', &format!("../{}", paths[first])).symlink(&path, ""),
            None => tar.entry(b'0', &path, "", layer),
        };
        paths.push(path);
    }
    let manifest = json!([{ "Config": name, "RepoTags": ["example.org/app:2"], "Layers": paths }]).to_string();
    tar.file(&name, &config).file("manifest.json", &manifest).file("repositories", "{}").build()
}
