//! Phase 6: will networking come up once we register?
//!
//! The VPC CNI is a pod and needs a registered kubelet, so all that can be proven before is proven
//! here: its plugins are on the disk and it is installed in the cluster. Its health there never
//! closes the gate, or one sick node would keep out its own replacement. A CNI that is installed on
//! the host is waited for literally.

use contract::agent_config::CniKind;
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use serde_json::Value;

use crate::aws::eks::Eks;
use crate::host::{Deadline, Root, files};
use crate::kube;

/// Where the plugins lie.
const PLUGIN_DIR: &str = "/opt/cni/bin";

/// Where the CNI's configuration lies.
const CONFIG_DIR: &str = "/etc/cni/net.d";

/// The base plugins that every pod's network needs, the VPC CNI's included.
const PLUGINS: [&str; 3] = ["loopback", "host-local", "portmap"];

/// The VPC CNI's DaemonSet and add-on.
const DAEMONSET: &str = "aws-node";
const ADDON: &str = "vpc-cni";

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Base plugins that are not there.
    pub missing_plugins: Vec<&'static str>,
    /// What installs the network.
    pub installer: Installer,
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
    Host(Result<String, String>),
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

/// Looks at the disk and, where the CNI is a pod, at the cluster and, if need be, EKS.
pub async fn gather(
    root: &Root,
    kind: CniKind,
    kube: &kube::Client,
    eks: &Eks,
    deadline: Deadline,
) -> Facts {
    let directory = root.path(PLUGIN_DIR);
    let missing = |name: &&str| !files::is_executable(&directory.join(name));
    let installer = match kind {
        CniKind::VpcCni => pod(kube, eks, deadline).await,
        CniKind::Host => Installer::Host(configuration(root)),
    };
    Facts { missing_plugins: PLUGINS.into_iter().filter(missing).collect(), installer }
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

/// The first configuration by name, as containerd chooses.
fn configuration(root: &Root) -> Result<String, String> {
    let directory = root.path(CONFIG_DIR);
    let is_config =
        |name: &String| [".conf", ".conflist", ".json"].iter().any(|suffix| name.ends_with(suffix));
    let name = files::names_in(&directory).into_iter().find(is_config);
    let name = name.ok_or_else(|| format!("`{CONFIG_DIR}` has no configuration"))?;
    let path = directory.join(&name);
    let bytes = files::read(&path).map_err(|error| ErrorChain(&error).to_string())?;
    let value: Value = serde_json::from_slice(&bytes)
        .map_err(|error| format!("`{CONFIG_DIR}/{name}` is no JSON: {error}"))?;
    let plugins = value.get("plugins").and_then(Value::as_array);
    if value.get("type").is_some() || plugins.is_some_and(|plugins| !plugins.is_empty()) {
        Ok(name)
    } else {
        Err(format!("`{CONFIG_DIR}/{name}` names no plugin"))
    }
}

/// Whether networking will come up.
#[must_use]
pub fn verdict(facts: &Facts) -> Verdict {
    if !facts.missing_plugins.is_empty() {
        let what = format!("`{PLUGIN_DIR}` lacks {}", facts.missing_plugins.join(", "));
        return Verdict::Fail(vec![Finding::new(Reason::CniPluginsMissing, Phase::Cni, what)]);
    }
    match &facts.installer {
        Installer::Pod { daemonset, addon } => pod_verdict(daemonset, addon),
        Installer::Host(Ok(_)) => Verdict::Pass,
        Installer::Host(Err(why)) => {
            let finding = Finding::new(Reason::CniConfigInvalid, Phase::Cni, why.clone());
            Verdict::Wait(Box::new(finding))
        }
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

    fn outcome(missing: &[&'static str], daemonset: Presence, addon: Presence) -> String {
        let installer = Installer::Pod { daemonset, addon };
        word(&Facts { missing_plugins: missing.to_vec(), installer })
    }

    fn word(facts: &Facts) -> String {
        match verdict(facts) {
            Verdict::Pass => "pass".into(),
            Verdict::Wait(finding) => format!("wait {}", finding.reason),
            Verdict::Fail(found) => format!("fail {}", found[0].reason),
            other => panic!("{other:?}"),
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
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let look = || {
            word(&Facts {
                missing_plugins: vec![],
                installer: Installer::Host(configuration(&root)),
            })
        };
        assert_eq!(look(), "wait CniConfigInvalid");
        std::fs::create_dir_all(root.path(CONFIG_DIR)).unwrap();
        for (text, expected) in [
            ("{", "wait CniConfigInvalid"),
            (r#"{"plugins":[]}"#, "wait CniConfigInvalid"),
            (r#"{"cniVersion":"1.0.0","plugins":[{"type":"cilium-cni"}]}"#, "pass"),
        ] {
            std::fs::write(root.path(CONFIG_DIR).join("05-cilium.conflist"), text).unwrap();
            assert_eq!(look(), expected, "{text}");
        }
    }
}
