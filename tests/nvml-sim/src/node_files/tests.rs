//! The files of a node in its states.

use super::*;
use crate::fault::Fault;
use crate::profile::for_instance_type;

fn tree(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(format!("/{}", path.strip_prefix(root).unwrap().display()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn files_follow_the_state_both_ways() {
    let node = tempfile::tempdir().unwrap();
    let root = node.path();
    let whole = for_instance_type("p5.48xlarge").unwrap();
    sync(root, &whole).unwrap();
    let healthy = tree(root);
    assert!(healthy.contains(&"/dev/nvidia7".to_owned()));

    // Another vendor's function and device node are not ours to remove.
    fs::create_dir_all(root.join("sys/bus/pci/devices/0000:00:05.0")).unwrap();
    fs::write(root.join("sys/bus/pci/devices/0000:00:05.0/vendor"), "0x1d0f\n").unwrap();
    fs::write(root.join("dev/console"), "").unwrap();

    let mut short = whole.clone();
    Fault::GpuMissing(Some(6)).apply(&mut short);
    sync(root, &short).unwrap();
    let files = tree(root);
    assert!(!files.iter().any(|path| path.contains("b9:00.0") || path == "/dev/nvidia6"));
    assert!(files.contains(&"/dev/nvidia5".to_owned()));

    let mut unloaded = whole.clone();
    Fault::DriverNotLoaded.apply(&mut unloaded);
    sync(root, &unloaded).unwrap();
    let files = tree(root);
    assert!(!files.iter().any(|path| path.contains("driver") || path.contains("dev/nvidia")));
    assert!(!root.join("sys/module/nvidia").exists());
    assert!(!fs::read_to_string(root.join("proc/modules")).unwrap().contains("nvidia"));

    sync(root, &whole).unwrap();
    let files = tree(root);
    assert!(files.contains(&"/sys/bus/pci/devices/0000:00:05.0/vendor".to_owned()));
    assert!(files.contains(&"/dev/console".to_owned()));
    assert_eq!(files.len(), healthy.len() + 2);
}

#[test]
fn a_mismatch_shows_the_stale_module_version() {
    let mut state = for_instance_type("g5.xlarge").unwrap();
    Fault::DriverLibraryMismatch.apply(&mut state);
    let files = node_files(&state);
    let version = |path: &str| read(&files, path);
    assert_eq!(version("/sys/module/nvidia/version"), "580.82.07\n");
    assert!(version("/proc/driver/nvidia/version").contains("  580.82.07  "));
}

fn read(files: &[NodeFile], path: &str) -> String {
    match &files.iter().find(|file| file.path == path).unwrap().content {
        Content::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Content::Link(target) => target.clone(),
    }
}

#[test]
fn a_gpu_off_the_bus_reads_as_all_ones() {
    let node = tempfile::tempdir().unwrap();
    let mut state = for_instance_type("p5.48xlarge").unwrap();
    sync(node.path(), &state).unwrap();
    let function = node.path().join("sys/bus/pci/devices/0000:86:00.0");
    let config = || fs::read(function.join("config")).unwrap();
    assert_eq!((config().len(), &config()[..4]), (64, &[0xde, 0x10, 0x30, 0x23][..]));

    "gpu-off-bus=3".parse::<Fault>().unwrap().apply(&mut state);
    sync(node.path(), &state).unwrap();
    assert!(config().iter().all(|byte| *byte == 0xff));
    let text = |name: &str| fs::read_to_string(function.join(name)).unwrap();
    assert_eq!(text("vendor"), "0x10de\n", "the kernel keeps what it read at boot");
    assert_eq!(
        (text("current_link_width"), text("current_link_speed")),
        ("63\n".into(), "Unknown\n".into())
    );
}

#[test]
fn links_and_efa_devices_show_what_is_wrong() {
    let node = tempfile::tempdir().unwrap();
    let mut state = for_instance_type("p5.48xlarge").unwrap();
    for text in ["aer=0:nonfatal", "pcie-width=0:8", "efa-down=rdmap79s0", "efa-missing"] {
        text.parse::<Fault>().unwrap().apply(&mut state);
    }
    state.efa[0].counters.insert("rx_drops".into(), 9);
    sync(node.path(), &state).unwrap();
    let text = |path: &str| fs::read_to_string(node.path().join(path)).unwrap();
    let errors = text("sys/bus/pci/devices/0000:53:00.0/aer_dev_nonfatal");
    assert!(errors.ends_with("TOTAL_ERR_NONFATAL 1\n") && errors.contains("DLP 1\n"), "{errors}");
    assert_eq!(text("sys/bus/pci/devices/0000:53:00.0/current_link_width"), "8\n");
    let efa = "sys/class/infiniband/rdmap79s0";
    assert_eq!(text(&format!("{efa}/device/vendor")), "0x1d0f\n");
    assert_eq!(text(&format!("{efa}/ports/1/state")), "1: DOWN\n");
    assert_eq!(text(&format!("{efa}/ports/1/hw_counters/rx_drops")), "9\n");
    let devices = fs::read_dir(node.path().join("sys/class/infiniband")).unwrap();
    assert_eq!(devices.count(), 31);
    assert!(!node.path().join("sys/bus/pci/devices/0000:c9:00.0").exists());
}

#[test]
fn functions_hang_on_root_ports() {
    let node = tempfile::tempdir().unwrap();
    let port_of = |address: &str| {
        let function = node.path().join("sys/bus/pci/devices").join(address);
        let real = fs::canonicalize(function).unwrap();
        let parent = real.parent().unwrap();
        parent.strip_prefix(node.path().canonicalize().unwrap()).unwrap().display().to_string()
    };
    let mut state = for_instance_type("p5.48xlarge").unwrap();
    sync(node.path(), &state).unwrap();
    let (gpu, efa) = (state.gpus[1].pci.clone(), state.efa[5].pci.clone());
    assert_eq!(port_of(&gpu), "sys/devices/pci0000:5f/0000:5f:01.0");
    assert_eq!(port_of(&efa), port_of(&gpu), "what shares a GPU's port");
    let group = node.path().join("sys/bus/pci/devices").join(&efa).join("iommu_group/type");
    assert_eq!(fs::read_to_string(&group).unwrap(), "DMA-FQ\n");

    Fault::EfaApart.apply(&mut state);
    sync(node.path(), &state).unwrap();
    assert_eq!(port_of(&efa), "sys/devices/pci0000:5f/0000:5f:02.0");
    assert!(!group.exists());

    let small = for_instance_type("g5.xlarge").unwrap();
    sync(node.path(), &small).unwrap();
    assert_eq!(port_of(&small.gpus[0].pci), "sys/devices/pci0000:00");
    assert!(!node.path().join("sys/devices/pci0000:5f").exists(), "the other machine is gone");
}

#[test]
fn both_ways_of_bringing_the_driver() {
    let mut state = for_instance_type("g5.xlarge").unwrap();
    let files = node_files(&state);
    assert!(
        read(&files, "/proc/driver/nvidia/version").contains("NVIDIA UNIX x86_64 Kernel Module")
    );
    assert!(!files.iter().any(|file| file.path.starts_with("/opt")));
    state.setup = Setup::Resolve;
    let node = tempfile::tempdir().unwrap();
    sync(node.path(), &state).unwrap();
    let opt = node.path().join("opt/nvidia");
    assert_eq!(fs::read_link(opt.join("current")).unwrap(), Path::new("lts"));
    assert_eq!(
        fs::read_to_string(opt.join("current/.driver-flavor")).unwrap(),
        "lts-proprietary\n"
    );
    assert!(opt.join("current/.loaded").exists());
    Fault::DriverNotLoaded.apply(&mut state);
    sync(node.path(), &state).unwrap();
    assert!(!opt.join("current/.loaded").exists() && opt.join("current").exists());
    state.setup = Setup::KmodLoad;
    sync(node.path(), &state).unwrap();
    assert!(!opt.exists());
    // What somebody else keeps there is not ours to remove.
    fs::create_dir_all(opt.join("current")).unwrap();
    sync(node.path(), &state).unwrap();
    assert!(opt.exists());
}
