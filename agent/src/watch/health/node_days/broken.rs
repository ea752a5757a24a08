//! Such days with one fault each: the condition names it, or an event does, and takes it back.

use super::*;

/// A fault, and the condition's reason.
struct Injection {
    name: &'static str,
    break_it: fn(&mut Node, usize),
    reason: &'static str,
}

fn lose(node: &mut Node, gpu: usize, code: u32) {
    let error = CallError { call: "x".into(), code, text: "said".into() };
    node.facts.nvml.gpus[gpu].error = Some(error);
    node.facts.nvml.gpus[gpu].readings.recovery_action = None;
}

fn fail(node: &mut Node, outcome: Outcome) {
    node.facts.nvml.outcome = outcome;
}

const INJECTIONS: &[Injection] = &[
    Injection { name: "lost", break_it: |n, g| lose(n, g, 15), reason: "NvidiaXID79Error" },
    Injection {
        name: "wants a reset",
        break_it: |n, g| lose(n, g, 16),
        reason: "NvidiaXID95Error",
    },
    Injection {
        name: "gone from the bus",
        break_it: |n, g| drop(n.facts.pci.as_mut().unwrap().remove(g)),
        reason: "",
    },
    Injection {
        name: "hang",
        break_it: |n, _| {
            fail(n, Outcome::Hung { asking: "GPU 0".into(), after: Duration::from_secs(10) });
        },
        reason: "DCGMError",
    },
    Injection {
        name: "helper dies for good",
        break_it: |n, _| fail(n, Outcome::HelperFailed("it ended with signal 11".into())),
        reason: "DCGMError",
    },
    Injection {
        name: "module unloaded",
        break_it: |n, _| {
            n.facts.module.version = None;
            n.facts.nvml.gpus.clear();
            n.facts.nvml.driver = None;
            fail(n, Outcome::NotAsked("the kernel module is not loaded"));
        },
        reason: "DCGMError",
    },
    Injection {
        name: "48",
        break_it: |n, g| n.xid(g, "48, pid=1, DBE", None),
        reason: "NvidiaXID48Error",
    },
    Injection {
        name: "62",
        break_it: |n, g| n.xid(g, "62, PMU halt", None),
        reason: "NvidiaXID62Error",
    },
    Injection {
        name: "74",
        break_it: |n, g| n.xid(g, "74, NVLink", None),
        reason: "NvidiaXID74Error",
    },
    Injection {
        name: "79",
        break_it: |n, g| n.xid(g, "79, off the bus", None),
        reason: "NvidiaXID79Error",
    },
    Injection {
        name: "95",
        break_it: |n, g| n.xid(g, "95, uncontained", None),
        reason: "NvidiaXID95Error",
    },
    Injection {
        name: "119",
        break_it: |n, g| n.xid(g, "119, GSP", None),
        reason: "NvidiaXID119Error",
    },
    Injection {
        name: "140",
        break_it: |n, g| n.xid(g, "140, ECC", None),
        reason: "NvidiaXID140Error",
    },
    Injection {
        name: "NVLink5",
        break_it: |n, g| n.xid(g, "149, NETIR_LINK_EVT Fatal XC1 i2 Link 08 (0x4)", None),
        reason: "NvidiaXID149Error",
    },
    Injection {
        name: "SXid",
        break_it: |n, _| {
            n.log("nvidia-nvswitch0: SXid (PCI:0000:c0:00.0): 20034, Fatal, Link 30", None)
        },
        reason: "NvidiaFabricError",
    },
    Injection {
        name: "NVLink recovery failed",
        break_it: |n, g| {
            n.readings(g).nvlink_errors.as_mut().unwrap().failed_recoveries = Some(1);
        },
        reason: "NvidiaNVLinkError",
    },
    Injection {
        name: "slowdown stays",
        break_it: |n, g| n.readings(g).clock_event_reasons = Some(0x48),
        reason: "SlowdownPersists",
    },
];

/// How soon a fault must be seen, and its end.
fn patience(name: &str) -> (Duration, Duration) {
    let (soon, hour) = (Duration::from_secs(15), Duration::from_secs(3700));
    match name {
        // A switch's error has no GPU that would be away: where the driver says nothing, an hour.
        "SXid" => (soon, hour),
        // It has to stay for ten minutes, and to be away for one.
        "slowdown stays" => (Duration::from_secs(680), Duration::from_secs(90)),
        _ => (soon, soon),
    }
}

#[test]
fn every_fault_in_such_days_is_seen_and_its_end_too() {
    each_seed(40 * INJECTIONS.len() as u64, |seed| {
        let number = usize::try_from(seed).unwrap() % INJECTIONS.len();
        let injection = &INJECTIONS[number];
        let mut node = Node::new(seed);
        node.day()?;
        let healthy = node.facts.clone();
        let broken_at = node.now;
        let (soon, over) = patience(injection.name);
        let gpu = node.gpu();
        (injection.break_it)(&mut node, gpu);
        let named = |node: &Node| {
            let standing = node.health.standing.as_ref().unwrap();
            standing.status == Status::False
                && (injection.reason.is_empty() || standing.reason == injection.reason)
        };
        while !named(&node) {
            node.round();
            if node.now > broken_at + soon {
                return Err(format!("{}: not seen: {:?}", injection.name, node.health.standing));
            }
        }
        let since = node.health.standing.as_ref().unwrap().since;

        // It stays for a while: its transition time does not move.
        let broken = node.facts.clone();
        for gpu in &mut node.facts.nvml.gpus {
            gpu.readings.recovery_action = gpu.readings.recovery_action.map(|_| 1);
        }
        for _ in 0..5 {
            node.round();
        }
        if node.health.standing.as_ref().unwrap().since != since {
            return Err(format!("{}: its transition moved", injection.name));
        }

        // Repaired by a reset: the GPU is away, and comes back.
        let repaired_at = {
            node.facts = broken;
            for gpu in &mut node.facts.nvml.gpus {
                let error = CallError { call: "x".into(), code: 16, text: "in reset".into() };
                gpu.error = Some(error);
            }
            node.round();
            node.facts = healthy;
            node.now
        };
        while node.status() != Status::True {
            node.round();
            if node.now > repaired_at + over {
                return Err(format!("{}: not cleared: {:?}", injection.name, node.health.standing));
            }
        }
        Ok(())
    });
}

/// What is worth an event: the event's reason, and what brings it.
type Sign = (&'static str, fn(&mut Node, usize));

const SIGNS: &[Sign] = &[
    ("HardwareSlowdown", |n, g| n.readings(g).clock_event_reasons = Some(0x8)),
    ("ThermalSlowdown", |n, g| n.readings(g).clock_event_reasons = Some(0x48)),
    ("PowerBrakeSlowdown", |n, g| n.readings(g).clock_event_reasons = Some(0x88)),
    ("TemperatureNearLimit", |n, g| n.readings(g).slowdown_margin = Some(1)),
    ("NvlinkErrors", |n, g| {
        let errors = n.readings(g).nvlink_errors.as_mut().unwrap();
        errors.replays = errors.replays.map(|count| count + 300);
    }),
    ("PcieErrors", |n, g| {
        n.facts.pci.as_mut().unwrap()[g].errors.as_mut().unwrap().nonfatal += 1;
    }),
    ("EfaErrors", |n, _| {
        let counter = ("rdmap79s0".to_owned(), "unresponsive_remote_events");
        n.facts.efa.errors.insert(counter, 50);
    }),
    ("GpuProcessStuck", |n, _| {
        let (name, state) = ("python3".to_owned(), 'Z');
        n.facts.stuck = vec![StuckProcess { pid: 9, started: 1, name, state, gpus: vec![0] }];
    }),
];

#[test]
fn every_sign_in_such_days_is_told_and_taken_back_and_no_node_is_ill() {
    each_seed(20 * SIGNS.len() as u64, |seed| {
        let number = usize::try_from(seed).unwrap() % SIGNS.len();
        let (reason, break_it) = SIGNS[number];
        let mut node = Node::new(seed);
        // Who counts is known from then on; an EFA device's first drops are its first.
        node.facts.efa.errors.insert(("rdmap79s0".to_owned(), "rx_drops"), 1);
        node.day()?;
        let healthy = node.facts.clone();
        let gpu = node.gpu();
        break_it(&mut node, gpu);
        let limit = if reason == "GpuProcessStuck" { 75 } else { 15 };
        let told = |node: &mut Node, is_warning: bool, limit: u64| {
            let until = node.now + Duration::from_secs(limit);
            while node.now < until {
                let actions = node.round();
                if node.status() != Status::True {
                    return Err(format!("{reason}: {:?}", node.health.standing));
                }
                let is_it = |action: &Action| {
                    matches!(action, Action::Tell(notice)
                        if notice.reason == reason && notice.is_warning == is_warning)
                };
                if actions.iter().any(is_it) {
                    return Ok(());
                }
            }
            Err(format!("{reason}: nothing was told (warning {is_warning})"))
        };
        told(&mut node, true, limit)?;
        node.facts = healthy;
        told(&mut node, false, 15)
    });
}
