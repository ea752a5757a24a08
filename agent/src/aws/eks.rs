//! EKS: whether the cluster has an add-on, where the node may know.

use reqwest::Method;

use super::signed::{Call, CallError, Service};
use crate::host::Deadline;

/// EKS in the node's region.
#[derive(Clone, Debug)]
pub struct Eks(pub Service);

impl Eks {
    /// Whether the cluster has the add-on, whatever its state.
    ///
    /// # Errors
    /// When EKS does not answer, or the node may not ask.
    pub async fn has_addon(
        &self,
        cluster: &str,
        addon: &str,
        deadline: Deadline,
    ) -> Result<bool, CallError> {
        let path = format!("/clusters/{cluster}/addons/{addon}");
        let call = Call { method: Method::GET, path: &path, content_type: "", body: String::new() };
        match self.0.send(&call, deadline).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}
