//! The pools of a layer as they are, and what their instance types and images are.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{LaunchTemplate, LaunchTemplateVersion};
use contract::names::{TAG_FLEET, TAG_LAYER, TAG_POOL, TAG_SPEC};

use crate::ami::catalogue;
use crate::ami::choose::choose;
use crate::ami::fit::Need;
use crate::aws::ec2::{self, TypeFacts, filter, tag_of};
use crate::aws::poll::a_few_at_once;
use crate::aws::tagging::Tags;
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::config::spec::PoolSpec;
use crate::launch::image::{self, Variant};
use crate::launch::managed::{self, GroupFact};
use crate::launch::placement;
use crate::launch::reservation::{self, ReservationFact};
use crate::layers::pools::tags::{self, TagFacts};
use crate::stack::{Inputs, Layer, StackError, World};

/// The pools of a layer as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolsFacts {
    /// What the instance types are.
    pub types: BTreeMap<String, TypeFacts>,
    /// The images, by pool; not for pools that name theirs. A pool that exists keeps the one it has
    /// where it boots what AWS recommends: that is another every few weeks, and must not roll anybody's
    /// nodes. One that takes a channel's takes what is promoted there now.
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
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    // What the fleet file gives to another layer is not read for this one; what it does not name is.
    let elsewhere = |name: &str| {
        let mut pools = inputs.iter().flat_map(|inputs| &inputs.spec.pools);
        pools.any(|pool| pool.name == name && pool.class.layer() != layer)
    };
    let (templates, placement_groups, mut groups) = tokio::try_join!(
        templates(clients, fleet, layer),
        placement::list(clients, fleet, layer),
        managed::list_some(clients, fleet, |name| !elsewhere(name)),
    )?;
    groups.retain(|group| group.layer == layer.label());
    let mut facts = PoolsFacts { templates, placement_groups, groups, ..PoolsFacts::default() };
    let Some(inputs) = inputs else { return Ok(facts) };
    let types: Vec<_> =
        inputs.spec.pools_of(layer).map(|pool| pool.instance_type.clone()).collect();
    let reserved = inputs.spec.pools_of(layer).filter_map(|pool| pool.capacity.reservation());
    let reserved: Vec<String> = reserved.map(str::to_owned).collect();
    (facts.tags, facts.types, facts.reservations) = tokio::try_join!(
        tags::observe(clients, fleet, layer, &facts.groups),
        ec2::instance_types(clients, &types),
        reservation::describe(clients, fleet, &reserved),
    )?;
    facts.images = images(world, layer, inputs, &facts).await?;
    Ok(facts)
}

/// The image of each pool that names none.
async fn images(
    world: &World,
    layer: Layer,
    inputs: &Inputs,
    facts: &PoolsFacts,
) -> Result<BTreeMap<String, String>, StackError> {
    let mut images = BTreeMap::new();
    let mut recommended: BTreeMap<String, String> = BTreeMap::new();
    let mut baked = None;
    for pool in inputs.spec.pools_of(layer) {
        if pool.image.named().is_some() {
            continue;
        }
        let Some(kind) = facts.types.get(&pool.instance_type) else {
            return Err(no_such_type(world, pool));
        };
        if let Some(channel) = pool.image.channel() {
            let all = match &mut baked {
                Some(all) => all,
                none => none.insert(catalogue::baked(&world.clients).await?),
            };
            let need = Need::of(&inputs.spec, pool, Some(kind));
            let chosen = choose(all, channel, &pool.name, &need)
                .map_err(|none| StackError::Conflict { message: none.message, hint: none.hint })?;
            images.insert(pool.name.clone(), chosen.id.clone());
            continue;
        }
        let kept = facts.templates.iter().find(|template| {
            template.pool == pool.name && template.instance_type == pool.instance_type
        });
        if let Some(kept) = kept.filter(|kept| !kept.image.is_empty()) {
            images.insert(pool.name.clone(), kept.image.clone());
            continue;
        }
        let (version, variant) = (&inputs.spec.kubernetes, Variant::of(kind));
        let parameter = image::parameter(version, &kind.architecture, variant);
        let id = match recommended.get(&parameter) {
            Some(id) => id.clone(),
            None => image::resolve(&world.clients, &parameter).await?,
        };
        recommended.insert(parameter, id.clone());
        images.insert(pool.name.clone(), id);
    }
    Ok(images)
}

fn no_such_type(world: &World, pool: &PoolSpec) -> StackError {
    StackError::Conflict {
        message: format!(
            "pool `{}`: EC2 offers no instance type `{}` in `{}`",
            pool.name, pool.instance_type, world.scope.region
        ),
        hint: "correct `instanceType`; `aws ec2 describe-instance-type-offerings` lists them"
            .into(),
    }
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
    let newest = newest(clients, &found).await?;
    let facts = found.iter().filter_map(|one| fact(one, newest.get(one.launch_template_id()?)?));
    Ok(facts.collect())
}

fn fact(template: &LaunchTemplate, newest: &LaunchTemplateVersion) -> Option<TemplateFact> {
    let data = newest.launch_template_data();
    let kind = data.and_then(|data| data.instance_type());
    Some(TemplateFact {
        id: template.launch_template_id()?.to_owned(),
        name: template.launch_template_name()?.to_owned(),
        pool: tag_of(template.tags(), TAG_POOL).unwrap_or_default().to_owned(),
        version: template.latest_version_number().unwrap_or(1).to_string(),
        image: data.and_then(|data| data.image_id()).unwrap_or_default().to_owned(),
        instance_type: kind.map(|kind| kind.as_str().to_owned()).unwrap_or_default(),
        spec: newest.version_description.clone().unwrap_or_default(),
        tags: tags::read(template.tags()),
        launched: data.map(tags::launched).unwrap_or_default(),
    })
}

/// Up to so many templates are asked for one by one; for more, the newest versions of all that the
/// account has take fewer calls (200 on a page, and no account has more than 5,000 templates).
const ONE_BY_ONE: usize = 10;

/// The newest versions, by template; without those that were deleted since they were listed. What one
/// was made from stands in its description: a template's own tags belong to all of its versions.
async fn newest(
    clients: &Clients,
    templates: &[LaunchTemplate],
) -> Result<BTreeMap<String, LaunchTemplateVersion>, AwsError> {
    let ids: Vec<&str> = templates.iter().filter_map(LaunchTemplate::launch_template_id).collect();
    let found: Vec<LaunchTemplateVersion> = if ids.len() > ONE_BY_ONE {
        let call = clients.ec2.describe_launch_template_versions().versions("$Latest");
        let all = call.into_paginator().items().send().try_collect().await;
        all.attempted(|| "describe the account's launch templates".to_owned())?
    } else {
        let each = a_few_at_once(ids.iter().map(|id| newest_of(clients, id))).await;
        let each: Result<Vec<_>, AwsError> = each.into_iter().collect();
        each?.into_iter().flatten().collect()
    };
    let by_id = |one: LaunchTemplateVersion| Some((one.launch_template_id.clone()?, one));
    Ok(found.into_iter().filter_map(by_id).collect())
}

/// The newest version; none when there is no such template.
async fn newest_of(clients: &Clients, id: &str) -> Result<Option<LaunchTemplateVersion>, AwsError> {
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
