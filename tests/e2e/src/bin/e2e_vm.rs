//! `make e2e-vm`: a GPU node as a virtual machine joins the lab's cluster, and the sandboxes of its units are tried from
//! inside. Says so, and ends well, where this machine cannot have QEMU.
#![expect(clippy::print_stderr, reason = "what it says of its progress is its purpose")]

use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use e2e::programs::Programs;
use e2e::vm::parts::Parts;
use e2e::vm::story;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("e2e-vm: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let root = Programs::of_this_build()?.root;
    let Some(parts) = Parts::get(&root)? else {
        eprintln!("e2e-vm: skipped: no virtual machine can be had here (why: above)");
        return Ok(());
    };
    ensure!(nix::unistd::geteuid().is_root(), "a disk's files are root's: run it as root");
    let dir = root.join("target/e2e-vm");
    std::fs::create_dir_all(&dir).context("could not make the folder of the run")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("could not start the runtime")?;
    runtime.block_on(story::tell(&dir, &parts, &|line| eprintln!("e2e-vm: {line}")))
}
