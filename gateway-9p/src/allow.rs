//! Which addresses may connect.

use std::net::IpAddr;
use std::str::FromStr;

/// A network: an address and how many of its leading bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Why a text is no network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a network is ADDRESS or ADDRESS/BITS, such as 192.168.1.0/24 or fd00::/8")]
pub struct ParseNetworkError;

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| ParseNetworkError)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => bits.parse().ok().filter(|&bits| bits <= most).ok_or(ParseNetworkError)?,
        };
        Ok(Self { address, bits })
    }
}

impl Network {
    /// Whether the address lies in it.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                let differing = u32::from(ours) ^ u32::from(theirs);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                let differing = u128::from(ours) ^ u128::from(theirs);
                differing.leading_zeros() >= u32::from(self.bits)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Whether a client at this address may connect: this machine always may.
pub(crate) fn may_connect(allowed: &[Network], address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || allowed.iter().any(|network| network.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_matched_by_their_leading_bits() {
        let allowed: Vec<Network> =
            ["192.168.1.0/24", "10.0.0.7", "fd00::/8"].iter().map(|text| text.parse().unwrap()).collect();
        let may = |text: &str| may_connect(&allowed, text.parse().unwrap());
        assert!(may("192.168.1.200") && may("::ffff:192.168.1.3") && may("10.0.0.7") && may("fd12::1"));
        assert!(may("127.0.0.1") && may("::1") && may("127.9.9.9"));
        assert!(!may("192.168.2.1") && !may("10.0.0.8") && !may("fe80::1"));
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("8.8.8.8".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in ["", "1.2.3", "1.2.3.4/33", "::/129", "1.2.3.4/", "1.2.3.4/-1", "host"] {
            assert_eq!(text.parse::<Network>(), Err(ParseNetworkError), "{text}");
        }
    }
}
