//! Roles and bucket as they are, found by their deterministic names.

use std::collections::BTreeMap;

use aws_sdk_s3::types::ChecksumMode;
use contract::names::TAG_FLEET;
use serde_json::Value;

use crate::aws::poll::side_by_side;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::layers::identity::artifact::Artifact;
use crate::layers::identity::desired::{self, NODE_POLICY, RoleNames, bucket_name};
use crate::stack::{Inputs, StackError, World};

/// Identity as it is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct IdentityFacts {
    /// The roles of our names that exist.
    pub roles: Vec<RoleFact>,
    /// The roles that the file names, of those that exist.
    pub existing: Vec<RoleFact>,
    /// The bucket of our name, when it exists and is ours.
    pub bucket: Option<BucketFact>,
}

/// A role.
#[derive(Clone, Debug, PartialEq)]
pub struct RoleFact {
    /// Name.
    pub name: String,
    /// ARN.
    pub arn: String,
    /// Whether it carries this fleet's tag.
    pub ours: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Who may assume it; null when it cannot be read as JSON.
    pub trust: Value,
    /// ARNs of the managed policies.
    pub managed: Vec<String>,
    /// Names of the inline policies.
    pub inline_names: Vec<String>,
    /// The inline policy that holds the node's rights.
    pub inline: Option<Value>,
    /// Instance profiles that it is in.
    pub profiles: Vec<String>,
}

/// The bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketFact {
    /// Name.
    pub name: String,
    /// Whether all public access is blocked.
    pub private: bool,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// Keys of what is in it, and the checksum where it was asked for.
    pub objects: BTreeMap<String, Option<String>>,
}

/// Reads what is there.
///
/// # Errors
/// Those of the reads; what does not exist is none.
pub async fn observe(world: &World, inputs: Option<&Inputs>) -> Result<IdentityFacts, StackError> {
    let names = RoleNames::of(&world.scope.fleet);
    let reads = names.all().map(|name| role(&world.clients, name, &world.scope.fleet));
    let artifact = inputs.and_then(|inputs| inputs.artifact.as_ref());
    let name = bucket_name(&world.scope);
    let named = inputs.map(|inputs| desired::existing(&inputs.spec)).unwrap_or_default();
    let existing = named.iter().map(|wish| role(&world.clients, wish.name(), &world.scope.fleet));
    let (roles, existing, bucket) = tokio::join!(
        side_by_side(reads),
        side_by_side(existing),
        bucket(&world.clients, &name, artifact)
    );
    let roles: Result<Vec<_>, AwsError> = roles.into_iter().collect();
    let existing: Result<Vec<_>, AwsError> = existing.into_iter().collect();
    Ok(IdentityFacts {
        roles: roles?.into_iter().flatten().collect(),
        existing: existing?.into_iter().flatten().collect(),
        bucket: bucket?,
    })
}

/// What does not exist is none.
fn found<T>(answer: Result<T, AwsError>) -> Result<Option<T>, AwsError> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A role that one of the reads does not know yet is none.
async fn role(clients: &Clients, name: &str, fleet: &str) -> Result<Option<RoleFact>, AwsError> {
    let iam = &clients.iam;
    let what = || format!("read the role `{name}`");
    let answer = iam.get_role().role_name(name).send().await.attempted(what);
    let Some(role) = found(answer)?.and_then(|answer| answer.role) else { return Ok(None) };
    let (attached, inline, profiles, policy) = tokio::join!(
        iam.list_attached_role_policies().role_name(name).send(),
        iam.list_role_policies().role_name(name).send(),
        iam.list_instance_profiles_for_role().role_name(name).send(),
        iam.get_role_policy().role_name(name).policy_name(NODE_POLICY).send(),
    );
    let (Some(attached), Some(inline), Some(profiles)) = (
        found(attached.attempted(what))?,
        found(inline.attempted(what))?,
        found(profiles.attempted(what))?,
    ) else {
        return Ok(None);
    };
    let policy = found(policy.attempted(what))?;
    let tags = role.tags();
    Ok(Some(RoleFact {
        name: name.to_owned(),
        ours: tags.iter().any(|tag| tag.key == TAG_FLEET && tag.value == fleet),
        tags: tags.iter().map(|tag| (tag.key.clone(), tag.value.clone())).collect(),
        trust: document(role.assume_role_policy_document().unwrap_or_default()),
        arn: role.arn,
        managed: attached
            .attached_policies()
            .iter()
            .filter_map(|policy| policy.policy_arn().map(str::to_owned))
            .collect(),
        inline_names: inline.policy_names,
        inline: policy.map(|answer| document(&answer.policy_document)),
        profiles: profiles
            .instance_profiles
            .into_iter()
            .map(|profile| profile.instance_profile_name)
            .collect(),
    }))
}

/// IAM hands documents out percent-encoded (RFC 3986, as its API reference says).
fn document(encoded: &str) -> Value {
    let decoded = percent_encoding::percent_decode_str(encoded).decode_utf8_lossy();
    serde_json::from_str(&decoded).unwrap_or(Value::Null)
}

async fn bucket(
    clients: &Clients,
    name: &str,
    artifact: Option<&Artifact>,
) -> Result<Option<BucketFact>, AwsError> {
    let s3 = &clients.s3;
    let what = || format!("read the bucket `{name}`");
    if found(s3.head_bucket().bucket(name).send().await.attempted(what))?.is_none() {
        return Ok(None);
    }
    let mut objects = BTreeMap::new();
    let mut pages = s3.list_objects_v2().bucket(name).into_paginator().send();
    while let Some(page) = pages.next().await {
        let page = page.attempted(what)?;
        let keys = page.contents().iter().filter_map(|object| object.key());
        objects.extend(keys.map(|key| (key.to_owned(), None)));
    }
    if let Some(key) = artifact.map(Artifact::key).filter(|key| objects.contains_key(key)) {
        let call = s3.head_object().bucket(name).key(&key).checksum_mode(ChecksumMode::Enabled);
        let head =
            call.send().await.attempted(|| format!("read `{key}` in the bucket `{name}`"))?;
        objects.insert(key, head.checksum_sha256);
    }
    let block = s3.get_public_access_block().bucket(name).send().await.attempted(what);
    let private = match block {
        Ok(answer) => answer.public_access_block_configuration.is_some_and(|block| {
            block.block_public_acls() == Some(true)
                && block.block_public_policy() == Some(true)
                && block.ignore_public_acls() == Some(true)
                && block.restrict_public_buckets() == Some(true)
        }),
        Err(error) if error.code() == Some("NoSuchPublicAccessBlockConfiguration") => false,
        Err(error) => return Err(error),
    };
    let tags = match s3.get_bucket_tagging().bucket(name).send().await.attempted(what) {
        Ok(answer) => answer.tag_set.into_iter().map(|tag| (tag.key, tag.value)).collect(),
        Err(error) if error.code() == Some("NoSuchTagSet") => BTreeMap::new(),
        Err(error) => return Err(error),
    };
    Ok(Some(BucketFact { name: name.to_owned(), private, tags, objects }))
}
