//! The console line: one per change of verdict.

use contract::{ConsoleLine, JoinReport};

use crate::host::Root;
use crate::host::console::Console;

/// Where it is written.
const DEVICE: &str = "/dev/console";

/// The console of `root`; none when no thread can be started.
#[must_use]
pub fn open(root: &Root) -> Option<Console> {
    match Console::open(root.path(DEVICE)) {
        Ok(console) => Some(console),
        Err(error) => {
            tracing::warn!(%error, "no console channel");
            None
        }
    }
}

/// Says what a report comes to.
pub fn say(console: &Console, report: &JoinReport) {
    console.say(ConsoleLine::of(report).render());
}
