//! `diagnose`: every gate at once, now.

use std::process::ExitCode;

use agent::diagnose::plugin;
use agent::host::Root;
use contract::diagnosis::{Check, CheckState, JoinSays};
use contract::join_report::JoinOutcome;
use contract::{Diagnosis, ErrorChain};

use super::screen::{self, Place};
use super::{block_on, complain, print};
use crate::cli::{Diagnose, Output};

/// Looks, and prints what is seen. Ends with 5 when something keeps the node out, with 0 when it is
/// Ready or under way with nothing against it; under `--npd` as that protocol has it.
pub(crate) fn run(root: Root, args: &Diagnose) -> ExitCode {
    let diagnosis = match block_on(agent::diagnose::run(root, args.timeout)) {
        Ok(Ok(diagnosis)) => diagnosis,
        Ok(Err(error)) => return cannot(args, &ErrorChain(&error).to_string()),
        Err(error) => return cannot(args, &error.to_string()),
    };
    if args.npd {
        let (status, line) = plugin::answer(&diagnosis);
        print(&format!("{line}\n"));
        return (status as u8).into();
    }
    match args.output {
        Output::Text => print(&text(&diagnosis)),
        Output::Json => {
            let json = serde_json::to_string_pretty(&diagnosis).unwrap_or_default();
            print(&format!("{json}\n"));
        }
    }
    match diagnosis.outcome {
        JoinOutcome::Failed => contract::ExitCode::NodesFailed.into(),
        JoinOutcome::Joining | JoinOutcome::Ready => ExitCode::SUCCESS,
    }
}

/// We ourselves cannot look.
fn cannot(args: &Diagnose, why: &str) -> ExitCode {
    complain(&format!("error: could not look: {why}"));
    if args.npd {
        return (plugin::Status::Unknown as u8).into();
    }
    contract::ExitCode::Error.into()
}

fn text(diagnosis: &Diagnosis) -> String {
    let place =
        Place { instance: &diagnosis.instance, cluster: &diagnosis.cluster, pool: &diagnosis.pool };
    let mut when = format!("looked for {} ms", diagnosis.ms);
    if let Some(uptime) = diagnosis.uptime {
        when = format!("up {}, {when}", screen::span(uptime));
    }
    let mut text = screen::head(diagnosis.outcome, &place, &when);
    text += &screen::causes(&place, diagnosis.outcome, &diagnosis.reasons);
    text.push('\n');
    for check in &diagnosis.phases {
        text += &line(check);
    }
    text.push('\n');
    if let Some(gpus) = &diagnosis.gpus {
        text += &screen::field("GPUs", &screen::gpus(gpus));
    }
    text += &screen::field("join", &join(diagnosis, diagnosis.join.as_ref()));
    for note in &diagnosis.notes {
        text += &screen::field("note", note);
    }
    text
}

fn line(check: &Check) -> String {
    let mark = match check.state {
        CheckState::Passed => '✓',
        CheckState::Degraded => '!',
        CheckState::Waiting => '…',
        CheckState::Failed => '✗',
        CheckState::Skipped => '-',
        CheckState::Unknown => '?',
    };
    let took = match check.state {
        CheckState::Skipped | CheckState::Unknown => None,
        _ => Some(check.ms),
    };
    screen::phase_line(mark, check.phase, took, check.detail.as_deref())
}

/// What the join itself says, and whether it agrees.
fn join(diagnosis: &Diagnosis, says: Option<&JoinSays>) -> String {
    let Some(says) = says else { return "has left no report in this boot".to_owned() };
    let mut text = says.outcome.label().to_owned();
    let cause = says.reasons.first();
    if let Some(cause) = cause {
        text += &format!(", {}", cause.reason);
        let same = diagnosis.cause().is_some_and(|seen| seen.reason == cause.reason);
        text += if same { " too" } else { "" };
    }
    let plural = if says.attempt == 1 { "" } else { "s" };
    text + &format!(" after {} attempt{plural}, at {}", says.attempt, says.updated)
}

#[cfg(test)]
mod tests {
    use contract::{Finding, Phase, Reason};

    use super::*;

    fn golden() -> Diagnosis {
        let golden = include_str!("../../../contract/golden/diagnosis.json");
        serde_json::from_str(golden).unwrap()
    }

    #[test]
    fn the_screen_of_a_failed_node() {
        let mut diagnosis = golden();
        let sts = "STS: no connection to `sts.us-east-1.amazonaws.com:443`: no answer within 3.0 s";
        let soft = Finding::new(Reason::StsUnreachable, Phase::Preflight, sts);
        diagnosis.reasons.push(soft);
        let expected = "\
✗ i-0123456789abcdef0 · p5.48xlarge · us-east-1a · ip-10-0-1-7.ec2.internal
  cluster prod, pool h100; up 4 min, looked for 312 ms

  cause     GpuLost (drivers)
            1 of 8 GPUs is lost
  evidence  NVML: GPU 3 at 0000:64:00.0: the GPU is lost
  fix       replace the instance: aws ec2 terminate-instances --instance-ids i-0123456789abcdef0
  more      rollcall-agent explain GpuLost
  also      StsUnreachable (preflight, soft): STS: no connection to
            `sts.us-east-1.amazonaws.com:443`: no answer within 3.0 s

  ✓ identify         4 ms
  ? register               kubelet has not been let in

  GPUs      8 expected, 8 on PCI, ? device nodes, ? in NVML; driver ?
  join      failed, GpuLost too after 2 attempts, at 2026-11-20T20:03:51.120Z
  note      not run as root
";
        assert_eq!(text(&diagnosis), expected);
    }

    #[test]
    fn a_healthy_node_says_so_first() {
        let ready = Diagnosis { outcome: JoinOutcome::Ready, reasons: vec![], ..golden() };
        let text = text(&ready);
        assert!(text.starts_with("✓ i-0123456789abcdef0 · p5.48xlarge"), "{text}");
        assert!(text.contains("  verdict   nothing is wrong: every gate is open\n"), "{text}");
        assert!(!text.contains("fix"), "{text}");
    }
}
