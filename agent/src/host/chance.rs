//! Chance, for whatever a whole pool would otherwise do in the same second.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::time::Duration;

/// A number from 0 to below 1. The standard library seeds its hashers from the kernel.
#[must_use]
pub fn fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 32;
    f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
}

/// Between `least` times `duration` and `duration`.
#[must_use]
pub fn part_of(duration: Duration, least: f64) -> Duration {
    duration.mul_f64(least + (1.0 - least) * fraction())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_stays_within_its_bounds() {
        assert!((0..100).map(|_| fraction()).all(|f| (0.0..1.0).contains(&f)));
        assert_ne!(fraction(), fraction());
        let whole = Duration::from_secs(8);
        let parts = (0..100).map(|_| part_of(whole, 0.75));
        assert!(parts.into_iter().all(|part| part <= whole && part >= Duration::from_secs(6)));
    }
}
