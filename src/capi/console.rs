//! What a guest has printed.

use super::argument;
use super::failure::Failure;
use super::guard::guard;
use super::handle::{self, OwnedVm};
use super::status::mvm_status;
use super::vm::mvm_vm;

/// # The console
///
/// Reads what the guest has printed on its serial console, from the absolute offset `*offset`, into `buffer`, and
/// moves `*offset` past it. `*read` is 0 when nothing has been printed beyond `*offset` yet. Offsets count from
/// the VM's creation and go on over its restarts; the text stays readable after the VM has ended, until
/// `mvm_destroy`, and after another owner has taken the VM over. The bytes are the guest's: they need not be UTF-8.
///
/// The last `console.limit_bytes` are kept (at least three quarters of them). Where `*offset` lies before those the
/// call reads from the first byte that is kept: what was lost is `*offset - *read` after the call, less `*offset`
/// before it. A guest whose spec leads its console elsewhere (`serial.serial_out_path`) is read from there.
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
