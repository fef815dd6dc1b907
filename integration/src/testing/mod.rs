//! Real processes under control: started and stopped by their pid, waited for by what they print, with a
//! time limit on everything, and taken down when a test panics or a signal arrives.
//!
//! Waiting always polls for a condition and for a signal. Every started process is a process group of its
//! own (a Ctrl-C at the terminal reaches the harness only, which then stops them in order) and receives
//! SIGTERM from the kernel should the harness itself be killed.

pub(crate) mod command;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod scratch;
pub(crate) mod signals;
pub(crate) mod wait;
