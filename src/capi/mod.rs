//! The C ABI: it decodes, calls the safe method, encodes, and decides nothing.
//!
//! The order of the modules is the order of the header, whose first page is `contract.h`. An entry point is
//! written out by hand, because cbindgen sees no function that a macro makes.
#![allow(non_camel_case_types, clippy::upper_case_acronyms)]
#![allow(
    clippy::missing_safety_doc,
    reason = "the contract of every function stands once, in the header's first page"
)]

mod argument;
mod failure;
mod guard;
mod handle;

pub mod status;

pub mod runtime;

pub mod vm;

pub mod snapshot;

pub mod pool;

pub mod devices;

pub mod cancel;

pub mod events;

pub mod console;

pub mod metrics;

pub mod log;

pub mod process;

pub mod library;
