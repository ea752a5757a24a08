//! How both programs end: documented codes that scripts may rely on.

use std::process;

/// A documented exit code. Stable: a code never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitCode {
    /// Success, or nothing to change.
    Success = 0,
    /// Internal or unclassified error.
    Error = 1,
    /// Changes are pending (only under `--detailed-exitcode`).
    ChangesPending = 2,
    /// Refused before anything was touched: configuration, permissions, quotas, capacity.
    PreflightBlocked = 3,
    /// A layer's gate did not open in time.
    GateTimedOut = 4,
    /// Nodes failed to join, or a GPU is unhealthy; the rest of the fleet stands.
    NodesFailed = 5,
    /// `down` ended with something still owned.
    LeftoversRemain = 6,
    /// Another run holds the fleet's lease.
    LeaseHeld = 7,
    /// Interrupted; the same command goes on where it stopped.
    Interrupted = 9,
    /// Wrong usage, or a confirmation that nobody could give (no terminal and no `--yes`).
    Usage = 64,
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
