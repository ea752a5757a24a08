//! Looks where [`super::Facts`] says: files, credentials, and the way to the API server.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::{ApiServer, Binary, Facts};
use crate::aws::{Endpoints, Imds, RoleCredentials};
use crate::host::{Deadline, Root, files};
use crate::kube::{self, Cluster};

/// How long one name may take to resolve, and one address to connect.
const RESOLVE: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);

/// How much longer than the API server STS is waited for: it is soft, and holds nobody up.
const STS_EXTRA: Duration = Duration::from_millis(300);

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
}

/// Looks at everything once, side by side.
pub async fn gather(at: Surroundings<'_>, deadline: Deadline) -> Facts {
    let way = async {
        let credentials = at.credentials.get(deadline).await.map(|_| ());
        let api = if credentials.is_ok() {
            api_server(at.kube, deadline).await
        } else {
            ApiServer::NotReached
        };
        (credentials, api)
    };
    let sts = sts(at.endpoints.url("STS", "sts", &at.kube.cluster().region));
    tokio::pin!(way, sts);
    let ((credentials, api), sts) = tokio::select! {
        way = &mut way => {
            let late = || Err(format!("no connection within {STS_EXTRA:?} of the API server's"));
            (way, timeout(STS_EXTRA, sts).await.unwrap_or_else(|_| late()))
        }
        sts = &mut sts => (way.await, sts),
    };
    Facts {
        nodeadm: binary(at.root, "/usr/bin/nodeadm"),
        kubelet: binary(at.root, "/usr/bin/kubelet"),
        credentials,
        api,
        clock_ahead: at.kube.clock_ahead().or_else(|| at.imds.clock_ahead()),
        sts,
    }
}

fn binary(root: &Root, path: &str) -> Binary {
    let path = root.path(path);
    if files::is_executable(&path) {
        Binary::Usable
    } else if path.exists() {
        Binary::NotExecutable
    } else {
        Binary::Missing
    }
}

async fn api_server(kube: &kube::Client, deadline: Deadline) -> ApiServer {
    let Cluster { endpoint, proxy, .. } = kube.cluster();
    let (url, through) = match proxy {
        Some(proxy) => (proxy, " (proxy)"),
        None => (endpoint, ""),
    };
    let Some((host, port)) = host_and_port(url) else {
        let why = format!("`{url}` is no URL");
        return ApiServer::NoAddress { host: url.clone(), why };
    };
    let target = format!("{host}:{port}{through}");
    let addresses = match resolve(&host, port, deadline).await {
        Ok(addresses) => addresses,
        Err(why) => return ApiServer::NoAddress { host, why },
    };
    if let Err(tried) = connect(&addresses, deadline).await {
        return ApiServer::NoConnection { target, tried };
    }
    ApiServer::Answers { target, identity: kube.who_am_i(deadline).await }
}

fn host_and_port(url: &str) -> Option<(String, u16)> {
    let url = url::Url::parse(url).ok()?;
    let host = url.host_str()?.trim_start_matches('[').trim_end_matches(']').to_owned();
    Some((host, url.port_or_known_default()?))
}

async fn resolve(host: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, String> {
    let limit = deadline.remaining().min(RESOLVE);
    match timeout(limit, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => match addresses.collect::<Vec<_>>() {
            none if none.is_empty() => Err("it has no address".into()),
            addresses => Ok(addresses),
        },
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {:.1} s", limit.as_secs_f64())),
    }
}

/// Connects to the first address that lets us; else what became of each.
async fn connect(
    addresses: &[SocketAddr],
    deadline: Deadline,
) -> Result<(), Vec<(IpAddr, String)>> {
    let mut tried = Vec::new();
    for address in addresses {
        let limit = deadline.remaining().min(CONNECT);
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => tried.push((address.ip(), error.to_string())),
            Err(_) => {
                let why = format!("no answer within {:.1} s", limit.as_secs_f64());
                tried.push((address.ip(), why));
            }
        }
    }
    Err(tried)
}

async fn sts(url: String) -> Result<(), String> {
    let (host, port) = host_and_port(&url).ok_or_else(|| format!("`{url}` is no URL"))?;
    let deadline = Deadline::within(CONNECT);
    let addresses = resolve(&host, port, deadline).await;
    let addresses = addresses.map_err(|why| format!("`{host}` does not resolve: {why}"))?;
    connect(&addresses, deadline).await.map_err(|tried| {
        let each = tried.iter().map(|(address, why)| format!("{address}: {why}"));
        format!("no connection to `{host}:{port}`: {}", each.collect::<Vec<_>>().join("; "))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;
    use crate::testing::tls::Authority;

    async fn look(endpoint: &str, authority: &Authority, root: &Root) -> Facts {
        let server = Server::start(imds_answers).await;
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
        let at = Surroundings {
            root,
            imds: &imds,
            credentials: &credentials,
            endpoints: &endpoints,
            kube: &kube,
        };
        gather(at, Deadline::within(Duration::from_secs(3))).await
    }

    #[tokio::test]
    async fn goes_as_far_as_the_way_goes() {
        let root = Root::new("/nowhere");
        let authority = Authority::new();
        let facts = look("https://127.0.0.1:1", &authority, &root).await;
        assert!(matches!(facts.api, ApiServer::NoConnection { tried, .. } if tried.len() == 1));
        assert_eq!(facts.nodeadm, Binary::Missing);
        let facts = look("https://nowhere.invalid", &authority, &root).await;
        assert!(matches!(facts.api, ApiServer::NoAddress { .. }));

        let user = r#"{"status":{"userInfo":{"username":"system:node:n1","groups":[]}}}"#;
        let server = Server::start_tls(&authority, move |_| Answer::status(201, user)).await;
        let facts = look(&server.url(), &authority, &root).await;
        assert_eq!(facts.identity().unwrap().username, "system:node:n1");
        let facts = look(&server.url(), &Authority::new(), &root).await;
        let ApiServer::Answers { identity: Err(error), .. } = facts.api else { panic!() };
        assert!(matches!(error, kube::KubeError::Tls(_)), "{error:?}");
    }

    #[test]
    fn a_binary_must_be_executable() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        std::fs::create_dir_all(root.path("/usr/bin")).unwrap();
        std::fs::write(root.path("/usr/bin/nodeadm"), "").unwrap();
        assert_eq!(binary(&root, "/usr/bin/nodeadm"), Binary::NotExecutable);
        assert_eq!(binary(&root, "/usr/bin/kubelet"), Binary::Missing);
        assert_eq!(binary(&Root::default(), "/bin/sh"), Binary::Usable);
    }

    #[test]
    fn finds_host_and_port() {
        assert_eq!(host_and_port("https://a.example"), Some(("a.example".into(), 443)));
        assert_eq!(host_and_port("http://[::1]:8080/x"), Some(("::1".into(), 8080)));
        assert_eq!(host_and_port("nonsense"), None);
    }
}
