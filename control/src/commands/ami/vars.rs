//! `control ami vars`: a definition as Packer's variables; what `make image` validates every definition by.

use std::path::Path;

use contract::ExitCode;

use crate::ami::definition;
use crate::ami::variables::{self, Build};
use crate::cli::AmiVars;
use crate::commands::{Context, session};
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// The definition's problems, or when there is no tarball.
pub async fn run(args: &AmiVars, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let definition = definition::load(&args.definition)?;
    let region = context.global.region.clone().or_else(|| std::env::var("AWS_REGION").ok());
    let region = region.ok_or_else(|| {
        Stated::new(ExitCode::Usage, "no region is set").with_hint("name it with --region")
    })?;
    let artifact = session::artifact(args.agent_tarball.as_deref()).await?;
    let build = Build {
        region: &region,
        source: &args.source_ami,
        tarball: &artifact.path,
        sha256: &artifact.sha256,
        agent: args.agent_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION")),
        manifest: Path::new("manifest.json"),
        stamp: "validate",
    };
    let variables = variables::of(&definition, &build);
    context.printer.line(serde_json::to_string_pretty(&variables)?);
    Ok(ExitCode::Success)
}
