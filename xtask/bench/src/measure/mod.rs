//! The benches of the product, each beside what the machine gives to plainer code.

pub mod accept;
pub mod backlog;
pub mod claims;
pub mod lifecycle;
pub mod pickup;

mod work;
