//! The text of a scrape: a pure function of the snapshot and the time.

use contract::join_report::{JoinOutcome, JoinReport, PhaseState};
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use tokio::time::Instant;

use super::families::{self, Family};
use super::snapshot::{SeenGpu, Snapshot};

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
        .chain(node_families(snapshot))
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
    use crate::gpu::sample::{
        Activity, CallError, Driver, GpuSample, Memory, Readings, RemappedRows,
    };
    use crate::metrics::snapshot::Trouble;

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
        }
    }

    #[test]
    fn matches_the_golden_text() {
        let now = Instant::now() + Duration::from_secs(1000);
        let text = render(&snapshot(now), now).unwrap();
        let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
        let text = text.replace(&version, "version=\"0\"");
        let golden = include_str!("golden.txt");
        assert!(text == golden, "{text}");
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
