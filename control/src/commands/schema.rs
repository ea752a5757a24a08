//! `control schema`: the JSON Schemas of fleet files and of the lines of `-o jsonl`, for editors and
//! for CI.

use contract::ExitCode;

use crate::cli::{Format, SchemaArgs};
use crate::commands::Context;
use crate::config::{json_schema, schema};
use crate::output::events::SCHEMA;

/// Runs the verb.
///
/// # Errors
/// When stdout cannot be written.
pub fn run(args: &SchemaArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    if args.events {
        context.printer.line(SCHEMA.trim_end());
        return Ok(ExitCode::Success);
    }
    let schema = json_schema::of(&schema::FLEET);
    context.printer.data(Format::Json, &schema, |_, _| String::new())?;
    Ok(ExitCode::Success)
}
