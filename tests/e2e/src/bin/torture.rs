//! `make torture`: `control` killed after each call that changes something, and each such call's
//! answer lost, on the way up and on the way down.
#![expect(clippy::print_stderr, reason = "what it says of its progress is its purpose")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Parser;
use e2e::programs::Programs;
use e2e::torture::calls::{Call, sample};
use e2e::torture::crew::{Blows, Crew, Told};
use e2e::torture::lives::{Life, Stage, Undisturbed};
use e2e::torture::{Blow, Summary, Tally, Target};

/// Reads of each way that are struck.
const READS: usize = 50;
/// Labs side by side at most, unless more are asked for: each is half a dozen processes.
const MOST_LABS: usize = 6;

/// `control` killed after each of its calls, and the answers of its calls lost.
#[derive(Debug, Parser)]
#[command(name = "torture", version)]
struct Cli {
    /// Strike so many calls alone, chosen by the seed
    #[arg(long)]
    sample: Option<usize>,
    /// What chooses the sample, and the reads
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Labs side by side; twice the cores without it
    #[arg(long)]
    labs: Option<usize>,
    /// Strike only calls whose name has this in it
    #[arg(long)]
    only: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let here = tokio::task::LocalSet::new();
    let runtime = runtime.context("could not start the runtime");
    match runtime.and_then(|runtime| here.block_on(&runtime, run(&cli))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("torture: FAILED: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> anyhow::Result<()> {
    let dir = Programs::of_this_build()?.root.join("target/torture");
    let began = Instant::now();
    let first = Stage::open(&dir.join("lab-1")).await?;
    let model = Arc::new(first.undisturbed().await?);
    let mut summary = Summary::default();
    let lives = plan(cli, &model, &mut summary);
    let count = lives.len();
    let labs = cli.labs.unwrap_or_else(labs).clamp(1, count.div_ceil(2).max(1));
    summary.told.insert("seed".into(), cli.seed.into());
    summary.told.insert("labs".into(), labs.into());
    summary.told.insert("gear".into(), "API server stand-in, process nodes, agent's double".into());
    let path = dir.join("summary.json");
    eprintln!("torture: {count} lives in {labs} labs");
    let mut crew = Crew::set(first, (&dir, labs), &model, lives);
    let mut number = 0;
    while let Some(told) = crew.told().await {
        number += 1;
        let at = format!("{number}/{count} {:>4} s", began.elapsed().as_secs());
        record(&mut summary, &told, &at);
        summary.told.insert("seconds".into(), began.elapsed().as_secs().into());
        summary.write(&path)?;
    }
    crew.disband().await?;
    let failures = summary.failures.len();
    ensure!(failures == 0, "{failures} lives did not converge: see `{}`", path.display());
    ensure!(number == count, "{number} of {count} lives were lived");
    eprintln!("torture: all {count} lives converged in {} s", began.elapsed().as_secs());
    Ok(())
}

/// A life waits more than it works.
fn labs() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| 2 * cores.get()).min(MOST_LABS)
}

/// Counts a life, and says how it went.
fn record(summary: &mut Summary, told: &Told, at: &str) {
    let (up, down) = &told.blows;
    for (target, is_up) in [(up, true), (down, false)] {
        let Some(target) = target else { continue };
        count_in(summary, target, is_up, told.lived.as_ref().ok());
    }
    let mark = match &told.lived {
        Err(_) => "✗",
        Ok(Life::Missed) => "·",
        Ok(Life::Struck) => "✓",
    };
    let said = |target: &Target| format!("{:?} {}", target.0, target.1);
    let names: Vec<String> = [up, down].into_iter().flatten().map(said).collect();
    eprintln!("torture: {mark} {at}  {}", names.join(" | "));
    if let Err(failure) = &told.lived {
        eprintln!("{failure:#}");
        summary.failures.push(format!("{failure:#}"));
    }
    if let Some(left) = &told.left {
        eprintln!("torture: what cannot be removed: {left:#}");
        summary.leftovers += 1;
        summary.failures.push(format!("leftovers: {left:#}"));
    }
}

fn count_in(summary: &mut Summary, target: &Target, is_up: bool, lived: Option<&Life>) {
    let tally = tally_of(summary, &target.1, is_up);
    if lived == Some(&Life::Missed) {
        return;
    }
    match target.0 {
        Blow::Kill => tally.killed += 1,
        Blow::LoseAnswer => tally.answer_lost += 1,
    }
    tally.converged += usize::from(lived.is_some());
}

fn tally_of<'a>(summary: &'a mut Summary, call: &Call, is_up: bool) -> &'a mut Tally {
    match (call.is_read(), is_up) {
        (true, _) => &mut summary.reads,
        (false, true) => &mut summary.up,
        (false, false) => &mut summary.down,
    }
}

/// Which blows are struck in which life.
fn plan(cli: &Cli, model: &Undisturbed, summary: &mut Summary) -> Vec<Blows> {
    let [up, down] = [(&model.up_calls, true), (&model.down_calls, false)].map(|(calls, is_up)| {
        let (reads, changing): (Vec<Call>, Vec<Call>) =
            calls.iter().cloned().partition(Call::is_read);
        tally_of(summary, &changing[0], is_up).calls = changing.len();
        summary.reads.calls += reads.len();
        let blows = |call: &Call| [Blow::Kill, Blow::LoseAnswer].map(|blow| (blow, call.clone()));
        let mut targets: Vec<Target> = changing.iter().flat_map(blows).collect();
        if cli.sample.is_none() {
            let reads = sample(&reads, READS / 2, cli.seed);
            targets.extend(reads.into_iter().map(|call| (Blow::Kill, call)));
        }
        if let Some(only) = &cli.only {
            targets.retain(|target| target.1.to_string().contains(only));
        }
        match cli.sample {
            Some(count) => sample(&targets, count.div_ceil(2), cli.seed),
            None => targets,
        }
    });
    let (mut up, mut down) = (up.into_iter(), down.into_iter());
    std::iter::from_fn(|| match (up.next(), down.next()) {
        (None, None) => None,
        both => Some(both),
    })
    .collect()
}
