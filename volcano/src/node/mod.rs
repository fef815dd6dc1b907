//! A volcano among others.

pub mod message;
