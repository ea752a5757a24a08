//! The programs on the GPUs, as `/proc` shows them: no driver is asked, and reading a state never waits.

use std::collections::BTreeMap;

use super::checks::over_time::StuckProcess;
use super::sample::GpuSample;
use crate::host::{Root, files};

/// Those of the programs that NVML names which are in an uninterruptible wait, or dead and not collected.
#[must_use]
pub fn stuck(root: &Root, gpus: &[GpuSample]) -> Vec<StuckProcess> {
    let mut users: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for gpu in gpus {
        for pid in &gpu.readings.processes {
            users.entry(*pid).or_default().push(gpu.index);
        }
    }
    let of = |(pid, gpus): (u32, Vec<u32>)| {
        let text = files::read_text(&root.path(format!("/proc/{pid}/stat"))).ok()?;
        let (name, state, started) = parse(&text)?;
        matches!(state, 'D' | 'Z').then_some(StuckProcess { pid, started, name, state, gpus })
    };
    users.into_iter().filter_map(of).collect()
}

/// Name, state and start of `4242 (python3 -c) D 1 …`: the name may hold anything, brackets too.
fn parse(text: &str) -> Option<(String, char, u64)> {
    let (before, rest) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    // The third field is the state, the twenty-second the start.
    let started = fields.nth(18)?.parse().ok()?;
    Some((name, state, started))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::gpu::sample::Readings;

    #[test]
    fn what_hangs_or_is_dead_is_found_by_its_state() {
        let directory = tempfile::tempdir().unwrap();
        let root = Root::new(directory.path());
        for (pid, name, state) in
            [(10, "python3", 'D'), (11, "a (b) c", 'Z'), (12, "train", 'R'), (13, "other", 'D')]
        {
            fs::create_dir_all(root.path(format!("/proc/{pid}"))).unwrap();
            let rest = "1 10 10 0 -1 4194304 1 0 0 0 5 6 0 0 20 0 1 0 7700 0 0";
            let text = format!("{pid} ({name}) {state} {rest}\n");
            fs::write(root.path(format!("/proc/{pid}/stat")), text).unwrap();
        }
        let gpu = |index, processes: &[u32]| GpuSample {
            index,
            readings: Readings { processes: processes.to_vec(), ..Readings::default() },
            ..GpuSample::default()
        };
        // 13 is on no GPU, 99 is gone.
        let found = stuck(&root, &[gpu(0, &[10, 12]), gpu(1, &[10, 11, 99])]);
        let found: Vec<_> = found
            .iter()
            .map(|p| (p.pid, p.name.as_str(), p.state, p.started, &p.gpus[..]))
            .collect();
        assert_eq!(
            found,
            [(10, "python3", 'D', 7700, &[0, 1][..]), (11, "a (b) c", 'Z', 7700, &[1][..])]
        );
    }
}
