use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// A range of addresses: `10.0.0.7`, `10.0.0.0/8`, `fd00::/8`, or `*` for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Every address.
    Any,
    /// The addresses whose first `bits` bits are those of `base`.
    Prefix {
        /// The first address.
        base: IpAddr,
        /// Length of the prefix.
        bits: u8,
    },
}

/// A text that names no network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address, no network like 10.0.0.0/8, and not *")]
pub struct ParseNetworkError(String);

impl Network {
    /// This host.
    pub fn loopback() -> Vec<Self> {
        vec![
            Self::Prefix { base: Ipv4Addr::new(127, 0, 0, 0).into(), bits: 8 },
            Self::Prefix { base: Ipv6Addr::LOCALHOST.into(), bits: 128 },
        ]
    }

    /// Whether the address lies in it. An IPv4 address written as IPv6 counts as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let Self::Prefix { base, bits } = self else { return true };
        match (base, address.to_canonical()) {
            (IpAddr::V4(base), IpAddr::V4(address)) => {
                first_bits(u128::from(base.to_bits()) << 96, *bits)
                    == first_bits(u128::from(address.to_bits()) << 96, *bits)
            }
            (IpAddr::V6(base), IpAddr::V6(address)) => {
                first_bits(base.to_bits(), *bits) == first_bits(address.to_bits(), *bits)
            }
            _ => false,
        }
    }
}

fn first_bits(address: u128, bits: u8) -> u128 {
    address.checked_shr(128 - u32::from(bits)).unwrap_or(0)
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let wrong = || ParseNetworkError(text.to_owned());
        if text == "*" {
            return Ok(Self::Any);
        }
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let base: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => longest,
            Some(bits) => bits.parse().ok().filter(|&bits| bits <= longest).ok_or_else(wrong)?,
        };
        Ok(Self::Prefix { base, bits })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Prefix { base: IpAddr::V4(base), bits: 32 } => write!(f, "{base}"),
            Self::Prefix { base: IpAddr::V6(base), bits: 128 } => write!(f, "{base}"),
            Self::Prefix { base, bits } => write!(f, "{base}/{bits}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_prefix_decides_who_is_in() {
        assert!(contains("10.0.0.0/8", "10.255.0.1"));
        assert!(!contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("10.0.0.1", "10.0.0.1"));
        assert!(!contains("10.0.0.1", "10.0.0.2"));
        assert!(contains("0.0.0.0/0", "1.2.3.4"));
        assert!(!contains("0.0.0.0/0", "fd00::1"));
        assert!(contains("fd00::/8", "fdff::1"));
        assert!(contains("::/0", "fd00::1"));
        assert!(contains("*", "fd00::1"));
    }

    #[test]
    fn ipv4_in_ipv6_clothes_is_ipv4() {
        assert!(contains("10.0.0.0/8", "::ffff:10.1.1.1"));
        assert!(!contains("::/0", "::ffff:10.1.1.1"));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0.0/-1", "host", "::1/129", "10.0.0.0/"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
