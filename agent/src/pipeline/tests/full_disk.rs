//! A disk that is really full where the join keeps its memory, and a memory that is torn.

use std::path::PathBuf;

use contract::names::JOIN_STATE_DIR;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::Uid;

use super::*;

/// A filesystem of a few pages, full to the last byte.
struct Full(PathBuf);

impl Full {
    /// None where we may not mount.
    fn at(path: PathBuf) -> Option<Self> {
        if !Uid::effective().is_root() {
            println!("skipped: needs root to mount a filesystem");
            return None;
        }
        std::fs::create_dir_all(&path).unwrap();
        mount(Some("full"), &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).ok()?;
        let full = Self(path);
        let filling = std::fs::write(full.0.join("filling"), vec![0; 128 * 1024]).unwrap_err();
        assert_eq!(filling.kind(), std::io::ErrorKind::StorageFull);
        Some(full)
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_costs_the_joins_memory_and_nothing_else() {
    let world = World::new(0).await;
    let Some(full) = Full::at(world.root().path(JOIN_STATE_DIR)) else { return };
    let (open, report) = world.prove().await;
    assert!(open, "{report:#?}");
    assert_eq!((report.outcome, report.reasons.len()), (JoinOutcome::Ready, 0));
    assert!(!full.0.join("journal.json").exists(), "the disk is not full");
    let (open, report) = world.prove().await;
    assert!(open, "{report:#?}");
    assert_eq!(world.starts(), ["config", "run"], "kubelet runs: nothing is done twice");

    std::fs::remove_file(full.0.join("filling")).unwrap();
    assert!(world.prove().await.0);
    assert!(full.0.join("journal.json").exists());
}

#[tokio::test]
async fn a_full_disk_leaves_a_failure_its_channels() {
    let world = World::new(8).await;
    let Some(_full) = Full::at(world.root().path(JOIN_STATE_DIR)) else { return };
    let (open, report) = world.prove().await;
    assert!(!open);
    assert_eq!(report.cause().unwrap().reason.as_str(), "GpuAbsent");
    let put = |r: &String| r.contains("AmazonSSM.PutParameter") && r.contains("reason=GpuAbsent");
    until(|| world.aws.requests().iter().any(put)).await;
    let console = files::read_text(&world.root().path("/dev/console")).unwrap();
    assert_eq!(contract::ConsoleLine::last_in(&console).unwrap().outcome, JoinOutcome::Failed);
}

#[tokio::test]
async fn a_torn_memory_costs_nothing_on_a_node_that_runs() {
    let world = World::new(0).await;
    assert!(world.prove().await.0);
    let path = world.root().path(JOIN_STATE_DIR).join("journal.json");
    let whole = std::fs::read(&path).unwrap();
    for end in [0, 1, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&path, &whole[..end]).unwrap();
        let (open, report) = world.prove().await;
        assert!(open, "cut at {end}: {report:#?}");
        assert_eq!(report.attempt, 1, "the number of the proving is what is lost");
        assert_eq!(world.starts(), ["config", "run"], "cut at {end}");
    }
}
