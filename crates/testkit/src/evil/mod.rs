//! Evil on the wire: destinations that answer badly or not at all, clients that ask badly or never end,
//! and certificates that should not be believed.

pub mod client;
pub mod destination;
pub mod tls;
