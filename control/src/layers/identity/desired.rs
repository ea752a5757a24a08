//! Roles and bucket as they should be. Pure.

use std::collections::BTreeMap;

use contract::names::TAG_SPEC;
use serde_json::{Value, json};

use crate::config::FleetSpec;
use crate::config::spec::AgentSource;
use crate::layers::identity::artifact::Artifact;
use crate::layers::identity::rights;
use crate::layers::names::{bounded, spec_hash};
use crate::layers::tags;
use crate::stack::{Inputs, Layer, Scope};

/// IAM's limit on a role's name.
const ROLE_NAME_MAX: usize = 64;
/// S3's limit on a bucket's name.
const BUCKET_NAME_MAX: usize = 63;
/// Name of the inline policy that holds the node's rights.
pub const NODE_POLICY: &str = "rollcall-node";

/// What the control plane needs (`docs.aws.amazon.com/eks`, "Amazon EKS cluster IAM role").
const CLUSTER_POLICIES: &[&str] = &["AmazonEKSClusterPolicy"];
/// EKS itself.
const EKS: &str = "eks.amazonaws.com";
/// Instances.
const EC2: &str = "ec2.amazonaws.com";
/// What nodeadm, the VPC CNI, kubelet's image pulls and the SSM agent need.
const NODE_POLICIES: &[&str] = &[
    "AmazonEKSWorkerNodePolicy",
    "AmazonEKS_CNI_Policy",
    "AmazonEC2ContainerRegistryPullOnly",
    "AmazonSSMManagedInstanceCore",
];

/// Names of the fleet's roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleNames {
    /// The control plane's.
    pub cluster: String,
    /// The system pools'.
    pub system_node: String,
    /// The other pools'.
    pub gpu_node: String,
}

impl RoleNames {
    /// The names for a fleet.
    #[must_use]
    pub fn of(fleet: &str) -> Self {
        let name = |suffix: &str| bounded(&format!("{fleet}-{suffix}"), ROLE_NAME_MAX);
        Self {
            cluster: name("cluster"),
            system_node: name("system-node"),
            gpu_node: name("gpu-node"),
        }
    }

    /// Whether a role of that name may be a fleet's. A name that was cut ends in a hash.
    #[must_use]
    pub fn may_be(name: &str) -> bool {
        let suffixes = ["-cluster", "-system-node", "-gpu-node"];
        name.len() == ROLE_NAME_MAX || suffixes.iter().any(|suffix| name.ends_with(suffix))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> [&str; 3] {
        [&self.cluster, &self.system_node, &self.gpu_node]
    }
}

/// Name of the fleet's bucket. Buckets are named worldwide, so account and region are in it.
#[must_use]
pub fn bucket_name(scope: &Scope) -> String {
    let name = format!("rollcall-{}-{}-{}", scope.fleet, scope.region, scope.account);
    bounded(&name.to_lowercase(), BUCKET_NAME_MAX)
}

/// Identity as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct Desired {
    /// Name of the fleet.
    pub fleet: String,
    /// The roles that are made.
    pub roles: Vec<RoleWish>,
    /// The roles that are there already.
    pub existing: Vec<ExistingWish>,
    /// The bucket, where the agent is published.
    pub bucket: Option<BucketWish>,
}

/// A role that is there already: read, judged, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExistingWish {
    /// Its field in the fleet file: `roles.gpuNode`.
    pub field: &'static str,
    /// ARN.
    pub arn: String,
    /// The service that must be able to assume it.
    pub service: &'static str,
    /// Names of the managed policies that such a role usually has.
    pub usual: &'static [&'static str],
}

impl ExistingWish {
    /// Its name, the last part of its ARN.
    #[must_use]
    pub fn name(&self) -> &str {
        self.arn.rsplit('/').next().unwrap_or(&self.arn)
    }
}

/// The roles that the fleet file names.
#[must_use]
pub fn existing(spec: &FleetSpec) -> Vec<ExistingWish> {
    let named: [(_, &Option<String>, _, &'static [&'static str]); 3] = [
        ("roles.cluster", &spec.roles.cluster, EKS, CLUSTER_POLICIES),
        ("roles.systemNode", &spec.roles.system_node, EC2, NODE_POLICIES),
        ("roles.gpuNode", &spec.roles.gpu_node, EC2, NODE_POLICIES),
    ];
    let wishes = named.into_iter().filter_map(|(field, arn, service, usual)| {
        Some(ExistingWish { field, arn: arn.clone()?, service, usual })
    });
    wishes.collect()
}

/// A role.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleWish {
    /// Name.
    pub name: String,
    /// Who may assume it.
    pub trust: Value,
    /// ARNs of the managed policies.
    pub managed: Vec<String>,
    /// The inline policy [`NODE_POLICY`].
    pub inline: Option<Value>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

/// The bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BucketWish {
    /// Name.
    pub name: String,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// What is published in it; none when no tarball was given (a plan alone).
    pub artifact: Option<Artifact>,
}

/// Identity as the fleet file asks for it.
#[must_use]
pub fn desired(inputs: &Inputs) -> Desired {
    let (scope, spec) = (&inputs.scope, &inputs.spec);
    let names = RoleNames::of(&scope.fleet);
    let published = spec.agent == AgentSource::Published;
    let object = inputs.artifact.as_ref().filter(|_| published).map(|artifact| {
        format!("arn:{}:s3:::{}/{}", scope.partition.name, bucket_name(scope), artifact.key())
    });
    let node_rights = rights::node(scope, object.as_deref(), spec.evidence_bucket.as_deref());
    let tagged = |name: &str, parts: &[&str]| {
        let mut all = tags::of(&scope.fleet, Layer::Identity, name, &spec.tags);
        all.insert(TAG_SPEC.into(), spec_hash(parts));
        all
    };
    let role = |name: &str, service: &str, managed: &[&str], inline: Option<Value>| RoleWish {
        name: name.to_owned(),
        trust: trust(service),
        managed: managed
            .iter()
            .map(|policy| format!("arn:{}:iam::aws:policy/{policy}", scope.partition.name))
            .collect(),
        inline,
        tags: tagged(name, &["role", service]),
    };
    let bucket = bucket_name(scope);
    Desired {
        fleet: scope.fleet.clone(),
        roles: [
            (&spec.roles.cluster, &names.cluster, EKS, CLUSTER_POLICIES, None),
            (&spec.roles.system_node, &names.system_node, EC2, NODE_POLICIES, Some(&node_rights)),
            (&spec.roles.gpu_node, &names.gpu_node, EC2, NODE_POLICIES, Some(&node_rights)),
        ]
        .into_iter()
        .filter(|(existing, ..)| existing.is_none())
        .map(|(_, name, service, policies, rights)| role(name, service, policies, rights.cloned()))
        .collect(),
        existing: existing(spec),
        bucket: published.then(|| BucketWish {
            tags: tagged(&bucket, &["bucket"]),
            name: bucket,
            artifact: inputs.artifact.clone(),
        }),
    }
}

fn trust(service: &str) -> Value {
    // EKS tags its sessions since Auto Mode; nodes do not.
    let action = if service.starts_with("eks.") {
        json!(["sts:AssumeRole", "sts:TagSession"])
    } else {
        json!(["sts:AssumeRole"])
    };
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": action}],
    })
}
