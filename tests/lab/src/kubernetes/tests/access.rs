//! Who is let in, as whom, and to what.

use super::*;

checks! {
    tokens_that_eks_refuses_are_answered_with_401,
    a_review_says_under_which_name_and_groups_one_is_known,
    a_revoked_access_entry_is_seen_when_the_token_is_forgotten,
    what_a_node_may_not_do_is_refused_in_the_api_servers_words,
    rbac_is_evaluated_and_reviews_agree_with_it,
}

const NODES: &str = "/api/v1/nodes";
const REVIEW: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";

async fn tokens_that_eks_refuses_are_answered_with_401(served: &Served) {
    let good = minted("OPERATOR", "prod", Duration::ZERO);
    let url = decoded(&good);
    let old = Duration::from_secs(15 * 60 + 5);
    let table = [
        ("none", None),
        ("not a token", Some("abc".to_owned())),
        ("for another host", Some(encoded(&url.replace("sts.us-east-1", "sts.example")))),
        ("for the lab's own STS", Some(signed_for("127.0.0.1:4566"))),
        ("for another cluster", Some(minted("OPERATOR", "other", Duration::ZERO))),
        ("too old", Some(minted("OPERATOR", "prod", old))),
        ("header not signed", Some(encoded(&url.replace("%3Bx-k8s-aws-id", "")))),
        ("signature changed", Some(encoded(&url.replace("Signature=", "Signature=0")))),
        ("unknown key", Some(minted("NOBODY", "prod", Duration::ZERO))),
        ("no access entry", Some(minted("STRANGER", "prod", Duration::ZERO))),
    ];
    for (what, token) in table {
        let (code, status) = served.with_token(token).get(NODES).await;
        assert_eq!(code, 401, "{what}");
        assert_eq!(
            status,
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Unauthorized", "reason": "Unauthorized", "code": 401}),
            "{what}"
        );
    }
    assert_eq!(served.with_token(Some(good)).get(NODES).await.0, 200);
    let aged = minted("OPERATOR", "prod", Duration::from_secs(14 * 60));
    assert_eq!(served.with_token(Some(aged)).get(NODES).await.0, 200, "EKS grants 15 minutes");
}

async fn a_review_says_under_which_name_and_groups_one_is_known(served: &Served) {
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let (code, node) = served.user("NODEA").post(REVIEW, body).await;
    assert_eq!(code, 201);
    let user = &node["status"]["userInfo"];
    assert_eq!(user["username"], "system:node:a");
    let groups = json!(["system:bootstrappers", "system:nodes", "system:authenticated"]);
    assert_eq!(user["groups"], groups);
    assert_eq!(user["extra"]["sessionName"], json!(["i-a"]));
    let (code, operator) =
        served.user("OPERATOR").post_protobuf(REVIEW, &review_in_protobuf()).await;
    assert_eq!(code, 201, "kubectl asks in protobuf");
    assert_eq!(operator["status"]["userInfo"]["username"], "arn:aws:iam::1:user/operator");
}

/// An empty SelfSubjectReview as kubectl writes it: `k8s`, a zero, and runtime.Unknown.
fn review_in_protobuf() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).unwrap();
        [&[number << 3 | 2, length], content].concat()
    };
    let version = field(1, b"authentication.k8s.io/v1");
    let kind = field(2, b"SelfSubjectReview");
    [b"k8s\0".as_slice(), &field(1, &[version, kind].concat()), &field(2, b"")].concat()
}

/// The API server remembers who a token is for 10 s; a token that it has not seen is asked about.
async fn a_revoked_access_entry_is_seen_when_the_token_is_forgotten(served: &Served) {
    let node = served.user("NODEA");
    assert_eq!(node.get("/version").await.0, 200);
    served.world.change(|seen| {
        seen.cluster.as_mut().unwrap().access_entries.retain(|entry| entry.kind != "EC2_LINUX");
    });
    let first = tokio::time::Instant::now();
    let ages = std::sync::atomic::AtomicU64::new(1);
    let fresh = || {
        let age = ages.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        served.with_token(Some(minted("NODEA", "prod", Duration::from_secs(age))))
    };
    until(|| async { fresh().get("/version").await.0 == 401 }).await;
    let known = node.get("/version").await.0;
    let outlives = first.elapsed() > Duration::from_secs(9) || known == 200;
    assert!(outlives, "a known token outlives the entry");
    until(|| async { node.get("/version").await.0 == 401 }).await;
}

async fn what_a_node_may_not_do_is_refused_in_the_api_servers_words(served: &Served) {
    let (operator, a) = (served.user("OPERATOR"), served.user("NODEA"));
    assert_eq!(a.post(NODES, a_node("a")).await.0, 201);
    assert_eq!(operator.post(NODES, a_node("b")).await.0, 201);
    let denied = |what: &str| format!("nodes is forbidden: User \"system:node:a\" cannot {what}");

    let (code, list) = a.get(NODES).await;
    assert_eq!(code, 403);
    let own_only = "node 'a' cannot read all nodes, only its own Node object";
    let expected = denied("list resource \"nodes\" in API group \"\" at the cluster scope");
    assert_eq!(list["message"], format!("{expected}: {own_only}"));
    assert_eq!(list["reason"], "Forbidden");
    assert_eq!(a.get("/api/v1/nodes?fieldSelector=metadata.name%3Da").await.0, 200);

    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let (code, other) = a.patch("/api/v1/nodes/b", STRATEGIC, label.clone()).await;
    let restricted = "nodes \"b\" is forbidden: node \"a\" is not allowed to modify node \"b\"";
    assert_eq!((code, &other["message"]), (403, &json!(restricted)));
    assert_eq!(a.patch("/api/v1/nodes/a", STRATEGIC, label).await.0, 200);

    let untaint = json!({"spec": {"taints": []}});
    let (code, taints) = a.patch("/api/v1/nodes/a", MERGE, untaint).await;
    assert_eq!(code, 403);
    assert!(taints["message"].as_str().unwrap().ends_with("is not allowed to modify taints"));

    let role = json!({"metadata": {"labels": {"node-role.kubernetes.io/gpu": ""}}});
    assert_eq!(a.patch("/api/v1/nodes/a", MERGE, role).await.0, 403);
    assert_eq!(a.delete("/api/v1/nodes/a").await.0, 403);
    let (_, pods) = a.get("/api/v1/pods").await;
    assert!(pods["message"].as_str().unwrap().contains("spec.nodeName field selector"));
    assert_eq!(a.get("/api/v1/pods?fieldSelector=spec.nodeName%3Da").await.0, 200);
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Node", "name": "a"}});
    assert_eq!(a.post("/api/v1/namespaces/default/events", event).await.0, 201);
}

async fn rbac_is_evaluated_and_reviews_agree_with_it(served: &Served) {
    let (operator, a) = (served.user("OPERATOR"), served.user("NODEA"));
    let path = "/apis/apps/v1/namespaces/kube-system/daemonsets/aws-node";
    let (code, refused) = a.get(path).await;
    assert_eq!(code, 403);
    assert_eq!(
        refused["message"],
        "daemonsets.apps \"aws-node\" is forbidden: User \"system:node:a\" cannot get resource \
         \"daemonsets\" in API group \"apps\" in the namespace \"kube-system\""
    );
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "group": "apps",
        "resource": "daemonsets", "namespace": "kube-system"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    assert_eq!(a.post(reviews, review.clone()).await.1["status"]["allowed"], false);

    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "reader"}, "rules": [
            {"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"]}]});
    let apply = "fieldManager=rollcall&force=true";
    let roles = format!("{rbac}/clusterroles/reader?{apply}");
    assert_eq!(operator.patch(&roles, APPLY, role).await.0, 201);
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "Group", "name": "system:nodes"}]});
    let bindings = format!("{rbac}/namespaces/kube-system/rolebindings/reader?{apply}");
    assert_eq!(operator.patch(&bindings, APPLY, binding).await.0, 201);

    // Allowed, and not there; the real authorizer reads bindings from a cache that is a moment late.
    until(|| async { a.get(path).await.0 == 404 }).await;
    assert_eq!(a.post(reviews, review).await.1["status"]["allowed"], true);
    let elsewhere = "/apis/apps/v1/namespaces/default/daemonsets/x";
    assert_eq!(a.get(elsewhere).await.0, 403);
    assert_eq!(a.delete(path).await.0, 403);
}
