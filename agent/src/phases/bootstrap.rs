//! Phase 5: nodeadm's config phase, run by PID 1, and what it left on the disk.

pub mod reservation;
mod runtime;

use std::time::Duration;

use contract::names::UNIT_NODEADM_CONFIG;
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use tokio::time::sleep;

use super::configure::NodeConfig;
use super::nodeadm::{self, End, Run};
use crate::host::program::{self, Program};
use crate::host::systemd::{Systemd, UnitState};
use crate::host::{Deadline, Root, files};
use crate::kube::{Cluster, kubeconfig};

/// The image's own config phase, which runs as shipped.
pub const STOCK_UNIT: &str = "nodeadm-config.service";

/// Between two looks at it.
const POLL: Duration = Duration::from_millis(100);

/// Where nodeadm writes kubelet's arguments.
const ENVIRONMENT: &str = "/etc/eks/kubelet/environment";

/// Where nodeadm writes kubelet's configuration.
const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet/config.json";

/// NVIDIA's container toolkit: what nodeadm configures, and what describes GPUs for CDI.
const TOOLKIT: [&str; 2] = ["nvidia-container-runtime", "nvidia-ctk"];

/// What the phase found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// How nodeadm's config phase went; `None` when it was not run again.
    pub run: Option<Run>,
    /// What is on the disk.
    pub written: Written,
    /// What is wrong with containerd's configuration.
    pub runtime: Option<String>,
    /// The program with which kubelet gets its token, and why it cannot be executed.
    pub plugin: Option<String>,
    /// Whether pods are to get GPUs, and nothing of NVIDIA's container toolkit is there.
    pub lacks_toolkit: bool,
}

/// What nodeadm's config phase leaves, as far as the join depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The cluster that kubelet is configured for, or why it cannot be read.
    pub cluster: Result<Cluster, String>,
    /// The name under which kubelet registers, when its arguments say one.
    pub node_name: Option<String>,
    /// Files that are not there.
    pub missing: Vec<&'static str>,
    /// How much of the node's memory is kept from pods.
    pub memory: Option<reservation::Memory>,
}

/// Runs nodeadm's config phase and reads what is on the disk. `run` is how the image's own config
/// phase stood at first; none: nodeadm is not run again. `hopeless` ends
/// when it is known that nodeadm will not.
pub async fn gather(
    root: &Root,
    systemd: &Systemd,
    run: Option<&UnitState>,
    hopeless: impl Future<Output = (Reason, String)>,
    wants_gpus: bool,
    deadline: Deadline,
) -> Facts {
    let run = if let Some(stock) = run {
        let end = stock_unit_has_ended(systemd, stock, deadline).await;
        Some(match end {
            true => nodeadm::run(systemd, UNIT_NODEADM_CONFIG, deadline, hopeless).await,
            false => Run { end: End::TimedOut, log: systemd.tail(STOCK_UNIT, 8).await },
        })
    } else {
        None
    };
    look(root, run, wants_gpus)
}

/// What is on the disk after `run`.
#[must_use]
pub fn look(root: &Root, run: Option<Run>, wants_gpus: bool) -> Facts {
    Facts {
        run,
        written: written(root),
        runtime: runtime::problem(root, wants_gpus),
        plugin: plugin(root),
        lacks_toolkit: wants_gpus && TOOLKIT.iter().all(|name| is_missing(root, name)),
    }
}

fn is_missing(root: &Root, name: &str) -> bool {
    program::search(root, name) == Program::Missing
}

/// The exec plugin in kubelet's kubeconfig, when it cannot be executed.
fn plugin(root: &Root) -> Option<String> {
    let command = kubeconfig::exec_command(root)?;
    let found = match command.starts_with('/') {
        true => program::look(&root.path(&command)),
        false => program::search(root, &command),
    };
    match found {
        Program::Usable => None,
        Program::Missing => Some(format!("`{command}` does not exist")),
        Program::Unusable(why) => Some(format!("`{command}` cannot be executed: {why}")),
    }
}

/// Waits for the image's own config phase: two at once would write the same files.
async fn stock_unit_has_ended(systemd: &Systemd, first: &UnitState, deadline: Deadline) -> bool {
    let mut state = first.clone();
    while state.exists() && state.is_pending() {
        if deadline.has_passed() {
            return false;
        }
        sleep(POLL.min(deadline.remaining())).await;
        state = systemd.show(STOCK_UNIT).await.unwrap_or_default();
    }
    true
}

/// What is on the disk.
#[must_use]
pub fn written(root: &Root) -> Written {
    let files = [kubeconfig::PATH, ENVIRONMENT, KUBELET_CONFIG];
    Written {
        cluster: kubeconfig::cluster(root).map_err(|error| ErrorChain(&error).to_string()),
        node_name: kubelet_node_name(root),
        missing: files.into_iter().filter(|path| !root.path(path).is_file()).collect(),
        memory: reservation::look(root),
    }
}

/// The name under which kubelet registers: `--hostname-override` in what nodeadm wrote.
#[must_use]
pub fn kubelet_node_name(root: &Root) -> Option<String> {
    let text = files::read_text(&root.path(ENVIRONMENT)).ok()?;
    let flag = "--hostname-override=";
    // User flags come last, and kubelet takes the last.
    let value =
        text.split(['\n', ' ', '"', '\'']).rev().find_map(|word| word.strip_prefix(flag))?;
    (!value.is_empty()).then(|| value.to_owned())
}

/// Whether the node's configuration is on disk, and is the one asked for.
#[must_use]
pub fn verdict(facts: &Facts, asked: &NodeConfig) -> Verdict {
    let failed = facts.run.as_ref().and_then(|run| {
        nodeadm::finding(run, "config", Phase::Bootstrap, Reason::NodeadmConfigFailed)
    });
    match failed {
        // The role of a new instance can lag behind it, and nodeadm asks for it only once.
        Some(finding) if finding.reason == Reason::CredentialsMissing => {
            return Verdict::Wait(Box::new(finding));
        }
        Some(finding) => return Verdict::Fail(vec![finding]),
        None => {}
    }
    let finding = |reason, summary| Finding::new(reason, Phase::Bootstrap, summary);
    let other = mismatch(&facts.written, asked)
        .map(|what| format!("nodeadm's config phase left something else: {what}"));
    let plugin = facts.plugin.as_ref().map(|why| format!("kubelet gets its token by {why}"));
    let findings = [
        other.map(|what| finding(Reason::NodeadmConfigFailed, what)),
        plugin.map(|what| finding(Reason::KubeletCredentialPluginMissing, what)),
        facts.runtime.clone().map(|what| finding(Reason::ContainerRuntimeMisconfigured, what)),
        facts.lacks_toolkit.then(|| {
            let what = format!("neither {} is there", TOOLKIT.join(" nor "));
            finding(Reason::ContainerToolkitMissing, what)
        }),
    ];
    let memory = reservation::finding(facts.written.memory);
    let findings = findings.into_iter().chain([memory]).flatten();
    Verdict::of(contract::verdict::rank(findings.collect()))
}

/// What on the disk is not as asked.
#[must_use]
pub fn mismatch(written: &Written, asked: &NodeConfig) -> Option<String> {
    if !written.missing.is_empty() {
        return Some(format!("no `{}`", written.missing.join("`, `")));
    }
    let cluster = match &written.cluster {
        Ok(cluster) => cluster,
        Err(why) => return Some(why.clone()),
    };
    let trim = |url: &str| url.trim_end_matches('/').to_owned();
    if cluster.name != asked.cluster {
        Some(format!("it names the cluster `{}`, asked was `{}`", cluster.name, asked.cluster))
    } else if trim(&cluster.endpoint) != trim(&asked.endpoint) {
        Some(format!("it names the server `{}`, asked was `{}`", cluster.endpoint, asked.endpoint))
    } else if cluster.ca_pem.trim_ascii() != asked.ca_pem.trim_ascii() {
        Some("its CA is not the one asked for".into())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> NodeConfig {
        NodeConfig {
            cluster: "prod".into(),
            endpoint: "https://api".into(),
            ca_pem: b"PEM\n".to_vec(),
            named_by_instance: false,
            proxy: None,
        }
    }

    fn written() -> Written {
        let cluster = Cluster {
            name: "prod".into(),
            region: "us-east-1".into(),
            endpoint: "https://api/".into(),
            ca_pem: b"PEM".to_vec(),
            proxy: None,
        };
        Written {
            cluster: Ok(cluster),
            node_name: Some("n1".into()),
            missing: vec![],
            memory: None,
        }
    }

    fn facts() -> Facts {
        Facts { run: None, written: written(), runtime: None, plugin: None, lacks_toolkit: false }
    }

    #[test]
    fn what_kubelet_and_containers_need_is_looked_at() {
        assert_eq!(verdict(&facts(), &asked()), Verdict::Pass);
        for (facts, reason) in [
            (Facts { runtime: Some("x".into()), ..facts() }, Reason::ContainerRuntimeMisconfigured),
            (Facts { plugin: Some("x".into()), ..facts() }, Reason::KubeletCredentialPluginMissing),
        ] {
            let verdict = verdict(&facts, &asked());
            assert!(matches!(verdict, Verdict::Fail(found) if found[0].reason == reason));
        }
        let bare = verdict(&Facts { lacks_toolkit: true, ..facts() }, &asked());
        assert!(matches!(bare, Verdict::Degraded(found)
            if found[0].reason == Reason::ContainerToolkitMissing));
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(look(&root, None, true).lacks_toolkit && !look(&root, None, false).lacks_toolkit);
        assert_eq!(plugin(&root), None, "no kubeconfig, nothing known");
        std::fs::create_dir_all(root.path("/var/lib/kubelet")).unwrap();
        let text = "clusters: []\nusers: [{user: {exec: {command: aws, args: []}}}]\n";
        std::fs::write(root.path(kubeconfig::PATH), text).unwrap();
        assert_eq!(plugin(&root).as_deref(), Some("`aws` does not exist"));
    }

    #[test]
    fn nodeadm_runs_again_once_the_role_may_have_come() {
        let ended = |error: &str| {
            let end = End::Failed { result: "exit-code".into(), status: Some(1) };
            let error = serde_json::json!({ "error": error });
            let log = vec![format!("fatal cli/main.go:35 Command failed {error}")];
            verdict(&Facts { run: Some(Run { end, log }), ..facts() }, &asked())
        };
        let lagging = ended("operation error ec2imds: security-credentials/x: StatusCode: 404");
        assert!(
            matches!(lagging, Verdict::Wait(found) if found.reason == Reason::CredentialsMissing)
        );
        assert!(matches!(ended("no config in chain"), Verdict::Fail(_)));
    }

    fn changed(change: impl FnOnce(&mut Cluster)) -> Written {
        let mut written = written();
        change(written.cluster.as_mut().unwrap());
        written
    }

    #[test]
    fn what_is_on_the_disk_must_be_what_was_asked() {
        assert_eq!(mismatch(&written(), &asked()), None);
        for (written, says) in [
            (changed(|c| c.name = "old".into()), "cluster `old`"),
            (changed(|c| c.endpoint = "https://old".into()), "server `https://old`"),
            (changed(|c| c.ca_pem = b"OTHER".to_vec()), "CA"),
            (Written { missing: vec![ENVIRONMENT], ..written() }, ENVIRONMENT),
            (Written { cluster: Err("unread".into()), ..written() }, "unread"),
        ] {
            let what = mismatch(&written, &asked()).unwrap();
            assert!(what.contains(says), "{what}");
            let verdict = verdict(&Facts { written, ..facts() }, &asked());
            assert!(matches!(verdict, Verdict::Fail(found)
                if found[0].reason == Reason::NodeadmConfigFailed));
        }
    }

    #[test]
    fn the_node_name_is_the_last_override() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert_eq!(kubelet_node_name(&root), None);
        std::fs::create_dir_all(root.path("/etc/eks/kubelet")).unwrap();
        for (text, name) in [
            ("NODEADM_KUBELET_ARGS=--a=b --hostname-override=n1 --v=2\n", Some("n1")),
            ("NODEADM_KUBELET_ARGS=\"--hostname-override=n1 --hostname-override=n2\"", Some("n2")),
            ("NODEADM_KUBELET_ARGS=--v=2\n", None),
        ] {
            std::fs::write(root.path(ENVIRONMENT), text).unwrap();
            assert_eq!(kubelet_node_name(&root).as_deref(), name);
        }
    }
}
