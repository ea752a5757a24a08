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

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use contract::ExitCode;
use serde_yaml::Value;

use crate::failure::Advice;
use problem::Problem;
use raw::RawFleet;
pub use spec::FleetSpec;

/// What a file is, as messages call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// A fleet.
    Fleet,
    /// What an image is to be (`amis/`).
    Image,
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fleet => "fleet file",
            Self::Image => "image definition",
        })
    }
}

/// A file that cannot be used. Nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the {document} `{path}`")]
    Read {
        /// What it is.
        document: Document,
        /// Path of the file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not YAML.
    #[error("could not parse the {document} `{path}`")]
    Parse {
        /// What it is.
        document: Document,
        /// Path of the file.
        path: String,
        /// Where and why.
        #[source]
        source: serde_yaml::Error,
    },
    /// The file is YAML, but not what it should be.
    #[error("the {document} `{path}` has {}", count(problems.len()))]
    Problems {
        /// What it is.
        document: Document,
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
            Self::Read { document: Document::Fleet, .. } => {
                Some("name the fleet file with `-f`, or `-f -` for stdin".into())
            }
            Self::Read { document: Document::Image, .. } => {
                Some("name a file of `amis/`: ls amis/*.yaml".into())
            }
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
        let (name, text) = read(file, Document::Fleet)?;
        document = overlay::lay(document, parse_yaml(&text, &name, Document::Fleet)?);
    }
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    for typed in sets {
        problems.extend(overlay::set(&mut document, typed).err());
    }
    judge(document, &names.join(" + "), problems)
}

/// The name and text of a file; `-` is stdin.
pub(crate) fn read(path: &Path, document: Document) -> Result<(String, String), ConfigError> {
    let name = path.display().to_string();
    let text = if name == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(path)
    };
    match text {
        Ok(text) => Ok((name, text)),
        Err(source) => Err(ConfigError::Read { document, path: name, source }),
    }
}

pub(crate) fn parse_yaml(text: &str, path: &str, document: Document) -> Result<Value, ConfigError> {
    let path = path.to_owned();
    serde_yaml::from_str(text).map_err(|source| ConfigError::Parse { document, path, source })
}

/// Reads a fleet file's text; `path` is for messages.
///
/// # Errors
/// [`ConfigError`], with every problem of the text at once.
pub fn parse(text: &str, path: &str) -> Result<FleetSpec, ConfigError> {
    judge(parse_yaml(text, path, Document::Fleet)?, path, Vec::new())
}

fn judge(value: Value, path: &str, mut problems: Vec<Problem>) -> Result<FleetSpec, ConfigError> {
    let document = Document::Fleet;
    let raw: RawFleet = shaped(value, path, document, &schema::FLEET, &mut problems)?;
    match resolve::resolve(&raw, &mut problems) {
        Some(spec) if problems.is_empty() => Ok(spec),
        _ => Err(ConfigError::Problems { document, path: path.into(), problems }),
    }
}

/// What of a document has the right shape, as typed; the problems of its shape are added.
///
/// # Errors
/// [`ConfigError`] when it is no mapping at all.
pub(crate) fn shaped<T: serde::de::DeserializeOwned>(
    value: Value,
    path: &str,
    document: Document,
    shape: &schema::Shape,
    problems: &mut Vec<Problem>,
) -> Result<T, ConfigError> {
    let Some(sound) = schema::check(value, shape, "", problems) else {
        // The document itself is no mapping: there is no path to name.
        let mut problems = std::mem::take(problems);
        problems.iter_mut().for_each(|problem| problem.path = "(document)".into());
        return Err(ConfigError::Problems { document, path: path.into(), problems });
    };
    serde_yaml::from_value(sound).map_err(|source| ConfigError::Parse {
        document,
        path: path.into(),
        source,
    })
}
