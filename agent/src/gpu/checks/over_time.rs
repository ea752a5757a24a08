//! What means something only over time: totals that grow, states that last. This is what a round shows of
//! it; [`crate::watch::health`] remembers the rounds before.
//!
//! The limits say what healthy hardware does not reach in ten minutes. NVIDIA and AWS publish none; all but
//! the failed recoveries are events, and a pool can silence or raise each by `showReasons`.

use std::collections::BTreeMap;

use contract::Reason;

use super::{answering, clocks};
use crate::gpu::catalogue::Check;
use crate::gpu::sample::{GpuSample, NvlinkErrors};
use crate::phases::drivers::DriverFacts;

/// A total that only grows, until whatever counts it begins anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The row of the catalogue.
    pub check: Check,
    /// What too many of them are named by.
    pub reason: Reason,
    /// Who counts: `GPU 3 at 0000:86:00.0`.
    pub whose: String,
    /// What: `NVLinks trained anew`.
    pub what: &'static str,
    /// How many so far.
    pub total: u64,
    /// So many within ten minutes are too many.
    pub limit: u64,
}

/// A program on a GPU that does not run and is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StuckProcess {
    /// Its number on the host.
    pub pid: u32,
    /// When it was started, in the kernel's ticks: numbers are given anew.
    pub started: u64,
    /// Its name.
    pub name: String,
    /// `D`: in an uninterruptible wait; `Z`: dead and not collected.
    pub state: char,
    /// The GPUs that it uses, by NVML's index.
    pub gpus: Vec<u32>,
}

/// What a round shows of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Signs {
    /// Totals.
    pub counted: Vec<Counted>,
    /// Whether hardware holds the clocks down, by GPU; those that do not say are left out.
    pub slowed: BTreeMap<String, bool>,
    /// Programs that hang.
    pub stuck: Vec<StuckProcess>,
    /// Names of the functions on the bus whose errors only the kernel's log has, by address.
    pub uncounted: BTreeMap<String, String>,
}

/// Of the facts.
#[must_use]
pub fn signs(facts: &DriverFacts) -> Signs {
    let name = |gpu: &GpuSample| match facts.address(gpu) {
        Some(address) => format!("GPU {} at {address}", gpu.index),
        None => format!("GPU {}", gpu.index),
    };
    let mut signs = Signs { stuck: facts.stuck.clone(), ..Signs::default() };
    for gpu in answering(facts) {
        let slowed = clocks::is_slowed(gpu).map(|slowed| (name(gpu), slowed));
        signs.slowed.extend(slowed);
        if let Some(errors) = &gpu.readings.nvlink_errors {
            signs.counted.extend(nvlink(&name(gpu), errors));
        }
    }
    for function in facts.pci.iter().flatten() {
        let sample = facts.nvml.gpus.iter().find(|gpu| gpu.pci == function.address);
        let whose = sample.map_or_else(|| format!("GPU at {}", function.address), name);
        match function.errors {
            Some(errors) => {
                let totals = [errors.correctable, errors.nonfatal, errors.fatal];
                signs.counted.extend(pcie(&whose, totals));
            }
            None => drop(signs.uncounted.insert(function.address.clone(), whose)),
        }
        if let Some(port) = &function.root_port {
            let whose = format!("the port {port} of a GPU");
            signs.uncounted.insert(port.clone(), whose);
        }
    }
    for ((device, counter), total) in &facts.efa.errors {
        signs.counted.push(efa(device, counter, *total));
    }
    signs
}

fn nvlink(whose: &str, errors: &NvlinkErrors) -> Vec<Counted> {
    let one = |total: Option<u64>, what, limit, reason, check| {
        Some(Counted { check, reason, whose: whose.to_owned(), what, total: total?, limit })
    };
    let few =
        |total, what, limit| one(total, what, limit, Reason::NvlinkErrors, Check::NvlinkErrors);
    [
        few(errors.crc_flit, "packets on NVLinks with a bad checksum", 100),
        few(errors.crc_data, "data on NVLinks with a bad checksum", 100),
        few(errors.replays, "packets on NVLinks sent again", 100),
        few(errors.recoveries, "NVLinks trained anew", 3),
        one(
            errors.failed_recoveries,
            "NVLinks that did not come up again",
            1,
            Reason::NvlinkRecoveryFailed,
            Check::NvlinkRecovery,
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// PCIe's three severities, the mildest first.
#[must_use]
pub fn pcie(whose: &str, totals: [u64; 3]) -> [Counted; 3] {
    let kinds =
        [("corrected PCIe errors", 100), ("uncorrected PCIe errors", 1), ("fatal PCIe errors", 1)];
    let mut totals = totals.into_iter();
    kinds.map(|(what, limit)| Counted {
        check: Check::PcieErrors,
        reason: Reason::PcieErrors,
        whose: whose.to_owned(),
        what,
        total: totals.next().unwrap_or_default(),
        limit,
    })
}

fn efa(device: &str, counter: &'static str, total: u64) -> Counted {
    // A peer that dies makes a few; receivers that fall behind drop some.
    let limit = match counter {
        "rx_drops" => 1000,
        "retrans_timeout_events" => 100,
        _ => 10,
    };
    Counted {
        check: Check::EfaErrors,
        reason: Reason::EfaErrors,
        whose: format!("EFA {device}"),
        what: counter,
        total,
        limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::pci::{PciErrors, PciGpu};
    use crate::gpu::probe::{NvmlFacts, Outcome};
    use crate::gpu::sample::{CallError, Readings};

    fn facts() -> DriverFacts {
        let errors = NvlinkErrors { crc_flit: Some(5), recoveries: Some(0), ..Default::default() };
        let gpu = |index: u32| GpuSample {
            index,
            pci: format!("0000:5{index}:00.0"),
            readings: Readings {
                clock_event_reasons: Some(if index == 1 { 0x48 } else { 0x1 }),
                nvlink_errors: Some(errors),
                ..Readings::default()
            },
            ..GpuSample::default()
        };
        let on_bus = |index: u32| PciGpu {
            address: format!("0000:5{index}:00.0"),
            errors: (index == 0).then_some(PciErrors { correctable: 9, ..PciErrors::default() }),
            root_port: (index == 1).then(|| "0000:40:01.0".to_owned()),
            ..PciGpu::default()
        };
        let nvml =
            NvmlFacts { driver: None, gpus: (0..2).map(gpu).collect(), outcome: Outcome::Complete };
        DriverFacts { pci: Some((0..2).map(on_bus).collect()), nvml, ..DriverFacts::default() }
    }

    #[test]
    fn totals_say_who_counts_and_what_is_not_counted_waits_for_the_log() {
        let mut facts = facts();
        facts.efa.errors.insert(("rdmap79s0".into(), "rx_drops"), 7);
        let signs = signs(&facts);
        let total = |whose: &str, what: &str| {
            let of = |one: &&Counted| one.whose == whose && one.what == what;
            signs.counted.iter().find(of).map(|one| (one.total, one.reason))
        };
        let gpu = "GPU 0 at 0000:50:00.0";
        assert_eq!(
            total(gpu, "packets on NVLinks with a bad checksum"),
            Some((5, Reason::NvlinkErrors))
        );
        assert_eq!(total(gpu, "packets on NVLinks sent again"), None, "it does not say");
        assert_eq!(total(gpu, "corrected PCIe errors"), Some((9, Reason::PcieErrors)));
        assert_eq!(total("GPU 1 at 0000:51:00.0", "corrected PCIe errors"), None);
        assert_eq!(total("EFA rdmap79s0", "rx_drops"), Some((7, Reason::EfaErrors)));
        let uncounted: Vec<&str> = signs.uncounted.keys().map(String::as_str).collect();
        assert_eq!(uncounted, ["0000:40:01.0", "0000:51:00.0"]);
        assert_eq!(signs.slowed.values().copied().collect::<Vec<_>>(), [false, true]);
        for one in &signs.counted {
            assert!(one.check.entry().reasons.contains(&one.reason) && one.limit > 0, "{one:?}");
        }
    }

    #[test]
    fn one_that_does_not_answer_counts_nothing() {
        let mut facts = facts();
        let error = CallError { call: "x".into(), code: 15, text: "lost".into() };
        facts.nvml.gpus[1].error = Some(error);
        let signs = signs(&facts);
        assert!(!signs.slowed.contains_key("GPU 1 at 0000:51:00.0"));
        let of_it = signs.counted.iter().filter(|one| one.whose.starts_with("GPU 1"));
        assert_eq!(of_it.count(), 0);
    }
}
