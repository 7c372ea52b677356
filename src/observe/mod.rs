//! What can be seen of VMs from outside: the text that they print, and what happens to them.

pub mod console;
pub mod events;
