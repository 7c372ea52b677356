//! `/actions`, `/boot-source`, `/machine-config` and `/cpu-config`.

use serde::Deserialize;

use super::{Action, Parsed, RequestError, counted_body, deprecated, empty_patch};
use crate::config::{MachineConfig, MachineConfigUpdate};
use crate::cpu_template::CustomCpuTemplate;

const PUT: &str = "put_api_requests";

#[derive(Debug, Deserialize)]
enum ActionType {
    FlushMetrics,
    InstanceStart,
    SendCtrlAltDel,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionBody {
    action_type: ActionType,
}

pub(super) fn put_actions(body: &[u8]) -> Result<Parsed, RequestError> {
    let body: ActionBody = counted_body(PUT, "actions_count", "actions_fails", body)?;
    Ok(match body.action_type {
        ActionType::FlushMetrics => Action::FlushMetrics,
        ActionType::InstanceStart => Action::StartMicroVm,
        ActionType::SendCtrlAltDel => Action::SendCtrlAltDel,
    }
    .into())
}

pub(super) fn put_boot_source(body: &[u8]) -> Result<Parsed, RequestError> {
    let config = counted_body(PUT, "boot_source_count", "boot_source_fails", body)?;
    Ok(Action::ConfigureBootSource(config).into())
}

pub(super) fn put_cpu_config(body: &[u8]) -> Result<Parsed, RequestError> {
    let _: CustomCpuTemplate = counted_body(PUT, "cpu_cfg_count", "cpu_cfg_fails", body)?;
    Ok(Action::PutCpuConfig.into())
}

pub(super) fn put_machine_config(body: &[u8]) -> Result<Parsed, RequestError> {
    let config: MachineConfig = counted_body(PUT, "machine_cfg_count", "machine_cfg_fails", body)?;
    let message = config.cpu_template.map(|_| "PUT /machine-config: cpu_template field is deprecated.");
    Ok(deprecated(Action::UpdateMachineConfig(config.into()), message))
}

pub(super) fn patch_machine_config(body: &[u8]) -> Result<Parsed, RequestError> {
    let update: MachineConfigUpdate =
        counted_body("patch_api_requests", "machine_cfg_count", "machine_cfg_fails", body)?;
    if update == MachineConfigUpdate::default() {
        return Err(empty_patch());
    }
    let message = update.cpu_template.map(|_| "PATCH /machine-config: cpu_template field is deprecated.");
    Ok(deprecated(Action::UpdateMachineConfig(update), message))
}
