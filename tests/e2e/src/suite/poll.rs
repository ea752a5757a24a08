//! Waiting, without a fixed sleep: looking again until something holds, or its time is up.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks until `look` finds something.
///
/// # Errors
/// When it has found nothing after `limit`: says `what` was waited for, and the last error of a look.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        let last = match look().await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => None,
            // What is looked at comes and goes: a machine that reboots has no processes.
            Err(error) => Some(error),
        };
        if Instant::now() >= deadline {
            let why = last.map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("not within {} s: {what}{why}", limit.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// Runs all of them side by side to their end, and gives what they gave in their order.
pub async fn side_by_side<T>(lives: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut lives: Vec<_> = lives.map(Box::pin).collect();
    let mut ends: Vec<Option<T>> = lives.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (life, end) in lives.iter_mut().zip(&mut ends) {
            if end.is_none()
                && let Poll::Ready(given) = life.as_mut().poll(context)
            {
                *end = Some(given);
            }
        }
        if ends.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ends.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn side_by_side_keeps_the_order() {
        let lives = [30_u64, 10, 20].map(|ms| async move {
            sleep(Duration::from_millis(ms)).await;
            ms
        });
        assert_eq!(side_by_side(lives.into_iter()).await, [30, 10, 20]);
    }

    #[tokio::test]
    async fn ends_with_what_is_found_or_with_the_last_error() {
        let mut looks = 0;
        let found = until(Duration::from_secs(5), "three", async || {
            looks += 1;
            Ok((looks == 3).then_some(looks))
        });
        assert_eq!(found.await.unwrap(), 3);
        let error = until(Duration::ZERO, "nothing", async || -> anyhow::Result<Option<()>> {
            bail!("no way")
        });
        assert_eq!(error.await.unwrap_err().to_string(), "not within 0 s: nothing: no way");
    }
}
