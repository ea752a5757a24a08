//! The bearer token of EKS: a presigned `sts:GetCallerIdentity` that the cluster replays to learn who
//! is asking.
//!
//! The signature is made for `sts.<region>.<partition suffix>` and nothing else: the cluster accepts
//! no other host, so endpoint variables must not reach here. Pure given credentials and time.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What every token begins with.
pub const PREFIX: &str = "k8s-aws-v1.";
/// What the signature says of its own life (`X-Amz-Expires`), as `aws eks get-token` signs it.
const SIGNED_FOR: Duration = Duration::from_secs(60);
/// How long the cluster takes a token: 15 minutes from its date, less one for skew.
pub const VALID_FOR: Duration = Duration::from_secs(14 * 60);
/// The header that binds a token to one cluster.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

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
        source: v4::signing_params::BuildError,
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
        source: aws_sigv4::http_request::SigningError,
    },
}

/// Makes the token with which `credentials` speak to `cluster`.
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
    let base = format!(
        "https://sts.{region}.{}/?Action=GetCallerIdentity&Version=2011-06-15",
        partition_suffix(region)
    );
    let headers = std::iter::once((CLUSTER_HEADER, cluster));
    let request = SignableRequest::new("GET", base.as_str(), headers, SignableBody::empty())
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

    let mut url = base;
    for (name, value) in instructions.params() {
        url.push('&');
        url.push_str(name);
        url.push('=');
        percent_encode_into(&mut url, value);
    }
    Ok(Token { text: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(url)), expires: at + VALID_FOR })
}

/// The DNS suffix of the partition that a region belongs to.
#[must_use]
pub fn partition_suffix(region: &str) -> &'static str {
    const SUFFIXES: [(&str, &str); 6] = [
        ("cn-", "amazonaws.com.cn"),
        ("us-isob-", "sc2s.sgov.gov"),
        ("us-isof-", "csp.hci.ic.gov"),
        ("us-iso-", "c2s.ic.gov"),
        ("eu-isoe-", "cloud.adc-e.uk"),
        ("eusc-", "amazonaws.eu"),
    ];
    SUFFIXES
        .into_iter()
        .find_map(|(prefix, suffix)| region.starts_with(prefix).then_some(suffix))
        .unwrap_or("amazonaws.com")
}

/// Percent-encodes as SigV4 counts it: everything but RFC 3986's unreserved characters.
fn percent_encode_into(url: &mut String, value: &str) {
    use fmt::Write as _;
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            write!(url, "%{byte:02X}").expect("writing to a string does not fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-20T20:00:00Z.
    const AT: Duration = Duration::from_secs(1_795_204_800);
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn url_of(region: &str, session: Option<&str>) -> String {
        let credentials =
            Credentials::new("AKIDEXAMPLE", KEY, session.map(str::to_owned), None, "test");
        let token = mint(&credentials, region, "prod", SystemTime::UNIX_EPOCH + AT).unwrap();
        let encoded = token.expose().strip_prefix(PREFIX).unwrap();
        assert!(!encoded.contains('='), "the cluster refuses padding");
        String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
    }

    /// The URL that botocore 1.43's SigV4QueryAuth makes of the same input, at a frozen clock.
    #[test]
    fn matches_what_botocore_signs() {
        assert_eq!(
            url_of("us-east-1", None),
            "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15\
             &X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20261120%2Fus-east-1%2Fsts%2Faws4_request\
             &X-Amz-Date=20261120T200000Z&X-Amz-Expires=60\
             &X-Amz-SignedHeaders=host%3Bx-k8s-aws-id\
             &X-Amz-Signature=dbc1c46df06470628ac0645835223c779c7c13e272869ee7a43c46ef577093be"
        );
    }

    /// The same with a session token, whose place in the query is the signer's own choice: the
    /// signature covers the sorted query, so signature and parameters are compared.
    #[test]
    fn matches_what_botocore_signs_for_a_role_in_china() {
        let url = url_of("cn-north-1", Some("IQoJb3JpZ2luX2VjEXAMPLE//+token=="));
        assert!(url.starts_with("https://sts.cn-north-1.amazonaws.com.cn/?"), "{url}");
        for parameter in [
            "X-Amz-Credential=AKIDEXAMPLE%2F20261120%2Fcn-north-1%2Fsts%2Faws4_request",
            "X-Amz-Security-Token=IQoJb3JpZ2luX2VjEXAMPLE%2F%2F%2Btoken%3D%3D",
            "X-Amz-Signature=16de7e92c1d03808cf9f0bdd7e17410b4b4fe2f36b5caf219a36af62b0ec02cc",
        ] {
            assert!(
                url.split(['?', '&']).any(|part| part == parameter),
                "{parameter} not in {url}"
            );
        }
    }

    #[test]
    fn partitions() {
        for (region, suffix) in [
            ("us-east-1", "amazonaws.com"),
            ("us-gov-west-1", "amazonaws.com"),
            ("cn-northwest-1", "amazonaws.com.cn"),
            ("us-iso-east-1", "c2s.ic.gov"),
            ("us-isob-east-1", "sc2s.sgov.gov"),
            ("us-isof-south-1", "csp.hci.ic.gov"),
            ("eu-isoe-west-1", "cloud.adc-e.uk"),
            ("eusc-de-east-1", "amazonaws.eu"),
        ] {
            assert_eq!(partition_suffix(region), suffix, "{region}");
        }
    }

    #[test]
    fn a_token_does_not_show_itself() {
        let credentials = Credentials::new("AKIDEXAMPLE", KEY, None, None, "test");
        let token = mint(&credentials, "us-east-1", "prod", SystemTime::UNIX_EPOCH + AT).unwrap();
        assert!(!format!("{token:?}").contains("aHR0"));
        assert_eq!(token.expires(), SystemTime::UNIX_EPOCH + AT + VALID_FOR);
    }

    #[test]
    fn a_cluster_name_that_is_no_header_is_refused() {
        let credentials = Credentials::new("AKIDEXAMPLE", KEY, None, None, "test");
        assert!(mint(&credentials, "us-east-1", "a\nb", SystemTime::UNIX_EPOCH + AT).is_err());
    }
}
