//! Faults that change what AWS and Kubernetes answer, and how each is taken back.

use serde_json::{Value, json};

use super::ipamd::Ipamd;
use super::{Fault, FaultError};
use crate::aws::{Emulator, Instance, Rule};
use crate::kubernetes::ControlPlane;

/// What takes a fault back.
#[derive(Clone, Debug)]
pub enum Undo {
    /// Remove a fault rule.
    Rule(String),
    /// Put an access entry back as it was.
    AccessEntry {
        /// The cluster.
        cluster: String,
        /// The entry.
        entry: Value,
    },
    /// Answer this instance again.
    Answer(String),
    /// Listen again.
    Listen,
    /// Agree with this instance's clock again, and remove the rule that refuses its signatures.
    Clock {
        /// The instance.
        instance: String,
        /// The rule.
        rule: String,
    },
    /// Let nothing of the VPC CNI's daemon listen any more.
    Ipamd(Ipamd),
    /// Call the add-on's pods available again.
    CniAddonWell,
    /// Put the add-on back.
    CniAddon {
        /// The cluster.
        cluster: String,
    },
}

/// The world around the nodes.
#[derive(Clone, Debug)]
pub struct World {
    /// AWS.
    pub emulator: Emulator,
    /// Kubernetes.
    pub plane: ControlPlane,
}

impl World {
    /// Lays a fault on one instance, or on all.
    ///
    /// # Errors
    /// When the world does not let itself be changed, with what was tried.
    pub async fn lay(
        &self,
        fault: &Fault,
        instance: Option<&Instance>,
    ) -> Result<Option<Undo>, FaultError> {
        match (fault, instance) {
            (Fault::AgentCorrupt, instance) => {
                let caller = instance.map(session);
                let (service, op) = ("s3".into(), "GetObject".into());
                let rule = Rule { service, op, action: "corrupt", caller, ..Rule::default() };
                self.add(&rule).await.map(Some)
            }
            (Fault::AwsDenied { service, operation }, Some(instance)) => {
                let denied = match service.as_str() {
                    "ec2" => (403, "UnauthorizedOperation"),
                    "ssm" => (400, "AccessDeniedException"),
                    "eks" => (403, "AccessDeniedException"),
                    _ => (403, "AccessDenied"),
                };
                let rule = Rule {
                    service: service.clone(),
                    op: operation.clone(),
                    action: "error",
                    caller: Some(session(instance)),
                    status: Some(denied.0),
                    code: Some(denied.1),
                    ..Rule::default()
                };
                self.add(&rule).await.map(Some)
            }
            (Fault::ClockBehind(seconds), Some(instance)) => {
                self.disagree(*seconds, instance).await.map(Some)
            }
            (Fault::CniAddonRemoved, Some(instance)) => self.remove_addon(instance).await.map(Some),
            (Fault::IpamdIll, _) => ipamd().await.map(Some),
            (Fault::CniAddonIll, _) => {
                self.set_addon_pods(0).await.map(|()| Some(Undo::CniAddonWell))
            }
            (Fault::CredentialsDenied, Some(instance)) => {
                // It is EC2 that assumes the role for the instance.
                let rule = Rule {
                    service: "sts".into(),
                    op: "AssumeRole".into(),
                    action: "error",
                    status: Some(403),
                    code: Some("AccessDenied"),
                    parameters: [("RoleSessionName", instance.instance_id.clone())].into(),
                    ..Rule::default()
                };
                self.add(&rule).await.map(Some)
            }
            (Fault::ApiUnreachable, None) => {
                self.plane.set_reachable(false);
                Ok(Some(Undo::Listen))
            }
            (Fault::ApiUnreachable, Some(instance)) => {
                self.plane.cut_off(&instance.instance_id, true);
                Ok(Some(Undo::Answer(instance.instance_id.clone())))
            }
            (Fault::AccessEntryRemoved, Some(instance)) => {
                self.remove_access_entry(instance).await.map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Takes a fault back.
    ///
    /// # Errors
    /// When the world does not let itself be changed.
    pub async fn take_back(&self, undo: Undo) -> Result<(), FaultError> {
        match undo {
            Undo::Rule(id) => self
                .emulator
                .remove_rule(&id)
                .await
                .map_err(|e| failed("remove the fault rule", &e)),
            Undo::Answer(instance_id) => {
                self.plane.cut_off(&instance_id, false);
                Ok(())
            }
            Undo::Clock { instance, rule } => {
                self.plane.set_clock(&instance, None);
                self.emulator
                    .remove_rule(&rule)
                    .await
                    .map_err(|e| failed("remove the fault rule", &e))
            }
            // With the last of it its port is closed.
            Undo::Ipamd(_) => Ok(()),
            Undo::CniAddonWell => self.set_addon_pods(1).await,
            Undo::CniAddon { cluster } => {
                let (path, body) = (addons(&cluster), json!({"addonName": VPC_CNI}));
                let answer = self.emulator.eks("POST", &path, Some(&body)).await;
                answer.map(drop).map_err(|e| failed("put the add-on back", &e))
            }
            Undo::Listen => {
                self.plane.set_reachable(true);
                Ok(())
            }
            Undo::AccessEntry { cluster, entry } => {
                let path = format!("/clusters/{cluster}/access-entries");
                let answer = self.emulator.eks("POST", &path, Some(&entry_request(&entry))).await;
                answer.map(drop).map_err(|e| failed("put the access entry back", &e))
            }
        }
    }

    /// Everybody else's clock differs from the instance's: dates, and signatures that are refused.
    async fn disagree(&self, seconds: i64, instance: &Instance) -> Result<Undo, FaultError> {
        let rule = Rule {
            service: "*".into(),
            op: "*".into(),
            action: "error",
            caller: Some(session(instance)),
            status: Some(403),
            code: Some("RequestTimeTooSkewed"),
            ..Rule::default()
        };
        let rule = self.emulator.add_rule(&rule).await;
        let rule = rule.map_err(|e| failed("add a fault rule", &e))?;
        self.plane.set_clock(&instance.instance_id, Some(seconds));
        Ok(Undo::Clock { instance: instance.instance_id.clone(), rule })
    }

    /// How many pods of the CNI's add-on EKS is to see: without any the add-on is DEGRADED.
    async fn set_addon_pods(&self, count: u32) -> Result<(), FaultError> {
        let told = self.emulator.report_workload(VPC_CNI, count).await;
        told.map_err(|e| failed("change what EKS sees of the add-on", &e))
    }

    async fn remove_addon(&self, instance: &Instance) -> Result<Undo, FaultError> {
        let what = "remove the add-on";
        let Some(cluster) = &instance.cluster else {
            let why = format!("{} has no cluster", instance.instance_id);
            return Err(FaultError::World { what: what.into(), why });
        };
        let path = format!("{}/{VPC_CNI}", addons(cluster));
        self.emulator.eks("DELETE", &path, None).await.map_err(|e| failed(what, &e))?;
        // The node boots behind this: it must not meet what is still on its way out.
        let deadline = tokio::time::Instant::now() + ADDON_GONE;
        while self.emulator.eks("GET", &path, None).await.is_ok() {
            if tokio::time::Instant::now() >= deadline {
                let why = format!("it is still there after {} s", ADDON_GONE.as_secs());
                return Err(FaultError::World { what: what.into(), why });
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
        // EKS has let go of it; the cluster's DaemonSet follows within a look of the controllers.
        tokio::time::sleep(CONTROLLERS).await;
        Ok(Undo::CniAddon { cluster: cluster.clone() })
    }

    async fn add(&self, rule: &Rule) -> Result<Undo, FaultError> {
        let id = self.emulator.add_rule(rule).await;
        id.map(Undo::Rule).map_err(|e| failed("add a fault rule", &e))
    }

    async fn remove_access_entry(&self, instance: &Instance) -> Result<Undo, FaultError> {
        let what = "remove the access entry";
        let (Some(cluster), Some(role)) = (&instance.cluster, &instance.role_arn) else {
            let why = format!("{} has no cluster or no role", instance.instance_id);
            return Err(FaultError::World { what: what.into(), why });
        };
        let path = entry_path(cluster, role);
        let described = self.emulator.eks("GET", &path, None).await;
        let described = described.map_err(|e| failed(what, &e))?;
        self.emulator.eks("DELETE", &path, None).await.map_err(|e| failed(what, &e))?;
        Ok(Undo::AccessEntry { cluster: cluster.clone(), entry: described["accessEntry"].clone() })
    }
}

async fn ipamd() -> Result<Undo, FaultError> {
    let ipamd = Ipamd::ill().await;
    ipamd.map(Undo::Ipamd).map_err(|e| failed("stand in for ipamd", &e))
}

const VPC_CNI: &str = "vpc-cni";

/// How long EKS may take to delete an add-on, and the cluster's controllers to follow.
const ADDON_GONE: std::time::Duration = std::time::Duration::from_secs(20);
const CONTROLLERS: std::time::Duration = std::time::Duration::from_secs(2);

fn addons(cluster: &str) -> String {
    format!("/clusters/{cluster}/addons")
}

/// The end of the ARN of every session of an instance's role.
fn session(instance: &Instance) -> String {
    format!("/{}", instance.instance_id)
}

fn entry_path(cluster: &str, principal: &str) -> String {
    let encoded: String = url::form_urlencoded::byte_serialize(principal.as_bytes()).collect();
    format!("/clusters/{cluster}/access-entries/{encoded}")
}

/// What CreateAccessEntry takes of what DescribeAccessEntry answers. Groups and user name belong
/// to entries of type STANDARD alone; for the others EKS sets them itself and refuses ours.
fn entry_request(entry: &Value) -> Value {
    let mut request = json!({ "principalArn": entry["principalArn"], "type": entry["type"] });
    if entry["tags"].is_object() {
        request["tags"] = entry["tags"].clone();
    }
    if entry["type"] == "STANDARD" {
        request["kubernetesGroups"] = entry["kubernetesGroups"].clone();
        request["username"] = entry["username"].clone();
    }
    request
}

fn failed(what: &str, error: &(dyn std::error::Error + 'static)) -> FaultError {
    FaultError::World { what: what.into(), why: contract::ErrorChain(error).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_put_back_as_eks_takes_it() {
        let described = json!({
            "principalArn": "arn:aws:iam::1:role/node", "type": "EC2_LINUX", "tags": {"a": "b"},
            "username": "system:node:{{EC2PrivateDNSName}}", "kubernetesGroups": ["system:nodes"],
            "accessEntryArn": "arn:…", "createdAt": 1.0,
        });
        assert_eq!(
            entry_request(&described),
            json!({"principalArn": "arn:aws:iam::1:role/node", "type": "EC2_LINUX", "tags": {"a": "b"}})
        );
        let standard = json!({"principalArn": "p", "type": "STANDARD", "username": "u", "kubernetesGroups": ["g"]});
        assert_eq!(entry_request(&standard), standard);
        assert_eq!(
            entry_path("prod", "arn:aws:iam::1:role/node"),
            "/clusters/prod/access-entries/arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fnode"
        );
    }
}
