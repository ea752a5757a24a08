//! Phase 3: can this host reach its cluster, and is it known there under the right name?
//!
//! By subject: [`host`] (image, programs, disks), [`api`] (the way to the API server), [`services`]
//! (EC2, STS, ECR); [`probe`] looks, [`reach`] connects.

pub mod api;
pub mod host;
mod probe;
pub mod reach;
pub mod services;

use std::time::Duration;

use contract::{ErrorChain, Finding, Phase, Reason, Verdict};

use self::api::ApiServer;
use self::host::Host;
use self::services::Services;
use crate::aws::credentials::CredentialsError;
use crate::kube::Identity;

pub use api::NODE_PREFIX;
pub use probe::{Directory, Surroundings, gather};

/// The clock error from which signatures and certificates are refused.
const SKEW_MAX: Duration = Duration::from_secs(300);

/// How long STS may refuse the role. IAM is eventually consistent: seconds, by AWS's word.
const ROLE_PATIENCE: Duration = Duration::from_secs(20);

/// What was found.
#[derive(Debug)]
pub struct Facts {
    /// Image, programs, disks; or the place on the disk that does not answer.
    pub host: Result<Host, &'static str>,
    /// Whether the role's credentials can be had.
    pub credentials: Result<(), CredentialsError>,
    /// The way to the API server, as far as it goes.
    pub api: ApiServer,
    /// The API server's version, when it has said it: `v1.34.2-eks-113cf36`.
    pub server_version: Option<String>,
    /// What the NodeConfig says of the cluster and EKS does not.
    pub stale: Option<Finding>,
    /// By how many seconds the node's clock is ahead: of the API server's, else of the metadata
    /// service's.
    pub clock_ahead: Option<i64>,
    /// AWS's other services.
    pub services: Services,
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
    let mut waiting = Vec::new();
    match &facts.host {
        Ok(host) => findings.extend(host::findings(host, facts.server_version.as_deref())),
        Err(path) => {
            let what = format!("`{path}` does not answer: its file system hangs");
            waiting.push(finding(Reason::DeadlineExceeded, what));
        }
    }
    findings.extend(clock_finding(facts.clock_ahead));
    findings.extend(facts.stale.clone());
    findings.extend(services::soft(&facts.services));
    waiting.extend(services::awaited(&facts.services));
    let answer = match &facts.credentials {
        Ok(()) => api::answer(&facts.api, elapsed),
        Err(error) => credentials_answer(error, elapsed),
    };
    match answer {
        Answer::Fine => {}
        Answer::Heals(finding) => waiting.push(finding),
        Answer::Fails(finding) => findings.push(finding),
    }
    let verdict = Verdict::of(contract::verdict::rank(findings));
    match contract::verdict::rank(waiting).into_iter().next() {
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

fn credentials_answer(error: &CredentialsError, elapsed: Duration) -> Answer {
    let text = ErrorChain(error).to_string();
    match error {
        // The profile of a new instance can lag behind it.
        CredentialsError::NoRole | CredentialsError::Imds(_) => {
            Answer::Heals(finding(Reason::CredentialsMissing, text))
        }
        // A role that was made or changed a moment ago is not known everywhere yet.
        CredentialsError::Refused { .. } if elapsed < ROLE_PATIENCE => {
            Answer::Heals(finding(Reason::CredentialsDenied, text))
        }
        CredentialsError::Refused { .. } | CredentialsError::Malformed { .. } => {
            Answer::Fails(finding(Reason::CredentialsDenied, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::api::Published;
    use super::reach::Unreached;
    use super::*;
    use crate::host::program::Program;
    use crate::kube::KubeError;

    fn identity(username: &str, groups: &[&str]) -> ApiServer {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        answers(Ok(Identity { username: username.into(), groups }))
    }

    fn answers(identity: Result<Identity, KubeError>) -> ApiServer {
        ApiServer::Answers { target: "api:443".into(), identity }
    }

    fn facts() -> Facts {
        Facts {
            host: Ok(host::tests::host()),
            credentials: Ok(()),
            api: identity("system:node:n1", &["system:bootstrappers", "system:nodes"]),
            server_version: Some("v1.34.4".into()),
            stale: None,
            clock_ahead: Some(0),
            services: services::tests::services(),
        }
    }

    fn with(change: impl FnOnce(&mut Facts)) -> Facts {
        let mut facts = facts();
        change(&mut facts);
        facts
    }

    fn on_host(change: impl FnOnce(&mut Host)) -> Facts {
        with(|facts| change(facts.host.as_mut().unwrap()))
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
        let no_sts = with(|facts| facts.services.sts = Err("no connection".into()));
        assert_eq!(after(0, &no_sts), ("degraded", "StsUnreachable".into()));
        let unread_clock = Facts { clock_ahead: None, ..facts() };
        assert_eq!(after(0, &unread_clock).0, "pass");
    }

    #[test]
    fn what_cannot_heal_fails_at_once() {
        for (facts, reason) in [
            (on_host(|host| host.nodeadm = Program::Missing), "NodeadmMissing"),
            (on_host(|host| host.full = vec!["`/run` has 0 KiB left".into()]), "DiskFull"),
            (Facts { clock_ahead: Some(-301), ..facts() }, "ClockSkewed"),
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
        let no_address = Unreached::NoAddress { host: "h".into(), why: "w".into() };
        let no_connection = Unreached::NoConnection { target: "h:443".into(), tried: vec![] };
        let no_proxy = Unreached::Proxy { proxy: "p:1".into(), what: "does not resolve".into() };
        for (api, reason) in [
            (ApiServer::Unreached(no_address), "ApiServerDnsFailed"),
            (ApiServer::Unreached(no_connection), "ApiServerUnreachable"),
            (ApiServer::Unreached(no_proxy), "ProxyMisconfigured"),
            (ApiServer::NotReached, "ApiServerUnreachable"),
        ] {
            assert_eq!(after(80, &Facts { api, ..facts() }), ("wait", reason.into()));
        }
        let hung = Facts { host: Err("/var/lib/containerd"), ..facts() };
        assert_eq!(after(80, &hung), ("wait", "DeadlineExceeded".into()));
        let no_role = Facts { credentials: Err(CredentialsError::NoRole), ..facts() };
        assert_eq!(after(80, &no_role), ("wait", "CredentialsMissing".into()));
        let refused = CredentialsError::Refused { role: "r".into(), code: "Nope".into() };
        let refused = Facts { credentials: Err(refused), ..facts() };
        assert_eq!(after(10, &refused), ("wait", "CredentialsDenied".into()));
        assert_eq!(after(20, &refused), ("fail", "CredentialsDenied".into()));
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

    #[test]
    fn ec2_is_waited_for_and_the_way_to_the_cluster_comes_first() {
        let cut_off = || Some(Err(Unreached::NoConnection { target: "e".into(), tried: vec![] }));
        let no_ec2 = with(|facts| facts.services.ec2 = cut_off());
        assert_eq!(after(80, &no_ec2), ("wait", "Ec2ApiUnreachable".into()));
        let by_proxy = with(|facts| {
            facts.services.ec2 = cut_off();
            facts.api =
                ApiServer::Unreached(Unreached::Proxy { proxy: "p".into(), what: "w".into() });
        });
        assert_eq!(after(80, &by_proxy), ("wait", "ProxyMisconfigured".into()));
    }

    #[test]
    fn stale_cluster_facts_explain_why_nobody_answers() {
        let published = Published::NoCluster;
        let stale = with(|facts| {
            facts.stale = api::stale("prod", "https://x", b"", &published);
            facts.api = answers(Err(KubeError::Unauthorized("Unauthorized".into())));
        });
        assert_eq!(after(0, &stale), ("fail", "ClusterFactsStale".into()));
        let Verdict::Fail(found) = verdict(&stale, Duration::from_secs(60)) else { panic!() };
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
