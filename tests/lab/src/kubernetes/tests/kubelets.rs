//! The kubelet stand-in against the API server stand-in.

use std::path::{Path, PathBuf};

use super::nodes::{SETS, add_addons};
use super::served::standin as served;
use super::*;
use crate::kubernetes::kubelet_standin::{KubeletOptions, run};

/// A process node's root as nodeadm leaves it, and an instance metadata service beside it.
struct Machine {
    root: tempfile::TempDir,
    options: KubeletOptions,
}

async fn machine(served: &Served, address: &str, id: &'static str) -> Machine {
    let root = tempfile::tempdir().unwrap();
    let name = id.trim_start_matches("i-");
    let write = |path: &str, text: String| {
        let path: PathBuf = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("etc/eks/kubelet-version.txt", "v1.34.2-eks-test\n".into());
    write("etc/kubernetes/pki/ca.crt", served.handle.ca_pem().into());
    let config = json!({"providerID": format!("aws:///us-east-1a/{id}"), "maxPods": 100});
    write("etc/kubernetes/kubelet/config.json", config.to_string());
    write(
        "etc/eks/kubelet/environment",
        format!(
            "NODEADM_KUBELET_ARGS=--cloud-provider=external --hostname-override={name} \
             --node-ip=10.0.0.1 --node-labels=node-type=gpu \
             --register-with-taints=nvidia.com/gpu=true:NoSchedule\n"
        ),
    );
    write(
        "var/lib/kubelet/kubeconfig",
        json!({
            "clusters": [{"name": "k", "cluster": {"server": served.handle.endpoint(),
                "certificate-authority": "/etc/kubernetes/pki/ca.crt"}}],
            "users": [{"name": "k", "user": {"exec": {"command": "aws", "args": ["eks",
                "get-token", "--cluster-name", "prod", "--region", "us-east-1"]}}}],
        })
        .to_string(),
    );
    let knobs = json!({"cniDelayMs": 100, "podStartMs": 50, "heartbeatMs": 200});
    write("var/lib/kubelet-standin/config.json", knobs.to_string());
    write("var/lib/kubelet-standin/hold-cni", String::new());
    let options = KubeletOptions {
        root: root.path().to_owned(),
        address: address.parse().unwrap(),
        imds: imds("NODEA").await,
        arguments: None,
        proxy: None,
    };
    Machine { root, options }
}

/// Serves the role's credentials as IMDS does, for this access key.
async fn imds(key: &'static str) -> String {
    use axum::routing::{get, put};
    let secret = format!("secret of {key}");
    let credentials = json!({"AccessKeyId": key, "SecretAccessKey": secret, "Token": "session"});
    let router = axum::Router::new()
        .route("/latest/api/token", put(|| async { "imds" }))
        .route("/latest/meta-data/instance-type", get(|| async { "p5.48xlarge" }))
        .route("/latest/meta-data/local-ipv4", get(|| async { "10.0.0.1" }))
        .route("/latest/meta-data/iam/security-credentials/", get(|| async { "nodes" }))
        .route(
            "/latest/meta-data/iam/security-credentials/nodes",
            get(move || async move { credentials.to_string() }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The library double that cargo built for this crate.
fn install_nvml(root: &Path, state: &nvml_sim::State) {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let library = root.join("usr/lib64/libnvidia-ml.so.1");
    std::fs::create_dir_all(library.parent().unwrap()).unwrap();
    std::fs::copy(deps.join("libnvml_sim.so"), library).unwrap();
    nvml_sim::node_files::sync(root, state).unwrap();
}

fn gpus(node: &Value) -> (Option<&str>, Option<&str>) {
    let count = |field: &str| node["status"][field]["nvidia.com/gpu"].as_str();
    (count("capacity"), count("allocatable"))
}

#[tokio::test]
async fn a_kubelet_registers_gets_its_network_and_offers_the_gpus_that_nvml_shows() {
    let served = served().await;
    let operator = served.user("OPERATOR");
    let machine = machine(&served, "127.64.200.1", "i-a").await;
    let healthy = nvml_sim::profile::for_instance("p5.48xlarge", "i-a").unwrap();
    install_nvml(machine.root.path(), &healthy);
    add_addons(&served, &["vpc-cni", "kube-proxy"]);
    let plugin = json!({"metadata": {"name": "plugin"}, "spec": {
        "selector": {"matchLabels": {"app": "p"}}, "template": {
            "metadata": {"labels": {"app": "p"}}, "spec": {
                "nodeSelector": {"node-type": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "nvcr.io/nvidia/k8s-device-plugin:v0"}]}}}});
    operator.post(SETS, plugin).await;
    let options = machine.options.clone();
    let kubelet = tokio::spawn(async move { run::run(&options).await });

    let node = || async { operator.get("/api/v1/nodes/a").await.1 };
    let set = |name: &'static str| {
        let operator = operator.clone();
        async move { operator.get(&format!("{SETS}/{name}")).await.1["status"].clone() }
    };
    until(|| async { set("kube-proxy").await["numberReady"] == 1 }).await;
    let held = node().await;
    let not_ready = condition(&held, "Ready");
    assert_eq!(not_ready["status"], "False");
    assert!(not_ready["message"].as_str().unwrap().contains("cni plugin not initialized"));
    assert_eq!(set("aws-node").await["numberReady"], 0, "the CNI is held");
    assert_eq!(gpus(&held), (None, None));
    let labels = &held["metadata"]["labels"];
    assert_eq!(labels["topology.kubernetes.io/zone"], "us-east-1a", "the cloud labelled it");
    assert_eq!(held["status"]["nodeInfo"]["kubeletVersion"], "v1.34.2-eks-test");

    std::fs::remove_file(machine.root.path().join("var/lib/kubelet-standin/hold-cni")).unwrap();
    until(|| async { condition(&node().await, "Ready")["status"] == "True" }).await;
    until(|| async { set("aws-node").await["numberReady"] == 1 }).await;
    until(|| async { gpus(&node().await) == (Some("8"), Some("8")) }).await;
    until(|| async { taint_keys(&node().await) == ["nvidia.com/gpu"] }).await;
    assert!(served.handle.nodes()[0].ready);

    let mut lost = healthy.clone();
    "gpu-lost=3".parse::<nvml_sim::fault::Fault>().unwrap().apply(&mut lost);
    nvml_sim::node_files::sync(machine.root.path(), &lost).unwrap();
    until(|| async { gpus(&node().await) == (Some("8"), Some("7")) }).await;
    nvml_sim::node_files::sync(machine.root.path(), &healthy).unwrap();
    until(|| async { gpus(&node().await) == (Some("8"), Some("8")) }).await;

    let health = reqwest::get("http://127.64.200.1:10248/healthz").await.unwrap();
    assert_eq!(health.text().await.unwrap(), "ok");
    kubelet.abort();
    until(|| async { condition(&node().await, "Ready")["status"] == "Unknown" }).await;
}

#[tokio::test]
async fn a_kubelet_whose_role_has_no_entry_never_registers() {
    let served = served().await;
    served
        .world
        .change(|seen| seen.cluster.as_mut().unwrap().access_entries.remove(0).kind.clear());
    let node = served.user("NODEA");
    until(|| async { node.get("/version").await.0 == 401 }).await;
    let machine = machine(&served, "127.64.200.2", "i-a").await;
    let options = machine.options.clone();
    let kubelet = tokio::spawn(async move { run::run(&options).await });
    // Each refused attempt takes a new token to STS.
    let judged = || served.world.judged.load(std::sync::atomic::Ordering::Relaxed);
    let before = judged();
    until(|| async { judged() >= before + 2 }).await;
    assert!(served.handle.nodes().is_empty());
    // Let in again, it registers by itself.
    let entry = json!({"principalArn": "arn:aws:iam::1:role/nodes", "type": "EC2_LINUX"});
    served.world.change(|seen| {
        let entries = &mut seen.cluster.as_mut().unwrap().access_entries;
        entries.push(serde_json::from_value(entry).unwrap());
    });
    until(|| async { served.handle.nodes().len() == 1 }).await;
    kubelet.abort();
}

#[tokio::test]
async fn a_kubelet_with_a_bad_configuration_ends_with_the_cause() {
    let served = served().await;
    let machine = machine(&served, "127.64.200.3", "i-a").await;
    std::fs::remove_file(machine.root.path().join("etc/kubernetes/kubelet/config.json")).unwrap();
    let error = run::run(&machine.options).await.unwrap_err().to_string();
    assert!(
        error.starts_with("failed to load kubelet config file, path: /etc/kubernetes"),
        "{error}"
    );
}
