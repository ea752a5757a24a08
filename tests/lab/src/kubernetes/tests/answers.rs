//! A script of requests and what the real API server answered, word for word where it refused.
//!
//! `answers.json` was recorded from it: `UPDATE_GOLDEN=1 cargo test --workspace --lib
//! the_real_api_server_answers_the_same`, where the real parts are. The stand-in is held against the
//! recording everywhere.

use super::served::Gear;
use super::*;

checks! {
    answers_are_those_of_the_real_api_server,
}

/// `WHO METHOD PATH`, and a body: JSON, or a patch of the named kind.
type Request = (&'static str, Option<(&'static str, Value)>);

const JSON: &str = "application/json";

fn get(what: &'static str) -> Request {
    (what, None)
}

fn with(what: &'static str, content_type: &'static str, body: Value) -> Request {
    (what, Some((content_type, body)))
}

/// In order: what one request makes, later ones find.
fn script() -> Vec<Request> {
    [nodes(), restrictions(), denials(), objects(), workloads(), wrong_requests()].concat()
}

fn nodes() -> Vec<Request> {
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    vec![
        get("NODEA GET /api/v1/nodes/a"),
        with("NODEA POST /api/v1/nodes", JSON, a_node("a")),
        with("NODEA POST /api/v1/nodes", JSON, a_node("a")),
        with("NODEA POST /api/v1/nodes", JSON, a_node("b")),
        with("OPERATOR POST /api/v1/nodes", JSON, a_node("b")),
        get("NODEA GET /api/v1/nodes/a"),
        get("NODEA GET /api/v1/nodes/b"),
        get("NODEA GET /api/v1/nodes"),
        get("NODEA GET /api/v1/nodes?fieldSelector=metadata.name%3Da"),
        get("NODEA GET /api/v1/nodes?fieldSelector=metadata.name%3Db"),
        with("NODEA PATCH /api/v1/nodes/a", STRATEGIC, label("mine")),
        with("NODEA PATCH /api/v1/nodes/b", STRATEGIC, label("mine")),
        with("NODEA PATCH /api/v1/nodes/none", STRATEGIC, label("mine")),
        with("NODEA PATCH /api/v1/nodes/b/status", STRATEGIC, json!({"status": {}})),
        get("NODEA DELETE /api/v1/nodes/a"),
        get("NODEA DELETE /api/v1/nodes/b"),
    ]
}

fn restrictions() -> Vec<Request> {
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let mut labelled = a_node("a");
    labelled["metadata"]["labels"]["node-role.kubernetes.io/gpu"] = "".into();
    let mut both = label("node-restriction.kubernetes.io/a");
    both["metadata"]["labels"]["kubernetes.io/z"] = "x".into();
    let taint = json!({"spec": {"taints": [
        {"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"},
        {"key": "more", "effect": "NoSchedule"}]}});
    vec![
        with("NODEA PATCH /api/v1/nodes/a", MERGE, label("node-role.kubernetes.io/gpu")),
        with("NODEA PATCH /api/v1/nodes/a", MERGE, label("topology.k8s.aws/zone-id")),
        with("NODEA PATCH /api/v1/nodes/a", MERGE, label("node.kubernetes.io/instance-type")),
        with("NODEA PATCH /api/v1/nodes/a", MERGE, both),
        with("NODEA PATCH /api/v1/nodes/a", MERGE, json!({"spec": {"taints": []}})),
        with("NODEA PATCH /api/v1/nodes/a", MERGE, taint),
        get("OPERATOR DELETE /api/v1/nodes/a"),
        with("NODEA POST /api/v1/nodes", JSON, labelled),
        with("NODEA POST /api/v1/nodes", JSON, a_node("a")),
    ]
}

fn denials() -> Vec<Request> {
    let event = json!({"metadata": {"name": "e", "namespace": "default"}, "reason": "R",
        "involvedObject": {"kind": "Node", "name": "a"}});
    let lease = |name: &str| {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name}, "spec": {"holderIdentity": name}})
    };
    let leases = "NODEA POST /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    vec![
        get("NODEA GET /api/v1/pods"),
        get("NODEA GET /api/v1/pods?fieldSelector=spec.nodeName%3Da"),
        get("NODEA GET /api/v1/pods?fieldSelector=spec.nodeName%3Db"),
        get("NODEA GET /api/v1/namespaces/default/pods/none"),
        get("NODEA GET /api/v1/services"),
        get("NODEA GET /api/v1/namespaces/kube-system"),
        get("NODEA GET /api/v1/namespaces/kube-system/configmaps"),
        get("NODEA GET /api/v1/namespaces/default/events"),
        with("NODEA POST /api/v1/namespaces/default/events", JSON, event),
        with("NODEA PATCH /api/v1/namespaces/default/events/e", STRATEGIC, json!({"count": 2})),
        get("OPERATOR GET /api/v1/namespaces/default/events/e"),
        get("OPERATOR DELETE /api/v1/namespaces/default/events/e"),
        with(leases, JSON, lease("a")),
        with(leases, JSON, lease("b")),
        get("NODEA GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/b"),
        get("NODEA GET /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"),
        get("NODEA GET /apis/coordination.k8s.io/v1/namespaces/default/leases/a"),
        get("OPERATOR DELETE /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/a"),
        get("NODEA GET /apis/apps/v1/namespaces/kube-system/daemonsets/aws-node"),
        get("NODEA GET /apis/apps/v1/daemonsets"),
        get("NODEA GET /apis/rbac.authorization.k8s.io/v1/clusterroles"),
        get("NODEA GET /metrics"),
        get("NODEA GET /version"),
        get("STRANGER GET /version"),
        get("NOBODY GET /version"),
    ]
}

fn objects() -> Vec<Request> {
    let map = |data: &str| json!({"metadata": {"name": "m"}, "data": {"a": data}});
    let mut stale = map("2");
    stale["metadata"]["resourceVersion"] = "1".into();
    let precondition = json!({"preconditions": {"uid": "no"}});
    vec![
        with("OPERATOR POST /api/v1/namespaces/default/configmaps", JSON, map("1")),
        with("OPERATOR POST /api/v1/namespaces/default/configmaps", JSON, map("1")),
        with("OPERATOR POST /api/v1/namespaces/no/configmaps", JSON, map("1")),
        with("OPERATOR PUT /api/v1/namespaces/default/configmaps/m", JSON, map("2")),
        with("OPERATOR PUT /api/v1/namespaces/default/configmaps/m", JSON, stale),
        with("OPERATOR PUT /api/v1/namespaces/default/configmaps/other", JSON, map("2")),
        get("OPERATOR GET /api/v1/namespaces/default/configmaps/none"),
        with("OPERATOR DELETE /api/v1/namespaces/default/configmaps/m", JSON, precondition),
        get("OPERATOR DELETE /api/v1/namespaces/default/configmaps/m"),
        get("OPERATOR DELETE /api/v1/namespaces/default/configmaps/m"),
        with("OPERATOR PATCH /api/v1/namespaces/default/configmaps/m", MERGE, json!({"data": {}})),
    ]
}

fn workloads() -> Vec<Request> {
    let set = |labels: Value, containers: Value| {
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "d"},
            "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": containers}}}})
    };
    let good = json!([{"name": "c", "image": "i"}]);
    let sets = "OPERATOR POST /apis/apps/v1/namespaces/kube-system/daemonsets";
    let applied =
        "OPERATOR PATCH /apis/apps/v1/namespaces/kube-system/daemonsets/d?fieldManager=one";
    let others =
        "OPERATOR PATCH /apis/apps/v1/namespaces/kube-system/daemonsets/d?fieldManager=two";
    let app = json!({"app": "d"});
    vec![
        with(sets, JSON, set(json!({"app": "other"}), good.clone())),
        with(sets, JSON, set(app.clone(), json!([]))),
        with(sets, JSON, set(app.clone(), json!([{"name": "c"}]))),
        with(sets, JSON, json!({"metadata": {"name": "d"}, "spec": {}})),
        with(applied, APPLY, set(app.clone(), good.clone())),
        with(others, APPLY, set(app, good)),
        get("OPERATOR GET /apis/apps/v1/namespaces/kube-system/daemonsets/none"),
        get("OPERATOR DELETE /apis/apps/v1/namespaces/kube-system/daemonsets/d"),
    ]
}

fn wrong_requests() -> Vec<Request> {
    let apply = "OPERATOR PATCH /api/v1/namespaces/default/configmaps/m";
    vec![
        with("OPERATOR POST /api/v1/nodes", JSON, json!({"kind": "Pod", "apiVersion": "v1"})),
        with("OPERATOR POST /api/v1/nodes", JSON, json!({"metadata": {"name": "Upper"}})),
        with("OPERATOR POST /api/v1/nodes", JSON, json!({})),
        with(
            "OPERATOR POST /api/v1/namespaces/default/pods",
            JSON,
            json!({"metadata": {"name": "p"}}),
        ),
        with("OPERATOR PATCH /api/v1/nodes/a", "text/plain", json!({})),
        with(
            apply,
            APPLY,
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m"}}),
        ),
        get("OPERATOR GET /api/v1/nodes?labelSelector=a%20b%20c"),
        get("OPERATOR GET /api/v1/nodes?fieldSelector=spec.nothing%3D1"),
        get("OPERATOR GET /api/v1/widgets"),
        get("OPERATOR GET /api/v1/nodes/a/widgets"),
        get("OPERATOR GET /apis/example.com/v1"),
        get("OPERATOR GET /apis/example.com/v1/widgets"),
        get("OPERATOR GET /nothing"),
        get("NODEA GET /nothing"),
        get("OPERATOR PUT /api/v1/nodes"),
    ]
}

async fn answers_are_those_of_the_real_api_server(served: &Served) {
    let mut answers = Vec::new();
    for (what, body) in script() {
        let mut words = what.splitn(3, ' ');
        let (who, method, path) =
            (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let mut request = served.user(who).request(method.parse().unwrap(), path);
        if let Some((content_type, body)) = body {
            request = request.header("content-type", content_type).body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let code = response.status().as_u16();
        let body = essence(code, &response.text().await.unwrap());
        answers.push(json!({"asked": what, "code": code, "body": body}));
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/kubernetes/tests/answers.json");
    if served.gear() == Gear::Real && std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(&answers).unwrap();
        return std::fs::write(path, text + "\n").unwrap();
    }
    let recorded: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut wrong = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        let expected = recorded.get(at).unwrap_or(&Value::Null);
        if answer != expected {
            wrong.push(format!("expected {expected}\n     got {answer}"));
        }
    }
    assert_eq!(answers.len(), recorded.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), answers.len(), wrong.join("\n"));
}

fn without_uids(message: &str) -> String {
    let is_uid = |word: &str| word.len() == 36 && word.matches('-').count() == 4;
    let inner = |c: char| c.is_ascii_hexdigit() || c == '-';
    let uids = message.split(|c| !inner(c)).filter(|word| is_uid(word));
    uids.fold(message.to_owned(), |text, uid| text.replace(uid, "UID"))
}

/// What must be the same: a refusal to the letter; of an object what it is and is called, as its
/// defaults are not the stand-in's affair; of a list the names.
fn essence(code: u16, body: &str) -> Value {
    let Ok(mut body) = serde_json::from_str::<Value>(body) else { return body.into() };
    if code >= 400 || body["kind"] == "Status" {
        if let Some(details) = body.get_mut("details").and_then(Value::as_object_mut) {
            details.remove("uid");
        }
        if let Some(message) = body["message"].as_str() {
            body["message"] = without_uids(message).into();
        }
        return body;
    }
    if let Some(items) = body["items"].as_array() {
        let names: Vec<&Value> = items.iter().map(|item| &item["metadata"]["name"]).collect();
        return json!({"kind": body["kind"], "apiVersion": body["apiVersion"], "items": names});
    }
    let meta = &body["metadata"];
    json!({"kind": body["kind"], "apiVersion": body["apiVersion"], "name": meta["name"],
        "namespace": meta["namespace"], "generation": meta["generation"]})
}
