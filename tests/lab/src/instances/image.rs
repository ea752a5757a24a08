//! What the image brings onto a process node: AL2023 as the agent, nodeadm and kubelet see it.
//!
//! Programs that the node must *have* but never runs here are named doubles; `nodeadm`, `kubelet`,
//! `systemctl` and `journalctl` are the lab's own stand-ins.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::aws::Instance;
use crate::directory::{DirectoryError, ignore_missing, write_atomically};

/// The Kubernetes version that the image carries.
pub const KUBERNETES_VERSION: &str = "v1.34.2";

const BOOT_ID: &str = "proc/sys/kernel/random/boot_id";

/// Programs of the lab that stand in for the node's own.
const STAND_INS: [&str; 4] = ["nodeadm", "kubelet", "systemctl", "journalctl"];

/// What changes a driver's state, on nodes with GPUs.
const DRIVER_DOUBLES: [&str; 2] = ["usr/bin/nvidia-smi", "usr/sbin/modprobe"];

/// Where the stand-ins and the driver library come from.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The `lab` binary.
    pub lab: PathBuf,
    /// `libnvml_sim.so`; none where it was not built.
    pub nvml: Option<PathBuf>,
}

/// One file of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: &'static str,
    content: String,
    mode: u32,
}

/// Writes the image below `root`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(root: &Path, instance: &Instance, programs: &Programs) -> Result<(), DirectoryError> {
    for directory in
        ["dev", "run", "tmp", "var/lib", "var/log", "etc/cni/net.d", "etc/eks/nodeadm.d", "usr/bin"]
    {
        let path = root.join(directory);
        fs::create_dir_all(&path).map_err(DirectoryError::of("make directory", &path))?;
    }
    for file in files(instance) {
        write_atomically(&root.join(file.path), file.content.as_bytes(), file.mode)?;
    }
    let of_driver = if has_gpus(instance) { &DRIVER_DOUBLES[..] } else { &[] };
    let stand_ins = STAND_INS.iter().map(|name| format!("usr/bin/{name}"));
    for path in stand_ins.chain(of_driver.iter().map(|path| (*path).to_owned())) {
        let path = root.join(path);
        ignore_missing(fs::remove_file(&path)).map_err(DirectoryError::of("replace", &path))?;
        symlink(&programs.lab, &path).map_err(DirectoryError::of("link", &path))?;
    }
    Ok(())
}

/// Gives the node below `root` a boot id of its own, as the kernel does with each boot.
///
/// # Errors
/// When it cannot be written.
pub fn new_boot(root: &Path) -> Result<(), DirectoryError> {
    let id = format!("{}\n", random_uuid());
    write_atomically(&root.join(BOOT_ID), id.as_bytes(), 0o644)
}

/// The image's files that are files, for an instance of this type.
fn files(instance: &Instance) -> Vec<File> {
    let text = |path, content: &str| File { path, content: content.to_owned(), mode: 0o644 };
    let program = |path, content: String| File { path, content, mode: 0o755 };
    let mut files = vec![
        text("etc/os-release", OS_RELEASE),
        text("etc/machine-id", &format!("{}\n", hexadecimal(&instance.instance_id, 32))),
        text("etc/hostname", &format!("{}\n", instance.private_dns_name)),
        text("etc/eks/kubelet-version.txt", &format!("{KUBERNETES_VERSION}-eks-113cf36\n")),
        text("etc/eks/containerd-version.txt", "containerd v2.1.5 (double of the lab)\n"),
        text(BOOT_ID, &format!("{}\n", random_uuid())),
        text("proc/sys/kernel/osrelease", "6.12.53-69.119.amzn2023.x86_64\n"),
        text("proc/version", "Linux version 6.12.53-69.119.amzn2023.x86_64 (process node)\n"),
        text("proc/cmdline", "console=tty0 console=ttyS0,115200n8\n"),
        text("proc/uptime", "1.00 1.00\n"),
        text("proc/modules", ""),
        text("dev/kmsg", ""),
        text("dev/console", ""),
        program(
            "etc/eks/image-credential-provider/ecr-credential-provider",
            double_of("ecr-credential-provider"),
        ),
        program("usr/bin/containerd", double_of("containerd")),
        program("usr/bin/aws", double_of("aws")),
        program("usr/sbin/runc", double_of("runc")),
        program("usr/bin/setup-local-disks", DISKS_DOUBLE.to_owned()),
    ];
    for path in [
        "opt/cni/bin/loopback",
        "opt/cni/bin/host-local",
        "opt/cni/bin/portmap",
        "opt/cni/bin/bridge",
    ] {
        files.push(program(path, CNI_DOUBLE.to_owned()));
    }
    if has_gpus(instance) {
        files.push(program(
            "usr/bin/nvidia-container-runtime",
            double_of("nvidia-container-runtime"),
        ));
        files.push(program("usr/bin/nvidia-ctk", double_of("nvidia-ctk")));
    }
    files
}

/// Whether the instance gets NVIDIA's programs and units.
#[must_use]
pub fn has_gpus(instance: &Instance) -> bool {
    nvml_sim::profile::for_instance(&instance.instance_type, &instance.instance_id).is_some()
}

const OS_RELEASE: &str = "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\n\
    VERSION_ID=\"2023\"\nPLATFORM_ID=\"platform:al2023\"\nPRETTY_NAME=\"Amazon Linux 2023\"\n\
    VENDOR_NAME=\"AWS\"\nVARIANT_ID=\"eks\"\n";

/// Answers VERSION as a CNI plugin does, and nothing else.
const CNI_DOUBLE: &str = "#!/bin/sh\n# A double of the lab.\n\
    if [ \"$CNI_COMMAND\" = VERSION ]; then\n\
    echo '{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"0.4.0\",\"1.0.0\",\"1.1.0\"]}'\n\
    else\necho '{\"code\":100,\"msg\":\"a double of the lab: only VERSION\"}'\nexit 1\nfi\n";

/// Says what it would have done: a process node has no disks of its own.
const DISKS_DOUBLE: &str =
    "#!/bin/sh\n# A double of the lab.\necho \"setup-local-disks $*: no disks here\"\n";

fn double_of(name: &str) -> String {
    format!(
        "#!/bin/sh\n# A double of the lab: present, never run.\necho '{name}: a double of the lab' >&2\nexit 1\n"
    )
}

/// `length` hexadecimal digits made of the instance id, the same each time.
fn hexadecimal(instance_id: &str, length: usize) -> String {
    use sha2::{Digest as _, Sha256};
    let mut text = hex::encode(Sha256::digest(instance_id));
    text.truncate(length);
    text
}

/// A random UUID from the kernel: each boot has its own.
fn random_uuid() -> String {
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    uuid.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn the_image_has_what_a_node_needs() {
        let root = tempfile::tempdir().unwrap();
        let instance = Instance {
            instance_id: "i-1".into(),
            instance_type: "p5.48xlarge".into(),
            ..Instance::default()
        };
        let programs = Programs { lab: "/nowhere/lab".into(), nvml: None };
        write(root.path(), &instance, &programs).unwrap();
        write(root.path(), &instance, &programs).unwrap();
        for name in STAND_INS {
            let target = fs::read_link(root.path().join("usr/bin").join(name)).unwrap();
            assert_eq!(target, programs.lab);
        }
        let plugin = root.path().join("opt/cni/bin/loopback");
        assert_eq!(fs::metadata(&plugin).unwrap().permissions().mode() & 0o777, 0o755);
        let answer = Command::new(&plugin).env("CNI_COMMAND", "VERSION").output().unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!(answer["cniVersion"], "1.1.0");
        let boot = fs::read_to_string(root.path().join("proc/sys/kernel/random/boot_id")).unwrap();
        assert_eq!(boot.trim().len(), 36);
    }

    #[test]
    fn a_node_without_gpus_has_nothing_of_nvidia() {
        let instance = Instance { instance_type: "m6i.large".into(), ..Instance::default() };
        assert!(!files(&instance).iter().any(|file| file.path.contains("nvidia")));
    }
}
