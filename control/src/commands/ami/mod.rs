//! `control ami`: images of our own, one file a verb of it.

pub mod bake;
pub mod check;
pub mod list;
pub mod promote;
pub mod prune;
pub mod resolve;
pub mod vars;

use contract::ExitCode;

use crate::ami::catalogue;
use crate::ami::image::Image;
use crate::aws::Clients;
use crate::cli::AmiCommand;
use crate::commands::Context;
use crate::failure::Stated;

/// Runs the verb.
///
/// # Errors
/// What it could not do.
pub async fn run(command: &AmiCommand, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    match command {
        AmiCommand::Resolve(args) => resolve::run(args, context).await,
        AmiCommand::Vars(args) => vars::run(args, context).await,
        AmiCommand::Bake(args) => bake::run(args, context).await,
        AmiCommand::List(args) => list::run(args, context).await,
        AmiCommand::Check(args) => check::run(args, context).await,
        AmiCommand::Promote(args) => promote::run(args, context).await,
        AmiCommand::Prune(args) => prune::run(args, context).await,
    }
}

/// The image with that id.
async fn named(clients: &Clients, id: &str) -> anyhow::Result<Image> {
    let found = catalogue::named(clients, [id.to_owned()]).await?.remove(id);
    found.ok_or_else(|| {
        let message = format!("there is no image `{id}` in {} that you may use", clients.region);
        Stated::new(ExitCode::Usage, message).with_hint("control ami list").into()
    })
}

/// Now, to the millisecond: what was promoted last is told by it.
fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
