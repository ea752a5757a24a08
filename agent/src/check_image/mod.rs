//! What can be known of an image before it boots: is everything there, as it must be, and nothing
//! that belongs to one machine alone?
//!
//! - [`facts`] reads the image's files below a root: a mounted image, or `/` of the machine that it
//!   is being made on. It follows links inside that root and executes nothing;
//! - [`shipped`] is what we install;
//! - [`rules`] says what is wrong, pure.

pub mod facts;
pub mod rules;
pub mod shipped;

use serde::Serialize;

use crate::host::Root;

/// Something that is wrong with an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which rule is broken.
    pub check: Check,
    /// The file that it is about.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to do.
    pub fix: &'static str,
}

/// The rules; their names are what scripts match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Check {
    /// Another system than AL2023: there is no nodeadm for it.
    NotAl2023,
    /// A program that a node needs is not there.
    ProgramMissing,
    /// A program that nobody may execute.
    ProgramNotExecutable,
    /// A program for another processor than the agent's.
    WrongArchitecture,
    /// A file of ours is not there.
    FileMissing,
    /// A file of ours has other permissions than it must.
    WrongMode,
    /// A file of ours belongs to somebody else than root.
    WrongOwner,
    /// A unit that must start at boot does not.
    NotEnabled,
    /// kubelet would start at boot, before any gate.
    KubeletEnabled,
    /// The stock nodeadm-run would start kubelet past the join.
    NodeadmRunEnabled,
    /// nodeadm-run is masked: the fallback could not start it.
    NodeadmRunMasked,
    /// kubelet's drop-in does not assert that the gates are open.
    GateMissing,
    /// A driver tree is not there: the image can serve only some GPU families.
    DriverTreeMissing,
    /// The driver has been chosen already: the image serves one GPU family alone.
    DriverTreeFrozen,
    /// There is a driver, and nothing that gives GPUs to containers.
    ToolkitMissing,
    /// Something that belongs to the machine that the image was made on.
    Leftover,
}

/// What is wrong with the image below `root`; empty when nothing is.
#[must_use]
pub fn check(root: &Root) -> Vec<Problem> {
    rules::problems(&facts::gather(root))
}

#[cfg(test)]
mod tests;
