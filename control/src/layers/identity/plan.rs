//! From identity as it is to identity as it should be. Pure.

use serde_json::Value;

use crate::aws::tagging::{Tags, missing};
use crate::layers::identity::artifact::Artifact;
use crate::layers::identity::desired::{BucketWish, Desired, ExistingWish, NODE_POLICY, RoleWish};
use crate::layers::identity::observe::{BucketFact, IdentityFacts, RoleFact};
use crate::stack::{Scope, StackError, Step};

/// What a step of this layer does.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Makes a role.
    CreateRole(Box<RoleWish>),
    /// Changes who may assume a role.
    SetTrust(String, Value),
    /// Puts tags on a role.
    TagRole(String, Tags),
    /// Attaches a managed policy to a role.
    Attach(String, String),
    /// Detaches a managed policy from a role.
    Detach(String, String),
    /// Writes the node's rights into a role.
    PutRights(String, Value),
    /// Removes an inline policy from a role.
    DeleteInline(String, String),
    /// Takes a role out of an instance profile that somebody left, and removes the profile.
    DeleteProfile(String, String),
    /// Removes a role.
    DeleteRole(String),
    /// Makes the bucket, private and tagged.
    CreateBucket(BucketWish),
    /// Blocks public access and sets the tags.
    SecureBucket(BucketWish),
    /// Uploads the tarball.
    Upload(String, Artifact),
    /// Removes an object.
    DeleteObject(String, String),
    /// Removes the bucket.
    DeleteBucket(String),
}

/// The steps up.
///
/// # Errors
/// [`StackError::Conflict`] when a role of our name is somebody else's.
pub fn plan(desired: &Desired, facts: &IdentityFacts) -> Result<Vec<Step<Op>>, StackError> {
    let unfit: Vec<String> =
        desired.existing.iter().filter_map(|wish| unfit(wish, &facts.existing)).collect();
    if !unfit.is_empty() {
        return Err(StackError::Conflict {
            message: unfit.join("; "),
            hint: "put the role right: control never changes an existing one".into(),
        });
    }
    let mut steps = Vec::new();
    for wish in &desired.roles {
        let fact = facts.roles.iter().find(|fact| fact.name == wish.name);
        if let Some(fact) = fact.filter(|fact| !fact.ours) {
            return Err(StackError::Conflict {
                message: format!(
                    "the role `{}` exists and does not belong to the fleet `{}`",
                    fact.name, desired.fleet
                ),
                hint: "choose another name for the fleet, or remove that role".into(),
            });
        }
        plan_role(wish, fact, &mut steps);
    }
    if let Some(wish) = &desired.bucket {
        plan_bucket(wish, facts.bucket.as_ref(), &mut steps);
    }
    Ok(steps)
}

/// Why a role that is there already cannot be used.
fn unfit(wish: &ExistingWish, facts: &[RoleFact]) -> Option<String> {
    let ExistingWish { field, arn, service, .. } = wish;
    let Some(fact) = facts.iter().find(|fact| fact.arn == *arn) else {
        return Some(format!("{field}: there is no role `{arn}`"));
    };
    let trusted = fact.trust["Statement"].as_array().into_iter().flatten().any(|statement| {
        let services = &statement["Principal"]["Service"];
        let named = services == service
            || services.as_array().is_some_and(|all| all.iter().any(|one| one == service));
        statement["Effect"] == "Allow" && named
    });
    (!trusted).then(|| format!("{field}: {service} may not assume the role `{}`", fact.name))
}

/// The managed policies that a role which is there already lacks. It may have their rights from
/// others: worth saying, nothing to refuse.
#[must_use]
pub fn lacking(desired: &Desired, facts: &IdentityFacts) -> Vec<String> {
    let mut lacking = Vec::new();
    for wish in &desired.existing {
        let fact = facts.existing.iter().find(|fact| fact.arn == wish.arn);
        let attached = fact.map(|fact| fact.managed.as_slice()).unwrap_or_default();
        let has = |policy: &&&str| attached.iter().any(|arn| arn.ends_with(&format!("/{policy}")));
        let missing: Vec<&str> = wish.usual.iter().filter(|policy| !has(policy)).copied().collect();
        if !missing.is_empty() {
            lacking.push(format!("the role `{}` has no {}", wish.name(), missing.join(", ")));
        }
    }
    lacking
}

fn plan_role(wish: &RoleWish, fact: Option<&RoleFact>, steps: &mut Vec<Step<Op>>) {
    let name = &wish.name;
    match fact {
        None => steps.push(Step::add(0, "role", name, Op::CreateRole(Box::new(wish.clone())))),
        Some(fact) if fact.trust != wish.trust => {
            let op = Op::SetTrust(name.clone(), wish.trust.clone());
            steps.push(Step::change(1, "role trust", name, op).because("others may assume it"));
        }
        Some(_) => {}
    }
    let lacking = fact.map(|fact| missing(&wish.tags, &fact.tags)).unwrap_or_default();
    if !lacking.is_empty() {
        let keys: Vec<&str> = lacking.keys().map(String::as_str).collect();
        let why = format!("{} of the role", keys.join(", "));
        steps.push(Step::change(1, "tags", name, Op::TagRole(name.clone(), lacking)).because(why));
    }
    let attached = fact.map(|fact| fact.managed.as_slice()).unwrap_or_default();
    for policy in wish.managed.iter().filter(|policy| !attached.contains(policy)) {
        let op = Op::Attach(name.clone(), policy.clone());
        steps.push(Step::add(1, "policy attachment", label(name, policy), op));
    }
    let Some(rights) = &wish.inline else { return };
    match fact.and_then(|fact| fact.inline.as_ref()) {
        None => {
            let op = Op::PutRights(name.clone(), rights.clone());
            steps.push(Step::add(1, "node rights", name, op));
        }
        Some(present) if present != rights => {
            let op = Op::PutRights(name.clone(), rights.clone());
            steps.push(Step::change(1, "node rights", name, op).because("differ from the asked"));
        }
        Some(_) => {}
    }
}

/// `prod-gpu-node: AmazonEKSWorkerNodePolicy`.
fn label(role: &str, policy_arn: &str) -> String {
    format!("{role}: {}", policy_arn.rsplit('/').next().unwrap_or(policy_arn))
}

fn plan_bucket(wish: &BucketWish, fact: Option<&BucketFact>, steps: &mut Vec<Step<Op>>) {
    match fact {
        None => steps.push(Step::add(0, "bucket", &wish.name, Op::CreateBucket(wish.clone()))),
        Some(fact) if !fact.private || fact.tags != wish.tags => {
            let why = if fact.private { "its tags differ" } else { "it is not private" };
            let op = Op::SecureBucket(wish.clone());
            steps.push(Step::change(1, "bucket", &wish.name, op).because(why));
        }
        Some(_) => {}
    }
    let Some(artifact) = &wish.artifact else { return };
    let op = Op::Upload(wish.name.clone(), artifact.clone());
    match fact.and_then(|fact| fact.objects.get(&artifact.key())) {
        None => steps.push(Step::add(2, "agent tarball", artifact.key(), op)),
        Some(Some(checksum)) if *checksum != artifact.s3_checksum() => {
            let why = "S3 has other bytes under this name";
            steps.push(Step::change(2, "agent tarball", artifact.key(), op).because(why));
        }
        Some(_) => {}
    }
}

/// The steps down. Roles that carry another owner's tag, or none, stay.
#[must_use]
pub fn teardown(_: &Scope, facts: &IdentityFacts) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    for role in facts.roles.iter().filter(|role| role.ours) {
        let name = &role.name;
        for policy in &role.managed {
            let op = Op::Detach(name.clone(), policy.clone());
            steps.push(Step::destroy(0, "policy attachment", label(name, policy), op));
        }
        for policy in &role.inline_names {
            let what = if policy == NODE_POLICY { "node rights" } else { "inline policy" };
            let op = Op::DeleteInline(name.clone(), policy.clone());
            steps.push(Step::destroy(0, what, label(name, policy), op));
        }
        for profile in &role.profiles {
            let op = Op::DeleteProfile(name.clone(), profile.clone());
            steps.push(Step::destroy(0, "instance profile", profile, op));
        }
        steps.push(Step::destroy(1, "role", name, Op::DeleteRole(name.clone())));
    }
    if let Some(bucket) = &facts.bucket {
        for key in bucket.objects.keys() {
            let op = Op::DeleteObject(bucket.name.clone(), key.clone());
            steps.push(Step::destroy(0, "object", key, op));
        }
        let op = Op::DeleteBucket(bucket.name.clone());
        steps.push(Step::destroy(1, "bucket", &bucket.name, op));
    }
    steps.sort_by_key(|step| step.stage);
    steps
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
