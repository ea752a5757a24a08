//! Our own memory: it holds the role's keys and user data, so it is never written out.

use super::Root;

/// Forbids core dumps and other processes' looks into this one, on a node of its own. `LimitCORE=0` in
/// the units is not enough: a `core_pattern` that is a pipe takes dumps whatever the limit says
/// (core(5)).
pub fn keep_private(root: &Root) {
    // In a directory that looks like a node, whoever runs the node looks at our /proc entries.
    if root.is_host()
        && let Err(error) = nix::sys::prctl::set_dumpable(false)
    {
        tracing::warn!(%error, "core dumps are not forbidden");
    }
}
