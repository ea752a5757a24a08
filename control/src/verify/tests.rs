//! The checks, on facts.

use super::*;
use crate::diagnose::samples::{at, failed, proven};
use crate::diagnose::verdict_of;
use contract::{Phase, Reason};

fn pod(name: &str, waiting: Option<&str>) -> PodFacts {
    PodFacts {
        name: name.into(),
        phase: if waiting.is_some() { "Pending" } else { "Running" }.into(),
        ready: waiting.is_none(),
        waiting: waiting.map(str::to_owned),
        ..PodFacts::default()
    }
}

fn healthy() -> Facts {
    Facts {
        fleet: "prod".into(),
        region: "us-east-1".into(),
        status: Some("ACTIVE".into()),
        identity: Ok("admin".into()),
        desired: 1,
        nodes: vec![verdict_of(&proven(), 0, at(90))],
        pods: Ok(vec![pod("aws-node-1", None)]),
        orphans: vec![],
    }
}

fn outcome(facts: &Facts, name: &str) -> Outcome {
    judge(facts).checks.iter().find(|check| check.name == name).unwrap().outcome
}

#[test]
fn a_healthy_fleet_passes_all_seven() {
    let verified = judge(&healthy());
    assert_eq!(verified.checks.len(), 7);
    assert_eq!(verified.failed().count(), 0, "{verified:#?}");
}

#[test]
fn each_fault_fails_its_own_check() {
    type Break = fn(&mut Facts);
    let cases: [(&str, Break, &[&str]); 9] = [
        ("no cluster", |f| f.status = None, &["cluster"]),
        ("a cluster on its way", |f| f.status = Some("CREATING".into()), &["cluster"]),
        ("401", |f| f.identity = Err("401".into()), &["api"]),
        ("a node is missing", |f| f.desired = 2, &["nodes"]),
        (
            "a node without its GPUs",
            |f| {
                f.nodes =
                    vec![verdict_of(&failed(Reason::GpuCountShort, Phase::Drivers), 0, at(90))]
            },
            &["nodes", "gpus"],
        ),
        (
            "a pod that crashes",
            |f| f.pods = Ok(vec![pod("a", Some("CrashLoopBackOff"))]),
            &["pods"],
        ),
        (
            "a pod without its image",
            |f| f.pods = Ok(vec![pod("a", Some("ImagePullBackOff"))]),
            &["pods", "images"],
        ),
        ("no pods at all", |f| f.pods = Ok(vec![]), &["pods"]),
        ("an orphan", |f| f.orphans = vec![("old".into(), "vpc-1".into())], &["orphans"]),
    ];
    for (what, spoil, expected) in cases {
        let mut facts = healthy();
        spoil(&mut facts);
        let verified = judge(&facts);
        let failed: Vec<_> = verified.failed().map(|check| check.name).collect();
        assert_eq!(failed, expected, "{what}: {verified:#?}");
    }
}

#[test]
fn what_cannot_be_read_is_no_pass_and_what_is_not_there_no_failure() {
    let mut facts = Facts { pods: Err("no API".into()), ..healthy() };
    assert_eq!(outcome(&facts, "pods"), Outcome::Unknown);
    facts.nodes[0].gpus_expected = Some(0);
    assert_eq!(outcome(&facts, "gpus"), Outcome::Skipped);
}

#[test]
fn junit_has_a_case_for_each_check() {
    let mut facts = healthy();
    facts.identity = Err("TLS <broken> & \"unknown\"".into());
    facts.nodes[0].gpus_expected = Some(0);
    let xml = junit(&judge(&facts));
    assert!(
        xml.contains("<testsuite name=\"control verify prod\" tests=\"7\" failures=\"1\""),
        "{xml}"
    );
    assert!(xml.contains("skipped=\"1\""), "{xml}");
    let said = "message=\"TLS &lt;broken&gt; &amp; &quot;unknown&quot;\"";
    assert!(xml.contains(said), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), 7, "{xml}");
}
