//! What the watch keeps: what it believes, for as long as the boot lasts, and what earlier boots had.

use contract::ErrorChain;
use contract::names::{WATCH_RUN_DIR, WATCH_STATE_DIR};
use serde::{Deserialize, Serialize};

use super::health::Health;
use super::health::history::History;
use crate::host::{Root, clock, files};

/// In the run directory.
const HEALTH: &str = "health.json";
/// In the state directory.
const HISTORY: &str = "history.json";

/// What is kept for the boot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Kept {
    /// The boot that it belongs to.
    pub(super) boot: String,
    /// What is believed.
    pub(super) health: Health,
    /// The last record of the kernel log that was taken.
    pub(super) kernel_log: Option<u64>,
}

/// Reads and writes both.
#[derive(Debug)]
pub(super) struct Store {
    root: Root,
    written: Option<Kept>,
}

impl Store {
    /// The store of this node, what it has of this boot, and of the earlier ones. What cannot be read is
    /// begun anew: a torn file must not keep us from watching.
    pub(super) fn open(root: &Root) -> (Self, Kept, History) {
        let boot = clock::boot_id(root).unwrap_or_default();
        let kept: Kept = read(root, WATCH_RUN_DIR, HEALTH);
        let kept =
            if kept.boot == boot { kept } else { Kept { boot: boot.clone(), ..Kept::default() } };
        let history = History { boot, ..read(root, WATCH_STATE_DIR, HISTORY) };
        (Self { root: root.clone(), written: None }, kept, history)
    }

    /// Writes what is believed, when that is not what was written last.
    pub(super) fn keep(&mut self, kept: &Kept) {
        if self.written.as_ref() == Some(kept) {
            return;
        }
        write(&self.root, WATCH_RUN_DIR, HEALTH, kept);
        // Also when it failed: it will be tried again with the next change, and not all the time.
        self.written = Some(kept.clone());
    }

    /// Writes what the boots had.
    pub(super) fn remember(&self, history: &History) {
        write(&self.root, WATCH_STATE_DIR, HISTORY, history);
    }
}

fn read<T: for<'de> Deserialize<'de> + Default>(root: &Root, directory: &str, name: &str) -> T {
    let path = root.path(directory).join(name);
    let Ok(bytes) = files::read(&path) else { return T::default() };
    serde_json::from_slice(&bytes).unwrap_or_else(|error| {
        tracing::warn!(path = %path.display(), %error, "begun anew: it cannot be understood");
        T::default()
    })
}

fn write<T: Serialize>(root: &Root, directory: &str, name: &str, value: &T) {
    let directory = root.path(directory);
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    // On a node systemd has made the directory.
    let made = files::make_dir(&directory, 0o755);
    if let Err(error) =
        made.and_then(|()| files::write_atomic(&directory.join(name), &bytes, 0o644))
    {
        tracing::warn!(error = %ErrorChain(&error), "what is believed could not be kept");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_ends_with_the_boot_and_survives_anything_else() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        let boot = |id: &str| {
            fs::create_dir_all(root.path("/proc/sys/kernel/random")).unwrap();
            fs::write(root.path("/proc/sys/kernel/random/boot_id"), id).unwrap();
        };
        boot("one");
        let (mut store, mut kept, mut history) = Store::open(&root);
        assert_eq!((kept.boot.as_str(), kept.kernel_log), ("one", None));
        kept.kernel_log = Some(7);
        store.keep(&kept);
        history.remember("GPU-1/48");
        store.remember(&history);

        let (_, again, _) = Store::open(&root);
        assert_eq!(again, kept);
        boot("two");
        let (_, anew, history) = Store::open(&root);
        assert_eq!((anew.boot.as_str(), anew.kernel_log), ("two", None));
        assert_eq!(history.earlier("GPU-1/48"), 1);

        boot("one");
        fs::write(root.path(WATCH_RUN_DIR).join(HEALTH), "{\"boot\":\"one\",\"hea").unwrap();
        assert_eq!(Store::open(&root).1.kernel_log, None);
    }
}
