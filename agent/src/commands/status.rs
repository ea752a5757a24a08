//! `status`: how the join stands, from the report on the node. It asks nobody; `diagnose` does.

use std::process::ExitCode;

use agent::host::{Root, clock};
use agent::report::file;
use contract::join_report::{JoinOutcome, PhaseReport, PhaseState};
use contract::{ErrorChain, JoinReport};

use super::screen::{self, Place};
use super::{complain, print};
use crate::cli::Output;

/// Prints the join report. Ends with 5 when the join has failed, as `control status` does.
pub(crate) fn run(root: &Root, output: Output) -> ExitCode {
    let report = match file::read(root) {
        Ok(report) => report,
        Err(error) => {
            complain(&format!("error: {}", ErrorChain(&error)));
            complain(
                "hint: the join has not begun; see `systemctl status rollcall-join`, or look at the node itself: rollcall-agent diagnose",
            );
            return contract::ExitCode::Error.into();
        }
    };
    match output {
        Output::Text => {
            print(&text(&report));
            if clock::boot_id(root).is_ok_and(|boot| boot != report.boot) {
                print(&screen::field("note", "the report is of an earlier boot"));
            }
        }
        Output::Json => {
            let json = serde_json::to_string_pretty(&report).unwrap_or_default();
            print(&format!("{json}\n"));
        }
    }
    match report.outcome {
        JoinOutcome::Failed => contract::ExitCode::NodesFailed.into(),
        JoinOutcome::Joining | JoinOutcome::Ready => ExitCode::SUCCESS,
    }
}

fn text(report: &JoinReport) -> String {
    let place = Place { instance: &report.instance, cluster: &report.cluster, pool: &report.pool };
    let mut when = format!("{} at {}", report.outcome.label(), report.updated);
    if report.attempt > 1 {
        when += &format!(", attempt {}", report.attempt);
    }
    let mut text = screen::head(report.outcome, &place, &when);
    text += &screen::causes(&place, report.outcome, &report.reasons);
    text.push('\n');
    for phase in &report.phases {
        text += &line(phase);
    }
    text.push('\n');
    if let Some(gpus) = &report.gpus {
        text += &screen::field("GPUs", &screen::gpus(gpus));
    }
    for repair in &report.repairs {
        let helped = if repair.helped { "it helped" } else { "it did not help" };
        text +=
            &screen::field("repair", &format!("{} for {}: {helped}", repair.action, repair.reason));
    }
    text += &screen::field("now", "rollcall-agent diagnose looks at every gate at once");
    text
}

fn line(phase: &PhaseReport) -> String {
    let mark = match phase.state {
        PhaseState::Passed => '✓',
        PhaseState::Degraded => '!',
        PhaseState::Skipped => '-',
        PhaseState::Failed => '✗',
        PhaseState::Running | PhaseState::Waiting => '…',
    };
    screen::phase_line(mark, phase.phase, Some(phase.ms), phase.detail.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_of_a_failed_node() {
        let golden = include_str!("../../../contract/golden/join_report.json");
        let report: JoinReport = serde_json::from_str(golden).unwrap();
        let expected = "\
✗ i-0123456789abcdef0 · p5.48xlarge · us-east-1a · ip-10-0-1-7.ec2.internal
  cluster prod, pool h100; failed at 2026-11-20T20:00:03Z, attempt 2

  cause     GpuCountShort (drivers)
            7 of 8 GPUs: missing on the PCI bus (expected 8, PCI 7, device nodes
            7, NVML 7)
  evidence  /sys/bus/pci/devices: 7 functions of vendor 0x10de
  fix       replace the instance: aws ec2 terminate-instances --instance-ids i-0123456789abcdef0
  more      rollcall-agent explain GpuCountShort

  ✓ identify        12 ms
  ✗ drivers        410 ms

  GPUs      8 expected, 7 on PCI, 7 device nodes, 7 in NVML; driver 580.95.05,
            GSP firmware on
  now       rollcall-agent diagnose looks at every gate at once
";
        assert_eq!(text(&report), expected);
    }
}
