//! From user data and drop-ins to a verdict.

use contract::Verdict;

use super::*;

const CLUSTER: &str = "apiVersion: node.eks.aws/v1alpha1
kind: NodeConfig
spec:
  cluster:
    name: prod
    apiServerEndpoint: https://ABC.gr7.us-east-1.eks.amazonaws.com
    certificateAuthority: UEVN
    cidr: 172.20.0.0/16
";

const AGENT: &str = "version: 1\ncluster: prod\npool: h100\n";

struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { dir: tempfile::tempdir().unwrap() };
        node.write(AGENT_CONFIG_PATH, AGENT);
        node
    }

    fn root(&self) -> Root {
        Root::new(self.dir.path())
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root().path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn verdict(&self, user_data: &str) -> Verdict {
        verdict(&gather(&self.root(), Some(user_data.as_bytes())))
    }
}

fn first(verdict: &Verdict) -> (String, String) {
    match verdict {
        Verdict::Fail(findings) | Verdict::Degraded(findings) => {
            (findings[0].reason.to_string(), findings[0].summary.clone())
        }
        other => panic!("{other:?}"),
    }
}

fn in_mime(config: &str) -> String {
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=B\n\n--B\n\
         Content-Type: application/node.eks.aws\n\n{config}\n--B--\n"
    )
}

#[test]
fn a_whole_configuration_passes() {
    let node = Node::new();
    assert_eq!(node.verdict(CLUSTER), Verdict::Pass);
    assert_eq!(node.verdict(&in_mime(CLUSTER)), Verdict::Pass);
    let facts = gather(&node.root(), Some(CLUSTER.as_bytes()));
    let config = NodeConfig::of(&facts.merged).unwrap();
    assert_eq!(config.cluster, "prod");
    assert_eq!(config.ca_pem, b"PEM");
    assert!(!config.named_by_instance);
    assert_eq!(config.proxy, None);
}

#[test]
fn each_mistake_has_its_name() {
    let node = Node::new();
    let without_cidr = CLUSTER.replace("    cidr: 172.20.0.0/16\n", "");
    let bad_ca = CLUSTER.replace("UEVN", "\"UE*N\"");
    let typo = CLUSTER.replace("    cidr:", "    cidrr: x\n    cidr:");
    for (user_data, reason, says) in [
        (String::new(), "NodeConfigMissing", "is empty"),
        ("#!/bin/bash\n/etc/eks/bootstrap.sh prod\n".into(), "UserDataNotMime", "neither"),
        (in_mime("").replace("node.eks", "other"), "NodeConfigMissing", "no part of type"),
        (in_mime("x: ["), "NodeConfigInvalid", "user data, part 1: line 1"),
        (in_mime(&CLUSTER.replace("NodeConfig", "NodeConfigList")), "NodeConfigInvalid", "stops"),
        (in_mime(CLUSTER).replace("--B--", ""), "NodeConfigInvalid", "stops at user data"),
        (format!("\n{}", in_mime(CLUSTER)), "UserDataNotMime", "neither"),
        (labelled("node-role.kubernetes.io/gpu="), "NodeLabelForbidden", "node-role"),
        (
            CLUSTER.to_owned() + "  instance: {localStorage: {strategy: RAID5}}\n",
            "NodeConfigInvalid",
            "`RAID5`",
        ),
        (without_cidr, "NodeConfigInvalid", "`spec.cluster.cidr`"),
        (in_mime(&bad_ca), "NodeConfigInvalid", "not base64"),
        (typo, "NodeConfigUnknownField", "did you mean `cidr`?"),
    ] {
        let (named, summary) = first(&node.verdict(&user_data));
        assert_eq!(named, reason, "{user_data}");
        assert!(summary.contains(says), "{summary}");
    }
}

fn labelled(label: &str) -> String {
    format!("{CLUSTER}  kubelet: {{flags: ['--node-labels=a=b,{label}']}}\n")
}

#[test]
fn what_only_loses_something_is_said_and_keeps_nobody_out() {
    let taints = |name: &str| {
        format!(
            "{CLUSTER}  kubelet: {{config: {{registerWithTaints: [{{key: {name}, effect: NoExecute}}]}}}}\n"
        )
    };
    let flag = format!("{CLUSTER}  kubelet: {{flags: ['--register-with-taints=a:NoSchedule']}}\n");
    let mounts = "  instance: {localStorage: {strategy: RAID0, disabledMounts: [PodLog]}}\n";
    for (user_data, dropin, reason, says) in [
        (in_mime("x: ["), CLUSTER.to_owned(), "NodeConfigIgnored", "drop-ins alone"),
        (
            taints("karpenter.sh/unregistered"),
            taints("mine"),
            "StartupTaintLost",
            "karpenter.sh/unregistered:NoExecute",
        ),
        (taints("karpenter.sh/unregistered"), flag, "StartupTaintLost", "replaces the list"),
        (
            CLUSTER.into(),
            CLUSTER.replace("prod", "test"),
            "NodeConfigContradictory",
            "`prod` and then `test`",
        ),
        (
            CLUSTER.into(),
            CLUSTER.to_owned() + mounts,
            "NodeConfigUnknownField",
            "did you mean `PodLogs`?",
        ),
    ] {
        let node = Node::new();
        node.write("/etc/eks/nodeadm.d/10-site.yaml", &dropin);
        let verdict = node.verdict(&user_data);
        assert!(verdict.is_open(), "{verdict:?}");
        let (named, summary) = first(&verdict);
        assert_eq!(named, reason, "{summary}");
        assert!(summary.contains(says), "{summary}");
    }
}

#[test]
fn an_unknown_field_keeps_nobody_out() {
    let typo = CLUSTER.replace("  cluster:", "  clustr: {}\n  cluster:");
    assert!(Node::new().verdict(&typo).is_open());
}

#[test]
fn dropins_are_merged_after_the_user_data_by_name() {
    let node = Node::new();
    let dropin = |name: &str| CLUSTER.replace("prod", name);
    node.write("/etc/eks/nodeadm.d/20-b.YAML", &dropin("last"));
    node.write("/etc/eks/nodeadm.d/10-a.yml", &dropin("first"));
    node.write("/etc/eks/nodeadm.d/90-notes.txt", "not read");
    let facts = gather(&node.root(), Some(in_mime(CLUSTER).as_bytes()));
    assert_eq!(facts.sources.len(), 3);
    assert_eq!(facts.merged["spec"]["cluster"]["name"], "last");
    assert!(verdict(&facts).is_open());

    node.write("/etc/eks/nodeadm.d/95-broken.json", "{");
    let (reason, summary) = first(&verdict(&gather(&node.root(), Some(CLUSTER.as_bytes()))));
    assert_eq!(reason, "NodeConfigInvalid");
    assert_eq!(summary, "nodeadm stops at `/etc/eks/nodeadm.d/95-broken.json`");
}

#[test]
fn without_user_data_nodeadm_stops_whatever_else_there_is() {
    let node = Node::new();
    node.write("/etc/eks/nodeadm.d/10-a.yml", CLUSTER);
    let (reason, summary) = first(&verdict(&gather(&node.root(), None)));
    assert_eq!(reason, "NodeConfigMissing");
    assert!(summary.contains("nodeadm stops there"), "{summary}");
}

#[test]
fn only_the_first_document_of_a_stream_counts() {
    let node = Node::new();
    let two = format!("{CLUSTER}---\nspec: {{cluster: {{name: other}}}}\n");
    let facts = gather(&node.root(), Some(two.as_bytes()));
    assert_eq!(facts.merged["spec"]["cluster"]["name"], "prod");
}

#[test]
fn the_agents_own_configuration_is_needed() {
    let node = Node::new();
    for (text, says) in [
        ("version: 2\ncluster: prod\npool: h100\n", "`version` is 2"),
        ("version: 1\ncluster: prod\npool: h100\ncolour: red\n", "colour"),
        ("{", "cannot be read"),
    ] {
        node.write(AGENT_CONFIG_PATH, text);
        let (reason, summary) = first(&node.verdict(CLUSTER));
        assert_eq!(reason, "AgentConfigInvalid");
        assert!(summary.contains(says), "{summary}");
    }
    std::fs::remove_file(node.root().path(AGENT_CONFIG_PATH)).unwrap();
    assert!(first(&node.verdict(CLUSTER)).1.starts_with("no `/etc/rollcall/agent.yaml`"));
}

#[test]
fn an_exception_for_no_known_reason_is_named() {
    let node = Node::new();
    let exceptions = "enforceReasons: {GpuCountShrt: observe, GpuLost: gate, Zzz: observe}";
    node.write(
        AGENT_CONFIG_PATH,
        &format!("version: 1\ncluster: prod\npool: h100\n{exceptions}\n"),
    );
    let verdict = node.verdict(CLUSTER);
    assert!(verdict.is_open(), "it may be a newer agent's: {verdict:?}");
    let (reason, summary) = first(&verdict);
    assert_eq!(reason, "AgentConfigUnknownReason");
    let named = "`GpuCountShrt` (did you mean `GpuCountShort`?), `Zzz`";
    assert!(summary.contains(named), "{summary}");
}

#[test]
fn the_user_datas_agent_config_outranks_the_disks() {
    let node = Node::new();
    let part = "Content-Type: text/cloud-config\n\nwrite_files:\n- path: /etc/rollcall/agent.yaml\n  content: 'version: 1\n\n    cluster: prod\n\n    pool: other'\n\n--B\n";
    let user_data = in_mime(CLUSTER).replacen(
        "Content-Type: application",
        &format!("{part}Content-Type: application"),
        1,
    );
    let facts = gather(&node.root(), Some(user_data.as_bytes()));
    assert_eq!(facts.agent.unwrap().unwrap().pool, "other");
}
