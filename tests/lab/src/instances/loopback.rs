//! Loopback addresses for nodes: 127.64.x.y, chosen so that labs side by side do not collide.
//!
//! A lab holds a second octet pair by listening on 127.64.x.1, where its control API is. A node's
//! address is taken only if all of its ports are free there, because a lab that was killed may
//! have left processes behind.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

/// Port of a node's IMDS.
pub const IMDS_PORT: u16 = 1338;
/// Port of a node's kubelet health check.
pub const KUBELET_PORT: u16 = 10248;
/// Port of a lab's control API, on the address that claims its range.
pub const CLAIM_PORT: u16 = 1337;

/// No address is left.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("no loopback address is free in {0}: end other labs with lab down")]
pub struct AddressesExhausted(String);

/// The addresses of one lab.
#[derive(Debug)]
pub struct Addresses {
    range: u8,
    taken: BTreeSet<u8>,
}

impl Addresses {
    /// Claims the first free range; the listener is the claim, and stays open as long as the lab.
    ///
    /// # Errors
    /// When all 256 ranges are claimed.
    pub async fn claim() -> Result<(Self, TcpListener), AddressesExhausted> {
        for range in 0..=u8::MAX {
            let address = SocketAddr::from(([127, 64, range, 1], CLAIM_PORT));
            if let Ok(listener) = TcpListener::bind(address).await {
                return Ok((Self { range, taken: BTreeSet::new() }, listener));
            }
        }
        Err(AddressesExhausted("127.64.0.0/16".into()))
    }

    /// An address for one more node, with the listener for its IMDS.
    ///
    /// # Errors
    /// When the lab has no address left.
    pub async fn take(&mut self) -> Result<(Ipv4Addr, TcpListener), AddressesExhausted> {
        for last in 2..u8::MAX {
            let address = Ipv4Addr::new(127, 64, self.range, last);
            if !self.taken.contains(&last)
                && is_free(address, contract::names::METRICS_PORT).await
                && is_free(address, KUBELET_PORT).await
                && let Ok(listener) = TcpListener::bind((address, IMDS_PORT)).await
            {
                self.taken.insert(last);
                return Ok((address, listener));
            }
        }
        Err(AddressesExhausted(format!("127.64.{}.0/24", self.range)))
    }

    /// Gives a node's address back.
    pub fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address.octets()[3]);
    }
}

/// Whether nothing listens there.
pub(crate) async fn is_free(address: impl Into<IpAddr>, port: u16) -> bool {
    TcpListener::bind((address.into(), port)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn labs_and_nodes_do_not_collide() {
        let (mut one, _claim_one) = Addresses::claim().await.unwrap();
        let (mut other, _claim_other) = Addresses::claim().await.unwrap();
        assert_ne!(one.range, other.range);
        let (first, _imds) = one.take().await.unwrap();
        let (second, _imds_of_second) = one.take().await.unwrap();
        let (third, _) = other.take().await.unwrap();
        assert_ne!(first, second);
        assert_ne!(first.octets()[2], third.octets()[2]);
        one.give_back(first);
        // Its IMDS still listens, as after a lab that was killed: another address is taken.
        assert_ne!(one.take().await.unwrap().0, first);
    }
}
