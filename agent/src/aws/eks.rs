//! EKS: what it says of the cluster and its add-ons, where the node may know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::Value;

use super::signed::{Call, CallError, Service};
use crate::host::Deadline;

/// EKS in the node's region.
#[derive(Clone, Debug)]
pub struct Eks(pub Service);

/// Where a cluster is, as EKS says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterAddress {
    /// URL of its API server.
    pub endpoint: String,
    /// Its CA, PEM.
    pub ca_pem: Vec<u8>,
}

/// How an add-on is, as EKS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddonState {
    /// `ACTIVE`, `DEGRADED`, `CREATE_FAILED`, …
    pub status: String,
    /// What ails it.
    pub issues: Vec<String>,
}

impl Eks {
    /// Where the cluster is; `None` when there is none of this name, or it has no address yet.
    ///
    /// # Errors
    /// When EKS does not answer, or the node may not ask.
    pub async fn cluster(
        &self,
        name: &str,
        deadline: Deadline,
    ) -> Result<Option<ClusterAddress>, CallError> {
        let described = self.get(&format!("/clusters/{name}"), deadline).await?;
        Ok(described.as_ref().and_then(cluster_address))
    }

    /// How the cluster's add-on is; `None` when it does not have it.
    ///
    /// # Errors
    /// When EKS does not answer, or the node may not ask.
    pub async fn addon(
        &self,
        cluster: &str,
        addon: &str,
        deadline: Deadline,
    ) -> Result<Option<AddonState>, CallError> {
        let path = format!("/clusters/{cluster}/addons/{addon}");
        Ok(self.get(&path, deadline).await?.map(|described| addon_state(&described)))
    }

    async fn get(&self, path: &str, deadline: Deadline) -> Result<Option<Value>, CallError> {
        let call = Call { method: Method::GET, path, content_type: "", body: Vec::new() };
        match self.0.send(&call, deadline).await {
            // An answer that is no JSON says nothing; what we look for is then not in it.
            Ok(text) => Ok(Some(serde_json::from_str(&text).unwrap_or_default())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn cluster_address(described: &Value) -> Option<ClusterAddress> {
    let cluster = &described["cluster"];
    let data = cluster.pointer("/certificateAuthority/data")?.as_str()?;
    let endpoint = cluster["endpoint"].as_str().filter(|endpoint| !endpoint.is_empty())?;
    Some(ClusterAddress {
        endpoint: endpoint.to_owned(),
        ca_pem: STANDARD.decode(data.trim()).ok()?,
    })
}

fn addon_state(described: &Value) -> AddonState {
    let addon = &described["addon"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let issues = addon.pointer("/health/issues").and_then(Value::as_array);
    AddonState {
        status: text(&addon["status"]),
        issues: issues
            .into_iter()
            .flatten()
            .map(|issue| format!("{}: {}", text(&issue["code"]), text(&issue["message"])))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_eks_describes() {
        let described = json!({"cluster": {"endpoint": "https://ABC",
            "certificateAuthority": {"data": "UEVN"}}});
        let address = cluster_address(&described).unwrap();
        assert_eq!(
            (address.endpoint.as_str(), address.ca_pem.as_slice()),
            ("https://ABC", &b"PEM"[..])
        );
        assert_eq!(cluster_address(&json!({"cluster": {"status": "CREATING"}})), None);
        let described = json!({"addon": {"status": "DEGRADED", "health": {"issues": [
            {"code": "InsufficientNumberOfReplicas", "message": "1 of 3"}]}}});
        let state = addon_state(&described);
        assert_eq!(state.status, "DEGRADED");
        assert_eq!(state.issues, ["InsufficientNumberOfReplicas: 1 of 3"]);
    }
}
