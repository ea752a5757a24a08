//! The disk: the base of Debian's packages, the stand-ins, over them the image that Packer made, the simulated GPUs,
//! and the harness's own three scripts. Without such an image AL2023's files and units are those of the lab's nodes, and
//! the agent's are what `amis/files` lists.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use lab::nodes::machine;

use super::baked::Baked;
use super::guest::host_of;
use super::parts::Parts;
use super::sandbox::Unit;

/// Loaded by the first process, in this order: each needs those before it.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_blk",
    "failover",
    "net_failover",
    "virtio_net",
];

/// Where the harness's own scripts lie in the machine.
const OWN: &str = "usr/libexec/rollcall-vm";
/// Where the first process finds the simulated GPUs' files.
const SIMULATED: &str = "var/lib/rollcall-vm/simulated";

/// What becomes of the machine.
#[derive(Clone, Debug)]
pub struct Wish {
    /// The repository.
    pub repository: PathBuf,
    /// The folder of the built programs.
    pub programs: PathBuf,
    /// What Packer made; none where it could not be had.
    pub baked: Option<Baked>,
    /// The files of a process node of the same instance: what AL2023's image has.
    pub node: PathBuf,
    /// Its instance type.
    pub instance_type: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Ports of this host's 127.0.0.1 that are to be the machine's as well: AWS and the API server.
    pub outside: Vec<u16>,
    /// Variables of every unit.
    pub environment: Vec<(String, String)>,
}

/// A disk, and what boots from it.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The file system.
    pub image: PathBuf,
    /// The first file system, which finds it.
    pub initrd: PathBuf,
}

/// Makes both below `dir`.
///
/// # Errors
/// When a file cannot be written, or a program fails.
pub fn make(dir: &Path, parts: &Parts, wish: &Wish) -> anyhow::Result<Disk> {
    let tree = dir.join("tree");
    if tree.exists() {
        fs::remove_dir_all(&tree).context("could not remove the last disk's files")?;
    }
    fs::create_dir_all(dir).context("could not make the disk's folder")?;
    run(Command::new("cp").arg("-a").arg(&parts.base).arg(&tree))?;
    programs(&tree, wish)?;
    match &wish.baked {
        Some(baked) => of_image(&tree, dir, baked, wish)?,
        None => of_list(&tree, wish)?,
    }
    own(&tree, wish)?;
    gpus(&tree, wish)?;
    let disk = Disk { image: dir.join("disk.img"), initrd: dir.join("initrd.img") };
    initrd(&dir.join("initrd"), &disk.initrd, parts)?;
    if disk.image.exists() {
        fs::remove_file(&disk.image).context("could not remove the last disk")?;
    }
    let mke2fs = ["-q", "-F", "-t", "ext4", "-d"];
    run(Command::new("mke2fs").args(mke2fs).arg(&tree).arg(&disk.image).arg("2G"))?;
    fs::remove_dir_all(&tree).context("could not remove the disk's files")?;
    Ok(disk)
}

/// The programs that an EKS node has, in `/usr`. Its systemd is a real one, its log too.
fn programs(tree: &Path, wish: &Wish) -> anyhow::Result<()> {
    for folder in ["usr/bin", "usr/sbin"] {
        let Ok(programs) = fs::read_dir(wish.node.join(folder)) else { continue };
        for program in programs.flatten().filter(|program| program.path().is_file()) {
            let is_link = program.path().is_symlink();
            let to = tree.join(folder).join(program.file_name());
            if !is_link && program.file_name() != "rollcall-agent" {
                fs::copy(program.path(), to).context("could not copy a program")?;
            }
        }
    }
    let lab = tree.join(OWN).join("lab");
    fs::create_dir_all(tree.join(OWN)).context("could not make a folder")?;
    run(Command::new("strip").arg("-o").arg(&lab).arg(wish.programs.join("lab")))?;
    for name in ["nodeadm", "kubelet", "cloud-init-double"] {
        symlink(Path::new("/").join(OWN).join("lab"), tree.join("usr/bin").join(name))
            .with_context(|| format!("could not link `{name}`"))?;
    }
    let scripts = [("probe", include_str!("probe.pl")), ("reporter", include_str!("reporter.sh"))];
    for (name, text) in scripts {
        write(tree, &format!("{OWN}/{name}"), text, 0o755)?;
    }
    Ok(())
}

/// What Packer made: the agent's files and units, and which of them start, are as it left them.
fn of_image(tree: &Path, work: &Path, baked: &Baked, wish: &Wish) -> anyhow::Result<()> {
    // Where the image's /opt/cni/bin leads to.
    let plugins = wish.node.join("opt/cni/bin");
    run(Command::new("cp").args(["-a", "-T"]).arg(plugins).arg(tree.join("usr/lib/cni")))?;
    baked.lay_over(tree, work)?;
    // Instances get their names from cloud-init, and this folder comes with the VPC CNI.
    fs::copy(wish.node.join("etc/hostname"), tree.join("etc/hostname"))
        .context("could not copy the node's name")?;
    fs::create_dir_all(tree.join("etc/cni/net.d")).context("could not make a folder")?;
    run(Command::new("ldconfig").arg("-r").arg(tree))
}

/// `/etc` and `/opt` of a node of the lab, and what `amis/files` lists, enabled as the packages' scripts do it.
fn of_list(tree: &Path, wish: &Wish) -> anyhow::Result<()> {
    for folder in ["etc", "opt"] {
        run(Command::new("cp").arg("-a").arg(wish.node.join(folder)).arg(tree))?;
    }
    let agent = tree.join("etc/rollcall");
    if agent.exists() {
        // The machine's own cloud-init brings it.
        fs::remove_dir_all(agent).context("could not remove the node's configuration")?;
    }
    let stage = wish.repository.join("amis/stage.sh");
    run(Command::new(stage).arg(wish.programs.join("rollcall-agent")).arg(tree))?;
    machine::write_units(&tree.join("etc/systemd/system"))
        .context("could not write the node's units")?;
    let preset = ["--root=/", "preset", "rollcall-join.service", "rollcall-agent.service"];
    run(Command::new("chroot").arg(tree).arg("systemctl").args(preset).arg("nodeadm-run.service"))
}

/// What the machine needs beyond a node's own.
fn own(tree: &Path, wish: &Wish) -> anyhow::Result<()> {
    for seen in ["root/seen-from-outside", "tmp/seen-from-outside"] {
        write(tree, seen, "", 0o644)?;
    }
    write(tree, "etc/hosts", "127.0.0.1 localhost\n", 0o644)?;
    // The serial ports are the console and the harness's; nobody logs in.
    for name in ["serial-getty@ttyS0.service", "getty@tty1.service", "systemd-logind.service"] {
        let masked = tree.join("etc/systemd/system").join(name);
        symlink("/dev/null", &masked).with_context(|| format!("could not mask `{name}`"))?;
    }
    for (path, text) in settings(wish) {
        write(tree, &format!("etc/systemd/{path}"), &text, 0o644)?;
    }
    let own = wish.outside.iter().map(|port| format!("vm-outside-{port}.socket"));
    let own: Vec<String> = own.collect();
    let own = own.iter().map(String::as_str).chain(["vm-network.service", "vm-reporter.service"]);
    run(Command::new("chroot").arg(tree).args(["systemctl", "--root=/", "enable"]).args(own))
}

fn settings(wish: &Wish) -> Vec<(String, String)> {
    let host = host_of(wish.address);
    let environment: Vec<String> =
        wish.environment.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let mut files = vec![
        (
            "system.conf.d/10-vm.conf".to_owned(),
            format!("[Manager]\nDefaultEnvironment={}\n", environment.join(" ")),
        ),
        (
            // The host routes all of its network; the other card's is IMDS's.
            "system/vm-network.service".to_owned(),
            format!(
                "[Unit]\nBefore=nodeadm-boot-hook.service network.target\nDefaultDependencies=no\n\
                 [Service]\nType=oneshot\nRemainAfterExit=yes\n\
                 ExecStart=/bin/ip link set lo up\n\
                 ExecStart=/bin/ip address add {}/16 dev eth0\nExecStart=/bin/ip link set eth0 up\n\
                 ExecStart=/bin/ip route add default via {host}\n\
                 ExecStart=/bin/ip address add 169.254.169.15/24 dev eth1\nExecStart=/bin/ip link set eth1 up\n\
                 [Install]\nWantedBy=sysinit.target\n",
                wish.address
            ),
        ),
        (
            "system/vm-reporter.service".to_owned(),
            format!(
                "[Service]\nExecStart=/{OWN}/reporter\n[Install]\nWantedBy=multi-user.target\n"
            ),
        ),
        (
            // Stand-ins: no container is started, so no runtime is, and nothing is forwarded.
            "system/containerd.service.d/90-vm.conf".to_owned(),
            "[Service]\nType=simple\nExecStart=\nExecStart=/bin/sleep infinity\nExecStartPost=\n"
                .to_owned(),
        ),
        ("system/kubelet.service.d/90-vm.conf".to_owned(), "[Service]\nExecStartPre=\n".to_owned()),
    ];
    for port in &wish.outside {
        files.push((
            format!("system/vm-outside-{port}.socket"),
            format!(
                "[Socket]\nListenStream=127.0.0.1:{port}\n[Install]\nWantedBy=sockets.target\n"
            ),
        ));
        files.push((
            format!("system/vm-outside-{port}.service"),
            format!("[Service]\nExecStart=/usr/lib/systemd/systemd-socket-proxyd {host}:{port}\n"),
        ));
    }
    for unit in Unit::ALL {
        // The probe runs in the unit's own sandbox. A sandbox has a fresh /proc; the driver's files would be in any.
        // An emulated processor needs longer for the same start.
        files.push((
            format!("system/{}.d/90-vm.conf", unit.name()),
            format!(
                "[Service]\nExecStartPre=-/{OWN}/probe {unit}\nTimeoutStartSec=180\nWatchdogSec=120\n\
                 BindReadOnlyPaths=-/{SIMULATED}/proc/driver:/proc/driver\n"
            ),
        ));
    }
    files
}

/// The instance type's GPUs: the library, and the kernel's files that the first process lays over its own.
fn gpus(tree: &Path, wish: &Wish) -> anyhow::Result<()> {
    let Some(mut state) = nvml_sim::profile::for_instance_type(&wish.instance_type) else {
        return Ok(());
    };
    // A machine's /sys has no place for a tree of bridges, nor for EFA.
    state.efa.clear();
    state.flat_pci = true;
    let simulated = tree.join(SIMULATED);
    nvml_sim::node_files::sync(&simulated, &state).context("could not write the GPUs' files")?;
    state.write(tree).context("could not write the GPUs' state")?;
    let library = wish.programs.join("libnvml_sim.so");
    nvml_sim::library::install(&library, tree, &state).context("could not install the library")?;
    Ok(())
}

fn initrd(dir: &Path, image: &Path, parts: &Parts) -> anyhow::Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).context("could not remove the last initrd")?;
    }
    for folder in ["bin", "mod", "proc", "sys", "dev", "root"] {
        fs::create_dir_all(dir.join(folder)).context("could not make the initrd's folders")?;
    }
    let busybox = parts.qemu.join("usr/bin/busybox");
    fs::copy(&busybox, dir.join("bin/busybox")).context("could not copy busybox")?;
    for name in MODULES {
        fs::copy(parts.module(name)?, dir.join("mod").join(format!("{name}.ko")))
            .with_context(|| format!("could not copy the module `{name}`"))?;
    }
    write(dir, "mod/order", &(MODULES.join("\n") + "\n"), 0o644)?;
    write(dir, "init", include_str!("init.sh"), 0o755)?;
    let archive = "find . | \"$0\" cpio -o -H newc >\"$1\"";
    run(Command::new("sh").args(["-c", archive]).arg(busybox).arg(image).current_dir(dir))
}

fn write(tree: &Path, path: &str, text: &str, mode: u32) -> anyhow::Result<()> {
    let path = tree.join(path);
    let folder = path.parent().context("a file has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("could not make `{}`", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("could not write `{}`", path.display()))?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("could not set the mode of `{}`", path.display()))
}

/// Runs a program to its end; what it says goes into the error.
pub(super) fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let ended = command.stdin(Stdio::null()).output();
    let ended = ended.with_context(|| format!("could not run `{name}`"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    ensure!(ended.status.success(), "`{name}` ended with {}: {}", ended.status, said.trim());
    Ok(())
}
