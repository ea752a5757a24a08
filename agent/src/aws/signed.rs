//! Signed calls to services of which the node needs too little for their SDK.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
    UriPathNormalizationMode, sign,
};
use aws_sigv4::sign::v4;
use reqwest::{Method, StatusCode};

use super::RoleCredentials;
use super::credentials::CredentialsError;
use crate::host::Deadline;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// A service of AWS in one region.
#[derive(Clone, Debug)]
pub struct Service {
    http: reqwest::Client,
    credentials: RoleCredentials,
    url: String,
    name: &'static str,
    region: String,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    /// The method.
    pub method: Method,
    /// Path and query, beginning with a slash.
    pub path: &'a str,
    /// Media type of the body; empty for none.
    pub content_type: &'a str,
    /// The body.
    pub body: Vec<u8>,
}

/// Why a call to AWS did not go through.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There are no credentials to sign with.
    #[error("no credentials to call {service} with")]
    Credentials {
        /// The service.
        service: &'static str,
        /// Why.
        #[source]
        source: CredentialsError,
    },
    /// The request cannot be signed.
    #[error("could not sign a request to {service}")]
    Sign {
        /// The service.
        service: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer.
    #[error("no answer from {service} at `{url}`")]
    Unreachable {
        /// The service.
        service: &'static str,
        /// Where it was looked for.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// The service answers with an error.
    #[error("{service} answers {status}: {code}")]
    Refused {
        /// The service.
        service: &'static str,
        /// The HTTP status.
        status: StatusCode,
        /// The service's own code, or the beginning of what it said.
        code: String,
    },
}

impl CallError {
    /// Whether the node has no right to do this: asking again changes nothing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        const CODES: [&str; 3] = ["AccessDenied", "UnauthorizedOperation", "NotAuthorized"];
        match self {
            Self::Refused { status, code, .. } => {
                *status == StatusCode::FORBIDDEN || CODES.iter().any(|denied| code.contains(denied))
            }
            _ => false,
        }
    }

    /// Whether the thing asked about does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, code, .. }
            if code.contains("ResourceNotFound"))
    }
}

impl Service {
    /// The service `name` (`ec2`) at `url`.
    #[must_use]
    pub fn new(
        name: &'static str,
        url: String,
        region: &str,
        credentials: RoleCredentials,
        http: reqwest::Client,
    ) -> Self {
        Self { http, credentials, url, name, region: region.to_owned() }
    }

    /// Signs and sends one request, once.
    ///
    /// # Errors
    /// As [`CallError`] lists.
    pub async fn send(&self, call: &Call<'_>, deadline: Deadline) -> Result<String, CallError> {
        let service = self.name;
        let credentials = self.credentials.get(deadline).await;
        let credentials =
            credentials.map_err(|source| CallError::Credentials { service, source })?;
        let request = self
            .sign(call, &credentials, SystemTime::now())
            .map_err(|source| CallError::Sign { service, source })?;
        let unreachable = |source: reqwest::Error| {
            let source = source.without_url();
            CallError::Unreachable { service, url: self.url.clone(), source }
        };
        let limit = deadline.remaining().min(ATTEMPT);
        let response = request.timeout(limit).send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            Ok(text)
        } else {
            Err(CallError::Refused { service, status, code: error_code(&text) })
        }
    }

    /// S3 wants the body's hash in a header, and its keys as they are
    /// (`docs.aws.amazon.com`, "Create a signed AWS API request").
    fn settings(&self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        if self.name == "s3" {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        }
        settings
    }

    fn sign(
        &self,
        call: &Call<'_>,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<reqwest::RequestBuilder, Box<dyn std::error::Error + Send + Sync>> {
        let url = url::Url::parse(&format!("{}{}", self.url, call.path))?;
        let host = match (url.host_str(), url.port()) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => return Err("the endpoint has no host".into()),
        };
        let mut headers = vec![("host", host.as_str())];
        if !call.content_type.is_empty() {
            headers.push(("content-type", call.content_type));
        }
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.name)
            .time(now)
            .settings(self.settings())
            .build()?
            .into();
        let body = SignableBody::Bytes(&call.body);
        let signable = SignableRequest::new(
            call.method.as_str(),
            url.as_str(),
            headers.iter().copied(),
            body,
        )?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        let mut request = self.http.request(call.method.clone(), url).body(call.body.clone());
        if !call.content_type.is_empty() {
            request = request.header("content-type", call.content_type);
        }
        for (name, value) in instructions.headers() {
            request = request.header(name, value);
        }
        Ok(request)
    }
}

/// The service's own code in the XML of EC2's query protocol or in JSON; else how the text begins.
fn error_code(text: &str) -> String {
    let between = |open: &str, close: &str| {
        let rest = &text[text.find(open)? + open.len()..];
        Some(rest[..rest.find(close)?].to_owned())
    };
    let json = || {
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let code = ["__type", "code", "message", "Message"].iter().find_map(|key| value.get(*key));
        Some(code?.as_str()?.to_owned())
    };
    between("<Code>", "</Code>")
        .or_else(json)
        .unwrap_or_else(|| text.chars().take(120).collect::<String>().trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::Imds;

    fn service(url: &str) -> Service {
        let credentials = RoleCredentials::new(Arc::new(Imds::at("http://127.0.0.1:1")));
        Service {
            http: reqwest::Client::builder().tls_certs_only([]).build().unwrap(),
            credentials,
            url: url.into(),
            name: "ec2",
            region: "us-east-1".into(),
        }
    }

    /// The signature is botocore's own (`SigV4Auth`, 1.43.11) for the same input.
    #[test]
    fn signs_as_botocore_does() {
        let credentials = Credentials::new(
            "ASIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            Some("FwoGZXIvYXdzEXAMPLE/token+with=chars".into()),
            None,
            "test",
        );
        let call = Call {
            method: Method::POST,
            path: "/",
            content_type: "application/x-www-form-urlencoded; charset=utf-8",
            body: b"Action=CreateTags&Version=2016-11-15".to_vec(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_204_800);
        let request = service("https://ec2.us-east-1.amazonaws.com")
            .sign(&call, &credentials, now)
            .unwrap()
            .build()
            .unwrap();
        assert_eq!(
            request.headers()["authorization"].to_str().unwrap(),
            "AWS4-HMAC-SHA256 Credential=ASIAIOSFODNN7EXAMPLE/20261120/us-east-1/ec2/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, \
             Signature=670da14509382c97aed427f7da7f485cac0cb37e2762b08595fa4e0fdb9d1a52"
        );
    }

    #[test]
    fn finds_the_code_of_an_error() {
        for (text, code) in [
            (
                "<Response><Errors><Error><Code>UnauthorizedOperation</Code></Error>",
                "UnauthorizedOperation",
            ),
            (
                r#"{"__type":"ResourceNotFoundException","message":"x"}"#,
                "ResourceNotFoundException",
            ),
            (" oops ", "oops"),
        ] {
            assert_eq!(error_code(text), code);
        }
    }

    #[test]
    fn a_missing_right_is_told_from_a_failure() {
        let refused = |status: u16, code: &str| CallError::Refused {
            service: "ec2",
            status: StatusCode::from_u16(status).unwrap(),
            code: code.into(),
        };
        assert!(refused(403, "UnauthorizedOperation").is_denied());
        assert!(refused(400, "AccessDeniedException").is_denied());
        assert!(!refused(503, "RequestLimitExceeded").is_denied());
        assert!(refused(404, "ResourceNotFoundException").is_not_found());
        assert!(!refused(404, "no such page").is_not_found(), "some proxy's 404 proves nothing");
    }
}
