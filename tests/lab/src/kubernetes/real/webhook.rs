//! EKS's token webhook: who a bearer token is, asked by the API server for each new token.
//!
//! The check itself is [`Authenticator`]'s: form, host, age, STS, access entry. EKS grants
//! access policies through an authorizer of its own; here a policy is a group, which
//! [`super::bootstrap`] binds to what the policy allows.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Json, Router, routing};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::kubernetes::authn::{Authenticator, User};
use crate::kubernetes::world::{Watcher, WorldError};

/// The group that stands for an access policy.
pub(super) fn policy_group(policy: &str) -> String {
    format!("eks:access-policy:{policy}")
}

/// Answers TokenReviews.
#[derive(Debug)]
pub(super) struct Webhook {
    pub(super) watcher: Arc<Watcher>,
    pub(super) authenticator: Authenticator,
    pub(super) region: String,
}

/// Serves the webhook for as long as the task lives.
pub(super) async fn serve(listener: TcpListener, webhook: Arc<Webhook>) {
    let router = Router::new().route("/", routing::post(review)).with_state(webhook);
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "the token webhook ended");
    }
}

async fn review(
    State(webhook): State<Arc<Webhook>>,
    Json(review): Json<Value>,
) -> Result<Json<Value>, (StatusCode, String)> {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let user = webhook.user(token).await;
    let user = user.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    Ok(Json(answer(user.as_ref())))
}

impl Webhook {
    async fn user(&self, token: &str) -> Result<Option<User>, WorldError> {
        let observation = self.watcher.observation().await?;
        let Some(cluster) = observation.cluster.as_ref() else { return Ok(None) };
        let header = format!("Bearer {token}");
        self.authenticator.user(Some(&header), &self.watcher, cluster, &self.region).await
    }
}

/// The TokenReview that says who it is. Pure.
fn answer(user: Option<&User>) -> Value {
    let status = match user {
        None => json!({"authenticated": false}),
        Some(user) => {
            let policies = user.policies.iter().map(|policy| policy_group(policy));
            let groups: Vec<String> = user.groups.iter().cloned().chain(policies).collect();
            let extra: serde_json::Map<String, Value> =
                user.extra.iter().map(|(key, value)| ((*key).to_owned(), json!([value]))).collect();
            json!({"authenticated": true, "user": {
                "username": user.name, "uid": user.uid, "groups": groups, "extra": extra,
            }})
        }
    };
    json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_carries_its_policies_as_groups_and_nobody_carries_nothing() {
        let user = User {
            name: "system:node:a".into(),
            uid: "u".into(),
            groups: vec!["system:nodes".into()],
            extra: vec![("arn", "arn:aws:sts::1:assumed-role/r/i-1".into())],
            policies: vec!["AmazonEKSClusterAdminPolicy".into()],
            session: "i-1".into(),
        };
        let status = &answer(Some(&user))["status"];
        assert_eq!(
            status["user"]["groups"],
            json!(["system:nodes", "eks:access-policy:AmazonEKSClusterAdminPolicy"])
        );
        assert_eq!(status["user"]["extra"]["arn"], json!(["arn:aws:sts::1:assumed-role/r/i-1"]));
        assert_eq!(answer(None)["status"], json!({"authenticated": false}));
    }
}
