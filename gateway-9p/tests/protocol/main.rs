//! The gateway over TCP against a real volcano: each message, and what hostile clients send.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "everything here is test code: a broken expectation ends the test"
)]

mod attach;
mod attributes;
mod client;
mod files;
mod flush;
mod hostile;
mod locks;
mod names;
mod permissions;
mod program;
mod readdir;
mod restart;
mod volcano;
mod walk;
mod xattrs;
