//! SigV4 signatures for the few calls that the lab makes itself.

use std::fmt;
use std::time::SystemTime;

use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode,
};
use aws_sigv4::sign::v4;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a request could not be signed.
#[derive(Debug, Error)]
#[error("could not sign a request to `{service}`")]
pub struct SignError {
    service: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// An access key, with a session token when it is temporary.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credentials {
    /// Access key id.
    pub access_key_id: String,
    /// Secret access key.
    pub secret_access_key: String,
    /// Session token of temporary credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_token: Option<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

/// What is to be signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// HTTP method.
    pub method: &'a str,
    /// Whole URL, percent-encoded.
    pub url: &'a str,
    /// Headers that the signature covers, `host` apart.
    pub headers: &'a [(&'a str, &'a str)],
    /// Body.
    pub body: &'a [u8],
    /// Signing name of the service: `sts`, `s3`.
    pub service: &'a str,
    /// Region.
    pub region: &'a str,
}

/// The headers to add to a request so that it is signed as of now.
///
/// # Errors
/// When a value cannot be part of a request.
pub fn sign(
    request: Request<'_>,
    credentials: &Credentials,
) -> Result<Vec<(String, String)>, SignError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| SignError {
        service: request.service.to_owned(),
        source,
    };
    let identity = aws_credential_types::Credentials::new(
        &credentials.access_key_id,
        &credentials.secret_access_key,
        credentials.session_token.clone(),
        None,
        "lab",
    )
    .into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(request.region)
        .name(request.service)
        .time(SystemTime::now())
        .settings(settings(request.service))
        .build()
        .map_err(|e| failed(Box::new(e)))?
        .into();
    let signable = SignableRequest::new(
        request.method,
        request.url,
        request.headers.iter().copied(),
        SignableBody::Bytes(request.body),
    )
    .map_err(|e| failed(Box::new(e)))?;
    let (instructions, _) = aws_sigv4::http_request::sign(signable, &params)
        .map_err(|e| failed(Box::new(e)))?
        .into_parts();
    let headers = instructions.headers();
    Ok(headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// S3 signs the payload's checksum and takes the path as it is; the others do neither.
fn settings(service: &str) -> SigningSettings {
    let mut settings = SigningSettings::default();
    if service == "s3" {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials() -> Credentials {
        Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "very-secret".into(),
            session_token: Some("token".into()),
        }
    }

    #[test]
    fn a_secret_is_not_printed() {
        let shown = format!("{:?}", credentials());
        assert!(
            shown.contains("AKIDEXAMPLE") && !shown.contains("secret-") && !shown.contains("token")
        );
    }

    #[test]
    fn signs_with_scope_token_and_checksum() {
        let request = Request {
            method: "GET",
            url: "http://127.0.0.1:5000/bucket/key",
            headers: &[],
            body: b"",
            service: "s3",
            region: "eu-west-1",
        };
        let headers = sign(request, &credentials()).unwrap();
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
        let authorization = value("authorization").unwrap();
        assert!(authorization.starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
        assert!(authorization.contains("/eu-west-1/s3/aws4_request"));
        assert_eq!(value("x-amz-security-token"), Some("token"));
        assert!(value("x-amz-content-sha256").unwrap().starts_with("e3b0c44298fc1c14"));
        let sts = sign(Request { service: "sts", ..request }, &credentials()).unwrap();
        assert!(!sts.iter().any(|(name, _)| name == "x-amz-content-sha256"));
    }
}
