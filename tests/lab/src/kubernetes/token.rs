//! Takes a bearer token `k8s-aws-v1.…` apart and refuses what EKS refuses. Pure.
//!
//! The rules are those of aws-iam-authenticator, which EKS runs: a token is a presigned
//! `GetCallerIdentity` for STS and nothing else may be smuggled into it.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::names::partition_suffix;
use eks_token::PREFIX;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use url::Url;

const MAX_LENGTH: usize = 16 * 1024;
/// STS honours a presigned request this long, whatever its `X-Amz-Expires` says.
const VALID_FOR: Duration = Duration::from_secs(15 * 60);
/// A clock that is ahead of ours by more than this signs tokens that STS refuses.
const AHEAD_BY: Duration = Duration::from_secs(5 * 60);
const ALLOWED: &[&str] = &[
    "action",
    "version",
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-security-token",
    "x-amz-signature",
    "x-amz-signedheaders",
];

/// Why a token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum TokenError {
    /// It is not one of EKS's at all.
    #[error("token is missing expected prefix, or is not base64url without padding")]
    Format,
    /// It is longer than any token.
    #[error("token is too large")]
    TooLarge,
    /// What it carries is not a URL.
    #[error("token does not carry a URL")]
    NotAUrl,
    /// Not `https`.
    #[error("unexpected scheme `{0}` in pre-signed URL")]
    Scheme(String),
    /// Not the regional STS.
    #[error("unexpected hostname `{0}` in pre-signed URL")]
    Host(String),
    /// Not the root.
    #[error("unexpected path `{0}` in pre-signed URL")]
    Path(String),
    /// A parameter that does not belong there, or is there twice.
    #[error("unexpected or repeated query parameter `{0}` in pre-signed URL")]
    Parameter(String),
    /// Not `GetCallerIdentity`.
    #[error("unexpected action parameter in pre-signed URL")]
    Action,
    /// The header that names the cluster is not signed.
    #[error("client did not sign the x-k8s-aws-id header in the pre-signed URL")]
    ClusterNotSigned,
    /// No lifetime, or one that is too long.
    #[error("invalid X-Amz-Expires parameter in pre-signed URL")]
    Expires,
    /// No date, or not a date.
    #[error("invalid X-Amz-Date parameter in pre-signed URL")]
    Date,
    /// Signed too long ago.
    #[error("X-Amz-Date parameter is expired")]
    Expired,
    /// Signed in the future.
    #[error("X-Amz-Date parameter lies in the future")]
    NotYet,
}

/// Checks a token's form and age, and answers the presigned URL in it. Whether the signature covers
/// this cluster's name is for STS to say.
pub(super) fn take_apart(token: &str, region: &str, now: Timestamp) -> Result<Url, TokenError> {
    if token.len() > MAX_LENGTH {
        return Err(TokenError::TooLarge);
    }
    let encoded = token.strip_prefix(PREFIX).ok_or(TokenError::Format)?;
    let decoded = URL_SAFE_NO_PAD.decode(encoded).map_err(|_| TokenError::Format)?;
    let text = String::from_utf8(decoded).map_err(|_| TokenError::NotAUrl)?;
    let url = Url::parse(&text).map_err(|_| TokenError::NotAUrl)?;
    check_place(&url, region)?;
    let query = parameters(&url)?;
    if query.get("action").map(String::as_str) != Some("GetCallerIdentity") {
        return Err(TokenError::Action);
    }
    let signed = query.get("x-amz-signedheaders").map(String::as_str).unwrap_or_default();
    if !signed.split(';').any(|header| header.eq_ignore_ascii_case("x-k8s-aws-id")) {
        return Err(TokenError::ClusterNotSigned);
    }
    let expires = query.get("x-amz-expires").and_then(|value| value.parse::<u64>().ok());
    if expires.is_none_or(|seconds| seconds > VALID_FOR.as_secs()) {
        return Err(TokenError::Expires);
    }
    let date = query.get("x-amz-date").and_then(|date| parse_date(date)).ok_or(TokenError::Date)?;
    check_age(date, now)?;
    Ok(url)
}

fn check_place(url: &Url, region: &str) -> Result<(), TokenError> {
    if url.scheme() != "https" {
        return Err(TokenError::Scheme(url.scheme().to_owned()));
    }
    let host = url.host_str().unwrap_or_default();
    if host != format!("sts.{region}.{}", partition_suffix(region)) || url.port().is_some() {
        return Err(TokenError::Host(host.to_owned()));
    }
    if url.path() != "/" {
        return Err(TokenError::Path(url.path().to_owned()));
    }
    Ok(())
}

fn parameters(url: &Url) -> Result<BTreeMap<String, String>, TokenError> {
    let mut query = BTreeMap::new();
    for (key, value) in url.query_pairs() {
        let key = key.to_ascii_lowercase();
        let fresh = ALLOWED.contains(&key.as_str()) && !query.contains_key(&key);
        if !fresh {
            return Err(TokenError::Parameter(key));
        }
        query.insert(key, value.into_owned());
    }
    Ok(query)
}

fn parse_date(date: &str) -> Option<Timestamp> {
    let at = DateTime::strptime("%Y%m%dT%H%M%SZ", date).ok()?;
    Some(at.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

fn check_age(date: Timestamp, now: Timestamp) -> Result<(), TokenError> {
    let age = now.duration_since(date);
    if age > jiff::SignedDuration::try_from(VALID_FOR).unwrap_or_default() {
        return Err(TokenError::Expired);
    }
    if -age > jiff::SignedDuration::try_from(AHEAD_BY).unwrap_or_default() {
        return Err(TokenError::NotYet);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: &str = "https://sts.us-east-1.amazonaws.com/";
    const QUERY: &str = "Action=GetCallerIdentity&Version=2011-06-15\
        &X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKID%2F20261120%2Fus-east-1\
        &X-Amz-Date=20261120T120000Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id\
        &X-Amz-Signature=00";

    fn check(url: &str, now: &str) -> Result<Url, TokenError> {
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(url));
        take_apart(&token, "us-east-1", now.parse().unwrap())
    }

    #[test]
    fn what_eks_refuses_is_refused_for_its_own_reason() {
        let now = "2026-11-20T12:00:30Z";
        let good = format!("{HOST}?{QUERY}");
        assert!(check(&good, now).is_ok());
        let table = [
            (good.replace("https:", "http:"), now, TokenError::Scheme("http".into())),
            (
                good.replace("sts.us-east-1.amazonaws.com", "127.0.0.1:4566"),
                now,
                TokenError::Host("127.0.0.1".into()),
            ),
            (
                good.replace("sts.us-east-1", "sts.eu-west-1"),
                now,
                TokenError::Host("sts.eu-west-1.amazonaws.com".into()),
            ),
            (
                good.replace(".amazonaws.com/", ".amazonaws.com.evil.example/"),
                now,
                TokenError::Host("sts.us-east-1.amazonaws.com.evil.example".into()),
            ),
            (good.replace(".com/?", ".com/x?"), now, TokenError::Path("/x".into())),
            (good.replace("GetCallerIdentity", "AssumeRole"), now, TokenError::Action),
            (format!("{good}&RoleArn=x"), now, TokenError::Parameter("rolearn".into())),
            (format!("{good}&action=x"), now, TokenError::Parameter("action".into())),
            (good.replace("%3Bx-k8s-aws-id", ""), now, TokenError::ClusterNotSigned),
            (good.replace("Expires=60", "Expires=901"), now, TokenError::Expires),
            (good.replace("&X-Amz-Expires=60", ""), now, TokenError::Expires),
            (good.replace("20261120T120000Z", "yesterday"), now, TokenError::Date),
            (good.clone(), "2026-11-20T12:15:01Z", TokenError::Expired),
            (good.clone(), "2026-11-20T11:54:00Z", TokenError::NotYet),
        ];
        for (url, at, expected) in table {
            assert_eq!(check(&url, at), Err(expected), "{url} at {at}");
        }
        // Beyond X-Amz-Expires, within the 15 minutes that STS grants.
        assert!(check(&good, "2026-11-20T12:14:59Z").is_ok());
    }

    /// What the AWS CLI mints is taken in its own region for 15 minutes, and nowhere else; what it
    /// signs for a host that an endpoint variable names is taken nowhere.
    #[test]
    fn of_the_aws_clis_tokens_only_those_for_the_real_host_are_taken() {
        let golden = include_str!("../../../../eks-token/golden/aws-cli.json");
        let golden: serde_json::Value = serde_json::from_str(golden).unwrap();
        let at: Timestamp = golden["at"].as_str().unwrap().parse().unwrap();
        let mut moved = 0;
        for case in golden["cases"].as_array().unwrap() {
            let (token, region) = (case["status"]["token"].as_str().unwrap(), &case["region"]);
            let judge = |region: &str, now| take_apart(token, region, now);
            let region = region.as_str().unwrap();
            if let Some(endpoint) = case["stsEndpoint"].as_str() {
                let refused = judge(region, at).unwrap_err();
                let by_place = matches!(refused, TokenError::Host(_) | TokenError::Scheme(_));
                assert!(by_place, "{endpoint}: {refused}");
                moved += 1;
                continue;
            }
            assert!(judge(region, at).is_ok(), "{region}");
            assert!(matches!(judge("ap-south-1", at), Err(TokenError::Host(_))), "{region}");
            let late = at + jiff::SignedDuration::from_secs(15 * 60 + 1);
            assert_eq!(judge(region, late), Err(TokenError::Expired), "{region}");
        }
        assert!(moved > 0, "the recording holds tokens for another host");
    }

    #[test]
    fn a_token_that_is_none_is_refused() {
        let now = Timestamp::UNIX_EPOCH;
        for token in ["", "abc", "k8s-aws-v1.***", "k8s-aws-v1.YQ=="] {
            assert_eq!(take_apart(token, "us-east-1", now), Err(TokenError::Format), "{token}");
        }
        let long = format!("{PREFIX}{}", "a".repeat(MAX_LENGTH));
        assert_eq!(take_apart(&long, "us-east-1", now), Err(TokenError::TooLarge));
    }
}
