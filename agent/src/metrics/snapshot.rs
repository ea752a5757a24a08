//! What the watch knows at a moment: the last that every GPU said, how old that is, and the join.

use std::collections::BTreeMap;

use contract::JoinReport;
use tokio::time::Instant;

use crate::gpu::efa;
use crate::gpu::pci::PciErrors;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{CallError, Driver, GpuSample};
use crate::watch::health::Health;

/// What the watch knows.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Name of the node, as the labels have it.
    pub hostname: String,
    /// The driver as it last answered.
    pub driver: Option<Driver>,
    /// Whether the driver answered when it was last asked.
    pub driver_up: bool,
    /// How many GPUs there should be; none when nobody knows.
    pub expected: Option<u32>,
    /// Every GPU that has ever answered this watch, in NVML's order.
    pub gpus: Vec<SeenGpu>,
    /// Errors of the GPUs' PCIe links since the boot, by address.
    pub pci_errors: BTreeMap<String, PciErrors>,
    /// What the EFA devices' ports have counted.
    pub efa_errors: efa::Errors,
    /// The join's report, as it last stood on disk.
    pub join: Option<JoinReport>,
    /// What is believed of the node's health.
    pub health: Health,
    /// Whether the kernel log can be read.
    pub reads_log: bool,
}

/// A GPU with the last that it said.
#[derive(Clone, Debug, PartialEq)]
pub struct SeenGpu {
    /// Its last whole answer.
    pub sample: GpuSample,
    /// When that was.
    pub at: Instant,
    /// Why it does not answer now; none when it does.
    pub trouble: Option<Trouble>,
}

/// Why a GPU does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// NVML gave an error.
    Error(CallError),
    /// NVML does not count it any more.
    Missing,
    /// The driver was not asked, or did not come to it.
    Unasked,
}

/// The GPUs after a round: who answered has a new sample, who did not keeps the last one and has a
/// trouble. Nobody's trouble touches another GPU.
#[must_use]
pub fn merge(before: &[SeenGpu], round: &NvmlFacts, now: Instant) -> Vec<SeenGpu> {
    let complete = round.outcome == Outcome::Complete;
    let mut after: Vec<SeenGpu> = before
        .iter()
        .map(|seen| {
            let trouble = if complete { Trouble::Missing } else { Trouble::Unasked };
            SeenGpu { trouble: Some(trouble), ..seen.clone() }
        })
        .collect();
    let (whole, ill): (Vec<_>, Vec<_>) = round.gpus.iter().partition(|gpu| gpu.error.is_none());
    for gpu in whole {
        let fresh = SeenGpu { sample: gpu.clone(), at: now, trouble: None };
        match after.iter_mut().find(|seen| seen.sample.uuid == gpu.uuid) {
            Some(seen) => *seen = fresh,
            None => after.push(fresh),
        }
    }
    for gpu in ill {
        let trouble = gpu.error.clone().map(Trouble::Error);
        // One that does not say who it is, is who had its index and has not answered since.
        let known = after.iter_mut().find(|seen| {
            seen.trouble.is_some()
                && (if gpu.uuid.is_empty() {
                    seen.sample.index == gpu.index
                } else {
                    seen.sample.uuid == gpu.uuid
                })
        });
        match known {
            Some(seen) => seen.trouble = trouble,
            None => after.push(SeenGpu { sample: gpu.clone(), at: now, trouble }),
        }
    }
    after.sort_by_key(|seen| seen.sample.index);
    after
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gpu(index: u32, uuid: &str) -> GpuSample {
        GpuSample { index, uuid: uuid.into(), ..GpuSample::default() }
    }

    fn round(gpus: Vec<GpuSample>, outcome: Outcome) -> NvmlFacts {
        NvmlFacts { driver: Some(Driver::default()), gpus, outcome }
    }

    fn lost(index: u32) -> GpuSample {
        let error = CallError { call: "x".into(), code: 15, text: "lost".into() };
        GpuSample { index, error: Some(error), ..GpuSample::default() }
    }

    fn told(gpus: &[SeenGpu], now: Instant) -> Vec<(&str, u64, bool)> {
        gpus.iter()
            .map(|seen| {
                let age = now.duration_since(seen.at).as_secs();
                (seen.sample.uuid.as_str(), age, seen.trouble.is_none())
            })
            .collect()
    }

    #[test]
    fn one_that_is_lost_keeps_its_last_sample_and_hides_nobody() {
        let start = Instant::now();
        let later = start + Duration::from_secs(5);
        let whole = round(vec![gpu(0, "a"), gpu(1, "b")], Outcome::Complete);
        let seen = merge(&[], &whole, start);
        assert_eq!(told(&seen, later), [("a", 5, true), ("b", 5, true)]);

        let short = round(vec![lost(0), gpu(1, "b")], Outcome::Complete);
        let seen = merge(&seen, &short, later);
        assert_eq!(told(&seen, later), [("a", 5, false), ("b", 0, true)]);
        assert!(matches!(&seen[0].trouble, Some(Trouble::Error(error)) if error.code == 15));

        let seen = merge(&seen, &whole, later);
        assert_eq!(told(&seen, later), [("a", 0, true), ("b", 0, true)]);
    }

    #[test]
    fn a_hang_leaves_the_last_samples_of_who_was_not_come_to() {
        let start = Instant::now();
        let later = start + Duration::from_secs(10);
        let whole = round(vec![gpu(0, "a"), gpu(1, "b"), gpu(2, "c")], Outcome::Complete);
        let hung = Outcome::Hung { asking: "GPU 1".into(), after: Duration::from_secs(10) };
        let seen = merge(&merge(&[], &whole, start), &round(vec![gpu(0, "a")], hung), later);
        assert_eq!(told(&seen, later), [("a", 0, true), ("b", 10, false), ("c", 10, false)]);
        assert_eq!(seen[2].trouble, Some(Trouble::Unasked));
    }

    #[test]
    fn one_that_is_gone_is_missing_though_another_has_its_index() {
        let start = Instant::now();
        let whole = round(vec![gpu(0, "a"), gpu(1, "b")], Outcome::Complete);
        let seen = merge(&[], &whole, start);
        let seen = merge(&seen, &round(vec![gpu(0, "b")], Outcome::Complete), start);
        let missing: Vec<_> = seen.iter().filter(|s| s.trouble == Some(Trouble::Missing)).collect();
        assert_eq!((seen.len(), missing.len()), (2, 1));
        assert_eq!(missing[0].sample.uuid, "a");
    }

    #[test]
    fn one_that_never_answered_is_seen_all_the_same() {
        let seen = merge(&[], &round(vec![lost(0)], Outcome::Complete), Instant::now());
        assert!(matches!(seen[0].trouble, Some(Trouble::Error(_))));
    }
}
