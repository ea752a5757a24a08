//! `control schema`: the JSON Schema of fleet files, for editors and for CI.

use contract::ExitCode;

use crate::cli::Format;
use crate::commands::Context;
use crate::config::{json_schema, schema};

/// Runs the verb.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let schema = json_schema::of(&schema::FLEET);
    context.printer.data(Format::Json, &schema, |_, _| String::new())?;
    Ok(ExitCode::Success)
}
