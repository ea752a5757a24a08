//! `lab status`: what the supervisor knows, as a table or as JSON.

use anyhow::{Context as _, bail};
use contract::ExitCode;
use serde_json::Value;

use crate::cli::{Output, Place, StatusArgs};
use crate::output;
use crate::supervisor::Phase;

pub(super) async fn run(arguments: &StatusArgs) -> anyhow::Result<ExitCode> {
    let body = ask(&arguments.place).await?;
    output::data(&match arguments.output {
        Output::Json => serde_json::to_string_pretty(&body)? + "\n",
        Output::Table => table(&body),
    });
    Ok(ExitCode::Success)
}

/// What the supervisor knows.
pub(super) async fn ask(place: &Place) -> anyhow::Result<Value> {
    let (_, record) = super::live(&place.dir)?;
    if record.phase != Phase::Serving {
        bail!("the lab in `{}` is still coming up", place.dir.display());
    }
    let (status, body) = crate::supervisor::ask(&record, "/status", None)
        .await
        .context("the lab's supervisor does not answer: end it with lab down and start another")?;
    if status != 200 {
        bail!("the lab's supervisor answered with {status}");
    }
    Ok(body)
}

/// Columns of the node table: heading, and the field that they show.
const COLUMNS: [(&str, &str); 7] = [
    ("NODE", "node"),
    ("INSTANCE", "instance"),
    ("TYPE", "type"),
    ("ADDRESS", "address"),
    ("STAGE", "stage"),
    ("JOIN/WATCH/KUBELET", "pids"),
    ("FAULTS", "faults"),
];

fn table(status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut out = format!(
        "lab in {}, pid {}, since {}, durations × {}\n\n",
        text(&status["directory"]),
        status["supervisor"],
        text(&status["since"]),
        status["speed"]
    );
    for (name, part) in status["components"].as_object().into_iter().flatten() {
        let endpoint = part["endpoint"].as_str().map(|e| format!(" at {e}")).unwrap_or_default();
        let (kind, what) = (text(&part["kind"]), text(&part["what"]));
        out.push_str(&format!("{name:<11} {kind:<9} {what}{endpoint}\n"));
    }
    let nodes: Vec<&Value> = status["nodes"].as_array().into_iter().flatten().collect();
    if nodes.is_empty() {
        out.push_str("\nno nodes\n");
    } else {
        out.push('\n');
        out.push_str(&node_table(&nodes));
        let imds = if status["machines"].is_null() { ":1338 IMDS, " } else { "" };
        out.push_str(&format!("\nper address: {imds}:9400/metrics, :10248/healthz of kubelet\n"));
    }
    if let Some(settings) = status["machines"]["settings"].as_str() {
        out.push_str(&format!("\nmachines, beyond AL2023 ({settings}):\n"));
        let lines = status["machines"]["text"].as_str().unwrap_or_default().lines();
        out.extend(lines.map(|line| format!("  {line}\n")));
    }
    for fault in status["faults"].as_array().into_iter().flatten() {
        if fault["state"] == "remembered" || fault["target"] == "all" {
            let (target, name) = (text(&fault["target"]), text(&fault["fault"]));
            out.push_str(&format!("fault {target} {name} ({})\n", text(&fault["state"])));
        }
    }
    out
}

fn node_table(nodes: &[&Value]) -> String {
    let mut rows = vec![COLUMNS.map(|(heading, _)| heading.to_owned())];
    rows.extend(nodes.iter().map(|node| COLUMNS.map(|(_, field)| cell(node, field))));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
        if let Some(node) = number.checked_sub(1).and_then(|n| nodes.get(n)) {
            let line = node["console"].as_str().unwrap_or_default();
            let cut: String = line.chars().take(150).collect();
            out.push_str(&format!("  {cut}\n"));
        }
    }
    out
}

fn cell(node: &Value, field: &str) -> String {
    match field {
        "node" => match node["index"].as_u64() {
            Some(index) => format!("{}/{index}", node["pool"].as_str().unwrap_or_default()),
            None => "-".to_owned(),
        },
        "pids" => ["join", "watch", "kubelet"]
            .map(|name| node["pids"][name].as_i64().map_or("-".into(), |pid| pid.to_string()))
            .join("/"),
        "faults" => {
            let faults = node["faults"].as_array().into_iter().flatten();
            faults.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        _ => node[field].as_str().unwrap_or_default().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_shows_nodes_faults_and_what_is_real() {
        let status = json!({
            "directory": "/d", "supervisor": 7, "since": "t", "speed": 0.02,
            "components": {"aws": {"kind": "stand-in", "what": "moto", "endpoint": "http://x"}},
            "nodes": [{
                "pool": "gpu", "index": 1, "instance": "i-1", "type": "p5.48xlarge",
                "address": "127.64.0.2", "stage": "running",
                "pids": {"join": 5, "watch": 6, "kubelet": null},
                "faults": ["gpu-missing"], "console": "last words",
            }],
            "faults": [
                {"target": "gpu/1", "fault": "gpu-missing", "state": "active"},
                {"target": "gpu/3", "fault": "driver-hang", "state": "remembered"},
            ],
        });
        let table = table(&status);
        for part in [
            "aws         stand-in  moto at http://x",
            "gpu/1  i-1       p5.48xlarge  127.64.0.2  running  5/6/-",
            "  last words",
            "fault gpu/3 driver-hang (remembered)",
        ] {
            assert!(table.contains(part), "no `{part}` in:\n{table}");
        }
    }
}
