//! Thin safe wrappers over Linux: the only place, besides the C boundary, where `unsafe` is allowed.

pub mod signal;
