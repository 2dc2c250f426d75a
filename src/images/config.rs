//! An image's configuration: how its payload is run, and which layers it has.

use oci_spec::image::{Config, ImageConfiguration, Os};

use super::ImageError;
use super::digest::{digest, is_digest};
use super::health;
use super::members::invalid;
use crate::model::{ImageConfig, Signal};

/// What we need of a configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Configuration {
    /// `sha256:…` of its text.
    pub(super) digest: String,
    /// `sha256:…` of each layer's uncompressed stream, lowest first.
    pub(super) diff_ids: Vec<String>,
    pub(super) config: ImageConfig,
}

impl Configuration {
    /// Takes a configuration apart (OCI image-spec, config.md; Docker's differs in nothing that we read).
    pub(super) fn parse(text: &[u8]) -> Result<Self, ImageError> {
        let parsed: ImageConfiguration =
            serde_json::from_slice(text).map_err(|e| invalid(format!("its configuration cannot be read: {e}")))?;
        if *parsed.os() != Os::Linux {
            return Err(invalid(format!("it is made for {}, not for linux", parsed.os())));
        }
        let diff_ids = parsed.rootfs().diff_ids().clone();
        if diff_ids.is_empty() {
            return Err(invalid("its configuration names no layers".into()));
        }
        if let Some(bad) = diff_ids.iter().find(|id| !is_digest(id)) {
            return Err(invalid(format!("'{bad}' is no sha256 digest of a layer")));
        }
        let mut config = parsed.config().as_ref().map_or_else(|| Ok(ImageConfig::default()), how_to_run)?;
        config.health = health::of(text)?;
        Ok(Self { digest: digest(text), diff_ids, config })
    }

    /// The configuration of a plain tree: it says nothing but which layer it is, so that the same tree always has the
    /// same digest on machines of one kind.
    pub(super) fn of_tree(diff_id: String) -> Self {
        let text = serde_json::json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {},
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        });
        Self { digest: digest(text.to_string().as_bytes()), diff_ids: vec![diff_id], config: ImageConfig::default() }
    }
}

fn how_to_run(config: &Config) -> Result<ImageConfig, ImageError> {
    let stop_signal = text(config.stop_signal())
        .map(|name| name.parse::<Signal>().map_err(|e| invalid(format!("its StopSignal: {e}"))))
        .transpose()?;
    Ok(ImageConfig {
        entrypoint: config.entrypoint().clone().unwrap_or_default(),
        command: config.cmd().clone().unwrap_or_default(),
        environment: config.env().clone().unwrap_or_default(),
        working_directory: text(config.working_dir()),
        user: text(config.user()),
        stop_signal,
        labels: config.labels().clone().unwrap_or_default().into_iter().collect(),
        health: None,
    })
}

/// Docker writes the empty string for "not set".
fn text(value: &Option<String>) -> Option<String> {
    value.clone().filter(|text| !text.is_empty())
}

/// This machine's architecture as images name it (Go's GOARCH).
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
        "powerpc64" => "ppc64",
        "loongarch64" => "loong64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn with(config: &str) -> Result<Configuration, ImageError> {
        let rootfs = format!(r#"{{"type":"layers","diff_ids":["{LAYER}"]}}"#);
        Configuration::parse(
            format!(r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{rootfs}}}"#).as_bytes(),
        )
    }

    #[test]
    fn everything_about_running_is_read() {
        let text = r#"{"User":"app:app","Env":["A=b"],"Entrypoint":["/e"],"Cmd":["c","d"],"WorkingDir":"/w",
            "Labels":{"k":"v"},"StopSignal":"SIGRTMIN+3","ExposedPorts":{"80/tcp":{}},"Volumes":null,"OnBuild":null}"#;
        let config = with(text).unwrap().config;
        assert_eq!(config.user.as_deref(), Some("app:app"));
        assert_eq!(config.environment, ["A=b"]);
        assert_eq!((config.entrypoint, config.command), (vec!["/e".into()], vec!["c".into(), "d".into()]));
        assert_eq!(config.working_directory.as_deref(), Some("/w"));
        assert_eq!(config.stop_signal.map(Signal::number), Some(37));
        assert_eq!(config.labels["k"], "v");
    }

    #[test]
    fn what_is_null_empty_or_absent_is_not_set() {
        let nothing = ImageConfig::default();
        for text in ["{}", "null", r#"{"User":"","Env":null,"Cmd":null,"Labels":null,"StopSignal":"","WorkingDir":""}"#]
        {
            assert_eq!(with(text).unwrap().config, nothing, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(with(r#"{"StopSignal":"SIGNOTHING"}"#).is_err());
        let windows =
            format!(r#"{{"architecture":"amd64","os":"windows","rootfs":{{"type":"layers","diff_ids":["{LAYER}"]}}}}"#);
        let no_layers = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        let bad_layer = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["../x"]}}"#;
        for text in [&windows, no_layers, bad_layer, "", "[]"] {
            assert!(matches!(Configuration::parse(text.as_bytes()), Err(ImageError::Invalid(_))), "{text}");
        }
    }

    #[test]
    fn the_same_tree_has_the_same_configuration() {
        assert_eq!(Configuration::of_tree(LAYER.into()), Configuration::of_tree(LAYER.into()));
    }
}
