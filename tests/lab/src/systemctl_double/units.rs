//! The units that the double knows, and how each runs.

use std::path::Path;

use contract::names::{
    ADMITTED_PATH, UNIT_CANARY, UNIT_JOIN, UNIT_KUBELET, UNIT_NODEADM_CONFIG, UNIT_NODEADM_RUN,
    UNIT_REPAIR_LOAD, UNIT_REPAIR_RESET, UNIT_REPAIR_UNLOAD, UNIT_WATCH,
};

/// How a unit runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A oneshot around nodeadm; the flag names the phase that it skips.
    Nodeadm {
        /// `run` or `config`.
        skip: &'static str,
    },
    /// A oneshot around the agent's own script of repairs, and what it is to do.
    Repair(&'static str),
    /// A oneshot of the agent's own program: the verb.
    Agent(&'static str),
    /// kubelet: a service with an assertion and a mandatory environment file.
    Kubelet,
    /// A service that only has a state here: nothing of it runs on a process node.
    StateOnly,
    /// A oneshot that the machine ran at boot.
    BootOneshot,
    /// Run by the lab's instance runner, which is the node's PID 1.
    OfRunner,
}

/// A unit by its full name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unit {
    /// `kubelet.service`.
    pub name: &'static str,
    /// How it runs.
    pub kind: Kind,
    /// A path whose absence on the image means that the unit is not installed.
    needs: Option<&'static str>,
}

const fn unit(name: &'static str, kind: Kind) -> Unit {
    Unit { name, kind, needs: None }
}

const fn nvidia(name: &'static str, kind: Kind) -> Unit {
    Unit { name, kind, needs: Some("usr/bin/nvidia-ctk") }
}

/// Of images that resolve their driver at boot.
const fn resolving(name: &'static str) -> Unit {
    Unit { name, kind: Kind::BootOneshot, needs: Some("opt/nvidia/current") }
}

const UNITS: &[Unit] = &[
    unit(UNIT_NODEADM_CONFIG, Kind::Nodeadm { skip: "run" }),
    unit(UNIT_NODEADM_RUN, Kind::Nodeadm { skip: "config" }),
    unit(UNIT_REPAIR_UNLOAD, Kind::Repair("unload")),
    unit(UNIT_REPAIR_LOAD, Kind::Repair("load")),
    unit(UNIT_REPAIR_RESET, Kind::Repair("reset")),
    unit(UNIT_CANARY, Kind::Agent("canary")),
    unit(UNIT_KUBELET, Kind::Kubelet),
    unit(UNIT_JOIN, Kind::OfRunner),
    unit(UNIT_WATCH, Kind::OfRunner),
    unit("containerd.service", Kind::StateOnly),
    unit("systemd-networkd.service", Kind::StateOnly),
    unit("systemd-resolved.service", Kind::StateOnly),
    unit("chronyd.service", Kind::StateOnly),
    unit("systemd-networkd-wait-online.service", Kind::BootOneshot),
    unit("nodeadm-boot-hook.service", Kind::BootOneshot),
    unit("nodeadm-config.service", Kind::BootOneshot),
    unit("nodeadm-run.service", Kind::BootOneshot),
    unit("cloud-init.service", Kind::BootOneshot),
    unit("cloud-config.service", Kind::BootOneshot),
    unit("cloud-final.service", Kind::BootOneshot),
    nvidia("nvidia-kmod-load.service", Kind::BootOneshot),
    resolving("nvidia-driver-resolve.service"),
    resolving("nvidia-setup.service"),
    nvidia("nvidia-persistenced.service", Kind::StateOnly),
    nvidia("nvidia-fabricmanager.service", Kind::StateOnly),
];

/// Units that run from boot on, without anybody starting them.
const ACTIVE_AT_BOOT: &[&str] = &[
    "systemd-networkd.service",
    "systemd-resolved.service",
    "chronyd.service",
    "systemd-networkd-wait-online.service",
    "nodeadm-boot-hook.service",
    "nvidia-persistenced.service",
    "nvidia-fabricmanager.service",
];

/// The unit of that name on this node; `.service` may be left out.
#[must_use]
pub fn find(root: &Path, name: &str) -> Option<Unit> {
    let full = full_name(name);
    let unit = UNITS.iter().find(|unit| unit.name == full)?;
    let installed = unit.needs.is_none_or(|path| root.join(path).exists());
    installed.then_some(*unit)
}

/// The name with its suffix.
#[must_use]
pub fn full_name(name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{name}.service") }
}

/// The units that are active once the machine is up.
pub fn active_at_boot(root: &Path) -> impl Iterator<Item = Unit> {
    ACTIVE_AT_BOOT.iter().filter_map(|name| find(root, name))
}

impl Unit {
    /// What must exist for the unit to start.
    #[must_use]
    pub fn assertion(self) -> Option<&'static str> {
        (self.kind == Kind::Kubelet).then_some(ADMITTED_PATH)
    }

    /// Whether what must exist does.
    #[must_use]
    pub fn assertion_holds(self, root: &Path) -> bool {
        self.assertion().is_none_or(|path| root.join(path.trim_start_matches('/')).exists())
    }

    /// Whether the unit counts as active after its process has ended well.
    #[must_use]
    pub fn remains(self) -> bool {
        self.kind == Kind::BootOneshot
    }
}
