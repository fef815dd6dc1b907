//! The gateway over TCP and UDP, against a volcano that does as it is told and against a real one.

mod hostile;
mod load;
mod mounting;
mod retransmission;
mod support;
