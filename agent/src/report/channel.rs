//! Delivery over the network: the latest message wins, with a retry of our own.
//!
//! Reports of one bad image come from a whole pool at once, and Parameter Store takes a few calls a
//! second for the whole account. So the first report of a larger pool waits for a random part of a
//! window, and retries are spread with full jitter: the SDK's three quick ones make a storm worse.

use std::time::Duration;

use contract::JoinReport;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::host::chance;

/// The largest pool whose nodes report at once.
const AT_ONCE: u32 = 3;

/// How many first reports a second the whole pool may make.
const REPORTS_PER_SECOND: f64 = 1.25;

/// The longest window, and the longest pause between two attempts.
const WINDOW_MAX: Duration = Duration::from_secs(15 * 60);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The shortest pause after a failed attempt, and the part of the window that it is in a large pool:
/// where one node is refused, others are about to report.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_PARTS: u32 = 20;

/// How an attempt went.
#[derive(Debug)]
pub enum Delivery {
    /// It is there.
    Done,
    /// It can go better.
    Again(String),
    /// It will not go better: a missing right, a full account.
    Never(String),
}

/// One way out of the node.
pub trait Channel {
    /// What is sent.
    type Message: Clone + PartialEq + Send;
    /// Name in logs.
    const NAME: &'static str;

    /// What the report asks for, if anything.
    fn wanted(&self, report: &JoinReport) -> Option<Self::Message>;

    /// What is known to be delivered, from an earlier life of this process.
    fn delivered(&self) -> Option<Self::Message>;

    /// Whether the message may be spread over the pool's window.
    fn is_spread(&self, message: &Self::Message) -> bool;

    /// Sends one message, once.
    fn deliver(&self, message: &Self::Message) -> impl Future<Output = Delivery> + Send;
}

/// Delivers what the latest report asks for, until nobody reports any more.
pub async fn serve<C: Channel>(
    channel: C,
    mut reports: watch::Receiver<JoinReport>,
    pool_size: u32,
) {
    let mut delivered = channel.delivered();
    let shortest = first_pause(pool_size);
    let mut window = Some(window(pool_size));
    let mut pause = shortest;
    loop {
        let wanted = channel.wanted(&reports.borrow_and_update());
        let Some(message) = wanted.filter(|message| delivered.as_ref() != Some(message)) else {
            if reports.changed().await.is_err() {
                return;
            }
            continue;
        };
        if channel.is_spread(&message)
            && let Some(window) = window.take()
        {
            sleep(chance::part_of(window, 0.0)).await;
            // What is wanted may have changed: look again.
            continue;
        }
        match channel.deliver(&message).await {
            Delivery::Done => {
                tracing::debug!(channel = C::NAME, "delivered");
                delivered = Some(message);
                pause = shortest;
            }
            Delivery::Never(error) => {
                tracing::warn!(channel = C::NAME, %error, "the report is not delivered");
                delivered = Some(message);
            }
            Delivery::Again(error) => {
                tracing::info!(channel = C::NAME, %error, "the report is delivered later");
                // A newer report ends the pause only by way of `wanted`: never faster than this.
                sleep(chance::part_of(pause, 0.5)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}

/// The window in which the first reports of a pool spread.
#[must_use]
pub fn window(pool_size: u32) -> Duration {
    if pool_size <= AT_ONCE {
        return Duration::ZERO;
    }
    Duration::from_secs_f64(f64::from(pool_size) / REPORTS_PER_SECOND).min(WINDOW_MAX)
}

/// The longest pause after the first failed attempt.
fn first_pause(pool_size: u32) -> Duration {
    (window(pool_size) / PAUSE_PARTS).max(PAUSE_MIN)
}

/// Waits for a delivery within `limit`; one that hangs is tried again.
pub(crate) async fn within(limit: Duration, attempt: impl Future<Output = Delivery>) -> Delivery {
    match timeout(limit, attempt).await {
        Ok(delivery) => delivery,
        Err(_) => Delivery::Again(format!("no answer within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use contract::Reason;
    use contract::join_report::JoinOutcome;

    use super::*;
    use crate::report::tests::report;

    /// Remembers what it was given; refuses as often as it is told to.
    #[derive(Clone, Default)]
    struct Recorder {
        sent: Arc<Mutex<Vec<String>>>,
        refusals: Arc<Mutex<u32>>,
    }

    impl Channel for Recorder {
        type Message = String;
        const NAME: &'static str = "recorder";

        fn wanted(&self, report: &JoinReport) -> Option<String> {
            Some(report.cause()?.reason.to_string())
        }
        fn delivered(&self) -> Option<String> {
            Some("GpuLost".into())
        }
        fn is_spread(&self, _: &String) -> bool {
            true
        }
        async fn deliver(&self, message: &String) -> Delivery {
            let mut refusals = self.refusals.lock().unwrap();
            if *refusals > 0 {
                *refusals -= 1;
                return Delivery::Again("busy".into());
            }
            self.sent.lock().unwrap().push(message.clone());
            Delivery::Done
        }
    }

    async fn until(condition: impl Fn() -> bool) {
        let deadline = crate::host::Deadline::within(Duration::from_secs(20));
        while !condition() {
            assert!(!deadline.has_passed(), "it did not come to pass");
            sleep(Duration::from_millis(5)).await;
        }
    }

    #[tokio::test]
    async fn delivers_changes_once_and_again_after_refusals() {
        let recorder = Recorder::default();
        *recorder.refusals.lock().unwrap() = 1;
        let (sender, receiver) = watch::channel(report(JoinOutcome::Failed, &[Reason::GpuLost]));
        let task = tokio::spawn(serve(recorder.clone(), receiver, 1));
        sender.send_replace(report(JoinOutcome::Failed, &[Reason::GpuCountShort]));
        until(|| recorder.sent.lock().unwrap().len() == 1).await;
        sender.send_replace(report(JoinOutcome::Failed, &[Reason::GpuCountShort]));
        sender.send_replace(report(JoinOutcome::Failed, &[Reason::DriverHang]));
        until(|| recorder.sent.lock().unwrap().len() == 2).await;
        assert_eq!(*recorder.sent.lock().unwrap(), ["GpuCountShort", "DriverHang"]);
        drop(sender);
        task.await.unwrap();
    }

    #[test]
    fn the_window_grows_with_the_pool() {
        for (size, millis) in [(1, 0), (3, 0), (4, 3_200), (300, 240_000), (100_000, 900_000)] {
            assert_eq!(window(size).as_secs_f64().round(), (f64::from(millis) / 1000.0).round());
        }
        for (size, seconds) in [(1, 1), (16, 1), (300, 12), (100_000, 45)] {
            assert_eq!(first_pause(size).as_secs(), seconds, "{size}");
        }
    }
}
