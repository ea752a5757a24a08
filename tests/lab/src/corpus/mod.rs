//! The fault corpus: each reason with the injection that reproduces it, and healthy variants that
//! must name nothing. The entries are data, in `tests/corpus`; this is what runs them.
//!
//! [`case`] is what an entry may say, [`user_data`] what a case's instance boots from, [`stage`] the
//! lab and the fleet that all cases share, [`roles`] the IAM roles of those that want their own,
//! [`places`] what a node can be sent to instead of its API server. [`act`] plays one case,
//! [`observe`] reads every channel, [`metrics`] what a node's watch serves, [`judge`] compares: pure.

pub mod act;
mod after;
pub mod case;
pub mod judge;
pub mod metrics;
pub mod observe;
pub mod places;
pub mod roles;
pub mod run;
pub mod stage;
pub mod user_data;

pub use case::{Case, Corpus};
pub use judge::Line;
