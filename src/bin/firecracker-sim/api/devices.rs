//! Drives, pmem, network interfaces, vsock, balloon and hotpluggable memory.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{Action, Parsed, RequestError, checked_id, counted_body, deprecated, empty_patch};
use crate::config::{
    BlockDeviceConfig, NetworkInterfaceConfig, PmemConfig, RateLimiterConfig, VsockDeviceConfig,
};
use crate::metrics;

const PUT: &str = "put_api_requests";
const PATCH: &str = "patch_api_requests";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BlockDeviceUpdateConfig {
    pub(crate) drive_id: String,
    pub(crate) path_on_host: Option<String>,
    pub(crate) rate_limiter: Option<RateLimiterConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PmemDeviceUpdateConfig {
    pub(crate) id: String,
    pub(crate) rate_limiter: Option<RateLimiterConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkInterfaceUpdateConfig {
    pub(crate) iface_id: String,
    pub(crate) rx_rate_limiter: Option<RateLimiterConfig>,
    pub(crate) tx_rate_limiter: Option<RateLimiterConfig>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalloonUpdateConfig {
    pub(crate) amount_mib: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BalloonUpdateStatsConfig {
    pub(crate) stats_polling_interval_s: u16,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemoryHotplugSizeUpdate {
    pub(crate) requested_size_mib: usize,
}

#[derive(Debug, Deserialize)]
struct StartHintingCmd {
    #[serde(default, rename = "acknowledge_on_stop")]
    _acknowledge_on_stop: bool,
}

pub(super) fn put_drive(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let config: BlockDeviceConfig = named_body(PUT, "drive_count", "drive_fails", id, body)?;
    same_id(id, &config.drive_id, PUT, "drive_fails")?;
    Ok(Action::InsertDrive(config).into())
}

pub(super) fn patch_drive(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let update: BlockDeviceUpdateConfig = named_body(PATCH, "drive_count", "drive_fails", id, body)?;
    same_id(id, &update.drive_id, PATCH, "drive_fails")?;
    Ok(Action::UpdateDrive(update).into())
}

pub(super) fn put_pmem(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let config: PmemConfig = named_body(PUT, "pmem_count", "pmem_fails", id, body)?;
    same_id(id, &config.id, PUT, "pmem_fails")?;
    Ok(Action::InsertPmem(config).into())
}

pub(super) fn patch_pmem(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let update: PmemDeviceUpdateConfig = named_body(PATCH, "pmem_count", "pmem_fails", id, body)?;
    same_id(id, &update.id, PATCH, "pmem_fails")?;
    Ok(Action::UpdatePmem(update).into())
}

pub(super) fn put_network_interface(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let config: NetworkInterfaceConfig = named_body(PUT, "network_count", "network_fails", id, body)?;
    same_interface(id, &config.iface_id, PUT, "network_fails")?;
    Ok(Action::InsertNetworkInterface(config).into())
}

pub(super) fn patch_network_interface(body: &[u8], id: Option<&str>) -> Result<Parsed, RequestError> {
    let update: NetworkInterfaceUpdateConfig = named_body(PATCH, "network_count", "network_fails", id, body)?;
    // Firecracker counts this refusal as one more request.
    same_interface(id, &update.iface_id, PATCH, "network_count")?;
    Ok(Action::UpdateNetworkInterface(update).into())
}

pub(super) fn put_vsock(body: &[u8]) -> Result<Parsed, RequestError> {
    let config: VsockDeviceConfig = counted_body(PUT, "vsock_count", "vsock_fails", body)?;
    let message = config.vsock_id.as_ref().map(|_| "PUT /vsock: vsock_id field is deprecated.");
    Ok(deprecated(Action::SetVsock(config), message))
}

pub(super) fn put_memory_hotplug(body: &[u8]) -> Result<Parsed, RequestError> {
    let config = counted_body(PUT, "hotplug_memory_count", "hotplug_memory_fails", body)?;
    Ok(Action::SetMemoryHotplug(config).into())
}

pub(super) fn patch_memory_hotplug(body: &[u8]) -> Result<Parsed, RequestError> {
    let update = counted_body(PATCH, "hotplug_memory_count", "hotplug_memory_fails", body)?;
    Ok(Action::UpdateMemoryHotplug(update).into())
}

pub(super) fn get_balloon(second: Option<&str>, third: Option<&str>) -> Result<Parsed, RequestError> {
    match (second, third) {
        (None, _) => Ok(Action::BalloonConfig.into()),
        (Some("statistics"), _) => Ok(Action::BalloonStats.into()),
        (Some("hinting"), Some("status")) => Ok(Action::HintingStatus.into()),
        (Some("hinting"), rest) => {
            Err(unrecognized("GET", &format!("/hinting/{}", rest.unwrap_or_default())))
        }
        (Some(unknown), _) => Err(unrecognized("GET", unknown)),
    }
}

pub(super) fn patch_balloon(
    body: Option<&[u8]>,
    second: Option<&str>,
    third: Option<&str>,
) -> Result<Parsed, RequestError> {
    match (second, third, body) {
        (Some("hinting"), Some("start"), body) => {
            if let Some(body) = body.filter(|body| !body.is_empty()) {
                let _: StartHintingCmd = serde_json::from_slice(body)?;
            }
            Ok(Action::StartHinting.into())
        }
        (Some("hinting"), Some("stop"), _) => Ok(Action::StopHinting.into()),
        (Some("hinting"), rest, _) => {
            Err(unrecognized("PATCH", &format!("/hinting/{}", rest.unwrap_or_default())))
        }
        (_, _, None) => Err(empty_patch()),
        (Some("statistics"), _, Some(body)) => {
            Ok(Action::UpdateBalloonStats(serde_json::from_slice(body)?).into())
        }
        (_, _, Some(body)) => Ok(Action::UpdateBalloon(serde_json::from_slice(body)?).into()),
    }
}

/// Firecracker looks at the id in the path before it looks at the body.
fn named_body<T: DeserializeOwned>(
    group: &str,
    count: &'static str,
    fails: &'static str,
    id: Option<&str>,
    body: &[u8],
) -> Result<T, RequestError> {
    if let Err(error) = checked_id(id) {
        metrics::count(group, count);
        if id.is_none() {
            metrics::count(group, fails);
        }
        return Err(error);
    }
    counted_body(group, count, fails, body)
}

fn same_id(path: Option<&str>, body: &str, group: &str, fails: &'static str) -> Result<(), RequestError> {
    if path == Some(body) {
        return Ok(());
    }
    metrics::count(group, fails);
    let message = "The id from the path does not match the id from the body!";
    Err(RequestError::Generic(message.to_owned()))
}

fn same_interface(
    path: Option<&str>,
    body: &str,
    group: &str,
    fails: &'static str,
) -> Result<(), RequestError> {
    let path = path.unwrap_or_default();
    if path == body {
        return Ok(());
    }
    metrics::count(group, fails);
    let message = format!("The id from the path [{path}] does not match the id from the body [{body}]!");
    Err(RequestError::Generic(message))
}

fn unrecognized(method: &str, path: &str) -> RequestError {
    RequestError::Generic(format!("Unrecognized {method} request path `{path}`."))
}
