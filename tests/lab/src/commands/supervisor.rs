//! `lab supervisor`: the lab itself, as `lab up` starts it.

use anyhow::Context as _;
use contract::ExitCode;
use tracing_subscriber::EnvFilter;

use crate::cli::SupervisorArgs;
use crate::directory::LabDirectory;

pub(super) async fn run(arguments: SupervisorArgs) -> anyhow::Result<ExitCode> {
    let filter = EnvFilter::try_from_env("LAB_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let options = serde_json::from_str(&arguments.options).context("could not read --options")?;
    let directory = LabDirectory::create(&arguments.place.dir)?;
    crate::supervisor::run(directory, options).await?;
    Ok(ExitCode::Success)
}
