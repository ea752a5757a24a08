//! `explain`: the table of reasons, one row or all.

use std::process::ExitCode;

use contract::Reason;
use contract::reason::Weight;

use super::{complain, print};

/// Prints what a reason means; without one, lists all.
pub(crate) fn run(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        print(&list());
        return ExitCode::SUCCESS;
    };
    match name.parse::<Reason>() {
        Ok(reason) => {
            print(&explanation(reason));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("error: {error}{}", suggestion(name)));
            contract::ExitCode::Usage.into()
        }
    }
}

fn list() -> String {
    let width = Reason::ALL.iter().map(|reason| reason.name().len()).max().unwrap_or_default();
    let mut text = String::new();
    for reason in Reason::ALL {
        let entry = reason.entry();
        text += &format!("{:<width$}  {:<9}  {}\n", entry.name, entry.owner, entry.meaning);
    }
    text
}

fn explanation(reason: Reason) -> String {
    let entry = reason.entry();
    let weight = match entry.weight {
        Weight::Hard => "it closes the gate",
        Weight::Observed => "it is observed: the pool's enforceReasons can have it close the gate",
        Weight::Soft => "it is reported, and the node is admitted",
    };
    let mut text = format!(
        "{}\n  {}\n\n  seen by    {}\n  weight     {weight}\n  fix        {}\n",
        entry.name, entry.meaning, entry.owner, entry.hint
    );
    let names = |reasons: &[Reason]| {
        reasons.iter().map(|reason| reason.name()).collect::<Vec<_>>().join(", ")
    };
    if !entry.explains.is_empty() {
        text += &format!("  explains   {}\n", names(entry.explains));
    }
    let causes: Vec<Reason> = Reason::ALL
        .iter()
        .copied()
        .filter(|cause| cause.entry().explains.contains(&reason))
        .collect();
    if !causes.is_empty() {
        text += &format!("  caused by  {}\n", names(&causes));
    }
    text + &format!("  more       docs/operate.md#{}\n", reason.doc_anchor())
}

fn suggestion(name: &str) -> String {
    const ALIKE: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    let likeness =
        |reason: &Reason| strsim::jaro_winkler(&name, &reason.name().to_ascii_lowercase());
    let mut alike: Vec<_> =
        Reason::ALL.iter().map(|reason| (likeness(reason), reason.name())).collect();
    alike.sort_by(|a, b| b.0.total_cmp(&a.0));
    let near: Vec<_> =
        alike.iter().take(3).filter(|(like, _)| *like >= ALIKE).map(|(_, name)| *name).collect();
    if near.is_empty() {
        "\nhint: `rollcall-agent explain` lists them all".to_owned()
    } else {
        format!("\nhint: did you mean {}?", near.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_every_reason_once() {
        let list = list();
        assert_eq!(list.lines().count(), Reason::ALL.len());
        assert!(list.lines().any(|line| line.starts_with("GpuCountShort ")));
    }

    #[test]
    fn says_meaning_fix_and_causes() {
        let text = explanation(Reason::GpuCountShort);
        for part in
            ["Fewer GPUs", "terminate-instances", "DriverLibraryMismatch", "GpuAllocatableShort"]
        {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.ends_with("docs/operate.md#gpucountshort\n"));
    }

    #[test]
    fn a_typo_gets_the_nearest_names() {
        assert!(suggestion("GpuCountShrt").contains("GpuCountShort"));
        assert!(suggestion("driverlibmismatch").contains("DriverLibraryMismatch"));
        assert!(suggestion("zzz").contains("lists them all"));
    }
}
