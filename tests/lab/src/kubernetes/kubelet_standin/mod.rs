//! The double of kubelet on a process node, and of what kubelet runs there.

/// Runs the kubelet stand-in until SIGTERM.
#[must_use]
pub fn main() -> std::process::ExitCode {
    std::process::ExitCode::FAILURE
}
