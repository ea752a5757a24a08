//! Faults as a program meets them: functions that are absent, calls that do not come back, texts
//! that are none, events.

#![expect(clippy::disallowed_methods, reason = "a call that must not come back is given time")]

use std::time::Duration;
use std::{fs, thread};

use nvml_sim::State;
use nvml_sim::fault::{Fault, Happening};
use nvml_sim::state::{GpuFault, Slow};
use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enum_wrappers::device::TemperatureSensor;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::event::EventData;

use super::{Node, h100s};

#[test]
fn a_hidden_function_is_absent_for_the_loader() {
    let node = Node::of("p5.48xlarge", &["symbol-missing=nvmlDeviceGetPowerUsage"]);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.power_usage(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(gpu.temperature(TemperatureSensor::Gpu).is_ok());

    let old = Node::of("p5.48xlarge", &["driver-version=470.256.02"]);
    let nvml = old.init().unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "470.256.02");
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.gpm_support(), Err(NvmlError::FailedToLoadSymbol(_))));
    assert!(old.root.path().join("usr/lib64/libnvidia-ml.so.470.256.02").exists());
}

#[test]
fn one_gpu_hangs_and_the_others_answer() {
    let node = Node::of("p5.48xlarge", &[]);
    let nvml = node.init().unwrap();
    let (third, fourth) = (nvml.device_by_index(3).unwrap(), nvml.device_by_index(4).unwrap());
    let mut state = h100s();
    "gpu-hang=3".parse::<Fault>().unwrap().apply(&mut state);
    node.set(&state);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| third.power_usage());
        for _ in 0..20 {
            assert!(fourth.power_usage().is_ok());
            thread::sleep(Duration::from_millis(5));
        }
        assert!(!stuck.is_finished(), "it came back");

        // A GPU whose driver holds the lock meanwhile takes all others with it.
        state.gpus[5].fault = Some(GpuFault { hang: true, holds_lock: true, ..Default::default() });
        node.set(&state);
        let holder = scope.spawn(|| nvml.device_by_index(5).map(drop));
        thread::sleep(Duration::from_millis(100));
        let waiting = scope.spawn(|| fourth.power_usage());
        thread::sleep(Duration::from_millis(200));
        assert!(!holder.is_finished() && !waiting.is_finished(), "somebody came back");
        node.set(&h100s());
        assert!(stuck.join().unwrap().is_ok() && holder.join().unwrap().is_ok());
        assert!(waiting.join().unwrap().is_ok());
    });
}

#[test]
fn a_text_that_is_none() {
    let node = Node::of("p5.48xlarge", &["garbage=2"]);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(2).unwrap();
    assert!(matches!(gpu.name(), Err(NvmlError::Utf8Error(_))));
    assert!(matches!(gpu.serial(), Err(NvmlError::Utf8Error(_))));
    assert!(gpu.power_usage().is_ok());
    assert!(nvml.device_by_index(1).unwrap().name().is_ok());
}

#[test]
fn slow_calls_take_their_time() {
    let mut state = h100s();
    state.faults.slow = Some(Slow { every: 3, ms: 80 });
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let start = std::time::Instant::now();
    for _ in 0..6 {
        nvml.device_count().unwrap();
    }
    assert!(start.elapsed() >= Duration::from_millis(160), "two of six are slow");
}

fn event_of(waited: Result<EventData<'_>, NvmlError>) -> Option<(String, String)> {
    let event = waited.ok()?;
    Some((event.device.uuid().unwrap(), format!("{:?}", event.event_data)))
}

#[test]
fn an_event_set_hears_what_happens_after_it_was_registered() {
    let state = h100s();
    let node = Node::new(&state);
    let root = node.root.path();
    let happen = |text: &str| text.parse::<Happening>().unwrap().happen(root).unwrap();
    happen("xid=13:2");
    let nvml = node.init().unwrap();
    let mut set = nvml.create_event_set().unwrap();
    for index in [2, 3] {
        let gpu = nvml.device_by_index(index).unwrap();
        set = gpu.register_events(EventTypes::CRITICAL_XID_ERROR, set).unwrap();
    }
    assert_eq!(event_of(set.wait(30)), None, "the past is not told");

    happen("xid-kmsg-only=79:2");
    happen("xid=31:0");
    happen("xid=48:3");
    happen("xid=48:3");
    let told: Vec<_> = (0..2).map(|_| event_of(set.wait(2000))).collect();
    for event in told {
        let (uuid, data) = event.unwrap();
        assert_eq!(uuid, state.gpus[3].uuid);
        assert!(data.contains("48"), "{data}");
    }
    assert_eq!(event_of(set.wait(30)), None);

    // One that waits already is woken.
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(50));
            happen("xid=63:2");
        });
        let (uuid, _) = event_of(set.wait(5000)).unwrap();
        assert_eq!(uuid, state.gpus[2].uuid);
    });
    let log = fs::read_to_string(root.join("dev/kmsg")).unwrap();
    assert_eq!(log.matches("Xid (PCI:0000:86:00): 48, ").count(), 2, "repeats are repeated");
    assert_eq!(State::read(root).unwrap().events.len(), 5);
}
