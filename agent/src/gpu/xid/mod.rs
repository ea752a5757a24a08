//! XIDs, the driver's error codes: read from the kernel log and NVML, joined, and classed.
//!
//! [`parse`] reads kernel lines, [`merge`] joins them with what NVML says of the same error,
//! [`table`] says what a code means; all three are pure. What follows from them is decided in [`crate::watch::health`]
//! after the join, and by the drivers phase before it.

pub mod merge;
pub mod parse;
pub mod table;

pub use merge::Merge;
pub use parse::{Parser, Record, Severity};
pub use table::{Rule, Table};

use crate::host::{Root, kmsg};

/// How many records of a boot are kept, the latest: a log that floods says the same over and over.
const KEPT: usize = 256;

/// What the driver has logged since the boot, oldest first; nothing where the kernel log cannot be read.
#[must_use]
pub fn since_boot(root: &Root) -> Vec<Record> {
    let messages = kmsg::since_boot(root).unwrap_or_default();
    let mut parser = Parser::default();
    let mut records: Vec<Record> =
        messages.iter().flat_map(|message| parser.take(&message.text)).collect();
    records.drain(..records.len().saturating_sub(KEPT));
    records
}

/// The code under which a GPU that fell off the bus is reported, with or without an XID line.
pub const OFF_THE_BUS: u32 = 79;
/// The code that says which recovery action the driver asks for now.
pub const RECOVERY_ACTION_CHANGED: u32 = 154;
/// The code that takes back [`POWER_SMOOTHING_LOST`].
pub const POWER_SMOOTHING_BACK: u32 = 162;
/// Power smoothing was disengaged.
pub const POWER_SMOOTHING_LOST: u32 = 163;
