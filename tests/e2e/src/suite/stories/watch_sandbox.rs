//! The watch reads what the join wrote, and can do nothing to it: tried as its user, in its mount
//! namespace, with its rights.

use anyhow::{Context, ensure};
use contract::names::{ADMITTED_PATH, JOIN_STATE_DIR, REPORT_PATH, UNIT_WATCH, WATCH_RUN_DIR};

use crate::suite::Suite;

pub(super) async fn tell(suite: &Suite) -> anyhow::Result<()> {
    let node = suite.node("gpu", 0).await?;
    let pid = node.property(UNIT_WATCH, "MainPID").await?;
    let status = node.asked(&["cat", &format!("/proc/{pid}/status")]).await?;
    let ids = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.with_context(|| format!("no `{field}` in {status}"))
    };
    let first = |ids: &str| ids.split_whitespace().next().unwrap_or_default().to_owned();
    let (uid, gid) = (first(ids("Uid:")?), first(ids("Gid:")?));
    let groups = ids("Groups:")?.split_whitespace().collect::<Vec<_>>().join(",");
    ensure!(uid != "0" && !uid.is_empty(), "the watch runs as root");

    let before =
        (node.asked(&["cat", REPORT_PATH]).await?, node.asked(&["cat", ADMITTED_PATH]).await?);
    let (reuid, regid) = (format!("--reuid={uid}"), format!("--regid={gid}"));
    let groups = match groups.is_empty() {
        true => "--clear-groups".to_owned(),
        false => format!("--groups={groups}"),
    };
    let script = attempts();
    let tried = node
        .asked(&[
            "nsenter",
            "-t",
            &pid,
            "-m",
            "setpriv",
            &reuid,
            &regid,
            &groups,
            "--inh-caps=-all",
            "--bounding-set=-all",
            "--no-new-privs",
            "sh",
            "-c",
            &script,
        ])
        .await?;
    ensure!(tried == "own", "the watch could do more than write its own files: {tried}");
    let after =
        (node.asked(&["cat", REPORT_PATH]).await?, node.asked(&["cat", ADMITTED_PATH]).await?);
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

/// Prints the name of each attempt that succeeds; that its own directory is writable shows that the
/// attempts are made as they should be.
fn attempts() -> String {
    let report_dir = REPORT_PATH.rsplit_once('/').map_or("", |(dir, _)| dir);
    let gate_dir = ADMITTED_PATH.rsplit_once('/').map_or("", |(dir, _)| dir);
    let mut script = format!(
        "try() {{ sh -c \"$2\" 2>/dev/null && echo \"$1\"; }}\n\
        try own 'echo x >{WATCH_RUN_DIR}/attempt && rm {WATCH_RUN_DIR}/attempt'\n"
    );
    for (what, command) in [
        ("write-report", format!("echo x >>{REPORT_PATH}")),
        ("remove-report", format!("rm -f {REPORT_PATH}")),
        ("replace-report", format!("echo x >{report_dir}/new")),
        ("write-journal", format!("echo x >>{JOIN_STATE_DIR}/journal.json")),
        ("remove-journal", format!("rm {JOIN_STATE_DIR}/journal.json")),
        ("write-admitted", format!("echo x >>{ADMITTED_PATH}")),
        ("remove-admitted", format!("rm -f {ADMITTED_PATH}")),
        ("replace-admitted", format!("echo x >{gate_dir}/new")),
        ("write-nodeadm-fragment", "echo x >/etc/eks/nodeadm.d/99-watch.yaml".to_owned()),
    ] {
        script.push_str(&format!("try {what} '{command}'\n"));
    }
    script + "true\n"
}
