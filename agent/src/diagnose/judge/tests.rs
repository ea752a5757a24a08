//! What a look means, on surveys made by hand.

use contract::AgentConfig;
use contract::agent_config::ExpectedGpus;
use serde_json::json;

use super::*;
use crate::aws::imds::ImdsError;
use crate::gpu::module::Module;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::Failure;
use crate::host::systemd::UnitState;
use crate::phases::identify::Document;
use crate::phases::nodeadm::{End, Run};

fn timed<F>(facts: F) -> Timed<F> {
    Timed { facts, took: Duration::from_millis(3) }
}

fn unit(load: &str, active: &str) -> UnitState {
    UnitState { load: load.into(), active: active.into(), ..UnitState::default() }
}

/// A node without GPUs whose cluster cannot be asked, before kubelet.
fn survey() -> Survey {
    let mut config = AgentConfig::new("prod", "infra");
    config.gpus = Some(ExpectedGpus { count: 0, model: None, memory_mib: None });
    let document = Document {
        instance_id: "i-0abc".into(),
        instance_type: "m6i.large".into(),
        availability_zone: "us-east-1a".into(),
        region: "us-east-1".into(),
        account_id: "123456789012".into(),
        pending_time: None,
    };
    Survey {
        now: "2026-11-20T20:04:00Z".parse().unwrap(),
        took: Duration::from_millis(12),
        boot: "boot-1".into(),
        uptime: Some(Duration::from_secs(60)),
        identify: timed(identify::Facts {
            document: Ok(document),
            hostname: Some("n1".into()),
            user_data: Ok(None),
            network: None,
        }),
        configure: timed(configure::Facts { agent: Some(Ok(config)), ..Default::default() }),
        node_config: None,
        preflight: None,
        drivers: None,
        expected: drivers::Expected {
            instance_type: "m6i.large".into(),
            gpus: Some(ExpectedGpus { count: 0, model: None, memory_mib: None }),
            ..drivers::Expected::default()
        },
        written: bootstrap::Written {
            cluster: Err("no kubeconfig".into()),
            node_name: None,
            missing: vec!["/var/lib/kubelet/kubeconfig"],
            memory: None,
        },
        disk: bootstrap::look(&crate::host::Root::new("/nowhere"), None, false),
        cni: None,
        name: "n1".into(),
        is_admitted: false,
        node: None,
        slices: Default::default(),
        kubelet_log: vec![],
        notices: notices::Facts::default(),
        units: super::super::survey::Units { join: unit("loaded", "active"), ..Default::default() },
        join: None,
        is_root: true,
    }
}

fn state(diagnosis: &Diagnosis, phase: Phase) -> CheckState {
    diagnosis.phases.iter().find(|check| check.phase == phase).unwrap().state
}

fn report(boot: &str, found: &[(Reason, Phase)]) -> contract::JoinReport {
    let golden = include_str!("../../../../contract/golden/join_report.json");
    let mut report: contract::JoinReport = serde_json::from_str(golden).unwrap();
    report.boot = boot.into();
    report.reasons = found.iter().map(|(r, p)| Finding::new(*r, *p, "the join saw it")).collect();
    report
}

#[test]
fn every_phase_is_there_and_one_cause_is_first() {
    let diagnosis = judge(&survey());
    let phases: Vec<_> = diagnosis.phases.iter().map(|check| check.phase).collect();
    assert_eq!(phases, Phase::ALL);
    assert_eq!(diagnosis.cause().unwrap().reason, Reason::NodeConfigMissing);
    assert_eq!(diagnosis.outcome, JoinOutcome::Failed);
    assert_eq!(diagnosis.fix.as_deref(), Some(Reason::NodeConfigMissing.entry().hint));
    assert_eq!(state(&diagnosis, Phase::Identify), CheckState::Passed);
    assert_eq!(state(&diagnosis, Phase::Preflight), CheckState::Unknown);
    assert_eq!(state(&diagnosis, Phase::Drivers), CheckState::Skipped);
    assert_eq!(state(&diagnosis, Phase::Register), CheckState::Unknown);
}

#[test]
fn the_earliest_cause_explains_the_rest() {
    let mut survey = survey();
    let lost = ImdsError::Unreachable { path: "x".into(), source: None };
    let again = ImdsError::Unreachable { path: "x".into(), source: None };
    survey.identify.facts.document = Err(lost.into());
    survey.identify.facts.user_data = Err(again);
    let diagnosis = judge(&survey);
    assert_eq!(diagnosis.cause().unwrap().reason, Reason::ImdsUnreachable);
    let named: Vec<_> = diagnosis.reasons.iter().map(|f| f.reason.to_string()).collect();
    assert!(!named.contains(&"NodeConfigMissing".to_owned()), "{named:?}");
    assert_eq!(state(&diagnosis, Phase::Identify), CheckState::Waiting);
}

#[test]
fn what_only_the_join_can_know_is_taken_from_it_unless_refuted() {
    let mut survey = survey();
    let timed_out = (Reason::NodeadmTimedOut, Phase::Bootstrap);
    let refuted = (Reason::ImdsUnreachable, Phase::Identify);
    survey.configure.facts.agent = Some(Ok(AgentConfig::new("prod", "infra")));
    survey.join = Some(report("boot-1", &[refuted, timed_out]));
    let named: Vec<_> = judge(&survey).reasons.iter().map(|f| f.reason.to_string()).collect();
    assert!(named.contains(&"NodeadmTimedOut".to_owned()), "{named:?}");
    assert!(!named.contains(&"ImdsUnreachable".to_owned()), "{named:?}");
}

#[test]
fn a_unit_that_failed_speaks_without_the_join() {
    let mut survey = survey();
    let end = End::Failed { result: "exit-code".into(), status: Some(1) };
    let log = vec![r#"fatal cli/main.go:35 Command failed {"error": "no such key"}"#.to_owned()];
    survey.units.config = Some(Run { end, log });
    survey.node_config = Some(configure::NodeConfig {
        cluster: "prod".into(),
        endpoint: "https://api".into(),
        ca_pem: vec![],
        named_by_instance: false,
        proxy: None,
    });
    let diagnosis = judge(&survey);
    assert_eq!(state(&diagnosis, Phase::Bootstrap), CheckState::Failed);
    let check = diagnosis.phases.iter().find(|check| check.phase == Phase::Bootstrap).unwrap();
    assert!(check.detail.as_ref().unwrap().contains("no such key"), "{check:?}");

    survey.units.join = UnitState { result: "start-limit-hit".into(), ..unit("loaded", "failed") };
    survey.units.join_log = vec!["rollcall-agent: cannot execute".into()];
    let fault = judge(&survey).reasons.into_iter().find(|f| f.reason == Reason::AgentFault);
    let fault = fault.expect("the agent's own unit has failed");
    assert!(fault.summary.contains("start-limit-hit"), "{}", fault.summary);
    assert_eq!(fault.evidence, ["rollcall-agent: cannot execute"]);
}

#[test]
fn a_driver_that_is_amiss_is_named_with_its_fix() {
    let mut survey = survey();
    survey.expected.gpus = Some(ExpectedGpus { count: 8, model: None, memory_mib: None });
    survey.drivers = Some(timed(drivers::DriverFacts {
        module: Module { version: Some("580.95.05".into()), ..Module::default() },
        nvml: NvmlFacts::none(Outcome::Failed(Failure::LibraryMissing { searched: vec![] })),
        up: Duration::from_secs(3600),
        ..drivers::DriverFacts::default()
    }));
    let diagnosis = judge(&survey);
    assert_eq!(state(&diagnosis, Phase::Drivers), CheckState::Failed);
    let named: Vec<_> = diagnosis.reasons.iter().map(|f| f.reason.to_string()).collect();
    assert!(named.contains(&"DriverLibraryMissing".to_owned()), "{named:?}");
    assert_eq!(diagnosis.gpus.unwrap().expected, Some(8));
}

#[test]
fn a_node_that_waits_is_under_way_only_while_the_join_says_so() {
    let mut survey = survey();
    survey.is_admitted = true;
    survey.units.kubelet = unit("loaded", "active");
    survey.node = Some(timed(Ok(Some(json!({"status": {"conditions": [
        {"type": "Ready", "status": "False", "message": "NetworkReady=false"},
    ]}})))));
    survey.join = Some(report("boot-1", &[]));
    let find = |survey: &Survey| {
        let diagnosis = judge(survey);
        (state(&diagnosis, Phase::Register), state(&diagnosis, Phase::Ready))
    };
    assert_eq!(find(&survey), (CheckState::Passed, CheckState::Waiting));

    // Nothing else is wrong: what is waited for decides.
    let gates = |waits: CheckState| {
        let mut gates = vec![unknown(Phase::Preflight, "x"), unknown(Phase::Ready, "x")];
        gates[1].check.state = waits;
        gates
    };
    survey.join.as_mut().unwrap().outcome = JoinOutcome::Joining;
    assert_eq!(outcome(&survey, &gates(CheckState::Waiting), &[]), JoinOutcome::Joining);
    survey.join.as_mut().unwrap().outcome = JoinOutcome::Failed;
    assert_eq!(outcome(&survey, &gates(CheckState::Waiting), &[]), JoinOutcome::Failed);
    assert_eq!(outcome(&survey, &gates(CheckState::Passed), &[]), JoinOutcome::Ready);
    assert_eq!(outcome(&survey, &gates(CheckState::Unknown), &[]), JoinOutcome::Joining);
}

#[test]
fn what_ec2_announces_is_seen() {
    let mut survey = survey();
    survey.notices.lifecycle = Some("Warmed:Running".into());
    let diagnosis = judge(&survey);
    let check = diagnosis.phases.iter().find(|c| c.phase == Phase::Register).unwrap();
    assert_eq!(check.detail.as_deref(), Some("put aside in the warm pool (`Warmed:Running`)"));
    let (action, time) = ("stop".into(), "2026-11-20T20:08:22Z".into());
    survey.notices.spot = Some(notices::SpotAction { action, time });
    let named: Vec<_> = judge(&survey).reasons.iter().map(|f| f.reason.to_string()).collect();
    assert!(named.contains(&"SpotInterrupted".to_owned()), "{named:?}");
}
