//! The library as its clients meet it: loaded by nvml-wrapper from a node's root.
//!
//! Every test has a copy of the library in a root of its own, so it is an instance of its own too.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

mod faults;
mod parts;
mod readers;
mod structures;

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fs, thread};

use nvml_sim::fault::Fault;
use nvml_sim::state::{GpuFault, RemappedRows};
use nvml_sim::{State, library, node_files, profile};
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::InitFlags;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::gpm::GpmMetricId;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::gpm::gpm_metrics_get;
use nvml_wrapper::structs::device::FieldId;
use tempfile::TempDir;

/// A node's root with the simulated driver in it.
struct Node {
    root: TempDir,
}

impl Node {
    fn new(state: &State) -> Self {
        let node = Self { root: tempfile::tempdir().unwrap() };
        // The loader takes two links to one file for one library.
        let copy = node.root.path().join("built.so");
        fs::copy(built_library(), &copy).unwrap();
        library::install(&copy, node.root.path(), state).unwrap();
        node.set(state);
        node
    }

    /// A node of this type with these faults.
    fn of(instance_type: &str, faults: &[&str]) -> Self {
        let mut state = profile::for_instance_type(instance_type).unwrap();
        for fault in faults {
            fault.parse::<Fault>().unwrap().apply(&mut state);
        }
        Self::new(&state)
    }

    fn set(&self, state: &State) {
        node_files::sync(self.root.path(), state).unwrap();
    }

    fn library(&self) -> PathBuf {
        self.root.path().join("usr/lib64/libnvidia-ml.so.1")
    }

    fn init(&self) -> Result<Nvml, NvmlError> {
        init(&self.library(), InitFlags::NO_GPUS | InitFlags::NO_ATTACH)
    }
}

fn init(library: &Path, flags: InitFlags) -> Result<Nvml, NvmlError> {
    Nvml::builder().lib_path(library.as_os_str()).flags(flags).init()
}

/// The cdylib that cargo built with this test: both lie in the same directory.
fn built_library() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libnvml_sim.so")
}

fn h100s() -> State {
    profile::for_instance_type("p5.48xlarge").unwrap()
}

#[test]
fn a_healthy_node_answers_what_its_state_says() {
    let mut state = h100s();
    state.gpus[2].memory_used_mib = 1024;
    state.gpus[2].remapped_rows = Some(RemappedRows { correctable: 2, ..Default::default() });
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 13_000);
    assert_eq!(nvml.device_count().unwrap(), 8);

    let gpu = nvml.device_by_index(2).unwrap();
    assert_eq!(gpu.name().unwrap(), "NVIDIA H100 80GB HBM3");
    assert_eq!(gpu.uuid().unwrap(), state.gpus[2].uuid);
    assert_eq!(gpu.serial().unwrap(), state.gpus[2].serial);
    assert_eq!(gpu.minor_number().unwrap(), 2);
    assert_eq!(gpu.pci_info().unwrap().bus_id, "00000000:75:00.0");
    assert_eq!(gpu.temperature(TemperatureSensor::Gpu).unwrap(), 32);
    assert_eq!(gpu.clock_info(Clock::Memory).unwrap(), 2619);
    let memory = gpu.memory_info().unwrap();
    assert_eq!((memory.total >> 20, memory.used >> 20), (81_559, 1024));
    assert_eq!(memory.free + memory.used + memory.reserved, memory.total);
    assert!((69_000..=71_000).contains(&gpu.power_usage().unwrap()));
    assert!(gpu.is_ecc_enabled().unwrap().currently_enabled);
    assert!(gpu.is_in_persistent_mode().unwrap());

    let fields: Vec<_> = gpu
        .field_values_for(&[FieldId(82), FieldId(142), FieldId(145), FieldId(230), FieldId(600)])
        .unwrap()
        .into_iter()
        .map(|sample| sample.and_then(|sample| sample.value))
        .collect();
    assert!(fields[..4].iter().all(Result::is_ok), "{fields:?}");
    assert_eq!(format!("{:?}", fields[1]), "Ok(U32(2))");
    assert!(matches!(fields[4], Err(NvmlError::NotSupported)));

    let by_uuid = nvml.device_by_uuid(state.gpus[5].uuid.as_str()).unwrap();
    assert_eq!(by_uuid.index().unwrap(), 5);
    let by_address = nvml.device_by_pci_bus_id("00000000:CA:00.0").unwrap();
    assert_eq!(by_address.index().unwrap(), 7);
}

#[test]
fn energy_grows() {
    let mut state = h100s();
    state.gpus[0].power_mw = 700_000_000;
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let before = gpu.total_energy_consumption().unwrap();
    thread::scope(|scope| {
        // Another process's millisecond is enough at this power.
        scope.spawn(|| while gpu.total_energy_consumption().unwrap() == before {});
    });
    assert!(gpu.total_energy_consumption().unwrap() > before);
}

#[test]
fn gpm_measures_on_hopper_only() {
    let mut state = h100s();
    state.gpus[0].utilization.gpu = 80;
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(gpu.gpm_support().unwrap());
    let (first, second) = (gpu.gpm_sample().unwrap(), gpu.gpm_sample().unwrap());
    let metrics = gpm_metrics_get(&nvml, &first, &second, &[GpmMetricId::GraphicsUtil]).unwrap();
    let value = metrics[0].as_ref().unwrap().value;
    assert!((70.0..=90.0).contains(&value), "{value}");

    let old = Node::new(&profile::for_instance_type("p4d.24xlarge").unwrap());
    let nvml = old.init().unwrap();
    assert!(!nvml.device_by_index(0).unwrap().gpm_support().unwrap());
}

#[test]
fn the_kernel_decides_whether_it_initialises() {
    let mut state = h100s();
    let node = Node::new(&state);
    Fault::DriverLibraryMismatch.apply(&mut state);
    node.set(&state);
    assert!(matches!(node.init(), Err(NvmlError::LibRmVersionMismatch)));

    let mut state = h100s();
    Fault::DriverNotLoaded.apply(&mut state);
    node.set(&state);
    assert!(matches!(node.init(), Err(NvmlError::DriverNotLoaded)));

    let mut state = h100s();
    state.faults.init = Some(999);
    node.set(&state);
    assert!(matches!(node.init(), Err(NvmlError::Unknown)));

    // The cause lifted, the same process comes through.
    node.set(&h100s());
    assert_eq!(node.init().unwrap().device_count().unwrap(), 8);
}

#[test]
fn a_driver_without_gpus_is_told_from_no_driver() {
    let mut state = h100s();
    state.gpus.clear();
    let node = Node::new(&state);
    assert_eq!(node.init().unwrap().device_count().unwrap(), 0);
    assert!(init(&node.library(), InitFlags::empty()).is_err());
}

#[test]
fn a_lost_gpu_leaves_the_others() {
    let mut state = h100s();
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let held = nvml.device_by_index(3).unwrap();
    Fault::GpuLost(3).apply(&mut state);
    node.set(&state);
    assert_eq!(nvml.device_count().unwrap(), 8);
    assert!(matches!(held.power_usage(), Err(NvmlError::GpuLost)));
    assert!(matches!(nvml.device_by_index(3), Err(NvmlError::GpuLost)));
    assert!(nvml.device_by_index(4).unwrap().power_usage().is_ok());

    state.gpus[3].fault = Some(GpuFault { reset_required: true, ..GpuFault::default() });
    node.set(&state);
    assert!(matches!(held.power_usage(), Err(NvmlError::ResetRequired)));
    state.gpus[3].fault = None;
    node.set(&state);
    assert!(held.power_usage().is_ok(), "it returns when the fault is gone");
}

#[test]
fn a_missing_gpu_moves_the_later_indices() {
    let mut state = h100s();
    let uuid = state.gpus[7].uuid.clone();
    Fault::GpuMissing(Some(6)).apply(&mut state);
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    assert_eq!(nvml.device_count().unwrap(), 7);
    let last = nvml.device_by_index(6).unwrap();
    assert_eq!((last.uuid().unwrap(), last.minor_number().unwrap()), (uuid, 7));
}

#[test]
fn one_code_for_one_call() {
    let mut state = h100s();
    state.faults.codes.insert("nvmlDeviceGetPowerUsage".into(), 3);
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.power_usage(), Err(NvmlError::NotSupported)));
    assert!(gpu.temperature(TemperatureSensor::Gpu).is_ok());
}

#[test]
fn a_hang_lasts_as_long_as_its_fault_and_holds_everyone() {
    let mut state = h100s();
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    Fault::DriverHang.apply(&mut state);
    node.set(&state);
    let (done, answers) = mpsc::channel();
    thread::scope(|scope| {
        for index in 0..2 {
            let (done, nvml) = (done.clone(), &nvml);
            scope.spawn(move || {
                done.send(nvml.device_by_index(index).and_then(|gpu| gpu.name())).unwrap();
            });
        }
        assert!(answers.recv_timeout(Duration::from_millis(300)).is_err(), "it came back");
        node.set(&h100s());
        for _ in 0..2 {
            answers.recv_timeout(Duration::from_secs(10)).unwrap().unwrap();
        }
    });
}
