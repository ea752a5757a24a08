//! The bearer token that EKS takes: a presigned `GetCallerIdentity`.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::endpoint::regional_host;

/// What every token begins with.
const PREFIX: &str = "k8s-aws-v1.";

/// The header that binds a token to one cluster.
const CLUSTER_HEADER: &str = "x-k8s-aws-id";

/// How long the signature says that it is valid, as the AWS CLI signs. EKS itself takes a token for
/// 15 minutes after its date.
const EXPIRES: Duration = Duration::from_secs(60);

/// The request could not be signed.
#[derive(Debug, thiserror::Error)]
#[error("could not sign the token for the cluster `{cluster}`")]
pub struct TokenError {
    cluster: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A token for `cluster`, signed at `now`.
///
/// It always names the regional STS host: EKS refuses any other, so endpoint variables never change
/// it, and nothing is sent there by us.
///
/// # Errors
/// When a name in it cannot stand in a request.
pub fn mint(
    credentials: &Credentials,
    region: &str,
    cluster: &str,
    now: SystemTime,
) -> Result<String, TokenError> {
    presign(credentials, region, cluster, now)
        .map(|url| format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(url)))
        .map_err(|source| TokenError { cluster: cluster.to_owned(), source })
}

fn presign(
    credentials: &Credentials,
    region: &str,
    cluster: &str,
    now: SystemTime,
) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let host = regional_host("sts", region);
    let url = format!("https://{host}/?Action=GetCallerIdentity&Version=2011-06-15");

    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(now)
        .settings(settings)
        .build()?
        .into();
    let headers = [("host", host.as_str()), (CLUSTER_HEADER, cluster)];
    let request =
        SignableRequest::new("GET", url.as_str(), headers.into_iter(), SignableBody::empty())?;
    let (instructions, _) = sign(request, &parameters)?.into_parts();

    let mut signed = url::Url::parse(&url)?;
    for (name, value) in instructions.params() {
        signed.query_pairs_mut().append_pair(name, value);
    }
    Ok(signed.into())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// 2026-11-20T20:00:00Z.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_204_800)
    }

    fn credentials() -> Credentials {
        let token = "FwoGZXIvYXdzEXAMPLE/token+with=chars".to_owned();
        Credentials::new(
            "ASIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            Some(token),
            None,
            "test",
        )
    }

    fn parameters(url: &str) -> BTreeMap<String, String> {
        url::Url::parse(url).unwrap().query_pairs().into_owned().collect()
    }

    /// The URLs are botocore's own (`SigV4QueryAuth`, 1.43.11) for the same input.
    #[test]
    fn signs_as_botocore_does() {
        for (region, golden) in [
            (
                "us-east-1",
                "https://sts.us-east-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAIOSFODNN7EXAMPLE%2F20261120%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date=20261120T200000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2Ftoken%2Bwith%3Dchars&X-Amz-Signature=7f7ee986d2c7c9513cada843f7ec08d15479fbb14c54b3716908ef030171a996",
            ),
            (
                "cn-north-1",
                "https://sts.cn-north-1.amazonaws.com.cn/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=ASIAIOSFODNN7EXAMPLE%2F20261120%2Fcn-north-1%2Fsts%2Faws4_request&X-Amz-Date=20261120T200000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id&X-Amz-Security-Token=FwoGZXIvYXdzEXAMPLE%2Ftoken%2Bwith%3Dchars&X-Amz-Signature=5f9a0d45d4be6f3de287b7c00ec8e92404da66bc789722cc50d3f9c7f1041c09",
            ),
        ] {
            let token = mint(&credentials(), region, "prod", now()).unwrap();
            let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
            assert!(!encoded.contains('='), "padded");
            let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
            assert_eq!(parameters(&url), parameters(golden));
            assert_eq!(url.split('?').next(), golden.split('?').next());
            assert!(!url.contains('+'), "a plus would be read as a blank: {url}");
        }
    }

    #[test]
    fn another_cluster_gets_another_signature() {
        let one = mint(&credentials(), "us-east-1", "prod", now()).unwrap();
        let other = mint(&credentials(), "us-east-1", "other", now()).unwrap();
        assert_ne!(one, other);
    }
}
