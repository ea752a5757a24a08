//! Parts of GPUs, and the programs that use them.

use nvml_sim::profile;
use nvml_sim::state::Process;
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;

use super::{Node, h100s};

#[test]
fn a_cut_gpu_answers_for_its_parts() {
    let node = Node::of("p4d.24xlarge", &["mig-layout=1:3g.20gb,1g.5gb"]);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(1).unwrap();
    assert_eq!(gpu.mig_mode().unwrap().current, 1);
    assert_eq!(gpu.mig_device_count().unwrap(), 7);
    let part = gpu.mig_device_by_index(0).unwrap();
    assert!(part.uuid().unwrap().starts_with("MIG-"));
    assert_eq!(part.name().unwrap(), "NVIDIA A100-SXM4-40GB MIG 3g.20gb");
    assert_eq!(part.memory_info().unwrap().total >> 20, 20_480);
    assert_eq!(part.mig_parent_device().unwrap().uuid().unwrap(), gpu.uuid().unwrap());
    assert!(matches!(part.power_usage(), Err(NvmlError::NotSupported)));
    assert!(matches!(gpu.mig_device_by_index(2), Err(NvmlError::NotFound)));
    assert!(matches!(gpu.utilization_rates(), Err(NvmlError::NotSupported)));
    let same = nvml.device_by_uuid(part.uuid().unwrap().as_str()).unwrap();
    assert_eq!(same.uuid().unwrap(), part.uuid().unwrap());
    let whole = nvml.device_by_index(0).unwrap();
    assert!(matches!(whole.mig_device_by_index(0), Err(NvmlError::NotSupported)));
}

#[test]
fn programs_are_told_with_what_they_use() {
    let mut state = h100s();
    state.gpus[0].processes = vec![
        Process {
            pid: 4711,
            name: "/usr/bin/python3".into(),
            memory_mib: 1024,
            graphics: false,
            state: None,
            mig_device: None,
        },
        Process {
            pid: 4712,
            name: "Xorg".into(),
            memory_mib: 10,
            graphics: true,
            state: None,
            mig_device: None,
        },
    ];
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    let computing = gpu.running_compute_processes().unwrap();
    assert_eq!((computing.len(), computing[0].pid), (1, 4711));
    assert_eq!(computing[0].used_gpu_memory, UsedGpuMemory::Used(1024 << 20));
    assert_eq!(gpu.running_graphics_processes().unwrap()[0].pid, 4712);
    assert_eq!(gpu.memory_info().unwrap().used >> 20, 1034);
    assert_eq!(nvml.sys_process_name(4711, 64).unwrap(), "/usr/bin/python3");
    assert!(nvml.sys_process_name(1, 64).is_err());
    assert!(nvml.device_by_index(1).unwrap().running_compute_processes().unwrap().is_empty());
}

#[test]
fn an_old_gpu_retires_pages() {
    let mut state = profile::for_instance_type("g4dn.xlarge").unwrap();
    state.gpus[0].retired_pages.as_mut().unwrap().double_bit = 2;
    state.gpus[0].retired_pages.as_mut().unwrap().pending = true;
    let node = Node::new(&state);
    let nvml = node.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(gpu.are_pages_pending_retired().unwrap());
    let new = Node::new(&h100s());
    let nvml = new.init().unwrap();
    let gpu = nvml.device_by_index(0).unwrap();
    assert!(matches!(gpu.are_pages_pending_retired(), Err(NvmlError::NotSupported)));
}
