//! Where AWS's services are found.

use contract::names::partition_suffix;

/// The URL of a service: what the SDK's standard variables say, else its regional endpoint.
///
/// `id` is the service's name in the variables (`EC2`), `host` the one in DNS (`ec2`).
#[must_use]
pub fn url(id: &str, host: &str, region: &str) -> String {
    overridden(id).unwrap_or_else(|| format!("https://{}", regional_host(host, region)))
}

/// What `AWS_ENDPOINT_URL_<id>` or `AWS_ENDPOINT_URL` says.
#[must_use]
pub fn overridden(id: &str) -> Option<String> {
    let read = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let url = read(&format!("AWS_ENDPOINT_URL_{id}")).or_else(|| read("AWS_ENDPOINT_URL"))?;
    Some(url.trim_end_matches('/').to_owned())
}

/// A service's regional host name: `sts.eu-central-1.amazonaws.com`.
#[must_use]
pub fn regional_host(host: &str, region: &str) -> String {
    format!("{host}.{region}.{}", partition_suffix(region))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_partition() {
        assert_eq!(regional_host("sts", "us-east-1"), "sts.us-east-1.amazonaws.com");
        assert_eq!(regional_host("ec2", "cn-north-1"), "ec2.cn-north-1.amazonaws.com.cn");
    }
}
