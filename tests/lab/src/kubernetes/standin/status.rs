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

    fn about(self, kind: &ResourceType, name: &str) -> Self {
        self.detailed(kind.resource, kind.group, name)
    }

    fn detailed(mut self, kind: &str, group: &str, name: &str) -> Self {
        let fields = [("name", name), ("group", group), ("kind", kind)];
        let named = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let details = named.map(|(field, value)| (field.to_owned(), value.into())).collect();
        self.details = Some(Value::Object(details));
        self
    }

    /// No identity, or one that nothing admits.
    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// A request for a resource that its user may not make.
    pub(super) fn forbidden(request: &ResourceRequest, user: &str, why: &str) -> Self {
        let place = match request.authorized_namespace() {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace \"{namespace}\""),
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
        Self::new(403, "Forbidden", message).detailed("", "", "")
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
        Self::new(404, "", "404 page not found\n")
    }

    /// A group and version that is served has nothing of this name.
    pub(super) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(404, "NotFound", message).detailed("", "", "")
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

    /// An object with problems, each `FIELD: MESSAGE`.
    pub(super) fn invalid(kind: &ResourceType, name: &str, problems: &[String]) -> Self {
        Self::invalid_as(kind.kind, kind.group, name, problems)
    }

    /// Options in a query with problems, as [`ApiError::invalid`].
    pub(super) fn invalid_options(kind: &str, problem: &str) -> Self {
        Self::invalid_as(kind, "meta.k8s.io", "", &[problem.to_owned()])
    }

    fn invalid_as(kind: &str, group: &str, name: &str, problems: &[String]) -> Self {
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let listed = match problems {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{qualified} \"{name}\" is invalid: {listed}");
        let mut error = Self::new(422, "Invalid", message).detailed(kind, group, name);
        let causes: Vec<Value> = problems.iter().map(|problem| cause(problem)).collect();
        if let Some(details) = &mut error.details {
            details["causes"] = causes.into();
        }
        error
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).detailed("", "", "")
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "415: Unsupported Media Type";
        Self::new(415, "UnsupportedMediaType", message).detailed("", "", "")
    }

    /// A deletion that was meant for another object of this name.
    pub(super) fn another_uid(kind: &ResourceType, name: &str, wanted: &str, got: &str) -> Self {
        let qualified = if kind.group.is_empty() {
            kind.kind.to_owned()
        } else {
            format!("{}.{}", kind.kind, kind.group)
        };
        let message = format!(
            "Operation cannot be fulfilled on {qualified} \"{name}\": the UID in the precondition \
             ({wanted}) does not match the UID in record ({got}). The object might have been \
             deleted and then recreated"
        );
        Self::new(409, "Conflict", message).detailed(kind.kind, kind.group, name)
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

    /// Priority and fairness let it not through.
    pub(super) fn too_many_requests() -> Self {
        let message = "Too many requests, please try again later.";
        Self::new(429, "TooManyRequests", message)
    }

    /// Whether it is no `Status` but a line of text, as the API server's router answers.
    pub(super) const fn is_plain(&self) -> bool {
        self.reason.is_empty()
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

/// One problem of an object, for programs.
fn cause(problem: &str) -> Value {
    let (field, message) = problem.split_once(": ").unwrap_or(("", problem));
    let reason = match message.split(':').next().unwrap_or_default() {
        "Required value" => "FieldValueRequired",
        "Unsupported value" => "FieldValueNotSupported",
        "Forbidden" => "FieldValueForbidden",
        _ => "FieldValueInvalid",
    };
    json!({"reason": reason, "message": message, "field": field})
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
        assert_eq!(
            ApiError::invalid(&PODS, "p", &["x".to_owned()]).message,
            "Pod \"p\" is invalid: x"
        );
        assert_eq!(
            ApiError::invalid(&DAEMONSETS, "d", &["x".to_owned()]).message,
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
