//! A Firecracker microVM driver that lives inside the operator's own process.

pub mod firecracker;
pub mod observe;
pub mod process;
pub mod runtime;
mod settings;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
pub mod vm;
