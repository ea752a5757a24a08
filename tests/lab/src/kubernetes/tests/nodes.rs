//! Nodes and what is placed on them: the controllers.

use super::*;
use crate::kubernetes::NodeView;

checks! {
    daemons_are_placed_by_taints_and_selectors_and_dns_waits_for_a_ready_node,
    a_silent_node_becomes_unknown_recovers_and_goes_with_its_instance,
}

const NODES: &str = "/api/v1/nodes";
pub(super) const SETS: &str = "/apis/apps/v1/namespaces/kube-system/daemonsets";
const DNS: &str = "/apis/apps/v1/namespaces/kube-system/deployments/coredns";

pub(super) fn add_addons(served: &Served, names: &[&str]) {
    served.world.change(|seen| {
        let addons = names.iter().map(|name| {
            serde_json::from_value(json!({"name": name, "status": "CREATING"})).unwrap()
        });
        seen.cluster.as_mut().unwrap().addons = addons.collect();
    });
}

async fn daemons_are_placed_by_taints_and_selectors_and_dns_waits_for_a_ready_node(
    served: &Served,
) {
    let operator = served.user("OPERATOR");
    add_addons(served, &["vpc-cni", "kube-proxy", "coredns"]);
    let plugin = json!({"metadata": {"name": "plugin"}, "spec": {
        "selector": {"matchLabels": {"app": "p"}}, "template": {
            "metadata": {"labels": {"app": "p"}}, "spec": {
                "nodeSelector": {"node-type": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "i"}]}}}});
    assert_eq!(operator.post(SETS, plugin).await.0, 201);
    let mut system = a_node("b");
    system["metadata"]["labels"]["node-type"] = "system".into();
    system["spec"]["taints"] = json!([]);
    for node in [a_node("a"), system] {
        assert_eq!(operator.post(NODES, node).await.0, 201);
    }
    let scheduled = |name: &'static str| {
        let operator = operator.clone();
        async move {
            let (_, set) = operator.get(&format!("{SETS}/{name}")).await;
            set["status"]["desiredNumberScheduled"].as_u64()
        }
    };
    until(|| async { scheduled("aws-node").await == Some(2) }).await;
    assert_eq!(scheduled("plugin").await, Some(0), "the nodes are fenced while not ready");
    assert_eq!(served.handle.available("kube-system", "coredns"), 0);

    beat(&operator, "a", "True").await;
    beat(&operator, "b", "True").await;
    until(|| async { scheduled("plugin").await == Some(1) }).await;
    let pods = "/api/v1/namespaces/kube-system/pods?labelSelector=";
    let placed = || async { operator.get(&format!("{pods}app%3Dp")).await.1["items"].clone() };
    until(|| async { placed().await[0]["spec"]["nodeName"] == "a" }).await;
    let dns =
        || async { operator.get(&format!("{pods}k8s-app%3Dkube-dns")).await.1["items"].clone() };
    until(|| async {
        dns().await.as_array().is_some_and(|pods| {
            pods.len() == 2 && pods.iter().all(|pod| pod["spec"]["nodeName"] == "b")
        })
    })
    .await;
    let (_, deployment) = operator.get(DNS).await;
    assert_eq!(condition(&deployment, "Available")["status"], "False", "bound is not ready");

    add_addons(served, &["vpc-cni"]);
    // Nobody runs them here who could confirm their end.
    let ends = |pod: &Value| !pod["metadata"]["deletionTimestamp"].is_null();
    until(|| async { dns().await.as_array().is_some_and(|pods| pods.iter().all(ends)) }).await;
}

async fn a_silent_node_becomes_unknown_recovers_and_goes_with_its_instance(served: &Served) {
    let a = served.user("NODEA");
    assert_eq!(a.post(NODES, a_node("a")).await.0, 201);
    beat(&a, "a", "True").await;
    let node = || async { a.get("/api/v1/nodes/a").await.1 };
    until(|| async { taint_keys(&node().await) == ["nvidia.com/gpu"] }).await;
    let seen = |ready| NodeView { name: "a".into(), instance_id: "i-a".into(), ready };
    until(|| async { served.handle.nodes() == [seen(true)] }).await;

    until(|| async { condition(&node().await, "Ready")["status"] == "Unknown" }).await;
    let silent = node().await;
    assert_eq!(condition(&silent, "Ready")["message"], "Kubelet stopped posting node status.");
    let unreachable = "node.kubernetes.io/unreachable".to_owned();
    until(|| async { taint_keys(&node().await).contains(&unreachable) }).await;
    until(|| async { served.handle.nodes() == [seen(false)] }).await;

    beat(&a, "a", "True").await;
    until(|| async { taint_keys(&node().await) == ["nvidia.com/gpu"] }).await;
    served.world.change(|seen| seen.instances[0].state = "terminated".into());
    until(|| async { served.handle.nodes().is_empty() }).await;
}
