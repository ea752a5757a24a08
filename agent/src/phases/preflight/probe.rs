//! Looks where [`super::Facts`] says: the host, credentials, the way to the API server, services.

use std::time::{Duration, Instant};

use contract::{ErrorChain, Finding};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::timeout_at;

use super::Facts;
use super::api::{self, ApiServer, Published};
use super::host::{ECR_PROVIDER, Looker};
use super::reach::{self, Unreached};
use super::services::Services;
use crate::aws::credentials::CredentialsError;
use crate::aws::eks::Eks;
use crate::aws::{Endpoints, Imds, RoleCredentials};
use crate::host::{Deadline, Root};
use crate::kube::{self, Cluster};
use crate::phases::configure::lint;
use crate::phases::configure::proxy::Proxies;

/// How long a service may take to be reached.
const SERVICE: Duration = Duration::from_secs(3);

/// How much longer than what is hard the soft questions are waited for: they hold nobody up.
const SOFT_EXTRA: Duration = Duration::from_millis(1500);

/// How long the disk may take to answer.
const DISK: Duration = Duration::from_secs(5);

/// How long EKS may take to say where the cluster is, and how long its answer stands.
const ASK: Duration = Duration::from_secs(3);
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What nodeadm's config phase leaves in `/run` when it is done: it asks EC2 no more in this boot.
const NODEADM_CACHE: &str = "/run/eks/nodeadm/config.json";

/// The variable with which nodeadm finds another image credential provider.
const ECR_PROVIDER_VARIABLE: &str = "ECR_CREDENTIAL_PROVIDER_BIN_PATH";

/// What the phase looks at.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The node.
    pub root: &'a Root,
    /// Its metadata service.
    pub imds: &'a Imds,
    /// Its role's credentials.
    pub credentials: &'a RoleCredentials,
    /// Where AWS's services are.
    pub endpoints: &'a Endpoints,
    /// Its cluster.
    pub kube: &'a kube::Client,
    /// EKS, which may know the cluster better than the NodeConfig.
    pub eks: &'a Directory,
    /// Who looks at its disk.
    pub host: &'a Looker,
    /// The merged NodeConfig.
    pub merged: &'a Value,
    /// Whether nodeadm will ask EC2 for the node's name, unless it has its answer already.
    pub asks_ec2: bool,
}

/// EKS's answer to where the cluster is, kept for a while: a phase looks several times a second.
#[derive(Debug)]
pub struct Directory {
    eks: Eks,
    held: tokio::sync::Mutex<Option<(Instant, Published)>>,
}

impl Directory {
    /// A directory that has not been asked yet.
    #[must_use]
    pub fn new(eks: Eks) -> Self {
        Self { eks, held: tokio::sync::Mutex::default() }
    }

    async fn cluster(&self, name: &str, deadline: Deadline) -> Published {
        let mut held = self.held.lock().await;
        if let Some((asked, published)) = held.as_ref()
            && asked.elapsed() < ASK_AGAIN
        {
            return published.clone();
        }
        let asking = self.eks.cluster(name, deadline.at_most(ASK));
        let published = match asking.await {
            Ok(Some(address)) => {
                Published::Cluster { endpoint: address.endpoint, ca_pem: address.ca_pem }
            }
            Ok(None) => Published::NoCluster,
            Err(error) => {
                tracing::debug!(error = %ErrorChain(&error), "where the cluster is stays unknown");
                Published::Unknown
            }
        };
        *held = Some((Instant::now(), published.clone()));
        published
    }
}

/// Looks at everything once, side by side.
pub async fn gather(at: Surroundings<'_>, deadline: Deadline) -> Facts {
    let region = &at.kube.cluster().region;
    let kubelet = Proxies::of_service(at.merged, "kubelet");
    let soft = |id, host| {
        let url = at.endpoints.url(id, host, region);
        let proxy = kubelet.to(&url);
        tokio::spawn(
            async move { service(&url, proxy.as_deref(), Deadline::within(SERVICE)).await },
        )
    };
    let (sts, ecr) = (soft("STS", "sts"), soft("ECR", "api.ecr"));
    let looked = at.host.look(at.root, ecr_provider(at.merged), deadline.at_most(DISK));
    let (way, ec2, host) = tokio::join!(way(at, deadline), ec2(at, deadline), looked);
    let extra = Deadline::within(SOFT_EXTRA);
    let Way { credentials, api, server_version, stale } = way;
    Facts {
        host,
        credentials,
        api,
        server_version,
        stale,
        clock_ahead: at.kube.clock_ahead().or_else(|| at.imds.clock_ahead()),
        services: Services { ec2, sts: in_time(sts, extra).await, ecr: in_time(ecr, extra).await },
    }
}

fn ecr_provider(merged: &Value) -> String {
    let environment = lint::at(merged, "spec.instance.environment.default");
    let given =
        environment.and_then(|environment| environment.get(ECR_PROVIDER_VARIABLE)?.as_str());
    given.unwrap_or(ECR_PROVIDER).to_owned()
}

/// How far the way to the API server goes.
struct Way {
    credentials: Result<(), CredentialsError>,
    api: ApiServer,
    server_version: Option<String>,
    stale: Option<Finding>,
}

async fn way(at: Surroundings<'_>, deadline: Deadline) -> Way {
    let credentials = at.credentials.get(deadline).await.map(|_| ());
    let api = match credentials {
        Ok(()) => api_server(at.kube, deadline).await,
        Err(_) => ApiServer::NotReached,
    };
    let is_known = matches!(api, ApiServer::Answers { identity: Ok(_), .. });
    let server_version = match is_known {
        true => at.kube.version(deadline.at_most(SOFT_EXTRA)).await.ok(),
        false => None,
    };
    let stale = if is_known || credentials.is_err() {
        None
    } else {
        let Cluster { name, endpoint, ca_pem, .. } = at.kube.cluster();
        let published = at.eks.cluster(name, deadline).await;
        api::stale(name, endpoint, ca_pem, &published)
    };
    Way { credentials, api, server_version, stale }
}

async fn api_server(kube: &kube::Client, deadline: Deadline) -> ApiServer {
    let Cluster { endpoint, proxy, .. } = kube.cluster();
    match reach::reach(endpoint, proxy.as_deref(), deadline).await {
        Err(unreached) => ApiServer::Unreached(unreached),
        Ok(target) => ApiServer::Answers { target, identity: kube.who_am_i(deadline).await },
    }
}

/// EC2, on the way that nodeadm takes there.
async fn ec2(at: Surroundings<'_>, deadline: Deadline) -> Option<Result<(), Unreached>> {
    if !at.asks_ec2 || at.root.path(NODEADM_CACHE).is_file() {
        return None;
    }
    let url = at.endpoints.url("EC2", "ec2", &at.kube.cluster().region);
    let proxy = Proxies::of_service(at.merged, "default").to(&url);
    let reached = reach::reach(&url, proxy.as_deref(), deadline.at_most(SERVICE)).await;
    // It may have come by its answer while we looked: what it needs no more is not asked for.
    let is_done = at.root.path(NODEADM_CACHE).is_file();
    (!is_done).then(|| reached.map(|_| ()))
}

async fn service(url: &str, proxy: Option<&str>, deadline: Deadline) -> Result<(), String> {
    reach::reach(url, proxy, deadline).await.map(|_| ()).map_err(|error| error.to_string())
}

/// What a soft question has found by the deadline.
async fn in_time(asking: JoinHandle<Result<(), String>>, deadline: Deadline) -> Result<(), String> {
    let stop = asking.abort_handle();
    match timeout_at(deadline.instant(), asking).await {
        Ok(Ok(reached)) => reached,
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            stop.abort();
            Err(format!("no connection within {SOFT_EXTRA:?} of the API server's"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aws::signed::Service;
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;
    use crate::testing::tls::Authority;

    /// Looks at `endpoint` from a node whose AWS answers `described` to DescribeCluster.
    async fn look(endpoint: &str, authority: &Authority, root: &Root, described: &str) -> Facts {
        let body = described.to_owned();
        let server =
            Server::start(move |request| match request.starts_with("GET /clusters/prod ") {
                true => Answer::ok(body.clone()),
                false => imds_answers(request),
            })
            .await;
        let imds = Arc::new(Imds::at(&server.url()));
        let credentials = RoleCredentials::new(Arc::clone(&imds));
        let cluster = Cluster {
            name: "prod".into(),
            region: "us-east-1".into(),
            endpoint: endpoint.into(),
            ca_pem: authority.ca_pem.clone().into_bytes(),
            proxy: None,
        };
        let kube = kube::Client::new(cluster, credentials.clone()).unwrap();
        let endpoints = Endpoints::all_at(server.url());
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let region = "us-east-1";
        let eks = Service::new("eks", server.url(), region, credentials.clone(), http);
        let at = Surroundings {
            root,
            imds: &imds,
            credentials: &credentials,
            endpoints: &endpoints,
            kube: &kube,
            eks: &Directory::new(Eks(eks)),
            host: &Looker::default(),
            merged: &Value::Null,
            asks_ec2: true,
        };
        gather(at, Deadline::within(Duration::from_secs(3))).await
    }

    #[tokio::test]
    async fn goes_as_far_as_the_way_goes() {
        let root = Root::new("/nowhere");
        let authority = Authority::new();
        let unknown = "nonsense";
        let facts = look("https://127.0.0.1:1", &authority, &root, unknown).await;
        assert!(matches!(facts.api, ApiServer::Unreached(Unreached::NoConnection { tried, .. })
            if tried.len() == 1));
        assert_eq!((facts.services.ec2, facts.services.ecr), (Some(Ok(())), Ok(())));
        let facts = look("https://nowhere.invalid", &authority, &root, unknown).await;
        assert!(matches!(facts.api, ApiServer::Unreached(Unreached::NoAddress { .. })));

        let server =
            Server::start_tls(&authority, move |request| match request.contains("/version") {
                true => Answer::ok(r#"{"gitVersion":"v1.34.4-eks-2"}"#),
                false => Answer::status(
                    201,
                    r#"{"status":{"userInfo":{"username":"system:node:n1","groups":[]}}}"#,
                ),
            })
            .await;
        let facts = look(&server.url(), &authority, &root, unknown).await;
        assert_eq!(facts.identity().unwrap().username, "system:node:n1");
        assert_eq!(facts.server_version.as_deref(), Some("v1.34.4-eks-2"));
        let facts = look(&server.url(), &Authority::new(), &root, unknown).await;
        let ApiServer::Answers { identity: Err(error), .. } = facts.api else { panic!() };
        assert!(matches!(error, kube::KubeError::Tls(_)), "{error:?}");
    }

    #[tokio::test]
    async fn eks_is_asked_where_the_cluster_is_when_nobody_answers() {
        let described = r#"{"cluster":{"endpoint":"https://moved.example",
            "certificateAuthority":{"data":"UEVN"}}}"#;
        let root = Root::new("/nowhere");
        let facts = look("https://127.0.0.1:1", &Authority::new(), &root, described).await;
        let stale = facts.stale.unwrap();
        assert!(stale.summary.contains("https://moved.example"), "{}", stale.summary);
    }

    #[tokio::test]
    async fn ec2_is_not_asked_for_once_nodeadm_has_its_answer() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.path("/run/eks/nodeadm")).unwrap();
        std::fs::write(root.path(NODEADM_CACHE), "{}").unwrap();
        let facts = look("https://127.0.0.1:1", &Authority::new(), &root, "nonsense").await;
        assert_eq!(facts.services.ec2, None);
    }

    #[test]
    fn another_image_credential_provider_may_be_named() {
        let merged = serde_json::json!({"spec": {"instance": {"environment": {"default": {
            ECR_PROVIDER_VARIABLE: "/opt/provider"}}}}});
        assert_eq!(ecr_provider(&merged), "/opt/provider");
        assert_eq!(ecr_provider(&Value::Null), ECR_PROVIDER);
    }
}
