//! What the join tells PID 1 of itself; nothing when it was not started by a unit.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// `TimeoutStartSec=` of the join's unit: how long we may be silent before READY. Short, because five
/// failed starts have to fall within its `StartLimitIntervalSec=` for the fallback to speak.
const START: Duration = Duration::from_secs(20);

/// Between two words.
const WORD: Duration = Duration::from_secs(5);

/// Whether READY has been said.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// The first verdict is there.
pub fn ready() {
    IS_READY.store(true, Ordering::Relaxed);
    send(&NotifyState::Ready);
}

/// One line on what happens now, as `systemctl status` shows it.
pub fn status(text: &str) {
    send(&NotifyState::Status(text));
}

/// Tells PID 1 that we are alive, as often as it asks for; never returns. Before READY a watchdog is
/// inert, so the start's own deadline is put off instead, for as long as our event loop turns.
pub async fn keep_alive() {
    let watchdog = sd_notify::watchdog_enabled();
    let mut ticks = tokio::time::interval(watchdog.map_or(WORD, |limit| WORD.min(limit / 2)));
    loop {
        ticks.tick().await;
        if !IS_READY.load(Ordering::Relaxed) {
            let micros = u32::try_from(START.as_micros()).unwrap_or(u32::MAX);
            send(&NotifyState::ExtendTimeoutUsec(micros));
        }
        if watchdog.is_some() {
            send(&NotifyState::Watchdog);
        }
    }
}

fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "systemd was not told");
    }
}
