//! What can be seen of a VM from outside: so far, the text that it printed.

pub(crate) mod console;
