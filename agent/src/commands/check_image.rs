//! `check-image`: what is wrong with an image, before it boots.

use std::process::ExitCode;

use agent::check_image::{Problem, check};
use agent::host::Root;
use serde_json::json;

use super::{print, screen};
use crate::cli::Output;

/// Prints what is wrong. Ends with 3 when anything is: such an image must not be used.
pub(crate) fn run(root: &Root, output: Output) -> ExitCode {
    let problems = check(root);
    match output {
        Output::Text => print(&text(&problems)),
        Output::Json => {
            let document = json!({
                "schema": "1.0",
                "agent": env!("CARGO_PKG_VERSION"),
                "passed": problems.is_empty(),
                "problems": problems,
            });
            print(&format!("{document:#}\n"));
        }
    }
    match problems.is_empty() {
        true => ExitCode::SUCCESS,
        false => contract::ExitCode::PreflightBlocked.into(),
    }
}

fn text(problems: &[Problem]) -> String {
    if problems.is_empty() {
        return "✓ nothing is wrong with this image\n".to_owned();
    }
    let mut text = String::new();
    for problem in problems {
        text += &format!("✗ {:?} {}\n", problem.check, problem.path);
        text += &screen::field("problem", &problem.problem);
        text += &screen::field("fix", problem.fix);
    }
    let plural = if problems.len() == 1 { "" } else { "s" };
    text + &format!("\n{} problem{plural}: this image must not be used\n", problems.len())
}

#[cfg(test)]
mod tests {
    use agent::check_image::Check;

    use super::*;

    #[test]
    fn a_problem_is_named_with_its_fix() {
        assert_eq!(text(&[]), "✓ nothing is wrong with this image\n");
        let problem = Problem {
            check: Check::KubeletEnabled,
            path: "kubelet.service".into(),
            problem: "it would start at boot, before any gate".into(),
            fix: "systemctl disable kubelet: the join starts it through nodeadm",
        };
        let expected = "\
✗ KubeletEnabled kubelet.service
  problem   it would start at boot, before any gate
  fix       systemctl disable kubelet: the join starts it through nodeadm

1 problem: this image must not be used
";
        assert_eq!(text(&[problem]), expected);
    }
}
