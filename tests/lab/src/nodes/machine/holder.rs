//! Who has this host's machines: one lab at a time, written down beside what it changed for the
//! whole host, so that a lab that was killed can be cleared away by the next.
//!
//! kubelet sets kernel.panic, kernel.panic_on_oops and vm.overcommit_memory, which belong to the
//! host's only kernel; the lab itself raises fs.inotify.max_user_instances.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::directory::{DirectoryError, ignore_missing, write_atomically};
use crate::processes::ProcessId;

/// Below `/run`, because a restart of the host resets the settings as well.
const PATH: &str = "/run/rollcall-lab/machines.json";
/// What is changed and the lab puts back.
const SETTINGS: [&str; 4] =
    ["kernel/panic", "kernel/panic_on_oops", "vm/overcommit_memory", INOTIFY_INSTANCES];
/// The kernel counts them by user, so all machines share the host's: kubelet, containerd and
/// systemd of a dozen machines need more than the usual 128, and kubelet ends without.
const INOTIFY_INSTANCES: &str = "fs/inotify/max_user_instances";
const INOTIFY_ENOUGH: u32 = 4096;

/// The lab that has machines, and the host's settings as it found them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Holder {
    /// Its supervisor.
    supervisor: ProcessId,
    /// Its directory.
    pub(super) lab: PathBuf,
    /// Values by name below `/proc/sys`.
    settings: BTreeMap<String, String>,
}

impl Holder {
    /// The lab that holds the machines, alive or killed.
    pub(super) fn read() -> Option<Self> {
        Self::read_at(Path::new(PATH))
    }

    fn read_at(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    /// This process, for the lab in `lab`, with the settings as they are now.
    pub(super) fn here(lab: &Path) -> Self {
        let pid = std::process::id().cast_signed();
        let supervisor = ProcessId::of(pid).unwrap_or(ProcessId { pid, started: 0 });
        Self { supervisor, lab: lab.to_owned(), settings: settings_below(Path::new("/proc/sys")) }
    }

    /// Writes it down, before anything is changed.
    ///
    /// # Errors
    /// When `/run` cannot be written.
    pub(super) fn write(&self) -> Result<(), DirectoryError> {
        let json = serde_json::to_vec_pretty(self).unwrap_or_default();
        write_atomically(Path::new(PATH), &json, 0o600)
    }

    /// Lets a dozen machines watch their files.
    pub(super) fn make_room(&self) {
        let has = self.settings.get(INOTIFY_INSTANCES).and_then(|text| text.trim().parse().ok());
        if has.is_none_or(|has: u32| has < INOTIFY_ENOUGH)
            && let Err(error) = std::fs::write(
                Path::new("/proc/sys").join(INOTIFY_INSTANCES),
                INOTIFY_ENOUGH.to_string(),
            )
        {
            tracing::warn!(%error, "few machines will find room for their kubelets");
        }
    }

    /// Whether its supervisor lives.
    pub(super) fn is_alive(&self) -> bool {
        self.supervisor.is_alive()
    }

    /// Puts the settings back and forgets the lab.
    pub(super) fn release(&self) {
        self.restore_below(Path::new("/proc/sys"));
        if let Err(error) = ignore_missing(std::fs::remove_file(PATH)) {
            tracing::warn!(path = PATH, %error, "not removed");
        }
    }

    fn restore_below(&self, sys: &Path) {
        for (name, value) in &self.settings {
            let path = sys.join(name);
            if std::fs::read_to_string(&path).is_ok_and(|now| now == *value) {
                continue;
            }
            if let Err(error) = std::fs::write(&path, value) {
                tracing::warn!(path = %path.display(), %error, "setting not put back");
            }
        }
    }
}

fn settings_below(sys: &Path) -> BTreeMap<String, String> {
    let value = |name: &str| Some((name.to_owned(), std::fs::read_to_string(sys.join(name)).ok()?));
    SETTINGS.into_iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubelet_has_changed_is_put_back_from_the_record_on_disk() {
        let dir = tempfile::tempdir().unwrap();
        for name in SETTINGS {
            write_atomically(&dir.path().join(name), b"0\n", 0o644).unwrap();
        }
        let file = dir.path().join("machines.json");
        let settings = settings_below(dir.path());
        let holder = Holder { settings, ..Holder::here(Path::new("/lab")) };
        std::fs::write(&file, serde_json::to_vec(&holder).unwrap()).unwrap();
        std::fs::write(dir.path().join("kernel/panic"), "10\n").unwrap();

        let read = Holder::read_at(&file).unwrap();
        assert_eq!((&read, read.is_alive()), (&holder, true));
        read.restore_below(dir.path());
        assert_eq!(settings_below(dir.path()), holder.settings);
        assert_eq!(holder.settings.len(), SETTINGS.len());
    }

    #[test]
    fn a_killed_labs_supervisor_is_not_alive() {
        let gone = ProcessId { pid: i32::MAX, started: 1 };
        let holder = Holder { supervisor: gone, ..Holder::here(Path::new("/lab")) };
        assert!(!holder.is_alive());
        assert_eq!(Holder::read_at(Path::new("/nonexistent")), None);
    }
}
