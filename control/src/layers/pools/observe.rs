//! The pools of a layer as they are, and what their instance types and images are.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{LaunchTemplate, LaunchTemplateVersion};
use contract::names::{TAG_FLEET, TAG_LAYER, TAG_POOL, TAG_SPEC};

use crate::aws::ec2::{self, TypeFacts, filter, tag_of};
use crate::aws::poll::a_few_at_once;
use crate::aws::tagging::Tags;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::launch::managed::{self, GroupFact};
use crate::launch::reservation::{self, ReservationFact};
use crate::launch::{image, placement};
use crate::layers::pools::tags::{self, TagFacts};
use crate::stack::{Inputs, Layer, StackError, World};

/// The pools of a layer as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolsFacts {
    /// What the instance types are.
    pub types: BTreeMap<String, TypeFacts>,
    /// The images, by pool; not for pools that name theirs. A pool that exists keeps the one it has:
    /// AWS recommends another every few weeks, and that must not roll anybody's nodes.
    pub images: BTreeMap<String, String>,
    /// The launch templates.
    pub templates: Vec<TemplateFact>,
    /// The node groups.
    pub groups: Vec<GroupFact>,
    /// Tags of the nodes, and those of nodes to come.
    pub tags: TagFacts,
    /// Names of the placement groups that the layer made.
    pub placement_groups: Vec<String>,
    /// The reservations that its pools name, by id.
    pub reservations: BTreeMap<String, ReservationFact>,
}

/// A launch template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFact {
    /// Id.
    pub id: String,
    /// Name.
    pub name: String,
    /// The pool that it is for.
    pub pool: String,
    /// Its newest version.
    pub version: String,
    /// What its newest version was made from.
    pub spec: String,
    /// Image of its newest version.
    pub image: String,
    /// Instance type of its newest version.
    pub instance_type: String,
    /// Its own tags.
    pub tags: Tags,
    /// The tags that its newest version gives to instances.
    pub launched: Tags,
}

/// Reads what is there.
///
/// # Errors
/// Those of the reads; [`StackError::Conflict`] for an instance type that EC2 does not offer.
pub async fn observe(
    world: &World,
    layer: Layer,
    inputs: Option<&Inputs>,
) -> Result<PoolsFacts, StackError> {
    let mut facts = PoolsFacts {
        templates: templates(&world.clients, &world.scope.fleet, layer).await?,
        placement_groups: placement::list(&world.clients, &world.scope.fleet, layer).await?,
        ..PoolsFacts::default()
    };
    // What the fleet file gives to another layer is not read for this one; what it does not name is.
    let elsewhere = |name: &str| {
        let mut pools = inputs.iter().flat_map(|inputs| &inputs.spec.pools);
        pools.any(|pool| pool.name == name && pool.class.layer() != layer)
    };
    let groups = managed::list_some(&world.clients, &world.scope.fleet, |name| !elsewhere(name));
    facts.groups = groups.await?.into_iter().filter(|g| g.layer == layer.label()).collect();
    let Some(inputs) = inputs else { return Ok(facts) };
    facts.tags = tags::observe(&world.clients, &world.scope.fleet, layer, &facts.groups).await?;
    let types: Vec<_> =
        inputs.spec.pools_of(layer).map(|pool| pool.instance_type.clone()).collect();
    facts.types = ec2::instance_types(&world.clients, &types).await?;
    let reserved = inputs.spec.pools_of(layer).filter_map(|pool| pool.capacity.reservation());
    let reserved: Vec<String> = reserved.map(str::to_owned).collect();
    facts.reservations =
        reservation::describe(&world.clients, &world.scope.fleet, &reserved).await?;
    let mut resolved: BTreeMap<String, String> = BTreeMap::new();
    for pool in inputs.spec.pools_of(layer).filter(|pool| pool.image.is_none()) {
        let Some(kind) = facts.types.get(&pool.instance_type) else {
            return Err(StackError::Conflict {
                message: format!(
                    "pool `{}`: EC2 offers no instance type `{}` in `{}`",
                    pool.name, pool.instance_type, world.scope.region
                ),
                hint: "correct `instanceType`; `aws ec2 describe-instance-type-offerings` lists \
                       them"
                    .into(),
            });
        };
        let kept = facts.templates.iter().find(|template| {
            template.pool == pool.name && template.instance_type == pool.instance_type
        });
        if let Some(kept) = kept.filter(|kept| !kept.image.is_empty()) {
            facts.images.insert(pool.name.clone(), kept.image.clone());
            continue;
        }
        let parameter = image::parameter(&inputs.spec.kubernetes, kind);
        let id = match resolved.get(&parameter) {
            Some(id) => id.clone(),
            None => image::resolve(&world.clients, &parameter).await?,
        };
        resolved.insert(parameter, id.clone());
        facts.images.insert(pool.name.clone(), id);
    }
    Ok(facts)
}

async fn templates(
    clients: &Clients,
    fleet: &str,
    layer: Layer,
) -> Result<Vec<TemplateFact>, AwsError> {
    let call = clients
        .ec2
        .describe_launch_templates()
        .filters(filter(&format!("tag:{TAG_FLEET}"), fleet))
        .filters(filter(&format!("tag:{TAG_LAYER}"), layer.label()));
    let found: Vec<_> = call
        .into_paginator()
        .items()
        .send()
        .try_collect()
        .await
        .attempted(|| format!("list the launch templates of `{fleet}`"))?;
    let facts = a_few_at_once(found.iter().map(|found| template(clients, found))).await;
    let facts: Result<Vec<_>, AwsError> = facts.into_iter().collect();
    Ok(facts?.into_iter().flatten().collect())
}

/// What is known of a template; none when the list is from before it was deleted.
async fn template(
    clients: &Clients,
    template: &LaunchTemplate,
) -> Result<Option<TemplateFact>, AwsError> {
    let (Some(id), Some(name)) = (template.launch_template_id(), template.launch_template_name())
    else {
        return Ok(None);
    };
    let Some(newest) = newest(clients, id).await? else { return Ok(None) };
    let data = newest.launch_template_data();
    let kind = data.and_then(|data| data.instance_type());
    Ok(Some(TemplateFact {
        id: id.to_owned(),
        name: name.to_owned(),
        pool: tag_of(template.tags(), TAG_POOL).unwrap_or_default().to_owned(),
        version: template.latest_version_number().unwrap_or(1).to_string(),
        image: data.and_then(|data| data.image_id()).unwrap_or_default().to_owned(),
        instance_type: kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        spec: newest.version_description.clone().unwrap_or_default(),
        tags: tags::read(template.tags()),
        launched: data.map(tags::launched).unwrap_or_default(),
    }))
}

/// The newest version; none when there is no such template. What it was made from stands in its description: a template's own tags belong
/// to all of its versions.
async fn newest(clients: &Clients, id: &str) -> Result<Option<LaunchTemplateVersion>, AwsError> {
    let call = clients.ec2.describe_launch_template_versions().launch_template_id(id);
    let answer = call.versions("$Latest").send().await;
    match answer.attempted(|| format!("describe the launch template `{id}`")) {
        Ok(answer) => Ok(answer.launch_template_versions.unwrap_or_default().into_iter().next()),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The description of a version that was made from this.
#[must_use]
pub fn description(spec: &str) -> String {
    format!("{TAG_SPEC}={spec}")
}
