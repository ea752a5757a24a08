//! Phase 1: who are we, and what were we told?

use contract::{Finding, Phase, Reason, Verdict};
use jiff::Timestamp;
use serde::Deserialize;

use crate::aws::Imds;
use crate::aws::imds::ImdsError;
use crate::host::{Deadline, Root, network};

/// What the metadata service says.
pub struct Facts {
    /// The instance identity document.
    pub document: Result<Document, DocumentError>,
    /// The private host name; nodeadm asks EC2 for it, which agrees unless the VPC renames hosts.
    pub hostname: Option<String>,
    /// The user data as given; `None` when there is none.
    pub user_data: Result<Option<Vec<u8>>, ImdsError>,
    /// Why nothing can be reached at all; looked at only when the service does not answer.
    pub network: Option<String>,
}

/// User data may hold a secret: its length is shown.
impl std::fmt::Debug for Facts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user_data = self.user_data.as_ref().map(|data| data.as_ref().map(Vec::len));
        f.debug_struct("Facts")
            .field("document", &self.document)
            .field("hostname", &self.hostname)
            .field("user_data_bytes", &user_data)
            .field("network", &self.network)
            .finish()
    }
}

/// Why there is no identity document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The metadata service did not give it.
    #[error(transparent)]
    Imds(#[from] ImdsError),
    /// It cannot be read.
    #[error("the instance identity document cannot be read: {0}")]
    Malformed(String),
}

/// The instance identity document, as far as the join needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Document {
    /// `i-…`.
    pub instance_id: String,
    /// `p5.48xlarge`.
    pub instance_type: String,
    /// `us-east-1a`.
    pub availability_zone: String,
    /// `us-east-1`.
    pub region: String,
    /// The account.
    pub account_id: String,
    /// When the launch began.
    pub pending_time: Option<String>,
}

impl Document {
    /// When the launch began, if the document says so readably.
    #[must_use]
    pub fn pending(&self) -> Option<Timestamp> {
        self.pending_time.as_deref()?.parse().ok()
    }

    /// ARN of the instance.
    #[must_use]
    pub fn arn(&self) -> String {
        let partition = match self.region.split_once('-').map(|(first, _)| first) {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            Some("us") if self.region.starts_with("us-isob-") => "aws-iso-b",
            Some("us") if self.region.starts_with("us-iso-") => "aws-iso",
            Some("eusc") => "aws-eusc",
            _ => "aws",
        };
        let Self { region, account_id, instance_id, .. } = self;
        format!("arn:{partition}:ec2:{region}:{account_id}:instance/{instance_id}")
    }

    fn missing(&self) -> Vec<&'static str> {
        [
            ("instanceId", &self.instance_id),
            ("instanceType", &self.instance_type),
            ("availabilityZone", &self.availability_zone),
            ("region", &self.region),
            ("accountId", &self.account_id),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.is_empty().then_some(name))
        .collect()
    }
}

/// Asks the metadata service for everything at once.
pub async fn gather(root: &Root, imds: &Imds, deadline: Deadline) -> Facts {
    let (document, hostname, user_data) = tokio::join!(
        document(imds, deadline),
        imds.text("meta-data/local-hostname", deadline),
        imds.optional("user-data", deadline),
    );
    let hostname = hostname.ok();
    // Several domains in the VPC's DHCP options come as several names: the first is the node's.
    let hostname = hostname.and_then(|names| names.split_whitespace().next().map(str::to_owned));
    let is_lost = matches!(document, Err(DocumentError::Imds(ImdsError::Unreachable { .. })));
    let network = if is_lost { network::read(root).and_then(|n| n.problem()) } else { None };
    Facts { document, hostname, user_data, network }
}

async fn document(imds: &Imds, deadline: Deadline) -> Result<Document, DocumentError> {
    let bytes = imds.get("dynamic/instance-identity/document", deadline).await?;
    serde_json::from_slice(&bytes).map_err(|error| DocumentError::Malformed(error.to_string()))
}

/// Whether we know who we are. A service that does not answer yet may come with the network.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    let incomplete =
        |summary: String| Finding::new(Reason::IdentityIncomplete, Phase::Identify, summary);
    let mut findings = Vec::new();
    match &facts.document {
        Err(DocumentError::Imds(error)) => findings.push(imds_finding(error)),
        Err(error) => findings.push(incomplete(error.to_string())),
        Ok(document) if !document.missing().is_empty() => findings.push(incomplete(format!(
            "the instance identity document lacks {}",
            document.missing().join(", ")
        ))),
        Ok(_) => {}
    }
    if let Err(error) = &facts.user_data {
        let finding = imds_finding(error);
        if !findings.iter().any(|other| other.reason == finding.reason) {
            findings.push(finding);
        }
    }
    if let Some(why) = &facts.network {
        let reason = Reason::NetworkNotConfigured;
        findings.insert(0, Finding::new(reason, Phase::Identify, why.clone()));
    }
    let findings = contract::verdict::rank(findings);
    let is_coming = |finding: &Finding| {
        [Reason::ImdsUnreachable, Reason::NetworkNotConfigured].iter().any(|r| finding.reason == *r)
    };
    match findings.as_slice() {
        [finding] if is_coming(finding) => Verdict::Wait(Box::new(finding.clone())),
        _ => Verdict::of(findings),
    }
}

fn imds_finding(error: &ImdsError) -> Finding {
    let reason = match error {
        ImdsError::Unreachable { .. } | ImdsError::Failed { .. } => Reason::ImdsUnreachable,
        ImdsError::Denied { .. } => Reason::ImdsTokenDenied,
        ImdsError::NotFound { .. } => Reason::IdentityIncomplete,
    };
    let finding = Finding::new(reason, Phase::Identify, error.to_string());
    match std::error::Error::source(error) {
        Some(source) => finding.with_evidence(contract::ErrorChain(source).to_string()),
        None => finding,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::testing::http::{Answer, Server};
    use crate::testing::imds_answers;

    #[test]
    fn user_data_is_in_no_output() {
        let facts = Facts {
            document: Ok(document()),
            hostname: None,
            user_data: Ok(Some(b"planted-secret".to_vec())),
            network: None,
        };
        let text = format!("{facts:?}");
        let bytes = format!("{:?}", b"planted-secret".to_vec());
        assert!(!text.contains("planted-secret") && !text.contains(&bytes), "{text}");
        assert!(text.contains("14"), "{text}");
    }

    fn document() -> Document {
        Document {
            instance_id: "i-0abc".into(),
            instance_type: "p5.48xlarge".into(),
            availability_zone: "us-east-1a".into(),
            region: "us-east-1".into(),
            account_id: "123456789012".into(),
            pending_time: Some("2026-11-20T20:00:00Z".into()),
        }
    }

    fn facts() -> Facts {
        Facts { document: Ok(document()), hostname: None, user_data: Ok(None), network: None }
    }

    fn reasons(verdict: Verdict) -> Vec<String> {
        match verdict {
            Verdict::Fail(findings) => findings.iter().map(|f| f.reason.to_string()).collect(),
            Verdict::Wait(finding) => vec![format!("wait {}", finding.reason)],
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_what_keeps_us_from_knowing() {
        use reqwest::StatusCode;
        assert_eq!(verdict(&facts()), Verdict::Pass);
        let path = || "x".to_owned();
        let denied = || ImdsError::Denied { path: path(), status: StatusCode::FORBIDDEN };
        let lost = || ImdsError::Unreachable { path: path(), source: None };
        let broken = || ImdsError::Failed { path: path(), what: "503".into() };
        let absent = || ImdsError::NotFound { path: path() };
        for (error, reason) in [
            (denied(), "ImdsTokenDenied"),
            (lost(), "wait ImdsUnreachable"),
            (broken(), "wait ImdsUnreachable"),
            (absent(), "IdentityIncomplete"),
        ] {
            let facts = Facts { document: Err(error.into()), ..facts() };
            assert_eq!(reasons(verdict(&facts)), [reason]);
        }
        let both = Facts { document: Err(lost().into()), user_data: Err(lost()), ..facts() };
        assert_eq!(reasons(verdict(&both)), ["wait ImdsUnreachable"], "named once");
        let network = Some("no interface has a route: ens5 is down".to_owned());
        let cut_off = Facts { network, document: Err(lost().into()), ..facts() };
        assert_eq!(reasons(verdict(&cut_off)), ["wait NetworkNotConfigured"]);
        let user_data = Facts { user_data: Err(denied()), ..facts() };
        assert_eq!(reasons(verdict(&user_data)), ["ImdsTokenDenied"]);
    }

    #[test]
    fn an_incomplete_document_says_what_it_lacks() {
        let partial = Document { region: String::new(), account_id: String::new(), ..document() };
        let facts = Facts { document: Ok(partial), ..facts() };
        let Verdict::Fail(findings) = verdict(&facts) else { panic!() };
        assert_eq!(findings[0].summary, "the instance identity document lacks region, accountId");
    }

    #[test]
    fn the_arn_follows_the_partition() {
        assert_eq!(document().arn(), "arn:aws:ec2:us-east-1:123456789012:instance/i-0abc");
        let china = Document { region: "cn-north-1".into(), ..document() };
        assert!(china.arn().starts_with("arn:aws-cn:ec2:cn-north-1:"));
    }

    #[tokio::test]
    async fn gathers_side_by_side() {
        let server = Server::start(|request| match request.split(' ').nth(1) {
            Some("/latest/user-data") => Answer::ok("MIME"),
            Some("/latest/meta-data/local-hostname") => Answer::ok("a.ec2.internal b.example"),
            _ => imds_answers(request),
        })
        .await;
        let imds = Imds::at(&server.url());
        let facts = gather(&Root::default(), &imds, Deadline::within(Duration::from_secs(5))).await;
        assert_eq!(facts.document.as_ref().unwrap(), &document());
        assert_eq!(facts.hostname.as_deref(), Some("a.ec2.internal"));
        assert_eq!(facts.user_data.as_ref().unwrap().as_deref(), Some(b"MIME".as_slice()));
        assert_eq!(verdict(&facts), Verdict::Pass);
    }
}
