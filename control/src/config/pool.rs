//! One pool, from what was typed to what is meant. Pure.

use std::collections::BTreeMap;

use contract::agent_config::Repair;
use contract::names::{LABEL_DEVICE_PLUGIN, LABEL_NODE_TYPE, LABEL_POOL};

use crate::config::network::{check_id, is_zone_id};
use crate::config::policy;
use crate::config::raw::{RawImage, RawPool, RawSize, RawTaint};
use crate::config::resolve::{Judge, check_name, check_tags};
use crate::config::spec::{
    Capacity, DevicePlugin, ImageSource, Placement, PoolClass, PoolSpec, Size, Taint,
};

/// The longest pool name: with the fleet's it must fit the name of a launch template and of a
/// node group.
pub(crate) const POOL_NAME_MAX: usize = 24;
/// EKS refuses larger managed groups (quota `Nodes per managed node group`).
const SIZE_MAX: u64 = 450;
/// The least root volume: the AL2023 GPU image is 20 GiB.
const VOLUME_MIN: u64 = 20;
const VOLUME_MAX: u64 = 16_384;

pub(crate) fn resolve(
    judge: &mut Judge,
    path: &str,
    raw: &RawPool,
    of_fleet: Option<&ImageSource>,
) -> Option<PoolSpec> {
    let class = class_of(raw.class.as_deref());
    if let Some(name) = &raw.name {
        check_pool_name(judge, path, name);
    }
    if let Some(kind) = &raw.instance_type {
        check_instance_type(judge, &format!("{path}.instanceType"), kind);
    }
    let size = raw.size.and_then(|size| resolve_size(judge, path, size));
    let volume = volume(judge, path, raw.volume_gib, class);
    let image = match &raw.image {
        Some(image) => image_source(judge, path, image),
        None => Some(of_fleet.cloned().unwrap_or(ImageSource::Recommended)),
    };
    check_labels(judge, path, raw.labels.as_ref());
    let own_taints = taints(judge, path, raw.taints.as_deref().unwrap_or_default());
    let tags = raw.tags.clone().unwrap_or_default();
    check_tags(judge, &format!("{path}.tags"), &tags);
    check_system(judge, path, class, raw);
    let plugin = device_plugin(judge, path, class, raw.device_plugin.as_deref());
    let quorum = size.map(|size| quorum(judge, path, raw.quorum, size));
    let capacity = capacity(judge, path, raw);
    let placement = placement(judge, path, raw, capacity.as_ref());
    let zones = zones(judge, path, raw.zones.as_deref().unwrap_or_default());
    let policy = policy::resolve(judge, path, class, raw);

    let (class, name) = (class?, raw.name.clone()?);
    let mut labels = PoolSpec::class_labels(class, &name);
    if plugin == DevicePlugin::Install {
        labels.insert(LABEL_DEVICE_PLUGIN.to_owned(), "install".to_owned());
    }
    labels.extend(raw.labels.clone().unwrap_or_default());
    let mut all_taints = PoolSpec::class_taints(class);
    all_taints.extend(own_taints);
    Some(PoolSpec {
        name,
        class,
        instance_type: raw.instance_type.clone()?,
        size: size?,
        volume_gib: volume?,
        image: image?,
        device_plugin: plugin,
        labels,
        taints: all_taints,
        tags,
        capacity: capacity?,
        zones,
        efa: raw.efa == Some(true),
        placement,
        quorum: quorum?,
        // More than a pool has nodes is as many as there are.
        replace_failed: u32::try_from(raw.replace_failed.unwrap_or(0)).unwrap_or(u32::MAX),
        repair: match raw.repair.as_deref() {
            Some("off") => Repair::Off,
            Some("on") => Repair::On,
            _ => Repair::default(),
        },
        policy,
    })
}

/// How the pool is paid; none where it needs a reservation and names none.
fn capacity(judge: &mut Judge, path: &str, raw: &RawPool) -> Option<Capacity> {
    let at = format!("{path}.reservation");
    if let Some(id) = &raw.reservation {
        check_id(judge, &at, id, "cr-");
    }
    let way = raw.capacity.as_deref().unwrap_or("on-demand");
    match (way, raw.reservation.clone()) {
        ("reserved", Some(id)) => Some(Capacity::Reserved(id)),
        ("capacity-block", Some(id)) => Some(Capacity::Block(id)),
        ("reserved" | "capacity-block", None) => {
            judge.say(at, format!("is missing: `capacity: {way}` is nothing without it"));
            None
        }
        (way, reservation) => {
            if reservation.is_some() {
                let ways = "`capacity: reserved` or `capacity: capacity-block`";
                judge.say(at, format!("goes with {ways} alone"));
            }
            Some(if way == "spot" { Capacity::Spot } else { Capacity::OnDemand })
        }
    }
}

fn placement(
    judge: &mut Judge,
    path: &str,
    raw: &RawPool,
    capacity: Option<&Capacity>,
) -> Placement {
    let ours = raw.placement.as_deref() == Some("cluster");
    let zones = raw.zones.as_ref().map_or(0, Vec::len);
    if ours && zones != 1 {
        let message = "needs one zone in `zones`: such a group lies in one";
        judge.say(format!("{path}.placement"), message);
    }
    let Some(name) = &raw.placement_group else {
        if ours && capacity.is_some_and(|capacity| capacity.reservation().is_some()) {
            let message = "a reservation takes no instances of a new placement group: name the one \
                           that it was made in, if any, with `placementGroup`";
            judge.say(format!("{path}.placement"), message);
        }
        return if ours { Placement::Cluster } else { Placement::Anywhere };
    };
    if ours {
        let message = "does not go with `placement: cluster`, which makes a group";
        judge.say(format!("{path}.placementGroup"), message);
    }
    if name.is_empty() || name.len() > 255 || !name.is_ascii() {
        judge.say(format!("{path}.placementGroup"), "must be 1 to 255 ASCII characters");
    }
    Placement::Existing(name.clone())
}

fn zones(judge: &mut Judge, path: &str, typed: &[Option<String>]) -> Vec<String> {
    let mut zones = Vec::new();
    for (index, zone) in typed.iter().enumerate() {
        let Some(zone) = zone else { continue };
        let named =
            zone.split('-').count() >= 3 && zone.ends_with(|c: char| c.is_ascii_lowercase());
        let at = format!("{path}.zones[{index}]");
        if !is_zone_id(zone) && !named {
            judge.say(at, format!("`{zone}` is not of the form `use1-az4` or `us-east-1a`"));
        } else if zones.contains(zone) {
            judge.say(at, format!("`{zone}` is there twice"));
        }
        zones.push(zone.clone());
    }
    zones
}

fn class_of(word: Option<&str>) -> Option<PoolClass> {
    Some(match word? {
        "system" => PoolClass::System,
        "infra" => PoolClass::Infra,
        "apps" => PoolClass::Apps,
        "gpu" => PoolClass::Gpu,
        _ => return None,
    })
}

fn check_pool_name(judge: &mut Judge, path: &str, name: &str) {
    let path = format!("{path}.name");
    check_name(judge, &path, name, POOL_NAME_MAX);
    // `/rollcall-control/<cluster>/lease/…` holds the fleet's lease.
    if name == "lease" {
        judge.say(path, "`lease` is reserved");
    }
}

fn check_instance_type(judge: &mut Judge, path: &str, kind: &str) {
    let legal = |part: &str| {
        !part.is_empty()
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    };
    let parts: Vec<&str> = kind.split('.').collect();
    if parts.len() != 2 || !parts.iter().all(|part| legal(part)) {
        judge.say(path, format!("`{kind}` is not of the form `p5.48xlarge`"));
    }
}

fn resolve_size(judge: &mut Judge, path: &str, raw: RawSize) -> Option<Size> {
    let desired = raw.desired?;
    let (min, max) = (raw.min.unwrap_or(desired), raw.max.unwrap_or(desired));
    if min > desired {
        judge.say(format!("{path}.size.min"), format!("{min} is more than `desired`, {desired}"));
    }
    if max < desired {
        judge.say(format!("{path}.size.max"), format!("{max} is less than `desired`, {desired}"));
    }
    // A managed group's maxSize is at least 1.
    if max == 0 {
        judge.say(format!("{path}.size.max"), "must be at least 1");
    }
    if max > SIZE_MAX {
        judge.say(format!("{path}.size.max"), format!("{max} is more than EKS takes, {SIZE_MAX}"));
    }
    let fit = |n: u64| u32::try_from(n).ok();
    Some(Size { min: fit(min)?, desired: fit(desired)?, max: fit(max)? })
}

fn volume(
    judge: &mut Judge,
    path: &str,
    typed: Option<u64>,
    class: Option<PoolClass>,
) -> Option<u32> {
    let default = if class == Some(PoolClass::Gpu) { 200 } else { 50 };
    let size = typed.unwrap_or(default);
    if !(VOLUME_MIN..=VOLUME_MAX).contains(&size) {
        judge.say(
            format!("{path}.volumeGiB"),
            format!("must be {VOLUME_MIN} to {VOLUME_MAX}, is {size}"),
        );
    }
    u32::try_from(size).ok()
}

/// The longest name of a channel: several of them are one tag's value.
const CHANNEL_NAME_MAX: usize = 32;

/// What is booted; `path` is that of the mapping that has the field.
pub(crate) fn image_source(judge: &mut Judge, path: &str, raw: &RawImage) -> Option<ImageSource> {
    let at = if path.is_empty() { "image".to_owned() } else { format!("{path}.image") };
    match raw {
        RawImage::Id(id) => {
            if !is_image_id(id) {
                judge.say(at, format!("`{id}` is not of the form `ami-0123456789abcdef0`"));
            }
            Some(ImageSource::Named(id.clone()))
        }
        RawImage::Chosen { channel } => {
            let channel = channel.as_ref()?;
            check_name(judge, &format!("{at}.channel"), channel, CHANNEL_NAME_MAX);
            Some(ImageSource::Channel(channel.clone()))
        }
    }
}

/// Whether this is the id of an image.
pub(crate) fn is_image_id(text: &str) -> bool {
    let id = text.strip_prefix("ami-").unwrap_or_default();
    id.len() >= 8 && id.chars().all(|c| c.is_ascii_hexdigit())
}

/// kubelet refuses to start with most `kubernetes.io` labels (NodeRestriction): the node would
/// never join.
fn check_labels(judge: &mut Judge, path: &str, labels: Option<&BTreeMap<String, String>>) {
    const OWN: [&str; 5] =
        [LABEL_NODE_TYPE, LABEL_POOL, LABEL_DEVICE_PLUGIN, "nvidia.com/gpu", "eks.amazonaws.com"];
    for (key, value) in labels.into_iter().flatten() {
        let at = format!("{path}.labels[\"{key}\"]");
        let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
        let kubernetes = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
        if OWN.contains(&key.as_str()) || prefix == "eks.amazonaws.com" {
            judge.say(&at, "is set by `control`");
        } else if (kubernetes("kubernetes.io") || kubernetes("k8s.io"))
            && !["kubelet.kubernetes.io", "node.kubernetes.io"].contains(&prefix)
        {
            judge.say(&at, "kubelet may not give itself this label, and would not start");
        }
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        if !is_label_word(name) || name.is_empty() {
            judge.say(&at, "the key must be 1 to 63 letters, digits and `-_.`");
        }
        if !is_label_word(value) {
            judge.say(&at, "the value must be at most 63 letters, digits and `-_.`");
        }
    }
}

fn is_label_word(word: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| c.is_ascii_alphanumeric();
    word.len() <= 63
        && word.chars().all(inner)
        && word.chars().next().is_none_or(edge)
        && word.chars().next_back().is_none_or(edge)
}

fn taints(judge: &mut Judge, path: &str, raw: &[RawTaint]) -> Vec<Taint> {
    let mut taints = Vec::new();
    for (index, taint) in raw.iter().enumerate() {
        let at = format!("{path}.taints[{index}]");
        let (Some(key), Some(effect)) = (&taint.key, &taint.effect) else { continue };
        let value = taint.value.clone().unwrap_or_default();
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        if name.is_empty() || !is_label_word(name) {
            judge.say(format!("{at}.key"), "must be 1 to 63 letters, digits and `-_.`");
        }
        if !is_label_word(&value) {
            judge.say(format!("{at}.value"), "must be at most 63 letters, digits and `-_.`");
        }
        taints.push(Taint { key: key.clone(), value, effect: effect.clone() });
    }
    taints
}

/// CoreDNS and the device plugin's controller tolerate no taints of ours.
fn check_system(judge: &mut Judge, path: &str, class: Option<PoolClass>, raw: &RawPool) {
    if class != Some(PoolClass::System) {
        return;
    }
    if raw.taints.as_ref().is_some_and(|taints| !taints.is_empty()) {
        judge.say(format!("{path}.taints"), "a system pool takes no taints: CoreDNS runs there");
    }
    if raw.size.and_then(|size| size.desired) == Some(0) {
        judge.say(format!("{path}.size.desired"), "a system pool needs at least one node");
    }
}

fn device_plugin(
    judge: &mut Judge,
    path: &str,
    class: Option<PoolClass>,
    typed: Option<&str>,
) -> DevicePlugin {
    if typed.is_some() && class.is_some_and(|class| class != PoolClass::Gpu) {
        judge.say(format!("{path}.devicePlugin"), "goes with pools of class `gpu` alone");
    }
    match (typed, class) {
        (Some("dra"), _) => DevicePlugin::Dra,
        (Some("external"), _) => DevicePlugin::External,
        (Some("none"), _) => DevicePlugin::None,
        (None, class) if class != Some(PoolClass::Gpu) => DevicePlugin::None,
        _ => DevicePlugin::Install,
    }
}

fn quorum(judge: &mut Judge, path: &str, typed: Option<u64>, size: Size) -> u32 {
    let quorum = typed.unwrap_or(u64::from(size.desired));
    if quorum > u64::from(size.desired) {
        judge.say(
            format!("{path}.quorum"),
            format!("{quorum} is more than `size.desired`, {}", size.desired),
        );
    }
    u32::try_from(quorum).unwrap_or(size.desired)
}
