//! Every gate at once, now: the join's own facts and verdicts, by somebody who looks on.
//!
//! - [`survey`] looks, side by side and not longer than it is given. It starts no unit and writes
//!   nothing, and works whether the join runs or not;
//! - [`judge`] says what that means: one cause first, pure;
//! - [`plugin`] says it in node-problem-detector's words.

pub mod judge;
pub mod plugin;
pub mod survey;

use std::time::Duration;

use contract::Diagnosis;

use crate::host::{Deadline, Root};
use crate::pipeline::node::Node;

/// How long a look takes at most when nothing else is said: a driver that says nothing for
/// ten seconds hangs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Looks at the node below `root` for `patience` at most.
///
/// # Errors
/// When no client for AWS can be made. Whatever is wrong with the node is the diagnosis.
pub async fn run(root: Root, patience: Duration) -> std::io::Result<Diagnosis> {
    let node = Node::of(root)?;
    let survey = Box::pin(survey::look(&node, Deadline::within(patience))).await;
    Ok(judge::judge(&survey))
}
