//! The supervisor: the one process that a lab is. It starts the emulator and Kubernetes, runs the
//! instances, answers `lab status` and `lab fault`, and ends everything.
//!
//! It is a subreaper, so whatever a node leaves behind becomes its child and ends with it.

mod api;
mod emulator;
pub mod record;
mod run;

pub use api::{Api, FaultRequest, Status};
pub(crate) use api::{LIFT, ask};
pub use record::{Component, Options, Phase, Record};
pub use run::{SupervisorError, run};
