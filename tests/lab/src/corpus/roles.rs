//! The IAM roles of the cases: copies of the pool's own, less what an entry takes away.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::Mutex;

use super::case::RoleWish;
use crate::aws::{Emulator, EmulatorError, xml_text};

/// What the pool's role has attached: the same for every copy.
const MANAGED: [&str; 4] = [
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
];

/// The inline policy that holds a node's rights.
const NODE_POLICY: &str = "rollcall-node";

/// The instance profiles that cases have asked for so far.
#[derive(Debug)]
pub struct Roles {
    emulator: Emulator,
    cluster: String,
    made: Mutex<HashMap<RoleWish, String>>,
}

impl Roles {
    /// No profiles yet.
    #[must_use]
    pub fn new(emulator: Emulator, cluster: String) -> Self {
        Self { emulator, cluster, made: Mutex::default() }
    }

    /// The name of an instance profile with such a role; it is made when it is first asked for.
    ///
    /// # Errors
    /// When AWS refuses.
    pub async fn profile(&self, wish: &RoleWish) -> anyhow::Result<Option<String>> {
        if wish.absent {
            return Ok(None);
        }
        let mut made = self.made.lock().await;
        if let Some(name) = made.get(wish) {
            return Ok(Some(name.clone()));
        }
        let pool_role = format!("{}-gpu-node", self.cluster);
        let role = match *wish == RoleWish::default() {
            true => pool_role.clone(),
            false => self.copy(&pool_role, wish).await.context("could not make a role")?,
        };
        let profile = format!("profile-of-{role}");
        self.iam("CreateInstanceProfile", &[("InstanceProfileName", &profile)]).await?;
        let both = [("InstanceProfileName", profile.as_str()), ("RoleName", role.as_str())];
        self.iam("AddRoleToInstanceProfile", &both).await?;
        made.insert(wish.clone(), profile.clone());
        Ok(Some(profile))
    }

    async fn iam(
        &self,
        operation: &str,
        parameters: &[(&str, &str)],
    ) -> Result<String, EmulatorError> {
        self.emulator.query("iam", operation, parameters).await
    }

    async fn copy(&self, of: &str, wish: &RoleWish) -> anyhow::Result<String> {
        let mut hasher = DefaultHasher::new();
        wish.hash(&mut hasher);
        let role = format!("corpus-node-{:08x}", hasher.finish() & 0xffff_ffff);
        let trust = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Allow",
            "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}]});
        let trust = trust.to_string();
        let created = self
            .iam("CreateRole", &[("RoleName", &role), ("AssumeRolePolicyDocument", &trust)])
            .await?;
        let arn = xml_text(&created, "Arn").context("CreateRole says no ARN")?;
        for policy in MANAGED {
            let policy = format!("arn:aws:iam::aws:policy/{policy}");
            self.iam("AttachRolePolicy", &[("RoleName", &role), ("PolicyArn", &policy)]).await?;
        }
        let asked = [("RoleName", of), ("PolicyName", NODE_POLICY)];
        let rights = self.iam("GetRolePolicy", &asked).await?;
        let rights = xml_text(&rights, "PolicyDocument").context("no policy document")?;
        let rights = percent_decoded(&rights);
        let put =
            [("RoleName", role.as_str()), ("PolicyName", NODE_POLICY), ("PolicyDocument", &rights)];
        self.iam("PutRolePolicy", &put).await?;
        if !wish.denied.is_empty() {
            let denied = json!({"Version": "2012-10-17", "Statement": [{"Effect": "Deny",
                "Action": wish.denied, "Resource": "*"}]})
            .to_string();
            let put = [
                ("RoleName", role.as_str()),
                ("PolicyName", "denied"),
                ("PolicyDocument", &denied),
            ];
            self.iam("PutRolePolicy", &put).await?;
        }
        self.enter(&arn, wish.entry.as_deref().unwrap_or("EC2_LINUX")).await?;
        Ok(role)
    }

    /// The cluster's access entry for the role.
    async fn enter(&self, arn: &str, kind: &str) -> anyhow::Result<()> {
        if kind == "none" {
            return Ok(());
        }
        let path = format!("/clusters/{}/access-entries", self.cluster);
        let body = json!({"principalArn": arn, "type": kind});
        self.emulator.eks("POST", &path, Some(&body)).await?;
        Ok(())
    }
}

/// IAM answers with policies percent-encoded (RFC 3986).
fn percent_decoded(text: &str) -> String {
    let escaped = text.replace('+', "%2B");
    let pair = format!("x={escaped}");
    url::form_urlencoded::parse(pair.as_bytes())
        .next()
        .map(|(_, v)| v.into_owned())
        .unwrap_or_default()
}
