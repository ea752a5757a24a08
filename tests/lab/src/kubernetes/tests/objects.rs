//! Reading and writing objects.

use super::*;

checks! {
    a_condition_is_patched_beside_the_others_and_through_status_alone,
    a_stale_update_conflicts_and_a_fresh_one_does_not,
    apply_creates_then_changes_only_what_differs,
    lists_are_narrowed_by_labels_and_fields,
}

const NODES: &str = "/api/v1/nodes";

async fn a_condition_is_patched_beside_the_others_and_through_status_alone(served: &Served) {
    let a = served.user("NODEA");
    assert_eq!(a.post(NODES, a_node("a")).await.0, 201);
    let condition_patch = json!({"status": {"conditions": [
        {"type": "AcceleratedHardwareReady", "status": "True", "reason": "x"}]}});
    let (code, node) = a.patch("/api/v1/nodes/a/status", STRATEGIC, condition_patch.clone()).await;
    assert_eq!(code, 200);
    assert_eq!(condition(&node, "AcceleratedHardwareReady")["status"], "True");
    assert_eq!(condition(&node, "Ready")["status"], "False");
    // The controllers write to a new node as well: they come to rest.
    let again = || async {
        let (_, node) = a.patch("/api/v1/nodes/a/status", STRATEGIC, condition_patch.clone()).await;
        node["metadata"]["resourceVersion"].clone()
    };
    until(|| async { again().await == again().await }).await;
    let through_main = json!({"status": {"conditions": []}});
    let (_, kept) = a.patch("/api/v1/nodes/a", MERGE, through_main).await;
    assert_eq!(condition(&kept, "AcceleratedHardwareReady")["status"], "True");
}

async fn a_stale_update_conflicts_and_a_fresh_one_does_not(served: &Served) {
    let operator = served.user("OPERATOR");
    let maps = "/api/v1/namespaces/default/configmaps";
    let (code, mut map) = operator.post(maps, json!({"metadata": {"name": "m"}})).await;
    assert_eq!(code, 201);
    map["data"] = json!({"a": "1"});
    let (code, _) = operator.put(&format!("{maps}/m"), map.clone()).await;
    assert_eq!(code, 200);
    map["data"] = json!({"a": "2"});
    let (code, refused) = operator.put(&format!("{maps}/m"), map).await;
    assert_eq!(code, 409);
    assert_eq!(
        refused["message"],
        "Operation cannot be fulfilled on configmaps \"m\": the object has been modified; please \
         apply your changes to the latest version and try again"
    );
    assert_eq!(operator.get(&format!("{maps}/none")).await.0, 404);
    let (code, gone) = operator.delete(&format!("{maps}/m")).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")));
    assert_eq!(operator.delete(&format!("{maps}/m")).await.0, 404);
}

async fn apply_creates_then_changes_only_what_differs(served: &Served) {
    let operator = served.user("OPERATOR");
    let path = "/apis/apps/v1/namespaces/kube-system/daemonsets/d";
    let apply = format!("{path}?fieldManager=rollcall&force=true");
    let set = |image: &str, extra: bool| {
        let mut set = json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "d", "namespace": "kube-system"},
            "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
                "metadata": {"labels": {"app": "d"}},
                "spec": {"containers": [{"name": "c", "image": image}]}}}});
        if extra {
            set["metadata"]["labels"] = json!({"mine": "1"});
        }
        set
    };
    assert_eq!(operator.patch(path, APPLY, set("1", true)).await.0, 422, "who applies?");
    assert_eq!(operator.patch(&apply, APPLY, set("1", true)).await.0, 201);
    until(|| async { !operator.get(path).await.1["status"]["observedGeneration"].is_null() }).await;
    let (_, first) = operator.get(path).await;
    let (code, again) = operator.patch(&apply, APPLY, set("1", true)).await;
    assert_eq!(code, 200);
    assert_eq!(again["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let (_, changed) = operator.patch(&apply, APPLY, set("2", false)).await;
    assert_eq!(changed["metadata"]["generation"], 2);
    assert!(changed["metadata"]["labels"].is_null(), "mine alone, and I no longer name it");
    assert_eq!(changed["spec"]["template"]["spec"]["containers"][0]["image"], "2");
}

async fn lists_are_narrowed_by_labels_and_fields(served: &Served) {
    let operator = served.user("OPERATOR");
    for name in ["a", "b"] {
        operator.post(NODES, a_node(name)).await;
    }
    let table = [
        ("", 2),
        ("?labelSelector=node-type%3Dgpu", 2),
        ("?labelSelector=node-type%20in%20(system)", 0),
        ("?fieldSelector=metadata.name%3Da&limit=500", 1),
    ];
    for (query, count) in table {
        let (_, list) = operator.get(&format!("{NODES}{query}")).await;
        assert_eq!(list["kind"], "NodeList");
        assert_eq!(list["items"].as_array().unwrap().len(), count, "{query}");
    }
}
