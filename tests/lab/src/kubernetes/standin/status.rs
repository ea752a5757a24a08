//! Errors as the API server words them: one `Status` object per refusal.

use serde_json::{Value, json};

use super::registry::ResourceType;
use super::request::ResourceRequest;

/// A refusal, on its way to becoming a `Status` object.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    pub(super) code: u16,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) details: Option<Value>,
}

impl ApiError {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }

    fn about(mut self, kind: &ResourceType, name: &str) -> Self {
        let mut details = serde_json::Map::new();
        if !name.is_empty() {
            details.insert("name".into(), name.into());
        }
        if !kind.group.is_empty() {
            details.insert("group".into(), kind.group.into());
        }
        details.insert("kind".into(), kind.resource.into());
        self.details = Some(Value::Object(details));
        self
    }

    /// No identity, or one that nothing admits.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// A request for a resource that its user may not make.
    pub(super) fn forbidden(request: &ResourceRequest, user: &str, why: &str) -> Self {
        let place = match (request.kind.namespaced, request.namespace.as_str()) {
            (true, namespace) if !namespace.is_empty() => {
                format!("in the namespace \"{namespace}\"")
            }
            _ => "at the cluster scope".to_owned(),
        };
        let message = format!(
            "User \"{user}\" cannot {} resource \"{}\" in API group \"{}\" {place}{}{why}",
            request.verb,
            request.resource_path(),
            request.kind.group,
            if why.is_empty() { "" } else { ": " },
        );
        Self::refused(request.kind, &request.name, &message)
    }

    /// A path outside the resources that its user may not ask for.
    pub(super) fn forbidden_path(verb: &str, path: &str, user: &str) -> Self {
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
        let mut error = Self::new(403, "Forbidden", message);
        error.details = Some(json!({}));
        error
    }

    /// A request that authorisation let through and admission refuses.
    pub(super) fn refused(kind: &ResourceType, name: &str, why: &str) -> Self {
        let subject = if name.is_empty() {
            kind.qualified()
        } else {
            format!("{} \"{name}\"", kind.qualified())
        };
        Self::new(403, "Forbidden", format!("{subject} is forbidden: {why}")).about(kind, name)
    }

    pub(super) fn not_found(kind: &ResourceType, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified()))
            .about(kind, name)
    }

    /// Nothing is served at this path.
    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub(super) fn already_exists(kind: &ResourceType, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", kind.qualified());
        Self::new(409, "AlreadyExists", message).about(kind, name)
    }

    pub(super) fn conflict(kind: &ResourceType, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", message).about(kind, name)
    }

    pub(super) fn invalid(kind: &ResourceType, name: &str, why: &str) -> Self {
        let message = format!("{}.{} \"{name}\" is invalid: {why}", kind.kind, kind.group);
        let message = message.replacen(". \"", " \"", 1);
        Self::new(422, "Invalid", message).about(kind, name)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    pub(super) fn unsupported_media_type(got: &str) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml; got {got}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub(super) fn too_large() -> Self {
        Self::new(413, "RequestEntityTooLarge", "limit is 3145728")
    }

    /// A watch from a revision that is no longer remembered.
    pub(super) fn expired(asked: u64, oldest: u64) -> Self {
        Self::new(410, "Expired", format!("too old resource version: {asked} ({oldest})"))
    }

    /// The cluster is not there yet, or no longer.
    pub(super) fn unavailable() -> Self {
        let message = "the server is currently unable to handle the request";
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The `Status` object.
    pub(super) fn to_status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
        });
        if let Some(details) = &self.details {
            status["details"] = details.clone();
        }
        status["code"] = self.code.into();
        status
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::{DAEMONSETS, NODES, PODS};
    use super::super::request::{Query, Target, resolve};
    use super::*;

    fn request(method: &str, path: &str) -> ResourceRequest {
        match resolve(method, path, &Query::default()) {
            Target::Resource(request) => request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn refusals_are_worded_as_the_api_server_words_them() {
        let list = ApiError::forbidden(&request("GET", "/api/v1/nodes"), "u", "");
        assert_eq!(
            list.message,
            "nodes is forbidden: User \"u\" cannot list resource \"nodes\" in API group \"\" at \
             the cluster scope"
        );
        let get = request("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node");
        assert_eq!(
            ApiError::forbidden(&get, "u", "no").message,
            "daemonsets.apps \"aws-node\" is forbidden: User \"u\" cannot get resource \
             \"daemonsets\" in API group \"apps\" in the namespace \"kube-system\": no"
        );
        assert_eq!(
            ApiError::not_found(&DAEMONSETS, "d").message,
            "daemonsets.apps \"d\" not found"
        );
        assert_eq!(ApiError::invalid(&PODS, "p", "x").message, "Pod \"p\" is invalid: x");
        assert_eq!(
            ApiError::invalid(&DAEMONSETS, "d", "x").message,
            "DaemonSet.apps \"d\" is invalid: x"
        );
    }

    #[test]
    fn a_status_object_carries_code_reason_and_details() {
        let status = ApiError::not_found(&NODES, "a").to_status();
        assert_eq!(
            status,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                   "message": "nodes \"a\" not found", "reason": "NotFound",
                   "details": {"name": "a", "kind": "nodes"}, "code": 404})
        );
        assert_eq!(ApiError::unauthorized().to_status()["message"], "Unauthorized");
    }
}
