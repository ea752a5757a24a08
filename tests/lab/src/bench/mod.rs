//! What the agent costs, measured: each figure beside its peer's, both sides in one run.
//!
//! [`join`] plays joins on one node, with the agent and without; [`health`] breaks its GPUs afterwards,
//! [`hang`] the driver's whole library; [`readers`] are who else shows GPUs;
//! [`program`] looks at the binary;
//! [`summary`] is what comes out. What was not measured is not in it.

pub mod hang;
pub mod health;
pub mod join;
pub mod program;
pub mod readers;
pub mod summary;

pub use summary::{Figure, Summary};
