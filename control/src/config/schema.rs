//! The fleet file's shape, declared once: which fields there are, what they hold, which must be
//! there. [`check`] walks a parsed document along it and collects every problem; what it returns
//! holds only values of the right shape, so that the rest can still be judged.

use serde_yaml::{Mapping, Value};

use crate::config::problem::Problem;

/// What a value must look like.
#[derive(Debug)]
pub enum Shape {
    /// A mapping with these fields and no others.
    Fields(&'static [Field]),
    /// A list of such values.
    List(&'static Shape),
    /// A mapping from any text to such values.
    Map(&'static Shape),
    /// A mapping from whole numbers to such values.
    Numbered(&'static Shape),
    /// Text.
    Text,
    /// A whole number, not negative.
    Count,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Text, or a mapping with these fields and no others.
    TextOr(&'static [Field]),
}

/// One field of a mapping.
#[derive(Debug)]
pub struct Field {
    /// Name as typed.
    pub name: &'static str,
    /// What it is for, one sentence without a full stop.
    pub about: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

pub(crate) const fn required(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, about, shape, required: true }
}

pub(crate) const fn optional(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, about, shape, required: false }
}

/// The fleet file.
pub const FLEET: Shape = Shape::Fields(&[
    required("apiVersion", Shape::Text, "Version of the format: `rollcall.dev/v1alpha1`"),
    required("kind", Shape::Text, "Always `Fleet`"),
    required(
        "name",
        Shape::Text,
        "Name of the fleet and of its cluster: lower-case letters, digits, hyphens, 32 at most",
    ),
    optional("region", Shape::Text, "AWS region; without it the one of the environment or profile"),
    required("kubernetes", Shape::Text, "Kubernetes minor version of the cluster, `1.34`"),
    required(
        "agent",
        AGENT,
        "How the agent comes onto the nodes: one of `baked`, `publish`, or `url` with `sha256`",
    ),
    optional("network", NETWORK, "The VPC that the fleet gets, or the existing one that it uses"),
    optional("roles", ROLES, "IAM roles that are there already; those not named are made"),
    optional(
        "devicePluginImage",
        Shape::Text,
        "Image of NVIDIA's device plugin, for networks that do not reach nvcr.io",
    ),
    optional("evidenceBucket", Shape::Text, "Bucket for the evidence of failed joins"),
    optional(
        "image",
        IMAGE,
        "What pools boot that name no image: an AMI id, or `channel`; without it the EKS image that \
         AWS recommends",
    ),
    optional("tags", TEXTS, "Tags on everything that can carry one"),
    required("pools", Shape::List(&POOL), "The pools of nodes; one at least is of class `system`"),
]);

const TEXTS: Shape = Shape::Map(&Shape::Text);

const AGENT: Shape = Shape::Fields(&[
    optional("baked", Shape::Switch, "The image has the agent"),
    optional("publish", Shape::Switch, "`up` uploads the agent to a private bucket of the fleet"),
    optional("url", Shape::Text, "Where the tarball is: `https://` or `s3://`"),
    optional("sha256", Shape::Text, "Its SHA-256, 64 lower-case hexadecimal digits"),
]);

const IMAGE: Shape = Shape::TextOr(&[required(
    "channel",
    Shape::Text,
    "The image that `control ami promote` put into this channel, for the pool's architecture and the \
     cluster's Kubernetes version",
)]);

const NETWORK: Shape = Shape::Fields(&[
    optional(
        "cidr",
        Shape::Text,
        "Addresses of the VPC, /16 to /20, private; 10.0.0.0/16 by default",
    ),
    optional("zones", Shape::Count, "Availability zones, 2 to 6; 2 by default"),
    optional(
        "zoneIds",
        Shape::List(&Shape::Text),
        "These zones, by id (`use1-az4`): an id means the same place in every account",
    ),
    optional(
        "nat",
        Shape::Word(&["one", "per-zone", "none"]),
        "NAT gateways: `one` for all zones, the default, `per-zone`, or `none`, a network without any \
         way to the internet",
    ),
    optional(
        "endpoints",
        Shape::Word(&["none", "s3", "all"]),
        "VPC endpoints: `none`, `s3` (the free gateway), or `all` that a node needs without internet; \
         `all` with `nat: none`, else `none`",
    ),
    optional("existing", EXISTING, "A VPC that is there already, which `down` leaves alone"),
]);

const EXISTING: Shape = Shape::Fields(&[
    required("vpc", Shape::Text, "Id of the VPC"),
    required(
        "privateSubnets",
        Shape::List(&Shape::Text),
        "Ids of the nodes' subnets, in two zones at least",
    ),
    optional(
        "publicSubnets",
        Shape::List(&Shape::Text),
        "Ids of the subnets of load balancers that face the internet",
    ),
]);

const ROLES: Shape = Shape::Fields(&[
    optional("cluster", Shape::Text, "ARN of the control plane's role"),
    optional("systemNode", Shape::Text, "ARN of the system pools' role"),
    optional("gpuNode", Shape::Text, "ARN of the other pools' role"),
]);

const POOL: Shape = Shape::Fields(&[
    required(
        "name",
        Shape::Text,
        "Name of the pool: lower-case letters, digits, hyphens, 24 at most",
    ),
    required(
        "class",
        Shape::Word(&["system", "infra", "apps", "gpu"]),
        "What the pool is for; decides labels, taints and layer",
    ),
    required("instanceType", Shape::Text, "EC2 instance type, `p5.48xlarge`"),
    required("size", SIZE, "How many nodes"),
    optional(
        "volumeGiB",
        Shape::Count,
        "Root volume, 20 to 16384 GiB; 200 for class `gpu`, else 50",
    ),
    optional(
        "image",
        IMAGE,
        "AMI id, or `channel`; without it the fleet's, else the EKS image that AWS recommends",
    ),
    optional(
        "devicePlugin",
        Shape::Word(&["install", "dra", "external", "none"]),
        "How GPUs are offered to pods; `install` by default",
    ),
    optional("labels", TEXTS, "Node labels beside those of the class"),
    optional("taints", Shape::List(&TAINT), "Node taints beside those of the class"),
    optional("tags", TEXTS, "Tags on what belongs to the pool"),
    optional(
        "capacity",
        Shape::Word(&["on-demand", "spot", "reserved", "capacity-block"]),
        "How the instances are paid; `on-demand` by default; `reserved` and `capacity-block` need \
         `reservation`",
    ),
    optional("reservation", Shape::Text, "Id of the capacity reservation or block, `cr-…`"),
    optional(
        "zones",
        Shape::List(&Shape::Text),
        "The only zones of its nodes, by id or name; all of the fleet's by default, a reservation's \
         own where there is one",
    ),
    optional(
        "efa",
        Shape::Switch,
        "Whether its nodes have an EFA interface on every network card; `false` by default",
    ),
    optional(
        "placement",
        Shape::Word(&["none", "cluster"]),
        "Whether its nodes stand close together, in a placement group of the fleet's; `none` by \
         default",
    ),
    optional("placementGroup", Shape::Text, "Name of an existing placement group"),
    optional(
        "replaceFailed",
        Shape::Count,
        "Failed nodes of the pool that one `up` may replace, their evidence kept first; 0 when absent",
    ),
    optional(
        "quorum",
        Shape::Count,
        "Nodes that must be ready for the gate to open; all by default",
    ),
    optional(
        "repair",
        Shape::Word(&["off", "observe", "on"]),
        "Whether a node repairs its driver and GPUs before it gives up; `observe` by default",
    ),
    optional(
        "enforce",
        ENFORCE,
        "Whether a closed gate keeps a node out (`gate`, the default) or only says so (`observe`)",
    ),
    optional(
        "enforceReasons",
        Shape::Map(&ENFORCE),
        "Exceptions to `enforce`, by reason: `EccUncorrectable: observe`",
    ),
    optional(
        "onAgentFault",
        Shape::Word(&["open", "closed"]),
        "Whether a node whose agent cannot run joins without it; `open` by default",
    ),
    optional("gpu", GPU, "What its GPUs must be, and what follows where they are not"),
]);

const ENFORCE: Shape = Shape::Word(&["gate", "observe"]);

const GPU: Shape = Shape::Fields(&[
    optional(
        "minDriver",
        Shape::Text,
        "The least driver, `580` or `580.95.05`: an older one is said and keeps nobody out",
    ),
    optional(
        "cudaCanary",
        Shape::Switch,
        "Whether each GPU must fill and copy memory through CUDA before its node joins; `false` by default",
    ),
    optional(
        "migDevices",
        Shape::Count,
        "MIG devices that each GPU must have, 0 to 7; 0: MIG must be off; without it any division will do",
    ),
    optional(
        "peermem",
        Shape::Switch,
        "Whether programs reach other nodes' GPUs through nvidia-peermem, which EFA does not need; `false` \
         by default",
    ),
    optional(
        "reset",
        Shape::Word(&["off", "on"]),
        "Whether a GPU that asks for a reset after the join gets one, once nothing runs there; `off` by default",
    ),
    optional(
        "xids",
        Shape::Numbered(&XID),
        "What single XIDs mean, where our own table is not followed",
    ),
    optional(
        "showReasons",
        Shape::Map(&Shape::Word(&["condition", "event"])),
        "Where single reasons are shown after the join: `ThermalSlowdown: condition`",
    ),
]);

const XID: Shape = Shape::Fields(&[
    required(
        "class",
        Shape::Word(&["info", "event", "app", "link", "reset", "reboot", "replace"]),
        "What follows: nothing, an event, an event with its process, or a condition that asks for a repair",
    ),
    optional("threshold", Shape::Count, "How often it must come on one GPU for that; 1 by default"),
    optional("windowSeconds", Shape::Count, "Within how many seconds; within the boot by default"),
]);

const SIZE: Shape = Shape::Fields(&[
    optional("min", Shape::Count, "At least; `desired` by default"),
    required("desired", Shape::Count, "As many as `up` asks for"),
    optional("max", Shape::Count, "At most; `desired` by default"),
]);

const TAINT: Shape = Shape::Fields(&[
    required("key", Shape::Text, "Key of the taint"),
    optional("value", Shape::Text, "Value of the taint; empty by default"),
    required(
        "effect",
        Shape::Word(&["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        "What becomes of pods that do not tolerate it",
    ),
]);

/// Collects every problem of `value` and returns what of it has the right shape.
pub fn check(
    value: Value,
    shape: &Shape,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Option<Value> {
    match (shape, value) {
        (Shape::Fields(fields), Value::Mapping(map)) => {
            Some(Value::Mapping(check_fields(map, fields, path, problems)))
        }
        (Shape::TextOr(fields), Value::Mapping(map)) => {
            Some(Value::Mapping(check_fields(map, fields, path, problems)))
        }
        (Shape::List(item), Value::Sequence(items)) => {
            Some(check_list(items, item, path, problems))
        }
        (Shape::Map(item) | Shape::Numbered(item), Value::Mapping(map)) => {
            let numbered = matches!(shape, Shape::Numbered(_));
            Some(check_map(map, item, numbered, path, problems))
        }
        (Shape::Text | Shape::TextOr(_), Value::String(text)) => Some(Value::String(text)),
        // A number with a point has lost its zeros by now: what was typed is not known any more.
        (Shape::Text, value) if value.is_f64() => {
            let message = format!("must be text: put it in quotes (YAML reads {})", scalar(&value));
            problems.push(Problem::new(path, message));
            None
        }
        (Shape::Text, value @ (Value::Number(_) | Value::Bool(_))) => {
            problems.push(Problem::new(path, format!("must be text: write {}", quoted(&value))));
            None
        }
        (Shape::Count, value) if value.is_u64() => Some(value),
        (Shape::Switch, value @ Value::Bool(_)) => Some(value),
        (Shape::Word(words), Value::String(word)) if words.contains(&word.as_str()) => {
            Some(Value::String(word))
        }
        (Shape::Word(words), Value::String(word)) => {
            let meant = nearest(&word, words.iter().copied());
            problems.push(Problem::new(
                path,
                format!("`{word}` is none of {}{}", list(words), did_you_mean(meant)),
            ));
            None
        }
        (shape, value) => {
            let message = format!("must be {}, is {}", expected(shape), kind(&value));
            problems.push(Problem::new(path, message));
            None
        }
    }
}

fn check_fields(
    map: Mapping,
    fields: &'static [Field],
    path: &str,
    problems: &mut Vec<Problem>,
) -> Mapping {
    let mut sound = Mapping::new();
    for (key, value) in map {
        let name = scalar(&key);
        let inner = join(path, &name);
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            let meant = nearest(&name, fields.iter().map(|field| field.name));
            problems.push(Problem::new(inner, format!("is no known field{}", did_you_mean(meant))));
            continue;
        };
        // `field:` with nothing behind it is the same as no field.
        if value.is_null() && !field.required {
            continue;
        }
        let value = check(value, &field.shape, &inner, problems);
        sound.insert(key, value.unwrap_or(Value::Null));
    }
    for field in fields.iter().filter(|field| field.required) {
        if !sound.contains_key(field.name) {
            problems.push(Problem::new(join(path, field.name), "is missing"));
        }
    }
    sound
}

fn check_list(items: Vec<Value>, shape: &Shape, path: &str, problems: &mut Vec<Problem>) -> Value {
    let sound = items.into_iter().enumerate().map(|(index, item)| {
        // Places are kept, so that later paths still point at the right item.
        let empty = match shape {
            Shape::Fields(_) | Shape::Map(_) | Shape::Numbered(_) => Value::Mapping(Mapping::new()),
            Shape::List(_) | Shape::Text | Shape::TextOr(_) => Value::Null,
            Shape::Count | Shape::Switch | Shape::Word(_) => Value::Null,
        };
        check(item, shape, &format!("{path}[{index}]"), problems).unwrap_or(empty)
    });
    Value::Sequence(sound.collect())
}

fn check_map(
    map: Mapping,
    item: &Shape,
    numbered: bool,
    path: &str,
    problems: &mut Vec<Problem>,
) -> Value {
    let mut sound = Mapping::new();
    for (key, value) in map {
        let inner = join(path, &scalar(&key));
        if numbered && !key.is_u64() {
            let message = "must be a whole number, without quotes";
            problems.push(Problem::new(&inner, message));
        } else if !numbered && !key.is_string() {
            problems.push(Problem::new(&inner, format!("must be text: write {}", quoted(&key))));
        } else if let Some(value) = check(value, item, &inner, problems) {
            sound.insert(key, value);
        }
    }
    Value::Mapping(sound)
}

fn join(path: &str, name: &str) -> String {
    match (path.is_empty(), name.contains(['.', '/'])) {
        (true, _) => name.to_owned(),
        (false, true) => format!("{path}[\"{name}\"]"),
        (false, false) => format!("{path}.{name}"),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Bool(switch) => switch.to_string(),
        _ => "?".to_owned(),
    }
}

fn quoted(value: &Value) -> String {
    format!("\"{}\"", scalar(value))
}

fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

pub(super) fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

const fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Fields(_) | Shape::Map(_) | Shape::Numbered(_) => "a mapping",
        Shape::List(_) => "a list",
        Shape::Text | Shape::Word(_) => "text",
        Shape::TextOr(_) => "text or a mapping",
        Shape::Count => "a whole number of 0 or more",
        Shape::Switch => "`true` or `false`",
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "`true` or `false`",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}

/// The known name nearest to what was typed, when it is near enough to have been meant.
pub(super) fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(&typed, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
