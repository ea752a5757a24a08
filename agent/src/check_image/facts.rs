//! What an image's files say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use super::shipped;
use crate::host::{Root, files};

/// Where units are enabled, and where the image's own lie beside the packages'.
const UNIT_DIR: &str = "/etc/systemd/system";

/// How many links are followed before a path counts as absent.
const LINKS_MAX: usize = 16;

/// A file or a directory as it lies in the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    /// Permissions alone: `0o755`.
    pub mode: u32,
    /// Owner and group.
    pub owner: (u32, u32),
    /// The processor that it is for, when it is a program.
    pub machine: Option<Machine>,
}

/// A processor, by ELF's number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine(pub u16);

impl Machine {
    /// Its name as EC2 spells it.
    #[must_use]
    pub fn name(self) -> String {
        match self.0 {
            62 => "x86_64".into(),
            183 => "arm64".into(),
            other => format!("ELF machine {other}"),
        }
    }
}

/// What an image's files say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// `/etc/os-release`.
    pub os_release: BTreeMap<String, String>,
    /// The files that rules ask for, by path; what is not there is absent here.
    pub files: BTreeMap<&'static str, File>,
    /// Units that something wants at boot.
    pub enabled: BTreeSet<String>,
    /// Units that cannot be started at all.
    pub masked: BTreeSet<String>,
    /// kubelet's drop-in.
    pub gate: String,
    /// What lies in `/opt/nvidia`.
    pub driver_trees: BTreeSet<String>,
    /// Driver units and programs that are there.
    pub driver_parts: BTreeSet<&'static str>,
    /// What belongs to one machine alone, with why.
    pub leftovers: Vec<(String, &'static str)>,
}

/// Programs that a node needs, whoever brings them.
pub const PROGRAMS: [&str; 9] = [
    "/usr/bin/rollcall-agent",
    "/usr/bin/nodeadm",
    "/usr/bin/kubelet",
    "/usr/bin/containerd",
    "/usr/sbin/runc",
    "/etc/eks/image-credential-provider/ecr-credential-provider",
    "/opt/cni/bin/loopback",
    "/opt/cni/bin/host-local",
    "/opt/cni/bin/portmap",
];

/// What keeps kubelet from starting before the gates have opened.
pub const KUBELET_DROP_IN: &str = "/usr/lib/systemd/system/kubelet.service.d/10-rollcall.conf";

/// The units and programs by which an image with NVIDIA's driver is known: the resolver of images
/// since v20260917, the loader of older ones, and what gives GPUs to containers.
pub const RESOLVER: &str = "nvidia-driver-resolve.service";
/// See [`RESOLVER`].
pub const LOADER: &str = "nvidia-kmod-load.service";
/// See [`RESOLVER`].
pub const TOOLKIT: [&str; 2] = ["/usr/bin/nvidia-container-runtime", "/usr/bin/nvidia-ctk"];

/// Reads the image below `root`.
#[must_use]
pub fn gather(root: &Root) -> Facts {
    let (enabled, masked) = units(root);
    let programs = PROGRAMS.into_iter().map(|path| (path, file(root, path)));
    let ours = shipped::all().into_iter().map(|ours| match ours.source {
        Some(_) => (ours.place, file(root, ours.place)),
        None => (ours.place, entry(root, ours.place)),
    });
    Facts {
        os_release: os_release(root),
        files: programs.chain(ours).filter_map(|(path, file)| Some((path, file?))).collect(),
        enabled,
        masked,
        gate: files::read_text(&root.path(KUBELET_DROP_IN)).unwrap_or_default(),
        driver_trees: files::names_in(&root.path("/opt/nvidia")).into_iter().collect(),
        driver_parts: driver_parts(root),
        leftovers: leftovers(root),
    }
}

fn os_release(root: &Root) -> BTreeMap<String, String> {
    let Some(path) = resolve(root, Path::new("/etc/os-release")) else { return BTreeMap::new() };
    let text = files::read_text(&path).unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

fn file(root: &Root, path: &str) -> Option<File> {
    entry(root, path).filter(|_| resolve(root, Path::new(path)).is_some_and(|p| p.is_file()))
}

/// A file or a directory.
fn entry(root: &Root, path: &str) -> Option<File> {
    let path = resolve(root, Path::new(path))?;
    let meta = fs::metadata(&path).ok()?;
    Some(File {
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        machine: machine(&path),
    })
}

/// Where a path of the image really lies: links are followed as the booted image would, never out
/// of the root.
fn resolve(root: &Root, path: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::from("/");
    let mut open: Vec<PathBuf> = path.components().rev().map(|c| c.as_os_str().into()).collect();
    let mut links = 0;
    while let Some(part) = open.pop() {
        match Path::new(&part).components().next() {
            Some(Component::RootDir) => inside = PathBuf::from("/"),
            Some(Component::ParentDir) => _ = inside.pop(),
            Some(Component::Normal(name)) => {
                let next = inside.join(name);
                match fs::read_link(root.path(&next)) {
                    Ok(target) => {
                        links += 1;
                        if links > LINKS_MAX {
                            return None;
                        }
                        open.extend(target.components().rev().map(|c| c.as_os_str().into()));
                    }
                    Err(_) => inside = next,
                }
            }
            _ => {}
        }
    }
    let found = root.path(inside);
    found.exists().then_some(found)
}

/// The processor of a program: ELF keeps it in bytes 18 and 19.
fn machine(path: &Path) -> Option<Machine> {
    let mut head = [0; 20];
    fs::File::open(path).ok()?.read_exact(&mut head).ok()?;
    let is_little = head[5] == 1;
    (head.starts_with(b"\x7fELF") && is_little)
        .then(|| Machine(u16::from_le_bytes([head[18], head[19]])))
}

/// Units that something wants or requires at boot, and units that are links to `/dev/null`.
fn units(root: &Root) -> (BTreeSet<String>, BTreeSet<String>) {
    let directory = root.path(UNIT_DIR);
    let mut enabled = BTreeSet::new();
    let mut masked = BTreeSet::new();
    for name in files::names_in(&directory) {
        if name.ends_with(".wants") || name.ends_with(".requires") {
            enabled.extend(files::names_in(&directory.join(&name)));
        } else if fs::read_link(directory.join(&name)).is_ok_and(|t| t == Path::new("/dev/null")) {
            masked.insert(name);
        }
    }
    (enabled, masked)
}

fn driver_parts(root: &Root) -> BTreeSet<&'static str> {
    let unit = |name: &&str| {
        [UNIT_DIR, "/usr/lib/systemd/system"]
            .iter()
            .any(|directory| root.path(directory).join(name).exists())
    };
    let units = [RESOLVER, LOADER].into_iter().filter(unit);
    let programs = TOOLKIT.into_iter().filter(|path| file(root, path).is_some());
    units.chain(programs).collect()
}

/// What the clean-up of an image must have removed; the list of amazon-eks-ami, and our own.
fn leftovers(root: &Root) -> Vec<(String, &'static str)> {
    const FILES: [(&str, &str); 12] = [
        ("/var/lib/cloud/instance", "cloud-init would take the next instance for this one"),
        ("/var/lib/cloud/data", "cloud-init would take the next instance for this one"),
        ("/var/log/cloud-init.log", "it is of the machine that the image was made on"),
        ("/var/log/cloud-init-output.log", "it may hold what user data printed"),
        ("/root/.ssh/authorized_keys", "whoever built the image could log in"),
        ("/root/.bash_history", "it may hold secrets that were typed"),
        ("/root/.aws/credentials", "credentials of whoever built the image"),
        ("/etc/rollcall/agent.yaml", "it belongs into the user data: this one is of another pool"),
        (
            "/var/lib/kubelet/kubeconfig",
            "nodeadm writes it at boot: this one is of another cluster",
        ),
        ("/etc/kubernetes/pki/ca.crt", "nodeadm writes it at boot: this one is of another cluster"),
        ("/etc/eks/kubelet/environment", "nodeadm writes it at boot: this one is of another node"),
        ("/var/lib/rollcall/journal.json", "it is the journal of another node's join"),
    ];
    let is_there = |path: &str| fs::symlink_metadata(root.path(path)).is_ok();
    let mut found: Vec<_> = FILES
        .into_iter()
        .filter(|(path, _)| is_there(path))
        .map(|(path, why)| (path.to_owned(), why))
        .collect();
    let id = files::read_text(&root.path("/etc/machine-id")).unwrap_or_default();
    if !matches!(id.trim(), "" | "uninitialized") {
        found.push(("/etc/machine-id".into(), "every instance would have the same id"));
    }
    let mut below = |directory: &str, is_meant: &dyn Fn(&str) -> bool, why: &'static str| {
        for name in files::names_in(&root.path(directory)) {
            if is_meant(&name) {
                found.push((format!("{directory}/{name}"), why));
            }
        }
    };
    let host_key = |name: &str| name.starts_with("ssh_host_") && name.contains("key");
    below("/etc/ssh", &host_key, "every instance would have the same host key");
    below("/etc/cni/net.d", &|_: &str| true, "the node would look Ready before its network is up");
    for home in files::names_in(&root.path("/home")) {
        let key = format!("/home/{home}/.ssh/authorized_keys");
        if is_there(&key) {
            found.push((key, "whoever built the image could log in"));
        }
    }
    found
}
