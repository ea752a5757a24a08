//! Who is asking: from a bearer token to a Kubernetes user, through STS and the access entries.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::token;
use super::world::{AccessEntry, Caller, Cluster, Instance, Observation, Watcher, WorldError};

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) groups: Vec<String>,
    /// Where the identity came from, as EKS puts it into `extra`.
    pub(super) extra: Vec<(&'static str, String)>,
    /// The names of the EKS access policies that the user's entry is associated with.
    pub(super) policies: Vec<String>,
    /// The role session's name: a node's instance id.
    pub(super) session: String,
}

impl User {
    /// The node that this user is, if it is one.
    pub(super) fn node_name(&self) -> Option<&str> {
        let in_group = self.groups.iter().any(|group| group == "system:nodes");
        self.name.strip_prefix("system:node:").filter(|_| in_group)
    }
}

/// Checks tokens. What STS said about a token is remembered, as it can not change while the token
/// is valid; access entries are looked at anew each time.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    known: Mutex<HashMap<[u8; 32], Caller>>,
}

/// So many tokens are remembered before all are forgotten.
const REMEMBERED: usize = 4096;

impl Authenticator {
    /// The user whom this `Authorization` header names; `Ok(None)`: 401.
    ///
    /// # Errors
    ///
    /// When the emulator cannot be asked, which says nothing about the token.
    pub(super) async fn user(
        &self,
        header: Option<&str>,
        watcher: &Watcher,
        cluster: &Cluster,
        region: &str,
    ) -> Result<Option<User>, WorldError> {
        let Some(token) = header.and_then(|value| value.strip_prefix("Bearer ")) else {
            return Ok(None);
        };
        let url = match token::take_apart(token.trim(), region, Timestamp::now()) {
            Ok(url) => url,
            Err(error) => {
                tracing::debug!(error = %error, "token refused");
                return Ok(None);
            }
        };
        let caller = match self.caller(token, url.as_str(), watcher, &cluster.name).await {
            Ok(caller) => caller,
            Err(WorldError::Refused(why)) => {
                tracing::debug!(why, "token refused by STS");
                return Ok(None);
            }
            Err(error @ WorldError::Unreachable { .. }) => return Err(error),
        };
        let observation = watcher.observation().await?;
        Ok(identify(&caller, cluster, &observation))
    }

    async fn caller(
        &self,
        token: &str,
        url: &str,
        watcher: &Watcher,
        cluster: &str,
    ) -> Result<Caller, WorldError> {
        let digest = Sha256::new().chain_update(cluster).chain_update(token).finalize().into();
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&digest).cloned();
        if let Some(caller) = known {
            return Ok(caller);
        }
        let caller = watcher.world().whoami(url, cluster).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(digest, caller.clone());
        Ok(caller)
    }
}

/// The user that a caller is in this cluster; `None` where no access entry admits it. Pure.
pub(super) fn identify(
    caller: &Caller,
    cluster: &Cluster,
    observation: &Observation,
) -> Option<User> {
    let canonical = canonical_arn(&caller.arn);
    let entry = cluster
        .access_entries
        .iter()
        .find(|entry| without_path(&entry.principal_arn) == without_path(&canonical))?;
    let session = session_name(&caller.arn).unwrap_or_default().to_owned();
    let (name, mut groups) = match entry.kind.as_str() {
        "EC2_LINUX" | "EC2_WINDOWS" => (
            format!("system:node:{}", private_dns_name(&session, &observation.instances)?),
            vec!["system:bootstrappers".to_owned(), "system:nodes".to_owned()],
        ),
        _ => (standard_name(entry, caller, &session), entry.groups.clone().unwrap_or_default()),
    };
    groups.push("system:authenticated".to_owned());
    let extra = vec![
        ("arn", caller.arn.clone()),
        ("canonicalArn", canonical),
        ("principalId", caller.user_id.split(':').next().unwrap_or_default().to_owned()),
        ("sessionName", session.clone()),
    ];
    Some(User {
        name,
        uid: format!("aws-iam-authenticator:{}:{}", caller.account, caller.user_id),
        groups,
        extra,
        policies: entry.policies.iter().filter_map(policy_name).collect(),
        session,
    })
}

/// A standard entry's user name: as given, with its template filled in, or the caller's ARN.
fn standard_name(entry: &AccessEntry, caller: &Caller, session: &str) -> String {
    match entry.username.as_deref().filter(|name| !name.is_empty()) {
        Some(template) => template
            .replace("{{SessionName}}", session)
            .replace("{{SessionNameRaw}}", session)
            .replace("{{AccountID}}", &caller.account),
        None => caller.arn.clone(),
    }
}

/// The instance whose id is the session's name must exist, or the node has no name.
fn private_dns_name<'a>(session: &str, instances: &'a [Instance]) -> Option<&'a str> {
    let found = instances.iter().find(|instance| instance.instance_id == session)?;
    Some(found.private_dns_name.as_str()).filter(|name| !name.is_empty())
}

/// `arn:aws:sts::1:assumed-role/R/S` is `arn:aws:iam::1:role/R`; others stay.
fn canonical_arn(arn: &str) -> String {
    let parts: Vec<&str> = arn.splitn(6, ':').collect();
    match parts.as_slice() {
        [arn, partition, "sts", region, account, resource] => {
            match resource.strip_prefix("assumed-role/").and_then(|rest| rest.split('/').next()) {
                Some(role) => format!("{arn}:{partition}:iam:{region}:{account}:role/{role}"),
                None => parts.join(":"),
            }
        }
        _ => arn.to_owned(),
    }
}

fn session_name(arn: &str) -> Option<&str> {
    arn.split_once(":assumed-role/")?.1.split('/').nth(1)
}

/// A role's path is not in its session's ARN, so it cannot count.
fn without_path(arn: &str) -> String {
    match arn.split_once(":role/") {
        Some((head, role)) => {
            format!("{head}:role/{}", role.rsplit('/').next().unwrap_or_default())
        }
        None => arn.to_owned(),
    }
}

/// The last part of an access policy's ARN, which comes as text or as an object.
fn policy_name(policy: &Value) -> Option<String> {
    let arn = policy.as_str().or_else(|| policy["policyArn"].as_str())?;
    arn.rsplit('/').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn world() -> (Cluster, Observation) {
        let cluster: Cluster = serde_json::from_value(json!({
        "name": "prod", "status": "ACTIVE", "accessEntries": [
            {"principalArn": "arn:aws:iam::1:role/nodes/prod-gpu", "type": "EC2_LINUX",
             "username": "system:node:{{EC2PrivateDNSName}}", "groups": ["system:nodes"]},
            {"principalArn": "arn:aws:iam::1:user/operator", "type": "STANDARD",
             "username": null, "groups": [], "policies": [
                "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy"]},
            {"principalArn": "arn:aws:iam::1:role/ci", "type": "STANDARD",
             "username": "ci:{{SessionName}}", "groups": ["readers"]}
        ]}))
        .unwrap();
        let instance = Instance {
            instance_id: "i-1".into(),
            private_dns_name: "ip-10-0-0-1.ec2.internal".into(),
            ..Instance::default()
        };
        (cluster, Observation { cluster: None, instances: vec![instance] })
    }

    fn user(arn: &str) -> Option<User> {
        let (cluster, observation) = world();
        let caller =
            Caller { arn: arn.into(), account: "1".into(), user_id: "AROA:session".into() };
        identify(&caller, &cluster, &observation)
    }

    #[test]
    fn a_node_is_named_by_the_instance_of_its_session() {
        let node = user("arn:aws:sts::1:assumed-role/prod-gpu/i-1").unwrap();
        assert_eq!(node.name, "system:node:ip-10-0-0-1.ec2.internal");
        assert_eq!(node.groups, ["system:bootstrappers", "system:nodes", "system:authenticated"]);
        assert_eq!(node.node_name(), Some("ip-10-0-0-1.ec2.internal"));
        assert_eq!(user("arn:aws:sts::1:assumed-role/prod-gpu/i-unknown"), None);
    }

    #[test]
    fn standard_entries_carry_their_own_names_groups_and_policies() {
        let operator = user("arn:aws:iam::1:user/operator").unwrap();
        assert_eq!(operator.name, "arn:aws:iam::1:user/operator");
        assert_eq!(operator.policies, ["AmazonEKSClusterAdminPolicy"]);
        assert_eq!(operator.node_name(), None);
        let ci = user("arn:aws:sts::1:assumed-role/ci/run-7").unwrap();
        assert_eq!((ci.name.as_str(), ci.groups[0].as_str()), ("ci:run-7", "readers"));
    }

    #[test]
    fn without_an_entry_there_is_no_user() {
        for arn in [
            "arn:aws:sts::1:assumed-role/other/i-1",
            "arn:aws:sts::2:assumed-role/prod-gpu/i-1",
            "arn:aws:iam::1:user/nodes/prod-gpu",
        ] {
            assert_eq!(user(arn), None, "{arn}");
        }
    }
}
