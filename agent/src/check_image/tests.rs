//! Images made in a directory from what the repository ships, then broken one at a time.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;

/// A program for x86_64, as far as its first bytes go.
fn elf(machine: u16) -> Vec<u8> {
    let mut head = vec![0; 64];
    head[..6].copy_from_slice(b"\x7fELF\x02\x01");
    head[18..20].copy_from_slice(&machine.to_le_bytes());
    head
}

struct Image(tempfile::TempDir);

impl Image {
    /// An image as it must be, with both driver trees.
    fn good() -> Self {
        let image = Self(tempfile::tempdir().unwrap());
        image.write("/usr/lib/os-release", b"ID=\"amzn\"\nVERSION_ID=\"2023\"\n", 0o644);
        image.link("/etc/os-release", "../usr/lib/os-release");
        for program in facts::PROGRAMS.into_iter().chain(facts::TOOLKIT) {
            image.write(program, &elf(62), 0o755);
        }
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for ours in shipped::all() {
            match ours.source {
                Some("agent") => {}
                Some(source) => {
                    let content = fs::read(repository.join(source)).unwrap();
                    image.write(ours.place, &content, ours.mode);
                }
                None => fs::create_dir_all(image.root().path(ours.place)).unwrap(),
            }
        }
        for unit in ["rollcall-join", "rollcall-agent", "nodeadm-config", "nodeadm-boot-hook"] {
            image.enable(unit);
        }
        image.write("/usr/lib/systemd/system/nvidia-driver-resolve.service", b"", 0o644);
        image.write("/opt/nvidia/lts/x", b"", 0o644);
        image.write("/opt/nvidia/pb/x", b"", 0o644);
        image.write("/etc/machine-id", b"", 0o444);
        image
    }

    fn root(&self) -> Root {
        Root::new(self.0.path())
    }

    fn write(&self, path: &str, content: &[u8], mode: u32) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.root().path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    fn enable(&self, unit: &str) {
        let wants = "/etc/systemd/system/multi-user.target.wants";
        let target = format!("/usr/lib/systemd/system/{unit}.service");
        self.link(&format!("{wants}/{unit}.service"), &target);
    }

    fn remove(&self, path: &str) {
        let path = self.root().path(path);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap()
        } else {
            fs::remove_file(path).unwrap()
        }
    }

    /// Broken rules with what they are about. Files made by a test belong to whoever runs it.
    fn found(&self) -> Vec<(Check, String)> {
        let problems = check(&self.root()).into_iter();
        let ours = nix::unistd::geteuid().is_root();
        let problems = problems.filter(|p| ours || p.check != Check::WrongOwner);
        problems.map(|p| (p.check, p.path)).collect()
    }
}

#[test]
fn a_good_image_has_nothing_wrong() {
    assert_eq!(Image::good().found(), []);
}

#[test]
fn an_image_without_gpus_needs_no_driver() {
    let image = Image::good();
    image.remove("/opt/nvidia");
    image.remove("/usr/lib/systemd/system/nvidia-driver-resolve.service");
    for program in facts::TOOLKIT {
        image.remove(program);
    }
    assert_eq!(image.found(), []);
}

/// What is done to a good image, and what must be named: that and nothing else.
type Broken = (&'static str, fn(&Image), Check, &'static str);

const BROKEN: [Broken; 31] = [
    (
        "Debian",
        |i| i.write("/usr/lib/os-release", b"ID=debian\nVERSION_ID=\"12\"\n", 0o644),
        Check::NotAl2023,
        "/etc/os-release",
    ),
    (
        "AL2",
        |i| i.write("/usr/lib/os-release", b"ID=\"amzn\"\nVERSION_ID=\"2\"\n", 0o644),
        Check::NotAl2023,
        "/etc/os-release",
    ),
    ("no os-release", |i| i.remove("/etc/os-release"), Check::NotAl2023, "/etc/os-release"),
    ("no nodeadm", |i| i.remove("/usr/bin/nodeadm"), Check::ProgramMissing, "/usr/bin/nodeadm"),
    ("no kubelet", |i| i.remove("/usr/bin/kubelet"), Check::ProgramMissing, "/usr/bin/kubelet"),
    (
        "a base plugin is missing",
        |i| i.remove("/opt/cni/bin/loopback"),
        Check::ProgramMissing,
        "/opt/cni/bin/loopback",
    ),
    (
        "kubelet is a link to nowhere in the image, and there is one outside",
        |i| {
            i.remove("/usr/bin/kubelet");
            i.link("/usr/bin/kubelet", "/bin/sh");
        },
        Check::ProgramMissing,
        "/usr/bin/kubelet",
    ),
    (
        "nodeadm cannot be executed",
        |i| i.write("/usr/bin/nodeadm", &elf(62), 0o644),
        Check::ProgramNotExecutable,
        "/usr/bin/nodeadm",
    ),
    (
        "wrong architecture",
        |i| i.write("/usr/bin/kubelet", &elf(183), 0o755),
        Check::WrongArchitecture,
        "/usr/bin/kubelet",
    ),
    (
        "a unit is missing",
        |i| i.remove("/usr/lib/systemd/system/rollcall-fallback.service"),
        Check::FileMissing,
        "/usr/lib/systemd/system/rollcall-fallback.service",
    ),
    (
        "the agent is missing",
        |i| i.remove("/usr/bin/rollcall-agent"),
        Check::FileMissing,
        "/usr/bin/rollcall-agent",
    ),
    (
        "wrong mode",
        |i| i.write("/usr/bin/rollcall-agent", &elf(62), 0o777),
        Check::WrongMode,
        "/usr/bin/rollcall-agent",
    ),
    (
        "the join is not enabled",
        |i| i.remove("/etc/systemd/system/multi-user.target.wants/rollcall-join.service"),
        Check::NotEnabled,
        "rollcall-join.service",
    ),
    (
        "a stock unit was switched off",
        |i| i.remove("/etc/systemd/system/multi-user.target.wants/nodeadm-config.service"),
        Check::NotEnabled,
        "nodeadm-config.service",
    ),
    (
        "the watch is not enabled",
        |i| i.remove("/etc/systemd/system/multi-user.target.wants/rollcall-agent.service"),
        Check::NotEnabled,
        "rollcall-agent.service",
    ),
    (
        "a stock unit is masked",
        |i| i.link("/etc/systemd/system/nodeadm-boot-hook.service", "/dev/null"),
        Check::NotEnabled,
        "nodeadm-boot-hook.service",
    ),
    (
        "the preset is missing",
        |i| i.remove("/usr/lib/systemd/system-preset/80-rollcall.preset"),
        Check::FileMissing,
        "/usr/lib/systemd/system-preset/80-rollcall.preset",
    ),
    (
        "kubelet's drop-in is missing",
        |i| i.remove(facts::KUBELET_DROP_IN),
        Check::FileMissing,
        "/usr/lib/systemd/system/kubelet.service.d/10-rollcall.conf",
    ),
    (
        "the join has no place to write its NodeConfig to",
        |i| i.remove("/etc/eks/nodeadm.d"),
        Check::FileMissing,
        "/etc/eks/nodeadm.d",
    ),
    (
        "a unit that anybody may write",
        |i| {
            let unit = "/usr/lib/systemd/system/rollcall-join.service";
            fs::set_permissions(i.root().path(unit), Permissions::from_mode(0o666)).unwrap();
        },
        Check::WrongMode,
        "/usr/lib/systemd/system/rollcall-join.service",
    ),
    (
        "the other driver tree is missing",
        |i| i.remove("/opt/nvidia/lts"),
        Check::DriverTreeMissing,
        "/opt/nvidia/lts",
    ),
    (
        "the resolver has left its mark",
        |i| i.write("/opt/nvidia/.driver-flavor", b"lts-open", 0o644),
        Check::DriverTreeFrozen,
        "/opt/nvidia/.driver-flavor",
    ),
    ("kubelet is enabled", |i| i.enable("kubelet"), Check::KubeletEnabled, "kubelet.service"),
    (
        "nodeadm-run is still enabled",
        |i| i.enable("nodeadm-run"),
        Check::NodeadmRunEnabled,
        "nodeadm-run.service",
    ),
    (
        "nodeadm-run is masked",
        |i| i.link("/etc/systemd/system/nodeadm-run.service", "/dev/null"),
        Check::NodeadmRunMasked,
        "nodeadm-run.service",
    ),
    (
        "kubelet's gate is empty",
        |i| i.write(facts::KUBELET_DROP_IN, b"[Unit]\n", 0o644),
        Check::GateMissing,
        "/usr/lib/systemd/system/kubelet.service.d/10-rollcall.conf",
    ),
    (
        "a driver tree is missing",
        |i| i.remove("/opt/nvidia/pb"),
        Check::DriverTreeMissing,
        "/opt/nvidia/pb",
    ),
    (
        "the driver is frozen to one family",
        |i| i.link("/opt/nvidia/current", "lts"),
        Check::DriverTreeFrozen,
        "/opt/nvidia/current",
    ),
    (
        "nothing gives GPUs to containers",
        |i| i.remove("/usr/bin/nvidia-container-runtime"),
        Check::ToolkitMissing,
        "/usr/bin/nvidia-container-runtime",
    ),
    (
        "a machine id",
        |i| {
            i.remove("/etc/machine-id");
            i.write("/etc/machine-id", b"0123456789abcdef0123456789abcdef\n", 0o444);
        },
        Check::Leftover,
        "/etc/machine-id",
    ),
    (
        "a host key",
        |i| i.write("/etc/ssh/ssh_host_ed25519_key", b"x", 0o600),
        Check::Leftover,
        "/etc/ssh/ssh_host_ed25519_key",
    ),
];

#[test]
fn each_broken_image_is_named() {
    for (name, damage, check, path) in BROKEN {
        let image = Image::good();
        damage(&image);
        let found = image.found();
        assert_eq!(found, [(check, path.to_owned())], "{name}");
    }
}

#[test]
fn what_belongs_to_one_machine_is_found() {
    for path in [
        "/var/lib/cloud/instance/boot-finished",
        "/root/.ssh/authorized_keys",
        "/home/ec2-user/.ssh/authorized_keys",
        "/etc/rollcall/agent.yaml",
        "/etc/cni/net.d/10-aws.conflist",
        "/var/lib/kubelet/kubeconfig",
        "/var/lib/rollcall/journal.json",
        "/var/lib/cloud/data/instance-id",
        "/var/log/cloud-init-output.log",
        "/root/.bash_history",
        "/root/.aws/credentials",
        "/etc/kubernetes/pki/ca.crt",
        "/etc/eks/kubelet/environment",
    ] {
        let image = Image::good();
        image.write(path, b"x", 0o600);
        let found = image.found();
        assert_eq!(found.len(), 1, "{path}: {found:?}");
        assert!(found[0].0 == Check::Leftover && path.starts_with(&found[0].1), "{found:?}");
    }
}

#[test]
fn somebody_elses_file_is_named() {
    let mut facts = facts::gather(&Image::good().root());
    for file in facts.files.values_mut() {
        file.owner = (0, 0);
    }
    assert_eq!(rules::problems(&facts), []);
    facts.files.get_mut("/usr/bin/rollcall-agent").unwrap().owner = (1000, 0);
    let problems = rules::problems(&facts);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].check, Check::WrongOwner);
    assert_eq!(problems[0].problem, "it belongs to 1000:0 and not to root");
}

#[test]
fn nothing_at_all_is_no_image() {
    let empty = tempfile::tempdir().unwrap();
    let problems = check(&Root::new(empty.path()));
    let has = |check| problems.iter().any(|problem| problem.check == check);
    assert!(has(Check::NotAl2023) && has(Check::ProgramMissing) && has(Check::FileMissing));
    assert!(!has(Check::DriverTreeMissing), "an image without GPUs needs none");
}
