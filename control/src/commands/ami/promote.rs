//! `control ami promote`: an image into a channel. Going back is promoting the earlier one.

use contract::ExitCode;

use crate::ami::catalogue;
use crate::ami::image::Image;
use crate::ami::promote::{Promotion, apply, plan};
use crate::aws::Clients;
use crate::cli::{AmiPromote, Format};
use crate::commands::Context;
use crate::commands::ami::{named, now};
use crate::config::problem::Problem;
use crate::config::resolve::{Judge, check_name};
use crate::failure::Stated;
use crate::output::Style;

/// Runs the verb.
///
/// # Errors
/// When there is no such image, or it was never verified.
pub async fn run(args: &AmiPromote, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let mut judge = Judge::default();
    check_name(&mut judge, "the channel", &args.channel, 32);
    if let Some(Problem { path, message }) = judge.problems.into_iter().next() {
        return Err(Stated::new(ExitCode::Usage, format!("{path}: {message}")).into());
    }
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let image = named(&clients, &args.image).await?;
    let all = catalogue::baked(&clients).await?;
    let promotion = plan(&all, &image, &args.channel, &now(), args.force)?;
    apply(&clients, &promotion).await?;
    match args.output.output {
        Format::Table => {
            context.printer.note(said(&promotion, &image, context.printer.note_style()));
        }
        format => context.printer.data(format, &promotion, |_, _| String::new())?,
    }
    Ok(ExitCode::Success)
}

fn said(promotion: &Promotion, image: &Image, style: Style) -> String {
    let Promotion { channel, image: id, instead_of, .. } = promotion;
    if promotion.is_done() {
        return format!("{} is in {channel} already.", style.cyan(id));
    }
    let version = image.kubernetes.as_deref().unwrap_or("?");
    let mut text = format!(
        "{} {channel} is {} now, for Kubernetes {version} on {}",
        style.green("✓"),
        style.cyan(id),
        image.architecture
    );
    if let Some(former) = instead_of.first() {
        let back = style.cyan(format!("control ami promote {channel} {former}"));
        text += &format!("\n  it was {}; to go back: {back}", instead_of.join(", "));
    }
    text + "\n  pools that take it are rolled by their next `control up`, which `control plan` shows"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_to_go_back_is_said() {
        let image = Image::example("ami-0000000000000000b");
        let former = Image::example("ami-0000000000000000a").promoted("stable", "t");
        let promotion = plan(&[former], &image, "stable", "t2", false).unwrap();
        let text = said(&promotion, &image, Style::PLAIN);
        let expected = "\
✓ stable is ami-0000000000000000b now, for Kubernetes 1.34 on x86_64
  it was ami-0000000000000000a; to go back: control ami promote stable ami-0000000000000000a
  pools that take it are rolled by their next `control up`, which `control plan` shows";
        assert_eq!(text, expected);
    }
}
