//! Integration tests of the testkit: what breaks others must itself be shown to break, and to notice.

mod ledger;
mod power;
