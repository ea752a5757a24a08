//! Phase 5: nodeadm's config phase, run by PID 1, and what it left on the disk.

use std::time::Duration;

use contract::names::UNIT_NODEADM_CONFIG;
use contract::{ErrorChain, Finding, Phase, Reason, Verdict};
use tokio::time::sleep;

use super::configure::NodeConfig;
use super::nodeadm::{self, End, Run};
use crate::host::systemd::Systemd;
use crate::host::{Deadline, Root, files};
use crate::kube::{Cluster, kubeconfig};

/// The image's own config phase, which runs as shipped.
const STOCK_UNIT: &str = "nodeadm-config.service";

/// Between two looks at it.
const POLL: Duration = Duration::from_millis(100);

/// Where nodeadm writes kubelet's arguments.
const ENVIRONMENT: &str = "/etc/eks/kubelet/environment";

/// Where nodeadm writes kubelet's configuration.
const KUBELET_CONFIG: &str = "/etc/kubernetes/kubelet/config.json";

/// What the phase found.
#[derive(Debug)]
pub struct Facts {
    /// How nodeadm's config phase went; `None` when it was not run again.
    pub run: Option<Run>,
    /// What is on the disk.
    pub written: Written,
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
}

/// Runs nodeadm's config phase, unless `run` is false, and reads what is on the disk.
pub async fn gather(root: &Root, systemd: &Systemd, run: bool, deadline: Deadline) -> Facts {
    let run = if run {
        let end = stock_unit_has_ended(systemd, deadline).await;
        Some(match end {
            true => nodeadm::run(systemd, UNIT_NODEADM_CONFIG, deadline).await,
            false => Run { end: End::TimedOut, log: systemd.tail(STOCK_UNIT, 8).await },
        })
    } else {
        None
    };
    Facts { run, written: written(root) }
}

/// Waits for the image's own config phase: two at once would write the same files.
async fn stock_unit_has_ended(systemd: &Systemd, deadline: Deadline) -> bool {
    loop {
        let state = systemd.show(STOCK_UNIT).await.unwrap_or_default();
        if !(state.exists() && state.is_pending()) {
            return true;
        }
        if deadline.has_passed() {
            return false;
        }
        sleep(POLL.min(deadline.remaining())).await;
    }
}

/// What is on the disk.
#[must_use]
pub fn written(root: &Root) -> Written {
    let files = [kubeconfig::PATH, ENVIRONMENT, KUBELET_CONFIG];
    Written {
        cluster: kubeconfig::cluster(root).map_err(|error| ErrorChain(&error).to_string()),
        node_name: kubelet_node_name(root),
        missing: files.into_iter().filter(|path| !root.path(path).is_file()).collect(),
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
    if let Some(finding) = failed {
        return Verdict::Fail(vec![finding]);
    }
    match mismatch(&facts.written, asked) {
        None => Verdict::Pass,
        Some(what) => {
            let summary = format!("nodeadm's config phase left something else: {what}");
            Verdict::Fail(vec![Finding::new(
                Reason::NodeadmConfigFailed,
                Phase::Bootstrap,
                summary,
            )])
        }
    }
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
        Written { cluster: Ok(cluster), node_name: Some("n1".into()), missing: vec![] }
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
            let verdict = verdict(&Facts { run: None, written }, &asked());
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
