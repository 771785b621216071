//! The decisions of Waystation: what becomes of a message, which gates are open, who may start what.

pub mod name;
pub mod time;
