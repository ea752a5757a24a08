//! The image of a machine: AL2023's files and places on the host's userland.
//!
//! `/usr` is the host's under Debian's packages under one layer of the lab's own; `/etc` is written
//! per machine and holds of the host's only what programs need to run at all.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::units::{MASKED, UNITS};
use super::{Ground, MachineError, container_images, disk, settings, users};
use crate::aws::Instance;
use crate::directory::{DirectoryError, ignore_missing, link_or_copy, write_atomically};
use crate::kubernetes::real::Parts;

const OS_RELEASE: &str = "NAME=\"Amazon Linux\"\nVERSION=\"2023\"\nID=\"amzn\"\nID_LIKE=\"fedora\"\n\
    VERSION_ID=\"2023\"\nPLATFORM_ID=\"platform:al2023\"\nPRETTY_NAME=\"Amazon Linux 2023\"\n\
    VENDOR_NAME=\"AWS\"\nVARIANT_ID=\"eks\"\n";

/// A credential provider that knows no registry: all images are on the machine already.
const ECR_CREDENTIAL_PROVIDER_DOUBLE: &str = "#!/bin/sh\n# ecr-credential-provider-double of the lab\n\
    echo '{\"kind\":\"CredentialProviderResponse\",\"apiVersion\":\"credentialprovider.kubelet.k8s.io/v1\",\
    \"cacheKeyType\":\"Registry\",\"cacheDuration\":\"1h\",\"auth\":{}}'\n";

/// A machine here has no instance store; nodeadm's run phase calls this by name all the same.
const SETUP_LOCAL_DISKS_DOUBLE: &str =
    "#!/bin/sh\n# setup-local-disks-double of the lab\necho 'no instance store disks found' >&2\n";

/// Files and folders of the host's `/etc` that its userland needs.
const FROM_HOST: [&str; 16] = [
    "passwd",
    "group",
    "shadow",
    "gshadow",
    "nsswitch.conf",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "login.defs",
    "services",
    "protocols",
    "ssl",
    "pam.d",
    "security",
    "dbus-1",
    "alternatives",
];

/// A pod here needs no toolkit: the device plugin is a double, too. The image has it all the same.
const NVIDIA_CTK_DOUBLE: &str = "#!/bin/sh\n# nvidia-ctk-double of the lab\necho 'nvidia-ctk-double: present, never run' >&2\nexit 1\n";

/// What an NVIDIA image shows of its driver's version, in a tree of no driver's name: a real one wants the resolver, its
/// units and the toolkit beside it.
const DRIVER_DOUBLE: &str = "opt/nvidia/double-of-the-lab/libnvidia-ml.so.580.95.05";

/// Where the list of packages lies below `/usr`.
const PACKAGES: &str = "libexec/rollcall-lab/dpkg";

const IPTABLES: [&str; 6] = [
    "iptables",
    "iptables-save",
    "iptables-restore",
    "ip6tables",
    "ip6tables-save",
    "ip6tables-restore",
];

/// The layer of `/usr` that all machines share, and the container images.
pub(super) fn layer(dir: &Path, parts: &Parts, lab: &Path) -> Result<(), MachineError> {
    let usr = dir.join("usr");
    for folder in ["bin", "sbin", "lib64", "libexec/rollcall-lab"] {
        make(&usr.join(folder))?;
    }
    // Files, not links to where the parts are: a unit with ProtectHome= does not see /root.
    let kubernetes = parts.path("kubernetes")?;
    let programs = [
        ("kubelet", kubernetes),
        ("kubectl", kubernetes),
        ("nodeadm", parts.path("nodeadm")?),
        ("nodeadm-internal", parts.path("nodeadm-internal")?),
        ("aws", parts.path("awscli")?),
        ("cloud-init-double", lab),
    ];
    for (name, program) in programs {
        link_or_copy(program, &usr.join("bin").join(name))?;
    }
    for name in IPTABLES {
        link(Path::new("xtables-legacy-multi"), &usr.join("sbin").join(name))?;
    }
    let disks = usr.join("bin/setup-local-disks");
    file(&disks, SETUP_LOCAL_DISKS_DOUBLE, 0o755)?;
    file(&usr.join("bin/nvidia-ctk"), NVIDIA_CTK_DOUBLE, 0o755)?;
    file(&dir.join("beyond-al2023.conf"), &settings::shown(), 0o644)?;
    // What the packages of /usr are, as its package manager asks for it.
    let packages = Path::new("/var/lib/dpkg/status");
    if packages.exists() {
        make(&usr.join(PACKAGES))?;
        copy(packages, &usr.join(PACKAGES))?;
    }
    let images = dir.join("images");
    let import = format!(
        "#!/bin/sh\nfor image in {}/*.tar; do\n    ctr --namespace k8s.io images import \"$image\" >/dev/null || exit 1\ndone\n",
        images.display()
    );
    file(&usr.join("libexec/rollcall-lab/import-images"), &import, 0o755)?;
    container_images::write(&images, parts)
}

/// One machine's own files, below its node's directory: the disk of its image, and what is an instance's own.
pub(super) fn write(node: &Path, ground: &Ground, instance: &Instance) -> Result<(), MachineError> {
    let Ground { dir: shared, parts, sts, .. } = ground;
    let machine = node.join("machine");
    for folder in ["root", "upper", "work"] {
        make(&machine.join(folder))?;
    }
    let layers = match disk::of_image(ground, &instance.image_id) {
        Some(disk) => {
            disk::lay(&disk, &machine)?;
            disk::layers(&disk)?
        }
        None => {
            stock(&machine, parts, &instance.image_name)?;
            let debian = parts.path("debian")?.join("usr");
            format!("{}:{}:/usr", shared.join("usr").display(), debian.display())
        }
    };
    file(&machine.join("layers"), &layers, 0o644)?;
    let folders: String =
        binds(shared, parts)?.iter().map(|folder| format!("{}\n", folder.display())).collect();
    file(&machine.join("binds"), &folders, 0o644)?;
    file(&machine.join("hostname"), &instance.private_dns_name, 0o644)?;
    file(&machine.join("start.sh"), include_str!("start.sh"), 0o755)?;
    file(&machine.join("init.sh"), include_str!("init.sh"), 0o755)?;
    make(&node.join("root/dev"))?;
    etc(&machine.join("etc"), instance)?;
    trust(&machine.join("etc"), &sts.ca_pem)
}

/// The disk of an image as EKS brings it.
fn stock(machine: &Path, parts: &Parts, name: &str) -> Result<(), MachineError> {
    for folder in ["etc", "home", "opt/cni", "superuser", "var/cache", "var/lib", "var/log"] {
        make(&machine.join(folder))?;
    }
    make_open(&machine.join("var/tmp"), 0o1777)?;
    make_open(&machine.join("superuser"), 0o700)?;
    link(Path::new("/run"), &machine.join("var/run"))?;
    // AL2023's place; Debian's packages have the plugins in another.
    link(Path::new("/usr/lib/cni"), &machine.join("opt/cni/bin"))?;
    if name.contains("-nvidia-") {
        file(&machine.join(DRIVER_DOUBLE), "", 0o755)?;
    }
    link(&Path::new("/usr").join(PACKAGES), &machine.join("var/lib/dpkg"))?;
    stock_etc(&machine.join("etc"), parts)?;
    users::write(machine)
}

/// Adds an authority to those that the machine trusts, in the places of Debian's userland and of
/// AL2023.
fn trust(etc: &Path, pem: &str) -> Result<(), MachineError> {
    let bundle = etc.join("ssl/certs/ca-certificates.crt");
    // A host without authorities still has machines that know AWS.
    let known = fs::read_to_string(&bundle).unwrap_or_default();
    let all = format!("{}\n{pem}", known.trim_end());
    for place in [bundle, etc.join("pki/tls/certs/ca-bundle.crt")] {
        file(&place, all.trim_start(), 0o644)?;
    }
    Ok(())
}

/// Folders of the host that are seen at their own places: the AWS CLI and its Python, and images.
fn binds(shared: &Path, parts: &Parts) -> Result<Vec<PathBuf>, MachineError> {
    let cache = parts.path("kubernetes")?.ancestors().nth(2).map(Path::to_owned);
    let interpreter = parts.path("awscli")?.with_file_name("python");
    let python =
        interpreter.canonicalize().ok().and_then(|path| Some(path.ancestors().nth(2)?.to_owned()));
    let folders = [cache, python, Some(shared.join("images"))].into_iter().flatten();
    Ok(folders.filter(|folder| !folder.starts_with("/usr")).collect())
}

fn stock_etc(etc: &Path, parts: &Parts) -> Result<(), MachineError> {
    for name in FROM_HOST {
        copy(&Path::new("/etc").join(name), etc)?;
    }
    // The host's own keys are no node's.
    let keys = etc.join("ssl/private");
    ignore_missing(fs::remove_dir_all(&keys)).map_err(DirectoryError::of("remove", &keys))?;
    let kubernetes = parts.version("kubernetes");
    let texts = [
        ("os-release", OS_RELEASE.to_owned()),
        ("fstab", String::new()),
        ("resolv.conf", String::new()),
        // Empty: systemd gives each instance an id of its own, as on every image.
        ("machine-id", String::new()),
        ("eks/kubelet-version.txt", format!("v{kubernetes}\n")),
        ("eks/containerd-version.txt", format!("containerd v{}\n", containerd_version(parts))),
    ];
    for (name, text) in texts {
        file(&etc.join(name), &text, 0o644)?;
    }
    let provider = etc.join("eks/image-credential-provider/ecr-credential-provider");
    file(&provider, ECR_CREDENTIAL_PROVIDER_DOUBLE, 0o755)?;
    write_units(&etc.join("systemd/system"))
}

/// What is an instance's own, whatever its image: its name, and what it needs of the lab.
fn etc(etc: &Path, instance: &Instance) -> Result<(), MachineError> {
    file(&etc.join("hostname"), &format!("{}\n", instance.private_dns_name), 0o644)?;
    for (path, text) in settings::files(instance) {
        file(&etc.with_file_name(path), &text, 0o644)?;
    }
    Ok(())
}

/// The units of an EKS node on AL2023, with cloud-init's double behind its stages, below `dir`.
///
/// # Errors
/// When a file cannot be written.
pub fn write_units(dir: &Path) -> Result<(), MachineError> {
    let wanted = dir.join("multi-user.target.wants");
    make(&wanted)?;
    for unit in UNITS.iter().chain([&users::SSHD]) {
        file(&dir.join(unit.name), unit.text, 0o644)?;
        if unit.enabled {
            link(&Path::new("..").join(unit.name), &wanted.join(unit.name))?;
        }
    }
    for name in MASKED {
        link(Path::new("/dev/null"), &dir.join(name))?;
    }
    link(Path::new("/usr/lib/systemd/system/multi-user.target"), &dir.join("default.target"))
}

/// `1.6.20` of Debian's `1.6.20~ds1-1+deb12u3`: nodeadm chooses its template by it.
fn containerd_version(parts: &Parts) -> String {
    let version = parts.version("containerd");
    version.split(['~', '+', '-']).next().unwrap_or_default().to_owned()
}

/// Makes a folder that has other rights than the usual.
pub(super) fn make_open(path: &Path, mode: u32) -> Result<(), MachineError> {
    make(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(DirectoryError::of("change the rights of", path))?;
    Ok(())
}

pub(super) fn make(path: &Path) -> Result<(), MachineError> {
    fs::create_dir_all(path).map_err(DirectoryError::of("make directory", path))?;
    Ok(())
}

pub(super) fn file(path: &Path, text: &str, mode: u32) -> Result<(), MachineError> {
    Ok(write_atomically(path, text.as_bytes(), mode)?)
}

fn link(target: &Path, path: &Path) -> Result<(), MachineError> {
    ignore_missing(fs::remove_file(path)).map_err(DirectoryError::of("replace", path))?;
    symlink(target, path).map_err(DirectoryError::of("link", path))?;
    Ok(())
}

/// Copies a file or folder with its modes and links; what the host does not have is left out.
fn copy(from: &Path, to: &Path) -> Result<(), MachineError> {
    if !from.exists() {
        return Ok(());
    }
    let failed = |source| MachineError::System(format!("copy `{}`", from.display()), source);
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().map_err(failed)?;
    if status.success() { Ok(()) } else { Err(failed(std::io::Error::other(status.to_string()))) }
}
