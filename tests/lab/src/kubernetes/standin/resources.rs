//! The verbs on stored resources: get, list, create, update, patch, delete.

use serde_json::{Value, json};

use super::admission;
use super::patch;
use super::registry::{DEPLOYMENTS, NODES, PODS};
use super::reply::{self, Reply};
use super::request::{Query, ResourceRequest};
use super::selector::{Fields, Labels};
use super::service::{Asked, parse_object};
use super::status::ApiError;
use super::store::{Store, Written};
use super::validation;
use crate::kubernetes::authn::User;

pub(super) fn get(store: &Store, request: &ResourceRequest) -> Result<Reply, ApiError> {
    served_subresource(request)?;
    let found = store.get(request.kind, &request.namespace, &request.name);
    let found = found.ok_or_else(|| ApiError::not_found(request.kind, &request.name))?;
    Ok(reply::json(200, &found))
}

/// Both selectors of a query.
pub(super) fn selectors(query: &Query) -> Result<(Labels, Fields), ApiError> {
    Ok((
        Labels::parse(query.get("labelSelector").unwrap_or_default())?,
        Fields::parse(query.get("fieldSelector").unwrap_or_default())?,
    ))
}

pub(super) fn list(
    store: &Store,
    request: &ResourceRequest,
    query: &Query,
) -> Result<Reply, ApiError> {
    let (labels, fields) = selectors(query)?;
    let snapshot = store.list(request.kind, &request.namespace);
    let chosen = snapshot
        .objects
        .iter()
        .filter(|object| labels.matches(&object["metadata"]["labels"]) && fields.matches(object));
    let items: Vec<Value> = chosen.map(|object| without_type(object)).collect();
    let list = json!({
        "kind": format!("{}List", request.kind.kind),
        "apiVersion": request.kind.api_version(),
        "metadata": {"resourceVersion": snapshot.revision.to_string()},
        "items": items,
    });
    Ok(reply::json(200, &list))
}

/// Items of a typed list do not repeat their type.
fn without_type(object: &Value) -> Value {
    let mut item = object.clone();
    if let Some(fields) = item.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    item
}

pub(super) fn create(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    if request.kind == &PODS && request.subresource == "eviction" {
        store.delete(request.kind, &request.namespace, &request.name)?;
        let done =
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
        return Ok(reply::json(201, &done));
    }
    if !request.subresource.is_empty() || !request.name.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let object = parse_object(&asked.body)?;
    check_type(request, &object)?;
    let made = create_object(store, user, request, object)?;
    Ok(reply::json(201, made.object()))
}

fn create_object(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    mut object: Value,
) -> Result<Written, ApiError> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if let Some(node) = user.node_name() {
        admission::node_restriction(node, request.kind, &name, None, Some(&object))?;
    }
    if request.kind == &NODES {
        admission::taint_new_node(&mut object);
    } else if request.kind == &PODS {
        object["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"});
    } else if request.kind.status {
        object["status"] = json!({});
    }
    if request.kind == &DEPLOYMENTS && object["spec"].get("replicas").is_none() {
        object["spec"]["replicas"] = 1.into();
    }
    validation::check(request.kind, &object)?;
    store.create(request.kind, &request.namespace, object).map(Written::Created)
}

pub(super) fn update(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    served_subresource(request)?;
    let object = parse_object(&asked.body)?;
    check_type(request, &object)?;
    let written = change(store, user, request, |_| Ok(object))?;
    Ok(reply::json(200, written.object()))
}

pub(super) fn patch(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    served_subresource(request)?;
    let merge: fn(&mut Value, &Value) = match asked.content_type.as_str() {
        "application/merge-patch+json" => patch::merge,
        "application/strategic-merge-patch+json" => patch::strategic,
        "application/apply-patch+yaml" => return apply(store, user, request, asked),
        _ => return Err(ApiError::unsupported_media_type()),
    };
    let document = parse_object(&asked.body)?;
    let written = change(store, user, request, |current| {
        let mut next = current.clone();
        // A patch that names no version is applied to whatever is there.
        if document["metadata"]["resourceVersion"].is_null()
            && let Some(meta) = next["metadata"].as_object_mut()
        {
            meta.remove("resourceVersion");
        }
        merge(&mut next, &document);
        Ok(next)
    })?;
    Ok(reply::json(200, written.object()))
}

/// Server-side apply: create, or merge what this manager says.
fn apply(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    let Some(manager) = asked.query.get("fieldManager").filter(|manager| !manager.is_empty())
    else {
        let why = "fieldManager: Required value: is required for apply patch";
        return Err(ApiError::invalid_options("PatchOptions", why));
    };
    let mut document = parse_object(&asked.body)?;
    check_type(request, &document)?;
    document["metadata"]["name"] = request.name.clone().into();
    if let Some(meta) = document["metadata"].as_object_mut() {
        meta.remove("managedFields");
    }
    let scope = format!("{manager}/{}", request.subresource);
    let previous = store.applied(request.kind, &request.namespace, &request.name, &scope);
    let merged = change(store, user, request, |current| {
        let mut next = current.clone();
        if document["metadata"]["resourceVersion"].is_null()
            && let Some(meta) = next["metadata"].as_object_mut()
        {
            meta.remove("resourceVersion");
        }
        patch::apply(&mut next, previous.as_ref(), &document);
        Ok(next)
    });
    let written = match merged {
        Err(error) if error.reason == "NotFound" && request.subresource.is_empty() => {
            create_object(store, user, request, document.clone())?
        }
        other => other?,
    };
    store.remember_applied(request.kind, &request.namespace, &request.name, &scope, document);
    let code = if matches!(written, Written::Created(_)) { 201 } else { 200 };
    Ok(reply::json(code, written.object()))
}

/// A read-modify-write: locking, what the subresource may change, what a node may change.
fn change(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    next: impl FnOnce(&Value) -> Result<Value, ApiError>,
) -> Result<Written, ApiError> {
    let kind = request.kind;
    let name = &request.name;
    let written = store.update(kind, &request.namespace, name, |current| {
        let wanted = next(current)?;
        let version = wanted["metadata"]["resourceVersion"].as_str().filter(|v| !v.is_empty());
        if version.is_some_and(|version| current["metadata"]["resourceVersion"] != version) {
            let why = "the object has been modified; please apply your changes to the latest \
                       version and try again";
            return Err(ApiError::conflict(kind, name, why));
        }
        let combined = combine(request, current, wanted);
        if let Some(node) = user.node_name() {
            admission::node_restriction(node, kind, name, Some(current), Some(&combined))?;
        }
        validation::check(kind, &combined)?;
        Ok(combined)
    })?;
    Ok(Written::Updated(written))
}

/// The main resource keeps its status, the status subresource keeps all else (a Node's metadata
/// excepted: kubelet writes annotations through its status).
fn combine(request: &ResourceRequest, current: &Value, wanted: Value) -> Value {
    if request.subresource == "status" {
        let mut combined = current.clone();
        combined["status"] = wanted["status"].clone();
        if request.kind == &NODES {
            combined["metadata"] = wanted["metadata"].clone();
        }
        return combined;
    }
    let mut combined = wanted;
    if request.kind.status {
        match current.get("status") {
            Some(status) => combined["status"] = status.clone(),
            None => {
                if let Some(fields) = combined.as_object_mut() {
                    fields.remove("status");
                }
            }
        }
    }
    combined
}

pub(super) fn delete(
    store: &Store,
    user: &User,
    request: &ResourceRequest,
    asked: &Asked,
) -> Result<Reply, ApiError> {
    if !request.subresource.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let found = store.get(request.kind, &request.namespace, &request.name);
    let found = found.ok_or_else(|| ApiError::not_found(request.kind, &request.name))?;
    if let Some(node) = user.node_name() {
        admission::node_restriction(node, request.kind, &request.name, Some(&found), None)?;
    }
    let options = if asked.body.is_empty() { json!({}) } else { parse_object(&asked.body)? };
    let wanted = &options["preconditions"]["uid"];
    if let Some(wanted) = wanted.as_str()
        && found["metadata"]["uid"] != wanted
    {
        let got = found["metadata"]["uid"].as_str().unwrap_or_default();
        return Err(ApiError::another_uid(request.kind, &request.name, wanted, got));
    }
    let gone = store.delete(request.kind, &request.namespace, &request.name)?;
    let mut details = json!({"name": request.name, "kind": request.kind.resource,
        "uid": gone["metadata"]["uid"]});
    if !request.kind.group.is_empty() {
        details["group"] = request.kind.group.into();
    }
    let done = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details});
    Ok(reply::json(200, &done))
}

pub(super) fn delete_all(
    store: &Store,
    request: &ResourceRequest,
    query: &Query,
) -> Result<Reply, ApiError> {
    let (labels, fields) = selectors(query)?;
    let snapshot = store.list(request.kind, &request.namespace);
    let mut items = Vec::new();
    for object in snapshot.objects {
        if labels.matches(&object["metadata"]["labels"]) && fields.matches(&object) {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
            // Somebody else may have deleted it in between: gone is what was asked for.
            let _gone = store.delete(request.kind, text("namespace"), text("name"));
            items.push(without_type(&object));
        }
    }
    let list = json!({"kind": format!("{}List", request.kind.kind),
        "apiVersion": request.kind.api_version(), "metadata": {}, "items": items});
    Ok(reply::json(200, &list))
}

fn served_subresource(request: &ResourceRequest) -> Result<(), ApiError> {
    match request.subresource.as_str() {
        "" => Ok(()),
        "status" if request.kind.status => Ok(()),
        _ => Err(ApiError::no_such_resource()),
    }
}

/// An object must be of the type, name and namespace that its path says.
fn check_type(request: &ResourceRequest, object: &Value) -> Result<(), ApiError> {
    let expected = request.kind;
    let version =
        object["apiVersion"].as_str().map_or_else(|| expected.api_version(), str::to_owned);
    let kind = object["kind"].as_str().unwrap_or(expected.kind);
    if (kind, version.as_str()) != (expected.kind, expected.api_version().as_str()) {
        let group = if expected.group.is_empty() { "core" } else { expected.group };
        let short = version.rsplit('/').next().unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "{kind} in version \"{short}\" cannot be handled as a {}: converting ({short}.{kind}) to \
             ({group}.{}): unknown conversion",
            expected.kind, expected.kind
        )));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if !request.name.is_empty() && !name.is_empty() && name != request.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            request.name
        )));
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(&request.namespace);
    if request.kind.namespaced && namespace != request.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}
