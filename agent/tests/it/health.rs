//! Health after the join, on a root that looks like a node: what the watch believes, read from its
//! metrics, while GPUs, daemons and the kernel log say one thing and another.
//!
//! Three failures that hid elsewhere for hours, days or weeks are played again. Order and content are
//! what is tested; the bounds are generous, and `make bench` has the figures.

use std::fs::{self, OpenOptions, Permissions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use contract::JoinReport;
use contract::join_report::JoinOutcome;
use contract::names::{REPORT_PATH, WATCH_RUN_DIR, WATCH_SETTINGS_PATH};
use nvml_sim::State;
use nvml_sim::fault::Fault;

use crate::gpu::{Node, h100s};
use crate::watch::{Watch, up};

/// Far more than anything here takes, on a machine that has other things to do.
const LONG: u64 = 90;

/// A node that has joined, with eight GPUs and a kernel log.
struct Joined {
    node: Node,
}

impl Joined {
    fn new(state: &State) -> Self {
        let node = Node::new(state);
        let golden = include_str!("../../../contract/golden/join_report.json");
        let mut report: JoinReport = serde_json::from_str(golden).unwrap();
        report.outcome = JoinOutcome::Ready;
        report.reasons.clear();
        let joined = Self { node };
        joined.write(REPORT_PATH, &serde_json::to_string(&report).unwrap());
        joined.write("/proc/sys/kernel/random/boot_id", "one\n");
        joined.write("/dev/kmsg", "6,1,100,-;NVRM: loading NVIDIA UNIX Open Kernel Module\n");
        joined.set_fabric_manager("active");
        joined
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.node.path().join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A double of systemctl, to which every unit is as this file says.
    fn set_fabric_manager(&self, active: &str) {
        self.write("/run/units", active);
        let root = self.node.path().display();
        let script = format!(
            "#!/bin/sh\nprintf 'LoadState=loaded\\nActiveState=%s\\nSubState=x\\nResult=success\\n' \"$(cat {root}/run/units)\"\n"
        );
        let path = self.node.path().join("usr/bin/systemctl");
        if !path.exists() {
            self.write("/usr/bin/systemctl", &script);
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
    }

    fn log(&self, number: u32, text: &str) {
        let path = self.node.path().join("dev/kmsg");
        let mut log = OpenOptions::new().append(true).open(path).unwrap();
        writeln!(log, "4,{number},{number}000000,-;{text}").unwrap();
    }

    /// Makes every moment in what the watch has left behind the boot's beginning.
    fn age_what_is_believed(&self) {
        fn age(value: &mut serde_json::Value) {
            match value {
                serde_json::Value::Object(fields) if fields.contains_key("nanos") => {
                    fields.insert("secs".into(), 0.into());
                }
                serde_json::Value::Object(fields) => fields.values_mut().for_each(age),
                serde_json::Value::Array(items) => items.iter_mut().for_each(age),
                _ => {}
            }
        }
        let path = format!("{WATCH_RUN_DIR}/health.json");
        let file = self.node.path().join(path.trim_start_matches('/'));
        let mut kept = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        age(&mut kept);
        self.write(&path, &kept.to_string());
    }

    fn watch(&self) -> Watch {
        let watch = Watch::start(&self.node);
        watch.until(LONG, |text| stands(text, "True"));
        watch
    }
}

/// Whether the condition says this.
fn stands(text: &str, status: &str) -> bool {
    text.contains(&format!("rollcall_health_status{{status=\"{status}\"}} 1"))
}

/// Whether this reason is open, and the condition's reason for it.
fn names(text: &str, reason: &str, condition: &str) -> bool {
    let label =
        format!("rollcall_health_reason{{reason=\"{reason}\",condition_reason=\"{condition}\"");
    text.contains(&label)
}

/// NVSentinel PR 891: a fabric manager was dead for twenty days on a node that called itself healthy.
#[test]
fn a_dead_fabric_manager_is_seen_and_its_return_too() {
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.set_fabric_manager("failed");
    let text = watch.until(LONG, |text| stands(text, "False"));
    assert!(names(&text, "FabricManagerNotRunning", "FabricManagerNotRunning"), "{text}");
    assert_eq!(up(&text), (8, 0), "the GPUs themselves answer");
    joined.set_fabric_manager("active");
    watch.until(LONG, |text| stands(text, "True"));
}

/// The GPUs are sampled before anybody knows which instance this is. A recovery that fails between that round
/// and the next one is counted, and the node is called healthy on the strength of a round alone.
#[test]
fn totals_start_with_the_first_sample_not_with_the_first_after_the_join() {
    let state = nvml_sim::profile::for_instance_type("p6-b200.48xlarge").unwrap();
    let joined = Joined::new(&state);
    let report = joined.node.path().join(REPORT_PATH.trim_start_matches('/'));
    let kept = fs::read_to_string(&report).unwrap();
    fs::remove_file(&report).unwrap();
    let watch = Watch::start(&joined.node);
    watch.until(LONG, |text| up(text) == (8, 0));
    joined.write(REPORT_PATH, &kept.replace("p5.48xlarge", "p6-b200.48xlarge"));
    watch.until(LONG, |text| stands(text, "True"));
    let mut broken = state.clone();
    let fault: Fault = "nvlink-recovery-failed=2".parse().unwrap();
    fault.apply(&mut broken);
    joined.node.set(&broken);
    let text = watch.until(LONG, |text| stands(text, "False"));
    assert!(text.contains("NvlinkRecoveryFailed"), "{text}");
}

/// With no driver there is no helper to ask, and still more than one sighting.
#[test]
fn a_driver_that_goes_is_named_and_its_return_too() {
    let mut gone = h100s();
    Fault::DriverNotLoaded.apply(&mut gone);
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.node.set(&gone);
    watch.until(LONG, |text| stands(text, "False"));
    joined.node.set(&h100s());
    watch.until(LONG, |text| stands(text, "True"));
}

/// eks-node-monitoring-agent 266: the condition stayed False for eight days after the fault was gone,
/// and a restart of the agent made a true one disappear.
#[test]
fn a_condition_goes_with_its_fault_and_not_with_a_restart() {
    let mut broken = h100s();
    Fault::GpuLost(5).apply(&mut broken);
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.node.set(&broken);
    watch.until(LONG, |text| stands(text, "False"));
    watch.stop();

    let watch = Watch::start(&joined.node);
    let first = watch.until(LONG, |text| text.contains("rollcall_health_status"));
    assert!(stands(&first, "False"), "{first}");
    assert!(names(&first, "GpuLost", "NvidiaXID79Error"), "{first}");
    joined.node.set(&h100s());
    watch.until(LONG, |text| stands(text, "True"));
}

/// The same, and the fault comes or goes while nobody watches: what an earlier life has left behind is as
/// old as the boot, and is judged by what is there now.
#[test]
fn what_an_earlier_life_believed_is_judged_by_what_is_there_now() {
    let mut broken = h100s();
    Fault::GpuLost(5).apply(&mut broken);
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.node.set(&broken);
    watch.until(LONG, |text| stands(text, "False"));
    watch.stop();
    joined.age_what_is_believed();
    joined.node.set(&h100s());
    let watch = Watch::start(&joined.node);
    watch.until(LONG, |text| stands(text, "True"));
    watch.stop();

    joined.age_what_is_believed();
    joined.node.set(&broken);
    let watch = Watch::start(&joined.node);
    let text = watch.until(LONG, |text| stands(text, "False"));
    assert!(names(&text, "GpuLost", "NvidiaXID79Error"), "{text}");
}

/// pytorch/ci-infra 1058: one lost GPU had 554 pods rejected in 106 minutes on a node that stayed Ready.
#[test]
fn one_lost_gpu_is_named_and_the_others_go_on() {
    let mut broken = h100s();
    Fault::GpuLost(3).apply(&mut broken);
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.node.set(&broken);
    let text = watch.until(LONG, |text| stands(text, "False"));
    assert!(names(&text, "GpuLost", "NvidiaXID79Error"), "{text}");
    assert_eq!(up(&text), (7, 1));
    joined.node.set(&h100s());
    let text = watch.until(LONG, |text| stands(text, "True"));
    assert_eq!(up(&text), (8, 0));
}

#[test]
fn a_hang_of_the_whole_library_is_named_and_over_when_it_is() {
    let mut broken = h100s();
    Fault::DriverHang.apply(&mut broken);
    let joined = Joined::new(&h100s());
    let watch = joined.watch();
    joined.node.set(&broken);
    let text = watch.until(LONG, |text| stands(text, "False"));
    assert!(names(&text, "DriverHang", "DCGMError"), "{text}");
    let temperatures = text.lines().filter(|line| line.starts_with("DCGM_FI_DEV_GPU_TEMP{"));
    assert_eq!(temperatures.count(), 8, "every GPU is served from its last sample");
    joined.node.set(&h100s());
    watch.until(LONG, |text| stands(text, "True"));
}

#[test]
fn an_xid_of_the_kernel_log_counts_until_the_driver_asks_for_nothing() {
    let mut asking = h100s();
    asking.gpu_mut(0).unwrap().recovery_action = Some(1);
    let joined = Joined::new(&h100s());
    // Before the watch begins, as at a boot: an application's, three times.
    for number in 2..5 {
        joined.log(number, "NVRM: Xid (PCI:0000:53:00): 31, pid=7, name=python3, Ch 00000008");
    }
    let watch = joined.watch();
    let pci = h100s().gpus[0].pci.clone();
    let text = watch.until(LONG, |text| text.contains("rollcall_xid_total{code=\"31\""));
    let counter = text.lines().find(|line| line.starts_with("rollcall_xid_total{")).unwrap();
    assert!(counter.ends_with(" 3"), "{counter}");

    joined.node.set(&asking);
    let address = pci.trim_end_matches(".0");
    joined.log(9, &format!("NVRM: Xid (PCI:{address}): 95, pid=7, name=python3, Uncontained"));
    let text = watch.until(LONG, |text| names(text, "FatalXid", "NvidiaXID95Error"));
    assert!(stands(&text, "False"), "{text}");
    let last = text.lines().find(|line| line.starts_with("DCGM_FI_DEV_XID_ERRORS{gpu=\"0\""));
    assert!(last.is_some_and(|line| line.ends_with(" 95")), "{text}");
    joined.node.set(&h100s());
    watch.until(LONG, |text| stands(text, "True"));
}

#[test]
fn the_pools_settings_are_followed() {
    let joined = Joined::new(&h100s());
    let settings = r#"{"xids": {"95": {"class": "app"}}, "showReasons": {"GpuLost": "event"}}"#;
    joined.write(WATCH_SETTINGS_PATH, settings);
    let watch = joined.watch();
    let mut broken = h100s();
    Fault::GpuLost(3).apply(&mut broken);
    joined.node.set(&broken);
    joined.log(9, "NVRM: Xid (PCI:0000:64:00): 95, pid=7, name=python3, Uncontained");
    let text = watch.until(LONG, |text| {
        names(text, "GpuLost", "NvidiaXID79Error")
            && text.contains("rollcall_xid_total{code=\"95\"")
    });
    assert!(stands(&text, "True"), "{text}");
    assert!(text.contains("condition=\"false\"} 1"), "{text}");
}

#[test]
fn without_a_kernel_log_and_nvmls_events_nobody_knows() {
    let joined = Joined::new(&h100s());
    fs::remove_file(joined.node.path().join("dev/kmsg")).unwrap();
    let watch = Watch::start(&joined.node);
    // nvml-sim has events, so NVML tells of XIDs; the missing log shows all the same.
    let text = watch.until(LONG, |text| stands(text, "True"));
    assert!(text.contains("rollcall_kernel_log_up 0"), "{text}");
    assert!(!text.contains("DCGM_FI_DEV_XID_ERRORS{"), "0 would say that somebody has looked");
}
