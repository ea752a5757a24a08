//! The few questions that kubelet's credential helper asks of the instance metadata service.

use std::time::Duration;

use aws_credential_types::Credentials;
use serde::Deserialize;

const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const TOKEN_SECONDS: &str = "60";

/// An IMDSv2 client.
#[derive(Debug, Clone)]
pub(super) struct Imds {
    base: String,
    client: reqwest::Client,
}

/// The role's credentials, as IMDS spells them. Not `Debug`: they are secret.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

impl Imds {
    pub(super) fn new(base: &str) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build()?;
        Ok(Self { base: base.trim_end_matches('/').to_owned(), client })
    }

    async fn token(&self) -> Result<String, reqwest::Error> {
        let request = self.client.put(format!("{}/latest/api/token", self.base));
        let request = request.header("X-aws-ec2-metadata-token-ttl-seconds", TOKEN_SECONDS);
        request.send().await?.error_for_status()?.text().await
    }

    /// The value at a path below `meta-data`.
    pub(super) async fn meta_data(&self, path: &str) -> Result<String, reqwest::Error> {
        let token = self.token().await?;
        let request = self.client.get(format!("{}/latest/meta-data/{path}", self.base));
        let request = request.header("X-aws-ec2-metadata-token", token);
        request.send().await?.error_for_status()?.text().await
    }

    /// The instance's role credentials.
    pub(super) async fn credentials(&self) -> Result<Credentials, String> {
        let failed = |error: reqwest::Error| {
            format!("Unable to locate credentials: {}", contract::ErrorChain(&error))
        };
        let role = self.meta_data("iam/security-credentials/").await.map_err(failed)?;
        let role = role.lines().next().unwrap_or_default().trim().to_owned();
        let text = self.meta_data(&format!("iam/security-credentials/{role}")).await;
        let parsed: RoleCredentials = serde_json::from_str(&text.map_err(failed)?)
            .map_err(|error| format!("Unable to locate credentials: {error}"))?;
        Ok(Credentials::new(
            parsed.access_key_id,
            parsed.secret_access_key,
            Some(parsed.token),
            None,
            "instance metadata",
        ))
    }
}
