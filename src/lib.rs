//! A Firecracker microVM driver that lives inside the operator's own process.

pub mod process;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
