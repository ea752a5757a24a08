//! `control wait`: ends when the cluster answers us, or when every node has its verdict. It changes
//! nothing and needs no fleet file, so that CI can wait for what somebody else builds.

use std::time::Duration;

use contract::ExitCode;
use serde::Serialize;

use crate::aws::eks::facts_of;
use crate::aws::poll::{Waited, until};
use crate::cli::{Awaited, WaitArgs};
use crate::commands::{Context, fleet, session};
use crate::diagnose::{NodeState, NodeVerdict, histogram, node_verdicts};
use crate::failure::Advice as _;
use crate::kube;
use crate::launch::managed;
use crate::layers::cluster::gate;
use crate::output::Style;
use crate::output::progress::Progress;
use crate::stack::{StackError, World};

/// How a wait ended.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Ended {
    fleet: String,
    /// Whether it came.
    came: bool,
    /// What was found, or what is missing.
    detail: String,
    /// Nodes that are ready.
    ready: usize,
    /// Nodes that failed.
    failed: usize,
}

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer, there is no fleet to wait for, or waiting cannot help.
pub async fn run(args: &WaitArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let name = found.required()?.to_owned();
    let progress = Progress::of_verb(context.printer, args.output.output);
    let world = session::world(found.clients, &name, progress).await?;
    let ended = match args.what {
        Awaited::Cluster => cluster(&world, args.timeout).await?,
        Awaited::Nodes => nodes(&world, args.timeout).await?,
    };
    context.printer.data(args.output.output, &ended, screen)?;
    Ok(match ended {
        Ended { came: false, .. } => ExitCode::GateTimedOut,
        Ended { failed: 1.., .. } => ExitCode::NodesFailed,
        Ended { .. } => ExitCode::Success,
    })
}

async fn cluster(world: &World, timeout: Duration) -> Result<Ended, StackError> {
    let (proven, facts) = gate::within(world, None, timeout).await?;
    let mut ended = Ended {
        fleet: world.scope.fleet.clone(),
        came: proven.is_open(),
        detail: proven.detail().to_owned(),
        ready: 0,
        failed: 0,
    };
    if let Some(facts) = facts.cluster.filter(|_| ended.came) {
        let failed = |error: kube::KubeError| StackError::Kubernetes {
            attempted: "count the nodes".into(),
            hint: error.hint(),
            source: Box::new(error),
        };
        let credentials = world.clients.credentials.clone();
        let cluster = kube::connect(&facts, credentials).await.map_err(failed)?;
        let nodes = cluster.nodes(None).await.map_err(failed)?;
        ended.ready = nodes.iter().filter(|node| node.is_ready()).count();
        ended.detail.push_str(&format!("; {} of {} nodes Ready", ended.ready, nodes.len()));
    }
    Ok(ended)
}

/// Every node that the node groups ask for, with its verdict.
async fn nodes(world: &World, timeout: Duration) -> Result<Ended, StackError> {
    let (clients, fleet) = (&world.clients, world.scope.fleet.as_str());
    let mut seen: Vec<NodeVerdict> = Vec::new();
    let mut desired = 0;
    let look = async || {
        let found = crate::aws::eks::cluster(clients, fleet).await?;
        let facts = found.and_then(|found| facts_of(&found, &clients.region));
        let cluster = match &facts {
            Some(facts) => kube::connect(facts, clients.credentials.clone()).await.ok(),
            None => None,
        };
        let groups = managed::list(clients, fleet).await?;
        desired = groups.iter().map(|group| group.size.desired as usize).sum();
        seen = node_verdicts(clients, cluster.as_ref(), fleet).await?;
        let joining = seen.iter().any(|node| node.state == NodeState::Joining);
        Ok((!groups.is_empty() && !joining && seen.len() >= desired).then_some(()))
    };
    let came = until(world.pace, timeout, &world.interrupt, look).await? == Waited::Came(());
    let count = |state: NodeState| seen.iter().filter(|node| node.state == state).count();
    let (ready, failed) = (count(NodeState::Ready), count(NodeState::Failed));
    let mut detail = format!("{ready} of {desired} nodes ready, {failed} failed");
    for (reason, count) in histogram(&seen) {
        detail.push_str(&format!("; {reason} {count}"));
    }
    Ok(Ended { fleet: fleet.to_owned(), came, detail, ready, failed })
}

fn screen(ended: &Ended, style: Style) -> String {
    let mark = match ended {
        Ended { came: false, .. } => style.red("✗ not in time:"),
        Ended { failed: 1.., .. } => style.red("✗"),
        Ended { .. } => style.green("✓"),
    };
    format!("{mark} {}: {}", ended.fleet, ended.detail)
}
