//! What was tried, on disk: written before it is begun and after it has ended, and kept across the
//! reboot that may be part of it.

use contract::Finding;
use contract::join_report::Repair;
use contract::names::JOIN_STATE_DIR;
use serde::{Deserialize, Serialize};

use super::rungs::Step;
use crate::host::files::FileError;
use crate::host::{Root, files};

const FILE: &str = "repairs.json";

/// Everything that was tried since the node was Ready last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// In order.
    pub tried: Vec<Tried>,
}

/// One thing that was tried.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Tried {
    /// What for.
    pub reason: String,
    /// The rung's label.
    pub rung: String,
    /// What was done, in words.
    pub action: String,
    /// The boot in which it was.
    pub boot: String,
    /// It was not done: it would have been.
    pub observed: bool,
    /// Whether it is known to have ended, and how; none where a kill or a reboot came in between.
    pub done: Option<bool>,
    /// Whether the reason was gone at the next look.
    pub helped: Option<bool>,
}

impl Tried {
    /// What the report says of it.
    #[must_use]
    pub fn report(&self) -> Repair {
        let action =
            if self.observed { format!("would {}", self.action) } else { self.action.clone() };
        let helped = self.helped.unwrap_or_default();
        Repair { reason: self.reason.clone(), action, helped }
    }
}

impl Memory {
    /// What is remembered; nothing where there is nothing that can be read.
    #[must_use]
    pub fn load(root: &Root) -> Self {
        match files::read(&path(root)) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                // Better nothing is repaired than something twice: what was tried is not known.
                tracing::warn!(%error, "the memory of repairs is unreadable");
                Self::full()
            }),
            Err(_) => Self::default(),
        }
    }

    /// As if the last rung had been tried for everything.
    fn full() -> Self {
        let rung = super::rungs::Rung::Reboot.label();
        Self { tried: vec![Tried { action: rung.clone(), rung, ..Tried::default() }] }
    }

    /// What was tried has helped against whatever is not found any more.
    pub fn judge(&mut self, findings: &[Finding]) {
        for tried in self.tried.iter_mut().filter(|tried| !tried.observed) {
            if tried.helped.is_none() {
                let is_there = findings.iter().any(|found| found.reason.as_str() == tried.reason);
                tried.helped = Some(!is_there);
            }
        }
    }

    /// A step is about to be taken, or would be.
    pub fn begin(&mut self, step: &Step, boot: &str, observed: bool) {
        self.tried.push(Tried {
            reason: step.reason.name().to_owned(),
            rung: step.rung.label(),
            action: step.action(),
            boot: boot.to_owned(),
            observed,
            ..Tried::default()
        });
    }

    /// The step that was begun last has ended.
    pub fn end(&mut self, well: bool) {
        if let Some(last) = self.tried.last_mut() {
            last.done = Some(well);
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn try_save(&self, root: &Root) -> Result<(), FileError> {
        if self.tried.is_empty() {
            return Ok(());
        }
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        files::make_dir(&root.path(JOIN_STATE_DIR), 0o700)?;
        files::write_atomic(&path(root), &bytes, 0o600)
    }

    /// Writes it; a failure is logged.
    pub fn save(&self, root: &Root) {
        if let Err(error) = self.try_save(root) {
            tracing::warn!(error = %contract::ErrorChain(&error), "repairs are not remembered");
        }
    }

    /// Forgets it all.
    pub fn forget(root: &Root) {
        if path(root).exists()
            && let Err(error) = files::remove(&path(root))
        {
            tracing::warn!(error = %contract::ErrorChain(&error), "repairs are not forgotten");
        }
    }
}

fn path(root: &Root) -> std::path::PathBuf {
    root.path(JOIN_STATE_DIR).join(FILE)
}
