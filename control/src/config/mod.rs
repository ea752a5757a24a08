//! The fleet file: as typed, then as meant; all problems at once, with paths.

pub mod problem;

use contract::ExitCode;

use crate::failure::Advice;
use problem::Problem;

/// A fleet file that cannot be used. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the fleet file `{path}`")]
    Read {
        /// Path of the file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("could not parse the fleet file `{path}`")]
    Parse {
        /// Path of the file.
        path: String,
        /// Where and why.
        #[source]
        source: serde_yaml::Error,
    },
    /// The file is YAML, but not a fleet.
    #[error("the fleet file `{path}` has {} problem{}", problems.len(), if problems.len() == 1 { "" } else { "s" })]
    Problems {
        /// Path of the file.
        path: String,
        /// All of them, in the file's order.
        problems: Vec<Problem>,
    },
}

impl Advice for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("name the fleet file with `-f`, or `-f -` for stdin".into()),
            Self::Parse { .. } => None,
            Self::Problems { .. } => Some("correct them all; nothing was touched".into()),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::PreflightBlocked
    }
}
