//! The tags of what a layer's pools are made of. They change in place: a node is never replaced for
//! its tags.
//!
//! The instances that are there are tagged with their volumes and interfaces. Those that come later
//! get the tags from their Auto Scaling group where the launch template has older ones; their
//! volumes and interfaces with the next `up`, or with the next version of the template.

use std::collections::BTreeMap;

use aws_sdk_autoscaling::types::Filter as ScalingFilter;
use aws_sdk_ec2::types::{Filter, Tag};
use contract::names::{TAG_FLEET, TAG_LAYER, TAG_POOL};

use crate::aws::ec2::filter;
use crate::aws::tagging::{Holder, Tags, missing};
use crate::aws::{Attempted as _, AwsError, Clients};
use crate::launch::managed::GroupFact;
use crate::layers::pools::desired::PoolWish;
use crate::layers::pools::observe::PoolsFacts;
use crate::layers::pools::plan::Op;
use crate::stack::{Layer, Step};

/// Before a roll, which takes away what would be tagged.
const STAGE: u8 = 0;
/// Values per filter (Auto Scaling API reference).
const NAMES_PER_CALL: usize = 50;

/// Tags as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagFacts {
    /// Instances, their volumes and interfaces, by id.
    pub parts: BTreeMap<String, Tags>,
    /// What Auto Scaling groups put on what they launch, by name.
    pub propagated: BTreeMap<String, Tags>,
}

/// Reads the tags of a layer's nodes and Auto Scaling groups.
///
/// # Errors
/// Those of the reads.
pub async fn observe(
    clients: &Clients,
    fleet: &str,
    layer: Layer,
    groups: &[GroupFact],
) -> Result<TagFacts, AwsError> {
    let (instances, volumes, interfaces, propagated) = tokio::join!(
        instances(clients, fleet, layer),
        volumes(clients, fleet, layer),
        interfaces(clients, fleet, layer),
        propagated(clients, groups),
    );
    let parts = instances?.into_iter().chain(volumes?).chain(interfaces?).collect();
    Ok(TagFacts { parts, propagated: propagated? })
}

fn ours(fleet: &str, layer: Layer) -> Vec<Filter> {
    vec![
        filter(&format!("tag:{TAG_FLEET}"), fleet),
        filter(&format!("tag:{TAG_LAYER}"), layer.label()),
    ]
}

pub(super) fn read(tags: &[Tag]) -> Tags {
    let pair = |tag: &Tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned()));
    tags.iter().filter_map(pair).collect()
}

type Found = Result<Vec<(String, Tags)>, AwsError>;

async fn instances(clients: &Clients, fleet: &str, layer: Layer) -> Found {
    let live = ["pending", "running", "stopping", "stopped"].map(str::to_owned);
    let live = Filter::builder().name("instance-state-name").set_values(Some(live.into())).build();
    let call = clients.ec2.describe_instances().set_filters(Some(ours(fleet, layer))).filters(live);
    let pages: Vec<_> = call
        .into_paginator()
        .send()
        .try_collect()
        .await
        .attempted(|| format!("list the tags of the instances of `{fleet}`"))?;
    let all = pages.iter().flat_map(|page| page.reservations()).flat_map(|r| r.instances());
    Ok(all.filter_map(|one| Some((one.instance_id()?.to_owned(), read(one.tags())))).collect())
}

async fn volumes(clients: &Clients, fleet: &str, layer: Layer) -> Found {
    let call = clients.ec2.describe_volumes().set_filters(Some(ours(fleet, layer)));
    let all = call.into_paginator().items().send().try_collect().await;
    let all = all.attempted(|| format!("list the tags of the volumes of `{fleet}`"))?;
    let one =
        |one: &aws_sdk_ec2::types::Volume| Some((one.volume_id()?.to_owned(), read(one.tags())));
    Ok(all.iter().filter_map(one).collect())
}

async fn interfaces(clients: &Clients, fleet: &str, layer: Layer) -> Found {
    let call = clients.ec2.describe_network_interfaces().set_filters(Some(ours(fleet, layer)));
    let all = call.into_paginator().items().send().try_collect().await;
    let all = all.attempted(|| format!("list the tags of the interfaces of `{fleet}`"))?;
    let one = |one: &aws_sdk_ec2::types::NetworkInterface| {
        Some((one.network_interface_id()?.to_owned(), read(one.tag_set())))
    };
    Ok(all.iter().filter_map(one).collect())
}

async fn propagated(
    clients: &Clients,
    groups: &[GroupFact],
) -> Result<BTreeMap<String, Tags>, AwsError> {
    let names: Vec<String> = groups.iter().filter_map(|g| g.tagged.scaling_group.clone()).collect();
    let mut found: BTreeMap<String, Tags> = BTreeMap::new();
    for names in names.chunks(NAMES_PER_CALL) {
        let of = ScalingFilter::builder().name("auto-scaling-group");
        let of = of.set_values(Some(names.to_vec())).build();
        let call = clients.autoscaling.describe_tags().filters(of);
        let tags = call.into_paginator().items().send().try_collect().await;
        let tags = tags.attempted(|| "list the tags of the scaling groups".to_owned())?;
        for tag in tags.iter().filter(|tag| tag.propagate_at_launch() == Some(true)) {
            let (Some(group), Some(key)) = (tag.resource_id(), tag.key()) else { continue };
            let value = tag.value().unwrap_or_default().to_owned();
            found.entry(group.to_owned()).or_default().insert(key.to_owned(), value);
        }
    }
    Ok(found)
}

/// The tags of a template's instances.
#[must_use]
pub fn launched(data: &aws_sdk_ec2::types::ResponseLaunchTemplateData) -> Tags {
    let instances = data.tag_specifications().iter().find(|specification| {
        specification.resource_type() == Some(&aws_sdk_ec2::types::ResourceType::Instance)
    });
    instances.map(|instances| read(instances.tags())).unwrap_or_default()
}

/// The pool that tags name.
fn pool_of(tags: &Tags) -> Option<&str> {
    tags.get(TAG_POOL).map(String::as_str)
}

/// The steps that put what is missing, one for each kind of holder of a pool. Pure.
#[must_use]
pub fn plan(wish: &PoolWish, facts: &PoolsFacts) -> Vec<Step<Op>> {
    let mut steps = Vec::new();
    let mut want = |holder: Holder, what: String, lacking: Tags| {
        if !lacking.is_empty() {
            let keys: Vec<&str> = lacking.keys().map(String::as_str).collect();
            let why = format!("{} of {what}", keys.join(", "));
            let step = Step::change(STAGE, "tags", &wish.name, Op::Tag(holder, lacking.clone()));
            steps.push(step.because(why));
        }
    };
    let template = facts.templates.iter().find(|fact| fact.name == wish.template);
    if let Some(fact) = template {
        let holder = Holder::Ec2(vec![fact.id.clone()]);
        want(holder, "its launch template".into(), missing(&wish.template_tags, &fact.tags));
    }
    let Some(made) = &wish.made else { return steps };
    let wanted = &made.group.tags;
    for (lacking, ids) in parts(wish, facts, wanted) {
        let what = format!("{} instances, volumes and interfaces", ids.len());
        want(Holder::Ec2(ids), what, lacking);
    }
    let Some(group) = facts.groups.iter().find(|group| group.name == wish.name) else {
        return steps;
    };
    let holder = Holder::Eks(group.tagged.arn.clone());
    want(holder, "its node group".into(), missing(wanted, &group.tagged.tags));
    if let Some((name, fact)) = group.tagged.scaling_group.as_ref().zip(template) {
        let mut launched = fact.launched.clone();
        launched.extend(facts.tags.propagated.get(name).cloned().unwrap_or_default());
        let lacking = missing(wanted, &launched);
        want(Holder::Scaling(name.clone()), "the nodes to come".into(), lacking);
    }
    steps
}

/// The pool's parts that lack something, those together that lack the same.
fn parts(wish: &PoolWish, facts: &PoolsFacts, wanted: &Tags) -> BTreeMap<Tags, Vec<String>> {
    let mut alike: BTreeMap<Tags, Vec<String>> = BTreeMap::new();
    for (id, found) in &facts.tags.parts {
        let lacking = missing(wanted, found);
        if pool_of(found) == Some(wish.name.as_str()) && !lacking.is_empty() {
            alike.entry(lacking).or_default().push(id.clone());
        }
    }
    alike
}
