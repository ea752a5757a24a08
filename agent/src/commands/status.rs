//! `status`: how the join stands, from the report on the node.

use std::process::ExitCode;

use agent::host::Root;
use agent::report::file;
use contract::join_report::{Gpus, JoinOutcome, PhaseReport, PhaseState};
use contract::{ErrorChain, Finding, JoinReport};

use super::{complain, print};
use crate::cli::Output;

/// Prints the join report. Ends with 5 when the join has failed, as `control status` does.
pub(crate) fn run(root: &Root, output: Output) -> ExitCode {
    let report = match file::read(root) {
        Ok(report) => report,
        Err(error) => {
            complain(&format!("error: {}", ErrorChain(&error)));
            complain("hint: the join has not begun; see `systemctl status rollcall-join`");
            return contract::ExitCode::Error.into();
        }
    };
    match output {
        Output::Text => print(&screen(&report)),
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

fn screen(report: &JoinReport) -> String {
    let instance = &report.instance;
    let mut text = format!("{} {}", word(&instance.id), report.outcome.label());
    if report.attempt > 1 {
        text += &format!(" (attempt {})", report.attempt);
    }
    text += &format!(
        "\n{} in {}, cluster {}, pool {}, node {}\n\n",
        word(&instance.instance_type),
        word(&instance.zone),
        word(&report.cluster),
        word(&report.pool),
        word(&instance.name),
    );
    for phase in &report.phases {
        text += &phase_line(phase);
    }
    if let Some(gpus) = &report.gpus {
        text += &gpu_line(gpus);
    }
    for finding in &report.reasons {
        text += &finding_lines(report, finding);
    }
    text
}

fn word(text: &str) -> &str {
    if text.is_empty() { "?" } else { text }
}

fn phase_line(phase: &PhaseReport) -> String {
    let mark = match phase.state {
        PhaseState::Passed => "✓",
        PhaseState::Degraded => "!",
        PhaseState::Skipped => "-",
        PhaseState::Failed => "✗",
        PhaseState::Running | PhaseState::Waiting => "…",
    };
    let line = format!("  {mark} {:<10}{:>8} ms", phase.phase, phase.ms);
    match &phase.detail {
        Some(detail) => format!("{line}  {detail}\n"),
        None => format!("{line}\n"),
    }
}

fn gpu_line(gpus: &Gpus) -> String {
    let count = |count: Option<u32>| count.map_or("?".to_owned(), |count| count.to_string());
    format!(
        "\n  GPUs: {} expected, {} on PCI, {} device nodes, {} in NVML; driver {}\n",
        count(gpus.expected),
        count(gpus.pci),
        count(gpus.device_nodes),
        count(gpus.nvml),
        gpus.driver.as_deref().unwrap_or("?"),
    )
}

fn finding_lines(report: &JoinReport, finding: &Finding) -> String {
    let mut text = format!("\n{}: {}\n", finding.reason, finding.summary);
    for evidence in &finding.evidence {
        text += &format!("  | {evidence}\n");
    }
    if let Some(reason) = finding.reason.known() {
        let hint = reason.hint_for(&report.cluster, &report.pool, &report.instance.id);
        text += &format!("  hint: {hint}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_of_a_failed_node() {
        let golden = include_str!("../../../contract/golden/join_report.json");
        let report: JoinReport = serde_json::from_str(golden).unwrap();
        let expected = "\
i-0123456789abcdef0 failed (attempt 2)
p5.48xlarge in us-east-1a, cluster prod, pool h100, node ip-10-0-1-7.ec2.internal

  ✓ identify        12 ms
  ✗ drivers        410 ms

  GPUs: 8 expected, 7 on PCI, 7 device nodes, 7 in NVML; driver 580.95.05

GpuCountShort: 7 of 8 GPUs: missing on the PCI bus (expected 8, PCI 7, device nodes 7, NVML 7)
  | /sys/bus/pci/devices: 7 functions of vendor 0x10de
  hint: replace the instance: aws ec2 terminate-instances --instance-ids i-0123456789abcdef0
";
        assert_eq!(screen(&report), expected);
    }
}
