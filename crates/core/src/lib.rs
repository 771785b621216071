//! The decisions of Waystation: what becomes of a message, which gates are open, who may start what.
//!
//! Everything here is pure and synchronous: time, chance and whatever happened come in as
//! arguments, what to do goes out as values. The tokio shell and the simulator drive the same code.
//!
//! Reading order: [`time`] and [`name`] are the vocabulary, [`message`] is what we keep,
//! [`outcome`] what a handler saw, [`policy`] what people configured, [`gate`] whether work may
//! start, [`decide`] what becomes of a message, [`plan`] who goes next, [`exchange`] what is asked
//! of a store, [`event`] what there is to tell, [`node`] the scheduler that ties them together.

pub mod backoff;
pub mod clock;
pub mod decide;
pub mod event;
pub mod exchange;
pub mod flaw;
pub mod gate;
pub mod lifecycle;
pub mod mass;
pub mod message;
pub mod name;
pub mod node;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod time;
