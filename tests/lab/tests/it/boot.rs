//! Instances boot from their user data: with a shell script as the agent, so that it is seen what
//! the lab itself does.

use std::fs;
use std::time::Duration;

use contract::ConsoleLine;
use lab::processes::ProcessId;
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};

use crate::aws::Aws;
use crate::world::{Lab, text, until};

/// Walks through what a join does with the node's own programs, then stays.
const AGENT: &str = r#"#!/bin/sh
verb=$1 root=$3
trap 'exit 0' TERM
if [ "$verb" = join ] && [ ! -e "$root/run/rollcall-gate/admitted" ]; then
    systemctl=$root/usr/bin/systemctl
    "$systemctl" start rollcall-nodeadm@config.service; echo "config $?"
    "$systemctl" start kubelet.service; echo "too early $?"
    mkdir -p "$root/run/rollcall-gate" && : > "$root/run/rollcall-gate/admitted"
    "$systemctl" start rollcall-nodeadm@run.service; echo "run $?"
fi
while :; do sleep 600 & wait $!; done
"#;

fn tarball() -> Vec<u8> {
    let encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut builder = tar::Builder::new(encoder);
    let mut header = tar::Header::new_gnu();
    header.set_size(AGENT.len() as u64);
    header.set_mode(0o755);
    builder.append_data(&mut header, "./usr/bin/rollcall-agent", AGENT.as_bytes()).unwrap();
    builder.into_inner().unwrap().finish().unwrap()
}

/// User data as control renders it; the kubelet that it configures finds nobody at its endpoint.
fn user_data(sha256: &str) -> String {
    format!(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"//\"\r\n\r\n--//\r\n\
         Content-Type: text/cloud-config\r\n\r\n#cloud-config\nwrite_files:\n\
         - path: /etc/rollcall/agent.yaml\n  permissions: '0600'\n  content: |\n    version: 1\n    \
         cluster: prod\n    pool: gpu\n    install:\n      url: s3://agents/agent.tar.gz\n      \
         sha256: {sha256}\r\n--//\r\nContent-Type: application/node.eks.aws\r\n\r\n\
         apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  cluster:\n    name: prod\n    \
         apiServerEndpoint: https://localhost:1\n    certificateAuthority: Y2E=\n    \
         cidr: 172.20.0.0/16\n  kubelet:\n    flags: [--node-labels=node-type=gpu]\r\n--//--\r\n"
    )
}

struct Stage {
    lab: Lab,
    aws: Aws,
    sha256: String,
}

impl Stage {
    async fn set() -> Self {
        let lab = Lab::up(&[]);
        let aws = Aws::of(&lab.record());
        aws.make_role().await;
        let tarball = tarball();
        let sha256 = hex::encode(Sha256::digest(&tarball));
        aws.put_agent(tarball).await;
        Self { lab, aws, sha256 }
    }

    /// An instance with this user data starts nothing and says why; it is gone afterwards.
    async fn is_stuck(&self, user_data: &str, why: &str, is_install: bool) {
        let id = self.aws.launch("m6i.large", user_data).await;
        let node = self.lab.node(&id, |node| node["stage"] == "stuck").await;
        assert_eq!(node["pids"], serde_json::json!({"join": null, "watch": null, "kubelet": null}));
        assert!(!self.lab.root(&id).join("usr/bin/rollcall-agent").exists());
        let console = self.aws.console(&id).await;
        assert!(console.contains(why), "no `{why}` in:\n{console}");
        let line = ConsoleLine::last_in(&console);
        let reason = line.as_ref().map(|line| line.reasons[0].as_str());
        assert_eq!(reason, is_install.then_some("AgentInstallFailed"), "{console}");
        self.aws.terminate(&id).await;
        let gone = || self.lab.status()["nodes"] == serde_json::json!([]);
        assert!(until(Duration::from_secs(20), gone).await);
    }

    /// The log of the join has this line.
    async fn join_says(&self, id: &str, line: &str) {
        let log = self.lab.root(id).join("run/systemd-double/rollcall-join.service.log");
        let read = || fs::read_to_string(&log).unwrap_or_default();
        let said = until(Duration::from_secs(30), || read().lines().any(|l| l == line)).await;
        assert!(said, "no `{line}` in:\n{}", read());
    }
}

#[tokio::test]
async fn an_instance_boots_breaks_heals_and_ends() {
    let stage = Stage::set().await;
    let lab = &stage.lab;
    let id = stage.aws.launch("p5.48xlarge", &user_data(&stage.sha256)).await;
    for line in ["config 0", "too early 1", "run 0"] {
        stage.join_says(&id, line).await;
    }
    let root = lab.root(&id);
    let kubelet = fs::read_to_string(root.join("etc/eks/kubelet/environment")).unwrap();
    assert!(kubelet.trim_end().ends_with("--node-labels=node-type=gpu"), "{kubelet}");
    assert!(kubelet.contains("--hostname-override=ip-10-"), "{kubelet}");
    let node = lab.node(&id, |node| node["pids"]["kubelet"].is_i64()).await;
    assert_eq!((&node["pool"], &node["index"]), (&"gpu".into(), &0.into()));

    // A crash is followed by a start; a kubelet that the join has started goes on meanwhile.
    let pid = |node: &serde_json::Value, name: &str| {
        i32::try_from(node["pids"][name].as_i64().unwrap()).unwrap()
    };
    ProcessId::of(pid(&node, "join")).unwrap().signal(Signal::SIGKILL);
    let again = lab
        .node(&id, |n| n["pids"]["join"].is_i64() && n["pids"]["join"] != node["pids"]["join"])
        .await;
    assert_eq!(again["pids"]["kubelet"], node["pids"]["kubelet"]);

    // kubelet itself is restarted by its keeper.
    ProcessId::of(pid(&again, "kubelet")).unwrap().signal(Signal::SIGKILL);
    lab.node(&id, |n| {
        n["pids"]["kubelet"].is_i64() && n["pids"]["kubelet"] != node["pids"]["kubelet"]
    })
    .await;

    faults(&stage, &id).await;

    let alive = lab::processes::of_node(&root);
    assert!(alive.len() >= 3, "{alive:?}");
    stage.aws.terminate(&id).await;
    let gone =
        || alive.iter().all(|id| !id.is_alive()) && lab.status()["nodes"] == serde_json::json!([]);
    assert!(
        until(Duration::from_secs(30), gone).await,
        "left of {id}: {:#}",
        lab.status()["nodes"]
    );
    let left: Vec<_> = fs::read_dir(&root).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["dev"]);
    assert!(stage.aws.console(&id).await.contains("Linux version"));
}

async fn faults(stage: &Stage, id: &str) {
    let version = stage.lab.root(id).join("proc/driver/nvidia/version");
    let read = || fs::read(&version).unwrap();
    let healthy = read();
    let fault = |name: &str| stage.lab.call("fault", &["gpu/0", name]);
    let laid = fault("driver-library-mismatch");
    assert!(laid.status.success(), "{}", text(&laid.stderr));
    assert_ne!(read(), healthy);
    assert!(text(&stage.lab.call("fault", &["list"]).stdout).contains("driver-library-mismatch"));
    let late = fault("agent-corrupt");
    assert_eq!(late.status.code(), Some(1));
    assert!(text(&late.stderr).contains("has its agent already"), "{}", text(&late.stderr));
    assert!(fault("clear").status.success());
    assert_eq!(read(), healthy);
    assert_eq!(text(&stage.lab.call("fault", &["list"]).stdout), "no faults\n");
}

#[tokio::test]
async fn nothing_starts_unless_the_user_data_says_so() {
    let stage = Stage::set().await;
    let lab = &stage.lab;
    let whole = user_data(&stage.sha256);
    let cut = &whole[..whole.len() / 2];
    let baked = whole.replace("install:", "deadlines: {}\n    nothing:");
    let cases = [
        (user_data(&"00".repeat(32)), "the user data names", true),
        (cut.to_owned(), "the closing boundary", false),
        (baked, "the image has no agent", true),
    ];
    for (data, expected, is_install) in &cases {
        stage.is_stuck(data, expected, *is_install).await;
    }
    assert!(lab.call("fault", &["gpu/0", "agent-corrupt"]).status.success());
    stage.is_stuck(&whole, "has sha256", true).await;

    // The fault went with its instance; the next one gets the agent as it is.
    let id = stage.aws.launch("m6i.large", &whole).await;
    lab.node(&id, |node| node["pids"]["join"].is_i64()).await;
}
