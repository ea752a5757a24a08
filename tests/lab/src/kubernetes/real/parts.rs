//! The parts that `make e2e-setup` has left in its cache, and which of them are missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Deserialize;

/// What a control plane is made of.
const CONTROL_PLANE: [&str; 2] = ["kubernetes", "etcd-server"];

/// Parts of the lab, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts(BTreeMap<String, Part>);

/// One entry of `parts.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Part {
    version: String,
    path: PathBuf,
    state: State,
    #[serde(default)]
    why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ready,
    Skipped,
}

/// Why real Kubernetes cannot run here.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartsError {
    /// The setup has not run for this checkout's versions.
    #[error("the real parts are not there: run make e2e-setup")]
    NotSetUp,
    /// Some could not be had.
    #[error("real Kubernetes needs what make e2e-setup could not get: {0}")]
    Missing(String),
    /// The list cannot be read.
    #[error("could not read the list of parts: {0}; run make e2e-setup again")]
    Unreadable(String),
}

impl Parts {
    /// The parts for this checkout, whole enough for a control plane.
    ///
    /// # Errors
    /// When a part is missing, with what to do.
    pub fn find() -> Result<Self, PartsError> {
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("parts/setup.sh");
        let asked = Command::new(&setup).arg("--where").stdin(Stdio::null()).output();
        let folder = asked
            .ok()
            .filter(|answer| answer.status.success())
            .and_then(|answer| String::from_utf8(answer.stdout).ok())
            .ok_or(PartsError::NotSetUp)?;
        let listed = std::fs::read_to_string(Path::new(folder.trim()).join("parts.json"));
        Self::parse(&listed.map_err(|_| PartsError::NotSetUp)?)
    }

    fn parse(listed: &str) -> Result<Self, PartsError> {
        let parts = serde_json::from_str(listed).map(Self);
        let parts = parts.map_err(|error| PartsError::Unreadable(error.to_string()))?;
        let missing: Vec<String> = CONTROL_PLANE.iter().filter_map(|p| parts.lacks(p)).collect();
        if missing.is_empty() { Ok(parts) } else { Err(PartsError::Missing(missing.join("; "))) }
    }

    fn lacks(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(part) if part.state == State::Ready => None,
            Some(part) => Some(format!("{name} ({})", part.why)),
            None => Some(format!("{name} (not in the list)")),
        }
    }

    /// Where a part is.
    ///
    /// # Errors
    /// When it is not ready.
    pub fn path(&self, name: &str) -> Result<&Path, PartsError> {
        match (self.lacks(name), self.0.get(name)) {
            (None, Some(part)) => Ok(&part.path),
            (lacking, _) => Err(PartsError::Missing(lacking.unwrap_or_default())),
        }
    }

    /// A part's version; empty when it is not in the list.
    #[must_use]
    pub fn version(&self, name: &str) -> &str {
        self.0.get(name).map_or("", |part| part.version.as_str())
    }

    /// Version of every part that is ready, by name.
    #[must_use]
    pub fn versions(&self) -> BTreeMap<String, String> {
        let ready = self.0.iter().filter(|(_, part)| part.state == State::Ready);
        ready.map(|(name, part)| (name.clone(), part.version.clone())).collect()
    }

    /// A program of Kubernetes.
    ///
    /// # Errors
    /// When Kubernetes is not ready.
    pub fn kubernetes(&self, program: &str) -> Result<PathBuf, PartsError> {
        self.path("kubernetes").map(|path| path.with_file_name(program))
    }

    /// `kubernetes 1.34.4, etcd 3.4.23`, for people.
    #[must_use]
    pub fn description(&self) -> String {
        let version = |name: &str| self.0.get(name).map_or("?", |part| part.version.as_str());
        format!("kubernetes {}, etcd {}", version("kubernetes"), version("etcd-server"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_parts_are_found_and_others_are_named_with_their_reason() {
        let ready = r#"{"version": "1.34.4", "path": "/c/kubernetes", "state": "ready"}"#;
        let etcd = r#"{"version": "3.4", "path": "/c/etcd", "state": "ready"}"#;
        let whole = format!(r#"{{"kubernetes": {ready}, "etcd-server": {etcd}}}"#);
        let parts = Parts::parse(&whole).unwrap();
        assert_eq!(parts.kubernetes("kubectl"), Ok("/c/kubectl".into()));
        assert_eq!(parts.description(), "kubernetes 1.34.4, etcd 3.4");
        assert!(parts.path("pause").is_err());

        let skipped = r#"{"version": "1", "path": "", "state": "skipped", "why": "go is missing"}"#;
        let error = Parts::parse(&format!(r#"{{"kubernetes": {skipped}}}"#)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("kubernetes (go is missing)"), "{text}");
        assert!(text.contains("etcd-server (not in the list)"), "{text}");
        assert!(matches!(Parts::parse("{"), Err(PartsError::Unreadable(_))));
    }
}
