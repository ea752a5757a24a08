//! What earlier boots had: an error that a reboot does not mend asks for another machine.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An error that was in so many earlier boots will be in the next one.
pub const REBOOTS: usize = 2;
/// How many errors are kept, and boots of each.
const KEPT: (usize, usize) = (64, 8);

/// The boots that had an error, by GPU and error. Kept in the watch's state directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct History {
    /// Ids of boots, the oldest first.
    pub faults: BTreeMap<String, Vec<String>>,
    /// The boot that this is.
    #[serde(skip)]
    pub boot: String,
}

impl History {
    /// In how many boots before this one it was.
    #[must_use]
    pub fn earlier(&self, key: &str) -> usize {
        let boots = self.faults.get(key).into_iter().flatten();
        boots.filter(|boot| **boot != self.boot).count()
    }

    /// Keeps that this boot has it. Whether that is new.
    pub fn remember(&mut self, key: &str) -> bool {
        if self.faults.len() >= KEPT.0 && !self.faults.contains_key(key) {
            return false;
        }
        let boots = self.faults.entry(key.to_owned()).or_default();
        if boots.contains(&self.boot) {
            return false;
        }
        boots.push(self.boot.clone());
        if boots.len() > KEPT.1 {
            boots.remove(0);
        }
        true
    }
}
