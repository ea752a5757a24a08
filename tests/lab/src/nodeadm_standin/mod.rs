//! `nodeadm` of a process node: a stand-in that takes the same sources, merges and validates them
//! in the same way, and leaves the same files and log lines as AWS's nodeadm.
//!
//! Its two phases are `init --skip run` (config) and `init --skip config` (run). What it leaves
//! out of the original: SOCI, Outposts, the resolver.

mod cli;
mod config;
mod containerd;
mod enrich;
mod init;
mod kubelet;
mod log;
mod merge;
mod sources;

pub(crate) use init::ENVIRONMENT_OF_ALL;

use std::path::Path;
use std::process::ExitCode;

/// Answers one call of `ROOT/usr/bin/nodeadm`.
#[must_use]
pub fn main(root: &Path, arguments: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return ExitCode::FAILURE };
    match runtime.block_on(cli::run(root, arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal("Command failed", &contract::ErrorChain(&error).to_string());
            ExitCode::FAILURE
        }
    }
}
