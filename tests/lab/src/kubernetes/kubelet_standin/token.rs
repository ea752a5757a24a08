//! The token, as `aws eks get-token` makes it: a presigned `GetCallerIdentity` for the regional STS,
//! with the cluster's name in a signed header. It is the double of the AWS CLI, and so written apart
//! from the products' own.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{
    SignableBody, SignableRequest, SignatureLocation, SigningParams, SigningSettings, sign,
};
use aws_sigv4::sign::v4;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

/// What the CLI puts into `X-Amz-Expires`; EKS honours the token for 15 minutes all the same.
const EXPIRES: Duration = Duration::from_secs(60);

/// Mints a token for a cluster.
///
/// # Errors
///
/// When the request cannot be signed.
pub(in crate::kubernetes) fn mint(
    credentials: Credentials,
    region: &str,
    cluster: &str,
    time: SystemTime,
) -> Result<String, String> {
    let host = format!("sts.{region}.amazonaws.com");
    let address = format!("https://{host}/?Action=GetCallerIdentity&Version=2011-06-15");
    let mut url = Url::parse(&address).map_err(|error| error.to_string())?;
    let mut settings = SigningSettings::default();
    settings.signature_location = SignatureLocation::QueryParams;
    settings.expires_in = Some(EXPIRES);
    let identity = credentials.into();
    let params: SigningParams<'_> = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("sts")
        .time(time)
        .settings(settings)
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let headers = [("host", host.as_str()), ("x-k8s-aws-id", cluster)];
    let request =
        SignableRequest::new("GET", &address, headers.into_iter(), SignableBody::Bytes(&[]));
    let request = request.map_err(|error| error.to_string())?;
    let signed = sign(request, &params).map_err(|error| error.to_string())?;
    let (instructions, _signature) = signed.into_parts();
    for (name, value) in instructions.params() {
        url.query_pairs_mut().append_pair(name, value);
    }
    Ok(format!("k8s-aws-v1.{}", URL_SAFE_NO_PAD.encode(url.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_a_presigned_request_with_the_cluster_signed() {
        let credentials =
            Credentials::new("AKID", "secret", Some("session/+=".into()), None, "test");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_176_000);
        let token = mint(credentials, "us-east-1", "prod", time).unwrap();
        let encoded = token.strip_prefix("k8s-aws-v1.").unwrap();
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap();
        let url = Url::parse(&url).unwrap();
        assert_eq!(url.host_str(), Some("sts.us-east-1.amazonaws.com"));
        let value = |name: &str| {
            url.query_pairs().find(|(key, _)| key == name).map(|(_, v)| v.into_owned()).unwrap()
        };
        assert_eq!(value("X-Amz-SignedHeaders"), "host;x-k8s-aws-id");
        assert_eq!(value("X-Amz-Security-Token"), "session/+=");
        assert_eq!(value("X-Amz-Expires"), "60");
        assert!(value("X-Amz-Credential").starts_with("AKID/"));
        assert!(!url.as_str().contains("secret"));
    }
}
