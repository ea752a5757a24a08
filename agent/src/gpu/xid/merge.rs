//! One error, told twice: by the kernel log, which has them all, and by NVML, which has most.
//!
//! What the kernel log says counts at once. What NVML says counts when the kernel log has not said
//! it within two seconds, one for one: five of a kind are five.

use std::time::Duration;

use super::Record;

/// How far apart the two may be.
const APART: Duration = Duration::from_secs(2);

/// Joins the two sources. Times are since the boot.
#[derive(Clone, Debug, Default)]
pub struct Merge {
    /// What the kernel log has said and NVML not yet.
    logged: Vec<(Duration, String, u32)>,
    /// What NVML has said and the kernel log not yet.
    told: Vec<(Duration, Record)>,
}

impl Merge {
    /// The kernel log says it: always new.
    pub fn logged(&mut self, record: &Record, at: Duration) {
        let twin = self.told.iter().position(|(when, told)| {
            is_near(*when, at) && told.pci == record.pci && told.code == record.code
        });
        match twin {
            Some(twin) => drop(self.told.remove(twin)),
            None => self.logged.push((at, record.pci.clone(), record.code)),
        }
    }

    /// NVML says it.
    pub fn told(&mut self, record: Record, at: Duration) {
        let twin = self.logged.iter().position(|(when, pci, code)| {
            is_near(*when, at) && *pci == record.pci && *code == record.code
        });
        match twin {
            Some(twin) => drop(self.logged.swap_remove(twin)),
            None => self.told.push((at, record)),
        }
    }

    /// What only NVML has said, once the kernel log has had its time.
    pub fn due(&mut self, now: Duration) -> Vec<Record> {
        self.logged.retain(|(at, ..)| is_near(*at, now));
        let (waiting, due) =
            std::mem::take(&mut self.told).into_iter().partition(|(at, _)| is_near(*at, now));
        self.told = waiting;
        due.into_iter().map(|(_, record)| record).collect()
    }
}

fn is_near(one: Duration, other: Duration) -> bool {
    one.abs_diff(other) <= APART
}

#[cfg(test)]
mod tests {
    use super::*;

    fn xid(code: u32) -> Record {
        Record { pci: "0000:53:00.0".into(), code, ..Record::default() }
    }

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_error_told_by_both_is_one() {
        for (logged, told) in [(1000, 2500), (2500, 1000), (1000, 1000)] {
            let mut merge = Merge::default();
            for (when, is_log) in [(logged, true), (told, false)] {
                if is_log {
                    merge.logged(&xid(48), at(when))
                } else {
                    merge.told(xid(48), at(when))
                }
            }
            // In the order of time.
            let mut merge = Merge::default();
            if logged <= told {
                merge.logged(&xid(48), at(logged));
                merge.told(xid(48), at(told));
            } else {
                merge.told(xid(48), at(told));
                merge.logged(&xid(48), at(logged));
            }
            assert_eq!(merge.due(at(60_000)), []);
        }
    }

    #[test]
    fn what_only_nvml_says_counts_after_two_seconds() {
        let mut merge = Merge::default();
        merge.told(xid(48), at(1000));
        assert_eq!(merge.due(at(2900)), []);
        assert_eq!(merge.due(at(3001)), [xid(48)]);
        assert_eq!(merge.due(at(9000)), []);
    }

    #[test]
    fn repeats_and_others_are_their_own() {
        let mut merge = Merge::default();
        merge.logged(&xid(31), at(1000));
        merge.told(xid(31), at(1100));
        merge.told(xid(31), at(1200));
        merge.told(xid(43), at(1300));
        let other = Record { pci: "0000:64:00.0".into(), ..xid(31) };
        merge.told(other.clone(), at(1400));
        merge.logged(&xid(31), at(9000));
        assert_eq!(merge.due(at(10_000)), [xid(31), xid(43), other]);
    }
}
