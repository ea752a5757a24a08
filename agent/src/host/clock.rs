//! Time on the node: the boot, the uptime, and deadlines on the monotonic clock.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::Root;
use super::files::{self, FileError};

/// A point on the monotonic clock after which nothing is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// `duration` from now.
    #[must_use]
    pub fn within(duration: Duration) -> Self {
        // 30 years stand for "never": an Instant cannot hold every Duration.
        let never = Duration::from_secs(30 * 365 * 86_400);
        Self(Instant::now() + duration.min(never))
    }

    /// The earlier of this deadline and `duration` from now.
    #[must_use]
    pub fn at_most(self, duration: Duration) -> Self {
        self.min(Self::within(duration))
    }

    /// What is left; zero once it has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// For `tokio::time::timeout_at` and `sleep_until`.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }
}

/// The kernel's id of this boot.
///
/// # Errors
/// When `/proc/sys/kernel/random/boot_id` cannot be read.
pub fn boot_id(root: &Root) -> Result<String, FileError> {
    let text = files::read_text(&root.path("/proc/sys/kernel/random/boot_id"))?;
    Ok(text.trim().to_owned())
}

/// How long the node has been up; `None` when `/proc/uptime` does not say.
#[must_use]
pub fn uptime(root: &Root) -> Option<Duration> {
    let text = files::read_text(&root.path("/proc/uptime")).ok()?;
    let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Now, as reports spell it: RFC 3339 in UTC, with milliseconds.
#[must_use]
pub fn now() -> String {
    spell(Timestamp::now())
}

/// `at` as reports spell it.
#[must_use]
pub fn spell(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// The part of the join's time that is used when the join starts.
///
/// It counts from the launch, which the instance identity document dates (`pendingTime`), clamped
/// to between the uptime and the uptime + 2 minutes: a reboot begins afresh, and a wrong clock
/// costs nothing.
#[must_use]
pub fn time_used(now: Timestamp, pending: Option<Timestamp>, uptime: Duration) -> Duration {
    const BEFORE_KERNEL: Duration = Duration::from_secs(120);
    let since_launch = pending.map_or(Duration::ZERO, |pending| {
        Duration::try_from(now.duration_since(pending)).unwrap_or(Duration::ZERO)
    });
    since_launch.clamp(uptime, uptime + BEFORE_KERNEL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_used_is_clamped_to_the_uptime() {
        let now: Timestamp = "2026-11-20T20:10:00Z".parse().unwrap();
        let up = |seconds| Duration::from_secs(seconds);
        let pending = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        for (pending, uptime, used, why) in [
            (pending("2026-11-20T20:09:30Z"), up(20), 30, "launched 30 s ago, kernel up for 20"),
            (pending("2026-11-19T20:09:30Z"), up(20), 140, "a reboot a day after the launch"),
            (pending("2026-11-20T21:00:00Z"), up(20), 20, "a clock that is behind"),
            (None, up(25), 25, "no pendingTime"),
            (pending("2026-11-20T20:09:59Z"), up(25), 25, "up for longer than launched"),
        ] {
            assert_eq!(time_used(now, pending, uptime), up(used), "{why}");
        }
    }

    #[test]
    fn reads_boot_and_uptime_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        assert!(boot_id(&root).is_err());
        assert_eq!(uptime(&root), None);
        std::fs::create_dir_all(root.path("/proc/sys/kernel/random")).unwrap();
        std::fs::write(root.path("/proc/sys/kernel/random/boot_id"), "6e1c-9b\n").unwrap();
        std::fs::write(root.path("/proc/uptime"), "12.50 40.00\n").unwrap();
        assert_eq!(boot_id(&root).unwrap(), "6e1c-9b");
        assert_eq!(uptime(&root), Some(Duration::from_millis(12_500)));
    }

    #[test]
    fn times_are_spelled_with_milliseconds() {
        let at = "2026-11-20T20:00:00.12345Z".parse().unwrap();
        assert_eq!(spell(at), "2026-11-20T20:00:00.123Z");
    }

    #[test]
    fn a_deadline_passes() {
        let deadline = Deadline::within(Duration::from_secs(10));
        assert!(deadline.remaining() > Duration::from_secs(9) && !deadline.has_passed());
        assert!(deadline.at_most(Duration::from_secs(3)) < deadline);
        assert!(Deadline::within(Duration::ZERO).has_passed());
        assert!(!Deadline::within(Duration::MAX).has_passed());
    }
}
