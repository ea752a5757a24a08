//! Faults: what a user can break in the lab, each a real change of a node's world or of what AWS
//! and Kubernetes answer. The agent is never told.
//!
//! [`hardware`] changes a node's files; [`effects`] changes the world around the nodes.

pub mod effects;
pub mod hardware;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use thiserror::Error;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A fault of a GPU or of the driver, made by nvml-sim.
    Driver(nvml_sim::fault::Fault),
    /// The driver's library is not on the node.
    DriverLibraryMissing,
    /// The agent's tarball arrives with one bit changed.
    AgentCorrupt,
    /// The VPC CNI's daemon never gets to writing its configuration.
    CniHeld,
    /// The node's role is unknown to the cluster.
    AccessEntryRemoved,
    /// The API server does not answer.
    ApiUnreachable,
}

/// One line of `lab fault --help` each.
pub const EXPLAINED: [(&str, &str); 10] = [
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
    ("driver-hang", "every NVML call hangs for ever, as with a wedged driver"),
    ("gpu-missing[=N]", "GPU N (default: the last) is gone from the PCI bus, /dev, /proc and NVML"),
    ("gpu-lost=N", "GPU N has fallen off the bus: still on PCI, NVML says it is lost"),
    (
        "agent-corrupt",
        "one bit of the agent's tarball changes on its way from S3; before boot, since a node fetches it once; POOL/INDEX or all",
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
    pub fn fits_all(self) -> bool {
        matches!(self, Self::AgentCorrupt | Self::ApiUnreachable)
    }

    /// Whether it lies in the node's own files.
    #[must_use]
    pub fn is_local(self) -> bool {
        matches!(self, Self::Driver(_) | Self::DriverLibraryMissing | Self::CniHeld)
    }

    /// Whether the node needs GPUs for it.
    #[must_use]
    pub fn needs_gpus(self) -> bool {
        matches!(self, Self::Driver(_) | Self::DriverLibraryMissing)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(fault) => fault.fmt(f),
            Self::DriverLibraryMissing => f.write_str("driver-library-missing"),
            Self::AgentCorrupt => f.write_str("agent-corrupt"),
            Self::CniHeld => f.write_str("cni-held"),
            Self::AccessEntryRemoved => f.write_str("access-entry-removed"),
            Self::ApiUnreachable => f.write_str("api-unreachable"),
        }
    }
}

impl FromStr for Fault {
    type Err = FaultError;

    fn from_str(text: &str) -> Result<Self, FaultError> {
        Ok(match text {
            "driver-library-missing" => Self::DriverLibraryMissing,
            "agent-corrupt" => Self::AgentCorrupt,
            "cni-held" => Self::CniHeld,
            "access-entry-removed" => Self::AccessEntryRemoved,
            "api-unreachable" => Self::ApiUnreachable,
            _ => Self::Driver(text.parse().map_err(|_| FaultError::Unknown(text.to_owned()))?),
        })
    }
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

    #[test]
    fn every_fault_is_explained_and_every_explanation_is_a_fault() {
        for (syntax, text) in EXPLAINED {
            let name = syntax.replace("[=N]", "").replace("=N", "=3");
            assert_eq!(name.parse::<Fault>().unwrap().to_string(), name);
            assert!(text.len() > 20);
        }
        assert_eq!("gpu-missing=6".parse::<Fault>().unwrap().to_string(), "gpu-missing=6");
        for bad in ["gpu-lost", "gpu-missing=x", "", "clear", "driver"] {
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
