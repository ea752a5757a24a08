//! Parameter Store: where a node leaves its report.

use std::time::Duration;

use aws_sdk_ssm::Client;
use aws_sdk_ssm::config::retry::RetryConfig;
use aws_sdk_ssm::config::timeout::TimeoutConfig;
use aws_sdk_ssm::config::{
    BehaviorVersion, Region, RuntimeComponents, SharedCredentialsProvider, SharedHttpClient,
};
use aws_sdk_ssm::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_ssm::types::{ParameterTier, ParameterType, Tag};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};
use contract::names::PARAMETER_TAG_INSTANCE;

use super::RoleCredentials;

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Parameter Store in the node's region.
#[derive(Clone, Debug)]
pub struct ParameterStore {
    client: Client,
}

/// Why a report was not delivered.
#[derive(Debug, thiserror::Error)]
#[error("could not {action} the parameter `{name}`: {detail}")]
pub struct ParameterError {
    action: &'static str,
    name: String,
    detail: String,
    code: Option<String>,
}

impl ParameterError {
    fn new<E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static>(
        action: &'static str,
        name: &str,
        error: &SdkError<E>,
    ) -> Self {
        let code = error.code().map(str::to_owned);
        let detail = match &code {
            Some(code) => format!("{code}: {}", error.message().unwrap_or_default()),
            None => DisplayErrorContext(error).to_string(),
        };
        Self { action, name: name.to_owned(), detail, code }
    }

    /// Whether a right is missing.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.code.as_deref() == Some("AccessDeniedException")
    }

    /// Whether the account makes more calls than it may.
    #[must_use]
    pub fn is_throttled(&self) -> bool {
        const CODES: [&str; 3] = ["ThrottlingException", "Throttling", "RequestLimitExceeded"];
        self.code.as_deref().is_some_and(|code| CODES.contains(&code))
    }

    /// Whether trying again cannot help: the node may not, or the account is full.
    #[must_use]
    pub fn is_final(&self) -> bool {
        const CODES: [&str; 3] =
            ["AccessDeniedException", "ParameterLimitExceeded", "ValidationException"];
        self.code.as_deref().is_some_and(|code| CODES.contains(&code))
    }
}

/// A report as it is put.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Parameter {
    /// Name of the parameter.
    pub name: String,
    /// The report.
    pub value: String,
    /// The index that answers a fleet's histogram alone.
    pub description: String,
    /// ARN of the instance: binds the parameter to the node that wrote it.
    pub instance_arn: String,
}

/// The SDK's own client, through a proxy.
fn through(proxy: ProxyConfig) -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(move |settings, components| {
        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        let mut connector = Connector::builder().proxy_config(proxy.clone()).tls_provider(tls);
        connector
            .set_connector_settings(settings.cloned())
            .set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

impl ParameterStore {
    /// Parameter Store of `region`, at `url` or else at its regional endpoint, through `proxy` where
    /// one leads there. A proxy that is no URL is passed over: preflight says so.
    #[must_use]
    pub fn at(
        url: Option<String>,
        region: &str,
        credentials: RoleCredentials,
        proxy: Option<&str>,
    ) -> Self {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(ATTEMPT).build();
        let mut config = aws_sdk_ssm::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            // The channel has a retry of its own: the SDK's three quick ones make a storm worse.
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(url) = url {
            config = config.endpoint_url(url);
        }
        if let Some(proxy) = proxy.and_then(|proxy| ProxyConfig::all(proxy).ok()) {
            config = config.http_client(through(proxy));
        }
        Self { client: Client::from_conf(config.build()) }
    }

    /// Creates the parameter with its tag, or overwrites it: SSM refuses both at once.
    ///
    /// # Errors
    /// When SSM does not answer or refuses.
    pub async fn put(&self, parameter: &Parameter) -> Result<(), ParameterError> {
        let put = self
            .client
            .put_parameter()
            .name(&parameter.name)
            .value(&parameter.value)
            .description(&parameter.description)
            .r#type(ParameterType::String)
            .tier(ParameterTier::Standard);
        let tag = Tag::builder().key(PARAMETER_TAG_INSTANCE).value(&parameter.instance_arn).build();
        let fail = |error: &SdkError<_>| ParameterError::new("write", &parameter.name, error);
        let tag = tag.map_err(|error| ParameterError {
            action: "write",
            name: parameter.name.clone(),
            detail: error.to_string(),
            code: None,
        })?;
        match put.clone().tags(tag).send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(|e| e.is_parameter_already_exists()) =>
            {
                put.overwrite(true).send().await.map(|_| ()).map_err(|error| fail(&error))
            }
            Err(error) => Err(fail(&error)),
        }
    }

    /// Reads a parameter; none where there is none.
    ///
    /// # Errors
    /// When SSM does not answer or refuses.
    pub async fn get(&self, name: &str) -> Result<Option<String>, ParameterError> {
        match self.client.get_parameter().name(name).send().await {
            Ok(answer) => Ok(answer.parameter.and_then(|parameter| parameter.value)),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_parameter_not_found()) => {
                Ok(None)
            }
            Err(error) => Err(ParameterError::new("read", name, &error)),
        }
    }

    /// Deletes the parameter; one that is not there is as good as deleted.
    ///
    /// # Errors
    /// When SSM does not answer or refuses.
    pub async fn delete(&self, name: &str) -> Result<(), ParameterError> {
        match self.client.delete_parameter().name(name).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_parameter_not_found()) => {
                Ok(())
            }
            Err(error) => Err(ParameterError::new("delete", name, &error)),
        }
    }
}
