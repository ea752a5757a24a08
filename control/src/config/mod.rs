//! The fleet file: as typed ([`raw`]), then as meant ([`spec`]); all problems at once, with paths.
//!
//! [`schema`] declares the shape and takes out what does not fit it; [`resolve`] judges the rest.

pub mod cidr;
pub mod edit;
pub mod json_schema;
pub mod network;
pub mod overlay;
pub mod policy;
mod pool;
pub mod problem;
pub mod raw;
pub mod resolve;
pub mod schema;
pub mod spec;

#[cfg(test)]
mod tests;

use std::io::Read as _;
use std::path::{Path, PathBuf};

use contract::ExitCode;
use serde_yaml::Value;

use crate::failure::Advice;
use problem::Problem;
use raw::RawFleet;
pub use spec::FleetSpec;

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
    #[error("the fleet file `{path}` has {}", count(problems.len()))]
    Problems {
        /// Path of the file.
        path: String,
        /// All of them.
        problems: Vec<Problem>,
    },
}

fn count(problems: usize) -> String {
    if problems == 1 { "1 problem".into() } else { format!("{problems} problems") }
}

impl Advice for ConfigError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Read { .. } => Some("name the fleet file with `-f`, or `-f -` for stdin".into()),
            Self::Parse { .. } => None,
            Self::Problems { .. } => Some("nothing was touched; correct the file and go on".into()),
        }
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::PreflightBlocked
    }
}

/// Reads fleet files, each laid over those before it, and single values over all of them.
///
/// # Errors
/// [`ConfigError`], with every problem at once.
pub fn load(files: &[PathBuf], sets: &[String]) -> Result<FleetSpec, ConfigError> {
    let mut document = Value::Null;
    let mut problems = Vec::new();
    for file in files {
        let (name, text) = read(file)?;
        document = overlay::lay(document, parse_yaml(&text, &name)?);
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    for typed in sets {
        problems.extend(overlay::set(&mut document, typed).err());
    }
    judge(document, &names.join(" + "), problems)
}

/// The name and text of a file; `-` is stdin.
fn read(path: &Path) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(ConfigError::Read { path: name, source }),
    }
}

fn parse_yaml(text: &str, path: &str) -> Result<Value, ConfigError> {
    serde_yaml::from_str(text).map_err(|source| ConfigError::Parse { path: path.into(), source })
}

/// Reads a fleet file's text; `path` is for messages.
///
/// # Errors
/// [`ConfigError`], with every problem of the text at once.
pub fn parse(text: &str, path: &str) -> Result<FleetSpec, ConfigError> {
    judge(parse_yaml(text, path)?, path, Vec::new())
}

fn judge(value: Value, path: &str, mut problems: Vec<Problem>) -> Result<FleetSpec, ConfigError> {
    let sound = match schema::check(value, &schema::FLEET, "", &mut problems) {
        Some(sound) => sound,
        None => {
            // The document itself is no mapping: there is no path to name.
            problems.iter_mut().for_each(|problem| problem.path = "(document)".into());
            return Err(ConfigError::Problems { path: path.into(), problems });
        }
    };
    let raw: RawFleet = serde_yaml::from_value(sound)
        .map_err(|source| ConfigError::Parse { path: path.into(), source })?;
    match resolve::resolve(&raw, &mut problems) {
        Some(spec) if problems.is_empty() => Ok(spec),
        _ => Err(ConfigError::Problems { path: path.into(), problems }),
    }
}
