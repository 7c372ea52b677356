//! `/snapshot` and `/vm`.

use std::path::PathBuf;

use serde::Deserialize;
use serde::de::Error as _;

use super::{Action, Parsed, RequestError, deprecated};
use crate::http::Method;
use crate::memory::Tracking;
use crate::release::Release;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum SnapshotType {
    Diff,
    #[default]
    Full,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateSnapshotParams {
    #[serde(default)]
    pub(crate) snapshot_type: SnapshotType,
    pub(crate) snapshot_path: PathBuf,
    pub(crate) mem_file_path: PathBuf,
}

#[derive(Debug)]
pub(crate) struct LoadSnapshot {
    pub(crate) snapshot_path: PathBuf,
    pub(crate) memory: MemBackendConfig,
    pub(crate) tracks: Tracking,
    pub(crate) resume_vm: bool,
    pub(crate) network_overrides: Vec<NetworkOverride>,
    pub(crate) vsock_override: Option<VsockOverride>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemBackendConfig {
    pub(crate) backend_path: PathBuf,
    pub(crate) backend_type: MemBackendType,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum MemBackendType {
    File,
    Uffd,
}

#[derive(Debug, Deserialize)]
pub(crate) struct NetworkOverride {
    pub(crate) iface_id: String,
    pub(crate) host_dev_name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct VsockOverride {
    pub(crate) uds_path: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadSnapshotConfig {
    snapshot_path: PathBuf,
    mem_file_path: Option<PathBuf>,
    mem_backend: Option<MemBackendConfig>,
    #[serde(default)]
    enable_diff_snapshots: bool,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default)]
    resume_vm: bool,
    #[serde(default)]
    network_overrides: Vec<NetworkOverride>,
    vsock_override: Option<VsockOverride>,
    #[serde(default, rename = "clock_realtime")]
    _clock_realtime: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    state: VmState,
}

#[derive(Debug, Deserialize)]
enum VmState {
    Paused,
    Resumed,
}

pub(super) fn put(body: &[u8], operation: Option<&str>) -> Result<Parsed, RequestError> {
    match operation {
        Some("create") => Ok(Action::CreateSnapshot(serde_json::from_slice(body)?).into()),
        Some("load") => put_load(body),
        Some(unknown) => Err(RequestError::InvalidPathMethod(format!("/snapshot/{unknown}"), Method::Put)),
        None => Err(RequestError::Generic("Missing snapshot operation type.".to_owned())),
    }
}

pub(super) fn patch_vm(body: &[u8]) -> Result<Parsed, RequestError> {
    let body: Vm = serde_json::from_slice(body)?;
    Ok(match body.state {
        VmState::Paused => Action::Pause,
        VmState::Resumed => Action::Resume,
    }
    .into())
}

fn put_load(body: &[u8]) -> Result<Parsed, RequestError> {
    if let Some(refused) = Release::told().unknown_load_field(&String::from_utf8_lossy(body)) {
        return Err(wrong_fields(&refused));
    }
    let body: LoadSnapshotConfig = serde_json::from_slice(body)?;
    let old_fields = body.mem_file_path.is_some() || body.enable_diff_snapshots;
    let memory = match (body.mem_backend, body.mem_file_path) {
        (Some(memory), None) => memory,
        (None, Some(backend_path)) => MemBackendConfig { backend_path, backend_type: MemBackendType::File },
        (Some(_), Some(_)) => {
            return Err(wrong_fields(
                "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
            ));
        }
        (None, None) => {
            return Err(wrong_fields("missing field: either `mem_backend` or `mem_file_path` is required"));
        }
    };
    let action = Action::LoadSnapshot(LoadSnapshot {
        snapshot_path: body.snapshot_path,
        memory,
        tracks: if body.enable_diff_snapshots || body.track_dirty_pages {
            Tracking::On
        } else {
            Tracking::Off
        },
        resume_vm: body.resume_vm,
        network_overrides: body.network_overrides,
        vsock_override: body.vsock_override,
    });
    let message = "PUT /snapshot/load: mem_file_path and enable_diff_snapshots fields are deprecated.";
    Ok(deprecated(action, old_fields.then_some(message)))
}

fn wrong_fields(message: &str) -> RequestError {
    serde_json::Error::custom(message).into()
}
