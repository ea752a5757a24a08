//! Whose process an XID is charged to: the pod, by the control group that kubelet gave it.

use crate::host::{Root, files};

/// A process that the driver names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// UID of its pod; none outside of pods, or when the process is gone.
    pub(super) pod: Option<String>,
    /// As an event says it.
    pub(super) said: String,
}

/// Looks a process up while it is still there.
pub(super) fn find(root: &Root, pid: u32, name: Option<&str>) -> Process {
    let groups = files::read_text(&root.path(format!("/proc/{pid}/cgroup"))).unwrap_or_default();
    let (pod, container) = place(&groups);
    let who = name.unwrap_or("unknown");
    let said = match (&pod, container) {
        (Some(pod), Some(container)) => {
            let short = &container[..container.len().min(12)];
            format!("pod {pod}, container {short} ({who}, pid {pid})")
        }
        (Some(pod), None) => format!("pod {pod} ({who}, pid {pid})"),
        (None, _) => format!("process {who} (pid {pid})"),
    };
    Process { pod, said }
}

/// Pod and container in `/proc/<pid>/cgroup`, for both of kubelet's cgroup drivers:
/// `…/kubepods-burstable-pod1f3c_….slice/cri-containerd-<id>.scope`, `/kubepods/pod1f3c-…/<id>`.
fn place(groups: &str) -> (Option<String>, Option<String>) {
    let pod_of = |part: &str| {
        let name = part.strip_suffix(".slice").unwrap_or(part);
        let uid = name.rsplit_once("pod").filter(|(before, _)| {
            before.is_empty() || (before.starts_with("kubepods") && before.ends_with('-'))
        })?;
        let uid = uid.1.replace('_', "-");
        let is_uid = uid.len() >= 32 && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        is_uid.then_some(uid)
    };
    for line in groups.lines() {
        let mut parts = line.rsplit(':').next().unwrap_or_default().split('/');
        let Some(pod) = parts.by_ref().find_map(pod_of) else { continue };
        let container = parts.next().map(|part| {
            let name = part.strip_suffix(".scope").unwrap_or(part);
            name.rsplit('-').next().unwrap_or(name).to_owned()
        });
        return (Some(pod), container.filter(|id| !id.is_empty()));
    }
    (None, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "1f3c9a52-6d0e-4a0e-9d3f-0123456789ab";

    #[test]
    fn the_pod_is_in_the_control_group_of_both_drivers() {
        let id = "a".repeat(64);
        let slice = UID.replace('-', "_");
        for groups in [
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope\n"
            ),
            format!("0::/kubepods.slice/kubepods-pod{slice}.slice/cri-containerd-{id}.scope\n"),
            format!("12:devices:/kubepods/besteffort/pod{UID}/{id}\n0::/\n"),
        ] {
            assert_eq!(place(&groups), (Some(UID.into()), Some(id.clone())), "{groups}");
        }
        for groups in ["", "0::/system.slice/sshd.service\n", "0::/user.slice/podman-1.scope\n"] {
            assert_eq!(place(groups), (None, None), "{groups}");
        }
    }

    #[test]
    fn a_process_that_is_gone_is_named_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let process = find(&root, 4242, Some("python3"));
        assert_eq!((process.pod, process.said.as_str()), (None, "process python3 (pid 4242)"));
        std::fs::create_dir_all(root.path("/proc/4242")).unwrap();
        let groups = format!("0::/kubepods/pod{UID}/{}\n", "b".repeat(64));
        std::fs::write(root.path("/proc/4242/cgroup"), groups).unwrap();
        let process = find(&root, 4242, None);
        assert_eq!(process.pod.as_deref(), Some(UID));
        assert!(
            process.said.contains("container bbbbbbbbbbbb (unknown, pid 4242)"),
            "{}",
            process.said
        );
    }
}
