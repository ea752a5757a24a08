//! The verdict on tables of evidence.

use contract::{ConsoleLine, JoinReport};

use super::*;
use crate::diagnose::facts::{ConsoleFacts, Known};
use crate::diagnose::samples::{at, bend, condition, failed, proven, report, silent};

fn console(output: &str) -> NodeEvidence {
    NodeEvidence { console: Known::Known(Some(ConsoleFacts::of(output))), ..silent() }
}

fn console_line(report: &JoinReport) -> NodeEvidence {
    console(&format!("[ 1.0] kernel: hello\n{}\n", ConsoleLine::of(report).render()))
}

fn not_ready(message: &'static str) -> NodeEvidence {
    bend(proven(), |node| {
        node.conditions.insert("Ready".into(), condition("False", "KubeletNotReady", message));
    })
}

/// What is seen, how many seconds after the launch, and what must be concluded.
type Row = (&'static str, NodeEvidence, i64, Stage, NodeState, &'static [Reason]);

#[test]
#[expect(clippy::too_many_lines, reason = "it is a table")]
fn verdicts() {
    use GpuOffer::Dra;
    use NodeState::{Failed, Joining, Ready};
    let hardware = |status: &'static str, message: &'static str| {
        bend(proven(), move |node| {
            let condition = condition(status, "NvidiaDeviceCountMismatch", message);
            node.conditions.insert("AcceleratedHardwareReady".into(), condition);
        })
    };
    let offers = |gpus: Option<&'static str>| {
        bend(proven(), move |node| {
            node.allocatable =
                gpus.map(|n| ("nvidia.com/gpu".into(), n.into())).into_iter().collect();
        })
    };
    let offered_by = |offer: GpuOffer, slices: Known<Option<u32>>| {
        let mut evidence = NodeEvidence { slices, ..offers(None) };
        evidence.instance.offer = offer;
        evidence
    };
    let unread = || Known::Unknown("could not list the ResourceSlices".into());
    let drivers = || failed(Reason::DriverLibraryMismatch, Phase::Drivers);
    let tagged = |tag: &str| {
        let mut evidence = silent();
        evidence.instance.join_tag = Some(tag.into());
        evidence
    };
    let system = |evidence: NodeEvidence| NodeEvidence { gpus_expected: Some(0), ..evidence };
    let install = report(Reason::AgentInstallFailed, Phase::Identify, "wrong SHA-256");
    let cni = "container runtime network not ready: NetworkReady=false \
               reason:NetworkPluginNotReady message:Network plugin returns error: cni plugin not \
               initialized";
    let table: Vec<Row> = vec![
        ("just launched", silent(), 10, Stage::NeverBooted, Joining, &[]),
        ("empty console", silent(), 400, Stage::NeverBooted, Failed, &[Reason::NeverBooted]),
        ("boots", console("kernel"), 30, Stage::NotBootstrapped, Joining, &[]),
        (
            "no agent",
            console("kernel"),
            700,
            Stage::NotBootstrapped,
            Failed,
            &[Reason::AgentSilent],
        ),
        ("report", drivers(), 40, Stage::NotBootstrapped, Failed, &[Reason::DriverLibraryMismatch]),
        (
            "console line",
            console_line(&install),
            40,
            Stage::NotBootstrapped,
            Failed,
            &[Reason::AgentInstallFailed],
        ),
        (
            "tag",
            tagged("failed GpuCountShort"),
            40,
            Stage::NotBootstrapped,
            Failed,
            &[Reason::GpuCountShort],
        ),
        ("tag of joining", tagged("joining"), 40, Stage::NeverBooted, Joining, &[]),
        (
            "kubelet refused",
            failed(Reason::NodeNotRegistered, Phase::Register),
            200,
            Stage::NotRegistered,
            Failed,
            &[Reason::NodeNotRegistered],
        ),
        ("network comes", not_ready(cni), 90, Stage::NotReady, Joining, &[]),
        (
            "network stays away",
            not_ready(cni),
            400,
            Stage::NotReady,
            Failed,
            &[Reason::CniNotReady],
        ),
        (
            "kubelet is gone",
            not_ready("Kubelet stopped posting node status."),
            400,
            Stage::NotReady,
            Failed,
            &[Reason::NodeNotReady],
        ),
        ("DRA", offered_by(Dra, Known::Known(Some(8))), 90, Stage::Proven, Ready, &[]),
        (
            "DRA, none yet",
            offered_by(Dra, Known::Known(None)),
            90,
            Stage::WithoutGpus,
            Joining,
            &[],
        ),
        (
            "DRA, no driver",
            offered_by(Dra, Known::Known(None)),
            400,
            Stage::WithoutGpus,
            Failed,
            &[Reason::DevicePluginAbsent],
        ),
        (
            "DRA, one short",
            offered_by(Dra, Known::Known(Some(7))),
            400,
            Stage::WithoutGpus,
            Failed,
            &[Reason::GpuAllocatableShort],
        ),
        ("DRA unread", offered_by(Dra, unread()), 400, Stage::WithoutGpus, Joining, &[]),
        (
            "none offered",
            offered_by(GpuOffer::None, Known::Known(None)),
            90,
            Stage::Proven,
            Ready,
            &[],
        ),
        ("no plugin yet", offers(None), 90, Stage::WithoutGpus, Joining, &[]),
        ("no plugin", offers(None), 400, Stage::WithoutGpus, Failed, &[Reason::DevicePluginAbsent]),
        (
            "7 on offer",
            offers(Some("7")),
            400,
            Stage::WithoutGpus,
            Failed,
            &[Reason::GpuAllocatableShort],
        ),
        ("not proven yet", hardware("Unknown", ""), 90, Stage::WithoutGpus, Joining, &[]),
        (
            "never proven",
            hardware("Unknown", ""),
            400,
            Stage::WithoutGpus,
            Failed,
            &[Reason::AgentSilent],
        ),
        (
            "lost later",
            hardware("False", "GpuLost: GPU 3 is lost"),
            90,
            Stage::WithoutGpus,
            Failed,
            &[Reason::GpuLost],
        ),
        ("proven", proven(), 90, Stage::Proven, Ready, &[]),
        ("system node", system(offers(None)), 90, Stage::Proven, Ready, &[]),
    ];
    for (name, evidence, after, stage, state, reasons) in table {
        let found = conclude(&evidence, at(after));
        let named: Vec<_> = found.reasons.iter().filter_map(|f| f.reason.known()).collect();
        assert_eq!((found.stage, found.state, named.as_slice()), (stage, state, reasons), "{name}");
    }
}

#[test]
fn a_forged_report_is_not_believed() {
    let mut evidence = failed(Reason::GpuAbsent, Phase::Drivers);
    if let Known::Known(Some(report)) = &mut evidence.report {
        report.author = Author::Other("arn:aws:sts::1:assumed-role/r/i-0def".into());
    }
    assert_eq!(conclude(&evidence, at(40)).state, NodeState::Joining);
}

#[test]
fn a_report_from_before_the_node_registered_has_healed() {
    let report = failed(Reason::GpuCountShort, Phase::Drivers).report;
    let registered = bend(proven(), |node| node.allocatable.clear());
    let evidence = NodeEvidence { report, ..registered };
    let found = conclude(&evidence, at(70));
    assert_eq!((found.stage, found.state), (Stage::WithoutGpus, NodeState::Joining));
    // The same node, whose agent has reported after it registered.
    let mut evidence = evidence;
    if let Known::Known(Some(facts)) = &mut evidence.report {
        facts.report =
            super::super::samples::report(Reason::DevicePluginAbsent, Phase::Ready, "none");
        facts.report.updated = at(65).to_string();
    }
    assert_eq!(conclude(&evidence, at(70)).state, NodeState::Failed);
}

#[test]
fn a_report_that_outlives_the_trouble_does_not_count() {
    let report = failed(Reason::GpuCountShort, Phase::Drivers).report;
    let found = conclude(&NodeEvidence { report, ..proven() }, at(70));
    assert_eq!((found.state, found.reasons.len()), (NodeState::Ready, 0));
}

#[test]
fn what_cannot_be_read_blames_nobody() {
    let evidence = NodeEvidence {
        node: Known::Unknown("could not list the nodes".into()),
        report: Known::Unknown("could not list the reports".into()),
        console: Known::Unknown("could not read the console".into()),
        ..silent()
    };
    let found = conclude(&evidence, at(3600));
    assert_eq!((found.stage, found.state), (Stage::Unknown, NodeState::Joining));
    assert_eq!(found.reasons, []);
}

#[test]
fn our_own_reason_stands_in_the_conditions_message() {
    let lost = condition("False", "NvidiaXID79Error", "GpuLost: GPU 3 has fallen off the bus");
    let foreign = condition("False", "NvidiaXID13Error", "an error of somebody else's");
    for (condition, reason, summary) in [
        (lost, "GpuLost", "GPU 3 has fallen off the bus"),
        (foreign, "NvidiaXID13Error", "an error of somebody else's"),
    ] {
        let evidence = bend(proven(), |node| {
            node.conditions.insert("AcceleratedHardwareReady".into(), condition);
        });
        let found = conclude(&evidence, at(90));
        assert_eq!(found.state, NodeState::Failed);
        let first = &found.reasons[0];
        assert_eq!((first.reason.as_str(), first.summary.as_str()), (reason, summary));
    }
}

#[test]
fn a_terminated_instance_says_who_ended_it() {
    let mut evidence = silent();
    evidence.instance.state = "terminated".into();
    evidence.instance.state_reason = Some("KMS key denied (Client.InternalError)".into());
    let found = conclude(&evidence, at(40));
    assert_eq!((found.stage, found.state), (Stage::Gone, NodeState::Failed));
    assert!(found.reasons[0].summary.contains("KMS key denied"), "{found:?}");
}

#[test]
fn nodes_are_numbered_by_age_within_their_pool() {
    let one = |id: &str, pool: &str, launched: i64, index: i32| {
        let mut evidence = silent();
        evidence.instance.id = id.into();
        evidence.instance.pool = pool.into();
        evidence.instance.layer = if pool == "base" { "system".into() } else { "gpu".into() };
        evidence.instance.launched = at(launched);
        evidence.instance.launch_index = index;
        evidence
    };
    let mut gone = one("i-gone", "h100", 0, 0);
    gone.instance.state = "terminated".into();
    let evidence = [
        one("i-d", "h100", 9, 0),
        one("i-a", "h100", 5, 1),
        one("i-b", "h100", 5, 0),
        gone,
        one("i-c", "base", 7, 0),
    ];
    let order: Vec<String> = super::super::judge(&evidence, at(10))
        .iter()
        .map(|(verdict, _)| format!("{} {}", verdict.place(), verdict.instance))
        .collect();
    assert_eq!(order, ["base/0 i-c", "h100/0 i-b", "h100/1 i-a", "h100/2 i-d"]);
}

/// What the Node of a pool offers of its eight GPUs, how its condition says that MIG divides them, and what
/// follows: stage, what is counted, and the cause once its time is up.
#[test]
fn mig_devices_are_counted_as_the_agent_counts_them() {
    const SEVEN: &str = "8 GPUs are proven and answer, 8 of them in 56 MIG devices";
    const SOME: &str = "8 GPUs are proven and answer, 2 of them in 14 MIG devices";
    let (gpu, small, large) =
        ("nvidia.com/gpu", "nvidia.com/mig-1g.10gb", "nvidia.com/mig-2g.20gb");
    let short = Some(Reason::GpuAllocatableShort);
    type Row<'a> = (&'a str, &'a [(&'a str, u32)], Stage, Option<(u32, u32)>, Option<Reason>);
    let table: &[Row<'_>] = &[
        (SEVEN, &[(gpu, 8)], Stage::Proven, Some((8, 8)), None),
        (SEVEN, &[(gpu, 56)], Stage::Proven, Some((56, 56)), None),
        (SEVEN, &[(gpu, 54)], Stage::WithoutGpus, Some((54, 56)), short),
        (SEVEN, &[(gpu, 0), (small, 40), (large, 16)], Stage::Proven, Some((56, 56)), None),
        (SEVEN, &[(small, 40), (large, 15)], Stage::WithoutGpus, Some((55, 56)), short),
        (SOME, &[(gpu, 6), (small, 14)], Stage::Proven, Some((20, 20)), None),
        (SOME, &[(gpu, 5), (small, 14)], Stage::WithoutGpus, Some((19, 20)), short),
        (SOME, &[], Stage::WithoutGpus, None, Some(Reason::DevicePluginAbsent)),
        // Time slices of whole GPUs are more than there are.
        ("8 GPUs are proven and answer", &[(gpu, 32)], Stage::Proven, Some((8, 8)), None),
        // Parts of GPUs of which nobody says that they are divided: an older agent.
        ("8 of 8 GPUs work", &[(small, 56)], Stage::WithoutGpus, None, None),
    ];
    for (message, offered, stage, counted, cause) in table {
        let evidence = bend(proven(), |node| {
            let said = condition("True", "NvidiaGPUIsReady", message);
            node.conditions.insert("AcceleratedHardwareReady".into(), said);
            let offered =
                offered.iter().map(|(name, count)| ((*name).to_owned(), count.to_string()));
            node.allocatable = offered.collect();
        });
        let concluded = conclude(&evidence, at(1000));
        let what = format!("{message}: {offered:?}");
        assert_eq!(concluded.stage, *stage, "{what}");
        let found = evidence.offered().present().map(|found| (found.offered, found.wanted));
        assert_eq!(found, *counted, "{what}");
        let named = concluded.reasons.first().and_then(|finding| finding.reason.known());
        assert_eq!(named, *cause, "{what}");
    }
    // By DRA, divided GPUs are none, and their parts are cut anew for each claim.
    let mut evidence = bend(proven(), |node| {
        let said = condition("True", "NvidiaGPUIsReady", SOME);
        node.conditions.insert("AcceleratedHardwareReady".into(), said);
        node.allocatable.clear();
    });
    evidence.instance.offer = GpuOffer::Dra;
    for (slices, stage) in [(6, Stage::Proven), (5, Stage::WithoutGpus)] {
        evidence.slices = Known::Known(Some(slices));
        assert_eq!(conclude(&evidence, at(1000)).stage, stage, "{slices} in slices");
    }
}
