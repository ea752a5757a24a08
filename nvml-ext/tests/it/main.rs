//! Every call against the simulated library: as a new driver has it, as an old one lacks it.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its stage has failed")]

use std::fs;
use std::path::PathBuf;

use nvml_ext::cuda::{Cuda, CudaError};
use nvml_ext::{ExtError, FabricState, HealthSummary, RecoveryAction, RemapperBanks, SramErrors};
use nvml_sim::fault::Fault;
use nvml_sim::{State, library, node_files, profile};
use nvml_wrapper::Nvml;
use nvml_wrapper::error::NvmlError;
use tempfile::TempDir;

/// A node with eight H100 and these faults, and its library initialised.
struct Node {
    nvml: Nvml,
    _root: TempDir,
}

impl Node {
    fn of(instance_type: &str, faults: &[&str]) -> Self {
        let mut state = profile::for_instance_type(instance_type).unwrap();
        for fault in faults {
            fault.parse::<Fault>().unwrap().apply(&mut state);
        }
        Self::with(&state)
    }

    fn with(state: &State) -> Self {
        let root = root_of(state);
        let path = root.path().join("usr/lib64/libnvidia-ml.so.1");
        let nvml = Nvml::builder().lib_path(path.as_os_str()).init().unwrap();
        Self { nvml, _root: root }
    }

    fn gpu(&self, index: u32) -> nvml_wrapper::Device<'_> {
        self.nvml.device_by_index(index).unwrap()
    }
}

/// A node's root with these GPUs and their libraries.
fn root_of(state: &State) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    // The loader takes two links to one file for one library: each test has a copy.
    let copy = root.path().join("built.so");
    fs::copy(built(), &copy).unwrap();
    library::install(&copy, root.path(), state).unwrap();
    node_files::sync(root.path(), state).unwrap();
    root
}

/// Cargo builds both halves of nvml-sim in one go, the shared library beside this program.
fn built() -> PathBuf {
    std::env::current_exe().unwrap().with_file_name("libnvml_sim.so")
}

#[test]
fn what_a_new_driver_says() {
    let node = Node::of(
        "p5.48xlarge",
        &[
            "row-remap-exhausted=1",
            "sram-threshold=2",
            "recovery-action=3:2",
            "fabric-health=4:access-timeout",
            "fabric-error=5:15",
        ],
    );
    assert_eq!(nvml_ext::module_id(&node.gpu(6)).unwrap(), 7);
    let banks = |index| nvml_ext::row_remapper_histogram(&node.gpu(index)).unwrap();
    assert_eq!(banks(0), RemapperBanks { max: 640, ..RemapperBanks::default() });
    assert_eq!((banks(1).max, banks(1).none), (639, 1));
    assert_eq!(nvml_ext::remapped_rows(&node.gpu(1)).unwrap().uncorrectable, 8);
    assert_eq!(nvml_ext::sram_errors(&node.gpu(0)).unwrap(), SramErrors::default());
    let sram = nvml_ext::sram_errors(&node.gpu(2)).unwrap();
    assert_eq!((sram.aggregate_uncorrected, sram.threshold_exceeded), (5, true));
    let asked = |index| nvml_ext::recovery_action(&node.gpu(index)).unwrap();
    assert_eq!((asked(0), asked(3)), (RecoveryAction::None, RecoveryAction::Reboot));

    let fabric = |index| nvml_ext::fabric_info(&node.gpu(index)).unwrap();
    assert_eq!((fabric(0).state, fabric(0).error), (FabricState::Completed, None));
    assert_eq!((fabric(0).health_mask, fabric(0).health_summary), (0xaa, HealthSummary::Healthy));
    assert_eq!((fabric(4).health_mask, fabric(4).health_summary), (0x6a, HealthSummary::Unhealthy));
    assert!(fabric(5).error.unwrap().contains("fell off the bus"));
}

#[test]
fn the_fabric_of_older_drivers_is_asked_in_their_form() {
    let mut state = profile::for_instance_type("p5.48xlarge").unwrap();
    "fabric-state=0:in-progress".parse::<Fault>().unwrap().apply(&mut state);
    state.gpus[0].fabric.as_mut().unwrap().cluster_uuid = "0123456789abcdef".repeat(2);
    for (version, mask) in [("580.95.05", 0xaa), ("550.163.01", 0xaa), ("535.261.03", 0)] {
        let mut of_version = state.clone();
        Fault::DriverVersion(version.into()).apply(&mut of_version);
        let node = Node::with(&of_version);
        let fabric = nvml_ext::fabric_info(&node.gpu(0)).unwrap();
        assert_eq!(
            (fabric.state, fabric.health_mask),
            (FabricState::InProgress, mask),
            "{version}"
        );
        assert_eq!(fabric.cluster_uuid[..4], [0x01, 0x23, 0x45, 0x67], "{version}");
        let known = fabric.health_summary != HealthSummary::Unknown;
        assert_eq!(known, version.starts_with("58"), "{version}");
    }
}

#[test]
fn an_absent_symbol_is_a_value() {
    let calls = [
        "nvmlDeviceGetGpuFabricInfo",
        "nvmlDeviceGetGpuFabricInfoV",
        "nvmlDeviceGetRowRemapperHistogram",
        "nvmlDeviceGetRemappedRows",
        "nvmlDeviceGetSramEccErrorStatus",
        "nvmlDeviceGetModuleId",
        "nvmlDeviceGetFieldValues",
    ];
    let faults: Vec<String> = calls.iter().map(|call| format!("symbol-missing={call}")).collect();
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let node = Node::of("p5.48xlarge", &faults);
    let gpu = node.gpu(0);
    let errors: Vec<ExtError> = vec![
        nvml_ext::fabric_info(&gpu).unwrap_err(),
        nvml_ext::row_remapper_histogram(&gpu).unwrap_err(),
        nvml_ext::remapped_rows(&gpu).unwrap_err(),
        nvml_ext::sram_errors(&gpu).unwrap_err(),
        nvml_ext::module_id(&gpu).unwrap_err(),
        nvml_ext::recovery_action(&gpu).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ExtError::SymbolAbsent(_)) && error.is_unsupported(), "{error:?}");
    }
    assert!(gpu.name().is_ok(), "the rest of the library is there");
}

#[test]
fn what_a_model_does_not_have_is_unsupported() {
    let node = Node::of("g4dn.xlarge", &[]);
    let gpu = node.gpu(0);
    assert!(nvml_ext::fabric_info(&gpu).unwrap_err().is_unsupported());
    assert!(nvml_ext::remapped_rows(&gpu).unwrap_err().is_unsupported());
    assert!(nvml_ext::row_remapper_histogram(&gpu).unwrap_err().is_unsupported());
    assert!(nvml_ext::sram_errors(&gpu).unwrap_err().is_unsupported());
    assert!(nvml_ext::module_id(&gpu).unwrap_err().is_unsupported());
}

#[test]
fn a_broken_device_is_no_missing_feature() {
    let node = Node::of("p5.48xlarge", &["call-fails=nvmlDeviceGetModuleId:999"]);
    let error = nvml_ext::module_id(&node.gpu(0)).unwrap_err();
    assert!(!error.is_unsupported());
    assert!(matches!(error, ExtError::Nvml { source: NvmlError::Unknown, .. }), "{error:?}");
}

/// Has each GPU compute that a node with these faults has: by its address, what went wrong.
fn computed(faults: &[&str]) -> Result<Vec<(String, Option<String>)>, CudaError> {
    let mut state = profile::for_instance_type("p5.48xlarge").unwrap();
    for fault in faults {
        fault.parse::<Fault>().unwrap().apply(&mut state);
    }
    let root = root_of(&state);
    let cuda = Cuda::open(root.path().join("usr/lib64/libcuda.so.1").as_os_str())?;
    let mut all = Vec::new();
    for device in cuda.devices()? {
        let error = cuda.prove(device, 1 << 10).err().map(|error| error.to_string());
        all.push((cuda.address(device)?, error));
    }
    Ok(all)
}

#[test]
fn healthy_gpus_compute() {
    let all = computed(&[]).unwrap();
    assert_eq!(all.len(), 8);
    assert_eq!(all[1], ("0000:64:00.0".to_owned(), None));
    assert!(all.iter().all(|(_, error)| error.is_none()), "{all:?}");
}

#[test]
fn a_gpu_that_does_not_compute_is_told_from_the_others() {
    for (fault, says) in [
        ("wrong-bytes=3", "1 of 1024 words came back wrong from a fill, the first at 2048"),
        ("gpu-lost=3", "`cuCtxCreate_v2` gave 999 (CUDA_ERROR_UNKNOWN)"),
        ("ecc-uncorrectable=3", "`cuMemAlloc_v2` gave 214 (CUDA_ERROR_ECC_UNCORRECTABLE)"),
    ] {
        let all = computed(&[fault]).unwrap();
        let ill: Vec<_> = all.iter().filter_map(|(_, error)| error.clone()).collect();
        assert_eq!((ill.as_slice(), all[3].1.as_deref()), (&[says.to_owned()][..], Some(says)));
    }
}

#[test]
fn a_driver_that_does_not_come_up_for_cuda_says_why() {
    for (fault, says) in [
        ("fabric-state=0:in-progress", "`cuInit` gave 802 (CUDA_ERROR_SYSTEM_NOT_READY)"),
        ("driver-library-mismatch", "`cuInit` gave 803 (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        ("driver-not-loaded", "`cuInit` gave 100 (CUDA_ERROR_NO_DEVICE)"),
        ("call-fails=cuDeviceGetCount:712", "`cuDeviceGetCount` gave 712 (an unknown code)"),
        ("symbol-missing=cuInit", "this driver's library has no `cuInit`"),
    ] {
        assert_eq!(computed(&[fault]).unwrap_err().to_string(), says);
    }
}
