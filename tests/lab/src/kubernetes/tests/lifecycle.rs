//! What the lab alone can do to a cluster, on the stand-in: take it away, cut it off.

use super::served::standin as served;
use super::*;

const NODES: &str = "/api/v1/nodes";

#[tokio::test]
async fn the_api_is_served_only_while_the_cluster_is_active() {
    let served = served().await;
    let operator = served.user("OPERATOR");
    let nobody = served.with_token(None);
    assert_eq!(operator.post(NODES, a_node("a")).await.0, 201);
    assert_eq!(nobody.request(Method::GET, "/readyz").send().await.unwrap().status(), 200);
    let set = |status: &str| {
        served.world.change(|seen| seen.cluster.as_mut().unwrap().status = status.into());
    };
    set("DELETING");
    until(|| async { operator.get(NODES).await.0 == 503 }).await;
    assert_eq!(nobody.get("/readyz").await.0, 503);
    until(|| async { served.handle.nodes().is_empty() }).await;
    set("ACTIVE");
    until(|| async { operator.get("/api/v1/namespaces/kube-system").await.0 == 200 }).await;
    let (_, list) = operator.get(NODES).await;
    assert_eq!(list["items"], json!([]), "a new cluster starts empty");
}

/// The real one sends the same event; but it forgets by etcd's clock, which no test waits for.
#[tokio::test]
async fn a_watch_whose_past_is_forgotten_is_told_so_as_an_event() {
    let served = served().await;
    let operator = served.user("OPERATOR");
    let path = "/api/v1/nodes?watch=true&resourceVersion=1";
    let response = operator.request(Method::GET, path).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let event: Value = response.json().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert_eq!(event["object"]["reason"], "Expired");
}

#[tokio::test]
async fn an_instance_can_be_cut_off_and_the_whole_api_made_unreachable() {
    let served = served().await;
    let (a, b) = (served.user("NODEA"), served.user("NODEB"));
    served.handle.cut_off("i-a", true);
    assert!(a.request(Method::GET, "/version").send().await.is_err(), "no answer at all");
    assert_eq!(b.get("/version").await.0, 200);
    served.handle.cut_off("i-a", false);
    assert_eq!(a.get("/version").await.0, 200);

    served.handle.set_reachable(false);
    let refused = || async { b.request(Method::GET, "/version").send().await };
    until(|| async { refused().await.is_err_and(|error| error.is_connect()) }).await;
    served.handle.set_reachable(true);
    until(|| async { refused().await.is_ok() }).await;
    served.handle.stop().await;
    assert!(refused().await.is_err());
}
