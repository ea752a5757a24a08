//! What `control` itself puts into a cluster: the node's one extra right, and the device plugin.
//! Pure values; [`super::apply`] puts them there.

use serde_json::{Value, json};

/// Namespace of everything here that has one.
pub const NAMESPACE: &str = "kube-system";
/// Name of the device plugin's DaemonSet, which is the one that NVIDIA's own manifest uses.
pub const DEVICE_PLUGIN: &str = "nvidia-device-plugin-daemonset";
/// Label of the device plugin's pods.
pub const DEVICE_PLUGIN_SELECTOR: &str = "name=nvidia-device-plugin-ds";
/// The device plugin's image, pinned: a moving tag would make two nodes of one pool differ.
pub const DEVICE_PLUGIN_IMAGE: &str = "nvcr.io/nvidia/k8s-device-plugin:v0.18.0";
/// Name of the node's ClusterRole and its binding.
pub const NODE_READER: &str = "rollcall-node";
/// Marks what is ours, so that `down` leaves everything else alone.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "rollcall");

const DEVICE_PLUGIN_DIR: &str = "/var/lib/kubelet/device-plugins";

/// The right to read DaemonSets, for every node: the join asks whether the CNI and the device plugin
/// exist at all before it waits for them.
///
/// A ClusterRole bound in kube-system alone: nothing elsewhere becomes readable.
#[must_use]
pub fn node_reader() -> Vec<Value> {
    let (label, us) = MANAGED_BY;
    vec![
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": NODE_READER, "labels": {label: us}},
            "rules": [{"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"]}],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NODE_READER, "namespace": NAMESPACE, "labels": {label: us}},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NODE_READER,
            },
            "subjects": [{
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes",
            }],
        }),
    ]
}

/// NVIDIA's device plugin, from this image or NVIDIA's own, on every node of a pool that asks for it.
///
/// The node selector keeps it off nodes without a driver, where it would only fail, and off pools that
/// offer their GPUs by DRA or by somebody else's plugin, where each would be offered twice. It
/// tolerates every taint, as the CNI does: which taints a pool has must not decide whether its GPUs
/// are on offer, and a pool that is added must not roll the plugin of the others.
#[must_use]
pub fn device_plugin(image: Option<&str>) -> Vec<Value> {
    let (label, us) = MANAGED_BY;
    let pod_labels = json!({"name": "nvidia-device-plugin-ds"});
    vec![json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": DEVICE_PLUGIN, "namespace": NAMESPACE, "labels": {label: us}},
        "spec": {
            "selector": {"matchLabels": pod_labels},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": pod_labels},
                "spec": {
                    "priorityClassName": "system-node-critical",
                    "nodeSelector": {
                        contract::names::LABEL_NODE_TYPE: "gpu",
                        contract::names::LABEL_DEVICE_PLUGIN: "install",
                    },
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [plugin_container(image)],
                    "volumes": [{
                        "name": "kubelet-device-plugins-dir",
                        "hostPath": {"path": DEVICE_PLUGIN_DIR, "type": "Directory"},
                    }],
                },
            },
        },
    })]
}

fn plugin_container(image: Option<&str>) -> Value {
    json!({
        "name": "nvidia-device-plugin-ctr",
        "image": image.unwrap_or(DEVICE_PLUGIN_IMAGE),
        // With false it would sit there and offer nothing, silently; a crash shows.
        "env": [{"name": "FAIL_ON_INIT_ERROR", "value": "true"}],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "kubelet-device-plugins-dir", "mountPath": DEVICE_PLUGIN_DIR},
        ],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_plugin_goes_to_gpu_nodes_alone_and_runs_there() {
        let plugin = &device_plugin(None)[0];
        let pod = &plugin["spec"]["template"]["spec"];
        let selector = json!({"node-type": "gpu", "rollcall.dev/device-plugin": "install"});
        assert_eq!(pod["nodeSelector"], selector);
        assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
        assert_eq!(pod["priorityClassName"], "system-node-critical");
        let image = pod["containers"][0]["image"].as_str().unwrap();
        assert!(
            image.starts_with("nvcr.io/nvidia/k8s-device-plugin:v") && !image.ends_with("latest")
        );
        let copied =
            &device_plugin(Some("111122223333.dkr.ecr.us-east-1.amazonaws.com/plugin:1"))[0];
        let copied = copied["spec"]["template"]["spec"]["containers"][0]["image"].as_str();
        assert!(copied.unwrap().contains(".dkr.ecr."));
        let typed: k8s_openapi::api::apps::v1::DaemonSet =
            serde_json::from_value(plugin.clone()).unwrap();
        let spec = typed.spec.unwrap();
        assert_eq!(spec.selector.match_labels, spec.template.metadata.unwrap().labels);
    }

    #[test]
    fn nodes_may_read_daemonsets_of_kube_system_and_no_more() {
        let objects = node_reader();
        assert_eq!(
            objects[0]["rules"],
            json!([{"apiGroups": ["apps"], "resources": ["daemonsets"], "verbs": ["get"]}])
        );
        assert_eq!(objects[1]["kind"], "RoleBinding");
        assert_eq!(objects[1]["metadata"]["namespace"], "kube-system");
        assert_eq!(objects[1]["subjects"][0]["name"], "system:nodes");
        assert_eq!(objects[1]["roleRef"]["name"], objects[0]["metadata"]["name"]);
    }

    #[test]
    fn everything_is_marked_as_ours() {
        for object in node_reader().iter().chain(&device_plugin(None)) {
            assert_eq!(object["metadata"]["labels"][MANAGED_BY.0], MANAGED_BY.1);
        }
    }
}
