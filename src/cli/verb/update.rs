//! `holmctl update`

use zbus::Variant;

use crate::cli::container_args::parse_cpus;
use crate::cli::error::CliError;
use crate::cli::{Outcome, many};
use crate::client::{Client, Options};
use crate::model::{Bytes, Usec};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
    /// Most memory, such as 512M, or none
    #[arg(short, long, value_name = "BYTES", value_parser = limit::<Bytes>)]
    memory: Option<Limit<Bytes>>,
    /// Most CPU time, in CPUs, such as 1.5, or none
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<Limit<Usec>>,
    /// Most tasks, or none
    #[arg(long, value_name = "NUMBER", value_parser = limit::<u64>)]
    pids_limit: Option<Limit<u64>>,
    /// Size of the root file system, such as 20G; it can only grow
    #[arg(long, value_name = "BYTES")]
    size: Option<Bytes>,
}

/// A limit, or that there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit<T> {
    None,
    At(T),
}

pub(crate) async fn run(args: Args) -> Outcome {
    let options = &args.options();
    if options.is_empty() {
        return Err(CliError::Usage("nothing is to be changed: give --memory, --cpus, --pids-limit or --size".into()));
    }
    let client = Client::connect().await?;
    many::each(&args.names, async |name: &str| Ok(client.container(name).await?.set_resources(options).await?)).await
}

impl Args {
    fn options(&self) -> Options {
        let values = [
            ("MemoryMax", self.memory.map(|limit| limit.number(|bytes| bytes.0))),
            ("CPUQuotaPerSecUSec", self.cpus.map(|limit| limit.number(|usec| usec))),
            ("TasksMax", self.pids_limit.map(|limit| limit.number(|tasks| tasks))),
            ("Size", self.size.map(|size| size.0)),
        ];
        values.into_iter().filter_map(|(key, value)| Some((key, Variant::from(value?)))).collect()
    }
}

impl<T> Limit<T> {
    /// As systemd writes it: infinity is the largest number.
    fn number(self, of: impl FnOnce(T) -> u64) -> u64 {
        match self {
            Self::None => u64::MAX,
            Self::At(value) => of(value),
        }
    }
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
        let numbers = [limit::<u64>("none").unwrap(), limit("7").unwrap()].map(|limit| limit.number(|n| n));
        assert_eq!(numbers, [u64::MAX, 7]);
        assert!(limit::<Bytes>("much").is_err());
        assert_eq!(cpus("none").unwrap(), Limit::None);
    }
}
