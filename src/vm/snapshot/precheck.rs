//! What would make a snapshot fail, as far as it can be known before the guest is paused.

use super::{Disks, Plan};
use crate::firecracker::api;
use crate::host::disk;
use crate::operation::Operation;
use crate::snapshot::{Kind, Unfinished};
use crate::vm::{Error, Reason, Vm};
use serde_json::Value;

impl Vm {
    /// Whether the drives can be copied, and the memory has room.
    pub(super) fn check_feasible(
        &self,
        plan: &Plan<'_>,
        disks: Disks,
        configuration: &Value,
        unfinished: &Unfinished<'_>,
    ) -> Result<(), Error> {
        let view = self.view();
        let copied = api::disks_of(configuration).into_iter().filter(|disk| !disk.is_read_only);
        for disk in copied.filter(|_| disks == Disks::Copy) {
            disk::check_source(&view.on_host(&disk.path)).map_err(|source| {
                self.error(Operation::Snapshot, Reason::Drive { drive: disk.id.clone(), source })
            })?;
        }
        let size = configuration.pointer("/machine-config/mem_size_mib").and_then(Value::as_u64);
        let limit = self.spec.options.jail.as_ref().and_then(|jail| jail.resource_limits.fsize);
        // A diff is as long as the memory too. Firecracker would end by SIGXFSZ.
        match (limit, size.map(|mib| mib.saturating_mul(1 << 20))) {
            (Some(limit), Some(bytes)) if bytes > limit => {
                return Err(self.error(Operation::Snapshot, Reason::LongerThanAllowed { bytes, limit }));
            }
            _ => {}
        }
        match (plan.kind(), size) {
            // Firecracker writes every byte of it.
            (Kind::Full, Some(mib)) => {
                disk::check_room(&unfinished.memory_file(), mib.saturating_mul(1 << 20))
                    .map_err(|source| self.error(Operation::Snapshot, source))
            }
            _ => Ok(()),
        }
    }
}
