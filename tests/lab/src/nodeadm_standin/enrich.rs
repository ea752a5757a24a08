//! What nodeadm adds from the instance itself: IMDS, and EC2 for the private DNS name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::aws::{Credentials, Request, sign, xml_text};

/// nodeadm's own client tries for a minute; so does this.
const ATTEMPTS: u32 = 60;

/// How long nodeadm waits for EC2 to say the name, and between two questions.
const EC2_PATIENCE: Duration = Duration::from_secs(600);
const EC2_PAUSE: Duration = Duration::from_secs(15);

/// A client that takes the proxies of an environment, as Go's does.
fn proxied(environment: &BTreeMap<String, String>) -> reqwest::Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder().no_proxy();
    let except = environment.get("NO_PROXY").and_then(|list| reqwest::NoProxy::from_string(list));
    if let Some(proxy) = environment.get("HTTP_PROXY") {
        builder = builder.proxy(reqwest::Proxy::http(proxy)?.no_proxy(except.clone()));
    }
    if let Some(proxy) = environment.get("HTTPS_PROXY") {
        builder = builder.proxy(reqwest::Proxy::https(proxy)?.no_proxy(except));
    }
    builder.build()
}

/// Why the instance does not say who it is.
#[derive(Debug, Error)]
pub(super) enum ImdsError {
    #[error("operation error ec2imds: {path}")]
    Unreachable {
        path: String,
        #[source]
        source: reqwest::Error,
    },
    #[error("operation error ec2imds: {path}: http response error StatusCode: {status}")]
    Status { path: String, status: u16 },
    #[error("operation error EC2: DescribeInstances: {0}")]
    Ec2(String),
    #[error("operation error EC2: DescribeInstances: api error {0}")]
    Refused(String),
}

/// What the run and config phases need to know of the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct InstanceDetails {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) instance_type: String,
    pub(super) availability_zone: String,
    pub(super) region: String,
    pub(super) mac: String,
    pub(super) private_dns_name: String,
    pub(super) node_ip: String,
}

/// What the configuration makes nodeadm ask for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    /// The name that EC2 gives the instance: unless nodes are named by instance id.
    pub(super) private_dns_name: bool,
    /// The node's address is one of IPv6, as the cluster's service range is.
    pub(super) ipv6: bool,
    /// The proxy variables of nodeadm's own process.
    pub(super) proxies: &'a BTreeMap<String, String>,
}

/// A client of IMDSv2.
#[derive(Debug)]
pub(super) struct Imds {
    http: reqwest::Client,
    endpoint: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    instance_id: String,
    instance_type: String,
    availability_zone: String,
    region: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    token: Option<String>,
}

impl Imds {
    /// The node's IMDS, as the SDK's standard variable places it.
    pub(super) fn of_environment() -> Self {
        let endpoint = std::env::var("AWS_EC2_METADATA_SERVICE_ENDPOINT")
            .unwrap_or_else(|_| "http://169.254.169.254".to_owned());
        Self { http: reqwest::Client::new(), endpoint: endpoint.trim_end_matches('/').to_owned() }
    }

    #[cfg(test)]
    pub(super) fn nowhere() -> Self {
        Self { http: reqwest::Client::new(), endpoint: "http://127.0.0.1:9".into() }
    }

    /// User data; an instance without any is an error, as to nodeadm.
    pub(super) async fn user_data(&self) -> Result<Vec<u8>, ImdsError> {
        self.get("user-data").await
    }

    /// Who the instance is, as far as the configuration makes nodeadm ask.
    pub(super) async fn details(&self, wanted: Wanted<'_>) -> Result<InstanceDetails, ImdsError> {
        let document = self.get("dynamic/instance-identity/document").await?;
        let identity: Identity = serde_json::from_slice(&document).map_err(|_| {
            ImdsError::Status { path: "dynamic/instance-identity/document".into(), status: 200 }
        })?;
        let mut details = InstanceDetails {
            mac: self.text("meta-data/mac").await?,
            node_ip: String::new(),
            id: identity.instance_id,
            instance_type: identity.instance_type,
            availability_zone: identity.availability_zone,
            region: identity.region,
            private_dns_name: String::new(),
        };
        details.node_ip = if wanted.ipv6 {
            let path = format!("meta-data/network/interfaces/macs/{}/ipv6s", details.mac);
            self.text(&path).await?.lines().next().unwrap_or_default().to_owned()
        } else {
            self.text("meta-data/local-ipv4").await?
        };
        if wanted.private_dns_name {
            details.private_dns_name = self.wait_for_name(&details, wanted.proxies).await?;
        }
        Ok(details)
    }

    /// An answer of EC2's that is an error is waited over, as nodeadm does; no answer is fatal.
    async fn wait_for_name(
        &self,
        details: &InstanceDetails,
        proxies: &BTreeMap<String, String>,
    ) -> Result<String, ImdsError> {
        let deadline = Instant::now() + EC2_PATIENCE;
        loop {
            match self.private_dns_name(details, proxies).await {
                Err(ImdsError::Refused(_)) if Instant::now() < deadline => {
                    tokio::time::sleep(EC2_PAUSE).await;
                }
                done => return done,
            }
        }
    }

    async fn private_dns_name(
        &self,
        details: &InstanceDetails,
        proxies: &BTreeMap<String, String>,
    ) -> Result<String, ImdsError> {
        let role = self.text("meta-data/iam/security-credentials/").await?;
        let path = format!("meta-data/iam/security-credentials/{}", role.trim());
        let role: RoleCredentials = serde_json::from_slice(&self.get(&path).await?)
            .map_err(|e| ImdsError::Ec2(e.to_string()))?;
        let credentials = Credentials {
            access_key_id: role.access_key_id,
            secret_access_key: role.secret_access_key,
            session_token: role.token,
        };
        let endpoint = std::env::var("AWS_ENDPOINT_URL_EC2")
            .or_else(|_| std::env::var("AWS_ENDPOINT_URL"))
            .unwrap_or_else(|_| format!("https://ec2.{}.amazonaws.com", details.region));
        let url = format!("{}/", endpoint.trim_end_matches('/'));
        let body =
            format!("Action=DescribeInstances&Version=2016-11-15&InstanceId.1={}", details.id);
        let kind = [("content-type", "application/x-www-form-urlencoded")];
        let request = Request {
            method: "POST",
            url: &url,
            headers: &kind,
            body: body.as_bytes(),
            service: "ec2",
            region: &details.region,
        };
        let signed = sign(request, &credentials).map_err(|e| ImdsError::Ec2(e.to_string()))?;
        let http = proxied(proxies).map_err(|e| ImdsError::Ec2(e.to_string()))?;
        let mut builder = http.post(&url).header(kind[0].0, kind[0].1).body(body.clone());
        for (name, value) in signed {
            builder = builder.header(name, value);
        }
        let ec2 = |e: reqwest::Error| ImdsError::Ec2(contract::ErrorChain(&e).to_string());
        let answer = builder.timeout(Duration::from_secs(30)).send().await.map_err(ec2)?;
        let status = answer.status();
        let xml = answer.text().await.map_err(ec2)?;
        if !status.is_success() {
            let code = xml_text(&xml, "Code").unwrap_or_else(|| status.to_string());
            return Err(ImdsError::Refused(code));
        }
        xml_text(&xml, "privateDnsName")
            .filter(|name| !name.is_empty())
            .ok_or_else(|| ImdsError::Ec2("no private DNS name".into()))
    }

    async fn text(&self, path: &str) -> Result<String, ImdsError> {
        Ok(String::from_utf8_lossy(&self.get(path).await?).trim().to_owned())
    }

    /// One document; an unreachable or ailing service is tried again.
    async fn get(&self, path: &str) -> Result<Vec<u8>, ImdsError> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.try_get(path).await {
                Err(ImdsError::Unreachable { .. } | ImdsError::Status { status: 500.., .. })
                    if attempt < ATTEMPTS =>
                {
                    tokio::time::sleep(Duration::from_millis(u64::from(attempt.min(10)) * 100))
                        .await;
                }
                done => return done,
            }
        }
    }

    async fn try_get(&self, path: &str) -> Result<Vec<u8>, ImdsError> {
        let unreachable = |source| ImdsError::Unreachable { path: path.to_owned(), source };
        let token = self
            .http
            .put(format!("{}/latest/api/token", self.endpoint))
            .header("x-aws-ec2-metadata-token-ttl-seconds", "300")
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .map_err(unreachable)?;
        if !token.status().is_success() {
            let status = token.status().as_u16();
            return Err(ImdsError::Status { path: "api/token".into(), status });
        }
        let token = token.text().await.map_err(unreachable)?;
        let answer = self
            .http
            .get(format!("{}/latest/{path}", self.endpoint))
            .header("x-aws-ec2-metadata-token", token)
            .timeout(Duration::from_secs(5))
            .send()
            .await
            .map_err(unreachable)?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(ImdsError::Status { path: path.to_owned(), status });
        }
        Ok(answer.bytes().await.map_err(unreachable)?.to_vec())
    }
}
