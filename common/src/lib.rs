//! What every part of MagmaFS shares: the identity of flares ([`key`], [`handle`],
//! [`name`]), the topology of the lava network ([`topology`]), the flare protocol
//! ([`proto`]), the authenticated transport under it ([`transport`], [`auth`]) and the
//! client library that the front ends are built on ([`client`], with the
//! [`surroundings`] that it lives in).
//!
//! It does not store anything and decides nothing about files: that is the volcano's work.

pub mod attr;
pub mod auth;
pub mod client;
pub mod error;
pub mod handle;
pub mod key;
pub mod logging;
pub mod name;
pub mod options;
pub mod proto;
pub mod stripes;
pub mod surroundings;
pub mod time;
pub mod topology;
pub mod transport;
mod watched;

#[cfg(test)]
mod fake;
