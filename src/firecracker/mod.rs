//! The VMM: finding out its version, starting it, and talking HTTP to it over its unix socket.
//!
//! What a microVM is, which requests make one and in which order, is the business of the room above.

mod binary;
mod client;
mod error;
pub mod http;
mod version;
mod vmm;

pub use binary::{Binaries, Binary};
pub use error::{During, Error, Request};
pub use version::{Feature, Version};
pub use vmm::{API_SOCKET, Launch, Vmm, VmmFiles};
