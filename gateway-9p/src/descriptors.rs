//! File descriptors: every connection needs one, and a process starts with few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What the gateway needs besides connections: the network, listeners, the log.
const OTHERS: u64 = 64;

/// Asks for as many descriptors as the system lets us have, and tells for how many connections they suffice.
///
/// Without enough of them it is the kernel, not the limit of connections, that would turn the next client away.
pub(crate) fn connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let connections = current.unwrap_or(u64::MAX).saturating_sub(OTHERS).max(1);
    usize::try_from(connections).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_some_connections() {
        let room = connections();
        let now = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        assert!(room >= 1 && (room as u64) < now);
    }
}
