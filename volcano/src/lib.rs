//! The volcano: it stores flares.
//!
//! A request runs through these layers, top to bottom: the door it comes in by ([`server`] for
//! clients, [`console`] for administrators), the slice that it belongs to ([`slice`]: sessions, ledger,
//! what may be answered when), the operation's meaning ([`namespace`]: reads a [`view`], decides, and
//! gives out the changes of one [`record`]), and the [`store`] (log, database, bodies).

pub mod administration;
pub mod cli;
pub mod config;
pub mod console;
pub mod coordinator;
pub mod dht;
pub mod health;
pub mod life;
pub mod missing;
pub mod namespace;
pub mod node;
pub mod observed;
pub mod planted;
pub mod record;
pub mod rows;
pub mod server;
pub mod slice;
pub mod start;
pub mod store;
pub mod transaction;
pub mod view;
