//! The parts that a GPU can be cut into.

use crate::state::{Gpu, MigDevice};

/// Profiles of the models with MIG: name, slices of seven, memory as a share of eight.
const PROFILES: [(&str, u32, u64); 10] = [
    ("1g.5gb", 1, 1),
    ("1g.10gb", 1, 1),
    ("1g.18gb", 1, 1),
    ("1g.23gb", 1, 1),
    ("2g.20gb", 2, 2),
    ("3g.20gb", 3, 4),
    ("3g.40gb", 3, 4),
    ("3g.71gb", 3, 4),
    ("7g.40gb", 7, 8),
    ("7g.80gb", 7, 8),
];

/// Multiprocessors of one slice.
const PER_SLICE: u32 = 16;

/// Whether there is a profile of that name.
#[must_use]
pub fn is_mig_profile(name: &str) -> bool {
    PROFILES.iter().any(|(profile, ..)| *profile == name)
}

/// The parts of a GPU that is cut like this; none for a profile that nobody knows.
#[must_use]
pub fn mig_devices(gpu: &Gpu, profiles: &[String]) -> Option<Vec<MigDevice>> {
    let parts = (0_u32..).zip(profiles).map(|(index, name)| {
        let (_, slices, eighths) = PROFILES.iter().find(|(profile, ..)| profile == name)?;
        Some(MigDevice {
            gi_id: index + 1,
            ci_id: 0,
            profile: name.clone(),
            uuid: super::uuid(&format!("{}/mig/{index}/{name}", gpu.uuid))
                .replacen("GPU-", "MIG-", 1),
            memory_mib: gpu.memory_mib * eighths / 8,
            multiprocessors: slices * PER_SLICE,
        })
    });
    parts.collect()
}
