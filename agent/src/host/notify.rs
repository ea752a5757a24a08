//! What the join tells PID 1 of itself; nothing when it was not started by a unit.

use std::time::Duration;

use sd_notify::NotifyState;

/// The first verdict is there.
pub fn ready() {
    send(&NotifyState::Ready);
}

/// One line on what happens now, as `systemctl status` shows it.
pub fn status(text: &str) {
    send(&NotifyState::Status(text));
}

/// The start may take `more` from now on.
pub fn extend_timeout(more: Duration) {
    let micros = u32::try_from(more.as_micros()).unwrap_or(u32::MAX);
    send(&NotifyState::ExtendTimeoutUsec(micros));
}

/// Tells PID 1 that we are alive as often as it asks for; never returns, and needs no watchdog.
pub async fn keep_alive() {
    let Some(limit) = sd_notify::watchdog_enabled() else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(limit / 2);
    loop {
        ticks.tick().await;
        send(&NotifyState::Watchdog);
    }
}

fn send(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "systemd was not told");
    }
}
