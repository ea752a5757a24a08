//! Phase 6: will networking come up once we register?
//!
//! The VPC CNI is a pod and needs a registered kubelet, so all that can be proven before is proven
//! here: its plugins are on the disk and it is installed in the cluster. Its health there never
//! closes the gate, or one sick node would keep out its own replacement. A CNI that is installed on
//! the host is waited for literally.

mod network;
mod outlook;
mod plugins;

use contract::agent_config::CniKind;
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};

use crate::aws::eks::Eks;
use crate::host::{Deadline, Root};
use crate::kube;

pub use network::{Network, move_aside, of_vpc_cni};
pub use outlook::{Outlook, ask};

/// Where the plugins lie.
const PLUGIN_DIR: &str = "/opt/cni/bin";

/// Where the CNI's configuration lies.
const CONFIG_DIR: &str = "/etc/cni/net.d";

/// The base plugins that every pod's network needs, the VPC CNI's included.
const PLUGINS: [&str; 3] = ["loopback", "host-local", "portmap"];

/// The one that containerd itself needs, whatever the network.
const LOOPBACK: &str = "loopback";

/// The VPC CNI's DaemonSet and add-on.
const DAEMONSET: &str = "aws-node";
const ADDON: &str = "vpc-cni";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Base plugins that are not there.
    pub missing_plugins: Vec<String>,
    /// What installs the network.
    pub installer: Installer,
    /// What the soft questions have brought to light.
    pub outlook: Outlook,
    /// Why a configuration of an earlier boot is still there.
    pub leftover: Option<String>,
}

/// What installs the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Installer {
    /// The VPC CNI's pod.
    Pod {
        /// The DaemonSet in the cluster.
        daemonset: Presence,
        /// The EKS add-on, which installs the DaemonSet; asked for only without a DaemonSet.
        addon: Presence,
    },
    /// The host: the configuration that containerd will take, or why there is none.
    Host(Result<HostNetwork, String>),
}

/// A network that something on the host has installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostNetwork {
    /// Name of its configuration.
    pub file: String,
    /// Plugins that it names and that are not there.
    pub missing: Vec<String>,
    /// What its plugins answer that is not as it should be.
    pub troubles: Vec<String>,
}

/// Whether something is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Present,
    /// It is not.
    Absent,
    /// We may not or could not look.
    Unknown(String),
}

/// Looks at the disk and, where the CNI is a pod, at the cluster and, if need be, EKS. Changes
/// nothing: [`move_aside`] is the one act of this phase, and [`ask`] has the soft questions.
pub async fn gather(
    root: &Root,
    kind: CniKind,
    kube: &kube::Client,
    eks: &Eks,
    deadline: Deadline,
) -> Facts {
    let (missing_plugins, installer) = match kind {
        CniKind::VpcCni => (network::missing(root, PLUGINS), pod(kube, eks, deadline).await),
        CniKind::Host => {
            (network::missing(root, [LOOPBACK]), Installer::Host(host(root, deadline).await))
        }
    };
    Facts { missing_plugins, installer, outlook: Outlook::default(), leftover: None }
}

async fn host(root: &Root, deadline: Deadline) -> Result<HostNetwork, String> {
    let network = network::chosen(root)?;
    let missing = network::missing(root, network.types());
    let troubles = match missing.is_empty() {
        true => plugins::ask(root, &network, deadline).await,
        false => Vec::new(),
    };
    Ok(HostNetwork { file: network.file, missing, troubles })
}

async fn pod(kube: &kube::Client, eks: &Eks, deadline: Deadline) -> Installer {
    let daemonset = match kube.daemonset(DAEMONSET, deadline).await {
        Ok(Some(_)) => Presence::Present,
        Ok(None) => Presence::Absent,
        Err(error) => Presence::Unknown(ErrorChain(&error).to_string()),
    };
    let addon = match daemonset {
        Presence::Absent => match eks.addon(&kube.cluster().name, ADDON, deadline).await {
            Ok(Some(_)) => Presence::Present,
            Ok(None) => Presence::Absent,
            Err(error) => Presence::Unknown(ErrorChain(&error).to_string()),
        },
        Presence::Present | Presence::Unknown(_) => Presence::Unknown("not asked".into()),
    };
    Installer::Pod { daemonset, addon }
}

/// Whether networking will come up.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    if !facts.missing_plugins.is_empty() {
        let what = format!("`{PLUGIN_DIR}` lacks {}", facts.missing_plugins.join(", "));
        return Verdict::Fail(vec![finding(Reason::CniPluginsMissing, what)]);
    }
    let verdict = match &facts.installer {
        Installer::Pod { daemonset, addon } => pod_verdict(daemonset, addon),
        Installer::Host(network) => host_verdict(network.as_ref()),
    };
    if verdict != Verdict::Pass {
        return verdict;
    }
    let leftover = facts.leftover.as_deref().map(|why| finding(Reason::CniConfigStale, why));
    Verdict::of(leftover.into_iter().chain(facts.outlook.findings()).collect())
}

fn finding(reason: Reason, summary: impl Into<String>) -> Finding {
    Finding::new(reason, Phase::Cni, summary)
}

/// Whatever installs it is waited for.
fn host_verdict(network: Result<&HostNetwork, &String>) -> Verdict {
    let wait = |reason, what: String| Verdict::Wait(Box::new(finding(reason, what)));
    match network {
        Err(why) => wait(Reason::CniConfigInvalid, why.clone()),
        Ok(HostNetwork { file, missing, .. }) if !missing.is_empty() => {
            let missing = missing.join(", ");
            wait(
                Reason::CniPluginsMissing,
                format!("`{CONFIG_DIR}/{file}` names {missing}, which `{PLUGIN_DIR}` lacks"),
            )
        }
        Ok(HostNetwork { troubles, .. }) => match troubles.split_first() {
            None => Verdict::Pass,
            Some((first, others)) => {
                let found = finding(Reason::CniConfigInvalid, first.clone());
                let found = others.iter().fold(found, |found, other| found.with_evidence(other));
                Verdict::Wait(Box::new(found))
            }
        },
    }
}

fn pod_verdict(daemonset: &Presence, addon: &Presence) -> Verdict {
    let absent = |what: &str| Box::new(Finding::new(Reason::CniAddonAbsent, Phase::Cni, what));
    match (daemonset, addon) {
        (Presence::Present | Presence::Unknown(_), _) => Verdict::Pass,
        // Installed a moment ago, perhaps: the cluster applies it by itself.
        (Presence::Absent, Presence::Present) => Verdict::Wait(absent(
            "the add-on `vpc-cni` exists, its DaemonSet `aws-node` does not yet",
        )),
        (Presence::Absent, Presence::Absent) => Verdict::Wait(absent(
            "neither the DaemonSet `aws-node` nor the add-on `vpc-cni` exists",
        )),
        (Presence::Absent, Presence::Unknown(why)) => {
            let mut finding = absent("the DaemonSet `aws-node` does not exist in kube-system");
            finding.evidence.push(format!("add-on `vpc-cni`: {why}"));
            Verdict::Wait(finding)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Presence::{Absent, Present, Unknown};
    use super::*;

    fn outcome(missing: &[&str], daemonset: Presence, addon: Presence) -> String {
        let installer = Installer::Pod { daemonset, addon };
        let missing_plugins = missing.iter().map(|name| (*name).to_owned()).collect();
        word(&verdict(&Facts { missing_plugins, ..facts(installer) }))
    }

    fn facts(installer: Installer) -> Facts {
        let outlook = Outlook::default();
        Facts { missing_plugins: vec![], installer, outlook, leftover: None }
    }

    fn word(verdict: &Verdict) -> String {
        match verdict {
            Verdict::Pass => "pass".into(),
            Verdict::Wait(finding) => format!("wait {}", finding.reason),
            Verdict::Degraded(found) => format!("degraded {}", found[0].reason),
            Verdict::Fail(found) => format!("fail {}", found[0].reason),
        }
    }

    #[test]
    fn only_what_is_known_to_be_absent_counts() {
        let forbidden = || Unknown("403".into());
        for (missing, daemonset, addon, expected) in [
            (&[][..], Present, Unknown(String::new()), "pass"),
            (&[][..], forbidden(), Unknown(String::new()), "pass"),
            (&[][..], Absent, Present, "wait CniAddonAbsent"),
            (&[][..], Absent, Absent, "wait CniAddonAbsent"),
            (&[][..], Absent, forbidden(), "wait CniAddonAbsent"),
            (&["loopback"][..], Present, Present, "fail CniPluginsMissing"),
        ] {
            assert_eq!(outcome(missing, daemonset, addon), expected);
        }
    }

    #[test]
    fn a_cni_on_the_host_is_waited_for() {
        let network = |missing: &[&str], troubles: &[&str]| {
            let all = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let file = "05-cilium.conflist".into();
            Ok(HostNetwork { file, missing: all(missing), troubles: all(troubles) })
        };
        for (network, expected) in [
            (Err("no configuration".into()), "wait CniConfigInvalid"),
            (network(&["cilium-cni"], &[]), "wait CniPluginsMissing"),
            (network(&[], &["refuses STATUS"]), "wait CniConfigInvalid"),
            (network(&[], &[]), "pass"),
        ] {
            assert_eq!(word(&verdict(&facts(Installer::Host(network)))), expected);
        }
    }

    #[test]
    fn what_is_soft_is_said_and_nothing_more() {
        let installer = Installer::Pod { daemonset: Present, addon: Unknown(String::new()) };
        let leftover = Some("could not move it aside".into());
        let stays = verdict(&Facts { leftover, ..facts(installer) });
        assert_eq!(word(&stays), "degraded CniConfigStale");
        assert!(stays.is_open());
    }

    #[tokio::test]
    async fn looks_at_the_plugins_of_the_hosts_network() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let deadline = Deadline::within(std::time::Duration::from_secs(10));
        assert!(host(&root, deadline).await.is_err());
        std::fs::create_dir_all(root.path(CONFIG_DIR)).unwrap();
        let text = r#"{"cniVersion":"1.0.0","plugins":[{"type":"cilium-cni"}]}"#;
        std::fs::write(root.path(CONFIG_DIR).join("05-cilium.conflist"), text).unwrap();
        let network = host(&root, deadline).await.unwrap();
        assert_eq!((network.missing, network.troubles), (vec!["cilium-cni".to_owned()], vec![]));
    }
}
