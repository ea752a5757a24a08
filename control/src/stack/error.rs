//! Why a walk over the layers stopped.

use contract::ExitCode;

use crate::aws::AwsError;
use crate::failure::Advice;
use crate::stack::Layer;
use crate::stack::lease::record::{Record, SKEW};

/// Why a walk over the layers stopped.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// AWS did not do as asked.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// Kubernetes did not do as asked.
    #[error("could not {attempted}")]
    Kubernetes {
        /// What was attempted.
        attempted: String,
        /// What to do about it.
        hint: Option<String>,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file of this machine could not be read.
    #[error("could not read `{path}`")]
    File {
        /// Path of the file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is known of a node could not be kept, so it was not replaced.
    #[error("could not keep the evidence in `{path}`")]
    Evidence {
        /// Path of the file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is there cannot become what is asked by any step that `control` would take.
    #[error("{message}")]
    Conflict {
        /// What contradicts what.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// A layer's foundation is missing: it was not built, or its gate has closed again.
    #[error("the {layer} layer needs {missing}")]
    Missing {
        /// The layer that cannot be built.
        layer: Layer,
        /// What it lacks.
        missing: &'static str,
    },
    /// Another run is at work on the fleet.
    #[error("another run is at work on `{fleet}`: {by}")]
    LeaseHeld {
        /// The fleet.
        fleet: String,
        /// Who, where and since when.
        by: Box<Record>,
    },
    /// Our own lease ended: it could not be renewed, or this machine slept.
    #[error("the lease on `{fleet}` was not renewed in time")]
    LeaseExpired {
        /// The fleet.
        fleet: String,
    },
    /// Somebody asked us to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Advice for StackError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Aws(error) => error.hint(),
            Self::Kubernetes { hint, .. } => hint.clone(),
            Self::Conflict { hint, .. } => Some(hint.clone()),
            Self::Missing { .. } => Some("run `control up` without `--only`".into()),
            Self::LeaseHeld { by, .. } => Some(format!(
                "let it end; if it is dead, its lease is free {} s after {}",
                SKEW.as_secs(),
                by.until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            )),
            Self::LeaseExpired { .. } => Some("run the same command again".into()),
            Self::Evidence { .. } => {
                Some("name a directory that can be written: `control up --evidence DIR`".into())
            }
            Self::File { .. } | Self::Interrupted => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Conflict { .. } => ExitCode::PreflightBlocked,
            Self::LeaseHeld { .. } => ExitCode::LeaseHeld,
            Self::Interrupted => ExitCode::Interrupted,
            _ => ExitCode::Error,
        }
    }
}
