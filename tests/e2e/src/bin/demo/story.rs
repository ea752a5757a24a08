//! How the demo speaks: chapters, commands as a user would type them, and checked claims.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the demo's screen is its purpose")]

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use contract::ExitCode;
use e2e::programs::Output;
use e2e::world::World;
use serde_json::Value;

/// No command of the story takes longer, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(120);

/// The teller.
#[derive(Debug)]
pub(crate) struct Story {
    /// The lab, and `control` pointed at it.
    pub(crate) world: World,
    chapter: u32,
    colour: bool,
}

impl Story {
    pub(crate) fn new(world: World) -> Self {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        Self { world, chapter: 0, colour }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A heading.
    pub(crate) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        println!("\n{}\n", self.paint("1", &format!("── {}. {title} ──", self.chapter)));
    }

    /// A remark of the teller's.
    pub(crate) fn say(&self, text: &str) {
        println!("{}", self.paint("2", text));
    }

    fn prompt(&self, command: &str) {
        println!("{} {}", self.paint("32", "$"), self.paint("1", command));
    }

    /// Runs `control` on the screen, and asks for its exit code.
    pub(crate) async fn control(&self, args: &[&str], code: ExitCode) -> anyhow::Result<()> {
        self.prompt(&format!("control {}", args.join(" ")));
        let ended = self.world.programs.run("control", args, Output::Shown, PATIENCE).await?;
        println!("{}", self.paint("2", &format!("(exit code {})\n", ended.code)));
        ended.expect(code).with_context(|| format!("`control {}`", args.join(" ")))?;
        Ok(())
    }

    /// Runs `control`, its data into a file and its progress on the screen.
    pub(crate) async fn control_to_file(&self, args: &[&str], to: &Path) -> anyhow::Result<Value> {
        let shown = to.strip_prefix(&self.world.programs.root).unwrap_or(to);
        self.prompt(&format!("control {} > {}", args.join(" "), shown.display()));
        let run = self.world.programs.run("control", args, Output::DataCaptured, PATIENCE);
        let ended = run.await?.expect(ExitCode::Success)?;
        std::fs::write(to, &ended.stdout)
            .with_context(|| format!("could not write `{}`", to.display()))?;
        println!();
        ended.json()
    }

    /// Runs `lab` on the screen.
    pub(crate) async fn lab(&self, verb: &str, args: &[&str]) -> anyhow::Result<()> {
        let dir = self.world.dir.strip_prefix(&self.world.programs.root).unwrap_or(&self.world.dir);
        let dir = dir.to_string_lossy().into_owned();
        let mut all = vec![verb, "--dir", &dir];
        all.extend(args);
        self.prompt(&format!("lab {}", all.join(" ")));
        let ended = self.world.programs.run("lab", &all, Output::Shown, PATIENCE).await?;
        ended.expect(ExitCode::Success).with_context(|| format!("`lab {}`", all.join(" ")))?;
        Ok(())
    }

    /// Runs a line of shell, shows its output and returns it.
    pub(crate) async fn shell(&self, line: &str) -> anyhow::Result<String> {
        self.prompt(line);
        let run = tokio::process::Command::new("sh").args(["-c", line]).kill_on_drop(true).output();
        let ended = tokio::time::timeout(Duration::from_secs(10), run)
            .await
            .with_context(|| format!("`{line}` has not ended"))?
            .with_context(|| format!("could not run `{line}`"))?;
        let text = String::from_utf8_lossy(&ended.stdout).into_owned();
        println!("{text}");
        Ok(text)
    }

    async fn lab_node(&self, at: &str) -> anyhow::Result<Value> {
        let status = self.world.lab_status().await?;
        let nodes = status["nodes"].as_array().context("`lab status` names no nodes")?;
        let found = nodes.iter().find(|node| {
            let index = node["index"].as_u64().unwrap_or(u64::MAX);
            format!("{}/{index}", node["pool"].as_str().unwrap_or_default()) == at
        });
        Ok(found.with_context(|| format!("`lab status` knows no {at}"))?.clone())
    }

    /// The loopback address of a node.
    pub(crate) async fn address_of(&self, at: &str) -> anyhow::Result<String> {
        let node = self.lab_node(at).await?;
        Ok(node["address"].as_str().context("a node without an address")?.to_owned())
    }

    /// Checks the claim that kubelet was never started on a node whose gate is closed.
    pub(crate) async fn kubelet_never_ran_on_failed(&self, nodes: &[Value]) -> anyhow::Result<()> {
        for node in nodes.iter().filter(|node| node["verdict"] == "failed") {
            let id = node["instance"].as_str().context("a node without an instance id")?;
            let root = self.world.dir.join("nodes").join(id).join("root");
            ensure!(!root.join("run/rollcall-gate/admitted").exists(), "{id} was admitted");
            let log = root.join("run/systemd-double/kubelet.service.log");
            ensure!(!log.exists(), "kubelet has run on {id}: `{}`", log.display());
            let registered = node["name"].as_str().is_some_and(|name| !name.is_empty())
                && node["stage"].as_str().is_some_and(|stage| stage.contains("registered"));
            ensure!(!registered, "{id} has a Node object: {node}");
        }
        self.say("Checked: kubelet was never started on the two broken nodes.");
        Ok(())
    }

    /// Checks the claim that a failed node's report is in SSM and on the console.
    pub(crate) async fn reports_on_ssm_and_console(&self, at: &str) -> anyhow::Result<()> {
        let diagnosis = self.world.control(&["diagnose", at, "-o", "json"]).await?.json()?;
        let evidence = diagnosis["evidence"].as_array().context("no evidence")?;
        for source in ["ssm", "console"] {
            let found = evidence.iter().any(|e| e["source"].as_str() == Some(source));
            ensure!(found, "{at}: nothing from {source} among the evidence: {evidence:#?}");
        }
        self.say(&format!("Checked: {at} has reported through SSM and on its console.\n"));
        Ok(())
    }

    /// The last words.
    pub(crate) fn end(&self, summary: &Value) {
        println!("{}\n{summary:#}", self.paint("1", "target/demo/summary.json"));
    }

    /// What `KEEP=1` leaves.
    pub(crate) fn how_to_look(&self) {
        let bin = self.world.programs.bin.display();
        let dir = self.world.dir.display();
        println!(
            "\nThe lab is still up. To look at it:\n\n  source {dir}/env\n  {bin}/control status\n  \
             {bin}/lab status --dir {dir}\n  ls {dir}/nodes\n\nTo end it:\n\n  \
             {bin}/control down --yes\n  {bin}/lab down --dir {dir}"
        );
    }
}

/// The nodes of one pool in `control status`.
pub(crate) fn nodes_of(status: &Value, pool: &str) -> Vec<Value> {
    let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().filter(|node| node["pool"] == pool).collect()
}

/// How many of them have this verdict.
pub(crate) fn count(nodes: &[Value], verdict: &str) -> usize {
    nodes.iter().filter(|node| node["verdict"] == verdict).count()
}

/// Says on standard error why the demo has failed.
pub(crate) fn complain(error: &anyhow::Error) {
    eprintln!("\ndemo: {error:#}");
}
