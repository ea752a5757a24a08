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
    /// A mapping from any text to text.
    TextMap,
    /// Text.
    Text,
    /// A whole number, not negative.
    Count,
    /// `true` or `false`.
    Switch,
    /// One of these words.
    Word(&'static [&'static str]),
}

/// One field of a mapping.
#[derive(Debug)]
pub struct Field {
    /// Name as typed.
    pub name: &'static str,
    /// What it holds.
    pub shape: Shape,
    /// Whether it must be there.
    pub required: bool,
}

const fn required(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: true }
}

const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, required: false }
}

/// The fleet file.
pub const FLEET: Shape = Shape::Fields(&[
    required("apiVersion", Shape::Text),
    required("kind", Shape::Text),
    required("name", Shape::Text),
    optional("region", Shape::Text),
    required("kubernetes", Shape::Text),
    required("agent", AGENT),
    optional("network", NETWORK),
    optional("evidenceBucket", Shape::Text),
    optional("tags", Shape::TextMap),
    required("pools", Shape::List(&POOL)),
]);

const AGENT: Shape = Shape::Fields(&[
    optional("baked", Shape::Switch),
    optional("publish", Shape::Switch),
    optional("url", Shape::Text),
    optional("sha256", Shape::Text),
]);

const NETWORK: Shape = Shape::Fields(&[
    optional("cidr", Shape::Text),
    optional("zones", Shape::Count),
    optional("nat", Shape::Word(&["one", "per-zone"])),
]);

const POOL: Shape = Shape::Fields(&[
    required("name", Shape::Text),
    required("class", Shape::Word(&["system", "infra", "apps", "gpu"])),
    required("instanceType", Shape::Text),
    required("size", SIZE),
    optional("volumeGiB", Shape::Count),
    optional("image", Shape::Text),
    optional("devicePlugin", Shape::Word(&["install", "dra", "external", "none"])),
    optional("labels", Shape::TextMap),
    optional("taints", Shape::List(&TAINT)),
    optional("tags", Shape::TextMap),
    optional("capacity", Shape::Word(&["on-demand", "spot"])),
    optional("replaceFailed", Shape::Count),
    optional("quorum", Shape::Count),
    optional("repair", Shape::Word(&["off", "observe", "on"])),
]);

const SIZE: Shape = Shape::Fields(&[
    optional("min", Shape::Count),
    required("desired", Shape::Count),
    optional("max", Shape::Count),
]);

const TAINT: Shape = Shape::Fields(&[
    required("key", Shape::Text),
    optional("value", Shape::Text),
    required("effect", Shape::Word(&["NoSchedule", "PreferNoSchedule", "NoExecute"])),
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
        (Shape::List(item), Value::Sequence(items)) => {
            Some(check_list(items, item, path, problems))
        }
        (Shape::TextMap, Value::Mapping(map)) => Some(check_text_map(map, path, problems)),
        (Shape::Text, Value::String(text)) => Some(Value::String(text)),
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
        let empty = Value::Mapping(Mapping::new());
        check(item, shape, &format!("{path}[{index}]"), problems).unwrap_or(empty)
    });
    Value::Sequence(sound.collect())
}

fn check_text_map(map: Mapping, path: &str, problems: &mut Vec<Problem>) -> Value {
    let mut sound = Mapping::new();
    for (key, value) in map {
        let inner = join(path, &scalar(&key));
        if !key.is_string() {
            problems.push(Problem::new(&inner, format!("must be text: write {}", quoted(&key))));
        } else if let Some(value) = check(value, &Shape::Text, &inner, problems) {
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

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map_or_else(String::new, |meant| format!("; did you mean `{meant}`?"))
}

const fn expected(shape: &Shape) -> &'static str {
    match shape {
        Shape::Fields(_) | Shape::TextMap => "a mapping",
        Shape::List(_) => "a list",
        Shape::Text | Shape::Word(_) => "text",
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
fn nearest<'a>(typed: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = typed.to_lowercase();
    known
        .map(|name| (strsim::normalized_damerau_levenshtein(&typed, &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.5)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}
