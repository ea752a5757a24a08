//! What a channel has sent or still has to send, kept on disk, so that a restart or a reboot neither
//! forgets an undelivered report nor sends one twice.

use std::path::PathBuf;

use contract::ErrorChain;
use contract::names::JOIN_STATE_DIR;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::host::{Root, files};

/// The spool of one channel.
#[derive(Debug)]
pub struct Spool {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Spooled<M> {
    delivered: bool,
    /// Whether a call to take it back may have been made.
    #[serde(default)]
    withdrawing: bool,
    message: M,
}

impl Spool {
    /// The spool of the channel `name`.
    #[must_use]
    pub fn of(root: &Root, name: &str) -> Self {
        Self { path: root.path(JOIN_STATE_DIR).join("spool").join(format!("{name}.json")) }
    }

    /// Remembers a message; a failure is logged and holds nobody up.
    pub fn keep(&self, message: &impl Serialize, delivered: bool) {
        self.write(&Spooled { delivered, withdrawing: false, message });
    }

    /// Remembers that what was sent is being taken back, or that it was refused to be.
    pub fn withdraw(&self, withdrawing: bool) {
        let kept: Option<Spooled<serde_json::Value>> = self.read();
        let (delivered, message) = kept.map(|kept| (kept.delivered, kept.message)).unzip();
        let (delivered, message) = (delivered.unwrap_or_default(), message.unwrap_or_default());
        self.write(&Spooled { delivered, withdrawing, message });
    }

    /// Whether a call to take it back may have been made, and its answer lost.
    #[must_use]
    pub fn is_withdrawing(&self) -> bool {
        self.read::<serde_json::Value>().is_some_and(|spooled| spooled.withdrawing)
    }

    fn write(&self, spooled: &Spooled<impl Serialize>) {
        let bytes = serde_json::to_vec(spooled).unwrap_or_default();
        let directory = self.path.parent().unwrap_or(&self.path);
        let kept = files::make_dir(directory, 0o700)
            .and_then(|()| files::write_atomic(&self.path, &bytes, 0o600));
        if let Err(error) = kept {
            tracing::warn!(error = %ErrorChain(&error), "the report was not spooled");
        }
    }

    /// Forgets what was sent.
    pub fn forget(&self) {
        if let Err(error) = files::remove(&self.path) {
            tracing::warn!(error = %ErrorChain(&error), "the spool was not emptied");
        }
    }

    /// Whether something may have been sent. A torn file means: perhaps.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.path.exists()
    }

    /// What is known to have arrived.
    #[must_use]
    pub fn delivered<M: DeserializeOwned>(&self) -> Option<M> {
        self.read().filter(|spooled| spooled.delivered).map(|spooled| spooled.message)
    }

    /// What may not have arrived.
    #[must_use]
    pub fn undelivered<M: DeserializeOwned>(&self) -> Option<M> {
        self.read().filter(|spooled| !spooled.delivered).map(|spooled| spooled.message)
    }

    fn read<M: DeserializeOwned>(&self) -> Option<Spooled<M>> {
        serde_json::from_slice(&files::read(&self.path).ok()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_what_was_sent_and_what_was_not() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::of(&Root::new(dir.path()), "x");
        assert!(!spool.is_used());
        spool.keep(&"a", false);
        assert_eq!(spool.undelivered::<String>().as_deref(), Some("a"));
        assert_eq!(spool.delivered::<String>(), None);
        spool.keep(&"a", true);
        assert_eq!(spool.delivered::<String>().as_deref(), Some("a"));
        spool.withdraw(true);
        assert!(spool.is_withdrawing() && spool.delivered::<String>().is_some());
        std::fs::write(&spool.path, "{torn").unwrap();
        assert!(spool.is_used() && spool.delivered::<String>().is_none());
        spool.withdraw(true);
        assert!(spool.is_withdrawing() && spool.undelivered::<String>().is_none());
        spool.forget();
        assert!(!spool.is_used());
    }
}
