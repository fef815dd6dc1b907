//! Who may use a console that listens beyond this machine: who types the cluster key, and does not guess.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use magma_common::auth::Secret;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::Instant;

/// Hosts that failed of late and are remembered.
const MAX_HOSTS: usize = 1024;
/// The longest time that a host has to wait after a wrong key.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// After so long a wrong key is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(600);

/// What a typed key gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is the key.
    Right,
    /// It is not. The next one from this host is looked at after this time.
    Wrong(Duration),
    /// It was not looked at, because of wrong ones before; it may be after this time.
    NotYet(Duration),
}

#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// 1 s after the first wrong key, twice as long after each further one.
    fn next(&self) -> Instant {
        self.last + Duration::from_secs(1 << self.count.saturating_sub(1).min(16)).min(MAX_DELAY)
    }
}

/// The key, and who failed to type it.
pub(super) struct Gate {
    /// A digest, so that the time of a comparison does not depend on the key's length either.
    key: [u8; 32],
    failures: HashMap<IpAddr, Failures>,
}

impl Gate {
    /// A gate that opens for this key.
    pub(super) fn new(key: &Secret) -> Self {
        Self { key: Sha256::digest(key.expose().as_bytes()).into(), failures: HashMap::new() }
    }

    /// Judges a key that came from this host.
    pub(super) fn judge(&mut self, host: IpAddr, typed: &[u8], now: Instant) -> Verdict {
        let host = network(host);
        self.failures.retain(|_, failures| now.duration_since(failures.last) < FORGET_AFTER);
        if let Some(wait) =
            self.failures.get(&host).and_then(|failures| failures.next().checked_duration_since(now))
            && !wait.is_zero()
        {
            return Verdict::NotYet(wait);
        }
        let digest: [u8; 32] = Sha256::digest(typed.trim_ascii()).into();
        if bool::from(digest.ct_eq(&self.key)) {
            self.failures.remove(&host);
            return Verdict::Right;
        }
        if self.failures.len() >= MAX_HOSTS && !self.failures.contains_key(&host) {
            let oldest =
                self.failures.iter().min_by_key(|(_, failures)| failures.last).map(|(&host, _)| host);
            oldest.map(|oldest| self.failures.remove(&oldest));
        }
        let failures = self.failures.entry(host).or_insert(Failures { count: 0, last: now });
        *failures = Failures { count: failures.count.saturating_add(1), last: now };
        Verdict::Wrong(failures.next() - now)
    }
}

/// The host, or the network that one holder of IPv6 addresses has to choose from.
fn network(host: IpAddr) -> IpAddr {
    match host.to_canonical() {
        IpAddr::V4(host) => IpAddr::V4(host),
        IpAddr::V6(host) => IpAddr::V6(Ipv6Addr::from_bits(host.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_right_key_opens_and_white_space_around_it_does_not_matter() {
        let mut gate = Gate::new(&Secret::new("k3y"));
        assert_eq!(gate.judge(host("10.0.0.9"), b" k3y\t", Instant::now()), Verdict::Right);
        assert_eq!(
            gate.judge(host("10.0.0.9"), b"k3", Instant::now()),
            Verdict::Wrong(Duration::from_secs(1))
        );
    }

    #[test]
    fn each_wrong_key_doubles_the_wait_and_the_right_one_ends_it() {
        let mut gate = Gate::new(&Secret::new("k3y"));
        let (guesser, start) = (host("10.0.0.9"), Instant::now());
        assert_eq!(gate.judge(guesser, b"a", start), Verdict::Wrong(Duration::from_secs(1)));
        assert_eq!(
            gate.judge(guesser, b"k3y", start),
            Verdict::NotYet(Duration::from_secs(1)),
            "not even looked at"
        );
        let later = start + Duration::from_secs(1);
        assert_eq!(gate.judge(guesser, b"b", later), Verdict::Wrong(Duration::from_secs(2)));
        assert_eq!(gate.judge(host("10.0.0.8"), b"k3y", later), Verdict::Right, "others do not wait");
        let later = later + Duration::from_secs(2);
        assert_eq!(gate.judge(guesser, b"k3y", later), Verdict::Right);
        assert_eq!(gate.judge(guesser, b"c", later), Verdict::Wrong(Duration::from_secs(1)), "counted anew");
    }

    #[test]
    fn the_wait_and_the_memory_have_a_limit() {
        let mut gate = Gate::new(&Secret::new("k3y"));
        let mut now = Instant::now();
        for _ in 0..100 {
            let Verdict::Wrong(wait) = gate.judge(host("10.0.0.9"), b"a", now) else {
                panic!("looked at too early")
            };
            assert!(wait <= MAX_DELAY);
            now += wait;
        }
        for i in 0..5000_u32 {
            gate.judge(IpAddr::from(i.to_be_bytes()), b"a", now);
        }
        assert!(gate.failures.len() <= MAX_HOSTS);
        gate.judge(host("10.0.0.9"), b"k3y", now + FORGET_AFTER);
        assert!(gate.failures.is_empty());
    }

    #[test]
    fn one_ipv6_network_is_one_guesser() {
        let mut gate = Gate::new(&Secret::new("k3y"));
        let now = Instant::now();
        gate.judge(host("2001:db8::1"), b"a", now);
        assert!(matches!(gate.judge(host("2001:db8::2"), b"k3y", now), Verdict::NotYet(_)));
        assert_eq!(gate.judge(host("2001:db8:0:1::2"), b"k3y", now), Verdict::Right);
    }
}
