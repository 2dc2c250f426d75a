//! What the options become, and that nothing else gets in.

use std::os::fd::AsRawFd;

use proptest::prelude::*;
use zbus::{OwnedVariant, Variant};

use super::*;
use crate::model::{ErrorCode, HealthAction, Ready, RestartWhen};

fn dictionary<const N: usize>(entries: [(&str, Variant<'_>); N]) -> Dictionary {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value.try_into_owned().unwrap())).collect()
}

fn refused<const N: usize>(entries: [(&str, Variant<'_>); N]) -> String {
    let error = create("web", "debian", dictionary(entries)).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig, "{}", error.message);
    error.message
}

#[test]
fn every_option_of_create_arrives() {
    let labels = HashMap::from([("app".to_owned(), "shop".to_owned())]);
    let request = create(
        "web",
        "example.org/debian:latest",
        dictionary([
            ("Command", vec!["sleep", "1"].into()),
            ("Entrypoint", vec!["/bin/sh"].into()),
            ("Environment", vec!["A=b=c"].into()),
            ("WorkingDirectory", "/srv".into()),
            ("User", "www:www".into()),
            ("Hostname", "web.example".into()),
            ("Terminal", true.into()),
            ("Init", true.into()),
            ("Network", "host".into()),
            ("ReadOnly", true.into()),
            ("BindMounts", vec![("/src", "/dst", true)].into()),
            ("MemoryMax", 1024u64.into()),
            ("TasksMax", 10u64.into()),
            ("CPUQuotaPerSecUSec", 1_500_000u64.into()),
            ("Size", 4096u64.into()),
            ("Slice", "holm-web.slice".into()),
            ("StopSignal", 3i32.into()),
            ("StopTimeoutUSec", 0u64.into()),
            ("AutoRemove", true.into()),
            ("Labels", labels.clone().into()),
            ("CapabilitiesAdd", vec!["cap_net_admin", "SYS_TIME"].into()),
            ("CapabilitiesDrop", vec!["ALL"].into()),
            ("NoNewPrivileges", false.into()),
            ("LogRateLimitIntervalUSec", 30_000_000u64.into()),
            ("LogRateLimitBurst", 100u32.into()),
            ("Ready", "healthy".into()),
            ("StartTimeoutUSec", 7u64.into()),
            ("HealthCommand", vec!["/check", "-q"].into()),
            ("HealthIntervalUSec", 1_000_000u64.into()),
            ("HealthTimeoutUSec", 2_000_000u64.into()),
            ("HealthRetries", 4u32.into()),
            ("HealthStartPeriodUSec", 0u64.into()),
            ("HealthAction", "kill".into()),
            ("Restart", "on-failure".into()),
            ("RestartUSec", 5u64.into()),
            ("RestartSteps", 2u32.into()),
            ("RestartMaxDelayUSec", 50u64.into()),
            ("RestartLimit", 3u32.into()),
            ("RestartLimitIntervalUSec", 60u64.into()),
        ]),
    )
    .unwrap();
    assert_eq!(request.name.unwrap().as_str(), "web");
    assert_eq!(request.image.unwrap().as_str(), "example.org/debian");
    assert_eq!(request.command, ["sleep", "1"]);
    assert_eq!(request.entrypoint.unwrap(), ["/bin/sh"]);
    assert_eq!(request.environment, ["A=b=c"]);
    assert_eq!(request.working_directory.as_deref(), Some("/srv"));
    assert_eq!(request.user.as_deref(), Some("www:www"));
    assert_eq!(request.hostname.as_deref(), Some("web.example"));
    assert!(request.terminal && request.init && request.read_only);
    assert_eq!(request.network, Some(NetworkMode::Host));
    assert_eq!(request.mounts, [BindMount { source: "/src".into(), destination: "/dst".into(), read_only: true }]);
    assert_eq!(request.limits, Limits { memory: Some(Bytes(1024)), cpu_usec_per_sec: Some(1_500_000), pids: Some(10) });
    assert_eq!(request.size, Some(Bytes(4096)));
    assert_eq!(request.slice.as_deref(), Some("holm-web.slice"));
    assert_eq!(request.stop_signal.unwrap().number(), 3);
    assert_eq!(request.stop_timeout_usec, Some(0));
    assert_eq!(request.lifetime, Lifetime::OneRun);
    assert_eq!(request.labels, labels.into_iter().collect());
    assert_eq!(request.capabilities.add, ["NET_ADMIN", "SYS_TIME"]);
    assert_eq!(request.capabilities.drop, ["ALL"]);
    assert_eq!(request.no_new_privileges, Some(false));
    let when = RestartWhen::OnFailure;
    let restart =
        RestartPolicy { when, delay_usec: 5, steps: 2, max_delay_usec: 50, limit: 3, limit_interval_usec: 60 };
    assert_eq!(request.restart, restart);
    let health = HealthRequest {
        command: Some(vec!["/check".into(), "-q".into()]),
        interval_usec: Some(1_000_000),
        timeout_usec: Some(2_000_000),
        retries: Some(4),
        start_period_usec: Some(0),
        action: Some(HealthAction::Kill),
    };
    assert_eq!(request.health, health);
    assert_eq!((request.ready, request.start_timeout_usec), (Ready::Healthy, Some(7)));
    assert_eq!(request.log_rate, Some(LogRate { interval_usec: 30_000_000, burst: 100 }));
    assert!(refused([("LogRateLimitBurst", 5u32.into())]).contains("go together"));
}

#[test]
fn an_empty_dictionary_leaves_everything_to_image_and_configuration() {
    let request = create("", "debian", Dictionary::new()).unwrap();
    assert!(request.name.is_none() && request.entrypoint.is_none() && request.network.is_none());
    assert_eq!(request.lifetime, Lifetime::Kept);
    assert_eq!(request.no_new_privileges, None);
}

#[test]
fn values_out_of_range_are_refused_by_name() {
    for (key, value) in [
        ("WorkingDirectory", Variant::from("srv")),
        ("Restart", "sometimes".into()),
        ("Ready", "perhaps".into()),
        ("HealthAction", "panic".into()),
        ("HealthRetries", 0u32.into()),
        ("WorkingDirectory", "/a/../b".into()),
        ("User", "".into()),
        ("User", "a:b:c".into()),
        ("User", "a b".into()),
        ("Hostname", "-a".into()),
        ("Hostname", "a..b".into()),
        ("Network", "bridge".into()),
        ("BindMounts", vec![("src", "/dst", true)].into()),
        ("MemoryMax", 0u64.into()),
        ("TasksMax", 0u64.into()),
        ("CPUQuotaPerSecUSec", 0u64.into()),
        ("Size", 0u64.into()),
        ("Slice", "web.scope".into()),
        ("Slice", "a--b.slice".into()),
        ("Slice", ".slice".into()),
        ("Slice", "../../x.slice".into()),
        ("StopSignal", 65i32.into()),
        ("CapabilitiesAdd", vec!["FLY"].into()),
        ("Environment", vec!["=x"].into()),
        ("Labels", HashMap::from([("", "x")]).into()),
    ] {
        let message = refused([(key, value)]);
        assert!(message.contains(key), "{key}: {message}");
    }
}

#[test]
fn bad_names_are_invalid_names() {
    for (name, image) in [("-", "debian"), ("web", ""), ("web", "a//b"), ("a/b", "debian")] {
        assert_eq!(create(name, image, Dictionary::new()).unwrap_err().code, ErrorCode::InvalidName);
    }
}

#[test]
fn a_secret_is_not_repeated_in_the_error() {
    assert!(!refused([("Environment", vec!["hunter2"].into())]).contains("hunter2"));
    assert!(!refused([("Environment", "hunter2".into())]).contains("hunter2"));
}

#[test]
fn descriptors_belong_to_run_and_not_to_create() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let entries = || dictionary([("StandardOutput", Fd::from(&file).into()), ("TerminalSize", (24u16, 80u16).into())]);
    let (_, Start { io, for_caller }) = run("web", "debian", entries()).unwrap();
    assert!(!for_caller, "nobody follows it");
    let output = io.stdio[1].as_ref().unwrap();
    assert_ne!(output.as_raw_fd(), file.as_raw_fd(), "a copy of our own");
    assert!(io.stdio[0].is_none() && io.monitor.is_none());
    assert_eq!(io.terminal_size, Some((24, 80)));
    let message = create("web", "debian", entries()).unwrap_err().message;
    assert!(message.contains("unknown option 'StandardOutput'"), "{message}");
}

#[test]
fn a_run_that_somebody_follows_is_of_their_service_unless_they_say_otherwise() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let with = |wanted_by: &'static str| {
        start(dictionary([("Monitor", Fd::from(&file).into()), ("WantedBy", wanted_by.into())]))
    };
    assert!(start(dictionary([("Monitor", Fd::from(&file).into())])).unwrap().for_caller);
    let none = with("").unwrap();
    assert!(!none.for_caller && none.io.wanted_by.is_none());
    let said = with("shop@1.service").unwrap();
    assert!(!said.for_caller);
    assert_eq!(said.io.wanted_by, Some(WantedBy { unit: "shop@1.service".into(), slice: None, control_group: None }));
    for bad in ["web", ".service", "a b.service", "web.mount", "../web.service"] {
        assert!(with(bad).unwrap_err().message.contains("WantedBy"), "{bad}");
    }
}

#[test]
fn descriptors_and_credentials_are_passed_by_name() {
    let file = std::fs::File::open("/dev/null").unwrap();
    let named = |key: &'static str, names: &[&str]| {
        let fds: Vec<_> = names.iter().map(|name| ((*name).to_owned(), Fd::from(&file))).collect();
        start(dictionary([(key, fds.into())]))
    };
    let io = named("Fds", &["http", "http", ""]).unwrap().io;
    assert_eq!(io.passed.iter().map(|passed| passed.name.as_str()).collect::<Vec<_>>(), ["http", "http", ""]);
    assert_eq!(named("Credentials", &["db.key"]).unwrap().io.credentials[0].name, "db.key");
    for (key, bad) in
        [("Fds", &["a:b"][..]), ("Credentials", &["a/b"]), ("Credentials", &[".."]), ("Credentials", &["a", "a"])]
    {
        assert!(named(key, bad).unwrap_err().message.contains(key), "{bad:?}");
    }
}

#[test]
fn a_terminal_has_a_size() {
    assert!(start(dictionary([("TerminalSize", (0u16, 80u16).into())])).is_err());
}

#[test]
fn stop_takes_a_signal_and_a_timeout() {
    let options = stop(dictionary([("Signal", 9i32.into()), ("TimeoutUSec", 5u64.into())])).unwrap();
    assert_eq!((options.signal, options.timeout_usec), (Some(Signal::KILL), Some(5)));
    assert!(stop(dictionary([("Signal", 0i32.into())])).is_err());
    assert!(stop(dictionary([("Force", true.into())])).is_err());
}

#[test]
fn an_exec_needs_a_program() {
    for command in [vec![], vec![String::new()]] {
        assert!(exec(command, Dictionary::new()).is_err());
    }
    let exec = exec(vec!["ls".into()], dictionary([("Detach", true.into())])).unwrap();
    assert!(exec.detach && exec.request.owner.is_none());
}

#[test]
fn words_without_end_are_refused() {
    let error = exec(vec!["a".into(), "x".repeat(MAX_WORDS)], Dictionary::new()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig);
}

#[test]
fn a_shell_is_the_users_own_unless_named() {
    let request = shell("", "", vec![], vec![]).unwrap();
    assert_eq!(request.command[..2], ["/bin/sh", "-c"]);
    assert!(request.terminal && request.user.is_none());
    let request = shell("www", "/bin/bash", vec!["bash".into(), "-x".into()], vec!["A=b".into()]).unwrap();
    assert_eq!(request.command, ["/bin/bash", "-x"]);
    assert_eq!(request.user.as_deref(), Some("www"));
    assert!(shell("", "", vec!["-x".into()], vec![]).is_err());
    assert!(shell("a b", "", vec![], vec![]).is_err());
}

#[test]
fn the_login_shell_is_found_by_a_plain_shell() {
    let script = LOGIN_SHELL.replace("exec \"$shell\" -l", "echo \"$shell\"");
    let output = std::process::Command::new("/bin/sh").args(["-uc", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).trim().starts_with('/'));
}

#[test]
fn a_signal_goes_to_the_leader_or_to_all() {
    assert_eq!(kill("leader", 15).unwrap(), (Who::Leader, Signal::TERM));
    assert_eq!(kill("all", 9).unwrap(), (Who::All, Signal::KILL));
    assert!(kill("me", 9).is_err() && kill("all", -1).is_err());
}

/// Keys that are known somewhere, and some that are not.
const KEYS: [&str; 18] = [
    "Command",
    "Environment",
    "User",
    "Hostname",
    "Network",
    "BindMounts",
    "MemoryMax",
    "Size",
    "Slice",
    "StopSignal",
    "Labels",
    "CapabilitiesAdd",
    "TerminalSize",
    "StandardInput",
    "Signal",
    "Force",
    "Detach",
    "Nonsense",
];

fn value() -> impl Strategy<Value = OwnedVariant> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Variant::from),
        any::<u64>().prop_map(Variant::from),
        any::<i32>().prop_map(Variant::from),
        ".{0,20}".prop_map(|text: String| Variant::from(text)),
        prop::collection::vec(".{0,8}", 0..4).prop_map(Variant::from),
        prop::collection::vec((".{0,8}", "/.{0,8}", any::<bool>()), 0..3).prop_map(Variant::from),
        prop::collection::hash_map(".{0,4}", ".{0,4}", 0..3).prop_map(Variant::from),
        (any::<u16>(), any::<u16>()).prop_map(Variant::from),
        Just(()).prop_map(|()| Variant::from(Fd::from(OwnedFd::from(std::fs::File::open("/dev/null").unwrap())))),
    ];
    leaf.prop_map(|value| value.try_into_owned().unwrap())
}

fn any_dictionary() -> impl Strategy<Value = Dictionary> {
    let key = prop_oneof![4 => prop::sample::select(&KEYS[..]).prop_map(str::to_owned), 1 => ".{0,10}"];
    prop::collection::hash_map(key, value(), 0..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_dictionary_makes_a_parser_panic(options in any_dictionary(), name in ".{0,8}", image in ".{0,8}") {
        let copy = || options.iter().map(|(key, value)| (key.clone(), value.try_clone().unwrap())).collect::<Dictionary>();
        let _ = create(&name, &image, copy());
        let _ = run("web", "debian", copy());
        let _ = start(copy());
        let _ = stop(copy());
        let _ = remove(copy());
        let _ = exec(vec!["ls".into()], copy());
    }

    #[test]
    fn what_is_accepted_had_only_known_keys(options in any_dictionary()) {
        let nonsense = options.contains_key("Nonsense");
        prop_assert!(!(run("web", "debian", options).is_ok() && nonsense));
    }
}
