//! Which image a pool boots: the one that the fleet names, the one that was promoted in the channel that
//! it names ([`crate::ami::choose`]), else EKS's own for its version, its architecture and its hardware,
//! from the public parameter.

use crate::aws::ec2::TypeFacts;
use crate::aws::{Attempted as _, AwsError, Clients};

/// A variant of EKS's image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Without a driver.
    Standard,
    /// With NVIDIA's driver.
    Nvidia,
}

impl Variant {
    /// What hardware needs.
    #[must_use]
    pub const fn of(facts: &TypeFacts) -> Self {
        if facts.gpus.is_some() { Self::Nvidia } else { Self::Standard }
    }
}

/// Name of the public parameter (`docs.aws.amazon.com/eks`, "Retrieve recommended Amazon Linux AMI
/// IDs").
#[must_use]
pub fn parameter(kubernetes: &str, architecture: &str, variant: Variant) -> String {
    let variant = match variant {
        Variant::Standard => "standard",
        Variant::Nvidia => "nvidia",
    };
    format!(
        "/aws/service/eks/optimized-ami/{kubernetes}/amazon-linux-2023/{architecture}/{variant}/\
         recommended/image_id"
    )
}

/// The image id in a public parameter.
///
/// # Errors
/// [`AwsError`] when there is no such parameter, or SSM does not answer.
pub async fn resolve(clients: &Clients, parameter: &str) -> Result<String, AwsError> {
    let attempted = || format!("resolve the image in `{parameter}`");
    let answer = clients.ssm.get_parameter().name(parameter).send().await.attempted(attempted)?;
    let value = answer.parameter.and_then(|parameter| parameter.value);
    value.ok_or_else(|| AwsError::Incomplete { attempted: attempted(), missing: "value" })
}

#[cfg(test)]
mod tests {
    use contract::agent_config::ExpectedGpus;

    use super::*;

    #[test]
    fn the_variant_follows_the_hardware() {
        let plain = TypeFacts { architecture: "arm64".into(), ..TypeFacts::example() };
        assert_eq!(
            parameter("1.34", &plain.architecture, Variant::of(&plain)),
            "/aws/service/eks/optimized-ami/1.34/amazon-linux-2023/arm64/standard/recommended/image_id"
        );
        let gpus = Some(ExpectedGpus { count: 8, model: None, memory_mib: None });
        let gpu = TypeFacts { gpus, ..TypeFacts::example() };
        assert!(parameter("1.34", "x86_64", Variant::of(&gpu)).contains("/x86_64/nvidia/"));
    }
}
