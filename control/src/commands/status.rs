//! `control status`: the fleet as it is now. Layers first, then each node with its reason.

use std::fmt::Write as _;

use contract::ExitCode;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::aws::Clients;
use crate::aws::eks::{self, ClusterFacts};
use crate::cli::{Format, StatusArgs};
use crate::commands::{Context, fleet};
use crate::diagnose::layers::{self, LayerRow, LayerState};
use crate::diagnose::survey::survey;
use crate::diagnose::{NodeState, NodeVerdict, Stage, histogram, judge};
use crate::kube::{self, Cluster};
use crate::output::Style;
use crate::output::text::shorten;

/// The columns that a screen is made for.
const WIDTH: usize = 80;

/// Runs the verb.
///
/// # Errors
/// When AWS does not answer, or several fleets exist.
pub async fn run(args: &StatusArgs, context: &Context<'_>) -> anyhow::Result<ExitCode> {
    let found = fleet::find(&args.fleet, context.global).await?;
    let Some(name) = found.name.as_deref() else {
        let status = Status::none(&found.clients.region);
        context.printer.data(args.output.output, &status, screen)?;
        return Ok(ExitCode::Success);
    };
    let (facts, cluster) = reach(&found.clients, name).await?;
    let (survey, layer_facts) = tokio::join!(
        survey(&found.clients, cluster.as_ref(), name),
        layers::read(&found.clients, cluster.as_ref(), facts.as_ref(), name),
    );
    let survey = survey?;
    let verdicts: Vec<NodeVerdict> =
        judge(&survey.nodes, Timestamp::now()).into_iter().map(|(verdict, _)| verdict).collect();
    let layers = layers::rows(&layer_facts, &verdicts);
    let status = Status::of(name, &found.clients.region, facts.as_ref(), layers, &verdicts);
    context.printer.data(args.output.output, &status, screen)?;
    if args.output.output == Format::Table {
        for unknown in &survey.unknowns {
            context.printer.note(format!("note: {unknown}"));
        }
    }
    Ok(if status.failed() > 0 { ExitCode::NodesFailed } else { ExitCode::Success })
}

/// The cluster's facts and a client for it; none while there is nothing to reach.
///
/// # Errors
/// When EKS does not answer. A cluster that cannot be reached is no error: the rows say so.
pub(super) async fn reach(
    clients: &Clients,
    fleet: &str,
) -> anyhow::Result<(Option<ClusterFacts>, Option<Cluster>)> {
    let facts = eks::cluster_facts(clients, fleet).await?;
    let cluster = match &facts {
        Some(facts) => Some(kube::connect(facts, clients.credentials.clone()).await?),
        None => None,
    };
    Ok((facts, cluster))
}

#[derive(Debug, Serialize)]
struct Status {
    fleet: Option<String>,
    region: String,
    version: Option<String>,
    layers: Vec<LayerRow>,
    nodes: Vec<NodeRow>,
    reasons: Map<String, Value>,
}

#[derive(Debug, Serialize)]
struct NodeRow {
    pool: String,
    class: String,
    index: usize,
    instance: String,
    name: Option<String>,
    zone: String,
    #[serde(rename = "type")]
    instance_type: String,
    verdict: NodeState,
    stage: &'static str,
    progress: &'static str,
    gpus: Gpus,
    reasons: Vec<String>,
    summary: String,
}

#[derive(Debug, Serialize)]
struct Gpus {
    expected: Option<u32>,
    offered: Option<u32>,
}

impl Status {
    fn none(region: &str) -> Self {
        Self {
            fleet: None,
            region: region.to_owned(),
            version: None,
            layers: Vec::new(),
            nodes: Vec::new(),
            reasons: Map::new(),
        }
    }

    fn of(
        fleet: &str,
        region: &str,
        facts: Option<&ClusterFacts>,
        layers: Vec<LayerRow>,
        verdicts: &[NodeVerdict],
    ) -> Self {
        Self {
            fleet: Some(fleet.to_owned()),
            region: region.to_owned(),
            version: facts.map(|facts| facts.version.clone()),
            layers,
            nodes: verdicts.iter().map(NodeRow::of).collect(),
            reasons: histogram(verdicts).into_iter().map(|(name, n)| (name, n.into())).collect(),
        }
    }

    fn count(&self, state: NodeState) -> usize {
        self.nodes.iter().filter(|node| node.verdict == state).count()
    }

    fn failed(&self) -> usize {
        self.count(NodeState::Failed)
    }
}

impl NodeRow {
    fn of(verdict: &NodeVerdict) -> Self {
        Self {
            pool: verdict.pool.clone(),
            class: verdict.layer.clone(),
            index: verdict.index,
            instance: verdict.instance.clone(),
            name: verdict.node_name.clone(),
            zone: verdict.zone.clone(),
            instance_type: verdict.instance_type.clone(),
            verdict: verdict.state,
            stage: verdict.stage.label(),
            progress: verdict.progress(),
            gpus: Gpus { expected: verdict.gpus_expected, offered: verdict.gpus_offered },
            reasons: verdict.reasons.iter().map(|f| f.reason.as_str().to_owned()).collect(),
            summary: verdict.reasons.first().map(|f| f.summary.clone()).unwrap_or_default(),
        }
    }

    fn is_unknown(&self) -> bool {
        self.stage == Stage::Unknown.label()
    }

    fn gpus(&self) -> String {
        match (self.gpus.offered, self.gpus.expected) {
            (_, Some(0)) => "-".into(),
            (None, Some(expected)) if self.is_unknown() => {
                format!("?/{expected}")
            }
            (offered, expected) => {
                let text = |n: Option<u32>| n.map_or_else(|| "?".into(), |n| n.to_string());
                format!("{}/{}", offered.unwrap_or(0), text(expected))
            }
        }
    }
}

fn screen(status: &Status, style: Style) -> String {
    let Some(fleet) = &status.fleet else {
        return format!("no fleet in {}: nothing is owned", status.region);
    };
    let version = status.version.as_ref().map(|v| format!(" · EKS {v}")).unwrap_or_default();
    let mut text = format!("{} · {}{version}\n\n", style.bold(fleet), status.region);
    for row in &status.layers {
        let mark = match row.state {
            LayerState::Ready => style.green("✓"),
            LayerState::Building => style.yellow("…"),
            LayerState::Failed => style.red("✗"),
            LayerState::Absent => style.dim("–"),
            LayerState::Unknown => style.yellow("?"),
        };
        let detail = shorten(&row.detail, WIDTH - 12);
        _ = writeln!(text, "{:<9} {mark} {detail}", row.layer.label());
    }
    let width = status.nodes.iter().map(|node| place(node).len()).max().unwrap_or(0);
    let mut pool = None;
    for node in &status.nodes {
        if pool != Some(&node.pool) {
            pool = Some(&node.pool);
            text.push_str(&pool_head(status, node, style));
        }
        text.push_str(&node_line(node, width, style));
    }
    text.push_str(&foot(status, style));
    text
}

fn place(node: &NodeRow) -> String {
    format!("{}/{}", node.pool, node.index)
}

fn pool_head(status: &Status, of: &NodeRow, style: Style) -> String {
    let nodes: Vec<&NodeRow> = status.nodes.iter().filter(|node| node.pool == of.pool).collect();
    let ready = nodes.iter().filter(|node| node.verdict == NodeState::Ready).count();
    format!(
        "\n{} · {} · {ready} of {} ready\n",
        style.bold(&of.pool),
        of.instance_type,
        nodes.len()
    )
}

fn node_line(node: &NodeRow, width: usize, style: Style) -> String {
    let progress = format!("{:<9}", node.progress);
    let (mark, progress) = match node.verdict {
        _ if node.is_unknown() => (style.yellow("?"), style.yellow(progress)),
        NodeState::Ready => (style.green("✓"), style.green(progress)),
        NodeState::Joining => (style.yellow("…"), style.yellow(progress)),
        NodeState::Failed => (style.red("✗"), style.red(progress)),
    };
    let mut line = format!(
        "  {mark} {:<width$}  {:<19}  {:<10}  {progress}  {:>4}\n",
        place(node),
        node.instance,
        node.zone,
        node.gpus(),
    );
    if let Some(reason) = node.reasons.first() {
        let summary = shorten(&node.summary, WIDTH.saturating_sub(6 + reason.len() + 2));
        let reason = match node.verdict {
            NodeState::Failed => style.red(reason),
            NodeState::Ready | NodeState::Joining => style.yellow(reason),
        };
        line.push_str(&format!("      {reason}  {summary}\n"));
    }
    line
}

fn foot(status: &Status, style: Style) -> String {
    let (ready, failed) = (status.count(NodeState::Ready), status.failed());
    let unknown = status.nodes.iter().filter(|node| node.is_unknown()).count();
    let joining = status.count(NodeState::Joining) - unknown;
    let mut text = format!("\n{ready} ready, {joining} joining, {failed} failed");
    if unknown > 0 {
        text += &format!(", {unknown} unknown");
    }
    if !status.reasons.is_empty() {
        let reasons: Vec<String> =
            status.reasons.iter().map(|(name, number)| format!("{name} {number}")).collect();
        text += &format!(" · {}", reasons.join(", "));
    }
    if let Some(node) = status.nodes.iter().find(|node| node.verdict == NodeState::Failed) {
        text += &format!("\n{} control diagnose {}", style.green("why:"), place(node));
    }
    text
}

#[cfg(test)]
mod tests {
    use contract::{Phase, Reason};

    use super::*;
    use crate::diagnose::samples::{at, failed, proven, silent};
    use crate::diagnose::verdict_of;
    use crate::stack::Layer;

    fn sample() -> Status {
        let row = |layer, state, detail: &str| LayerRow { layer, state, detail: detail.into() };
        let mut system = proven();
        system.gpus_expected = Some(0);
        system.instance.pool = "system".into();
        system.instance.layer = "system".into();
        system.instance.instance_type = "m6i.large".into();
        let short = "7 of 8 GPUs: missing on the PCI bus";
        let mut broken = failed(Reason::GpuCountShort, Phase::Drivers);
        if let crate::diagnose::Known::Known(Some(facts)) = &mut broken.report {
            facts.report.reasons[0].summary = short.into();
        }
        let verdicts = [
            verdict_of(&system, 0, at(90)),
            verdict_of(&proven(), 0, at(90)),
            verdict_of(&broken, 1, at(90)),
            verdict_of(&silent(), 2, at(90)),
        ];
        Status {
            fleet: Some("prod".into()),
            region: "us-east-1".into(),
            version: Some("1.34".into()),
            layers: vec![
                row(Layer::Network, LayerState::Ready, "vpc-1, 4 subnets, 1 of 1 NAT available"),
                row(Layer::Gpu, LayerState::Failed, "1 of 3 ready, 1 failed, 1 joining"),
            ],
            nodes: verdicts.iter().map(NodeRow::of).collect(),
            reasons: histogram(&verdicts).into_iter().map(|(k, n)| (k, n.into())).collect(),
        }
    }

    #[test]
    fn the_screen_is_the_golden_one() {
        assert_eq!(
            screen(&sample(), Style::PLAIN),
            "\
prod · us-east-1 · EKS 1.34

network   ✓ vpc-1, 4 subnets, 1 of 1 NAT available
gpu       ✗ 1 of 3 ready, 1 failed, 1 joining

system · m6i.large · 1 of 1 ready
  ✓ system/0  i-0123456789abcdef0  us-east-1a  Ready         -

h100 · p5.48xlarge · 1 of 3 ready
  ✓ h100/0    i-0123456789abcdef0  us-east-1a  Ready       8/8
  ✗ h100/1    i-0123456789abcdef0  us-east-1a  drivers     0/8
      GpuCountShort  7 of 8 GPUs: missing on the PCI bus
  … h100/2    i-0123456789abcdef0  us-east-1a  launched    0/8

2 ready, 1 joining, 1 failed · GpuCountShort 1
why: control diagnose h100/1"
        );
    }

    #[test]
    fn the_document_has_what_scripts_read() {
        let value = serde_json::to_value(sample()).unwrap();
        assert_eq!(value["layers"][1]["state"], "failed");
        let node = &value["nodes"][2];
        assert_eq!(
            (&node["verdict"], &node["gpus"]["expected"], &node["reasons"][0]),
            (&"failed".into(), &8.into(), &"GpuCountShort".into())
        );
        assert_eq!(value["reasons"], serde_json::json!({"GpuCountShort": 1}));
        assert_eq!(sample().failed(), 1);
    }

    #[test]
    fn no_fleet_is_said_in_one_line() {
        let text = screen(&Status::none("us-east-1"), Style::PLAIN);
        assert_eq!(text, "no fleet in us-east-1: nothing is owned");
    }
}
