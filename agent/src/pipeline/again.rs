//! After a Fail: when to prove again.
//!
//! After 15 s, doubling to 5 min, and a little less by chance: a pool that fails as one is not to ask
//! as one. At once when something that can be seen cheaply has changed, so that a repaired node joins
//! within seconds.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use contract::names::{AGENT_CONFIG_PATH, NODEADM_DROPIN_DIR};
use tokio::time::sleep;

use crate::host::{Deadline, Root, chance, files};
use crate::phases::drivers;

const FIRST: Duration = Duration::from_secs(15);
const LAST: Duration = Duration::from_secs(300);

/// Written when the last user script has ended.
const CLOUD_INIT_RESULT: &str = "/run/cloud-init/result.json";

/// Between two looks at what can be seen cheaply.
const POLL: Duration = Duration::from_secs(1);

/// What can be seen cheaply of whatever a verdict may hang on: the GPUs and their driver, the
/// configuration on the disk, the programs. Never asks the driver, never blocks.
#[must_use]
pub fn fingerprint(root: &Root) -> u64 {
    let mut hasher = DefaultHasher::new();
    drivers::fingerprint(root).hash(&mut hasher);
    for path in [
        "/usr/bin/nodeadm",
        "/usr/bin/kubelet",
        AGENT_CONFIG_PATH,
        "/opt/cni/bin",
        CLOUD_INIT_RESULT,
    ] {
        stamp(&root.path(path)).hash(&mut hasher);
    }
    let dropins = root.path(NODEADM_DROPIN_DIR);
    for name in files::names_in(&dropins) {
        (stamp(&dropins.join(&name)), name).hash(&mut hasher);
    }
    hasher.finish()
}

fn stamp(path: &Path) -> Option<(u64, u32, i64, i64)> {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.len(), meta.mode(), meta.mtime(), meta.mtime_nsec()))
}

/// The part of its pause that a node waits at least.
const LEAST_PART: f64 = 0.75;

/// The longest time until the next proving after `failures` earlier ones.
#[must_use]
pub fn pause(failures: u32) -> Duration {
    FIRST.saturating_mul(2_u32.saturating_pow(failures)).min(LAST)
}

/// Waits until it is time to prove again; gives the number of failures to go on counting from.
/// `before` is the fingerprint from before the failed proving: a change during it counts.
pub async fn wait(root: &Root, before: u64, failures: u32) -> u32 {
    let deadline = Deadline::within(chance::part_of(pause(failures), LEAST_PART));
    let mut last = before;
    while !deadline.has_passed() {
        sleep(POLL.min(deadline.remaining())).await;
        let now = fingerprint(root);
        // A repair changes several things one after another: prove once it has come to rest.
        if now != before && now == last {
            tracing::info!("something changed on the node: proving again");
            return 0;
        }
        last = now;
    }
    failures.saturating_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_five_minutes() {
        let seconds: Vec<u64> = (0..7).map(|n| pause(n).as_secs()).collect();
        assert_eq!(seconds, [15, 30, 60, 120, 240, 300, 300]);
        assert_eq!(pause(u32::MAX), LAST);
    }

    #[tokio::test]
    async fn a_change_ends_the_pause() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let before = fingerprint(&root);
        assert_eq!(fingerprint(&root), before, "nothing has changed");
        std::fs::create_dir_all(root.path(NODEADM_DROPIN_DIR)).unwrap();
        std::fs::write(root.path(NODEADM_DROPIN_DIR).join("10.yaml"), "x").unwrap();
        assert_ne!(fingerprint(&root), before);
        let start = std::time::Instant::now();
        assert_eq!(wait(&root, before, 3).await, 0);
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}
