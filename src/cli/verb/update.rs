//! `holmctl update`

use zbus::Variant;

use crate::cli::container_args::parse_cpus;
use crate::cli::error::CliError;
use crate::cli::{Outcome, many, warnings};
use crate::client::{Client, Options, limits as limit_options};
use crate::model::{self, Bytes, CpuSet, IoMax, Usec, Weight};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    #[command(flatten)]
    limits: Limits,
    /// Size of the root file system, such as 20G; it can only grow
    #[arg(long, value_name = "BYTES")]
    size: Option<Bytes>,
}

/// Those that can be changed.
#[derive(Debug, Default, clap::Args)]
struct Limits {
    /// Most memory, such as 512M, or none
    #[arg(short, long, value_name = "BYTES", value_parser = limit::<Bytes>)]
    memory: Option<Limit<Bytes>>,
    /// Most CPU time, in CPUs, such as 1.5, or none
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<Limit<Usec>>,
    /// Most tasks, or none
    #[arg(long, value_name = "NUMBER", value_parser = limit::<u64>)]
    pids_limit: Option<Limit<u64>>,
    /// Memory from which on it is slowed down and has to give some back, or none
    #[arg(long, value_name = "BYTES", value_parser = limit::<Bytes>)]
    memory_high: Option<Limit<Bytes>>,
    /// Most swap space; 0 for none of it, none for any
    #[arg(long, value_name = "BYTES", value_parser = limit::<Bytes>)]
    memory_swap_max: Option<Limit<Bytes>>,
    /// Its share of the CPUs when others want them too: 1 to 10000 or idle, or none
    #[arg(long, value_name = "WEIGHT", value_parser = cpu_weight)]
    cpu_weight: Option<Limit<Weight>>,
    /// The CPUs that it runs on, such as 0-3,5, or none for all
    #[arg(long, visible_alias = "allowed-cpus", value_name = "CPUS", value_parser = limit::<CpuSet>)]
    cpuset_cpus: Option<Limit<CpuSet>>,
    /// Its share of the disks when others want them too: 1 to 10000, or none
    #[arg(long, value_name = "WEIGHT", value_parser = io_weight)]
    io_weight: Option<Limit<Weight>>,
    /// Most bytes per second that it reads, such as 5M, of what its root is on, or '/dev/sda 5M', or none; all that held
    /// before are replaced
    #[arg(long, value_name = "[DEVICE ]BYTES", value_parser = limit::<IoMax>)]
    io_read_bandwidth_max: Vec<Limit<IoMax>>,
    /// Most bytes per second that it writes, or none
    #[arg(long, value_name = "[DEVICE ]BYTES", value_parser = limit::<IoMax>)]
    io_write_bandwidth_max: Vec<Limit<IoMax>>,
    /// Most reads per second, or none
    #[arg(long, value_name = "[DEVICE ]NUMBER", value_parser = limit::<IoMax>)]
    io_read_iops_max: Vec<Limit<IoMax>>,
    /// Most writes per second, or none
    #[arg(long, value_name = "[DEVICE ]NUMBER", value_parser = limit::<IoMax>)]
    io_write_iops_max: Vec<Limit<IoMax>>,
}

/// A limit, or that there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Limit<T> {
    None,
    At(T),
}

pub(crate) async fn run(args: Args) -> Outcome {
    let Args { names, limits, size } = args;
    let mut options = limits.into_options();
    options.extend(size.map(|size| ("Size", Variant::from(size.0))));
    if options.is_empty() {
        let advice = "give one of its limits, such as --memory, or --size";
        return Err(CliError::Usage(format!("nothing is to be changed: {advice}")));
    }
    let client = Client::connect().await?;
    many::each(&names, async |name: &str| {
        let container = client.container(name).await?;
        container.set_resources(&options).await?;
        warnings::tell(&container, name).await;
        Ok(())
    })
    .await
}

impl Limits {
    fn into_options(self) -> Options {
        limit_options(model::Limits {
            memory: self.memory.map(|limit| limit.or(NO_BYTES)),
            cpu_usec_per_sec: self.cpus.map(|limit| limit.or(u64::MAX)),
            pids: self.pids_limit.map(|limit| limit.or(u64::MAX)),
            memory_high: self.memory_high.map(|limit| limit.or(NO_BYTES)),
            memory_swap: self.memory_swap_max.map(|limit| limit.or(NO_BYTES)),
            cpu_weight: self.cpu_weight.map(|limit| limit.or(Weight::NONE)),
            allowed_cpus: self.cpuset_cpus.map(|limit| limit.or(CpuSet::default())),
            io_weight: self.io_weight.map(|limit| limit.or(Weight::NONE)),
            io_read_bandwidth: list(self.io_read_bandwidth_max),
            io_write_bandwidth: list(self.io_write_bandwidth_max),
            io_read_iops: list(self.io_read_iops_max),
            io_write_iops: list(self.io_write_iops_max),
        })
    }
}

impl<T> Limit<T> {
    /// As systemd writes it: infinity is the largest number, or an empty list.
    fn or(self, none: T) -> T {
        match self {
            Self::None => none,
            Self::At(value) => value,
        }
    }
}

/// What is to be instead of all there was, if anything is.
fn list<T>(limits: Vec<Limit<T>>) -> Option<Vec<T>> {
    let value = |limit| match limit {
        Limit::None => None,
        Limit::At(value) => Some(value),
    };
    if limits.is_empty() { None } else { Some(limits.into_iter().filter_map(value).collect()) }
}

const NO_BYTES: Bytes = Bytes(u64::MAX);

fn cpu_weight(text: &str) -> Result<Limit<Weight>, String> {
    if text == "none" { Ok(Limit::None) } else { Weight::parse_cpu(text).map(Limit::At) }
}

fn io_weight(text: &str) -> Result<Limit<Weight>, String> {
    if text == "none" { Ok(Limit::None) } else { Weight::parse_io(text).map(Limit::At) }
}

fn limit<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<Limit<T>, String> {
    match text {
        "none" => Ok(Limit::None),
        text => text.parse().map(Limit::At).map_err(|error: T::Err| error.to_string()),
    }
}

fn cpus(text: &str) -> Result<Limit<Usec>, String> {
    if text == "none" { Ok(Limit::None) } else { parse_cpus(text).map(Limit::At) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn none_is_infinity() {
        let numbers = [limit::<u64>("none").unwrap(), limit("7").unwrap()].map(|limit| limit.or(u64::MAX));
        assert_eq!(numbers, [u64::MAX, 7]);
        assert!(limit::<Bytes>("much").is_err());
        assert_eq!(cpus("none").unwrap(), Limit::None);
    }

    #[test]
    fn what_is_taken_away_is_sent_as_nothing() {
        let limits = Limits {
            cpu_weight: Some(cpu_weight("none").unwrap()),
            cpuset_cpus: Some(limit("none").unwrap()),
            io_read_iops_max: vec![limit("none").unwrap()],
            io_write_iops_max: vec![limit("none").unwrap(), limit("/dev/sda 5").unwrap()],
            ..Limits::default()
        };
        let options = limits.into_options();
        assert_eq!(options["CPUWeight"], Variant::from(u64::MAX));
        assert_eq!(options["AllowedCPUs"], Variant::from(Vec::<u8>::new()));
        assert_eq!(options["IOReadIOPSMax"], Variant::from(Vec::<(String, u64)>::new()));
        assert_eq!(options["IOWriteIOPSMax"], Variant::from(vec![("/dev/sda".to_owned(), 5u64)]));
        assert_eq!(options.len(), 4);
        assert!(Limits::default().into_options().is_empty());
        assert!(cpu_weight("0").is_err() && io_weight("idle").is_err());
    }
}
