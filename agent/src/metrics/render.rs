//! The text of a scrape: a pure function of the snapshot and the time.

use contract::Reason;
use contract::agent_config::XidClass;
use contract::join_report::{JoinOutcome, JoinReport, PhaseState};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use super::families::{self, Family, whole};
use super::snapshot::{SeenGpu, Snapshot};
use crate::watch::health::Status;
use crate::watch::health::ledger::Fault;

/// The content type of the text.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The text.
///
/// # Errors
/// Only for a family that the encoder refuses, which would be a mistake in the table.
pub fn render(snapshot: &Snapshot, now: Instant) -> Result<String, prometheus::Error> {
    let mut families: Vec<MetricFamily> = families::GPU
        .iter()
        .map(|family| gpu_family(family, snapshot))
        .chain(own_gpu_families(snapshot, now))
        .chain(xid_families(snapshot))
        .chain(link_families(snapshot))
        .chain(node_families(snapshot))
        .chain(health_families(snapshot))
        .collect();
    families.extend(snapshot.join.iter().flat_map(join_families));
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

fn gpu_family(family: &Family, snapshot: &Snapshot) -> MetricFamily {
    let metrics = snapshot.gpus.iter().filter_map(|seen| {
        (family.value)(seen).map(|value| metric(gpu_labels(snapshot, seen), value, family.counter))
    });
    self::family(family.name, family.help, family.counter, metrics.collect())
}

/// dcgm-exporter's labels.
fn gpu_labels<'a>(snapshot: &'a Snapshot, seen: &'a SeenGpu) -> Vec<(&'static str, String)> {
    let gpu = &seen.sample;
    let minor = gpu.minor.unwrap_or(gpu.index);
    let version = snapshot.driver.as_ref().map(|driver| driver.version.clone());
    vec![
        ("gpu", gpu.index.to_string()),
        ("UUID", gpu.uuid.clone()),
        // As NVML writes it, with eight digits of domain; an address unknown stays empty.
        ("pci_bus_id", if gpu.pci.is_empty() { String::new() } else { format!("0000{}", gpu.pci) }),
        ("device", format!("nvidia{minor}")),
        ("modelName", gpu.name.clone()),
        ("Hostname", snapshot.hostname.clone()),
        ("DCGM_FI_DRIVER_VERSION", version.unwrap_or_default()),
    ]
}

fn own_gpu_families(snapshot: &Snapshot, now: Instant) -> [MetricFamily; 2] {
    let each = |value: &dyn Fn(&SeenGpu) -> f64| {
        let gpus = snapshot.gpus.iter();
        gpus.map(|seen| metric(gpu_labels(snapshot, seen), value(seen), false)).collect()
    };
    [
        family(
            "rollcall_gpu_up",
            "Whether the GPU answered when it was last asked.",
            false,
            each(&|seen| f64::from(u8::from(seen.trouble.is_none()))),
        ),
        family(
            "rollcall_gpu_sample_age_seconds",
            "Age of the GPU's values: they stay when it does not answer.",
            false,
            each(&|seen| now.saturating_duration_since(seen.at).as_secs_f64().floor()),
        ),
    ]
}

/// What the driver has logged; nothing where nobody can read it, for 0 means "no XID".
fn xid_families(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let ledger = &snapshot.health.ledger;
    let last = snapshot.gpus.iter().map(|seen| {
        let code = ledger.last_code(&seen.sample.pci).unwrap_or_default();
        metric(gpu_labels(snapshot, seen), f64::from(code), false)
    });
    let all = ledger.counters.values().map(|one| {
        let seen = snapshot.gpus.iter().find(|seen| seen.sample.pci == one.pci);
        let uuid = seen.map(|seen| seen.sample.uuid.clone()).unwrap_or_default();
        let labels = vec![
            ("code", one.code.to_string()),
            ("source", if one.switch { "nvswitch" } else { "gpu" }.to_owned()),
            ("class", one.class.map(XidClass::name).unwrap_or_default().to_owned()),
            ("pci_bus_id", format!("0000{}", one.pci)),
            ("UUID", uuid),
        ];
        metric(labels, whole(one.total), true)
    });
    let can_tell = snapshot.reads_log;
    vec![
        family(
            "DCGM_FI_DEV_XID_ERRORS",
            "The last XID of this boot; 0 when there was none.",
            false,
            if can_tell { last.collect() } else { Vec::new() },
        ),
        family(
            "rollcall_xid_total",
            "XIDs in this boot by GPU and code, each repeat counted.",
            true,
            all.collect(),
        ),
        family(
            "rollcall_kernel_log_up",
            "Whether the kernel log can be read.",
            false,
            vec![metric(Vec::new(), f64::from(u8::from(can_tell)), false)],
        ),
    ]
}

/// What the links around the GPUs count, and programs that crash over them.
fn link_families(snapshot: &Snapshot) -> [MetricFamily; 3] {
    let pci = snapshot.pci_errors.iter().flat_map(|(address, errors)| {
        let kinds = [
            ("correctable", errors.correctable),
            ("nonfatal", errors.nonfatal),
            ("fatal", errors.fatal),
        ];
        kinds.map(|(severity, total)| {
            let labels =
                vec![("pci_bus_id", format!("0000{address}")), ("severity", severity.to_owned())];
            metric(labels, whole(total), true)
        })
    });
    let efa = snapshot.efa_errors.iter().map(|((device, counter), total)| {
        let labels = vec![("device", device.clone()), ("counter", (*counter).to_owned())];
        metric(labels, whole(*total), true)
    });
    let crashes = metric(Vec::new(), whole(snapshot.health.trends.crashes), true);
    [
        family(
            "rollcall_pci_errors_total",
            "Errors of the GPUs' PCIe links since the boot, as the kernel counts them.",
            true,
            pci.collect(),
        ),
        family(
            "rollcall_efa_errors_total",
            "Drops and failed operations of the EFA devices since their driver was loaded.",
            true,
            efa.collect(),
        ),
        family(
            "rollcall_nccl_crashes_total",
            "Programs that crashed within NCCL in this boot; nothing where the kernel log cannot be read.",
            true,
            if snapshot.reads_log { vec![crashes] } else { Vec::new() },
        ),
    ]
}

/// What the node's condition says, and why.
fn health_families(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let health = &snapshot.health;
    let statuses = [Status::True, Status::False, Status::Unknown].into_iter().flat_map(|status| {
        let standing = health.standing.as_ref()?;
        let labels = vec![("status", status.name().to_owned())];
        Some(metric(labels, f64::from(u8::from(standing.status == status)), false))
    });
    let reason = |name: String, condition: String, counts: bool| {
        let labels = vec![
            ("reason", name),
            ("condition_reason", condition),
            ("condition", counts.to_string()),
        ];
        metric(labels, 1.0, false)
    };
    let levels = health.levels.all_open().map(|level| {
        let name = &level.finding.reason;
        let condition = name.known().map(Reason::node_reason);
        let condition = condition.unwrap_or(name.as_str()).to_owned();
        reason(name.to_string(), condition, level.counts)
    });
    let mut faults: Vec<String> = health.ledger.open.iter().map(Fault::node_reason).collect();
    faults.sort();
    faults.dedup();
    let faults =
        faults.into_iter().map(|said| reason(Reason::FatalXid.name().to_owned(), said, true));
    vec![
        family(
            "rollcall_health_status",
            "What the node condition says of the GPUs: 1 at one of the statuses.",
            false,
            statuses.collect(),
        ),
        family(
            "rollcall_health_reason",
            "What is open after the join, and whether the node condition shows it.",
            false,
            levels.chain(faults).collect(),
        ),
    ]
}

fn node_families(snapshot: &Snapshot) -> [MetricFamily; 3] {
    let one = |value: f64| vec![metric(Vec::new(), value, false)];
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    [
        family(
            "rollcall_build_info",
            "The agent, by version.",
            false,
            vec![metric(version, 1.0, false)],
        ),
        family(
            "rollcall_driver_up",
            "Whether the NVIDIA driver answered when it was last asked.",
            false,
            one(f64::from(u8::from(snapshot.driver_up))),
        ),
        family(
            "rollcall_gpus_expected",
            "Number of GPUs that the instance should have.",
            false,
            snapshot.expected.map(|count| one(f64::from(count))).unwrap_or_default(),
        ),
    ]
}

fn join_families(report: &JoinReport) -> [MetricFamily; 4] {
    let phases = report.phases.iter().map(|phase| {
        let labels = vec![
            ("phase", phase.phase.label().to_owned()),
            ("state", state_label(phase.state).to_owned()),
        ];
        #[expect(clippy::cast_precision_loss, reason = "a duration below centuries")]
        let seconds = phase.ms as f64 / 1000.0;
        metric(labels, seconds, false)
    });
    let outcomes = [JoinOutcome::Joining, JoinOutcome::Ready, JoinOutcome::Failed];
    let outcomes = outcomes.into_iter().map(|outcome| {
        let labels = vec![("outcome", outcome.label().to_owned())];
        metric(labels, f64::from(u8::from(outcome == report.outcome)), false)
    });
    let reasons = report.reasons.iter().map(|finding| {
        let phase = finding.phase.map(|phase| phase.label()).unwrap_or_default();
        let labels = vec![("reason", finding.reason.to_string()), ("phase", phase.to_owned())];
        metric(labels, 1.0, false)
    });
    [
        family(
            "rollcall_join_phase_seconds",
            "Time that each phase of the join took, or has taken.",
            false,
            phases.collect(),
        ),
        family(
            "rollcall_join_outcome",
            "How the join stands: 1 at one of the outcomes.",
            false,
            outcomes.collect(),
        ),
        family(
            "rollcall_join_reason",
            "Reasons that are open in the join's report.",
            false,
            reasons.collect(),
        ),
        family(
            "rollcall_join_attempt",
            "Number of provings in this boot.",
            false,
            vec![metric(Vec::new(), f64::from(report.attempt), false)],
        ),
    ]
}

const fn state_label(state: PhaseState) -> &'static str {
    match state {
        PhaseState::Running => "running",
        PhaseState::Waiting => "waiting",
        PhaseState::Passed => "passed",
        PhaseState::Degraded => "degraded",
        PhaseState::Skipped => "skipped",
        PhaseState::Failed => "failed",
    }
}

fn family(name: &str, help: &str, counter: bool, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(if counter { MetricType::COUNTER } else { MetricType::GAUGE });
    family.set_metric(metrics);
    family
}

fn metric(labels: Vec<(&'static str, String)>, value: f64, counter: bool) -> Metric {
    let labels = labels.into_iter().map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value);
        label
    });
    let mut metric = Metric::default();
    metric.set_label(labels.collect());
    if counter {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gpu::pci::PciErrors;
    use crate::gpu::sample::{
        Activity, CallError, Driver, GpuSample, Memory, Readings, RemappedRows,
    };
    use crate::gpu::xid::Record;
    use crate::metrics::snapshot::Trouble;
    use crate::watch::health::{Health, JoinStanding, Look, Rules, Seen, step};
    use contract::{Finding, Phase};

    fn h100(index: u32, now: Instant) -> SeenGpu {
        let sample = GpuSample {
            index,
            uuid: format!("GPU-{index}"),
            pci: "0000:53:00.0".into(),
            name: "NVIDIA H100 80GB HBM3".into(),
            minor: Some(index),
            readings: Readings {
                sm_clock: Some(345),
                temperature: Some(31),
                memory_temperature: Some(39),
                power: Some(70_500),
                energy: Some(123_456_789_012),
                gpu_utilization: Some(0),
                memory: Some(Memory {
                    total: 85_520_809_984,
                    free: 84_950_384_640,
                    used: 0,
                    reserved: 570_425_344,
                }),
                nvlink_kib: Some((5, 7)),
                remapped_rows: Some(RemappedRows { pending: true, ..RemappedRows::default() }),
                activity: Some(Activity { tensor: Some(0.25), ..Activity::default() }),
                ..Readings::default()
            },
            ..GpuSample::default()
        };
        SeenGpu { sample, at: now - Duration::from_secs(3), trouble: None }
    }

    fn snapshot(now: Instant) -> Snapshot {
        let mut lost = h100(1, now);
        lost.sample.pci = "0000:64:00.0".into();
        lost.sample.readings = Readings { temperature: Some(44), ..Readings::default() };
        lost.at = now - Duration::from_secs(90);
        lost.trouble =
            Some(Trouble::Error(CallError { call: "x".into(), code: 15, text: "lost".into() }));
        let report = include_str!("../../../contract/golden/join_report.json");
        Snapshot {
            hostname: "ip-10-0-1-7.ec2.internal".into(),
            driver: Some(Driver { version: "580.95.05".into(), ..Driver::default() }),
            driver_up: true,
            expected: Some(8),
            gpus: vec![h100(0, now), lost],
            join: Some(serde_json::from_str(report).unwrap()),
            health: health(),
            reads_log: true,
            pci_errors: [(
                "0000:53:00.0".to_owned(),
                PciErrors { correctable: 3, ..PciErrors::default() },
            )]
            .into(),
            efa_errors: [(("rdmap79s0".to_owned(), "rx_drops"), 7)].into(),
        }
    }

    /// A node whose second GPU is lost, said by the driver's log and by NVML, after an application of
    /// the first failed twice.
    fn health() -> Health {
        let xid = |pci: &str, code| Seen {
            record: Record { pci: pci.into(), code, ..Record::default() },
            ..Seen::default()
        };
        let xids = [xid("0000:53:00.0", 31), xid("0000:53:00.0", 31), xid("0000:64:00.0", 79)];
        let findings = [Finding::new(Reason::GpuLost, Phase::Drivers, "lost")];
        let look = Look {
            is_round: true,
            is_complete: true,
            findings: &findings,
            xids: &xids,
            join: JoinStanding::Ready,
            ..Look::default()
        };
        let at = Duration::from_secs;
        let (health, _) = step(Health::default(), &look, &Rules::default(), at(5));
        step(health, &Look { xids: &[], ..look }, &Rules::default(), at(10)).0
    }

    #[test]
    fn matches_the_golden_text() {
        let now = Instant::now() + Duration::from_secs(1000);
        let text = render(&snapshot(now), now).unwrap();
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        let text = text.replace(&version, "version=\"0\"");
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/metrics/golden.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(golden, &text).unwrap();
        }
        assert!(text == std::fs::read_to_string(golden).unwrap(), "{text}");
    }

    #[test]
    fn nothing_known_is_a_text_all_the_same() {
        let text = render(&Snapshot::default(), Instant::now()).unwrap();
        assert!(text.contains("rollcall_driver_up 0"), "{text}");
        assert!(!text.contains("DCGM"), "{text}");
    }

    #[test]
    fn a_foreign_name_cannot_break_the_text() {
        let now = Instant::now() + Duration::from_secs(1000);
        let mut snapshot = snapshot(now);
        snapshot.gpus[0].sample.name = "a\"b\\c\nd".into();
        let text = render(&snapshot, now).unwrap();
        assert!(text.contains(r#"modelName="a\"b\\c\nd""#), "{text}");
    }
}
