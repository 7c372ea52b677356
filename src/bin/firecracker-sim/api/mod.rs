//! From an HTTP request to what is asked of the machine, and from its outcome to an HTTP answer.
//! Here is the routing; the bodies of each group of endpoints stand in a file of their own.

mod devices;
mod host;
mod machine;
mod snapshot;

use serde::de::DeserializeOwned;
use serde_json::json;

pub(crate) use devices::{
    BalloonUpdateConfig, BalloonUpdateStatsConfig, BlockDeviceUpdateConfig, MemoryHotplugSizeUpdate,
    NetworkInterfaceUpdateConfig, PmemDeviceUpdateConfig,
};
pub(crate) use snapshot::{CreateSnapshotParams, LoadSnapshot, MemBackendType, SnapshotType};

use crate::config::{
    BalloonDeviceConfig, BlockDeviceConfig, BootSourceConfig, EntropyDeviceConfig, MachineConfigUpdate,
    MemoryHotplugConfig, MmdsConfig, NetworkInterfaceConfig, PmemConfig, SerialConfig, VsockDeviceConfig,
};
use crate::error::ActionError;
use crate::http::{Method, Request, Response};
use crate::log::{self, LoggerConfig, Speaker};
use crate::metrics::{self, MetricsConfig};

/// What a request asks for.
#[derive(Debug)]
pub(crate) enum Action {
    ConfigureBootSource(BootSourceConfig),
    ConfigureLogger(LoggerConfig),
    ConfigureMetrics(MetricsConfig),
    ConfigureSerial(SerialConfig),
    CreateSnapshot(CreateSnapshotParams),
    FlushMetrics,
    BalloonConfig,
    BalloonStats,
    FullConfig,
    HintingStatus,
    InstanceInfo,
    MachineConfig,
    MemoryHotplugStatus,
    Mmds,
    Version,
    HotUnplug(DeviceKind, String),
    InsertDrive(BlockDeviceConfig),
    InsertNetworkInterface(NetworkInterfaceConfig),
    InsertPmem(PmemConfig),
    LoadSnapshot(LoadSnapshot),
    PatchMmds(serde_json::Value),
    Pause,
    PutCpuConfig,
    PutMmds(serde_json::Value),
    Resume,
    SendCtrlAltDel,
    SetBalloon(BalloonDeviceConfig),
    SetEntropy(EntropyDeviceConfig),
    SetMemoryHotplug(MemoryHotplugConfig),
    SetMmdsConfig(MmdsConfig),
    SetVsock(VsockDeviceConfig),
    StartHinting,
    StartMicroVm,
    StopHinting,
    UpdateBalloon(BalloonUpdateConfig),
    UpdateBalloonStats(BalloonUpdateStatsConfig),
    UpdateDrive(BlockDeviceUpdateConfig),
    UpdateMachineConfig(MachineConfigUpdate),
    UpdateMemoryHotplug(MemoryHotplugSizeUpdate),
    UpdateNetworkInterface(NetworkInterfaceUpdateConfig),
    UpdatePmem(PmemDeviceUpdateConfig),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceKind {
    Drive,
    Pmem,
    NetworkInterface,
}

/// What the machine gives back: nothing, or JSON text.
pub(crate) type Outcome = Result<Option<String>, ActionError>;

/// An action, and what is to be said about a field that is on its way out.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) action: Action,
    pub(crate) deprecation: Option<&'static str>,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("The ID cannot be empty.")]
    EmptyId,
    #[error("{0}")]
    Generic(String),
    #[error("API Resource IDs can only contain alphanumeric characters and underscores.")]
    InvalidId,
    #[error("Invalid request method and/or path: {} {}.", .1.name(), .0)]
    InvalidPathMethod(String, Method),
    #[error("An error occurred when deserializing the json body of a request: {0}.")]
    SerdeJson(#[from] serde_json::Error),
}

impl From<Action> for Parsed {
    fn from(action: Action) -> Self {
        Self { action, deprecation: None }
    }
}

/// Understands a request; a body's fields are judged here, their meaning by the machine.
pub(crate) fn parse(request: &Request) -> Result<Parsed, RequestError> {
    let uri = request.absolute_path();
    log::info(Speaker::Api, "src/firecracker/src/api_server/parsed_request.rs:76", &describe(request, uri));
    let mut segments = uri.trim_start_matches('/').split_terminator('/');
    let first = segments.next().unwrap_or("");
    let second = segments.next();
    let third = segments.next();
    match (request.method, first, request.body.as_deref()) {
        (Method::Get, _, Some(_)) => Err(RequestError::Generic("GET request cannot have a body.".to_owned())),
        (Method::Get, "", None) => Ok(counted("instance_info_count", Action::InstanceInfo)),
        (Method::Get, "balloon", None) => devices::get_balloon(second, third),
        (Method::Get, "version", None) => Ok(counted("vmm_version_count", Action::Version)),
        (Method::Get, "vm", None) if second == Some("config") => Ok(Action::FullConfig.into()),
        (Method::Get, "machine-config", None) => Ok(counted("machine_cfg_count", Action::MachineConfig)),
        (Method::Get, "mmds", None) => Ok(counted("mmds_count", Action::Mmds)),
        (Method::Get, "hotplug", None) if second == Some("memory") => {
            Ok(counted("hotplug_memory_count", Action::MemoryHotplugStatus))
        }
        (Method::Put, _, None) => Err(RequestError::Generic("Empty PUT request.".to_owned())),
        (Method::Put, "actions", Some(body)) => machine::put_actions(body),
        (Method::Put, "boot-source", Some(body)) => machine::put_boot_source(body),
        (Method::Put, "cpu-config", Some(body)) => machine::put_cpu_config(body),
        (Method::Put, "machine-config", Some(body)) => machine::put_machine_config(body),
        (Method::Put, "balloon", Some(body)) => Ok(Action::SetBalloon(serde_json::from_slice(body)?).into()),
        (Method::Put, "drives", Some(body)) => devices::put_drive(body, second),
        (Method::Put, "pmem", Some(body)) => devices::put_pmem(body, second),
        (Method::Put, "network-interfaces", Some(body)) => devices::put_network_interface(body, second),
        (Method::Put, "vsock", Some(body)) => devices::put_vsock(body),
        (Method::Put, "entropy", Some(body)) => Ok(Action::SetEntropy(serde_json::from_slice(body)?).into()),
        (Method::Put, "hotplug", Some(body)) if second == Some("memory") => devices::put_memory_hotplug(body),
        (Method::Put, "logger", Some(body)) => host::put_logger(body),
        (Method::Put, "metrics", Some(body)) => host::put_metrics(body),
        (Method::Put, "serial", Some(body)) => host::put_serial(body),
        (Method::Put, "mmds", Some(body)) => host::put_mmds(body, second),
        (Method::Put, "snapshot", Some(body)) => snapshot::put(body, second),
        (Method::Patch, "balloon", body) => devices::patch_balloon(body, second, third),
        (Method::Patch, _, None) => Err(empty_patch()),
        (Method::Patch, "drives", Some(body)) => devices::patch_drive(body, second),
        (Method::Patch, "pmem", Some(body)) => devices::patch_pmem(body, second),
        (Method::Patch, "network-interfaces", Some(body)) => devices::patch_network_interface(body, second),
        (Method::Patch, "hotplug", Some(body)) if second == Some("memory") => {
            devices::patch_memory_hotplug(body)
        }
        (Method::Patch, "machine-config", Some(body)) => machine::patch_machine_config(body),
        (Method::Patch, "mmds", Some(body)) => host::patch_mmds(body),
        (Method::Patch, "vm", Some(body)) => snapshot::patch_vm(body),
        (Method::Delete, _, Some(_)) => Err(RequestError::Generic("Empty Delete request.".to_owned())),
        (Method::Delete, "drives", None) => unplug(DeviceKind::Drive, second),
        (Method::Delete, "pmem", None) => unplug(DeviceKind::Pmem, second),
        (Method::Delete, "network-interfaces", None) => unplug(DeviceKind::NetworkInterface, second),
        (method, unknown, _) => Err(RequestError::InvalidPathMethod(unknown.to_owned(), method)),
    }
}

/// The answer to a request that was not understood.
pub(crate) fn refusal(error: &RequestError) -> Response {
    log::error(Speaker::Api, "src/firecracker/src/api_server/mod.rs:133", &format!("{error:?}"));
    Response::with_body(400, fault(&error.to_string()))
}

/// The answer to a request that the machine has dealt with.
pub(crate) fn response(outcome: &Outcome) -> Response {
    let origin = "src/firecracker/src/api_server/parsed_request.rs:192";
    match outcome {
        Ok(None) => {
            let line = "The request was executed successfully. Status code: 204 No Content.";
            log::info(Speaker::Api, origin, line);
            Response::empty(204)
        }
        Ok(Some(body)) => {
            let origin = "src/firecracker/src/api_server/parsed_request.rs:169";
            log::info(Speaker::Api, origin, "The request was executed successfully. Status code: 200 OK.");
            Response::with_body(200, body.clone())
        }
        Err(error) => {
            let (status, reason) = match error {
                ActionError::MmdsLimitExceeded(_) => (413, "Payload too large"),
                _ => (400, "Bad Request"),
            };
            let line = format!("Received Error. Status code: {status} {reason}. Message: {error}");
            log::error(Speaker::Api, origin, &line);
            Response::with_body(status, fault(&error.to_string()))
        }
    }
}

pub(crate) fn fault(message: &str) -> String {
    json!({ "fault_message": message }).to_string()
}

/// Counts a PUT or PATCH as it comes in, and again when its body is not understood.
fn counted_body<T: DeserializeOwned>(
    group: &str,
    count: &'static str,
    fails: &'static str,
    body: &[u8],
) -> Result<T, RequestError> {
    metrics::count(group, count);
    serde_json::from_slice(body).map_err(|error| {
        metrics::count(group, fails);
        error.into()
    })
}

fn counted(count: &'static str, action: Action) -> Parsed {
    metrics::count("get_api_requests", count);
    action.into()
}

fn deprecated(action: Action, message: Option<&'static str>) -> Parsed {
    if message.is_some() {
        metrics::count("deprecated_api", "deprecated_http_api_calls");
    }
    Parsed { action, deprecation: message }
}

fn unplug(kind: DeviceKind, id: Option<&str>) -> Result<Parsed, RequestError> {
    Ok(Action::HotUnplug(kind, checked_id(id)?.to_owned()).into())
}

fn checked_id(id: Option<&str>) -> Result<&str, RequestError> {
    let id = id.filter(|id| !id.is_empty()).ok_or(RequestError::EmptyId)?;
    if !id.chars().all(|c| c == '_' || c.is_alphanumeric()) {
        return Err(RequestError::InvalidId);
    }
    Ok(id)
}

fn empty_patch() -> RequestError {
    RequestError::Generic("Empty PATCH request.".to_owned())
}

/// What a CPU template or the guest's metadata say is not for the log.
fn describe(request: &Request, path: &str) -> String {
    let method = request.method;
    match &request.body {
        Some(_) if path == "/cpu-config" => format!(
            "The API server received a {method:?} request on {path:?}. To view the CPU template received by \
             the API, configure log-level to DEBUG."
        ),
        Some(body) if path != "/mmds" => {
            let body = std::str::from_utf8(body).unwrap_or("inconvertible to UTF-8");
            format!("The API server received a {method:?} request on {path:?} with body {body:?}.")
        }
        _ => format!("The API server received a {method:?} request on {path:?}."),
    }
}
