//! One request's way: is the cluster served, who asks, what for, may they, do it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Limited};
use hyper::Request;
use hyper::body::{Bytes, Incoming};
use serde_json::Value;

use super::authz::{self, Attributes, Decision};
use super::registry::{self, PODS, RESOURCESLICES};
use super::reply::{self, Reply};
use super::request::{Query, ResourceRequest, Target, resolve};
use super::selector::Fields;
use super::status::ApiError;
use super::store::Store;
use super::{discovery, resources, reviews, watching};
use crate::kubernetes::authn::{Authenticator, User};
use crate::kubernetes::world::{Cluster, Strike, Watcher, WorldError, Write};

/// The largest body that is read, as in the API server.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

/// How long the API server remembers who a token is; it has no flag for it.
const REMEMBERED_FOR: Duration = Duration::from_secs(10);

/// EKS takes a token whose date is at most this many seconds off.
const TOKEN_LIFE: u64 = 15 * 60;

/// Everything a request needs.
#[derive(Debug)]
pub(super) struct ApiServer {
    pub(super) store: Arc<Store>,
    pub(super) watcher: Watcher,
    pub(super) authenticator: Authenticator,
    pub(super) remembered: Remembered,
    pub(super) region: String,
    /// Instances whose requests get no answer.
    pub(super) cut_off: Mutex<BTreeSet<String>>,
    /// By how many seconds the server's clock is ahead of an instance's, where they differ.
    pub(super) clocks: Mutex<BTreeMap<String, i64>>,
}

/// Whose tokens these are, as the API server remembers it: an access entry that is revoked meanwhile
/// shuts out a known token only then.
#[derive(Debug, Default)]
pub(super) struct Remembered(Mutex<HashMap<String, (User, Instant)>>);

impl Remembered {
    fn user(&self, token: &str) -> Option<User> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (user, since) = known.get(token)?;
        (since.elapsed() < REMEMBERED_FOR).then(|| user.clone())
    }

    fn keep(&self, token: &str, user: &User) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, since)| since.elapsed() < REMEMBERED_FOR);
        known.insert(token.to_owned(), (user.clone(), Instant::now()));
    }
}

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("cut off")]
pub(super) struct HangUp;

/// A request, with its body read.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Query,
    pub(super) content_type: String,
    pub(super) body: Bytes,
}

/// Answers a request.
pub(super) async fn answer(
    server: Arc<ApiServer>,
    request: Request<Incoming>,
) -> Result<Reply, HangUp> {
    let (parts, body) = request.into_parts();
    let authorization = header(&parts.headers, "authorization").map(str::to_owned);
    let content_type = header(&parts.headers, "content-type").unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim().to_owned();
    let Ok(body) = Limited::new(body, BODY_LIMIT).collect().await else {
        return Ok(reply::error(&ApiError::too_large()));
    };
    let asked = Asked {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: Query::parse(parts.uri.query().unwrap_or_default()),
        content_type,
        body: body.to_bytes(),
    };
    let mut ahead = 0;
    let answered = server.serve(authorization.as_deref(), &asked, &mut ahead).await;
    let dated = |reply| if ahead == 0 { reply } else { reply::dated(reply, ahead) };
    match answered {
        Ok(Some(reply)) => Ok(dated(reply)),
        Ok(None) => Err(HangUp),
        Err(error) => {
            tracing::debug!(
                method = asked.method,
                path = asked.path,
                code = error.code,
                message = error.message,
                "refused"
            );
            Ok(dated(reply::error(&error)))
        }
    }
}

fn header<'a>(headers: &'a hyper::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

impl ApiServer {
    /// `Ok(None)`: the asker is cut off. `ahead` becomes how far our clock is ahead of the asker's.
    async fn serve(
        &self,
        authorization: Option<&str>,
        asked: &Asked,
        ahead: &mut i64,
    ) -> Result<Option<Reply>, ApiError> {
        let cluster = self.served_cluster().await?;
        if matches!(asked.path.as_str(), "/healthz" | "/livez" | "/readyz") && asked.method == "GET"
        {
            return Ok(Some(reply::text(200, "ok")));
        }
        let user = self.authenticate(authorization, &cluster).await?;
        *ahead = self.ahead_of(&user);
        if ahead.unsigned_abs() > TOKEN_LIFE {
            // The token's date is too far from ours.
            return Err(ApiError::unauthorized());
        }
        if self.is_cut_off(&user) {
            return Ok(None);
        }
        let target = resolve(&asked.method, &asked.path, &asked.query);
        let strike = self.strike(&user, &target, asked).await?;
        if strike.is("reset") {
            return Ok(None);
        }
        let reply = match target {
            Target::Review { group, resource, kind } => {
                if asked.method != "POST" {
                    return Err(ApiError::method_not_allowed());
                }
                reviews::answer(&user, (group, resource, kind), &asked.body, &self.store)?
            }
            Target::Resource(request) => self.serve_resource(&user, &request, asked)?,
            Target::Path => self.serve_path(&user, asked, &cluster)?,
        };
        if strike.is("hold") {
            self.watcher.world().hold(strike.number).await.map_err(unanswered)?;
        }
        let answered = !(strike.is("hold") || strike.is("reset_after"));
        Ok(answered.then_some(reply))
    }

    /// What the emulator's fault rules do to a change that an operator asks for.
    async fn strike(
        &self,
        user: &User,
        target: &Target,
        asked: &Asked,
    ) -> Result<Strike, ApiError> {
        let Some(write) = write_of(user, target, asked) else { return Ok(Strike::default()) };
        let strike = self.watcher.world().strike(&write).await.map_err(unanswered)?;
        match strike.action.as_deref() {
            Some("throttle") => Err(ApiError::too_many_requests()),
            Some("error") => Err(ApiError::unavailable()),
            _ => Ok(strike),
        }
    }

    async fn served_cluster(&self) -> Result<Cluster, ApiError> {
        let observation = self.watcher.observation().await.map_err(unanswered)?;
        let cluster = observation.cluster.clone().filter(Cluster::is_served);
        cluster.ok_or_else(ApiError::unavailable)
    }

    async fn authenticate(
        &self,
        authorization: Option<&str>,
        cluster: &Cluster,
    ) -> Result<User, ApiError> {
        let header = authorization.unwrap_or_default();
        if let Some(user) = self.remembered.user(header) {
            return Ok(user);
        }
        let checked = self.authenticator.user(authorization, &self.watcher, cluster, &self.region);
        let user = checked.await.map_err(|error| {
            tracing::warn!(error = %error, "a token could not be checked");
            ApiError::unavailable()
        })?;
        let user = user.ok_or_else(ApiError::unauthorized)?;
        self.remembered.keep(header, &user);
        Ok(user)
    }

    fn ahead_of(&self, user: &User) -> i64 {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&user.session).copied().unwrap_or_default()
    }

    fn is_cut_off(&self, user: &User) -> bool {
        let cut_off = self.cut_off.lock().unwrap_or_else(PoisonError::into_inner);
        cut_off.contains(&user.session)
    }

    fn serve_path(&self, user: &User, asked: &Asked, cluster: &Cluster) -> Result<Reply, ApiError> {
        let verb = asked.method.to_ascii_lowercase();
        let attributes = Attributes {
            verb: &verb,
            group: "",
            resource: "",
            namespace: "",
            name: "",
            path: Some(&asked.path),
            own_only: false,
            own: false,
        };
        if authz::authorize(user, &attributes, &self.store) != Decision::Allow {
            return Err(ApiError::forbidden_path(&verb, &asked.path, &user.name));
        }
        let document = discovery::document(&asked.path, cluster.version.as_deref());
        document.map(|value| reply::json(200, &value)).ok_or_else(|| unserved(&asked.path))
    }

    fn serve_resource(
        &self,
        user: &User,
        request: &ResourceRequest,
        asked: &Asked,
    ) -> Result<Reply, ApiError> {
        self.check_access(user, request, &asked.query)?;
        if asked.query.get("dryRun").is_some() {
            return Err(ApiError::bad_request("dryRun is not served by this stand-in"));
        }
        match request.verb {
            "get" => resources::get(&self.store, request),
            "list" => resources::list(&self.store, request, &asked.query),
            "watch" => watching::start(&self.store, request, &asked.query),
            "create" => resources::create(&self.store, user, request, asked),
            "update" => resources::update(&self.store, user, request, asked),
            "patch" => resources::patch(&self.store, user, request, asked),
            "delete" => resources::delete(&self.store, user, request, asked),
            "deletecollection" => resources::delete_all(&self.store, request, &asked.query),
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    fn check_access(
        &self,
        user: &User,
        request: &ResourceRequest,
        query: &Query,
    ) -> Result<(), ApiError> {
        let node = user.node_name();
        let resource = request.resource_path();
        let attributes = Attributes {
            verb: request.verb,
            group: request.kind.group,
            resource: &resource,
            namespace: request.authorized_namespace(),
            name: &request.name,
            path: None,
            own_only: node.is_some_and(|node| narrowed_to(node, query)),
            own: node.is_some_and(|node| self.runs_on(node, request)),
        };
        match authz::authorize(user, &attributes, &self.store) {
            Decision::Allow => Ok(()),
            Decision::Deny(why) => Err(ApiError::forbidden(request, &user.name, &why)),
        }
    }

    /// Whether the pod or ResourceSlice that is asked for is this node's.
    fn runs_on(&self, node: &str, request: &ResourceRequest) -> bool {
        (request.kind == &PODS || request.kind == &RESOURCESLICES)
            && self
                .store
                .get(request.kind, &request.namespace, &request.name)
                .is_some_and(|object| object["spec"]["nodeName"] == node)
    }
}

fn unanswered(error: WorldError) -> ApiError {
    tracing::warn!(error = %error, "the AWS emulator does not answer");
    ApiError::unavailable()
}

/// The change that a request asks for; none for reads, and for what nodes and pods do.
fn write_of(user: &User, target: &Target, asked: &Asked) -> Option<Write> {
    let Target::Resource(request) = target else { return None };
    if user.node_name().is_some() || matches!(request.verb, "get" | "list" | "watch") {
        return None;
    }
    let (_, caller) = user.extra.iter().find(|(key, _)| *key == "arn")?;
    let verb = request.verb.trim_end_matches("collection");
    let (first, rest) = verb.split_at(1);
    let named = || {
        let object: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    };
    Some(Write {
        op: format!("{}{rest}{}", first.to_ascii_uppercase(), request.kind.kind),
        resource: if request.name.is_empty() { named() } else { request.name.clone() },
        caller: caller.clone(),
    })
}

/// What is said where nothing is: a known resource has another method, a known group another resource.
fn unserved(path: &str) -> ApiError {
    if matches!(resolve("GET", path, &Query::default()), Target::Resource(_)) {
        return ApiError::method_not_allowed();
    }
    let served = registry::ALL.iter().any(|kind| {
        let root = if kind.group.is_empty() { "/api/" } else { "/apis/" };
        path.starts_with(&format!("{root}{}/", kind.api_version()))
    });
    if served { ApiError::no_such_resource() } else { ApiError::no_such_path() }
}

fn narrowed_to(node: &str, query: &Query) -> bool {
    let fields = query.get("fieldSelector").map(Fields::parse);
    matches!(fields, Some(Ok(fields)) if fields.requires("spec.nodeName", node))
}

/// Reads a body as an object: JSON, or YAML, of which JSON is a part.
pub(super) fn parse_object(body: &[u8]) -> Result<Value, ApiError> {
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(json) => serde_yaml::from_slice(body).map_err(|_| {
            ApiError::bad_request(format!("the object provided is unrecognized: {json}"))
        })?,
    };
    if value.is_object() {
        Ok(value)
    } else {
        Err(ApiError::bad_request("the object provided is unrecognized: it is not an object"))
    }
}
