//! The pools of a layer as they should be. Pure.

use std::collections::BTreeMap;

use contract::AgentConfig;
use contract::agent_config::{ExpectedGpus, GpuOffer};
use contract::names::{TAG_FLEET, TAG_GPU_OFFER, TAG_LAYER, TAG_POOL};

use crate::aws::ec2::TypeFacts;
use crate::aws::eks::ClusterFacts;
use crate::config::spec::{Capacity, Placement, PoolClass, PoolSpec};
use crate::launch::interfaces::{self, Interface};
use crate::launch::managed::GroupWish;
use crate::launch::template::{LaunchPath, Reservation, TemplateData};
use crate::layers::names::{bounded, spec_hash};
use crate::layers::pools::observe::PoolsFacts;
use crate::layers::{identity, tags};
use crate::stack::world::{NetworkGiven, SubnetGiven};
use crate::stack::{Inputs, Layer, StackError};
use crate::user_data::{self, NodeSettings, UserData};

/// EC2's limit on a launch template's name.
const TEMPLATE_NAME_MAX: usize = 128;

/// Cost tag that tells what nodes are for.
const TAG_WORKLOAD: &str = "workload-type";

/// A pool as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolWish {
    /// Its name.
    pub name: String,
    /// Name of its launch template.
    pub template: String,
    /// Tags of the launch template itself.
    pub template_tags: BTreeMap<String, String>,
    /// Name of the placement group that the fleet makes for it.
    pub placement_group: Option<String>,
    /// What the layers below must give first; none while they are not built.
    pub made: Option<Made>,
    /// What it is, for people: `4 × p5.48xlarge`.
    pub size: String,
}

/// What can only be said when the layers below are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The template's data.
    pub data: TemplateData,
    /// Hash of what a node is made from. The pool's size is not in it: the agent uses it as a hint
    /// alone, and a pool that grows must not roll.
    pub spec: String,
    /// The node group.
    pub group: GroupWish,
}

/// Name of a pool's launch template.
#[must_use]
pub fn template_name(fleet: &str, pool: &str) -> String {
    bounded(&format!("{fleet}-{pool}"), TEMPLATE_NAME_MAX)
}

/// The layer's pools.
///
/// # Errors
/// [`StackError`] when a pool's user data is larger than EC2 takes, or its type has no place here.
pub fn desired(
    inputs: &Inputs,
    layer: Layer,
    facts: &PoolsFacts,
) -> Result<Vec<PoolWish>, StackError> {
    inputs.spec.pools_of(layer).map(|pool| wish(inputs, layer, pool, facts)).collect()
}

fn wish(
    inputs: &Inputs,
    layer: Layer,
    pool: &PoolSpec,
    facts: &PoolsFacts,
) -> Result<PoolWish, StackError> {
    let fleet = &inputs.scope.fleet;
    let template = template_name(fleet, &pool.name);
    Ok(PoolWish {
        template_tags: own_tags(inputs, layer, pool, &template),
        placement_group: (pool.placement == Placement::Cluster).then(|| template.clone()),
        made: made(inputs, layer, pool, facts)?,
        name: pool.name.clone(),
        size: format!("{} × {}", pool.size.desired, pool.instance_type),
        template,
    })
}

fn own_tags(
    inputs: &Inputs,
    layer: Layer,
    pool: &PoolSpec,
    name: &str,
) -> BTreeMap<String, String> {
    // What bills are divided by, where the file does not say it itself.
    let mut own = BTreeMap::from([(TAG_WORKLOAD.to_owned(), pool.class.node_type().to_owned())]);
    own.extend(inputs.spec.tags.clone());
    own.extend(pool.tags.clone());
    let mut all = tags::of(&inputs.scope.fleet, layer, name, &own);
    all.insert(TAG_POOL.into(), pool.name.clone());
    let offer = pool.device_plugin.offer();
    if pool.class == PoolClass::Gpu && offer != GpuOffer::DevicePlugin {
        all.insert(TAG_GPU_OFFER.into(), offer.label().into());
    }
    debug_assert!(all.contains_key(TAG_FLEET) && all.contains_key(TAG_LAYER));
    all
}

fn made(
    inputs: &Inputs,
    layer: Layer,
    pool: &PoolSpec,
    facts: &PoolsFacts,
) -> Result<Option<Made>, StackError> {
    let given = &inputs.given;
    let (Some(cluster), Some(network), Some(identity)) =
        (&given.cluster, &given.network, &given.identity)
    else {
        return Ok(None);
    };
    let Some(kind) = facts.types.get(&pool.instance_type) else { return Ok(None) };
    let Some(image) = image_of(pool, facts) else { return Ok(None) };
    let Some(security_groups) = security_groups(pool, cluster, network) else { return Ok(None) };
    let fleet = &inputs.scope.fleet;
    let tags = own_tags(inputs, layer, pool, &format!("{fleet}-{}", pool.name));
    let labels = labels(pool, &image);
    let interfaces = layout(pool, kind)?;
    let mut data = user_data(inputs, pool, kind, cluster, &labels);
    data.agent.efa_devices = pool.efa.then(|| interfaces::efa_devices(&interfaces));
    if let Capacity::Block(id) = &pool.capacity {
        let reservation = facts.reservations.get(id);
        data.agent.capacity_ends = reservation.and_then(|reservation| reservation.ends.clone());
    }
    let text = render(&data)?;
    // Neither a pool that grows nor a block that is extended rolls a node.
    data.agent.pool_size = 0;
    data.agent.capacity_ends = None;
    let lasting = render(&data)?;
    let template = TemplateData {
        path: LaunchPath::ManagedNodeGroup,
        image,
        instance_type: pool.instance_type.clone(),
        security_groups,
        user_data: text,
        volume_gib: pool.volume_gib,
        interfaces,
        placement_group: match &pool.placement {
            Placement::Anywhere => None,
            Placement::Cluster => Some(template_name(fleet, &pool.name)),
            Placement::Existing(name) => Some(name.clone()),
        },
        reservation: pool.capacity.reservation().map(|id| Reservation {
            id: id.to_owned(),
            block: matches!(pool.capacity, Capacity::Block(_)),
        }),
        tags: tags.clone(),
    };
    let spec = spec_of(&template, &lasting);
    let role = match pool.class {
        PoolClass::System => &identity.system_node_role,
        PoolClass::Infra | PoolClass::Apps | PoolClass::Gpu => &identity.gpu_node_role,
    };
    let group = GroupWish {
        cluster: fleet.clone(),
        name: pool.name.clone(),
        role: role.clone(),
        subnets: subnets(pool, network, facts)?,
        size: pool.size,
        capacity: pool.capacity.clone(),
        labels: pool.labels.clone(),
        tags,
    };
    Ok(Some(Made { data: template, spec, group }))
}

/// The image that the pool names, else the one that was found for it.
fn image_of(pool: &PoolSpec, facts: &PoolsFacts) -> Option<String> {
    let named = pool.image.named().map(str::to_owned);
    named.or_else(|| facts.images.get(&pool.name).cloned())
}

/// The cluster's own group, and EFA's where the pool has it; none while that is not made.
fn security_groups(
    pool: &PoolSpec,
    cluster: &ClusterFacts,
    network: &NetworkGiven,
) -> Option<Vec<String>> {
    let cluster = cluster.security_group.clone();
    match pool.efa {
        true => network.efa_group.clone().map(|efa| vec![cluster, efa]),
        false => Some(vec![cluster]),
    }
}

fn layout(pool: &PoolSpec, kind: &TypeFacts) -> Result<Vec<Interface>, StackError> {
    if !pool.efa {
        return Ok(Vec::new());
    }
    let layout = interfaces::layout(kind);
    match layout.is_empty() {
        false => Ok(layout),
        true => Err(StackError::Conflict {
            message: format!("pool `{}`: `{}` has no EFA", pool.name, pool.instance_type),
            hint: "take `efa` out of the pool, or choose a type that has it".into(),
        }),
    }
}

/// The private subnets in the pool's zones, and in its reservation's: a block's group may name no
/// other (`docs.aws.amazon.com/eks`, "Create a managed node group with Capacity Blocks").
fn subnets(
    pool: &PoolSpec,
    network: &NetworkGiven,
    facts: &PoolsFacts,
) -> Result<Vec<String>, StackError> {
    let reserved = pool.capacity.reservation().and_then(|id| facts.reservations.get(id));
    let within = |subnet: &&SubnetGiven| {
        let zone = &subnet.zone;
        (pool.zones.is_empty() || pool.zones.iter().any(|word| zone.is(word)))
            && reserved.is_none_or(|fact| *zone == fact.zone || zone.name == fact.zone.name)
    };
    let found: Vec<String> =
        network.private_subnets.iter().filter(within).map(|subnet| subnet.id.clone()).collect();
    if !found.is_empty() || network.private_subnets.is_empty() {
        return Ok(found);
    }
    let there: Vec<String> = network
        .private_subnets
        .iter()
        .map(|subnet| format!("{} ({})", subnet.zone.name, subnet.zone.id))
        .collect();
    let asked = match reserved {
        Some(fact) => format!("its reservation's zone {} ({})", fact.zone.name, fact.zone.id),
        None => format!("`{}`", pool.zones.join("`, `")),
    };
    Err(StackError::Conflict {
        message: format!(
            "pool `{}`: no private subnet lies in {asked}; they lie in {}",
            pool.name,
            there.join(", ")
        ),
        hint: "name that zone in `network.zoneIds`, or others in the pool's `zones`".into(),
    })
}

fn render(data: &UserData) -> Result<String, StackError> {
    use crate::failure::Advice as _;
    user_data::render(data).map_err(|error| StackError::Conflict {
        message: contract::ErrorChain(&error).to_string(),
        hint: error.hint().unwrap_or_else(|| "change the pool in the fleet file".into()),
    })
}

/// What makes two nodes differ. Tags do not: they change in place.
fn spec_of(data: &TemplateData, user_data: &str) -> String {
    let parts = [
        data.image.as_str(),
        &data.instance_type,
        &data.security_groups.join(","),
        user_data,
        &data.volume_gib.to_string(),
        &format!("{:?}", data.interfaces),
        &format!("{:?} {:?}", data.placement_group, data.reservation),
    ];
    spec_hash(&parts)
}

/// The pool's labels, and those that EKS injects where it merges user data itself: without them its
/// console shows the nodes under no group.
fn labels(pool: &PoolSpec, image: &str) -> BTreeMap<String, String> {
    let capacity = match pool.capacity {
        Capacity::OnDemand | Capacity::Reserved(_) => "ON_DEMAND",
        Capacity::Spot => "SPOT",
        Capacity::Block(_) => "CAPACITY_BLOCK",
    };
    let mut labels = pool.labels.clone();
    for (key, value) in
        [("nodegroup", pool.name.as_str()), ("nodegroup-image", image), ("capacityType", capacity)]
    {
        labels.insert(format!("eks.amazonaws.com/{key}"), value.to_owned());
    }
    labels
}

fn user_data(
    inputs: &Inputs,
    pool: &PoolSpec,
    kind: &TypeFacts,
    cluster: &ClusterFacts,
    labels: &BTreeMap<String, String>,
) -> UserData {
    let mut agent = AgentConfig::new(&inputs.scope.fleet, &pool.name);
    agent.pool_size = pool.size.desired.max(1);
    let none = ExpectedGpus { count: 0, model: None, memory_mib: None };
    agent.gpus = Some(kind.gpus.clone().unwrap_or(none));
    agent.gpu_offer = pool.device_plugin.offer();
    agent.repair = pool.repair;
    pool.policy.tell(&mut agent);
    agent.install = identity::install(inputs);
    agent.evidence_bucket.clone_from(&inputs.spec.evidence_bucket);
    UserData {
        agent,
        region: inputs.scope.region.clone(),
        node: NodeSettings {
            cluster: cluster.name.clone(),
            endpoint: cluster.endpoint.clone(),
            ca: cluster.certificate_authority.clone(),
            service_cidr: cluster.service_cidr.clone(),
            labels: labels.clone(),
            taints: pool.taints.clone(),
            local_storage: kind.instance_storage,
        },
    }
}

#[cfg(test)]
#[path = "desired_tests.rs"]
mod tests;
