//! Several fleet files as one: what a later one says is laid over what the earlier ones say. Pure.

use serde_yaml::{Mapping, Value};

use crate::config::problem::Problem;

/// Lays `over` on `base`: mappings field by field, pools by name, everything else whole. A field that is
/// empty in `over` takes the one below away.
#[must_use]
pub fn lay(base: Value, over: Value) -> Value {
    match (base, over) {
        (Value::Mapping(mut base), Value::Mapping(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    base.remove(&key);
                    continue;
                }
                let below = base.remove(&key).unwrap_or(Value::Null);
                base.insert(key, lay(below, value));
            }
            Value::Mapping(base)
        }
        (Value::Sequence(base), Value::Sequence(over)) if over.iter().all(is_named) => {
            Value::Sequence(lay_by_name(base, over))
        }
        (_, over) => over,
    }
}

fn is_named(item: &Value) -> bool {
    item.get("name").is_some_and(Value::is_string)
}

fn lay_by_name(mut base: Vec<Value>, over: Vec<Value>) -> Vec<Value> {
    for item in over {
        let place = base.iter().position(|below| below.get("name") == item.get("name"));
        match place {
            Some(place) => {
                let below = std::mem::take(&mut base[place]);
                base[place] = lay(below, item);
            }
            None => base.push(item),
        }
    }
    base
}

/// Sets one value: `network.zones=3`. An item of a list is named, `pools.h100.size.desired=8`, or
/// counted, `pools.0.size.desired=8`. The value is YAML; an empty one takes the field away.
///
/// # Errors
/// When it says no path, or the path leads through something that is no mapping.
pub fn set(document: &mut Value, typed: &str) -> Result<(), Problem> {
    let problem = |message: &str| Problem::new(format!("--set {typed}"), message);
    let (path, value) = typed.split_once('=').ok_or_else(|| problem("must be PATH=VALUE"))?;
    let value: Value =
        serde_yaml::from_str(value).map_err(|_| problem("the value must be YAML"))?;
    let mut at = document;
    let mut steps = path.split('.').peekable();
    while let Some(step) = steps.next() {
        if step.is_empty() {
            return Err(problem("the path has an empty part"));
        }
        let last = steps.peek().is_none();
        at = match at {
            Value::Sequence(items) => {
                let named = |item: &Value| item.get("name").and_then(Value::as_str) == Some(step);
                let place = items.iter().position(named).or_else(|| step.parse().ok());
                let item = place.and_then(|place| items.get_mut(place));
                item.ok_or_else(|| problem(&format!("there is no item `{step}`")))?
            }
            Value::Mapping(map) if last && value.is_null() => {
                map.remove(step);
                return Ok(());
            }
            Value::Mapping(map) => map.entry(step.into()).or_insert(Value::Null),
            Value::Null => {
                *at = Value::Mapping(Mapping::new());
                let Value::Mapping(map) = at else { continue };
                map.entry(step.into()).or_insert(Value::Null)
            }
            _ => return Err(problem(&format!("`{step}` lies below something that has no fields"))),
        };
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    const BASE: &str = "{name: prod, tags: {a: x, b: y}, network: {zones: 2}, pools: [{name: s, \
                        class: system, size: {min: 1, desired: 2}}, {name: g, labels: {a: b}}]}";

    #[test]
    fn fields_replace_fields_and_pools_of_a_name_are_joined() {
        let over =
            "{name: test, tags: {b: z, a: }, pools: [{name: g, size: {desired: 8}}, {name: n}]}";
        let wanted = "{name: test, tags: {b: z}, network: {zones: 2}, pools: [{name: s, class: \
                      system, size: {min: 1, desired: 2}}, {name: g, labels: {a: b}, size: \
                      {desired: 8}}, {name: n}]}";
        assert_eq!(lay(yaml(BASE), yaml(over)), yaml(wanted));
        assert_eq!(lay(yaml(BASE), yaml("{}")), yaml(BASE));
        // A list of anything else is one value.
        let taints = lay(yaml("{taints: [{key: a}]}"), yaml("{taints: [{key: b}]}"));
        assert_eq!(taints, yaml("{taints: [{key: b}]}"));
    }

    #[test]
    fn one_value_is_set_where_its_path_leads() {
        for (typed, wanted) in [
            ("network.zones=3", "3"),
            ("network.nat=per-zone", "per-zone"),
            ("pools.g.size.desired=8", "8"),
            ("pools.0.size.desired=5", "5"),
            ("agent.baked=true", "true"),
            ("name='7'", "'7'"),
        ] {
            let mut document = yaml(BASE);
            set(&mut document, typed).unwrap();
            let mut at = &document;
            for step in typed.split('=').next().unwrap().split('.') {
                at = match at {
                    Value::Sequence(items) => items
                        .iter()
                        .find(|item| item["name"] == step)
                        .or_else(|| items.get(step.parse::<usize>().ok()?))
                        .unwrap(),
                    at => &at[step],
                };
            }
            assert_eq!(*at, yaml(wanted), "{typed}");
        }
        let mut document = yaml(BASE);
        set(&mut document, "tags.a=").unwrap();
        assert_eq!(document["tags"], yaml("{b: y}"));
    }

    #[test]
    fn what_cannot_be_set_is_said() {
        for (typed, wanted) in [
            ("zones", "must be PATH=VALUE"),
            ("pools.x.size=1", "there is no item `x`"),
            ("name.first=1", "lies below something that has no fields"),
            (".a=1", "empty part"),
            ("a=[", "must be YAML"),
        ] {
            let problem = set(&mut yaml(BASE), typed).unwrap_err();
            assert!(problem.message.contains(wanted), "{typed}: {problem}");
        }
    }
}
