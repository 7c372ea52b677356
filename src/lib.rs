//! A Firecracker microVM driver that lives inside the operator's own process.

#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
