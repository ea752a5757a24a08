//! Says of each value in a pool's user data where it comes from. Reads the text that nodes get, so that
//! nothing is explained that is not in it.

use contract::names::{AGENT_CONFIG_PATH, MIME_CLOUD_CONFIG, MIME_NODE_CONFIG, MIME_SHELL_SCRIPT};
use serde_yaml::Value;

use super::LIMIT;
use super::mime::BOUNDARY;

/// One part, explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Its media type.
    pub media_type: String,
    /// What it does, and who reads it.
    pub about: &'static str,
    /// Its values: path, value, where that comes from.
    pub values: Vec<(String, String, &'static str)>,
}

/// Where the values of the agent's configuration come from.
const AGENT: &[(&str, &str)] = &[
    ("version", "the form of this document"),
    ("cluster", "the fleet's name"),
    ("poolSize", "the pool's size.desired: how reports are spread; growing rolls no node"),
    ("pool", "the pool's name"),
    ("gpus", "EC2: what the instance type has"),
    ("migDevices", "the pool's gpu.migDevices"),
    ("minDriver", "the pool's gpu.minDriver"),
    ("cudaCanary", "the pool's gpu.cudaCanary"),
    ("peermem", "the pool's gpu.peermem"),
    ("xids", "the pool's gpu.xids"),
    ("gpuReset", "the pool's gpu.reset"),
    ("showReasons", "the pool's gpu.showReasons"),
    ("enforceReasons", "the pool's enforceReasons"),
    ("onAgentFault", "the pool's onAgentFault"),
    ("efaDevices", "EC2: what the instance type has, where the pool asks for EFA"),
    ("gpuOffer", "the pool's devicePlugin"),
    ("cni", "the vpc-cni add-on"),
    ("install", "the file's `agent`: where the tarball is, and what it must be"),
    ("deadlines", "the pool's deadlines"),
    ("enforce", "the pool's enforce"),
    ("repair", "the pool's repair"),
    ("evidenceBucket", "the file's evidenceBucket"),
    ("capacityEnds", "the capacity block's end"),
];

/// Where the values of the NodeConfig come from.
const NODE: &[(&str, &str)] = &[
    ("apiVersion", "nodeadm's"),
    ("kind", "nodeadm's"),
    ("spec.cluster.name", "the fleet's name"),
    ("spec.cluster.apiServerEndpoint", "EKS: DescribeCluster"),
    ("spec.cluster.certificateAuthority", "EKS: DescribeCluster"),
    ("spec.cluster.cidr", "EKS: DescribeCluster, the services' addresses"),
    ("spec.instance.localStorage", "EC2: the instance type has NVMe disks"),
    ("spec.kubelet.flags", "labels and taints: of the class, the pool, and what EKS would add"),
];

/// The parts of a rendered text, in their order.
#[must_use]
pub fn explain(text: &str) -> Vec<Explained> {
    let boundary = format!("--{BOUNDARY}");
    let parts = text.split(&boundary).skip(1);
    parts.filter_map(|part| part.split_once("\n\n")).map(part).collect()
}

fn part((head, body): (&str, &str)) -> Explained {
    let media_type = head.lines().find_map(|line| line.strip_prefix("Content-Type: "));
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let (about, values) = match media_type {
        MIME_CLOUD_CONFIG => (
            "cloud-init writes the agent's configuration; the agent itself reads it here, before that",
            agent(body),
        ),
        MIME_SHELL_SCRIPT => (
            "cloud-init fetches the agent, checks its SHA-256, installs it, and holds nodeadm-run back",
            script(body),
        ),
        MIME_NODE_CONFIG => (
            "nodeadm reads the whole NodeConfig: EKS merges nothing, because the template names its image",
            leaves(&parsed(body), NODE),
        ),
        _ => ("", Vec::new()),
    };
    Explained { media_type: media_type.to_owned(), about, values }
}

fn parsed(body: &str) -> Value {
    serde_yaml::from_str(body).unwrap_or(Value::Null)
}

fn agent(body: &str) -> Vec<(String, String, &'static str)> {
    let cloud = parsed(body);
    let files = cloud["write_files"].as_sequence().into_iter().flatten();
    let ours = files.into_iter().find(|file| file["path"] == AGENT_CONFIG_PATH);
    let content = ours.and_then(|file| file["content"].as_str()).unwrap_or_default();
    leaves(&parsed(content), AGENT)
}

/// The script's own variables: the rest of it is the same in every fleet.
fn script(body: &str) -> Vec<(String, String, &'static str)> {
    let variables = body.lines().filter_map(|line| {
        let (name, value) = line.split_once("='")?;
        let source = match name {
            "url" | "sha256" => "the file's `agent`",
            "region" => "the fleet's region",
            _ => return None,
        };
        Some((name.to_owned(), value.strip_suffix('\'')?.to_owned(), source))
    });
    variables.collect()
}

fn leaves(
    document: &Value,
    sources: &'static [(&'static str, &'static str)],
) -> Vec<(String, String, &'static str)> {
    let mut found = Vec::new();
    walk(document, String::new(), &mut found);
    let source = |path: &str| {
        let of = sources.iter().find(|(prefix, _)| {
            let rest = path.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        });
        of.map_or("", |(_, source)| *source)
    };
    found.into_iter().map(|(path, value)| (path.clone(), value, source(&path))).collect()
}

fn walk(value: &Value, path: String, found: &mut Vec<(String, String)>) {
    match value {
        Value::Mapping(mapping) => {
            for (key, value) in mapping {
                let number = key.as_u64().map(|number| number.to_string());
                let key = key.as_str().or(number.as_deref()).unwrap_or_default();
                let dot = if path.is_empty() { "" } else { "." };
                walk(value, format!("{path}{dot}{key}"), found);
            }
        }
        Value::Sequence(items) => {
            for (index, value) in items.iter().enumerate() {
                walk(value, format!("{path}[{index}]"), found);
            }
        }
        Value::String(text) => found.push((path, text.clone())),
        other => found.push((path, serde_yaml::to_string(other).unwrap_or_default().trim().into())),
    }
}

/// `2314 of 16384 bytes`.
#[must_use]
pub fn size(text: &str) -> String {
    format!("{} of {LIMIT} bytes", text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_every_part_says_where_it_comes_from() {
        for golden in [include_str!("golden/installed.txt"), include_str!("golden/baked.txt")] {
            let parts = explain(golden);
            let types: Vec<_> = parts.iter().map(|part| part.media_type.as_str()).collect();
            assert_eq!(types.first().copied(), Some(MIME_CLOUD_CONFIG));
            assert_eq!(types.last().copied(), Some(MIME_NODE_CONFIG));
            for part in &parts {
                assert!(!part.about.is_empty() && !part.values.is_empty(), "{part:#?}");
                for (path, value, source) in &part.values {
                    assert!(!source.is_empty(), "{path} = {value} comes from nowhere");
                }
            }
        }
        let parts = explain(include_str!("golden/installed.txt"));
        let has = |part: usize, path: &str, value: &str| {
            parts[part].values.iter().any(|(p, v, _)| p == path && v == value)
        };
        assert!(has(0, "gpus.count", "8") && has(1, "region", "us-east-1"), "{parts:#?}");
        assert!(has(
            2,
            "spec.kubelet.flags[1]",
            "--register-with-taints=nvidia.com/gpu=true:NoSchedule"
        ));
    }
}
