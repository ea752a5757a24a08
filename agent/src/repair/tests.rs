//! The ladder on a node whose programs are doubles: shell scripts that write down what they are asked.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use contract::{Phase, Reason};

use super::rungs::{Rung, ladder, next};
use super::*;
use crate::gpu::pci::PciGpu;
use crate::gpu::probe::{NvmlFacts, Outcome};
use crate::gpu::sample::{CallError, Driver, GpuSample, RemappedRows};

struct Node {
    directory: tempfile::TempDir,
    root: Root,
}

impl Node {
    /// `systemctl show` says that kubelet is `kubelet`; the repairs' units run as on a node, and all
    /// else succeeds.
    fn new(kubelet: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let node = Self { directory, root };
        fs::create_dir_all(node.root.path("/run/rollcall")).unwrap();
        let show =
            format!("case $1 in show) echo LoadState=loaded; echo ActiveState={kubelet};; esac");
        node.program("/usr/bin/systemctl", &(show + &node.repairs()));
        node.program("/usr/bin/nvidia-smi", "");
        node.program("/usr/sbin/modprobe", "");
        node
    }

    /// PID 1's part in `rollcall-repair@.service`.
    fn repairs(&self) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/libexec/repair");
        let root = self.directory.path().display();
        format!(
            "\ncase \"$*\" in 'start rollcall-repair@'*) what=${{2#*@}}; cd {root}; \
             PATH={root}/usr/sbin:{root}/usr/bin:$PATH exec sh {script} ${{what%.service}};; esac"
        )
    }

    fn program(&self, path: &str, script: &str) {
        let file = self.root.path(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        let log = self.directory.path().join("asked");
        let name = file.file_name().unwrap().to_str().unwrap();
        let note = format!(
            "case \"$*\" in show*|*rollcall-repair@*) ;; *) echo {name} \"$@\" >>{};; esac",
            log.display()
        );
        fs::write(&file, format!("#!/bin/sh\n# A double of the tests.\n{note}\n{script}\n"))
            .unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn asked(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("asked")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn ladder(&self, mode: Mode) -> Ladder<'_> {
        Ladder::new(&self.root, "boot-1", mode, false)
    }
}

fn facts() -> DriverFacts {
    let gpu = |index: u32| GpuSample {
        index,
        pci: format!("0000:{:02x}:00.0", 0x50 + index),
        name: "NVIDIA H100 80GB HBM3".into(),
        ..GpuSample::default()
    };
    let on_bus = |index: u32| PciGpu { address: gpu(index).pci, ..PciGpu::default() };
    DriverFacts {
        pci: Some((0..8).map(on_bus).collect()),
        nvml: NvmlFacts {
            driver: Some(Driver { count: 8, ..Driver::default() }),
            gpus: (0..8).map(gpu).collect(),
            outcome: Outcome::Complete,
        },
        ..DriverFacts::default()
    }
}

fn pending() -> DriverFacts {
    let mut facts = facts();
    let rows = RemappedRows { pending: true, ..RemappedRows::default() };
    facts.nvml.gpus[3].readings.remapped_rows = Some(rows);
    facts
}

fn fail(reasons: &[Reason]) -> Verdict {
    let of = |reason: &Reason| Finding::new(*reason, Phase::Drivers, "seen");
    Verdict::Fail(reasons.iter().map(of).collect())
}

async fn climb(ladder: &mut Ladder<'_>, verdict: &Verdict, facts: &DriverFacts) -> Climb {
    ladder.climb(verdict, facts, &Expected::default(), None).await
}

#[test]
fn every_ladder_goes_from_gentle_to_rough_and_ends() {
    for reason in Reason::ALL {
        let rungs = ladder(*reason);
        let caps: Vec<bool> = rungs.iter().map(|rung| *rung == Rung::Reboot).collect();
        assert!(caps.iter().rev().skip(1).all(|is_reboot| !is_reboot), "{reason}: reboot is last");
        assert!(rungs.len() <= 5, "{reason}");
        let of_drivers = reason.entry().owner == contract::reason::Owner::Phase(Phase::Drivers);
        assert!(rungs.is_empty() || of_drivers, "{reason} is not the driver's");
        let labels: std::collections::BTreeSet<String> = rungs.iter().map(|r| r.label()).collect();
        assert_eq!(labels.len(), rungs.len(), "{reason}");
    }
    assert!(ladder(Reason::RowRemapFailed).is_empty(), "another instance mends that");
}

#[test]
fn what_nothing_here_mends_keeps_everything_from_being_tried() {
    let findings = |reasons: &[Reason]| against(&fail(reasons));
    let expected = Expected::default();
    let next = |reasons: &[Reason], facts: &DriverFacts| {
        next(&findings(reasons), facts, &expected, "boot-1", &[]).map(|step| step.rung)
    };
    assert_eq!(next(&[Reason::RowRemapPending], &pending()), Some(Rung::Reset));
    assert_eq!(next(&[Reason::RowRemapPending, Reason::RowRemapFailed], &pending()), None);
    let mut short = facts();
    short.pci.as_mut().unwrap().pop();
    short.nvml.gpus.pop();
    assert_eq!(next(&[Reason::GpuCountShort], &short), None, "missing on the bus");
    let mut short = facts();
    short.nvml.gpus.pop();
    assert_eq!(next(&[Reason::GpuCountShort], &short), Some(Rung::AskAgain(1)));
    // Nothing that could be reset: the reboot is left.
    assert_eq!(next(&[Reason::RowRemapPending], &facts()), Some(Rung::Reboot));
}

#[tokio::test]
async fn rung_after_rung_and_the_report_says_what_helped() {
    let node = Node::new("inactive");
    let mut ladder = node.ladder(Mode::On);
    let verdict = fail(&[Reason::RowRemapPending]);
    assert_eq!(climb(&mut ladder, &verdict, &pending()).await, Climb::LookAgain);
    assert_eq!(node.asked(), ["nvidia-smi --gpu-reset -i 0000:53:00.0"]);
    assert_eq!(climb(&mut ladder, &Verdict::Pass, &facts()).await, Climb::Stop);
    let helped = |ladder: &Ladder<'_>| -> Vec<(String, bool)> {
        ladder.report().into_iter().map(|repair| (repair.action, repair.helped)).collect()
    };
    assert_eq!(helped(&ladder), [("reset 0000:53:00.0".to_owned(), true)]);
    // Another life of the join knows it too, until the node is Ready.
    assert_eq!(helped(&node.ladder(Mode::On)), helped(&ladder));
    forget(&node.root);
    assert_eq!(helped(&node.ladder(Mode::On)), []);
}

#[tokio::test]
async fn a_kill_in_the_middle_repeats_nothing() {
    let node = Node::new("inactive");
    node.program("/usr/bin/nvidia-smi", "exec sleep 60");
    let verdict = fail(&[Reason::RowRemapPending]);
    {
        let mut ladder = node.ladder(Mode::On);
        let facts = pending();
        let killed = climb(&mut ladder, &verdict, &facts);
        assert!(tokio::time::timeout(Duration::from_secs(2), killed).await.is_err());
    }
    assert_eq!(node.asked().len(), 1, "it was begun");
    // The next rung of the next life would be the reboot, and there is no time for it.
    let mut ladder = node.ladder(Mode::On);
    let soon = Some(Deadline::within(Duration::from_secs(5)));
    let climb = ladder.climb(&verdict, &pending(), &Expected::default(), soon).await;
    assert_eq!((climb, node.asked().len()), (Climb::Stop, 1));
    assert!(!ladder.report()[0].helped);
}

#[tokio::test]
async fn a_node_reboots_once_whatever_the_reason() {
    let node = Node::new("inactive");
    let label = Rung::Reboot.label();
    let mut memory = Memory::default();
    memory.tried.push(Tried {
        reason: "GpuLost".into(),
        rung: label.clone(),
        boot: "an earlier boot".into(),
        ..Tried::default()
    });
    memory.save(&node.root);
    for reason in [Reason::GpuLost, Reason::DriverHang] {
        let verdict = fail(&[reason]);
        assert_eq!(climb(&mut node.ladder(Mode::On), &verdict, &facts()).await, Climb::Stop);
    }
    fs::write(node.root.path("/var/lib/rollcall/repairs.json"), "{torn").unwrap();
    let lost = fail(&[Reason::GpuLost]);
    assert_eq!(climb(&mut node.ladder(Mode::On), &lost, &facts()).await, Climb::Stop);
    assert_eq!(node.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_is_touched_unless_asked_for_and_never_where_pods_may_run() {
    let verdict = fail(&[Reason::RowRemapPending]);
    let idle = Node::new("inactive");
    let busy = Node::new("active");
    for (node, mode, admitted, said) in [
        (&idle, Mode::Off, false, vec![]),
        (&idle, Mode::Observe, false, vec!["would reset 0000:53:00.0"]),
        (&idle, Mode::On, true, vec![]),
        (&busy, Mode::On, false, vec![]),
    ] {
        forget(&node.root);
        let mut ladder = Ladder::new(&node.root, "boot-1", mode, admitted);
        for _ in 0..3 {
            assert_eq!(climb(&mut ladder, &verdict, &pending()).await, Climb::Stop);
        }
        let actions: Vec<String> = ladder.report().into_iter().map(|one| one.action).collect();
        assert_eq!(actions, said, "{mode:?}");
        assert_eq!(node.asked(), Vec::<String>::new(), "{mode:?}");
    }
    // What was only observed does not count as tried once it may be done.
    let mut observing = idle.ladder(Mode::Observe);
    climb(&mut observing, &verdict, &pending()).await;
    assert_eq!(climb(&mut idle.ladder(Mode::On), &verdict, &pending()).await, Climb::LookAgain);
}

#[tokio::test]
async fn the_modules_are_changed_and_the_daemons_come_back() {
    let node = Node::new("inactive");
    let show = "case \"$*\" in *show*nvidia*) echo LoadState=loaded; echo ActiveState=active;; \
                *show*) echo LoadState=loaded; echo ActiveState=inactive;; esac";
    node.program("/usr/bin/systemctl", &format!("{show}{}", node.repairs()));
    fs::create_dir_all(node.root.path("/proc")).unwrap();
    fs::write(node.root.path("/proc/modules"), "nvidia_uvm 1 0 -\nnvidia 1 1 nvidia_uvm,\n")
        .unwrap();
    let verdict = fail(&[Reason::DriverLibraryMismatch]);
    assert_eq!(climb(&mut node.ladder(Mode::On), &verdict, &facts()).await, Climb::LookAgain);
    assert_eq!(
        node.asked(),
        [
            "systemctl stop nvidia-fabricmanager.service",
            "systemctl stop nvidia-persistenced.service",
            "modprobe -r nvidia_uvm nvidia",
            "modprobe nvidia",
            "modprobe nvidia_uvm",
            "systemctl start nvidia-persistenced.service",
            "systemctl start nvidia-fabricmanager.service",
        ]
    );
}

#[tokio::test]
async fn a_soft_thing_is_mended_by_its_daemon_where_that_is_down() {
    let node = Node::new("inactive");
    let soft = Finding::new(Reason::PersistenceModeOff, Phase::Drivers, "seen");
    let verdict = Verdict::Degraded(vec![soft]);
    let mut down = facts();
    let unit = |active: &str| crate::host::systemd::UnitState {
        load: "loaded".into(),
        active: active.into(),
        ..Default::default()
    };
    down.services.persistenced = Some(unit("active"));
    assert_eq!(climb(&mut node.ladder(Mode::On), &verdict, &down).await, Climb::Stop);
    down.services.persistenced = Some(unit("inactive"));
    assert_eq!(climb(&mut node.ladder(Mode::On), &verdict, &down).await, Climb::LookAgain);
    assert_eq!(node.asked(), ["systemctl restart nvidia-persistenced.service"]);
    // What is hard and only observed is left alone: the node joins with it.
    let observed = Finding::new(Reason::EccUncorrectable, Phase::Drivers, "would have");
    let degraded = Verdict::Degraded(vec![observed]);
    assert_eq!(climb(&mut node.ladder(Mode::On), &degraded, &pending()).await, Climb::Stop);
}

#[tokio::test]
async fn a_gpu_that_does_not_say_where_it_is_is_reset_by_its_turn() {
    let node = Node::new("inactive");
    let mut wants = facts();
    wants.nvml.gpus[5] = GpuSample {
        index: 5,
        error: Some(CallError {
            call: "x".into(),
            code: CallError::RESET_REQUIRED,
            text: "y".into(),
        }),
        ..GpuSample::default()
    };
    let verdict = fail(&[Reason::GpuResetRequired]);
    assert_eq!(climb(&mut node.ladder(Mode::On), &verdict, &wants).await, Climb::LookAgain);
    assert_eq!(node.asked(), ["nvidia-smi --gpu-reset -i 0000:55:00.0"]);
}
