//! Doubles of `nvidia-smi --gpu-reset` and `modprobe`, and what a reboot does to GPUs: they change the
//! state of nvml-sim as the real ones change a driver's.
//!
//! `var/lib/nvml-sim/stubborn` on the node names what does not help there: `reset`, `reload`, `reboot`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use nvml_sim::state::{Gpu, GpuFault};
use nvml_sim::{State, node_files};

use crate::output;

/// What does not help on this node.
const STUBBORN: &str = "var/lib/nvml-sim/stubborn";
/// What the doubles were asked, a line each.
const LOG: &str = "var/lib/nvml-sim/asked.log";

/// `nvidia-smi --gpu-reset -i ADDRESS`; it knows nothing else.
#[must_use]
pub fn nvidia_smi(root: &Path, arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ["--gpu-reset" | "-r", "-i", which] = words.as_slice() else {
        return refuse("nvidia-smi: a double of the lab: it knows --gpu-reset -i GPU alone", 2);
    };
    ended(root, &format!("nvidia-smi {}", words.join(" ")), || {
        let mut state = State::read(root)?;
        let named = |gpu: &&mut Gpu| gpu.pci == *which || gpu.index.to_string() == *which;
        let Some(gpu) = state.gpus.iter_mut().find(named) else {
            return Ok(Some(format!("No devices were found: {which}")));
        };
        if is_stubborn(root, "reset") || gpu.fault.is_some_and(|fault| fault.lost) {
            return Ok(Some(format!("GPU {which} could not be reset: unknown error")));
        }
        reset(gpu);
        node_files::sync(root, &state)?;
        Ok(None)
    })
}

/// `modprobe nvidia…` and `modprobe -r nvidia…`.
#[must_use]
pub fn modprobe(root: &Path, arguments: &[String]) -> ExitCode {
    ended(root, &format!("modprobe {}", arguments.join(" ")), || {
        if is_stubborn(root, "reload") {
            return Ok(Some("modprobe: ERROR: could not insert 'nvidia': No such device".into()));
        }
        let mut state = State::read(root)?;
        match arguments.first().is_some_and(|first| first == "-r") {
            true => state.module_loaded = false,
            false => load(&mut state),
        }
        node_files::sync(root, &state)?;
        Ok(None)
    })
}

/// What a reboot makes of the GPUs below `root`.
///
/// # Errors
/// When the node's files cannot be changed.
pub fn reboot(root: &Path) -> io::Result<()> {
    let Ok(mut state) = State::read(root) else { return Ok(()) };
    if is_stubborn(root, "reboot") {
        return Ok(());
    }
    load(&mut state);
    state.faults = Default::default();
    for gpu in &mut state.gpus {
        reset(gpu);
        gpu.fault = None;
        gpu.recovery_action = gpu.recovery_action.map(|_| 0);
        if let Some(nvlink) = &mut gpu.nvlink {
            nvlink.down = 0;
        }
        if let Some(fabric) = &mut gpu.fabric {
            (fabric.state, fabric.status, fabric.health_mask) = (3, 0, 0xaa);
        }
    }
    node_files::sync(root, &state)
}

fn reset(gpu: &mut Gpu) {
    gpu.fault = gpu.fault.map(|fault| GpuFault { reset_required: false, ..fault });
    gpu.fault = gpu.fault.filter(|fault| *fault != GpuFault::default());
    if let Some(rows) = &mut gpu.remapped_rows {
        rows.pending = false;
    }
    if let Some(ecc) = &mut gpu.ecc {
        ecc.volatile_uncorrected = 0;
    }
    if matches!(gpu.recovery_action, Some(1 | 4)) {
        gpu.recovery_action = Some(0);
    }
}

/// The module on the disk is the library's.
fn load(state: &mut State) {
    state.module_loaded = true;
    state.module_version = None;
    state.faults.init = None;
}

fn is_stubborn(root: &Path, what: &str) -> bool {
    let text = fs::read_to_string(root.join(STUBBORN)).unwrap_or_default();
    text.split_whitespace().any(|word| word == what)
}

/// Writes down what was asked, does it, and ends as the program would.
fn ended(root: &Path, asked: &str, act: impl FnOnce() -> io::Result<Option<String>>) -> ExitCode {
    let log = root.join(LOG);
    let known = fs::read_to_string(&log).unwrap_or_default();
    let written = fs::write(&log, format!("{known}{asked}\n"));
    match written.and_then(|()| act()) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(refusal)) => refuse(&refusal, 1),
        Err(error) => refuse(&error.to_string(), 1),
    }
}

fn refuse(text: &str, code: u8) -> ExitCode {
    output::progress(text);
    code.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let mut state = nvml_sim::profile::for_instance("p5.48xlarge", "i-1").unwrap();
        state.gpus[2].fault = Some(GpuFault { reset_required: true, ..GpuFault::default() });
        state.gpus[3].remapped_rows.as_mut().unwrap().pending = true;
        state.gpus[4].recovery_action = Some(2);
        state.module_version = Some("580.82.07".into());
        node_files::sync(directory.path(), &state).unwrap();
        directory
    }

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_reset_mends_one_gpu_and_a_reload_the_driver() {
        let node = node();
        let root = node.path();
        let state = || State::read(root).unwrap();
        assert_eq!(nvidia_smi(root, &words("--gpu-reset -i 0000:75:00.0")), ExitCode::SUCCESS);
        assert_eq!(state().gpus[2].fault, None);
        assert!(state().gpus[3].remapped_rows.unwrap().pending, "another GPU");
        assert_ne!(nvidia_smi(root, &words("--gpu-reset -i 0000:11:00.0")), ExitCode::SUCCESS);
        assert_ne!(nvidia_smi(root, &words("-L")), ExitCode::SUCCESS);

        assert_eq!(modprobe(root, &words("-r nvidia_uvm nvidia")), ExitCode::SUCCESS);
        assert!(!root.join("proc/driver/nvidia/version").exists());
        assert_eq!(modprobe(root, &words("nvidia")), ExitCode::SUCCESS);
        assert_eq!(state().module_version, None);

        reboot(root).unwrap();
        assert_eq!(state().gpus[4].recovery_action, Some(0));
        assert_eq!(fs::read_to_string(root.join(LOG)).unwrap().lines().count(), 4);
    }

    #[test]
    fn what_is_stubborn_stays() {
        let node = node();
        let root = node.path();
        fs::write(root.join(STUBBORN), "reset reload reboot").unwrap();
        let before = State::read(root).unwrap();
        assert_ne!(nvidia_smi(root, &words("--gpu-reset -i 2")), ExitCode::SUCCESS);
        assert_ne!(modprobe(root, &words("nvidia")), ExitCode::SUCCESS);
        reboot(root).unwrap();
        assert_eq!(State::read(root).unwrap(), before);
    }
}
