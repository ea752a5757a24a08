//! `control token`: a Kubernetes token for kubectl, without the AWS CLI.

use std::time::SystemTime;

use anyhow::Context as _;
use aws_credential_types::provider::ProvideCredentials as _;
use contract::ExitCode;
use serde::Serialize;

use crate::aws::Clients;
use crate::cli::TokenArgs;
use crate::commands::Context;
use eks_token::Token;

const V1: &str = "client.authentication.k8s.io/v1";
const V1BETA1: &str = "client.authentication.k8s.io/v1beta1";

/// Runs the verb.
///
/// # Errors
/// When there is no region or there are no credentials.
pub async fn run(args: &TokenArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let credentials =
        clients.credentials.provide_credentials().await.context("could not get credentials")?;
    let token =
        eks_token::mint(&credentials, &clients.region, &args.cluster_name, SystemTime::now())?;
    if args.raw {
        context.printer.line(token.expose());
    } else {
        // kubectl says in this variable which version of the answer it reads.
        let asked = std::env::var("KUBERNETES_EXEC_INFO").unwrap_or_default();
        context.printer.line(serde_json::to_string(&credential(&token, api_version(&asked)))?);
    }
    Ok(ExitCode::Success)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExecCredential<'a> {
    kind: &'static str,
    api_version: &'static str,
    spec: serde_json::Map<String, serde_json::Value>,
    status: Status<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    expiration_timestamp: String,
    token: &'a str,
}

fn credential<'a>(token: &'a Token, api_version: &'static str) -> ExecCredential<'a> {
    // Whole seconds: kubectl reads metav1.Time, which has no fraction.
    let seconds = token
        .expires()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    let expires = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX);
    ExecCredential {
        kind: "ExecCredential",
        api_version,
        spec: serde_json::Map::new(),
        status: Status { expiration_timestamp: expires.to_string(), token: token.expose() },
    }
}

/// The version to answer in, from `KUBERNETES_EXEC_INFO`.
fn api_version(exec_info: &str) -> &'static str {
    let asked = serde_json::from_str::<serde_json::Value>(exec_info).ok();
    match asked.as_ref().and_then(|info| info["apiVersion"].as_str()) {
        Some(V1) => V1,
        _ => V1BETA1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_credential_types::Credentials;

    use super::*;

    #[test]
    fn the_answer_is_what_kubectl_reads() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_204_800);
        let token = eks_token::mint(&credentials, "us-east-1", "prod", at).unwrap();
        let answer = serde_json::to_value(credential(&token, api_version(""))).unwrap();
        assert_eq!(
            answer,
            serde_json::json!({
                "kind": "ExecCredential",
                "apiVersion": "client.authentication.k8s.io/v1beta1",
                "spec": {},
                "status": {"expirationTimestamp": "2026-11-20T20:14:00Z", "token": token.expose()},
            })
        );
    }

    #[test]
    fn answers_in_the_version_that_is_asked_for() {
        assert_eq!(api_version(&format!("{{\"apiVersion\":\"{V1}\"}}")), V1);
        assert_eq!(api_version(&format!("{{\"apiVersion\":\"{V1BETA1}\"}}")), V1BETA1);
        assert_eq!(api_version("nonsense"), V1BETA1);
    }
}
