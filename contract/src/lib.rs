//! What Rollcall's two programs agree on, and nothing else.
//!
//! `control` runs at the operator's, `rollcall-agent` on every node; they never talk to each other
//! directly. What passes between them is declared here, once:
//!
//! - [`phase`]: the steps of a node's join, in order;
//! - [`reason`]: every named cause, with its hint and what it explains;
//! - [`verdict`]: what a gate answers, and how several answers become one cause;
//! - [`join_report`] and [`console`]: what a node leaves behind; [`diagnosis`]: what a look at it shows;
//! - [`agent_config`]: what `control` writes for the agent;
//! - [`names`]: tags, parameter paths, files, units, conditions;
//! - [`offer`] and [`dra`]: how many GPUs a node has for pods, and how many are on offer;
//! - [`driver`]: which driver branches know which GPUs;
//! - [`exit_code`], [`outcome`], [`error_chain`]: how both programs end and speak.
//!
//! The crate depends on serde alone: no IO, no async, no clock. Every wire type has a golden file in
//! `golden/`, which changes only on purpose. Version rule: a new optional field is a new minor
//! version and readers ignore what they do not know; anything else is a new major version.

pub mod agent_config;
pub mod console;
pub mod diagnosis;
pub mod dra;
pub mod driver;
pub mod error_chain;
pub mod exit_code;
pub mod join_report;
pub mod names;
pub mod offer;
pub mod outcome;
pub mod phase;
pub mod policy;
pub mod reason;
pub mod verdict;

pub use agent_config::AgentConfig;
pub use console::ConsoleLine;
pub use diagnosis::Diagnosis;
pub use error_chain::ErrorChain;
pub use exit_code::ExitCode;
pub use join_report::JoinReport;
pub use outcome::StepOutcome;
pub use phase::Phase;
pub use policy::PoolPolicy;
pub use reason::{Reason, ReasonName};
pub use verdict::{Finding, Verdict};
