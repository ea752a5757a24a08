//! `lab exec`: runs a command inside a machine node.

use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, bail};
use contract::ExitCode;
use serde_json::Value;

use crate::cli::ExecArgs;
use crate::faults::Target;
use crate::output;

/// What a login on the machine has; the caller's own variables point elsewhere.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Does not return when the command could be started: this process becomes it.
pub(super) async fn run(arguments: &ExecArgs) -> anyhow::Result<ExitCode> {
    let target = match arguments.node.parse() {
        Ok(target @ Target::Node { .. }) => target,
        Ok(Target::All) | Err(_) => {
            output::progress(&format!(
                "error: `{}` is no node: name it as POOL/INDEX",
                arguments.node
            ));
            return Ok(ExitCode::Usage);
        }
    };
    let status = super::status::ask(&arguments.place).await?;
    let init = init(&status, &target)?;
    let failed = Command::new("nsenter")
        .args(["--target", &init.to_string(), "--all", "--"])
        .args(&arguments.command)
        .env_clear()
        .envs([("PATH", PATH), ("HOME", "/root")])
        .envs(std::env::var("TERM").map(|term| ("TERM", term)))
        .exec();
    Err(failed).context("could not start `nsenter`")
}

/// The pid, outside, of the machine's PID 1.
fn init(status: &Value, target: &Target) -> anyhow::Result<i64> {
    let mut nodes = status["nodes"].as_array().into_iter().flatten();
    let node = nodes.find(|node| {
        let of = |pool: &Value, index: &Value| Some((pool.as_str()?.to_owned(), index.as_u64()?));
        of(&node["pool"], &node["index"]).is_some_and(|(pool, index)| {
            matches!(target, Target::Node { pool: p, index: i } if *p == pool && u64::from(*i) == index)
        })
    });
    let Some(node) = node else {
        bail!("there is no node `{target}`: lab status shows those that are");
    };
    let Some(machine) = node.get("machine") else {
        let root = node["root"].as_str().unwrap_or_default();
        bail!("{target} is a process node, not a machine: its files are in `{root}`");
    };
    machine["init"].as_i64().with_context(|| {
        let stage = node["stage"].as_str().unwrap_or_default();
        format!("{target} is off ({stage}): its console may say why")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_command_goes_to_the_pid_1_of_the_machine_that_was_named() {
        let status = json!({"nodes": [
            {"pool": "gpu", "index": 0, "machine": {"init": 70}, "stage": "running"},
            {"pool": "gpu", "index": 1, "machine": {"init": 71}, "stage": "running"},
            {"pool": "gpu", "index": 2, "machine": {"init": null}, "stage": "off"},
            {"pool": "gpu", "index": 3, "root": "/lab/i-3/root", "stage": "running"},
        ]});
        let init = |target: &str| {
            init(&status, &target.parse().unwrap()).map_err(|error| error.to_string())
        };
        assert_eq!(init("gpu/1"), Ok(71));
        for (target, why) in [("gpu/2", "is off"), ("gpu/3", "/lab/i-3/root"), ("gpu/4", "no node")]
        {
            assert!(init(target).unwrap_err().contains(why), "{target}");
        }
    }
}
