//! The machine's configuration as JSON: bodies of the API, sections of a configuration file, answer of
//! `GET /vm/config`, and part of a snapshot's state. What a value means for the machine is decided elsewhere.
//!
//! The types are named as Firecracker names them: a refused body is told the name of what it should be.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::cpu_template::CustomCpuTemplate;
use crate::log::LoggerConfig;
use crate::metrics::MetricsConfig;

/// A configuration file, and what `GET /vm/config` answers. Unknown sections are ignored, as Firecracker
/// does.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct VmmConfig {
    pub(crate) balloon: Option<BalloonDeviceConfig>,
    pub(crate) drives: Vec<BlockDeviceConfig>,
    pub(crate) boot_source: BootSourceConfig,
    pub(crate) cpu_config: Option<CpuConfigOrPath>,
    pub(crate) logger: Option<LoggerConfig>,
    pub(crate) machine_config: Option<MachineConfig>,
    pub(crate) metrics: Option<MetricsConfig>,
    pub(crate) mmds_config: Option<MmdsConfig>,
    #[serde(default)]
    pub(crate) network_interfaces: Vec<NetworkInterfaceConfig>,
    pub(crate) vsock: Option<VsockDeviceConfig>,
    pub(crate) entropy: Option<EntropyDeviceConfig>,
    #[serde(default, rename = "pmem")]
    pub(crate) pmem_devices: Vec<PmemConfig>,
    pub(crate) memory_hotplug: Option<MemoryHotplugConfig>,
}

#[derive(Debug, Deserialize, Serialize)]
#[serde(untagged)]
pub(crate) enum CpuConfigOrPath {
    Path(PathBuf),
    Template(CustomCpuTemplate),
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootSourceConfig {
    pub(crate) kernel_image_path: String,
    pub(crate) initrd_path: Option<String>,
    pub(crate) boot_args: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineConfig {
    pub(crate) vcpu_count: u8,
    pub(crate) mem_size_mib: usize,
    #[serde(default)]
    pub(crate) smt: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_template: Option<StaticCpuTemplate>,
    #[serde(default)]
    pub(crate) track_dirty_pages: bool,
    #[serde(default)]
    pub(crate) huge_pages: HugePageConfig,
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePageConfig::None,
        }
    }
}

/// The body of `PATCH /machine-config`, to which every other way of setting it is brought.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineConfigUpdate {
    #[serde(default)]
    pub(crate) vcpu_count: Option<u8>,
    #[serde(default)]
    pub(crate) mem_size_mib: Option<usize>,
    #[serde(default)]
    pub(crate) smt: Option<bool>,
    #[serde(default)]
    pub(crate) cpu_template: Option<StaticCpuTemplate>,
    #[serde(default)]
    pub(crate) track_dirty_pages: Option<bool>,
    #[serde(default)]
    pub(crate) huge_pages: Option<HugePageConfig>,
}

impl From<MachineConfig> for MachineConfigUpdate {
    fn from(config: MachineConfig) -> Self {
        Self {
            vcpu_count: Some(config.vcpu_count),
            mem_size_mib: Some(config.mem_size_mib),
            smt: Some(config.smt),
            cpu_template: config.cpu_template,
            track_dirty_pages: Some(config.track_dirty_pages),
            huge_pages: Some(config.huge_pages),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum HugePageConfig {
    #[default]
    None,
    #[serde(rename = "2M")]
    Hugetlbfs2M,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum StaticCpuTemplate {
    C3,
    T2,
    T2S,
    None,
    T2CL,
    T2A,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) struct TokenBucketConfig {
    size: u64,
    one_time_burst: Option<u64>,
    refill_time: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimiterConfig {
    bandwidth: Option<TokenBucketConfig>,
    ops: Option<TokenBucketConfig>,
}

impl RateLimiterConfig {
    /// As a device shows it: a bucket that limits nothing is none at all.
    pub(crate) fn in_force(self) -> Option<Self> {
        let limiter = Self { bandwidth: self.bandwidth.and_then(in_force), ops: self.ops.and_then(in_force) };
        (limiter.bandwidth.is_some() || limiter.ops.is_some()).then_some(limiter)
    }

    /// What an update leaves out stays; a bucket that limits nothing switches the limit off.
    pub(crate) fn updated(current: Option<Self>, update: Option<Self>) -> Option<Self> {
        let (current, update) = (current.unwrap_or_default(), update.unwrap_or_default());
        Self { bandwidth: update.bandwidth.or(current.bandwidth), ops: update.ops.or(current.ops) }.in_force()
    }
}

fn in_force(bucket: TokenBucketConfig) -> Option<TokenBucketConfig> {
    let limits = bucket.size > 0 && bucket.refill_time > 0;
    limits.then(|| TokenBucketConfig {
        one_time_burst: bucket.one_time_burst.filter(|burst| *burst > 0),
        ..bucket
    })
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockDeviceConfig {
    pub(crate) drive_id: String,
    pub(crate) partuuid: Option<String>,
    pub(crate) is_root_device: bool,
    #[serde(default)]
    pub(crate) cache_type: CacheType,
    pub(crate) is_read_only: Option<bool>,
    pub(crate) path_on_host: Option<String>,
    pub(crate) rate_limiter: Option<RateLimiterConfig>,
    pub(crate) io_engine: Option<FileEngineType>,
    pub(crate) socket: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub(crate) enum CacheType {
    #[default]
    Unsafe,
    Writeback,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) enum FileEngineType {
    Async,
    Sync,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PmemConfig {
    pub(crate) id: String,
    pub(crate) path_on_host: String,
    #[serde(default)]
    pub(crate) root_device: bool,
    #[serde(default)]
    pub(crate) read_only: bool,
    pub(crate) rate_limiter: Option<RateLimiterConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkInterfaceConfig {
    pub(crate) iface_id: String,
    pub(crate) host_dev_name: String,
    pub(crate) guest_mac: Option<MacAddress>,
    pub(crate) mtu: Option<u16>,
    pub(crate) rx_rate_limiter: Option<RateLimiterConfig>,
    pub(crate) tx_rate_limiter: Option<RateLimiterConfig>,
}

/// Six pairs of hexadecimal digits, kept in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct MacAddress(pub(crate) String);

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs: Vec<&str> = text.split(':').collect();
        let legal = pairs.len() == 6
            && pairs.iter().all(|pair| pair.len() == 2 && u8::from_str_radix(pair, 16).is_ok());
        if !legal {
            return Err(de::Error::custom("The provided MAC address is invalid."));
        }
        Ok(Self(text.to_ascii_lowercase()))
    }
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VsockDeviceConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vsock_id: Option<String>,
    pub(crate) guest_cid: u32,
    pub(crate) uds_path: String,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalloonDeviceConfig {
    pub(crate) amount_mib: u32,
    pub(crate) deflate_on_oom: bool,
    #[serde(default)]
    pub(crate) stats_polling_interval_s: u16,
    #[serde(default)]
    pub(crate) free_page_hinting: bool,
    #[serde(default)]
    pub(crate) free_page_reporting: bool,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EntropyDeviceConfig {
    pub(crate) rate_limiter: Option<RateLimiterConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MmdsConfig {
    #[serde(default)]
    pub(crate) version: MmdsVersion,
    pub(crate) network_interfaces: Vec<String>,
    pub(crate) ipv4_address: Option<Ipv4Addr>,
    #[serde(default)]
    pub(crate) imds_compat: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub(crate) enum MmdsVersion {
    #[default]
    V1,
    V2,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryHotplugConfig {
    pub(crate) total_size_mib: usize,
    #[serde(default = "default_block_size_mib")]
    pub(crate) block_size_mib: usize,
    #[serde(default = "default_slot_size_mib")]
    pub(crate) slot_size_mib: usize,
}

pub(crate) const fn default_block_size_mib() -> usize {
    2
}

pub(crate) const fn default_slot_size_mib() -> usize {
    128
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SerialConfig {
    pub(crate) serial_out_path: Option<PathBuf>,
    #[serde(rename = "rate_limiter")]
    _rate_limiter: Option<TokenBucketConfig>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_limits_nothing_is_not_shown() {
        let limiter: RateLimiterConfig = serde_json::from_str(
            r#"{"bandwidth":{"size":0,"refill_time":5},"ops":{"size":1,"refill_time":0}}"#,
        )
        .unwrap();
        assert!(limiter.in_force().is_none());
    }

    #[test]
    fn a_mac_address_is_six_pairs_of_digits() {
        let read = |text: &str| serde_json::from_value::<MacAddress>(text.into());
        assert_eq!(read("AA:FC:00:00:00:01").unwrap().0, "aa:fc:00:00:00:01");
        for bad in ["aa:fc:00:00:00", "aa:fc:00:00:00:1", "aa:fc:00:00:00:0g", "aa:fc:00:00:00:01:02", ""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
