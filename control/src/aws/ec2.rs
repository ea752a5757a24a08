//! EC2: filters, tags, and what instance types are.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    Filter, InstanceType, InstanceTypeInfo, NetworkInfo, ResourceType, Tag, TagSpecification,
};
use contract::agent_config::ExpectedGpus;

use crate::aws::{Attempted as _, AwsError, Clients};

/// A filter with one value.
#[must_use]
pub fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The value of the `Name` tag.
#[must_use]
pub fn name_of(tags: &[Tag]) -> String {
    tag_of(tags, "Name").unwrap_or_default().to_owned()
}

/// The value of a tag.
#[must_use]
pub fn tag_of<'a>(tags: &'a [Tag], key: &str) -> Option<&'a str> {
    tags.iter().find(|tag| tag.key() == Some(key)).and_then(Tag::value)
}

/// EC2's form of tags.
#[must_use]
pub fn tags(tags: &BTreeMap<String, String>) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Tags that a resource is created with: never afterwards, or a crash leaves it unfindable.
#[must_use]
pub fn tagged(kind: ResourceType, with: &BTreeMap<String, String>) -> TagSpecification {
    TagSpecification::builder().resource_type(kind).set_tags(Some(tags(with))).build()
}

/// What an instance type is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeFacts {
    /// `x86_64` or `arm64`, as in image names.
    pub architecture: String,
    /// Its NVIDIA GPUs.
    pub gpus: Option<ExpectedGpus>,
    /// Whether it has NVMe instance storage.
    pub instance_storage: bool,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// EFA devices that it can have.
    pub efa_devices: u32,
    /// Its network cards, by index.
    pub network_cards: Vec<NetworkCard>,
}

impl TypeFacts {
    /// A small type for tests.
    #[cfg(test)]
    pub(crate) fn example() -> Self {
        Self {
            architecture: "x86_64".into(),
            gpus: None,
            instance_storage: false,
            vcpus: 2,
            efa_devices: 0,
            network_cards: Vec::new(),
        }
    }
}

/// A network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkCard {
    /// Its index.
    pub index: u32,
    /// Whether an interface on it can have EFA.
    pub efa: bool,
    /// Whether an interface on it can have EFA alone.
    pub efa_only: bool,
}

/// What instance types are. A type that EC2 does not know is refused by EC2.
///
/// # Errors
/// [`AwsError`] when EC2 does not answer or refuses.
pub async fn instance_types(
    clients: &Clients,
    names: &[String],
) -> Result<BTreeMap<String, TypeFacts>, AwsError> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut names = names.to_vec();
    names.sort();
    names.dedup();
    let wanted = names.iter().map(|name| InstanceType::from(name.as_str())).collect();
    let answer = clients
        .ec2
        .describe_instance_types()
        .set_instance_types(Some(wanted))
        .send()
        .await
        .attempted(|| format!("describe the instance types `{}`", names.join("`, `")))?;
    let types = answer
        .instance_types()
        .iter()
        .filter_map(|info| Some((info.instance_type()?.as_str().to_owned(), type_facts(info))));
    Ok(types.collect())
}

/// Number of NVIDIA GPUs by instance type.
///
/// # Errors
/// [`AwsError`] when EC2 does not answer or refuses.
pub async fn gpu_counts(
    clients: &Clients,
    names: &[String],
) -> Result<BTreeMap<String, u32>, AwsError> {
    let types = instance_types(clients, names).await?;
    Ok(types.into_iter().map(|(name, facts)| (name, facts.gpus.map_or(0, |g| g.count))).collect())
}

fn type_facts(info: &InstanceTypeInfo) -> TypeFacts {
    let architectures =
        info.processor_info().map(|p| p.supported_architectures()).unwrap_or_default();
    let network = info.network_info();
    let arm = architectures.iter().any(|a| a.as_str() == "arm64");
    TypeFacts {
        architecture: if arm { "arm64" } else { "x86_64" }.to_owned(),
        gpus: gpus(info),
        instance_storage: info.instance_storage_supported().unwrap_or(false),
        vcpus: info.v_cpu_info().and_then(|v| v.default_v_cpus()).unwrap_or(0).unsigned_abs(),
        efa_devices: network
            .and_then(|network| network.efa_info())
            .and_then(|efa| efa.maximum_efa_interfaces())
            .unwrap_or(0)
            .unsigned_abs(),
        network_cards: network.map(network_cards).unwrap_or_default(),
    }
}

fn network_cards(network: &NetworkInfo) -> Vec<NetworkCard> {
    let efa = network.efa_supported().unwrap_or(false);
    let cards = network.network_cards().iter().map(|card| {
        let kinds = card.interface_types();
        let has = |kind: &str| kinds.iter().any(|known| known.as_str() == kind);
        NetworkCard {
            index: card.network_card_index().unwrap_or(0).unsigned_abs(),
            // Before EC2 told the kinds, every card of a type with EFA had it.
            efa: efa && (kinds.is_empty() || has("efa")),
            efa_only: has("efa-only"),
        }
    });
    let mut cards: Vec<_> = cards.collect();
    cards.sort_by_key(|card| card.index);
    cards
}

/// NVIDIA's GPUs: those of other makers (g4ad) are none of ours.
fn gpus(info: &InstanceTypeInfo) -> Option<ExpectedGpus> {
    let gpus =
        info.gpu_info()?.gpus().iter().filter(|gpu| {
            gpu.manufacturer().is_some_and(|maker| maker.eq_ignore_ascii_case("NVIDIA"))
        });
    let gpus: Vec<_> = gpus.collect();
    let first = gpus.first()?;
    Some(ExpectedGpus {
        count: gpus.iter().map(|gpu| gpu.count().unwrap_or(0).unsigned_abs()).sum(),
        model: first.name().map(str::to_owned),
        memory_mib: first
            .memory_info()
            .and_then(|memory| memory.size_in_mib())
            .map(|mib| u64::from(mib.unsigned_abs())),
    })
}
