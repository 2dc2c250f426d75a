//! Tests of the configuration.

use std::fs;

use super::*;

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(Config::parse("", Path::new("holm.toml")).unwrap(), Config::default());
}

#[test]
fn the_shipped_example_shows_exactly_the_defaults() {
    let example = include_str!("../../packaging/holm.toml");
    // Lines that are commented out with '#' and no space are the settings; '# ' starts prose.
    let settings: String = example
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).unwrap_or(line))
        .flat_map(|line| [line, "\n"])
        .collect();
    let parsed = Config::parse(&settings, Path::new("packaging/holm.toml")).unwrap();
    assert_eq!(parsed, Config::default());
    for key in [
        "driver",
        "directory",
        "prefix",
        "base-size",
        "slice",
        "stop-timeout-sec",
        "pids-limit",
        "images-may-boot",
        "level",
        "init-path",
    ] {
        assert!(settings.lines().any(|line| line.starts_with(&format!("{key} = "))), "the example does not show {key}");
    }
}

#[test]
fn every_key_is_read() {
    let config = parse(
        r#"
        [storage]
        driver = "copy"
        directory = "/srv/holm"
        prefix = "test1"
        data-size = "64G"
        data-max-size = "1T"
        metadata-size = 134217728
        base-size = "1.5G"
        filesystem = "xfs"
        data-device = "/dev/vdb2"
        metadata-device = "/dev/vdb1"
        device = "/dev/vdc"
        pool = "my-pool"
        [containers]
        slice = "my-own.slice"
        stop-timeout-sec = 2.5
        pids-limit = "none"
        keep-runs = 0
        images-may-boot = true
        [log]
        level = "debug"
        [runtime]
        init-path = "/opt/holm-init"
        "#,
    )
    .unwrap();
    assert_eq!(
        config,
        Config {
            storage: StorageConfig {
                driver: Some(Driver::Copy),
                directory: "/srv/holm".into(),
                prefix: "test1".into(),
                data_size: Some(Bytes(64 << 30)),
                data_max_size: Some(Bytes(1 << 40)),
                metadata_size: Some(Bytes(128 << 20)),
                base_size: Bytes(3 << 29),
                filesystem: FileSystem::Xfs,
                data_device: Some("/dev/vdb2".into()),
                metadata_device: Some("/dev/vdb1".into()),
                device: Some("/dev/vdc".into()),
                pool: Some("my-pool".into()),
            },
            containers: ContainersConfig {
                slice: "my-own.slice".into(),
                stop_timeout: Duration::from_millis(2500),
                pids_limit: None,
                keep_runs: 0,
                images_may_boot: true,
            },
            log: LogConfig { level: LogLevel::Debug },
            runtime: RuntimeConfig { init_path: "/opt/holm-init".into() },
        }
    );
}

#[test]
fn an_unknown_key_is_shown_with_its_place_and_what_is_allowed() {
    let mistake = mistake("# comment\n[storage]\ndirver = \"thin\"\n");
    assert_eq!((mistake.line, mistake.column), (3, 1));
    assert_eq!(mistake.key, "storage.dirver");
    for allowed in ["`driver`", "`directory`", "`base-size`"] {
        assert!(mistake.message.contains(allowed), "{}", mistake.message);
    }
    assert!(
        mistake.to_string().starts_with("/etc/holm/holm.toml:3:1: storage.dirver: unknown key, expected one of"),
        "{mistake}"
    );
}

#[test]
fn an_unknown_table_is_shown_with_its_place() {
    let mistake = mistake("[storage]\n\n[store]\n");
    assert_eq!((mistake.line, mistake.key.as_str()), (3, "store"));
    assert!(mistake.message.contains("`containers`"), "{}", mistake.message);
}

#[test]
fn a_bad_value_is_shown_with_its_place_and_its_key() {
    for (text, line, column, key, part) in [
        ("[storage]\ndriver = \"zfs\"", 2, 10, "storage.driver", "expected one of `auto`, `thin`, `copy`"),
        ("[storage]\ndriver = 3", 2, 10, "storage.driver", "wanted string"),
        ("[storage]\nbase-size = \"10X\"", 2, 13, "storage.base-size", "such as 512M"),
        ("[storage]\nbase-size = 10", 2, 13, "storage.base-size", "too small"),
        ("[storage]\nbase-size = -1", 2, 13, "storage.base-size", "positive"),
        ("[storage]\nfilesystem = \"fat\"", 2, 14, "storage.filesystem", "expected"),
        ("[storage]\ndevice = \"sdb\"", 2, 10, "storage.device", "absolute"),
        ("[storage]\npool = \"a/b\"", 2, 8, "storage.pool", "dmsetup"),
        ("[storage]\ndirectory = \"x/y\"", 2, 13, "storage.directory", "absolute"),
        ("[storage]\nprefix = \"My-Pool\"", 2, 10, "storage.prefix", "a-z"),
        ("[containers]\nslice = \"holm\"", 2, 9, "containers.slice", "slice"),
        ("[containers]\nslice = \"-.slice\"", 2, 9, "containers.slice", "slice"),
        ("[containers]\nstop-timeout-sec = \"10s\"", 2, 20, "containers.stop-timeout-sec", "seconds"),
        ("[containers]\nstop-timeout-sec = 1e9", 2, 20, "containers.stop-timeout-sec", "86400"),
        ("[containers]\nstop-timeout-sec = -1.0", 2, 20, "containers.stop-timeout-sec", "negative"),
        ("[containers]\npids-limit = 0", 2, 14, "containers.pids-limit", "none"),
        ("[log]\nlevel = \"loud\"", 2, 9, "log.level", "`info`"),
    ] {
        let mistake = mistake(text);
        assert_eq!((mistake.line, mistake.column, mistake.key.as_str()), (line, column, key), "{text}: {mistake}");
        assert!(mistake.message.contains(part), "{text}: {mistake}");
        assert_eq!(mistake.to_string().lines().count(), 1, "{mistake}");
    }
}

#[test]
fn text_that_is_no_toml_is_shown_with_its_place() {
    let mistake = mistake("[storage]\ndriver = thin\n");
    assert_eq!((mistake.line, mistake.column), (2, 10), "{mistake}");
}

#[test]
fn later_files_win_key_by_key() {
    let dir = Roots::new();
    dir.write("usr/holm.toml", "[storage]\nprefix = \"vendor\"\nbase-size = \"20G\"\n[log]\nlevel = \"warn\"");
    dir.write("etc/holm.toml", "[storage]\nprefix = \"admin\"");
    dir.write("usr/holm.toml.d/20-b.toml", "[containers]\nstop-timeout-sec = 20");
    dir.write("etc/holm.toml.d/10-a.toml", "[containers]\nstop-timeout-sec = 10\nslice = \"a.slice\"");
    let config = Config::load(&dir.roots()).unwrap();
    assert_eq!(config.storage.prefix, "admin");
    assert_eq!(config.storage.base_size, Bytes(20 << 30));
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.containers.stop_timeout, Duration::from_secs(20), "20-b comes after 10-a");
    assert_eq!(config.containers.slice, "a.slice");
}

#[test]
fn a_drop_in_of_the_administrator_masks_the_vendors_of_the_same_name() {
    let dir = Roots::new();
    dir.write("usr/holm.toml.d/10-a.toml", "[log]\nlevel = \"trace\"");
    dir.write("etc/holm.toml.d/10-a.toml", "");
    dir.write("etc/holm.toml.d/.20-b.toml.swp", "not toml");
    dir.write("etc/holm.toml.d/.20-b.toml", "not toml");
    dir.write("etc/holm.toml.d/README", "not toml");
    assert_eq!(Config::load(&dir.roots()).unwrap(), Config::default());
}

#[test]
fn no_file_at_all_is_the_defaults() {
    let dir = Roots::new();
    assert_eq!(Config::load(&dir.roots()).unwrap(), Config::default());
}

#[test]
fn a_mistake_in_a_drop_in_names_that_drop_in() {
    let dir = Roots::new();
    dir.write("etc/holm.toml.d/10-a.toml", "[log]\nlevle = \"info\"");
    let error = Config::load(&dir.roots()).unwrap_err().to_string();
    assert!(error.contains("etc/holm.toml.d/10-a.toml:2:1: log.levle:"), "{error}");
}

#[test]
fn a_file_that_cannot_be_read_is_an_error() {
    let dir = Roots::new();
    fs::create_dir_all(dir.0.path().join("etc/holm.toml")).unwrap();
    let error = Config::load(&dir.roots()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/holm/holm.toml"))
}

fn mistake(text: &str) -> Mistake {
    match parse(text) {
        Err(ConfigError::Invalid(mistake)) => mistake,
        other => panic!("{text}: {other:?}"),
    }
}

/// A directory with the two roots `usr` and `etc`.
struct Roots(tempfile::TempDir);

impl Roots {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn roots(&self) -> [PathBuf; 2] {
        ["usr", "etc"].map(|root| self.0.path().join(root))
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn keys_that_do_not_go_together_are_named() {
    let device = || Some(std::path::PathBuf::from("/dev/vdb"));
    let plain = StorageConfig::default();
    for (storage, key) in [
        (StorageConfig { data_device: device(), ..plain.clone() }, "storage.data-device"),
        (StorageConfig { metadata_device: device(), ..plain.clone() }, "storage.metadata-device"),
        (
            StorageConfig { data_device: device(), metadata_device: device(), ..plain.clone() },
            "storage.metadata-device",
        ),
        (
            StorageConfig {
                data_device: device(),
                metadata_device: Some("/dev/vdc".into()),
                device: device(),
                ..plain.clone()
            },
            "storage.device",
        ),
        (StorageConfig { device: device(), pool: Some("own".into()), ..plain.clone() }, "storage.pool"),
        (StorageConfig { device: device(), driver: Some(Driver::Copy), ..plain.clone() }, "storage.driver"),
    ] {
        let error = storage.check().unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    }
    StorageConfig { device: device(), ..plain.clone() }.check().unwrap();
    plain.check().unwrap();
}
