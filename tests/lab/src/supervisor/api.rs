//! The supervisor's own API, for `lab status` and `lab fault`: HTTP on the address that claims the
//! lab's range, opened by a token that only the lab's user can read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::record::{Component, Record};
use crate::faults::{Entry, Fault, FaultError, Target};
use crate::instances::node::NodeView;
use crate::instances::runner::Runner;
use crate::nodes::machine::Ground;

/// Header with the token.
const TOKEN: &str = "x-lab-token";
/// Breaking something takes a few calls to the emulator at most.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What `lab status` shows.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The lab's directory.
    pub directory: String,
    /// The supervisor's pid.
    pub supervisor: i32,
    /// When it started.
    pub since: String,
    /// Scale of all emulated durations.
    pub speed: f64,
    /// Its parts, and which are real.
    pub components: BTreeMap<String, Component>,
    /// The emulator.
    pub endpoint: String,
    /// The Kubernetes API.
    pub kubernetes: String,
    /// What machine nodes are made of, where nodes are machines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<Machines>,
    /// The nodes.
    pub nodes: Vec<NodeView>,
    /// Faults in force and remembered.
    pub faults: Vec<Entry>,
}

/// What machine nodes are made of.
#[derive(Clone, Debug, Serialize)]
pub struct Machines {
    /// Versions of the real parts, by name.
    pub parts: BTreeMap<String, String>,
    /// The file of what machines need beyond AL2023.
    pub settings: PathBuf,
    /// Its text.
    pub text: String,
}

impl Machines {
    fn of(ground: &Ground) -> Self {
        let settings = ground.settings();
        let text = std::fs::read_to_string(&settings).unwrap_or_default();
        Self { parts: ground.parts().versions(), settings, text }
    }
}

/// What `lab fault` asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FaultRequest {
    /// `POOL/INDEX` or `all`.
    pub target: String,
    /// A fault; `clear` lifts all of the target's, `clear:FAULT` one of them.
    pub fault: String,
}

/// Before the one fault that is to be lifted.
pub(crate) const LIFT: &str = "clear:";

/// The API.
#[derive(Debug)]
pub struct Api {
    /// What has been recorded.
    pub record: Record,
    /// The lab's directory.
    pub directory: String,
    /// The emulator's pid.
    pub emulator: i32,
    /// The nodes.
    pub runner: Arc<Runner>,
}

impl Api {
    /// The routes.
    pub fn router(self) -> Router {
        let api = Arc::new(self);
        Router::new()
            .route("/status", get(status))
            .route("/faults", post(fault))
            .layer(middleware::from_fn_with_state(Arc::clone(&api), authorise))
            .with_state(api)
    }
}

async fn authorise(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let token = request.headers().get(TOKEN).and_then(|value| value.to_str().ok());
    if token == Some(api.record.token.as_str()) {
        next.run(request).await
    } else {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn status(State(api): State<Arc<Api>>) -> Json<Status> {
    let components = api.record.components(api.emulator);
    Json(Status {
        directory: api.directory.clone(),
        supervisor: api.record.supervisor.pid,
        since: api.record.since.clone(),
        speed: api.record.options.speed,
        components: components.into_iter().map(|(name, c)| (name.to_owned(), c)).collect(),
        endpoint: api.record.endpoint.clone(),
        kubernetes: api.record.kubernetes.clone(),
        machines: api.runner.ground().map(Machines::of),
        nodes: api.runner.view(),
        faults: api.runner.faults(),
    })
}

async fn fault(State(api): State<Arc<Api>>, Json(request): Json<FaultRequest>) -> Response {
    match change(&api.runner, &request).await {
        Ok(message) => Json(json!({ "message": message })).into_response(),
        Err(error) => {
            let status = match error {
                FaultError::World { .. } => StatusCode::BAD_GATEWAY,
                _ => StatusCode::BAD_REQUEST,
            };
            (status, Json(json!({ "error": error.to_string() }))).into_response()
        }
    }
}

async fn change(runner: &Runner, request: &FaultRequest) -> Result<String, FaultError> {
    let target: Target = request.target.parse()?;
    if request.fault == "clear" {
        return runner.clear(&target).await;
    }
    if let Some(fault) = request.fault.strip_prefix(LIFT) {
        return runner.lift(&target, &fault.parse()?).await;
    }
    let fault: Fault = request.fault.parse()?;
    runner.break_it(target, fault).await
}

/// Asks a live supervisor. Answers the HTTP status and the body.
///
/// # Errors
/// When it does not answer.
pub(crate) async fn ask(
    record: &Record,
    path: &str,
    body: Option<&FaultRequest>,
) -> Result<(u16, Value), reqwest::Error> {
    let http = reqwest::Client::new();
    let url = format!("{}{path}", record.api);
    let request = match body {
        Some(body) => http.post(url).json(body),
        None => http.get(url),
    };
    let answer = request.header(TOKEN, &record.token).timeout(TIMEOUT).send().await?;
    let status = answer.status().as_u16();
    Ok((status, answer.json().await.unwrap_or(Value::Null)))
}
