//! Why a walk over the layers stopped.

use contract::ExitCode;

use crate::aws::AwsError;
use crate::failure::Advice;
use crate::stack::Layer;

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
            Self::File { .. } | Self::Interrupted => None,
        }
    }

    fn exit_code(&self) -> ExitCode {
        match self {
            Self::Conflict { .. } => ExitCode::PreflightBlocked,
            Self::Interrupted => ExitCode::Interrupted,
            _ => ExitCode::Error,
        }
    }
}
