//! Which branches of NVIDIA's data-center driver know which GPUs: what the agent's gate and the choice of
//! an image both ask.

/// The first data-center driver branches that know a model, by EC2's name for it, from the lists of
/// supported GPUs in NVIDIA's release notes (docs.nvidia.com/datacenter/tesla). A model that is not
/// in the table is known by every branch that EKS's images have had.
const FIRST_BRANCHES: [(&str, u32); 9] = [
    ("RTX PRO 4500", 595),
    ("RTX PRO Server 6000", 570),
    ("B300", 580),
    ("GB200", 570),
    ("B200", 570),
    ("H200", 535),
    ("H100", 525),
    ("L40S", 525),
    ("L4", 525),
];

/// The first driver branch that knows `model`.
#[must_use]
pub fn first_branch(model: &str) -> Option<u32> {
    FIRST_BRANCHES.iter().find(|(name, _)| *name == model).map(|(_, branch)| *branch)
}

/// The last branches that know a model: NVIDIA dropped Volta with the branch after 580
/// (docs.nvidia.com/datacenter/tesla, release notes of 590).
const LAST_BRANCHES: [(&str, u32); 1] = [("V100", 580)];

/// The last driver branch that knows `model`; none while there is no end to it.
#[must_use]
pub fn last_branch(model: &str) -> Option<u32> {
    LAST_BRANCHES.iter().find(|(name, _)| *name == model).map(|(_, branch)| *branch)
}
