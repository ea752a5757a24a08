//! EC2: the tag that a node puts on its own instance, the room in its subnet, and whether nodeadm
//! will get its answer there.

use reqwest::Method;

use super::signed::{Call, CallError, Service};
use crate::host::Deadline;

/// EC2 in the node's region.
#[derive(Clone, Debug)]
pub struct Ec2(pub Service);

/// A subnet, as far as a node cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    /// `subnet-…`.
    pub id: String,
    /// Addresses that nobody has.
    pub free: u32,
}

impl Ec2 {
    /// How much room a subnet has; `None` when EC2 does not say.
    ///
    /// # Errors
    /// When EC2 does not answer or the node may not ask.
    pub async fn subnet(&self, id: &str, deadline: Deadline) -> Result<Option<Subnet>, CallError> {
        let parameters = [("Action", "DescribeSubnets"), ("SubnetId.1", id)];
        let xml = self.call(&parameters, deadline).await?;
        Ok(free_addresses(&xml).map(|free| Subnet { id: id.to_owned(), free }))
    }

    /// Puts one tag on an instance, in place of an older value.
    ///
    /// # Errors
    /// When EC2 does not answer or refuses.
    pub async fn tag(
        &self,
        instance: &str,
        key: &str,
        value: &str,
        deadline: Deadline,
    ) -> Result<(), CallError> {
        let parameters = [
            ("Action", "CreateTags"),
            ("ResourceId.1", instance),
            ("Tag.1.Key", key),
            ("Tag.1.Value", value),
        ];
        self.call(&parameters, deadline).await.map(|_| ())
    }

    /// Whether the node may describe an instance: what nodeadm asks for its name.
    ///
    /// # Errors
    /// When EC2 does not answer or refuses.
    pub async fn describe(&self, instance: &str, deadline: Deadline) -> Result<(), CallError> {
        let parameters = [("Action", "DescribeInstances"), ("InstanceId.1", instance)];
        self.call(&parameters, deadline).await.map(|_| ())
    }

    async fn call(
        &self,
        parameters: &[(&str, &str)],
        deadline: Deadline,
    ) -> Result<String, CallError> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .append_pair("Version", "2016-11-15")
            .finish();
        let call = Call {
            method: Method::POST,
            path: "/",
            content_type: "application/x-www-form-urlencoded; charset=utf-8",
            body: body.into_bytes(),
        };
        self.0.send(&call, deadline).await
    }
}

/// The one number that is wanted of DescribeSubnets' XML.
fn free_addresses(xml: &str) -> Option<u32> {
    let (_, rest) = xml.split_once("<availableIpAddressCount>")?;
    rest.split('<').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_free_addresses() {
        let xml = "<item><subnetId>subnet-1</subnetId>\
            <availableIpAddressCount>245</availableIpAddressCount></item>";
        assert_eq!(free_addresses(xml), Some(245));
        assert_eq!(free_addresses("<subnetSet/>"), None);
    }
}
