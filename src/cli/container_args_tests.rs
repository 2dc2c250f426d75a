//! Command lines and the requests they become.

use clap::Parser;
use serde_json::{Value as Json, json};

use super::*;
use crate::client::to_json;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    args: ContainerArgs,
}

fn request(line: &[&str]) -> Json {
    let args = Line::try_parse_from([&["run"], line].concat()).unwrap().args;
    let variable = |name: &str| matches!(name, "TERM" | "HERE").then(|| "mine".to_owned());
    let dict = args.options(variable).unwrap().into_dict();
    Json::Object(dict.iter().map(|(key, value)| ((*key).to_owned(), to_json(value))).collect())
}

fn refused(line: &[&str]) -> String {
    Line::try_parse_from([&["run"], line].concat()).unwrap_err().to_string()
}

#[test]
fn a_bare_image_asks_for_nothing() {
    assert_eq!(request(&["debian"]), json!({}));
}

#[test]
fn every_option_has_its_key() {
    let line = [
        "--rm",
        "-t",
        "-e",
        "A=1",
        "-e",
        "HERE",
        "-e",
        "NOT_HERE",
        "-v",
        "/srv:/data:ro",
        "--memory",
        "512M",
        "--cpus",
        "1.5",
        "--pids-limit",
        "64",
        "--size",
        "10G",
        "-u",
        "1000:1000",
        "-w",
        "/tmp",
        "--hostname",
        "h",
        "--network",
        "host",
        "--cap-add",
        "cap_net_raw,SYS_TIME",
        "--cap-drop",
        "ALL",
        "--new-privileges",
        "--read-only",
        "--init",
        "--stop-timeout",
        "2.5",
        "--stop-signal",
        "INT",
        "--label",
        "a=b",
        "--label",
        "c",
        "--entrypoint",
        "[\"/bin/sh\",\"-c\"]",
        "--slice",
        "web.slice",
        "--log-rate-limit",
        "100/30",
        "--ready",
        "healthy",
        "--health-cmd",
        "test -e /ok",
        "--health-interval",
        "5",
        "--health-timeout",
        "1",
        "--health-retries",
        "2",
        "--health-start-period",
        "60",
        "--health-on-failure",
        "restart",
        "--start-timeout",
        "20",
        "--restart",
        "on-failure:5",
        "--restart-delay",
        "0.5",
        "--restart-max-delay",
        "30",
        "--restart-steps",
        "4",
        "--restart-limit-interval",
        "600",
        "debian",
        "echo",
        "-n",
    ];
    let expected = json!({
        "AutoRemove": true, "Terminal": true, "Environment": ["A=1", "HERE=mine", "TERM=mine"],
        "BindMounts": [["/srv", "/data", true]], "MemoryMax": 512u64 << 20, "CPUQuotaPerSecUSec": 1_500_000,
        "TasksMax": 64, "Size": 10u64 << 30, "User": "1000:1000", "WorkingDirectory": "/tmp", "Hostname": "h",
        "Network": "host", "CapabilitiesAdd": ["NET_RAW", "SYS_TIME"], "CapabilitiesDrop": ["ALL"],
        "NoNewPrivileges": false, "ReadOnly": true, "Init": true, "StopTimeoutUSec": 2_500_000, "StopSignal": 2,
        "Labels": {"a": "b", "c": ""}, "Entrypoint": ["/bin/sh", "-c"], "Slice": "web.slice", "Restart": "on-failure", "RestartUSec": 500_000,
        "RestartMaxDelayUSec": 30_000_000, "RestartSteps": 4, "RestartLimit": 5, "RestartLimitIntervalUSec": 600_000_000,
        "HealthCommand": ["/bin/sh", "-c", "test -e /ok"], "HealthIntervalUSec": 5_000_000,
        "HealthTimeoutUSec": 1_000_000, "HealthRetries": 2, "HealthStartPeriodUSec": 60_000_000,
        "HealthAction": "restart", "Ready": "healthy", "StartTimeoutUSec": 20_000_000,
        "LogRateLimitBurst": 100, "LogRateLimitIntervalUSec": 30_000_000, "Command": ["echo", "-n"],
    });
    assert_eq!(request(&line), expected);
}

#[test]
fn every_key_has_the_type_that_the_page_says() {
    let mut options = CreateOptions { init: Some(true), entrypoint: Some(vec![]), ..CreateOptions::default() };
    options.mounts = vec![BindMount { source: "/a".into(), destination: "/b".into(), read_only: true }];
    options.labels = [("a".into(), "b".into())].into();
    options.memory = Some(Bytes(1));
    options.stop_signal = Some(Signal::TERM);
    let signatures: BTreeMap<_, _> =
        options.into_dict().iter().map(|(key, value)| (*key, value.value_signature().to_string())).collect();
    let expected = [
        ("BindMounts", "a(ssb)"),
        ("Entrypoint", "as"),
        ("Init", "b"),
        ("Labels", "a{ss}"),
        ("MemoryMax", "t"),
        ("StopSignal", "i"),
    ];
    assert_eq!(signatures, expected.map(|(key, signature)| (key, signature.to_owned())).into());
}

#[test]
fn everything_behind_the_image_is_the_payloads() {
    assert_eq!(request(&["debian", "--rm", "-t"]), json!({"Command": ["--rm", "-t"]}));
    assert_eq!(request(&["debian", "sh", "-c", "exit 42"]), json!({"Command": ["sh", "-c", "exit 42"]}));
    assert_eq!(request(&["debian", "env", "--", "-x"]), json!({"Command": ["env", "--", "-x"]}));
}

#[test]
fn the_last_of_init_and_no_init_counts() {
    assert_eq!(request(&["--init", "--no-init", "debian"]), json!({"Init": false}));
    assert_eq!(request(&["--no-init", "--init", "debian"]), json!({"Init": true}));
}

#[test]
fn an_empty_entry_point_removes_the_images() {
    assert_eq!(request(&["--entrypoint", "", "debian"]), json!({"Entrypoint": []}));
}

#[test]
fn a_term_of_the_callers_own_stays() {
    assert_eq!(request(&["-t", "-e", "TERM=dumb", "debian"]), json!({"Terminal": true, "Environment": ["TERM=dumb"]}));
}

#[test]
fn a_relative_source_is_made_absolute() {
    let here = std::env::current_dir().unwrap();
    let source = here.join("x").into_os_string().into_string().unwrap();
    assert_eq!(request(&["-v", "./x:/x", "debian"]), json!({"BindMounts": [[source, "/x", false]]}));
}

#[test]
fn nonsense_is_refused_with_advice() {
    assert!(refused(&["-v", "data:/x", "debian"]).contains("'./data'"));
    assert!(refused(&["-v", "/a:b", "debian"]).contains("absolute"));
    assert!(refused(&["--memory", "much", "debian"]).contains("512M"));
    assert!(refused(&["--cpus", "0", "debian"]).contains("above 0"));
    assert!(refused(&["--network", "bridge", "debian"]).contains("possible values"));
    assert!(refused(&["--name", "a/b", "debian"]).contains("not a valid container name"));
    assert!(refused(&["-p", "80:80", "debian"]).contains("-p"));
    assert!(refused(&[]).contains("IMAGE"));
}

#[test]
fn variables_come_from_files_first() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("env");
    std::fs::write(&file, "# comment\nA=1\n\n  B=2\nHERE\n").unwrap();
    let variables = environment(&[file], &["A=3".into()], false, |_| Some("mine".into())).unwrap();
    assert_eq!(variables, ["A=1", "B=2", "HERE=mine", "A=3"]);
    assert!(environment(&[], &["=x".into()], false, |_| None).is_err());
}

#[test]
fn seconds_are_exact() {
    assert_eq!(parse_seconds("10"), Ok(10_000_000));
    assert_eq!(parse_seconds("0.000001"), Ok(1));
    for text in ["", ".", "-1", "1.2.3", "0.1234567", "99999999999999999999", "1e3"] {
        assert!(parse_seconds(text).is_err(), "{text}");
    }
}

#[test]
fn a_rate_is_lines_in_seconds() {
    let none = json!({"LogRateLimitBurst": 0, "LogRateLimitIntervalUSec": 0});
    assert_eq!(request(&["--log-rate-limit", "none", "debian"]), none);
    for bad in ["100", "0/1", "1/0", "a/b"] {
        assert!(refused(&["--log-rate-limit", bad, "debian"]).contains("LINES/SECONDS"), "{bad}");
    }
}

#[test]
fn a_check_is_a_line_for_a_shell_or_words() {
    assert_eq!(request(&["--health-cmd", r#"["/check","-q"]"#, "debian"]), json!({"HealthCommand": ["/check", "-q"]}));
    for none in [&["--health-cmd", "none", "debian"][..], &["--no-healthcheck", "debian"]] {
        assert_eq!(request(none), json!({"HealthCommand": []}));
    }
    assert!(refused(&["--health-cmd", "[1]", "debian"]).contains("JSON"));
    assert!(refused(&["--health-on-failure", "panic", "debian"]).contains("restart"));
}

#[test]
fn restart_takes_systemds_words_and_a_number_of_tries() {
    assert_eq!(request(&["--restart", "always", "debian"]), json!({"Restart": "always"}));
    assert_eq!(request(&["--restart", "unless-stopped", "debian"]), json!({"Restart": "always"}));
    assert!(refused(&["--restart", "sometimes", "debian"]).contains("on-abnormal"));
    assert!(refused(&["--restart", "always:x", "debian"]).contains("number of tries"));
    assert!(refused(&["--restart-delay", "1", "debian"]).contains("--restart"));
}
