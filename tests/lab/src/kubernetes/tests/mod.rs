//! Both gears' API servers as a whole, asked over TLS with real tokens.
//!
//! A check is written once and run against both: against a stand-in of its own as a test of its name,
//! and against the real API server in [`the_real_api_server_answers_the_same`], one after the other.
//! Where they differ, the stand-in is wrong. Only AWS is a double here ([`world`]).

mod access;
mod answers;
mod clients;
mod kubelets;
mod lifecycle;
mod nodes;
mod objects;
mod served;
mod watches;
mod world;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::real::Parts;
use served::{APPLY, Client, MERGE, STRATEGIC, Served};
use world::{decoded, encoded, minted, signed_for};

/// How long a test waits for what must come.
const PATIENCE: Duration = Duration::from_secs(60);
/// A node on the stand-in is silent after this long.
const GRACE: Duration = Duration::from_millis(900);

/// One check of a served cluster.
type Check = for<'a> fn(&'a Served) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Makes each check a test on the stand-in, and lists them all for the real one.
macro_rules! checks {
    ($($name:ident),+ $(,)?) => {
        pub(super) const CHECKS: &[(&str, super::Check)] =
            &[$((stringify!($name), |served| Box::pin($name(served)))),+];

        mod on_the_standin {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::kubernetes::tests::served::standin().await).await;
            })+
        }
    };
}
use checks;

#[tokio::test(flavor = "multi_thread")]
async fn the_real_api_server_answers_the_same() {
    let parts = match Parts::find() {
        Ok(parts) => parts,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let served = Arc::new(served::real(parts).await);
    let only = std::env::var("CHECK").unwrap_or_default();
    let mut failed = Vec::new();
    let all = [
        access::CHECKS,
        answers::CHECKS,
        clients::CHECKS,
        nodes::CHECKS,
        objects::CHECKS,
        watches::CHECKS,
    ];
    for (name, check) in all.concat().iter().filter(|(name, _)| name.contains(&only)) {
        let asked = Arc::clone(&served);
        let check = *check;
        if tokio::spawn(async move { check(&asked).await }).await.is_err() {
            failed.push(*name);
        }
        served.reset().await;
    }
    served.handle.stop().await;
    assert!(failed.is_empty(), "the real API server answers otherwise: {failed:#?}");
}

/// Waits until a condition holds, or fails.
async fn until<F, Fut>(mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "it did not come about in {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

fn a_node(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
        "labels": {"node-type": "gpu", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{name}"),
            "taints": [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]},
        "status": {"conditions": [ready("False")],
            "allocatable": {"cpu": "8", "memory": "8Gi", "pods": "110"}}})
}

fn ready(status: &str) -> Value {
    json!({"type": "Ready", "status": status, "reason": "x", "message": "x"})
}

/// Lets a node beat: a status with a heartbeat that is new.
async fn beat(client: &Client, name: &str, status: &str) {
    let mut condition = ready(status);
    condition["lastHeartbeatTime"] = jiff::Timestamp::now().to_string().into();
    let patch = json!({"status": {"conditions": [condition]}});
    let (code, answer) =
        client.patch(&format!("/api/v1/nodes/{name}/status"), STRATEGIC, patch).await;
    assert_eq!(code, 200, "{answer}");
}

fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or_default()
}

fn taint_keys(node: &Value) -> Vec<String> {
    let taints = node["spec"]["taints"].as_array().cloned().unwrap_or_default();
    taints.iter().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}
