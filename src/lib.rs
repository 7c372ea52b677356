//! A Firecracker microVM driver that lives inside the operator's own process.

#[allow(unsafe_code)]
pub mod capi;
pub mod firecracker;
pub mod observe;
pub mod process;
pub mod runtime;
pub mod settings;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
pub mod vm;
