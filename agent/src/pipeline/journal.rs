//! What the join remembers across crashes: which boot, which proving, how far.
//!
//! Written before and after each phase and each effect. Facts are always gathered anew, so a journal
//! that is torn, missing or full of garbage costs the number of the attempt, and one more run of
//! nodeadm's config phase.

use std::collections::BTreeMap;

use contract::names::JOIN_STATE_DIR;
use contract::{ErrorChain, Phase};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::points::Effect;
use crate::host::{Root, files};

/// Version of the journal's format.
const VERSION: u32 = 1;

/// The join's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Journal {
    version: u32,
    /// The boot that the rest is about.
    pub boot: String,
    /// Number of the latest proving in this boot.
    pub attempt: u32,
    /// What has begun and ended in that proving, in order.
    pub steps: Vec<Step>,
    /// What the join has changed in this boot, or was about to.
    pub effects: BTreeMap<Effect, Progress>,
}

/// How far an effect has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// What it was made for: a hash of the configuration, the verdict that is reported.
    pub key: String,
    /// Whether it is known to have been made.
    pub done: bool,
}

/// A phase that has begun or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Which.
    pub phase: Phase,
    /// How it ended; none while it runs, or ran when the process ended.
    pub passed: Option<bool>,
}

impl Journal {
    /// The memory of this boot, empty when there is none.
    #[must_use]
    pub fn load(root: &Root, boot: &str) -> Self {
        let fresh = Self { version: VERSION, boot: boot.to_owned(), ..Self::default() };
        let bytes = match files::read(&path(root)) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => return fresh,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the journal cannot be read");
                return fresh;
            }
        };
        match serde_json::from_slice::<Self>(&bytes) {
            Ok(journal) if journal.version == VERSION && journal.boot == boot => journal,
            Ok(_) => fresh,
            Err(error) => {
                tracing::warn!(%error, "the journal is unreadable and begins anew");
                fresh
            }
        }
    }

    /// Writes it; a failure is logged and holds nobody up. It is of this boot: [`Self::load`] takes no
    /// other.
    pub fn save(&self, root: &Root) {
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let saved = files::make_dir(&root.path(JOIN_STATE_DIR), 0o700)
            .and_then(|()| files::write_for_this_boot(&path(root), &bytes, 0o600));
        if let Err(error) = saved {
            tracing::warn!(error = %ErrorChain(&error), "the journal was not written");
        }
    }

    /// A new proving begins.
    pub fn begin_attempt(&mut self) {
        self.attempt += 1;
        self.steps.clear();
    }

    /// A phase begins.
    pub fn begin(&mut self, phase: Phase) {
        self.steps.push(Step { phase, passed: None });
    }

    /// A phase has ended.
    pub fn end(&mut self, phase: Phase, passed: bool) {
        if let Some(step) = self.steps.iter_mut().rfind(|step| step.phase == phase) {
            step.passed = Some(passed);
        }
    }

    /// An effect is about to be made, or has been.
    pub fn mark(&mut self, effect: Effect, key: &str, done: bool) {
        self.effects.insert(effect, Progress { key: key.to_owned(), done });
    }
}

/// SHA-256 of a merged NodeConfig, in hex: the same in every build of the agent. The order of a
/// map's keys does not count.
#[must_use]
pub fn config_hash(merged: &serde_json::Value) -> String {
    let digest = Sha256::digest(sorted(merged).to_string());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(value: &serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().map(|(k, v)| (k.clone(), sorted(v))).collect();
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(entries.into_iter().collect())
        }
        Value::Array(list) => list.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

fn path(root: &Root) -> std::path::PathBuf {
    root.path(JOIN_STATE_DIR).join("journal.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(boot: &str) -> Journal {
        let mut journal = Journal { version: VERSION, boot: boot.into(), ..Journal::default() };
        journal.begin_attempt();
        journal.begin(Phase::Identify);
        journal.end(Phase::Identify, true);
        journal.begin(Phase::Configure);
        journal.mark(Effect::Configure, "7", true);
        journal
    }

    #[test]
    fn a_configurations_hash_is_the_same_in_every_build() {
        let one = serde_json::json!({"b": [1, true], "a": {"d": "x", "c": null}});
        let hash = config_hash(&one);
        assert_eq!(hash, "488c8ac9631a14db2036d1c9eccf85ca9e722e31735efa561763cca44809d6ad");
        let other = serde_json::json!({"b": [true, 1], "a": {"d": "x", "c": null}});
        assert_ne!(config_hash(&other), hash);
    }

    #[test]
    fn remembers_within_a_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        let journal = sample("boot-1");
        journal.save(&root);
        assert_eq!(Journal::load(&root, "boot-1"), journal);
        let rebooted = Journal::load(&root, "boot-2");
        assert_eq!((rebooted.attempt, rebooted.effects.len()), (0, 0));
    }

    #[test]
    fn a_journal_cut_at_any_byte_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        sample("boot-1").save(&root);
        let whole = files::read(&path(&root)).unwrap();
        for end in 0..whole.len() {
            std::fs::write(path(&root), &whole[..end]).unwrap();
            assert_eq!(Journal::load(&root, "boot-1").attempt, 0, "cut at {end}");
        }
        for garbage in [&[0xff; 64][..], b"[]", b"{\"version\":1,\"boot\":7}", &[0; 4096]] {
            std::fs::write(path(&root), garbage).unwrap();
            assert_eq!(Journal::load(&root, "boot-1").attempt, 0);
        }
    }

    #[test]
    fn state_is_for_root_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let root = Root::new(dir.path());
        sample("boot-1").save(&root);
        let mode =
            |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path(&root)), 0o600);
        assert_eq!(mode(path(&root).parent().unwrap()), 0o700);
    }
}
