//! Waiting on AWS: our own polls, quick at first, slower later, with a deadline always.

use std::time::Duration;

use contract::StepOutcome;
use tokio::time::{Instant, sleep, timeout};

use crate::aws::AwsError;
use crate::stack::{Interrupt, StackError};

/// Interfaces of ended instances and load balancers linger for minutes.
const DEPENDENCY_DEADLINE: Duration = Duration::from_secs(600);

/// How often a wait looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Between the first two looks.
    pub first: Duration,
    /// At most.
    pub slowest: Duration,
}

impl Default for Pace {
    /// Fast enough that a person sees things move, slow enough for a shared account's rate limits
    /// after a minute of waiting.
    fn default() -> Self {
        Self { first: Duration::from_millis(250), slowest: Duration::from_secs(5) }
    }
}

impl Pace {
    fn slower(self, now: Duration) -> Duration {
        (now * 5 / 4).min(self.slowest)
    }
}

/// How a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited<T> {
    /// It came.
    Came(T),
    /// The deadline passed.
    TooLong,
}

/// Looks until `look` finds something, the deadline passes or somebody interrupts.
///
/// # Errors
/// The look's own, or [`StackError::Interrupted`].
pub async fn until<T>(
    pace: Pace,
    deadline: Duration,
    interrupt: &Interrupt,
    mut look: impl AsyncFnMut() -> Result<Option<T>, StackError>,
) -> Result<Waited<T>, StackError> {
    let end = Instant::now() + deadline;
    let mut pause = pace.first;
    loop {
        if interrupt.is_raised() {
            return Err(StackError::Interrupted);
        }
        if let Some(found) = look().await? {
            return Ok(Waited::Came(found));
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Waited::TooLong);
        }
        // An interrupt ends the pause; the loop's head answers it.
        let _ = timeout(pause.min(left), interrupt.raised()).await;
        pause = pace.slower(pause);
    }
}

/// Repeats a deletion while something that is itself on its way out still holds it.
///
/// # Errors
/// The last refusal, when that does not go either.
pub async fn patiently(
    pace: Pace,
    interrupt: &Interrupt,
    delete: impl AsyncFn() -> Result<StepOutcome, AwsError>,
) -> Result<StepOutcome, StackError> {
    let held = |error: &AwsError| {
        matches!(
            error.code(),
            Some("DependencyViolation" | "InvalidIPAddress.InUse" | "InvalidParameterValue")
                | Some("InvalidNetworkInterface.InUse" | "ResourceInUse")
                | Some("InvalidPlacementGroup.InUse")
        )
    };
    let mut last = None;
    let look = async || match delete().await {
        Ok(outcome) => Ok(Some(outcome)),
        Err(error) if held(&error) => {
            last = Some(error);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    };
    match until(pace, DEPENDENCY_DEADLINE, interrupt, look).await? {
        Waited::Came(outcome) => Ok(outcome),
        Waited::TooLong => Err(last.map_or(StackError::Interrupted, StackError::from)),
    }
}

/// A short pause between two reads of an eventually consistent service.
pub async fn breathe(pace: Pace) {
    sleep(pace.first).await;
}

/// Reads side by side at most: a burst that leaves an account's other callers their share (EC2 and EKS
/// let a caller make 20 such calls a second, and more at once).
const READS: usize = 10;

/// Runs reads, a few of them side by side, and hands back their results in order.
pub async fn a_few_at_once<F: Future>(reads: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let (mut reads, mut results) = (reads.into_iter().peekable(), Vec::new());
    while reads.peek().is_some() {
        results.extend(side_by_side(reads.by_ref().take(READS)).await);
    }
    results
}

/// Runs futures side by side on this task and hands back their results in order.
pub async fn side_by_side<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut running: Vec<_> =
        futures.into_iter().map(|future| (Box::pin(future), None::<F::Output>)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in running.iter_mut().filter(|(_, output)| output.is_none()) {
            match future.as_mut().poll(context) {
                std::task::Poll::Ready(value) => *output = Some(value),
                std::task::Poll::Pending => pending = true,
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { first: Duration::from_millis(1), slowest: Duration::from_millis(2) };

    #[tokio::test]
    async fn a_wait_ends_when_it_comes_or_when_its_time_is_up() {
        let never = Interrupt::never();
        let mut looks = 0;
        let came = until(PACE, Duration::from_secs(60), &never, async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(came.await.unwrap(), Waited::Came(3));
        let late = until(PACE, Duration::from_millis(5), &never, async || Ok(None::<()>));
        assert_eq!(late.await.unwrap(), Waited::TooLong);
    }

    #[tokio::test]
    async fn results_keep_their_order() {
        let futures = [30_u64, 1, 10].map(|ms| async move {
            sleep(Duration::from_millis(ms)).await;
            ms
        });
        assert_eq!(side_by_side(futures).await, [30, 1, 10]);
        let many = (0..25).map(|number| async move { number });
        assert_eq!(a_few_at_once(many).await, (0..25).collect::<Vec<_>>());
    }

    #[test]
    fn the_pace_slows_down_to_its_limit() {
        let pace = Pace::default();
        let mut pause = pace.first;
        for _ in 0..40 {
            pause = pace.slower(pause);
        }
        assert_eq!(pause, pace.slowest);
    }
}
