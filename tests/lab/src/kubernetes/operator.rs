//! The cluster as the lab's operator sees it, over its API like everybody else: for what the lab
//! must read in whichever gear it runs.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_credential_types::Credentials;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::supervisor::Record;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);

/// A client with the operator's rights.
#[derive(Clone, Debug)]
pub struct Operator {
    http: reqwest::Client,
    server: String,
    cluster: String,
    region: String,
    key: (String, String),
}

impl Operator {
    /// The operator of a lab, at the cluster that EKS describes so.
    ///
    /// # Errors
    /// When the lab has no operator, or the cluster no certificate authority.
    pub fn of(record: &Record, cluster: &str, described: &Value) -> anyhow::Result<Self> {
        let operator = record.operator.as_ref().context("the lab has no operator")?;
        let ca = described["certificateAuthority"]["data"].as_str().unwrap_or_default();
        let ca = STANDARD.decode(ca).context("the cluster's CA is not base64")?;
        let ca = reqwest::Certificate::from_pem(&ca).context("the cluster's CA is not PEM")?;
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build()?;
        Ok(Self {
            http,
            server: described["endpoint"].as_str().context("the cluster has no endpoint")?.into(),
            cluster: cluster.to_owned(),
            region: record.region.clone(),
            key: (operator.access_key_id.clone(), operator.secret_access_key.clone()),
        })
    }

    /// Reads an object; none where it is not there or the server does not answer.
    pub async fn get(&self, path: &str) -> Option<Value> {
        let (id, secret) = self.key.clone();
        let credentials = Credentials::new(id, secret, None, None, "lab");
        let now = SystemTime::now();
        let token = eks_token::mint(&credentials, &self.region, &self.cluster, now).ok()?;
        let bearer = token.expose();
        let request = self.http.get(format!("{}{path}", self.server)).bearer_auth(bearer);
        let answer = request.timeout(ANSWER).send().await.ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }
}
