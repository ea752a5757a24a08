//! XIDs, the driver's error codes: read from the kernel log and NVML, joined, and classed. Pure.
//!
//! [`parse`] reads kernel lines, [`merge`] joins them with what NVML says of the same error,
//! [`table`] says what a code means. What follows from them is decided in [`crate::watch::health`]
//! after the join, and by the drivers phase before it.

pub mod merge;
pub mod parse;
pub mod table;

pub use merge::Merge;
pub use parse::{Parser, Record, Severity};
pub use table::{Rule, Table};

/// The code under which a GPU that fell off the bus is reported, with or without an XID line.
pub const OFF_THE_BUS: u32 = 79;
/// The code that says which recovery action the driver asks for now.
pub const RECOVERY_ACTION_CHANGED: u32 = 154;
/// The code that takes back [`POWER_SMOOTHING_LOST`].
pub const POWER_SMOOTHING_BACK: u32 = 162;
/// Power smoothing was disengaged.
pub const POWER_SMOOTHING_LOST: u32 = 163;
