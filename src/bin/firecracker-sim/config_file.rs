//! `--config-file`: the whole configuration at once, applied section by section in Firecracker's order, so
//! that the first of several mistakes is the one that is reported.

use crate::config::{CpuConfigOrPath, VmmConfig};
use crate::cpu_template::CustomCpuTemplate;
use crate::error::ResourcesError;
use crate::log;
use crate::metrics;
use crate::resources::Resources;

pub(crate) fn apply(json: &str, resources: &mut Resources) -> Result<(), ResourcesError> {
    let config: VmmConfig = serde_json::from_str(json)?;
    if let Some(logger) = config.logger {
        log::configure(logger)?;
    }
    if let Some(config) = config.metrics {
        metrics::configure(&config)?;
    }
    if let Some(machine) = config.machine_config {
        resources.update_machine(&machine.into())?;
    }
    if let Some(cpu_config) = config.cpu_config {
        if let CpuConfigOrPath::Path(path) = cpu_config {
            let text = std::fs::read_to_string(path).map_err(ResourcesError::File)?;
            let _: CustomCpuTemplate = serde_json::from_str(&text)?;
        }
        resources.set_custom_cpu_template();
    }
    resources.set_boot_source(config.boot_source)?;
    for drive in config.drives {
        resources.insert_drive(drive)?;
    }
    for interface in config.network_interfaces {
        resources.insert_network_interface(interface)?;
    }
    if let Some(vsock) = config.vsock {
        resources.set_vsock(vsock)?;
    }
    if let Some(balloon) = config.balloon {
        resources.set_balloon(balloon)?;
    }
    if let Some(mmds) = config.mmds_config {
        resources.set_mmds_config(&mmds)?;
    }
    if let Some(entropy) = config.entropy {
        resources.set_entropy(&entropy);
    }
    for pmem in config.pmem_devices {
        resources.insert_pmem(pmem)?;
    }
    if let Some(memory_hotplug) = config.memory_hotplug {
        resources.set_memory_hotplug(memory_hotplug)?;
    }
    Ok(())
}
