//! The bearer token of EKS: a presigned `sts:GetCallerIdentity` that the cluster replays to learn who
//! is asking.
//!
//! The signature is made for `sts.<region>.<partition suffix>` and nothing else: the cluster accepts
//! no other host, so endpoint variables never reach here. Pure given credentials and time; nothing is
//! sent to STS by us. What the AWS CLI makes of the same input stands in `golden/aws-cli.json`.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningError, SigningSettings, sign,
};
use aws_sigv4::sign::v4::{self, signing_params::BuildError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::names::partition_suffix;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What every token begins with.
pub const PREFIX: &str = "k8s-aws-v1.";
/// How long the cluster takes a token: 15 minutes from its date, less one for skew.
pub const VALID_FOR: Duration = Duration::from_secs(14 * 60);
/// What the signature says of its own life (`X-Amz-Expires`), as the AWS CLI signs it.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// The header that binds a token to one cluster.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";
/// What SigV4 escapes in a query: all but RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A bearer token. Whoever holds it is its maker, so it never shows in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    text: String,
    expires: SystemTime,
}

impl Token {
    /// The token itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// When the cluster stops to accept it.
    #[must_use]
    pub const fn expires(&self) -> SystemTime {
        self.expires
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("text", &"<redacted>")
            .field("expires", &self.expires)
            .finish()
    }
}

/// Why no token could be made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The signing parameters are incomplete.
    #[error("could not build the signing parameters for cluster `{cluster}`")]
    Parameters {
        /// The cluster.
        cluster: String,
        /// What is missing.
        #[source]
        source: BuildError,
    },
    /// The request cannot be signed: the region or the cluster's name is no legal text.
    #[error("could not sign a request for cluster `{cluster}` in region `{region}`")]
    Sign {
        /// The cluster.
        cluster: String,
        /// The region.
        region: String,
        /// What the signer says.
        #[source]
        source: SigningError,
    },
}

/// Makes the token with which `credentials` speak to `cluster`, signed at `at`.
///
/// # Errors
/// When region or cluster are no legal text for a request.
pub fn mint(
    credentials: &Credentials,
    region: &str,
    cluster: &str,
    at: SystemTime,
) -> Result<Token, TokenError> {
    let failed = |source| TokenError::Sign {
        cluster: cluster.to_owned(),
        region: region.to_owned(),
        source,
    };
    let mut url = format!(
        "https://sts.{region}.{}/?Action=GetCallerIdentity&Version=2011-06-15",
        partition_suffix(region)
    );
    let headers = std::iter::once((CLUSTER_HEADER, cluster));
    let request = SignableRequest::new("GET", url.as_str(), headers, SignableBody::empty())
        .map_err(failed)?;

    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(SIGNED_FOR);
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(at)
        .settings(settings)
        .build()
        .map_err(|source| TokenError::Parameters { cluster: cluster.to_owned(), source })?
        .into();
    let (instructions, _signature) = sign(request, &parameters).map_err(failed)?.into_parts();
    for (name, value) in instructions.params() {
        url.extend(["&", name, "="]);
        url.extend(utf8_percent_encode(value, ESCAPED));
    }
    Ok(Token { text: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(url)), expires: at + VALID_FOR })
}

#[cfg(test)]
mod tests;
