//! Phase 3: can this host reach its cluster, and is it known there under the right name?

mod probe;

use std::net::IpAddr;
use std::time::Duration;

use contract::{ErrorChain, Finding, Phase, Reason, Verdict};

use crate::aws::credentials::CredentialsError;
use crate::kube::{Identity, KubeError};

pub use probe::{Surroundings, gather};

/// The clock error from which signatures and certificates are refused.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// How long a 401 may be the access entry on its way through EKS.
const ENTRY_PATIENCE: Duration = Duration::from_secs(30);

/// What a node is called by the API server.
pub const NODE_PREFIX: &str = "system:node:";

/// The group without which a node may do nothing.
const NODES_GROUP: &str = "system:nodes";

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// `/usr/bin/nodeadm`.
    pub nodeadm: Binary,
    /// `/usr/bin/kubelet`.
    pub kubelet: Binary,
    /// Whether the role's credentials can be had.
    pub credentials: Result<(), CredentialsError>,
    /// The way to the API server, as far as it goes.
    pub api: ApiServer,
    /// By how many seconds the node's clock is ahead: of the API server's, else of the metadata
    /// service's.
    pub clock_ahead: Option<i64>,
    /// Why STS cannot be reached; soft.
    pub sts: Result<(), String>,
}

/// A program that the join needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// It is there and can be executed.
    Usable,
    /// There is a file that nobody may execute.
    NotExecutable,
    /// There is none.
    Missing,
}

/// The way to the API server: each step needs the one before.
#[derive(Debug)]
pub enum ApiServer {
    /// There was no time to look.
    NotReached,
    /// Its name does not resolve.
    NoAddress {
        /// The name.
        host: String,
        /// Why.
        why: String,
    },
    /// No connection to any of its addresses.
    NoConnection {
        /// Host and port.
        target: String,
        /// Each address and what became of it.
        tried: Vec<(IpAddr, String)>,
    },
    /// Connected: what it says of us.
    Answers {
        /// Host and port, or the proxy before them.
        target: String,
        /// Who we are to it, or why it does not say.
        identity: Result<Identity, KubeError>,
    },
}

impl Facts {
    /// Who we are to the API server.
    #[must_use]
    pub const fn identity(&self) -> Option<&Identity> {
        match &self.api {
            ApiServer::Answers { identity: Ok(identity), .. } => Some(identity),
            _ => None,
        }
    }
}

/// Whether the node can reach its cluster and is known to it; `elapsed` is how long the phase has
/// looked.
#[must_use]
pub fn verdict(facts: &Facts, elapsed: Duration) -> Verdict {
    let mut findings = Vec::new();
    let mut waiting = None;
    findings.extend(binary_finding("nodeadm", facts.nodeadm, Reason::NodeadmMissing));
    findings.extend(binary_finding("kubelet", facts.kubelet, Reason::KubeletMissing));
    findings.extend(clock_finding(facts.clock_ahead));
    match &facts.credentials {
        Ok(()) => match api_answer(&facts.api, elapsed) {
            Answer::Fine => {}
            Answer::Heals(finding) => waiting = Some(finding),
            Answer::Fails(finding) => findings.push(finding),
        },
        Err(error) => match credentials_answer(error) {
            Answer::Heals(finding) => waiting = Some(finding),
            Answer::Fails(finding) => findings.push(finding),
            Answer::Fine => {}
        },
    }
    if let Err(why) = &facts.sts {
        let summary = format!("STS: {why}");
        findings.push(Finding::new(Reason::StsUnreachable, Phase::Preflight, summary));
    }
    let verdict = Verdict::of(contract::verdict::rank(findings));
    match waiting {
        Some(finding) if verdict.is_open() => Verdict::Wait(Box::new(finding)),
        _ => verdict,
    }
}

enum Answer {
    Fine,
    Heals(Finding),
    Fails(Finding),
}

fn finding(reason: Reason, summary: impl Into<String>) -> Finding {
    Finding::new(reason, Phase::Preflight, summary)
}

fn binary_finding(name: &str, binary: Binary, reason: Reason) -> Option<Finding> {
    let what = match binary {
        Binary::Usable => return None,
        Binary::NotExecutable => "is not executable",
        Binary::Missing => "does not exist",
    };
    Some(finding(reason, format!("`/usr/bin/{name}` {what}")))
}

fn clock_finding(ahead: Option<i64>) -> Option<Finding> {
    let ahead = ahead?;
    (ahead.unsigned_abs() > SKEW_MAX.as_secs()).then(|| {
        let side = if ahead > 0 { "ahead" } else { "behind" };
        finding(
            Reason::ClockSkewed,
            format!("the node's clock is {} s {side}", ahead.unsigned_abs()),
        )
    })
}

fn credentials_answer(error: &CredentialsError) -> Answer {
    let text = ErrorChain(error).to_string();
    match error {
        // The profile of a new instance can lag behind it.
        CredentialsError::NoRole | CredentialsError::Imds(_) => {
            Answer::Heals(finding(Reason::CredentialsMissing, text))
        }
        CredentialsError::Refused { .. } | CredentialsError::Malformed { .. } => {
            Answer::Fails(finding(Reason::CredentialsDenied, text))
        }
    }
}

fn api_answer(api: &ApiServer, elapsed: Duration) -> Answer {
    match api {
        ApiServer::NotReached => Answer::Heals(finding(
            Reason::ApiServerUnreachable,
            "the API server was not reached in time",
        )),
        ApiServer::NoAddress { host, why } => Answer::Heals(finding(
            Reason::ApiServerDnsFailed,
            format!("`{host}` does not resolve: {why}"),
        )),
        ApiServer::NoConnection { target, tried } => {
            let nobody = format!("no connection to `{target}`");
            let mut nobody = finding(Reason::ApiServerUnreachable, nobody);
            for (address, why) in tried {
                nobody = nobody.with_evidence(format!("TCP {address}: {why}"));
            }
            Answer::Heals(nobody)
        }
        ApiServer::Answers { target, identity: Err(error) } => refusal(target, error, elapsed),
        ApiServer::Answers { identity: Ok(identity), .. } => identity_answer(identity),
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
        KubeError::Credentials(error) => credentials_answer(error),
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

    fn identity(username: &str, groups: &[&str]) -> ApiServer {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        answers(Ok(Identity { username: username.into(), groups }))
    }

    fn answers(identity: Result<Identity, KubeError>) -> ApiServer {
        ApiServer::Answers { target: "api:443".into(), identity }
    }

    fn facts() -> Facts {
        Facts {
            nodeadm: Binary::Usable,
            kubelet: Binary::Usable,
            credentials: Ok(()),
            api: identity("system:node:n1", &["system:bootstrappers", "system:nodes"]),
            clock_ahead: Some(0),
            sts: Ok(()),
        }
    }

    fn after(seconds: u64, facts: &Facts) -> (&'static str, String) {
        match verdict(facts, Duration::from_secs(seconds)) {
            Verdict::Pass => ("pass", String::new()),
            Verdict::Wait(finding) => ("wait", finding.reason.to_string()),
            Verdict::Degraded(found) => ("degraded", found[0].reason.to_string()),
            Verdict::Fail(found) => ("fail", found[0].reason.to_string()),
        }
    }

    #[test]
    fn a_node_that_is_known_passes() {
        assert_eq!(after(0, &facts()).0, "pass");
        let no_sts = Facts { sts: Err("no connection".into()), ..facts() };
        assert_eq!(after(0, &no_sts), ("degraded", "StsUnreachable".into()));
        let unread_clock = Facts { clock_ahead: None, ..facts() };
        assert_eq!(after(0, &unread_clock).0, "pass");
    }

    #[test]
    fn what_cannot_heal_fails_at_once() {
        let missing = CredentialsError::Refused { role: "r".into(), code: "Nope".into() };
        for (facts, reason) in [
            (Facts { nodeadm: Binary::Missing, ..facts() }, "NodeadmMissing"),
            (Facts { kubelet: Binary::NotExecutable, ..facts() }, "KubeletMissing"),
            (Facts { clock_ahead: Some(-301), ..facts() }, "ClockSkewed"),
            (Facts { credentials: Err(missing), ..facts() }, "CredentialsDenied"),
            (
                Facts { api: identity("arn:aws:sts::1:role", &["x"]), ..facts() },
                "ApiServerUnauthorized",
            ),
            (
                Facts { api: identity("system:node:n1", &["other"]), ..facts() },
                "ApiServerUnauthorized",
            ),
        ] {
            assert_eq!(after(0, &facts), ("fail", reason.into()));
        }
    }

    #[test]
    fn what_can_heal_is_waited_for() {
        let no_address = ApiServer::NoAddress { host: "h".into(), why: "w".into() };
        let no_connection = ApiServer::NoConnection { target: "h:443".into(), tried: vec![] };
        for (api, reason) in [
            (no_address, "ApiServerDnsFailed"),
            (no_connection, "ApiServerUnreachable"),
            (ApiServer::NotReached, "ApiServerUnreachable"),
        ] {
            assert_eq!(after(80, &Facts { api, ..facts() }), ("wait", reason.into()));
        }
        let no_role = Facts { credentials: Err(CredentialsError::NoRole), ..facts() };
        assert_eq!(after(80, &no_role), ("wait", "CredentialsMissing".into()));
        let unknown = || {
            let error = KubeError::Unauthorized("Unauthorized".into());
            Facts { api: answers(Err(error)), ..facts() }
        };
        assert_eq!(after(5, &unknown()), ("wait", "ApiServerUnauthorized".into()));
        assert_eq!(after(30, &unknown()), ("fail", "ApiServerUnauthorized".into()));
    }

    #[test]
    fn what_we_may_not_read_keeps_nobody_out() {
        for error in [KubeError::Forbidden("no".into()), KubeError::NotFound("no".into())] {
            assert_eq!(after(0, &Facts { api: answers(Err(error)), ..facts() }).0, "pass");
        }
    }

    #[test]
    fn the_clock_explains_the_rest() {
        let both = Facts {
            clock_ahead: Some(4000),
            api: answers(Err(KubeError::Unauthorized("Unauthorized".into()))),
            ..facts()
        };
        assert_eq!(after(60, &both), ("fail", "ClockSkewed".into()));
        assert_eq!(after(0, &both), ("fail", "ClockSkewed".into()));
    }
}
