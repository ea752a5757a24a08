//! Programs that others have written read the simulated GPUs: NVIDIA's Python binding in every run
//! of the tests, nvitop and NVIDIA's own nvidia-smi with `make gpu-readers`.

#![expect(clippy::print_stderr, reason = "a program that cannot be had is named, not passed over")]

use std::path::{Path, PathBuf};
use std::process::Command;

use nvml_sim::fault::Fault;
use nvml_sim::state::Gpu;
use nvml_sim::{State, profile};
use serde_json::{Value, json};

use super::Node;

/// A type of each model and shape, with faults that readers show.
const TYPES: [(&str, &[&str]); 8] = [
    ("g4dn.xlarge", &["retired-pages-pending=0"]),
    ("g5.48xlarge", &["ecc-uncorrectable=3"]),
    ("g6.xlarge", &["ecc-off=0", "persistence-off=0"]),
    ("g6e.12xlarge", &["pcie-width=1:8"]),
    ("p4d.24xlarge", &["mig-layout=1:3g.20gb,1g.5gb", "row-remap-pending=2"]),
    ("p5.48xlarge", &["gpu-lost=2", "recovery-action=4:1", "stray-process=5:4711"]),
    ("p5en.48xlarge", &["fabric-state=all:in-progress"]),
    ("p6-b200.48xlarge", &[]),
];

fn broken(instance_type: &str, faults: &[&str]) -> State {
    let mut state = profile::for_instance_type(instance_type).unwrap();
    for fault in faults {
        fault.parse::<Fault>().unwrap().apply(&mut state);
    }
    state
}

/// What a program prints that loads the library of this node.
fn run(node: &Node, program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program)
        .args(arguments)
        .env("LD_LIBRARY_PATH", node.root.path().join("usr/lib64"))
        .env("LC_ALL", "C.UTF-8")
        .output()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(text)
    } else {
        Err(format!("{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// What pynvml should read of a GPU.
fn expected(gpu: &Gpu) -> Value {
    if gpu.fault.as_ref().is_some_and(|fault| fault.lost) {
        return json!("GPU is lost");
    }
    let rows = gpu.remapped_rows.map(|rows| {
        let flags = [u32::from(rows.pending), u32::from(rows.failed)];
        json!([rows.correctable, rows.uncorrectable, flags[0], flags[1]])
    });
    let ecc = gpu.ecc.filter(|ecc| ecc.enabled).map(|ecc| json!(ecc.volatile_uncorrected));
    let not_supported = || json!("Not Supported");
    json!({
        "name": gpu.name,
        "uuid": gpu.uuid,
        "serial": gpu.serial,
        "pci": format!("0000{}", gpu.pci.to_ascii_uppercase()),
        "memoryMib": gpu.memory_mib,
        "memoryUsedMib": gpu.processes.iter().map(|process| process.memory_mib).sum::<u64>(),
        "temperature": gpu.temperature_c,
        "temperatureV": gpu.temperature_c,
        "powerLimit": gpu.power_limit_mw,
        "persistence": u32::from(gpu.persistence),
        "eccUncorrected": ecc.unwrap_or_else(not_supported),
        "remappedRows": rows.unwrap_or_else(not_supported),
        "recoveryAction": gpu.recovery_action,
        "fabricState": gpu.fabric.as_ref().map(|fabric| fabric.state),
        "architecture": gpu.architecture,
        "capability": gpu.compute_capability,
        "processes": gpu.processes.iter().map(|process| process.pid).collect::<Vec<_>>(),
        "parts": gpu.mig_devices.iter().map(|part| part.uuid.clone()).collect::<Vec<_>>(),
    })
}

#[test]
fn pynvml_reads_what_the_state_says() {
    let python = std::env::var_os("LAB_PYTHON").map_or_else(|| "python3".into(), PathBuf::from);
    let has_pynvml = Command::new(&python).args(["-c", "import pynvml"]).output();
    if !has_pynvml.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: {} has no pynvml; make setup installs it", python.display());
        return;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/readers/read.py");
    for (instance_type, faults) in TYPES {
        let state = broken(instance_type, faults);
        let text = run(&Node::new(&state), &python, &[script]).unwrap();
        let read: Value = serde_json::from_str(&text).unwrap();
        let gpus: Vec<Value> = state.gpus.iter().map(expected).collect();
        assert_eq!(
            read,
            json!({ "driver": state.driver_version, "gpus": gpus }),
            "{instance_type}"
        );
    }
}

/// A reader that `make gpu-readers` has got; none where it could not be had, which is said.
fn got(path: &str) -> Option<PathBuf> {
    let directory = std::env::var_os("GPU_READERS").expect("make gpu-readers says where they are");
    let path = PathBuf::from(directory).join(path);
    if !path.exists() {
        eprintln!("skipped: {} could not be had here", path.display());
    }
    path.exists().then_some(path)
}

#[test]
#[ignore = "gets a program from PyPI: make gpu-readers"]
fn nvitop_prints_the_simulated_gpus() {
    let Some(python) = got("venv/bin/python") else { return };
    for (instance_type, faults) in TYPES {
        let state = broken(instance_type, faults);
        let printed = run(&Node::new(&state), &python, &["-m", "nvitop", "--once"]).unwrap();
        assert!(printed.contains(&format!("Driver Version: {}", state.driver_version)));
        for gpu in state.gpus.iter().filter(|gpu| gpu.fault.is_none()) {
            let row = format!("│ {:>3}  ", gpu.index);
            let row = printed.lines().find(|line| line.starts_with(&row));
            let row =
                row.unwrap_or_else(|| panic!("{instance_type}: no GPU {}\n{printed}", gpu.index));
            let name = gpu.name.trim_start_matches("NVIDIA ");
            let shown: String = name.chars().take(12).collect();
            let address = format!("0000{}", gpu.pci.to_ascii_uppercase());
            assert!(row.contains(shown.trim_end()) && row.contains(&address), "{row}");
        }
        println!("nvitop on {instance_type} {faults:?}:\n{printed}");
    }
}

#[test]
#[ignore = "gets a program from Debian's non-free section: make gpu-readers"]
fn nvidia_smi_prints_the_simulated_gpus() {
    const QUERY: &str = "--query-gpu=index,name,uuid,pci.bus_id,memory.total,temperature.gpu,\
                         ecc.errors.uncorrected.volatile.total,persistence_mode,pcie.link.width.current";
    let Some(program) = got("nvidia-smi/nvidia-smi") else { return };
    let version = std::fs::read_to_string(got("nvidia-smi/version").unwrap()).unwrap();
    for (instance_type, faults) in TYPES {
        let mut state = broken(instance_type, faults);
        // It wants the library of its own version.
        Fault::DriverVersion(version.trim().to_owned()).apply(&mut state);
        let node = Node::new(&state);
        let healthy = state.gpus.iter().all(|gpu| gpu.fault.is_none());
        let answer = run(&node, &program, &[QUERY, "--format=csv,noheader,nounits"]);
        let Ok(printed) = answer else {
            // One lost GPU, and it shows none of the others.
            let said = answer.unwrap_err();
            assert!(!healthy && said.contains("GPU is lost"), "{said}");
            println!("nvidia-smi on {instance_type} {faults:?}:\n{said}");
            continue;
        };
        for gpu in state.gpus.iter().filter(|gpu| gpu.fault.is_none()) {
            let ecc = gpu.ecc.filter(|ecc| ecc.enabled);
            let row = format!(
                "{}, {}, {}, 0000{}, {}, {}, {}, {}, {}",
                gpu.index,
                gpu.name,
                gpu.uuid,
                gpu.pci.to_ascii_uppercase(),
                gpu.memory_mib,
                gpu.temperature_c,
                ecc.map_or("[N/A]".into(), |ecc| ecc.volatile_uncorrected.to_string()),
                if gpu.persistence { "Enabled" } else { "Disabled" },
                gpu.pcie.width.0,
            );
            assert!(printed.contains(&row), "{instance_type}: no `{row}` in\n{printed}");
        }
        println!("nvidia-smi on {instance_type} {faults:?}:\n{printed}");
        let list = run(&node, &program, &["-L"]).unwrap();
        for part in state.gpus.iter().flat_map(|gpu| &gpu.mig_devices) {
            assert!(list.contains(&part.uuid), "{list}");
        }
    }
}
