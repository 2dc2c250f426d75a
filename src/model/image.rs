//! Words for images.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Bytes, DeviceId, HealthCheck, ImageName, Signal, Usec};

/// An image: a name for a chain of layer devices, and how its payload is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageInfo {
    /// Its name.
    pub name: ImageName,
    /// `sha256:…` of its configuration: the image id. For a plain tree, of the tree's tar stream.
    pub digest: String,
    /// Uncompressed bytes of its layers.
    pub size: Bytes,
    /// When it was imported, µs since the epoch.
    pub created_usec: Usec,
    /// `sha256:…` of each layer's uncompressed tar stream, lowest first.
    pub layers: Vec<String>,
    /// The device that holds the topmost layer, which containers are snapshots of.
    pub device: DeviceId,
    /// The devices of all layers, lowest first; images with the same lower layers share them.
    pub devices: Vec<LayerDevice>,
    /// How to run it.
    pub config: ImageConfig,
}

/// A layer's device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerDevice {
    /// `sha256:…`: the layer and everything below it (OCI image-spec, config.md "Layer ChainID").
    pub chain_id: String,
    /// Its device.
    pub device: DeviceId,
}

/// What an image says about running it (OCI image-spec, config.md).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// First words of the command line.
    pub entrypoint: Vec<String>,
    /// Default arguments, or the command when there is no entry point.
    pub command: Vec<String>,
    /// `NAME=VALUE` entries.
    pub environment: Vec<String>,
    /// Working directory.
    pub working_directory: Option<String>,
    /// User, as `user[:group]`.
    pub user: Option<String>,
    /// Signal that asks the payload to end.
    pub stop_signal: Option<Signal>,
    /// The builder's notes.
    pub labels: BTreeMap<String, String>,
    /// How to check a container of it. Absent in records of older versions.
    #[serde(default)]
    pub health: Option<HealthCheck>,
}
