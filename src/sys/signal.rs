//! Signal dispositions, for this package's own executables; the library in an operator's process never touches them.
