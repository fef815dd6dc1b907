//! A disk for simulations: it keeps apart what was not synced, and loses it when the power goes.
//!
//! A store that is opened on a [`SimDisk`] keeps its log, its bodies and its meta file in memory. `SQLite` does its own file
//! operations, so the database lies in a real folder, which has the same path; the disk is told when the database has been made
//! durable, and takes it back to that, or to something in between, at a power cut. The store must have been dropped before.
//!
//! Whoever has the same seed and does the same things sees the same losses.

mod database;
mod dice;
mod disk;

pub use dice::Dice;
pub use disk::SimDisk;
