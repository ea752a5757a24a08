//! A document as nodeadm types it: unknown fields dropped, null as good as absent, and a value of
//! the wrong type refused as Go's decoder does.

use base64::Engine as _;
use serde_json::{Map, Value};

use super::lint::{API_VERSION, KIND};
use super::source::BASE64;

/// Why a document is no NodeConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not decode, which nodeadm forgives the user data.
    Undecodable(String),
    /// It decodes to something else, which nodeadm forgives nobody.
    OtherKind(String),
}

/// The `spec` of a NodeConfig with what nodeadm keeps of it.
///
/// # Errors
/// When it is no NodeConfig, or a value has the wrong type.
pub fn spec(document: &Value) -> Result<Value, Refused> {
    read(document).map_err(Refused::Undecodable)?.ok_or_else(|| {
        Refused::OtherKind("it is a list of NodeConfigs, of which nodeadm wants one".into())
    })
}

fn read(document: &Value) -> Result<Option<Value>, String> {
    let root = Some(document);
    if !document.is_object() {
        return Err(format!("it is {}, and no NodeConfig", kind_of(document)));
    }
    let version = text(root, "", "apiVersion")?.unwrap_or_default();
    let kind = text(root, "", "kind")?.unwrap_or_default();
    match (version.as_str(), kind.as_str()) {
        (API_VERSION, KIND) => {}
        (API_VERSION, "NodeConfigList") => return Ok(None),
        _ => return Err(format!("it is no `{KIND}` of `{API_VERSION}`")),
    }
    metadata(object(root, "", "metadata")?)?;
    let spec = object(root, "", "spec")?;
    let mut kept = Map::new();
    if let Some(cluster) = object(spec, "spec", "cluster")? {
        kept.insert("cluster".into(), self::cluster(cluster)?);
    }
    if let Some(containerd) = object(spec, "spec", "containerd")? {
        kept.insert("containerd".into(), self::containerd(containerd)?);
    }
    if let Some(instance) = object(spec, "spec", "instance")? {
        kept.insert("instance".into(), self::instance(instance)?);
    }
    if let Some(kubelet) = object(spec, "spec", "kubelet")? {
        kept.insert("kubelet".into(), self::kubelet(kubelet)?);
    }
    if let Some(gates) = object(spec, "spec", "featureGates")? {
        let at = "spec.featureGates";
        let gates = each(gates, at, |value, at| Ok(boolean(value, at)?.unwrap_or_default().into()));
        kept.insert("featureGates".into(), gates?);
    }
    Ok(Some(Value::Object(kept)))
}

/// Only what people write by hand; the rest of an object's metadata is the API server's.
fn metadata(metadata: Option<&Value>) -> Result<(), String> {
    for key in ["name", "generateName", "namespace", "uid", "resourceVersion", "selfLink"] {
        text(metadata, "metadata", key)?;
    }
    for key in ["labels", "annotations"] {
        if let Some(map) = object(metadata, "metadata", key)? {
            text_map(map, &format!("metadata.{key}"))?;
        }
    }
    texts(metadata, "metadata", "finalizers").map(drop)
}

fn cluster(cluster: &Value) -> Result<Value, String> {
    let at = "spec.cluster";
    let mut kept = Map::new();
    for key in ["name", "apiServerEndpoint", "cidr", "id"] {
        keep(&mut kept, key, text(Some(cluster), at, key)?.map(Value::from));
    }
    if let Some(ca) = text(Some(cluster), at, "certificateAuthority")? {
        let bytes = BASE64.decode(ca.replace(['\r', '\n'], ""));
        let bytes =
            bytes.map_err(|error| format!("`{at}.certificateAuthority` is not base64: {error}"))?;
        kept.insert("certificateAuthority".into(), BASE64.encode(bytes).into());
    }
    let outpost = cluster.get("enableOutpost").unwrap_or(&Value::Null);
    let outpost = boolean(outpost, &format!("{at}.enableOutpost"))?;
    keep(&mut kept, "enableOutpost", outpost.map(Value::from));
    Ok(Value::Object(kept))
}

fn containerd(containerd: &Value) -> Result<Value, String> {
    let at = "spec.containerd";
    let mut kept = Map::new();
    keep(&mut kept, "config", text(Some(containerd), at, "config")?.map(Value::from));
    let base = object(Some(containerd), at, "baseRuntimeSpec")?.cloned();
    keep(&mut kept, "baseRuntimeSpec", base);
    Ok(Value::Object(kept))
}

fn instance(instance: &Value) -> Result<Value, String> {
    let at = "spec.instance";
    let mut kept = Map::new();
    if let Some(storage) = object(Some(instance), at, "localStorage")? {
        let at = "spec.instance.localStorage";
        let mut fields = Map::new();
        for key in ["strategy", "mountPath"] {
            keep(&mut fields, key, text(Some(storage), at, key)?.map(Value::from));
        }
        keep(&mut fields, "disabledMounts", texts(Some(storage), at, "disabledMounts")?);
        kept.insert("localStorage".into(), Value::Object(fields));
    }
    if let Some(network) = object(Some(instance), at, "network")? {
        let at = "spec.instance.network";
        let mut fields = Map::new();
        for key in ["nameservers", "domains"] {
            keep(&mut fields, key, texts(Some(network), at, key)?);
        }
        kept.insert("network".into(), Value::Object(fields));
    }
    if let Some(environment) = object(Some(instance), at, "environment")? {
        let at = "spec.instance.environment";
        let services = each(environment, at, |value, at| match value {
            Value::Null => Ok(Value::Null),
            Value::Object(_) => text_map(value, at),
            other => Err(format!("`{at}` is {}, and must be a map", kind_of(other))),
        });
        kept.insert("environment".into(), services?);
    }
    Ok(Value::Object(kept))
}

fn kubelet(kubelet: &Value) -> Result<Value, String> {
    let at = "spec.kubelet";
    let mut kept = Map::new();
    keep(&mut kept, "config", object(Some(kubelet), at, "config")?.cloned());
    keep(&mut kept, "flags", texts(Some(kubelet), at, "flags")?);
    let expression = text(Some(kubelet), at, "maxPodsExpression")?;
    keep(&mut kept, "maxPodsExpression", expression.map(Value::from));
    Ok(Value::Object(kept))
}

fn keep(fields: &mut Map<String, Value>, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        fields.insert(key.to_owned(), value);
    }
}

fn path(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn wrong(value: &Value, at: &str, wanted: &str) -> String {
    format!("`{at}` is {}, and must be {wanted}", kind_of(value))
}

fn object<'a>(parent: Option<&'a Value>, at: &str, key: &str) -> Result<Option<&'a Value>, String> {
    match parent.and_then(|parent| parent.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(value @ Value::Object(_)) => Ok(Some(value)),
        Some(other) => Err(wrong(other, &path(at, key), "a map")),
    }
}

fn text(parent: Option<&Value>, at: &str, key: &str) -> Result<Option<String>, String> {
    match parent.and_then(|parent| parent.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(wrong(other, &path(at, key), "text")),
    }
}

fn texts(parent: Option<&Value>, at: &str, key: &str) -> Result<Option<Value>, String> {
    let at = path(at, key);
    match parent.and_then(|parent| parent.get(key)) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Array(list)) => {
            let texts =
                list.iter().map(|value| plain(value, &at)).collect::<Result<Vec<_>, _>>()?;
            Ok(Some(Value::Array(texts)))
        }
        Some(other) => Err(wrong(other, &at, "a list of texts")),
    }
}

/// A text in a list or a map, where null is the empty one.
fn plain(value: &Value, at: &str) -> Result<Value, String> {
    match value {
        Value::String(_) => Ok(value.clone()),
        Value::Null => Ok("".into()),
        other => Err(wrong(other, at, "text")),
    }
}

fn text_map(map: &Value, at: &str) -> Result<Value, String> {
    each(map, at, plain)
}

fn each(
    map: &Value,
    at: &str,
    read: impl Fn(&Value, &str) -> Result<Value, String>,
) -> Result<Value, String> {
    let entries = map.as_object().into_iter().flatten();
    let read = entries.map(|(key, value)| Ok((key.clone(), read(value, &path(at, key))?)));
    read.collect::<Result<Map<_, _>, String>>().map(Value::Object)
}

fn boolean(value: &Value, at: &str) -> Result<Option<bool>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        other => Err(wrong(other, at, "true or false")),
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: Value) -> Result<Value, Refused> {
        super::spec(&json!({"apiVersion": API_VERSION, "kind": KIND, "spec": spec}))
    }

    #[test]
    fn keeps_what_nodeadm_knows() {
        let kept = of(json!({
            "cluster": {"name": "a", "zzz": 1, "cidr": null, "certificateAuthority": "UE\nVN"},
            "kubelet": {"config": {"any": [1]}, "flags": ["--a", null]},
            "instance": {"environment": {"default": {"A": null}, "x": null}, "network": null},
            "featureGates": {"Foo": null, "Bar": true},
            "nonsense": 1,
        }));
        let expected = json!({
            "cluster": {"name": "a", "certificateAuthority": "UEVN"},
            "instance": {"environment": {"default": {"A": ""}, "x": null}},
            "kubelet": {"config": {"any": [1]}, "flags": ["--a", ""]},
            "featureGates": {"Foo": false, "Bar": true},
        });
        assert_eq!(kept, Ok(expected));
        assert_eq!(of(Value::Null), Ok(json!({})));
    }

    #[test]
    fn a_wrong_type_is_named_with_its_place() {
        for (spec, says) in [
            (json!([]), "`spec` is a list"),
            (json!({"cluster": {"name": 5}}), "`spec.cluster.name` is a number"),
            (json!({"cluster": {"enableOutpost": "yes"}}), "`spec.cluster.enableOutpost`"),
            (json!({"cluster": {"certificateAuthority": "*"}}), "not base64"),
            (json!({"kubelet": {"flags": "--a"}}), "`spec.kubelet.flags` is text"),
            (json!({"kubelet": {"flags": [1]}}), "a number, and must be text"),
            (json!({"kubelet": {"config": []}}), "must be a map"),
            (json!({"featureGates": {"A": "true"}}), "`spec.featureGates.A`"),
            (json!({"instance": {"environment": {"a": {"B": true}}}}), "environment.a.B"),
            (json!({"instance": {"environment": {"a": 1}}}), "`spec.instance.environment.a`"),
        ] {
            match of(spec) {
                Err(Refused::Undecodable(problem)) => assert!(problem.contains(says), "{problem}"),
                other => panic!("{other:?}"),
            }
        }
        let kind =
            |version: &str, kind: &str| super::spec(&json!({"apiVersion": version, "kind": kind}));
        assert!(matches!(kind(API_VERSION, "Other"), Err(Refused::Undecodable(_))));
        assert!(matches!(kind("v2", KIND), Err(Refused::Undecodable(_))));
        assert!(matches!(kind(API_VERSION, "NodeConfigList"), Err(Refused::OtherKind(_))));
        assert!(matches!(super::spec(&json!("text")), Err(Refused::Undecodable(_))));
    }
}
