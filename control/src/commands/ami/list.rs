//! `control ami list`: the images that were baked, as their own tags tell.

use contract::ExitCode;

use crate::ami::catalogue;
use crate::ami::image::Image;
use crate::aws::Clients;
use crate::cli::AmiList;
use crate::commands::Context;
use crate::output::Style;

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer.
pub async fn run(args: &AmiList, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let clients = Clients::load(context.global.region.as_deref()).await?;
    let mut images = catalogue::baked(&clients).await?;
    images.retain(|image| {
        args.definition.as_ref().is_none_or(|name| image.definition.as_ref() == Some(name))
            && args.channel.as_ref().is_none_or(|channel| image.is_in(channel))
    });
    let empty = format!("No image that was baked is in {}.", clients.region);
    context.printer.data(args.output.output, &images, |images, style| match images.is_empty() {
        true => empty,
        false => table(images, style),
    })?;
    Ok(ExitCode::Success)
}

/// The images by definition, the newest first, for 80 columns.
pub(super) fn table(images: &[Image], style: Style) -> String {
    let mut names: Vec<&str> = images.iter().map(definition).collect();
    names.sort_unstable();
    names.dedup();
    let head = format!(
        "{:23}  {:10}  {:4}  {:6}  {:6}  {:5}  CHANNEL",
        "IMAGE", "MADE", "K8S", "ARCH", "DRIVER", "AGENT"
    );
    let mut lines = vec![style.dim(head)];
    for name in names {
        lines.push(style.bold(name));
        let of_name = images.iter().filter(|image| definition(image) == name);
        lines.extend(of_name.map(|image| row(image, style)));
    }
    lines.join("\n")
}

fn definition(image: &Image) -> &str {
    image.definition.as_deref().unwrap_or("(no definition)")
}

fn row(image: &Image, style: Style) -> String {
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "?".to_owned());
    let line = format!(
        "  {}  {:10}  {:4}  {:6}  {:6}  {:5}  {}",
        style.cyan(format!("{:21}", image.id)),
        image.created.get(..10).unwrap_or(&image.created),
        known(&image.kubernetes),
        image.architecture,
        known(&image.driver),
        known(&image.agent),
        standing(image, style),
    );
    line.trim_end().to_owned()
}

/// Where it stands: its channels, else those that it was in; and what stands against it.
fn standing(image: &Image, style: Style) -> String {
    if image.state != "available" {
        return style.yellow(&image.state);
    }
    let channels = image.channels.join(", ");
    let was: Vec<&str> = image.promoted.keys().map(String::as_str).collect();
    match (channels.is_empty(), image.verified.is_some(), was.is_empty()) {
        (false, true, _) => style.green(channels),
        (false, false, _) => format!("{} {}", style.green(channels), style.yellow("unverified")),
        (true, false, _) => style.yellow("unverified"),
        (true, true, false) => style.dim(format!("was {}", was.join(", "))),
        (true, true, true) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_stand_below_their_definition_and_fit_the_screen() {
        let of = |id: &str| Image::example(&format!("ami-0{id:0>16}"));
        let stable = of("a").promoted("beta", "t").promoted("stable", "t");
        let mut former = of("b").promoted("stable", "t");
        former.channels.clear();
        let unverified = Image { verified: None, ..of("c") };
        let arm = Image {
            architecture: "arm64".into(),
            definition: Some("al2023-standard-1.35-arm64".into()),
            kubernetes: Some("1.35".into()),
            driver: Some("none".into()),
            state: "pending".into(),
            ..of("d")
        };
        let text = table(&[stable, former, unverified, of("e"), arm], Style::PLAIN);
        let expected = format!(
            "\
IMAGE                    MADE        K8S   ARCH    DRIVER  AGENT  CHANNEL
al2023-nvidia-1.34-x86_64
  ami-0000000000000000a  2026-11-20  1.34  x86_64  580     {agent}  beta, stable
  ami-0000000000000000b  2026-11-20  1.34  x86_64  580     {agent}  was stable
  ami-0000000000000000c  2026-11-20  1.34  x86_64  580     {agent}  unverified
  ami-0000000000000000e  2026-11-20  1.34  x86_64  580     {agent}
al2023-standard-1.35-arm64
  ami-0000000000000000d  2026-11-20  1.35  arm64   none    {agent}  pending",
            agent = env!("CARGO_PKG_VERSION")
        );
        assert_eq!(text, expected);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
}
