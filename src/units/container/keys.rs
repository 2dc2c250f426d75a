//! The keys of `[Container]`, with what each does to the command line of `holmctl run`.

use super::super::key::{Context, Key};
use super::super::name::Kind;
use super::super::problem::shown;
use super::super::value::{self, Parsed};
use super::super::words::{is_open, split};
use super::{Container, Reload, mounts};
use crate::model::{ContainerName, CpuSet, ImageName, IoMax, Weight};

/// Those that are used. `docs/units.md` has them as a table, and a test holds it against this one.
pub(in super::super) const KEYS: &[Key<Container>] = &[
    Key::once(
        "Image",
        "NAME or FILE.image",
        "The image, as `holmctl image list` has it; or a file that imports one",
        image,
    ),
    Key::once(
        "Exec",
        "COMMAND…",
        "Arguments for the image's entry point, or the command when it has none",
        |c, v, _| {
            c.command = split(v)?;
            Ok(())
        },
    ),
    Key::once(
        "Entrypoint",
        "COMMAND",
        "Replaces the image's entry point: a word, or a JSON array of words",
        |c, v, _| set(c, "--entrypoint", v),
    ),
    Key::once("ContainerName", "NAME", "The container's name; that of the file when absent", container_name),
    Key::once("ServiceName", "NAME", "The service's name without its end; that of the file when absent", |_, v, _| {
        service_name(v)
    }),
    Key::once("HostName", "NAME", "Host name inside; the container's name when absent", |c, v, _| {
        set(c, "--hostname", v)
    }),
    Key::once("User", "USER", "The payload's user, by name or number in the container", |c, v, _| {
        c.user = Some(v.to_owned());
        Ok(())
    }),
    Key::once("Group", "GROUP", "And its group", |c, v, x| {
        c.group = Some((x.place.clone(), v.to_owned()));
        Ok(())
    }),
    Key::once("WorkingDir", "DIRECTORY", "Working directory inside", |c, v, _| {
        set(c, "--workdir", &value::absolute(v)?)
    }),
    Key::list("Environment", "NAME=VALUE…", "Variables; quote one with blanks in it", |c, v, _| {
        pairs(c, "--env", v, "variable")
    }),
    Key::list(
        "EnvironmentFile",
        "FILE",
        "Reads variables from a file of the host when it starts, NAME=VALUE a line",
        |c, v, x| {
            if v.starts_with('-') {
                return Err("a file that may be missing is not supported: leave the '-' out".into());
            }
            set(c, "--env-file", &mounts::host_path(v, x)?)
        },
    ),
    Key::list("Label", "NAME=VALUE…", "Notes on the container", |c, v, _| pairs(c, "--label", v, "label")),
    Key::list(
        "Credential",
        "NAME[:FILE]…",
        "Credentials for the payload: those of the service (LoadCredential= in [Service]), or a file of the host",
        |c, v, _| each(c, "--credential", v),
    ),
    Key::once("RunInit", "BOOL", "Runs a small init as process 1", |c, v, _| {
        c.flag(if value::boolean(v)? { "--init" } else { "--no-init" });
        Ok(())
    }),
    Key::once(
        "Boot",
        "auto, yes, no",
        "Whether the payload is the init of a whole system; when absent, if Exec= or Entrypoint= names an init",
        |c, v, _| {
            let when = match v {
                "auto" => "auto",
                _ if value::boolean(v).map_err(|_| format!("'{}' is not one of 'auto', 'yes', 'no'", shown(v)))? => {
                    "always"
                }
                _ => "never",
            };
            set(c, "--systemd", when)
        },
    ),
    Key::list(
        "Volume",
        "SOURCE:DESTINATION[:ro]",
        "Shows a file or directory of the host, or FILE.volume, inside. A source that begins with a dot is beside the file",
        mounts::volume,
    ),
    Key::list(
        "Mount",
        "type=bind,source=SOURCE,destination=DESTINATION[,ro]",
        "The same; type=volume for FILE.volume",
        mounts::mount,
    ),
    Key::once("ReadOnly", "BOOL", "Mounts the root read-only", |c, v, _| switch(c, "--read-only", v)),
    Key::once("Size", "BYTES", "Size of the root's file system; the pool's default when absent", |c, v, _| {
        set(c, "--size", &value::size(v)?)
    }),
    Key::once("Memory", "BYTES", "Most memory", |c, v, _| set(c, "--memory", &value::size(v)?)),
    Key::plain("CPUQuota", "PERCENT", "Most CPU time: 150% is one and a half CPUs", |c, v, _| {
        set(c, "--cpus", &value::cpus(v)?)
    }),
    Key::once("PidsLimit", "NUMBER", "Most tasks; that of holm.toml(5) when absent", |c, v, _| {
        set(c, "--pids-limit", &value::count(v)?)
    }),
    Key::once("MemoryHigh", "BYTES", "Memory from which on it is slowed down and has to give some back", |c, v, _| {
        set(c, "--memory-high", &value::size(v)?)
    }),
    Key::once("MemorySwapMax", "BYTES", "Most swap space; 0 for none", |c, v, _| {
        set(c, "--memory-swap-max", &value::size_or_none(v)?)
    }),
    Key::once(
        "CPUWeight",
        "1 to 10000, idle",
        "Its share of the CPUs when others want them too; 100 when absent",
        |c, v, _| set(c, "--cpu-weight", &Weight::parse_cpu(v).map_err(|error| wrong(v, &error))?.to_string()),
    ),
    Key::once("AllowedCPUs", "CPUS", "The CPUs that it runs on, such as 0-3,5", |c, v, _| {
        set(c, "--cpuset-cpus", &v.parse::<CpuSet>().map_err(|error| error.to_string())?.to_string())
    }),
    Key::once(
        "IOWeight",
        "1 to 10000",
        "Its share of the disks when others want them too; 100 when absent",
        |c, v, _| set(c, "--io-weight", &Weight::parse_io(v).map_err(|error| wrong(v, &error))?.to_string()),
    ),
    Key::list(
        "IOReadBandwidthMax",
        "[DEVICE ]BYTES",
        "Most bytes per second that it reads, with K, M, G or T for powers of 1000: of what its root is on, or of the device",
        |c, v, _| io_max(c, "--io-read-bandwidth-max", v),
    ),
    Key::list("IOWriteBandwidthMax", "[DEVICE ]BYTES", "The same of what it writes", |c, v, _| {
        io_max(c, "--io-write-bandwidth-max", v)
    }),
    Key::list("IOReadIOPSMax", "[DEVICE ]NUMBER", "Most reads per second", |c, v, _| {
        io_max(c, "--io-read-iops-max", v)
    }),
    Key::list("IOWriteIOPSMax", "[DEVICE ]NUMBER", "Most writes per second", |c, v, _| {
        io_max(c, "--io-write-iops-max", v)
    }),
    Key::once(
        "Slice",
        "NAME.slice",
        "The slice of the container's scope; that of the service when absent. It and its parents need DefaultDependencies=no",
        |c, v, _| set(c, "--slice", v),
    ),
    Key::once("Network", "none, host", "The network: loopback only (when absent), or the host's", network),
    Key::list("AddCapability", "CAPABILITY…", "Adds capabilities, or `all`", |c, v, _| each(c, "--cap-add", v)),
    Key::list("DropCapability", "CAPABILITY…", "Drops capabilities, or `all`", |c, v, _| each(c, "--cap-drop", v)),
    Key::once(
        "NoNewPrivileges",
        "BOOL",
        "`no` lets set-user-id programs gain privileges; they do not when absent",
        |c, v, _| {
            if !value::boolean(v)? {
                c.flag("--new-privileges");
            }
            Ok(())
        },
    ),
    Key::once("StopSignal", "SIGNAL", "Asks the payload to end; the image's, or SIGTERM, when absent", |c, v, _| {
        let signal = value::signal(v)?;
        c.stop_signal = Some(signal);
        set(c, "--stop-signal", &signal.to_string())
    }),
    Key::once(
        "StopTimeout",
        "TIME",
        "How long that may take before everything is killed; the unit gets 15 s more",
        |c, v, _| {
            let time = value::span(v)?;
            c.stop_timeout = Some(time);
            set(c, "--stop-timeout", &value::seconds(time))
        },
    ),
    Key::once(
        "KeepOnStop",
        "BOOL",
        "`yes` keeps the container, with its root and exit status, until the next start; it is removed when absent",
        |c, v, _| {
            c.keep = value::boolean(v)?;
            Ok(())
        },
    ),
    Key::once(
        "Notify",
        "BOOL or healthy",
        "When it is started: when it runs (`no`, when absent), when the payload says READY=1, or when it is healthy",
        |c, v, _| {
            let ready = match v {
                "healthy" => "healthy",
                _ if value::boolean(v)
                    .map_err(|_| format!("'{}' is not one of 'no', 'yes', 'healthy'", shown(v)))? =>
                {
                    "notify"
                }
                _ => return Ok(()),
            };
            set(c, "--ready", ready)
        },
    ),
    Key::once("ReloadCmd", "COMMAND…", "Runs in the container on `systemctl reload`", |c, v, _| {
        c.reload = Some(Reload::Command(split(v)?));
        Ok(())
    }),
    Key::once("ReloadSignal", "SIGNAL", "Goes to the payload's first process on `systemctl reload`", |c, v, _| {
        c.reload = Some(Reload::Signal(value::signal(v)?));
        Ok(())
    }),
    Key::once("HealthCmd", "COMMAND", "Says by its exit status whether the payload is well", |c, v, _| {
        c.has_health_command = true;
        set(c, "--health-cmd", v)
    }),
    Key::once("HealthInterval", "TIME", "How often", |c, v, x| {
        health_time(c, "HealthInterval", "--health-interval", v, x)
    }),
    Key::once("HealthTimeout", "TIME", "How long one may take", |c, v, x| {
        health_time(c, "HealthTimeout", "--health-timeout", v, x)
    }),
    Key::once("HealthRetries", "NUMBER", "How many must fail one after another", |c, v, x| {
        c.health.push((x.place.clone(), "HealthRetries"));
        set(c, "--health-retries", &value::count(v)?)
    }),
    Key::once("HealthStartPeriod", "TIME", "Failures that early do not count", |c, v, x| {
        health_time(c, "HealthStartPeriod", "--health-start-period", v, x)
    }),
    Key::once("HealthOnFailure", "none, kill, restart, stop", "What then", |c, v, x| {
        c.health.push((x.place.clone(), "HealthOnFailure"));
        set(c, "--health-on-failure", value::one_of(v, &["none", "kill", "restart", "stop"])?)
    }),
    Key::list(
        "ListenStream",
        "ADDRESS",
        "A socket as in systemd.socket(5): the service gets a socket unit, which starts it, and the payload gets its descriptors",
        |c, v, _| listen(c, "ListenStream", v),
    ),
    Key::list("ListenDatagram", "ADDRESS", "The same, for datagrams", |c, v, _| listen(c, "ListenDatagram", v)),
    Key::list("ListenSequentialPacket", "ADDRESS", "The same, for packets", |c, v, _| {
        listen(c, "ListenSequentialPacket", v)
    }),
    Key::list("ListenFIFO", "PATH", "The same, for a FIFO", |c, v, _| listen(c, "ListenFIFO", v)),
    Key::once("Pull", "never", "Images are never pulled: import them, or name a .image file", |_, v, _| match v {
        "never" => Ok(()),
        _ => {
            Err(format!("'{}' is not possible yet: registry pulls come later; use a .image file, or 'never'", shown(v)))
        }
    }),
    Key::once("LogDriver", "journald", "What the payload writes goes to the journal", |_, v, _| match v {
        "journald" | "passthrough" => Ok(()),
        _ => {
            Err(format!("'{}' is not possible: what the container writes goes to the journal: leave it out", shown(v)))
        }
    }),
];

fn set(container: &mut Container, flag: &str, value: &str) -> Parsed<()> {
    container.option(flag, value);
    Ok(())
}

fn switch(container: &mut Container, flag: &str, value: &str) -> Parsed<()> {
    if value::boolean(value)? {
        container.flag(flag);
    }
    Ok(())
}

fn each(container: &mut Container, flag: &str, value: &str) -> Parsed<()> {
    split(value)?.iter().for_each(|word| container.option(flag, word));
    Ok(())
}

fn pairs(container: &mut Container, flag: &str, value: &str, what: &str) -> Parsed<()> {
    for word in split(value)? {
        if word.split_once('=').is_none_or(|(name, _)| name.is_empty()) {
            return Err(format!("'{}' is not a {what} NAME=VALUE; quote one that has blanks in it", shown(&word)));
        }
        container.option(flag, &word);
    }
    Ok(())
}

/// Passed on as it was written, once it is understood.
fn io_max(container: &mut Container, flag: &str, value: &str) -> Parsed<()> {
    value.parse::<IoMax>()?;
    set(container, flag, value)
}

fn wrong(value: &str, what: &str) -> String {
    format!("'{}' is not possible: {what}", shown(value))
}

fn listen(container: &mut Container, key: &'static str, value: &str) -> Parsed<()> {
    container.listen.push((key, value.to_owned()));
    Ok(())
}

fn health_time(c: &mut Container, key: &'static str, flag: &str, value: &str, x: &Context<'_>) -> Parsed<()> {
    c.health.push((x.place.clone(), key));
    set(c, flag, &value::seconds(value::span(value)?))
}

fn image(container: &mut Container, value: &str, context: &Context<'_>) -> Parsed<()> {
    let of_file = if value.ends_with(".image") { context.index.find(value)? } else { None };
    container.image = Some(match of_file {
        Some((Kind::Image, entry)) => {
            container.require(entry.service);
            entry.thing
        }
        _ if is_open(value) => value.to_owned(),
        _ => ImageName::parse(value).map_err(|error| error.to_string())?.to_string(),
    });
    Ok(())
}

fn container_name(container: &mut Container, value: &str, _: &Context<'_>) -> Parsed<()> {
    if !is_open(value) {
        ContainerName::parse(value).map_err(|error| error.to_string())?;
    }
    container.name = Some(value.to_owned());
    Ok(())
}

fn service_name(value: &str) -> Parsed<()> {
    if super::super::index::is_service_stem(value) {
        return Ok(());
    }
    Err(format!("'{}' is not the name of a service without its end, such as 'web'", shown(value)))
}

fn network(container: &mut Container, value: &str, _: &Context<'_>) -> Parsed<()> {
    match value {
        "none" | "host" => set(container, "--network", value),
        other => Err(format!("'{}' comes later: there are 'none' (the default) and 'host'", shown(other))),
    }
}
