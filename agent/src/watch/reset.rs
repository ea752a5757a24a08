//! The reset of a GPU, from the watch's side: asking for it, and reading how it ended. Whoever does it
//! is root, in a unit of its own: [`crate::gpu::reset`].

use contract::names::{GPU_RESET_REQUEST, GPU_RESET_RESULT};

use crate::gpu::reset::Outcome;
use crate::host::files::{self, FileError};
use crate::host::{Root, clock};

/// Asks for it: systemd sees the file and starts the unit, which takes it away.
///
/// # Errors
/// When the request cannot be written.
pub(super) fn ask(root: &Root, pci: &str) -> Result<(), FileError> {
    files::write_atomic(&root.path(GPU_RESET_REQUEST), format!("{pci}\n").as_bytes(), 0o644)
}

/// Whether one is asked for and has not ended: nobody may have a GPU open meanwhile. A request that
/// nobody takes up holds us for a minute.
pub(super) fn is_under_way(root: &Root) -> bool {
    let request = root.path(GPU_RESET_REQUEST);
    let age = std::fs::metadata(&request).and_then(|file| file.modified());
    let Ok(Ok(age)) = age.map(|at| at.elapsed()) else { return false };
    age < crate::gpu::reset::LIMIT
}

/// Takes a request back that nobody has taken up.
pub(super) fn give_up(root: &Root) {
    if root.path(GPU_RESET_REQUEST).exists()
        && !is_under_way(root)
        && let Err(error) = files::remove(&root.path(GPU_RESET_REQUEST))
    {
        tracing::warn!(error = %contract::ErrorChain(&error), "the request for a reset stays");
    }
}

/// How the last one ended, when that was in this boot and after `seen`.
pub(super) fn result(root: &Root, seen: &str) -> Option<Outcome> {
    let bytes = files::read(&root.path(GPU_RESET_RESULT)).ok()?;
    let outcome: Outcome = serde_json::from_slice(&bytes).ok()?;
    let is_of_boot = clock::boot_id(root).is_ok_and(|boot| boot == outcome.boot);
    (is_of_boot && outcome.at.as_str() > seen).then_some(outcome)
}
