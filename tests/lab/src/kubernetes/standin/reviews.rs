//! Reviews that are computed: who am I, and may I.

use serde_json::{Value, json};

use super::authz::{self, Attributes, Decision};
use super::metadata::now_seconds;
use super::reply::{self, Reply};
use super::service::parse_object;
use super::status::ApiError;
use super::store::Store;
use crate::kubernetes::authn::User;

/// Answers a review.
pub(super) fn answer(
    user: &User,
    (group, resource, kind): (&str, &str, &str),
    body: &[u8],
    store: &Store,
) -> Result<Reply, ApiError> {
    let mut review = json!({"kind": kind, "apiVersion": format!("{group}/v1"),
        "metadata": {"creationTimestamp": now_seconds()}});
    if resource == "selfsubjectreviews" {
        // The question has no content, so its encoding does not matter: kubectl sends protobuf.
        review["status"] = json!({"userInfo": user_info(user)});
    } else {
        let asked = parse_object(body)?;
        review["spec"] = asked["spec"].clone();
        review["status"] = access(user, &asked["spec"], store);
    }
    Ok(reply::json(201, &review))
}

fn user_info(user: &User) -> Value {
    let extra: serde_json::Map<String, Value> =
        user.extra.iter().map(|(key, value)| ((*key).to_owned(), json!([value]))).collect();
    json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": extra})
}

fn access(user: &User, spec: &Value, store: &Store) -> Value {
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let resource = &spec["resourceAttributes"];
    let path = &spec["nonResourceAttributes"]["path"];
    let verb = if resource.is_null() {
        text(&spec["nonResourceAttributes"]["verb"])
    } else {
        text(&resource["verb"])
    };
    let mut plural = text(&resource["resource"]);
    if let Some(subresource) = resource["subresource"].as_str().filter(|sub| !sub.is_empty()) {
        plural = format!("{plural}/{subresource}");
    }
    let (group, namespace) = (text(&resource["group"]), text(&resource["namespace"]));
    let name = text(&resource["name"]);
    let attributes = Attributes {
        verb: &verb,
        group: &group,
        resource: &plural,
        namespace: &namespace,
        name: &name,
        path: path.as_str(),
        own_only: false,
        own: false,
    };
    match authz::authorize(user, &attributes, store) {
        Decision::Allow => json!({"allowed": true}),
        Decision::Deny(why) if why.is_empty() => json!({"allowed": false}),
        Decision::Deny(why) => json!({"allowed": false, "reason": why}),
    }
}
