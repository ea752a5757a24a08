//! Replaces nodes that failed, where the fleet file asks for it (`replaceFailed`): what is known of
//! each is kept first, for the instance takes it along.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;

use crate::aws::{Attempted as _, Clients};
use crate::diagnose::gather::gather;
use crate::diagnose::survey::survey;
use crate::diagnose::{NodeState, NodeVerdict, rules};
use crate::kube::Cluster;
use crate::stack::{Inputs, Layer, StackError, World};

/// A node that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Its pool.
    pub pool: String,
    /// Instance id.
    pub instance: String,
    /// Why it was replaced.
    pub reason: String,
    /// The file that says what was known of it.
    pub evidence: PathBuf,
}

/// The nodes that are to be replaced now: failed ones, up to each pool's number, those that were
/// replaced in this walk counted in. Pure.
#[must_use]
pub fn chosen<'a>(
    inputs: &Inputs,
    layer: Layer,
    nodes: &'a [NodeVerdict],
    replaced: &[Replacement],
) -> Vec<&'a NodeVerdict> {
    let mut chosen = Vec::new();
    for pool in inputs.spec.pools_of(layer) {
        let before = replaced.iter().filter(|one| one.pool == pool.name).count();
        let left = (pool.replace_failed as usize).saturating_sub(before);
        let failed = nodes.iter().filter(|node| {
            node.pool == pool.name
                && node.state == NodeState::Failed
                && !replaced.iter().any(|one| one.instance == node.instance)
        });
        chosen.extend(failed.take(left));
    }
    chosen
}

/// Keeps what is known of a node, then has its group make another in its place.
///
/// # Errors
/// When the evidence cannot be kept: then the node stays; or AWS's refusal.
pub async fn replace(
    world: &World,
    cluster: Option<&Cluster>,
    node: &NodeVerdict,
) -> Result<Replacement, StackError> {
    let evidence = keep(world, cluster, node).await?;
    world.lease.prove().await?;
    let call = world.clients.autoscaling.terminate_instance_in_auto_scaling_group();
    let call = call.instance_id(&node.instance).should_decrement_desired_capacity(false);
    call.send().await.attempted(|| format!("replace the instance `{}`", node.instance))?;
    tracing::warn!(instance = node.instance, pool = node.pool, "replaced a node that failed");
    Ok(Replacement {
        pool: node.pool.clone(),
        instance: node.instance.clone(),
        reason: node.reasons.first().map_or("Unknown", |cause| cause.reason.as_str()).to_owned(),
        evidence,
    })
}

/// Writes what `control diagnose` would say, and the whole console, to a file of the instance's name.
async fn keep(
    world: &World,
    cluster: Option<&Cluster>,
    node: &NodeVerdict,
) -> Result<PathBuf, StackError> {
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    let now = Timestamp::now();
    let survey = survey(clients, cluster, fleet).await?;
    let found = survey.nodes.into_iter().find(|one| one.instance.id == node.instance);
    let diagnosis = match found {
        Some(found) => Some(rules::diagnose(&gather(clients, cluster, fleet, found).await, now)),
        None => None,
    };
    let of = diagnosis.as_ref();
    let document = json!({
        "fleet": fleet,
        "node": node,
        "replacedAt": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "candidates": of.map(|diagnosis| &diagnosis.candidates),
        "evidence": of.map(|diagnosis| &diagnosis.evidence),
        "timeline": of.map(|diagnosis| &diagnosis.timeline),
        "console": console(clients, &node.instance).await,
    });
    let path = world.evidence.join(fleet).join(format!("{}.json", node.instance));
    write(&path, document.to_string().as_bytes())
        .map_err(|source| StackError::Evidence { path: path.display().to_string(), source })?;
    Ok(path)
}

/// The console's text; what could not be read says so in its place.
async fn console(clients: &Clients, instance: &str) -> String {
    let call = clients.ec2.get_console_output().instance_id(instance).latest(true).send().await;
    match call.attempted(|| format!("read the console of `{instance}`")) {
        Ok(answer) => {
            use base64::Engine as _;
            let text = answer.output.unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(&text);
            // The SDK hands out what EC2 sent, which is base64.
            bytes.map_or(text, |bytes| String::from_utf8_lossy(&bytes).into_owned())
        }
        Err(error) => contract::ErrorChain(&error).to_string(),
    }
}

/// Writes the file whole or not at all, for its owner alone: a console says more than others need.
fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let fresh = path.with_extension("new");
    std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}

#[cfg(test)]
mod tests {
    use contract::{Phase, Reason};

    use super::*;
    use crate::diagnose::samples::{at, failed, proven};
    use crate::diagnose::verdict_of;

    fn inputs(replace_failed: u32) -> Inputs {
        let text = include_str!("../../../../examples/private.yaml");
        let mut spec = crate::config::parse(text, "private.yaml").unwrap();
        for pool in &mut spec.pools {
            pool.replace_failed = replace_failed;
        }
        let scope = crate::stack::Scope::example();
        Inputs { scope, spec, artifact: None, given: crate::stack::Given::default() }
    }

    fn node(pool: &str, instance: &str, ready: bool) -> NodeVerdict {
        let evidence = if ready { proven() } else { failed(Reason::GpuCountShort, Phase::Drivers) };
        let mut verdict = verdict_of(&evidence, 0, at(90));
        (verdict.pool, verdict.instance) = (pool.into(), instance.into());
        verdict
    }

    #[test]
    fn failed_nodes_are_replaced_up_to_the_pools_number_and_none_twice() {
        let gpu = inputs(2).spec.pools_of(Layer::Gpu).next().unwrap().name.clone();
        let nodes = [
            node(&gpu, "i-1", false),
            node(&gpu, "i-2", true),
            node(&gpu, "i-3", false),
            node(&gpu, "i-4", false),
            node("another", "i-5", false),
        ];
        let ids = |number: u32, replaced: &[Replacement]| -> Vec<String> {
            let inputs = inputs(number);
            let chosen = chosen(&inputs, Layer::Gpu, &nodes, replaced);
            chosen.iter().map(|node| node.instance.clone()).collect()
        };
        assert_eq!(ids(0, &[]), Vec::<String>::new());
        assert_eq!(ids(2, &[]), ["i-1", "i-3"]);
        let one = Replacement {
            pool: gpu.clone(),
            instance: "i-1".into(),
            reason: "GpuCountShort".into(),
            evidence: PathBuf::new(),
        };
        assert_eq!(ids(2, std::slice::from_ref(&one)), ["i-3"]);
        let two = Replacement { instance: "i-0".into(), ..one.clone() };
        assert_eq!(ids(2, &[one, two]), Vec::<String>::new());
    }
}
