//! Nodes for the watch's own tests: what the join and the sampler would say of them.

use std::time::Duration;

use contract::join_report::JoinOutcome;
use contract::{Finding, JoinReport, Phase, Reason};

use crate::gpu::module::Module;
use crate::gpu::pci::PciGpu;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{Driver, Ecc, GpuSample, Readings};
use crate::phases::drivers::DriverFacts;

/// A join's report.
pub(super) fn report(outcome: JoinOutcome, reasons: &[(Reason, Phase)]) -> JoinReport {
    let golden = include_str!("../../../contract/golden/join_report.json");
    let mut report: JoinReport = serde_json::from_str(golden).unwrap();
    report.outcome = outcome;
    report.reasons =
        reasons.iter().map(|(reason, phase)| Finding::new(*reason, *phase, "said")).collect();
    report
}

/// PCI address of a GPU.
pub(super) fn pci(gpu: u32) -> String {
    format!("0000:{:02x}:00.0", 0x50 + gpu)
}

/// A node whose GPUs answer.
pub(super) fn facts(count: u32, name: &str) -> DriverFacts {
    let ecc = Ecc {
        volatile_corrected: Some(0),
        volatile_uncorrected: Some(0),
        aggregate_corrected: Some(0),
        aggregate_uncorrected: Some(0),
    };
    let gpu = |index| GpuSample {
        index,
        uuid: format!("GPU-{index}"),
        pci: pci(index),
        name: name.into(),
        readings: Readings { ecc: Some(ecc), persistence: Some(true), ..Readings::default() },
        ..GpuSample::default()
    };
    let driver = Driver { version: "580.95.05".into(), count, ..Driver::default() };
    DriverFacts {
        pci: Some((0..count).map(|i| PciGpu { address: pci(i), ..PciGpu::default() }).collect()),
        module: Module {
            version: Some("580.95.05".into()),
            source: "/proc/driver/nvidia/version",
            device_nodes: (0..count).collect(),
            ..Module::default()
        },
        nvml: NvmlFacts {
            driver: Some(driver),
            gpus: (0..count).map(gpu).collect(),
            outcome: Outcome::Complete,
        },
        up: Duration::MAX,
        ..DriverFacts::default()
    }
}
