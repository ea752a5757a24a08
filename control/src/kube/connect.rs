//! A client for one cluster: it trusts the cluster's own CA and nothing else, signs its own tokens
//! and renews them in time, and says at which step the way to the API server ended.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::kube::api::{Api, PostParams};
use ::kube::{Client, Config, Error as ClientError};
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::Namespace;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::Mutex;

use crate::aws::eks::ClusterFacts;
use crate::failure::Advice;
use eks_token::TokenError;

/// How long one TCP and TLS connection may take to come about.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// How long one call may take in all, its retries included.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// How long before a token's end a new one is made.
const RENEW_BEFORE: Duration = Duration::from_secs(120);

/// Who the API server thinks we are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub username: String,
    /// Groups.
    pub groups: Vec<String>,
}

/// What could not be done with a cluster; the source says where it ended.
#[derive(Debug, thiserror::Error)]
#[error("could not {attempt} of cluster `{cluster}`")]
pub struct KubeError {
    /// What was attempted: `list the nodes`.
    pub attempt: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Where the way ended.
    #[source]
    pub cause: Box<Cause>,
}

/// Where the way to an answer ended, step by step.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// What AWS says of the cluster cannot be used.
    #[error("its {what} is unusable: {detail}")]
    BadAddress {
        /// `endpoint` or `CA`.
        what: &'static str,
        /// Why.
        detail: String,
    },
    /// No AWS credentials.
    #[error("no AWS credentials to sign a token with")]
    Credentials(#[source] aws_credential_types::provider::error::CredentialsError),
    /// No token.
    #[error("no token")]
    Token(#[source] TokenError),
    /// The name does not resolve.
    #[error("the name `{host}` does not resolve ({detail})")]
    Dns {
        /// Host of the endpoint.
        host: String,
        /// What the resolver says.
        detail: String,
    },
    /// No TCP connection.
    #[error("no TCP connection to `{host}` ({detail})")]
    Tcp {
        /// Host of the endpoint.
        host: String,
        /// What the kernel says.
        detail: String,
    },
    /// No TLS session.
    #[error("no TLS session with `{host}` ({detail})")]
    Tls {
        /// Host of the endpoint.
        host: String,
        /// What rustls says.
        detail: String,
    },
    /// 401.
    #[error("the API server does not know our identity (401 {message})")]
    Unauthorized {
        /// What the server says.
        message: String,
    },
    /// 403.
    #[error("the API server forbids it (403 {message})")]
    Forbidden {
        /// What the server says.
        message: String,
    },
    /// Another refusal.
    #[error("the API server answered {code} {message}")]
    Refused {
        /// HTTP status.
        code: u16,
        /// What the server says.
        message: String,
    },
    /// No answer in time.
    #[error("no answer within {} s", .0.as_secs())]
    Deadline(Duration),
    /// The connection broke, or the answer cannot be read.
    #[error("{0}")]
    Broken(String),
}

impl Advice for KubeError {
    fn hint(&self) -> Option<String> {
        let cluster = &self.cluster;
        Some(match &*self.cause {
            Cause::BadAddress { .. } => {
                format!("read what AWS says: aws eks describe-cluster --name {cluster}")
            }
            Cause::Credentials(_) | Cause::Token(_) => {
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".into()
            }
            Cause::Dns { .. } => "a private endpoint resolves only inside its VPC; for a public \
                                  one check this machine's resolver"
                .into(),
            Cause::Tcp { .. } | Cause::Deadline(_) => format!(
                "is this machine's address in the endpoint's publicAccessCidrs? aws eks \
                 describe-cluster --name {cluster} --query cluster.resourcesVpcConfig"
            ),
            Cause::Tls { .. } => {
                "the endpoint's certificate is not signed by the cluster's CA: is \
                                  a proxy in between, or was the cluster made anew?"
                    .into()
            }
            Cause::Unauthorized { .. } => format!(
                "give your identity an access entry: aws eks create-access-entry --cluster-name \
                 {cluster} --principal-arn <your role or user>; see aws sts get-caller-identity"
            ),
            Cause::Forbidden { .. } => format!(
                "aws eks associate-access-policy --cluster-name {cluster} --principal-arn <your \
                 role or user> --access-scope type=cluster --policy-arn \
                 arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"
            ),
            Cause::Refused { .. } | Cause::Broken(_) => {
                "try again; when it stays so, read the control plane's logs".into()
            }
        })
    }
}

impl KubeError {
    /// Whether waiting can help: an entry or an endpoint that has just been made takes a while.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match &*self.cause {
            Cause::Dns { .. }
            | Cause::Tcp { .. }
            | Cause::Unauthorized { .. }
            | Cause::Forbidden { .. }
            | Cause::Deadline(_)
            | Cause::Broken(_) => true,
            Cause::Refused { code, .. } => *code >= 500 || *code == 429 || *code == 409,
            Cause::BadAddress { .. }
            | Cause::Credentials(_)
            | Cause::Token(_)
            | Cause::Tls { .. } => false,
        }
    }
}

/// A client for one cluster. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    facts: Arc<ClusterFacts>,
    host: Arc<str>,
    config: Arc<Config>,
    credentials: SharedCredentialsProvider,
    session: Arc<Mutex<Option<Session>>>,
}

/// A client with the token that it carries.
struct Session {
    client: Client,
    renew_at: SystemTime,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Prepares a client and its first token; nothing is sent to the cluster before the first call.
///
/// # Errors
/// When endpoint or CA are not what they should be, or there are no credentials.
pub async fn connect(
    facts: &ClusterFacts,
    credentials: SharedCredentialsProvider,
) -> Result<Cluster, KubeError> {
    let failed = |cause| KubeError {
        attempt: "use the endpoint".into(),
        cluster: facts.name.clone(),
        cause: Box::new(cause),
    };
    let config = config_for(facts).map_err(failed)?;
    let cluster = Cluster {
        host: config.cluster_url.authority().map_or("", |a| a.as_str()).into(),
        config: Arc::new(config),
        facts: Arc::new(facts.clone()),
        credentials,
        session: Arc::default(),
    };
    cluster.client().await.map_err(failed)?;
    Ok(cluster)
}

fn config_for(facts: &ClusterFacts) -> Result<Config, Cause> {
    let url = facts
        .endpoint
        .parse()
        .map_err(|error| bad("endpoint", &format!("`{}` ({error})", facts.endpoint)))?;
    let mut config = Config::new(url);
    if config.cluster_url.scheme_str() != Some("https") || config.cluster_url.host().is_none() {
        return Err(bad("endpoint", &format!("`{}` is no https URL", facts.endpoint)));
    }
    let pem = STANDARD
        .decode(facts.certificate_authority.trim())
        .map_err(|error| bad("CA", &format!("not base64 ({error})")))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| bad("CA", &error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("CA", "no certificate in it"));
    }
    config.root_cert = Some(certificates);
    config.connect_timeout = Some(CONNECT_DEADLINE);
    config.read_timeout = Some(CALL_DEADLINE);
    config.reset_reader_on_write = true;
    Ok(config)
}

fn bad(what: &'static str, detail: &str) -> Cause {
    Cause::BadAddress { what, detail: detail.to_owned() }
}

impl Cluster {
    /// Name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Proves the way step by step: resolves the name, connects, checks the certificate against the
    /// cluster's CA, shows the token, and asks for the right to read nodes. Answers who we are.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn prove(&self) -> Result<Identity, KubeError> {
        let review = self
            .call("learn who we are to the API server", async |client| {
                let api: Api<SelfSubjectReview> = Api::all(client);
                api.create(&PostParams::default(), &SelfSubjectReview::default()).await
            })
            .await?;
        let user = review.status.and_then(|status| status.user_info).unwrap_or_default();
        let identity = Identity {
            username: user.username.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
        };
        if self.may("list", "", "nodes").await? {
            return Ok(identity);
        }
        Err(KubeError {
            attempt: "list the nodes".into(),
            cluster: self.facts.name.clone(),
            cause: Box::new(Cause::Forbidden { message: format!("as `{}`", identity.username) }),
        })
    }

    /// Whether we may do `verb` on `resource` of API group `group` in every namespace.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn may(&self, verb: &str, group: &str, resource: &str) -> Result<bool, KubeError> {
        let asked = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let review = self
            .call(&format!("ask for the right to {verb} the {resource}"), async |client| {
                let api: Api<SelfSubjectAccessReview> = Api::all(client);
                api.create(&PostParams::default(), &asked).await
            })
            .await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    }

    /// Whether a namespace exists. A fresh API server makes its own a moment after it answers.
    ///
    /// # Errors
    /// Where the way ended.
    pub async fn has_namespace(&self, name: &str) -> Result<bool, KubeError> {
        let found = self
            .call(&format!("read the namespace `{name}`"), async |client| {
                Api::<Namespace>::all(client).get_opt(name).await
            })
            .await?;
        Ok(found.is_some())
    }

    /// Makes one call with a token that is good for it, within the deadline.
    pub(super) async fn call<T>(
        &self,
        attempt: &str,
        request: impl AsyncFnOnce(Client) -> Result<T, ClientError>,
    ) -> Result<T, KubeError> {
        let answer = async {
            let client = self.client().await?;
            request(client).await.map_err(|error| classify(error, &self.host))
        };
        let answer = tokio::time::timeout(CALL_DEADLINE, answer).await;
        let cause = match answer {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(cause)) => cause,
            Err(_elapsed) => Cause::Deadline(CALL_DEADLINE),
        };
        if matches!(cause, Cause::Unauthorized { .. }) {
            // The next call signs anew: credentials may have changed under a long run.
            *self.session.lock().await = None;
        }
        Err(KubeError {
            attempt: attempt.to_owned(),
            cluster: self.facts.name.clone(),
            cause: Box::new(cause),
        })
    }

    async fn client(&self) -> Result<Client, Cause> {
        let mut session = self.session.lock().await;
        let now = SystemTime::now();
        if let Some(session) = session.as_ref()
            && now < session.renew_at
        {
            return Ok(session.client.clone());
        }
        let credentials =
            self.credentials.provide_credentials().await.map_err(Cause::Credentials)?;
        let token = eks_token::mint(&credentials, &self.facts.region, &self.facts.name, now)
            .map_err(Cause::Token)?;
        let mut config = (*self.config).clone();
        config.auth_info.token = Some(token.expose().to_owned().into());
        let client = Client::try_from(config).map_err(|error| classify(error, &self.host))?;
        *session =
            Some(Session { client: client.clone(), renew_at: token.expires() - RENEW_BEFORE });
        Ok(client)
    }
}

/// Says where a call ended, from the chain of errors that the layers below have wrapped.
fn classify(error: ClientError, host: &str) -> Cause {
    if let ClientError::Api(status) = error {
        let message = status.message;
        return match status.code {
            401 => Cause::Unauthorized { message },
            403 => Cause::Forbidden { message },
            code => Cause::Refused { code, message },
        };
    }
    let host = host.to_owned();
    let mut deepest = error.to_string();
    let mut next: Option<&(dyn StdError + 'static)> = Some(&error);
    let mut dns = false;
    let mut tcp = None;
    while let Some(error) = next {
        deepest = error.to_string();
        // hyper-util keeps the type to itself; its text is what tells the resolver from the socket.
        dns |= deepest == "dns error";
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Cause::Tls { host, detail: tls.to_string() };
        }
        next = error.source();
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if is_no_connection(io.kind()) {
                tcp = Some(io.to_string());
            }
            // io::Error's own source() skips the error that it wraps.
            if let Some(wrapped) = io.get_ref() {
                next = Some(wrapped);
            }
        }
    }
    match tcp {
        _ if dns => Cause::Dns { host, detail: deepest },
        Some(detail) => Cause::Tcp { host, detail },
        None => Cause::Broken(deepest),
    }
}

fn is_no_connection(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::AddrNotAvailable
    )
}

#[cfg(test)]
mod tests;
