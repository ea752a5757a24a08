//! Plays many cases side by side on one stage; those that break what all share come last, alone.

use std::cmp::Reverse;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::act::play;
use super::case::{Case, Nodes};
use super::judge::Line;
use super::stage::Stage;
use crate::faults::Fault;
use crate::gear::NodesGear;

/// Why a case is not played here.
#[must_use]
pub fn skipped(case: &Case, nodes: NodesGear) -> Option<&'static str> {
    if case.nodes == Nodes::Machine && nodes != NodesGear::Machine {
        return Some("it needs machine nodes: --nodes machine");
    }
    // A word that is no fault is found when the corpus is read.
    let faults = case.injections().unwrap_or_default();
    faults.iter().find_map(|fault| match fault {
        Fault::Local(local) => local.lacks(),
        _ => None,
    })
}

/// Plays the cases, at most `jobs` at a time; each line is handed to `heard` as it comes.
pub async fn all(stage: Stage, cases: Vec<Case>, jobs: usize, mut heard: impl FnMut(&Line)) {
    let stage = Arc::new(stage);
    let (alone, mut together): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.alone);
    // The one that lasts longest begins first, beside all others.
    together.sort_by_key(|case| Reverse(case.within));
    let places = Arc::new(Semaphore::new(jobs.max(1)));
    let mut playing = JoinSet::new();
    for case in together {
        let (stage, places) = (Arc::clone(&stage), Arc::clone(&places));
        playing.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire_owned().await;
            play(&stage, &case).await
        });
    }
    while let Some(line) = playing.join_next().await {
        match line {
            Ok(line) => heard(&line),
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
    for case in alone {
        heard(&play(&stage, &case).await);
    }
}
