//! The engine's integration tests: one binary, real sockets on loopback.

mod evil;
mod http;
mod http_faults;
mod http_names;
mod http_request;
mod http_tls;
