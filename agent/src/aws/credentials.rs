//! The credentials of the instance's role, from the metadata service.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError as ProviderError;
use aws_credential_types::provider::future::ProvideCredentials as Provided;
use aws_credential_types::provider::{ProvideCredentials, Result as ProviderResult};
use jiff::Timestamp;
use serde::Deserialize;

use super::imds::{Imds, ImdsError};
use crate::host::Deadline;

const PATH: &str = "meta-data/iam/security-credentials/";

/// How long before their end the credentials are renewed, as the SDKs do.
const RENEW: Duration = Duration::from_secs(300);

/// Why there are no credentials.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The instance has no role.
    #[error("the instance has no role")]
    NoRole,
    /// The service answers that it could not assume the role.
    #[error("the role `{role}` cannot be assumed: {code}")]
    Refused {
        /// The role.
        role: String,
        /// The service's own word.
        code: String,
    },
    /// The metadata service failed.
    #[error("could not read the role's credentials")]
    Imds(#[source] ImdsError),
    /// The answer is not what the service documents.
    #[error("the credentials of the role `{role}` cannot be read")]
    Malformed {
        /// The role.
        role: String,
    },
}

/// The role's credentials, kept until shortly before they end.
#[derive(Clone, Debug)]
pub struct RoleCredentials {
    imds: Arc<Imds>,
    held: Arc<tokio::sync::Mutex<Option<Credentials>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    code: String,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    secret_access_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expiration: String,
}

impl RoleCredentials {
    /// Credentials from `imds`.
    #[must_use]
    pub fn new(imds: Arc<Imds>) -> Self {
        Self { imds, held: Arc::default() }
    }

    /// Credentials that are valid for some minutes at least.
    ///
    /// # Errors
    /// When the instance has no role, or the metadata service does not hand out its credentials.
    pub async fn get(&self, deadline: Deadline) -> Result<Credentials, CredentialsError> {
        let mut held = self.held.lock().await;
        if let Some(credentials) = held.as_ref()
            && credentials.expiry().is_none_or(|end| SystemTime::now() + RENEW < end)
        {
            return Ok(credentials.clone());
        }
        let fresh = self.fetch(deadline).await?;
        *held = Some(fresh.clone());
        Ok(fresh)
    }

    async fn fetch(&self, deadline: Deadline) -> Result<Credentials, CredentialsError> {
        let role = match self.imds.text(PATH, deadline).await {
            Ok(names) => names.lines().next().unwrap_or_default().trim().to_owned(),
            Err(ImdsError::NotFound { .. }) => return Err(CredentialsError::NoRole),
            Err(error) => return Err(CredentialsError::Imds(error)),
        };
        if role.is_empty() {
            return Err(CredentialsError::NoRole);
        }
        let body = match self.imds.get(&format!("{PATH}{role}"), deadline).await {
            Ok(body) => body,
            Err(ImdsError::NotFound { .. }) => return Err(CredentialsError::NoRole),
            Err(error) => return Err(CredentialsError::Imds(error)),
        };
        parse(&role, &body)
    }
}

fn parse(role: &str, body: &[u8]) -> Result<Credentials, CredentialsError> {
    let malformed = || CredentialsError::Malformed { role: role.into() };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| malformed())?;
    if answer.code != "Success" {
        return Err(CredentialsError::Refused { role: role.into(), code: answer.code });
    }
    if answer.access_key_id.is_empty() || answer.secret_access_key.is_empty() {
        return Err(malformed());
    }
    let expiry: Timestamp = answer.expiration.parse().map_err(|_| malformed())?;
    Ok(Credentials::new(
        answer.access_key_id,
        answer.secret_access_key,
        Some(answer.token),
        Some(SystemTime::from(expiry)),
        "imds",
    ))
}

impl ProvideCredentials for RoleCredentials {
    fn provide_credentials<'a>(&'a self) -> Provided<'a>
    where
        Self: 'a,
    {
        let provide = async {
            let deadline = Deadline::within(Duration::from_secs(10));
            let result: ProviderResult =
                self.get(deadline).await.map_err(ProviderError::provider_error);
            result
        };
        Provided::new(provide)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::http::{Answer as Http, Server};

    fn body(code: &str, expiration: &str) -> String {
        format!(
            r#"{{"Code":"{code}","AccessKeyId":"ASIA1","SecretAccessKey":"s3cr3t","Token":"t0k3n","Expiration":"{expiration}"}}"#
        )
    }

    #[test]
    fn reads_what_the_service_documents() {
        let credentials =
            parse("node", body("Success", "2099-01-01T00:00:00Z").as_bytes()).unwrap();
        assert_eq!(credentials.access_key_id(), "ASIA1");
        assert_eq!(credentials.session_token(), Some("t0k3n"));
        assert!(credentials.expiry().unwrap() > SystemTime::now());
        let shown = format!("{credentials:?}");
        assert!(!shown.contains("s3cr3t") && !shown.contains("t0k3n"), "{shown}");
        for (text, expected) in [
            (body("AssumeRoleUnauthorizedAccess", ""), "cannot be assumed"),
            ("{}".into(), "cannot be read"),
            (body("Success", "soon"), "cannot be read"),
        ] {
            let error = parse("node", text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("s3cr3t"));
        }
    }

    #[tokio::test]
    async fn fetched_once_while_they_last() {
        let server = Server::start(|request| match request.split(' ').nth(1).unwrap() {
            "/latest/api/token" => Http::ok("T"),
            "/latest/meta-data/iam/security-credentials/" => Http::ok("node"),
            "/latest/meta-data/iam/security-credentials/node" => {
                Http::ok(body("Success", "2099-01-01T00:00:00Z"))
            }
            other => panic!("{other}"),
        })
        .await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&server.url())));
        let deadline = Deadline::within(Duration::from_secs(10));
        credentials.get(deadline).await.unwrap();
        credentials.provide_credentials().await.unwrap();
        assert_eq!(server.requests().len(), 3);
    }

    #[tokio::test]
    async fn an_instance_without_a_role_is_named() {
        let server = Server::start(|request| match request.starts_with("PUT") {
            true => Http::ok("T"),
            false => Http::status(404, ""),
        })
        .await;
        let credentials = RoleCredentials::new(Arc::new(Imds::at(&server.url())));
        let error = credentials.get(Deadline::within(Duration::from_secs(10))).await.unwrap_err();
        assert!(matches!(error, CredentialsError::NoRole), "{error}");
    }
}
