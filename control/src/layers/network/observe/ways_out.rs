//! Addresses and NAT gateways.

use aws_sdk_ec2::types::Filter;

use super::{AddressFact, NatFact, by_id, text};
use crate::aws::ec2::name_of;
use crate::aws::{Attempted as _, AwsError, Clients};

pub(in crate::layers::network) async fn addresses(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<AddressFact>, AwsError> {
    // DescribeAddresses has no pages.
    let answer = clients.ec2.describe_addresses().filters(owned.clone()).send().await;
    let answer = answer.attempted(|| format!("list the addresses of `{fleet}`"))?;
    let addresses = answer.addresses().iter().map(|address| AddressFact {
        id: text(address.allocation_id()),
        name: name_of(address.tags()),
    });
    Ok(by_id(addresses, |address| &address.id))
}

pub(super) async fn nats(
    clients: &Clients,
    fleet: &str,
    owned: &Filter,
) -> Result<Vec<NatFact>, AwsError> {
    let pages = clients.ec2.describe_nat_gateways().filter(owned.clone());
    let nats = pages.into_paginator().items().send().try_collect().await;
    let nats = nats.attempted(|| format!("list the NAT gateways of `{fleet}`"))?;
    let nats = nats.into_iter().map(|nat| NatFact {
        id: text(nat.nat_gateway_id()),
        name: name_of(nat.tags()),
        state: nat.state().map(|state| state.as_str().to_owned()).unwrap_or_default(),
    });
    // Deleted ones are listed for an hour; failed ones never carry traffic and are made anew.
    Ok(by_id(nats.filter(|nat| !["deleted", "failed"].contains(&nat.state.as_str())), |n| &n.id))
}
