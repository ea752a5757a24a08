//! Faults: what a user can break in the lab, each a real change of a node's world or of what AWS
//! and Kubernetes answer. The agent is never told.
//!
//! [`hardware`] and [`local`] change a node's own files, programs and units; [`effects`] changes the
//! world around the nodes; [`network`] names the paths between the two. `disk` and `slow` are what
//! `local` does to file systems and programs.

mod disk;
pub mod effects;
pub mod hardware;
mod ipamd;
pub mod local;
pub mod network;
mod slow;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

use crate::imds::Trouble;
use local::Local;

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault of a GPU or of the driver, made by nvml-sim.
    Driver(nvml_sim::fault::Fault),
    /// Something that happens once on a node with GPUs: an XID, a line of the kernel's log.
    Happening(nvml_sim::fault::Happening),
    /// The driver's library is not on the node.
    DriverLibraryMissing,
    /// The agent's tarball arrives with one bit changed.
    AgentCorrupt,
    /// The agent's join dies of SIGKILL at the point of this number in its own list.
    JoinDies(u16),
    /// The VPC CNI's daemon never gets to writing its configuration.
    CniHeld,
    /// The node's role is unknown to the cluster.
    AccessEntryRemoved,
    /// The API server does not answer.
    ApiUnreachable,
    /// The simulated driver, or one of its GPUs, is in another state.
    Hardware {
        /// The GPU; none: the driver as a whole.
        gpu: Option<u32>,
        /// What is changed of the state of nvml-sim, as a JSON merge patch.
        patch: serde_json::Value,
    },
    /// A file, a program or a unit of the node.
    Local(Local),
    /// The node's metadata service.
    Imds(Trouble),
    /// STS refuses the node's role to EC2.
    CredentialsDenied,
    /// The node's clock is behind everybody else's by so many seconds; ahead when negative.
    ClockBehind(i64),
    /// The cluster has no CNI: the add-on and its DaemonSet are gone.
    CniAddonRemoved,
    /// The VPC CNI's daemon is there and does not work.
    IpamdIll,
    /// EKS calls the add-on of the cluster's CNI DEGRADED.
    CniAddonIll,
    /// AWS refuses the node one operation.
    AwsDenied {
        /// `ec2`.
        service: String,
        /// `DescribeSubnets`.
        operation: String,
    },
    /// A path of the node's network.
    Network(network::NetworkFault),
}

/// One line of `lab fault --help` each.
pub const EXPLAINED: &[(&str, &str)] = &[
    (
        "driver-library-mismatch",
        "the loaded kernel module is of another version than libnvidia-ml, as after an update without a reboot: NVML init fails with code 18",
    ),
    (
        "driver-not-loaded",
        "the kernel module is not loaded: no /proc/driver/nvidia, no device nodes, NVML says so",
    ),
    (
        "driver-library-missing",
        "libnvidia-ml.so.1 is not on the node, as on an image without the driver",
    ),
    ("cuda-missing", "the image has libnvidia-ml.so.1 and not libcuda.so.1"),
    ("driver-hang", "every NVML call hangs for ever, as with a wedged driver"),
    ("gpu-missing[=N]", "GPU N (default: the last) is gone from the PCI bus, /dev, /proc and NVML"),
    ("gpu-lost=N", "GPU N has fallen off the bus: still on PCI, NVML says it is lost"),
    (
        "gpu-off-bus=N",
        "GPU N is lost and reads as all ones; the kernel says XID 79 and that it has fallen off the bus",
    ),
    ("gpu-reset-required=N", "every call on GPU N says that it wants a reset"),
    ("gpu-hang=N", "no call on GPU N comes back; the other GPUs answer"),
    ("wrong-bytes=N", "the memory of GPU N gives back other bytes than it was given"),
    ("garbage=N", "the texts of GPU N are bytes that are no UTF-8"),
    ("row-remap-pending=N", "GPU N has a remapped row that waits for a reset"),
    ("row-remap-failed=N", "a row of GPU N could not be remapped"),
    ("row-remap-exhausted=N", "a bank of GPU N has no spare rows left"),
    ("retired-pages-pending=N", "GPU N (T4, V100) has a page that waits for a reset to be retired"),
    (
        "ecc-uncorrectable=N",
        "GPU N has counted an uncorrected memory error since the driver was loaded",
    ),
    ("ecc-off=N", "GPU N does not correct memory errors"),
    ("sram-threshold=N", "the driver says that the SRAM of GPU N had too many errors"),
    ("persistence-off=N", "persistence mode of GPU N is off; `all` for each GPU, here and above"),
    (
        "recovery-action=N:1",
        "the driver asks for this on GPU N: 1 reset, 2 reboot, 3 drain, 4 drain and reset",
    ),
    (
        "throttle=N:CAUSE",
        "something holds the clocks of GPU N down: idle, sw-power, hw-slowdown, sw-thermal, hw-thermal, power-brake",
    ),
    ("pcie-width=N:8", "the link of GPU N to the host has 8 lanes"),
    (
        "pcie-generation=N:1",
        "the link of GPU N to the host runs at the first generation's speed, as when idle",
    ),
    ("aer=N:KIND", "the kernel counts errors of the link of GPU N: correctable, nonfatal, fatal"),
    ("nvlink-down=N:17", "link 17 of GPU N is down"),
    ("nvlink-errors=N", "the NVLinks of GPU N count errors"),
    (
        "fabric-state=N:STAGE",
        "the registration of GPU N with its fabric is not-started, in-progress or completed",
    ),
    (
        "fabric-error=N:CODE",
        "the registration of GPU N with its fabric has ended with this code of NVML",
    ),
    (
        "fabric-health=N:ILLNESS",
        "the fabric of GPU N is ill: degraded-bw, route-recovery, route-unhealthy, access-timeout",
    ),
    ("mig-on=N", "MIG is on on GPU N, without parts"),
    ("mig-layout=N:1g.10gb", "MIG is on on GPU N, with these parts, commas between them"),
    ("stray-process=N:4711", "a process of this number uses GPU N"),
    (
        "efa-missing[=NAME]",
        "an EFA device (default: the last) is gone from the PCI bus and from /sys/class/infiniband",
    ),
    ("stuck-process=N:4711", "a process of this number uses GPU N and hangs in the kernel"),
    ("gpu-hot=N", "GPU N is a few degrees from where hardware holds it down"),
    (
        "nvlink-recovery-failed=N",
        "an NVLink of GPU N did not come up again after errors (fifth generation: B200)",
    ),
    (
        "efa-errors=NAME:COUNTER",
        "a counter of an EFA device goes up by a thousand: efa-errors=rdmap79s0:rx_drops",
    ),
    ("efa-down=NAME", "the port of an EFA device is down: efa-down=rdmap79s0"),
    ("efa-apart", "the EFA devices are in no IOMMU group and below root ports of their own"),
    ("gpu-count=N", "NVML counts this many GPUs, whatever there are"),
    ("init=CODE", "NVML's initialisation ends with this code"),
    ("hang=CALL", "one call of NVML or CUDA never comes back: hang=nvmlDeviceGetTemperature"),
    ("slow-calls=MS", "every call of NVML takes this long"),
    ("slow-call=CALL:MS", "one call of NVML takes this long"),
    (
        "call-fails=CALL:CODE",
        "one call of NVML or CUDA gives this code: call-fails=nvmlDeviceGetPowerUsage:3",
    ),
    ("symbol-missing=CALL", "libnvidia-ml does not have this function, as an older one"),
    (
        "driver-version=535.261.03",
        "the whole driver is of this version, without the functions that came later",
    ),
    (
        "xid=CODE:N",
        "an XID happens once: in the kernel's log and as an event; after N may follow a colon and the rest of the line",
    ),
    ("xid-kmsg-only=CODE:N", "the same, in the kernel's log alone"),
    ("xid-nvml-only=CODE:N", "the same, as an event alone"),
    ("sxid=CODE:SEVERITY", "an NVSwitch reports an error in the kernel's log: fatal or nonfatal"),
    ("kmsg=TEXT", "the kernel says this once"),
    (
        "gpu-set=N:JSON",
        "GPU N is in this state of nvml-sim (merge patch): gpu-set=0:{\"fault\":{\"resetRequired\":true}}",
    ),
    (
        "driver-set=JSON",
        "the driver is in this state of nvml-sim: driver-set={\"faults\":{\"init\":999}}",
    ),
    (
        "agent-corrupt",
        "one bit of the agent's tarball changes on its way from S3; before boot, since a node fetches it once; POOL/INDEX or all",
    ),
    (
        "join-dies=N",
        "the join dies of SIGKILL in its first proving, at the Nth point that `rollcall-agent crash-points` lists; before boot",
    ),
    (
        "cni-held",
        "aws-node runs and never writes its CNI configuration: the node registers and stays NotReady",
    ),
    (
        "access-entry-removed",
        "the cluster's access entry for the node's role is deleted: the API server answers 401 to every node of that role",
    ),
    (
        "api-unreachable",
        "POOL/INDEX: the API server drops this node's requests; all: it refuses every connection",
    ),
    ("missing=FILE", "a file or directory is not on the node: missing=/usr/bin/kubelet"),
    (
        "full=FILE",
        "a directory is a file system of its own with no room left: full=/var/lib/kubelet (needs root)",
    ),
    ("not-executable=FILE", "a program lost its executable bits"),
    ("write=FILE:TEXT", "a file says something else: write=/etc/cni/net.d/05-x.conflist:{}"),
    ("nodeadm-fails=PHASE", "nodeadm's config or run phase ends with an error of its own"),
    ("nodeadm-hangs=PHASE", "nodeadm's config or run phase never ends"),
    ("kubelet-fails", "kubelet exits at once with an error, again and again"),
    ("kubelet-hangs", "kubelet runs and never registers"),
    (
        "programs-slow=MS",
        "nodeadm, kubelet, systemctl and NVIDIA's tools start so much later, as from a cold and slow disk",
    ),
    (
        "hung=FILE",
        "a directory is a file system that never answers: hung=/var/lib/containerd (needs root)",
    ),
    (
        "unit-fails=UNIT",
        "a service of the node fails whenever it is started: unit-fails=containerd",
    ),
    (
        "unit-hangs=UNIT",
        "a service stays in `activating`: unit-hangs=cloud-final, as with a user script that hangs",
    ),
    (
        "unit-died=UNIT",
        "a service of the node has failed once, and starts when it is told to: unit-died=nvidia-fabricmanager",
    ),
    ("imds-slow=MS", "the metadata service answers late"),
    ("imds-status=CODE", "the metadata service answers everything with this status"),
    ("imds-no-token", "the metadata service refuses to hand out tokens"),
    ("imds-silent", "the metadata service takes requests and never answers"),
    ("imds-half", "the metadata service cuts every body in half"),
    (
        "imds-lacks=NAME",
        "the metadata service leaves this out: a field of the identity document, or a path",
    ),
    ("imds-says=FIELD:VALUE", "a field of the identity document says something else"),
    (
        "imds-announces=PATH:TEXT",
        "the metadata service says this below meta-data: spot/instance-action, events/maintenance/scheduled, autoscaling/target-lifecycle-state …",
    ),
    (
        "credentials-denied",
        "STS refuses EC2 the node's role: the metadata service has no credentials",
    ),
    (
        "clock-behind=S",
        "the node's clock is S seconds behind everybody else's (negative: ahead): their dates and refusals say so",
    ),
    (
        "ipamd-ill",
        "the VPC CNI's daemon is there and answers 500 about itself, on every process node of this machine",
    ),
    (
        "cni-addon-ill",
        "EKS calls the cluster's vpc-cni add-on DEGRADED, as by another node's aws-node",
    ),
    ("cni-addon-removed", "the cluster's vpc-cni add-on is deleted, and its DaemonSet with it"),
    (
        "aws-endpoint=SERVICE:URL",
        "the node finds an AWS service at this URL, when it boots: aws-endpoint=sts:http://127.0.0.1:9",
    ),
    (
        "aws-denied=SERVICE:OPERATION",
        "AWS refuses the node one operation: aws-denied=ec2:DescribeSubnets",
    ),
    (
        "net-drop=PATH",
        "machine nodes: packets to PATH vanish; PATH is api, imds, ec2, sts, ssm, s3, eks or ecr",
    ),
    ("net-reject=PATH", "machine nodes: connections to PATH are refused, open ones are reset"),
    (
        "net-delay=PATH[:MS]",
        "machine nodes: bytes from and to PATH arrive MS milliseconds later (default: 2000)",
    ),
    ("net-reset=PATH", "machine nodes: connections to PATH are taken and then reset"),
];

/// Why a fault cannot be.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FaultError {
    /// No such fault.
    #[error("no fault is called `{0}`: lab fault --help lists them")]
    Unknown(String),
    /// A target that is neither `POOL/INDEX` nor `all`.
    #[error("`{0}` is no target: POOL/INDEX, as lab status shows it, or all")]
    BadTarget(String),
    /// It only makes sense for one node.
    #[error("`{0}` breaks one node: name it as POOL/INDEX")]
    NeedsNode(String),
    /// A machine has a network of its own.
    #[error(
        "`{0}` needs machine nodes (lab up --nodes machine): a process node has no network of its own"
    )]
    NeedsMachine(String),
    /// GPUs are broken where there are some.
    #[error("{0} has no GPUs to break")]
    NoGpus(String),
    /// The node has fetched its agent already.
    #[error("{0} has its agent already: `agent-corrupt` takes effect on nodes that boot later")]
    TooLate(String),
    /// What had to be changed outside the node could not be.
    #[error("could not {what}: {why}")]
    World {
        /// What was tried.
        what: String,
        /// Why it failed.
        why: String,
    },
}

impl Fault {
    /// Whether it can be laid on everything at once.
    #[must_use]
    pub fn fits_all(&self) -> bool {
        matches!(self, Self::AgentCorrupt | Self::ApiUnreachable)
    }

    /// Whether the node needs GPUs for it.
    #[must_use]
    pub fn needs_gpus(&self) -> bool {
        matches!(
            self,
            Self::Driver(_)
                | Self::Happening(_)
                | Self::DriverLibraryMissing
                | Self::Hardware { .. }
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(fault) => fault.fmt(f),
            Self::Happening(happening) => happening.fmt(f),
            Self::DriverLibraryMissing => f.write_str("driver-library-missing"),
            Self::AgentCorrupt => f.write_str("agent-corrupt"),
            Self::JoinDies(point) => write!(f, "join-dies={point}"),
            Self::CniHeld => f.write_str("cni-held"),
            Self::AccessEntryRemoved => f.write_str("access-entry-removed"),
            Self::ApiUnreachable => f.write_str("api-unreachable"),
            Self::Hardware { gpu: Some(gpu), patch } => write!(f, "gpu-set={gpu}:{patch}"),
            Self::Hardware { gpu: None, patch } => write!(f, "driver-set={patch}"),
            Self::Local(local) => local.fmt(f),
            Self::Imds(trouble) => trouble.fmt(f),
            Self::CredentialsDenied => f.write_str("credentials-denied"),
            Self::ClockBehind(seconds) => write!(f, "clock-behind={seconds}"),
            Self::CniAddonRemoved => f.write_str("cni-addon-removed"),
            Self::IpamdIll => f.write_str("ipamd-ill"),
            Self::CniAddonIll => f.write_str("cni-addon-ill"),
            Self::AwsDenied { service, operation } => write!(f, "aws-denied={service}:{operation}"),
            Self::Network(fault) => fault.fmt(f),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        let (name, value) = text.split_once('=').map_or((text, None), |(n, v)| (n, Some(v)));
        let unknown = || FaultError::Unknown(text.to_owned());
        let plain = match (name, value) {
            ("driver-library-missing", None) => Some(Self::DriverLibraryMissing),
            ("agent-corrupt", None) => Some(Self::AgentCorrupt),
            ("join-dies", Some(point)) => {
                Some(Self::JoinDies(point.parse().map_err(|_| unknown())?))
            }
            ("cni-held", None) => Some(Self::CniHeld),
            ("access-entry-removed", None) => Some(Self::AccessEntryRemoved),
            ("api-unreachable", None) => Some(Self::ApiUnreachable),
            ("credentials-denied", None) => Some(Self::CredentialsDenied),
            ("cni-addon-removed", None) => Some(Self::CniAddonRemoved),
            ("cni-addon-ill", None) => Some(Self::CniAddonIll),
            ("ipamd-ill", None) => Some(Self::IpamdIll),
            ("clock-behind", Some(seconds)) => {
                Some(Self::ClockBehind(seconds.parse().map_err(|_| unknown())?))
            }
            ("aws-denied", Some(value)) => {
                let (service, operation) = value.split_once(':').ok_or_else(unknown)?;
                let (service, operation) = (service.to_owned(), operation.to_owned());
                Some(Self::AwsDenied { service, operation })
            }
            ("gpu-set", Some(value)) => {
                let (gpu, patch) = value.split_once(':').ok_or_else(unknown)?;
                let gpu = gpu.parse().map_err(|_| unknown())?;
                Some(Self::Hardware { gpu: Some(gpu), patch: patch_of(patch).ok_or_else(unknown)? })
            }
            ("driver-set", Some(value)) => {
                Some(Self::Hardware { gpu: None, patch: patch_of(value).ok_or_else(unknown)? })
            }
            _ => None,
        };
        plain
            .or_else(|| Local::parse(name, value).map(Self::Local))
            .or_else(|| text.parse().ok().map(Self::Network))
            .or_else(|| Trouble::parse(name, value).map(Self::Imds))
            .or_else(|| text.parse().ok().map(Self::Driver))
            .or_else(|| text.parse().ok().map(Self::Happening))
            .ok_or_else(unknown)
    }
}

fn patch_of(text: &str) -> Option<serde_json::Value> {
    serde_json::from_str(text).ok().filter(serde_json::Value::is_object)
}

/// Whether this names a fault that can be laid on everything at once.
#[must_use]
pub fn is_for_all(text: &str) -> bool {
    text.parse::<Fault>().is_ok_and(|fault| fault.fits_all())
}

/// What a fault is laid on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Everything.
    All,
    /// One node of a pool, whether it exists already or not.
    Node {
        /// The pool.
        pool: String,
        /// Its ordinal in the pool.
        index: u32,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Node { pool, index } => write!(f, "{pool}/{index}"),
        }
    }
}

impl FromStr for Target {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        if text == "all" {
            return Ok(Self::All);
        }
        let bad = || FaultError::BadTarget(text.to_owned());
        let (pool, index) = text.rsplit_once('/').ok_or_else(bad)?;
        let index = index.parse().map_err(|_| bad())?;
        if pool.is_empty() { Err(bad()) } else { Ok(Self::Node { pool: pool.to_owned(), index }) }
    }
}

/// One fault in force or remembered, as `lab fault list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Where.
    pub target: String,
    /// What.
    pub fault: String,
    /// `active`, or `remembered` until such a node boots.
    pub state: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands for a value in [`EXPLAINED`], and one that may.
    const PLACES: &[(&str, &str)] = &[
        ("CALL:CODE", "nvmlDeviceGetName:3"),
        ("CALL:MS", "nvmlDeviceGetName:20"),
        ("CALL", "nvmlDeviceGetName"),
        ("CAUSE", "hw-slowdown"),
        ("KIND", "fatal"),
        ("STAGE", "in-progress"),
        ("ILLNESS", "degraded-bw"),
        ("CODE:N", "79:3"),
        ("CODE:SEVERITY", "20034:nonfatal"),
        ("efa-down=NAME", "efa-down=rdmap0s6"),
        ("efa-errors=NAME:COUNTER", "efa-errors=rdmap0s6:rx_drops"),
        ("=N:", "=3:"),
        ("PATH[:MS]", "sts:250"),
        ("PATH", "api"),
        ("FIELD:VALUE", "instanceType:p9.metal"),
        ("=NAME", "=region"),
        ("=N", "=3"),
        ("JSON", r#"{"a":1}"#),
        ("FILE", "/usr/bin/nodeadm"),
        ("TEXT", "a: b"),
        ("PHASE", "config"),
        ("UNIT", "containerd"),
        ("SERVICE:URL", "sts:http://127.0.0.1:9"),
        ("MS", "500"),
        ("CODE", "503"),
        ("SERVICE:OPERATION", "ec2:DescribeSubnets"),
        ("=S", "=600"),
    ];

    #[test]
    fn every_fault_is_explained_and_every_explanation_is_a_fault() {
        for (syntax, text) in EXPLAINED {
            let mut name = syntax.replace("[=NAME]", "").replace("[=N]", "");
            for (place, value) in PLACES {
                name = name.replace(place, value);
            }
            assert_eq!(name.parse::<Fault>().unwrap().to_string(), name);
            assert!(text.len() > 20);
        }
        assert_eq!("gpu-missing=6".parse::<Fault>().unwrap().to_string(), "gpu-missing=6");
        for bad in
            ["gpu-lost", "gpu-missing=x", "", "clear", "driver", "missing=usr/x", "gpu-set=0:[]"]
        {
            assert_eq!(bad.parse::<Fault>(), Err(FaultError::Unknown(bad.into())), "{bad}");
        }
    }

    #[test]
    fn targets() {
        let node = |pool: &str, index| Target::Node { pool: pool.into(), index };
        let cases = [
            ("all", Ok(Target::All)),
            ("gpu/1", Ok(node("gpu", 1))),
            ("a/b/2", Ok(node("a/b", 2))),
            ("gpu", Err(FaultError::BadTarget("gpu".into()))),
            ("/1", Err(FaultError::BadTarget("/1".into()))),
            ("gpu/-1", Err(FaultError::BadTarget("gpu/-1".into()))),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<Target>(), expected, "{text}");
        }
    }
}
