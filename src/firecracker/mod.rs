//! The VMM: finding out its version, starting it, and talking HTTP to it over its unix socket.
//!
//! What a microVM is, which requests make one and in which order, is the business of the room above.

mod advice;
pub mod api;
mod binary;
mod client;
pub(crate) mod companions;
mod device_id;
mod error;
pub mod http;
mod jailer;
mod problems;
mod section;
mod version;
mod vmm;

pub use api::Request;
pub use binary::{Binaries, Binary};
pub use device_id::{DeviceId, given_id, with_given_ids};
pub use error::{During, Error, RequestLine};
pub use jailer::Confinement;
pub use problems::{Problem, ProblemOf};
pub use section::{
    Belongs, ConfigSection, DISK_KEY, HostKey, HostThing, NETWORK_DEVICE_KEY, SECTIONS, SERIAL_KEY, Shape,
    VSOCK_KEY, huge_memory_mib,
};
pub use version::{Feature, Version};
pub use vmm::{API_SOCKET, Launch, Started, Vmm, VmmFiles};
pub(crate) use vmm::{LENT_MEMORY, LENT_STATE, LOG, MARKER};
