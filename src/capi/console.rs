//! What a guest has printed.

use super::argument;
use super::failure::Failure;
use super::guard::guard;
use super::handle::{self, OwnedVm};
use super::status::mvm_status;
use super::vm::mvm_vm;

/// # The console
///
/// Reads the guest's serial console from the absolute offset `*offset` into `buffer`, and adds the number of bytes to
/// `*offset`. `*read` receives that number. It is 0 when the guest has printed nothing beyond `*offset` yet. Offsets
/// count from the VM's creation, over all its starts and owners. The text can be read until `mvm_destroy`, also after
/// the VM has ended. The bytes come from the guest and need not be UTF-8.
///
/// The last `console.limit_bytes` are kept (at least three quarters of them). If `*offset` is before those, the call
/// reads from the first byte that is kept. Bytes lost = (new `*offset` - `*read`) - old `*offset`. When the spec puts
/// the console elsewhere (`serial.serial_out_path`), the call reads that file.
///
/// Errors: `MVM_ERR_BAD_HANDLE`, `MVM_ERR_INVALID_ARGUMENT`, `MVM_ERR_NOT_FOUND` (destroyed), `MVM_ERR_IO`.
/// Blocks: for the disk. Since 0.1.
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mvm_console_read(
    vm: *mut mvm_vm,
    offset: *mut u64,
    buffer: *mut u8,
    length: usize,
    read: *mut usize,
) -> mvm_status {
    guard(|| {
        // SAFETY: places are as the contract page says.
        let out = unsafe { argument::out(read, 0, "read") }?;
        // SAFETY: as above; NULL is refused.
        let offset = unsafe { offset.as_mut() }.ok_or_else(|| Failure::null("offset"))?;
        // SAFETY: as above.
        let buffer = unsafe { argument::buffer(buffer, length, "buffer") }?;
        let piece = handle::get::<OwnedVm, _>(vm)?.vm.read_console(*offset, buffer)?;
        *offset = piece.start.saturating_add(piece.length as u64);
        out.write(piece.length);
        Ok(())
    })
}
