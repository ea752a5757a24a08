//! Where AWS's services are found.

use std::collections::BTreeMap;
use std::env;

use contract::names::partition_suffix;

/// The services that the agent calls or probes, as the SDK's standard variables name them.
const SERVICES: [&str; 5] = ["EC2", "ECR", "EKS", "SSM", "STS"];

/// What the SDK's standard variables say of endpoints.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    all: Option<String>,
    own: BTreeMap<&'static str, String>,
}

impl Endpoints {
    /// `AWS_ENDPOINT_URL_<service>` and `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn from_env() -> Self {
        let read = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let own = |service| Some((service, read(&format!("AWS_ENDPOINT_URL_{service}"))?));
        Self { all: read("AWS_ENDPOINT_URL"), own: SERVICES.into_iter().filter_map(own).collect() }
    }

    /// Every service at `url`.
    #[must_use]
    pub fn all_at(url: impl Into<String>) -> Self {
        Self { all: Some(url.into()), own: BTreeMap::new() }
    }

    /// The URL that the variables give a service.
    #[must_use]
    pub fn overridden(&self, service: &str) -> Option<String> {
        let url = self.own.get(service).or(self.all.as_ref())?;
        Some(url.trim_end_matches('/').to_owned())
    }

    /// The URL of a service: what the variables say, else its regional endpoint.
    ///
    /// `service` is its name in the variables (`EC2`), `host` the one in DNS (`ec2`).
    #[must_use]
    pub fn url(&self, service: &str, host: &str, region: &str) -> String {
        let regional = || format!("https://{}", regional_host(host, region));
        self.overridden(service).unwrap_or_else(regional)
    }
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

    #[test]
    fn a_services_own_variable_outranks_the_common_one() {
        let mut endpoints = Endpoints::all_at("http://127.0.0.1:1/");
        endpoints.own.insert("SSM", "http://127.0.0.1:2".into());
        assert_eq!(endpoints.url("SSM", "ssm", "us-east-1"), "http://127.0.0.1:2");
        assert_eq!(endpoints.url("EC2", "ec2", "us-east-1"), "http://127.0.0.1:1");
        let none = Endpoints::default();
        assert_eq!(none.url("EC2", "ec2", "us-east-1"), "https://ec2.us-east-1.amazonaws.com");
        assert_eq!(none.overridden("EC2"), None);
    }
}
