//! How a step of `control` or of the agent ends: never a `bool`, never `()`.

use serde::{Deserialize, Serialize};

/// The end of one step. "Already there" is visible, so that a second `up` can say Unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome", content = "detail")]
pub enum StepOutcome {
    /// Something was made, changed or removed.
    Done,
    /// The world already was as asked.
    Unchanged,
    /// Not needed here, and why.
    Skipped(String),
    /// Went through with something to report.
    Degraded(String),
    /// Did not go through: what is left behind.
    Failed(String),
}

impl StepOutcome {
    /// The word that screens and JSON show.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Done => "Done",
            Self::Unchanged => "Unchanged",
            Self::Skipped(_) => "Skipped",
            Self::Degraded(_) => "Degraded",
            Self::Failed(_) => "Failed",
        }
    }
}
