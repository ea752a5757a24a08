//! What the CUDA canary has come to, against the GPUs that NVML sees.

use contract::Reason;

use super::{Found, answering};
use crate::gpu::canary::{Canary, Progress};
use crate::gpu::catalogue::Check;
use crate::phases::drivers::DriverFacts;

pub(super) fn canary(facts: &DriverFacts) -> Vec<Found> {
    let of_node = |what: String| vec![found(what)];
    match &facts.canary {
        Canary::NotAsked => Vec::new(),
        Canary::NotRun(why) => of_node(format!("the CUDA canary could not be run: {why}")),
        Canary::Hung { progress, after } => {
            let asking = match progress.asking.as_str() {
                "" => "its start",
                asking => asking,
            };
            of_node(format!("CUDA gave no answer to {asking} within {:.0} s", after.as_secs_f64()))
        }
        Canary::Ended(Progress { error: Some(error), .. }) => {
            of_node(format!("CUDA does not come up: {error}"))
        }
        Canary::Ended(progress) => of_gpus(facts, progress),
    }
}

fn found(what: impl Into<String>) -> Found {
    Found::of(Check::Canary, Reason::CudaCanaryFailed, what)
}

fn of_gpus(facts: &DriverFacts, progress: &Progress) -> Vec<Found> {
    let of_gpu = |gpu: &crate::gpu::sample::GpuSample| {
        let what = match progress.gpus.iter().find(|computed| computed.pci == gpu.pci) {
            Some(computed) => format!("cannot compute: {}", computed.error.as_ref()?),
            None => "is unknown to CUDA".to_owned(),
        };
        Some(found(what).on(gpu))
    };
    answering(facts).filter_map(of_gpu).collect()
}
