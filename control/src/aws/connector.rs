//! The one way out to AWS: every attempt of every call waits here for its token ([`super::rates`]),
//! and ends after [`ATTEMPT`].
//!
//! The attempt's time is kept here and not by the SDK, because a wait for a token is none of it.
//! Requests are signed before they wait: [`LONGEST_WAIT`] keeps them within a signature's life.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::{Connector, tls};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::interceptors::context::BeforeTransmitInterceptorContextMut;
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, Metadata};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use tokio::time::{Instant, sleep, timeout};

use crate::aws::rates::Rates;

/// One attempt; EKS and EC2 answer mutating calls within a few seconds.
pub const ATTEMPT: Duration = Duration::from_secs(20);
/// A connection that takes longer than this is not coming.
pub const CONNECT: Duration = Duration::from_secs(5);
/// A call waits no longer for its token: a signature is good for five minutes (AWS Signature Version 4).
const LONGEST_WAIT: Duration = Duration::from_secs(240);

/// The buckets of all clients of a run.
#[derive(Clone, Debug)]
pub struct Gate {
    rates: Arc<Mutex<Rates>>,
    began: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        Self { rates: Arc::default(), began: Instant::now() }
    }
}

impl Gate {
    /// Waits until a call of the operation may go.
    pub async fn pass(&self, service: &str, operation: &str) {
        let wait = {
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(service, operation, self.began.elapsed())
        };
        if !wait.is_zero() {
            tracing::debug!(service, operation, ?wait, "waits for its turn");
            sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// The SDK's own HTTP client behind this gate.
    #[must_use]
    pub fn client(&self) -> SharedHttpClient {
        SharedHttpClient::new(Gated { inner: https(), gate: self.clone() })
    }
}

/// What the SDK may take for an attempt, the wait for its token and its answer's body included.
#[must_use]
pub fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT)
        .operation_attempt_timeout(LONGEST_WAIT + ATTEMPT + ATTEMPT)
        .build()
}

/// As the SDK makes it for itself, once for all services: the system's certificates are read once.
fn https() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new().build_with_connector_fn(|settings, components| {
        let tls = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc);
        let mut connector =
            Connector::builder().proxy_config(ProxyConfig::from_env()).tls_provider(tls);
        connector
            .set_connector_settings(settings.cloned())
            .set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
        connector.build()
    })
}

/// What a request is about: a connector sees bytes alone.
#[derive(Clone, Debug)]
struct Operation(Metadata);

/// Writes the operation on each request.
#[derive(Clone, Debug)]
pub struct NameOperation;

#[dyn_dispatch_hint]
impl Intercept for NameOperation {
    fn name(&self) -> &'static str {
        "NameOperation"
    }

    fn modify_before_transmit(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(metadata) = config.load::<Metadata>() {
            context.request_mut().add_extension(Operation(metadata.clone()));
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Gated {
    inner: SharedHttpClient,
    gate: Gate,
}

impl HttpClient for Gated {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let inner = self.inner.http_connector(settings, components);
        SharedHttpConnector::new(GatedConnector { inner, gate: self.gate.clone() })
    }
}

#[derive(Debug)]
struct GatedConnector {
    inner: SharedHttpConnector,
    gate: Gate,
}

impl HttpConnector for GatedConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (inner, gate) = (self.inner.clone(), self.gate.clone());
        HttpConnectorFuture::new(async move {
            // Without one: credentials are fetched, which no bucket of ours is about.
            if let Some(Operation(of)) = request.extension::<Operation>().cloned() {
                gate.pass(of.service(), of.name()).await;
            }
            match timeout(ATTEMPT, inner.call(request)).await {
                Ok(answer) => answer,
                Err(late) => Err(ConnectorError::timeout(late.into())),
            }
        })
    }
}
