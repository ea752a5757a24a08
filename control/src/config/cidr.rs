//! IPv4 networks, and how a VPC's addresses are divided among its subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// An IPv4 network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: u32,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CidrError {
    /// Not `a.b.c.d/n`.
    #[error("is not of the form `10.0.0.0/16`")]
    Form,
    /// Bits behind the prefix.
    #[error("has bits set behind its prefix; the network is `{0}`")]
    HostBits(Cidr),
}

impl Cidr {
    /// Length of the prefix.
    #[must_use]
    pub const fn prefix(self) -> u8 {
        self.prefix
    }

    /// The `index`th network of `bits` more prefix bits.
    #[must_use]
    pub const fn part(self, bits: u8, index: u32) -> Self {
        let prefix = self.prefix + bits;
        Self { address: self.address + (index << (32 - prefix)), prefix }
    }

    /// Addresses that AWS hands out: it keeps five of each subnet.
    #[must_use]
    pub const fn usable(self) -> u32 {
        (1_u32 << (32 - self.prefix)) - 5
    }

    /// Whether the whole network lies in private address space (RFC 1918) or in the shared space
    /// of RFC 6598, which VPCs use as well.
    #[must_use]
    pub fn is_private(self) -> bool {
        const BLOCKS: [(u32, u8); 4] =
            [(0x0a00_0000, 8), (0xac10_0000, 12), (0xc0a8_0000, 16), (0x6440_0000, 10)];
        BLOCKS.iter().any(|&(address, prefix)| {
            self.prefix >= prefix && self.address >> (32 - prefix) == address >> (32 - prefix)
        })
    }
}

impl FromStr for Cidr {
    type Err = CidrError;

    fn from_str(text: &str) -> Result<Self, CidrError> {
        let (address, prefix) = text.split_once('/').ok_or(CidrError::Form)?;
        let address: Ipv4Addr = address.parse().map_err(|_| CidrError::Form)?;
        let prefix: u8 = prefix.parse().map_err(|_| CidrError::Form)?;
        if !(1..=32).contains(&prefix) {
            return Err(CidrError::Form);
        }
        let network = u32::from(address) & (u32::MAX << (32 - prefix));
        if network != u32::from(address) {
            return Err(CidrError::HostBits(Self { address: network, prefix }));
        }
        Ok(Self { address: network, prefix })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.prefix)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_prints_networks() {
        for text in ["10.0.0.0/16", "172.31.0.0/20", "0.0.0.0/1", "192.168.4.4/32"] {
            assert_eq!(text.parse::<Cidr>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.0", "10.0.0/16", "10.0.0.0/33", "10.0.0.0/0", "x/16", ""] {
            assert_eq!(text.parse::<Cidr>(), Err(CidrError::Form), "{text}");
        }
        let error = "10.1.2.3/16".parse::<Cidr>().unwrap_err();
        assert!(error.to_string().contains("10.1.0.0/16"), "{error}");
    }

    #[test]
    fn parts_follow_each_other() {
        let vpc: Cidr = "10.0.0.0/16".parse().unwrap();
        assert_eq!(vpc.part(3, 0).to_string(), "10.0.0.0/19");
        assert_eq!(vpc.part(3, 6).to_string(), "10.0.192.0/19");
        assert_eq!(vpc.part(3, 7).part(3, 1).to_string(), "10.0.228.0/22");
        assert_eq!(vpc.part(3, 0).usable(), 8187);
    }

    #[test]
    fn private_space_is_known() {
        for text in ["10.0.0.0/16", "172.16.0.0/16", "192.168.0.0/20", "100.64.0.0/16"] {
            assert!(text.parse::<Cidr>().unwrap().is_private(), "{text}");
        }
        for text in ["11.0.0.0/16", "172.32.0.0/16", "8.0.0.0/7"] {
            assert!(!text.parse::<Cidr>().unwrap().is_private(), "{text}");
        }
    }
}
