//! A plan in a file: `plan --out` writes it, `up --plan` does what it says and nothing else. It holds
//! as long as the same look gives the same plan.

use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use contract::ExitCode;
use serde_json::{Value, json};

use crate::commands::plan::Plan;
use crate::failure::Stated;
use crate::stack::Scope;

/// The form of the file; another one is not read.
const VERSION: u64 = 1;

/// Differences that are told; the rest is counted.
const TOLD: usize = 8;

/// A plan that was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPlan {
    shown: String,
    content: Value,
}

fn content(scope: &Scope, plan: &Plan) -> anyhow::Result<Value> {
    Ok(json!({
        "version": VERSION, "account": scope.account, "region": scope.region,
        "plan": serde_json::to_value(plan).context("no JSON of the plan")?,
    }))
}

/// Keeps a plan, whole or not at all.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, scope: &Scope, plan: &Plan) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(&content(scope, plan)?)?;
    let fresh = path.with_extension("new");
    let kept = std::fs::File::create(&fresh).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    });
    kept.with_context(|| format!("could not keep the plan in `{}`", path.display()))
}

impl SavedPlan {
    /// Reads a plan that was kept.
    ///
    /// # Errors
    /// When the file cannot be read, or is none of ours.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display().to_string();
        let refuse = |message: String| {
            Stated::new(ExitCode::PreflightBlocked, message)
                .with_hint("control plan -f FLEET --out FILE makes one")
        };
        let text = std::fs::read_to_string(path)
            .with_context(|| refuse(format!("could not read the plan `{shown}`")))?;
        let content: Value = serde_json::from_str(&text)
            .with_context(|| refuse(format!("`{shown}` is no plan of this program")))?;
        if content["version"] != VERSION {
            return Err(refuse(format!("`{shown}` is a plan of another version")).into());
        }
        Ok(Self { shown, content })
    }

    /// Refuses when reality, or the fleet file, has moved since the plan was made.
    ///
    /// # Errors
    /// What is different.
    pub fn must_hold(&self, scope: &Scope, now: &Plan) -> anyhow::Result<()> {
        let differences = differences(&self.content, &content(scope, now)?);
        if differences.is_empty() {
            return Ok(());
        }
        let more = differences.len().saturating_sub(TOLD);
        let mut told: Vec<String> = differences.into_iter().take(TOLD).collect();
        told.extend((more > 0).then(|| format!("and {more} more")));
        let message = format!("`{}` no longer holds: {}", self.shown, told.join("; "));
        let hint = "look at the fleet anew: control plan -f FLEET --out FILE";
        Err(Stated::new(ExitCode::PreflightBlocked, message).with_hint(hint).into())
    }
}

/// What two plans do not share. Pure.
fn differences(before: &Value, now: &Value) -> Vec<String> {
    let mut told = Vec::new();
    for part in ["account", "region"] {
        if before[part] != now[part] {
            told.push(format!("it is for {part} {}, this is {}", before[part], now[part]));
        }
    }
    if before["plan"]["fleet"] != now["plan"]["fleet"] {
        told.push(format!("it is for the fleet {}", before["plan"]["fleet"]));
    }
    let (old, new) = (rows(before), rows(now));
    told.extend(old.iter().filter(|row| !new.contains(row)).map(|row| format!("no more: {row}")));
    told.extend(new.iter().filter(|row| !old.contains(row)).map(|row| format!("new: {row}")));
    told
}

/// Each step in words.
fn rows(content: &Value) -> Vec<String> {
    let layers = content["plan"]["layers"].as_array().into_iter().flatten();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    layers
        .flat_map(|layer| layer["steps"].as_array().into_iter().flatten())
        .map(|step| {
            let [action, resource, name, why] =
                ["action", "resource", "name", "why"].map(|key| text(&step[key]));
            format!("{action} {resource} {name} ({why})")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::driver::{PlannedLayer, PlannedStep};
    use crate::stack::{Action, Layer};

    fn plan(names: &[&str]) -> Plan {
        let step = |name: &&str| PlannedStep {
            action: Action::Add,
            resource: "subnet",
            name: (*name).into(),
            why: "does not exist".into(),
        };
        let steps = names.iter().map(step).collect();
        Plan::of("prod", vec![PlannedLayer { layer: Layer::Network, steps }])
    }

    #[test]
    fn a_plan_holds_until_reality_moves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        write(&path, &Scope::example(), &plan(&["a", "b"])).unwrap();
        let saved = SavedPlan::read(&path).unwrap();
        saved.must_hold(&Scope::example(), &plan(&["a", "b"])).unwrap();
        let moved = saved.must_hold(&Scope::example(), &plan(&["b", "c"])).unwrap_err().to_string();
        for part in ["no more: add subnet a", "new: add subnet c"] {
            assert!(moved.contains(part), "{moved}");
        }
        let elsewhere = Scope { account: "999999999999".into(), ..Scope::example() };
        let other = saved.must_hold(&elsewhere, &plan(&["a", "b"])).unwrap_err();
        assert!(other.to_string().contains("999999999999"), "{other}");
    }

    #[test]
    fn what_is_no_plan_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plan.json");
        assert!(SavedPlan::read(&path).is_err());
        for text in ["", "{}", "{\"version\": 2}"] {
            std::fs::write(&path, text).unwrap();
            assert!(SavedPlan::read(&path).is_err(), "{text}");
        }
    }
}
