//! `control verify`: the checks that an operator makes on a running fleet, in one go.

use contract::ExitCode;

use crate::cli::{Format, VerifyArgs, VerifyFormat};
use crate::commands::{Context, fleet};
use crate::output::Style;
use crate::output::text::wrap;
use crate::verify::{Outcome, Verified, gather, judge, junit};

/// The columns that a screen is made for.
const WIDTH: usize = 80;

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer, or there is no fleet.
pub async fn run(args: &VerifyArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let verified = judge(&gather(&found.clients, found.required()?).await?);
    let printer = context.printer;
    match args.output {
        VerifyFormat::Table => printer.data(Format::Table, &verified, screen)?,
        VerifyFormat::Json => printer.data(Format::Json, &verified, screen)?,
        VerifyFormat::Yaml => printer.data(Format::Yaml, &verified, screen)?,
        VerifyFormat::Junit => printer.line(junit(&verified)),
    }
    Ok(code(&verified))
}

/// Nodes that failed have a code of their own; whatever else failed, the fleet is not as it should be.
fn code(verified: &Verified) -> ExitCode {
    let failed: Vec<_> = verified.failed().map(|check| check.name).collect();
    match failed.as_slice() {
        [] => ExitCode::Success,
        names if names.iter().all(|name| ["nodes", "gpus"].contains(name)) => ExitCode::NodesFailed,
        _ => ExitCode::Error,
    }
}

fn screen(verified: &Verified, style: Style) -> String {
    let mut out = format!("{}\n\n", style.bold(&verified.fleet));
    for check in &verified.checks {
        let mark = match check.outcome {
            Outcome::Pass => style.green("✓"),
            Outcome::Fail => style.red("✗"),
            Outcome::Skipped => style.dim("–"),
            Outcome::Unknown => style.yellow("?"),
        };
        let detail = wrap(&check.detail, 12, WIDTH);
        out.push_str(&format!("  {mark} {:8}{}\n", check.name, detail.trim_start()));
        if matches!(check.outcome, Outcome::Fail | Outcome::Unknown) {
            let same = wrap(&format!("look: {}", check.same), 12, WIDTH);
            out.push_str(&format!("{}\n", style.dim(same)));
        }
    }
    let failed = verified.failed().count();
    out.push_str(&match failed {
        0 => format!("\n{}\n", style.green("All is as it should be.")),
        failed => {
            let of = verified.checks.len();
            format!(
                "\n{}; control diagnose says why\n",
                style.red(format!("{failed} of {of} failed"))
            )
        }
    });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Check;

    fn check(name: &'static str, outcome: Outcome) -> Check {
        Check { name, outcome, detail: "found".into(), same: "kubectl".into() }
    }

    #[test]
    fn the_screen_says_what_failed_and_the_code_whose_it_is() {
        let of = |checks| Verified { fleet: "prod".into(), checks };
        let nodes = of(vec![check("api", Outcome::Pass), check("nodes", Outcome::Fail)]);
        let expected = "\
prod

  ✓ api     found
  ✗ nodes   found
            look: kubectl

1 of 2 failed; control diagnose says why
";
        assert_eq!(screen(&nodes, Style::PLAIN), expected);
        assert_eq!(code(&nodes), ExitCode::NodesFailed);
        let api = of(vec![check("api", Outcome::Unknown), check("nodes", Outcome::Fail)]);
        assert_eq!(code(&api), ExitCode::Error);
        assert_eq!(code(&of(vec![check("gpus", Outcome::Skipped)])), ExitCode::Success);
    }
}
