//! Takes machines away: what a machine leaves outside its namespaces, and what a lab that was
//! killed has left altogether.

use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::holder::Holder;
use super::{MachineError, network};
use crate::processes::{self, ProcessId};

/// How long a machine's processes may take to go after SIGKILL.
pub(super) const GONE_WITHIN: Duration = Duration::from_secs(5);

/// Removes what is left of a machine whose processes have gone.
pub(super) async fn remove(name: &str) {
    if let Err(error) = network::disconnect(name) {
        tracing::warn!(%error, "namespace not removed");
    }
    let deadline = Instant::now() + GONE_WITHIN;
    while !remove_cgroups(name) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// True once none is left. A group can be removed a moment after its last process has gone.
fn remove_cgroups(name: &str) -> bool {
    let Ok(hierarchies) = std::fs::read_dir("/sys/fs/cgroup") else { return true };
    let mut clean = true;
    for hierarchy in hierarchies.flatten() {
        let all = hierarchy.path().join("rollcall-lab");
        clean &= remove_tree(&all.join(name));
        // The last machine takes the common parent along; others still need it.
        let _ = std::fs::remove_dir(all);
    }
    clean
}

/// `rmdir` from the leaves up: a cgroup's files cannot be removed, and need not be.
fn remove_tree(group: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(group) else { return true };
    let mut clean = true;
    for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())) {
        clean &= remove_tree(&entry.path());
    }
    clean && std::fs::remove_dir(group).is_ok()
}

/// Removes what a lab that was killed has left, if it is the one in `dir` or nobody's any more:
/// processes, namespaces, cgroups, the bridge, and the host's settings as they were.
///
/// # Errors
/// When the bridge cannot be removed.
pub async fn sweep(dir: &Path) -> Result<(), MachineError> {
    let holder = Holder::read();
    if holder.as_ref().is_some_and(|holder| holder.is_alive() && holder.lab != dir) {
        return Ok(());
    }
    if network::exists() {
        if let Some(holder) = &holder {
            let family = processes::of_lab(&holder.lab);
            processes::end(&family, Duration::from_secs(2)).await;
        }
        for name in network::connected() {
            let members = Path::new("/sys/fs/cgroup/pids/rollcall-lab").join(&name);
            let family = members_of(&members);
            for id in &family {
                id.signal(Signal::SIGKILL);
            }
            processes::all_gone(&family, GONE_WITHIN).await;
            remove(&name).await;
        }
        network::remove()?;
    }
    if let Some(holder) = holder {
        holder.release();
    }
    Ok(())
}

fn members_of(group: &Path) -> Vec<ProcessId> {
    let listed = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = listed.lines().filter_map(|pid| ProcessId::of(pid.parse().ok()?));
    let mut members: Vec<ProcessId> = own.collect();
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            members.extend(members_of(&entry.path()));
        }
    }
    members
}
