//! One client per service, all from the SDK's standard configuration.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};

use crate::aws::connector::{self, Gate, NameOperation};
use crate::aws::error::{Attempted as _, AwsError};

/// Attempts per call, the first included: what rides out a throttled account.
pub(super) const ATTEMPTS: u32 = 10;
/// Before the second attempt; doubles, with jitter.
pub(super) const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// Between two attempts at most.
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_secs(8);
/// The whole credential chain; its last link is IMDS, which is not there on a laptop.
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(10);

/// One client per service, for one region.
#[derive(Clone, Debug)]
pub struct Clients {
    /// EC2.
    pub ec2: aws_sdk_ec2::Client,
    /// EKS.
    pub eks: aws_sdk_eks::Client,
    /// IAM.
    pub iam: aws_sdk_iam::Client,
    /// Systems Manager.
    pub ssm: aws_sdk_ssm::Client,
    /// Security Token Service.
    pub sts: aws_sdk_sts::Client,
    /// S3.
    pub s3: aws_sdk_s3::Client,
    /// Auto Scaling.
    pub autoscaling: aws_sdk_autoscaling::Client,
    /// Where everything happens.
    pub region: String,
    /// The endpoint that the environment names, for messages.
    pub endpoint: Option<String>,
    /// Who signs; also for Kubernetes tokens.
    pub credentials: SharedCredentialsProvider,
    /// Where every call waits for its turn.
    pub gate: Gate,
}

/// Who the credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Account id.
    pub account: String,
    /// ARN of the identity.
    pub arn: String,
}

impl Clients {
    /// Loads configuration and credentials; `region` outranks the environment's.
    ///
    /// # Errors
    /// [`AwsError`] when no region is set or no credentials are found.
    pub async fn load(region: Option<&str>) -> Result<Self, AwsError> {
        let gate = Gate::default();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(FIRST_BACKOFF)
                    .with_max_backoff(LONGEST_BACKOFF),
            )
            .http_client(gate.client())
            .timeout_config(connector::timeouts())
            // A request that waits for its turn is no stalled upload; attempts have an end of their own.
            .stalled_stream_protection(
                StalledStreamProtectionConfig::enabled().upload_enabled(false).build(),
            );
        if let Some(region) = region {
            loader = loader.region(Region::new(region.to_owned()));
        }
        let config = loader.load().await;
        let region = config.region().ok_or(AwsError::RegionMissing)?.to_string();
        let credentials = config.credentials_provider().ok_or_else(AwsError::no_credentials)?;
        prove_credentials(&credentials).await?;
        Ok(Self::of(&config, region, credentials, gate))
    }

    fn of(
        config: &SdkConfig,
        region: String,
        credentials: SharedCredentialsProvider,
        gate: Gate,
    ) -> Self {
        /// The client of a service, whose calls say at the gate what they are.
        macro_rules! client {
            ($sdk:ident) => {
                $sdk::Client::from_conf(
                    $sdk::config::Builder::from(config).interceptor(NameOperation).build(),
                )
            };
        }
        Self {
            ec2: client!(aws_sdk_ec2),
            eks: client!(aws_sdk_eks),
            iam: client!(aws_sdk_iam),
            ssm: client!(aws_sdk_ssm),
            sts: client!(aws_sdk_sts),
            s3: client!(aws_sdk_s3),
            autoscaling: client!(aws_sdk_autoscaling),
            region,
            endpoint: config.endpoint_url().map(str::to_owned),
            credentials,
            gate,
        }
    }

    /// Who the credentials are. The first call of a command: with two attempts alone, so that an
    /// endpoint that does not answer is named within seconds.
    ///
    /// # Errors
    /// [`AwsError`] when nothing answers or the credentials are refused.
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        let once = RetryConfig::standard().with_max_attempts(2);
        let answer = self
            .sts
            .get_caller_identity()
            .customize()
            .config_override(aws_sdk_sts::config::Builder::new().retry_config(once))
            .send()
            .await
            .attempted(|| format!("ask {} who the credentials are", self.place()))?;
        Ok(Caller {
            account: answer.account.unwrap_or_default(),
            arn: answer.arn.unwrap_or_default(),
        })
    }

    /// Where calls go, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("AWS at `{endpoint}`"),
            None => format!("AWS in `{}`", self.region),
        }
    }
}

async fn prove_credentials(provider: &SharedCredentialsProvider) -> Result<(), AwsError> {
    match tokio::time::timeout(CREDENTIALS_TIMEOUT, provider.provide_credentials()).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(AwsError::credentials(&error)),
        Err(_) => Err(AwsError::Credentials {
            detail: format!("no provider answered within {} s", CREDENTIALS_TIMEOUT.as_secs()),
        }),
    }
}
