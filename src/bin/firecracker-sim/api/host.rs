//! `/logger`, `/metrics`, `/serial` and `/mmds`: what the host reads of the VMM, and what the guest reads of
//! the host.

use super::{Action, Parsed, RequestError, counted_body, deprecated};
use crate::config::{MmdsConfig, MmdsVersion};
use crate::metrics;

const PUT: &str = "put_api_requests";

pub(super) fn put_logger(body: &[u8]) -> Result<Parsed, RequestError> {
    Ok(Action::ConfigureLogger(counted_body(PUT, "logger_count", "logger_fails", body)?).into())
}

pub(super) fn put_metrics(body: &[u8]) -> Result<Parsed, RequestError> {
    Ok(Action::ConfigureMetrics(counted_body(PUT, "metrics_count", "metrics_fails", body)?).into())
}

pub(super) fn put_serial(body: &[u8]) -> Result<Parsed, RequestError> {
    Ok(Action::ConfigureSerial(counted_body(PUT, "serial_count", "serial_fails", body)?).into())
}

pub(super) fn put_mmds(body: &[u8], rest: Option<&str>) -> Result<Parsed, RequestError> {
    match rest {
        None => Ok(Action::PutMmds(counted_body(PUT, "mmds_count", "mmds_fails", body)?).into()),
        Some("config") => {
            let config: MmdsConfig = counted_body(PUT, "mmds_count", "mmds_fails", body)?;
            let old = config.version == MmdsVersion::V1;
            let message = old.then_some("PUT /mmds/config: V1 is deprecated. Use V2 instead.");
            Ok(deprecated(Action::SetMmdsConfig(config), message))
        }
        Some(unknown) => {
            metrics::count(PUT, "mmds_count");
            metrics::count(PUT, "mmds_fails");
            Err(RequestError::Generic(format!("Unrecognized PUT request path `{unknown}`.")))
        }
    }
}

pub(super) fn patch_mmds(body: &[u8]) -> Result<Parsed, RequestError> {
    Ok(Action::PatchMmds(counted_body("patch_api_requests", "mmds_count", "mmds_fails", body)?).into())
}
