//! Walks the phases in order, again and again until the node is Ready, and stays.
//!
//! - [`walk`]: one proving of a [`node`], phase by phase;
//! - [`prove`]: one phase, looked at until it has a verdict;
//! - [`recorder`]: where every change goes;
//! - [`budget`], [`enforce`] (with the pool's [`policy`]), [`again`]: how long, how strict, and when
//!   once more;
//! - [`journal`]: what survives a crash; [`points`]: where the tests make it crash.

pub mod again;
pub mod budget;
pub mod enforce;
pub mod journal;
pub mod node;
pub mod points;
pub mod policy;
pub mod prove;
pub mod recorder;
pub mod walk;

use std::io;
use std::time::Duration;

use contract::join_report::JoinOutcome;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;

use self::node::Node;
use self::points::Point;
use self::recorder::Recorder;
use self::walk::Walk;
use crate::host::{Deadline, Root, notify};
use crate::phases::notices;

/// How long the console may take its last line when we are told to end.
const LAST_LINE: Duration = Duration::from_millis(500);

/// Why the join cannot even begin.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Signals cannot be received.
    #[error("could not listen for signals")]
    Signals(#[source] io::Error),
    /// The client for AWS cannot be made.
    #[error("could not make the client for AWS")]
    Http(#[source] io::Error),
}

/// Joins the node that `root` belongs to; returns when it is told to end. The first life of a boot
/// dies at `die_at`.
///
/// # Errors
/// Only when it cannot begin. Whatever keeps the node out is a verdict, not an error.
pub async fn run(root: Root, die_at: Option<Point>) -> Result<(), JoinError> {
    let mut end = signal(SignalKind::terminate()).map_err(JoinError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(JoinError::Signals)?;
    let node = Node::of(root).map_err(JoinError::Http)?;
    let recorder = Recorder::new(node.root.clone(), &node.boot);
    if let Some(point) = die_at.filter(|_| recorder.is_first_life()) {
        points::arm(point);
    }
    tokio::select! {
        () = join(&node, &recorder) => {}
        () = listen(&node, &recorder) => {}
        () = notify::keep_alive() => {}
        () = told(&mut end) => {}
        () = told(&mut interrupt) => {}
    }
    recorder.flush(LAST_LINE);
    Ok(())
}

async fn told(signal: &mut Signal) {
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

/// Listens to what EC2 announces while the node joins; the watch listens afterwards.
async fn listen(node: &Node, recorder: &Recorder) {
    while recorder.outcome() != JoinOutcome::Ready {
        sleep(notices::POLL).await;
        let facts = notices::gather(&node.imds, Deadline::within(notices::ROUND)).await;
        recorder.standing(notices::SOURCE, notices::findings(&facts));
    }
    std::future::pending().await
}

/// Proves until the node is Ready, then stays.
async fn join(node: &Node, recorder: &Recorder) {
    let mut walk = Walk::new(node, recorder);
    let mut failures = 0;
    loop {
        let before = again::fingerprint(&node.root);
        let proven = walk.once().await;
        notify::ready();
        match proven {
            Ok(()) => break,
            Err(_closed) if walk.begins_anew() => {}
            Err(_closed) => {
                let again = again::wait(&node.root, before, failures);
                (failures, ()) = tokio::join!(again, walk.keep_evidence());
            }
        }
    }
    notify::status("ready: the node is in the cluster with everything proven");
    std::future::pending::<()>().await;
}

#[cfg(test)]
mod tests;
