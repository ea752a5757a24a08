//! What a layer's gate answered.

use serde::Serialize;

use crate::stack::report::NodeTally;

/// What a layer's gate answered.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", tag = "verdict")]
pub enum Gate {
    /// Proven.
    Open {
        /// With what.
        detail: String,
        /// The layer's nodes, where it has any.
        #[serde(skip)]
        nodes: NodeTally,
    },
    /// Good enough to go on, with something to report.
    Degraded {
        /// What.
        detail: String,
        /// The layer's nodes, where it has any.
        #[serde(skip)]
        nodes: NodeTally,
    },
    /// Every node has its verdict, and too many are not ready.
    NodesFailed {
        /// How many.
        detail: String,
        /// The layer's nodes.
        #[serde(skip)]
        nodes: NodeTally,
    },
    /// The deadline passed before everything was proven.
    TimedOut {
        /// What is still missing.
        detail: String,
        /// The layer's nodes, where it has any.
        #[serde(skip)]
        nodes: NodeTally,
    },
}

impl Gate {
    /// Proven, with this.
    pub fn open(detail: impl Into<String>) -> Self {
        Self::Open { detail: detail.into(), nodes: NodeTally::default() }
    }

    /// Good enough to go on, with this to report.
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self::Degraded { detail: detail.into(), nodes: NodeTally::default() }
    }

    /// Not proven in time: this is missing.
    pub fn timed_out(detail: impl Into<String>) -> Self {
        Self::TimedOut { detail: detail.into(), nodes: NodeTally::default() }
    }

    /// Whether the next layer may be built.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Degraded { .. })
    }

    /// What it says.
    #[must_use]
    pub fn detail(&self) -> &str {
        match self {
            Self::Open { detail, .. }
            | Self::Degraded { detail, .. }
            | Self::NodesFailed { detail, .. }
            | Self::TimedOut { detail, .. } => detail,
        }
    }

    /// The layer's nodes.
    #[must_use]
    pub const fn nodes(&self) -> &NodeTally {
        match self {
            Self::Open { nodes, .. }
            | Self::Degraded { nodes, .. }
            | Self::NodesFailed { nodes, .. }
            | Self::TimedOut { nodes, .. } => nodes,
        }
    }
}
