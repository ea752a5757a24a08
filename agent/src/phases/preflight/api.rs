//! The way to the API server, and who it thinks we are.

use std::time::Duration;

use contract::{ErrorChain, Finding, Reason};

use super::reach::Unreached;
use super::{Answer, credentials_answer, finding};
use crate::kube::{Identity, KubeError};

/// How long a 401 may be the access entry on its way through EKS.
const ENTRY_PATIENCE: Duration = Duration::from_secs(30);

/// What a node is called by the API server.
pub const NODE_PREFIX: &str = "system:node:";

/// The group without which a node may do nothing.
const NODES_GROUP: &str = "system:nodes";

/// The way to the API server: each step needs the one before.
#[derive(Debug)]
pub enum ApiServer {
    /// There was no time to look.
    NotReached,
    /// It is not reached.
    Unreached(Unreached),
    /// Connected: what it says of us.
    Answers {
        /// Host and port, and the proxy before them.
        target: String,
        /// Who we are to it, or why it does not say.
        identity: Result<Identity, KubeError>,
    },
}

/// What EKS says of the cluster; asked for only when the way to it is not fine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Published {
    /// Nobody was asked, or we may not know.
    Unknown,
    /// There is no such cluster.
    NoCluster,
    /// This is where it is.
    Cluster {
        /// URL of its API server.
        endpoint: String,
        /// Its CA, PEM.
        ca_pem: Vec<u8>,
    },
}

/// What the NodeConfig says of the cluster and EKS does not; `None` when they agree or nobody knows.
#[must_use]
pub fn stale(name: &str, endpoint: &str, ca_pem: &[u8], published: &Published) -> Option<Finding> {
    let what = match published {
        Published::Unknown => return None,
        Published::NoCluster => format!("EKS has no cluster `{name}`"),
        Published::Cluster { endpoint: theirs, ca_pem: other } => {
            let plain = |url: &str| url.trim_end_matches('/').to_ascii_lowercase();
            if plain(endpoint) != plain(theirs) {
                format!("the NodeConfig names the endpoint `{endpoint}`, `{name}` has `{theirs}`")
            } else if !holds(ca_pem, other) {
                format!("the CA in the NodeConfig is not the one of `{name}`")
            } else {
                return None;
            }
        }
    };
    Some(finding(Reason::ClusterFactsStale, what).with_evidence("eks:DescribeCluster"))
}

/// Whether the bundle `ours` has the certificate `theirs`, however its lines are broken.
fn holds(ours: &[u8], theirs: &[u8]) -> bool {
    let dense = |pem: &[u8]| -> Vec<u8> {
        pem.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
    };
    let (ours, theirs) = (dense(ours), dense(theirs));
    theirs.is_empty() || ours.windows(theirs.len()).any(|part| part == theirs)
}

/// What the way to the API server means, `elapsed` into the phase.
pub(super) fn answer(api: &ApiServer, elapsed: Duration) -> Answer {
    match api {
        ApiServer::NotReached => Answer::Heals(finding(
            Reason::ApiServerUnreachable,
            "the API server was not reached in time",
        )),
        ApiServer::Unreached(unreached) => Answer::Heals(unreached_finding(unreached)),
        ApiServer::Answers { target, identity: Err(error) } => refusal(target, error, elapsed),
        ApiServer::Answers { identity: Ok(identity), .. } => identity_answer(identity),
    }
}

fn unreached_finding(unreached: &Unreached) -> Finding {
    match unreached {
        Unreached::NoAddress { .. } => finding(Reason::ApiServerDnsFailed, unreached.to_string()),
        Unreached::NoConnection { target, tried } => {
            let nobody = format!("no connection to `{target}`");
            tried.iter().fold(finding(Reason::ApiServerUnreachable, nobody), |found, (at, why)| {
                found.with_evidence(format!("TCP {at}: {why}"))
            })
        }
        Unreached::BeyondProxy { .. } => {
            finding(Reason::ApiServerUnreachable, unreached.to_string())
        }
        Unreached::Proxy { .. } => finding(Reason::ProxyMisconfigured, unreached.to_string()),
    }
}

fn refusal(target: &str, error: &KubeError, elapsed: Duration) -> Answer {
    let text = format!("`{target}`: {}", ErrorChain(error));
    match error {
        KubeError::Tls(_) => Answer::Fails(finding(Reason::ApiServerTlsUntrusted, text)),
        KubeError::Unauthorized(_) if elapsed < ENTRY_PATIENCE => {
            Answer::Heals(finding(Reason::ApiServerUnauthorized, text))
        }
        KubeError::Unauthorized(_) => Answer::Fails(finding(Reason::ApiServerUnauthorized, text)),
        KubeError::Dns(_) => Answer::Heals(finding(Reason::ApiServerDnsFailed, text)),
        KubeError::Credentials(error) => credentials_answer(error, elapsed),
        // A server that refuses or lacks the review says nothing of whether it knows us.
        KubeError::Forbidden(_) | KubeError::NotFound(_) | KubeError::Malformed(_) => Answer::Fine,
        KubeError::Cluster { .. }
        | KubeError::Token(_)
        | KubeError::Tcp(_)
        | KubeError::Timeout(_)
        | KubeError::Status { .. }
        | KubeError::Other(_) => Answer::Heals(finding(Reason::ApiServerUnreachable, text)),
    }
}

fn identity_answer(identity: &Identity) -> Answer {
    let Identity { username, groups } = identity;
    let is_node = username.starts_with(NODE_PREFIX) && username.len() > NODE_PREFIX.len();
    if is_node && groups.iter().any(|group| group == NODES_GROUP) {
        return Answer::Fine;
    }
    let summary = format!(
        "the API server knows this node's role as `{username}` and not as a node: the access \
         entry is of another type"
    );
    let groups = format!("groups: {}", groups.join(", "));
    Answer::Fails(finding(Reason::ApiServerUnauthorized, summary).with_evidence(groups))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_config_is_stale_only_where_eks_says_otherwise() {
        let published = |endpoint: &str, ca: &[u8]| Published::Cluster {
            endpoint: endpoint.into(),
            ca_pem: ca.to_vec(),
        };
        let summary = |published| {
            let found = stale("prod", "https://ABC.eks/", b"-----BEGIN\nAA\nBB\n", &published);
            found.map(|finding| finding.summary)
        };
        assert_eq!(summary(Published::Unknown), None);
        assert_eq!(summary(published("https://abc.eks", b"-----BEGIN\r\nAABB")), None);
        let other = summary(published("https://DEF.eks", b"-----BEGIN\nAABB")).unwrap();
        assert!(other.contains("`prod` has `https://DEF.eks`"), "{other}");
        assert!(summary(published("https://ABC.eks", b"CC")).unwrap().contains("CA"));
        assert!(summary(Published::NoCluster).unwrap().contains("no cluster `prod`"));
    }
}
