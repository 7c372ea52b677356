//! Memory whose pages somebody else brings: the handshake with a page-fault handler, as Firecracker holds it.

use std::mem;
use std::os::fd::AsFd;
use std::path::Path;

use mvm::sys::socket::UnixConnection;
use mvm::sys::userfault::Userfault;

use crate::error::{GuestMemoryError, MemoryError};
use crate::fault::Handshake;
use crate::memory::{GuestMemory, Layout};
use crate::release::{Manner, Release};

/// Returns as soon as the handler has been told; its first page is asked for by whoever touches the memory.
pub(super) fn served_memory(
    path: &Path,
    layout: &Layout,
    handshake: Handshake,
) -> Result<GuestMemory, GuestMemoryError> {
    let mapped = GuestMemory::to_be_served(layout);
    let mut memory = mapped.map_err(|error| GuestMemoryError::UffdMap(MemoryError::MmapRegion(error)))?;
    let faults = Userfault::new().map_err(GuestMemoryError::UffdCreate)?;
    memory.register(&faults).map_err(GuestMemoryError::UffdRegister)?;
    let connection = UnixConnection::connect(path).map_err(GuestMemoryError::UffdConnect)?;
    let shrunk = if handshake == Handshake::Narrow { 2 } else { 1 };
    let message = regions(&memory, layout, shrunk);
    let sent = match handshake {
        Handshake::Honest | Handshake::Narrow => {
            connection.send_with_descriptor(message.as_bytes(), faults.as_fd())
        }
        Handshake::Garbage => connection.send_with_descriptor(b"these are no regions", faults.as_fd()),
        Handshake::Half => {
            connection.send_with_descriptor(&message.as_bytes()[..message.len() / 2], faults.as_fd())
        }
        Handshake::Bare => connection.send(message.as_bytes()),
        Handshake::Mute => Ok(0),
    };
    sent.map_err(GuestMemoryError::UffdSend)?;
    if Release::told().handshake() == Manner::New {
        // As long as the connection stands the handler knows that we live.
        mem::forget(connection);
    }
    memory.keep(faults);
    Ok(memory)
}

fn regions(memory: &GuestMemory, layout: &Layout, shrunk: usize) -> String {
    let page = layout.pages().bytes();
    let page_size = match Release::told().handshake() {
        Manner::New => format!("\"page_size\":{page},"),
        Manner::Old => String::new(),
    };
    let regions = memory.mappings().map(|(address, size, offset)| {
        let size = size / shrunk;
        // The last field's name is wrong, and kept for those who know it.
        format!(
            r#"{{"base_host_virt_addr":{address},"size":{size},"offset":{offset},{page_size}"page_size_kib":{page}}}"#
        )
    });
    format!("[{}]", regions.collect::<Vec<_>>().join(","))
}
