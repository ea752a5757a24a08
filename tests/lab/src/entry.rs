//! Under which name the binary was called decides what it is: `lab`, or a stand-in below a node's
//! `usr/bin`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::Cli;
use crate::{
    commands, driver_double, journalctl_double, kubernetes, nodeadm_standin, nodes, output,
    systemctl_double,
};

/// What the binary can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Lab,
    Nodeadm,
    Kubelet,
    Systemctl,
    Journalctl,
    CloudInit,
    NvidiaSmi,
    Modprobe,
}

impl Role {
    fn of(name: &OsStr) -> Self {
        match name.to_str() {
            Some("nodeadm" | "nodeadm-standin") => Self::Nodeadm,
            Some("kubelet" | "kubelet-standin") => Self::Kubelet,
            Some("systemctl" | "systemctl-double") => Self::Systemctl,
            Some("journalctl" | "journalctl-double") => Self::Journalctl,
            Some("cloud-init-double") => Self::CloudInit,
            Some("nvidia-smi") => Self::NvidiaSmi,
            Some("modprobe") => Self::Modprobe,
            _ => Self::Lab,
        }
    }
}

/// Runs what the binary was called as: by its own name, else by its first argument.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    let called = PathBuf::from(arguments.first().cloned().unwrap_or_default());
    let mut role = called.file_name().map_or(Role::Lab, Role::of);
    if role == Role::Lab
        && let Some(first) = arguments.get(1)
        && Role::of(first) != Role::Lab
    {
        role = Role::of(first);
        arguments.remove(1);
    }
    if role == Role::Lab {
        return lab();
    }
    if role == Role::Kubelet {
        return kubernetes::kubelet_standin::main();
    }
    if role == Role::CloudInit {
        let stage: Vec<String> =
            arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
        return nodes::machine::cloud_init_double::main(&stage);
    }
    let Some(root) = root(&called) else {
        output::progress(
            "error: a stand-in is called as ROOT/usr/bin/NAME, or with ROLLCALL_NODE_ROOT",
        );
        return contract::ExitCode::Usage.into();
    };
    let arguments: Vec<String> =
        arguments.iter().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    match role {
        Role::Nodeadm => nodeadm_standin::main(&root, &arguments),
        Role::Systemctl => systemctl_double::main(&root, &arguments),
        Role::Journalctl => journalctl_double::main(&root, &arguments),
        Role::NvidiaSmi => driver_double::nvidia_smi(&root, &arguments),
        Role::Modprobe => driver_double::modprobe(&root, &arguments),
        Role::Lab | Role::Kubelet | Role::CloudInit => ExitCode::SUCCESS,
    }
}

fn lab() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let code = if error.use_stderr() {
                contract::ExitCode::Usage
            } else {
                contract::ExitCode::Success
            };
            return code.into();
        }
    };
    match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime.block_on(commands::run(cli)).into(),
        Err(error) => {
            output::progress(&format!("error: could not start: {error}"));
            contract::ExitCode::Error.into()
        }
    }
}

/// The node's root: three above `ROOT/usr/bin/NAME` or `ROOT/usr/sbin/NAME`, as it was called. The link must not be
/// resolved, because it leads out of the node.
fn root(called: &Path) -> Option<PathBuf> {
    let is_program = |dir: &&Path| dir.ends_with("usr/bin") || dir.ends_with("usr/sbin");
    let below = called.parent().filter(is_program);
    let from_name = below.and_then(|dir| dir.ancestors().nth(2)).map(Path::to_owned);
    let given = || std::env::var_os("ROLLCALL_NODE_ROOT").map(PathBuf::from);
    std::path::absolute(from_name.or_else(given)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles() {
        for (name, role) in [
            ("lab", Role::Lab),
            ("nodeadm", Role::Nodeadm),
            ("kubelet-standin", Role::Kubelet),
            ("systemctl", Role::Systemctl),
            ("journalctl-double", Role::Journalctl),
            ("anything", Role::Lab),
        ] {
            assert_eq!(Role::of(OsStr::new(name)), role, "{name}");
        }
    }

    #[test]
    fn a_stand_in_knows_its_node_by_its_own_path() {
        assert_eq!(
            root(Path::new("/n/i-1/root/usr/bin/systemctl")).unwrap(),
            Path::new("/n/i-1/root")
        );
        assert_eq!(
            root(Path::new("/opt/lab")),
            std::env::var_os("ROLLCALL_NODE_ROOT").map(PathBuf::from)
        );
    }
}
