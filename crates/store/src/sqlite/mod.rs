//! The embedded store: one SQLite file.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "used from the commit that joins nodes")
)]
mod bell;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "used from the commit that joins nodes")
)]
mod lock;
mod threads;
