//! `control ami prune`: removes images that nothing uses, and what builds left that died.

use contract::ExitCode;
use serde::Serialize;

use crate::ami::catalogue;
use crate::ami::leftovers::{self, Leftovers};
use crate::ami::prune::{Pruning, plan, remove};
use crate::aws::Clients;
use crate::cli::{AmiPrune, Format};
use crate::commands::ami::list;
use crate::commands::{Context, session};
use crate::output::Style;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    #[serde(flatten)]
    pruning: Pruning,
    /// What builds left that died.
    dead: Vec<Dead>,
    /// Whether it was removed.
    removed: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Dead {
    build: String,
    left: Leftovers,
}

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer or refuses.
pub async fn run(args: &AmiPrune, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let printer = context.printer;
    if !args.dry_run {
        session::must_be_able_to_ask(args.yes, "ami prune", context)?;
    }
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let images = catalogue::baked(&clients).await?;
    let uses = catalogue::uses(&clients).await?;
    let mut pruned =
        Pruned { pruning: plan(&images, &uses, args.keep), dead: Vec::new(), removed: false };
    for build in leftovers::dead(&clients, jiff::Timestamp::now()).await? {
        let failed = !images.iter().any(|image| image.build.as_ref() == Some(&build));
        let left = leftovers::look(&clients, &build, failed).await?;
        pruned.dead.push(Dead { build, left });
    }
    if args.output.output == Format::Table {
        printer.note(table(&pruned, printer.note_style()));
    }
    let something = !(pruned.pruning.remove.is_empty() && pruned.dead.is_empty());
    let agreed = || args.yes || printer.confirm("Remove them?");
    if something && !args.dry_run && agreed() {
        for dead in &pruned.dead {
            leftovers::remove(&clients, &dead.left).await?;
        }
        for image in &pruned.pruning.remove {
            remove(&clients, image).await?;
        }
        pruned.removed = true;
    }
    match args.output.output {
        Format::Table if pruned.removed => printer.note("Removed."),
        Format::Table => {}
        format => printer.data(format, &pruned, |_, _| String::new())?,
    }
    Ok(ExitCode::Success)
}

fn table(pruned: &Pruned, style: Style) -> String {
    let Pruning { remove, keep } = &pruned.pruning;
    let mut lines = Vec::new();
    for kept in keep {
        let id = style.cyan(format!("{:21}", kept.image.id));
        lines.push(format!("{} {id}  {}", style.dim("stays"), kept.why));
    }
    for dead in &pruned.dead {
        let ids = dead.left.ids().join(", ");
        lines.push(format!("{}  {} died: {ids}", style.red("goes"), dead.build));
    }
    match remove.as_slice() {
        [] => lines.push("No image goes.".to_owned()),
        images => {
            let snapshots: usize = images.iter().map(|image| image.snapshots.len()).sum();
            let count = format!("goes: {}", words(images.len(), snapshots));
            lines.push(format!("\n{}", style.bold(count)));
            lines.push(list::table(images, style));
        }
    }
    lines.join("\n")
}

fn words(images: usize, snapshots: usize) -> String {
    let of = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        count => format!("{count} {what}s"),
    };
    format!("{} with {}", of(images, "image"), of(snapshots, "snapshot"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ami::catalogue::Uses;
    use crate::ami::image::Image;

    #[test]
    fn what_stays_says_why() {
        let of = |id: &str| Image::example(&format!("ami-0{id:0>16}"));
        let images = [of("a").promoted("stable", "t"), of("b"), of("c")];
        let pruning = plan(&images, &Uses::new(), 2);
        let pruned = Pruned { pruning, dead: Vec::new(), removed: false };
        let text = table(&pruned, Style::PLAIN);
        let begin = "\
stays ami-0000000000000000a  in channel stable
stays ami-0000000000000000b  one of the 2 newest of its definition

goes: 1 image with 1 snapshot
IMAGE ";
        assert!(text.starts_with(begin), "{text}");
        assert!(text.contains("\n  ami-0000000000000000c  2026-11-20"), "{text}");
    }
}
