//! What a container may use of the host, in the words of systemd.resource-control(5).

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Bytes;

/// Limits of the whole container; `None` is no limit.
///
/// Where they change, the largest number and the empty list are what takes one away, as for systemd.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes of memory (MemoryMax=).
    pub memory: Option<Bytes>,
    /// CPU time per second of wall-clock time, in µs (CPUQuotaPerSecUSec=): 1 500 000 is one and a half CPUs.
    pub cpu_usec_per_sec: Option<u64>,
    /// Tasks (TasksMax=).
    pub pids: Option<u64>,
    /// Bytes of memory above which it is slowed down, and made to give some back (MemoryHigh=). Absent, as all that follows,
    /// in records of older versions.
    #[serde(default)]
    pub memory_high: Option<Bytes>,
    /// Bytes of swap space; 0 is none of it (MemorySwapMax=).
    #[serde(default)]
    pub memory_swap: Option<Bytes>,
    /// Its share of the CPUs when others want them too (CPUWeight=).
    #[serde(default)]
    pub cpu_weight: Option<Weight>,
    /// The CPUs that it runs on (AllowedCPUs=).
    #[serde(default)]
    pub allowed_cpus: Option<CpuSet>,
    /// Its share of the devices when others want them too (IOWeight=).
    #[serde(default)]
    pub io_weight: Option<Weight>,
    /// Bytes per second that it reads, by device (IOReadBandwidthMax=).
    #[serde(default)]
    pub io_read_bandwidth: Option<Vec<IoMax>>,
    /// Bytes per second that it writes, by device (IOWriteBandwidthMax=).
    #[serde(default)]
    pub io_write_bandwidth: Option<Vec<IoMax>>,
    /// Reads per second, by device (IOReadIOPSMax=).
    #[serde(default)]
    pub io_read_iops: Option<Vec<IoMax>>,
    /// Writes per second, by device (IOWriteIOPSMax=).
    #[serde(default)]
    pub io_write_iops: Option<Vec<IoMax>>,
}

impl Limits {
    /// The smaller of each that has a size; the rest as it is here.
    pub fn within(self, other: Self) -> Self {
        let smaller = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        let bytes = |one: Option<Bytes>, other: Option<Bytes>| one.into_iter().chain(other).min();
        Self {
            memory: bytes(self.memory, other.memory),
            cpu_usec_per_sec: smaller(self.cpu_usec_per_sec, other.cpu_usec_per_sec),
            pids: smaller(self.pids, other.pids),
            memory_high: bytes(self.memory_high, other.memory_high),
            memory_swap: bytes(self.memory_swap, other.memory_swap),
            ..self
        }
    }

    /// What systemd calls infinity (`UINT64_MAX`), and empty lists, as what they are: no limit.
    pub fn without_infinity(self) -> Self {
        let finite = |value: &u64| *value != u64::MAX;
        let some = |list: &Vec<IoMax>| !list.is_empty();
        Self {
            memory: self.memory.filter(|bytes| finite(&bytes.0)),
            cpu_usec_per_sec: self.cpu_usec_per_sec.filter(finite),
            pids: self.pids.filter(finite),
            memory_high: self.memory_high.filter(|bytes| finite(&bytes.0)),
            memory_swap: self.memory_swap.filter(|bytes| finite(&bytes.0)),
            cpu_weight: self.cpu_weight.filter(|weight| finite(&weight.0)),
            allowed_cpus: self.allowed_cpus.filter(|cpus| !cpus.0.is_empty()),
            io_weight: self.io_weight.filter(|weight| finite(&weight.0)),
            io_read_bandwidth: self.io_read_bandwidth.filter(some),
            io_write_bandwidth: self.io_write_bandwidth.filter(some),
            io_read_iops: self.io_read_iops.filter(some),
            io_write_iops: self.io_write_iops.filter(some),
        }
    }

    /// These; what is absent is as `before`.
    pub fn over(self, before: Self) -> Self {
        Self {
            memory: self.memory.or(before.memory),
            cpu_usec_per_sec: self.cpu_usec_per_sec.or(before.cpu_usec_per_sec),
            pids: self.pids.or(before.pids),
            memory_high: self.memory_high.or(before.memory_high),
            memory_swap: self.memory_swap.or(before.memory_swap),
            cpu_weight: self.cpu_weight.or(before.cpu_weight),
            allowed_cpus: self.allowed_cpus.or(before.allowed_cpus),
            io_weight: self.io_weight.or(before.io_weight),
            io_read_bandwidth: self.io_read_bandwidth.or(before.io_read_bandwidth),
            io_write_bandwidth: self.io_write_bandwidth.or(before.io_write_bandwidth),
            io_read_iops: self.io_read_iops.or(before.io_read_iops),
            io_write_iops: self.io_write_iops.or(before.io_write_iops),
        }
    }

    /// Whether some limit is of the device that the container's root is on.
    pub fn is_of_root(&self) -> bool {
        let lists = [&self.io_read_bandwidth, &self.io_write_bandwidth, &self.io_read_iops, &self.io_write_iops];
        lists.into_iter().flatten().flatten().any(|max| max.device.is_none())
    }

    /// The same, with that device named.
    pub fn with_root_on(mut self, device: &Path) -> Self {
        let lists = [
            &mut self.io_read_bandwidth,
            &mut self.io_write_bandwidth,
            &mut self.io_read_iops,
            &mut self.io_write_iops,
        ];
        for max in lists.into_iter().flatten().flatten() {
            max.device.get_or_insert_with(|| device.to_string_lossy().into_owned());
        }
        self
    }
}

/// A share among neighbours: 1 to 10000, and 100 for those of which nothing is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(u64);

impl Weight {
    /// Of CPU time, what nobody else wants.
    pub const IDLE: Self = Self(0);
    /// What takes a weight away.
    pub const NONE: Self = Self(u64::MAX);

    /// Of CPU time, as systemd has it on the bus: 0 is [`IDLE`](Self::IDLE).
    pub fn of_cpu(number: u64) -> Result<Self, String> {
        match number {
            0 => Ok(Self::IDLE),
            _ => Self::of_io(number).map_err(|_| CPU_WEIGHT.to_owned()),
        }
    }

    /// Of devices.
    pub fn of_io(number: u64) -> Result<Self, String> {
        match Self(number) {
            Self(1..=10_000) | Self::NONE => Ok(Self(number)),
            Self(_) => Err(IO_WEIGHT.to_owned()),
        }
    }

    /// Of CPU time, as people write it.
    pub fn parse_cpu(text: &str) -> Result<Self, String> {
        match text {
            "idle" => Ok(Self::IDLE),
            _ => Self::parse_io(text).map_err(|_| CPU_WEIGHT.to_owned()),
        }
    }

    /// Of devices, as people write it.
    pub fn parse_io(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(number @ 1..=10_000) => Ok(Self(number)),
            _ => Err(IO_WEIGHT.to_owned()),
        }
    }

    /// As systemd has it on the bus.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::IDLE => f.write_str("idle"),
            Self(number) => write!(f, "{number}"),
        }
    }
}

/// CPUs by their number, from 0; written as `0-3,5`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuSet(BTreeSet<u16>);

impl CpuSet {
    /// From a mask as systemd has it on the bus: the lowest bit of the first byte is CPU 0. An empty one is no limit.
    pub fn from_mask(mask: &[u8]) -> Result<Self, CpuSetError> {
        let bits = mask
            .iter()
            .enumerate()
            .flat_map(|(at, byte)| (0..8).filter(move |bit| byte & (1 << bit) != 0).map(move |bit| at * 8 + bit));
        let number = |bit: usize| u16::try_from(bit).ok().filter(|cpu| *cpu < MOST_CPUS);
        bits.map(number).collect::<Option<_>>().map(Self).ok_or_else(|| CpuSetError("a mask".into()))
    }

    /// That mask.
    pub fn to_mask(&self) -> Vec<u8> {
        let bytes = self.0.last().map_or(0, |last| usize::from(last / 8) + 1);
        let mut mask = vec![0; bytes];
        for cpu in &self.0 {
            mask[usize::from(cpu / 8)] |= 1 << (cpu % 8);
        }
        mask
    }
}

impl FromStr for CpuSet {
    type Err = CpuSetError;

    /// As systemd takes it: numbers and ranges, with commas or blanks between them.
    fn from_str(text: &str) -> Result<Self, CpuSetError> {
        let error = || CpuSetError(text.chars().take(80).collect());
        let number = |word: &str| word.parse::<u16>().ok().filter(|cpu| *cpu < MOST_CPUS).ok_or_else(error);
        let mut cpus = BTreeSet::new();
        for word in text.split([',', ' ', '\t']).filter(|word| !word.is_empty()) {
            let (first, last) = word.split_once('-').unwrap_or((word, word));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(error());
            }
            cpus.extend(first..=last);
        }
        if cpus.is_empty() { Err(error()) } else { Ok(Self(cpus)) }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for cpu in &self.0 {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
                _ => ranges.push((*cpu, *cpu)),
            }
        }
        let word = |(first, last): (u16, u16)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&ranges.into_iter().map(word).collect::<Vec<_>>().join(","))
    }
}

impl TryFrom<String> for CpuSet {
    type Error = CpuSetError;

    fn try_from(text: String) -> Result<Self, CpuSetError> {
        if text.is_empty() { Ok(Self::default()) } else { text.parse() }
    }
}

impl From<CpuSet> for String {
    fn from(cpus: CpuSet) -> Self {
        cpus.to_string()
    }
}

/// Why a set of CPUs could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a set of CPUs: write numbers from 0 to 8191 and ranges of them, such as 0-3,5")]
pub struct CpuSetError(String);

/// How much of a device a container may use in a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IoMax {
    /// The path of a block device, or of a file on one; that which the container's root is on when absent.
    pub device: Option<String>,
    /// Bytes or operations per second, at least 1.
    pub per_sec: u64,
}

impl IoMax {
    /// With what systemd has on the bus; an empty path is the device of the container's root.
    pub fn new(device: &str, per_sec: u64) -> Result<Self, String> {
        if per_sec == 0 || per_sec == u64::MAX {
            return Err("a limit per second must be greater than 0; an empty list takes all away".into());
        }
        let climbs = device.split('/').any(|part| part == "..");
        if !device.is_empty() && (!device.starts_with('/') || climbs || device.contains('\0')) {
            let device: String = device.chars().take(80).collect();
            return Err(format!("'{device}' is not the absolute path of a device, such as /dev/sda"));
        }
        Ok(Self { device: Some(device.to_owned()).filter(|device| !device.is_empty()), per_sec })
    }
}

impl FromStr for IoMax {
    type Err = String;

    /// `[DEVICE ]VALUE`. As in systemd K, M, G and T are powers of 1000 here.
    fn from_str(text: &str) -> Result<Self, String> {
        let (device, value) = text.trim().rsplit_once([' ', '\t']).unwrap_or(("", text.trim()));
        let error = || {
            let text: String = text.chars().take(80).collect();
            format!(
                "'{text}' is no limit of a device: write a number above 0 with K, M, G or T, such as 5M, or a device and that, such as '/dev/sda 5M'"
            )
        };
        let digits = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
        let (number, suffix) = value.split_at(digits);
        let scale = match suffix {
            "" => 1,
            "K" => 1_000,
            "M" => 1_000_000,
            "G" => 1_000_000_000,
            "T" => 1_000_000_000_000,
            _ => return Err(error()),
        };
        let per_sec =
            number.parse::<u64>().ok().and_then(|number| number.checked_mul(scale)).filter(|value| *value > 0);
        Self::new(device.trim(), per_sec.ok_or_else(error)?)
    }
}

/// As many as Linux can have.
const MOST_CPUS: u16 = 8192;
const CPU_WEIGHT: &str = "a weight of CPU time is a number from 1 to 10000, or idle";
const IO_WEIGHT: &str = "a weight is a number from 1 to 10000";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn limits_of_a_version_that_knew_three_are_read() {
        let limits: Limits = serde_json::from_str(r#"{"memory":5,"cpu_usec_per_sec":null,"pids":7}"#).unwrap();
        assert_eq!(limits, Limits { memory: Some(Bytes(5)), pids: Some(7), ..Limits::default() });
    }

    #[test]
    fn limits_are_read_back_as_written() {
        let limits = Limits {
            memory_swap: Some(Bytes(0)),
            cpu_weight: Some(Weight::IDLE),
            allowed_cpus: Some("0-3,5".parse().unwrap()),
            io_read_bandwidth: Some(vec!["5M".parse().unwrap(), "/dev/sda 7".parse().unwrap()]),
            ..Limits::default()
        };
        let text = serde_json::to_string(&limits).unwrap();
        assert!(text.contains(r#""allowed_cpus":"0-3,5""#), "{text}");
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_takes_away_what_it_sets_to_nothing() {
        let before = Limits {
            memory_high: Some(Bytes(1)),
            cpu_weight: Some(Weight(5)),
            allowed_cpus: Some("0".parse().unwrap()),
            io_weight: Some(Weight(7)),
            io_write_iops: Some(vec!["5".parse().unwrap()]),
            ..Limits::default()
        };
        let change = Limits {
            cpu_weight: Some(Weight::NONE),
            allowed_cpus: Some(CpuSet::default()),
            io_write_iops: Some(Vec::new()),
            ..Limits::default()
        };
        let now = change.over(before).without_infinity();
        let expected = Limits { memory_high: Some(Bytes(1)), io_weight: Some(Weight(7)), ..Limits::default() };
        assert_eq!(now, expected);
    }

    #[test]
    fn a_limit_without_a_device_is_of_the_roots() {
        let limits = Limits {
            io_read_iops: Some(vec!["5K".parse().unwrap(), "/dev/sda 6".parse().unwrap()]),
            ..Limits::default()
        };
        assert!(limits.is_of_root() && !Limits::default().is_of_root());
        let named = limits.with_root_on(Path::new("/dev/loop7"));
        let expected = [IoMax::new("/dev/loop7", 5000).unwrap(), IoMax::new("/dev/sda", 6).unwrap()];
        assert_eq!(named.io_read_iops.as_deref(), Some(&expected[..]));
        assert!(!named.is_of_root());
    }

    #[test]
    fn weights_have_their_bounds() {
        assert_eq!(Weight::parse_cpu("idle").unwrap(), Weight::IDLE);
        assert_eq!(Weight::of_cpu(0).unwrap().to_string(), "idle");
        assert_eq!(Weight::parse_io("10000").unwrap().number(), 10_000);
        assert_eq!(Weight::of_io(u64::MAX), Ok(Weight::NONE));
        for bad in ["0", "10001", "-1", "", "much", "18446744073709551615"] {
            assert!(Weight::parse_cpu(bad).unwrap_err().contains("idle"), "{bad}");
            assert!(Weight::parse_io(bad).is_err(), "{bad}");
        }
        assert!(Weight::parse_io("idle").is_err() && Weight::of_io(0).is_err() && Weight::of_cpu(10_001).is_err());
    }

    #[test]
    fn a_set_of_cpus_is_a_mask_as_systemd_has_it() {
        let cpus: CpuSet = "9, 0-3 5,2".parse().unwrap();
        assert_eq!(cpus.to_mask(), [0b0010_1111, 0b10]);
        assert_eq!(CpuSet::from_mask(&cpus.to_mask()).unwrap(), cpus);
        assert_eq!(cpus.to_string(), "0-3,5,9");
        for bad in ["", ",", "a", "3-1", "8192", "1-", "0-99999", "-1"] {
            assert!(bad.parse::<CpuSet>().unwrap_err().to_string().contains("0-3,5"), "{bad}");
        }
        assert!(CpuSet::from_mask(&[1; 1025]).is_err());
        assert_eq!(CpuSet::from_mask(&[]).unwrap(), CpuSet::default());
    }

    #[test]
    fn a_rate_is_in_thousands() {
        let max = |text: &str| text.parse::<IoMax>().map(|max| (max.device, max.per_sec));
        assert_eq!(max("5M"), Ok((None, 5_000_000)));
        assert_eq!(max("/dev/sda  100"), Ok((Some("/dev/sda".into()), 100)));
        for bad in ["", "0", "5X", "M", "5.5M", "/dev/sda", "99999999T"] {
            assert!(max(bad).unwrap_err().contains("'/dev/sda 5M'"), "{bad}");
        }
        for bad in ["sda 5M", "/dev/../sda 5M"] {
            assert!(max(bad).unwrap_err().contains("absolute path"), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_set_or_an_error(text in any::<String>()) {
            let _ = (text.parse::<CpuSet>(), text.parse::<IoMax>(), Weight::parse_cpu(&text));
        }

        #[test]
        fn a_set_survives_its_text_and_its_mask(cpus in prop::collection::btree_set(0u16..300, 1..20)) {
            let cpus = CpuSet(cpus);
            prop_assert_eq!(&cpus.to_string().parse::<CpuSet>().unwrap(), &cpus);
            prop_assert_eq!(&CpuSet::from_mask(&cpus.to_mask()).unwrap(), &cpus);
        }
    }
}
