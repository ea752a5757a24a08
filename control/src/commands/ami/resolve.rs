//! `control ami resolve`: what the public parameters say today.

use contract::ExitCode;
use serde::Serialize;

use crate::ami::definition;
use crate::aws::Clients;
use crate::cli::AmiResolve;
use crate::commands::Context;
use crate::launch::image;
use crate::output::Style;

#[derive(Debug, Serialize)]
struct Resolved {
    definition: String,
    image: String,
    parameter: String,
}

/// Runs the verb.
///
/// # Errors
/// A definition's problems, or when there is no such parameter.
pub async fn run(args: &AmiResolve, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let definitions: Result<Vec<_>, _> =
        args.definitions.iter().map(|path| definition::load(path)).collect();
    let definitions = definitions?;
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let mut rows = Vec::new();
    for definition in definitions {
        let image = image::resolve(&clients, &definition.parameter).await?;
        let (definition, parameter) = (definition.name, definition.parameter);
        rows.push(Resolved { definition, image, parameter });
    }
    context.printer.data(args.output.output, &rows, |rows, style| table(rows, style))?;
    Ok(ExitCode::Success)
}

fn table(rows: &[Resolved], style: Style) -> String {
    let width = rows.iter().map(|row| row.definition.len()).max().unwrap_or(0);
    let line = |row: &Resolved| format!("{:width$}  {}", row.definition, style.cyan(&row.image));
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}
