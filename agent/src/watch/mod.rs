//! After the join: samples the GPUs, reads the kernel log, serves metrics, and keeps the Node condition
//! true.
//!
//! `sampler` keeps a helper process that asks NVML, and goes on from the last samples when that hangs or
//! dies. `keeper` takes its rounds and what the kernel logs, and asks [`health`], which is pure, what
//! follows. `tell` says it on the Node; the metrics server reads a snapshot. None of them waits for the
//! driver, so a stop is never held up and the watchdog is always fed.

mod condition;
mod evidence;
mod follow;
pub mod health;
mod keeper;
mod process;
mod reset;
mod sampler;
mod store;
mod tell;
#[cfg(test)]
mod testing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use contract::{JoinReport, names};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};

use crate::gpu::probe::Helper;
use crate::host::{Root, files};
use crate::metrics::serve::{self, ListenError};
use crate::metrics::snapshot::Snapshot;

use keeper::Outlets;
use sampler::Lines;

pub use keeper::View;
pub use sampler::{NvmlXid, Observed, Timing};

/// How the watch is run.
#[derive(Clone, Debug)]
pub struct WatchOptions {
    /// The node's root.
    pub root: Root,
    /// Where metrics are served.
    pub listen: SocketAddr,
}

/// Why the watch cannot run.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// Metrics cannot be served.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The signal to stop cannot be waited for.
    #[error("could not wait for SIGTERM")]
    Signal(#[source] std::io::Error),
}

/// Watches until it is told to stop.
///
/// # Errors
/// The address is taken, or signals cannot be had.
pub async fn run(options: WatchOptions) -> Result<(), WatchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(WatchError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(WatchError::Signal)?;
    let listener = serve::listen(options.listen).await?;
    let (observed, latest) = watch::channel(Arc::new(Observed::default()));
    let (publish, snapshots) = watch::channel(Arc::default());
    let (view, views) = watch::channel(Arc::default());
    let (told, xids) = mpsc::channel(QUEUE);
    let (notices, events) = mpsc::channel(QUEUE);
    let look_again = Arc::new(Notify::new());

    let mut tasks = tokio::task::JoinSet::new();
    let root = || options.root.clone();
    let lines = Lines { look_again: Arc::clone(&look_again), xids: told };
    tasks.spawn(sampler::run(root(), Helper::default(), Timing::default(), lines, observed));
    tasks.spawn(keeper::run(root(), latest, xids, Outlets { view, notices, look_again }));
    tasks.spawn(follow(views.clone(), publish));
    tasks.spawn(serve::serve(listener, snapshots));
    tasks.spawn(tell::run(root(), views, events));
    tell(&[NotifyState::Ready, NotifyState::Status("watching")]);
    tracing::info!(listen = %options.listen, "watching");

    let feed = watchdog();
    tokio::select! {
        () = feed => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = tasks.join_next() => {
            // None of them ends by itself: one that did has panicked, and systemd starts us anew.
            if let Some(Err(error)) = ended {
                tracing::error!(%error, "a task of the watch died");
            }
        }
    }
    tell(&[NotifyState::Stopping]);
    // Aborted, not awaited: the helper dies with its handle, or is left to the kernel.
    tasks.abort_all();
    Ok(())
}

/// Hands the metrics' half of every view to the server.
async fn follow(mut views: watch::Receiver<Arc<View>>, publish: watch::Sender<Arc<Snapshot>>) {
    while views.changed().await.is_ok() {
        let view = Arc::clone(&views.borrow_and_update());
        let mut snapshot = Snapshot::clone(&view.observed.snapshot);
        snapshot.health = view.health.clone();
        snapshot.reads_log = view.reads_log;
        publish.send_replace(Arc::new(snapshot));
    }
}

/// Feeds systemd's watchdog for ever; idle where there is none. It runs beside the other tasks on
/// the same runtime, so it starves when they block it.
async fn watchdog() {
    let Some(limit) = sd_notify::watchdog_enabled() else {
        return std::future::pending().await;
    };
    let mut ticks = interval(limit / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd was not told");
    }
}

/// The join's report; none while there is none that can be read.
fn join_report(root: &Root) -> Option<JoinReport> {
    let bytes = files::read(&root.path(names::REPORT_PATH)).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(report) => Some(report),
        Err(error) => {
            tracing::debug!(%error, "the join report cannot be understood");
            None
        }
    }
}

/// How many XIDs and events may wait for whoever takes them.
const QUEUE: usize = 256;

/// How often the files of driver and join are looked at.
const LOOK: Duration = Duration::from_secs(1);
