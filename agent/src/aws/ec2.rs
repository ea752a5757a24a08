//! EC2: the tag that a node puts on its own instance.

use reqwest::Method;

use super::signed::{Call, CallError, Service};
use crate::host::Deadline;

/// EC2 in the node's region.
#[derive(Clone, Debug)]
pub struct Ec2(pub Service);

impl Ec2 {
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
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs([
                ("Action", "CreateTags"),
                ("Version", "2016-11-15"),
                ("ResourceId.1", instance),
                ("Tag.1.Key", key),
                ("Tag.1.Value", value),
            ])
            .finish();
        let call = Call {
            method: Method::POST,
            path: "/",
            content_type: "application/x-www-form-urlencoded; charset=utf-8",
            body,
        };
        self.0.send(&call, deadline).await.map(|_| ())
    }
}
