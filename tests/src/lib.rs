//! What holds across crates: a [`model`] of POSIX semantics in memory, random [`operation`]s, and the ways to carry
//! them out for real: [`through_client`] speaks the flare protocol, [`through_files`] uses a mounted
//! tree; a [`network`] in a process that can be killed; a whole [`ring`] in a simulation; and the decoders that strangers reach, for [`fuzz`] drivers.

pub mod fuzz;
pub mod model;
pub mod network;
pub mod operation;
pub mod ring;
pub mod through_client;
pub mod through_files;
