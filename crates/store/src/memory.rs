//! The memory model: the simplest store that keeps every rule.
