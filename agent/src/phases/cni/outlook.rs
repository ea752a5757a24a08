//! The soft questions about the pods' network: the add-on's health and the subnet's free addresses.
//! They are asked while the phases before are at work, and nobody waits for the answers.

use std::time::Duration;

use contract::{ErrorChain, Finding, Phase, Reason};

use super::ADDON;
use crate::aws::Imds;
use crate::aws::ec2::{Ec2, Subnet};
use crate::aws::eks::{AddonState, Eks};
use crate::host::Deadline;

/// How long the questions may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// With fewer free addresses than this a node's own daemons already take the last ones.
const ADDRESSES_MIN: u32 = 8;

/// What AWS says; what it does not is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// The add-on `vpc-cni`.
    pub addon: Option<AddonState>,
    /// The subnet of the node's first interface.
    pub subnet: Option<Subnet>,
}

/// Asks for both, side by side.
pub async fn ask(imds: &Imds, eks: &Eks, ec2: &Ec2, cluster: &str) -> Outlook {
    let deadline = Deadline::within(PATIENCE);
    let addon = async {
        let answer = eks.addon(cluster, ADDON, deadline).await;
        let unknown = |error| tracing::debug!(error = %ErrorChain(&error), "add-on unknown");
        answer.map_err(unknown).ok().flatten()
    };
    let subnet = async {
        let mac = imds.text("meta-data/mac", deadline).await.ok()?;
        let path = format!("meta-data/network/interfaces/macs/{}/subnet-id", mac.trim());
        let id = imds.text(&path, deadline).await.ok()?;
        let answer = ec2.subnet(id.trim(), deadline).await;
        let unknown = |error| tracing::debug!(error = %ErrorChain(&error), "subnet unknown");
        answer.map_err(unknown).ok().flatten()
    };
    let (addon, subnet) = tokio::join!(addon, subnet);
    Outlook { addon, subnet }
}

impl Outlook {
    /// What is worth saying; soft, all of it.
    #[must_use]
    pub fn findings(&self) -> Vec<Finding> {
        let addon = self.addon.as_ref().filter(|addon| is_ill(addon)).map(|addon| {
            let what = format!("EKS calls the add-on `{ADDON}` {}", addon.status);
            let found = Finding::new(Reason::CniAddonDegraded, Phase::Cni, what);
            addon.issues.iter().fold(found, |found, issue| found.with_evidence(issue.clone()))
        });
        let subnet = self.subnet.as_ref().filter(|subnet| subnet.free < ADDRESSES_MIN);
        let subnet = subnet.map(|subnet| {
            let what = format!("the subnet {} has {} free addresses", subnet.id, subnet.free);
            Finding::new(Reason::SubnetAddressesExhausted, Phase::Cni, what)
        });
        addon.into_iter().chain(subnet).collect()
    }
}

fn is_ill(addon: &AddonState) -> bool {
    !addon.issues.is_empty() || addon.status == "DEGRADED" || addon.status.ends_with("_FAILED")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_aws_says_counts() {
        let addon = |status: &str, issues: &[&str]| Outlook {
            addon: Some(AddonState {
                status: status.into(),
                issues: issues.iter().map(|issue| (*issue).to_owned()).collect(),
            }),
            subnet: None,
        };
        let subnet =
            |free| Outlook { subnet: Some(Subnet { id: "subnet-1".into(), free }), addon: None };
        for (outlook, expected) in [
            (Outlook::default(), None),
            (addon("ACTIVE", &[]), None),
            (addon("CREATING", &[]), None),
            (addon("DEGRADED", &[]), Some(Reason::CniAddonDegraded)),
            (addon("UPDATE_FAILED", &[]), Some(Reason::CniAddonDegraded)),
            (addon("ACTIVE", &["AccessDenied: x"]), Some(Reason::CniAddonDegraded)),
            (subnet(8), None),
            (subnet(7), Some(Reason::SubnetAddressesExhausted)),
        ] {
            let found = outlook.findings();
            assert_eq!(found.first().and_then(|f| f.reason.known()), expected, "{outlook:?}");
            assert!(found.iter().all(|finding| !finding.reason.is_hard()));
        }
    }
}
