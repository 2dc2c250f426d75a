//! The payload's environment: nothing of the host's (C8), our own words first, the caller's over them. Pure.

/// What the defaults are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// The container's id; `container_uuid` (C2).
    pub(super) uuid: Option<&'a str>,
    /// Its host name.
    pub(super) hostname: &'a str,
    /// The user's home directory.
    pub(super) home: &'a str,
    /// What kind of terminal there is, if there is one.
    pub(super) terminal: Option<&'a str>,
    /// The host's os-release (C4).
    pub(super) host_release: &'a str,
}

/// The `PATH` of a payload that was given none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment: defaults, then `given` as `NAME=VALUE`, the last of a name wins. An entry of another form is the error.
pub(super) fn build(facts: Facts<'_>, given: &[String]) -> Result<Vec<String>, String> {
    let mut environment = defaults(facts);
    for entry in given {
        let name = entry.split_once('=').map(|(name, _)| name).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| entry.clone())?;
        environment.retain(|known| value_of(known, name).is_none());
        environment.push(entry.clone());
    }
    Ok(environment)
}

/// What sd_listen_fds(3) looks for (C7), for the process with this id as it sees itself; nothing when nothing is passed on.
pub(super) fn listen(pid: u32, names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    vec![
        format!("LISTEN_PID={pid}"),
        format!("LISTEN_FDS={}", names.len()),
        format!("LISTEN_FDNAMES={}", names.join(":")),
    ]
}

/// The value of a variable in an environment.
pub(super) fn value<'a>(environment: &'a [String], name: &str) -> Option<&'a str> {
    environment.iter().find_map(|entry| value_of(entry, name))
}

fn value_of<'a>(entry: &'a str, name: &str) -> Option<&'a str> {
    entry.strip_prefix(name)?.strip_prefix('=')
}

fn defaults(facts: Facts<'_>) -> Vec<String> {
    let mut environment = vec![
        format!("PATH={DEFAULT_PATH}"),
        format!("HOSTNAME={}", facts.hostname),
        format!("HOME={}", facts.home),
        "container=holm".to_owned(),
    ];
    environment.extend(facts.uuid.map(|uuid| format!("container_uuid={uuid}")));
    environment.extend(facts.terminal.map(|terminal| format!("TERM={terminal}")));
    for (key, name) in HOST_FACTS {
        environment.extend(release_value(facts.host_release, key).map(|value| format!("{name}={value}")));
    }
    environment
}

/// CONTAINER_INTERFACE of systemd: which fields of the host's os-release a payload may know.
const HOST_FACTS: [(&str, &str); 4] = [
    ("ID", "container_host_id"),
    ("BUILD_ID", "container_host_build_id"),
    ("VARIANT_ID", "container_host_variant_id"),
    ("VERSION_ID", "container_host_version_id"),
];

/// A field of os-release(5), without its quotes. These four fields hold no escapes.
fn release_value<'a>(release: &'a str, key: &str) -> Option<&'a str> {
    let value = release.lines().find_map(|line| value_of(line.trim(), key))?;
    let unquoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    Some(unquoted.unwrap_or(value)).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts<'_> = Facts {
        uuid: Some("0123456789abcdef0123456789abcdef"),
        hostname: "web",
        home: "/root",
        terminal: None,
        host_release: "NAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\nVARIANT_ID=''\n",
    };

    #[test]
    fn the_payload_knows_that_it_is_a_container_and_on_what_host() {
        let environment = build(FACTS, &[]).unwrap();
        assert_eq!(value(&environment, "container"), Some("holm"));
        assert_eq!(value(&environment, "container_uuid"), FACTS.uuid);
        assert_eq!(value(&environment, "container_host_id"), Some("debian"));
        assert_eq!(value(&environment, "container_host_version_id"), Some("12"));
        assert_eq!(value(&environment, "container_host_variant_id"), None);
        assert_eq!(value(&environment, "TERM"), None);
    }

    #[test]
    fn what_is_given_wins_and_comes_once() {
        let given = ["HOME=/srv".to_owned(), "A=1".to_owned(), "A=2=3".to_owned(), "E=".to_owned()];
        let environment = build(Facts { terminal: Some("xterm"), ..FACTS }, &given).unwrap();
        assert_eq!(value(&environment, "HOME"), Some("/srv"));
        assert_eq!(value(&environment, "A"), Some("2=3"));
        assert_eq!(value(&environment, "E"), Some(""));
        assert_eq!(environment.iter().filter(|entry| entry.starts_with("A=")).count(), 1);
        assert_eq!(value(&environment, "TERM"), Some("xterm"));
    }

    #[test]
    fn passed_descriptors_are_named_for_the_process_that_gets_them() {
        let names = ["http".to_owned(), "https".to_owned()];
        assert_eq!(listen(1, &names), ["LISTEN_PID=1", "LISTEN_FDS=2", "LISTEN_FDNAMES=http:https"]);
        assert!(listen(1, &[]).is_empty());
    }

    #[test]
    fn an_entry_without_a_name_or_a_value_is_refused() {
        for entry in ["", "A", "=x"] {
            assert_eq!(build(FACTS, &[entry.to_owned()]).unwrap_err(), entry);
        }
    }
}
