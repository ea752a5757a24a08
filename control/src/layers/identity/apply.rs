//! Makes and removes roles and bucket; create stands beside delete.

use std::collections::BTreeMap;

use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    BucketLocationConstraint, CreateBucketConfiguration, PublicAccessBlockConfiguration,
    Tag as S3Tag, Tagging,
};
use contract::StepOutcome;
use serde_json::Value;

use crate::aws::tagging::{self, Holder};
use crate::aws::{Attempted as _, AwsError, error};
use crate::layers::identity::artifact::{self, Artifact};
use crate::layers::identity::desired::{BucketWish, NODE_POLICY, RoleWish};
use crate::layers::identity::observe::{BucketFact, IdentityFacts, RoleFact};
use crate::layers::identity::plan::Op;
use crate::stack::{Applied, StackError, World};

type Done = Result<Applied<IdentityFacts>, StackError>;

/// Does one step.
pub async fn apply(world: &World, op: &Op, _: &IdentityFacts) -> Done {
    match op {
        Op::CreateRole(wish) => create_role(world, wish).await,
        Op::SetTrust(role, trust) => set_trust(world, role, trust).await,
        Op::TagRole(name, tags) => {
            tagging::put(&world.clients, &Holder::Role(name.clone()), tags).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::Attach(role, policy) => attach(world, role, policy).await,
        Op::Detach(role, policy) => detach(world, role, policy).await,
        Op::PutRights(role, rights) => put_rights(world, role, rights).await,
        Op::DeleteInline(role, policy) => delete_inline(world, role, policy).await,
        Op::DeleteProfile(role, profile) => delete_profile(world, role, profile).await,
        Op::DeleteRole(role) => delete_role(world, role).await,
        Op::CreateBucket(wish) => create_bucket(world, wish).await,
        Op::SecureBucket(wish) => {
            secure_bucket(world, wish).await?;
            Ok(Applied::ended(StepOutcome::Done))
        }
        Op::Upload(bucket, artifact) => upload(world, bucket, artifact).await,
        Op::DeleteObject(bucket, key) => delete_object(world, bucket, key).await,
        Op::DeleteBucket(bucket) => delete_bucket(world, bucket).await,
    }
}

/// How a deletion ended; nothing new is known.
fn gone<T>(answer: Result<T, AwsError>) -> Done {
    Ok(Applied::ended(error::gone(answer)?))
}

async fn create_role(world: &World, wish: &RoleWish) -> Done {
    let RoleWish { name, trust, tags, .. } = wish;
    let iam = &world.clients.iam;
    let call = iam.create_role().role_name(name).assume_role_policy_document(trust.to_string());
    let answer = call.set_tags(Some(tagging::of_iam(tags)?)).send().await;
    let role = match answer.attempted(|| format!("create the role `{name}`")) {
        Ok(answer) => answer.role,
        // Our own call whose answer was lost, retried by the SDK: the name is ours alone.
        Err(error) if error.code() == Some("EntityAlreadyExists") => {
            let answer = iam.get_role().role_name(name).send().await;
            answer.attempted(|| format!("read the role `{name}`"))?.role
        }
        Err(error) => return Err(error.into()),
    };
    let Some(role) = role else {
        let attempted = format!("create the role `{name}`");
        return Err(AwsError::Incomplete { attempted, missing: "role" }.into());
    };
    let fact = RoleFact {
        name: name.clone(),
        arn: role.arn,
        ours: true,
        tags: tags.clone(),
        trust: trust.clone(),
        managed: Vec::new(),
        inline_names: Vec::new(),
        inline: None,
        profiles: Vec::new(),
    };
    Ok(Applied::done(move |facts: &mut IdentityFacts| facts.roles.push(fact)))
}

async fn set_trust(world: &World, role: &str, trust: &Value) -> Done {
    let call = world.clients.iam.update_assume_role_policy().role_name(role);
    let answer = call.policy_document(trust.to_string()).send().await;
    answer.attempted(|| format!("set who may assume the role `{role}`"))?;
    Ok(Applied::ended(StepOutcome::Done))
}

async fn attach(world: &World, role: &str, policy: &str) -> Done {
    let call = world.clients.iam.attach_role_policy().role_name(role).policy_arn(policy);
    call.send().await.attempted(|| format!("attach `{policy}` to the role `{role}`"))?;
    let (role, policy) = (role.to_owned(), policy.to_owned());
    Ok(Applied::done(move |facts: &mut IdentityFacts| {
        if let Some(fact) = facts.roles.iter_mut().find(|fact| fact.name == role) {
            fact.managed.push(policy);
        }
    }))
}

async fn detach(world: &World, role: &str, policy: &str) -> Done {
    let call = world.clients.iam.detach_role_policy().role_name(role).policy_arn(policy);
    gone(call.send().await.attempted(|| format!("detach `{policy}` from the role `{role}`")))
}

async fn put_rights(world: &World, role: &str, rights: &Value) -> Done {
    let call = world.clients.iam.put_role_policy().role_name(role).policy_name(NODE_POLICY);
    let answer = call.policy_document(rights.to_string()).send().await;
    answer.attempted(|| format!("write the node's rights into the role `{role}`"))?;
    let (role, rights) = (role.to_owned(), rights.clone());
    Ok(Applied::done(move |facts: &mut IdentityFacts| {
        if let Some(fact) = facts.roles.iter_mut().find(|fact| fact.name == role) {
            fact.inline = Some(rights);
        }
    }))
}

async fn delete_inline(world: &World, role: &str, policy: &str) -> Done {
    let call = world.clients.iam.delete_role_policy().role_name(role).policy_name(policy);
    gone(call.send().await.attempted(|| format!("delete `{policy}` of the role `{role}`")))
}

async fn delete_profile(world: &World, role: &str, profile: &str) -> Done {
    let iam = &world.clients.iam;
    let call = iam.remove_role_from_instance_profile().instance_profile_name(profile);
    let answer = call.role_name(role).send().await;
    gone(answer.attempted(|| format!("take the role `{role}` out of the profile `{profile}`")))?;
    let call = iam.delete_instance_profile().instance_profile_name(profile);
    gone(call.send().await.attempted(|| format!("delete the instance profile `{profile}`")))
}

async fn delete_role(world: &World, role: &str) -> Done {
    let call = world.clients.iam.delete_role().role_name(role);
    gone(call.send().await.attempted(|| format!("delete the role `{role}`")))
}

async fn create_bucket(world: &World, wish: &BucketWish) -> Done {
    let region = world.scope.region.as_str();
    // us-east-1 is the one region that may not be named here (S3 API reference, CreateBucket).
    let place = (region != "us-east-1").then(|| {
        let constraint = BucketLocationConstraint::from(region);
        CreateBucketConfiguration::builder().location_constraint(constraint).build()
    });
    let call = world.clients.s3.create_bucket().bucket(&wish.name);
    let answer = call.set_create_bucket_configuration(place).send().await;
    match answer.attempted(|| format!("create the bucket `{}`", wish.name)) {
        Ok(_) => {}
        Err(error) if error.code() == Some("BucketAlreadyOwnedByYou") => {}
        Err(error) => return Err(error.into()),
    }
    secure_bucket(world, wish).await?;
    let fact = BucketFact {
        name: wish.name.clone(),
        private: true,
        tags: wish.tags.clone(),
        objects: BTreeMap::new(),
    };
    Ok(Applied::done(move |facts: &mut IdentityFacts| facts.bucket = Some(fact)))
}

async fn secure_bucket(world: &World, wish: &BucketWish) -> Result<(), AwsError> {
    let s3 = &world.clients.s3;
    let name = &wish.name;
    let block = PublicAccessBlockConfiguration::builder()
        .block_public_acls(true)
        .block_public_policy(true)
        .ignore_public_acls(true)
        .restrict_public_buckets(true)
        .build();
    let call = s3.put_public_access_block().bucket(name);
    let answer = call.public_access_block_configuration(block).send().await;
    answer.attempted(|| format!("block public access to the bucket `{name}`"))?;
    let what = || format!("tag the bucket `{name}`");
    let incomplete = |_| AwsError::Incomplete { attempted: what(), missing: "key or value" };
    let tags = wish.tags.iter().map(|(key, value)| S3Tag::builder().key(key).value(value).build());
    let tags = tags.collect::<Result<Vec<_>, _>>().map_err(incomplete)?;
    let tagging = Tagging::builder().set_tag_set(Some(tags)).build().map_err(incomplete)?;
    s3.put_bucket_tagging().bucket(name).tagging(tagging).send().await.attempted(what)?;
    Ok(())
}

async fn upload(world: &World, bucket: &str, artifact: &Artifact) -> Done {
    let bytes = artifact::contents(&artifact.path).await?;
    let key = artifact.key();
    // S3 refuses the object when its bytes do not have this checksum.
    let call = world.clients.s3.put_object().bucket(bucket).key(&key);
    let call = call.checksum_sha256(artifact.s3_checksum()).content_type("application/gzip");
    let answer = call.body(ByteStream::from(bytes)).send().await;
    answer.attempted(|| format!("upload `{}` to `{bucket}/{key}`", artifact.path.display()))?;
    let checksum = artifact.s3_checksum();
    Ok(Applied::done(move |facts: &mut IdentityFacts| {
        if let Some(fact) = &mut facts.bucket {
            fact.objects.insert(key, Some(checksum));
        }
    }))
}

async fn delete_object(world: &World, bucket: &str, key: &str) -> Done {
    let call = world.clients.s3.delete_object().bucket(bucket).key(key);
    gone(call.send().await.attempted(|| format!("delete `{bucket}/{key}`")))
}

async fn delete_bucket(world: &World, bucket: &str) -> Done {
    let call = world.clients.s3.delete_bucket().bucket(bucket);
    gone(call.send().await.attempted(|| format!("delete the bucket `{bucket}`")))
}
