//! `make e2e`: the suite on a lab of its own, on the best gear that this machine has or the one that
//! is asked for. Says which parts are real, and what it does not tell and why.
#![expect(clippy::print_stderr, reason = "what the suite says of its progress is its purpose")]

use std::process::ExitCode as ProcessExit;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use e2e::programs::Programs;
use e2e::suite::poll::side_by_side;
use e2e::suite::stories::{ACTS, Needs, Story};
use e2e::suite::{Suite, remains};
use e2e::world::World;
use lab::gear::{KubernetesGear, NodesGear};
use tokio::signal::unix::{SignalKind, signal};

/// The stories of a fleet's and its nodes' lives, against a lab.
#[derive(Debug, Parser)]
#[command(name = "e2e", version)]
struct Cli {
    /// What serves the Kubernetes API
    #[arg(long, value_enum, default_value_t = KubernetesGear::Real)]
    kubernetes: KubernetesGear,
    /// What a node is
    #[arg(long, value_enum, default_value_t = NodesGear::Machine)]
    nodes: NodesGear,
    /// Tell the long versions too: nothing shortened for the suite's sake
    #[arg(long)]
    full: bool,
    /// Tell these stories alone, between the way up and the way down
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> ProcessExit {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    match runtime.context("could not start the runtime").and_then(|rt| rt.block_on(run(&cli))) {
        Ok(()) => ProcessExit::SUCCESS,
        Err(error) => {
            eprintln!("e2e: FAILED: {error:#}");
            ProcessExit::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let started = Instant::now();
    if let Err(why) = lab::gear::choose(cli.kubernetes, cli.nodes) {
        ensure!(std::env::var("REQUIRE").as_deref() != Ok("1"), "{why}");
        eprintln!("e2e: skipped, nothing was shown: {why}");
        return Ok(());
    }
    let programs = Programs::of_this_build()?;
    let dir = programs.root.join("target/e2e");
    std::fs::create_dir_all(&dir).with_context(|| format!("could not make `{}`", dir.display()))?;
    let lab = dir.join("lab");
    let gear =
        ["--kubernetes", &value(cli.kubernetes), "--nodes", &value(cli.nodes)].map(str::to_owned);
    let speed = ["--speed".to_owned(), "0.005".to_owned()];
    let options: Vec<&str> = gear.iter().chain(&speed).map(String::as_str).collect();
    let before = remains::of_lab(&lab);
    let world = World::up(&lab, &options).await?;
    let suite = Suite::on(world, &dir, cli.full)?;
    say_what_is_real(&suite).await?;

    let mut terminated = signal(SignalKind::terminate()).context("could not listen for signals")?;
    let told = tokio::select! {
        told = tell(&suite, cli) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
        _ = terminated.recv() => Err(anyhow::anyhow!("terminated")),
    };
    let ended = suite.world.down().await;
    told.and(ended)?;
    let mut left = remains::of_lab(&lab);
    // What another lab left on this machine before is not ours to judge.
    left.retain(|thing| !before.contains(thing));
    ensure!(left.is_empty(), "the lab has left behind: {left:#?}");
    eprintln!("e2e: passed in {} s; nothing is left", started.elapsed().as_secs());
    Ok(())
}

fn value(gear: impl clap::ValueEnum) -> String {
    gear.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}

async fn say_what_is_real(suite: &Suite) -> anyhow::Result<()> {
    let status = suite.world.lab_status().await?;
    for (name, part) in status["components"].as_object().into_iter().flatten() {
        let text = |key: &str| part[key].as_str().unwrap_or_default().to_owned();
        eprintln!("e2e: {name:<11} {:<9} {}", text("kind"), text("what"));
    }
    Ok(())
}

async fn tell(suite: &Suite, cli: &Cli) -> anyhow::Result<()> {
    let mut failed = 0;
    for act in ACTS {
        let told = act.iter().filter(|story| is_asked_for(**story, &cli.only));
        let told: Vec<bool> = side_by_side(told.map(|story| one(suite, *story))).await;
        failed += told.iter().filter(|shown| !**shown).count();
        // Without a fleet there is nothing to tell.
        if failed > 0 && act.contains(&Story::Up) {
            bail!("the fleet did not come up");
        }
    }
    ensure!(failed == 0, "{failed} stories were not so");
    Ok(())
}

fn is_asked_for(story: Story, only: &[String]) -> bool {
    let name = format!("{story:?}");
    matches!(story, Story::Up | Story::Down) || only.is_empty() || only.contains(&name)
}

/// Tells one story; true when what it shows is so, or cannot be shown on this gear.
async fn one(suite: &Suite, story: Story) -> bool {
    if story.needs() == Needs::Machines && !suite.has_machines {
        eprintln!("e2e: not told on process nodes: {}", story.title());
        return true;
    }
    let started = Instant::now();
    let told = story.tell(suite).await;
    let seconds = started.elapsed().as_secs();
    match &told {
        Ok(()) => eprintln!("e2e: ✓ {seconds:>3} s  {}", story.title()),
        Err(why) => eprintln!("e2e: ✗ {seconds:>3} s  {} ({story:?})\n{why:#}", story.title()),
    }
    told.is_ok()
}
