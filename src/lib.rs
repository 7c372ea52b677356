//! A Firecracker microVM driver that lives inside the operator's own process.
//!
//! [`Runtime`] owns a state directory. [`Vm`] is a microVM in it. [`capi`] is the same for C; its reference is
//! `include/mvm.h`. Threads may share everything, and a call runs in the thread that makes it. The library starts a thread
//! only to bound consoles when no keeper is named, to fill a pool, to clone, to serve page faults when asked to, and to remove
//! the files of an interrupted snapshot.
//!
//! ```no_run
//! use mvm::Runtime;
//! use std::time::Duration;
//!
//! let runtime = Runtime::open("/var/lib/mvm".as_ref(), Some(r#"{"firecracker":"/usr/bin/firecracker"}"#))?;
//! let vm = runtime.create("web-1", r#"{"boot-source":{"kernel_image_path":"/srv/vmlinux"}}"#)?;
//! vm.start()?;
//! let report = vm.shutdown(Duration::from_secs(2), None)?;
//! println!("{:?} by {:?}", report.outcome, report.rung);
//! runtime.destroy(&vm)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Data flows downwards: `capi` → [`runtime`] → [`vm`] → [`firecracker`] → `pager` → `observe` → [`process`] → `sys`, and a
//! lower room never imports a higher one. `unsafe` lives in `capi` and `sys` alone.

#[allow(unsafe_code)]
pub mod capi;
mod causes;
pub mod check;
mod claims;
pub mod firecracker;
pub mod host;
mod id;
pub mod journal;
mod json;
#[doc(hidden)]
pub mod keeper;
pub mod observe;
pub mod operation;
#[doc(hidden)]
pub mod pager;
pub mod process;
pub mod runtime;
#[cfg(test)]
mod scratch;
pub mod settings;
pub mod snapshot;
mod sorted;
#[doc(hidden)]
#[allow(unsafe_code)]
pub mod sys;
pub mod vm;

pub use operation::Operation;
pub use process::ExitStatus;
pub use process::ladder::{Outcome, Report, Rung};
pub use runtime::{Error, ReapOptions, Runtime};
pub use vm::{State, Vm, VmId};
