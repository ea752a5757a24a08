//! From what was typed to what is meant: defaults, and every rule that a value's shape alone does
//! not tell. Pure; all problems at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::network::{self, Nat, NetworkSpec};
use crate::config::pool;
use crate::config::problem::Problem;
use crate::config::raw::{RawAgent, RawFleet, RawRoles};
use crate::config::spec::{
    AgentSource, DevicePlugin, ExistingRoles, FleetSpec, PoolClass, PoolSpec,
};

/// The only version of the format.
pub const API_VERSION: &str = "rollcall.dev/v1alpha1";
/// The only kind.
pub const KIND: &str = "Fleet";
/// The longest fleet name: what leaves room for pool names in every AWS name made from it.
pub const FLEET_NAME_MAX: usize = 32;

/// Collects problems under their paths.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) problems: Vec<Problem>,
}

impl Judge {
    pub(crate) fn say(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }
}

/// What is meant, or none when anything of it cannot be.
pub fn resolve(raw: &RawFleet, problems: &mut Vec<Problem>) -> Option<FleetSpec> {
    let mut judge = Judge::default();
    constant(&mut judge, "apiVersion", raw.api_version.as_deref(), API_VERSION);
    constant(&mut judge, "kind", raw.kind.as_deref(), KIND);
    if let Some(name) = &raw.name {
        check_name(&mut judge, "name", name, FLEET_NAME_MAX);
    }
    if let Some(region) = &raw.region {
        check_region(&mut judge, region);
    }
    if let Some(version) = &raw.kubernetes {
        check_version(&mut judge, version);
    }
    let agent = raw.agent.as_ref().and_then(|raw| agent(&mut judge, raw));
    let network = network::resolve(&mut judge, &raw.network.clone().unwrap_or_default());
    let roles = roles(&mut judge, raw.roles.clone().unwrap_or_default());
    let tags = raw.tags.clone().unwrap_or_default();
    check_tags(&mut judge, "tags", &tags);
    if let Some(bucket) = &raw.evidence_bucket {
        check_bucket(&mut judge, bucket);
    }
    let pools = pools(&mut judge, raw);
    check_plugin_image(&mut judge, raw, network.as_ref(), pools.as_deref());
    problems.append(&mut judge.problems);
    Some(FleetSpec {
        name: raw.name.clone()?,
        region: raw.region.clone(),
        kubernetes: raw.kubernetes.clone()?,
        agent: agent?,
        network: network?,
        roles,
        device_plugin_image: raw.device_plugin_image.clone(),
        evidence_bucket: raw.evidence_bucket.clone(),
        tags,
        pools: pools?,
    })
}

/// S3's rules for a bucket's name (`docs.aws.amazon.com/AmazonS3`, "Bucket naming rules").
fn check_bucket(judge: &mut Judge, name: &str) {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let legal = (3..=63).contains(&name.len())
        && name.chars().all(|c| edge(c) || c == '-' || c == '.')
        && name.starts_with(edge)
        && name.ends_with(edge);
    if !legal {
        let rule = "must be 3 to 63 lower-case letters, digits, hyphens and dots";
        judge.say("evidenceBucket", rule);
    }
}

pub(crate) fn constant(judge: &mut Judge, path: &str, value: Option<&str>, wanted: &str) {
    if let Some(value) = value.filter(|value| *value != wanted) {
        judge.say(path, format!("is `{value}`, must be `{wanted}`"));
    }
}

/// Names become parts of AWS names, tags and parameter paths: lower-case letters, digits, hyphens.
pub(crate) fn check_name(judge: &mut Judge, path: &str, name: &str, max: usize) {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || name.len() > max {
        judge.say(path, format!("must have 1 to {max} characters, has {}", name.chars().count()));
    } else if !name.chars().all(legal)
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
        || name.ends_with('-')
    {
        let rule = "must be lower-case letters, digits and hyphens, and begin with a letter";
        judge.say(path, format!("`{name}` {rule}"));
    }
}

fn check_region(judge: &mut Judge, region: &str) {
    let parts: Vec<&str> = region.split('-').collect();
    let numbered =
        parts.last().is_some_and(|n| !n.is_empty() && n.chars().all(|c| c.is_ascii_digit()));
    if parts.len() < 3
        || !numbered
        || !region.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        judge.say("region", format!("`{region}` is not of the form `us-east-1`"));
    } else if crate::aws::partition::of_region(region).is_none() {
        judge.say("region", format!("`{region}` lies in no AWS partition known here"));
    }
}

/// AL2023 and nodeadm exist from 1.28 on; the agent relies on what nodeadm does since.
pub(crate) fn check_version(judge: &mut Judge, version: &str) {
    let minor = version.strip_prefix("1.").and_then(|minor| minor.parse::<u32>().ok());
    match minor {
        Some(28..) => {}
        Some(_) => judge.say("kubernetes", format!("`{version}` is too old: 1.28 or later")),
        None => judge.say("kubernetes", format!("`{version}` is not of the form `1.34`")),
    }
}

fn agent(judge: &mut Judge, raw: &RawAgent) -> Option<AgentSource> {
    let ways = [raw.baked == Some(true), raw.publish == Some(true), raw.url.is_some()];
    match ways {
        [true, false, false] => no_stray_checksum(judge, raw, AgentSource::Baked),
        [false, true, false] => no_stray_checksum(judge, raw, AgentSource::Published),
        [false, false, true] => fetched(judge, raw),
        _ => {
            judge.say(
                "agent",
                "must say one of `baked: true`, `publish: true`, or `url` with `sha256`",
            );
            None
        }
    }
}

fn no_stray_checksum(
    judge: &mut Judge,
    raw: &RawAgent,
    source: AgentSource,
) -> Option<AgentSource> {
    if raw.sha256.is_some() {
        judge.say("agent.sha256", "goes with `agent.url` alone");
        return None;
    }
    Some(source)
}

fn fetched(judge: &mut Judge, raw: &RawAgent) -> Option<AgentSource> {
    let url = raw.url.clone()?;
    // Plain http would put an unauthenticated program on every node; the checksum alone does not
    // help whoever can also change the fleet file's source.
    if !["https://", "s3://"].iter().any(|scheme| url.starts_with(scheme)) {
        judge.say("agent.url", format!("`{url}` must begin with `https://` or `s3://`"));
    }
    if !url.chars().all(|c| c.is_ascii_graphic() && !"'\"\\`$".contains(c)) {
        judge.say("agent.url", "holds characters that a URL must escape");
    }
    let Some(sha256) = raw.sha256.clone() else {
        judge.say("agent.sha256", "is missing: `agent.url` is nothing without its checksum");
        return None;
    };
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if sha256.len() != 64 || !sha256.chars().all(hex) {
        judge.say("agent.sha256", "must be 64 lower-case hexadecimal digits");
    }
    Some(AgentSource::Fetched { url, sha256 })
}

/// A role as IAM names it: with its partition and account, so that nobody's is meant by chance.
fn roles(judge: &mut Judge, raw: RawRoles) -> ExistingRoles {
    let named =
        [("cluster", &raw.cluster), ("systemNode", &raw.system_node), ("gpuNode", &raw.gpu_node)];
    for (field, arn) in named {
        let Some(arn) = arn else { continue };
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let legal = matches!(parts[..], ["arn", _, "iam", "", account, role]
            if account.len() == 12
                && account.chars().all(|c| c.is_ascii_digit())
                && role.strip_prefix("role/").is_some_and(|name| !name.is_empty()));
        if !legal {
            let form = "is not of the form `arn:aws:iam::111122223333:role/name`";
            judge.say(format!("roles.{field}"), format!("`{arn}` {form}"));
        }
    }
    ExistingRoles { cluster: raw.cluster, system_node: raw.system_node, gpu_node: raw.gpu_node }
}

/// NVIDIA's image lies in a registry that a network without a way out does not reach.
fn check_plugin_image(
    judge: &mut Judge,
    raw: &RawFleet,
    network: Option<&NetworkSpec>,
    pools: Option<&[PoolSpec]>,
) {
    let closed = matches!(network, Some(NetworkSpec::Own(own)) if own.nat == Nat::None);
    let installs = |pool: &PoolSpec| pool.device_plugin == DevicePlugin::Install;
    match &raw.device_plugin_image {
        Some(image) if image.is_empty() || !image.chars().all(|c| c.is_ascii_graphic()) => {
            judge.say("devicePluginImage", "must be an image's name, without spaces");
        }
        None if closed && pools.is_some_and(|pools| pools.iter().any(installs)) => {
            let message =
                "is missing: with `nat: none` no node reaches nvcr.io; name a copy in ECR";
            judge.say("devicePluginImage", message);
        }
        Some(_) | None => {}
    }
}

/// AWS's limits for tags, and what the products keep for themselves.
pub(crate) fn check_tags(judge: &mut Judge, path: &str, tags: &BTreeMap<String, String>) {
    if tags.len() > 40 {
        judge.say(path, format!("has {} tags; AWS takes 50, and some are ours: 40", tags.len()));
    }
    for (key, value) in tags {
        let at = format!("{path}.{key}");
        let reserved = ["aws:", "rollcall:", "eks:", "kubernetes.io/"];
        if let Some(prefix) = reserved.iter().find(|prefix| key.starts_with(**prefix)) {
            judge.say(&at, format!("`{prefix}` is reserved"));
        } else if key == "Name" {
            judge.say(&at, "is set by `control`");
        }
        let legal = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c);
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(legal) {
            judge.say(&at, "the key must be 1 to 128 letters, digits, spaces and `_.:/=+-@`");
        }
        if value.chars().count() > 256 || !value.chars().all(legal) {
            judge.say(&at, "the value must be at most 256 letters, digits, spaces and `_.:/=+-@`");
        }
    }
}

fn pools(judge: &mut Judge, raw: &RawFleet) -> Option<Vec<PoolSpec>> {
    let (raw, of_fleet) = (raw.pools.as_ref()?, raw.image.as_ref());
    let mut names = BTreeSet::new();
    for (index, pool) in raw.iter().enumerate() {
        let Some(name) = &pool.name else { continue };
        if !names.insert(name.clone()) {
            judge.say(format!("pools[{index}].name"), format!("`{name}` is taken by another pool"));
        }
    }
    let image = of_fleet.and_then(|image| pool::image_source(judge, "", image));
    let unclear = raw.iter().any(|pool| pool.class.is_none());
    if !unclear && !raw.iter().any(|pool| pool.class.as_deref() == Some(PoolClass::System.label()))
    {
        judge.say(
            "pools",
            "needs one pool of class `system`: CoreDNS cannot run on tainted GPU nodes",
        );
    }
    let pools: Vec<_> = raw
        .iter()
        .enumerate()
        .map(|(index, raw)| pool::resolve(judge, &format!("pools[{index}]"), raw, image.as_ref()))
        .collect();
    pools.into_iter().collect()
}
